//! Makes one batch durable. Runs beside the owner task, so that the next batch is decided while this one
//! is encoded and written.
//!
//! Owns nothing. What can fail: encoding (a bug) and the store; the owner decides what follows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hostler_fleet::Change;
use hostler_kit::Clock;
use hostler_store::{CommitError, Guard, Key, Revision, Store, Write};

use crate::records;

/// What became of a commit.
pub(crate) struct Landing {
    pub(crate) result: Result<Revision, CommitFailure>,
    /// One of the batch's records, by which a commit of unknown fate is recognised.
    pub(crate) probe: Option<Probe>,
    pub(crate) took: Duration,
}

/// A record as the batch writes it.
pub(crate) struct Probe {
    pub(crate) key: Key,
    pub(crate) value: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitFailure {
    #[error("a record cannot be encoded")]
    Encoding(#[from] serde_json::Error),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A batch on its way.
pub(crate) struct Errand {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) changes: Arc<Vec<Change>>,
    pub(crate) event_capacity: u64,
    pub(crate) guard: Guard,
}

impl Errand {
    pub(crate) async fn run(self) -> Landing {
        let begun = self.clock.uptime();
        let (result, probe) = match encode(&self.changes, self.event_capacity) {
            Ok((writes, probe)) => {
                let result = self.store.commit(writes, vec![self.guard]).await;
                (result.map_err(CommitFailure::from), probe)
            }
            Err(error) => (Err(error.into()), None),
        };
        let took = self.clock.uptime().saturating_sub(begun);
        Landing {
            result,
            probe,
            took,
        }
    }
}

/// The writes in key order; of several changes of one record only the last is written.
fn encode(
    changes: &[Change],
    event_capacity: u64,
) -> Result<(Vec<Write>, Option<Probe>), serde_json::Error> {
    let keyed = changes
        .iter()
        .map(|change| (records::key(change, event_capacity), change));
    let mut keyed: Vec<(Key, &Change)> = keyed.collect();
    // Stable: changes of one record stay in order.
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut writes = Vec::with_capacity(keyed.len());
    let mut probe = None;
    let mut rest = keyed.into_iter().peekable();
    while let Some((key, change)) = rest.next() {
        if rest.peek().is_some_and(|(next, _)| *next == key) {
            continue;
        }
        match records::value(change)? {
            Some(value) => {
                let recognisable = probe.is_none() || matches!(change, Change::Append(_));
                if recognisable {
                    probe = Some(Probe {
                        key: key.clone(),
                        value: value.clone(),
                    });
                }
                writes.push(Write::Put { key, value });
            }
            None => writes.push(Write::Delete { key }),
        }
    }
    Ok((writes, probe))
}

#[cfg(test)]
mod tests {
    use hostler_model::{NodeId, Timestamp, WorkloadId};

    use super::*;

    #[test]
    fn of_several_changes_of_one_record_the_last_is_written() {
        let node = NodeId::mint(Timestamp::from_millis(1), 1);
        let workload = WorkloadId::mint(Timestamp::from_millis(1), 1);
        let changes = [
            Change::RemoveWorkload(workload),
            Change::RemoveNode(node),
            Change::RemoveNode(node),
        ];
        let (writes, probe) = encode(&changes, 8).unwrap();
        let expected = [format!("nodes/{node}"), format!("workloads/{workload}")];
        assert_eq!(writes, expected.map(|key| Write::Delete { key }));
        assert!(probe.is_none());
    }
}
