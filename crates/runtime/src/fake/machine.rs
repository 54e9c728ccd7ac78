//! The machine behind the fake: it owns the units, and each test owns it. Nothing here fails by itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_kit::Clock;
use hostler_model::spec::{DisconnectPolicy, Kind};
use hostler_model::{AssignmentId, Exit, FailureCode, Part, Timestamp, UnitId, WorkloadId};
use tokio::sync::Notify;

use crate::logs::{LogLine, LogQuery, Run, Stream};
use crate::secrets::Given;
use crate::{
    Adoptable, Data, Discarded, Found, FoundState, Leftover, LeftoverKind, NativeVerdict,
    RuntimeError, Unit, UnitStats,
};

/// What survives when a driver is dropped.
pub struct FakeMachine {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    notify: Notify,
}

/// A failure that a verb is told to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Image,
    Command,
    DiskFull,
    PortInUse(u16),
    Unsatisfiable(FailureCode),
    EngineDown,
}

/// What was kept of a log, and how many lines of the unit were looked at.
pub(super) struct Kept {
    pub(super) lines: Vec<LogLine>,
    pub(super) read: usize,
}

#[derive(Default)]
struct Inner {
    units: BTreeMap<UnitId, FakeUnit>,
    down: Option<String>,
    prepare_faults: VecDeque<Fault>,
    start_faults: VecDeque<Fault>,
    preparation: Duration,
    /// Whose copies have stored something: each run does.
    stored: BTreeMap<AssignmentId, Stored>,
    /// What is there beside that, by its driver.
    leftovers: Vec<(Kind, Leftover)>,
    /// What units are made of, as told.
    parts: BTreeMap<UnitId, Vec<Part>>,
    /// How commands inside units end and what they say, by their program.
    commands: BTreeMap<String, (Exit, String)>,
    /// Archives by the unit and the path at which they were unpacked.
    files: BTreeMap<(UnitId, String), Vec<u8>>,
    /// What the latest run of each unit was given.
    given: BTreeMap<UnitId, Vec<Given>>,
    native: Option<NativeVerdict>,
    /// What kinds lack although their engine answers.
    lacks: BTreeMap<Kind, String>,
    /// Whose drivers do not say whether they can work.
    mutes: BTreeSet<Kind>,
    /// What somebody else runs.
    strangers: Vec<Adoptable>,
    /// What runs on the container engine beside ours; none if it does not tell.
    containers: Option<Vec<String>>,
    /// Goes up with every change.
    version: u64,
}

/// What copies of an assignment have stored.
#[derive(Clone, Copy)]
struct Stored {
    kind: Kind,
    workload: WorkloadId,
    made_at: Timestamp,
    used_at: Timestamp,
}

struct FakeUnit {
    unit: Unit,
    phase: Phase,
    runs: u32,
    lines: Vec<LogLine>,
    /// Uptime at which the dead man's switch stops it.
    switch: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Phase {
    Prepared,
    Running {
        since: Timestamp,
        started: Duration,
        ends: Option<(Duration, Exit)>,
    },
    Exited {
        exit: Exit,
        at: Timestamp,
    },
}

impl std::fmt::Debug for FakeMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeMachine").finish_non_exhaustive()
    }
}

impl FakeMachine {
    /// A machine on which nothing is.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            inner: Mutex::default(),
            notify: Notify::new(),
        })
    }

    /// A driver says that it cannot work for want of this, though it answers when it is asked what is there.
    pub fn set_lack(&self, kind: Kind, of: Option<&str>) {
        let mut inner = self.lock();
        match of {
            Some(of) => inner.lacks.insert(kind, of.to_owned()),
            None => inner.lacks.remove(&kind),
        };
    }

    /// From now on a driver does not say whether it can work, or says it to whoever waits.
    pub fn set_mute(&self, kind: Kind, is_mute: bool) {
        let mut inner = self.lock();
        if is_mute {
            inner.mutes.insert(kind);
        } else {
            inner.mutes.remove(&kind);
        }
        self.touch(&mut inner);
    }

    /// Waits while a driver does not say whether it can work.
    pub(super) async fn speaks(&self, kind: Kind) {
        let mut seen = 0;
        while self.lock().mutes.contains(&kind) {
            seen = self.changed(seen).await;
        }
    }

    pub(super) fn lack_of(&self, kind: Kind) -> Option<String> {
        self.lock().lacks.get(&kind).cloned()
    }

    /// Says what a unit is made of from now on.
    pub fn set_parts(&self, id: UnitId, parts: Vec<Part>) {
        let mut inner = self.lock();
        inner.parts.insert(id, parts);
        self.touch(&mut inner);
    }

    pub(super) fn parts(&self, id: UnitId) -> Vec<Part> {
        self.lock().parts.get(&id).cloned().unwrap_or_default()
    }

    /// The next `times` preparations answer the fault.
    pub fn fail_prepare(&self, fault: Fault, times: usize) {
        self.lock()
            .prepare_faults
            .extend(std::iter::repeat_n(fault, times));
    }

    /// The next `times` starts answer the fault.
    pub fn fail_start(&self, fault: Fault, times: usize) {
        self.lock()
            .start_faults
            .extend(std::iter::repeat_n(fault, times));
    }

    /// What the container engine tells of all that runs on it.
    pub fn set_containers(&self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.lock().containers = Some(names);
    }

    /// What runs on the container engine that could be adopted.
    pub fn set_strangers(&self, strangers: Vec<Adoptable>) {
        self.lock().strangers = strangers;
    }

    pub(super) fn strangers(&self) -> Vec<Adoptable> {
        self.lock().strangers.clone()
    }

    /// As told, unless it was told nothing.
    pub(super) fn containers(&self) -> Option<Vec<String>> {
        self.lock().containers.clone()
    }

    /// With a reason, every verb answers `EngineDown` and the units go on; without one, all is well again.
    pub fn set_down(&self, reason: Option<&str>) {
        let mut inner = self.lock();
        inner.down = reason.map(str::to_owned);
        self.touch(&mut inner);
    }

    /// How long each preparation takes from now on.
    pub fn set_preparation_time(&self, span: Duration) {
        self.lock().preparation = span;
    }

    /// Ends a running unit as if by itself.
    pub fn crash(&self, id: UnitId, exit: Exit) {
        self.end(id, exit);
    }

    /// Everything that runs is gone, and nobody saw how it ended.
    pub fn reboot(&self) {
        let running: Vec<UnitId> = {
            let inner = self.lock();
            let runs = inner.units.iter().filter(|(_, unit)| unit.is_running());
            runs.map(|(id, _)| *id).collect()
        };
        for id in running {
            self.end(id, Exit::Unknown);
        }
    }

    /// A command inside any unit whose program is this ends so from now on, after one line of output.
    pub fn set_command(&self, program: &str, exit: Exit, line: &str) {
        let end = (exit, line.to_owned());
        self.lock().commands.insert(program.to_owned(), end);
    }

    /// What the engine says from now on of every unit's own healthcheck.
    pub fn set_native_verdict(&self, verdict: NativeVerdict) {
        self.lock().native = Some(verdict);
    }

    /// The unit's program is another from its next run on.
    pub fn replace_command(&self, id: UnitId, words: &[&str]) {
        if let Some(unit) = self.lock().units.get_mut(&id) {
            let mut spec = hostler_model::spec::WorkloadSpec::clone(&unit.unit.spec);
            if let Some(process) = &mut spec.process {
                process.command = words.iter().map(|&word| word.to_owned()).collect();
            }
            unit.unit.spec = Arc::new(spec);
        }
    }

    pub(super) fn file(&self, id: UnitId, path: &str) -> Option<Vec<u8>> {
        self.lock().files.get(&(id, path.to_owned())).cloned()
    }

    pub(super) fn set_file(&self, id: UnitId, path: &str, archive: Vec<u8>) {
        self.lock().files.insert((id, path.to_owned()), archive);
    }

    pub(super) fn command(&self, program: &str) -> Option<(Exit, String)> {
        self.lock().commands.get(program).cloned()
    }

    pub(super) fn native_verdict(&self) -> NativeVerdict {
        self.lock().native.clone().unwrap_or(NativeVerdict::Absent)
    }

    /// Whether the machine has what copies of the assignment have stored.
    pub fn has_data(&self, assignment: AssignmentId) -> bool {
        self.lock().stored.contains_key(&assignment)
    }

    /// Writes a line as if the unit had written it.
    pub fn write_line(&self, id: UnitId, text: &str) {
        let at = self.now();
        let mut inner = self.lock();
        if let Some(unit) = inner.units.get_mut(&id) {
            unit.write(at, text);
            self.touch(&mut inner);
        }
    }

    /// The ids of the units that run now, whether or not a driver is there to see.
    #[must_use]
    pub fn running(&self) -> Vec<UnitId> {
        self.settle();
        let inner = self.lock();
        inner
            .units
            .iter()
            .filter(|(_, unit)| unit.is_running())
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn down_note(&self) -> Option<String> {
        self.lock().down.clone()
    }

    pub(super) fn preparation_time(&self) -> Duration {
        self.lock().preparation
    }

    pub(super) fn give(&self, id: UnitId, secrets: Vec<Given>) {
        self.lock().given.insert(id, secrets);
    }

    /// The secrets that the unit was given last.
    #[must_use]
    pub fn given(&self, id: UnitId) -> Vec<Given> {
        self.lock().given.get(&id).cloned().unwrap_or_default()
    }

    pub(super) fn prepare(&self, unit: &Unit) -> Result<(), RuntimeError> {
        let mut inner = self.answering()?;
        if inner.units.contains_key(&unit.id) {
            return Ok(());
        }
        if let Some(fault) = inner.prepare_faults.pop_front() {
            return Err(fault.into_error());
        }
        let fresh = FakeUnit {
            unit: unit.clone(),
            phase: Phase::Prepared,
            runs: 0,
            lines: Vec::new(),
            switch: None,
        };
        inner.units.insert(unit.id, fresh);
        self.touch(&mut inner);
        Ok(())
    }

    pub(super) fn start(&self, id: UnitId) -> Result<(), RuntimeError> {
        let (at, uptime) = (self.now(), self.clock.uptime());
        let mut inner = self.answering()?;
        let Some(unit) = inner.units.get(&id) else {
            return Err(RuntimeError::NotFound(id));
        };
        if unit.is_running() {
            return Ok(());
        }
        if let Some(fault) = inner.start_faults.pop_front() {
            return Err(fault.into_error());
        }
        if let Some(unit) = inner.units.get_mut(&id) {
            unit.begin(at, uptime);
        }
        inner.store(id, at);
        self.touch(&mut inner);
        drop(inner);
        self.settle();
        Ok(())
    }

    /// Ends an obliging unit at once; answers the grace of one that has to be killed.
    pub(super) fn ask_to_stop(&self, id: UnitId) -> Result<Option<Duration>, RuntimeError> {
        let inner = self.answering()?;
        let unit = inner.units.get(&id).ok_or(RuntimeError::NotFound(id))?;
        if !unit.is_running() {
            return Ok(None);
        }
        let exit = match unit.program() {
            ("stubborn", _) => {
                return Ok(Some(Duration::from_millis(unit.unit.spec.stop.grace_ms)));
            }
            ("obliging", arguments) => Exit::Code(number(arguments.first())),
            _ => Exit::Signal(15),
        };
        drop(inner);
        self.end(id, exit);
        Ok(None)
    }

    pub(super) fn kill(&self, id: UnitId) {
        self.end(id, Exit::Signal(9));
    }

    /// How the last run ended; `Unknown` if there was none.
    pub(super) fn last_exit(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        match self.lock().units.get(&id).map(|unit| unit.phase) {
            Some(Phase::Exited { exit, .. }) => Ok(exit),
            Some(_) => Ok(Exit::Unknown),
            None => Err(RuntimeError::NotFound(id)),
        }
    }

    pub(super) fn forget(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        let now = self.now();
        let mut inner = self.answering()?;
        match (data, inner.stored.get_mut(&id.assignment)) {
            (Data::Keep, Some(stored)) => stored.used_at = now,
            (Data::Keep, None) => {}
            (Data::Delete, _) => drop(inner.stored.remove(&id.assignment)),
        }
        if inner.units.remove(&id).is_some() {
            self.touch(&mut inner);
        }
        Ok(())
    }

    /// The driver has this beside its units.
    pub fn leave(&self, kind: Kind, leftover: Leftover) {
        self.lock().leftovers.push((kind, leftover));
    }

    /// Everything beside units: what was left, and what copies that are gone have stored.
    pub(super) fn leftovers(&self, kind: Kind) -> Result<Vec<Leftover>, RuntimeError> {
        let inner = self.answering()?;
        let has_unit = |assignment| inner.units.keys().any(|unit| unit.assignment == assignment);
        let stored = inner.stored.iter();
        let kept = stored.filter(|(id, stored)| stored.kind == kind && !has_unit(**id));
        let data = kept.map(|(assignment, stored)| Leftover {
            kind: LeftoverKind::Data {
                assignment: *assignment,
                workload: Some(stored.workload),
            },
            name: assignment.to_string(),
            bytes: 1 << 20,
            made_at: stored.made_at,
            used_at: stored.used_at,
            needed: None,
        });
        let left = inner.leftovers.iter().filter(|(of, _)| *of == kind);
        Ok(left.map(|(_, it)| it.clone()).chain(data).collect())
    }

    pub(super) fn discard(
        &self,
        kind: Kind,
        (what, name): (LeftoverKind, &str),
    ) -> Result<Discarded, RuntimeError> {
        let mut inner = self.answering()?;
        if let LeftoverKind::Data { assignment, .. } = what {
            if inner.units.keys().any(|unit| unit.assignment == assignment) {
                return Ok(Discarded::Stays("a unit uses it".to_owned()));
            }
            inner.stored.remove(&assignment);
            return Ok(Discarded::Gone);
        }
        let is_meant =
            |(of, it): &(Kind, Leftover)| *of == kind && it.kind == what && it.name == name;
        let left = inner.leftovers.iter().find(|it| is_meant(it));
        if let Some(why) = left.and_then(|(_, it)| it.needed.clone()) {
            return Ok(Discarded::Stays(why));
        }
        inner.leftovers.retain(|it| !is_meant(it));
        Ok(Discarded::Gone)
    }

    pub(super) fn observe(&self, kind: Kind) -> Result<Vec<Found>, RuntimeError> {
        self.settle();
        let inner = self.answering()?;
        let ours = inner
            .units
            .values()
            .filter(|unit| unit.unit.spec.kind() == kind);
        Ok(ours.map(FakeUnit::found).collect())
    }

    pub(super) fn extend(&self, id: UnitId, span: Duration) -> Result<(), RuntimeError> {
        let deadline = self.clock.uptime() + span;
        let mut inner = self.answering()?;
        let unit = inner.units.get_mut(&id).ok_or(RuntimeError::NotFound(id))?;
        if unit.switch.is_some() {
            unit.switch = Some(deadline);
        }
        Ok(())
    }

    pub(super) fn measure(&self, id: UnitId) -> Result<UnitStats, RuntimeError> {
        let uptime = self.clock.uptime();
        let inner = self.answering()?;
        match inner.units.get(&id).map(|unit| unit.phase) {
            Some(Phase::Running { started, .. }) => {
                let nanos = uptime.saturating_sub(started).as_nanos();
                let cpu_nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
                Ok(UnitStats {
                    cpu_nanos,
                    memory: 1 << 20,
                    pids: 1,
                    read: Some(cpu_nanos / 1000),
                    ..UnitStats::default()
                })
            }
            Some(_) => Ok(UnitStats::default()),
            None => Err(RuntimeError::NotFound(id)),
        }
    }

    pub(super) fn read_log(&self, id: UnitId, query: &LogQuery) -> Result<Kept, RuntimeError> {
        self.settle();
        let inner = self.answering()?;
        let unit = inner.units.get(&id).ok_or(RuntimeError::NotFound(id))?;
        let run = match query.run {
            Run::Latest => unit.runs,
            Run::Previous => unit.runs.saturating_sub(1),
        };
        if run == 0 && !(query.follow && query.run == Run::Latest) {
            return Err(RuntimeError::NoLog);
        }
        let is_asked = |line: &&LogLine| {
            let of_run = line.run == run || (query.follow && line.run >= run);
            of_run && query.since.is_none_or(|since| line.at >= since)
        };
        let mut lines: Vec<LogLine> = unit.lines.iter().filter(is_asked).cloned().collect();
        if let Some(tail) = query.tail {
            lines.drain(..lines.len().saturating_sub(tail));
        }
        Ok(Kept {
            lines,
            read: unit.lines.len(),
        })
    }

    /// The line after the first `read` ones, once it is written; none once the unit is gone.
    pub(super) async fn next_line(&self, id: UnitId, read: usize) -> Option<(LogLine, usize)> {
        loop {
            let version = {
                let inner = self.lock();
                if let Some(line) = inner.units.get(&id)?.lines.get(read) {
                    return Some((line.clone(), read + 1));
                }
                inner.version
            };
            self.changed(version).await;
        }
    }

    /// Completes with the version once it is larger than `seen`.
    pub(super) async fn changed(&self, seen: u64) -> u64 {
        loop {
            let waiting = self.notify.notified();
            tokio::pin!(waiting);
            waiting.as_mut().enable();
            let version = self.lock().version;
            if version > seen {
                return version;
            }
            waiting.await;
        }
    }

    /// How long until something ends by itself.
    pub(super) fn next_end(&self) -> Option<Duration> {
        let uptime = self.clock.uptime();
        let inner = self.lock();
        let ends = inner.units.values().filter_map(FakeUnit::due);
        ends.map(|(due, _)| due.saturating_sub(uptime)).min()
    }

    /// Ends everything whose time has come.
    pub(super) fn settle(&self) {
        let (at, uptime) = (self.now(), self.clock.uptime());
        let mut inner = self.lock();
        let mut has_ended = false;
        for unit in inner.units.values_mut() {
            if let Some((due, exit)) = unit.due()
                && due <= uptime
            {
                unit.phase = Phase::Exited { exit, at };
                has_ended = true;
            }
        }
        if has_ended {
            self.touch(&mut inner);
        }
    }

    fn end(&self, id: UnitId, exit: Exit) {
        let at = self.now();
        let mut inner = self.lock();
        if let Some(unit) = inner.units.get_mut(&id)
            && unit.is_running()
        {
            unit.phase = Phase::Exited { exit, at };
            self.touch(&mut inner);
        }
    }

    fn answering(&self) -> Result<MutexGuard<'_, Inner>, RuntimeError> {
        let inner = self.lock();
        match &inner.down {
            Some(message) => Err(RuntimeError::EngineDown {
                engine: "fake",
                message: message.clone(),
            }),
            None => Ok(inner),
        }
    }

    fn touch(&self, inner: &mut Inner) {
        inner.version += 1;
        self.notify.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.wall_millis())
    }
}

impl Inner {
    fn store(&mut self, id: UnitId, at: Timestamp) {
        let Some(unit) = self.units.get(&id) else {
            return;
        };
        let fresh = Stored {
            kind: unit.unit.spec.runs_on(),
            workload: unit.unit.workload,
            made_at: at,
            used_at: at,
        };
        self.stored.entry(id.assignment).or_insert(fresh).used_at = at;
    }
}

impl FakeUnit {
    const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    fn program(&self) -> (&str, &[String]) {
        let spec = &self.unit.spec;
        let of_process = spec
            .process
            .as_ref()
            .map(|process| process.command.as_slice());
        let of_container = spec
            .container
            .as_ref()
            .map(|container| container.command.as_slice());
        match of_process
            .or(of_container)
            .and_then(<[String]>::split_first)
        {
            Some((program, arguments)) => (program, arguments),
            None => ("", &[]),
        }
    }

    fn begin(&mut self, at: Timestamp, uptime: Duration) {
        self.runs += 1;
        let (program, arguments) = self.program();
        let arguments = arguments.to_vec();
        let now = |exit| Some((uptime, exit));
        let (ends, lines) = match program {
            "exit" => (now(Exit::Code(number(arguments.first()))), &[][..]),
            "exit-after" => {
                let span = Duration::from_millis(number(arguments.first()));
                (
                    Some((uptime + span, Exit::Code(number(arguments.get(1))))),
                    &[][..],
                )
            }
            "print" => (None, &arguments[..]),
            "print-exit" => (
                now(Exit::Code(number(arguments.first()))),
                arguments.get(1..).unwrap_or(&[]),
            ),
            _ => (None, &[][..]),
        };
        for line in lines {
            self.write(at, line);
        }
        self.phase = Phase::Running {
            since: at,
            started: uptime,
            ends,
        };
        let disconnect = &self.unit.spec.disconnect;
        let is_singleton = disconnect.policy == DisconnectPolicy::Singleton;
        self.switch =
            is_singleton.then(|| uptime + Duration::from_millis(disconnect.stop_after_ms));
    }

    fn write(&mut self, at: Timestamp, text: &str) {
        self.lines.push(LogLine {
            at,
            stream: Stream::Stdout,
            text: text.to_owned(),
            is_partial: false,
            run: self.runs,
        });
    }

    /// When and how it will end by itself.
    fn due(&self) -> Option<(Duration, Exit)> {
        let Phase::Running { ends, .. } = self.phase else {
            return None;
        };
        let switch = self.switch.map(|due| (due, Exit::Signal(15)));
        [ends, switch]
            .into_iter()
            .flatten()
            .min_by_key(|(due, _)| *due)
    }

    fn found(&self) -> Found {
        let state = match self.phase {
            Phase::Prepared => FoundState::Prepared,
            Phase::Running { since, .. } => FoundState::Running { since },
            Phase::Exited { exit, at } => FoundState::Exited { exit, at },
        };
        Found {
            id: self.unit.id,
            workload: self.unit.workload,
            state,
            runs: self.runs,
        }
    }
}

impl Fault {
    fn into_error(self) -> RuntimeError {
        let told = || "told to fail".to_owned();
        match self {
            Self::Image => RuntimeError::Image {
                image: "fake".to_owned(),
                message: told(),
            },
            Self::Command => RuntimeError::Command {
                program: "fake".to_owned(),
                source: std::io::ErrorKind::NotFound.into(),
            },
            Self::DiskFull => RuntimeError::DiskFull,
            Self::PortInUse(port) => RuntimeError::PortInUse { port },
            Self::Unsatisfiable(code) => RuntimeError::Unsatisfiable {
                code,
                message: told(),
            },
            Self::EngineDown => RuntimeError::EngineDown {
                engine: "fake",
                message: told(),
            },
        }
    }
}

pub(super) fn number<T: std::str::FromStr + Default>(word: Option<&String>) -> T {
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}
