//! Apply, delete and retry: one verb each, answered once it is durable. What follows on the nodes shows in the
//! views, never in these answers: what was kept is a success.

use std::sync::Arc;

use hostler_control::fleet::{Expect, Verb};
use hostler_model::spec::check_travels;
use hostler_model::{Actor, Code, Desired, Foreign, NodeId, Refusal, Workload, WorkloadId};
use hostler_wire::persys::control::{self, AutomationActionType, FailureReason};
use prost::Message as _;

use super::register::ID_BYTES;
use super::{Door, intake, words};

/// Why nothing was kept.
struct No {
    reason: FailureReason,
    message: String,
}

/// Takes a spec, or a desired state alone.
pub(super) async fn apply(
    door: &Door,
    request: control::ApplyWorkloadRequest,
) -> control::ApplyWorkloadResponse {
    match applied(door, request).await {
        Ok(()) => control::ApplyWorkloadResponse {
            success: true,
            failure_reason: FailureReason::Unspecified as i32,
            error_message: String::new(),
        },
        Err(no) => control::ApplyWorkloadResponse {
            success: false,
            failure_reason: no.reason as i32,
            error_message: no.message,
        },
    }
}

async fn applied(door: &Door, request: control::ApplyWorkloadRequest) -> Result<(), No> {
    let id = request.workload_id.as_str();
    if id.is_empty() {
        return Err(No::invalid("workload_id is required"));
    }
    if id.len() > ID_BYTES {
        return Err(No::invalid(format!(
            "workload_id has more than {ID_BYTES} bytes"
        )));
    }
    let desired = words::desired(&request.desired_state);
    let verb = match &request.spec {
        None => desire(door, id, desired)?,
        Some(_) if desired == Desired::Deleted => desire(door, id, desired)?,
        Some(told) => with_spec(&request, told, desired)?,
    };
    door.submit(verb).await?;
    Ok(())
}

fn desire(door: &Door, id: &str, desired: Desired) -> Result<Verb, No> {
    let unknown = || No {
        reason: FailureReason::RuntimeError,
        message: not_found(id),
    };
    let workload = door.workload(id).ok_or_else(unknown)?.id;
    let expect = Expect::Any;
    Ok(match desired {
        Desired::Deleted => Verb::Delete { workload, expect },
        Desired::Running | Desired::Stopped => Verb::SetDesired {
            workload,
            desired,
            expect,
        },
    })
}

fn with_spec(
    request: &control::ApplyWorkloadRequest,
    told: &control::WorkloadSpec,
    desired: Desired,
) -> Result<Verb, No> {
    let spec = intake::spec(&request.workload_id, told).map_err(No::invalid)?;
    spec.check()?;
    check_travels(&spec)?;
    let payload: Arc<[u8]> = told.encode_to_vec().into();
    let revision = match request.revision_id.as_str() {
        "" => Foreign::derived_revision(&payload),
        asked => asked.to_owned(),
    };
    let foreign = Foreign {
        key: words::workload_key(&request.workload_id),
        revision,
        payload,
    };
    Ok(Verb::ApplyForeign {
        foreign: Arc::new(foreign),
        spec: Arc::new(spec),
        desired,
        expect: Expect::Any,
    })
}

pub(super) async fn delete(door: &Door, id: &str) -> control::DeleteWorkloadResponse {
    let answer = |error_message: String| control::DeleteWorkloadResponse {
        success: error_message.is_empty(),
        error_message,
    };
    let verb = match desire(door, id, Desired::Deleted) {
        Ok(verb) => verb,
        Err(no) => return answer(no.message),
    };
    match door.submit(verb).await {
        Ok(()) => answer(String::new()),
        Err(refusal) => answer(refusal.sentence),
    }
}

/// Begins anew with every copy: those that ended for good are started again, those that fail are tried at once.
pub(super) async fn retry(door: &Door, id: &str) -> Result<(), String> {
    let workload = door.workload(id).ok_or_else(|| not_found(id))?;
    if workload.desired == Desired::Deleted {
        return Err(format!("workload {id} is being deleted"));
    }
    let copies = copies_of(door, workload.id);
    if copies.iter().any(|(_, has_ended)| *has_ended) {
        let (workload, expect) = (workload.id, Expect::Any);
        let restarted = door.submit(Verb::Restart { workload, expect }).await;
        restarted.map_err(|refusal| refusal.sentence)?;
    } else if !door.control.is_leading() {
        return Err("scheduler is degraded".to_owned());
    }
    door.notes.write(workload.id, |note| {
        note.attempts = 0;
        note.next_at = None;
    });
    for (node, _) in copies {
        door.retry(node, workload.id);
    }
    Ok(())
}

/// Where the copies are, and whether they have ended for good.
fn copies_of(door: &Door, workload: WorkloadId) -> Vec<(NodeId, bool)> {
    let view = door.control.view();
    let copies = view.assignments_of(workload);
    copies
        .map(|copy| (copy.node, copy.is_wanted() && copy.is_finished()))
        .collect()
}

/// What an automation proposes is done as if it had asked itself, but for scaling.
pub(super) async fn suggest(
    door: &Door,
    suggestion: Option<control::AutomationSuggestion>,
) -> control::SubmitAutomationSuggestionResponse {
    let decided = decide(door, suggestion.unwrap_or_default()).await;
    let (accepted, reason, applied_action) = match decided {
        Ok(action) => (true, "applied".to_owned(), action.to_owned()),
        Err(reason) => (false, reason, String::new()),
    };
    control::SubmitAutomationSuggestionResponse {
        accepted,
        decision: if accepted { "accepted" } else { "rejected" }.to_owned(),
        reason,
        applied_action,
        decided_at: Some(words::stamp(door.now())),
    }
}

async fn decide(
    door: &Door,
    suggestion: control::AutomationSuggestion,
) -> Result<&'static str, String> {
    let id = suggestion.target_workload.as_str();
    if id.is_empty() {
        return Err("target_workload is required".to_owned());
    }
    match suggestion.action_type() {
        AutomationActionType::AutomationActionSetDesiredState => {
            let desired = words::desired(&suggestion.desired_state);
            let verb = desire(door, id, desired).map_err(|no| no.message)?;
            door.submit(verb).await.map_err(|it| it.sentence)?;
            Ok("set_desired_state")
        }
        AutomationActionType::AutomationActionRetryWorkload => {
            retry(door, id).await.map(|()| "retry_workload")
        }
        AutomationActionType::AutomationActionDeleteWorkload => {
            let deleted = delete(door, id).await;
            if deleted.success {
                Ok("delete_workload")
            } else {
                Err(deleted.error_message)
            }
        }
        AutomationActionType::AutomationActionScaleReplicas => {
            Err("replicas cannot be scaled through this contract".to_owned())
        }
        AutomationActionType::Unspecified => Err("action_type is not known".to_owned()),
    }
}

pub(super) fn not_found(id: &str) -> String {
    format!("workload {id} not found")
}

impl Door {
    /// Submits for whoever calls.
    async fn submit(&self, verb: Verb) -> Result<(), Refusal> {
        let actor = Actor::User("persys".to_owned());
        self.control.submit(actor, verb).await.map(|_| ())
    }

    /// The workload of that foreign id, or of ours by its name.
    pub(super) fn workload(&self, id: &str) -> Option<Arc<Workload>> {
        let view = self.control.view();
        let found = view.workload_by_alias(&words::workload_key(id));
        let by_name = || {
            let workload = view.workload_by_name(id)?;
            // What has an id of its own here is known by that alone.
            super::views::foreign_id(workload)
                .is_none()
                .then_some(workload)
        };
        found.or_else(by_name).cloned()
    }
}

impl No {
    fn invalid(message: impl Into<String>) -> Self {
        Self {
            reason: FailureReason::InvalidSpec,
            message: message.into(),
        }
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        let reason = match refusal.code {
            Code::SpecInvalid
            | Code::NameInvalid
            | Code::DriverUnsupported
            | Code::BodyTooLarge => FailureReason::InvalidSpec,
            _ => FailureReason::RuntimeError,
        };
        Self {
            reason,
            message: refusal.sentence,
        }
    }
}
