//! What the machine is and how busy it is. A seam: simulations and tests have machines of their own.
//!
//! Reads a few small files of `/proc` per beat and asks the kernel for one file system: an idle agent is to
//! cost less than a thousandth of a core. What cannot be read is left empty; nothing here fails.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hostler_model::{Bytes, Disk, MilliCpu, NodeFacts, Resources, Usage};
use rustix::time::ClockId;

use crate::headroom::{self, FileSystem, Headroom};
use crate::origin::MachineMarks;

/// The machine under the agent.
pub trait Machine: Send + Sync + 'static {
    /// What it is. Runtimes and the agent's version are filled in by the agent.
    fn facts(&self) -> NodeFacts;

    /// How busy it is. Shares count since the last call.
    fn usage(&self, data_dir: &Path) -> Usage;

    /// What it has: all cores, all memory, the file system of the data directory.
    fn capacity(&self, data_dir: &Path) -> Resources;

    /// How long it has been suspended in all; spans measured in uptime leave that out.
    fn asleep(&self) -> Duration;

    /// What is left of it.
    fn headroom(&self) -> Headroom {
        Headroom::default()
    }

    /// What tells it from others, also from those with a copy of its disk: nothing that lies on the disk.
    fn marks(&self) -> MachineMarks {
        MachineMarks::default()
    }

    /// The file system under a path; none if that is not known.
    fn file_system(&self, _path: &Path) -> Option<FileSystem> {
        None
    }

    /// Its own address on the way to another, if that is known.
    fn address_towards(&self, _other: IpAddr) -> Option<IpAddr> {
        None
    }
}

/// This machine.
#[derive(Debug, Default)]
pub struct LocalMachine {
    cpu_before: Mutex<CpuTimes>,
}

/// Processor time of all cores since boot, in ticks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct CpuTimes {
    busy: u64,
    all: u64,
}

impl LocalMachine {
    /// Begins to count processor time now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            cpu_before: Mutex::new(CpuTimes::read()),
        }
    }
}

impl Machine for LocalMachine {
    fn facts(&self) -> NodeFacts {
        let system = rustix::system::uname();
        NodeFacts {
            hostname: read("/proc/sys/kernel/hostname").trim().to_owned(),
            os: system.sysname().to_string_lossy().to_lowercase(),
            arch: system.machine().to_string_lossy().into_owned(),
            kernel: system.release().to_string_lossy().into_owned(),
            cpu_count: cores(),
            memory: memory().total,
            disks: disks(),
            addresses: addresses(),
            boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            agent_version: String::new(),
            runtimes: Vec::new(),
            storage: Vec::new(),
            foreign: None,
        }
    }

    fn usage(&self, data_dir: &Path) -> Usage {
        let memory = memory();
        let used = Bytes(memory.total.0.saturating_sub(memory.available.0));
        Usage {
            cpu_percent: self.cpu_percent(CpuTimes::read()),
            memory_percent: percent(used.0, memory.total.0),
            memory_used: used,
            disk_free: space(data_dir).map(|(_, free)| free).unwrap_or_default(),
            running_containers: Vec::new(),
            units: Vec::new(),
            pressure: None,
        }
    }

    fn capacity(&self, data_dir: &Path) -> Resources {
        Resources {
            cpu: MilliCpu(u64::from(cores()) * 1000),
            memory: memory().total,
            disk: space(data_dir).map(|(total, _)| total).unwrap_or_default(),
        }
    }

    fn asleep(&self) -> Duration {
        let read = |clock| {
            let moment = rustix::time::clock_gettime(clock);
            let seconds = Duration::from_secs(u64::try_from(moment.tv_sec).unwrap_or(0));
            seconds + Duration::from_nanos(u64::try_from(moment.tv_nsec).unwrap_or(0))
        };
        // Only the boot-time clock runs on while the machine is suspended. It is read last, so the
        // difference is never below zero.
        let awake = read(ClockId::Monotonic);
        read(ClockId::Boottime).saturating_sub(awake)
    }

    fn headroom(&self) -> Headroom {
        let memory = memory();
        headroom::headroom((memory.available, memory.total))
    }

    fn marks(&self) -> MachineMarks {
        marks(Path::new("/sys"))
    }

    fn file_system(&self, path: &Path) -> Option<FileSystem> {
        headroom::file_system(path)
    }

    fn address_towards(&self, other: IpAddr) -> Option<IpAddr> {
        route_to(other)
    }
}

impl LocalMachine {
    fn cpu_percent(&self, now: CpuTimes) -> f32 {
        let mut before = self
            .cpu_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let busy = now.busy.saturating_sub(before.busy);
        let all = now.all.saturating_sub(before.all);
        *before = now;
        percent(busy, all)
    }
}

impl CpuTimes {
    fn read() -> Self {
        Self::parse(&read("/proc/stat"))
    }

    /// The first line: `cpu  user nice system idle iowait irq softirq steal guest guest_nice`. Guest time is
    /// part of user time.
    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line
            .split_ascii_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|t| t.parse().ok())
            .collect();
        let all = ticks.iter().sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Self {
            busy: all - idle,
            all,
        }
    }
}

/// What the kernel says of board and network devices. `/etc/machine-id` is copied with a disk, and says nothing.
fn marks(sys: &Path) -> MachineMarks {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().to_lowercase()
    };
    // A virtual machine's is that of the instance. Only root may read it.
    let product = ["class/dmi/id/product_uuid", "hypervisor/uuid"]
        .map(|path| read(&sys.join(path)))
        .into_iter()
        .find(|uuid| is_telling(uuid));
    let devices = std::fs::read_dir(sys.join("class/net"));
    let devices = devices.into_iter().flatten().flatten();
    // Of real devices, and lasting: neither made by software nor drawn at random nor set by somebody.
    let lasting = devices
        .map(|entry| entry.path())
        .filter(|path| path.join("device").exists() && read(&path.join("addr_assign_type")) == "0");
    let addresses = lasting.map(|path| read(&path.join("address")));
    MachineMarks {
        told: None,
        product,
        devices: addresses
            .filter(|it| it.chars().any(|c| c.is_ascii_hexdigit() && c != '0'))
            .collect(),
    }
}

/// Boards whose maker gave them no number of their own all have the same few.
fn is_telling(uuid: &str) -> bool {
    const OF_MANY: [&str; 2] = [
        "03000200-0400-0500-0006-000700080009",
        "12345678-1234-5678-90ab-cddeefaabbcc",
    ];
    let digits: BTreeSet<char> = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    digits.len() > 1 && !OF_MANY.contains(&uuid)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Memory {
    total: Bytes,
    available: Bytes,
}

fn memory() -> Memory {
    parse_memory(&read("/proc/meminfo"))
}

fn parse_memory(meminfo: &str) -> Memory {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
        Bytes(kib.unwrap_or(0) * 1024)
    };
    Memory {
        total: field("MemTotal:"),
        available: field("MemAvailable:"),
    }
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a percentage for people"
)]
fn percent(part: u64, whole: u64) -> f32 {
    if whole == 0 {
        0.0
    } else {
        (part as f64 / whole as f64 * 100.0) as f32
    }
}

/// Total and free space for this user of the file system under a path.
fn space(path: &Path) -> Option<(Bytes, Bytes)> {
    let system = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| Bytes(blocks.saturating_mul(system.f_frsize));
    Some((bytes(system.f_blocks), bytes(system.f_bavail)))
}

/// File systems on block devices, each device once.
fn disks() -> Vec<Disk> {
    const MOST: usize = 16;
    let mounts = read("/proc/mounts");
    let mut devices = BTreeSet::new();
    let on_devices = mounts.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (device, mount) = (words.next()?, words.next()?);
        (device.starts_with("/dev/") || mount == "/").then_some((device, mount))
    });
    on_devices
        .filter(|(device, _)| devices.insert(*device))
        .filter_map(|(_, mount)| {
            let (total, free) = space(Path::new(mount))?;
            (total.0 > 0).then(|| Disk {
                mount: mount.to_owned(),
                total,
                free,
            })
        })
        .take(MOST)
        .collect()
}

/// The address of the default route first, then the others; none of the loopback.
fn addresses() -> Vec<String> {
    const MOST: usize = 16;
    let networks = sysinfo::Networks::new_with_refreshed_list();
    let mut others: Vec<IpAddr> = networks
        .iter()
        .flat_map(|networks| networks.values())
        .flat_map(|network| network.ip_networks().iter().map(|network| network.addr))
        .filter(|address| !address.is_loopback() && !is_link_local(address))
        .collect();
    others.sort_unstable();
    others.dedup();
    let first = default_route();
    let others = others.into_iter().filter(|address| Some(*address) != first);
    first
        .into_iter()
        .chain(others)
        .take(MOST)
        .map(|address| address.to_string())
        .collect()
}

/// The far address is one of those reserved for documentation.
fn default_route() -> Option<IpAddr> {
    let address = route_to(Ipv4Addr::new(192, 0, 2, 1).into())?;
    (!address.is_loopback()).then_some(address)
}

/// The address from which packets to another leave. Connecting a datagram socket sends nothing; it only makes the
/// kernel choose a route.
fn route_to(other: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match other {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((other, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

const fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_all_but_idle_and_waiting() {
        let times = CpuTimes::parse("cpu  10 1 5 100 20 2 3 4 9 9\ncpu0 1 1 1 1\n");
        assert_eq!(times, CpuTimes { busy: 25, all: 145 });
        assert_eq!(CpuTimes::parse(""), CpuTimes::default());
    }

    #[test]
    fn memory_is_read_in_bytes_and_missing_fields_are_nothing() {
        let memory = parse_memory("MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable: 1024 kB\n");
        assert_eq!(
            memory,
            Memory {
                total: Bytes(2 << 20),
                available: Bytes(1 << 20)
            }
        );
        assert_eq!(parse_memory("nonsense"), Memory::default());
    }

    #[test]
    fn marks_are_what_the_board_and_real_devices_say_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        assert_eq!(marks(sys), MachineMarks::default());
        let dmi = sys.join("class/dmi/id");
        std::fs::create_dir_all(&dmi).unwrap();
        for (name, kind, address, is_real) in [
            ("eth0", "0", "52:54:00:AA:bb:01", true),
            ("set-by-a-person", "3", "52:54:00:aa:bb:02", true),
            ("bridge", "0", "52:54:00:aa:bb:03", false),
            ("empty", "0", "00:00:00:00:00:00", true),
        ] {
            let device = sys.join("class/net").join(name);
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("addr_assign_type"), format!("{kind}\n")).unwrap();
            std::fs::write(device.join("address"), format!("{address}\n")).unwrap();
            if is_real {
                std::fs::create_dir(device.join("device")).unwrap();
            }
        }
        for (uuid, is_told) in [
            ("4C4C4544-0042-3010-8054-B7C04F4E3432\n", true),
            ("00000000-0000-0000-0000-000000000000\n", false),
            ("03000200-0400-0500-0006-000700080009\n", false),
            ("\n", false),
        ] {
            std::fs::write(dmi.join("product_uuid"), uuid).unwrap();
            let found = marks(sys);
            let told = is_told.then(|| uuid.trim().to_lowercase());
            assert_eq!(found.product, told);
            assert_eq!(found.devices, ["52:54:00:aa:bb:01".to_owned()].into());
        }
    }

    #[test]
    fn this_machine_knows_itself() {
        let machine = LocalMachine::new();
        let facts = machine.facts();
        assert_eq!(facts.os, "linux");
        assert!(
            facts.cpu_count > 0 && facts.memory.0 > 0 && !facts.boot_id.is_empty(),
            "{facts:?}"
        );
        let usage = machine.usage(Path::new("/"));
        assert!(
            usage.memory_percent > 0.0 && usage.cpu_percent <= 100.0,
            "{usage:?}"
        );
        assert!(machine.capacity(Path::new("/")).disk.0 > 0);
        let local = Ipv4Addr::LOCALHOST.into();
        assert_eq!(machine.address_towards(local), Some(local));
    }
}
