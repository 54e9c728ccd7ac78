//! This machine: files that may be open, control groups, room on disks, accelerators, machines' programs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hostler_agent::{LocalMachine, Machine as _};
use hostler_shim::cgroup::{self, Cgroups};
use rustix::process::Resource;

use super::finding::{Finding, Gravity, here};

/// Every connection, log and unit is a file; fewer end a server of a few hundred nodes.
const FEW_FILES: u64 = 4_096;
/// With fewer nothing runs for long.
const NO_FILES: u64 = 256;
/// Hundredths of a disk in use.
const FULL: u64 = 97;
const NEARLY_FULL: u64 = 90;
/// How long a program may take to tell about the machine.
const ASKING: Duration = Duration::from_secs(5);

pub(super) async fn examine(data_dirs: &[PathBuf], is_root: bool) -> Vec<Finding> {
    let mut findings: Vec<Finding> = files(limit_of_files()).into_iter().collect();
    findings.extend(control_groups(Path::new(cgroup::ROOT), is_root));
    for data_dir in data_dirs {
        findings.extend(room(data_dir));
    }
    findings.extend(accelerators().await);
    findings.extend(machines());
    findings
}

/// What this process may open at most; none is no limit.
fn limit_of_files() -> Option<u64> {
    let limits = rustix::process::getrlimit(Resource::Nofile);
    limits.maximum
}

fn files(limit: Option<u64>) -> Option<Finding> {
    let limit = limit.filter(|limit| *limit < FEW_FILES)?;
    let gravity = if limit < NO_FILES {
        Gravity::Problem
    } else {
        Gravity::Warning
    };
    let sentence = format!("a process may open {limit} files at most");
    let advice = "raise it: `ulimit -Hn`, or LimitNOFILE= of the service";
    Some(here(gravity, sentence, advice))
}

fn control_groups(root: &Path, is_root: bool) -> Option<Finding> {
    let advice = "boot with unified control groups (systemd.unified_cgroup_hierarchy=1), and run the agent as root";
    if is_root {
        let note = Cgroups::detect(root).note();
        return (!note.is_empty()).then(|| here(Gravity::Warning, note, advice));
    }
    let controllers = std::fs::read_to_string(root.join("cgroup.controllers"));
    let Ok(controllers) = controllers else {
        let sentence = "there are no unified control groups: who is not root can enforce no limits";
        return Some(here(Gravity::Note, sentence, advice));
    };
    let missing: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| !controllers.split_whitespace().any(|it| it == *name))
        .collect();
    let sentence = format!(
        "the controllers {} are missing: their limits are not enforced",
        missing.join(", ")
    );
    (!missing.is_empty()).then(|| here(Gravity::Warning, sentence, advice))
}

/// Of the file system that a directory is on, or will be.
fn room(data_dir: &Path) -> Vec<Finding> {
    let present = data_dir.ancestors().find(|path| path.is_dir());
    let Some(file_system) = present.and_then(|path| LocalMachine::new().file_system(path)) else {
        return Vec::new();
    };
    let inodes = file_system.inodes.map(|share| ("inodes", share));
    let shares = [Some(("room", file_system.bytes)), inodes];
    let found = shares.into_iter().flatten().filter_map(|(what, share)| {
        let gravity = match share.percent_used() {
            FULL.. => Gravity::Problem,
            NEARLY_FULL.. => Gravity::Warning,
            _ => return None,
        };
        let sentence = format!("{} % of the {what} on the disk of {} is used", share.percent_used(), data_dir.display());
        let advice = "delete what nothing needs: `hostler node gc NODE --dry-run` says what Hostler could delete";
        Some(here(gravity, sentence, advice))
    });
    found.collect()
}

/// A machine without accelerators lacks nothing.
async fn accelerators() -> Option<Finding> {
    let devices = devices(Path::new("/dev"));
    let listed = output("nvidia-smi", &["-L"]).await;
    accelerators_of(devices, listed.as_deref())
}

fn devices(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_device = |name: &String| {
        let number = name.strip_prefix("nvidia").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    names.filter(is_device).count()
}

fn accelerators_of(devices: usize, listed: Option<&str>) -> Option<Finding> {
    let names: Vec<&str> = listed
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with("GPU "))
        .map(|line| line.split(" (UUID").next().unwrap_or(line))
        .collect();
    match (devices, listed, names.as_slice()) {
        (0, None, _) => None,
        (_, Some(_), [_, ..]) => Some(here(
            Gravity::Note,
            format!("it has {}", names.join(", ")),
            "",
        )),
        (0, Some(_), []) => Some(here(
            Gravity::Warning,
            "nvidia-smi is there and finds no GPU",
            "look at `dmesg | grep -i nvidia`: the driver and the kernel may not fit each other",
        )),
        (count, _, _) => Some(here(
            Gravity::Warning,
            format!("there are {count} devices /dev/nvidia*, and nvidia-smi does not tell of them"),
            "install the tools of the driver's version, and look at `nvidia-smi`",
        )),
    }
}

/// What virtual machines need.
fn machines() -> Option<Finding> {
    let emulator = format!("qemu-system-{}", std::env::consts::ARCH);
    let has = |program: &str| {
        let path =
            std::env::split_paths("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        path.map(|place| place.join(program))
            .any(|file| file.is_file())
    };
    if !has(&emulator) {
        return Some(here(
            Gravity::Note,
            format!("there is no {emulator}, so no virtual machines can run here"),
            "install QEMU if they should",
        ));
    }
    if !has("qemu-img") {
        return Some(here(
            Gravity::Warning,
            "there is QEMU and no qemu-img, so no disks of virtual machines can be made",
            "install the package that has it, such as qemu-utils",
        ));
    }
    let kvm = Path::new("/dev/kvm").exists();
    (!kvm).then(|| {
        here(
            Gravity::Note,
            "there is no /dev/kvm: virtual machines are emulated, and slow",
            "turn virtualisation on in the firmware, or allow it to this guest",
        )
    })
}

/// What a program says, if it is there, ends well and takes no longer than [`ASKING`].
async fn output(program: &str, words: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new(program);
    let asked = command
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let told = tokio::time::timeout(ASKING, asked).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    told.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gravity(finding: Option<Finding>) -> Option<Gravity> {
        finding.map(|it| it.gravity)
    }

    #[test]
    fn few_files_are_told_and_many_are_not() {
        assert_eq!(gravity(files(None)), None);
        assert_eq!(gravity(files(Some(65_536))), None);
        assert_eq!(gravity(files(Some(1_024))), Some(Gravity::Warning));
        assert_eq!(gravity(files(Some(64))), Some(Gravity::Problem));
    }

    #[test]
    fn a_machine_without_accelerators_lacks_nothing() {
        let one = "GPU 0: NVIDIA X (UUID: GPU-1)\n";
        assert_eq!(accelerators_of(0, None), None);
        let found = accelerators_of(1, Some(one)).unwrap();
        assert_eq!(
            (found.gravity, found.sentence.as_str()),
            (Gravity::Note, "it has GPU 0: NVIDIA X")
        );
        assert_eq!(gravity(accelerators_of(2, None)), Some(Gravity::Warning));
        assert_eq!(
            gravity(accelerators_of(0, Some(""))),
            Some(Gravity::Warning)
        );
        let dev = tempfile::tempdir().unwrap();
        for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "sda"] {
            std::fs::write(dev.path().join(name), "").unwrap();
        }
        assert_eq!(devices(dev.path()), 2);
    }

    #[test]
    fn missing_controllers_are_named() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(
            gravity(control_groups(root.path(), false)),
            Some(Gravity::Note)
        );
        let file = root.path().join("cgroup.controllers");
        std::fs::write(&file, "cpuset cpu io memory pids\n").unwrap();
        assert_eq!(control_groups(root.path(), false), None);
        std::fs::write(&file, "cpuset cpu\n").unwrap();
        let found = control_groups(root.path(), false).unwrap();
        assert!(
            found.sentence.contains("memory, pids"),
            "{}",
            found.sentence
        );
    }
}
