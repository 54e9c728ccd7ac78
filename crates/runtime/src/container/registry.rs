//! Where images come from: registries, their mirrors, and who the node is there. All of it is the node's own; a spec
//! names an image and nothing more.
//!
//! Passwords are read from their files at each pull, so that one that was changed counts at once, and are in nothing
//! that is printed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;

use hostler_model::FailureCode;

use crate::RuntimeError;
use crate::disk;

/// The registry of images that name none, and how Docker's own file calls it.
const USUAL: &str = "docker.io";
const USUAL_IN_DOCKER: &str = "https://index.docker.io/v1/";

/// The registries that the node knows something of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries {
    /// By `host:port` as images name it; images that name none are of `docker.io`.
    pub known: BTreeMap<String, Registry>,
    /// A `config.json` of Docker's, whose logins count where none is set here.
    pub docker_config: Option<PathBuf>,
}

/// One registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    pub login: Option<Login>,
    /// Asked first, in this order: `host:port`, with a path before the image's if need be.
    pub mirrors: Vec<String>,
}

/// Who the node is at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password_file: PathBuf,
}

/// An image's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) registry: String,
    /// Its name there, with `library/` where that is left out.
    pub(super) path: String,
    /// With its `:` or `@`.
    pub(super) version: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerConfig {
    auths: BTreeMap<String, DockerLogin>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerLogin {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl Reference {
    pub(super) fn of(image: &str) -> Self {
        let (name, version) = match (image.find('@'), image.rfind(':')) {
            (Some(at), _) => image.split_at(at),
            // A port is no tag.
            (None, Some(at)) if !image[at..].contains('/') => image.split_at(at),
            (None, _) => (image, ""),
        };
        let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            Some(_) => (USUAL, name.to_owned()),
            None => (USUAL, format!("library/{name}")),
        };
        let version = if version.is_empty() {
            ":latest"
        } else {
            version
        };
        Self {
            registry: registry.to_owned(),
            path,
            version: version.to_owned(),
        }
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.version.contains('@')
    }

    /// The same image elsewhere.
    fn at(&self, mirror: &str) -> String {
        let mirror = mirror.trim_end_matches('/');
        // A tag beside a digest says nothing more.
        let version = self
            .version
            .rfind('@')
            .map_or(&*self.version, |at| &self.version[at..]);
        let path = self.path.split(':').next().unwrap_or(&self.path);
        format!("{mirror}/{path}{version}")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.path, self.version)
    }
}

impl Registries {
    /// The image at each mirror of its registry, in the order in which they are asked.
    pub(super) fn mirrored(&self, image: &str) -> Vec<String> {
        let reference = Reference::of(image);
        let known = self.known.get(&reference.registry);
        let mirrors = known.into_iter().flat_map(|registry| &registry.mirrors);
        mirrors.map(|mirror| reference.at(mirror)).collect()
    }

    /// Who the node is at the image's registry; nobody if nothing says so.
    pub(super) async fn login(
        &self,
        image: &str,
    ) -> Result<Option<DockerCredentials>, RuntimeError> {
        let registry = Reference::of(image).registry;
        let login = self
            .known
            .get(&registry)
            .and_then(|known| known.login.clone());
        let (file, config) = (self.docker_config.clone(), registry.clone());
        let read = disk::off_thread("read a login", move || {
            Ok(match (login, file) {
                (Some(login), _) => of_file(&login).map(Some),
                (None, Some(file)) => of_docker(&file, &config),
                (None, None) => Ok(None),
            })
        });
        let found = read.await?.map_err(|message| RuntimeError::Unsatisfiable {
            code: FailureCode::RegistryUnauthorized,
            message: format!("the login for {registry}: {message}"),
        })?;
        Ok(found.map(|credentials| DockerCredentials {
            serveraddress: Some(registry),
            ..credentials
        }))
    }
}

fn of_file(login: &Login) -> Result<DockerCredentials, String> {
    let path = &login.password_file;
    let password = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(credentials(
        &login.username,
        password.trim_end_matches(['\r', '\n']),
    ))
}

/// What Docker's own file says. Helpers that keep passwords elsewhere are not run.
fn of_docker(file: &Path, registry: &str) -> Result<Option<DockerCredentials>, String> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
    };
    // The reader's own words might quote what is in the file.
    let unreadable = || format!("{} is no configuration of Docker's", file.display());
    let config: DockerConfig = serde_json::from_slice(&text).map_err(|_| unreadable())?;
    let is_it = |key: &str| {
        let host = key.split_once("://").map_or(key, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or(host);
        host == registry || registry == USUAL && key == USUAL_IN_DOCKER
    };
    let found = config.auths.into_iter().find(|(key, _)| is_it(key));
    let Some((_, login)) = found else {
        return Ok(None);
    };
    if !login.identitytoken.is_empty() {
        return Ok(Some(DockerCredentials {
            identitytoken: Some(login.identitytoken),
            ..DockerCredentials::default()
        }));
    }
    if login.auth.is_empty() {
        let is_there = !login.username.is_empty();
        return Ok(is_there.then(|| credentials(&login.username, &login.password)));
    }
    let decoded = STANDARD
        .decode(login.auth.trim())
        .map_err(|_| unreadable())?;
    let decoded = String::from_utf8(decoded).map_err(|_| unreadable())?;
    let (username, password) = decoded.split_once(':').ok_or_else(unreadable)?;
    Ok(Some(credentials(username, password.trim_end_matches('\0'))))
}

fn credentials(username: &str, password: &str) -> DockerCredentials {
    DockerCredentials {
        username: Some(username.to_owned()),
        password: Some(password.to_owned()),
        ..DockerCredentials::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_taken_apart_as_docker_does() {
        for (image, registry, path, version) in [
            ("busybox", "docker.io", "library/busybox", ":latest"),
            ("busybox:1", "docker.io", "library/busybox", ":1"),
            ("team/web", "docker.io", "team/web", ":latest"),
            ("localhost/web", "localhost", "web", ":latest"),
            ("h:5000/a/web:2", "h:5000", "a/web", ":2"),
            ("h:5000/web", "h:5000", "web", ":latest"),
            ("h.io/web@sha256:12", "h.io", "web", "@sha256:12"),
            ("h.io/web:2@sha256:12", "h.io", "web:2", "@sha256:12"),
        ] {
            let (registry, path, version) =
                (registry.to_owned(), path.to_owned(), version.to_owned());
            let expected = Reference {
                registry,
                path,
                version,
            };
            assert_eq!(Reference::of(image), expected, "{image}");
        }
    }

    #[test]
    fn mirrors_are_asked_for_the_image_by_its_whole_name() {
        let mirrors = vec!["m:1".to_owned(), "n/hub/".to_owned()];
        let registry = Registry {
            mirrors,
            ..Registry::default()
        };
        let known = BTreeMap::from([("docker.io".to_owned(), registry)]);
        let registries = Registries {
            known,
            docker_config: None,
        };
        assert_eq!(
            registries.mirrored("busybox"),
            ["m:1/library/busybox:latest", "n/hub/library/busybox:latest"]
        );
        assert_eq!(
            registries.mirrored("a/web:2@sha256:12")[0],
            "m:1/a/web@sha256:12"
        );
        assert!(registries.mirrored("h:5000/web").is_empty());
    }

    #[tokio::test]
    async fn a_login_comes_from_its_file_then_from_dockers_and_is_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let (password_file, config) = (dir.path().join("password"), dir.path().join("config.json"));
        std::fs::write(&password_file, "se cret\n").unwrap();
        let auth = STANDARD.encode("ann:pass:word");
        let text = format!(
            r#"{{"auths": {{"h:1": {{"auth": "{auth}"}}, "{USUAL_IN_DOCKER}": {{"auth": "{auth}"}}, "t.x": {{"identitytoken": "tok"}}}}}}"#
        );
        std::fs::write(&config, text).unwrap();
        let login = Some(Login {
            username: "bob".to_owned(),
            password_file: password_file.clone(),
        });
        let known = BTreeMap::from([(
            "h:2".to_owned(),
            Registry {
                login,
                mirrors: Vec::new(),
            },
        )]);
        let registries = Registries {
            known,
            docker_config: Some(config.clone()),
        };
        let who = async |image: &str| {
            let login = registries.login(image).await.unwrap()?;
            Some((
                login.username.unwrap_or_default(),
                login.password.unwrap_or_default(),
            ))
        };
        let pair = |name: &str, word: &str| Some((name.to_owned(), word.to_owned()));
        assert_eq!(who("h:2/web").await, pair("bob", "se cret"));
        assert_eq!(who("h:1/web").await, pair("ann", "pass:word"));
        assert_eq!(who("busybox").await, pair("ann", "pass:word"));
        assert_eq!(who("h:3/web").await, None);
        let token = registries
            .login("t.x/web")
            .await
            .unwrap()
            .unwrap()
            .identitytoken;
        assert_eq!(token.as_deref(), Some("tok"));
        assert!(!format!("{registries:?}").contains("cret"));

        std::fs::remove_file(&password_file).unwrap();
        std::fs::write(&config, r#"{"auths": {"h:1": {"auth": "tell nobody"}}}"#).unwrap();
        for image in ["h:2/web", "h:1/web"] {
            let error = registries.login(image).await.unwrap_err();
            assert_eq!(error.code(), "registry-unauthorized");
            assert!(!error.to_string().contains("tell"), "{error}");
        }
    }
}
