//! File work off the async threads, waiting for descriptors, and the records of [`hostler_shim::disk`] for the drivers.

use std::io;
use std::os::fd::OwnedFd;

pub(crate) use hostler_shim::disk::{boot_id, read, write_durably, write_reserved, write_whole};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::RuntimeError;

/// Runs file work where it may block.
pub(crate) async fn off_thread<T, F>(context: &'static str, work: F) -> Result<T, RuntimeError>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|source| error(context, source)),
        Err(panicked) => Err(error(context, io::Error::other(panicked))),
    }
}

/// A full disk is told apart from other failures.
pub(crate) fn error(context: impl Into<String>, source: io::Error) -> RuntimeError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RuntimeError::DiskFull,
        _ => RuntimeError::Io {
            context: context.into(),
            source,
        },
    }
}

/// Lets the async runtime wait until the handle is readable.
#[expect(
    deprecated,
    reason = "the constructor is unsound for types whose descriptor may change; an owned one does not"
)]
pub(crate) fn readiness(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, Interest::READABLE)
}
