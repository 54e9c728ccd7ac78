//! Following the control plane: intents through the guard.

use std::collections::BTreeSet;

use hostler_model::{AssignmentId, Intent, IntentItem};
use hostler_runtime::FoundState;
use tokio::sync::oneshot;

use super::{Reconciler, Wanted};
use crate::guard::{self, Case, Scope, Speaker};
use crate::ledger::{Entry, Fleet, Seen};
use crate::notes::Note;
use crate::plan::Intents;

/// What the control plane wants, followed or not.
pub(super) struct Wish {
    pub(super) from: Speaker,
    /// Nothing in it is newer than this revision of the store; 0 if that was not told.
    revision: u64,
    pub(super) items: Intents,
    /// It changed since it was followed or held back last.
    is_new: bool,
}

impl Reconciler {
    /// Takes up what an earlier agent left.
    pub(super) fn load(&mut self) {
        let loaded = self.ledger.load();
        if loaded.damaged > 0 {
            tracing::warn!(
                files = loaded.damaged,
                "the ledger was damaged; what runs is kept until the control plane speaks of it"
            );
        }
        self.fleet = loaded.fleet;
        for (assignment, entry) in loaded.entries {
            let note = self.notes.entry(entry.item.unit).or_default();
            note.finished = entry.finished;
            note.recall(entry.crash_loop);
            self.intents.insert(assignment, entry.item);
        }
    }

    pub(super) fn take_full(
        &mut self,
        (from, revision): (Speaker, u64),
        items: Vec<Wanted>,
        done: oneshot::Sender<()>,
    ) {
        let items = items.into_iter().filter_map(|wanted| self.readable(wanted));
        let items = items.map(|item| (item.unit.assignment, item)).collect();
        self.wish = Some(Wish {
            from,
            revision,
            items,
            is_new: true,
        });
        self.unanswered.push(done);
    }

    pub(super) fn take_increment(
        &mut self,
        revision: u64,
        items: Vec<Wanted>,
        removed: &[AssignmentId],
        done: oneshot::Sender<()>,
    ) {
        let items: Vec<IntentItem> = items
            .into_iter()
            .filter_map(|wanted| self.readable(wanted))
            .collect();
        // Without a full set there is nothing to add to; the uplink asks for one at each start.
        let Some(wish) = &mut self.wish else { return };
        wish.is_new = true;
        wish.revision = revision;
        for item in items {
            let known = wish.items.get(&item.unit.assignment);
            // A larger generation wins, in whatever order they come.
            if known.is_none_or(|known| known.unit.generation <= item.unit.generation) {
                wish.items.insert(item.unit.assignment, item);
            }
        }
        for assignment in removed {
            wish.items.remove(assignment);
        }
        self.unanswered.push(done);
    }

    /// The item, or the one that is followed already where the new one cannot be read.
    fn readable(&self, wanted: Wanted) -> Option<IntentItem> {
        match wanted {
            Wanted::Item(item) => Some(*item),
            Wanted::Unreadable {
                unit,
                intent: Intent::Run,
            } => self.intents.get(&unit.assignment).cloned(),
            Wanted::Unreadable { unit, intent } => {
                let known = self.intents.get(&unit.assignment)?;
                Some(IntentItem {
                    unit,
                    intent,
                    ..known.clone()
                })
            }
        }
    }

    /// Lets the guard judge what is wanted, and follows it as far as it may. Asked at every turn: what runs
    /// changes, too, such as when an engine answers again.
    pub(super) fn follow(&mut self) {
        // Before every driver was asked it is not known what there is to protect.
        if !self.is_complete() {
            return;
        }
        let Some(wish) = &self.wish else { return };
        let running = self.running();
        let is_let_go = |assignment: &AssignmentId| {
            running.contains(assignment) && !wish.items.contains_key(assignment)
        };
        self.given_up.retain(is_let_go);
        let held = guard::judge(Case {
            followed: self.fleet,
            intents: &self.intents,
            from: wish.from,
            wish: &wish.items,
            running: &running,
            has_work: !self.intents.is_empty() || !self.observed.units.is_empty(),
            given_up: &self.given_up,
            begun_in_doubt: &self.begun_in_doubt,
        });
        if !wish.is_new && held == self.held {
            return;
        }
        let next = match &held {
            None => wish.items.clone(),
            Some(held) => guard::keep(&self.intents, &wish.items, held.scope),
        };
        let fleet = match &held {
            Some(held) if held.is_doubt => self.in_doubt(&next),
            // A stranger's fleet is not ours before an operator says so.
            Some(held) if held.scope == Scope::Stops => self.fleet,
            Some(_) | None => {
                let fleet = self.fleet_of(wish);
                self.begun_in_doubt.clear();
                Some(fleet)
            }
        };
        if let Some(wish) = &mut self.wish {
            wish.is_new = false;
        }
        if let Some(fleet) = fleet {
            self.set_fleet(fleet);
        }
        self.set_held(held);
        self.set_intents(next);
        for done in std::mem::take(&mut self.unanswered) {
            self.saves.answer(done);
        }
    }

    /// The fleet on record, once an older copy of its store was heard.
    fn in_doubt(&mut self, next: &Intents) -> Option<Fleet> {
        let new = next.keys().filter(|it| !self.intents.contains_key(it));
        self.begun_in_doubt.extend(new);
        self.fleet.map(|fleet| Fleet {
            is_in_doubt: true,
            ..fleet
        })
    }

    /// What is on record once the wish is followed.
    pub(super) fn fleet_of(&self, wish: &Wish) -> Fleet {
        let known = self.fleet.filter(|known| known.origin == wish.from.origin);
        let seen = match known {
            // An older control plane tells no revision; what a newer one told before still holds.
            Some(known) if wish.revision == 0 => known.seen,
            _ => Seen {
                revision: wish.revision,
                run: wish.from.run,
            },
        };
        let is_same_life =
            |known: &Fleet| !known.is_in_doubt && !guard::is_older(wish.from, known.seen);
        Fleet {
            origin: wish.from.origin,
            seen,
            is_in_doubt: false,
            since: known
                .filter(is_same_life)
                .map_or_else(|| self.now().wall, |known| known.since),
        }
    }

    pub(super) fn set_fleet(&mut self, fleet: Fleet) {
        if self.fleet == Some(fleet) {
            return;
        }
        let is_same =
            |known: Fleet| (known.origin, known.is_in_doubt) == (fleet.origin, fleet.is_in_doubt);
        let can_wait = self.fleet.is_some_and(is_same);
        let now = self.now();
        self.fleet = Some(fleet);
        self.saves.set_fleet(fleet, can_wait, now);
    }

    fn set_held(&mut self, held: Option<guard::Held>) {
        match (&self.held, &held) {
            (None, Some(held)) => tracing::warn!(
                reason = held.reason,
                would_stop = held.would_stop,
                "holding the intent back; nothing is stopped until an operator accepts it"
            ),
            (Some(_), None) => tracing::info!("following the intent again"),
            _ => {}
        }
        self.held = held;
    }

    fn set_intents(&mut self, next: Intents) {
        let before = std::mem::replace(&mut self.intents, next);
        let now = self.now();
        let dropped = before
            .keys()
            .filter(|assignment| !self.intents.contains_key(assignment));
        for assignment in dropped {
            self.saves.set_entry(*assignment, None, now);
        }
        let changed: Vec<AssignmentId> = self
            .intents
            .iter()
            .filter(|(assignment, item)| before.get(assignment) != Some(item))
            .map(|(assignment, _)| *assignment)
            .collect();
        for assignment in changed {
            self.save_entry(assignment);
        }
    }

    /// Writes down what is known of an assignment.
    pub(super) fn save_entry(&mut self, assignment: AssignmentId) {
        let Some(item) = self.intents.get(&assignment) else {
            return;
        };
        let note = self.notes.get(&item.unit);
        let entry = Entry {
            item: item.clone(),
            finished: note.and_then(|note| note.finished),
            crash_loop: note.and_then(Note::crash_loop),
        };
        let now = self.now();
        self.saves.set_entry(assignment, Some(entry), now);
    }

    /// What runs, and what may run where an engine does not answer.
    pub(super) fn running(&self) -> BTreeSet<AssignmentId> {
        let seen = self.observed.units.iter();
        let running = seen.filter(|(_, seen)| matches!(seen.state, FoundState::Running { .. }));
        let unknown = self.intents.values().filter(|item| {
            item.intent == Intent::Run && self.observed.down.contains_key(&item.spec.runs_on())
        });
        let running = running.map(|(unit, _)| unit.assignment);
        running
            .chain(unknown.map(|item| item.unit.assignment))
            .collect()
    }
}
