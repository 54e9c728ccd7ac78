//! Retention: forgets finished commands, old revisions and nodes that are gone for long, a little at a time.

use std::time::Duration;

use hostler_fleet::{Reply, Verb};

use super::submit;
use crate::Control;

const PERIOD: Duration = Duration::from_secs(60);
/// Records forgotten by one verb.
const LIMIT: usize = 64;

pub(super) async fn run(control: Control) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let prune = || submit(&control, "retention", Verb::Prune { limit: LIMIT });
        while let Some(Reply::Touched {
            more: true,
            count: 1..,
        }) = prune().await
        {}
    }
}
