//! Which node has a copy, and how it is reached: what relays ask first.

use std::sync::Arc;

use hostler_model::{AssignmentId, Code, NodeId, Refusal, UnitId};

use crate::{Control, Link};

/// A copy's unit, its node, and the node's link if it is connected.
pub(crate) struct Reached {
    pub(crate) unit: UnitId,
    pub(crate) node: NodeId,
    /// The node's name.
    pub(crate) name: String,
    pub(crate) link: Option<Arc<dyn Link>>,
}

impl Reached {
    pub(crate) fn find(control: &Control, assignment: AssignmentId) -> Result<Self, Refusal> {
        let (unit, node, name) = {
            let view = control.view();
            let copy = view
                .assignment(assignment)
                .ok_or_else(|| not_found(assignment))?;
            let name = view.node(copy.node).map(|node| node.name.clone());
            (copy.unit(), copy.node, name.unwrap_or_default())
        };
        let entry = control.shared.live.get(node);
        let link = entry.and_then(|entry| entry.lock().session().map(|s| Arc::clone(&s.link)));
        Ok(Self {
            unit,
            node,
            name,
            link,
        })
    }
}

fn not_found(assignment: AssignmentId) -> Refusal {
    let sentence = format!("there is no copy {assignment}");
    Refusal::new(
        Code::AssignmentNotFound,
        sentence,
        "list the copies with `hostler ps`",
    )
}
