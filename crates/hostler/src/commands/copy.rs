//! The copy of a workload that is meant: for commands that do something inside one.

use hostler_wire::api::{Assignment, AssignmentFilter, Intent, StateWord};

use super::Remote;
use crate::failure::Failure;

/// The copy in the slot, or the first that runs.
pub(crate) async fn pick(
    remote: &Remote<'_>,
    workload: &str,
    slot: Option<u32>,
) -> Result<Assignment, Failure> {
    let filter = AssignmentFilter {
        workload: Some(workload.to_owned()),
        ..AssignmentFilter::default()
    };
    let copies = remote.client.assignments(&filter).await?;
    choose(copies, slot).ok_or_else(|| {
        let sentence = match slot {
            Some(slot) => format!("{workload} has no copy in slot {slot}"),
            None => format!("{workload} has no copy"),
        };
        Failure::failed(sentence, "`hostler why` says why copies do not run")
    })
}

/// What runs counts more than what is wanted, and that more than what is not.
fn choose(copies: Vec<Assignment>, slot: Option<u32>) -> Option<Assignment> {
    let meant = copies
        .into_iter()
        .filter(|copy| slot.is_none_or(|slot| copy.slot == slot));
    meant.min_by_key(|copy| {
        let runs = copy.state.word == StateWord::Running;
        let is_wanted = copy.intent == Intent::Run;
        (!runs, !is_wanted, copy.slot, u64::MAX - copy.generation)
    })
}
