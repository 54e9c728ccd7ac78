//! What a container has and no spec can say: told to people as notes, and in part to the node's owner, for whom it
//! counts as privileges. Pure.

use bollard::models::{ContainerInspectResponse, HostConfig};

/// Namespaces of a container's own, as engines call them.
const OWN_MODES: [&str; 4] = ["", "private", "shareable", "default"];
/// What runs containers where nobody has asked for something else.
const USUAL_RUNTIMES: [&str; 5] = ["", "runc", "crun", "oci", "io.containerd.runc.v2"];
/// Takes something from a container and gives it nothing.
const NO_NEW_PRIVILEGES: &str = "no-new-privileges";
/// A whole profile may be one of the values.
const LONGEST_VALUE: usize = 64;

/// Whether it has of the node, or of other containers, what no key of a spec asks for.
pub(super) fn shares_node(host: &HostConfig) -> bool {
    let modes = [
        &host.pid_mode,
        &host.ipc_mode,
        &host.userns_mode,
        &host.uts_mode,
    ];
    let mut modes = modes.into_iter().filter_map(|mode| mode.as_deref());
    let is_shared = |mode: &str| mode == "host" || mode.contains(':');
    let of_others = |mode: &str| mode.starts_with("container:") || mode.starts_with("ns:");
    let mut options = host.security_opt.iter().flatten();
    let is_set = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|it| !it.is_empty());
    // The engine lists what it hides, unless it was told to hide nothing.
    let is_open = |list: &Option<Vec<String>>| list.as_ref().is_some_and(Vec::is_empty);
    modes.any(is_shared)
        || host.network_mode.as_deref().is_some_and(of_others)
        || options.any(|it| !it.starts_with(NO_NEW_PRIVILEGES))
        || is_set(&host.device_cgroup_rules)
        || host.cgroup_parent.as_ref().is_some_and(|it| !it.is_empty())
        || is_open(&host.masked_paths)
        || is_open(&host.readonly_paths)
}

/// One note for each thing that the next container will not have.
pub(super) fn notes(seen: &ContainerInspectResponse) -> Vec<String> {
    let Some(host) = &seen.host_config else {
        return Vec::new();
    };
    let mut told = vec![
        (
            "security options",
            joined(host.security_opt.iter().flatten()),
        ),
        ("pid namespace", another(&host.pid_mode, &OWN_MODES)),
        ("ipc namespace", another(&host.ipc_mode, &OWN_MODES)),
        ("user namespace", another(&host.userns_mode, &OWN_MODES)),
        ("uts namespace", another(&host.uts_mode, &OWN_MODES)),
        ("runtime", another(&host.runtime, &USUAL_RUNTIMES)),
        ("control group", another(&host.cgroup_parent, &[""])),
        ("processors", another(&host.cpuset_cpus, &[""])),
        ("further groups", joined(host.group_add.iter().flatten())),
        (
            "rules for devices",
            joined(host.device_cgroup_rules.iter().flatten()),
        ),
        ("search domains", joined(host.dns_search.iter().flatten())),
        (
            "options of name servers",
            joined(host.dns_options.iter().flatten()),
        ),
        ("links", joined(host.links.iter().flatten())),
        ("further networks", further_networks(seen, host)),
    ];
    let mut sysctls: Vec<&String> = host
        .sysctls
        .iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    sysctls.sort();
    told.push(("sysctls", joined(sysctls)));
    let mut notes: Vec<String> = told
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(what, value)| format!("its {what}, {value}, will not be the next one's"))
        .collect();
    if host
        .device_requests
        .as_ref()
        .is_some_and(|it| !it.is_empty())
    {
        notes.push("it asks for devices such as GPUs; the next one gets none".to_owned());
    }
    if host.publish_all_ports == Some(true) {
        notes.push(
            "its ports are published at numbers of the engine's choice; the next one's are not"
                .to_owned(),
        );
    }
    notes
}

/// The value, if it is none of the usual ones.
fn another(value: &Option<String>, usual: &[&str]) -> String {
    let value = value.as_deref().unwrap_or_default();
    let value = Some(value).filter(|it| !usual.contains(it));
    value.map(quoted).unwrap_or_default()
}

fn joined<'a>(values: impl IntoIterator<Item = &'a String>) -> String {
    let values: Vec<String> = values.into_iter().map(|it| quoted(it)).collect();
    values.join(", ")
}

fn quoted(value: &str) -> String {
    match value.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("`{}…`", &value[..end]),
        None => format!("`{value}`"),
    }
}

/// The networks beside the one that it was made in.
fn further_networks(seen: &ContainerInspectResponse, host: &HostConfig) -> String {
    let settings = seen.network_settings.as_ref();
    let Some(networks) = settings.and_then(|it| it.networks.as_ref()) else {
        return String::new();
    };
    // Engines call one and the same network by more than one name.
    if networks.len() < 2 {
        return String::new();
    }
    let first = match host.network_mode.as_deref() {
        None | Some("default") => "bridge",
        Some(mode) => mode,
    };
    let mut further: Vec<&String> = networks.keys().filter(|it| *it != first).collect();
    further.sort();
    joined(further)
}
