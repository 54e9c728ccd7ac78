//! Session messages to nouns and back. What makes no sense is refused here and goes no further.

use std::collections::BTreeSet;
use std::sync::Arc;

use hostler_control::fleet::{Introduction, NodeAnnouncement};
use hostler_control::{LogRecord, LogRequest, LogStream, Said, Told};
use hostler_kit::trust::Print;
use hostler_model::spec::Kind;
use hostler_model::{
    AliasKey, Bytes, Code, Contract, CrashLoop, Disk, Errand, ExecCommand, Exit, Health, Intent,
    IntentItem, MilliCpu, NodeFacts, ObservedUnit, Part, PartState, Pressure, Refusal, Resources,
    RuntimeFact, StopCause, StorageFact, Task, TerminalSize, Timestamp, UnitId, UnitState,
    UnitUsage, Usage, key_alias,
};
use hostler_wire::session::v1;

/// Most bytes of an identity; it becomes part of a key of the store.
const IDENTITY_BYTES: usize = 128;

/// A hello as the domain's announcement.
pub(super) fn announcement(hello: v1::Hello) -> Result<NodeAnnouncement, Refusal> {
    Ok(NodeAnnouncement {
        key: None,
        introduction: Introduction {
            key: print(&hello.key).map(|print| key_alias(&print)),
            believes: print(&hello.believes),
            machine: mark(&hello.machine).map(str::to_owned),
            copied_from: hello.copied_from.parse().ok(),
        },
        identity: identity(hello.identity)?,
        contract: Contract::Session,
        name: hello.name,
        facts: facts(hello.facts.unwrap_or_default(), hello.agent_version),
        capacity: resources(hello.capacity.unwrap_or_default()),
        labels: hello.labels.into_iter().collect(),
        instance: None,
    })
}

/// The print of a key or a certificate; what is none is not told.
pub(super) fn print(text: &str) -> Option<String> {
    text.parse::<Print>().ok().map(|print| print.to_string())
}

/// By what an agent tells its machine from others; what is too long to be kept is not told.
pub(super) fn mark(text: &str) -> Option<&str> {
    (1..=IDENTITY_BYTES).contains(&text.len()).then_some(text)
}

/// What an agent calls itself, as an alias of its node.
pub(super) fn identity(text: String) -> Result<AliasKey, Refusal> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > IDENTITY_BYTES || !is_plain {
        return Err(refused("the hello carries no usable identity"));
    }
    Ok(AliasKey {
        contract: Contract::Session,
        scope: "node".to_owned(),
        foreign: text,
    })
}

pub(super) fn facts(facts: v1::Facts, agent_version: String) -> NodeFacts {
    let disk = |disk: v1::Disk| Disk {
        mount: disk.mount,
        total: Bytes(disk.total_bytes),
        free: Bytes(disk.free_bytes),
    };
    // A kind that this version does not know cannot be asked for, so it may as well not be there.
    let runtime = |fact: v1::RuntimeFact| {
        Some(RuntimeFact {
            kind: Kind::parse(&fact.kind)?,
            available: fact.available,
            version: fact.version,
            note: fact.note,
        })
    };
    NodeFacts {
        hostname: facts.hostname,
        os: facts.os,
        arch: facts.arch,
        kernel: facts.kernel,
        cpu_count: facts.cpu_count,
        memory: Bytes(facts.memory_bytes),
        disks: facts.disks.into_iter().map(disk).collect(),
        addresses: facts.addresses,
        boot_id: facts.boot_id,
        agent_version,
        runtimes: facts.runtimes.into_iter().filter_map(runtime).collect(),
        storage: facts.storage.into_iter().map(storage).collect(),
        foreign: None,
    }
}

fn storage(fact: v1::StorageFact) -> StorageFact {
    StorageFact {
        driver: fact.driver,
        available: fact.available,
        note: fact.note,
    }
}

const fn resources(resources: v1::Resources) -> Resources {
    Resources {
        cpu: MilliCpu(resources.milli_cpu),
        memory: Bytes(resources.memory_bytes),
        disk: Bytes(resources.disk_bytes),
    }
}

pub(super) fn usage(usage: v1::Usage) -> Usage {
    Usage {
        cpu_percent: usage.cpu_percent,
        memory_percent: usage.memory_percent,
        memory_used: Bytes(usage.memory_used_bytes),
        disk_free: Bytes(usage.disk_free_bytes),
        running_containers: usage.running_containers,
        units: usage.units.into_iter().filter_map(unit_usage).collect(),
        pressure: usage.pressure.map(pressure),
    }
}

/// A word that this version does not know is none that it could decide by.
fn pressure(told: v1::Pressure) -> BTreeSet<Pressure> {
    let words = told.short_of.iter();
    words.filter_map(|word| Pressure::parse(word)).collect()
}

/// Figures of a unit that has no readable id are nobody's.
fn unit_usage(told: v1::UnitUsage) -> Option<UnitUsage> {
    let id = told.unit?;
    Some(UnitUsage {
        unit: UnitId {
            assignment: id.assignment.parse().ok()?,
            generation: id.generation,
        },
        cpu_nanos: told.cpu_nanos,
        milli_cpu: told.milli_cpu,
        memory: Bytes(told.memory_bytes),
        read: told.read_bytes.map(Bytes),
        written: told.written_bytes.map(Bytes),
        received: told.received_bytes.map(Bytes),
        sent: told.sent_bytes.map(Bytes),
    })
}

/// One unit of an observed set.
pub(super) fn observed(unit: v1::ObservedUnit) -> Result<ObservedUnit, Refusal> {
    let id = unit
        .unit
        .ok_or_else(|| refused("an observed unit has no id"))?;
    let bad = |_| refused("an observed unit has an id that is no UUID");
    Ok(ObservedUnit {
        unit: UnitId {
            assignment: id.assignment.parse().map_err(bad)?,
            generation: id.generation,
        },
        workload: unit.workload.parse().map_err(bad)?,
        kind: Kind::parse(&unit.kind)
            .ok_or_else(|| refused("an observed unit has an unknown kind"))?,
        state: unit
            .state
            .and_then(|state| state.state)
            .map(state)
            .ok_or_else(|| refused("an observed unit has no known state"))?,
        runs: unit.runs,
        parts: unit.parts.into_iter().filter_map(part).collect(),
        health: unit.health.and_then(|health| health.state).map(health),
        crash_loop: unit.crash_loop.map(crash_loop).map(Arc::new),
    })
}

/// A part in a state that this build does not know is left out: it is for people.
fn part(part: v1::Part) -> Option<Part> {
    Some(Part {
        name: part.name,
        state: PartState::parse(&part.state)?,
        exit: part.exit.map(|ended| exit(Some(ended))),
    })
}

fn health(state: v1::health::State) -> Health {
    use v1::health::State;
    match state {
        State::Starting(_) => Health::Starting,
        State::Healthy(_) => Health::Healthy,
        State::Unhealthy(why) => Health::Unhealthy { why },
    }
}

fn crash_loop(crash_loop: v1::CrashLoop) -> CrashLoop {
    CrashLoop {
        exit: exit(crash_loop.exit),
        at: Timestamp::from_millis(crash_loop.at_ms),
        run: crash_loop.run,
        log: CrashLoop::last_lines(crash_loop.log.into_iter()),
    }
}

fn state(state: v1::unit_state::State) -> UnitState {
    use v1::unit_state::State;
    match state {
        State::Preparing(it) => UnitState::Preparing { detail: it.detail },
        State::Starting(_) => UnitState::Starting,
        State::Running(it) => UnitState::Running {
            since: Timestamp::from_millis(it.since_ms),
        },
        State::Waiting(it) => UnitState::Waiting {
            exit: exit(it.exit),
            retry_at: Timestamp::from_millis(it.retry_at_ms),
        },
        State::Failed(it) => UnitState::Failed {
            code: it.code,
            message: it.message,
            retry_at: Timestamp::from_millis(it.retry_at_ms),
        },
        State::Stopping(_) => UnitState::Stopping,
        State::Finished(it) => UnitState::Finished {
            exit: exit(it.exit),
            at: Timestamp::from_millis(it.at_ms),
        },
        State::Gone(_) => UnitState::Gone,
    }
}

fn exit(exit: Option<v1::Exit>) -> Exit {
    match exit.and_then(|exit| exit.exit) {
        Some(v1::exit::Exit::Code(code)) => Exit::Code(code),
        Some(v1::exit::Exit::Signal(signal)) => Exit::Signal(signal),
        Some(v1::exit::Exit::OutOfMemory(true)) => Exit::OutOfMemory,
        Some(v1::exit::Exit::TimedOut(true)) => Exit::TimedOut,
        Some(v1::exit::Exit::Unhealthy(true)) => Exit::Unhealthy,
        Some(
            v1::exit::Exit::OutOfMemory(false)
            | v1::exit::Exit::TimedOut(false)
            | v1::exit::Exit::Unhealthy(false)
            | v1::exit::Exit::Unknown(_),
        )
        | None => Exit::Unknown,
    }
}

/// One item of an intent; its spec travels beside it.
pub(super) fn intent_item(item: &IntentItem) -> v1::IntentItem {
    v1::IntentItem {
        unit: Some(unit_id(item.unit)),
        workload: item.workload.to_string(),
        workload_name: item.workload_name.clone(),
        slot: item.slot,
        revision: item.revision,
        stop_cause: match item.intent {
            Intent::Run => String::new(),
            Intent::Stop { cause } => stop_cause(cause).to_owned(),
        },
        finished: item.is_finished,
    }
}

const fn stop_cause(cause: StopCause) -> &'static str {
    match cause {
        StopCause::Stopped => "stopped",
        StopCause::Deleted => "deleted",
        StopCause::ScaledDown => "scaled-down",
        StopCause::Updated => "updated",
        StopCause::Drained => "drained",
        StopCause::Replaced => "replaced",
    }
}

fn unit_id(unit: UnitId) -> v1::UnitId {
    v1::UnitId {
        assignment: unit.assignment.to_string(),
        generation: unit.generation,
    }
}

pub(super) fn log_request(unit: UnitId, query: LogRequest) -> v1::LogRequest {
    v1::LogRequest {
        unit: Some(unit_id(unit)),
        previous: query.previous,
        tail: query.tail.unwrap_or_default(),
        has_tail: query.tail.is_some(),
        since_ms: query.since.map_or(0, Timestamp::as_millis),
        follow: query.follow,
    }
}

pub(super) fn errand(unit: UnitId, errand: Errand) -> v1::Errand {
    let task = match errand.task {
        Task::Exec(command) => v1::errand::Errand::Exec(exec_command(command)),
        Task::Forward { port } => v1::errand::Errand::Forward(port.into()),
        Task::ReadFiles { path } => v1::errand::Errand::ReadFiles(path),
        Task::WriteFiles { path } => v1::errand::Errand::WriteFiles(path),
    };
    v1::Errand {
        unit: Some(unit_id(unit)),
        part: errand.part.unwrap_or_default(),
        errand: Some(task),
    }
}

fn exec_command(command: ExecCommand) -> v1::ExecCommand {
    v1::ExecCommand {
        words: command.words,
        input: command.input,
        terminal: command.terminal.map(terminal_size),
        user: command.user.unwrap_or_default(),
        env: command.env.into_iter().collect(),
        directory: command.directory.unwrap_or_default(),
    }
}

fn terminal_size(size: TerminalSize) -> v1::TerminalSize {
    v1::TerminalSize {
        rows: size.rows.into(),
        columns: size.columns.into(),
    }
}

pub(super) fn said(said: Said) -> v1::BulkFrame {
    let frame = match said {
        Said::Bytes(bytes) => v1::bulk_frame::Frame::Bytes(bytes.into()),
        Said::EndOfBytes => v1::bulk_frame::Frame::EndOfBytes(v1::EndOfBytes {}),
        Said::Resize(size) => v1::bulk_frame::Frame::Resize(terminal_size(size)),
    };
    v1::BulkFrame { frame: Some(frame) }
}

/// A word of an errand; none for what says nothing here.
pub(super) fn told(frame: v1::bulk_frame::Frame) -> Option<Told> {
    match frame {
        v1::bulk_frame::Frame::Bytes(bytes) => Some(Told::Bytes(bytes.into())),
        v1::bulk_frame::Frame::ErrorBytes(bytes) => Some(Told::ErrorBytes(bytes.into())),
        v1::bulk_frame::Frame::EndOfBytes(_) => Some(Told::EndOfBytes),
        v1::bulk_frame::Frame::Exited(of) => Some(Told::Exited(exit(Some(of)))),
        v1::bulk_frame::Frame::Ticket(_)
        | v1::bulk_frame::Frame::LogLines(_)
        | v1::bulk_frame::Frame::End(_)
        | v1::bulk_frame::Frame::Begun(_)
        | v1::bulk_frame::Frame::Resize(_) => None,
    }
}

pub(super) fn log_record(line: v1::LogLine) -> LogRecord {
    LogRecord {
        at: Timestamp::from_millis(line.at_ms),
        stream: match line.stream.as_str() {
            "stdout" => LogStream::Stdout,
            "stderr" => LogStream::Stderr,
            _ => LogStream::Notice,
        },
        text: line.text,
        is_partial: line.partial,
        run: line.run,
    }
}

/// Why a transfer ended badly, in the node's words; a code that is unknown here counts as unreachable.
pub(super) fn end(end: v1::End) -> Refusal {
    let code = Code::ALL
        .iter()
        .copied()
        .find(|code| code.as_str() == end.code);
    let code = code.unwrap_or(Code::NodeUnreachable);
    Refusal::new(
        code,
        end.message,
        "`hostler show` tells the state of each copy",
    )
}

pub(super) fn refused_message(refusal: Refusal) -> v1::Refused {
    v1::Refused {
        code: refusal.code.as_str().to_owned(),
        sentence: refusal.sentence,
        advice: refusal.advice,
    }
}

pub(super) fn refused(sentence: &str) -> Refusal {
    Refusal::new(
        Code::BadRequest,
        sentence,
        "run an agent of the same version as the server",
    )
}

#[cfg(test)]
mod tests {
    use hostler_model::{AssignmentId, WorkloadId};

    use super::*;

    fn wire_unit() -> v1::ObservedUnit {
        let now = Timestamp::from_millis(1);
        v1::ObservedUnit {
            unit: Some(unit_id(UnitId {
                assignment: AssignmentId::mint(now, 1),
                generation: 2,
            })),
            workload: WorkloadId::mint(now, 2).to_string(),
            kind: "process".to_owned(),
            state: Some(v1::UnitState {
                state: Some(v1::unit_state::State::Starting(v1::unit_state::Starting {})),
            }),
            runs: 1,
            parts: vec![
                v1::Part {
                    name: "db".to_owned(),
                    state: "exited".to_owned(),
                    exit: Some(v1::Exit {
                        exit: Some(v1::exit::Exit::Code(3)),
                    }),
                },
                v1::Part {
                    name: "web".to_owned(),
                    state: "levitating".to_owned(),
                    exit: None,
                },
            ],
            health: None,
            crash_loop: None,
        }
    }

    #[test]
    fn an_observed_unit_converts_and_each_missing_part_is_refused() {
        let unit = observed(wire_unit()).unwrap();
        assert_eq!(unit.state, UnitState::Starting);
        let parts: Vec<String> = unit.parts.iter().map(ToString::to_string).collect();
        assert_eq!(parts, ["db: exit code 3"], "an unknown state is left out");
        for broken in [
            v1::ObservedUnit {
                unit: None,
                ..wire_unit()
            },
            v1::ObservedUnit {
                workload: "web".to_owned(),
                ..wire_unit()
            },
            v1::ObservedUnit {
                kind: "teapot".to_owned(),
                ..wire_unit()
            },
            v1::ObservedUnit {
                state: None,
                ..wire_unit()
            },
        ] {
            assert_eq!(observed(broken).unwrap_err().code, Code::BadRequest);
        }
    }

    #[test]
    fn both_sides_compute_the_same_digest() {
        use v1::health::State;
        let states = [
            None,
            Some(State::Starting(true)),
            Some(State::Healthy(true)),
            Some(State::Unhealthy("status 500".to_owned())),
        ];
        let crash_loop = v1::CrashLoop {
            exit: None,
            at_ms: 1,
            run: 1,
            log: vec!["x".repeat(9000)],
        };
        let mut digests = std::collections::BTreeSet::new();
        for state in states {
            for crash_loop in [None, Some(crash_loop.clone())] {
                let wire = v1::ObservedUnit {
                    health: state.clone().map(|state| v1::Health { state: Some(state) }),
                    crash_loop,
                    ..wire_unit()
                };
                let units = [observed(wire.clone()).unwrap()];
                let item = (
                    *units[0].unit.assignment.as_bytes(),
                    units[0].unit.generation,
                    hostler_wire::session::unit_number(&wire),
                    wire.runs,
                );
                let digest = hostler_model::digest(&units);
                assert_eq!(digest, hostler_wire::session::digest([item]));
                digests.insert(digest);
                let kept = units[0].crash_loop.as_ref().map_or(0, |it| it.log[0].len());
                assert!(
                    kept <= CrashLoop::MOST_BYTES,
                    "what a node sends is bounded here"
                );
            }
        }
        assert_eq!(digests.len(), 8, "each condition has a digest of its own");
    }

    #[test]
    fn an_identity_that_is_no_word_is_refused() {
        for identity in ["", "a b", "é", &"x".repeat(129)] {
            let hello = v1::Hello {
                identity: identity.to_owned(),
                ..v1::Hello::default()
            };
            assert_eq!(
                announcement(hello).unwrap_err().code,
                Code::BadRequest,
                "{identity}"
            );
        }
    }

    #[test]
    fn the_end_of_a_transfer_keeps_its_code_if_it_is_known() {
        let of = |code: &str| {
            end(v1::End {
                code: code.to_owned(),
                message: "m".to_owned(),
            })
            .code
        };
        assert_eq!(of("log-not-found"), Code::LogNotFound);
        assert_eq!(of("brand-new"), Code::NodeUnreachable);
    }
}
