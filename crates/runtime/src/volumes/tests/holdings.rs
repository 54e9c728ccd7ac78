//! What holds whatever the storage driver: who gets a volume, what is left of what failed, what an agent that died
//! half-way finds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hostler_kit::{Clock, SystemClock, Tasks};
use hostler_model::spec::{Kind, WorkloadSpec};
use hostler_model::{Exit, UnitId};

use super::super::{Holdings, Storage, WithVolumes};
use super::fake::Fake;
use crate::contract::{self, Subject};
use crate::fake::{FakeMachine, FakeRuntime, Fault};
use crate::{Data, Discarded, FoundState, LeftoverKind, Runtime, RuntimeError, Unit};

/// A machine with a runtime driver and storage, which outlive the agent.
struct Node {
    home: tempfile::TempDir,
    machine: Arc<FakeMachine>,
    local: Arc<Fake>,
    nfs: Arc<Fake>,
    name: &'static str,
}

impl Node {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            machine: FakeMachine::new(clock()),
            local: Arc::new(Fake::new()),
            nfs: Arc::new(Fake::new()),
            name: "one",
        }
    }

    /// Another node with the same server.
    fn second(&self) -> Self {
        Self {
            nfs: Arc::clone(&self.nfs),
            name: "two",
            ..Self::new()
        }
    }

    fn holdings(&self) -> Arc<Holdings> {
        let drivers: BTreeMap<&'static str, Arc<dyn Storage>> = [
            ("local", Arc::clone(&self.local) as Arc<dyn Storage>),
            ("nfs", Arc::clone(&self.nfs) as Arc<dyn Storage>),
        ]
        .into();
        let dir = self.home.path().join("volumes");
        let place = (dir, self.name.to_owned());
        Arc::new(Holdings::with(place, drivers, clock()))
    }

    /// A driver, as each life of an agent makes one.
    fn driver(&self) -> WithVolumes {
        let runtime = FakeRuntime::new(Arc::clone(&self.machine), Kind::Process);
        WithVolumes::over(Arc::new(runtime), self.holdings(), Tasks::new())
    }

    fn records(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.home.path().join("volumes/units"));
        let entries = entries.into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn assert_is_bare(&self) {
        assert!(self.records().is_empty(), "{:?}", self.records());
        for storage in [&self.local, &self.nfs] {
            assert!(storage.volumes().is_empty(), "{:?}", storage.volumes());
            assert!(storage.attached().is_empty(), "{:?}", storage.attached());
        }
        let known = std::fs::read_dir(self.home.path().join("volumes/known"));
        assert_eq!(known.into_iter().flatten().count(), 0, "owners");
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn quiet(_: String) {}

/// A unit whose volumes are written as in a spec, one a line.
fn unit(volumes: &[&str]) -> Unit {
    contract::unit(spec(volumes))
}

fn spec(volumes: &[&str]) -> WorkloadSpec {
    let mut spec = WorkloadSpec::of_process("db", vec!["forever".to_owned()]);
    let volumes = volumes
        .iter()
        .map(|text| serde_json::from_str(text).unwrap());
    spec.process.as_mut().unwrap().volumes = volumes.collect();
    spec
}

const DATA: &str = r#"{"name":"data","target":"/data"}"#;
const KEPT: &str = r#"{"name":"kept","target":"/kept","retain":true}"#;
const SHARED: &str =
    r#"{"name":"pool","target":"/p","driver":"nfs","access_mode":"ReadWriteMany"}"#;

const SHARED_HERE: &str = r#"{"name":"pool","target":"/p","access_mode":"ReadWriteMany"}"#;
const ELSEWHERE: &str = r#"{"name":"data","target":"/d","driver":"nfs"}"#;

fn next_generation(unit: &Unit) -> Unit {
    Unit {
        id: UnitId {
            generation: unit.id.generation + 1,
            ..unit.id
        },
        ..unit.clone()
    }
}

async fn in_use(driver: &WithVolumes, unit: &Unit) {
    let error = driver.prepare(unit, &quiet).await.unwrap_err();
    assert_eq!(error.code(), "volume-in-use", "{error}");
}

#[tokio::test]
async fn a_runtime_with_volumes_keeps_the_promises_of_a_runtime() {
    let node = Node::new();
    let parts = (Arc::clone(&node.machine), node.holdings());
    let number = AtomicU32::new(0);
    let subject = Subject {
        remake: Box::new(move || {
            let runtime = FakeRuntime::new(Arc::clone(&parts.0), Kind::Process);
            let holdings = Arc::clone(&parts.1);
            Arc::new(WithVolumes::over(Arc::new(runtime), holdings, Tasks::new()))
        }),
        spec: Box::new(move |behaviour| {
            let mut spec = contract::fake_spec(behaviour);
            let name = format!("data-{}", number.fetch_add(1, Ordering::Relaxed));
            let volume = format!(r#"{{"name":"{name}","target":"/data"}}"#);
            let volume = serde_json::from_str(&volume).unwrap();
            spec.process.as_mut().unwrap().volumes.push(volume);
            spec
        }),
    };
    contract::run(&subject).await;
}

#[tokio::test]
async fn data_outlives_updates_and_goes_with_the_copy_unless_it_is_retained() {
    let node = Node::new();
    let driver = node.driver();
    let first = unit(&[DATA, KEPT]);
    driver.prepare(&first, &quiet).await.unwrap();
    driver.start(first.id).await.unwrap();
    assert_eq!(node.local.attached(), ["data", "kept"]);
    driver.remove(first.id, Data::Keep).await.unwrap();
    assert!(node.local.attached().is_empty());
    assert_eq!(node.local.volumes(), ["data", "kept"]);

    let second = next_generation(&first);
    driver.prepare(&second, &quiet).await.unwrap();
    driver.remove(second.id, Data::Delete).await.unwrap();
    assert_eq!(node.local.volumes(), ["kept"]);
    assert!(node.records().is_empty());

    // What was retained is for whoever names it next.
    let other = unit(&[KEPT]);
    driver.prepare(&other, &quiet).await.unwrap();
}

#[tokio::test]
async fn what_one_workload_wants_to_stay_is_not_deleted_by_another_that_shares_it() {
    let node = Node::new();
    let driver = node.driver();
    let kept = r#"{"name":"pool","target":"/p","access_mode":"ReadWriteMany","retain":true}"#;
    let (one, two) = (unit(&[kept]), unit(&[SHARED_HERE]));
    driver.prepare(&one, &quiet).await.unwrap();
    driver.prepare(&two, &quiet).await.unwrap();
    driver.remove(one.id, Data::Delete).await.unwrap();
    driver.remove(two.id, Data::Delete).await.unwrap();
    assert_eq!(node.local.volumes(), ["pool"]);
    assert!(node.records().is_empty());
}

#[tokio::test]
async fn a_newer_generation_waits_until_the_older_has_let_go() {
    let node = Node::new();
    let driver = node.driver();
    let old = unit(&[DATA]);
    driver.prepare(&old, &quiet).await.unwrap();
    driver.start(old.id).await.unwrap();
    let new = next_generation(&old);
    in_use(&driver, &new).await;
    // Another agent knows it too.
    in_use(&node.driver(), &new).await;
    assert_eq!(node.local.attached(), ["data"], "the old one still has it");
    driver.remove(old.id, Data::Keep).await.unwrap();
    driver.prepare(&new, &quiet).await.unwrap();
}

#[tokio::test]
async fn another_workload_never_gets_what_a_copy_has_written() {
    let node = Node::new();
    let driver = node.driver();
    let ours = unit(&[DATA]);
    driver.prepare(&ours, &quiet).await.unwrap();
    driver.remove(ours.id, Data::Keep).await.unwrap();
    let stranger = unit(&[DATA]);
    in_use(&driver, &stranger).await;
    let greedy = unit(&[r#"{"name":"data","target":"/d","access_mode":"RWX"}"#]);
    in_use(&driver, &greedy).await;
    assert_eq!(node.local.volumes(), ["data"]);
    // Copies of one workload have a volume each.
    let second = Unit {
        slot: 1,
        ..contract::unit(spec(&[DATA]))
    };
    driver.prepare(&second, &quiet).await.unwrap();
    assert_eq!(node.local.volumes(), ["data", "data-1"]);
}

#[tokio::test]
async fn a_shared_volume_goes_with_the_last_that_has_it() {
    let node = Node::new();
    let driver = node.driver();
    let (one, two) = (unit(&[SHARED_HERE]), unit(&[SHARED_HERE]));
    for unit in [&one, &two] {
        driver.prepare(unit, &quiet).await.unwrap();
    }
    driver.remove(one.id, Data::Delete).await.unwrap();
    assert_eq!(node.local.attached(), ["pool"]);
    driver.remove(two.id, Data::Delete).await.unwrap();
    node.assert_is_bare();
}

#[tokio::test]
async fn data_elsewhere_moves_with_its_copy_and_goes_with_it_and_nobody_else_gets_it() {
    let one = Node::new();
    let two = one.second();
    let (here, there) = (one.driver(), two.driver());
    let copy = unit(&[ELSEWHERE]);
    here.prepare(&copy, &quiet).await.unwrap();
    in_use(&there, &unit(&[ELSEWHERE])).await;
    here.remove(copy.id, Data::Keep).await.unwrap();
    assert_eq!(one.nfs.volumes(), ["data"], "the next node needs it");
    in_use(&there, &unit(&[ELSEWHERE])).await;
    in_use(&here, &unit(&[ELSEWHERE])).await;

    let moved = next_generation(&copy);
    there.prepare(&moved, &quiet).await.unwrap();
    there.start(moved.id).await.unwrap();
    // The first node's round finds that the workload is gone before the second has let go.
    let kind = LeftoverKind::SharedVolume {
        workload: copy.workload,
    };
    let leftovers = here.leftovers().unwrap();
    let told = leftovers.leftovers().await.unwrap();
    assert!(told.iter().any(|it| it.kind == kind), "{told:?}");
    let gone = leftovers.discard(kind, "nfs.data").await.unwrap();
    assert_eq!(gone, Discarded::Gone);
    assert_eq!(one.nfs.volumes(), ["data"], "the second node holds it");
    there.remove(moved.id, Data::Delete).await.unwrap();
    one.assert_is_bare();
    two.assert_is_bare();
    here.prepare(&unit(&[ELSEWHERE]), &quiet).await.unwrap();
}

#[tokio::test]
async fn data_elsewhere_of_a_stopped_copy_goes_once_its_workload_is_deleted() {
    let node = Node::new();
    let driver = node.driver();
    let stopped = unit(&[ELSEWHERE]);
    driver.prepare(&stopped, &quiet).await.unwrap();
    driver.remove(stopped.id, Data::Keep).await.unwrap();
    let kind = LeftoverKind::SharedVolume {
        workload: stopped.workload,
    };
    let leftovers = driver.leftovers().unwrap();
    leftovers.discard(kind, "nfs.data").await.unwrap();
    node.assert_is_bare();

    let retained = unit(&[r#"{"name":"data","target":"/d","driver":"nfs","retain":true}"#]);
    driver.prepare(&retained, &quiet).await.unwrap();
    driver.remove(retained.id, Data::Delete).await.unwrap();
    assert_eq!(node.nfs.volumes(), ["data"]);
    // Whoever names it next gets it, and it is not ours any more.
    let next = unit(&[ELSEWHERE]);
    driver.prepare(&next, &quiet).await.unwrap();
    driver.remove(next.id, Data::Delete).await.unwrap();
    assert_eq!(node.nfs.volumes(), ["data"]);
}

#[tokio::test]
async fn a_volume_elsewhere_that_a_dead_node_holds_is_taken_over_by_the_same_copy_alone() {
    let one = Node::new();
    let two = one.second();
    let lost = unit(&[ELSEWHERE]);
    one.driver().prepare(&lost, &quiet).await.unwrap();
    let there = two.driver();
    let stranger = Unit {
        id: UnitId {
            generation: lost.id.generation + 7,
            ..unit(&[ELSEWHERE]).id
        },
        ..unit(&[ELSEWHERE])
    };
    in_use(&there, &stranger).await;
    let replaced = next_generation(&lost);
    there.prepare(&replaced, &quiet).await.unwrap();

    // The dead node is back: its unit does not start any more, and takes nothing along.
    one.machine.reboot();
    one.nfs.reboot();
    let here = one.driver();
    let error = here.start(lost.id).await.unwrap_err();
    assert_eq!(error.code(), "volume-in-use", "{error}");
    here.remove(lost.id, Data::Delete).await.unwrap();
    assert_eq!(one.nfs.volumes(), ["data"]);

    // Without the marker it is whoever's comes next, and is not deleted.
    there.remove(replaced.id, Data::Keep).await.unwrap();
    in_use(&there, &stranger).await;
    two.nfs.unmark("data");
    there.prepare(&stranger, &quiet).await.unwrap();
    there.remove(stranger.id, Data::Delete).await.unwrap();
    assert_eq!(one.nfs.volumes(), ["data"]);
}

#[tokio::test]
async fn what_was_made_elsewhere_for_a_copy_that_came_to_nothing_is_taken_back() {
    let node = Node::new();
    let driver = node.driver();
    let unit = unit(&[ELSEWHERE]);
    node.machine.fail_prepare(Fault::Image, 1);
    assert!(driver.prepare(&unit, &quiet).await.is_err());
    node.assert_is_bare();
    // What was there before stays.
    node.nfs.put("data");
    node.machine.fail_prepare(Fault::Image, 1);
    assert!(driver.prepare(&unit, &quiet).await.is_err());
    assert_eq!(node.nfs.volumes(), ["data"]);
}

#[tokio::test]
async fn what_was_there_before_it_was_claimed_is_never_deleted() {
    let node = Node::new();
    let driver = node.driver();
    node.local.put("data");
    let first = unit(&[DATA]);
    driver.prepare(&first, &quiet).await.unwrap();
    driver.remove(first.id, Data::Delete).await.unwrap();
    assert_eq!(node.local.volumes(), ["data"]);

    let second = unit(&[DATA]);
    driver.prepare(&second, &quiet).await.unwrap();
    driver.remove(second.id, Data::Keep).await.unwrap();
    let kind = LeftoverKind::Volume {
        workload: second.workload,
    };
    let leftovers = driver.leftovers().unwrap();
    let gone = leftovers.discard(kind, "local.data").await.unwrap();
    assert_eq!(gone, Discarded::Gone);
    assert_eq!(node.local.volumes(), ["data"]);
    // Nobody owns it any more.
    driver.prepare(&unit(&[DATA]), &quiet).await.unwrap();
}

#[tokio::test]
async fn a_unit_that_was_removed_behind_our_back_gives_its_volumes_back_and_its_data_stays() {
    let node = Node::new();
    let driver = node.driver();
    let unit = unit(&[DATA]);
    driver.prepare(&unit, &quiet).await.unwrap();
    assert_eq!(driver.observe().await.unwrap().len(), 1);
    let runtime = FakeRuntime::new(Arc::clone(&node.machine), Kind::Process);
    runtime.remove(unit.id, Data::Keep).await.unwrap();
    assert!(driver.observe().await.unwrap().is_empty());
    for _ in 0..6000 {
        if node.records().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(node.local.attached().is_empty());
    assert_eq!(node.local.volumes(), ["data"]);
    driver
        .prepare(&next_generation(&unit), &quiet)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_fails_half_way_leaves_nothing() {
    let node = Node::new();
    let driver = node.driver();
    node.nfs.set_stuck("pool");
    let error = driver
        .prepare(&unit(&[DATA, SHARED]), &quiet)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "volume-attach-failed");
    node.assert_is_bare();

    node.machine.fail_prepare(Fault::Image, 1);
    let unit = unit(&[DATA]);
    let error = driver.prepare(&unit, &quiet).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Image { .. }), "{error}");
    node.assert_is_bare();
    driver.prepare(&unit, &quiet).await.unwrap();

    // A failure later on harms nothing that is there.
    node.machine.set_down(Some("gone"));
    assert!(driver.prepare(&unit, &quiet).await.is_err());
    node.machine.set_down(None);
    assert_eq!(node.local.attached(), ["data"]);
}

#[tokio::test]
async fn what_could_only_be_half_undone_is_undone_before_the_next_try() {
    let node = Node::new();
    let driver = node.driver();
    let unit = unit(&[DATA, SHARED]);
    node.machine.fail_prepare(Fault::Image, 1);
    node.local.set_busy("data", true);
    assert!(driver.prepare(&unit, &quiet).await.is_err());
    assert_eq!(node.local.attached(), ["data"], "it could not be let go of");
    assert!(node.nfs.attached().is_empty());
    node.local.set_busy("data", false);
    driver.prepare(&unit, &quiet).await.unwrap();
    assert_eq!(
        (node.local.attached().len(), node.nfs.attached().len()),
        (1, 1)
    );

    // A removal that cannot let go keeps the unit, and is done once it can.
    node.local.set_busy("data", true);
    let error = driver.remove(unit.id, Data::Delete).await.unwrap_err();
    assert_eq!(error.code(), "volume-detach-failed");
    assert_eq!(
        driver.observe().await.unwrap().len(),
        1,
        "it is still found"
    );
    node.local.set_busy("data", false);
    driver.remove(unit.id, Data::Delete).await.unwrap();
    node.assert_is_bare();
}

#[tokio::test]
async fn a_reboot_takes_volumes_and_the_next_start_brings_them_back() {
    let node = Node::new();
    let unit = unit(&[DATA]);
    let driver = node.driver();
    driver.prepare(&unit, &quiet).await.unwrap();
    driver.start(unit.id).await.unwrap();
    node.machine.reboot();
    node.local.reboot();
    let driver = node.driver();
    driver.start(unit.id).await.unwrap();
    assert_eq!(node.local.attached(), ["data"]);
}

#[tokio::test]
async fn what_an_agent_left_that_died_while_it_prepared_is_taken_back() {
    let node = Node::new();
    let unit = unit(&[DATA]);
    // It died before the runtime had the unit.
    node.holdings().attach(&unit, Kind::Process).await.unwrap();
    assert_eq!(node.local.attached(), ["data"]);
    let driver = node.driver();
    assert!(driver.observe().await.unwrap().is_empty());
    for _ in 0..6000 {
        if node.records().is_empty() {
            return node.assert_is_bare();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it is never taken back: {:?}", node.records());
}

#[tokio::test]
async fn a_removal_that_an_agent_did_not_finish_is_found_and_finished() {
    let node = Node::new();
    let unit = unit(&[DATA]);
    let driver = node.driver();
    driver.prepare(&unit, &quiet).await.unwrap();
    // It died when the runtime had removed the unit and its volumes were still here.
    node.holdings().leave(unit.id, Data::Delete).await.unwrap();
    let runtime = FakeRuntime::new(Arc::clone(&node.machine), Kind::Process);
    runtime.remove(unit.id, Data::Delete).await.unwrap();

    let driver = node.driver();
    let found = driver.observe().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id, found[0].workload), (unit.id, unit.workload));
    let is_over = matches!(
        found[0].state,
        FoundState::Exited {
            exit: Exit::Unknown,
            ..
        }
    );
    assert!(is_over, "{:?}", found[0].state);
    // Whoever finishes it need not know that its data was to go.
    driver.remove(unit.id, Data::Keep).await.unwrap();
    node.assert_is_bare();
    assert!(driver.observe().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_a_copy_left_behind_is_told_with_its_owner_and_goes_once_nothing_needs_it() {
    let node = Node::new();
    let driver = node.driver();
    let leftovers = driver.leftovers().unwrap();
    let (moved, other) = (unit(&[DATA]), unit(&[KEPT]));
    for unit in [&moved, &other] {
        driver.prepare(unit, &quiet).await.unwrap();
        driver.start(unit.id).await.unwrap();
    }
    let kind = LeftoverKind::Volume {
        workload: moved.workload,
    };
    let in_use = leftovers.discard(kind, "local.data").await.unwrap();
    assert_eq!(in_use, Discarded::Stays("a unit uses it".to_owned()));

    for unit in [&moved, &other] {
        driver.remove(unit.id, Data::Keep).await.unwrap();
    }
    let told = leftovers.leftovers().await.unwrap();
    let told: Vec<_> = told
        .iter()
        .filter(|it| matches!(it.kind, LeftoverKind::Volume { .. }))
        .map(|it| (it.kind, it.name.as_str(), it.needed.is_some()))
        .collect();
    let kept = LeftoverKind::Volume {
        workload: other.workload,
    };
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.contains(&(kind, "local.data", false)), "{told:?}");
    assert!(told.contains(&(kept, "local.kept", true)), "{told:?}");

    // Another workload's word deletes nothing of it.
    let strange = leftovers.discard(kept, "local.data").await.unwrap();
    assert_eq!(strange, Discarded::Gone);
    assert_eq!(node.local.volumes().len(), 2);
    let retained = leftovers.discard(kept, "local.kept").await.unwrap();
    assert!(matches!(retained, Discarded::Stays(_)), "{retained:?}");
    let gone = leftovers.discard(kind, "local.data").await.unwrap();
    assert_eq!(gone, Discarded::Gone);
    assert_eq!(node.local.volumes().len(), 1);
    assert_eq!(
        leftovers
            .leftovers()
            .await
            .unwrap()
            .iter()
            .filter(|it| it.kind == kind)
            .count(),
        0
    );
}
