//! The contract suite of [`Runtime`]: every driver, and the fake, passes the same checks.
//!
//! A [`Subject`] says how to make a driver over one machine, again and again, and how to write a spec that
//! behaves in a given way. [`run`] panics with a sentence at the first promise that is broken.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hostler_kit::{Entropy as _, SystemEntropy};
use hostler_model::spec::WorkloadSpec;
use hostler_model::{AssignmentId, Exit, Timestamp, UnitId, WorkloadId};
use tokio::io::AsyncWriteExt as _;

use crate::exec::{self, Exec, Execution, Input};
use crate::logs::{LogLine, LogQuery, Run, Stream};
use crate::{
    Data, Discarded, ExecCommand, Found, FoundState, LeftoverKind, Runtime, RuntimeError,
    TerminalSize, Unit,
};

/// Long enough for the slowest machine, and for a guest that boots on it; nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(180);
const GLANCE: Duration = Duration::from_millis(20);

/// A driver under test and the machine behind it.
pub struct Subject {
    /// A driver over the same machine, as a restarted agent makes one.
    pub remake: Box<dyn Fn() -> Arc<dyn Runtime> + Send + Sync>,
    /// A spec of the driver's kind that behaves so.
    pub spec: Box<dyn Fn(&Behaviour) -> WorkloadSpec + Send + Sync>,
}

/// How a unit of the suite behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Runs until the stop signal ends it with a signal or code of its own.
    Forever,
    /// Ends at once with the code.
    Exit(u8),
    /// Writes the lines and ends with 0.
    PrintAndExit(Vec<String>),
    /// Writes the lines and runs until it is stopped.
    Print(Vec<String>),
    /// Runs until it is stopped and ends with the code then.
    Obliging(u8),
    /// Ignores the stop signal.
    Stubborn,
    /// Writes what it reads, until its input ends.
    Echo,
    /// Writes the size of its terminal, at first and for each line that it reads.
    Sizes,
}

/// Runs the whole suite.
pub async fn run(subject: &Subject) {
    verbs_are_idempotent(subject).await;
    a_driver_made_again_finds_everything(subject).await;
    exit_codes_are_kept(subject).await;
    a_start_after_an_exit_is_a_new_run(subject).await;
    stop_asks_first_and_kills_after_the_grace(subject).await;
    remove_forgets_everything(subject).await;
    unknown_units_are_told_apart(subject).await;
    logs_are_kept_by_run(subject).await;
    logs_answer_tail_and_since(subject).await;
    logs_follow_across_runs_until_the_unit_is_removed(subject).await;
    an_exit_wakes_the_one_who_waits(subject).await;
    commands_run_inside_a_running_unit(subject).await;
}

/// Runs what of the suite makes sense for guests, which have no exit codes: one that powers itself off has
/// succeeded, one whose kernel gives up has not.
pub async fn run_guests(subject: &Subject) {
    run_real_guests(subject).await;
    remove_forgets_everything(subject).await;
    unknown_units_are_told_apart(subject).await;
    logs_follow_across_runs_until_the_unit_is_removed(subject).await;
    an_exit_wakes_the_one_who_waits(subject).await;
}

/// The part of [`run_guests`] that hangs on the guest: each unit of it is a boot, which takes its time.
pub async fn run_real_guests(subject: &Subject) {
    verbs_are_idempotent(subject).await;
    a_driver_made_again_finds_everything(subject).await;
    guests_end_by_themselves_when_asked_or_by_force(subject).await;
    logs_are_kept_by_run(subject).await;
}

/// For drivers whose units store something: data outlives its unit, is told with its workload, and goes once, when
/// nothing uses it. The spec is one whose run stores something.
pub async fn data_is_kept_until_it_is_discarded(runtime: &dyn Runtime, spec: WorkloadSpec) {
    let Some(leftovers) = runtime.leftovers() else {
        panic!("the driver has no leftovers");
    };
    let first = unit(spec);
    let kind_of = |unit: &Unit| LeftoverKind::Data {
        assignment: unit.id.assignment,
        workload: Some(unit.workload),
    };
    let find = async |unit: &Unit| {
        let told = must(leftovers.leftovers().await, "leftovers");
        told.into_iter().find(|it| it.kind == kind_of(unit))
    };
    must(runtime.prepare(&first, &|_| ()).await, "prepare");
    must(runtime.start(first.id).await, "start");
    let is_told = find(&first).await.is_some_and(|it| it.needed.is_none());
    assert!(!is_told, "data of a unit that is here is no leftover");
    let name = first.id.assignment.to_string();
    let kept = must(leftovers.discard(kind_of(&first), &name).await, "discard");
    assert!(
        matches!(kept, Discarded::Stays(_)),
        "a unit uses it: {kept:?}"
    );
    must(runtime.remove(first.id, Data::Keep).await, "remove");
    let Some(told) = find(&first).await else {
        panic!("data that is kept is told");
    };
    assert!(
        told.needed.is_none() && told.made_at <= told.used_at,
        "{told:?}"
    );
    let next = Unit {
        id: UnitId {
            generation: 2,
            ..first.id
        },
        ..first.clone()
    };
    must(
        runtime.prepare(&next, &|_| ()).await,
        "prepare the next generation",
    );
    let is_told = find(&next).await.is_some_and(|it| it.needed.is_none());
    assert!(!is_told, "the next generation has it again");
    must(
        runtime.remove(next.id, Data::Keep).await,
        "remove the next generation",
    );
    let again = find(&first).await.map(|it| it.made_at);
    assert_eq!(again, Some(told.made_at), "it is as old as it was");
    for _ in 0..2 {
        let gone = leftovers.discard(kind_of(&first), &told.name).await;
        assert_eq!(must(gone, "discard"), Discarded::Gone);
        assert!(find(&first).await.is_none());
    }
}

/// A fresh unit with the spec.
#[must_use]
pub fn unit(spec: WorkloadSpec) -> Unit {
    let entropy = SystemEntropy;
    let epoch = Timestamp::from_millis(1_700_000_000_000);
    Unit {
        id: UnitId {
            assignment: AssignmentId::mint(epoch, entropy.next_u128()),
            generation: 1,
        },
        workload: WorkloadId::mint(epoch, entropy.next_u128()),
        workload_name: spec.name.clone(),
        slot: 0,
        spec: Arc::new(spec),
        volumes: Vec::new(),
    }
}

/// The behaviour as a script for `sh -c`.
#[must_use]
pub fn script(behaviour: &Behaviour) -> String {
    let idle = "while :; do sleep 0.05; done";
    let print = |lines: &[String]| -> String {
        lines
            .iter()
            .map(|line| format!("echo '{line}'; "))
            .collect()
    };
    match behaviour {
        Behaviour::Forever => format!("trap 'exit 0' TERM; {idle}"),
        Behaviour::Exit(code) => format!("exit {code}"),
        Behaviour::PrintAndExit(lines) => print(lines),
        Behaviour::Print(lines) => format!("trap 'exit 0' TERM; {}{idle}", print(lines)),
        Behaviour::Obliging(code) => format!("trap 'exit {code}' TERM; echo ready; {idle}"),
        Behaviour::Stubborn => format!("trap '' TERM; echo ready; {idle}"),
        Behaviour::Echo => "exec cat".to_owned(),
        Behaviour::Sizes => "stty size; while read line; do stty size; done".to_owned(),
    }
}

/// The behaviour as a process of the fake.
#[must_use]
pub fn fake_spec(behaviour: &Behaviour) -> WorkloadSpec {
    let words = |program: &str, rest: &[String]| {
        std::iter::once(program.to_owned())
            .chain(rest.iter().cloned())
            .collect()
    };
    let command = match behaviour {
        Behaviour::Forever => words("forever", &[]),
        Behaviour::Exit(code) => words("exit", &[code.to_string()]),
        Behaviour::PrintAndExit(lines) => {
            let rest: Vec<String> = std::iter::once("0".to_owned())
                .chain(lines.iter().cloned())
                .collect();
            words("print-exit", &rest)
        }
        Behaviour::Print(lines) => words("print", lines),
        Behaviour::Obliging(code) => words("obliging", &[code.to_string()]),
        Behaviour::Stubborn => words("stubborn", &[]),
        Behaviour::Echo => words("cat", &[]),
        Behaviour::Sizes => words("sizes", &[]),
    };
    WorkloadSpec::of_process("contract", command)
}

/// What the driver finds of the unit, if anything.
pub async fn find(runtime: &dyn Runtime, id: UnitId) -> Option<Found> {
    let found = runtime.observe().await.expect("observe answers");
    found.into_iter().find(|found| found.id == id)
}

/// Observes until the unit has ended, and answers how.
pub async fn ended(runtime: &dyn Runtime, id: UnitId) -> Exit {
    let watching = async {
        loop {
            if let Some(Found {
                state: FoundState::Exited { exit, .. },
                ..
            }) = find(runtime, id).await
            {
                return exit;
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    tokio::time::timeout(PATIENCE, watching)
        .await
        .expect("the unit ends")
}

/// The log's texts, once there are `count` of them.
pub async fn texts(
    runtime: &dyn Runtime,
    id: UnitId,
    query: &LogQuery,
    count: usize,
) -> Vec<String> {
    let reading = async {
        loop {
            if let Ok(stream) = runtime.logs(id, query.clone()).await {
                let lines: Vec<LogLine> = stream.map(|line| line.expect("a line")).collect().await;
                if lines.len() >= count {
                    return lines.into_iter().map(|line| line.text).collect();
                }
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the lines appear in the log")
}

fn quiet(_: String) {}

async fn begun(subject: &Subject, runtime: &dyn Runtime, behaviour: &Behaviour) -> Unit {
    let mut spec = (subject.spec)(behaviour);
    spec.stop.grace_ms = if matches!(behaviour, Behaviour::Stubborn) {
        300
    } else {
        120_000
    };
    let unit = unit(spec);
    runtime.prepare(&unit, &quiet).await.expect("prepare");
    runtime.start(unit.id).await.expect("start");
    unit
}

fn lines(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

async fn verbs_are_idempotent(subject: &Subject) {
    let runtime = (subject.remake)();
    let unit = unit((subject.spec)(&Behaviour::Obliging(0)));
    for _ in 0..2 {
        runtime
            .prepare(&unit, &quiet)
            .await
            .expect("prepare, also twice");
    }
    let found = find(&*runtime, unit.id)
        .await
        .expect("a prepared unit is found");
    assert_eq!(
        (found.state, found.runs, found.workload),
        (FoundState::Prepared, 0, unit.workload)
    );
    for _ in 0..2 {
        runtime.start(unit.id).await.expect("start, also twice");
    }
    let found = find(&*runtime, unit.id)
        .await
        .expect("a running unit is found");
    assert!(
        matches!(found.state, FoundState::Running { .. }),
        "runs: {found:?}"
    );
    assert_eq!(found.runs, 1, "a running unit is left alone");
    runtime
        .prepare(&unit, &quiet)
        .await
        .expect("prepare leaves a running unit as it is");
    texts_of_obliging(&*runtime, unit.id).await;
    let first = runtime.stop(unit.id).await.expect("stop");
    let again = runtime.stop(unit.id).await.expect("stop, also twice");
    assert_eq!(
        first, again,
        "a unit that does not run answers how its last run ended"
    );
    for _ in 0..2 {
        runtime
            .remove(unit.id, Data::Delete)
            .await
            .expect("remove, also twice");
    }
}

async fn a_driver_made_again_finds_everything(subject: &Subject) {
    let runtime = (subject.remake)();
    let running = begun(subject, &*runtime, &Behaviour::Forever).await;
    let exited = begun(subject, &*runtime, &Behaviour::Exit(4)).await;
    ended(&*runtime, exited.id).await;
    let before = [
        find(&*runtime, running.id).await,
        find(&*runtime, exited.id).await,
    ];
    drop(runtime);

    let runtime = (subject.remake)();
    let after = [
        find(&*runtime, running.id).await,
        find(&*runtime, exited.id).await,
    ];
    assert_eq!(before, after, "a driver that is made again sees the same");
    runtime
        .start(running.id)
        .await
        .expect("start of an adopted unit");
    assert_eq!(
        find(&*runtime, running.id).await.expect("found").runs,
        1,
        "it was left alone"
    );
    runtime
        .stop(running.id)
        .await
        .expect("stop of an adopted unit");
    for unit in [running, exited] {
        runtime
            .remove(unit.id, Data::Delete)
            .await
            .expect("remove of an adopted unit");
    }
}

async fn exit_codes_are_kept(subject: &Subject) {
    let runtime = (subject.remake)();
    for code in [0, 3] {
        let unit = begun(subject, &*runtime, &Behaviour::Exit(code)).await;
        assert_eq!(ended(&*runtime, unit.id).await, Exit::Code(code.into()));
        let stopped = runtime.stop(unit.id).await.expect("stop");
        assert_eq!(
            stopped,
            Exit::Code(code.into()),
            "stop tells how the last run ended"
        );
        runtime.remove(unit.id, Data::Delete).await.expect("remove");
    }
}

async fn a_start_after_an_exit_is_a_new_run(subject: &Subject) {
    let runtime = (subject.remake)();
    let unit = begun(subject, &*runtime, &Behaviour::Exit(5)).await;
    ended(&*runtime, unit.id).await;
    runtime.start(unit.id).await.expect("start again");
    let found = find(&*runtime, unit.id).await.expect("found");
    assert_eq!(found.runs, 2, "the second start is a second run");
    assert_eq!(ended(&*runtime, unit.id).await, Exit::Code(5));
    runtime.remove(unit.id, Data::Delete).await.expect("remove");
}

async fn stop_asks_first_and_kills_after_the_grace(subject: &Subject) {
    let runtime = (subject.remake)();
    let unit = begun(subject, &*runtime, &Behaviour::Obliging(7)).await;
    texts_of_obliging(&*runtime, unit.id).await;
    assert_eq!(
        runtime.stop(unit.id).await.expect("stop"),
        Exit::Code(7),
        "it was asked"
    );
    runtime.remove(unit.id, Data::Delete).await.expect("remove");

    let unit = begun(subject, &*runtime, &Behaviour::Stubborn).await;
    texts_of_obliging(&*runtime, unit.id).await;
    assert_eq!(
        runtime.stop(unit.id).await.expect("stop"),
        Exit::Signal(9),
        "it was killed"
    );
    let found = find(&*runtime, unit.id).await.expect("found");
    assert!(
        matches!(found.state, FoundState::Exited { .. }),
        "nothing of it runs: {found:?}"
    );
    runtime.remove(unit.id, Data::Delete).await.expect("remove");
}

async fn guests_end_by_themselves_when_asked_or_by_force(subject: &Subject) {
    let runtime = (subject.remake)();
    let unit = begun(subject, &*runtime, &Behaviour::Exit(3)).await;
    let exit = ended(&*runtime, unit.id).await;
    assert_eq!(exit, Exit::Code(1), "its kernel gave up");
    runtime.remove(unit.id, Data::Delete).await.expect("remove");

    for (behaviour, expected) in [
        (Behaviour::Obliging(0), Exit::Code(0)),
        (Behaviour::Stubborn, Exit::Signal(9)),
    ] {
        let unit = begun(subject, &*runtime, &behaviour).await;
        texts_of_obliging(&*runtime, unit.id).await;
        let exit = runtime.stop(unit.id).await.expect("stop");
        assert_eq!(exit, expected, "{behaviour:?}");
        runtime.remove(unit.id, Data::Delete).await.expect("remove");
    }
}

/// Waits until the script has set its trap, which it says with a line. The fake is ready at once.
async fn texts_of_obliging(runtime: &dyn Runtime, id: UnitId) {
    if runtime.probe().await.version != "fake" {
        texts(runtime, id, &LogQuery::default(), 1).await;
    }
}

async fn remove_forgets_everything(subject: &Subject) {
    let runtime = (subject.remake)();
    let unit = begun(subject, &*runtime, &Behaviour::Forever).await;
    runtime
        .remove(unit.id, Data::Delete)
        .await
        .expect("remove stops first");
    assert_eq!(
        find(&*runtime, unit.id).await,
        None,
        "a removed unit is not found"
    );
    let error = runtime
        .start(unit.id)
        .await
        .expect_err("a removed unit cannot start");
    assert!(
        matches!(error, RuntimeError::NotFound(id) if id == unit.id),
        "{error}"
    );

    runtime.prepare(&unit, &quiet).await.expect("prepare anew");
    let found = find(&*runtime, unit.id).await.expect("found");
    assert_eq!(
        (found.state, found.runs),
        (FoundState::Prepared, 0),
        "nothing of it was kept"
    );
    runtime
        .remove(unit.id, Data::Delete)
        .await
        .expect("remove of a unit that never ran");
}

async fn unknown_units_are_told_apart(subject: &Subject) {
    let runtime = (subject.remake)();
    let id = unit((subject.spec)(&Behaviour::Forever)).id;
    let started = runtime
        .start(id)
        .await
        .expect_err("start of an unknown unit");
    let stopped = runtime.stop(id).await.expect_err("stop of an unknown unit");
    let read = runtime
        .logs(id, LogQuery::default())
        .await
        .err()
        .expect("logs of an unknown unit");
    for error in [started, stopped, read] {
        assert!(
            matches!(error, RuntimeError::NotFound(unknown) if unknown == id),
            "{error}"
        );
    }
    runtime
        .remove(id, Data::Delete)
        .await
        .expect("remove of an unknown unit is fine");
}

async fn logs_are_kept_by_run(subject: &Subject) {
    let runtime = (subject.remake)();
    let behaviour = Behaviour::PrintAndExit(lines(&["one", "two"]));
    let unit = unit((subject.spec)(&behaviour));
    runtime.prepare(&unit, &quiet).await.expect("prepare");
    let latest = LogQuery::default();
    let previous = LogQuery {
        run: Run::Previous,
        ..LogQuery::default()
    };
    let error = runtime
        .logs(unit.id, latest.clone())
        .await
        .err()
        .expect("no run, no log");
    assert!(matches!(error, RuntimeError::NoLog), "{error}");

    runtime.start(unit.id).await.expect("start");
    ended(&*runtime, unit.id).await;
    assert_eq!(texts(&*runtime, unit.id, &latest, 2).await, ["one", "two"]);
    let error = runtime
        .logs(unit.id, previous.clone())
        .await
        .err()
        .expect("only one run so far");
    assert!(matches!(error, RuntimeError::NoLog), "{error}");

    runtime.start(unit.id).await.expect("start again");
    ended(&*runtime, unit.id).await;
    for query in [&latest, &previous] {
        assert_eq!(
            texts(&*runtime, unit.id, query, 2).await,
            ["one", "two"],
            "{query:?}"
        );
    }
    let runs = |query: LogQuery| {
        let runtime = &runtime;
        async move {
            let stream = runtime.logs(unit.id, query).await.expect("logs");
            stream
                .map(|line| line.expect("a line").run)
                .collect::<Vec<_>>()
                .await
        }
    };
    assert_eq!(
        (runs(latest).await, runs(previous).await),
        (vec![2, 2], vec![1, 1])
    );
    runtime.remove(unit.id, Data::Delete).await.expect("remove");
}

async fn logs_answer_tail_and_since(subject: &Subject) {
    let runtime = (subject.remake)();
    let behaviour = Behaviour::Print(lines(&["one", "two", "three"]));
    let unit = begun(subject, &*runtime, &behaviour).await;
    texts(&*runtime, unit.id, &LogQuery::default(), 3).await;
    let tail = LogQuery {
        tail: Some(2),
        ..LogQuery::default()
    };
    assert_eq!(texts(&*runtime, unit.id, &tail, 2).await, ["two", "three"]);
    let none = LogQuery {
        tail: Some(0),
        ..LogQuery::default()
    };
    assert!(texts(&*runtime, unit.id, &none, 0).await.is_empty());

    let stream = runtime
        .logs(unit.id, LogQuery::default())
        .await
        .expect("logs");
    let kept: Vec<LogLine> = stream.map(|line| line.expect("a line")).collect().await;
    let since = LogQuery {
        since: Some(kept[2].at),
        ..LogQuery::default()
    };
    assert!(
        texts(&*runtime, unit.id, &since, 1)
            .await
            .contains(&"three".to_owned())
    );
    let later = kept[2].at.plus(Duration::from_secs(3600));
    let future = LogQuery {
        since: Some(later),
        ..LogQuery::default()
    };
    assert!(texts(&*runtime, unit.id, &future, 0).await.is_empty());
    runtime.remove(unit.id, Data::Delete).await.expect("remove");
}

async fn logs_follow_across_runs_until_the_unit_is_removed(subject: &Subject) {
    let runtime = (subject.remake)();
    let behaviour = Behaviour::PrintAndExit(lines(&["first", "second"]));
    let unit = begun(subject, &*runtime, &behaviour).await;
    ended(&*runtime, unit.id).await;
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let mut stream = runtime.logs(unit.id, query).await.expect("logs");
    let mut next = async |what: &str| {
        let line = tokio::time::timeout(PATIENCE, stream.next()).await;
        line.unwrap_or_else(|_| panic!("{what}"))
            .map(|line| line.expect("a line"))
    };
    for text in ["first", "second"] {
        let line = next("what is kept comes first").await.expect("a line");
        assert_eq!((line.text.as_str(), line.run), (text, 1));
    }
    runtime.start(unit.id).await.expect("start again");
    for text in ["first", "second"] {
        let line = next("the follower sees the next run")
            .await
            .expect("a line");
        assert_eq!((line.text.as_str(), line.run), (text, 2));
    }
    ended(&*runtime, unit.id).await;
    runtime.remove(unit.id, Data::Delete).await.expect("remove");
    assert_eq!(next("the stream ends with the unit").await, None);
}

async fn an_exit_wakes_the_one_who_waits(subject: &Subject) {
    let runtime = (subject.remake)();
    let unit = begun(subject, &*runtime, &Behaviour::Exit(0)).await;
    let waking = async {
        loop {
            let found = find(&*runtime, unit.id).await.expect("found");
            if matches!(found.state, FoundState::Exited { .. }) {
                return;
            }
            runtime.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, waking)
        .await
        .expect("the exit wakes");
    runtime.remove(unit.id, Data::Delete).await.expect("remove");
}

/// For drivers that run commands. The suite's programs serve as commands, too.
async fn commands_run_inside_a_running_unit(subject: &Subject) {
    let runtime = (subject.remake)();
    let Some(inside) = runtime.exec() else { return };
    let command = |behaviour| {
        let spec = (subject.spec)(&behaviour);
        let container = spec.container.map(|it| {
            let entrypoint = it.entrypoint.unwrap_or_default();
            entrypoint.into_iter().chain(it.command).collect()
        });
        let words: Option<Vec<String>> = spec.process.map(|it| it.command).or(container);
        ExecCommand::new(words.expect("commands run in processes and containers"))
    };
    let refused =
        |id| async move { exec::run(inside, id, &ExecCommand::default(), (PATIENCE, 0)).await };
    let waiting = unit((subject.spec)(&Behaviour::Forever));
    let code = refused(waiting.id).await.expect_err("no unit").code();
    assert_eq!(code, "unit-not-found");
    runtime.prepare(&waiting, &quiet).await.expect("prepare");
    let code = refused(waiting.id).await.expect_err("not running").code();
    assert_eq!(code, "unit-not-running");
    runtime.start(waiting.id).await.expect("start");

    let run = |behaviour, limit, most| {
        let command = command(behaviour);
        async move { exec::run(inside, waiting.id, &command, (limit, most)).await }
    };
    let done = run(Behaviour::Exit(7), PATIENCE, 64).await.expect("runs");
    assert_eq!((done.exit, done.output.len()), (Exit::Code(7), 0));
    let print = || Behaviour::PrintAndExit(lines(&["first", "second"]));
    let done = run(print(), PATIENCE, 64).await.expect("runs");
    assert_eq!(done.output, b"first\nsecond\n");
    assert_eq!((done.exit, done.is_cut), (Exit::Code(0), false));
    let cut = run(print(), PATIENCE, 5).await.expect("runs");
    assert_eq!((cut.output, cut.is_cut), (b"first".to_vec(), true));
    let span = Duration::from_millis(300);
    let endless = run(Behaviour::Forever, span, 64).await.expect("begins");
    assert_eq!(endless.exit, Exit::TimedOut);
    input_reaches_a_command(inside, waiting.id, command(Behaviour::Echo)).await;
    a_terminal_has_a_size(inside, waiting.id, command(Behaviour::Sizes)).await;
    let nobody = command(print());
    let nobody = inside.begin(waiting.id, Some("nobody"), &nobody).await;
    let code = nobody.err().expect("there is no such part").code();
    assert_eq!(code, "part-not-found");

    let found = find(&*runtime, waiting.id)
        .await
        .expect("it is still there");
    let is_running = matches!(found.state, FoundState::Running { .. });
    assert!(is_running && found.runs == 1, "commands are no runs");
    runtime
        .remove(waiting.id, Data::Delete)
        .await
        .expect("remove");
}

fn must<T>(answer: Result<T, RuntimeError>, what: &str) -> T {
    answer.unwrap_or_else(|error| panic!("{what}: {error}"))
}

async fn input_reaches_a_command(inside: &dyn Exec, id: UnitId, command: ExecCommand) {
    let without = exec::run(inside, id, &command, (PATIENCE, 64)).await;
    let without = without.expect("runs");
    assert_eq!((without.exit, without.output.len()), (Exit::Code(0), 0));
    let command = ExecCommand {
        input: true,
        ..command
    };
    let mut execution = inside.begin(id, None, &command).await.expect("begins");
    let mut input = execution.input().expect("it has an input");
    assert!(execution.input().is_none(), "there is one input");
    // More than any pipe holds, so that it only comes through beside the output.
    let sent: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
    let writing = async {
        input.write_all(&sent).await.expect("it reads");
        input.shutdown().await.expect("the input ends");
        drop(input);
    };
    let reading = async {
        let mut got = Vec::new();
        while let Some((stream, piece)) = execution.output().await.expect("it writes") {
            assert_eq!(stream, Stream::Stdout);
            got.extend(piece);
        }
        got
    };
    let both = futures::future::join(writing, reading);
    let ((), got) = tokio::time::timeout(PATIENCE, both)
        .await
        .expect("all of it comes through");
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert_eq!(execution.end().await.expect("it ends"), Exit::Code(0));
}

async fn a_terminal_has_a_size(inside: &dyn Exec, id: UnitId, command: ExecCommand) {
    let size = |rows, columns| TerminalSize { rows, columns };
    let command = ExecCommand {
        input: true,
        terminal: Some(size(24, 80)),
        ..command
    };
    let mut execution = inside.begin(id, None, &command).await.expect("begins");
    let mut input = execution.input().expect("it has an input");
    shows(&mut *execution, &mut input, "24 80").await;
    execution.resize(size(40, 132)).await.expect("resizes");
    shows(&mut *execution, &mut input, "40 132").await;
    input.shutdown().await.expect("the input ends");
    drop(input);
    let ended = tokio::time::timeout(PATIENCE, execution.end()).await;
    let exit = ended.expect("it ends").expect("an exit");
    assert!(exit != Exit::Unknown, "how a command ends is known");
}

/// Asks again until the size is shown: a new terminal may need a moment to have it.
async fn shows(execution: &mut dyn Execution, input: &mut Input, size: &str) {
    let mut shown = String::new();
    let reading = async {
        while !shown.lines().any(|line| line.trim() == size) {
            match tokio::time::timeout(GLANCE, execution.output()).await {
                Ok(piece) => {
                    let (stream, piece) = piece.expect("it writes").expect("it goes on");
                    assert_eq!(stream, Stream::Stdout, "a terminal has one output");
                    shown += &String::from_utf8_lossy(&piece);
                }
                Err(_) => input.write_all(b"\n").await.expect("it reads"),
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    read.unwrap_or_else(|_| panic!("never shown: {size}, but {shown}"));
}
