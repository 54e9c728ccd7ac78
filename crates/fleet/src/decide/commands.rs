//! Commands: durable orders to a node, answered once.

use std::sync::Arc;

use hostler_model::{
    Code, Command, CommandId, CommandKind, CommandState, EventKind, NodeId, Refusal,
};

use super::{Draft, about_node, command_id};
use crate::{Change, Reply};

impl Draft<'_> {
    pub(super) fn issue(&mut self, node: NodeId, kind: &CommandKind) -> Result<Reply, Refusal> {
        let name = &self.present_node(node)?.name;
        let id = command_id(self.now, &mut self.draws);
        let message = format!("node {name} is to {}", order(kind));
        let command = Command {
            id,
            node,
            kind: kind.clone(),
            created_at: self.now,
            state: CommandState::Pending,
        };
        self.changes.push(Change::PutCommand(Arc::new(command)));
        self.event(EventKind::CommandIssued, about_node(node), message);
        Ok(Reply::Command { id })
    }

    pub(super) fn acknowledge(
        &mut self,
        node: NodeId,
        id: CommandId,
        result: &Result<String, String>,
    ) -> Result<Reply, Refusal> {
        let command = self
            .state
            .command(id)
            .filter(|command| command.node == node);
        let Some(command) = command else {
            let sentence = format!("the node has no command {id}");
            return Err(Refusal::new(Code::CommandNotFound, sentence, ""));
        };
        if command.state != CommandState::Pending {
            return Ok(Reply::Done);
        }
        let at = self.now;
        let state = match result.clone() {
            Ok(result) => CommandState::Done { at, result },
            Err(error) => CommandState::Failed { at, error },
        };
        let command = Command {
            state,
            ..Command::clone(command)
        };
        let name = self.state.node(node).map_or("?", |node| &node.name);
        let order = order(&command.kind);
        self.changes.push(Change::PutCommand(Arc::new(command)));
        match result {
            Ok(_) => {
                let message = format!("node {name} has done the order to {order}");
                self.event(EventKind::CommandFinished, about_node(node), message);
            }
            Err(error) => {
                let message = format!("node {name} could not {order}: {error}");
                self.warning(EventKind::CommandFinished, about_node(node), message);
            }
        }
        Ok(Reply::Done)
    }
}

const fn order(kind: &CommandKind) -> &'static str {
    match kind {
        CommandKind::AcceptIntent { .. } => "accept the fleet's intent",
        CommandKind::Cleanup => "clean up after finished copies",
    }
}
