//! The order to tell what could be adopted. The engine is asked in a task of its own; the answer goes to the control
//! plane and not to the log, for what containers are given may be secret.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hostler_model::CommandKind;
use hostler_model::spec::{Kind, WorkloadSpec};
use hostler_runtime::{AdoptableList, Runtime, RuntimeError};

use super::orders::Outcome;
use super::{Input, Reconciler};
use crate::ledger::CommandRecord;
use crate::permit::Guardian;

/// How long the engines may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most bytes of an answer: it travels in one message of the session.
const MOST_BYTES: usize = 48 << 10;
/// Room for the count of those that are left off.
const COUNT_DIGITS: usize = 20;

impl Reconciler {
    pub(super) fn list_adoptable(&self, begun: CommandRecord) {
        let (runtimes, sender) = (Arc::clone(&self.runtimes), self.sender.clone());
        let guardian = Arc::clone(&self.guardian);
        self.tasks.spawn_until_stop("list adoptable", async move {
            let CommandKind::ListAdoptable { names } = &begun.command else {
                return;
            };
            let listed = tokio::time::timeout(PATIENCE, list(&runtimes, names, &guardian));
            let listed = listed.await;
            let result = listed.unwrap_or_else(|_| {
                Err(format!(
                    "no engine has answered for {} s",
                    PATIENCE.as_secs()
                ))
            });
            // The receiver is gone only when the agent stops.
            let _ = sender
                .send(Input::OrderCarried(Box::new(begun), result))
                .await;
        });
    }
}

/// Whether the node's owner lets the spec run, and what it would take over: that is judged by what it is, whatever the
/// spec says of it.
pub(super) async fn judge(
    guardian: &Arc<Guardian>,
    runtime: &dyn Runtime,
    spec: &Arc<WorkloadSpec>,
) -> Result<(), RuntimeError> {
    guardian.judge(spec).await?;
    let container = spec.container.as_ref();
    let name = container.and_then(|container| container.adopt.as_deref());
    let Some((name, adoption)) = name.zip(runtime.adoption()) else {
        return Ok(());
    };
    let found = adoption.adoptable().await?;
    match found.iter().find(|it| it.name == name) {
        Some(found) => guardian.judge(&Arc::new(found.judged())).await,
        // The driver says why there is none to take, or has taken it before.
        None => Ok(()),
    }
}

async fn list(
    runtimes: &BTreeMap<Kind, Arc<dyn Runtime>>,
    names: &[String],
    guardian: &Arc<Guardian>,
) -> Outcome {
    let told = |error: RuntimeError| format!("{error} [{}]", error.code());
    let mut found = Vec::new();
    for runtime in runtimes.values() {
        if let Some(adoption) = runtime.adoption() {
            found.extend(adoption.adoptable().await.map_err(told)?);
        }
    }
    let mut list = AdoptableList::default();
    for it in found {
        if !names.is_empty() && !names.contains(&it.name) {
            continue;
        }
        // Of what the owner keeps, nothing but the name leaves the node.
        match guardian.judge(&Arc::new(it.judged())).await {
            Ok(()) => list.found.push(it),
            Err(error) => list.refused.push((it.name, error.to_string())),
        }
    }
    bounded(list)
}

/// The answer as text, without those for which there is no room.
fn bounded(mut list: AdoptableList) -> Outcome {
    let text =
        |list: &AdoptableList| serde_json::to_string(list).map_err(|error| error.to_string());
    let found = std::mem::take(&mut list.found);
    let mut room = MOST_BYTES.saturating_sub(text(&list)?.len() + COUNT_DIGITS);
    for it in found {
        let size = serde_json::to_string(&it).map_or(usize::MAX, |text| text.len() + 1);
        if size > room {
            list.left_off += 1;
        } else {
            room -= size;
            list.found.push(it);
        }
    }
    text(&list)
}

#[cfg(test)]
mod tests {
    use hostler_model::spec::WorkloadSpec;
    use hostler_runtime::Adoptable;

    use super::*;

    #[test]
    fn an_answer_that_is_too_long_says_how_many_it_leaves_off() {
        let adoptable = |number: usize| Adoptable {
            name: format!("c{number}"),
            spec: WorkloadSpec::of_container("c", &"x".repeat(1000), Vec::new()),
            notes: Vec::new(),
            shares_node: false,
        };
        let found = (0..200).map(adoptable).collect();
        let text = bounded(AdoptableList {
            found,
            ..AdoptableList::default()
        })
        .unwrap();
        assert!(text.len() <= MOST_BYTES);
        let read: AdoptableList = serde_json::from_str(&text).unwrap();
        assert_eq!(read.found.len() + read.left_off, 200);
        assert!(read.found.len() > 20, "{}", read.found.len());
    }
}
