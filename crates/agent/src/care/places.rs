//! Where the node's data lies: the agent's own directory, and what the drivers' engines say of theirs. An engine that
//! does not answer is asked again; until it has, its place is not known.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hostler_model::spec::Kind;
use hostler_runtime::Runtime;

/// How long an engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Places {
    data_dir: PathBuf,
    runtimes: Vec<Arc<dyn Runtime>>,
    known: BTreeMap<Kind, PathBuf>,
}

impl Places {
    pub(super) const fn new(data_dir: PathBuf, runtimes: Vec<Arc<dyn Runtime>>) -> Self {
        Self {
            data_dir,
            runtimes,
            known: BTreeMap::new(),
        }
    }

    /// Every place that is known; some may be on one file system.
    pub(super) async fn all(&mut self) -> Vec<PathBuf> {
        self.ask().await;
        let own = std::iter::once(self.data_dir.clone());
        own.chain(self.known.values().cloned()).collect()
    }

    /// Where that driver's things lie, as far as was asked; the agent's own directory unless it says otherwise.
    pub(super) fn of(&self, kind: Kind) -> PathBuf {
        self.known.get(&kind).unwrap_or(&self.data_dir).clone()
    }

    /// Asks whoever has not answered yet.
    pub(super) async fn ask(&mut self) {
        for runtime in &self.runtimes {
            let kind = runtime.kind();
            let Some(leftovers) = runtime
                .leftovers()
                .filter(|_| !self.known.contains_key(&kind))
            else {
                continue;
            };
            let asked = tokio::time::timeout(PATIENCE, leftovers.place()).await;
            if let Ok(Some(place)) = asked {
                self.known.insert(kind, place);
            }
        }
    }
}
