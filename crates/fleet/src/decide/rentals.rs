//! Nodes on rented machines: they arrive, move from machine to machine, and tell of both.
//!
//! ```text
//!   (unseen) ──moved──► Primary ──moved away, demoted──► Left ──ended──► Ended
//!   (unseen) ──beside─► Replica ──promoted──► Primary       │
//!                          └────────ended────────────────► Left
//! ```
//!
//! A machine that was left cannot speak for the node any more: two machines that were started from one
//! image tell the same identity.

use std::sync::Arc;

use hostler_model::{
    AccountStatus, Bounds, Code, EventKind, Interruption, InterruptionAnswer, Liveness, Machine,
    Node, NodeId, Policy, Refusal, Rental, ReplicaKind, Role, Signal, Standing, Switch, SwitchEnd,
    SwitchId,
};

use super::{Draft, about_node};
use crate::{
    Arrival, Change, Cleanup, MachineReport, PolicyChange, RentedVerb, Reply, SwitchReport, end_due,
};

/// Hours for which a switch is counted as saved.
const HOURS_SAVED: i64 = 24;
/// Among so many of its last switches a node's report is looked for, in case it tells one again.
const RETOLD: usize = 64;

impl Draft<'_> {
    pub(super) fn rent(&mut self, arrival: &Arrival) -> Result<Reply, Refusal> {
        let account = self.account(arrival.account)?;
        if account.status != AccountStatus::Active {
            let sentence = format!("account {} is suspended", account.name);
            return Err(Refusal::new(Code::Forbidden, sentence, ""));
        }
        let node = self.state.node_by_alias(&arrival.hello.identity);
        let old = node.and_then(|node| self.state.rental(node.id)).cloned();
        if let Some(node) = node.filter(|node| node.is_gone()) {
            return Err(super::gone(node));
        }
        let id = arrival.machine.id.as_deref().unwrap_or_default();
        if let Some(old) = &old {
            check_may_speak(old, id)?;
        }
        let present = old.as_ref().and_then(|old| old.primary());
        let moved = arrival.machine.applied(present, self.now);
        let machine = moved.as_ref().or(present).cloned();
        let mut hello = arrival.hello.clone();
        hello.instance = machine.as_ref().map(Machine::instance);
        let reply = self.announce(&hello)?;
        let Reply::Node { id, .. } = reply else {
            return Ok(reply);
        };
        let before = old.as_deref().cloned();
        let mut rental = before.clone().unwrap_or_else(|| self.rental(id, arrival));
        rental.standing = Standing::Running;
        rental.ended_at = None;
        if let Some(machine) = moved {
            self.take_over(&mut rental, machine);
        }
        if before.as_ref() != Some(&rental) {
            self.put_rental(rental);
        }
        Ok(reply)
    }

    fn rental(&self, node: NodeId, arrival: &Arrival) -> Rental {
        Rental {
            node,
            account: arrival.account,
            logical: arrival.hello.identity.foreign.clone(),
            policy: Policy::default(),
            bounds: Bounds::default(),
            standing: Standing::Running,
            version: 0,
            machines: Vec::new(),
            replicas: Vec::new(),
            interruptions: Vec::new(),
            installed_at: self.now,
            updated_at: self.now,
            ended_at: None,
            switched_at: None,
            cleaned_at: None,
        }
    }

    pub(super) fn rented(&mut self, node: NodeId, verb: &RentedVerb) -> Result<Reply, Refusal> {
        let rental = self.present_rental(node)?;
        match verb {
            RentedVerb::Moved(report) => self.moved(rental, report),
            RentedVerb::Beside(report) => self.beside(rental, report),
            RentedVerb::Stands(standing) => Ok(self.stands(rental, *standing)),
            RentedVerb::SetPolicy(change) => self.set_policy(rental, *change),
            RentedVerb::OrderSwitch(order) => self.order_switch(&rental, order),
            RentedVerb::Switched(report) => self.switched(rental, report),
            RentedVerb::AtRisk { machine } => Ok(self.at_risk(rental, machine)),
            RentedVerb::Taken {
                machine,
                due_at,
                replica,
            } => self.taken(rental, (machine, *due_at), *replica),
            RentedVerb::Ends { reason } => Ok(self.ends(rental, reason)),
            RentedVerb::OrderEnds => Ok(self.order_ends(rental)),
            RentedVerb::Ended { machine, error } => {
                self.machine_ended(rental, machine, error.as_deref())
            }
            RentedVerb::CleanedUp(cleanup) => Ok(self.cleaned_up(rental, *cleanup)),
            RentedVerb::AddReplica(order) => self.add_replica(rental, order),
            RentedVerb::ChangeReplica { replica, change } => {
                self.change_replica(rental, *replica, change)
            }
            RentedVerb::Promote { replica, old } => self.promote(rental, *replica, *old),
            RentedVerb::EndReplica { replica } => self.end_replica(rental, *replica),
        }
    }

    /// The rental of a node that is not gone, to be changed.
    pub(super) fn present_rental(&self, node: NodeId) -> Result<Rental, Refusal> {
        let name = &self.present_node(node)?.name;
        let rental = self.state.rental(node).ok_or_else(|| {
            let sentence = format!("node {name} is not on a rented machine");
            let advice = "use a node whose contract is `spot`";
            Refusal::new(Code::NotRented, sentence, advice)
        })?;
        Ok(Rental::clone(rental))
    }

    pub(super) fn put_rental(&mut self, mut rental: Rental) {
        rental.updated_at = self.now;
        trim(&mut rental.machines, Rental::MACHINES, |machine| {
            !machine.is_active()
        });
        trim(&mut rental.replicas, Rental::REPLICAS, |replica| {
            !replica.status.is_open()
        });
        trim(&mut rental.interruptions, Rental::INTERRUPTIONS, |_| true);
        self.changes.push(Change::PutRental(Arc::new(rental)));
    }

    pub(super) fn name_of(&self, node: NodeId) -> &str {
        self.state.node(node).map_or("?", |node| &node.name)
    }

    fn moved(&mut self, mut rental: Rental, report: &MachineReport) -> Result<Reply, Refusal> {
        check_may_speak(&rental, report.id.as_deref().unwrap_or_default())?;
        if let Some(machine) = report.applied(rental.primary(), self.now) {
            self.take_over(&mut rental, machine.clone());
            self.put_rental(rental.clone());
            self.set_instance(rental.node, &machine);
        }
        Ok(Reply::Done)
    }

    /// The machine becomes the one that the node is on.
    pub(super) fn take_over(&mut self, rental: &mut Rental, mut machine: Machine) {
        let old = rental.primary().map(|old| old.id.clone());
        let is_move = old.as_ref().is_some_and(|old| *old != machine.id);
        if is_move {
            self.leave(rental, old.as_deref().unwrap_or_default());
        }
        machine.role = Role::Primary;
        let (node, id) = (rental.node, machine.id.clone());
        set_machine(rental, machine);
        if let Some(old) = old.filter(|_| is_move) {
            let message = format!("node {} has moved from {old} to {id}", self.name_of(node));
            self.event(EventKind::InstanceChanged, about_node(node), message);
        }
    }

    /// The machine is not needed any more.
    pub(super) fn leave(&self, rental: &mut Rental, id: &str) {
        self.set_role(rental, id, Role::Left);
    }

    pub(super) fn set_role(&self, rental: &mut Rental, id: &str, role: Role) {
        let found = rental.machines.iter_mut().find(|it| it.id == id);
        if let Some(machine) = found.filter(|it| it.role != role && it.role != Role::Ended) {
            machine.role = role;
            machine.role_since = self.now;
            if role == Role::Ended {
                machine.ended_at = Some(self.now);
            }
        }
    }

    /// The node is on that machine, as everybody sees it.
    pub(super) fn set_instance(&mut self, id: NodeId, machine: &Machine) {
        let Some(node) = self.state.node(id) else {
            return;
        };
        let instance = Some(machine.instance());
        if node.instance != instance {
            self.put_node(Node {
                instance,
                ..Node::clone(node)
            });
        }
    }

    fn beside(&mut self, mut rental: Rental, report: &MachineReport) -> Result<Reply, Refusal> {
        let id = report.id.as_deref().unwrap_or_default();
        let known = rental.machine(id).cloned();
        let is_other = known
            .as_ref()
            .is_some_and(|machine| machine.role != Role::Replica);
        if is_other || id.is_empty() {
            return Err(stale(id));
        }
        if let Some(mut machine) = report.applied(known.as_ref(), self.now) {
            machine.role = Role::Replica;
            set_machine(&mut rental, machine);
            self.put_rental(rental);
        }
        Ok(Reply::Done)
    }

    fn stands(&mut self, rental: Rental, standing: Standing) -> Reply {
        if rental.standing != standing {
            self.put_rental(Rental { standing, ..rental });
        }
        Reply::Done
    }

    fn set_policy(&mut self, mut rental: Rental, change: PolicyChange) -> Result<Reply, Refusal> {
        if change.auto_switch == Some(true) && change.manual_replica == Some(true) {
            let sentence = "switching by itself and a replica by hand exclude each other";
            let advice = "turn on one of the two";
            return Err(Refusal::new(Code::BadRequest, sentence, advice));
        }
        let old = rental.policy;
        rental.policy = change.applied(old);
        if rental.policy == old {
            return Ok(Reply::Done);
        }
        let is_manual_over = old.manual_replica && !rental.policy.manual_replica;
        let is_all = is_manual_over && change.manual_replica == Some(false);
        let over: Vec<_> = rental
            .standing_by()
            .filter(|it| is_all || is_manual_over && it.kind == ReplicaKind::Manual)
            .map(|it| it.id)
            .collect();
        for replica in over {
            self.conclude_replica(&mut rental, replica);
        }
        rental.version += 1;
        let node = rental.node;
        let message = format!("the settings of node {} were changed", self.name_of(node));
        self.event(EventKind::PolicyChanged, about_node(node), message);
        self.put_rental(rental);
        Ok(Reply::Done)
    }

    fn switched(&mut self, mut rental: Rental, report: &SwitchReport) -> Result<Reply, Refusal> {
        let node = rental.node;
        let (from, to) = (&report.from.machine, &report.to.machine);
        let last = self.state.switches_of(node).rev().take(RETOLD);
        let is_told = last.into_iter().any(|known| {
            let is_same_order = report.command.is_some() && known.command == report.command;
            is_same_order || (known.from.machine == *from && known.to.machine == *to)
        });
        if is_told {
            return Ok(Reply::Done);
        }
        if from == to || to.is_empty() {
            let sentence = "a switch leads from one machine to another";
            return Err(Refusal::new(Code::BadRequest, sentence, ""));
        }
        let role = rental.machine(to).map(|machine| machine.role);
        if matches!(role, Some(Role::Left | Role::Ended)) {
            return Err(stale(to));
        }
        let known = rental.machine(to).cloned();
        let present = known.as_ref().or_else(|| rental.primary());
        let machine = of_end(&report.to).applied(present, self.now);
        if let Some(machine) = machine.or_else(|| known.clone()) {
            self.take_over(&mut rental, machine.clone());
            self.set_instance(node, &machine);
        }
        self.note_old_end(&mut rental, report);
        rental.switched_at = Some(self.now);
        rental.standing = Standing::Running;
        self.put_switch(&rental, report);
        self.put_rental(rental);
        Ok(Reply::Done)
    }

    /// What has become of the machine that was switched off: it has ended only if that was wanted and told.
    fn note_old_end(&self, rental: &mut Rental, report: &SwitchReport) {
        let from = &report.from;
        if from.machine.is_empty() {
            return;
        }
        if rental.machine(&from.machine).is_none()
            && let Some(machine) = of_end(from).applied(None, self.now)
        {
            rental.machines.insert(0, machine);
        }
        let has_ended = rental.policy.auto_terminate && report.stamps.old_ended.is_some();
        let role = if has_ended { Role::Ended } else { Role::Left };
        self.set_role(rental, &from.machine, role);
    }

    fn put_switch(&mut self, rental: &Rental, report: &SwitchReport) {
        let node = rental.node;
        let switch = Switch {
            id: SwitchId::mint(self.now, self.draws.next()),
            account: rental.account,
            node,
            at: self.now,
            from: report.from.clone(),
            to: report.to.clone(),
            trigger: report.trigger.clone(),
            command: report.command,
            prices: report.prices,
            stamps: report.stamps,
        };
        let prices = switch.prices;
        if let Some(account) = self.state.account(rental.account) {
            let mut account = hostler_model::Account::clone(account);
            let day = |price: hostler_model::Money| price.times(HOURS_SAVED);
            let month = hostler_model::Month {
                saved: day(prices.impact()).max(hostler_model::Money::ZERO),
                baseline: day(prices.on_demand.unwrap_or_else(|| prices.before())),
                paid: day(prices.after()),
            };
            account.savings.add(self.now, month);
            self.put_account(account);
        }
        let message = format!(
            "node {} was switched from {} to {}",
            self.name_of(node),
            switch.from.machine,
            switch.to.machine
        );
        self.changes.push(Change::PutSwitch(Arc::new(switch)));
        self.event(EventKind::SwitchCompleted, about_node(node), message);
    }

    fn at_risk(&mut self, mut rental: Rental, machine: &str) -> Reply {
        self.note_interruption(
            &mut rental,
            (Signal::Rebalance, machine, None),
            InterruptionAnswer::None,
        );
        self.put_rental(rental);
        Reply::Done
    }

    pub(super) fn note_interruption(
        &mut self,
        rental: &mut Rental,
        (signal, machine, due_at): (Signal, &str, Option<hostler_model::Timestamp>),
        answer: InterruptionAnswer,
    ) {
        let named = rental.machine(machine).or_else(|| rental.primary());
        let pool = named.and_then(|machine| machine.pool.clone());
        rental.interruptions.push(Interruption {
            signal,
            machine: machine.to_owned(),
            pool,
            at: self.now,
            due_at,
            answer,
        });
        let what = match signal {
            Signal::Rebalance => "is at risk",
            Signal::Termination => "is being taken away",
        };
        let name = self.name_of(rental.node);
        let message = format!("the machine of node {name} {what}");
        self.warning(
            EventKind::InterruptionNoticed,
            about_node(rental.node),
            message,
        );
    }

    fn ends(&mut self, mut rental: Rental, reason: &str) -> Reply {
        let id = rental.node;
        rental.ended_at = Some(self.now);
        if let Some(node) = self.state.node(id) {
            let message = format!("the machine of node {} ends: {reason}", node.name);
            if !matches!(node.liveness, Liveness::Lost { .. }) {
                self.put_node(Node {
                    liveness: Liveness::Lost { since: self.now },
                    ..Node::clone(node)
                });
            }
            self.warning(EventKind::InstanceEnded, about_node(id), message);
        }
        self.put_rental(rental);
        Reply::Done
    }

    fn order_ends(&mut self, mut rental: Rental) -> Reply {
        let now = self.now;
        let is_due = |machine: &&Machine| end_due(&rental, machine, now).is_some();
        let due = rental.machines.iter().filter(is_due);
        let due: Vec<String> = due.map(|machine| machine.id.clone()).collect();
        if !due.is_empty() {
            for machine in &mut rental.machines {
                if due.contains(&machine.id) {
                    machine.attempted_at = Some(now);
                }
            }
            self.put_rental(rental);
        }
        Reply::Machines(due)
    }

    fn machine_ended(
        &mut self,
        mut rental: Rental,
        id: &str,
        error: Option<&str>,
    ) -> Result<Reply, Refusal> {
        let Some(machine) = rental.machine(id) else {
            let sentence = format!("the node never was on a machine {id}");
            return Err(Refusal::new(Code::NodeNotFound, sentence, ""));
        };
        if machine.role == Role::Ended {
            return Ok(Reply::Done);
        }
        let node = rental.node;
        let name = self.name_of(node).to_owned();
        match error {
            Some(error) => {
                let message = format!("machine {id} of node {name} could not be ended: {error}");
                self.warning(EventKind::InstanceEnded, about_node(node), message);
            }
            None => {
                self.set_role(&mut rental, id, Role::Ended);
                let message = format!("machine {id} of node {name} has ended");
                self.event(EventKind::InstanceEnded, about_node(node), message);
                self.put_rental(rental);
            }
        }
        Ok(Reply::Done)
    }

    fn cleaned_up(&mut self, mut rental: Rental, cleanup: Cleanup) -> Reply {
        rental.cleaned_at = Some(self.now);
        let node = rental.node;
        let message = format!(
            "node {} deleted {} snapshots and {} images, {} failed",
            self.name_of(node),
            cleanup.snapshots,
            cleanup.images,
            cleanup.failed
        );
        let kind = EventKind::CleanupReported;
        if cleanup.failed > 0 {
            self.warning(kind, about_node(node), message);
        } else {
            self.event(kind, about_node(node), message);
        }
        self.put_rental(rental);
        Reply::Done
    }

    /// The node was removed: nothing is done by itself any more, and what stood by is not needed.
    pub(super) fn give_up_rental(&mut self, node: NodeId) {
        let Some(rental) = self.state.rental(node) else {
            return;
        };
        let mut rental = Rental::clone(rental);
        rental.policy = Policy {
            terminate_wait_seconds: rental.policy.terminate_wait_seconds,
            ..Policy::OFF
        };
        rental.version += 1;
        let open: Vec<_> = rental.standing_by().map(|replica| replica.id).collect();
        for replica in open {
            self.conclude_replica(&mut rental, replica);
        }
        if let Some(primary) = rental.primary().map(|machine| machine.id.clone()) {
            self.leave(&mut rental, &primary);
        }
        self.put_rental(rental);
    }
}

/// Puts the machine in the place of the one with its id, or behind the others.
pub(super) fn set_machine(rental: &mut Rental, machine: Machine) {
    match rental.machines.iter_mut().find(|it| it.id == machine.id) {
        Some(place) => *place = machine,
        None => rental.machines.push(machine),
    }
}

/// The end of a switch as a report of a machine.
fn of_end(end: &SwitchEnd) -> MachineReport {
    let told = |text: &String| (!text.is_empty()).then(|| text.clone());
    MachineReport {
        id: told(&end.machine),
        instance_type: told(&end.instance_type),
        region: told(&end.region),
        zone: told(&end.zone),
        market: Some(end.market).filter(|market| *market != hostler_model::Market::Unknown),
        image: told(&end.image),
        pool: end.pool.clone(),
        baseline: None,
    }
}

fn check_may_speak(rental: &Rental, machine: &str) -> Result<(), Refusal> {
    if machine.is_empty() || rental.may_speak(machine) {
        return Ok(());
    }
    Err(stale(machine))
}

pub(super) fn stale(machine: &str) -> Refusal {
    let sentence = format!("the node is not on machine {machine} any more");
    let advice = "end that machine, or give its agent an identity of its own";
    Refusal::new(Code::StaleReport, sentence, advice)
}

/// Forgets the oldest entries that may go until so many are left.
fn trim<T>(entries: &mut Vec<T>, most: usize, may_go: impl Fn(&T) -> bool) {
    while entries.len() > most {
        let Some(oldest) = entries.iter().position(&may_go) else {
            return;
        };
        entries.remove(oldest);
    }
}
