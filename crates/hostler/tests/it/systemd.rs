//! A machine that systemd runs, from nothing to nothing: what `hostler install` makes of it, and what becomes of work
//! when its services are stopped, killed, hung, restarted, replaced and taken off, alone and with their package. The guest does the steps of
//! `systemd/check.sh` by itself and writes what came of each to its console.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::packages::{package, unpacked};
use crate::program::Ended;

/// Where `cargo xtask test` has put what guests boot from.
const MACHINE: &str = "HOSTLER_TEST_MACHINE";
const CHECK: &str = include_str!("systemd/check.sh");

/// An archive with the bundle and the steps, as the guest's second disk.
fn archive(folder: &Path) -> std::path::PathBuf {
    let made = package(&["bundle", "--without", "images"], None);
    let bundle = unpacked(made.path());
    let inside = folder.join("inside");
    std::fs::create_dir(&inside).unwrap();
    std::fs::rename(bundle, inside.join("bundle")).unwrap();
    std::fs::write(inside.join("check.sh"), CHECK).unwrap();
    let archive = folder.join("archive");
    let mut tar = Command::new("tar");
    // A disk is whole blocks.
    tar.args(["--record-size=1M", "-cf"]).arg(&archive);
    tar.arg("-C").arg(&inside).args(["check.sh", "bundle"]);
    Ended::from(tar.output().unwrap()).with_code(0);
    archive
}

#[test]
#[ignore = "needs systemd and cargo-deb"]
#[expect(
    clippy::disallowed_methods,
    reason = "the lane tells where its machine is"
)]
fn services_of_a_real_systemd_come_go_and_leave_work_alone() {
    let machine = std::env::var(MACHINE).expect("the lane names its machine");
    let machine = Path::new(&machine);
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path());
    let disk = |file: &Path, snapshot| {
        let file = file.display();
        format!("file={file},if=virtio,format=raw,snapshot={snapshot}")
    };
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-machine",
        "accel=tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "1024",
    ])
    .args(["-nographic", "-no-reboot", "-nic", "none"])
    .arg("-kernel")
    .arg(machine.join("kernel"))
    .arg("-initrd")
    .arg(machine.join("initrd"))
    .args([
        "-append",
        "console=ttyS0 quiet panic=-1 systemd.show_status=0 hostler.root=vda",
    ])
    .args(["-drive", &disk(&machine.join("system.disk"), "on")])
    .args(["-drive", &disk(&archive, "on")])
    .stdin(Stdio::null());
    let said = Ended::from(qemu.output().unwrap()).stdout;
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    let done = lines
        .iter()
        .filter(|line| line.starts_with("did: "))
        .count();
    let steps = CHECK
        .lines()
        .filter(|line| line.starts_with("step "))
        .count();
    assert!(
        lines.contains(&"all done") && done == steps,
        "{done} of {steps} steps were done:\n{said}"
    );
}
