//! Files and ports of units: side traits of drivers, for who copies files from and to units and for who connects to
//! what listens in them. Files travel as tar streams of any length; nobody holds more than a piece of one.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use hostler_model::{FailureCode, UnitId};

use crate::RuntimeError;

/// A tar stream. After an error it is over, and what was read of it is no whole archive.
pub type Archive<E = RuntimeError> = BoxStream<'static, Result<Bytes, E>>;

/// Copies files from and to units.
#[async_trait]
pub trait Files: Send + Sync {
    /// Reads the file or directory at a path. Every name in the archive begins with the last name of the path.
    ///
    /// # Errors
    /// `unit-not-found`, `unit-not-running`, `part-not-found`, `file-not-found`, and in the stream `copy-failed`.
    async fn read(
        &self,
        id: UnitId,
        part: Option<&str>,
        path: &str,
    ) -> Result<Archive, RuntimeError>;

    /// Unpacks the archive into the directory at a path, over what is there. What a broken archive brought before
    /// it broke stays.
    ///
    /// # Errors
    /// As [`Files::read`]; `file-not-found` if there is no such directory, before anything of the archive is read.
    async fn write(
        &self,
        id: UnitId,
        part: Option<&str>,
        path: &str,
        archive: Archive<io::Error>,
    ) -> Result<(), RuntimeError>;
}

/// Knows where ports of units are.
#[async_trait]
pub trait Ports: Send + Sync {
    /// Where on the node a port of a running unit can be connected to. Nothing may listen there.
    ///
    /// # Errors
    /// `unit-not-found`, `unit-not-running`, `part-not-found`, and `forward-unsupported` for a unit whose network the
    /// node does not see.
    async fn address(
        &self,
        id: UnitId,
        part: Option<&str>,
        port: u16,
    ) -> Result<SocketAddr, RuntimeError>;
}

/// There is no such file or directory, in the words of whoever looked.
pub(crate) fn not_found(path: &str, why: &str) -> RuntimeError {
    let why = why.trim();
    let because = if why.is_empty() { "" } else { ": " };
    RuntimeError::Unsatisfiable {
        code: FailureCode::FileNotFound,
        message: format!("the copy has no `{path}`{because}{why}"),
    }
}

/// Reading or writing went wrong half-way.
pub(crate) fn copy_failed(why: &str) -> RuntimeError {
    RuntimeError::Unsatisfiable {
        code: FailureCode::CopyFailed,
        message: format!("the copy of files failed: {}", why.trim()),
    }
}

/// The network of the unit is its own.
pub(crate) fn forward_unsupported(why: &str) -> RuntimeError {
    RuntimeError::Unsatisfiable {
        code: FailureCode::ForwardUnsupported,
        message: format!("its ports cannot be reached from the node: {why}"),
    }
}
