//! The environment behind a seam: read once in `main`, handed down as data, so that tests never touch the
//! process's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the program's surroundings say.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
    /// Whether it runs as root.
    pub(crate) is_root: bool,
    /// Where configuration files are looked for.
    pub(crate) etc: PathBuf,
}

/// Variables hold tokens and passphrases, so only their names are shown.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// That of this process. Variables that are no UTF-8 are none of ours.
    pub(crate) fn of_process() -> Self {
        let text = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((key.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            variables: std::env::vars_os().filter_map(text).collect(),
            is_root: rustix::process::geteuid().is_root(),
            etc: PathBuf::from("/etc/hostler"),
        }
    }

    /// All of it, for tools that the user runs through us.
    pub(crate) fn of_user(&self) -> Vec<(String, String)> {
        self.variables.clone().into_iter().collect()
    }

    /// What of it the tools get that the agent runs for a workload: where programs and a user's own settings are, and
    /// the way to the network. Nothing else, for projects can read it.
    pub(crate) fn of_tools(&self) -> Vec<(String, String)> {
        const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        const NAMES: [&str; 6] = [
            "PATH",
            "HOME",
            "DOCKER_CONFIG",
            "SSH_AUTH_SOCK",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
        ];
        let with = self.with_defaults([("PATH", PATH.to_owned())]);
        let is_given =
            |name: &str| NAMES.contains(&name) || name.to_ascii_lowercase().ends_with("_proxy");
        let variables = with.variables.into_iter();
        variables.filter(|(name, _)| is_given(name)).collect()
    }

    /// The same with these variables, where they are not set.
    pub(crate) fn with_defaults(
        &self,
        variables: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let mut with = self.clone();
        for (name, value) in variables {
            if self.get(name).is_none() {
                with.variables.insert(name.to_owned(), value);
            }
        }
        with
    }

    /// A variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self {
            variables: variables.iter().map(owned).collect(),
            is_root: false,
            etc: PathBuf::from("/nonexistent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_get_little_of_the_environment() {
        let given = Environment::of(&[
            ("HOME", "/root"),
            ("https_proxy", "http://proxy"),
            ("HOSTLER_TOKEN", "secret"),
        ]);
        let tools = given.of_tools();
        let names: Vec<&str> = tools.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["HOME", "PATH", "https_proxy"]);
    }
}
