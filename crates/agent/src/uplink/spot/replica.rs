//! A manual replica of the spot contract: copies the primary's state in a loop and reports how far it has come, every
//! second, and five seconds after an error.
//!
//! What is copied, and how, is behind [`Source`]; this version brings one that copies nothing and says so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::Member;

const PAUSE: Duration = Duration::from_secs(1);
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// Set on an agent that is the copy of another.
#[derive(Debug, Clone)]
pub struct Replica {
    /// The replica's id at the server.
    pub id: String,
    pub source: Arc<dyn Source>,
}

/// How far a copy has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// 0 to 100.
    pub percent: f64,
}

/// Where the primary's state comes from.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Fetches what is new and applies it here.
    ///
    /// # Errors
    /// A sentence for the log.
    async fn sync(&self) -> Result<Progress, String>;
}

/// Copies nothing: the replica stays at nought, which is the truth.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTransfer;

#[async_trait]
impl Source for NoTransfer {
    async fn sync(&self) -> Result<Progress, String> {
        Ok(Progress { percent: 0.0 })
    }
}

impl Member<'_> {
    pub(super) async fn copy(&self) {
        let Some(replica) = &self.uplink.spot.replica else {
            return;
        };
        loop {
            let wait = match self.copy_once(replica).await {
                Ok(()) => PAUSE,
                Err(reason) => {
                    let pen = &self.uplink.pen;
                    pen.error(format!("Replica sync error: {reason}"));
                    AFTER_ERROR
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn copy_once(&self, replica: &Replica) -> Result<(), String> {
        let clock = &self.uplink.parts.clock;
        let begun = clock.uptime();
        let progress = replica.source.sync().await?;
        let latency = clock.uptime().saturating_sub(begun).as_millis();
        let is_whole = progress.percent >= 100.0;
        let body = json!({
            "sync_status": if is_whole { "synced" } else { "syncing" },
            "sync_latency_ms": u64::try_from(latency).unwrap_or(u64::MAX),
            "state_transfer_progress": progress.percent.clamp(0.0, 100.0),
        });
        let path = format!(
            "replicas/{}/sync-status",
            crate::uplink::http::segment(&replica.id)
        );
        let told = self.tell(&path, &body).await;
        told.map_err(|error| error.to_string())
    }
}
