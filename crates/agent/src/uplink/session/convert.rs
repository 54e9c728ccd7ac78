//! Between the wire and the model. Wire types go no further than the uplink.

use std::sync::Arc;

use hostler_model::spec::WorkloadSpec;
use hostler_model::{
    AssignmentId, CrashLoop, Errand, ExecCommand, Exit, FleetId, Health, Intent, IntentItem,
    NodeFacts, NodeId, ObservedUnit, Part, Resources, RuntimeFact, StopCause, StorageFact,
    StoreEpoch, Task, TerminalSize, Timestamp, UnitId, UnitState, UnitUsage, Usage, WorkloadId,
};
use hostler_runtime::{LogLine, LogQuery, Run, Stream};
use hostler_wire::session::v1;

use crate::guard::Speaker;
use crate::ledger::Origin;

/// The other side sent what the contract does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the control plane sent nonsense: {0}")]
pub(super) struct Nonsense(pub(super) String);

fn nonsense(what: impl std::fmt::Display) -> Nonsense {
    Nonsense(what.to_string())
}

pub(super) fn facts(facts: NodeFacts) -> v1::Facts {
    let disk = |disk: hostler_model::Disk| v1::Disk {
        mount: disk.mount,
        total_bytes: disk.total.0,
        free_bytes: disk.free.0,
    };
    v1::Facts {
        hostname: facts.hostname,
        os: facts.os,
        arch: facts.arch,
        kernel: facts.kernel,
        cpu_count: facts.cpu_count,
        memory_bytes: facts.memory.0,
        disks: facts.disks.into_iter().map(disk).collect(),
        addresses: facts.addresses,
        boot_id: facts.boot_id,
        runtimes: facts.runtimes.into_iter().map(runtime).collect(),
        storage: facts.storage.into_iter().map(storage).collect(),
    }
}

fn storage(fact: StorageFact) -> v1::StorageFact {
    v1::StorageFact {
        driver: fact.driver,
        available: fact.available,
        note: fact.note,
    }
}

fn runtime(fact: RuntimeFact) -> v1::RuntimeFact {
    v1::RuntimeFact {
        kind: fact.kind.as_str().to_owned(),
        available: fact.available,
        version: fact.version,
        note: fact.note,
    }
}

pub(super) const fn resources(resources: Resources) -> v1::Resources {
    v1::Resources {
        milli_cpu: resources.cpu.0,
        memory_bytes: resources.memory.0,
        disk_bytes: resources.disk.0,
    }
}

pub(super) fn usage(usage: Usage) -> v1::Usage {
    v1::Usage {
        cpu_percent: usage.cpu_percent,
        memory_percent: usage.memory_percent,
        memory_used_bytes: usage.memory_used.0,
        disk_free_bytes: usage.disk_free.0,
        running_containers: usage.running_containers,
        units: usage.units.into_iter().map(unit_usage).collect(),
        pressure: usage.pressure.map(|short_of| v1::Pressure {
            short_of: short_of.iter().map(ToString::to_string).collect(),
        }),
    }
}

fn unit_usage(usage: UnitUsage) -> v1::UnitUsage {
    v1::UnitUsage {
        unit: Some(unit_id(usage.unit)),
        cpu_nanos: usage.cpu_nanos,
        milli_cpu: usage.milli_cpu,
        memory_bytes: usage.memory.0,
        read_bytes: usage.read.map(|it| it.0),
        written_bytes: usage.written.map(|it| it.0),
        received_bytes: usage.received.map(|it| it.0),
        sent_bytes: usage.sent.map(|it| it.0),
    }
}

pub(super) fn resume(origin: Origin) -> v1::Resume {
    v1::Resume {
        fleet_id: origin.fleet_id.to_string(),
        node_id: origin.node_id.to_string(),
        store_epoch: origin.store_epoch.to_string(),
    }
}

pub(super) fn speaker(welcome: &v1::Welcome) -> Result<Speaker, Nonsense> {
    let fleet_id: FleetId = welcome.fleet_id.parse().map_err(nonsense)?;
    let node_id: NodeId = welcome.node_id.parse().map_err(nonsense)?;
    let store_epoch: StoreEpoch = welcome.store_epoch.parse().map_err(nonsense)?;
    Ok(Speaker {
        origin: Origin {
            fleet_id,
            node_id,
            store_epoch,
        },
        run: welcome.server_run,
        began_at: welcome.store_revision,
    })
}

fn unit_id(unit: UnitId) -> v1::UnitId {
    v1::UnitId {
        assignment: unit.assignment.to_string(),
        generation: unit.generation,
    }
}

pub(super) fn read_unit_id(unit: Option<v1::UnitId>) -> Result<UnitId, Nonsense> {
    let unit = unit.ok_or_else(|| nonsense("a unit without an id"))?;
    let assignment: AssignmentId = unit.assignment.parse().map_err(nonsense)?;
    Ok(UnitId {
        assignment,
        generation: unit.generation,
    })
}

pub(super) fn observed(observed: &ObservedUnit) -> v1::ObservedUnit {
    v1::ObservedUnit {
        unit: Some(unit_id(observed.unit)),
        workload: observed.workload.to_string(),
        kind: observed.kind.as_str().to_owned(),
        state: Some(v1::UnitState {
            state: Some(state(&observed.state)),
        }),
        runs: observed.runs,
        parts: observed.parts.iter().map(part).collect(),
        health: observed.health.as_ref().map(health),
        crash_loop: observed.crash_loop.as_deref().map(crash_loop),
    }
}

fn part(part: &Part) -> v1::Part {
    v1::Part {
        name: part.name.clone(),
        state: part.state.as_str().to_owned(),
        exit: part.exit.map(exit),
    }
}

fn health(health: &Health) -> v1::Health {
    use v1::health::State;
    let state = match health {
        Health::Starting => State::Starting(true),
        Health::Healthy => State::Healthy(true),
        Health::Unhealthy { why } => State::Unhealthy(why.clone()),
    };
    v1::Health { state: Some(state) }
}

fn crash_loop(crash_loop: &CrashLoop) -> v1::CrashLoop {
    v1::CrashLoop {
        exit: Some(exit(crash_loop.exit)),
        at_ms: crash_loop.at.as_millis(),
        run: crash_loop.run,
        log: crash_loop.log.clone(),
    }
}

fn state(state: &UnitState) -> v1::unit_state::State {
    use v1::unit_state as wire;
    match state {
        UnitState::Preparing { detail } => wire::State::Preparing(wire::Preparing {
            detail: detail.clone(),
        }),
        UnitState::Starting => wire::State::Starting(wire::Starting {}),
        UnitState::Running { since } => wire::State::Running(wire::Running {
            since_ms: since.as_millis(),
        }),
        UnitState::Waiting {
            exit: ended,
            retry_at,
        } => wire::State::Waiting(wire::Waiting {
            exit: Some(exit(*ended)),
            retry_at_ms: retry_at.as_millis(),
        }),
        UnitState::Failed {
            code,
            message,
            retry_at,
        } => wire::State::Failed(wire::Failed {
            code: code.clone(),
            message: message.clone(),
            retry_at_ms: retry_at.as_millis(),
        }),
        UnitState::Stopping => wire::State::Stopping(wire::Stopping {}),
        UnitState::Finished { exit: ended, at } => wire::State::Finished(wire::Finished {
            exit: Some(exit(*ended)),
            at_ms: at.as_millis(),
        }),
        UnitState::Gone => wire::State::Gone(wire::Gone {}),
    }
}

pub(super) const fn exit(exit: Exit) -> v1::Exit {
    let exit = match exit {
        Exit::Code(code) => v1::exit::Exit::Code(code),
        Exit::Signal(signal) => v1::exit::Exit::Signal(signal),
        Exit::OutOfMemory => v1::exit::Exit::OutOfMemory(true),
        Exit::Unknown => v1::exit::Exit::Unknown(true),
        Exit::TimedOut => v1::exit::Exit::TimedOut(true),
        Exit::Unhealthy => v1::exit::Exit::Unhealthy(true),
    };
    v1::Exit { exit: Some(exit) }
}

/// A spec as JSON, as the control plane holds it.
pub(super) fn spec(json: &[u8]) -> Result<WorkloadSpec, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

pub(super) fn spec_key(workload: &str, revision: u64) -> Result<(WorkloadId, u64), Nonsense> {
    Ok((workload.parse().map_err(nonsense)?, revision))
}

pub(super) fn item(item: v1::IntentItem, spec: Arc<WorkloadSpec>) -> Result<IntentItem, Nonsense> {
    Ok(IntentItem {
        unit: read_unit_id(item.unit)?,
        workload: item.workload.parse().map_err(nonsense)?,
        workload_name: item.workload_name,
        slot: item.slot,
        intent: intent(&item.stop_cause),
        revision: item.revision,
        spec,
        is_finished: item.finished,
    })
}

/// A cause that this agent does not know still means stop.
pub(super) fn intent(stop_cause: &str) -> Intent {
    let cause = match stop_cause {
        "" => return Intent::Run,
        "stopped" => StopCause::Stopped,
        "deleted" => StopCause::Deleted,
        "scaled-down" => StopCause::ScaledDown,
        "updated" => StopCause::Updated,
        "drained" => StopCause::Drained,
        "replaced" => StopCause::Replaced,
        other => {
            tracing::warn!(
                cause = other,
                "stopping for a cause that this agent does not know"
            );
            StopCause::Stopped
        }
    };
    Intent::Stop { cause }
}

/// An errand, unless it is one that this agent does not know.
pub(super) fn errand(asked: v1::Errand) -> Option<Errand> {
    let task = match asked.errand? {
        v1::errand::Errand::Exec(command) => Task::Exec(ExecCommand {
            words: command.words,
            input: command.input,
            terminal: command.terminal.as_ref().map(terminal_size),
            user: some(command.user),
            env: command.env.into_iter().collect(),
            directory: some(command.directory),
        }),
        v1::errand::Errand::Forward(port) => Task::Forward {
            port: port.try_into().ok()?,
        },
        v1::errand::Errand::ReadFiles(path) => Task::ReadFiles { path },
        v1::errand::Errand::WriteFiles(path) => Task::WriteFiles { path },
    };
    Some(Errand {
        part: some(asked.part),
        task,
    })
}

pub(super) fn terminal_size(size: &v1::TerminalSize) -> TerminalSize {
    let within = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    TerminalSize {
        rows: within(size.rows),
        columns: within(size.columns),
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn log_query(request: &v1::LogRequest) -> LogQuery {
    LogQuery {
        run: if request.previous {
            Run::Previous
        } else {
            Run::Latest
        },
        tail: request
            .has_tail
            .then(|| usize::try_from(request.tail).unwrap_or(usize::MAX)),
        since: (request.since_ms > 0).then(|| Timestamp::from_millis(request.since_ms)),
        follow: request.follow,
    }
}

pub(super) fn log_line(line: LogLine) -> v1::LogLine {
    let stream = match line.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::Notice => "notice",
    };
    v1::LogLine {
        at_ms: line.at.as_millis(),
        stream: stream.to_owned(),
        text: line.text,
        partial: line.is_partial,
        run: line.run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_cause_still_means_stop_and_none_means_run() {
        assert_eq!(intent(""), Intent::Run);
        assert_eq!(
            intent("drained"),
            Intent::Stop {
                cause: StopCause::Drained
            }
        );
        assert_eq!(
            intent("evicted"),
            Intent::Stop {
                cause: StopCause::Stopped
            }
        );
    }

    #[test]
    fn every_state_has_its_place_on_the_wire() {
        let at = Timestamp::from_millis(7);
        let states = [
            UnitState::Preparing {
                detail: String::new(),
            },
            UnitState::Starting,
            UnitState::Running { since: at },
            UnitState::Waiting {
                exit: Exit::Code(1),
                retry_at: at,
            },
            UnitState::Failed {
                code: "c".into(),
                message: "m".into(),
                retry_at: at,
            },
            UnitState::Stopping,
            UnitState::Finished {
                exit: Exit::OutOfMemory,
                at,
            },
            UnitState::Gone,
        ];
        let places: Vec<u32> = states
            .iter()
            .map(|of| {
                hostler_wire::session::state_number(&v1::UnitState {
                    state: Some(state(of)),
                })
            })
            .collect();
        assert_eq!(places, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn nonsense_is_named() {
        let refused = read_unit_id(Some(v1::UnitId {
            assignment: "x".into(),
            generation: 1,
        }));
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("`x` is no assignment id")
        );
    }
}
