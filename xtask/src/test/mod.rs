//! `test`: prepares what the tests need, runs them all, says what was left out and why.
//!
//! Tests that need a real component are ignored by default, `#[ignore = "needs docker"]`. Each such component
//! is a *lane*. A lane is on if the component is here or can be had: on Debian and as root it is installed,
//! and for `docker` and `podman` an engine of our own is started, with its own data and socket, and stopped
//! again in every case. Nothing is asked. What was started lives in temporary folders.
//!
//! Settings, by environment: `HOSTLER_TEST_DOCKER=unix:///…` uses that engine instead (it must have the image
//! `busybox:local`); `HOSTLER_TEST_PODMAN` likewise. `HOSTLER_TEST_MACHINE=<folder>` has the `kernel` and `initrd`
//! that guests boot from in the lane `qemu`; `HOSTLER_TEST_ARM=<folder>` has those of the lane `arm`, and the program. `HOSTLER_PREVIOUS=<file>` is the program of the version before; without it
//! the newest tag `v…` is built, and while there is none the lane `previous` is left out.

mod board;
mod engine;
mod image;
mod lanes;
mod machine;
mod podman;
mod previous;
pub(crate) mod provision;
mod runner;
mod system;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::engine::Engine;
use self::lanes::{Lane, Plan};
use self::machine::Machine;
use self::podman::Podman;

/// Where tests find a Docker engine.
const DOCKER: &str = "HOSTLER_TEST_DOCKER";
const PODMAN: &str = "HOSTLER_TEST_PODMAN";
/// Where tests find what guests boot from.
const MACHINE: &str = "HOSTLER_TEST_MACHINE";

/// How long the random and simulated campaigns are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// As in every CI run.
    Short,
    /// As in a night.
    Full,
}

/// What makes the campaigns long. Tests read these names and have short defaults.
const FULL_LENGTH: [(&str, &str); 6] = [
    // Cases of each property test that does not fix its own number.
    ("PROPTEST_CASES", "20000"),
    // Histories of a small fleet.
    ("HOSTLER_TEST_CASES", "20000"),
    // Random kills of a child that writes to the store.
    ("HOSTLER_STORE_KILLS", "1000"),
    // Random kills of server and agent under load.
    ("HOSTLER_TEST_ROUNDS", "1000"),
    // Ends of an agent, of its engine and of the machine, for each driver.
    ("HOSTLER_DRIVER_ROUNDS", "100"),
    // Seeds of the simulated fleet.
    ("HOSTLER_SIM_SEEDS", "10000"),
];

/// Prepares, runs, cleans up. The last thing printed is the runner's summary.
pub(crate) fn main(length: Length) -> Result<ExitCode> {
    let stop = Stop::listen()?;
    provision::install_what_is_missing();
    let ignored = lanes::ignored_tests()?;
    let (docker, engine) = docker();
    let (podman, service) = podman();
    let (qemu, machine) = qemu();
    let composes = [lanes::compose(&docker), lanes::compose_v2(&docker)];
    let (before, program) = previous::lane();
    let systemd = systemd(machine.as_ref());
    let (arm, board) = board::lane();
    let engines = [docker, podman, qemu, systemd, before, arm]
        .into_iter()
        .chain(composes)
        .collect();
    let mut plan = Plan::new(&ignored, engines);
    if length == Length::Full {
        for (name, value) in FULL_LENGTH {
            plan.set(name, value);
        }
        // Another night, other kills; a failing test prints its seed.
        plan.set("HOSTLER_TEST_SEED", &std::process::id().to_string());
    }
    if let Some(engine) = &engine {
        plan.set(DOCKER, &engine.address());
    }
    if let Some(service) = &service {
        plan.set(PODMAN, &service.address());
    }
    if let Some(machine) = &machine {
        plan.set(MACHINE, &machine.folder());
    }
    for (name, path) in [(previous::VARIABLE, program), (board::VARIABLE, board)] {
        if let Some(path) = path {
            plan.set(name, &path.display().to_string());
        }
    }
    let result = runner::run(&plan, length, &stop);
    drop((engine, service));
    result
}

/// The docker lane, and the engine behind it if it is one of ours.
fn docker() -> (Lane, Option<Engine>) {
    if let Some(given) = std::env::var_os(DOCKER) {
        return (
            Lane::on("docker", format!("the engine at {}", given.display())),
            None,
        );
    }
    match Engine::start() {
        Ok(engine) => (Lane::on("docker", engine.description()), Some(engine)),
        Err(error) => (Lane::off("docker", format!("{error:#}")), None),
    }
}

/// The podman lane, and the service behind it if it is one of ours.
fn podman() -> (Lane, Option<Podman>) {
    if let Some(given) = std::env::var_os(PODMAN) {
        let with = format!("the service at {}", given.display());
        return (Lane::on("podman", with), None);
    }
    match Podman::start() {
        Ok(service) => (Lane::on("podman", service.description()), Some(service)),
        Err(error) => (Lane::off("podman", format!("{error:#}")), None),
    }
}

/// The lane of real guests, and what they boot from if it was prepared here.
fn qemu() -> (Lane, Option<Machine>) {
    if let Some(given) = std::env::var_os(MACHINE) {
        let with = format!("QEMU, emulating, with what is in {}", given.display());
        return (Lane::on("qemu", with), None);
    }
    match Machine::prepare() {
        Ok(machine) => (Lane::on("qemu", machine.description()), Some(machine)),
        Err(error) => (Lane::off("qemu", format!("{error:#}")), None),
    }
}

/// The lane of a guest that systemd runs.
fn systemd(machine: Option<&Machine>) -> Lane {
    const NAME: &str = "systemd";
    let Some(machine) = machine else {
        return Lane::off(NAME, "no guest was prepared here".to_owned());
    };
    match system::prepare(machine) {
        Ok(()) => Lane::on(NAME, "a guest with the distribution's systemd".to_owned()),
        Err(error) => Lane::off(NAME, format!("{error:#}")),
    }
}

/// Remembers that somebody asked us to stop, so that we clean up before we do.
pub(crate) struct Stop(Arc<AtomicUsize>);

impl Stop {
    fn listen() -> Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM] {
            let value = usize::try_from(number).context("a signal is a small number")?;
            signal_hook::flag::register_usize(number, Arc::clone(&signal), value)
                .context("listen for signals")?;
        }
        Ok(Self(signal))
    }

    /// The signal, if one came.
    fn asked(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }
}
