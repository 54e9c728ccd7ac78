//! What the control plane is told of the node in a session: only what differs from what it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _};
use hostler_kit::trust::Print;
use hostler_model::{ObservedUnit, UnitId, UnitState, WorkloadId};
use hostler_wire::session::v1;
use hostler_wire::session::v1::node_message::Message as Out;

use super::{Ended, Session};
use crate::show::Picture;
use crate::status::AgentStatus;
use crate::uplink::session::{convert, parts};

/// Workloads that are asked about in one message.
const KEPT_AT_ONCE: usize = 1000;

impl Session<'_> {
    /// Tells what the drivers can do if it is news. Where facts come with a hello only, there is another.
    pub(super) async fn tell_facts(&mut self) -> Result<(), Ended> {
        let known = self.uplink.handle.abilities.known();
        if known == self.told {
            return Ok(());
        }
        if !self.takes_facts {
            return Err(Ended::Again("what a driver can do has changed"));
        }
        let facts = self.uplink.facts(&known);
        self.told = known;
        self.send(Out::Facts(facts)).await
    }

    /// Tells what differs from what the other side knows.
    pub(super) async fn tell(&mut self, picture: &Picture) -> Result<(), Ended> {
        let mut changed = Vec::new();
        for (unit, observed) in &picture.units {
            if self.sent.get(unit) != Some(observed) {
                changed.push(convert::observed(observed));
            }
        }
        for (unit, observed) in &self.sent {
            if !picture.units.contains_key(unit) && observed.state != UnitState::Gone {
                let gone = ObservedUnit {
                    state: UnitState::Gone,
                    ..observed.clone()
                };
                changed.push(convert::observed(&gone));
            }
        }
        if !changed.is_empty() {
            self.sent.clone_from(&picture.units);
            for part in parts::observed(changed, false) {
                self.send_message(part).await?;
            }
        }
        self.tell_held(picture).await?;
        self.show_status(picture);
        Ok(())
    }

    /// The node has renewed under another authority.
    pub(super) async fn tell_belief(&mut self, print: Option<Print>) -> Result<(), Ended> {
        let Some(print) = print else { return Ok(()) };
        let authority = print.to_string();
        self.send(Out::Believes(v1::Believes { authority })).await
    }

    /// Asks which of the workloads whose data is kept are still known.
    pub(super) async fn tell_kept(
        &mut self,
        workloads: &BTreeSet<WorkloadId>,
    ) -> Result<(), Ended> {
        let workloads: Vec<String> = workloads.iter().map(ToString::to_string).collect();
        for some in workloads.chunks(KEPT_AT_ONCE) {
            let workloads = some.to_vec();
            self.send(Out::Kept(v1::Kept { workloads })).await?;
        }
        Ok(())
    }

    /// What is not known any more is for the care to delete, if the control plane is the one that is followed.
    pub(super) fn take_unwanted(&mut self, unwanted: &v1::Unwanted) {
        let picture = self.uplink.handle.picture.borrow();
        if picture.held.is_some() || picture.origin != Some(self.speaker.origin) {
            return;
        }
        let kept = self.uplink.handle.care.kept.borrow();
        let told = unwanted.workloads.iter().filter_map(|id| id.parse().ok());
        let told: BTreeSet<WorkloadId> = told.filter(|id| kept.contains(id)).collect();
        // What was deleted never comes back.
        self.uplink.handle.care.unwanted.send_if_modified(|known| {
            let before = known.len();
            known.retain(|id| kept.contains(id));
            let dropped = before - known.len();
            known.extend(told);
            known.len() > before - dropped
        });
    }

    /// Before the intent of this session was judged, only the news that one is held back is certain.
    async fn tell_held(&mut self, picture: &Picture) -> Result<(), Ended> {
        let held = picture.held.as_ref().map(|held| v1::Held {
            reason: held.reason.clone(),
            would_stop: held.would_stop,
        });
        if held.is_none() && !self.is_judged {
            return Ok(());
        }
        let held = held.unwrap_or_default();
        if self.told_held.as_ref() == Some(&held) {
            return Ok(());
        }
        self.told_held = Some(held.clone());
        self.send(Out::Held(held)).await
    }

    fn show_status(&self, picture: &Picture) {
        let node_id = self.speaker.origin.node_id;
        let next = match &picture.held {
            None => AgentStatus::Joined { node_id },
            Some(held) => AgentStatus::Held {
                node_id,
                reason: held.reason.clone(),
                would_stop: held.would_stop,
            },
        };
        next.show(&self.uplink.status);
    }

    /// Passes on what the reconciler has answered.
    pub(super) async fn answer(&mut self, answer: Out) -> Result<(), Ended> {
        let is_judgement = matches!(answer, Out::Applied(_));
        self.send(answer).await?;
        if is_judgement && !self.is_judged {
            self.is_judged = true;
            let picture = Arc::clone(&self.uplink.handle.picture.borrow());
            self.tell_held(&picture).await?;
        }
        Ok(())
    }

    /// What is known, and was not told yet.
    pub(super) async fn tell_the_rest(&mut self) -> Result<(), Ended> {
        while let Some(Some(answer)) = self.answers.next().now_or_never() {
            if let Some(answer) = answer {
                self.answer(answer).await?;
            }
        }
        let shown = Arc::clone(&self.uplink.handle.picture.borrow());
        self.tell(&shown).await
    }

    pub(super) async fn resend(&mut self) -> Result<(), Ended> {
        let picture = Arc::clone(&self.uplink.handle.picture.borrow());
        self.sent.clone_from(&picture.units);
        for part in full_set(&self.sent) {
            self.send_message(part).await?;
        }
        Ok(())
    }
}

pub(in crate::uplink::session) fn full_set(
    units: &BTreeMap<UnitId, ObservedUnit>,
) -> Vec<v1::NodeMessage> {
    parts::observed(units.values().map(convert::observed).collect(), true)
}
