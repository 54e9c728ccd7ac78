//! A small board: a machine of another family with little memory, emulated. What it boots has our program, built for it,
//! and nothing else that is ours; `init.sh` of the lane says what its first system does.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::guarded::Guarded;
use crate::packages::{done, found, package_of};
use crate::program::{Running, eventually};

/// Where `cargo xtask test` has put what the board boots from, and the program.
const BOARD: &str = "HOSTLER_TEST_ARM";
/// That of the smallest boards which are sold.
const MEMORY_MIB: u64 = 512;
/// What the emulator makes of our loopback for its guests.
const OUTSIDE: &str = "10.0.2.2";

fn lane() -> PathBuf {
    let folder = std::env::var_os(BOARD);
    folder.expect("the lane names its folder").into()
}

#[test]
#[ignore = "needs arm"]
fn the_program_for_arm_needs_no_loader_and_no_library() {
    let mut readelf = Command::new("readelf");
    readelf.args(["--file-header", "--program-headers", "--dynamic", "--wide"]);
    let told = done(readelf.arg(lane().join("hostler")));
    let machine = told.lines().find(|line| line.contains("Machine:"));
    assert!(machine.unwrap().ends_with("AArch64"), "{machine:?}");
    assert!(told.contains(" LOAD "), "{told}");
    for dynamic in [" INTERP ", "(NEEDED)"] {
        assert!(!told.contains(dynamic), "{told}");
    }
}

#[test]
#[ignore = "needs arm and cargo-deb"]
fn the_debian_package_for_arm_is_of_that_family_and_depends_on_nothing() {
    let program = lane().join("hostler");
    let words = ["deb", "--target", "aarch64-unknown-linux-musl", "--speaker"];
    let words = [&words[..], &[env!("CARGO_BIN_EXE_hostler")]].concat();
    let out = package_of(&program, &words, None);
    let deb = found(out.path(), "_arm64.deb");
    let told = |words: &[&str]| done(Command::new("dpkg-deb").args(words).arg(&deb));
    assert_eq!(
        told(&["--show", "--showformat=${Architecture} ${Depends}"]),
        "arm64 "
    );
    let whole = out.path().join("whole");
    std::fs::create_dir(&whole).unwrap();
    done(Command::new("dpkg-deb").arg("-x").args([&deb, &whole]));
    let packed = std::fs::read(whole.join("usr/bin/hostler")).unwrap();
    assert!(
        packed == std::fs::read(program).unwrap(),
        "it is that program"
    );
    assert!(whole.join("usr/share/man/man1/hostler-run.1").is_file());
}

/// Boots a board whose agents know the doors of this server: ours, and Orchion's.
fn boot(fleet: &Guarded, orchion: &str) -> Running {
    let folder = lane();
    let port = |addr: &str| addr.rsplit(':').next().unwrap().to_owned();
    let words = format!(
        "console=ttyAMA0 quiet panic=-1 hostler.console=ttyAMA0 hostler.agent=https://{OUTSIDE}:{} \
         hostler.token={} hostler.orchion={OUTSIDE}:{}",
        port(&fleet.listen),
        fleet.join_token.trim(),
        port(orchion)
    );
    let mut qemu = Command::new("qemu-system-aarch64");
    qemu.args(["-machine", "virt,accel=tcg", "-cpu", "cortex-a53"])
        .args(["-smp", "2", "-m", &MEMORY_MIB.to_string()])
        .args(["-nographic", "-no-reboot"])
        .args(["-nic", "user,model=virtio-net-pci"])
        .arg("-kernel")
        .arg(folder.join("kernel"))
        .arg("-initrd")
        .arg(folder.join("initrd"))
        .args(["-append", &words])
        .stdin(Stdio::null());
    Running::start(&mut qemu)
}

/// A process that leaves its pid in its log, tries what only root may, and sleeps.
const LONG: &str = "name: long\nprocess: { command: [sh, -c, \
    'echo $$; mount -t tmpfs x /mnt 2>&1; exec sleep 100000'], seccomp: default }\n";

fn copy(fleet: &Guarded, workload: &str) -> Value {
    let told = fleet.admin(&["ps", workload, "--output", "json"]);
    told.with_code(0).json()[0].clone()
}

fn apply(fleet: &Guarded, spec: &str) {
    let path = fleet.path().join("spec.yaml");
    std::fs::write(&path, spec).unwrap();
    let words = ["apply", "-f", path.to_str().unwrap()];
    fleet.admin(&words).with_code(0);
}

#[test]
#[ignore = "needs arm"]
fn a_small_board_joins_by_both_contracts_and_brings_back_what_is_killed_there() {
    let door = ["--compat", "orchion=127.0.0.1:0"];
    let rules = [
        "--compat-auth",
        "orchion=contract",
        "--compat-tls",
        "orchion=sniff",
    ];
    let mut fleet = Guarded::with(&[&door[..], &rules].concat());
    let server = fleet.server.as_mut().unwrap();
    let orchion = server.line("listening on https and http://");
    let orchion = orchion.split("http://").nth(1).unwrap();
    let orchion = orchion.split(' ').next().unwrap();
    let mut board = boot(&fleet, orchion);

    // What it is.
    board.line("joined the fleet");
    fleet.wait_for("board", "ready");
    let node = fleet.node("board");
    assert_eq!(node["facts"]["arch"], "aarch64", "{node}");
    let memory = node["capacity"]["memory_bytes"].as_u64().unwrap();
    assert!(memory < MEMORY_MIB << 20, "{node}");
    fleet.wait_for("by-orchion", "ready");
    assert_eq!(fleet.node("by-orchion")["facts"]["arch"], "aarch64");

    // Work that comes to its end.
    let words = ["run", "short", "--job", "--retries", "0", "--detach"];
    let script = ["--", "sh", "-c", "uname -m; exit 7"];
    fleet.admin(&[&words[..], &script].concat()).with_code(0);
    eventually("how it ended is told", || {
        let told = fleet.admin(&["job", "ls", "short"]).stdout;
        told.contains("failed") && told.contains("exit code 7")
    });
    assert_eq!(fleet.admin(&["logs", "short"]).stdout, "aarch64\n");

    // Work that goes on, behind the filter of that family's system calls, and is killed.
    apply(&fleet, LONG);
    let pid = || {
        let mut log = String::new();
        eventually("it has been refused what the filter refuses", || {
            log = fleet.admin(&["logs", "long"]).stdout;
            log.contains("permission denied")
        });
        log.lines().next().unwrap().to_owned()
    };
    let first = pid();
    let within = |script: &str| fleet.admin(&["exec", "long", "--", "sh", "-c", script]);
    within(&format!("kill -9 {first}"));
    let runs_again = || {
        let copy = copy(&fleet, "long");
        copy["runs"] == 2 && copy["state"]["word"] == "running"
    };
    eventually("it runs again", runs_again);
    let second = pid();
    assert_ne!(first, second);

    // The agent is killed, and the work is not.
    within("kill -9 $(cat /var/agent)");
    board.line("the agent ended with 137");
    eventually("the next agent is there", || {
        board.said().matches("joined the fleet").count() == 2
    });
    eventually("it has found the work", runs_again);
    within(&format!("kill -0 {second}")).with_code(0);
}
