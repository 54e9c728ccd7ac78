//! A scheduler's virtual machine as one of ours. Pure.
//!
//! Its contract was made for libvirt: a disk has a path of the node that is used as it is, or made if it is not there. Ours
//! keeps disks itself and never writes to an image. So a path where a scheduler lets its agent make a new disk is a
//! new disk, and any other is the image that the disk begins as.

use hostler_model::spec::{
    CloudInit, DiskFormat, DiskMedia, RestartPolicy, VmDisk, VmNetwork, VmSpec, WorkloadSpec,
};
use hostler_model::{Bytes, MilliCpu};
use hostler_wire::persys::agent;

use super::causes;
use super::spec::{No, amount, invalid, name_of, volumes};

/// Where a scheduler lets its agent make disks.
const MADE: &str = "/var/lib/libvirt/images/";
/// What a disk has of which nothing is said.
const USUAL_DISK: Bytes = Bytes(20 << 30);
/// How long a guest may take to power off.
const GRACE_MS: u64 = 30_000;
/// The network that every machine has under libvirt: behind the node, without addresses of its own.
const DEFAULT_NETWORK: &str = "default";
/// Under which a scheduler passes on what the agent's contract has no field for.
const IMAGE: &str = "persys.os_image";

pub(super) fn read(id: &str, theirs: &agent::VmSpec) -> Result<WorkloadSpec, No> {
    let count = |key: &str, number: i64| amount(key, number).map(|it| (it > 0).then_some(it));
    let cpus = count("vm.vcpus", theirs.vcpus.into())?;
    let memory = count("vm.memory_mb", theirs.memory_mb)?;
    let memory = memory.map(|mebibytes| Bytes(mebibytes.saturating_mul(1 << 20)));
    let disks = theirs.disks.iter().map(|it| disk(id, it));
    let cloud_init = cloud_init(id, theirs);
    if let Some(problem) = cloud_init.as_ref().and_then(CloudInit::problem) {
        return Err(No::new(causes::CLOUD_INIT, problem));
    }
    let image = theirs.metadata.get(IMAGE).cloned().unwrap_or_default();
    let vm = VmSpec {
        image,
        volumes: volumes(&theirs.managed_volumes)?,
        cpus: cpus.map(|cpus| u32::try_from(cpus).unwrap_or(u32::MAX)),
        memory,
        disks: disks.collect::<Result<_, _>>()?,
        networks: theirs.networks.iter().map(network).collect(),
        cloud_init,
        ..VmSpec::default()
    };
    let mut spec = WorkloadSpec {
        vm: Some(vm),
        ..WorkloadSpec::bare(&name_of(id))
    };
    // What the machine has is what it takes.
    spec.resources.cpu = MilliCpu(cpus.unwrap_or_default().saturating_mul(1000));
    spec.resources.memory = memory.unwrap_or_default();
    spec.restart.policy = RestartPolicy::No;
    spec.stop.grace_ms = GRACE_MS;
    Ok(spec)
}

fn disk(id: &str, theirs: &agent::DiskConfig) -> Result<VmDisk, No> {
    let size = amount("vm.disks: size_gb", theirs.size_gb)?;
    let size = (size > 0).then(|| Bytes(size.saturating_mul(1 << 30)));
    let word = |text: &str| text.trim().to_ascii_lowercase();
    let (kind, format) = (word(&theirs.r#type), word(&theirs.format));
    let media = match (kind.as_str(), format.as_str()) {
        ("cdrom", _) | ("" | "disk", "iso") => DiskMedia::Cdrom,
        ("" | "disk", _) => DiskMedia::Disk,
        (other, _) => {
            return Err(invalid(format!(
                "vm.disks: type `{other}` is neither disk nor cdrom"
            )));
        }
    };
    let format = match format.as_str() {
        "" | "qcow2" | "iso" => DiskFormat::Qcow2,
        "raw" => DiskFormat::Raw,
        other => {
            return Err(invalid(format!(
                "vm.disks: format `{other}` is none of qcow2, raw and iso"
            )));
        }
    };
    let path = theirs.path.trim();
    let made = format!("{MADE}{id}-{}.qcow2", theirs.device);
    let image = (!path.is_empty() && path != made).then(|| path.to_owned());
    let size = match (&image, media) {
        (None, DiskMedia::Disk) => size.or(Some(USUAL_DISK)),
        _ => size,
    };
    Ok(VmDisk {
        pool: None,
        size,
        target: Some(theirs.device.trim().to_owned()).filter(|it| !it.is_empty()),
        image,
        format,
        media,
        boot: theirs.boot,
    })
}

/// An address on the default network is not applied, as the contract's own agents do not.
fn network(theirs: &agent::NetworkConfig) -> VmNetwork {
    let word = |text: &str| Some(text.trim().to_owned()).filter(|it| !it.is_empty());
    let bridge = word(&theirs.network).filter(|it| it != DEFAULT_NETWORK);
    VmNetwork {
        ip: word(&theirs.ip_address).filter(|_| bridge.is_some()),
        mac: word(&theirs.mac_address),
        bridge,
        ..VmNetwork::default()
    }
}

/// The parts count before the single text if they say what the user wants. A guest is known by the workload's id, and
/// calls itself by its own name.
fn cloud_init(id: &str, theirs: &agent::VmSpec) -> Option<CloudInit> {
    let parts = theirs.cloud_init_config.as_ref();
    if parts.is_none() && theirs.cloud_init.is_empty() {
        return None;
    }
    let parts = parts.cloned().unwrap_or_default();
    let or = |text: String, other: &str| {
        if text.is_empty() {
            other.to_owned()
        } else {
            text
        }
    };
    let name = or(theirs.name.clone(), &name_of(id));
    let identity = format!("instance-id: {id}\nlocal-hostname: {name}\n");
    Some(CloudInit {
        user_data: or(parts.user_data, &theirs.cloud_init),
        meta_data: or(parts.meta_data, &identity),
        network_config: parts.network_config,
        vendor_data: parts.vendor_data,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn db() -> agent::VmSpec {
        agent::VmSpec {
            name: "db".to_owned(),
            vcpus: 2,
            memory_mb: 1024,
            disks: vec![agent::DiskConfig {
                path: "/srv/debian.qcow2".to_owned(),
                device: "vda".to_owned(),
                format: "qcow2".to_owned(),
                size_gb: 20,
                r#type: "disk".to_owned(),
                boot: true,
            }],
            networks: vec![agent::NetworkConfig {
                network: "br0".to_owned(),
                mac_address: "52:54:00:12:34:56".to_owned(),
                ip_address: "10.0.0.5/24".to_owned(),
            }],
            cloud_init: "#cloud-config\n".to_owned(),
            ..agent::VmSpec::default()
        }
    }

    #[test]
    fn a_machine_is_taken_over_with_its_disks_networks_and_first_boot() {
        let spec = read("Team/db", &db()).unwrap();
        assert_eq!(spec.check(), Ok(()));
        assert_eq!(
            (spec.resources.cpu.0, spec.resources.memory.0),
            (2000, 1 << 30)
        );
        assert_eq!(
            (spec.stop.grace_ms, spec.name.as_str()),
            (30_000, "team-db")
        );
        let vm = spec.vm.unwrap();
        assert_eq!((vm.cpus, vm.memory), (Some(2), Some(Bytes(1 << 30))));
        assert_eq!(vm.disks[0].image.as_deref(), Some("/srv/debian.qcow2"));
        assert_eq!(
            (vm.disks[0].size, vm.disks[0].boot),
            (Some(Bytes(20 << 30)), true)
        );
        assert_eq!(vm.networks[0].bridge.as_deref(), Some("br0"));
        assert_eq!(vm.networks[0].ip.as_deref(), Some("10.0.0.5/24"));
        let told = vm.cloud_init.unwrap();
        assert_eq!(told.user_data, "#cloud-config\n");
        assert_eq!(told.meta_data, "instance-id: Team/db\nlocal-hostname: db\n");
    }

    #[test]
    fn what_a_scheduler_lets_its_agent_make_is_a_new_disk_of_the_usual_size() {
        let mut theirs = db();
        theirs.disks[0].path = "/var/lib/libvirt/images/db-vda.qcow2".to_owned();
        theirs.disks[0].size_gb = 0;
        theirs.networks[0].network = "default".to_owned();
        theirs
            .metadata
            .insert(IMAGE.to_owned(), "debian-12".to_owned());
        let spec = read("db", &theirs).unwrap();
        assert_eq!(spec.check(), Ok(()));
        let vm = spec.vm.unwrap();
        assert_eq!(vm.image, "debian-12");
        assert_eq!(
            (vm.disks[0].image.clone(), vm.disks[0].size),
            (None, Some(USUAL_DISK))
        );
        assert_eq!(
            (vm.networks[0].bridge.clone(), vm.networks[0].ip.clone()),
            (None, None)
        );
        let other = read("other", &theirs).unwrap().vm.unwrap();
        assert!(other.disks[0].image.is_some(), "another's disk is an image");

        theirs.disks[0].format = "iso".to_owned();
        theirs.disks[0].path = "/srv/a.iso".to_owned();
        let vm = read("db", &theirs).unwrap().vm.unwrap();
        assert_eq!(vm.disks[0].media, DiskMedia::Cdrom);
    }

    #[test]
    fn the_parts_of_cloud_init_count_before_the_single_text() {
        let mut theirs = db();
        theirs.cloud_init_config = Some(agent::CloudInitConfig {
            user_data: "#!/bin/sh\n".to_owned(),
            meta_data: "instance-id: x\n".to_owned(),
            ..agent::CloudInitConfig::default()
        });
        let told = read("db", &theirs).unwrap().vm.unwrap().cloud_init.unwrap();
        assert_eq!(
            (told.user_data.as_str(), told.meta_data.as_str()),
            ("#!/bin/sh\n", "instance-id: x\n")
        );
        theirs.cloud_init_config.as_mut().unwrap().user_data.clear();
        let told = read("db", &theirs).unwrap().vm.unwrap().cloud_init.unwrap();
        assert_eq!(told.user_data, "#cloud-config\n");
    }

    #[test]
    fn what_cannot_be_done_is_told_by_its_cause() {
        let refused = |change: fn(&mut agent::VmSpec)| {
            let mut theirs = db();
            change(&mut theirs);
            read("db", &theirs).unwrap_err().cause
        };
        let huge = "x".repeat(CloudInit::MOST_BYTES + 1);
        let mut theirs = db();
        theirs.cloud_init = huge;
        assert_eq!(read("db", &theirs).unwrap_err().cause, causes::CLOUD_INIT);
        assert_eq!(
            refused(|it| it.cloud_init = "a\0".to_owned()),
            causes::CLOUD_INIT
        );
        let volume = |it: &mut agent::VmSpec| {
            it.managed_volumes.push(agent::ManagedVolumeSpec {
                size_gb: -1,
                ..agent::ManagedVolumeSpec::default()
            });
        };
        assert_eq!(refused(volume), causes::INVALID);
        assert_eq!(refused(|it| it.vcpus = -1), causes::INVALID);
        assert_eq!(refused(|it| it.disks[0].size_gb = -1), causes::INVALID);
        assert_eq!(
            refused(|it| it.disks[0].format = "vmdk".to_owned()),
            causes::INVALID
        );
        assert_eq!(
            refused(|it| it.disks[0].r#type = "floppy".to_owned()),
            causes::INVALID
        );
    }

    proptest! {
        #[test]
        fn any_machine_is_read_or_refused(
            cpus in any::<i32>(), memory in any::<i64>(), size in any::<i64>(), text in ".{0,12}",
        ) {
            let mut theirs = db();
            (theirs.vcpus, theirs.memory_mb) = (cpus, memory);
            theirs.disks[0].size_gb = size;
            theirs.disks[0].device.clone_from(&text);
            theirs.networks[0].network.clone_from(&text);
            let _ = read(&text, &theirs).map(|spec| spec.check());
        }
    }
}
