//! Files and ports of units of the fake: an archive is kept whole where it was unpacked, and read from there. Every
//! port is where it is on the machine itself.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hostler_model::UnitId;

use super::FakeRuntime;
use crate::exec::no_parts;
use crate::files::{copy_failed, not_found};
use crate::{Archive, Files, Ports, RuntimeError};

/// Reads come in pieces of so many bytes.
const PIECE: usize = 1024;

#[async_trait]
impl Files for FakeRuntime {
    async fn read(
        &self,
        id: UnitId,
        part: Option<&str>,
        path: &str,
    ) -> Result<Archive, RuntimeError> {
        no_parts(part)?;
        self.is_running(id)?;
        let archive = self.machine.file(id, path);
        let archive = archive.ok_or_else(|| not_found(path, ""))?;
        let pieces: Vec<_> = archive
            .chunks(PIECE)
            .map(|piece| Ok(piece.to_vec().into()))
            .collect();
        Ok(stream::iter(pieces).boxed())
    }

    async fn write(
        &self,
        id: UnitId,
        part: Option<&str>,
        path: &str,
        archive: Archive<io::Error>,
    ) -> Result<(), RuntimeError> {
        no_parts(part)?;
        self.is_running(id)?;
        if path.contains("missing") {
            return Err(not_found(path, "no such directory"));
        }
        let whole = archive.try_fold(Vec::new(), async |mut whole, piece| {
            whole.extend(piece);
            Ok(whole)
        });
        let whole = whole
            .await
            .map_err(|error| copy_failed(&error.to_string()))?;
        self.machine.set_file(id, path, whole);
        Ok(())
    }
}

#[async_trait]
impl Ports for FakeRuntime {
    async fn address(
        &self,
        id: UnitId,
        part: Option<&str>,
        port: u16,
    ) -> Result<SocketAddr, RuntimeError> {
        no_parts(part)?;
        self.is_running(id)?;
        Ok((Ipv4Addr::LOCALHOST, port).into())
    }
}
