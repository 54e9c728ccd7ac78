//! Commands: durable orders to a node, answered once.

use std::sync::Arc;
use std::time::Duration;

use hostler_model::{
    Code, Command, CommandId, CommandKind, CommandState, EventKind, Machine, Market, NodeId,
    Refusal, Rental, SwitchTarget, Timestamp,
};

use super::{Draft, about_node, command_id};
use crate::{Change, Reply, SwitchOrder};

/// Orders that may wait for one node; an agent that never asks for them must not fill the store.
const MOST_PENDING: usize = 256;

impl Draft<'_> {
    pub(super) fn issue(&mut self, node: NodeId, kind: &CommandKind) -> Result<Reply, Refusal> {
        let author = self.actor.to_string();
        self.order(node, kind.clone(), (0, author, None))
    }

    pub(super) fn order_switch(
        &mut self,
        rental: &Rental,
        order: &SwitchOrder,
    ) -> Result<Reply, Refusal> {
        let node = rental.node;
        let request = order.request.as_deref();
        let before = request.and_then(|request| self.state.command_by_request(node, request));
        if let Some(before) = before {
            return Ok(Reply::Command { id: before.id });
        }
        if !order.is_by_hand {
            self.check_may_switch(rental)?;
            if rental.primary().is_some_and(|it| is_at(it, &order.to)) {
                return Ok(Reply::Done);
            }
        }
        let policy = rental.policy;
        // An old machine is kept if it may not be ended, which 0 says.
        let wait = if policy.auto_terminate {
            policy.terminate_wait_seconds
        } else {
            0
        };
        let kind = CommandKind::Switch {
            to: order.to.clone(),
            machine: rental.primary().map(|machine| machine.id.clone()),
            terminate_wait_seconds: Some(wait),
            reason: order.reason.clone(),
        };
        let rest = (order.priority, order.author.clone(), order.request.clone());
        self.order(node, kind, rest)
    }

    fn check_may_switch(&self, rental: &Rental) -> Result<(), Refusal> {
        let name = self.name_of(rental.node);
        let advice = "change its settings, or order the switch by hand";
        if !rental.policy.enabled {
            let sentence = format!("node {name} is disabled");
            return Err(Refusal::new(Code::NodeStateConflict, sentence, advice));
        }
        if !rental.policy.auto_switch {
            let sentence = format!("node {name} is not switched by itself");
            return Err(Refusal::new(Code::Forbidden, sentence, advice));
        }
        Ok(())
    }

    fn order(
        &mut self,
        node: NodeId,
        kind: CommandKind,
        (priority, author, request): (u32, String, Option<String>),
    ) -> Result<Reply, Refusal> {
        let name = &self.present_node(node)?.name;
        let created_at = self.next_in_line(node)?;
        let id = command_id(created_at, &mut self.draws);
        let message = format!("node {name} is to {}", wording(&kind));
        let command = Command {
            id,
            node,
            kind,
            priority,
            author,
            request,
            created_at,
            state: CommandState::Pending,
        };
        self.changes.push(Change::PutCommand(Arc::new(command)));
        self.event(EventKind::CommandIssued, about_node(node), message);
        Ok(Reply::Command { id })
    }

    /// The age of a new order: later than that of every order that waits, so that age alone puts them in line.
    fn next_in_line(&self, node: NodeId) -> Result<Timestamp, Refusal> {
        let is_pending = |command: &&Arc<Command>| command.state == CommandState::Pending;
        let pending = self.state.commands_of(node).filter(is_pending);
        let (count, newest) = pending.fold((0, None), |(count, newest), command| {
            (count + 1, newest.max(Some(command.created_at)))
        });
        if count >= MOST_PENDING {
            let sentence = format!("{count} orders wait for the node already");
            let advice = "its agent does not fetch them: see that it runs";
            return Err(Refusal::new(Code::Overloaded, sentence, advice));
        }
        let after = newest.map(|newest| newest.plus(Duration::from_millis(1)));
        Ok(after.map_or(self.now, |after| after.max(self.now)))
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
        let order = wording(&command.kind);
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

/// Whether the machine is where the order leads.
fn is_at(machine: &Machine, target: &SwitchTarget) -> bool {
    match target {
        SwitchTarget::OnDemand => machine.market == Market::OnDemand,
        SwitchTarget::Spot(pool) => {
            machine.market == Market::Spot && machine.pool.as_ref() == Some(pool)
        }
    }
}

fn wording(kind: &CommandKind) -> String {
    match kind {
        CommandKind::AcceptIntent { .. } => "accept the fleet's intent".to_owned(),
        CommandKind::Collect { dry_run: true, .. } => "say what can be deleted there".to_owned(),
        CommandKind::Collect { .. } => "delete what nothing needs there".to_owned(),
        CommandKind::ListAdoptable { .. } => "tell which containers it could adopt".to_owned(),
        CommandKind::Cleanup => "clean up after finished copies".to_owned(),
        CommandKind::Switch { to, .. } => match to {
            SwitchTarget::Spot(pool) => format!("switch to the pool {pool}"),
            SwitchTarget::OnDemand => "switch to an on-demand machine".to_owned(),
        },
        CommandKind::Terminate { .. } => "end its machine".to_owned(),
    }
}
