//! State × failure for the process driver: who may die, and what is found afterwards.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use hostler_model::spec::{DisconnectPolicy, WorkloadSpec};
use hostler_model::{Exit, UnitId};
use hostler_runtime::{Data, ExecCommand, FoundState, Runtime as _, contract};
use rustix::process::Signal;

use crate::{
    Home, driver_with_shim, example, is_alive, is_running, kill, lines, quiet, shell, started,
    until,
};

/// An agent as a process of its own, killed with `SIGKILL` once its unit runs.
async fn killed_agent(home: &Home, script: &str) -> UnitId {
    killed_agent_with(home, shell(script), None, async |_| {}).await
}

/// The same, with a command in the unit that the agent waits for, if there is one to be.
pub(crate) async fn killed_agent_with(
    home: &Home,
    spec: WorkloadSpec,
    command: Option<&ExecCommand>,
    before: impl AsyncFnOnce(UnitId),
) -> UnitId {
    let unit = contract::unit(spec);
    let orders = serde_json::json!({
        "driver": {"process": {"shim": example("shim")}},
        "dir": home.dir(),
        "run": [{"id": unit.id, "workload": unit.workload, "spec": *unit.spec}],
        "command": command,
    });
    let mut agent = Command::new(example("agent"))
        .arg(orders.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(agent.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    before(unit.id).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(line, "done\n");
    unit.id
}

#[tokio::test]
async fn a_running_unit_survives_the_agent_and_is_adopted() {
    let home = Home::new();
    let script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";
    let id = killed_agent(&home, script).await;
    let driver = home.driver();
    let found = contract::find(&driver, id).await.unwrap();
    assert!(
        matches!(found.state, FoundState::Running { .. }),
        "{found:?}"
    );
    let before = lines(&driver, id, 1).await.len();
    lines(&driver, id, before + 3).await;
    driver.start(id).await.unwrap();
    assert_eq!(
        contract::find(&driver, id).await.unwrap().runs,
        1,
        "it was left alone"
    );
    assert_eq!(driver.stop(id).await.unwrap(), Exit::Signal(15));
}

#[tokio::test]
async fn a_unit_whose_shim_is_another_program_is_found_and_stopped_after_an_upgrade() {
    let home = Home::new();
    let programs = tempfile::tempdir().unwrap();
    let older = programs.path().join("older");
    std::fs::copy(example("shim"), &older).unwrap();
    let before = driver_with_shim(home.dir(), older.clone());
    let script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done";
    let unit = started(&before, shell(script)).await;
    // A signal that came before its trap would end it.
    lines(&before, unit.id, 1).await;
    std::fs::remove_file(&older).unwrap();
    let driver = home.driver();
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert!(
        matches!(found.state, FoundState::Running { .. }),
        "{found:?}"
    );
    assert_eq!(driver.stop(unit.id).await.unwrap(), Exit::Code(5));
    driver.start(unit.id).await.unwrap();
    assert_eq!(contract::find(&driver, unit.id).await.unwrap().runs, 2);
}

#[tokio::test]
async fn an_end_that_no_agent_saw_is_on_record() {
    let home = Home::new();
    let id = killed_agent(&home, "while [ ! -e go ]; do sleep 0.05; done; exit 9").await;
    std::fs::write(home.unit_dir(id).join("work/go"), "").unwrap();
    let shim = home.shim_pid(id, 1);
    until("the shim ended", async || !is_alive(shim)).await;
    let found = contract::find(&home.driver(), id).await.unwrap();
    assert!(
        matches!(
            found.state,
            FoundState::Exited {
                exit: Exit::Code(9),
                ..
            }
        ),
        "{found:?}"
    );
}

#[tokio::test]
async fn an_adopted_units_end_wakes_the_new_agent() {
    let home = Home::new();
    let id = killed_agent(&home, "while [ ! -e go ]; do sleep 0.05; done").await;
    let driver = home.driver();
    assert!(is_running(&driver, id).await);
    std::fs::write(home.unit_dir(id).join("work/go"), "").unwrap();
    let waking = async {
        while is_running(&driver, id).await {
            driver.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waking)
        .await
        .expect("the end wakes");
}

#[tokio::test]
async fn a_killed_shim_takes_its_unit_along_and_the_exit_is_unknown() {
    let home = Home::new();
    let driver = home.driver();
    let script = "setsid sleep 1000 & echo $!; echo $$; exec sleep 1000";
    let unit = started(&driver, shell(script)).await;
    let pids: Vec<i32> = lines(&driver, unit.id, 2)
        .await
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    kill(home.shim_pid(unit.id, 1), Signal::KILL);
    tokio::time::timeout(Duration::from_secs(60), driver.changed())
        .await
        .expect("it wakes");
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Unknown);
    for pid in pids {
        assert!(!is_alive(pid), "process {pid} was left behind");
    }
    driver.start(unit.id).await.unwrap();
    assert_eq!(contract::find(&driver, unit.id).await.unwrap().runs, 2);
}

#[tokio::test]
async fn a_shim_does_not_end_by_the_signals_of_a_terminal_or_a_service_manager() {
    let home = Home::new();
    let driver = home.driver();
    let unit = started(&driver, shell("exec sleep 1000")).await;
    let shim = home.shim_pid(unit.id, 1);
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
        kill(shim, signal);
    }
    assert_eq!(
        driver.stop(unit.id).await.unwrap(),
        Exit::Signal(15),
        "it still obeys"
    );
}

#[tokio::test]
async fn a_shim_that_does_not_answer_is_killed_with_its_unit() {
    let home = Home::new();
    let driver = home.driver();
    let mut spec = shell("echo $$; exec sleep 1000");
    spec.stop.grace_ms = 100;
    let unit = started(&driver, spec).await;
    let pid = lines(&driver, unit.id, 1).await[0].parse().unwrap();
    kill(home.shim_pid(unit.id, 1), Signal::STOP);
    driver.stop(unit.id).await.unwrap();
    assert!(!is_alive(pid));
}

/// Writes a run of an earlier boot, or of an earlier process of the same number, over the unit.
fn forge_run(home: &Home, id: UnitId, boot_id: &str, pid: u32, ticks: u64) {
    let runs = home.unit_dir(id).join("runs");
    let name = serde_json::json!({"pid": pid, "ticks": ticks});
    let start = serde_json::json!({"at": 1, "boot_id": boot_id, "shim": name});
    std::fs::write(runs.join("1.start"), start.to_string()).unwrap();
    std::fs::write(runs.join("1.child"), name.to_string()).unwrap();
}

#[tokio::test]
async fn after_a_reboot_runs_are_over_and_no_stranger_is_harmed() {
    let home = Home::new();
    let driver = home.driver();
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let this_boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for boot_id in ["an earlier boot", this_boot.trim()] {
        let unit = contract::unit(shell("exec sleep 1000"));
        driver.prepare(&unit, &quiet).await.unwrap();
        forge_run(&home, unit.id, boot_id, stranger.id(), 1);
        assert_eq!(contract::ended(&driver, unit.id).await, Exit::Unknown);
        assert_eq!(contract::find(&driver, unit.id).await.unwrap().runs, 1);
    }
    assert!(
        stranger.try_wait().unwrap().is_none(),
        "a process of the same number was harmed"
    );
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_singleton_stops_by_itself_when_nobody_extends_its_span() {
    let home = Home::new();
    let mut spec = shell("exec sleep 1000");
    spec.disconnect.policy = DisconnectPolicy::Singleton;
    // Long enough for the extension of the first, which begins its span before the other does.
    spec.disconnect.stop_after_ms = 5000;
    let driver = home.driver();
    let kept = started(&driver, spec.clone()).await;
    let fencing = driver.fencing().unwrap();
    fencing
        .extend(kept.id, Duration::from_secs(3600))
        .await
        .unwrap();
    let left = started(&driver, spec).await;
    let shim = home.shim_pid(left.id, 1);
    drop(driver);
    until("the shim stopped it without any agent", async || {
        !is_alive(shim)
    })
    .await;
    let driver = home.driver();
    assert_eq!(contract::ended(&driver, left.id).await, Exit::Signal(15));
    assert!(
        is_running(&driver, kept.id).await,
        "the extended one goes on"
    );
}

#[tokio::test]
async fn a_unit_that_cannot_be_read_does_not_hide_the_others() {
    let home = Home::new();
    let driver = home.driver();
    let good = started(&driver, shell("exec sleep 1000")).await;
    let bad = contract::unit(shell("true"));
    driver.prepare(&bad, &quiet).await.unwrap();
    std::fs::write(home.unit_dir(bad.id).join("unit.json"), "{ torn").unwrap();
    let found = driver.observe().await.unwrap();
    assert_eq!(
        found.iter().map(|unit| unit.id).collect::<Vec<_>>(),
        [good.id]
    );
    driver.prepare(&bad, &quiet).await.unwrap();
    assert_eq!(
        driver.observe().await.unwrap().len(),
        2,
        "it is prepared again"
    );
    std::fs::write(home.unit_dir(good.id).join("unit.json"), "{ torn").unwrap();
    let shim = home.shim_pid(good.id, 1);
    driver.remove(good.id, Data::Delete).await.unwrap();
    assert!(!is_alive(shim) && !home.unit_dir(good.id).exists());
}

#[tokio::test]
async fn a_stop_goes_on_without_the_agent_that_asked_for_it() {
    let home = Home::new();
    let driver = home.driver();
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done";
    let mut spec = shell(script);
    spec.stop.grace_ms = 5000;
    let unit = started(&driver, spec).await;
    lines(&driver, unit.id, 1).await;
    let shim = home.shim_pid(unit.id, 1);
    let is_asked = async || {
        let said = lines(&driver, unit.id, 1).await;
        said.iter().any(|line| line == "asked")
    };
    tokio::select! {
        stopped = driver.stop(unit.id) => panic!("it ended: {stopped:?}"),
        () = until("it is asked to stop", is_asked) => {}
    }
    // The agent went away in the middle of the stop.
    drop(driver);
    until("the shim stopped it alone", async || !is_alive(shim)).await;
    let found = contract::find(&home.driver(), unit.id).await.unwrap();
    assert!(
        matches!(
            found.state,
            FoundState::Exited {
                exit: Exit::Signal(9),
                ..
            }
        ),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_start_that_is_given_up_half_way_makes_no_second_run() {
    let home = Home::new();
    let driver = home.driver();
    for micros in [0, 200, 1000, 2000, 4000, 8000] {
        let unit = contract::unit(shell("exec sleep 1000"));
        driver.prepare(&unit, &quiet).await.unwrap();
        let most = Duration::from_micros(micros);
        let _ = tokio::time::timeout(most, driver.start(unit.id)).await;
        home.driver().start(unit.id).await.unwrap();
        let found = contract::find(&driver, unit.id).await.unwrap();
        assert!(
            matches!(found.state, FoundState::Running { .. }),
            "{found:?}"
        );
        assert_eq!(found.runs, 1, "given up after {micros} µs");
    }
}

#[tokio::test]
async fn a_shim_whose_agent_died_before_it_gave_the_number_leaves_no_trace() {
    let home = Home::new();
    let driver = home.driver();
    let unit = contract::unit(shell("exec sleep 1000"));
    driver.prepare(&unit, &quiet).await.unwrap();
    let shim = Command::new(example("shim"))
        .arg(home.unit_dir(unit.id))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(!shim.success());
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert_eq!((found.state, found.runs), (FoundState::Prepared, 0));
}

#[tokio::test]
async fn a_shim_that_dies_while_it_starts_is_an_error_and_the_start_can_be_tried_again() {
    let home = Home::new();
    let unit = contract::unit(shell("exec sleep 1000"));
    let broken = driver_with_shim(home.dir(), "/bin/true".into());
    broken.prepare(&unit, &quiet).await.unwrap();
    let error = broken.start(unit.id).await.unwrap_err();
    assert_eq!(error.code(), "node-io", "{error}");
    let driver = home.driver();
    assert_eq!(
        contract::find(&driver, unit.id).await.unwrap().state,
        FoundState::Prepared
    );
    driver.start(unit.id).await.unwrap();
    assert!(is_running(&driver, unit.id).await);
}

#[tokio::test]
async fn an_exit_before_a_reboot_stays_as_it_was() {
    let home = Home::new();
    let driver = home.driver();
    let unit = started(&driver, shell("exit 3")).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(3));
    forge_run(&home, unit.id, "an earlier boot", 1, 1);
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert!(
        matches!(
            found.state,
            FoundState::Exited {
                exit: Exit::Code(3),
                ..
            }
        ),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_start_whose_record_a_power_cut_tore_still_counts_as_a_run() {
    let home = Home::new();
    let driver = home.driver();
    let unit = contract::unit(shell("exec sleep 1000"));
    driver.prepare(&unit, &quiet).await.unwrap();
    std::fs::write(home.unit_dir(unit.id).join("runs/1.start"), "").unwrap();
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Unknown);
    assert_eq!(contract::find(&driver, unit.id).await.unwrap().runs, 1);
}
