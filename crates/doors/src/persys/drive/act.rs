//! One step towards what is wanted of one id on an agent: it is looked at first, and told only what it lacks.
//! Every wait is bounded. An end that was not seen is no end: the next look goes on from there.

use std::time::Duration;

use hostler_model::Timestamp;
use hostler_wire::persys::agent::{
    ActualState, ApplyWorkloadRequest, ApplyWorkloadResponse, DesiredState, WorkloadStatus,
};

use super::call::{Caller, Trouble};
use super::seen::{self, Failure, Told};
use crate::persys::outgo;
use crate::persys::want::Want;

/// Between two looks at something that is to end.
const POLL: Duration = Duration::from_secs(1);
/// How many looks; together they are the contract's minute.
const POLLS: u32 = 60;
/// After so many looks without an end the agent is asked what it did.
const ASK_WHY: u32 = 5;

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Done {
    /// There was nothing to do.
    Fine,
    /// The agent took it.
    Applied,
    /// The agent, or the contract, will not have it.
    Failed(Failure),
    /// The agent has no runtime for it: its own words.
    NoRuntime(String),
    /// It is not on the agent, or rests there as wanted.
    Gone,
    /// It was to end and has not, in a minute.
    StillThere,
    Unreachable(String),
}

impl Done {
    pub(super) const fn is_success(&self) -> bool {
        matches!(self, Self::Fine | Self::Applied | Self::Gone)
    }
}

/// Whether what an agent has must be applied (again).
pub(super) fn lacks(want: &Want, status: &WorkloadStatus, now: Timestamp) -> bool {
    match seen::told(status, now) {
        Told::Missing | Told::Failed(_) => true,
        Told::Stopped(exit) => is_other(want, status) || !want.rests_after(exit.is_success()),
        Told::Running(_) | Told::Pending(_) | Told::Unknown(_) => is_other(want, status),
    }
}

/// Whether the agent has another revision. One that does not name it has the wanted one.
pub(super) fn is_other(want: &Want, status: &WorkloadStatus) -> bool {
    !status.revision_id.is_empty() && status.revision_id != want.revision
}

/// The agent's words, if it failed for want of a runtime: one that queues can only say so in its status.
pub(super) fn without_runtime(want: &Want, status: &WorkloadStatus) -> Option<String> {
    let is_failed = status.actual_state() == ActualState::Failed && !is_other(want, status);
    let why = is_failed.then(|| seen::failure(status).message);
    why.filter(|why| seen::has_no_runtime(why))
}

/// Brings a copy to run.
pub(super) async fn run(agent: Caller, want: Want, now: Timestamp) -> Done {
    match agent.status(&want.id).await {
        Ok(status) if !lacks(&want, &status, now) => return Done::Fine,
        Ok(_) | Err(Trouble::NotFound) => {}
        Err(trouble) => return trouble.into(),
    }
    apply(&agent, &want, DesiredState::Running).await
}

/// Stops a copy and leaves it where it is.
pub(super) async fn park(agent: Caller, want: Want) -> Done {
    match agent.status(&want.id).await {
        Ok(status) if is_at_rest(&status) => return Done::Gone,
        Ok(_) => {}
        Err(Trouble::NotFound) => return Done::Gone,
        Err(trouble) => return trouble.into(),
    }
    match apply(&agent, &want, DesiredState::Stopped).await {
        Done::Applied => ended(&agent, &want.id, is_at_rest).await,
        other => other,
    }
}

/// Takes a copy off the agent.
pub(super) async fn remove(agent: Caller, id: String) -> Done {
    match agent.status(&id).await {
        Ok(_) => {}
        Err(Trouble::NotFound) => return Done::Gone,
        Err(trouble) => return trouble.into(),
    }
    // Whatever it says, only its status tells whether the copy is gone. But of an id that it does not know, an agent
    // whose last task for it failed says `failed`, for ever.
    let is_unknown = match agent.delete(&id).await {
        Ok(answer) if answer.success => false,
        Ok(answer) if seen::is_not_found(&answer.message) => true,
        Ok(answer) => return refused(answer.message),
        Err(Trouble::NotFound) => true,
        Err(trouble) => return trouble.into(),
    };
    let is_echo = |it: &WorkloadStatus| is_unknown && it.actual_state() == ActualState::Failed;
    ended(&agent, &id, is_echo).await
}

/// Waits until the agent does not know the id, or says that it is as wanted.
async fn ended(agent: &Caller, id: &str, is_enough: impl Fn(&WorkloadStatus) -> bool) -> Done {
    for poll in 1..=POLLS {
        match agent.status(id).await {
            Ok(status) if is_enough(&status) => return Done::Gone,
            Ok(status) if is_absent(&status) => return Done::Gone,
            Ok(_) => {}
            Err(Trouble::NotFound) => return Done::Gone,
            Err(trouble) => return trouble.into(),
        }
        // An agent that queues says there why nothing comes of it.
        if poll.is_multiple_of(ASK_WHY)
            && let Ok(Some(action)) = agent.last_action(id).await
            && action.status == "failed"
        {
            return refused(action.error);
        }
        tokio::time::sleep(POLL).await;
    }
    Done::StillThere
}

fn is_at_rest(status: &WorkloadStatus) -> bool {
    matches!(
        status.actual_state(),
        ActualState::Stopped | ActualState::Failed
    )
}

fn is_absent(status: &WorkloadStatus) -> bool {
    status.actual_state() == ActualState::Unknown && seen::is_not_found(&status.message)
}

async fn apply(agent: &Caller, want: &Want, desired: DesiredState) -> Done {
    let spec = match want.for_agent() {
        Ok(spec) => spec,
        Err(message) => {
            return Done::Failed(Failure {
                code: "INVALID_SPECIFICATION".to_owned(),
                message,
                is_terminal: true,
            });
        }
    };
    let request = ApplyWorkloadRequest {
        id: want.id.clone(),
        r#type: outgo::workload_type(&spec),
        revision_id: want.revision.clone(),
        desired_state: desired as i32,
        spec: Some(spec),
    };
    match agent.apply(request).await {
        Ok(answer) => taken(answer),
        Err(Trouble::Refused(why)) if seen::has_no_runtime(&why) => Done::NoRuntime(why),
        Err(Trouble::NotFound) => refused("not found".to_owned()),
        Err(trouble) => trouble.into(),
    }
}

/// An agent that skips a revision has it.
fn taken(answer: ApplyWorkloadResponse) -> Done {
    if answer.applied || answer.skipped {
        return Done::Applied;
    }
    if seen::has_no_runtime(&answer.message) {
        return Done::NoRuntime(answer.message);
    }
    let mut status = answer.status.unwrap_or_default();
    if !answer.message.is_empty() {
        status.message = answer.message;
    }
    Done::Failed(seen::failure(&status))
}

fn refused(message: String) -> Done {
    Done::Failed(Failure {
        code: "RUNTIME_ERROR".to_owned(),
        message,
        is_terminal: false,
    })
}

impl From<Trouble> for Done {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unreachable(why) => Self::Unreachable(why),
            Trouble::NotFound => Self::Gone,
            Trouble::Refused(message) => refused(message),
        }
    }
}
