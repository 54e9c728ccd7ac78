//! Rounds of an engine and an agent that die in the middle of their work, on a real engine: each unit has one
//! container afterwards, and none is left when all are removed.

use std::collections::BTreeMap;
use std::time::Duration;

use hostler_runtime::container::ContainerRuntime;
use hostler_runtime::{Data, FoundState, Runtime as _, RuntimeError, Unit, contract};

use crate::container::{OwnEngine, busybox, driver};
use crate::{quiet, until};

const FEW: u64 = 4;

/// How many rounds; a night has more.
#[expect(
    clippy::disallowed_methods,
    reason = "the environment says how long the campaign is"
)]
fn rounds() -> u64 {
    let told = std::env::var("HOSTLER_CONTAINER_ROUNDS").ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(FEW)
}

fn unit() -> Unit {
    let mut spec = busybox("exec sleep 100000");
    spec.container.as_mut().unwrap().network = Some("none".to_owned());
    contract::unit(spec)
}

/// What an agent does with what should run; an engine that is down is met again.
async fn bring_up(driver: &ContainerRuntime, units: &[Unit]) -> Result<(), RuntimeError> {
    for unit in units {
        driver.prepare(unit, &quiet).await?;
        driver.start(unit.id).await?;
    }
    Ok(())
}

/// The containers on the engine, in any state, by the unit in their label.
fn containers(engine: &OwnEngine) -> BTreeMap<String, usize> {
    let format = "{{.Label \"hostler.unit\"}}";
    let listed = engine.docker(&["ps", "-a", "--format", format]);
    let mut counts = BTreeMap::new();
    for unit in String::from_utf8_lossy(&listed.stdout).lines() {
        *counts.entry(unit.to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test]
#[ignore = "needs docker"]
async fn rounds_of_kills_of_engine_and_agent_leave_one_container_of_each_unit_and_no_orphan() {
    let mut engine = OwnEngine::new();
    let dir = tempfile::tempdir().unwrap();
    let agent = |engine: &OwnEngine| driver(engine.address(), dir.path().to_owned(), "test");
    let first = agent(&engine);
    until("the engine answers", async || first.probe().await.available).await;
    engine.import_busybox();
    let units: Vec<Unit> = (0..3).map(|_| unit()).collect();
    let expected: BTreeMap<String, usize> = units.iter().map(|it| (it.id.to_string(), 1)).collect();
    bring_up(&first, &units).await.unwrap();

    for round in 0..rounds() {
        // One is made anew and one started again, so that both are under way when the end comes.
        let before = agent(&engine);
        before.remove(units[0].id, Data::Delete).await.unwrap();
        before.stop(units[1].id).await.unwrap();
        let kept = contract::find(&before, units[2].id).await.unwrap();
        let moment = Duration::from_millis(round * 37 % 300);
        tokio::select! {
            _ = bring_up(&before, &units) => {}
            () = tokio::time::sleep(moment) => {}
        }
        if round % 2 == 0 {
            engine.kill();
            engine.start();
        }
        drop(before);
        let after = agent(&engine);
        until("everything runs", async || {
            bring_up(&after, &units).await.is_ok()
        })
        .await;
        assert_eq!(containers(&engine), expected, "round {round}");
        let found = after.observe().await.unwrap();
        assert_eq!(found.len(), units.len(), "round {round}");
        let is_running = |state: &FoundState| matches!(state, FoundState::Running { .. });
        assert!(
            found.iter().all(|found| is_running(&found.state)),
            "round {round}: {found:?}"
        );
        let left_alone = contract::find(&after, units[2].id).await.unwrap();
        assert_eq!(
            left_alone, kept,
            "round {round}: what nobody touched runs on"
        );
    }
    let last = agent(&engine);
    for unit in &units {
        last.remove(unit.id, Data::Delete).await.unwrap();
    }
    assert!(containers(&engine).is_empty());
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nor is a record left"
    );
}
