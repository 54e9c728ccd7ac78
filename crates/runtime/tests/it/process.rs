//! What the process driver does for a unit: environment, output, errors, the end of everything it started.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hostler_model::Exit;
use hostler_runtime::contract::{self, Behaviour};
use hostler_runtime::{LogQuery, Runtime as _, Stream};

use crate::rounds::marked;
use crate::{Home, driver, is_alive, is_running, lines, quiet, shell, started, until};

#[tokio::test]
async fn the_process_driver_keeps_the_contract() {
    let home = Home::new();
    let dir = home.dir();
    contract::run(&contract::Subject {
        remake: Box::new(move || Arc::new(driver(dir.clone()))),
        spec: Box::new(|behaviour: &Behaviour| shell(&contract::script(behaviour))),
    })
    .await;
}

#[tokio::test]
async fn a_process_sees_its_own_environment_and_nothing_of_the_agents() {
    let home = Home::new();
    let driver = home.driver();
    let mut spec = shell("env | sort; pwd");
    spec.env
        .insert("GREETING".to_owned(), "two words".to_owned());
    let unit = started(&driver, spec).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(0));
    let seen = lines(&driver, unit.id, 1).await;
    let names: Vec<&str> = seen
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    let expected = [
        "GREETING",
        "HOME",
        "HOSTLER_ASSIGNMENT",
        "HOSTLER_GENERATION",
        "HOSTLER_SLOT",
        "HOSTLER_UNIT",
        "HOSTLER_WORKLOAD",
        "PATH",
        "PWD",
    ];
    assert_eq!(names, expected);
    assert!(seen.contains(&"GREETING=two words".to_owned()));
    let work = home.unit_dir(unit.id).join("work");
    assert_eq!(seen.last().unwrap(), work.to_str().unwrap());
}

#[tokio::test]
async fn a_program_without_a_slash_is_looked_up_in_the_copys_own_path() {
    let home = Home::new();
    let driver = home.driver();
    let tools = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/echo", tools.path().join("say")).unwrap();
    let mut spec = shell("");
    spec.process.as_mut().unwrap().command = ["say", "hello"].map(str::to_owned).to_vec();
    spec.env
        .insert("PATH".to_owned(), tools.path().to_str().unwrap().to_owned());
    let unit = started(&driver, spec).await;
    assert_eq!(lines(&driver, unit.id, 1).await, ["hello"]);
}

#[tokio::test]
async fn the_unit_ends_with_its_main_process_and_leaves_nothing_behind() {
    let home = Home::new();
    let driver = home.driver();
    // One child stays in the group, one leaves group and session and forgets its parent.
    let script = "sleep 1000 & echo $!; setsid sh -c 'echo $$; touch up; exec sleep 1000' & \
                  while [ ! -e up ]; do sleep 0.05; done; exit 3";
    let unit = started(&driver, shell(script)).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(3));
    let pids: Vec<i32> = lines(&driver, unit.id, 2)
        .await
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    for pid in pids {
        assert!(!is_alive(pid), "process {pid} outlived its unit");
    }
}

#[tokio::test]
async fn a_death_by_signal_is_told_apart_from_an_exit() {
    let home = Home::new();
    let driver = home.driver();
    let unit = started(&driver, shell("kill -SEGV $$")).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Signal(11));
}

#[tokio::test]
async fn a_burst_of_lines_is_kept_whole_and_in_order_on_both_streams() {
    const COUNT: usize = 100_000;
    let home = Home::new();
    let driver = home.driver();
    let script = format!("echo oops >&2; seq 1 {COUNT}");
    let unit = started(&driver, shell(&script)).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(0));
    let stream = driver.logs(unit.id, LogQuery::default()).await.unwrap();
    let kept: Vec<_> = stream.map(Result::unwrap).collect().await;
    let (stderr, stdout): (Vec<_>, Vec<_>) = kept
        .into_iter()
        .partition(|line| line.stream == Stream::Stderr);
    assert_eq!(stderr.len(), 1);
    assert_eq!(stdout.len(), COUNT);
    for (index, line) in stdout.iter().enumerate() {
        assert_eq!(line.text, (index + 1).to_string());
    }
}

#[tokio::test]
async fn a_follower_that_reads_nothing_holds_up_nobody_and_loses_no_line_that_is_kept() {
    const COUNT: usize = 200_000;
    let home = Home::new();
    let driver = home.driver();
    let script = format!("seq 1 {COUNT}");
    let unit = started(&driver, shell(&script)).await;
    let follow = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let mut stalled = driver.logs(unit.id, follow).await.unwrap();
    let first = stalled.next().await.unwrap().unwrap();
    assert_eq!(first.text, "1");
    // Not read again until the process has long ended: it is not waited for.
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(0));
    let mut expected = 2;
    while expected <= COUNT {
        let line = stalled.next().await.unwrap().unwrap();
        assert_eq!(line.text, expected.to_string());
        expected += 1;
    }
}

#[tokio::test]
async fn two_starts_at_once_make_one_run() {
    let home = Home::new();
    let driver = home.driver();
    let unit = contract::unit(shell("exec sleep 1000"));
    driver.prepare(&unit, &quiet).await.unwrap();
    let (first, second) = tokio::join!(driver.start(unit.id), driver.start(unit.id));
    first.unwrap();
    second.unwrap();
    assert_eq!(contract::find(&driver, unit.id).await.unwrap().runs, 1);
}

#[tokio::test]
async fn half_prepared_and_half_removed_units_are_no_units() {
    let home = Home::new();
    let driver = home.driver();
    let unit = contract::unit(shell("exec sleep 1000"));
    std::fs::create_dir_all(home.unit_dir(unit.id).join("work")).unwrap();
    let removed = home.dir().join(format!(".removed-{}", unit.id));
    std::fs::create_dir_all(removed.join("runs")).unwrap();
    assert!(driver.observe().await.unwrap().is_empty());
    assert!(!removed.exists(), "what was half removed is removed");
    driver.prepare(&unit, &quiet).await.unwrap();
    driver.start(unit.id).await.unwrap();
    assert!(is_running(&driver, unit.id).await);
}

#[tokio::test]
async fn a_running_unit_is_measured() {
    let home = Home::new();
    let driver = home.driver();
    let unit = started(&driver, shell("while :; do :; done")).await;
    let stats = driver.stats().unwrap();
    until("it used processor time", async || {
        let used = stats.measure(unit.id).await.unwrap();
        used.cpu_nanos > 0 && used.memory > 0 && used.pids > 0
    })
    .await;
}

#[tokio::test]
async fn a_command_has_the_units_environment_and_directory_and_dies_when_nobody_waits() {
    let home = Home::new();
    let driver = home.driver();
    let mut spec = shell("exec sleep 600");
    spec.env.insert("COLOUR".to_owned(), "green".to_owned());
    let unit = started(&driver, spec).await;
    let run = async |words: &[&str], limit: u64| {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        let command = hostler_runtime::ExecCommand::new(words);
        let bounds = (Duration::from_millis(limit), 4096);
        let done = hostler_runtime::exec::run(driver.exec().unwrap(), unit.id, &command, bounds);
        done.await.unwrap()
    };
    let script = "echo $COLOUR; pwd; echo $HOSTLER_UNIT; echo $HOSTLER_SHIM_COMMAND";
    let done = run(&["sh", "-c", script], 60_000).await;
    let work = home.unit_dir(unit.id).join("work");
    let expected = format!("green\n{}\n{}\n\n", work.display(), unit.id);
    assert_eq!(String::from_utf8(done.output).unwrap(), expected);

    let missing = run(&["no-such-program"], 60_000).await;
    assert_eq!(missing.exit, Exit::Code(127));
    let said = String::from_utf8(missing.output).unwrap();
    assert!(said.contains("no-such-program"), "{said}");

    let endless = run(&["sh", "-c", "sleep 600 & sleep 600"], 300).await;
    assert_eq!(endless.exit, Exit::TimedOut);
    until("the group of the command is killed", async || {
        marked(unit.id).len() == 1
    })
    .await;
}
