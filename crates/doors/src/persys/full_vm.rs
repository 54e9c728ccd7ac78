//! A whole machine in the agent contract's shape, carried as base64 JSON in a workload's metadata. Read as leniently
//! as such JSON is written elsewhere: unknown keys, nulls, and numbers as text are taken.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hostler_model::spec::{
    CloudInit, DiskFormat, DiskMedia, ManagedVolume, VmDisk, VmNetwork, VmSpec,
};
use hostler_wire::persys::agent;
use serde_json::{Map, Value};

use super::intake::{cpus, memory, network, size, some};
use super::words;

/// Where it is carried.
pub(super) const KEY: &str = "persys.vm_spec_b64";

/// The machine, if the metadata carries one.
pub(super) fn of(metadata: &BTreeMap<String, String>) -> Result<Option<agent::VmSpec>, String> {
    let Some(text) = metadata.get(KEY).filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    let bytes = BASE64
        .decode(text.trim())
        .map_err(|_| format!("metadata {KEY}: is no base64"))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(it)) => Ok(Some(machine(&Object(&it)))),
        Ok(_) | Err(_) => Err(format!("metadata {KEY}: holds no JSON object")),
    }
}

/// The same in our words, as far as they reach.
pub(super) fn ours(full: &agent::VmSpec) -> Result<VmSpec, String> {
    let disks = full.disks.iter().map(|disk| {
        Ok(VmDisk {
            pool: None,
            size: size("vm.disks: size_gb", disk.size_gb)?,
            target: some(&disk.device),
            image: some(&disk.path).filter(|_| !is_made_by_the_agent(disk)),
            format: match disk.format.as_str() {
                "raw" => DiskFormat::Raw,
                _ => DiskFormat::Qcow2,
            },
            media: match (disk.r#type.as_str(), disk.format.as_str()) {
                ("cdrom", _) | (_, "iso") => DiskMedia::Cdrom,
                _ => DiskMedia::Disk,
            },
            boot: disk.boot,
        })
    });
    let network = |it: &agent::NetworkConfig| VmNetwork {
        mac: some(&it.mac_address),
        ..network(&it.network, &it.ip_address)
    };
    Ok(VmSpec {
        cpus: cpus(full.vcpus)?,
        memory: memory(full.memory_mb)?,
        disks: disks.collect::<Result<_, String>>()?,
        networks: full.networks.iter().map(network).collect(),
        cloud_init: cloud_init(full),
        volumes: full
            .managed_volumes
            .iter()
            .map(volume)
            .collect::<Result<_, _>>()?,
        ..VmSpec::default()
    })
}

/// Whether the path is where a scheduler lets an agent make a new disk, rather than an image that is there.
fn is_made_by_the_agent(disk: &agent::DiskConfig) -> bool {
    let name = disk.path.strip_prefix("/var/lib/libvirt/images/");
    name.is_some_and(|name| name.ends_with(&format!("-{}.qcow2", disk.device)))
}

fn cloud_init(full: &agent::VmSpec) -> Option<CloudInit> {
    let parts = full.cloud_init_config.as_ref();
    match parts.filter(|it| !it.user_data.is_empty() || full.cloud_init.is_empty()) {
        Some(it) => Some(CloudInit {
            user_data: it.user_data.clone(),
            meta_data: it.meta_data.clone(),
            network_config: it.network_config.clone(),
            vendor_data: it.vendor_data.clone(),
        }),
        None => (!full.cloud_init.is_empty()).then(|| CloudInit {
            user_data: full.cloud_init.clone(),
            ..CloudInit::default()
        }),
    }
}

fn volume(told: &agent::ManagedVolumeSpec) -> Result<ManagedVolume, String> {
    let local = || ManagedVolume::LOCAL.to_owned();
    Ok(ManagedVolume {
        name: told.name.clone(),
        driver: words::storage_driver(&told.driver).unwrap_or_else(local),
        target: told.mount_path.clone(),
        size: size("managed_volumes: size_gb", told.size_gb)?,
        access_mode: some(&told.access_mode),
        fs_type: some(&told.fs_type),
        read_only: told.read_only,
        retain: told.retain_policy.eq_ignore_ascii_case("retain"),
    })
}

/// Lenient access to a JSON object: what is missing or of another kind is nothing.
struct Object<'a>(&'a Map<String, Value>);

impl<'a> Object<'a> {
    fn text(&self, key: &str) -> String {
        match self.0.get(key) {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        }
    }

    fn number(&self, key: &str) -> i64 {
        match self.0.get(key) {
            Some(Value::Number(number)) => number.as_i64().unwrap_or_default(),
            Some(Value::String(text)) => text.trim().parse().unwrap_or_default(),
            _ => 0,
        }
    }

    fn small(&self, key: &str) -> i32 {
        i32::try_from(self.number(key)).unwrap_or_default()
    }

    fn flag(&self, key: &str) -> bool {
        self.0.get(key) == Some(&Value::Bool(true))
    }

    fn list<T>(&self, key: &str, read: impl Fn(&Object<'a>) -> T) -> Vec<T> {
        let list = self.0.get(key).and_then(Value::as_array);
        let objects = list.into_iter().flatten().filter_map(Value::as_object);
        objects.map(|it| read(&Object(it))).collect()
    }

    fn texts(&self, key: &str) -> BTreeMap<String, String> {
        let map = self.0.get(key).and_then(Value::as_object);
        let pair =
            |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        map.into_iter().flatten().filter_map(pair).collect()
    }
}

fn machine(it: &Object<'_>) -> agent::VmSpec {
    let config = it.0.get("cloud_init_config").and_then(Value::as_object);
    agent::VmSpec {
        name: it.text("name"),
        vcpus: it.small("vcpus"),
        memory_mb: it.number("memory_mb"),
        disks: it.list("disks", disk),
        networks: it.list("networks", |it| agent::NetworkConfig {
            network: it.text("network"),
            mac_address: it.text("mac_address"),
            ip_address: it.text("ip_address"),
        }),
        cloud_init: it.text("cloud_init"),
        metadata: it.texts("metadata"),
        cloud_init_config: config.map(|it| parts(&Object(it))),
        managed_volumes: it.list("managed_volumes", managed),
    }
}

fn disk(it: &Object<'_>) -> agent::DiskConfig {
    agent::DiskConfig {
        path: it.text("path"),
        device: it.text("device"),
        format: it.text("format"),
        size_gb: it.number("size_gb"),
        r#type: it.text("type"),
        boot: it.flag("boot"),
    }
}

fn parts(it: &Object<'_>) -> agent::CloudInitConfig {
    agent::CloudInitConfig {
        user_data: it.text("user_data"),
        meta_data: it.text("meta_data"),
        network_config: it.text("network_config"),
        vendor_data: it.text("vendor_data"),
    }
}

fn managed(it: &Object<'_>) -> agent::ManagedVolumeSpec {
    agent::ManagedVolumeSpec {
        name: it.text("name"),
        driver: it.text("driver"),
        size_gb: it.number("size_gb"),
        access_mode: it.text("access_mode"),
        fs_type: it.text("fs_type"),
        mount_path: it.text("mount_path"),
        read_only: it.flag("read_only"),
        retain_policy: it.text("retain_policy"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_machine_is_read_with_nulls_and_numbers_as_text() {
        let json = r#"{"name":"db","vcpus":2,"memory_mb":"1024","networks":null,"later":1,
            "disks":[{"path":"/a.qcow2","device":"vda","size_gb":20,"boot":true}],
            "cloud_init":"hello","metadata":{"a":"b"}}"#;
        let metadata = BTreeMap::from([(KEY.to_owned(), BASE64.encode(json))]);
        let full = of(&metadata).unwrap().unwrap();
        assert_eq!((full.memory_mb, full.disks[0].boot), (1_024, true));
        let ours = ours(&full).unwrap();
        assert_eq!(ours.disks[0].image.as_deref(), Some("/a.qcow2"));
        assert!(ours.disks[0].boot);
        assert_eq!(ours.cloud_init.unwrap().user_data, "hello");
        for broken in ["%", "W10="] {
            let metadata = BTreeMap::from([(KEY.to_owned(), broken.to_owned())]);
            assert!(of(&metadata).unwrap_err().contains(KEY));
        }
        assert_eq!(of(&BTreeMap::new()), Ok(None));
    }
}
