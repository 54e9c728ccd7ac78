//! A spec file of the control contract: JSON with the names of its fields, either a whole spec with its type or the
//! section of one type alone. Unknown keys are refused: nothing that was asked for is dropped in silence.

use std::collections::BTreeMap;
use std::path::Path;

use hostler_wire::persys::control;
use hostler_wire::persys::control::workload_spec::Workload;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::Failure;

/// Largest file that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;

macro_rules! mirrored {
    ($name:ident, $theirs:ty { $($field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct $name { $($field: $kind),* }

        impl From<$name> for $theirs {
            fn from(it: $name) -> Self {
                Self { $($field: it.$field.into_wire()),* }
            }
        }
    };
}

/// A field's value as the wire type has it.
trait IntoWire<T> {
    fn into_wire(self) -> T;
}

macro_rules! same {
    ($($kind:ty),*) => {
        $(impl IntoWire<$kind> for $kind {
            fn into_wire(self) -> $kind { self }
        })*
    };
}

same!(String, i32, i64, bool, Vec<String>, BTreeMap<String, String>);

macro_rules! nested {
    ($($name:ident => $theirs:ty),*) => {
        $(
            impl IntoWire<Vec<$theirs>> for Vec<$name> {
                fn into_wire(self) -> Vec<$theirs> { self.into_iter().map(Into::into).collect() }
            }
            impl IntoWire<Option<$theirs>> for Option<$name> {
                fn into_wire(self) -> Option<$theirs> { self.map(Into::into) }
            }
        )*
    };
}

nested!(
    Resources => control::ResourceRequirements,
    Mount => control::VolumeMount,
    Port => control::Port,
    Managed => control::ManagedVolumeSpec,
    Disk => control::DiskConfig,
    Network => control::NetworkConfig,
    CloudInit => control::CloudInitConfig
);

mirrored!(
    Resources,
    control::ResourceRequirements {
        cpu_millicores: i64,
        memory_mb: i64,
        disk_gb: i64,
    }
);

mirrored!(
    Mount,
    control::VolumeMount {
        host_path: String,
        container_path: String,
        read_only: bool,
    }
);

mirrored!(
    Port,
    control::Port {
        host_port: i32,
        container_port: i32,
        protocol: String,
    }
);

mirrored!(
    Managed,
    control::ManagedVolumeSpec {
        name: String,
        driver: String,
        size_gb: i64,
        access_mode: String,
        fs_type: String,
        mount_path: String,
        read_only: bool,
        retain_policy: String,
    }
);

mirrored!(Container, control::ContainerSpec {
    image: String,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    volumes: Vec<Mount>,
    ports: Vec<Port>,
    restart_policy: String,
    privileged: bool,
    managed_volumes: Vec<Managed>,
});

mirrored!(Compose, control::ComposeSpec {
    source_type: String,
    git_repo: String,
    git_ref: String,
    inline_yaml: String,
    env: BTreeMap<String, String>,
});

mirrored!(
    Disk,
    control::DiskConfig {
        pool_name: String,
        size_gb: i64,
        mount_point: String,
    }
);

mirrored!(
    Network,
    control::NetworkConfig {
        bridge: String,
        dhcp: bool,
        static_ip: String,
    }
);

mirrored!(
    CloudInit,
    control::CloudInitConfig {
        user_data: String,
        meta_data: String,
        network_config: String,
        vendor_data: String,
    }
);

mirrored!(Vm, control::VmSpec {
    vcpus: i32,
    memory_mb: i64,
    disks: Vec<Disk>,
    networks: Vec<Network>,
    cloud_init: Option<CloudInit>,
    os_image: String,
    managed_volumes: Vec<Managed>,
});

/// A whole spec.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Whole {
    r#type: String,
    resources: Option<Resources>,
    container: Option<Container>,
    compose: Option<Compose>,
    vm: Option<Vm>,
    metadata: BTreeMap<String, String>,
}

/// Reads a file; `kind` is the type that the line names.
pub(super) fn read(path: &Path, kind: Option<&str>) -> Result<control::WorkloadSpec, Failure> {
    let refused = |why: String| {
        Failure::usage(
            format!("{}: {why}", path.display()),
            "docs/guide/persys-agent.md shows what a spec file has",
        )
    };
    let size = std::fs::metadata(path)
        .map_err(|error| refused(error.to_string()))?
        .len();
    if size > MOST_BYTES {
        return Err(refused(format!(
            "it has {size} bytes; at most {MOST_BYTES} are read"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    parse(&text, kind).map_err(refused)
}

fn parse(text: &str, kind: Option<&str>) -> Result<control::WorkloadSpec, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let is_whole = ["container", "compose", "vm"]
        .iter()
        .any(|key| value[key].is_object());
    if is_whole {
        return whole(typed(value)?, kind);
    }
    let kind = kind.ok_or("it has no section container, compose or vm, and no --type is named")?;
    let workload = match kind {
        "container" => Workload::Container(typed::<Container>(value)?.into()),
        "compose" => Workload::Compose(typed::<Compose>(value)?.into()),
        "vm" => Workload::Vm(typed::<Vm>(value)?.into()),
        other => return Err(format!("`{other}` is none of container, compose and vm")),
    };
    Ok(control::WorkloadSpec {
        r#type: kind.to_owned(),
        workload: Some(workload),
        ..control::WorkloadSpec::default()
    })
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn whole(whole: Whole, kind: Option<&str>) -> Result<control::WorkloadSpec, String> {
    let sections = [
        whole
            .container
            .map(|it| ("container", Workload::Container(it.into()))),
        whole
            .compose
            .map(|it| ("compose", Workload::Compose(it.into()))),
        whole.vm.map(|it| ("vm", Workload::Vm(it.into()))),
    ];
    let mut sections = sections.into_iter().flatten();
    let (Some((name, workload)), None) = (sections.next(), sections.next()) else {
        return Err("it has more than one of the sections container, compose and vm".to_owned());
    };
    let told = [
        kind,
        Some(whole.r#type.as_str()).filter(|told| !told.is_empty()),
    ];
    if let Some(told) = told.into_iter().flatten().find(|told| *told != name) {
        return Err(format!("its section is {name}, but the type is {told}"));
    }
    Ok(control::WorkloadSpec {
        r#type: name.to_owned(),
        resources: whole.resources.into_wire(),
        workload: Some(workload),
        metadata: whole.metadata,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_spec_and_a_section_alone_are_read() {
        let whole = r#"{"type":"container","resources":{"cpu_millicores":250,"memory_mb":64},
            "container":{"image":"nginx","command":["serve"],"env":{"A":"1"},
            "ports":[{"host_port":8080,"container_port":80}],
            "volumes":[{"host_path":"/srv","container_path":"/data","read_only":true}],
            "restart_policy":"always"},"metadata":{"team":"shop"}}"#;
        let spec = parse(whole, None).unwrap();
        assert_eq!(
            (spec.r#type.as_str(), spec.metadata["team"].as_str()),
            ("container", "shop")
        );
        assert_eq!(spec.resources.unwrap().cpu_millicores, 250);
        let Some(Workload::Container(container)) = spec.workload else {
            panic!("no container")
        };
        assert_eq!(
            (container.image.as_str(), container.ports[0].host_port),
            ("nginx", 8080)
        );
        assert!(container.volumes[0].read_only);

        let alone = parse(
            r#"{"vcpus":2,"disks":[{"size_gb":5}],"cloud_init":{"user_data":"x"}}"#,
            Some("vm"),
        );
        let Some(Workload::Vm(vm)) = alone.unwrap().workload else {
            panic!("no vm")
        };
        assert_eq!((vm.vcpus, vm.disks[0].size_gb), (2, 5));
        assert_eq!(vm.cloud_init.unwrap().user_data, "x");
        let compose = parse(r#"{"inline_yaml":"services: {}"}"#, Some("compose")).unwrap();
        assert!(matches!(compose.workload, Some(Workload::Compose(_))));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_dropped() {
        for (text, kind, part) in [
            (
                r#"{"image":"nginx","args":["x"]}"#,
                Some("container"),
                "args",
            ),
            (r#"{"image":"nginx"}"#, None, "--type"),
            (r#"{"image":"nginx"}"#, Some("pod"), "pod"),
            (r#"{"container":{},"vm":{}}"#, None, "more than one"),
            (r#"{"container":{}}"#, Some("vm"), "the type is vm"),
            (r#"{"type":"vm","container":{}}"#, None, "the type is vm"),
            ("nothing", Some("vm"), "expected"),
        ] {
            let refused = parse(text, kind).unwrap_err();
            assert!(refused.contains(part), "{text}: {refused}");
        }
    }
}
