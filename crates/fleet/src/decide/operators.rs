//! Verbs of people about nodes: labels and admission.
//!
//! ```text
//!   Open ◄──► Cordoned        Open, Cordoned ──drain──► Draining ──finish──► Drained
//!     ▲                                                    │                    │
//!     └────────────────────── undrain ─────────────────────┴────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use hostler_model::{Admission, Code, EventKind, Node, NodeId, Refusal};

use super::access::pending;
use super::{Draft, about_node, check_expected, copies};
use crate::{Expect, Reply};

impl<'a> Draft<'a> {
    pub(super) fn label(
        &mut self,
        id: NodeId,
        labels: &BTreeMap<String, Option<String>>,
        expect: Expect,
    ) -> Result<Reply, Refusal> {
        let node = self.expected_node(id, expect)?;
        check_labels(labels.iter().map(|(key, value)| (key, value.as_ref())))?;
        let mut merged = node.labels.clone();
        for (key, value) in labels {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        if merged == node.labels {
            return Ok(reply(node));
        }
        let message = format!("the labels of node {} changed", node.name);
        let node = Node {
            labels: merged,
            ..Node::clone(node)
        };
        Ok(self.revise(node, EventKind::NodeLabelled, message))
    }

    pub(super) fn cordon(&mut self, id: NodeId, expect: Expect) -> Result<Reply, Refusal> {
        let node = self.expected_node(id, expect)?;
        match node.admission {
            Admission::Open => {
                let message = format!("node {} takes no new copies", node.name);
                Ok(self.admit(node, Admission::Cordoned, EventKind::NodeCordoned, message))
            }
            Admission::Cordoned | Admission::Draining { .. } | Admission::Drained { .. } => {
                Ok(reply(node))
            }
            Admission::Pending => Err(pending(node)),
        }
    }

    pub(super) fn uncordon(&mut self, id: NodeId, expect: Expect) -> Result<Reply, Refusal> {
        let node = self.expected_node(id, expect)?;
        match node.admission {
            Admission::Open => Ok(reply(node)),
            Admission::Cordoned => {
                let message = format!("node {} takes new copies again", node.name);
                Ok(self.admit(node, Admission::Open, EventKind::NodeUncordoned, message))
            }
            Admission::Draining { .. } | Admission::Drained { .. } => Err(conflict(
                node,
                "drains or is drained",
                "end the drain with `hostler node undrain`",
            )),
            Admission::Pending => Err(pending(node)),
        }
    }

    pub(super) fn drain(&mut self, id: NodeId, expect: Expect) -> Result<Reply, Refusal> {
        let node = self.expected_node(id, expect)?;
        match node.admission {
            Admission::Open | Admission::Cordoned => {
                let message = format!("node {} drains", node.name);
                let draining = Admission::Draining { since: self.now };
                Ok(self.admit(node, draining, EventKind::NodeDraining, message))
            }
            Admission::Draining { .. } | Admission::Drained { .. } => Ok(reply(node)),
            Admission::Pending => Err(pending(node)),
        }
    }

    pub(super) fn undrain(&mut self, id: NodeId, expect: Expect) -> Result<Reply, Refusal> {
        let node = self.expected_node(id, expect)?;
        match node.admission {
            Admission::Open => Ok(reply(node)),
            Admission::Cordoned => Err(conflict(
                node,
                "does not drain, it is cordoned",
                "open it with `hostler node uncordon`",
            )),
            Admission::Draining { .. } | Admission::Drained { .. } => {
                let message = format!("node {} drains no longer", node.name);
                Ok(self.admit(node, Admission::Open, EventKind::NodeUndrained, message))
            }
            Admission::Pending => Err(pending(node)),
        }
    }

    pub(super) fn finish_drain(&mut self, id: NodeId) -> Result<Reply, Refusal> {
        let node = self.present_node(id)?;
        match node.admission {
            Admission::Drained { .. } => return Ok(reply(node)),
            Admission::Draining { .. } => {}
            Admission::Open | Admission::Cordoned | Admission::Pending => {
                let advice = "drain it first with `hostler node drain`";
                return Err(conflict(node, "does not drain", advice));
            }
        }
        let left = self.state.assignments_on(id);
        let left = left.filter(|copy| !copy.is_finished()).count();
        if left > 0 {
            let what = format!("still has {}", copies(left));
            let advice = "wait until they are gone; `hostler node show` lists them";
            return Err(conflict(node, &what, advice));
        }
        let message = format!(
            "node {} is drained: no process of the fleet is left",
            node.name
        );
        let drained = Admission::Drained { since: self.now };
        Ok(self.admit(node, drained, EventKind::NodeDrained, message))
    }

    /// The node, refused if it is gone or not as the caller has seen it.
    fn expected_node(&self, id: NodeId, expect: Expect) -> Result<&'a Arc<Node>, Refusal> {
        let node = self.present_node(id)?;
        check_expected(expect, Some(node.revision), &format!("node {}", node.name))?;
        Ok(node)
    }

    fn admit(
        &mut self,
        node: &Node,
        admission: Admission,
        kind: EventKind,
        message: String,
    ) -> Reply {
        let node = Node {
            admission,
            ..node.clone()
        };
        self.revise(node, kind, message)
    }

    /// Puts a node that a person changed.
    pub(super) fn revise(&mut self, mut node: Node, kind: EventKind, message: String) -> Reply {
        node.revision += 1;
        let answer = reply(&node);
        self.event(kind, about_node(node.id), message);
        self.put_node(node);
        answer
    }
}

const fn reply(node: &Node) -> Reply {
    Reply::Node {
        id: node.id,
        revision: node.revision,
    }
}

fn conflict(node: &Node, what: &str, advice: &str) -> Refusal {
    let sentence = format!("node {} {what}", node.name);
    Refusal::new(Code::NodeStateConflict, sentence, advice)
}

/// Refuses what can be no label; without a value it is one to be removed.
pub(super) fn check_labels<'a>(
    labels: impl Iterator<Item = (&'a String, Option<&'a String>)>,
) -> Result<(), Refusal> {
    const LONGEST_WORD: usize = 253;
    let is_word = |text: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
        (1..=LONGEST_WORD).contains(&text.len()) && text.chars().all(is_plain)
    };
    let mut findings = Vec::new();
    for (key, value) in labels {
        if !is_word(key) {
            findings.push(format!("`{key}` is no label"));
        } else if key.starts_with("node.") && value.is_some() {
            findings.push(format!(
                "`{key}`: labels that begin with `node.` are facts, not labels"
            ));
        }
        if let Some(value) = value.filter(|value| !is_word(value)) {
            findings.push(format!("`{value}` is no value of a label"));
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    let advice = "use letters, digits and `. _ - / :`";
    Err(Refusal::new(Code::NameInvalid, findings.join("; "), advice).with_details(findings))
}
