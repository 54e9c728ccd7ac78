//! Copies: the record, and what its node last said of it.

use hostler_control::Control;
use hostler_control::fleet::State;
use hostler_model::spec::{Port, Protocol};
use hostler_model::{
    Assignment, Bytes, Exit, FailureCode, FailureReason, Health, Intent, Liveness, Node,
    ObservedUnit, Outcome, Part, StopCause, Timestamp, UnitState, UnitUsage, Workload,
};
use hostler_wire::api;
use hostler_wire::api::StateWord;

use super::{moment, resources};

/// A copy as the API shows it.
pub(in crate::api) fn assignment(
    control: &Control,
    state: &State,
    copy: &Assignment,
) -> api::Assignment {
    let workload = state.workload(copy.workload);
    let node = state.node(copy.node);
    let (now, runs) = state_of(control, state, copy);
    let parts = parts_of(control, copy);
    let (intent, cause) = match copy.intent {
        Intent::Run => (api::Intent::Run, None),
        Intent::Stop { cause } => (api::Intent::Stop, Some(word_of(cause).to_owned())),
    };
    api::Assignment {
        id: copy.id.to_string(),
        short: copy.id.short(),
        workload: copy.workload.to_string(),
        workload_name: workload.map(|it| it.name.clone()).unwrap_or_default(),
        slot: copy.slot,
        node: copy.node.to_string(),
        node_name: node.map(|node| node.name.clone()).unwrap_or_default(),
        generation: copy.generation,
        revision: copy.revision,
        intent,
        cause,
        runs,
        parts,
        state: now,
        outcome: copy.outcome.as_ref().map(outcome),
        is_outdated: workload.is_some_and(|it| is_outdated(it, copy)),
        created_at: moment(copy.created_at),
        claims: api::Claims {
            resources: resources(copy.claims.resources),
            ports: copy.claims.ports.iter().map(port).collect(),
        },
        usage: control.usage_of(copy).map(usage),
    }
}

fn usage(usage: UnitUsage) -> api::UnitUsage {
    let amount = |it: Option<Bytes>| it.map(|it| it.0);
    api::UnitUsage {
        milli_cpu: usage.milli_cpu,
        cpu_ms: usage.cpu_nanos / 1_000_000,
        memory_bytes: usage.memory.0,
        read_bytes: amount(usage.read),
        written_bytes: amount(usage.written),
        received_bytes: amount(usage.received),
        sent_bytes: amount(usage.sent),
    }
}

/// What a copy is made of, by its node's last word.
fn parts_of(control: &Control, copy: &Assignment) -> Vec<api::Part> {
    let observed = control.observed_at(copy.node, copy.id);
    let observed = observed.filter(|unit| unit.unit == copy.unit() && copy.outcome.is_none());
    let parts = observed.map(|unit| unit.parts).unwrap_or_default();
    let part = |part: Part| api::Part {
        name: part.name,
        state: part.state.as_str().to_owned(),
        exit: part.exit.map(|exit| exit.to_string()),
    };
    parts.into_iter().map(part).collect()
}

/// What is known of a copy at this moment, and how often it was started.
pub(super) fn state_of(
    control: &Control,
    state: &State,
    copy: &Assignment,
) -> (api::AssignmentState, u32) {
    let observed = control
        .observed_at(copy.node, copy.id)
        .filter(|unit| unit.unit == copy.unit());
    let runs = runs(copy, observed.as_ref());
    let node = state.node(copy.node).map(AsRef::as_ref);
    (shown(control, copy, node, observed), runs)
}

/// What is known of a copy at this moment: its end, else its node's word, else why there is none.
fn shown(
    control: &Control,
    copy: &Assignment,
    node: Option<&Node>,
    observed: Option<ObservedUnit>,
) -> api::AssignmentState {
    if let Some(outcome) = &copy.outcome {
        return ended(outcome.exit, outcome.at);
    }
    let Some(node) = node.filter(|node| !node.is_gone()) else {
        return unknown("its node was removed");
    };
    if let Liveness::Lost { since } = node.liveness {
        return unknown(&format!(
            "its node was lost at {since}; the copy may well run there"
        ));
    }
    match observed {
        Some(unit) => told_unit(unit),
        None if control.live(node.id).is_some_and(|live| live.is_connected) => {
            plain(StateWord::Assigned)
        }
        None => unknown("its node has not said anything of it to this server yet"),
    }
}

fn told_unit(unit: ObservedUnit) -> api::AssignmentState {
    let mut now = told(unit.state);
    if let (Some(_), StateWord::Waiting) = (&unit.crash_loop, now.word) {
        now.word = StateWord::CrashLooping;
    }
    now.health = unit.health.as_ref().map(|it| it.as_str().to_owned());
    if let Some(Health::Unhealthy { why }) = unit.health {
        now.detail = why;
    }
    now.crash_loop = unit.crash_loop.map(|first| api::CrashLoop {
        exit: first.exit.to_string(),
        at: moment(first.at),
        run: first.run,
        log: first.log.clone(),
    });
    now
}

fn told(state: UnitState) -> api::AssignmentState {
    match state {
        UnitState::Preparing { detail } => api::AssignmentState {
            detail,
            ..plain(StateWord::Preparing)
        },
        UnitState::Starting => plain(StateWord::Starting),
        UnitState::Running { since } => api::AssignmentState {
            since: Some(moment(since)),
            ..plain(StateWord::Running)
        },
        UnitState::Waiting { exit, retry_at } => api::AssignmentState {
            exit: Some(exit.to_string()),
            reason: FailureReason::of_exit(exit).map(|reason| reason.to_string()),
            retry_at: Some(moment(retry_at)),
            ..plain(StateWord::Waiting)
        },
        UnitState::Failed {
            code,
            message,
            retry_at,
        } => {
            // Agents of other systems have codes of their own, which our table does not know.
            let known = FailureCode::parse(&code);
            api::AssignmentState {
                detail: message,
                code: Some(code),
                reason: known.map(|failure| failure.reason().to_string()),
                remedy: known.map(FailureCode::remedy),
                retry_at: Some(moment(retry_at)),
                ..plain(StateWord::Failed)
            }
        }
        UnitState::Stopping => plain(StateWord::Stopping),
        UnitState::Finished { exit, at } => ended(exit, at),
        UnitState::Gone => plain(StateWord::Gone),
    }
}

fn ended(exit: Exit, at: Timestamp) -> api::AssignmentState {
    api::AssignmentState {
        since: Some(moment(at)),
        exit: Some(exit.to_string()),
        reason: FailureReason::of_exit(exit).map(|reason| reason.to_string()),
        ..plain(StateWord::Finished)
    }
}

fn unknown(detail: &str) -> api::AssignmentState {
    api::AssignmentState {
        detail: detail.to_owned(),
        ..plain(StateWord::Unknown)
    }
}

const fn plain(word: StateWord) -> api::AssignmentState {
    api::AssignmentState {
        word,
        detail: String::new(),
        code: None,
        reason: None,
        remedy: None,
        since: None,
        exit: None,
        retry_at: None,
        health: None,
        crash_loop: None,
    }
}

/// Whether it runs an older template, or waits for a restart.
pub(super) fn is_outdated(workload: &Workload, copy: &Assignment) -> bool {
    (copy.template, copy.restart) != (workload.template, workload.restart)
}

fn runs(copy: &Assignment, observed: Option<&ObservedUnit>) -> u32 {
    let ended = copy.outcome.as_ref().map(|outcome| outcome.runs);
    ended
        .or_else(|| observed.map(|unit| unit.runs))
        .unwrap_or_default()
}

fn outcome(outcome: &Outcome) -> api::Outcome {
    api::Outcome {
        exit: outcome.exit.to_string(),
        exit_code: match outcome.exit {
            Exit::Code(code) => Some(code),
            Exit::Signal(_)
            | Exit::OutOfMemory
            | Exit::Unknown
            | Exit::TimedOut
            | Exit::Unhealthy => None,
        },
        at: moment(outcome.at),
        runs: outcome.runs,
    }
}

fn port(port: &Port) -> api::Port {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    api::Port {
        number: port.number,
        protocol: protocol.to_owned(),
    }
}

const fn word_of(cause: StopCause) -> &'static str {
    match cause {
        StopCause::Stopped => "stopped",
        StopCause::Deleted => "deleted",
        StopCause::ScaledDown => "scaled-down",
        StopCause::Updated => "updated",
        StopCause::Drained => "drained",
        StopCause::Replaced => "replaced",
    }
}
