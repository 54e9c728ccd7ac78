//! Where work lives on a machine with systemd, on the machine's real cgroups: the test is systemd.
//!
//! It makes the slice and a service's cgroup, puts an agent into the service, and then ends everything in the service as
//! each way of stopping it does. Other tests that start units meanwhile may get theirs into the slice, too, which is as
//! good a place; it is removed when it is empty.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::program::{Ended, Running, end_units, eventually, hostler, is_alive, processes, signal};

const SLICE: &str = "hostler.slice/hostler-work.slice";

struct Tree {
    home: tempfile::TempDir,
    hierarchy: PathBuf,
    service: PathBuf,
    /// Whether there was none before.
    made_slice: bool,
}

impl Tree {
    /// The hierarchy by which systemd tells services apart.
    fn new(name: &str) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchy = match root.join("cgroup.controllers").exists() {
            true => root.to_owned(),
            false => root.join("systemd"),
        };
        let service = hierarchy.join("system.slice").join(name);
        fs::create_dir_all(&service).unwrap();
        let made_slice = !hierarchy.join(SLICE).exists();
        fs::create_dir_all(hierarchy.join(SLICE)).unwrap();
        Self {
            home: tempfile::tempdir().unwrap(),
            hierarchy,
            service,
            made_slice,
        }
    }

    fn inside(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.service.join("cgroup.procs")).unwrap_or_default();
        text.lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// `KillMode=control-group`, the harshest of all.
    fn kill_service(&self) {
        eventually("the service is empty", || {
            let inside = self.inside();
            inside.iter().for_each(|pid| signal(*pid, Signal::KILL));
            inside.is_empty()
        });
    }

    /// Where a process is in that hierarchy.
    fn place_of(&self, pid: u32) -> String {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let is_ours = |line: &&str| match self.hierarchy.ends_with("systemd") {
            true => line.contains(":name=systemd:"),
            false => line.starts_with("0::"),
        };
        let line = text.lines().find(is_ours).unwrap_or_default();
        line.splitn(3, ':').nth(2).unwrap_or_default().to_owned()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.kill_service();
        end_units(self.home.path());
        let slice = self.hierarchy.join(SLICE);
        let below = [
            slice.join("hostler/shims"),
            slice.join("hostler"),
            slice.clone(),
        ];
        let above = [&slice, &self.service].map(|dir| dir.parent().unwrap().to_owned());
        let _ = fs::remove_dir(&self.service);
        let made = below.into_iter().chain(above);
        for dir in made.filter(|_| self.made_slice) {
            // What another test has something in stays.
            let _ = fs::remove_dir(dir);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn no_way_of_stopping_the_agents_service_reaches_its_work() {
    let tree = Tree::new(&format!("hostler-test-{}.service", std::process::id()));
    let home = &tree.home;
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec \"$@\"",
        tree.service.display()
    );
    let mut command = std::process::Command::new("/bin/sh");
    let program = env!("CARGO_BIN_EXE_hostler");
    command.args([
        "-c",
        &script,
        "sh",
        program,
        "up",
        "--listen",
        "127.0.0.1:0",
    ]);
    command.args(["--docker-socket", "/nonexistent/sock", "--data-dir"]);
    command.arg(home.path().join("data"));
    for (key, value) in hostler(home.path()).get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    let mut up = Running::start(&mut command);
    up.line("the API is at");
    let addr = up.line("listening on ").replace("listening on ", "");
    let mut run = hostler(home.path());
    run.env("HOSTLER_ADDR", addr);
    run.args(["run", "web", "--", "sh", "-c", "sleep 86398 & sleep 86398"]);
    Ended::from(run.output().unwrap()).with_code(0);
    let is_below = |pid: u32| {
        let dir = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let is_shim = line.contains("\0shim\0") && line.contains(&*home.path().to_string_lossy());
        dir.starts_with(home.path()) && line.starts_with("sleep") || is_shim
    };
    let mut work = Vec::new();
    eventually("both processes and their shim", || {
        work = processes(is_below);
        work.len() == 3
    });
    for pid in &work {
        let place = tree.place_of(*pid);
        assert!(
            place.starts_with(&format!("/{SLICE}/hostler/")),
            "{pid}: {place}"
        );
    }
    // Beside the agent there may be a tool that it asks something.
    let inside = tree.inside();
    assert!(inside.contains(&up.pid()) && work.iter().all(|pid| !inside.contains(pid)));
    tree.kill_service();
    assert!(up.code().is_none(), "it was killed");
    assert!(work.iter().all(|pid| is_alive(*pid)), "the work goes on");
    end_units(home.path());
    eventually("the work is gone", || {
        work.iter().all(|pid| !is_alive(*pid))
    });
}
