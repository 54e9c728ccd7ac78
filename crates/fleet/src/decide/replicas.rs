//! Replicas: machines that stand by. Only their books are kept here; who launches and ends them is their agent.
//!
//! ```text
//!   Launching ──► Syncing ──► Ready ──promote──► Promoted
//!       └────────────┴──────────┴──end──► Terminated      (Failed from any of the three)
//! ```

use hostler_model::{
    Code, EventKind, InterruptionAnswer, Machine, Market, Refusal, Rental, Replica, ReplicaId,
    ReplicaKind, ReplicaStatus, Role, Signal, SyncStatus, Timestamp,
};

use super::rentals::{set_machine, stale};
use super::{Draft, about_node};
use crate::{MachineReport, OldPrimary, ReplicaChange, ReplicaOrder, Reply};

/// Replicas that a node has at a time.
const MOST_OPEN: usize = 1;

impl Draft<'_> {
    pub(super) fn add_replica(
        &mut self,
        mut rental: Rental,
        order: &ReplicaOrder,
    ) -> Result<Reply, Refusal> {
        let name = self.name_of(rental.node).to_owned();
        if order.kind == ReplicaKind::Manual && !rental.policy.manual_replica {
            let sentence = format!("manual replicas are off for node {name}");
            return Err(conflict(sentence, "turn them on in its settings"));
        }
        if rental.standing_by().count() >= MOST_OPEN {
            let sentence = format!("node {name} has a replica already");
            return Err(conflict(sentence, "end or promote the one that is there"));
        }
        let pool = self.state.pool(&order.pool).ok_or_else(|| {
            let sentence = format!("no agent has reported the pool {}", order.pool);
            Refusal::new(Code::ReplicaNotFound, sentence, "")
        })?;
        let primary = rental.primary();
        let kind = primary.map_or("", |machine| machine.instance_type.as_str());
        if !kind.is_empty() && kind != pool.instance_type {
            let sentence = format!(
                "the pool is of {}, the node is on {kind}",
                pool.instance_type
            );
            return Err(conflict(sentence, "choose a pool of the same kind"));
        }
        let id = ReplicaId::mint(self.now, self.draws.next());
        let replica = Replica {
            id,
            kind: order.kind,
            status: ReplicaStatus::Launching,
            sync: SyncStatus::Initializing,
            pool: pool.id.clone(),
            instance_type: pool.instance_type.clone(),
            region: pool.region.clone(),
            zone: pool.zone.clone(),
            machine: None,
            parent: primary.map_or_else(String::new, |machine| machine.id.clone()),
            hourly_cost: pool.spot,
            author: order.author.clone(),
            tags: order.tags.clone(),
            created_at: self.now,
            launched_at: None,
            sync_began_at: None,
            synced_at: None,
            ready_at: None,
            promoted_at: None,
            ended_at: None,
            error: None,
        };
        if let Some((signal, due_at)) = order.signal {
            let notice = (signal, replica.parent.as_str(), due_at);
            self.note_interruption(&mut rental, notice, InterruptionAnswer::ReplicaCreated);
        }
        let message = format!("node {name} gets a replica in {}", replica.pool);
        rental.replicas.push(replica);
        self.event(EventKind::ReplicaChanged, about_node(rental.node), message);
        self.put_rental(rental);
        Ok(Reply::Replica { id })
    }

    pub(super) fn change_replica(
        &mut self,
        mut rental: Rental,
        id: ReplicaId,
        change: &ReplicaChange,
    ) -> Result<Reply, Refusal> {
        let old = replica(&rental, id)?.clone();
        let mut next = old.clone();
        if let Some(machine) = &change.machine {
            self.tell_machine(&mut rental, &mut next, machine)?;
        }
        next.sync = change.sync.unwrap_or(next.sync);
        next.sync_began_at = change.sync_began_at.or(next.sync_began_at);
        next.synced_at = change.synced_at.or(next.synced_at);
        next.error = change.error.clone().or(next.error);
        if let Some(status) = change.status.filter(|status| *status != old.status) {
            if !old.status.is_open() || status == ReplicaStatus::Promoted {
                let sentence = format!("the replica is {:?} and stays so", old.status);
                return Err(conflict(sentence.to_lowercase(), ""));
            }
            next.status = status;
            self.note_status(&rental, &mut next);
        }
        if next == old {
            return Ok(Reply::Replica { id });
        }
        let is_over = !next.status.is_open();
        let machine = next.machine.clone().filter(|_| is_over);
        set_replica(&mut rental, next);
        if let Some(machine) = machine {
            self.leave(&mut rental, &machine);
        }
        self.put_rental(rental);
        Ok(Reply::Replica { id })
    }

    /// The provider's id of the replica's machine is known.
    fn tell_machine(
        &mut self,
        rental: &mut Rental,
        replica: &mut Replica,
        id: &str,
    ) -> Result<(), Refusal> {
        if replica.machine.as_deref() == Some(id) {
            return Ok(());
        }
        if !replica.status.is_open() || rental.machine(id).is_some() {
            let sentence = format!("machine {id} cannot become that replica");
            return Err(conflict(sentence, ""));
        }
        replica.machine = Some(id.to_owned());
        replica.launched_at = replica.launched_at.or(Some(self.now));
        let report = MachineReport {
            id: Some(id.to_owned()),
            instance_type: Some(replica.instance_type.clone()),
            region: Some(replica.region.clone()),
            zone: Some(replica.zone.clone()),
            market: Some(Market::Spot),
            image: None,
            pool: Some(replica.pool.clone()),
            baseline: rental.primary().and_then(|machine| machine.baseline),
        };
        if let Some(machine) = report.applied(None, self.now) {
            let machine = Machine {
                role: Role::Replica,
                ..machine
            };
            set_machine(rental, machine);
        }
        Ok(())
    }

    fn note_status(&mut self, rental: &Rental, replica: &mut Replica) {
        let now = Some(self.now);
        match replica.status {
            ReplicaStatus::Ready => replica.ready_at = replica.ready_at.or(now),
            ReplicaStatus::Syncing => replica.sync_began_at = replica.sync_began_at.or(now),
            ReplicaStatus::Terminated | ReplicaStatus::Failed => replica.ended_at = now,
            ReplicaStatus::Launching | ReplicaStatus::Promoted => {}
        }
        let name = self.name_of(rental.node);
        let word = format!("{:?}", replica.status).to_lowercase();
        let message = format!("the replica of node {name} in {} is {word}", replica.pool);
        let kind = EventKind::ReplicaChanged;
        if replica.status == ReplicaStatus::Failed {
            self.warning(kind, about_node(rental.node), message);
        } else {
            self.event(kind, about_node(rental.node), message);
        }
    }

    pub(super) fn promote(
        &mut self,
        mut rental: Rental,
        id: ReplicaId,
        old: OldPrimary,
    ) -> Result<Reply, Refusal> {
        let status = replica(&rental, id)?.status;
        if !matches!(status, ReplicaStatus::Ready | ReplicaStatus::Syncing) {
            let sentence = format!("the replica is {status:?}").to_lowercase();
            return Err(conflict(sentence, "only one that is ready or syncing can"));
        }
        self.promote_now(&mut rental, id, old);
        self.put_rental(rental);
        Ok(Reply::Replica { id })
    }

    /// The replica becomes the machine that the node is on. One whose machine nobody has named yet is counted
    /// as promoted all the same; the next beat tells the machine.
    fn promote_now(&mut self, rental: &mut Rental, id: ReplicaId, old: OldPrimary) {
        let before = rental.primary().map(|machine| machine.id.clone());
        let Some(replica) = rental.replicas.iter_mut().find(|it| it.id == id) else {
            return;
        };
        replica.status = ReplicaStatus::Promoted;
        replica.promoted_at = Some(self.now);
        replica.ended_at = Some(self.now);
        replica.parent = before.clone().unwrap_or_default();
        let named = replica.machine.clone();
        let named = named.and_then(|id| rental.machine(&id).cloned());
        if let Some(machine) = named {
            let machine = Machine {
                role: Role::Primary,
                role_since: self.now,
                ..machine
            };
            self.take_over(rental, machine.clone());
            self.set_instance(rental.node, &machine);
        }
        if let Some(before) = before {
            let role = match old {
                OldPrimary::Demote => Role::Left,
                OldPrimary::Keep => Role::Replica,
            };
            self.set_role(rental, &before, role);
        }
        rental.switched_at = Some(self.now);
        let name = self.name_of(rental.node);
        let message = format!("the replica of node {name} has taken its place");
        self.event(EventKind::ReplicaChanged, about_node(rental.node), message);
    }

    pub(super) fn end_replica(
        &mut self,
        mut rental: Rental,
        id: ReplicaId,
    ) -> Result<Reply, Refusal> {
        if !replica(&rental, id)?.status.is_open() {
            let sentence = "the replica has ended already";
            return Err(conflict(sentence.to_owned(), ""));
        }
        self.conclude_replica(&mut rental, id);
        self.put_rental(rental);
        Ok(Reply::Replica { id })
    }

    /// The replica is not needed any more; its machine is left, to be ended by its agent.
    pub(super) fn conclude_replica(&mut self, rental: &mut Rental, id: ReplicaId) {
        self.conclude(rental, id, None);
    }

    fn conclude(&mut self, rental: &mut Rental, id: ReplicaId, failure: Option<&str>) {
        let Some(mut replica) = rental.replica(id).cloned() else {
            return;
        };
        replica.status = match failure {
            Some(_) => ReplicaStatus::Failed,
            None => ReplicaStatus::Terminated,
        };
        replica.error = failure.map(str::to_owned).or(replica.error);
        self.note_status(rental, &mut replica);
        let machine = replica.machine.clone();
        set_replica(rental, replica);
        if let Some(machine) = machine {
            self.leave(rental, &machine);
        }
    }

    pub(super) fn taken(
        &mut self,
        mut rental: Rental,
        (machine, due_at): (&str, Option<Timestamp>),
        wanted: Option<ReplicaId>,
    ) -> Result<Reply, Refusal> {
        match rental.machine(machine).map(|it| it.role) {
            Some(Role::Primary) | None => {}
            Some(Role::Replica) => {
                self.standby_taken(&mut rental, (machine, due_at));
                self.put_rental(rental);
                return Ok(Reply::Done);
            }
            // The notice is told again, or by a machine that is kept for a while: the node is safe.
            Some(Role::Left | Role::Ended) => {
                let took_over = |it: &&Replica| it.promoted_at.is_some() && it.parent == machine;
                let replica = rental.replicas.iter().rev().find(took_over);
                let replica = replica.ok_or_else(|| stale(machine))?;
                return Ok(Reply::Replica { id: replica.id });
            }
        }
        let replica = wanted
            .and_then(|id| rental.replica(id))
            .filter(|replica| rank(replica).is_some())
            .or_else(|| rental.standing_by().min_by_key(|it| rank(it).unwrap_or(2)))
            .filter(|replica| rank(replica).is_some());
        let replica = replica.map(|replica| replica.id);
        let answer = match replica {
            Some(_) => InterruptionAnswer::ReplicaPromoted,
            None => InterruptionAnswer::SnapshotNeeded,
        };
        let notice = (Signal::Termination, machine, due_at);
        self.note_interruption(&mut rental, notice, answer);
        if let Some(replica) = replica {
            self.promote_now(&mut rental, replica, OldPrimary::Demote);
        }
        self.put_rental(rental);
        Ok(replica.map_or(Reply::Done, |id| Reply::Replica { id }))
    }

    /// A machine that stands by is taken: the node goes on without it.
    fn standby_taken(&mut self, rental: &mut Rental, (machine, due_at): (&str, Option<Timestamp>)) {
        let notice = (Signal::Termination, machine, due_at);
        self.note_interruption(rental, notice, InterruptionAnswer::None);
        let is_on_it = |it: &&Replica| it.machine.as_deref() == Some(machine);
        let replica = rental.standing_by().find(is_on_it).map(|it| it.id);
        if let Some(replica) = replica {
            self.conclude(rental, replica, Some("its machine is being taken away"));
        }
        self.leave(rental, machine);
    }
}

/// Which replica takes over first: one that is ready, then one that syncs, no other.
const fn rank(replica: &Replica) -> Option<u8> {
    match replica.status {
        ReplicaStatus::Ready => Some(0),
        ReplicaStatus::Syncing => Some(1),
        _ => None,
    }
}

fn set_replica(rental: &mut Rental, replica: Replica) {
    if let Some(place) = rental.replicas.iter_mut().find(|it| it.id == replica.id) {
        *place = replica;
    }
}

fn replica(rental: &Rental, id: ReplicaId) -> Result<&Replica, Refusal> {
    rental.replica(id).ok_or_else(|| {
        let sentence = format!("the node has no replica {id}");
        Refusal::new(Code::ReplicaNotFound, sentence, "list its replicas")
    })
}

fn conflict(sentence: String, advice: &str) -> Refusal {
    Refusal::new(Code::ReplicaStateConflict, sentence, advice)
}
