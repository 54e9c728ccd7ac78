//! What a container has of its node and of its engine, in the words of a spec: its name, network and ports, what it
//! sees of disks and memory, and where its log goes. Pure; what no spec can say becomes a note.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerConfig, HostConfig, MountPoint, MountType, PortBinding};
use hostler_model::Bytes;
use hostler_model::spec::{ContainerSpec, LogDriver, Mount, PortMapping, Protocol, Tmpfs};

use super::amount;

const LOG_DRIVERS: [&str; 3] = ["json-file", "local", "journald"];
/// Addresses that are every address of the node.
const EVERYWHERE: [&str; 3] = ["", "0.0.0.0", "::"];
/// What a file system in memory is without being told.
const USUAL_TMPFS: [&str; 5] = ["", "rw", "noexec", "nosuid", "nodev"];

/// Its host name, if somebody gave it one: engines take the beginning of the id, or the node's own.
pub(super) fn hostname(config: &ContainerConfig, host: &HostConfig, id: &str) -> Option<String> {
    let mode = host.network_mode.as_deref().unwrap_or_default();
    if mode == "host" || mode.contains(':') || host.uts_mode.as_deref() == Some("host") {
        return None;
    }
    let name = config.hostname.clone()?;
    (!id.starts_with(&name)).then_some(name)
}

pub(super) fn network(host: &HostConfig, notes: &mut Vec<String>) -> Option<String> {
    let mode = host.network_mode.as_deref().unwrap_or("default");
    if mode == "default" || mode == "bridge" {
        return None;
    }
    if mode.contains(':') {
        notes.push(format!(
            "it shares a network by `{mode}`; the next one does not"
        ));
        return None;
    }
    Some(mode.to_owned())
}

pub(super) fn ports(host: &HostConfig, notes: &mut Vec<String>) -> Vec<PortMapping> {
    let bindings: HashMap<String, Option<Vec<PortBinding>>> =
        host.port_bindings.clone().unwrap_or_default();
    let mut ports = Vec::new();
    for (target, bindings) in bindings {
        let (number, protocol) = target.split_once('/').unwrap_or((&target, "tcp"));
        let Ok(inside) = number.parse::<u16>() else {
            continue;
        };
        for binding in bindings.into_iter().flatten() {
            let published = binding
                .host_port
                .as_deref()
                .and_then(|it| it.parse::<u16>().ok());
            let Some(published) = published.filter(|port| *port != 0) else {
                notes.push(format!(
                    "port {target} has no fixed number on the node and is left out"
                ));
                continue;
            };
            let address = binding.host_ip.unwrap_or_default();
            if !EVERYWHERE.contains(&address.as_str()) {
                notes.push(format!(
                    "port {target} is published at {address} only; the next one publishes it at every address"
                ));
            }
            ports.push(PortMapping {
                name: None,
                host: published,
                target: (inside != published).then_some(inside),
                protocol: if protocol == "udp" {
                    Protocol::Udp
                } else {
                    Protocol::Tcp
                },
            });
        }
    }
    ports.sort_by_key(|port| (port.host, port.protocol));
    ports.dedup();
    ports
}

/// Places of the node, and volumes by their names, so that the next container finds them and the engine knows that
/// they are in use.
pub(super) fn mounts(mounts: Vec<MountPoint>, spec: &mut ContainerSpec, notes: &mut Vec<String>) {
    for mount in mounts {
        let target = mount.destination.unwrap_or_default();
        let source = match mount.typ.as_deref() {
            Some("bind") => mount.source,
            Some("volume") => mount.name,
            Some("tmpfs") if spec.tmpfs.iter().any(|it| it.target == target) => continue,
            _ => None,
        };
        let Some(source) = source.filter(|it| !it.is_empty()) else {
            notes.push(format!("what is mounted at {target} is not carried over"));
            continue;
        };
        spec.mounts.push(Mount {
            source,
            target,
            read_only: mount.rw == Some(false),
        });
    }
    spec.mounts.sort_by(|a, b| a.target.cmp(&b.target));
}

/// File systems in memory, in the engine's two ways to ask for them.
pub(super) fn in_memory(host: &HostConfig, notes: &mut Vec<String>) -> Vec<Tmpfs> {
    let mut all = Vec::new();
    for (target, options) in host.tmpfs.iter().flatten() {
        let (mut size, mut mode) = (None, None);
        for option in options.split(',') {
            match option.split_once('=') {
                Some(("size", text)) if size_of(text).is_some() => size = size_of(text),
                Some(("mode", text)) => mode = Some(text.to_owned()),
                _ if USUAL_TMPFS.contains(&option) => {}
                _ => notes.push(format!(
                    "the option `{option}` of the file system in memory at {target} is not carried over"
                )),
            }
        }
        all.push(Tmpfs {
            target: target.clone(),
            size,
            mode,
        });
    }
    let mounts = host.mounts.iter().flatten();
    for mount in mounts.filter(|it| it.typ == Some(MountType::TMPFS)) {
        let options = mount.tmpfs_options.clone().unwrap_or_default();
        all.push(Tmpfs {
            target: mount.target.clone().unwrap_or_default(),
            size: amount(options.size_bytes).map(Bytes),
            mode: amount(options.mode).map(|mode| format!("{mode:o}")),
        });
    }
    all.sort_by(|a, b| a.target.cmp(&b.target));
    all
}

/// As the kernel reads sizes of file systems in memory.
fn size_of(text: &str) -> Option<Bytes> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    let number = digits.parse::<u64>().ok()?;
    number.checked_mul(1 << shift).map(Bytes)
}

pub(super) fn log(host: &HostConfig, notes: &mut Vec<String>) -> Option<LogDriver> {
    let log = host.log_config.as_ref()?;
    let driver = log.typ.clone()?;
    if !LOG_DRIVERS.contains(&driver.as_str()) {
        notes.push(format!(
            "it logs by `{driver}`, which cannot be read back; the next one does not"
        ));
        return None;
    }
    let options: BTreeMap<_, _> = log.config.clone().unwrap_or_default().into_iter().collect();
    (driver != LOG_DRIVERS[0] || !options.is_empty()).then_some(LogDriver { driver, options })
}
