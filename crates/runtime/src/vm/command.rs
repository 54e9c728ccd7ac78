//! A machine as QEMU's command line. Pure: the same machine gives the same words.

use std::path::{Path, PathBuf};

use hostler_model::UnitId;
use hostler_model::spec::{DiskFormat, PortMapping, Protocol, VmSpec, WorkloadSpec};
use hostler_model::{Bytes, MilliCpu};
use serde_json::json;

use super::probe::{Engine, Version};
use super::record::{Disk, MONITOR, Machine, Nic, SEED};

/// What a guest has of which nothing is said.
const USUAL_MEMORY: Bytes = Bytes(512 << 20);
/// From here on QEMU can end with a failure when the guest's kernel gives up.
const TELLS_PANICS: Version = (7, 1);
/// How the guest's port is named on the other side of a bridge.
const SCRIPT: &str = "bridge-";

/// What is on the command line.
pub(super) struct Told<'a> {
    pub(super) unit: UnitId,
    pub(super) name: &'a str,
    pub(super) spec: &'a WorkloadSpec,
    pub(super) vm: &'a VmSpec,
    pub(super) machine: &'a Machine,
    pub(super) engine: Engine,
    pub(super) version: Version,
    pub(super) has_seed: bool,
    /// Kernel and initrd, found.
    pub(super) kernel: Option<(PathBuf, Option<PathBuf>)>,
    /// Whether the agent may make network interfaces itself; otherwise QEMU's own helper is asked.
    pub(super) is_root: bool,
}

/// The words behind the program. Paths without a slash are in the working directory.
pub(super) fn arguments(told: &Told<'_>) -> Vec<String> {
    let mut words = Words::default();
    let cpus = told.vm.cpus.map(u64::from);
    let cpus = cpus.unwrap_or_else(|| cores(told.spec.resources.cpu));
    let memory = told.vm.memory.unwrap_or(told.spec.resources.memory);
    let memory = if memory == Bytes(0) {
        USUAL_MEMORY
    } else {
        memory
    };
    words.flag("-nodefaults");
    words.flag("-no-user-config");
    words.pair("-name", told.name);
    words.pair("-uuid", told.unit.assignment);
    words.pair("-machine", format!("q35,accel={}", told.engine.as_str()));
    words.pair(
        "-cpu",
        match told.engine {
            Engine::Kvm => "host",
            Engine::Tcg => "max",
        },
    );
    words.pair("-smp", cpus);
    // QEMU counts in whole mebibytes.
    words.pair("-m", format!("{}M", memory.0.div_ceil(1 << 20)));
    words.pair("-display", "none");
    words.pair("-vga", "none");
    // The guest's first serial port is the log.
    words.pair("-chardev", "stdio,id=console,signal=off");
    words.pair("-serial", "chardev:console");
    words.pair("-qmp", format!("unix:{MONITOR},server=on,wait=off"));
    words.pair("-device", "virtio-rng-pci");
    words.pair("-device", "pvpanic-pci");
    if told.version >= TELLS_PANICS {
        words.pair("-action", "panic=exit-failure");
    }
    for (number, disk) in told.machine.disks.iter().enumerate() {
        words.disk(number, disk);
    }
    if told.has_seed {
        words.seed();
    }
    let mut ports = told.machine.ports.as_slice();
    for (number, nic) in told.machine.nics.iter().enumerate() {
        words.nic(number, nic, &mut ports, told.is_root);
    }
    if let Some((kernel, initrd)) = &told.kernel {
        words.pair("-kernel", kernel.display());
        if let Some(initrd) = initrd {
            words.pair("-initrd", initrd.display());
        }
        if !told.vm.cmdline.is_empty() {
            words.pair("-append", &told.vm.cmdline);
        }
    }
    words.0
}

/// Whole cores, at least one.
fn cores(cpu: MilliCpu) -> u64 {
    cpu.0.div_ceil(1000).max(1)
}

/// A script for each bridge: QEMU makes the interface, which goes with it, and the script ties it to the bridge.
pub(super) fn scripts(nics: &[Nic]) -> Vec<(String, String)> {
    let bridges = nics.iter().enumerate();
    let script = |(number, nic): (usize, &Nic)| {
        let bridge = nic.bridge.as_ref()?;
        let text = format!("#!/bin/sh\nexec ip link set dev \"$1\" master {bridge} up\n");
        Some((script_name(number), text))
    };
    bridges.filter_map(script).collect()
}

fn script_name(number: usize) -> String {
    format!("{SCRIPT}{number}")
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn pair(&mut self, flag: &str, value: impl ToString) {
        self.0.extend([flag.to_owned(), value.to_string()]);
    }

    fn disk(&mut self, number: usize, disk: &Disk) {
        let node = format!("disk{number}");
        let source = match disk.is_device {
            true => "host_device",
            false => "file",
        };
        let is_read_only = disk.is_cdrom || disk.is_read_only;
        self.blockdev(&node, (source, &disk.path), disk.format, is_read_only);
        let boot = disk.boot.map(|order| format!(",bootindex={order}"));
        let boot = boot.unwrap_or_default();
        let device = if disk.is_cdrom {
            format!("ide-cd,drive={node}{boot}")
        } else {
            format!(
                "virtio-blk-pci,drive={node},serial={}{boot}",
                serial(&disk.target)
            )
        };
        self.pair("-device", device);
    }

    fn seed(&mut self) {
        self.blockdev("seed", ("file", Path::new(SEED)), DiskFormat::Raw, true);
        self.pair("-device", "virtio-blk-pci,drive=seed,serial=cidata");
    }

    /// As JSON, because a path may hold anything.
    fn blockdev(
        &mut self,
        node: &str,
        (source, path): (&str, &Path),
        format: DiskFormat,
        is_read_only: bool,
    ) {
        let device = json!({
            "driver": super::qemu_img::word(format),
            "node-name": node,
            "read-only": is_read_only,
            "discard": "unmap",
            "file": { "driver": source, "filename": path.to_string_lossy() },
        });
        self.pair("-blockdev", device);
    }

    /// The node's ports lead to the first network of QEMU's own.
    fn nic(&mut self, number: usize, nic: &Nic, ports: &mut &[PortMapping], is_root: bool) {
        let id = format!("net{number}");
        let backend = match &nic.bridge {
            None => {
                let forwards = std::mem::take(ports).iter().map(forward);
                format!("user,id={id}{}", forwards.collect::<String>())
            }
            Some(_) if is_root => {
                // Found by its path: QEMU looks nowhere else.
                let script = script_name(number);
                format!("tap,id={id},script=./{script},downscript=no")
            }
            Some(bridge) => format!("bridge,id={id},br={bridge}"),
        };
        self.pair("-netdev", backend);
        self.pair(
            "-device",
            format!("virtio-net-pci,netdev={id},mac={}", nic.mac),
        );
    }
}

fn forward(port: &PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let target = port.target.unwrap_or(port.host);
    format!(",hostfwd={protocol}::{}-:{target}", port.host)
}

/// By which the guest can tell its disks apart; virtio has twenty bytes for it.
fn serial(target: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    target.chars().map(plain).take(20).collect()
}

#[cfg(test)]
mod tests {
    use hostler_model::AssignmentId;
    use hostler_model::spec::VmNetwork;

    use super::*;

    fn machine(vm: &VmSpec, spec: &WorkloadSpec) -> Machine {
        let mut nics = super::super::networks::cards(vm, AssignmentId::LEAST);
        for (number, nic) in nics.iter_mut().enumerate() {
            nic.mac = format!("52:54:00:00:00:0{number}");
        }
        Machine {
            grace_ms: 1,
            ports: spec.ports.clone(),
            disks: Vec::new(),
            nics,
        }
    }

    fn told<'a>(spec: &'a WorkloadSpec, vm: &'a VmSpec, machine: &'a Machine) -> Told<'a> {
        Told {
            unit: UnitId {
                assignment: AssignmentId::LEAST,
                generation: 3,
            },
            name: "db-0",
            spec,
            vm,
            machine,
            engine: Engine::Tcg,
            version: (7, 2),
            has_seed: false,
            kernel: None,
            is_root: true,
        }
    }

    /// One line per flag with its value.
    fn lines(words: &[String]) -> String {
        let mut text = String::new();
        for word in words {
            let is_flag = word.starts_with('-');
            text += if is_flag && !text.is_empty() {
                "\n"
            } else {
                " "
            };
            text += word;
        }
        text.trim_start().to_owned()
    }

    #[test]
    fn a_machine_of_which_little_is_said_has_what_a_guest_needs() {
        let (spec, vm) = (WorkloadSpec::bare("db"), VmSpec::default());
        let machine = machine(&vm, &spec);
        assert_eq!(
            lines(&arguments(&told(&spec, &vm, &machine))),
            "\
-nodefaults
-no-user-config
-name db-0
-uuid 00000000-0000-0000-0000-000000000000
-machine q35,accel=tcg
-cpu max
-smp 1
-m 512M
-display none
-vga none
-chardev stdio,id=console,signal=off
-serial chardev:console
-qmp unix:qmp.sock,server=on,wait=off
-device virtio-rng-pci
-device pvpanic-pci
-action panic=exit-failure
-netdev user,id=net0
-device virtio-net-pci,netdev=net0,mac=52:54:00:00:00:00"
        );
    }

    #[test]
    fn everything_that_is_said_is_on_the_line() {
        let mut spec = WorkloadSpec::bare("db");
        spec.resources.cpu = MilliCpu(1500);
        spec.resources.memory = Bytes(3 << 30);
        let port = |host, target, protocol| PortMapping {
            name: None,
            host,
            target,
            protocol,
        };
        spec.ports = vec![
            port(8080, Some(80), Protocol::Tcp),
            port(53, None, Protocol::Udp),
        ];
        let bridge = VmNetwork {
            bridge: Some("br0".to_owned()),
            ..VmNetwork::default()
        };
        let user = VmNetwork::default();
        let vm = VmSpec {
            networks: vec![bridge, user.clone(), user],
            cmdline: "console=ttyS0 quiet".to_owned(),
            ..VmSpec::default()
        };
        let mut machine = machine(&vm, &spec);
        let disk = |target: &str, path: &str, format, is_cdrom, boot| Disk {
            target: target.to_owned(),
            path: PathBuf::from(path),
            format,
            size: 0,
            is_cdrom,
            is_device: false,
            is_read_only: false,
            boot,
        };
        machine.disks = vec![
            disk("vda", "/d/a,b.qcow2", DiskFormat::Qcow2, false, Some(1)),
            disk("/srv/data", "/d/data.raw", DiskFormat::Raw, false, None),
            disk("sra", "/i/x.iso", DiskFormat::Raw, true, Some(2)),
        ];
        let told = Told {
            engine: Engine::Kvm,
            version: (6, 2),
            has_seed: true,
            kernel: Some((PathBuf::from("/k"), Some(PathBuf::from("/i")))),
            ..told(&spec, &vm, &machine)
        };
        let text = lines(&arguments(&told));
        let (head, rest) = text.split_once("-device pvpanic-pci\n").unwrap();
        for part in ["accel=kvm", "-cpu host", "-smp 2", "-m 3072M"] {
            assert!(head.contains(part), "{part}: {head}");
        }
        assert_eq!(
            rest,
            "\
-blockdev {\"discard\":\"unmap\",\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/d/a,b.qcow2\"},\"node-name\":\"disk0\",\"read-only\":false}
-device virtio-blk-pci,drive=disk0,serial=vda,bootindex=1
-blockdev {\"discard\":\"unmap\",\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"/d/data.raw\"},\"node-name\":\"disk1\",\"read-only\":false}
-device virtio-blk-pci,drive=disk1,serial=-srv-data
-blockdev {\"discard\":\"unmap\",\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"/i/x.iso\"},\"node-name\":\"disk2\",\"read-only\":true}
-device ide-cd,drive=disk2,bootindex=2
-blockdev {\"discard\":\"unmap\",\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"seed.img\"},\"node-name\":\"seed\",\"read-only\":true}
-device virtio-blk-pci,drive=seed,serial=cidata
-netdev tap,id=net0,script=./bridge-0,downscript=no
-device virtio-net-pci,netdev=net0,mac=52:54:00:00:00:00
-netdev user,id=net1,hostfwd=tcp::8080-:80,hostfwd=udp::53-:53
-device virtio-net-pci,netdev=net1,mac=52:54:00:00:00:01
-netdev user,id=net2
-device virtio-net-pci,netdev=net2,mac=52:54:00:00:00:02
-kernel /k
-initrd /i
-append console=ttyS0 quiet"
        );
        let unprivileged = Told {
            is_root: false,
            ..told
        };
        let text = lines(&arguments(&unprivileged));
        assert!(text.contains("-netdev bridge,id=net0,br=br0\n"), "{text}");
        assert_eq!(
            scripts(&machine.nics),
            [(
                "bridge-0".to_owned(),
                "#!/bin/sh\nexec ip link set dev \"$1\" master br0 up\n".to_owned()
            )]
        );
    }
}
