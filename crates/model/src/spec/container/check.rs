//! What makes no sense in a `container` section, each as a finding. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Capabilities, ContainerSpec, Device, Healthcheck, LogDriver, Tmpfs};
use crate::spec::volume;

/// The kernel's names, without `CAP_`.
const CAPABILITIES: &str = "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN \
    DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE \
    MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN \
    SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG \
    WAKE_ALARM";
const ULIMITS: &str = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack";
/// What the engine writes with these it can read back.
const LOG_DRIVERS: [&str; 3] = ["json-file", "local", "journald"];
const HEX_OF_DIGEST: usize = 64;

type Findings = Vec<String>;

impl ContainerSpec {
    pub(in crate::spec) fn check(&self, findings: &mut Findings) {
        self.check_image(findings);
        self.check_places(findings);
        self.check_network(findings);
        self.check_rights(findings);
        if self
            .adopt
            .as_deref()
            .is_some_and(|name| !is_engine_name(name))
        {
            findings.push("container.adopt: is no name of a container".to_owned());
        }
        if self.shm_size.is_some_and(|size| size.0 == 0) {
            findings.push("container.shm_size: 0 is no size".to_owned());
        }
        if let Some(check) = &self.healthcheck {
            healthcheck(check, findings);
        }
        if let Some(log) = &self.log {
            log_driver(log, findings);
        }
        volume::check("container", &self.volumes, findings);
    }

    fn check_image(&self, findings: &mut Findings) {
        let image = &self.image;
        let is_name = !image.is_empty() && !image.contains(char::is_whitespace);
        if !is_name {
            findings.push(format!("container.image: `{image}` is no image reference"));
        }
        let Some((name, digest)) = image.split_once('@') else {
            return;
        };
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if name.is_empty() || hex.len() != HEX_OF_DIGEST || !hex.chars().all(is_hex) {
            findings.push(format!(
                "container.image: `@{digest}` is no digest; write @sha256: and {HEX_OF_DIGEST} hexadecimal digits"
            ));
        }
    }

    /// Mounts, file systems in memory, devices: absolute, and each place once.
    fn check_places(&self, findings: &mut Findings) {
        let mut seen = BTreeSet::new();
        for mount in &self.mounts {
            let is_source = mount.source.starts_with('/') || is_engine_name(&mount.source);
            if !is_source || !mount.target.starts_with('/') {
                findings.push(format!(
                    "container.mounts: `{}` to `{}`: both must be absolute paths; the first may be a volume's name",
                    mount.source, mount.target
                ));
            }
        }
        for tmpfs in &self.tmpfs {
            check_tmpfs(tmpfs, findings);
        }
        let mounts = self.mounts.iter().map(|mount| &mount.target);
        for target in mounts.chain(self.tmpfs.iter().map(|tmpfs| &tmpfs.target)) {
            if !seen.insert(target.trim_end_matches('/')) {
                findings.push(format!(
                    "container: something is mounted at `{target}` twice"
                ));
            }
        }
        for device in &self.devices {
            check_device(device, findings);
        }
    }

    fn check_network(&self, findings: &mut Findings) {
        if let Some(network) = self.named_network().filter(|name| !is_engine_name(name)) {
            findings.push(format!(
                "container.network: `{network}` is none of {} and no network's name",
                Self::MODES.join(", ")
            ));
        }
        if !self.aliases.is_empty() && self.named_network().is_none() {
            let finding = "container.aliases: only a network with a name of its own has them";
            findings.push(finding.to_owned());
        }
        let hosts = self.aliases.iter().map(|name| ("aliases", name));
        let hosts = hosts.chain(self.hostname.iter().map(|name| ("hostname", name)));
        let hosts = hosts.chain(self.extra_hosts.keys().map(|name| ("extra_hosts", name)));
        for (key, name) in hosts.filter(|(_, name)| !is_host_name(name)) {
            findings.push(format!("container.{key}: `{name}` is no host name"));
        }
        for address in self.dns.iter().filter(|it| it.parse::<IpAddr>().is_err()) {
            findings.push(format!("container.dns: `{address}` is no address"));
        }
        for (name, address) in &self.extra_hosts {
            if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
                findings.push(format!(
                    "container.extra_hosts: {name}: `{address}` is neither an address nor host-gateway"
                ));
            }
        }
    }

    fn check_rights(&self, findings: &mut Findings) {
        for name in self.capabilities.add.iter().chain(&self.capabilities.drop) {
            let plain = Capabilities::plain(name);
            if !CAPABILITIES.split_whitespace().any(|it| it == plain) {
                findings.push(format!("container.capabilities: `{name}` is none"));
            }
        }
        for (name, limit) in &self.ulimits {
            if !ULIMITS.split_whitespace().any(|it| it == name) {
                findings.push(format!("container.ulimits: `{name}` is none of {ULIMITS}"));
            }
            let hard = limit.hard.unwrap_or(limit.soft);
            let is_above = hard >= 0 && (limit.soft > hard || limit.soft < 0);
            if limit.soft < -1 || hard < -1 || is_above {
                findings.push(format!(
                    "container.ulimits: {name}: {} to {hard} makes no sense",
                    limit.soft
                ));
            }
        }
    }
}

fn check_tmpfs(tmpfs: &Tmpfs, findings: &mut Findings) {
    let Tmpfs { target, size, mode } = tmpfs;
    if !target.starts_with('/') || target == "/" {
        findings.push(format!(
            "container.tmpfs: `{target}` must be an absolute path, and not /"
        ));
    }
    if size.is_some_and(|size| size.0 == 0) {
        findings.push(format!("container.tmpfs: {target}: 0 is no size"));
    }
    if mode.as_ref().is_some_and(|mode| octal(mode).is_none()) {
        findings.push(format!(
            "container.tmpfs: {target}: the mode is no number such as \"1777\""
        ));
    }
}

fn check_device(device: &Device, findings: &mut Findings) {
    let target = device.target.as_ref().unwrap_or(&device.source);
    if !device.source.starts_with('/') || !target.starts_with('/') {
        findings.push(format!(
            "container.devices: `{}` to `{target}`: both must be absolute paths",
            device.source
        ));
    }
    let rights = device.permissions.as_deref().unwrap_or("rwm");
    let each: BTreeSet<char> = rights.chars().collect();
    if rights.is_empty() || each.len() != rights.len() || !each.iter().all(|c| "rwm".contains(*c)) {
        findings.push(format!(
            "container.devices: `{rights}` is not of r, w and m"
        ));
    }
}

fn healthcheck(check: &Healthcheck, findings: &mut Findings) {
    const LEAST_MS: u64 = 1;
    if check.command.first().is_some_and(String::is_empty) {
        findings.push("container.healthcheck.command: names no program".to_owned());
    }
    if check.disabled
        && *check
            != (Healthcheck {
                disabled: true,
                ..Healthcheck::default()
            })
    {
        findings.push("container.healthcheck: what is disabled has nothing else".to_owned());
    }
    let spans = [
        ("interval_ms", check.interval_ms),
        ("timeout_ms", check.timeout_ms),
        ("start_period_ms", check.start_period_ms),
    ];
    for (key, _) in spans
        .iter()
        .filter(|(_, span)| span.is_some_and(|it| it < LEAST_MS))
    {
        findings.push(format!("container.healthcheck.{key}: less than {LEAST_MS}"));
    }
    if check.retries == Some(0) {
        findings.push("container.healthcheck.retries: less than 1".to_owned());
    }
}

fn log_driver(log: &LogDriver, findings: &mut Findings) {
    if !LOG_DRIVERS.contains(&log.driver.as_str()) {
        findings.push(format!(
            "container.log.driver: `{}` is none of {}, whose logs can be read back",
            log.driver,
            LOG_DRIVERS.join(", ")
        ));
    }
}

/// The number of a file mode.
fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
}

impl Tmpfs {
    /// The mode as a number.
    #[must_use]
    pub fn mode_bits(&self) -> Option<u32> {
        self.mode.as_deref().and_then(octal)
    }
}

/// How an engine lets containers, networks and volumes be called.
fn is_engine_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.chars().all(inner) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_host_name(name: &str) -> bool {
    name.len() <= 253 && is_engine_name(name)
}

#[cfg(test)]
mod tests {
    use crate::spec::parse_one;

    fn refusal(keys: &str) -> Option<String> {
        let text = format!("name: x\ncontainer: {{image: a, {keys}}}\n");
        parse_one(&text).err().map(|refusal| refusal.sentence)
    }

    #[test]
    fn every_key_that_makes_no_sense_is_a_finding() {
        for (keys, finding) in [
            ("mounts: [{source: a/b, target: /t}]", "`a/b` to `/t`"),
            ("mounts: [{source: .., target: /t}]", "`..` to `/t`"),
            ("mounts: [{source: data, target: t}]", "`data` to `t`"),
            ("tmpfs: [{target: t}]", "container.tmpfs: `t`"),
            ("tmpfs: [{target: /t, size: 0}]", "0 is no size"),
            ("tmpfs: [{target: /t, mode: rwx}]", "the mode is no number"),
            (
                "tmpfs: [{target: /t, mode: \"17777\"}]",
                "the mode is no number",
            ),
            ("tmpfs: [{target: /t}, {target: /t/}]", "`/t/` twice"),
            (
                "mounts: [{source: /a, target: /t}], tmpfs: [{target: /t}]",
                "`/t` twice",
            ),
            ("network: \"container:x\"", "no network's name"),
            ("aliases: [db]", "container.aliases"),
            ("network: host, aliases: [db]", "container.aliases"),
            ("network: back, aliases: [\"d b\"]", "`d b` is no host name"),
            ("hostname: \"\"", "container.hostname"),
            ("dns: [nowhere]", "container.dns"),
            (
                "extra_hosts: {db: nowhere}",
                "neither an address nor host-gateway",
            ),
            ("capabilities: {add: [FLY]}", "`FLY` is none"),
            ("capabilities: {drop: [\"\"]}", "container.capabilities"),
            ("devices: [{source: kvm}]", "container.devices"),
            (
                "devices: [{source: /dev/kvm, permissions: rx}]",
                "r, w and m",
            ),
            (
                "devices: [{source: /dev/kvm, permissions: rr}]",
                "r, w and m",
            ),
            ("ulimits: {files: {soft: 1}}", "`files` is none of"),
            ("ulimits: {nofile: {soft: 9, hard: 1}}", "9 to 1"),
            ("ulimits: {nofile: {soft: -1, hard: 1}}", "-1 to 1"),
            ("ulimits: {core: {soft: -2}}", "makes no sense"),
            ("shm_size: 0", "container.shm_size"),
            ("healthcheck: {command: [\"\"]}", "names no program"),
            (
                "healthcheck: {disabled: true, retries: 3}",
                "has nothing else",
            ),
            ("healthcheck: {interval_ms: 0}", "healthcheck.interval_ms"),
            ("healthcheck: {retries: 0}", "healthcheck.retries"),
            ("log: {driver: syslog}", "whose logs can be read back"),
        ] {
            let told = refusal(keys).unwrap_or_default();
            assert!(told.contains(finding), "{keys}: {told:?}");
        }
        for image in ["a@sha256:12", "a@md5:0", "@sha256:0"] {
            let text = format!("name: x\ncontainer: {{image: \"{image}\"}}\n");
            let told = parse_one(&text).unwrap_err().sentence;
            assert!(told.contains("is no digest"), "{image}: {told}");
        }
    }

    #[test]
    fn what_makes_sense_reads_back_from_its_own_json() {
        let keys = "mounts: [{source: data, target: /d}], \
            tmpfs: [{target: /t, size: 1MiB, mode: \"1777\"}], network: back, aliases: [db], \
            hostname: box.example, dns: [10.0.0.1, \"::1\"], extra_hosts: {db: 10.0.0.2, me: host-gateway}, \
            capabilities: {add: [CAP_NET_ADMIN, sys_time], drop: [ALL]}, \
            devices: [{source: /dev/null, target: /dev/x, permissions: r}], read_only: true, \
            ulimits: {core: {soft: 0}, nofile: {soft: 5, hard: -1}}, shm_size: 8MiB, init: true, \
            healthcheck: {command: [\"true\"], interval_ms: 100, timeout_ms: 50, start_period_ms: 10, retries: 2}, \
            log: {driver: local, options: {max-size: 1m}}";
        let text = format!("name: x\ncontainer: {{image: a, {keys}}}\n");
        let spec = parse_one(&text).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(parse_one(&json).unwrap(), spec);
        let plain = parse_one("name: x\ncontainer: {image: a}\n").unwrap();
        let json = serde_json::to_string(&plain.container).unwrap();
        assert_eq!(
            json, r#"{"image":"a","pull":"missing"}"#,
            "what is left out is not told"
        );
    }
}
