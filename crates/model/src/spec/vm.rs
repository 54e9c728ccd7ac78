//! The `vm` section: a virtual machine.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ManagedVolume;
use super::volume;
use crate::Bytes;

/// In less, no guest boots.
const LEAST_MEMORY: Bytes = Bytes(4 << 20);

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// The image that the boot disk begins as: a path or `file://` URL on the node, or a name in one of the node's
    /// directories of images. It is never written to. May be left out if there are `disks` or a `kernel`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// A kernel on the node that is booted instead of what is on the disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// The kernel's command line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cmdline: String,
    /// What runs the guest's processors; the node's setting if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<Accelerator>,
    /// As many as `resources.cpu` rounded up, if left out, and at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// `resources.memory` if left out, and 512 MiB if that is left out, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<VmDisk>,
    /// One `user` network if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<VmNetwork>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<ManagedVolume>,
}

/// What runs a guest's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The machine's own processors if its kernel offers them, else emulation.
    #[default]
    Auto,
    Kvm,
    /// Emulation: slow, and everywhere.
    Tcg,
}

/// A disk of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmDisk {
    /// The storage pool of the node; its default if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// How large it is at least; the image's own size if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// Where the guest finds it: a device such as `vdb`, or a mount point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The image that it begins as, named as the machine's own; empty if left out. It is never written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "is_usual")]
    pub format: DiskFormat,
    #[serde(default, skip_serializing_if = "is_usual")]
    pub media: DiskMedia,
    /// Whether it is tried for booting, in the order of the list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub boot: bool,
}

/// How the node keeps a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// Only what differs from the image takes room.
    #[default]
    Qcow2,
    /// A copy of the image, as it is.
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskMedia {
    #[default]
    Disk,
    /// The image itself, read only.
    Cdrom,
}

/// A network of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmNetwork {
    /// The node's bridge. Without one it is a `user` network: the guest reaches out, and `ports` lead in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Whether the guest asks for its address; it does, too, if it is told none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dhcp: bool,
    /// The guest's fixed address on a bridge, told through cloud-init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The guest's hardware address; one that stays with the copy if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// What cloud-init reads at the first boot, each part as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudInit {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub meta_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_config: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor_data: String,
}

impl VmSpec {
    pub(super) fn check(&self, has_ports: bool, findings: &mut Vec<String>) {
        if self.image.is_empty() && self.disks.is_empty() && self.kernel.is_none() {
            findings.push("vm: neither `image` nor `disks` nor `kernel` is there".to_owned());
        }
        if self.cpus == Some(0) {
            findings.push("vm.cpus: 0 is no machine".to_owned());
        }
        if self.memory.is_some_and(|memory| memory < LEAST_MEMORY) {
            findings.push(format!("vm.memory: less than {LEAST_MEMORY}"));
        }
        if self.kernel.is_none() && (self.initrd.is_some() || !self.cmdline.is_empty()) {
            findings.push("vm: `initrd` and `cmdline` go with a `kernel`".to_owned());
        }
        self.check_disks(findings);
        self.check_networks(has_ports, findings);
        if let Some(problem) = self.cloud_init.as_ref().and_then(CloudInit::problem) {
            findings.push(problem);
        }
        volume::check("vm", &self.volumes, findings);
        let sizeless = self.volumes.iter().find(|volume| volume.size.is_none());
        if let Some(volume) = sizeless.filter(|volume| volume.driver != ManagedVolume::CEPH) {
            let name = &volume.name;
            findings.push(format!("vm.volumes: `{name}` is a disk and needs a `size`"));
        }
    }

    fn check_disks(&self, findings: &mut Vec<String>) {
        let mut targets = BTreeSet::new();
        for target in self.disks.iter().filter_map(|disk| disk.target.as_ref()) {
            if target.is_empty() || !targets.insert(target) {
                findings.push(format!(
                    "vm.disks: target `{target}` is empty or named twice"
                ));
            }
        }
        for disk in &self.disks {
            let has_image = disk.image.as_ref().is_some_and(|image| !image.is_empty());
            match disk.media {
                DiskMedia::Cdrom if !has_image => {
                    findings.push("vm.disks: a cdrom needs its `image`".to_owned());
                }
                DiskMedia::Disk if !has_image && disk.size.unwrap_or_default() == Bytes(0) => {
                    findings.push("vm.disks: a disk needs a `size` or an `image`".to_owned());
                }
                DiskMedia::Cdrom | DiskMedia::Disk => {}
            }
        }
    }

    fn check_networks(&self, has_ports: bool, findings: &mut Vec<String>) {
        let is_user = |network: &VmNetwork| network.bridge.is_none();
        if has_ports && !self.networks.is_empty() && !self.networks.iter().any(is_user) {
            findings.push(
                "ports: they lead into a network without a `bridge`, and there is none".to_owned(),
            );
        }
        for network in &self.networks {
            if let Some(bridge) = &network.bridge
                && !is_interface_name(bridge)
            {
                findings.push(format!("vm.networks: `{bridge}` is no name of a bridge"));
            }
            if let Some(ip) = &network.ip {
                // With or without the length of its prefix.
                if prefixed(ip).is_none() {
                    findings.push(format!("vm.networks: `{ip}` is no address"));
                } else if is_user(network) {
                    findings.push(format!(
                        "vm.networks: the address `{ip}` needs a `bridge` that it belongs to"
                    ));
                }
            }
            if let Some(gateway) = &network.gateway
                && gateway.parse::<IpAddr>().is_err()
            {
                findings.push(format!("vm.networks: gateway `{gateway}` is no address"));
            }
            if let Some(mac) = &network.mac
                && !is_mac(mac)
            {
                findings.push(format!(
                    "vm.networks: `{mac}` is no hardware address of one machine, such as 52:54:00:12:34:56"
                ));
            }
        }
    }
}

impl CloudInit {
    /// Most bytes of a part, and of all parts together.
    pub const MOST_BYTES: usize = 256 << 10;

    /// Why it cannot be told to a guest, as a sentence; none if it can.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let parts = [
            ("user_data", &self.user_data),
            ("meta_data", &self.meta_data),
            ("network_config", &self.network_config),
            ("vendor_data", &self.vendor_data),
        ];
        if let Some((name, _)) = parts.iter().find(|(_, text)| text.contains('\0')) {
            return Some(format!("vm.cloud_init.{name}: holds a NUL character"));
        }
        let most = Self::MOST_BYTES;
        if let Some((name, text)) = parts.iter().find(|(_, text)| text.len() > most) {
            let length = text.len();
            return Some(format!(
                "vm.cloud_init.{name}: {length} bytes are more than {most}"
            ));
        }
        let total: usize = parts.iter().map(|(_, text)| text.len()).sum();
        (total > most).then(|| {
            format!("vm.cloud_init: all parts together have {total} bytes, more than {most}")
        })
    }
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An address and the length of its prefix, if it is told.
#[must_use]
pub fn prefixed(text: &str) -> Option<(IpAddr, Option<u8>)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (prefix.is_none_or(|prefix| prefix <= longest)).then_some((address, prefix))
}

/// What the kernel takes as the name of a network interface, and no command line misreads.
fn is_interface_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=15).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(['-', '.'])
}

/// Six bytes in hexadecimal; the lowest bit of the first would make it an address of many.
fn is_mac(text: &str) -> bool {
    let bytes: Vec<Option<u8>> = text
        .split(':')
        .map(|byte| {
            let byte = (byte.len() == 2).then_some(byte)?;
            u8::from_str_radix(byte, 16).ok()
        })
        .collect();
    bytes.len() == 6
        && bytes.iter().all(Option::is_some)
        && bytes[0].is_some_and(|byte| byte & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(vm: &VmSpec, has_ports: bool) -> String {
        let mut findings = Vec::new();
        vm.check(has_ports, &mut findings);
        findings.join("; ")
    }

    fn machine() -> VmSpec {
        VmSpec {
            image: "debian.qcow2".to_owned(),
            ..VmSpec::default()
        }
    }

    fn on(network: VmNetwork) -> VmSpec {
        VmSpec {
            networks: vec![network],
            ..machine()
        }
    }

    fn bridged() -> VmNetwork {
        VmNetwork {
            bridge: Some("br0".to_owned()),
            ..VmNetwork::default()
        }
    }

    #[test]
    fn machines_that_make_sense_have_no_findings() {
        assert_eq!(findings(&machine(), true), "");
        let kernel = VmSpec {
            kernel: Some("/boot/vmlinuz".to_owned()),
            cmdline: "quiet".to_owned(),
            ..VmSpec::default()
        };
        assert_eq!(findings(&kernel, false), "");
        let fixed = on(VmNetwork {
            ip: Some("10.0.0.5/24".to_owned()),
            gateway: Some("10.0.0.1".to_owned()),
            mac: Some("52:54:00:aB:34:56".to_owned()),
            ..bridged()
        });
        assert_eq!(findings(&fixed, false), "");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let text = |text: &str| Some(text.to_owned());
        let disk = |disk: VmDisk| VmSpec {
            disks: vec![disk],
            ..machine()
        };
        let cases = [
            (VmSpec::default(), false, "neither `image`"),
            (
                VmSpec {
                    initrd: text("x"),
                    ..machine()
                },
                false,
                "go with a `kernel`",
            ),
            (
                VmSpec {
                    memory: Some(Bytes(1 << 20)),
                    ..machine()
                },
                false,
                "vm.memory",
            ),
            (disk(VmDisk::default()), false, "`size` or an `image`"),
            (
                disk(VmDisk {
                    media: DiskMedia::Cdrom,
                    ..VmDisk::default()
                }),
                false,
                "cdrom",
            ),
            (on(bridged()), true, "ports: they lead"),
            (
                on(VmNetwork {
                    bridge: text("br0,script=/x"),
                    ..VmNetwork::default()
                }),
                false,
                "no name of a bridge",
            ),
            (
                on(VmNetwork {
                    ip: text("10.0.0.5"),
                    ..VmNetwork::default()
                }),
                false,
                "needs a `bridge`",
            ),
            (
                on(VmNetwork {
                    ip: text("10.0.0.5/33"),
                    ..bridged()
                }),
                false,
                "is no address",
            ),
            (
                on(VmNetwork {
                    gateway: text("x"),
                    ..bridged()
                }),
                false,
                "gateway",
            ),
            (
                on(VmNetwork {
                    mac: text("53:54:00:12:34:56"),
                    ..bridged()
                }),
                false,
                "hardware address",
            ),
        ];
        for (vm, has_ports, part) in cases {
            let found = findings(&vm, has_ports);
            assert!(found.contains(part), "{part}: {found}");
        }
    }

    #[test]
    fn cloud_init_is_bounded_part_by_part_and_as_a_whole_and_holds_no_nul() {
        let most = CloudInit::MOST_BYTES;
        let of = |user: usize, vendor: usize| CloudInit {
            user_data: "x".repeat(user),
            vendor_data: "x".repeat(vendor),
            ..CloudInit::default()
        };
        assert_eq!(of(most, 0).problem(), None);
        assert!(of(most + 1, 0).problem().unwrap().contains("user_data"));
        assert!(of(most, 1).problem().unwrap().contains("all parts"));
        let nul = CloudInit {
            network_config: "a\0".to_owned(),
            ..CloudInit::default()
        };
        assert!(nul.problem().unwrap().contains("network_config"));
        let vm = VmSpec {
            cloud_init: Some(of(most, 1)),
            ..machine()
        };
        assert!(findings(&vm, false).contains("all parts"));
    }
}
