//! A certificate, its key and those who are believed, in files that somebody else keeps.
//!
//! They are looked at before a handshake, at most once a second, and read again once one of them has changed. What
//! cannot be used then changes nothing: what was read before goes on, and the log says so once. Whoever shakes hands owns
//! the look; others that do so meanwhile use what is there.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::credentials::{certificates, from_files};
use super::{TrustError, Validity, read};
use crate::{Clock as _, SystemClock};

/// How often the files are looked at, at most.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Where they are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authority: PathBuf,
}

/// What stands in them: what is shown, and who is believed.
pub(super) type Content = (Arc<CertifiedKey>, Vec<CertificateDer<'static>>);

/// When a file was changed, and which file it is; none for one that cannot be seen.
type Stamps = [Option<(i64, i64, u64, u64)>; 3];

/// The files, and what is known of them.
pub(super) struct Kept {
    files: MemberFiles,
    clock: SystemClock,
    every: Duration,
    seen: Mutex<Seen>,
}

struct Seen {
    /// When they were looked at last.
    at: Duration,
    /// Of what is in use.
    used: Stamps,
    /// Of what could not be used, and was logged.
    refused: Option<Stamps>,
}

impl MemberFiles {
    /// From when until when the certificate is good.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn validity(&self) -> Result<Validity, TrustError> {
        let chain = certificates(&read(&self.certificate)?);
        let chain = chain.map_err(|error| TrustError::content(&self.certificate, error))?;
        let first = chain.first();
        let first = first.ok_or_else(|| TrustError::unreadable("a certificate in PEM"))?;
        Validity::of(first).map_err(|error| TrustError::content(&self.certificate, error))
    }

    fn content(&self) -> Result<Content, TrustError> {
        let shown = from_files(&self.certificate, &self.key)?;
        let roots = certificates(&read(&self.authority)?)
            .map_err(|error| TrustError::content(&self.authority, error))?;
        Ok((shown, roots))
    }

    fn stamps(&self) -> Stamps {
        let stamp = |path: &Path| {
            let told = std::fs::metadata(path).ok()?;
            Some((told.mtime(), told.mtime_nsec(), told.ino(), told.size()))
        };
        [&self.certificate, &self.key, &self.authority].map(|path| stamp(path))
    }
}

impl Kept {
    /// Reads the files, which are to be looked at that often.
    ///
    /// # Errors
    /// One cannot be read or understood, or they do not belong together.
    pub(super) fn open(files: MemberFiles, every: Duration) -> Result<(Self, Content), TrustError> {
        let clock = SystemClock::new();
        // Before the content, so that a change between the two is seen by the next look.
        let used = files.stamps();
        let content = files.content()?;
        let seen = Mutex::new(Seen {
            at: clock.uptime(),
            used,
            refused: None,
        });
        let kept = Self {
            files,
            clock,
            every,
            seen,
        };
        Ok((kept, content))
    }

    /// Takes over what has changed. As long as nothing has, nothing is read.
    pub(super) fn look(&self, take: impl FnOnce(Content) -> Result<(), TrustError>) {
        let mut seen = match self.seen.try_lock() {
            Ok(seen) => seen,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let at = self.clock.uptime();
        if at.saturating_sub(seen.at) < self.every {
            return;
        }
        seen.at = at;
        let now = self.files.stamps();
        if now == seen.used {
            return;
        }
        let certificate = self.files.certificate.display();
        match self.files.content().and_then(take) {
            Ok(()) => {
                tracing::info!(%certificate, "the certificate, its key or the authority changed");
                seen.used = now;
                seen.refused = None;
            }
            // One that is replaced piece by piece is looked at again soon.
            Err(error) => {
                if seen.refused.replace(now) != Some(now) {
                    tracing::error!(%error, "changed files cannot be used; what was read before goes on");
                }
            }
        }
    }
}
