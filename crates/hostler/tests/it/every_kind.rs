//! The page `docs/guide/every-kind.md` and its directory: one workload of each kind, from the first apply to the last
//! removal, on a server, two agents with data directories of their own and one engine for both, with real processes,
//! containers, projects and guests. The page's commands are what happens; between them the test looks closer. What
//! is left on a node is looked for on the machine itself.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fleet::Fleet;
use crate::guide::Place;
use crate::needs_docker::{docker, page, socket};
use crate::program::{eventually, free_port, processes};

/// Where `cargo xtask test` has put what guests boot from.
const MACHINE: &str = "HOSTLER_TEST_MACHINE";
const PAGE: &str = "every-kind.md";
const RELEASES: [&str; 2] = ["release-1", "release-2"];
const SERVICES: [&str; 4] = [
    "every-process",
    "every-container",
    "every-compose",
    "every-vm",
];
const JOBS: [&str; 2] = ["every-job", "every-night"];
/// The node's ports in the files.
const PORTS: [&str; 3] = ["18081", "18082", "18083"];

/// The fleet, and the directory with ports that nobody else has.
struct Yard {
    fleet: Fleet,
    ports: Vec<u16>,
}

impl Yard {
    fn start() -> Self {
        let mut fleet = Fleet::without_agent(&socket());
        for data_dir in [fleet.agent_dir(), fleet.spare_dir()] {
            std::fs::create_dir(&data_dir).unwrap();
            symlink(machine(), data_dir.join("images")).unwrap();
        }
        fleet.start_agent_as("one");
        fleet.wait_runs("one", "compose");
        let ports = PORTS.map(|_| free_port()).to_vec();
        write(&fleet.path().join("every-kind"), &ports);
        Self { fleet, ports }
    }

    /// Plays a section of the page.
    fn play(&self, section: &str) {
        let place = Place {
            directory: self.fleet.path(),
            addr: &self.fleet.addr(),
        };
        place.play(PAGE, section);
    }

    fn copy(&self, workload: &str) -> Value {
        let copies = self.fleet.copies(workload);
        assert_eq!(copies.len(), 1, "{workload}: {copies:?}");
        copies[0].clone()
    }

    /// Each copy was started once, and is of that generation of its workload.
    fn assert_started(&self, generation: u64) {
        for name in SERVICES {
            let copy = self.copy(name);
            assert_eq!(copy["generation"], generation, "{name}");
            assert_eq!(copy["runs"], 1, "{name}");
        }
    }

    /// Everything is well on that node, and says that it is of that release.
    fn assert_well(&self, node: &str, release: &str) {
        for name in SERVICES {
            eventually(&format!("{name} is healthy"), || {
                let copy = self.copy(name);
                copy["node_name"] == node
                    && copy["state"]["word"] == "running"
                    && copy["state"]["health"] == "healthy"
            });
            self.assert_logged(name, release);
        }
        let pages = [
            format!("container, {release}"),
            format!("compose, {release}"),
            "hello from the guest".to_owned(),
        ];
        for (port, text) in self.ports.iter().zip(pages) {
            eventually(&text, || page(*port).contains(&text));
        }
    }

    fn assert_logged(&self, name: &str, release: &str) {
        eventually(&format!("{name} writes {release}"), || {
            self.fleet.run(&["logs", name]).stdout.contains(release)
        });
    }

    /// What the job and what the schedule makes say.
    fn assert_jobs(&self, release: &str) {
        self.fleet
            .run(&["job", "rerun", "every-night"])
            .with_code(0);
        for name in JOBS {
            eventually(&format!("{name} has done {release}"), || {
                let said = self.fleet.run(&["job", "logs", name]).stdout;
                said.ends_with(&format!(", {release}\n"))
            });
        }
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.fleet.remove_all();
        // The project's data of a copy that moved is kept on its old node.
        for data_dir in [self.fleet.agent_dir(), self.fleet.spare_dir()] {
            for volume in engine(&data_dir, "volume") {
                docker(&["volume", "rm", &volume]);
            }
        }
    }
}

/// Writes the directory, with these ports.
fn write(specs: &Path, ports: &[u16]) {
    std::fs::create_dir(specs).unwrap();
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/every-kind");
    for entry in std::fs::read_dir(guide).unwrap() {
        let file = entry.unwrap().path();
        let mut text = std::fs::read_to_string(&file).unwrap();
        for (there, here) in PORTS.iter().zip(ports) {
            text = text.replace(there, &here.to_string());
        }
        std::fs::write(specs.join(file.file_name().unwrap()), text).unwrap();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the lane tells where its kernel is"
)]
fn machine() -> PathBuf {
    PathBuf::from(std::env::var(MACHINE).expect("the lane names its kernel"))
}

/// How often the container was started with the volume that this node has for it.
fn visits(data_dir: &Path) -> usize {
    let log = std::fs::read_to_string(data_dir.join("volumes/local/visits/log"));
    log.unwrap_or_default().lines().count()
}

/// The networks or volumes of an agent's projects, by their names.
fn engine(data_dir: &Path, what: &str) -> Vec<String> {
    let Some(owner) = owner(data_dir) else {
        return Vec::new();
    };
    let project = format!("name=hostler-{}-", &owner[..8]);
    let listed = docker(&[what, "ls", "--filter", &project, "--format", "{{.Name}}"]);
    listed.lines().map(str::to_owned).collect()
}

/// Nothing if no agent has begun there.
fn owner(data_dir: &Path) -> Option<String> {
    let owner = std::fs::read_to_string(data_dir.join("units/owner")).ok()?;
    Some(owner.trim().to_owned())
}

/// What an agent runs: processes in its directories or named after them, containers, and networks of projects.
fn left(data_dir: &Path) -> Vec<String> {
    let is_its = |pid: u32| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let line = std::fs::read(proc.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let is_agent = line.split('\0').nth(1) == Some("agent");
        let works_there = std::fs::read_link(proc.join("cwd"));
        let works_there = works_there.is_ok_and(|dir| dir.starts_with(data_dir));
        !is_agent && (works_there || line.contains(&data_dir.display().to_string()))
    };
    let mut left: Vec<String> = processes(is_its)
        .into_iter()
        .map(|pid| format!("process {pid}"))
        .collect();
    let owner = owner(data_dir).unwrap();
    for label in ["hostler.owner", "hostler.compose.owner"] {
        let label = format!("label={label}={owner}");
        let listed = docker(&["ps", "-a", "--filter", &label, "--format", "{{.Names}}"]);
        left.extend(listed.lines().map(|name| format!("container {name}")));
    }
    let networks = engine(data_dir, "network");
    left.extend(networks.iter().map(|name| format!("network {name}")));
    left
}

#[test]
#[ignore = "needs compose and qemu"]
fn one_directory_of_every_kind_applies_updates_rolls_back_moves_and_goes() {
    let mut yard = Yard::start();
    let [first, second] = RELEASES;
    yard.play("Apply");
    yard.assert_well("one", first);
    yard.assert_started(1);
    assert_eq!(visits(&yard.fleet.agent_dir()), 1);
    yard.assert_jobs(first);

    yard.play("Update");
    yard.assert_well("one", second);
    yard.assert_jobs(second);

    yard.play("Roll back");
    yard.assert_well("one", first);
    assert_eq!(
        visits(&yard.fleet.agent_dir()),
        3,
        "updates keep the volume"
    );
    yard.assert_jobs(first);

    yard.fleet.add_second("two");
    yard.fleet.wait_runs("two", "compose");
    assert!(!left(&yard.fleet.agent_dir()).is_empty());
    yard.play("Move");
    assert_eq!(left(&yard.fleet.agent_dir()), Vec::<String>::new());
    yard.assert_well("two", first);
    assert_eq!(visits(&yard.fleet.spare_dir()), 1);

    yard.play("Remove");
    for data_dir in [yard.fleet.agent_dir(), yard.fleet.spare_dir()] {
        assert_eq!(left(&data_dir), Vec::<String>::new());
    }
    let volumes = engine(&yard.fleet.spare_dir(), "volume");
    assert_eq!(volumes, Vec::<String>::new());
    assert!(!yard.fleet.spare_dir().join("volumes/local/visits").exists());
    // What stayed behind is nowhere else, so no word but that of the fleet, after a while, lets it go.
    assert_eq!(visits(&yard.fleet.agent_dir()), 3);
}
