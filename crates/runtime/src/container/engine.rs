//! The connection to the engine, and what its refusals mean.
//!
//! The API has status codes, and they decide wherever they can. Three causes have none of their own and are
//! told by the engine's text: a port that is taken, a program that is not in the image, a full disk. The
//! texts are those of Docker 19.03 to 29 and of Podman's compatible API; one that is not recognised still
//! is a refusal with the engine's own words.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{ClientVersion, Docker};
use hostler_model::spec::WorkloadSpec;
use hostler_model::{FailureCode, UnitId};
use tokio::sync::OnceCell;

use super::found::Inspected;
use crate::RuntimeError;

/// A request that is not answered in this time will not be. Pulls and waits are streams, of which this
/// bounds only the beginning.
const ANSWER_SECONDS: u64 = 120;
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// The engine is there, but its socket is not for us.
const DENIED: &str = "this user may not open its socket; run the agent as root, or add its user to the \
                      socket's group (usually `docker`) and start the agent again";
/// New engines refuse the old versions, old engines the new ones; each engine takes one of these.
const VERSIONS: [ClientVersion; 3] = [
    ClientVersion {
        major_version: 1,
        minor_version: 44,
    },
    // The first that measures a container without waiting for a second look.
    ClientVersion {
        major_version: 1,
        minor_version: 41,
    },
    ClientVersion {
        major_version: 1,
        minor_version: 40,
    },
];

/// A network of the node's own that a spec names is not there.
pub(super) const NETWORK_MISSING: FailureCode = FailureCode::NetworkNotFound;

/// What the engine says first of a mount whose source is not there or cannot be read.
const MOUNT_REFUSED: &str = "invalid mount config for type \"bind\"";

/// Podman calls a container `stopped` from its end until it is cleaned up. Docker has no such state, and the
/// client cannot read an answer that holds it; it passes in moments.
const UNREADABLE_LOOKS: usize = 40;
const UNREADABLE_PAUSE: Duration = Duration::from_millis(50);

/// Where the engine is, and the client once it has answered.
pub(crate) struct Engine {
    address: String,
    client: OnceCell<Client>,
    place: OnceCell<PathBuf>,
}

struct Client {
    docker: Docker,
    is_podman: bool,
}

/// The engine's "no".
#[derive(Debug)]
pub(crate) struct Refused {
    status: u16,
    pub(crate) message: String,
}

/// Tells an engine that refuses from one that does not answer.
pub(crate) trait Attempt<T> {
    fn attempt(self) -> Result<Result<T, Refused>, RuntimeError>;

    /// The answer, where the caller has one meaning for every refusal.
    fn or_refused(self, meaning: impl FnOnce(Refused) -> RuntimeError) -> Result<T, RuntimeError>
    where
        Self: Sized,
    {
        self.attempt()?.map_err(meaning)
    }

    /// The answer, where a refusal can only mean that the engine is not well.
    fn or_down(self) -> Result<T, RuntimeError>
    where
        Self: Sized,
    {
        self.or_refused(|refused| down(refused.message))
    }
}

impl<T> Attempt<T> for Result<T, Error> {
    fn attempt(self) -> Result<Result<T, Refused>, RuntimeError> {
        match self {
            Ok(answer) => Ok(Ok(answer)),
            Err(Error::DockerResponseServerError {
                status_code,
                message,
            }) => Ok(Err(Refused {
                status: status_code,
                message,
            })),
            // Said in the middle of an answer that began well.
            Err(Error::DockerStreamError { error }) => Ok(Err(Refused {
                status: 500,
                message: error,
            })),
            Err(error) if is_denied(&error) => Err(down(DENIED.to_owned())),
            Err(error) => Err(down(chain(&error))),
        }
    }
}

/// Asks until the answer can be read; after that many looks it is the engine that is out of reach.
pub(crate) async fn readable<T, A>(mut ask: impl FnMut() -> A) -> Result<T, Error>
where
    A: Future<Output = Result<T, Error>>,
{
    for _ in 1..UNREADABLE_LOOKS {
        match ask().await {
            Err(Error::JsonDataError { .. }) => tokio::time::sleep(UNREADABLE_PAUSE).await,
            answer => return answer,
        }
    }
    ask().await
}

impl Engine {
    pub(crate) fn at(address: String) -> Self {
        Self {
            address,
            client: OnceCell::new(),
            place: OnceCell::new(),
        }
    }

    /// The client. The first call finds out which version of the API the engine speaks.
    pub(crate) async fn docker(&self) -> Result<Docker, RuntimeError> {
        let client = self.client.get_or_try_init(|| self.connect()).await?;
        Ok(client.docker.clone())
    }

    /// Where it keeps images and volumes, if it is on this machine and says so.
    pub(crate) async fn place(&self) -> Option<PathBuf> {
        if self.address.starts_with("tcp://") {
            return None;
        }
        let ask = || async {
            let docker = self.docker().await.map_err(drop)?;
            let told = docker.info().await.map_err(drop)?;
            let place = told.docker_root_dir.map(PathBuf::from).ok_or(())?;
            if place.is_dir() { Ok(place) } else { Err(()) }
        };
        self.place.get_or_try_init(ask).await.ok().cloned()
    }

    /// Whether it is a Podman: where that differs from Docker, we make up for it.
    pub(crate) async fn is_podman(&self) -> Result<bool, RuntimeError> {
        let client = self.client.get_or_try_init(|| self.connect()).await?;
        Ok(client.is_podman)
    }

    async fn connect(&self) -> Result<Client, RuntimeError> {
        let mut last = None;
        for version in VERSIONS {
            let docker = match self.address.strip_prefix("tcp://") {
                Some(address) => Docker::connect_with_http(address, ANSWER_SECONDS, &version),
                None => Docker::connect_with_unix(&self.address, ANSWER_SECONDS, &version),
            };
            let docker = docker.or_down()?.with_request_modifier(for_urls);
            let answer = tokio::time::timeout(PROBE_TIMEOUT, docker.version()).await;
            match answer
                .unwrap_or(Err(Error::RequestTimeoutError))
                .attempt()?
            {
                Ok(version) => {
                    let parts = version.components.unwrap_or_default();
                    let is_podman = parts.iter().any(|part| part.name.starts_with("Podman"));
                    return Ok(Client { docker, is_podman });
                }
                Err(refused) => last = Some(refused),
            }
        }
        Err(down(
            last.map_or_else(String::new, |refused| refused.message),
        ))
    }
}

/// The client writes logins in the common alphabet of base 64, and engines read the one for addresses: a login that
/// holds one of the two digits that differ would count as none.
fn for_urls(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    if let Some(login) = request.headers_mut().get_mut("X-Registry-Auth") {
        let text = login
            .to_str()
            .map(|text| text.replace('+', "-").replace('/', "_"));
        if let Some(Ok(mut rewritten)) = text.ok().map(|text| text.parse()) {
            std::mem::swap(login, &mut rewritten);
        }
        login.set_sensitive(true);
    }
    request
}

impl Refused {
    pub(crate) const fn is_not_found(&self) -> bool {
        self.status == 404
    }

    pub(crate) const fn is_conflict(&self) -> bool {
        self.status == 409
    }

    /// What it means for a verb on a container that was there.
    pub(crate) fn of_unit(self, id: UnitId) -> RuntimeError {
        if self.is_not_found() {
            RuntimeError::NotFound(id)
        } else {
            self.of_engine()
        }
    }

    /// What it means for the creation of a container.
    pub(crate) fn of_spec(self, spec: &WorkloadSpec) -> RuntimeError {
        match &spec.container {
            Some(container) if self.is_not_found() => RuntimeError::Image {
                image: container.image.clone(),
                message: self.message,
            },
            _ => mount_failure(&self.message).unwrap_or_else(|| self.of_engine()),
        }
    }

    /// Whether what an engine that was killed had begun to start is in the way of every later start.
    pub(super) fn is_stuck(&self) -> bool {
        self.message.starts_with("task ") && self.message.ends_with(": already exists")
    }

    /// What it means for the start of a container.
    pub(super) fn of_start(self, id: UnitId, seen: &Inspected) -> RuntimeError {
        start_failure(&self.message, &seen.ports, &seen.program).unwrap_or_else(|| self.of_unit(id))
    }

    pub(crate) fn unsatisfiable(self, code: FailureCode) -> RuntimeError {
        RuntimeError::Unsatisfiable {
            code,
            message: self.message,
        }
    }

    /// What it means when nothing more is known.
    pub(crate) fn of_engine(self) -> RuntimeError {
        if self.message.contains("no space left on device") {
            return RuntimeError::DiskFull;
        }
        match self.status {
            400..=499 => RuntimeError::Unsatisfiable {
                code: FailureCode::ContainerRefused,
                message: self.message,
            },
            _ => RuntimeError::Io {
                context: "the container engine".to_owned(),
                source: io::Error::other(self.message),
            },
        }
    }

    pub(crate) fn of_image(self, image: &str) -> RuntimeError {
        if self.message.contains("no space left on device") {
            return RuntimeError::DiskFull;
        }
        of_image(image, self.message)
    }
}

/// What the engine's words mean for an image. What a registry says every engine hands on, under whatever status: that
/// there is none of that name, that it wants another login, or something that is not what was asked for. Anything
/// else may pass.
pub(super) fn of_image(image: &str, message: String) -> RuntimeError {
    const CAUSES: [(FailureCode, &[&str]); 3] = [
        (
            FailureCode::ImageNotFound,
            &[
                "manifest unknown",
                "name unknown",
                "repository name not known",
            ],
        ),
        (
            FailureCode::ImageDigestMismatch,
            &[
                "manifest verification failed",
                "layer verification failed",
                "does not match provided manifest digest",
            ],
        ),
        (
            FailureCode::RegistryUnauthorized,
            &[
                "no basic auth credentials",
                "unauthorized",
                "authentication required",
            ],
        ),
    ];
    // The image's own name says nothing, whatever it is.
    let text = message.to_ascii_lowercase();
    let text = text.replace(&name_of(image).to_ascii_lowercase(), "");
    let is_said = |words: &&[&str]| words.iter().any(|words| text.contains(words));
    match CAUSES.iter().find(|(_, words)| is_said(words)) {
        Some((code, _)) => RuntimeError::Unsatisfiable {
            code: *code,
            message: format!("image `{image}`: {message}"),
        },
        None => RuntimeError::Image {
            image: image.to_owned(),
            message,
        },
    }
}

/// The image's name in its registry, without tag and digest.
fn name_of(image: &str) -> &str {
    let path = image.split_once('/').map_or(image, |(_, path)| path);
    path.split(['@', ':']).next().unwrap_or(path)
}

/// Whether the text names the port, as in `0.0.0.0:8081`, among other numbers.
fn names_port(text: &str, port: u16) -> bool {
    let named = format!(":{port}");
    let mut found = text.match_indices(&named);
    found.any(|(at, _)| !text[at + named.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether it is the source of a mount that the engine complains of.
pub(crate) fn mount_failure(message: &str) -> Option<RuntimeError> {
    message
        .contains(MOUNT_REFUSED)
        .then(|| RuntimeError::Unsatisfiable {
            code: FailureCode::MountNotFound,
            message: message.to_owned(),
        })
}

/// Why a container does not start, if the engine's text tells: which of the ports is taken, what is wrong with the
/// program, or what the node lacks.
pub(crate) fn start_failure(message: &str, ports: &[u16], program: &str) -> Option<RuntimeError> {
    if let Some(missing) = mount_failure(message) {
        return Some(missing);
    }
    let text = message.to_ascii_lowercase();
    if text.contains("port is already allocated") || text.contains("address already in use") {
        let named = |port: &&u16| names_port(message, **port);
        let port = ports.iter().find(named).or_else(|| ports.first());
        return Some(RuntimeError::PortInUse {
            port: port.copied().unwrap_or(0),
        });
    }
    let of_program = |kind: io::ErrorKind| RuntimeError::Command {
        program: program.to_owned(),
        source: kind.into(),
    };
    let is_missing = text.contains("executable file not found")
        || text.contains("no such file or directory") && text.contains("exec");
    if is_missing {
        return Some(of_program(io::ErrorKind::NotFound));
    }
    let unsatisfiable = |code| RuntimeError::Unsatisfiable {
        code,
        message: message.to_owned(),
    };
    let missing = [
        ("gathering device information", FailureCode::DeviceNotFound),
        ("unable to find user", FailureCode::UserUnknown),
        ("unable to find group", FailureCode::UserUnknown),
    ];
    if let Some(&(_, code)) = missing.iter().find(|(words, _)| text.contains(words)) {
        return Some(unsatisfiable(code));
    }
    if text.contains("network") && text.contains("not found") {
        return Some(unsatisfiable(NETWORK_MISSING));
    }
    let is_denied = text.contains("exec") && text.contains("permission denied");
    is_denied.then(|| of_program(io::ErrorKind::PermissionDenied))
}

pub(crate) const fn down(message: String) -> RuntimeError {
    RuntimeError::EngineDown {
        engine: "container",
        message,
    }
}

/// Whether it comes of a permission that is missing.
fn is_denied(error: &Error) -> bool {
    // This one speaks for its cause and does not count it among its sources.
    if let Error::IOError { err } = error {
        return err.kind() == io::ErrorKind::PermissionDenied;
    }
    let outermost: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(outermost), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The error and all its causes: the outermost alone says little more than that there was one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_no_registry_has_is_told_apart_from_one_that_does_not_come() {
        for (status, message, code) in [
            (
                404,
                "manifest for web:9 not found: manifest unknown: manifest unknown",
                "image-not-found",
            ),
            (
                500,
                "reading manifest 9 in localhost:5000/web: manifest unknown",
                "image-not-found",
            ),
            (
                500,
                "reading manifest 9 in localhost:5000/web: name unknown",
                "image-not-found",
            ),
            (
                404,
                "pull access denied for web, repository does not exist or may require 'docker login'",
                "image-unavailable",
            ),
            (
                500,
                "dial tcp 127.0.0.1:1: connect: connection refused",
                "image-unavailable",
            ),
            (500, "unauthorized", "registry-unauthorized"),
            (
                500,
                "Head \"http://127.0.0.1:5000/v2/web/manifests/9\": no basic auth credentials",
                "registry-unauthorized",
            ),
            (
                500,
                "manifest verification failed for digest sha256:12",
                "image-digest-mismatch",
            ),
            (500, "no space left on device", "disk-full"),
        ] {
            let message = message.to_owned();
            let error = Refused { status, message }.of_image("web:9");
            assert_eq!(error.code(), code, "{error}");
        }
    }

    #[test]
    fn an_images_own_name_is_no_cause() {
        let message =
            "Get \"http://h:1/v2/unauthorized/manifests/9\": connection refused".to_owned();
        assert_eq!(
            of_image("h:1/unauthorized:9", message).code(),
            "image-unavailable"
        );
    }

    #[test]
    fn a_port_is_told_from_one_that_begins_alike() {
        let text = "Bind for 0.0.0.0:8081 failed: port is already allocated";
        assert!(names_port(text, 8081) && !names_port(text, 808));
    }

    #[test]
    fn a_permission_that_is_missing_is_told_apart_however_deep_it_lies() {
        let of = |kind: io::ErrorKind| -> RuntimeError {
            let answer: Result<(), Error> = Err(Error::IOError { err: kind.into() });
            answer.attempt().unwrap_err()
        };
        let denied = of(io::ErrorKind::PermissionDenied).to_string();
        assert!(denied.contains("may not open its socket"), "{denied}");
        assert!(denied.contains("`docker`"), "{denied}");
        let refused = of(io::ErrorKind::ConnectionRefused).to_string();
        assert!(!refused.contains("may not open"), "{refused}");
    }
}
