//! One suite that every storage driver passes: the double, the node's own disk, and the network drivers over tools
//! that are recorded. Then what is special about each, and what holds whatever the driver.

mod beside;
mod fake;
mod holdings;
mod recorded;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use hostler_model::spec::AccessMode;
use hostler_model::{AssignmentId, Timestamp, UnitId, WorkloadId};

use super::local::Local;
use super::nfs::Nfs;
use super::record::Owner;
use super::tool::Call;
use super::*;
use fake::Fake;
use recorded::Recorded;

/// A driver under test, and the machine below it.
struct Subject<'a> {
    /// A driver over the same machine, as each life of an agent makes one.
    remake: &'a dyn Fn() -> Arc<dyn Storage>,
    /// What a reboot does: nothing is mounted any more.
    reboot: &'a dyn Fn(),
}

fn volume(name: &str, form: Form, size: Option<u64>) -> Volume {
    Volume {
        driver: "any".to_owned(),
        name: name.to_owned(),
        form,
        size,
        fs_type: "ext4".to_owned(),
        access: AccessMode::ReadWriteOnce,
    }
}

/// Of the one copy of a workload, in its first generation.
fn claim(workload: u128) -> Claim {
    let now = Timestamp::from_millis(1);
    Claim {
        node: "one".to_owned(),
        unit: UnitId {
            assignment: AssignmentId::mint(now, workload),
            generation: 1,
        },
        owner: Owner {
            workload: WorkloadId::mint(now, workload),
            slot: 0,
        },
        retain: false,
        is_first: false,
        at: now,
    }
}

fn leaver(workload: u128) -> Leaver {
    let Claim {
        node, unit, owner, ..
    } = claim(workload);
    Leaver {
        node,
        unit: Some(unit),
        owner,
    }
}

async fn provision(driver: &Arc<dyn Storage>, volume: &Volume) -> bool {
    let provisioned = driver.provision(volume, &claim(1)).await;
    provisioned.unwrap().is_new
}

fn directory(place: Place) -> PathBuf {
    match place {
        Place::Directory(dir) => dir,
        other => panic!("no directory: {other:?}"),
    }
}

async fn passes(subject: Subject<'_>, volume: &Volume) {
    let driver = (subject.remake)();
    // Nothing is there yet, and taking away what is not there is fine.
    driver.detach(volume).await.unwrap();
    driver
        .part(volume, &leaver(1), Parting::Delete)
        .await
        .unwrap();
    assert!(provision(&driver, volume).await, "it is new");
    assert!(!provision(&driver, volume).await, "it is there");
    let place = driver.attach(volume).await.unwrap();
    assert_eq!(driver.attach(volume).await.unwrap(), place, "once more");
    if volume.form == Form::Disk {
        assert!(place.path().exists(), "{place:?}");
        driver.detach(volume).await.unwrap();
    } else {
        keeps_its_data(&subject, volume, directory(place)).await;
    }
    driver.detach(volume).await.unwrap();
    driver
        .part(volume, &leaver(1), Parting::Delete)
        .await
        .unwrap();
    driver
        .part(volume, &leaver(1), Parting::Delete)
        .await
        .unwrap();
    assert!(provision(&driver, volume).await, "it is new again");
    let place = driver.attach(volume).await.unwrap();
    if volume.form == Form::Directory {
        assert!(!place.path().join("note").exists(), "the data is gone");
    }
    driver.detach(volume).await.unwrap();
    driver
        .part(volume, &leaver(1), Parting::Delete)
        .await
        .unwrap();
}

async fn keeps_its_data(subject: &Subject<'_>, volume: &Volume, dir: PathBuf) {
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&dir).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o777, "whoever gets it may write");
    fs::write(dir.join("note"), "kept").unwrap();
    let driver = (subject.remake)();
    driver.detach(volume).await.unwrap();
    driver.detach(volume).await.unwrap();
    let read = |place: Place| fs::read_to_string(directory(place).join("note")).unwrap();
    assert_eq!(read(driver.attach(volume).await.unwrap()), "kept");
    (subject.reboot)();
    let driver = (subject.remake)();
    assert!(!provision(&driver, volume).await, "it is there");
    assert_eq!(read(driver.attach(volume).await.unwrap()), "kept");
}

#[tokio::test]
async fn the_double_passes_the_suite() {
    let fake = Arc::new(Fake::new());
    let remake = || Arc::clone(&fake) as Arc<dyn Storage>;
    for form in [Form::Directory, Form::Disk] {
        let subject = Subject {
            remake: &remake,
            reboot: &|| fake.reboot(),
        };
        passes(subject, &volume("data", form, Some(1 << 20))).await;
    }
}

#[tokio::test]
async fn directories_and_disks_of_the_node_pass_the_suite() {
    let home = tempfile::tempdir().unwrap();
    let remake =
        || Arc::new(Local::at(home.path().join("local"), Tools::default())) as Arc<dyn Storage>;
    for (form, size) in [(Form::Directory, None), (Form::Disk, Some(1 << 20))] {
        let subject = Subject {
            remake: &remake,
            reboot: &|| {},
        };
        passes(subject, &volume("data", form, size)).await;
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn volumes_of_the_node_with_a_size_pass_the_suite() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap().join("local");
    let remake = || Arc::new(Local::at(root.clone(), Tools::default())) as Arc<dyn Storage>;
    let at = root.join("data");
    let reboot = || {
        let done = std::process::Command::new("umount").arg(&at).status();
        assert!(done.unwrap().success());
    };
    let subject = Subject {
        remake: &remake,
        reboot: &reboot,
    };
    passes(subject, &volume("data", Form::Directory, Some(16 << 20))).await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_volume_holds_no_more_than_its_size_until_it_grows() {
    let home = tempfile::tempdir().unwrap();
    let driver = Local::at(home.path().join("local"), Tools::default());
    let small = volume("data", Form::Directory, Some(16 << 20));
    Storage::provision(&driver, &small, &claim(1))
        .await
        .unwrap();
    let dir = directory(Storage::attach(&driver, &small).await.unwrap());
    let error = fs::write(dir.join("large"), vec![1; 20 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    fs::write(dir.join("note"), "kept").unwrap();
    driver.detach(&small).await.unwrap();

    let large = volume("data", Form::Directory, Some(64 << 20));
    assert!(
        !Storage::provision(&driver, &large, &claim(1))
            .await
            .unwrap()
            .is_new
    );
    let dir = directory(Storage::attach(&driver, &large).await.unwrap());
    fs::write(dir.join("large"), vec![1; 20 << 20]).unwrap();
    assert_eq!(fs::read_to_string(dir.join("note")).unwrap(), "kept");
    driver.detach(&large).await.unwrap();
    driver
        .part(&large, &leaver(1), Parting::Delete)
        .await
        .unwrap();
    let left: Vec<_> = fs::read_dir(home.path().join("local")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Directories and disks alike; nothing stays mounted or mapped.
async fn passes_over(tools: &Recorded, remake: &dyn Fn() -> Arc<dyn Storage>) {
    for form in [Form::Directory, Form::Disk] {
        let subject = Subject {
            remake,
            reboot: &|| tools.reboot(),
        };
        passes(subject, &volume("data", form, Some(1 << 20))).await;
    }
    assert!(tools.mounted().is_empty(), "{:?}", tools.mounted());
    assert!(tools.mapped().is_empty(), "{:?}", tools.mapped());
}

#[tokio::test]
async fn volumes_of_a_server_pass_the_suite_over_recorded_tools() {
    let tools = Recorded::new();
    passes_over(&tools, &|| tools.nfs()).await;
}

#[tokio::test]
async fn images_of_a_cluster_pass_the_suite_over_recorded_tools() {
    let tools = Recorded::new();
    passes_over(&tools, &|| tools.ceph()).await;
}

#[tokio::test]
async fn a_volume_of_a_server_is_made_inside_the_export_and_mounted_by_itself() {
    let tools = Recorded::new();
    let driver = tools.nfs();
    let data = volume("data", Form::Directory, None);
    driver.provision(&data, &claim(1)).await.unwrap();
    driver.attach(&data).await.unwrap();
    driver.detach(&data).await.unwrap();
    driver
        .part(&data, &leaver(1), Parting::Delete)
        .await
        .unwrap();
    assert_eq!(
        tools.calls(),
        [
            "mount -t nfs -o hard,lookupcache=none files.lan:/srv/volumes <stage>/.export",
            "umount <stage>/.export",
            "mount -t nfs -o hard files.lan:/srv/volumes/data <stage>/data",
            "umount <stage>/data",
            "mount -t nfs -o hard,lookupcache=none files.lan:/srv/volumes <stage>/.export",
            "umount <stage>/.export",
        ]
    );
}

#[tokio::test]
async fn an_image_is_formatted_once_and_only_while_it_is_blank() {
    let tools = Recorded::new();
    let driver = tools.ceph();
    let data = volume("data", Form::Directory, Some(3 << 30));
    for _ in 0..2 {
        driver.provision(&data, &claim(1)).await.unwrap();
        driver.attach(&data).await.unwrap();
        driver.detach(&data).await.unwrap();
    }
    let of = |words: &str| {
        let calls = tools.calls().into_iter();
        calls.filter(|call| call.starts_with(words)).count()
    };
    assert_eq!((of("mkfs.ext4"), of("rbd map -o exclusive")), (1, 2));
    assert_eq!(of("rbd create --size 3072M rbd/data"), 1);

    // Something that is no file system, such as the partitions of a guest, stays as it is.
    tools.write_partitions("data");
    let error = driver.attach(&data).await.unwrap_err();
    assert_eq!(error.code(), "volume-attach-failed");
    assert_eq!(of("mkfs.ext4"), 1);
    assert!(tools.mapped().is_empty(), "nothing stays mapped");

    // Nor is that formatted of which nothing is known and that is not blank.
    tools.write_strange("data");
    let error = driver.attach(&data).await.unwrap_err();
    assert_eq!(error.code(), "volume-attach-failed");
    assert!(error.to_string().contains("is not blank"), "{error}");
    assert_eq!(of("mkfs.ext4"), 1);
    assert!(tools.mapped().is_empty(), "nothing stays mapped");
}

#[tokio::test]
async fn a_machine_s_disk_never_takes_the_place_of_a_directory_nor_takes_it_along() {
    let home = tempfile::tempdir().unwrap();
    let driver = Local::at(home.path().join("local"), Tools::default());
    let files = volume("data", Form::Directory, None);
    Storage::provision(&driver, &files, &claim(1))
        .await
        .unwrap();
    let dir = directory(Storage::attach(&driver, &files).await.unwrap());
    fs::write(dir.join("note"), "kept").unwrap();
    let disk = volume("data", Form::Disk, Some(1 << 20));
    let error = Storage::provision(&driver, &disk, &claim(1))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "volume-provision-failed");
    driver
        .part(&disk, &leaver(1), Parting::Delete)
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(dir.join("note")).unwrap(), "kept");
}

#[tokio::test]
async fn a_failing_tool_is_told_with_its_words_and_leaves_nothing_behind() {
    let tools = Recorded::new();
    let data = volume("data", Form::Directory, Some(1 << 20));
    for (driver, program) in [(tools.nfs(), "mount"), (tools.ceph(), "mount")] {
        driver.provision(&data, &claim(1)).await.unwrap();
        tools.fail(program, Some("server says no"));
        let error = driver.attach(&data).await.unwrap_err();
        assert_eq!(error.code(), "volume-attach-failed");
        assert!(error.to_string().contains("server says no"), "{error}");
        tools.fail(program, None);
        driver.detach(&data).await.unwrap();
        assert!(tools.mounted().is_empty() && tools.mapped().is_empty());
    }
    for (driver, program) in [(tools.nfs(), "mount"), (tools.ceph(), "rbd")] {
        tools.fail(program, Some("server says no"));
        let error = driver
            .provision(&volume("other", Form::Directory, Some(1)), &claim(1))
            .await
            .unwrap_err();
        assert_eq!(error.code(), "volume-provision-failed");
        tools.fail(program, None);
    }
}

#[tokio::test]
async fn a_server_that_hangs_hangs_nobody() {
    let tools = Recorded::hasty();
    let data = volume("data", Form::Directory, Some(1 << 20));
    for (driver, program) in [(tools.nfs(), "mount"), (tools.ceph(), "rbd")] {
        driver.provision(&data, &claim(1)).await.unwrap();
        tools.hang(program, true);
        let error = driver.attach(&data).await.unwrap_err();
        assert_eq!(error.code(), "volume-timeout");
        tools.hang(program, false);
    }
    // What is mounted from it can be taken away.
    let driver = tools.nfs();
    driver.attach(&data).await.unwrap();
    tools.hang("umount", true);
    driver.detach(&data).await.unwrap();
    assert!(tools.mounted().is_empty());
    let last = tools.calls().pop().unwrap();
    assert_eq!(last, "umount -f -l <stage>/data");
}

#[tokio::test]
async fn what_is_busy_stays_attached_and_says_so() {
    let tools = Recorded::new();
    let driver = tools.nfs();
    let data = volume("data", Form::Directory, None);
    driver.provision(&data, &claim(1)).await.unwrap();
    driver.attach(&data).await.unwrap();
    tools.fail("umount", Some("target is busy"));
    let error = driver.detach(&data).await.unwrap_err();
    assert_eq!(error.code(), "volume-detach-failed");
    assert_eq!(tools.mounted().len(), 1);
    tools.fail("umount", None);
    driver.detach(&data).await.unwrap();
    assert!(tools.mounted().is_empty());
}

#[tokio::test]
async fn a_driver_without_its_tools_or_settings_says_what_is_missing() {
    let empty = tempfile::tempdir().unwrap();
    let tools = Tools {
        path: empty.path().into(),
        ..Tools::default()
    };
    let stage = empty.path().join("stage");
    let nameless = Nfs::new(NfsSettings::default(), stage.clone(), tools.clone());
    assert!(nameless.probe().unwrap_err().contains("no server"));
    let settings = NfsSettings {
        server: Some("files.lan".to_owned()),
        export: Some("/srv".to_owned()),
        ..NfsSettings::default()
    };
    let bare = Nfs::new(settings, stage, tools.clone());
    assert!(bare.probe().unwrap_err().contains("nfs-common"));
    let error = bare
        .provision(&volume("data", Form::Directory, None), &claim(1))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "volume-driver-missing");
    assert!(tools.run(&Call::new("rbd")).await.is_err());
}

#[test]
fn a_name_is_no_path_and_no_option_and_copies_that_may_not_share_have_their_own() {
    for (name, plain) in [
        ("Data.v2", "data-v2"),
        ("../../etc", "etc"),
        ("--help", "help"),
        ("a/b", "a-b"),
        ("..", ""),
    ] {
        assert_eq!(normal(name), plain, "{name}");
    }
    let of = |mode: &str, slot| {
        let text = format!(r#"{{"name":"data","target":"/d","access_mode":"{mode}"}}"#);
        let spec: ManagedVolume = serde_json::from_str(&text).unwrap();
        Volume::of(&spec, slot, Form::Directory).name
    };
    assert_eq!([of("RWO", 0), of("RWO", 2)], ["data", "data-2"]);
    assert_eq!([of("RWX", 0), of("RWX", 2)], ["data", "data"]);
}
