//! The `health` section: how a running copy is asked whether it is well.
//!
//! ```yaml
//! ports: [{ host: 8081 }]
//! health:
//!   http: { port: 8081, path: /ready }
//!   interval_ms: 5000
//!   start_period_ms: 20000
//! ```
//!
//! Exactly one of `http`, `tcp`, `command` and `native` says how. The copy's agent asks, also when cut off.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Kind, Protocol, WorkloadSpec};

/// How a running copy is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSpec {
    /// A page of the copy must answer with a status from 200 to 399.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A port of the copy must take a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// Program and arguments, run inside the copy; it must end with 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The healthcheck of the image, which the container's engine runs, must say that all is well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub native: bool,
    /// Milliseconds between the end of one check and the next.
    pub interval_ms: u64,
    /// Milliseconds that one check may take.
    pub timeout_ms: u64,
    /// So many failures in succession make a copy unhealthy.
    pub failures: u32,
    /// So many successes in succession make it healthy.
    pub successes: u32,
    /// Milliseconds after the start of a run in which failures do not count, until it has been healthy once.
    pub start_period_ms: u64,
}

/// A page that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// One of the copy's ports: the node's, or the container's behind it.
    pub port: u16,
    #[serde(default = "root")]
    pub path: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A port that is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// One of the copy's ports: the node's, or the container's behind it.
    pub port: u16,
}

fn root() -> String {
    "/".to_owned()
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            http: None,
            tcp: None,
            command: Vec::new(),
            native: false,
            interval_ms: 10_000,
            timeout_ms: 5_000,
            failures: 3,
            successes: 1,
            start_period_ms: 0,
        }
    }
}

impl WorkloadSpec {
    /// The node's port behind the number that a check names: it may be written as the node's or the container's.
    #[must_use]
    pub fn host_port(&self, port: u16) -> Option<u16> {
        let tcp = || self.ports.iter().filter(|it| it.protocol == Protocol::Tcp);
        let named = tcp().find(|it| it.host == port);
        named
            .or_else(|| tcp().find(|it| it.target == Some(port)))
            .map(|it| it.host)
    }
}

impl HealthSpec {
    pub(super) fn check(&self, spec: &WorkloadSpec, findings: &mut Vec<String>) {
        let ways = [
            self.http.is_some(),
            self.tcp.is_some(),
            !self.command.is_empty(),
            self.native,
        ];
        let present = ways.into_iter().filter(|it| *it).count();
        if present != 1 {
            findings.push(format!(
                "health: exactly one of http, tcp, command, native is needed; {present} are there"
            ));
        }
        self.check_kind(spec.kind(), findings);
        self.check_ports(spec, findings);
        self.check_numbers(findings);
        if self.command.iter().any(|word| word.contains('\0')) {
            findings.push("health.command: holds a NUL character".to_owned());
        }
    }

    fn check_kind(&self, kind: Kind, findings: &mut Vec<String>) {
        if kind == Kind::Job {
            findings.push("health: a job is judged by how it ends, not by a check".to_owned());
        }
        if self.native && kind != Kind::Container {
            findings
                .push("health.native: only a container has a healthcheck of its own".to_owned());
        }
        if !self.command.is_empty() && !matches!(kind, Kind::Process | Kind::Container) {
            findings.push(format!(
                "health.command: no command can be run inside a {kind}; use http or tcp"
            ));
        }
    }

    fn check_ports(&self, spec: &WorkloadSpec, findings: &mut Vec<String>) {
        let http = self.http.as_ref().map(|it| ("http", it.port));
        let tcp = self.tcp.as_ref().map(|it| ("tcp", it.port));
        for (way, port) in http.into_iter().chain(tcp) {
            if spec.host_port(port).is_none() {
                findings.push(format!(
                    "health.{way}.port: {port} is none of the copy's tcp ports; name it under `ports`"
                ));
            }
        }
        let Some(http) = &self.http else { return };
        let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if !http.path.starts_with('/') || !is_plain(&http.path) {
            findings.push(
                "health.http.path: is no path; it begins with `/` and has no spaces".to_owned(),
            );
        }
        for (name, value) in &http.headers {
            let is_name = !name.is_empty() && is_plain(name) && !name.contains(':');
            if !is_name || value.contains(['\r', '\n', '\0']) {
                findings.push(format!("health.http.headers: `{name}` is no header"));
            }
        }
    }

    fn check_numbers(&self, findings: &mut Vec<String>) {
        const LEAST_INTERVAL: u64 = 100;
        if self.interval_ms < LEAST_INTERVAL {
            findings.push(format!("health.interval_ms: less than {LEAST_INTERVAL}"));
        }
        for (key, is_zero) in [
            ("timeout_ms", self.timeout_ms == 0),
            ("failures", self.failures == 0),
            ("successes", self.successes == 0),
        ] {
            if is_zero {
                findings.push(format!("health.{key}: 0 makes no sense"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::parse_one;

    fn spec(kind: &str, health: &str) -> String {
        format!("name: x\n{kind}\nports: [{{host: 8081, target: 80}}]\nhealth: {health}\n")
    }

    #[test]
    fn each_way_is_read_with_its_defaults() {
        for (kind, health) in [
            ("process: {command: [a]}", "{http: {port: 8081}}"),
            ("container: {image: a}", "{tcp: {port: 80}, failures: 5}"),
            ("process: {command: [a]}", "{command: [test, -f, ready]}"),
            ("container: {image: a}", "{native: true, interval_ms: 100}"),
            (
                "compose: {file: 'services: {}'}",
                "{http: {port: 80, path: /a?b=c, headers: {Host: web}}}",
            ),
        ] {
            let text = spec(kind, health);
            let read = parse_one(&text).unwrap_or_else(|refused| panic!("{text}: {refused}"));
            let again = parse_one(&serde_json::to_string(&read).unwrap()).unwrap();
            assert_eq!(read, again);
            let health = read.health.unwrap();
            assert_eq!((health.timeout_ms, health.successes), (5000, 1));
        }
    }

    #[test]
    fn a_port_may_be_written_as_the_nodes_or_the_containers() {
        let read = parse_one(&spec("container: {image: a}", "{tcp: {port: 80}}")).unwrap();
        assert_eq!(read.host_port(80), Some(8081));
        assert_eq!(read.host_port(8081), Some(8081));
        assert_eq!(read.host_port(81), None);
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        let process = "process: {command: [a]}";
        for (kind, health, finding) in [
            (process, "{}", "0 are there"),
            (process, "{tcp: {port: 80}, command: [a]}", "2 are there"),
            (process, "{tcp: {port: 82}}", "none of the copy's tcp ports"),
            (process, "{native: true}", "health.native"),
            (process, "{http: {port: 80, path: x}}", "health.http.path"),
            (
                process,
                "{http: {port: 80, path: '/a b'}}",
                "health.http.path",
            ),
            (
                process,
                "{http: {port: 80, headers: {'a b': c}}}",
                "`a b` is no header",
            ),
            (
                process,
                "{http: {port: 80, headers: {a: \"b\\nc\"}}}",
                "`a` is no header",
            ),
            (
                process,
                "{tcp: {port: 80}, interval_ms: 1}",
                "health.interval_ms",
            ),
            (process, "{tcp: {port: 80}, failures: 0}", "health.failures"),
            (
                process,
                "{tcp: {port: 80}, timeout_ms: 0}",
                "health.timeout_ms",
            ),
            (
                process,
                "{tcp: {port: 80}, successes: 0}",
                "health.successes",
            ),
            (process, "{command: [\"a\\0\"]}", "NUL"),
            ("vm: {image: /a}", "{command: [a]}", "inside a vm"),
            (
                "job: {command: [a]}",
                "{tcp: {port: 80}}",
                "a job is judged",
            ),
        ] {
            let refused = parse_one(&spec(kind, health)).unwrap_err();
            assert!(refused.sentence.contains(finding), "{health}: {refused}");
        }
    }

    #[test]
    fn retries_belong_to_on_failure() {
        let of = |policy: &str| {
            let text = format!(
                "name: x\nprocess: {{command: [a]}}\nrestart: {{policy: {policy}, retries: 3}}\n"
            );
            parse_one(&text)
        };
        assert_eq!(of("on-failure").unwrap().restart.retries, Some(3));
        assert!(
            of("always")
                .unwrap_err()
                .sentence
                .contains("restart.retries")
        );
    }
}
