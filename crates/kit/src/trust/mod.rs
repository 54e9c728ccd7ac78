//! Trust: the fleet's authority, the keys and certificates of its members, and TLS on them.
//!
//! ```text
//!   Authority (one of the fleet)  ──signs──►  the server's certificate      names: `SERVER_NAME`, its addresses
//!        │                        ──signs──►  a node's certificate          name: its id; 30 days
//!        └─ rotates: a new key, its certificate also signed by the old one
//!
//!   ServerTls   what a listener shows, and whom it believes
//!   ClientTls   whom a caller believes, and what it shows
//! ```
//!
//! Members are told apart by their keys ([`Print`]), which outlive certificates. What a key may do is decided by
//! whoever knows the fleet's records, not here.
//!
//! There is one provider of cryptography, `ring`. All state is in files that their owners name; what can fail is a
//! [`TrustError`].

mod authority;
mod client;
mod credentials;
mod kept;
mod print;
mod server;
mod token;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;

pub use rustls::pki_types::CertificateDer;
pub use rustls::sign::CertifiedKey;

pub use self::authority::{Authority, Issued, NODE_LIFE};
pub use self::client::{Anchors, ClientTls};
pub use self::credentials::{Credentials, Request, Validity, certificates, static_chain};
pub use self::kept::MemberFiles;
pub use self::print::Print;
pub use self::server::{Believed, Secured, ServerTls, Shown};
pub use self::token::{Bearer, Invitation, Secret, secret, veiled};

/// What every server of a fleet is called in its certificate, wherever it listens. Members of the fleet look for it,
/// so that an address that is new to the certificate locks nobody out.
pub const SERVER_NAME: &str = "control-plane.hostler.internal";

/// What is wrong with a key, a certificate or a file of them.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{0} is expected, and it is not that")]
    Unreadable(String),
    #[error("{}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    #[error("a certificate could not be made: {0}")]
    Made(#[from] rcgen::Error),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl TrustError {
    fn unreadable(what: &str) -> Self {
        Self::Unreadable(what.to_owned())
    }

    fn content(path: &Path, problem: impl ToString) -> Self {
        Self::Content {
            path: path.to_owned(),
            problem: problem.to_string(),
        }
    }
}

impl From<rustls::Error> for TrustError {
    fn from(error: rustls::Error) -> Self {
        Self::Setup(error.to_string())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    std::fs::read(path).map_err(|source| TrustError::Read {
        path: path.to_owned(),
        source,
    })
}

/// A moment as certificates have it, from the time since the Unix epoch. They count in whole seconds.
fn moment<T: std::ops::Add<Duration>>(epoch: T, since: Duration) -> T::Output {
    epoch + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests;
