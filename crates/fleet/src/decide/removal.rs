//! Removing a node. Its record stays as history and its identity stays known, so that its agent is told
//! that it was removed instead of joining as a stranger; retention forgets both in the end.

use std::sync::Arc;

use hostler_model::{
    Assignment, Code, Command, CommandState, EventKind, Liveness, Node, NodeId, Refusal,
};

use super::{Draft, check_expected, copies};
use crate::{Change, Expect, Reply};

impl Draft<'_> {
    pub(super) fn remove_node(
        &mut self,
        id: NodeId,
        force: bool,
        expect: Expect,
    ) -> Result<Reply, Refusal> {
        let node = self.node(id)?;
        if node.is_gone() {
            return Ok(Reply::Node {
                id,
                revision: node.revision,
            });
        }
        check_expected(expect, Some(node.revision), &format!("node {}", node.name))?;
        let is_lost = matches!(node.liveness, Liveness::Lost { .. });
        // A copy that was replaced while its node was lost is no loss.
        let is_lost_for_good =
            |copy: &&Arc<Assignment>| !copy.is_finished() && (copy.is_wanted() || !is_lost);
        let left = self
            .state
            .assignments_on(id)
            .filter(is_lost_for_good)
            .count();
        if left > 0 && !force {
            let sentence = format!("node {} still has {}", node.name, copies(left));
            let advice =
                "drain it first with `hostler node drain`, or give its copies up with `--force`";
            return Err(Refusal::new(Code::NodeBusy, sentence, advice));
        }
        self.fail_pending_commands(id);
        self.give_up_rental(id);
        let message = match left {
            0 => format!("node {} was removed", node.name),
            left => format!(
                "node {} was removed and {} given up",
                node.name,
                copies(left)
            ),
        };
        let node = Node {
            liveness: Liveness::Lost { since: self.now },
            gone_at: Some(self.now),
            held_back: None,
            pressure: std::collections::BTreeSet::new(),
            ..Node::clone(node)
        };
        Ok(self.revise(node, EventKind::NodeRemoved, message))
    }

    fn fail_pending_commands(&mut self, id: NodeId) {
        let pending = self.state.commands_of(id);
        for command in pending.filter(|command| command.state == CommandState::Pending) {
            let state = CommandState::Failed {
                at: self.now,
                error: "the node was removed".to_owned(),
            };
            let command = Command {
                state,
                ..Command::clone(command)
            };
            self.changes.push(Change::PutCommand(Arc::new(command)));
        }
    }
}
