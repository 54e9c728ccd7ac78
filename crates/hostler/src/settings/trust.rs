//! Who is believed, and what is shown: the server's, the agent's and the command line's side of TLS.
//!
//! No secret is taken from the command line, where everybody on the machine could read it: tokens come from the
//! environment or from files.

use std::path::{Path, PathBuf};

use hostler_kit::files::{Readers, replace};
use hostler_kit::trust::{Anchors, ClientTls, Invitation, TrustError};
use serde::{Deserialize, Serialize};

use super::{Environment, Layers};
use crate::args::{AgentTrustArgs, ServerTrustArgs};
use crate::failure::Failure;

/// Where a server that `hostler install` has set up keeps its data.
const INSTALLED: &str = "/var/lib/hostler-server";

/// `[tls]` of `server.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServerTlsFile {
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) authority: Option<PathBuf>,
    pub(crate) names: Vec<String>,
}

/// `[tls]` of `agent.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AgentTlsFile {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// The server's side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerTrust {
    /// A certificate and its key that somebody else made.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    /// An authority that somebody else made.
    pub(crate) authority: Option<PathBuf>,
    /// Names and addresses of this server beside those that it finds.
    pub(crate) names: Vec<String>,
    /// The first admin gets a new token.
    pub(crate) resets_admin: bool,
}

/// The agent's side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AgentTrust {
    pub(crate) invitation: Option<Invitation>,
    pub(crate) anchors: Option<Anchors>,
    /// Where they were read.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
}

/// How the command line finds a server: a file that only its owner may read.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    pub(crate) addr: String,
    pub(crate) token: String,
    /// Whom to believe, in PEM; what this machine believes if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
}

impl ServerTrust {
    pub(super) fn resolve(
        args: ServerTrustArgs,
        file: ServerTlsFile,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let path = |flag: Option<PathBuf>, variable: &str, file: Option<PathBuf>| {
            let told = || environment.get(variable).map(PathBuf::from);
            flag.or_else(told).or(file)
        };
        let certificate = path(args.tls_cert, "HOSTLER_TLS_CERT", file.certificate);
        let key = path(args.tls_key, "HOSTLER_TLS_KEY", file.key);
        let mut names = file.names;
        let told = environment.get("HOSTLER_TLS_NAMES").unwrap_or_default();
        let told = told.split(',').map(str::trim);
        names.extend(told.filter(|name| !name.is_empty()).map(str::to_owned));
        names.extend(args.tls_names);
        Ok(Self {
            certificate: pair(certificate, key)?,
            authority: path(args.tls_authority, "HOSTLER_TLS_AUTHORITY", file.authority),
            names,
            resets_admin: args.reset_admin,
        })
    }
}

impl AgentTrust {
    pub(super) fn resolve(
        args: AgentTrustArgs,
        (tls, token_file): (AgentTlsFile, Option<PathBuf>),
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let layers = Layers { environment };
        let path = |flag: Option<PathBuf>, variable: &str, file: Option<PathBuf>| {
            let flag = flag.map(|path| path.to_string_lossy().into_owned());
            let file = file.map(|path| path.to_string_lossy().into_owned());
            layers.text(flag, variable, file).map(PathBuf::from)
        };
        let token_file = path(args.token_file, "HOSTLER_JOIN_TOKEN_FILE", token_file);
        let text = match (environment.get("HOSTLER_JOIN_TOKEN"), token_file) {
            (Some(text), _) => Some(text.to_owned()),
            (None, Some(path)) => read_token(&path)?,
            (None, None) => None,
        };
        let invitation = text.map(|text| Invitation::parse(&text).ok_or_else(no_token));
        let ca = path(args.ca, "HOSTLER_CA", tls.ca);
        let anchors = ca.as_deref().map(Anchors::from_file);
        let certificate = path(args.tls_cert, "HOSTLER_TLS_CERT", tls.certificate);
        let key = path(args.tls_key, "HOSTLER_TLS_KEY", tls.key);
        Ok(Self {
            invitation: invitation.transpose()?,
            anchors: anchors.transpose()?,
            ca,
            certificate: pair(certificate, key)?,
        })
    }
}

impl AgentTrust {
    /// For an agent of another system's control plane, which knows no join tokens.
    pub(crate) fn of_foreign(environment: &Environment) -> Result<Self, Failure> {
        let all = Self::resolve(AgentTrustArgs::default(), Default::default(), environment)?;
        Ok(all.uninvited())
    }

    /// For one call to that server, as a running agent has it; none where it speaks plain text.
    pub(crate) fn towards(&self, server: &str) -> Result<Option<ClientTls>, Failure> {
        if !server.starts_with("https://") {
            return Ok(None);
        }
        let anchors = self.anchors.clone().unwrap_or(Anchors::Machine);
        let tls = match &self.certificate {
            Some((certificate, key)) => ClientTls::from_files(&anchors, (certificate, key))?,
            None => ClientTls::new(&anchors, None)?,
        };
        Ok(Some(tls))
    }

    /// The same without the token.
    pub(crate) fn uninvited(self) -> Self {
        Self {
            invitation: None,
            ..self
        }
    }
}

/// A machine that has joined needs its token no more, so a file that is gone is no failure.
fn read_token(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::usage(
            format!("cannot read the token in {}: {error}", path.display()),
            "make it readable for the agent's user",
        )),
    }
}

fn no_token() -> Failure {
    Failure::usage(
        "the join token is incomplete or something else",
        "copy all of what `hostler token create` printed",
    )
}

fn pair(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, Failure> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(Failure::usage(
            "a certificate and its key go together, and one of them is named",
            "give both --tls-cert and --tls-key",
        )),
    }
}

impl Login {
    /// Where a person's own login is kept.
    pub(crate) fn own_path(environment: &Environment) -> Option<PathBuf> {
        let config = environment.get("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = || {
            environment
                .get("HOME")
                .map(|home| PathBuf::from(home).join(".config"))
        };
        let config = config.or_else(home)?;
        Some(config.join("hostler").join("login.toml"))
    }

    /// Where a server keeps the login of its first admin.
    pub(crate) fn admin_path(data_dir: &Path) -> PathBuf {
        data_dir.join("admin.toml")
    }

    /// A person's own login, else that of the admin of the server on this machine, for who may read it. A login is
    /// good for its own server and for no other: where a server was named, that of another is passed over.
    pub(super) fn find(
        environment: &Environment,
        addr: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        let is_meant = |login: &Self| addr.is_none_or(|addr| *addr == login.addr);
        if let Some(path) = Self::own_path(environment)
            && let Some(login) = Self::read(&path)?.filter(is_meant)
        {
            return Ok(Some(login));
        }
        // Without a home there is no usual directory, and nothing to be found in it.
        let usual = (Layers { environment }).data_dir(None, None).ok();
        let installed = environment.is_root.then(|| PathBuf::from(INSTALLED));
        for data_dir in usual.into_iter().chain(installed) {
            if let Some(login) = Self::read(&Self::admin_path(&data_dir))?.filter(is_meant) {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    /// Lets a login that is there believe that; none that was deleted comes back.
    pub(crate) fn renew(path: &Path, ca: &str) -> Result<(), Failure> {
        match Self::read(path)? {
            Some(login) if login.ca.as_deref() != Some(ca) => {
                let ca = Some(ca.to_owned());
                Self { ca, ..login }.write(path)
            }
            _ => Ok(()),
        }
    }

    fn read(path: &Path) -> Result<Option<Self>, Failure> {
        use std::io::ErrorKind;
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map(Some).map_err(|error| {
                let sentence = format!("{} makes no sense: {}", path.display(), error.message());
                Failure::usage(sentence, "delete it, and log in again with `hostler login`")
            }),
            Err(error) => match error.kind() {
                // Another user's is none of ours.
                ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory => {
                    Ok(None)
                }
                _ => Err(Failure::usage(
                    format!("cannot read {}: {error}", path.display()),
                    "delete it, and log in again with `hostler login`",
                )),
            },
        }
    }

    /// Keeps it for its owner alone.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let unwritable = |error: &dyn std::fmt::Display| {
            let sentence = format!("cannot write {}: {error}", path.display());
            Failure::failed(sentence, "look for a full disk, or missing rights")
        };
        let text = toml::to_string(self).map_err(|error| unwritable(&error))?;
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|error| unwritable(&error))?;
        }
        replace(path, text.as_bytes(), Readers::Owner).map_err(|error| unwritable(&error))
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.addr)
    }
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Self {
        Self::usage(
            error,
            "name readable PEM files that belong together; see docs/guide/trust.md",
        )
    }
}
