//! Where the node's images come from: `[container]` of `agent.toml`. Passwords stand in files of their own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hostler_runtime::container::{Login, Registries, Registry};
use serde::Deserialize;

use crate::failure::Failure;

/// `[container]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ContainerFile {
    docker_config: Option<PathBuf>,
    registries: BTreeMap<String, RegistryFile>,
}

/// `[container.registries."host:port"]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RegistryFile {
    username: Option<String>,
    password_file: Option<PathBuf>,
    mirrors: Vec<String>,
}

impl ContainerFile {
    pub(super) fn resolve(self) -> Result<Registries, Failure> {
        let mut known = BTreeMap::new();
        for (name, file) in self.registries {
            let login = match (file.username, file.password_file) {
                (Some(username), Some(password_file)) => Some(Login {
                    username,
                    password_file,
                }),
                (None, None) => None,
                _ => {
                    let sentence = format!("the login for the registry {name} is half a login");
                    return Err(Failure::usage(
                        sentence,
                        "set both `username` and `password_file`",
                    ));
                }
            };
            let places = std::iter::once(&name).chain(&file.mirrors);
            if let Some(place) = places.into_iter().find(|place| !is_place(place)) {
                let sentence = format!("`{place}` is no address of a registry");
                return Err(Failure::usage(
                    sentence,
                    "write it as images do: HOST or HOST:PORT, without http://",
                ));
            }
            let mirrors = file.mirrors;
            known.insert(name, Registry { login, mirrors });
        }
        Ok(Registries {
            known,
            docker_config: self.docker_config,
        })
    }
}

fn is_place(text: &str) -> bool {
    !text.is_empty() && !text.contains("://") && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Result<Registries, Failure> {
        let file: ContainerFile = toml::from_str(text).unwrap();
        file.resolve()
    }

    #[test]
    fn logins_and_mirrors_are_kept_by_registry() {
        let text = "docker_config = '/root/.docker/config.json'\n[registries.\"reg:5000\"]\nusername = 'ann'\n\
            password_file = '/etc/hostler/reg'\n[registries.'docker.io']\nmirrors = ['mirror:5000']\n";
        let registries = resolved(text).unwrap();
        let reg = &registries.known["reg:5000"];
        assert_eq!(reg.login.as_ref().unwrap().username, "ann");
        assert_eq!(registries.known["docker.io"].mirrors, ["mirror:5000"]);
        assert!(registries.docker_config.is_some());
    }

    #[test]
    fn half_a_login_and_addresses_with_a_scheme_are_refused() {
        for (text, word) in [
            ("[registries.a]\nusername = 'ann'\n", "half a login"),
            ("[registries.a]\npassword_file = '/x'\n", "half a login"),
            ("[registries.\"http://a\"]\n", "`http://a`"),
            ("[registries.a]\nmirrors = ['https://m']\n", "`https://m`"),
        ] {
            let refused = resolved(text).unwrap_err();
            assert!(refused.sentence.contains(word), "{}", refused.sentence);
        }
    }
}
