//! The machine driver: what it does around QEMU with a double of it, and real guests with the real one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::{SystemClock, Tasks};
use hostler_model::spec::{
    Accelerator, CloudInit, PortMapping, Protocol, VmDisk, VmNetwork, VmSpec, WorkloadSpec,
};
use hostler_model::{Bytes, Exit, Timestamp, UnitId};
use hostler_runtime::contract::{self, Behaviour, Subject};
use hostler_runtime::process::ShimCommand;
use hostler_runtime::vm::{Power, VmConfig, VmRuntime, VmSettings};
use hostler_runtime::{Data, FoundState, LeftoverKind, LogQuery, Run, Runtime, RuntimeError, Unit};

use crate::rounds::files;
use crate::{example, free_port, is_running, lines, quiet, started, until};

/// Where `cargo xtask test` has put a kernel and the small system that goes with it.
const MACHINE: &str = "HOSTLER_TEST_MACHINE";

/// A node with machines, all of which end when the test is over.
pub(crate) struct Lab {
    pub(crate) home: tempfile::TempDir,
    pub(crate) settings: VmSettings,
    kernel: PathBuf,
    initrd: Option<PathBuf>,
}

impl Lab {
    /// With the double of QEMU.
    pub(crate) fn double() -> Self {
        let home = tempfile::tempdir().unwrap();
        let kernel = home.path().join("kernel");
        std::fs::write(&kernel, "a kernel").unwrap();
        Self {
            settings: VmSettings {
                qemu: example("machine").display().to_string(),
                ..settings(home.path())
            },
            kernel,
            initrd: None,
            home,
        }
    }

    /// With the real one.
    #[expect(
        clippy::disallowed_methods,
        reason = "the lane tells where its kernel is"
    )]
    pub(crate) fn real() -> Self {
        let home = tempfile::tempdir().unwrap();
        let machine = PathBuf::from(std::env::var(MACHINE).expect("the lane names its kernel"));
        Self {
            settings: settings(home.path()),
            kernel: machine.join("kernel"),
            initrd: Some(machine.join("initrd")),
            home,
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.home.path().join("vm")
    }

    pub(crate) fn driver(&self) -> VmRuntime {
        driver(self.dir(), self.settings.clone())
    }

    fn disks(&self, unit: &Unit) -> PathBuf {
        self.dir()
            .join("disks")
            .join(unit.id.assignment.to_string())
    }

    fn monitor(&self, id: UnitId) -> PathBuf {
        let unit = self.dir().join("units").join(id.to_string());
        unit.join("work/qmp.sock")
    }

    /// A guest that does what the kernel's command line says.
    pub(crate) fn guest(&self, line: &str) -> WorkloadSpec {
        guest(&self.kernel, self.initrd.as_deref(), line)
    }

    fn subject(&self) -> Subject {
        let (dir, settings) = (self.dir(), self.settings.clone());
        let (kernel, initrd) = (self.kernel.clone(), self.initrd.clone());
        Subject {
            remake: Box::new(move || Arc::new(driver(dir.clone(), settings.clone()))),
            spec: Box::new(move |behaviour: &Behaviour| {
                guest(&kernel, initrd.as_deref(), &line_of(behaviour))
            }),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let (dir, settings) = (self.dir(), self.settings.clone());
        let cleaning = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            tokio.block_on(async {
                let driver = crate::driver(dir.join("units"));
                for unit in driver.observe().await.unwrap_or_default() {
                    let _ = driver.remove(unit.id, Data::Delete).await;
                }
            });
            drop(settings);
        });
        let _ = cleaning.join();
    }
}

/// Nested virtualization may be there and not work, so guests are emulated.
fn settings(home: &Path) -> VmSettings {
    VmSettings {
        accelerator: Accelerator::Tcg,
        images: vec![home.join("images")],
        ..VmSettings::default()
    }
}

fn driver(dir: PathBuf, settings: VmSettings) -> VmRuntime {
    VmRuntime::new(VmConfig {
        dir,
        shim: ShimCommand {
            program: example("shim"),
            args: Vec::new(),
        },
        clock: Arc::new(SystemClock::new()),
        tasks: Tasks::new(),
        settings,
    })
}

fn guest(kernel: &Path, initrd: Option<&Path>, line: &str) -> WorkloadSpec {
    let path = |path: &Path| path.display().to_string();
    WorkloadSpec {
        vm: Some(VmSpec {
            kernel: Some(path(kernel)),
            initrd: initrd.map(path),
            cmdline: line.to_owned(),
            memory: Some(Bytes(128 << 20)),
            ..VmSpec::default()
        }),
        ..WorkloadSpec::bare("guest")
    }
}

fn line_of(behaviour: &Behaviour) -> String {
    match behaviour {
        Behaviour::Forever => "hostler.end=wait".to_owned(),
        Behaviour::Exit(0) => "hostler.end=off".to_owned(),
        Behaviour::Exit(_) => "hostler.end=panic".to_owned(),
        Behaviour::PrintAndExit(lines) => {
            format!("hostler.say={} hostler.end=off", lines.join(","))
        }
        Behaviour::Print(lines) => format!("hostler.say={} hostler.end=wait", lines.join(",")),
        Behaviour::Obliging(_) => "hostler.say=ready hostler.end=wait".to_owned(),
        Behaviour::Stubborn => "hostler.say=ready hostler.end=ignore".to_owned(),
        Behaviour::Echo | Behaviour::Sizes => unreachable!("no command runs inside a guest"),
    }
}

pub(crate) fn vm(spec: &mut WorkloadSpec) -> &mut VmSpec {
    spec.vm.as_mut().unwrap()
}

pub(crate) fn next_generation(unit: &Unit) -> Unit {
    let mut next = unit.clone();
    next.id.generation += 1;
    next
}

#[tokio::test]
async fn the_machine_driver_keeps_the_contract_around_a_double_of_qemu() {
    let lab = Lab::double();
    contract::run_guests(&lab.subject()).await;
}

#[tokio::test]
async fn disks_of_a_machine_are_kept_until_they_are_discarded() {
    let lab = Lab::double();
    let driver = lab.driver();
    let spec = || {
        let mut spec = lab.guest(&line_of(&Behaviour::Forever));
        vm(&mut spec).disks.push(VmDisk {
            size: Some(Bytes(1 << 20)),
            ..VmDisk::default()
        });
        spec
    };
    contract::data_is_kept_until_it_is_discarded(&driver, spec()).await;
    let unit = contract::unit(spec());
    driver.prepare(&unit, &quiet).await.unwrap();
    driver.remove(unit.id, Data::Keep).await.unwrap();
    std::fs::remove_dir_all(lab.dir().join("whose")).unwrap();
    let told = driver.leftovers().unwrap().leftovers().await.unwrap();
    let nobodys = LeftoverKind::Data {
        assignment: unit.id.assignment,
        workload: None,
    };
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].kind, nobodys, "nothing says whose it is any more");
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn the_machine_driver_keeps_the_contract_with_real_guests() {
    let lab = Lab::real();
    contract::run_real_guests(&lab.subject()).await;
}

#[tokio::test]
async fn a_machine_that_is_refused_tells_why_and_leaves_no_run_and_its_log() {
    let lab = Lab::double();
    let driver = lab.driver();
    let unit = contract::unit(lab.guest("hostler.end=refuse"));
    driver.prepare(&unit, &quiet).await.unwrap();
    for _ in 0..2 {
        let error = driver.start(unit.id).await.unwrap_err();
        assert_eq!(error.code(), "vm-boot-failed");
        let text = error.to_string();
        assert!(text.contains("code 1"), "{text}");
        let said = text.matches("this machine is refused").count();
        assert_eq!(said, 1, "of this try alone: {text}");
        let found = contract::find(&driver, unit.id).await.unwrap();
        assert_eq!((found.state, found.runs), (FoundState::Prepared, 0));
    }
}

#[tokio::test]
async fn a_guest_is_looked_at_held_and_let_go_and_a_held_one_still_stops() {
    let lab = Lab::double();
    let driver = lab.driver();
    let unit = started(&driver, lab.guest("hostler.end=wait")).await;
    let guests = driver.guests().unwrap();
    let guest = guests.look(unit.id).await.unwrap();
    assert_eq!(guest.power, Power::Running);
    let address = guest.interfaces[0].address.unwrap();
    assert_eq!(address.to_string(), "10.0.2.15");
    guests.pause(unit.id).await.unwrap();
    assert_eq!(guests.look(unit.id).await.unwrap().power, Power::Paused);
    guests.resume(unit.id).await.unwrap();
    assert_eq!(guests.look(unit.id).await.unwrap().power, Power::Running);
    guests.pause(unit.id).await.unwrap();
    assert_eq!(driver.stop(unit.id).await.unwrap(), Exit::Code(0));
    assert_eq!(guests.look(unit.id).await.unwrap().power, Power::Shutdown);
    let stranger = contract::unit(lab.guest("")).id;
    let error = guests.pause(stranger).await.unwrap_err();
    assert!(matches!(error, RuntimeError::NotFound(_)), "{error}");
}

#[tokio::test]
async fn a_guest_whose_monitor_is_lost_is_cut_off_after_its_grace() {
    let lab = Lab::double();
    let driver = lab.driver();
    let mut spec = lab.guest("hostler.end=wait");
    spec.stop.grace_ms = 200;
    let unit = started(&driver, spec).await;
    std::fs::remove_file(lab.monitor(unit.id)).unwrap();
    assert_eq!(driver.stop(unit.id).await.unwrap(), Exit::Signal(9));
}

/// The machines of the assignment that run, by their command lines.
fn machines(unit: &Unit) -> usize {
    let mark = format!("\0-uuid\0{}\0", unit.id.assignment);
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let is_ours = |entry: &std::fs::DirEntry| {
        let line = std::fs::read_to_string(entry.path().join("cmdline"));
        line.is_ok_and(|line| line.contains(&mark))
    };
    processes.filter(is_ours).count()
}

#[tokio::test]
async fn verbs_that_are_dropped_half_way_never_make_two_machines_or_leave_one() {
    let lab = Lab::double();
    for round in 0..12 {
        let span = Duration::from_millis(round * 4);
        let unit = contract::unit(lab.guest("hostler.end=wait"));
        // A verb that is dropped may still be at work; the driver that was asked knows of it.
        let driver = lab.driver();
        let _ = tokio::time::timeout(span, driver.prepare(&unit, &quiet)).await;
        driver.prepare(&unit, &quiet).await.unwrap();
        let _ = tokio::time::timeout(span, driver.start(unit.id)).await;
        driver.start(unit.id).await.unwrap();
        assert_eq!(machines(&unit), 1, "round {round}");
        let found = contract::find(&driver, unit.id).await.unwrap();
        assert_eq!(found.runs, 1, "round {round}");
        let _ = tokio::time::timeout(span, driver.stop(unit.id)).await;
        driver.stop(unit.id).await.unwrap();
        assert_eq!(machines(&unit), 0, "round {round}");
        let _ = tokio::time::timeout(span, driver.remove(unit.id, Data::Delete)).await;
        driver.remove(unit.id, Data::Delete).await.unwrap();
        assert_eq!(contract::find(&driver, unit.id).await, None);
    }
}

#[tokio::test]
async fn a_machine_of_an_earlier_boot_of_the_node_is_over() {
    let lab = Lab::double();
    let unit = started(&lab.driver(), lab.guest("hostler.end=wait")).await;
    let dir = lab.dir().join("units").join(unit.id.to_string());
    let record = dir.join("runs/1.start");
    let mut start: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    // A power cut takes the shim and QEMU along, and the next boot has another id.
    start["boot_id"] = "another".into();
    std::fs::write(&record, start.to_string()).unwrap();
    let shim = i32::try_from(start["shim"]["pid"].as_i64().unwrap()).unwrap();
    let qemu: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("runs/1.child")).unwrap()).unwrap();
    let qemu = i32::try_from(qemu["pid"].as_i64().unwrap()).unwrap();
    crate::kill(shim, rustix::process::Signal::KILL);
    crate::kill(qemu, rustix::process::Signal::KILL);
    let driver = lab.driver();
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Unknown);
    driver.start(unit.id).await.unwrap();
    assert_eq!(contract::find(&driver, unit.id).await.unwrap().runs, 2);
}

#[tokio::test]
async fn what_the_node_cannot_give_is_told_by_its_code_and_leaves_nothing() {
    let lab = Lab::double();
    let driver = lab.driver();
    let case = async |change: fn(&mut VmSpec), code: &str| {
        let mut spec = lab.guest("");
        change(vm(&mut spec));
        let unit = contract::unit(spec);
        let error = driver.prepare(&unit, &quiet).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(contract::find(&driver, unit.id).await, None, "{code}");
        assert!(!lab.disks(&unit).exists(), "{code}");
    };
    case(|vm| vm.image = "absent".to_owned(), "image-not-found").await;
    case(|vm| vm.image = "https://x/y".to_owned(), "image-elsewhere").await;
    case(
        |vm| vm.initrd = Some("absent".to_owned()),
        "image-not-found",
    )
    .await;
    case(
        |vm| vm.accelerator = Some(Accelerator::Kvm),
        "accelerator-missing",
    )
    .await;
    let huge = |vm: &mut VmSpec| {
        vm.cloud_init = Some(CloudInit {
            user_data: "x".repeat(CloudInit::MOST_BYTES + 1),
            ..CloudInit::default()
        });
    };
    case(huge, "cloud-init-invalid").await;

    let mut spec = lab.guest("");
    vm(&mut spec).networks = vec![VmNetwork {
        bridge: Some("nobridge".to_owned()),
        ..VmNetwork::default()
    }];
    let unit = contract::unit(spec);
    driver.prepare(&unit, &quiet).await.unwrap();
    assert_eq!(
        driver.start(unit.id).await.unwrap_err().code(),
        "bridge-missing"
    );
    driver.remove(unit.id, Data::Delete).await.unwrap();

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut spec = lab.guest("");
    spec.ports = vec![PortMapping {
        name: None,
        host: taken.local_addr().unwrap().port(),
        target: Some(80),
        protocol: Protocol::Tcp,
    }];
    let unit = contract::unit(spec);
    driver.prepare(&unit, &quiet).await.unwrap();
    assert_eq!(
        driver.start(unit.id).await.unwrap_err().code(),
        "port-in-use"
    );
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert_eq!((found.state, found.runs), (FoundState::Prepared, 0));
    driver.remove(unit.id, Data::Delete).await.unwrap();
    assert_eq!(machines(&unit), 0);
    assert_eq!(files(&lab.dir()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_probe_says_what_is_there_and_what_is_missing() {
    let mut lab = Lab::double();
    let broken = |lab: &Lab| {
        let driver = lab.driver();
        async move { driver.probe().await }
    };
    lab.settings.qemu_img = "/no/such/qemu-img".to_owned();
    let fact = broken(&lab).await;
    assert!(
        !fact.available && fact.note.contains("/no/such/qemu-img"),
        "{fact:?}"
    );
    assert_eq!(fact.version, "8.2.1");
    lab.settings.qemu = "/no/such/qemu".to_owned();
    let fact = broken(&lab).await;
    assert!(
        !fact.available && fact.note.contains("/no/such/qemu"),
        "{fact:?}"
    );
}

/// A disk with an image, an empty one, what cloud-init reads, and a port that leads in.
fn furnished(lab: &Lab, port: u16) -> WorkloadSpec {
    let images = lab.home.path().join("images");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::write(
        images.join("base.raw"),
        [b"base".as_slice(), &[0; 4092]].concat(),
    )
    .unwrap();
    let mut spec = lab.guest("hostler.disks=1 hostler.net=10.0.2.15/24 hostler.end=wait");
    spec.stop.grace_ms = 60_000;
    spec.ports = vec![PortMapping {
        name: None,
        host: port,
        target: Some(80),
        protocol: Protocol::Tcp,
    }];
    let vm = vm(&mut spec);
    vm.image = "base".to_owned();
    vm.disks = vec![VmDisk {
        size: Some(Bytes(1 << 30)),
        ..VmDisk::default()
    }];
    vm.cloud_init = Some(CloudInit {
        user_data: "#cloud-config of the test\n".to_owned(),
        ..CloudInit::default()
    });
    spec
}

/// What the guest's web server says, if it does.
fn fetched(server: (&str, u16)) -> Option<String> {
    use std::net::ToSocketAddrs as _;
    let patience = Duration::from_secs(20);
    let server = server.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&server, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_real_guest_has_its_disks_its_seed_and_its_network_and_keeps_its_data() {
    let lab = Lab::real();
    let driver = lab.driver();
    let fact = driver.probe().await;
    assert!(fact.available && fact.version.ends_with(" tcg"), "{fact:?}");
    let port = free_port();
    let unit = started(&driver, furnished(&lab, port)).await;
    let first = lines(&driver, unit.id, 5).await;
    assert_eq!(
        first,
        [
            "vda: base",
            "vdb: ",
            "seed: #cloud-config of the test",
            "files: meta-data network-config user-data",
            "up",
        ]
    );
    until("the port leads in", async || {
        fetched(("127.0.0.1", port)).is_some_and(|answer| answer.contains("hello from the guest"))
    })
    .await;
    let stats = driver.stats().unwrap().measure(unit.id).await.unwrap();
    assert!(stats.cpu_nanos > 0 && stats.memory > 0, "{stats:?}");
    let guests = driver.guests().unwrap();
    guests.pause(unit.id).await.unwrap();
    assert_eq!(guests.look(unit.id).await.unwrap().power, Power::Paused);

    // The next generation is prepared while this one runs, and finds what it wrote.
    let next = next_generation(&unit);
    driver.prepare(&next, &quiet).await.unwrap();
    assert_eq!(driver.stop(unit.id).await.unwrap(), Exit::Code(0));
    driver.remove(unit.id, Data::Keep).await.unwrap();
    driver.start(next.id).await.unwrap();
    let second = lines(&driver, next.id, 5).await;
    assert_eq!(second[..2], ["vda: dirty", "vdb: dirty"]);
    let base = std::fs::read(lab.home.path().join("images/base.raw")).unwrap();
    assert!(base.starts_with(b"base"), "the image is never written to");
    driver.remove(next.id, Data::Delete).await.unwrap();
    assert!(!lab.disks(&unit).exists());
}

/// A bridge of the node, with an address of a range that is set aside for tests.
struct Bridge {
    name: String,
    address: String,
}

impl Bridge {
    fn new() -> Self {
        let number = std::process::id();
        let bridge = Self {
            name: format!("hvm{}", number % 100_000),
            address: format!("198.19.{}", number % 250),
        };
        let name = bridge.name.as_str();
        let own = format!("{}.1/24", bridge.address);
        for words in [
            &["link", "add", "name", name, "type", "bridge"][..],
            &["addr", "add", &own, "dev", name],
            &["link", "set", name, "up"],
        ] {
            let done = std::process::Command::new("ip").args(words).status();
            assert!(done.unwrap().success(), "ip {words:?}");
        }
        bridge
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let words = ["link", "delete", &self.name, "type", "bridge"];
        let _ = std::process::Command::new("ip").args(words).status();
    }
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_real_guest_on_a_bridge_is_reached_and_its_address_is_found() {
    let bridge = Bridge::new();
    let lab = Lab::real();
    let driver = lab.driver();
    let guest = format!("{}.5", bridge.address);
    let mut spec = lab.guest(&format!("hostler.net={guest}/24 hostler.end=wait"));
    vm(&mut spec).networks = vec![VmNetwork {
        bridge: Some(bridge.name.clone()),
        dhcp: true,
        ..VmNetwork::default()
    }];
    let unit = started(&driver, spec).await;
    let guests = driver.guests().unwrap();
    let known = guests.look(unit.id).await.unwrap().interfaces[0].address;
    assert_eq!(known, None, "nobody has spoken to it yet");
    let said = |answer: String| answer.contains("hello from the guest");
    until("the guest answers on the bridge", async || {
        fetched((guest.as_str(), 80)).is_some_and(said)
    })
    .await;
    let known = guests.look(unit.id).await.unwrap().interfaces[0].address;
    assert_eq!(known, Some(guest.parse().unwrap()));
    driver.remove(unit.id, Data::Delete).await.unwrap();
    let ports = format!("/sys/class/net/{}/brif", bridge.name);
    until("the guest's port of the bridge is gone", async || {
        std::fs::read_dir(&ports).unwrap().next().is_none()
    })
    .await;
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn real_qemu_refuses_what_it_cannot_boot_and_damaged_images_are_found_first() {
    let lab = Lab::real();
    let driver = lab.driver();
    let mut spec = lab.guest("");
    let nonsense = lab.home.path().join("nonsense");
    std::fs::write(&nonsense, "no kernel").unwrap();
    vm(&mut spec).kernel = Some(nonsense.display().to_string());
    vm(&mut spec).initrd = None;
    let unit = contract::unit(spec);
    driver.prepare(&unit, &quiet).await.unwrap();
    let error = driver.start(unit.id).await.unwrap_err();
    assert_eq!(error.code(), "vm-boot-failed", "{error}");
    assert!(error.to_string().contains("kernel"), "{error}");
    driver.remove(unit.id, Data::Delete).await.unwrap();

    let whole = lab.home.path().join("whole.qcow2");
    let filled = lab.home.path().join("filled");
    std::fs::write(&filled, vec![7; 4 << 20]).unwrap();
    let made = std::process::Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&filled, &whole])
        .status()
        .unwrap();
    assert!(made.success());
    let bytes = std::fs::read(&whole).unwrap();
    let (cut, torn) = (
        lab.home.path().join("cut.qcow2"),
        lab.home.path().join("torn.qcow2"),
    );
    std::fs::write(&cut, &bytes[..300_000]).unwrap();
    let mut head = bytes;
    head[40..48].fill(0xff);
    std::fs::write(&torn, head).unwrap();
    for damaged in [cut, torn] {
        let mut spec = lab.guest("");
        vm(&mut spec).image = damaged.display().to_string();
        let unit = contract::unit(spec);
        let error = driver.prepare(&unit, &quiet).await.unwrap_err();
        assert_eq!(error.code(), "image-corrupt", "{error}");
        assert!(!lab.disks(&unit).exists());
        assert_eq!(contract::find(&driver, unit.id).await, None);
        assert_eq!(machines(&unit), 0);
    }
    assert_eq!(files(&lab.dir()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_log_of_a_guest_has_no_typewriter_in_it() {
    let lab = Lab::double();
    let driver = lab.driver();
    let unit = started(&driver, lab.guest("hostler.say=one,two hostler.end=wait")).await;
    assert_eq!(lines(&driver, unit.id, 2).await, ["one", "two"]);
    assert!(is_running(&driver, unit.id).await);
    let since = LogQuery {
        run: Run::Latest,
        since: Some(Timestamp::default()),
        ..LogQuery::default()
    };
    assert_eq!(contract::texts(&driver, unit.id, &since, 2).await.len(), 2);
}
