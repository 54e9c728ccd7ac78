//! Files and ports of a container. Files go through the engine, which needs no `tar` in the image and no process in
//! the container; ports are where the engine's networks have them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    ContainerArchiveInfoOptions, DownloadFromContainerOptions, InspectContainerOptions,
    UploadToContainerOptions,
};
use futures::{StreamExt as _, TryStreamExt as _};

use super::engine::{Attempt as _, Refused};
use super::places::Place;
use crate::files::{copy_failed, forward_unsupported, not_found};
use crate::{Archive, RuntimeError};

/// What the engine says of a path that is a directory, as Go has it.
const IS_DIRECTORY: u32 = 1 << 31;

impl Place {
    pub(crate) async fn read(self, path: &str) -> Result<Archive, RuntimeError> {
        self.is_directory(path).await?;
        let options = DownloadFromContainerOptions {
            path: path.to_owned(),
        };
        let pieces = self
            .docker
            .download_from_container(&self.container, Some(options));
        Ok(pieces.map(|piece| piece.or_refused(failed)).boxed())
    }

    pub(crate) async fn write(
        self,
        path: &str,
        archive: Archive<io::Error>,
    ) -> Result<(), RuntimeError> {
        if !self.is_directory(path).await? {
            return Err(not_found(path, "it is no directory"));
        }
        let options = UploadToContainerOptions {
            path: path.to_owned(),
            ..UploadToContainerOptions::default()
        };
        let broken = Arc::new(OnceLock::new());
        let archive = {
            let broken = Arc::clone(&broken);
            archive.inspect_err(move |error| {
                broken.get_or_init(|| error.to_string());
            })
        };
        let archive = bollard::body_try_stream(archive);
        let uploaded = self
            .docker
            .upload_to_container(&self.container, Some(options), archive)
            .await;
        // The client cannot tell an archive that broke off from an engine that did.
        match broken.get() {
            Some(why) => Err(copy_failed(why)),
            None => uploaded.or_refused(failed),
        }
    }

    /// Whether a path is a directory; a link counts as what it leads to.
    async fn is_directory(&self, path: &str) -> Result<bool, RuntimeError> {
        let options = ContainerArchiveInfoOptions {
            // What leads elsewhere is asked for at its end.
            path: format!("{}/.", path.trim_end_matches('/')),
        };
        let looked = self
            .docker
            .get_container_archive_info(&self.container, Some(options))
            .await;
        match looked.attempt()? {
            Ok(seen) => Ok(seen.file_mode & IS_DIRECTORY != 0),
            Err(_) => {
                let options = ContainerArchiveInfoOptions {
                    path: path.to_owned(),
                };
                let looked = self
                    .docker
                    .get_container_archive_info(&self.container, Some(options));
                let seen = looked.await.or_refused(|_| not_found(path, ""))?;
                Ok(seen.file_mode & IS_DIRECTORY != 0)
            }
        }
    }

    pub(crate) async fn address(&self, port: u16) -> Result<SocketAddr, RuntimeError> {
        let looked: Result<ContainerInspectResponse, Error> = self
            .docker
            .inspect_container(&self.container, None::<InspectContainerOptions>)
            .await;
        let seen = looked.or_refused(|refused| refused.of_unit(self.unit))?;
        let network = seen.host_config.and_then(|it| it.network_mode);
        if network.is_some_and(|mode| mode == "host") {
            return Ok((Ipv4Addr::LOCALHOST, port).into());
        }
        let networks = seen.network_settings.and_then(|it| it.networks);
        let addresses = networks.into_iter().flatten().filter_map(|(_, network)| {
            let address: IpAddr = network.ip_address?.parse().ok()?;
            Some(address)
        });
        let mut addresses: Vec<IpAddr> = addresses.collect();
        addresses.sort_unstable();
        let address = addresses.first().ok_or_else(|| {
            forward_unsupported("the container is in no network that the node can reach")
        })?;
        Ok((*address, port).into())
    }
}

fn failed(refused: Refused) -> RuntimeError {
    copy_failed(&refused.message)
}
