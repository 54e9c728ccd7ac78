//! A backup while the server runs: one archive, streamed. What is in it and how it is made is not this door's
//! business; whoever composes the program knows what lies on its disk.

use std::io;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream::BoxStream;
use hostler_model::{Code, Refusal};
use hostler_wire::api::{self, media};
use http::header;

use super::Api;
use super::refuse::Failure;
use super::take::{Query, Stay};

/// Copies all that the control plane keeps.
#[async_trait]
pub trait Backups: Send + Sync + 'static {
    /// An archive of the store as it is now, with the keys that lie beside it if they are wanted. It breaks off with
    /// an error where it cannot go on.
    ///
    /// # Errors
    /// `overloaded` while another one is made, `store-unavailable` if the disk fails.
    async fn take(&self, keys: bool) -> Result<BoxStream<'static, io::Result<Bytes>>, Refusal>;
}

/// The whole store at one revision, as a tar stream that begins with its manifest.
#[utoipa::path(get, path = "/api/v1/backup", tag = "server", params(api::BackupQuery),
    responses((status = 200, body = String, content_type = "application/x-tar"),
        (status = "default", body = api::Problem)))]
pub(super) async fn backup(
    State(api): State<Api>,
    Stay(stay): Stay,
    Query(query): Query<api::BackupQuery>,
) -> Result<Response, Failure> {
    let Some(backups) = &api.backups else {
        let sentence = "this control plane keeps nothing on a disk that could be copied";
        let advice = "back up the server that keeps the fleet's records";
        return Err(Refusal::new(Code::StoreUnavailable, sentence, advice).into());
    };
    let pieces = backups.take(query.keys).await?;
    let pieces = stay.limit(pieces, |refusal| Err(io::Error::other(refusal)));
    let headers = [
        (header::CONTENT_TYPE, media::TAR),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}
