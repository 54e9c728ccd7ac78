//! Drain: a draining node on which nothing of ours is left is drained.

use std::time::Duration;

use hostler_fleet::{State, Verb};
use hostler_model::{Admission, Node, NodeId};

use super::submit;
use crate::Control;

const PERIOD: Duration = Duration::from_secs(5);

pub(super) async fn run(control: Control) {
    loop {
        let empty = empty_draining(&control.view());
        for node in empty {
            submit(&control, "drain", Verb::FinishDrain { node }).await;
        }
        let signal = control.shared.signals.drain.notified();
        // Either way the next run looks at everything anew.
        let _ = tokio::time::timeout(PERIOD, signal).await;
    }
}

fn empty_draining(view: &State) -> Vec<NodeId> {
    let is_draining =
        |node: &Node| !node.is_gone() && matches!(node.admission, Admission::Draining { .. });
    let is_empty = |node: NodeId| view.assignments_on(node).all(|copy| copy.is_finished());
    let draining = view
        .nodes()
        .filter(|node| is_draining(node))
        .map(|node| node.id);
    draining.filter(|node| is_empty(*node)).collect()
}
