//! State × failure for the compose driver: who may die, and what is found afterwards.

use std::path::{Path, PathBuf};

use hostler_kit::{Clock as _, SystemClock};
use hostler_model::{Exit, UnitId};
use hostler_runtime::compose::Programs;
use hostler_runtime::{Data, FoundState, LogQuery, Runtime as _, RuntimeError, contract};

use crate::compose::{
    IDLE, Yard, docker, driver, old_program, parts, patient, prepared, service, services, started,
};
use crate::container::OwnEngine;
use crate::{PATIENCE, is_alive, is_running, quiet, until};

/// A compose program that does the script's bidding with its words, which are in `$@`.
fn program(dir: &Path, script: &str) -> Programs {
    let path = dir.join("compose");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    Programs {
        docker: "/no/such/docker".into(),
        docker_compose: path,
        ..Programs::default()
    }
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_project_outlives_its_agent_and_is_adopted() {
    let yard = Yard::new();
    let unit = started(
        &yard.driver(),
        services(&[service("db", IDLE, ""), service("web", IDLE, "")]),
    )
    .await;
    let driver = yard.driver();
    driver.start(unit.id).await.unwrap();
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert!(
        matches!(found.state, FoundState::Running { .. }),
        "{found:?}"
    );
    assert_eq!((found.runs, found.workload), (1, unit.workload));
    docker(&["kill", &yard.containers(Some("db"))[0]]);
    let ended = async {
        while is_running(&driver, unit.id).await {
            driver.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("the end wakes");
}

#[tokio::test]
#[ignore = "needs compose"]
async fn lost_records_of_the_driver_lose_no_project() {
    let yard = Yard::new();
    let web = format!("echo hello; {IDLE}");
    let spec = services(&[service("db", IDLE, ""), service("web", &web, "")]);
    let unit = started(&yard.driver(), patient(spec)).await;
    for entry in std::fs::read_dir(yard.dir.path()).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    let driver = yard.driver();
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert_eq!((found.runs, found.workload), (1, unit.workload));
    assert!(
        matches!(found.state, FoundState::Running { .. }),
        "{found:?}"
    );
    let said = contract::texts(&driver, unit.id, &LogQuery::default(), 1).await;
    assert_eq!(said, ["web | hello"]);
    assert_eq!(driver.stop(unit.id).await.unwrap(), Exit::Code(0));
    driver.start(unit.id).await.unwrap();
    assert_eq!(
        parts(&driver, unit.id).await,
        ["db: running", "web: running"]
    );
    driver.remove(unit.id, Data::Delete).await.unwrap();
    assert_eq!(yard.containers(None), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_preparation_that_is_dropped_leaves_nothing_that_remove_does_not_find() {
    let tools = tempfile::tempdir().unwrap();
    let script =
        "case \"$*\" in *version*) echo 1.29.2;; *) sleep 1000 & echo $! > \"$0.pid\"; wait;; esac";
    let yard = Yard::with(program(tools.path(), script));
    let driver = yard.driver();
    let unit = contract::unit(services(&[service("web", IDLE, "")]));
    let pid = tools.path().join("compose.pid");
    let pid = || {
        std::fs::read_to_string(&pid)
            .unwrap_or_default()
            .trim()
            .parse::<i32>()
    };
    tokio::select! {
        _ = driver.prepare(&unit, &quiet) => panic!("it ended"),
        () = until("the program runs", async || pid().is_ok()) => {}
    }
    assert_ne!(yard.left(), Vec::<PathBuf>::new());
    assert!(driver.observe().await.unwrap().is_empty(), "it is no unit");
    driver.remove(unit.id, Data::Keep).await.unwrap();
    assert_eq!(yard.left(), Vec::<PathBuf>::new());
    let pid = pid().unwrap();
    until("the program's own children are gone too", async || {
        !is_alive(pid)
    })
    .await;
}

#[tokio::test]
#[ignore = "needs compose"]
async fn what_a_dead_agent_half_prepared_is_no_unit_and_is_swept_away() {
    let yard = Yard::new();
    let unit = prepared(&yard.driver(), services(&[service("web", IDLE, "")])).await;
    let dir = yard.dir.path().join(unit.id.assignment.to_string());
    let record = dir.join("1/unit.json");
    std::fs::write(&record, "{ torn").unwrap();
    let whole = prepared(&yard.driver(), services(&[service("web", IDLE, "")])).await;
    let driver = yard.driver();
    let found = driver.observe().await.unwrap();
    assert_eq!(found.iter().map(|it| it.id).collect::<Vec<_>>(), [whole.id]);
    assert!(!dir.exists(), "nothing of it is left");
    driver.prepare(&unit, &quiet).await.unwrap();
    assert_eq!(
        driver.observe().await.unwrap().len(),
        2,
        "it is prepared again"
    );
    driver.remove(unit.id, Data::Keep).await.unwrap();
    driver.remove(whole.id, Data::Keep).await.unwrap();
    assert_eq!(yard.left(), Vec::<PathBuf>::new());
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_start_that_broke_off_half_way_is_completed_by_the_next_agent() {
    let tools = tempfile::tempdir().unwrap();
    let half = "case \"$*\" in *\" up \"*) docker-compose \"$@\" db; touch \"$0.half\"; sleep 1000;; \
                *) exec docker-compose \"$@\";; esac";
    let mut yard = Yard::with(program(tools.path(), half));
    let dying = yard.driver();
    let unit = prepared(
        &dying,
        services(&[service("db", IDLE, ""), service("web", IDLE, "")]),
    )
    .await;
    let half_way = tools.path().join("compose.half");
    tokio::select! {
        _ = dying.start(unit.id) => panic!("it ended"),
        () = until("one service runs", async || half_way.exists()) => {}
    }
    drop(dying);
    yard.programs = old_program();
    let driver = yard.driver();
    assert_eq!(
        parts(&driver, unit.id).await,
        ["db: running", "web: waiting"]
    );
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Unknown);
    let db = yard.containers(Some("db"));
    driver.start(unit.id).await.unwrap();
    assert_eq!(
        parts(&driver, unit.id).await,
        ["db: running", "web: running"]
    );
    assert_eq!(yard.containers(Some("db")), db, "what ran was left alone");
}

#[tokio::test]
#[ignore = "needs compose"]
async fn after_a_reboot_what_the_engine_did_not_see_end_has_an_unknown_exit() {
    let yard = Yard::new();
    let driver = yard.driver();
    let unit = started(&driver, services(&[service("web", "exit 255", "")])).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(255));
    let record = yard
        .dir
        .path()
        .join("starts")
        .join(format!("{}.json", unit.id));
    let text = std::fs::read_to_string(&record).unwrap();
    let this_boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&record, text.replace(this_boot.trim(), "an earlier boot")).unwrap();
    let driver = yard.driver();
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Unknown);
    driver.start(unit.id).await.unwrap();
    assert_eq!(contract::find(&driver, unit.id).await.unwrap().runs, 2);
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_down_and_no_empty_list_of_projects() {
    let tools = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let nowhere = tools.path().join("no.sock").display().to_string();
    let programs = program(tools.path(), "echo 1.29.2");
    let driver = driver(&nowhere, dir.path().to_owned(), "test".to_owned(), programs);
    let unit = UnitId {
        generation: 1,
        assignment: hostler_model::AssignmentId::mint(
            hostler_model::Timestamp::from_millis(SystemClock::new().wall_millis()),
            1,
        ),
    };
    for error in [
        driver.observe().await.unwrap_err(),
        driver.start(unit).await.unwrap_err(),
        driver.remove(unit, Data::Delete).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), "engine-down", "{error}");
    }
    let fact = driver.probe().await;
    assert!(
        !fact.available && fact.note.contains("out of reach"),
        "{fact:?}"
    );
}

#[tokio::test]
#[ignore = "needs compose"]
async fn an_engine_that_dies_is_down_and_its_projects_are_adopted_when_it_is_back() {
    let mut engine = OwnEngine::new();
    let dir = tempfile::tempdir().unwrap();
    let programs = old_program();
    let driver = driver(
        &engine.address(),
        dir.path().to_owned(),
        "test".to_owned(),
        programs,
    );
    until("the engine answers", async || {
        driver.probe().await.available
    })
    .await;
    engine.import_busybox();
    let unit = started(
        &driver,
        services(&[service("a", IDLE, ""), service("b", IDLE, "")]),
    )
    .await;
    assert!(is_running(&driver, unit.id).await);

    engine.kill();
    until("the engine is seen to be down", async || {
        matches!(driver.observe().await, Err(RuntimeError::EngineDown { .. }))
    })
    .await;
    let stopped = driver.stop(unit.id).await;
    assert!(
        matches!(stopped, Err(RuntimeError::EngineDown { .. })),
        "{stopped:?}"
    );
    engine.start();
    let waking = async {
        while driver.observe().await.is_err() {
            driver.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, waking)
        .await
        .expect("its return wakes");
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert!(
        matches!(found.state, FoundState::Running { .. }),
        "{found:?}"
    );
    assert_eq!(found.runs, 1);
    driver.remove(unit.id, Data::Delete).await.unwrap();
    assert!(driver.observe().await.unwrap().is_empty());
}
