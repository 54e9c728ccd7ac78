//! Cgroups of units: a cgroup of its own for each, outside the agent's, through v2 or v1 controllers.
//!
//! ```text
//!   v2   /sys/fs/cgroup/<home>/<unit>                v1   /sys/fs/cgroup/<controller>/<home>/<unit>
//!        /sys/fs/cgroup/<home>/shims                      /sys/fs/cgroup/<controller>/<home>/shims
//! ```
//!
//! The home is below systemd's slice for what we run, where `hostler install` made one, else at the root. Units that
//! began in one home are found there when a machine has got the other since.
//!
//! Shims live beside the units, so that ending the agent's own cgroup ends neither, and a unit that runs out
//! of memory does not take its shim along. On v1 the process also leaves the agent's place in the
//! hierarchies by which systemd tells services apart (`systemd`, `unified`). A machine on which nothing may
//! be written here runs units without limits, and [`Cgroups::note`] says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hostler_model::UnitId;
use hostler_model::spec::WorkloadSpec;

use crate::kernel::{self, Stat};
use crate::record::ProcessName;

/// Where the kernel shows them.
pub const ROOT: &str = "/sys/fs/cgroup";
/// Below systemd's `hostler-work.slice`. systemd takes a controller away from a slice that needs it for no unit of
/// its own, unless a directory below has handed it on: hence the further step down.
const IN_SLICE: &str = "hostler.slice/hostler-work.slice/hostler";
const AT_ROOT: &str = "hostler";
const HOMES: [&str; 2] = [IN_SLICE, AT_ROOT];
const SHIMS: &str = "shims";
const PERIOD_MICROS: u64 = 100_000;
/// In v1's file for shares; 1024 is one core's worth.
const FEWEST_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;

/// What a unit uses, as its cgroup counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the run began, in nanoseconds of one core.
    pub cpu_nanos: u64,
    /// In bytes.
    pub memory: u64,
    pub pids: u32,
    /// Bytes read from and written to disks; none where that is not counted.
    pub read: Option<u64>,
    pub written: Option<u64>,
}

/// The machine's cgroup hierarchies.
#[derive(Debug, Clone)]
pub struct Cgroups {
    root: PathBuf,
    layout: Layout,
    /// Where new units go.
    home: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Layout {
    /// One hierarchy with all controllers.
    Unified,
    /// A hierarchy per controller; the names of those that are there.
    Split(Vec<&'static str>),
    Absent,
}

/// The bounds of a unit in the kernel's units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    shares: Option<u64>,
    quota_micros: Option<u64>,
    memory: Option<u64>,
    pids: Option<u32>,
}

impl Bounds {
    pub fn of(spec: &WorkloadSpec) -> Self {
        let positive = |amount: u64| (amount > 0).then_some(amount);
        let shares = positive(spec.resources.cpu.0);
        let quota = spec.limits.cpu.and_then(|cpu| positive(cpu.0));
        let memory = spec
            .limits
            .memory
            .map_or(spec.resources.memory.0, |memory| memory.0);
        Self {
            shares: shares.map(|milli| (milli * 1024 / 1000).clamp(FEWEST_SHARES, MOST_SHARES)),
            // The kernel takes no quota below a millisecond.
            quota_micros: quota.map(|milli| (milli * PERIOD_MICROS / 1000).max(1000)),
            memory: positive(memory),
            pids: spec.limits.pids,
        }
    }
}

impl Cgroups {
    /// Looks at what is mounted below `root`.
    pub fn detect(root: &Path) -> Self {
        const SPLIT: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "systemd", "unified"];
        let layout = if root.join("cgroup.controllers").exists() {
            Layout::Unified
        } else {
            let is_there = |name: &&str| root.join(name).join("cgroup.procs").exists();
            let there: Vec<&str> = SPLIT.into_iter().filter(is_there).collect();
            if there.is_empty() {
                Layout::Absent
            } else {
                Layout::Split(there)
            }
        };
        Self {
            root: root.to_owned(),
            home: home(root, &layout),
            layout,
        }
    }

    /// What cannot be enforced here, for people; empty if all can.
    pub fn note(&self) -> String {
        let missing: Vec<&str> = match &self.layout {
            Layout::Absent => return "no cgroups: limits are not enforced".to_owned(),
            Layout::Unified => {
                let text = fs::read_to_string(self.root.join("cgroup.controllers"));
                let text = text.unwrap_or_default();
                let is_missing = |name: &&str| !text.split_whitespace().any(|it| it == *name);
                ["cpu", "memory", "pids"]
                    .into_iter()
                    .filter(is_missing)
                    .collect()
            }
            Layout::Split(there) => {
                let is_missing = |name: &&str| !there.contains(name);
                ["cpu", "memory", "pids"]
                    .into_iter()
                    .filter(is_missing)
                    .collect()
            }
        };
        for (_, base) in self.bases() {
            // A directory that is there may belong to another user: only making one in it tells.
            let probe = base.join(format!("probe-{}", std::process::id()));
            let made = fs::create_dir_all(&probe);
            let _ = fs::remove_dir(&probe);
            if let Err(error) = made {
                return format!("limits are not enforced: {}: {error}", base.display());
            }
        }
        if missing.is_empty() {
            return String::new();
        }
        format!(
            "limits of {} are not enforced: no such cgroup controller",
            missing.join(", ")
        )
    }

    /// Makes the unit's cgroup and sets its bounds. Fails if any hierarchy refuses; those before it stay.
    pub fn create(&self, id: UnitId, bounds: &Bounds) -> io::Result<()> {
        for (name, base) in self.bases() {
            fs::create_dir_all(base.join(SHIMS))?;
            if self.layout == Layout::Unified {
                self.hand_on_controllers();
            }
            let dir = base.join(id.to_string());
            fs::create_dir_all(&dir)?;
            match name {
                "" => write_unified(&dir, bounds)?,
                name => write_split(name, &dir, bounds)?,
            }
        }
        Ok(())
    }

    /// Moves this process into the unit's cgroup.
    pub fn enter(&self, id: UnitId) -> io::Result<()> {
        self.move_here(&id.to_string())
    }

    /// Moves this process to those of the unit, in every hierarchy in which they have a cgroup of their own.
    pub fn join(&self, id: UnitId) -> io::Result<()> {
        let mut joined = Ok(());
        for dir in self.dirs(id) {
            let file = dir.join("cgroup.procs");
            let is_lived_in = fs::read_to_string(&file).is_ok_and(|text| !text.trim().is_empty());
            let here = fs::write(&file, "0");
            if is_lived_in {
                joined = joined.and(here);
            }
        }
        joined
    }

    /// Moves this process to the other shims.
    pub fn leave(&self) -> io::Result<()> {
        self.move_here(SHIMS)
    }

    /// The processes in the unit's cgroup.
    pub fn processes(&self, id: UnitId) -> BTreeSet<i32> {
        let mut all = BTreeSet::new();
        for dir in self.dirs(id) {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        all
    }

    /// What lives of the unit: in its cgroup, or with its mark.
    pub fn living(&self, id: UnitId) -> Vec<ProcessName> {
        let inside = self.processes(id).into_iter();
        let inside = inside.filter_map(|pid| Some((pid, kernel::stat(pid).filter(Stat::lives)?)));
        let found: BTreeMap<i32, u64> = inside
            .chain(kernel::marked(id))
            .map(|(pid, stat)| (pid, stat.start_ticks))
            .collect();
        found
            .into_iter()
            .map(|(pid, ticks)| ProcessName { pid, ticks })
            .collect()
    }

    /// Kills everything in the unit's cgroup at once, where the kernel can (v2, 5.14).
    pub fn kill(&self, id: UnitId) {
        if self.layout == Layout::Unified {
            for dir in self.dirs(id) {
                let file = dir.join("cgroup.kill");
                if file.exists() {
                    let _ = fs::write(file, "1");
                }
            }
        }
    }

    /// Deletes the unit's cgroup, if it is empty.
    pub fn remove(&self, id: UnitId) {
        for dir in self.dirs(id) {
            let _ = fs::remove_dir(dir);
        }
    }

    /// How often the kernel killed in the unit for want of memory.
    pub fn memory_kills(&self, id: UnitId) -> u64 {
        let file = match &self.layout {
            Layout::Unified => self.dir("", id).join("memory.events"),
            Layout::Split(_) => self.dir("memory", id).join("memory.oom_control"),
            Layout::Absent => return 0,
        };
        field(&file, "oom_kill").unwrap_or(0)
    }

    /// What the unit uses; none if it has no cgroup.
    pub fn usage(&self, id: UnitId) -> Option<Usage> {
        let mut moved = (None, None);
        let (cpu_nanos, memory, pids) = match &self.layout {
            Layout::Unified => {
                let dir = self.dir("", id);
                let nanos = field(&dir.join("cpu.stat"), "usage_usec").map(|micros| micros * 1000);
                moved = blocks(&dir.join("io.stat"));
                (
                    nanos,
                    number(&dir.join("memory.current")),
                    dir.join("pids.current"),
                )
            }
            Layout::Split(_) => {
                let nanos = number(&self.dir("cpuacct", id).join("cpuacct.usage"));
                let memory = number(&self.dir("memory", id).join("memory.usage_in_bytes"));
                (nanos, memory, self.dir("pids", id).join("pids.current"))
            }
            Layout::Absent => return None,
        };
        let pids = number(&pids)
            .and_then(|pids| u32::try_from(pids).ok())
            .unwrap_or(0);
        Some(Usage {
            cpu_nanos: cpu_nanos?,
            memory: memory?,
            pids,
            read: moved.0,
            written: moved.1,
        })
    }

    /// From the root down to our home, a step at a time: each directory has what the one above hands on.
    fn hand_on_controllers(&self) {
        let steps = Path::new(self.home).ancestors();
        let mut steps: Vec<PathBuf> = steps.map(|step| self.root.join(step)).collect();
        steps.reverse();
        for dir in steps {
            for controller in ["+cpu", "+memory", "+pids"] {
                // A controller that is not there is refused alone; `note` speaks of it.
                let _ = fs::write(dir.join("cgroup.subtree_control"), controller);
            }
        }
    }

    /// Moves in every hierarchy, whatever one of them says, and answers the first refusal.
    fn move_here(&self, place: &str) -> io::Result<()> {
        let mut moved = Ok(());
        for (_, base) in self.bases() {
            // 0 is the kernel's word for the process that writes.
            let here = fs::write(base.join(place).join("cgroup.procs"), "0");
            moved = moved.and(here);
        }
        moved
    }

    /// Our home in each hierarchy, with the hierarchy's name (none for v2).
    fn bases(&self) -> Vec<(&'static str, PathBuf)> {
        self.hierarchies()
            .into_iter()
            .map(|name| (name, self.root.join(name).join(self.home)))
            .collect()
    }

    fn hierarchies(&self) -> Vec<&'static str> {
        match &self.layout {
            Layout::Unified => vec![""],
            Layout::Split(there) => there.clone(),
            Layout::Absent => Vec::new(),
        }
    }

    /// The unit's directories, in whichever home it has any.
    fn dirs(&self, id: UnitId) -> Vec<PathBuf> {
        let unit = id.to_string();
        let places = self.hierarchies().into_iter().flat_map(|name| {
            let at = self.root.join(name);
            HOMES.map(|home| at.join(home).join(&unit))
        });
        places.filter(|dir| dir.is_dir()).collect()
    }

    fn dir(&self, hierarchy: &str, id: UnitId) -> PathBuf {
        let (at, unit) = (self.root.join(hierarchy), id.to_string());
        let places = HOMES.map(|home| at.join(home).join(&unit));
        let found = places.into_iter().find(|dir| dir.is_dir());
        found.unwrap_or_else(|| at.join(self.home).join(&unit))
    }
}

/// The slice counts if systemd's own hierarchy has it: in others a directory of that name may be left over.
fn home(root: &Path, layout: &Layout) -> &'static str {
    let systemd = match layout {
        Layout::Unified => root.to_owned(),
        Layout::Split(there) if there.contains(&"systemd") => root.join("systemd"),
        Layout::Split(_) => root.join("unified"),
        Layout::Absent => return AT_ROOT,
    };
    let slice = Path::new(IN_SLICE).parent();
    if slice.is_some_and(|slice| systemd.join(slice).is_dir()) {
        IN_SLICE
    } else {
        AT_ROOT
    }
}

fn write_unified(dir: &Path, bounds: &Bounds) -> io::Result<()> {
    if let Some(shares) = bounds.shares {
        // The kernel's own mapping of shares to weights.
        let weight = 1 + (shares - FEWEST_SHARES) * 9999 / (MOST_SHARES - FEWEST_SHARES);
        fs::write(dir.join("cpu.weight"), weight.to_string())?;
    }
    if let Some(quota) = bounds.quota_micros {
        fs::write(dir.join("cpu.max"), format!("{quota} {PERIOD_MICROS}"))?;
    }
    if let Some(memory) = bounds.memory {
        fs::write(dir.join("memory.max"), memory.to_string())?;
    }
    if let Some(pids) = bounds.pids {
        fs::write(dir.join("pids.max"), pids.to_string())?;
    }
    Ok(())
}

fn write_split(hierarchy: &str, dir: &Path, bounds: &Bounds) -> io::Result<()> {
    let write = |file: &str, value: Option<u64>| match value {
        Some(value) => fs::write(dir.join(file), value.to_string()),
        None => Ok(()),
    };
    match hierarchy {
        "cpu" => {
            write("cpu.shares", bounds.shares)?;
            write(
                "cpu.cfs_period_us",
                bounds.quota_micros.map(|_| PERIOD_MICROS),
            )?;
            write("cpu.cfs_quota_us", bounds.quota_micros)
        }
        "memory" => {
            write("memory.limit_in_bytes", bounds.memory)?;
            // Not every kernel counts swap; then there is nothing to bound.
            let _ = write("memory.memsw.limit_in_bytes", bounds.memory);
            Ok(())
        }
        "pids" => write("pids.max", bounds.pids.map(u64::from)),
        _ => Ok(()),
    }
}

/// Bytes that were read and written, over all devices: `8:0 rbytes=1 wbytes=2 …` each. Nothing where that is not
/// counted.
fn blocks(file: &Path) -> (Option<u64>, Option<u64>) {
    let Ok(text) = fs::read_to_string(file) else {
        return (None, None);
    };
    let sum = |key: &str| {
        let fields = text.split_ascii_whitespace();
        let counts = fields.filter_map(|field| field.strip_prefix(key)?.parse::<u64>().ok());
        Some(counts.sum())
    };
    (sum("rbytes="), sum("wbytes="))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind the key in a file of `key number` lines.
fn field(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use hostler_model::{AssignmentId, Bytes, MilliCpu, Timestamp};

    use super::*;

    fn unit() -> UnitId {
        UnitId {
            assignment: AssignmentId::mint(Timestamp::from_millis(1), 2),
            generation: 3,
        }
    }

    fn bounds() -> Bounds {
        let mut spec = WorkloadSpec::of_process("web", vec!["true".to_owned()]);
        spec.resources.cpu = MilliCpu(500);
        spec.resources.memory = Bytes(64 << 20);
        spec.limits.cpu = Some(MilliCpu(1500));
        spec.limits.pids = Some(40);
        Bounds::of(&spec)
    }

    fn text(path: PathBuf) -> String {
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    #[test]
    fn a_unified_tree_gets_weight_quota_memory_and_pids() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(
            tree.path().join("cgroup.controllers"),
            "cpuset cpu io memory pids",
        )
        .unwrap();
        let cgroups = Cgroups::detect(tree.path());
        assert_eq!(cgroups.note(), "");
        cgroups.create(unit(), &bounds()).unwrap();
        let dir = tree.path().join("hostler").join(unit().to_string());
        assert_eq!(text(dir.join("cpu.weight")), "20");
        assert_eq!(text(dir.join("cpu.max")), "150000 100000");
        assert_eq!(text(dir.join("memory.max")), (64 << 20).to_string());
        assert_eq!(text(dir.join("pids.max")), "40");
        cgroups.enter(unit()).unwrap();
        assert_eq!(text(dir.join("cgroup.procs")), "0");
        cgroups.leave().unwrap();
        assert_eq!(text(tree.path().join("hostler/shims/cgroup.procs")), "0");

        fs::write(dir.join("memory.events"), "low 0\noom 1\noom_kill 2\n").unwrap();
        fs::write(dir.join("cpu.stat"), "usage_usec 1500\nuser_usec 1\n").unwrap();
        fs::write(dir.join("memory.current"), "4096\n").unwrap();
        fs::write(dir.join("pids.current"), "2\n").unwrap();
        let blocks = "8:0 rbytes=5 wbytes=7 rios=1 wios=1\n8:16 rbytes=50 wbytes=70\n";
        fs::write(dir.join("io.stat"), blocks).unwrap();
        cgroups.join(unit()).unwrap();
        fs::write(dir.join("cgroup.procs"), "11\n12\n").unwrap();
        assert_eq!(cgroups.memory_kills(unit()), 2);
        let expected = Usage {
            cpu_nanos: 1_500_000,
            memory: 4096,
            pids: 2,
            read: Some(55),
            written: Some(77),
        };
        assert_eq!(cgroups.usage(unit()), Some(expected));
        assert_eq!(cgroups.processes(unit()), BTreeSet::from([11, 12]));
    }

    #[test]
    fn a_split_tree_gets_a_directory_in_every_hierarchy() {
        let tree = tempfile::tempdir().unwrap();
        for name in ["cpu", "cpuacct", "memory", "pids", "systemd"] {
            fs::create_dir(tree.path().join(name)).unwrap();
            fs::write(tree.path().join(name).join("cgroup.procs"), "").unwrap();
        }
        let cgroups = Cgroups::detect(tree.path());
        cgroups.create(unit(), &bounds()).unwrap();
        let dir = |name: &str| {
            tree.path()
                .join(name)
                .join("hostler")
                .join(unit().to_string())
        };
        assert_eq!(text(dir("cpu").join("cpu.shares")), "512");
        assert_eq!(text(dir("cpu").join("cpu.cfs_quota_us")), "150000");
        assert_eq!(
            text(dir("memory").join("memory.limit_in_bytes")),
            (64 << 20).to_string()
        );
        assert_eq!(text(dir("pids").join("pids.max")), "40");
        cgroups.enter(unit()).unwrap();
        assert_eq!(text(dir("systemd").join("cgroup.procs")), "0");
        fs::write(dir("cpu").join("cgroup.procs"), "11\n").unwrap();
        fs::remove_dir_all(dir("memory")).unwrap();
        cgroups.join(unit()).unwrap();
        assert_eq!(text(dir("cpu").join("cgroup.procs")), "0");
    }

    fn slice(hierarchy: &Path) -> PathBuf {
        let slice = hierarchy.join("hostler.slice/hostler-work.slice");
        fs::create_dir_all(&slice).unwrap();
        slice
    }

    #[test]
    fn where_systemd_has_a_slice_for_work_units_and_shims_live_in_it() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
        let slice = slice(tree.path());
        let cgroups = Cgroups::detect(tree.path());
        assert_eq!(cgroups.note(), "");
        cgroups.create(unit(), &bounds()).unwrap();
        cgroups.enter(unit()).unwrap();
        cgroups.leave().unwrap();
        let dir = slice.join("hostler").join(unit().to_string());
        assert_eq!(text(dir.join("memory.max")), (64 << 20).to_string());
        assert_eq!(text(dir.join("cgroup.procs")), "0");
        assert_eq!(text(slice.join("hostler/shims/cgroup.procs")), "0");
        assert!(!tree.path().join("hostler").exists());
        for step in ["", "hostler.slice", "hostler.slice/hostler-work.slice"] {
            let control = tree.path().join(step).join("cgroup.subtree_control");
            assert_eq!(text(control), "+pids", "{step} hands its controllers on");
        }
        assert_eq!(text(slice.join("hostler/cgroup.subtree_control")), "+pids");
    }

    #[test]
    fn a_slice_is_looked_for_where_systemd_keeps_its_services() {
        let tree = tempfile::tempdir().unwrap();
        for name in ["memory", "pids", "systemd"] {
            fs::create_dir(tree.path().join(name)).unwrap();
            fs::write(tree.path().join(name).join("cgroup.procs"), "").unwrap();
        }
        slice(&tree.path().join("memory"));
        let cgroups = Cgroups::detect(tree.path());
        cgroups.create(unit(), &bounds()).unwrap();
        let at_root = format!("hostler/{}", unit());
        assert!(tree.path().join("systemd").join(&at_root).is_dir());

        slice(&tree.path().join("systemd"));
        let cgroups = Cgroups::detect(tree.path());
        cgroups.create(unit(), &bounds()).unwrap();
        let in_slice = format!("hostler.slice/hostler-work.slice/hostler/{}", unit());
        for name in ["memory", "pids", "systemd"] {
            assert!(tree.path().join(name).join(&in_slice).is_dir(), "{name}");
        }
    }

    #[test]
    fn a_unit_that_began_before_there_was_a_slice_is_found_where_it_is() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
        Cgroups::detect(tree.path())
            .create(unit(), &bounds())
            .unwrap();
        let dir = tree.path().join("hostler").join(unit().to_string());
        fs::write(dir.join("cgroup.procs"), "11\n").unwrap();
        fs::write(dir.join("memory.events"), "oom_kill 1\n").unwrap();
        slice(tree.path());
        let cgroups = Cgroups::detect(tree.path());
        assert_eq!(cgroups.processes(unit()), BTreeSet::from([11]));
        assert_eq!(cgroups.memory_kills(unit()), 1);
        fs::write(dir.join("cgroup.kill"), "0").unwrap();
        cgroups.kill(unit());
        assert_eq!(text(dir.join("cgroup.kill")), "1");
    }

    #[test]
    fn a_machine_without_cgroups_says_so() {
        let tree = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::detect(tree.path());
        assert!(cgroups.note().contains("not enforced"));
        cgroups.create(unit(), &bounds()).unwrap();
        assert_eq!(cgroups.usage(unit()), None);
    }
}
