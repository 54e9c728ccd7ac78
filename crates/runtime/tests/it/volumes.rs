//! Managed volumes of the node's own disk, as processes, containers and machines see them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::{SystemClock, Tasks};
use hostler_model::Exit;
use hostler_model::spec::{CloudInit, ManagedVolume, WorkloadSpec};
use hostler_runtime::volumes::{Holdings, HoldingsConfig, Tools, VolumeSettings, WithVolumes};
use hostler_runtime::{Data, ExecCommand, Runtime, contract, exec};

use crate::container::{Yard, busybox};
use crate::vm::{Lab, next_generation, vm};
use crate::{Home, lines, quiet, shell, started};

/// A node's volumes. Whatever is still mounted when a test ends is unmounted.
struct Shelf {
    home: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        // Another user's process has to come through to what the tests look at.
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o711)).unwrap();
        Self { home }
    }

    /// The driver, as each life of an agent makes one.
    fn around(&self, runtime: impl Runtime) -> WithVolumes {
        let holdings = Holdings::new(HoldingsConfig {
            dir: self.home.path().join("volumes"),
            node: "box".to_owned(),
            settings: VolumeSettings::default(),
            tools: Tools::default(),
            clock: Arc::new(SystemClock::new()),
        });
        WithVolumes::over(Arc::new(runtime), Arc::new(holdings), Tasks::new())
    }

    fn local(&self, name: &str) -> PathBuf {
        let home = self.home.path().canonicalize().unwrap();
        home.join("volumes/local").join(name)
    }

    /// A place that only a test has.
    fn target(&self) -> String {
        let target = self.home.path().join("target/data");
        target.to_str().unwrap().to_owned()
    }

    fn is_mounted(&self, at: &Path) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let at = format!(" {} ", at.display());
        mounts.lines().any(|line| line.contains(&at))
    }

    fn assert_is_bare(&self) {
        for dir in ["local", "units", "known"] {
            let entries = std::fs::read_dir(self.home.path().join("volumes").join(dir));
            let left: Vec<_> = entries.into_iter().flatten().flatten().collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let local = self.home.path().join("volumes/local");
        for entry in std::fs::read_dir(local).into_iter().flatten().flatten() {
            if self.is_mounted(&entry.path()) {
                let _ = std::process::Command::new("umount")
                    .arg(entry.path())
                    .status();
            }
        }
    }
}

fn volume(name: &str, target: &str, more: &str) -> ManagedVolume {
    let text = format!(
        "name: {name}\nprocess: {{command: [x], volumes: [{{name: {name}, target: {target}{more}}}]}}"
    );
    let spec = hostler_model::spec::parse_one(&text).unwrap();
    spec.volumes()[0].clone()
}

fn process(script: &str, volume: ManagedVolume) -> WorkloadSpec {
    let mut spec = shell(script);
    spec.process.as_mut().unwrap().volumes.push(volume);
    spec
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_process_has_its_volume_at_a_place_that_nobody_else_sees() {
    let (shelf, home) = (Shelf::new(), Home::new());
    let driver = shelf.around(home.driver());
    let target = shelf.target();
    let script = format!(
        "cd {target} && cat note 2>/dev/null; id -u; echo kept >note; echo up; exec sleep 1000"
    );
    let mut spec = process(&script, volume("data", &target, ""));
    spec.process.as_mut().unwrap().user = Some("nobody".to_owned());
    let parent = home.dir().parent().unwrap().to_owned();
    std::fs::set_permissions(&parent, PermissionsExt::from_mode(0o711)).unwrap();
    let unit = started(&driver, spec).await;
    assert_eq!(lines(&driver, unit.id, 2).await, ["65534", "up"]);
    let note = shelf.local("data").join("note");
    assert_eq!(std::fs::read_to_string(note).unwrap(), "kept\n");
    let seen = std::fs::read_dir(&target).unwrap().count();
    assert_eq!(seen, 0, "the node sees an empty directory there");
    let note = format!("{target}/note");
    let command = ExecCommand::new(vec!["cat".to_owned(), note]);
    let exec = driver.exec().unwrap();
    let bounds = (Duration::from_secs(60), 100);
    let done = exec::run(exec, unit.id, &command, bounds).await.unwrap();
    assert_eq!(
        (done.exit, done.output.as_slice()),
        (Exit::Code(0), b"kept\n".as_slice()),
        "a command inside sees the volume"
    );

    driver.remove(unit.id, Data::Keep).await.unwrap();
    let next = next_generation(&unit);
    driver.prepare(&next, &quiet).await.unwrap();
    driver.start(next.id).await.unwrap();
    assert_eq!(lines(&driver, next.id, 3).await, ["kept", "65534", "up"]);
    driver.remove(next.id, Data::Delete).await.unwrap();
    shelf.assert_is_bare();
}

#[tokio::test]
#[ignore = "needs root"]
async fn what_is_read_only_cannot_be_written_even_below_a_tmp_of_its_own() {
    let (shelf, home) = (Shelf::new(), Home::new());
    let driver = shelf.around(home.driver());
    let script = "touch /tmp/inside/x 2>/dev/null || echo refused; touch /tmp/x && echo written";
    let mut spec = process(script, volume("data", "/tmp/inside", ", read_only: true"));
    spec.process.as_mut().unwrap().isolation.tmp = true;
    let unit = started(&driver, spec).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(0));
    assert_eq!(lines(&driver, unit.id, 2).await, ["refused", "written"]);
    driver.remove(unit.id, Data::Delete).await.unwrap();
    shelf.assert_is_bare();
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_volume_with_a_size_is_enforced_and_comes_back_after_a_reboot() {
    let (shelf, home) = (Shelf::new(), Home::new());
    let target = shelf.target();
    let script = format!(
        "cd {target}; cat note 2>/dev/null; head -c 20000000 /dev/zero >large 2>/dev/null || echo full; echo kept >note; rm large"
    );
    let spec = process(&script, volume("data", &target, ", size: 16MiB"));
    let driver = shelf.around(home.driver());
    let unit = started(&driver, spec).await;
    contract::ended(&driver, unit.id).await;
    assert_eq!(lines(&driver, unit.id, 1).await.last().unwrap(), "full");
    let at = shelf.local("data");
    assert!(shelf.is_mounted(&at));

    let unmounted = std::process::Command::new("umount").arg(&at).status();
    assert!(unmounted.unwrap().success());
    let driver = shelf.around(home.driver());
    driver.start(unit.id).await.unwrap();
    contract::ended(&driver, unit.id).await;
    assert_eq!(lines(&driver, unit.id, 2).await, ["kept", "full"]);
    driver.remove(unit.id, Data::Delete).await.unwrap();
    assert!(!shelf.is_mounted(&at));
    shelf.assert_is_bare();
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_start_that_fails_leaves_the_data_and_a_preparation_that_fails_leaves_nothing() {
    let (shelf, home) = (Shelf::new(), Home::new());
    let driver = shelf.around(home.driver());
    let target = shelf.target();
    let mut spec = process("true", volume("data", &target, ", size: 16MiB"));
    spec.process.as_mut().unwrap().command = vec!["/no/such/program".to_owned()];
    let unit = contract::unit(spec);
    driver.prepare(&unit, &quiet).await.unwrap();
    assert_eq!(
        driver.start(unit.id).await.unwrap_err().code(),
        "command-not-runnable"
    );
    driver.remove(unit.id, Data::Delete).await.unwrap();
    shelf.assert_is_bare();

    let yard = Shelf::new();
    let mut spec = busybox("true");
    let container = spec.container.as_mut().unwrap();
    container
        .volumes
        .push(volume("data", "/data", ", size: 16MiB"));
    let nowhere = crate::container::driver("unix:///nonexistent".to_owned(), home.dir(), "test");
    let driver = yard.around(nowhere);
    let error = driver
        .prepare(&contract::unit(spec), &quiet)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "engine-down");
    yard.assert_is_bare();
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_container_finds_its_volume_again_and_it_goes_with_the_copy() {
    let (shelf, yard) = (Shelf::new(), Yard::new());
    let driver = shelf.around(yard.driver());
    let script = "cat /data/note 2>/dev/null; echo kept >/data/note; touch /fixed/x 2>/dev/null || echo refused";
    let mut spec = busybox(script);
    let container = spec.container.as_mut().unwrap();
    container.volumes.push(volume("data", "/data", ""));
    container
        .volumes
        .push(volume("fixed", "/fixed", ", read_only: true"));
    let unit = started(&driver, spec).await;
    contract::ended(&driver, unit.id).await;
    assert_eq!(lines(&driver, unit.id, 1).await.last().unwrap(), "refused");
    driver.remove(unit.id, Data::Keep).await.unwrap();

    let next = next_generation(&unit);
    driver.prepare(&next, &quiet).await.unwrap();
    driver.start(next.id).await.unwrap();
    contract::ended(&driver, next.id).await;
    assert_eq!(lines(&driver, next.id, 2).await, ["kept", "refused"]);
    driver.remove(next.id, Data::Delete).await.unwrap();
    shelf.assert_is_bare();
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_container_cannot_write_more_than_the_size_of_its_volume() {
    let (shelf, yard) = (Shelf::new(), Yard::new());
    let driver = shelf.around(yard.driver());
    let mut spec =
        busybox("dd if=/dev/zero of=/data/large bs=1M count=20 2>/dev/null || echo full");
    let container = spec.container.as_mut().unwrap();
    container
        .volumes
        .push(volume("data", "/data", ", size: 16MiB"));
    let unit = started(&driver, spec).await;
    contract::ended(&driver, unit.id).await;
    assert_eq!(lines(&driver, unit.id, 1).await, ["full"]);
    driver.remove(unit.id, Data::Delete).await.unwrap();
    shelf.assert_is_bare();
}

#[tokio::test]
async fn a_machine_has_its_volume_as_a_further_disk() {
    let (shelf, lab) = (Shelf::new(), Lab::double());
    let driver = shelf.around(lab.driver());
    let mut spec = lab.guest("hostler.end=wait");
    vm(&mut spec).volumes = vec![volume("data", "/data", ", size: 1MiB, read_only: true")];
    let unit = started(&driver, spec).await;
    let record = lab
        .dir()
        .join("units")
        .join(unit.id.to_string())
        .join("unit.json");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let words = record["spec"]["process"]["command"].as_array().unwrap();
    let of = |part: &str| {
        let words = words.iter().filter_map(|word| word.as_str());
        words.filter(|word| word.contains(part)).count()
    };
    let image = shelf.local("data.img");
    assert_eq!(of(image.to_str().unwrap()), 1, "{words:?}");
    assert_eq!(of("serial=data"), 1, "{words:?}");
    assert_eq!(of("\"read-only\":true"), 1, "{words:?}");
    assert_eq!(std::fs::metadata(&image).unwrap().len(), 1 << 20);
    driver.remove(unit.id, Data::Delete).await.unwrap();
    shelf.assert_is_bare();
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_real_guest_writes_to_its_volume() {
    let (shelf, lab) = (Shelf::new(), Lab::real());
    let driver = shelf.around(lab.driver());
    let images = lab.home.path().join("images");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::write(images.join("base.raw"), vec![0; 4096]).unwrap();
    let mut spec = lab.guest("hostler.disks=1 hostler.end=wait");
    spec.stop.grace_ms = 60_000;
    let machine = vm(&mut spec);
    machine.image = "base".to_owned();
    machine.volumes = vec![volume("data", "/data", ", size: 1MiB")];
    machine.cloud_init = Some(CloudInit {
        user_data: "#cloud-config\n".to_owned(),
        ..CloudInit::default()
    });
    let unit = started(&driver, spec).await;
    assert_eq!(lines(&driver, unit.id, 2).await[1], "vdb: ");
    assert_eq!(driver.stop(unit.id).await.unwrap(), Exit::Code(0));
    let image = std::fs::read(shelf.local("data.img")).unwrap();
    assert!(image.starts_with(b"dirty"));
    driver.remove(unit.id, Data::Keep).await.unwrap();
    let next = next_generation(&unit);
    driver.prepare(&next, &quiet).await.unwrap();
    driver.start(next.id).await.unwrap();
    assert_eq!(lines(&driver, next.id, 2).await[1], "vdb: dirty");
    driver.remove(next.id, Data::Delete).await.unwrap();
    shelf.assert_is_bare();
}
