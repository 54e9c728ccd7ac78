//! Orders of the control plane: each takes effect at most once, and is answered the same however often it is
//! asked.
//!
//! ```text
//!   taken ──► on record as begun ──► carried out ──► result on record ──► answered
//!        └──► on record already ────────────────────────────────────────►┘
//! ```
//!
//! One at a time, in the order in which they came; the disk is waited for in tasks.

use std::io;

use hostler_model::{CommandId, CommandKind, StoreEpoch, Timestamp, UnitId};
use tokio::sync::oneshot;

use super::{Input, Reconciler};
use crate::care::{Ask, Demand};
use crate::ledger::CommandRecord;

/// What an order came to, for whoever gave it.
pub(super) type Outcome = Result<String, String>;

/// An order that is not answered yet.
pub(super) struct Order {
    pub(super) id: CommandId,
    pub(super) command: CommandKind,
    pub(super) done: oneshot::Sender<Outcome>,
}

/// What the ledger says to an order.
pub(crate) enum Begun {
    /// It was begun before, with this result.
    Before(Option<Outcome>),
    /// It is on record now.
    Now(CommandRecord),
}

impl Reconciler {
    pub(super) fn take_order(&mut self, order: Order) {
        self.orders.push_back(order);
        if self.orders.len() == 1 {
            self.begin_order();
        }
    }

    /// Puts the first order on record, unless it is.
    fn begin_order(&self) {
        let Some(order) = self.orders.front() else {
            return;
        };
        let begun = CommandRecord {
            id: order.id,
            command: order.command.clone(),
            begun_at: Timestamp::from_millis(self.clock.wall_millis()),
            result: None,
        };
        self.at_ledger(
            move |ledger| match ledger.command(begun.id) {
                Some(known) => Ok(Begun::Before(known.result)),
                None => ledger.record_command(&begun).map(|()| Begun::Now(begun)),
            },
            Input::OrderBegun,
        );
    }

    /// Carries the first order out, unless that was done before.
    pub(super) fn order_begun(&mut self, begun: io::Result<Begun>) {
        let begun = match begun {
            Ok(Begun::Now(begun)) => begun,
            Ok(Begun::Before(result)) => {
                return self.order_done(result.unwrap_or_else(|| {
                    Err(
                        "the agent was restarted while it did this; it is not done again"
                            .to_owned(),
                    )
                }));
            }
            Err(error) => {
                return self.order_done(Err(format!(
                    "cannot put the command on record, so it is not done: {error}"
                )));
            }
        };
        let result = match &begun.command {
            CommandKind::AcceptIntent { epoch } => self.accept(*epoch),
            CommandKind::Cleanup => Ok(self.clean_up(|_| true)),
            CommandKind::Collect { dry_run, data } => {
                let how = (*dry_run, *data);
                return self.collect(begun, how);
            }
            CommandKind::ListAdoptable { .. } => return self.list_adoptable(begun),
            CommandKind::Switch { .. } | CommandKind::Terminate { .. } => {
                Err("this agent does not look after a rented machine".to_owned())
            }
        };
        self.order_carried(begun, result);
    }

    /// Has the care make a round, which may take a while, and is told what it did.
    fn collect(&self, begun: CommandRecord, (is_dry_run, data): (bool, bool)) {
        let (asks, sender) = (self.care.asks.clone(), self.sender.clone());
        self.tasks.spawn_until_stop("collect", async move {
            let (done, told) = oneshot::channel();
            let ask = Ask {
                demand: Demand::All { data },
                is_dry_run,
                done,
            };
            // The care ends only with the agent; the order is then on record without a result.
            if asks.send(ask).await.is_err() {
                return;
            }
            if let Ok(words) = told.await {
                // As above.
                let _ = sender
                    .send(Input::OrderCarried(Box::new(begun), Ok(words)))
                    .await;
            }
        });
    }

    /// Puts the result of the first order on record.
    pub(super) fn order_carried(&self, begun: CommandRecord, result: Outcome) {
        let words = match (&begun.command, &result) {
            // What containers are given may be secret.
            (CommandKind::ListAdoptable { .. }, Ok(_)) => "listed",
            (_, Ok(words) | Err(words)) => words,
        };
        tracing::info!(id = %begun.id, is_done = result.is_ok(), words, "command carried out");
        let record = CommandRecord {
            result: Some(result.clone()),
            ..begun
        };
        self.at_ledger(
            move |ledger| ledger.record_command(&record),
            move |recorded| {
                if let Err(error) = recorded {
                    tracing::error!(%error, "cannot put the result of a command on record");
                }
                Input::OrderDone(result)
            },
        );
    }

    /// Answers the first order, and goes on with the next.
    pub(super) fn order_done(&mut self, result: Outcome) {
        if let Some(order) = self.orders.pop_front() {
            // An uplink that has gone asks again in its next session.
            let _ = order.done.send(result);
        }
        self.begin_order();
    }

    /// An operator accepts the intent that is held back, with all that it stops.
    fn accept(&mut self, epoch: StoreEpoch) -> Result<String, String> {
        self.follow();
        let (Some(wish), Some(held)) = (&self.wish, &self.held) else {
            return Ok("no intent is held back".to_owned());
        };
        let asked = wish.from.origin.store_epoch;
        if asked != epoch {
            return Err(format!(
                "the intent that is held back is of epoch {asked}, not {epoch}"
            ));
        }
        let stopped = held.would_stop;
        let mut given_up = self.running();
        given_up.retain(|assignment| !wish.items.contains_key(assignment));
        let fleet = self.fleet_of(wish);
        self.set_fleet(fleet);
        self.begun_in_doubt.clear();
        self.given_up = given_up;
        self.follow();
        Ok(format!(
            "the intent is followed; {stopped} units that it does not speak of are stopped"
        ))
    }

    /// Marks what has finished, so that the plan removes it.
    pub(super) fn clean_up(&mut self, is_meant: impl Fn(&UnitId) -> bool) -> String {
        let units = &self.observed.units;
        let finished = self.notes.iter_mut().filter(|(unit, note)| {
            let is_kept = note.finished.is_some() && !note.is_unwanted;
            is_kept && units.contains_key(unit) && is_meant(unit)
        });
        let mut count = 0;
        for (_, note) in finished {
            note.is_unwanted = true;
            count += 1;
        }
        format!("removing what is kept of {count} finished units")
    }
}
