//! Ports, mounts, devices: what a service has of its node.

use hostler_model::spec::{
    ContainerSpec, Device, ManagedVolume, Mount, PortMapping, Protocol, Tmpfs, near_name,
};
use serde_json::Value;

use super::keys::{Keys, scalar};
use super::units;

/// Addresses that stand for all of the node's.
const EVERYWHERE: [&str; 3] = ["", "0.0.0.0", "::"];

/// A port that is published under a fixed number; another is told.
pub(super) fn port(value: &Value, keys: &mut Keys<'_>) -> Option<PortMapping> {
    let read = match value {
        Value::Object(port) => {
            let field = |name: &str| port.get(name).and_then(scalar).unwrap_or_default();
            (
                field("host_ip"),
                field("published"),
                field("target"),
                field("protocol"),
            )
        }
        other => short_port(&scalar(other)?),
    };
    let (address, published, target, protocol) = read;
    if published.is_empty() {
        keys.note(&format!(
            "publishes port {target} under no fixed number; it is left out"
        ));
        return None;
    }
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let Some((host, inside)) = number(&published).zip(number(&target)) else {
        keys.note(&format!(
            "publishes `{published}:{target}`; write each port of a range by itself"
        ));
        return None;
    };
    if !EVERYWHERE.contains(&address.as_str()) {
        keys.note(&format!(
            "publishes port {host} on {address} alone; here every address of the node has it"
        ));
    }
    Some(PortMapping {
        name: None,
        host,
        target: (inside != host).then_some(inside),
        protocol: if protocol == "udp" {
            Protocol::Udp
        } else {
            Protocol::Tcp
        },
    })
}

/// `[address:][published:]target[/protocol]` as its four parts.
fn short_port(text: &str) -> (String, String, String, String) {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (rest, target) = text.rsplit_once(':').unwrap_or(("", text));
    let (address, published) = rest.rsplit_once(':').unwrap_or(("", rest));
    let address = address.trim_matches(['[', ']']);
    [address, published, target, protocol]
        .map(str::to_owned)
        .into()
}

/// One entry under `volumes`.
pub(super) fn volume(value: &Value, container: &mut ContainerSpec, keys: &mut Keys<'_>) {
    let Some(volume) = Volume::read(value) else {
        return;
    };
    let Volume {
        source,
        target,
        is_read_only,
        ..
    } = volume;
    if volume.is_tmpfs {
        container.tmpfs.push(Tmpfs {
            target,
            size: volume.size.as_deref().and_then(units::size),
            mode: None,
        });
    } else if source.starts_with('/') {
        container.mounts.push(Mount {
            source,
            target,
            read_only: is_read_only,
        });
    } else if source.is_empty() {
        keys.note(&format!("has a nameless volume at {target}; it is left out, and its data goes with the container"));
    } else {
        keys.note(&format!(
            "keeps `{source}` at {target}: the volume begins empty, its data is not brought along"
        ));
        container.volumes.push(ManagedVolume {
            name: near_name(&source),
            driver: ManagedVolume::LOCAL.to_owned(),
            target,
            size: None,
            access_mode: None,
            fs_type: None,
            read_only: is_read_only,
            retain: false,
        });
    }
}

/// An entry under `volumes`, in either form.
#[derive(Default)]
struct Volume {
    source: String,
    target: String,
    is_read_only: bool,
    is_tmpfs: bool,
    size: Option<String>,
}

impl Volume {
    fn read(value: &Value) -> Option<Self> {
        let Value::Object(volume) = value else {
            return Self::short(&scalar(value)?);
        };
        let field = |name: &str| volume.get(name).and_then(scalar).unwrap_or_default();
        Some(Self {
            source: field("source"),
            target: field("target"),
            is_read_only: field("read_only") == "true",
            is_tmpfs: field("type") == "tmpfs",
            size: volume
                .get("tmpfs")
                .and_then(|it| it.get("size"))
                .and_then(scalar),
        })
    }

    fn short(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, mode) = match parts.as_slice() {
            [target] => ("", *target, ""),
            [source, target] => (*source, *target, ""),
            [source, target, mode] => (*source, *target, *mode),
            _ => return None,
        };
        Some(Self {
            source: source.to_owned(),
            target: target.to_owned(),
            is_read_only: mode.split(',').any(|word| word == "ro"),
            ..Self::default()
        })
    }
}

/// `/tmp:size=64m,mode=1777`.
pub(super) fn tmpfs(text: &str) -> Tmpfs {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let option = |name: &str| {
        let mut options = options.split(',').filter_map(|it| it.split_once('='));
        options
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    Tmpfs {
        target: target.to_owned(),
        size: option("size").as_deref().and_then(units::size),
        mode: option("mode"),
    }
}

/// `/dev/a:/dev/b:rw`, or a section.
pub(super) fn device(value: &Value) -> Option<Device> {
    let parts: Vec<String> = match value {
        Value::Object(device) => ["source", "target", "permissions"]
            .iter()
            .map_while(|key| device.get(*key).and_then(scalar))
            .collect(),
        other => scalar(other)?.split(':').map(str::to_owned).collect(),
    };
    let mut parts = parts.into_iter();
    let source = parts.next()?;
    Some(Device {
        target: parts.next().filter(|target| *target != source),
        permissions: parts.next().filter(|it| it != "rwm"),
        source,
    })
}
