//! A scheduler's requests to run and to delete: judged here, on record before they are answered, carried out by the
//! reconciler.
//!
//! ```text
//!   same revision, as wanted ───────────────────► skipped
//!   same revision, to be stopped ───────────────► the same unit, to stop
//!   new revision, to run again, came to an end ─► the next generation
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostler_model::UnitState;
use hostler_model::spec::Kind;
use hostler_wire::persys::agent::{
    ActualState, ApplyWorkloadRequest, ApplyWorkloadResponse, DeleteWorkloadResponse, DesiredState,
    WorkloadStatus,
};
use prost::Message as _;

use super::actions::{Standing, Task};
use super::core::{Core, Workload, lock};
use super::records::{Desired, GivenUp, Record};
use super::spec::{self, No};
use super::{causes, states};

/// What a request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is so already.
    Skip,
    /// The unit that is there, with another wish.
    Keep,
    /// A new unit.
    Next,
}

impl Core {
    /// Runs or stops a workload. Every no is an answer, too.
    pub(super) async fn apply(&self, request: ApplyWorkloadRequest) -> ApplyWorkloadResponse {
        self.begun().await;
        let id = request.id.clone();
        let _turn = self.turn(&id).await;
        match self.try_apply(&request).await {
            Ok(answer) => answer,
            Err(no) => {
                tracing::warn!(
                    workload = id,
                    code = no.cause.code,
                    reason = no.message,
                    "apply refused"
                );
                lock(&self.counts).failed(no.cause.code);
                // The answer has no other place for the typed cause.
                let mut status = self.status(&id).unwrap_or_else(|| WorkloadStatus {
                    id,
                    actual_state: ActualState::Failed as i32,
                    message: no.message.clone(),
                    ..WorkloadStatus::default()
                });
                status.metadata.extend(states::told(no.cause, &no.message));
                ApplyWorkloadResponse {
                    applied: false,
                    skipped: false,
                    message: no.message,
                    status: Some(status),
                }
            }
        }
    }

    async fn try_apply(&self, request: &ApplyWorkloadRequest) -> Result<ApplyWorkloadResponse, No> {
        let (kind, _) = spec::read(request)?;
        if let Some(other) = self.namesake(&request.id) {
            let words = format!("id: it cannot be told from that of workload {other}");
            return Err(No::new(causes::INVALID, words));
        }
        let desired = match DesiredState::try_from(request.desired_state) {
            Ok(DesiredState::Stopped) => Desired::Stopped,
            Ok(DesiredState::Running | DesiredState::Unspecified) => Desired::Running,
            Err(_) => {
                let words = format!("desired_state: {} is none", request.desired_state);
                return Err(No::new(causes::INVALID, words));
            }
        };
        let before = self.workload(&request.id);
        let verdict = match &before {
            Some(before) => self.verdict(before, request, desired),
            None => Verdict::Next,
        };
        if verdict == Verdict::Skip {
            return Ok(ApplyWorkloadResponse {
                applied: true,
                skipped: true,
                message: "this revision is applied already".to_owned(),
                status: self.status(&request.id),
            });
        }
        if desired == Desired::Running {
            self.may_begin(kind)?;
        }
        let record = self.record(request, desired, before.as_ref(), verdict);
        self.take_up(record, before.is_none()).await
    }

    /// Whether anything may begin here now.
    fn may_begin(&self, kind: Kind) -> Result<(), No> {
        if self.is_draining() {
            let words = "the scheduler drains this node; it takes nothing new";
            return Err(No::new(causes::DRAINING, words));
        }
        if !self.persys.kinds.contains(&kind) || !self.handle.runtimes.contains_key(&kind) {
            return Err(No::new(causes::NOT_AVAILABLE, spec::missing(kind)));
        }
        if self.picture().down.contains(&kind) {
            let words = format!("runtime not available: the {kind} driver does not answer");
            return Err(No::new(causes::NOT_AVAILABLE, words));
        }
        Ok(())
    }

    fn verdict(
        &self,
        before: &Workload,
        request: &ApplyWorkloadRequest,
        desired: Desired,
    ) -> Verdict {
        let record = &before.record;
        // Without a revision the request itself tells what it is.
        let is_same = record.revision == request.revision_id
            && (!request.revision_id.is_empty() || record.request == packed(request));
        if !is_same || record.desired == Desired::Deleted {
            return Verdict::Next;
        }
        match (record.desired, desired) {
            (Desired::Stopped, Desired::Stopped) => Verdict::Skip,
            (_, Desired::Stopped) => Verdict::Keep,
            (Desired::Running, _) => {
                let shown = states::show(before, &self.picture());
                if shown.is_settled_otherwise() {
                    Verdict::Next
                } else {
                    Verdict::Skip
                }
            }
            _ => Verdict::Next,
        }
    }

    fn record(
        &self,
        request: &ApplyWorkloadRequest,
        desired: Desired,
        before: Option<&Workload>,
        verdict: Verdict,
    ) -> Record {
        let (now, picture) = (self.now(), self.picture());
        let unit = hostler_model::UnitId {
            assignment: spec::assignment_of(&request.id),
            generation: 0,
        };
        let known = before.map_or(0, |before| before.record.generation);
        let generation = match verdict {
            Verdict::Next => known.max(states::newest_of(&picture, unit)) + 1,
            Verdict::Keep | Verdict::Skip => known,
        };
        let failed = before.map(|before| states::show(before, &picture));
        let failed = failed.filter(|shown| desired == Desired::Stopped && shown.cause.is_some());
        let is_running = picture.units.iter().any(|(it, observed)| {
            it.assignment == unit.assignment && matches!(observed.state, UnitState::Running { .. })
        });
        // What runs already has its share of what is in use.
        let refused = (desired == Desired::Running && !is_running)
            .then(|| self.admit().err())
            .flatten();
        Record {
            id: request.id.clone(),
            revision: request.revision_id.clone(),
            desired,
            generation,
            created_at: before.map_or(now, |before| before.record.created_at),
            changed_at: now,
            request: packed(request),
            given_up: refused.map(|no| GivenUp {
                code: causes::NODE_BUSY.to_owned(),
                message: no.message,
            }),
            last_error: failed.map(|shown| shown.message),
        }
    }

    /// Puts it on record and hands it on. The caller holds the turn.
    async fn take_up(&self, record: Record, is_new: bool) -> Result<ApplyWorkloadResponse, No> {
        let (id, generation) = (record.id.clone(), record.generation);
        let refused = record.given_up.clone().map(|it| it.message);
        let now = self.now();
        lock(&self.actions).begin(Task::Apply, &id, generation, now);
        if let Err(error) = self.keep(record).await {
            let words = format!("the workload cannot be put on record: {error}");
            lock(&self.actions).settle(&id, now, |_| Some(Standing::Failed(words.clone())));
            return Err(No::new(causes::STORAGE, words));
        }
        if is_new {
            lock(&self.counts).created += 1;
        }
        if let Some(words) = refused {
            lock(&self.actions).settle(&id, now, |_| Some(Standing::Failed(words.clone())));
            return Err(No::new(causes::QUOTA, words));
        }
        tracing::info!(workload = id, generation, "workload applied");
        Ok(ApplyWorkloadResponse {
            applied: true,
            skipped: false,
            message: "the node takes it up".to_owned(),
            status: self.status(&id),
        })
    }

    /// Has a workload stopped, removed and forgotten.
    pub(super) async fn delete(&self, id: &str) -> DeleteWorkloadResponse {
        self.begun().await;
        let _turn = self.turn(id).await;
        let no = |message: String| DeleteWorkloadResponse {
            success: false,
            message,
        };
        let Some(workload) = self.workload(id) else {
            return no(format!("workload {id} not found"));
        };
        let yes = DeleteWorkloadResponse {
            success: true,
            message: "the workload is being deleted".to_owned(),
        };
        if workload.record.desired == Desired::Deleted {
            return yes;
        }
        let now = self.now();
        let record = Record {
            desired: Desired::Deleted,
            changed_at: now,
            given_up: None,
            ..workload.record
        };
        lock(&self.actions).begin(Task::Delete, id, record.generation, now);
        match self.keep(record).await {
            Ok(_) => yes,
            Err(error) => {
                let words = format!("the deletion cannot be put on record: {error}");
                lock(&self.actions).settle(id, now, |_| Some(Standing::Failed(words.clone())));
                no(words)
            }
        }
    }

    /// Waits until the reconciler knows what the records say.
    pub(super) async fn begun(&self) {
        let mut begun = self.has_begun.subscribe();
        // The sender lives as long as this.
        let _ = begun.wait_for(|begun| *begun).await;
    }
}

/// The request as it is kept.
fn packed(request: &ApplyWorkloadRequest) -> String {
    STANDARD.encode(request.encode_to_vec())
}
