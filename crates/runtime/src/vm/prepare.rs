//! Making a machine ready: everything that can be refused is looked at before anything is made.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostler_model::FailureCode;
use hostler_model::spec::{Stop, VmSpec, WorkloadSpec};

use super::images::refused;
use super::record::{self, Machine};
use super::{Inner, command, disks, networks, probe, seed};
use crate::{RuntimeError, Unit, disk};

impl Inner {
    pub(super) async fn prepare(&self, unit: &Unit) -> Result<(), RuntimeError> {
        match self.process.look(unit.id).await {
            Ok(_) => return Ok(()),
            Err(RuntimeError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let Some(vm) = &unit.spec.vm else {
            let message = "the spec has no vm section".to_owned();
            return Err(refused(FailureCode::VmRefused, message));
        };
        unit.check_volumes()?;
        let engine = probe::engine(self.settings.accelerator, vm.accelerator, probe::has_kvm())?;
        let version = probe::numbers(&probe::version(&self.settings.qemu).await?);
        let kernel = self.kernel(vm)?;
        let wanted = disks::plan(vm, &self.images)?;
        let nics = networks::cards(vm, unit.id.assignment);
        let seed = seed::image(unit, &nics)?;
        let dir = self.disks_of(unit.id.assignment);
        let _hold = self.whose.hold(unit.id.assignment).await;
        let is_first = self.note_whose(unit, !wanted.is_empty()).await?;
        let made = disks::make(wanted, &dir, &self.tool).await;
        if made.is_err() && is_first {
            self.whose.forget(unit.id.assignment).await?;
        }
        let mut disks = made?;
        disks.extend(disks::of_volumes(&unit.volumes));
        let machine = Machine {
            grace_ms: unit.spec.stop.grace_ms,
            ports: unit.spec.ports.clone(),
            disks,
            nics,
        };
        let is_root = rustix::process::geteuid().is_root();
        let mut command = vec![self.settings.qemu.clone()];
        command.extend(command::arguments(&command::Told {
            unit: unit.id,
            name: &format!("{}-{}", unit.workload_name, unit.slot),
            spec: &unit.spec,
            vm,
            machine: &machine,
            engine,
            version,
            has_seed: seed.is_some(),
            kernel,
            is_root,
        }));
        let unit = Unit {
            spec: Arc::new(process_of(&unit.spec, command)),
            ..unit.clone()
        };
        let filled = move |work: &Path| fill(work, &machine, seed.as_deref());
        self.process.prepare_with(&unit, filled).await
    }

    /// Answers whether its data, if it has any, is noted for the first time.
    async fn note_whose(&self, unit: &Unit, has_disks: bool) -> Result<bool, RuntimeError> {
        if !has_disks {
            return Ok(false);
        }
        let noted = self
            .whose
            .note(unit.id.assignment, unit.workload, self.now());
        noted.await
    }

    fn kernel(&self, vm: &VmSpec) -> Result<Option<(PathBuf, Option<PathBuf>)>, RuntimeError> {
        let Some(kernel) = &vm.kernel else {
            return Ok(None);
        };
        let initrd = vm.initrd.as_ref().map(|initrd| self.images.find(initrd));
        Ok(Some((self.images.find(kernel)?, initrd.transpose()?)))
    }
}

/// The machine as a process: QEMU's own limits are its guest's, and being asked to end means nothing to a guest, so
/// the process driver only ever kills it.
fn process_of(spec: &WorkloadSpec, command: Vec<String>) -> WorkloadSpec {
    let mut process = WorkloadSpec::of_process(&spec.name, command);
    process.resources.cpu = spec.resources.cpu;
    process.limits = spec.limits.clone();
    process.stop = Stop {
        grace_ms: 0,
        ..Stop::default()
    };
    process
}

/// Writes what QEMU finds in its working directory.
fn fill(work: &Path, machine: &Machine, seed: Option<&[u8]>) -> io::Result<()> {
    if let Some(seed) = seed {
        // It may hold secrets.
        write(&work.join(record::SEED), seed, 0o600)?;
    }
    for (name, text) in command::scripts(&machine.nics) {
        write(&work.join(name), text.as_bytes(), 0o700)?;
    }
    disk::write_whole(&work.join(record::FILE), machine)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    options.open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use hostler_model::spec::Kind;

    use super::*;

    #[test]
    fn the_process_of_a_machine_is_bound_by_what_is_said_and_only_killed() {
        let mut spec = WorkloadSpec::bare("db");
        spec.resources.memory = hostler_model::Bytes(1 << 30);
        spec.resources.cpu = hostler_model::MilliCpu(500);
        spec.env.insert("LD_PRELOAD".to_owned(), "x".to_owned());
        spec.stop.grace_ms = 30_000;
        let process = process_of(&spec, vec!["qemu".to_owned()]);
        assert_eq!(process.kind(), Kind::Process);
        assert_eq!(process.resources.cpu.0, 500);
        assert_eq!(
            process.resources.memory.0, 0,
            "QEMU needs more than its guest"
        );
        assert_eq!(process.stop.grace_ms, 0);
        assert!(process.env.is_empty(), "the guest has no environment");
    }
}
