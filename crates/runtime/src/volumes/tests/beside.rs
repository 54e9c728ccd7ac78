//! The marker beside data that nodes share: files of an export and metadata of images, as two nodes see them that have
//! nothing else in common.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use hostler_kit::{SystemClock, Tasks};
use hostler_model::UnitId;
use hostler_model::spec::{Kind, WorkloadSpec};

use super::super::marker::Marker;
use super::super::{Claim, Form, Holdings, Leaver, Parting, Place, Provisioned, Storage, Volume};
use super::super::{RuntimeError, WithVolumes};
use super::recorded::Recorded;
use super::{claim, directory, leaver, volume};
use crate::fake::{FakeMachine, FakeRuntime};
use crate::{Data, LeftoverKind, Leftovers as _, Runtime, Unit, contract};

fn data() -> Volume {
    volume("data", Form::Directory, Some(1 << 20))
}

fn newer(claim: &Claim) -> Claim {
    Claim {
        node: "two".to_owned(),
        unit: UnitId {
            generation: claim.unit.generation + 1,
            ..claim.unit
        },
        ..claim.clone()
    }
}

/// The same server and the same cluster, from two nodes each.
fn pairs(tools: &Recorded) -> [[Arc<dyn Storage>; 2]; 2] {
    [
        [tools.nfs_of("stage"), tools.nfs_of("stage-2")],
        [tools.ceph_of("stage"), tools.ceph_of("stage-2")],
    ]
}

/// A driver that need not be root, because its tools are recorded. Its answers may be lost, and what it is told.
struct Usable {
    driver: Arc<dyn Storage>,
    loses_answers: Arc<AtomicBool>,
    is_cut_off: Arc<AtomicBool>,
}

impl Usable {
    fn check(flag: &AtomicBool) -> Result<(), RuntimeError> {
        match flag.load(Ordering::Relaxed) {
            true => Err(RuntimeError::Io {
                context: "no answer".to_owned(),
                source: std::io::ErrorKind::TimedOut.into(),
            }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Storage for Usable {
    fn probe(&self) -> Result<(), String> {
        Ok(())
    }

    async fn provision(&self, volume: &Volume, claim: &Claim) -> Result<Provisioned, RuntimeError> {
        let provisioned = self.driver.provision(volume, claim).await;
        Self::check(&self.loses_answers)?;
        provisioned
    }

    async fn renew(&self, volume: &Volume, claim: &Claim) -> Result<(), RuntimeError> {
        self.driver.renew(volume, claim).await
    }

    async fn attach(&self, volume: &Volume) -> Result<Place, RuntimeError> {
        self.driver.attach(volume).await
    }

    async fn detach(&self, volume: &Volume) -> Result<(), RuntimeError> {
        self.driver.detach(volume).await
    }

    async fn part(
        &self,
        volume: &Volume,
        leaver: &Leaver,
        parting: Parting,
    ) -> Result<(), RuntimeError> {
        Self::check(&self.is_cut_off)?;
        self.driver.part(volume, leaver, parting).await
    }
}

/// A node that has its volumes from the driver and nothing in common with others but what is behind that.
struct Node {
    _home: tempfile::TempDir,
    runtime: WithVolumes,
    loses_answers: Arc<AtomicBool>,
    is_cut_off: Arc<AtomicBool>,
}

impl Node {
    fn new(name: &str, driver: &'static str, storage: &Arc<dyn Storage>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (loses_answers, is_cut_off) = (Arc::default(), Arc::default());
        let usable: Arc<dyn Storage> = Arc::new(Usable {
            driver: Arc::clone(storage),
            loses_answers: Arc::clone(&loses_answers),
            is_cut_off: Arc::clone(&is_cut_off),
        });
        let place = (home.path().join("volumes"), name.to_owned());
        let clock = Arc::new(SystemClock::new());
        let machine = FakeMachine::new(Arc::clone(&clock) as Arc<dyn hostler_kit::Clock>);
        let holdings = Holdings::with(place, [(driver, usable)].into(), clock);
        let fake = FakeRuntime::new(machine, Kind::Process);
        Self {
            _home: home,
            runtime: WithVolumes::over(Arc::new(fake), Arc::new(holdings), Tasks::new()),
            loses_answers,
            is_cut_off,
        }
    }

    async fn prepare(&self, unit: &Unit) -> Result<(), RuntimeError> {
        self.runtime.prepare(unit, &|_| {}).await
    }
}

fn unit(driver: &str) -> Unit {
    let mut spec = WorkloadSpec::of_process("db", vec!["forever".to_owned()]);
    let text = format!(
        r#"{{"name":"data","target":"/d","driver":"{driver}","size":"1MiB","access_mode":"RWO"}}"#
    );
    let volumes = &mut spec.process.as_mut().unwrap().volumes;
    volumes.push(serde_json::from_str(&text).unwrap());
    contract::unit(spec)
}

async fn refused(driver: &Arc<dyn Storage>, volume: &Volume, claim: &Claim) {
    let error = driver.provision(volume, claim).await.unwrap_err();
    assert_eq!(error.code(), "volume-in-use", "{error}");
}

fn marker(tools: &Recorded) -> Option<Marker> {
    let text = fs::read(tools.export().join(".hostler/data.json")).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

#[tokio::test]
async fn of_two_nodes_with_one_server_or_cluster_the_second_workload_is_told_who_has_it() {
    let tools = Recorded::new();
    for [one, two] in pairs(&tools) {
        let data = data();
        assert!(one.provision(&data, &claim(1)).await.unwrap().is_new);
        let dir = directory(one.attach(&data).await.unwrap());
        fs::write(dir.join("note"), "kept").unwrap();
        refused(&two, &data, &claim(2)).await;
        let error = two.provision(&data, &claim(2)).await.unwrap_err();
        let workload = claim(1).owner.workload.to_string();
        assert!(error.to_string().contains(&workload), "{error}");

        // Nor does the second delete it, whatever it is told.
        two.part(&data, &leaver(2), Parting::Delete).await.unwrap();
        one.detach(&data).await.unwrap();
        one.part(&data, &leaver(1), Parting::Keep).await.unwrap();
        refused(&two, &data, &claim(2)).await;

        // The copy has moved, and its data with it.
        let moved = newer(&claim(1));
        let provisioned = two.provision(&data, &moved).await.unwrap();
        assert!(!provisioned.is_new && !provisioned.is_new_owner);
        let dir = directory(two.attach(&data).await.unwrap());
        assert_eq!(fs::read_to_string(dir.join("note")).unwrap(), "kept");
        // What the first node is told late takes nothing away from the second.
        one.part(&data, &leaver(1), Parting::Delete).await.unwrap();
        assert_eq!(fs::read_to_string(dir.join("note")).unwrap(), "kept");
        let error = one.renew(&data, &claim(1)).await.unwrap_err();
        assert_eq!(error.code(), "volume-in-use");

        two.detach(&data).await.unwrap();
        let last = Leaver {
            unit: Some(moved.unit),
            ..leaver(1)
        };
        two.part(&data, &last, Parting::Delete).await.unwrap();
        assert!(one.provision(&data, &claim(2)).await.unwrap().is_new);
        one.part(&data, &leaver(2), Parting::Delete).await.unwrap();
    }
    assert!(!tools.export().join("data").exists());
    assert!(!tools.image("data").exists());
    assert_eq!(marker(&tools), None);
}

#[tokio::test]
async fn units_of_two_nodes_get_shared_data_one_after_the_other_and_the_last_takes_it_along() {
    let tools = Recorded::new();
    let drivers = ["nfs", "ceph-rbd"].into_iter().zip(pairs(&tools));
    for (driver, [here, there]) in drivers {
        let one = Node::new("one", driver, &here);
        let two = Node::new("two", driver, &there);
        let (ours, stranger) = (unit(driver), unit(driver));
        one.prepare(&ours).await.unwrap();
        one.runtime.start(ours.id).await.unwrap();
        let error = two.prepare(&stranger).await.unwrap_err();
        assert_eq!(error.code(), "volume-in-use", "{error}");

        // The first node is lost, and its copy is replaced on the second.
        let replaced = Unit {
            id: UnitId {
                generation: ours.id.generation + 1,
                ..ours.id
            },
            ..ours.clone()
        };
        two.prepare(&replaced).await.unwrap();
        let error = one.runtime.start(ours.id).await.unwrap_err();
        assert_eq!(error.code(), "volume-in-use", "{error}");
        one.runtime.remove(ours.id, Data::Keep).await.unwrap();
        let error = one.prepare(&stranger).await.unwrap_err();
        assert_eq!(error.code(), "volume-in-use", "{error}");

        two.runtime.remove(replaced.id, Data::Delete).await.unwrap();
        assert!(!tools.export().join("data").exists());
        assert!(!tools.image("data").exists());
        one.prepare(&stranger).await.unwrap();
        one.runtime.remove(stranger.id, Data::Delete).await.unwrap();
    }
    assert_eq!(marker(&tools), None);
}

#[tokio::test]
async fn what_a_person_has_made_or_taken_the_marker_from_is_never_deleted() {
    let tools = Recorded::new();
    let image = tools.image("data");
    fs::create_dir(tools.export().join("data")).unwrap();
    fs::create_dir(&image).unwrap();
    for [one, two] in pairs(&tools) {
        let data = data();
        assert!(!one.provision(&data, &claim(1)).await.unwrap().is_new);
        one.part(&data, &leaver(1), Parting::Delete).await.unwrap();
        two.provision(&data, &claim(2)).await.unwrap();
    }
    assert!(!marker(&tools).unwrap().is_ours);
    assert!(tools.export().join("data").is_dir() && image.is_dir());

    let other = volume("other", Form::Directory, Some(1 << 20));
    for [one, two] in pairs(&tools) {
        assert!(one.provision(&other, &claim(1)).await.unwrap().is_new);
        let _ = fs::remove_file(tools.export().join(".hostler/other.json"));
        for entry in fs::read_dir(tools.image("other")).into_iter().flatten() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        one.part(&other, &leaver(1), Parting::Delete).await.unwrap();
        two.provision(&other, &claim(2)).await.unwrap();
        two.part(&other, &leaver(2), Parting::Delete).await.unwrap();
    }
    assert!(tools.export().join("other").is_dir() && tools.image("other").is_dir());
}

#[tokio::test]
async fn what_is_retained_stays_and_is_nobodys() {
    let tools = Recorded::new();
    for [one, two] in pairs(&tools) {
        let data = data();
        let retained = Claim {
            retain: true,
            ..claim(1)
        };
        one.provision(&data, &retained).await.unwrap();
        one.part(&data, &leaver(1), Parting::Keep).await.unwrap();
        // A node that has an older word of it asks for more than is let.
        let gone = Leaver {
            unit: None,
            ..leaver(1)
        };
        two.part(&data, &gone, Parting::Delete).await.unwrap();
        assert!(!two.provision(&data, &claim(2)).await.unwrap().is_new);
    }
    assert!(tools.export().join("data").is_dir() && tools.image("data").is_dir());
}

#[tokio::test]
async fn volumes_that_are_shared_go_with_the_last_that_has_them() {
    let tools = Recorded::new();
    let shared = Volume {
        access: hostler_model::spec::AccessMode::ReadWriteMany,
        ..data()
    };
    let [[one, two], _] = pairs(&tools);
    one.provision(&shared, &claim(1)).await.unwrap();
    two.provision(&shared, &claim(2)).await.unwrap();
    refused(&two, &data(), &claim(2)).await;
    assert_eq!(marker(&tools).unwrap().holders.len(), 2);
    one.part(&shared, &leaver(1), Parting::Delete)
        .await
        .unwrap();
    assert!(tools.export().join("data").is_dir());
    two.part(&shared, &leaver(2), Parting::Delete)
        .await
        .unwrap();
    assert!(!tools.export().join("data").exists());
}

#[tokio::test]
async fn of_two_that_come_at_the_same_time_never_both_get_it() {
    let tools = Recorded::new();
    let ways = pairs(&tools);
    for round in 0..8 {
        for (driver, [one, two]) in ["nfs", "ceph-rbd"].into_iter().zip(&ways) {
            let data = volume(&format!("data-{round}"), Form::Directory, Some(1 << 20));
            let (ours, theirs) = (claim(1), claim(2));
            let tried = tokio::join!(one.provision(&data, &ours), two.provision(&data, &theirs));
            let told = || format!("{driver}, {tried:?}, {}", marks(&tools, &data.name));
            // Each that got it still has it. If neither did, each gets it once the other is not there.
            let alone = match (tried.0.is_ok(), tried.1.is_ok()) {
                (true, true) => panic!("both got it: {}", told()),
                (true, false) => vec![(one, 1)],
                (false, true) => vec![(two, 2)],
                (false, false) => vec![(one, 1), (two, 2)],
            };
            for (node, workload) in alone {
                let got = node.provision(&data, &claim(workload)).await;
                assert!(got.is_ok(), "{workload} alone: {got:?}; {}", told());
                let left = node.part(&data, &leaver(workload), Parting::Delete).await;
                left.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn an_entry_that_fails_after_its_first_write_is_no_mark() {
    let tools = Recorded::new();
    let [[nfs, nfs_2], [ceph, ceph_2]] = pairs(&tools);
    let made = tools.export().join("data");
    // Nothing is there for who looks, and nothing can be made.
    std::os::unix::fs::symlink("nowhere", &made).unwrap();
    let error = nfs.provision(&data(), &claim(1)).await.unwrap_err();
    assert_eq!(error.code(), "node-io", "{error}");
    assert_eq!(marker(&tools), None);
    fs::remove_file(&made).unwrap();
    nfs_2.provision(&data(), &claim(2)).await.unwrap();

    for key in ["hostler.holder.", "hostler.ours", "hostler.owner."] {
        tools.fail("set", Some(key));
        let error = ceph.provision(&data(), &claim(1)).await.unwrap_err();
        assert_eq!(error.code(), "volume-provision-failed", "{error}");
        tools.fail("set", None);
        let provisioned = ceph_2.provision(&data(), &claim(2)).await;
        assert!(provisioned.unwrap().is_new_owner, "{key}");
        let left = ceph_2.part(&data(), &leaver(2), Parting::Delete).await;
        left.unwrap();
        // What is not known to be ours stays; here it would keep the next from being new.
        let _ = fs::remove_dir_all(tools.image("data"));
    }
}

#[tokio::test]
async fn an_entry_whose_answer_was_lost_is_taken_back_then_or_once_the_workload_is_deleted() {
    let tools = Recorded::new();
    for (driver, [here, there]) in ["nfs", "ceph-rbd"].into_iter().zip(pairs(&tools)) {
        let one = Node::new("one", driver, &here);
        let two = Node::new("two", driver, &there);
        let (ours, stranger) = (unit(driver), unit(driver));
        one.loses_answers.store(true, Ordering::Relaxed);
        one.prepare(&ours).await.unwrap_err();
        two.prepare(&stranger).await.unwrap();
        let gone = two.runtime.remove(stranger.id, Data::Delete).await;
        gone.unwrap();

        one.is_cut_off.store(true, Ordering::Relaxed);
        one.prepare(&ours).await.unwrap_err();
        one.is_cut_off.store(false, Ordering::Relaxed);
        let error = two.prepare(&stranger).await.unwrap_err();
        assert_eq!(error.code(), "volume-in-use", "{error}");
        let kind = LeftoverKind::SharedVolume {
            workload: ours.workload,
        };
        let name = format!("{driver}.data");
        one.runtime.discard(kind, &name).await.unwrap();
        two.prepare(&stranger).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_held_stays_held_when_its_renewal_fails() {
    let tools = Recorded::new();
    let [_, [one, two]] = pairs(&tools);
    one.provision(&data(), &claim(1)).await.unwrap();
    tools.fail("set", Some("hostler."));
    let later = Claim {
        at: hostler_model::Timestamp::from_millis(2),
        ..claim(1)
    };
    assert!(one.renew(&data(), &later).await.is_err());
    tools.fail("set", None);
    one.part(&data(), &leaver(2), Parting::TakeBack)
        .await
        .unwrap();
    refused(&two, &data(), &claim(2)).await;
    one.renew(&data(), &later).await.unwrap();
}

#[tokio::test]
async fn an_export_that_cannot_be_unmounted_is_no_failed_entry() {
    let tools = Recorded::new();
    let [[one, two], _] = pairs(&tools);
    tools.fail("umount", Some("target is busy"));
    assert!(one.provision(&data(), &claim(1)).await.unwrap().is_new);
    tools.fail("umount", None);
    refused(&two, &data(), &claim(2)).await;
    one.part(&data(), &leaver(1), Parting::TakeBack)
        .await
        .unwrap();
    assert!(
        tools.mounted().is_empty(),
        "the next that uses it unmounts it"
    );
    assert!(two.provision(&data(), &claim(2)).await.unwrap().is_new);
}

/// Whatever is marked beside data of that name, as it is.
fn marks(tools: &Recorded, name: &str) -> String {
    let file = fs::read_to_string(tools.export().join(format!(".hostler/{name}.json")));
    let entries = fs::read_dir(tools.image(name)).into_iter().flatten();
    let pairs = entries.map(|entry| entry.unwrap().path());
    let pairs: Vec<_> = pairs
        .map(|path| (path.clone(), fs::read_to_string(path)))
        .collect();
    format!("file {file:?}, pairs {pairs:?}")
}

#[tokio::test]
async fn data_that_was_deleted_by_hand_is_made_anew_for_whoever_names_it() {
    let tools = Recorded::new();
    let driver = tools.nfs();
    driver.provision(&data(), &claim(1)).await.unwrap();
    driver
        .part(&data(), &leaver(1), Parting::Keep)
        .await
        .unwrap();
    refused(&driver, &data(), &claim(2)).await;
    fs::remove_dir_all(tools.export().join("data")).unwrap();
    assert!(driver.provision(&data(), &claim(2)).await.unwrap().is_new);
    assert!(marker(&tools).unwrap().is_ours);
}

#[tokio::test]
async fn a_marker_that_cannot_be_read_lets_nobody_in_and_nothing_go() {
    let tools = Recorded::new();
    for [one, two] in pairs(&tools) {
        one.provision(&data(), &claim(1)).await.unwrap();
        let file = tools.export().join(".hostler/data.json");
        fs::write(&file, "{\"owners\":").unwrap();
        let holder = format!("hostler.holder.{}", claim(1).unit);
        if tools.image("data").exists() {
            fs::write(tools.image("data").join(holder), "?").unwrap();
        }
        let error = two.provision(&data(), &claim(1)).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("data.json") || text.contains("no sense"),
            "{text}"
        );
        let deleted = one.part(&data(), &leaver(1), Parting::Delete).await;
        assert!(deleted.is_err());
    }
    assert!(tools.export().join("data").is_dir() && tools.image("data").is_dir());
}

#[tokio::test]
async fn a_marker_that_another_node_looks_at_is_waited_for() {
    let tools = Recorded::new();
    let driver = tools.nfs();
    driver.provision(&data(), &claim(1)).await.unwrap();
    let lock = fs::File::open(tools.export().join(".hostler/data.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (data, wish) = (data(), claim(1));
    let renewing = driver.renew(&data, &wish);
    let mut renewing = std::pin::pin!(renewing);
    let pause = std::time::Duration::from_millis(300);
    let early = tokio::time::timeout(pause, &mut renewing).await;
    assert!(early.is_err(), "it does not come past the lock");
    drop(lock);
    renewing.await.unwrap();
}
