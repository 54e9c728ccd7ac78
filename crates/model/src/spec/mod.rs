//! Workload specs: what a user writes, in YAML or JSON, and what it means.
//!
//! ```yaml
//! name: web
//! count: 2
//! container:
//!   image: busybox:local
//!   command: [httpd, -f, -p, "8081"]
//! resources: { cpu: 250m, memory: 64MiB }
//! ports: [{ host: 8081 }]
//! restart: { policy: always }
//! ```
//!
//! The section (`process`, `container`, `compose`, `vm`, `job`, `model`) names the kind; there is exactly
//! one. Unknown keys are refused with line and column. [`parse()`] reads one or more documents; a
//! [`WorkloadSpec`] that exists has passed [`WorkloadSpec::check`].

mod compose;
mod constraint;
mod container;
mod health;
mod job;
mod model;
mod parse;
mod process;
mod secret;
mod update;
mod vm;
mod volume;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use compose::{ComposeSpec, GitSource};
pub use constraint::{Constraint, Operator};
pub use container::{
    Capabilities, ContainerSpec, Device, Healthcheck, LogDriver, Mount, PullPolicy, Tmpfs,
    UlimitRange,
};
pub use health::{HealthSpec, HttpCheck, TcpCheck};
pub use job::{Concurrency, JobSpec};
pub use model::ModelSpec;
pub use parse::{MAX_ENCODED_SPEC_BYTES, MAX_SPEC_BYTES, check_travels, parse, parse_one};
pub use process::{
    Isolation, ProcessNetwork, ProcessSpec, Seccomp, Ulimit, UlimitValue, Unlimited,
};
pub use secret::{SecretPlace, SecretUse};
pub use update::{Update, UpdateOrder};
pub use vm::{Accelerator, CloudInit, DiskFormat, DiskMedia, VmDisk, VmNetwork, VmSpec, prefixed};
pub use volume::{AccessMode, ManagedVolume};

use crate::{Bytes, Code, MilliCpu, Refusal, Resources};

/// What a user wants to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Lower-case letters, digits and dashes, at most 63: a DNS label.
    pub name: String,
    /// How many copies.
    #[serde(default = "one")]
    pub count: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<ComposeSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSpec>,
    /// Environment of every process or container of the copy; of a compose project, what its file's `${NAME}`
    /// stand for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets of the fleet that each copy gets; their names, never their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// What each copy reserves on its node. Memory is also the limit unless `limits.memory` is larger.
    #[serde(default)]
    pub resources: Resources,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    #[serde(default)]
    pub restart: Restart,
    /// How a running copy is asked whether it is well; none means that running is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    #[serde(default)]
    pub stop: Stop,
    #[serde(default)]
    pub placement: Placement,
    #[serde(default)]
    pub disconnect: Disconnect,
    #[serde(default, skip_serializing_if = "Update::is_default")]
    pub update: Update,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The kinds of workload, each run by the driver of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Process,
    Container,
    Compose,
    Vm,
    Job,
    Model,
}

/// What a copy may use at most; enforced by the driver.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Hard cap of processor time; none means the reservation is only a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<MilliCpu>,
    /// Hard cap of memory; none means the reservation, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Most processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Most open files per process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
}

/// A port of the copy and the node's port that it takes. A process takes the port itself; a container's
/// port is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortMapping {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The node's port, reserved for the copy.
    pub host: u16,
    /// The port inside a container; the same number if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u16>,
    #[serde(default)]
    pub protocol: Protocol,
}

/// A port of a node that a copy claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    pub number: u16,
    pub protocol: Protocol,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// What the agent does when a unit ends, at once and also when cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Restart {
    pub policy: RestartPolicy,
    /// Milliseconds before the second restart; the first comes at once, each further waits twice as long.
    pub delay_ms: u64,
    /// Longest wait in milliseconds. A run longer than this starts the count anew.
    pub max_delay_ms: u64,
    /// `on-failure` only: how often a copy is started again at most; none means without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    Always,
    /// Only after an exit that is no success.
    OnFailure,
    /// As `always`; kept as its own word for those who come from Docker.
    UnlessStopped,
    No,
}

/// How a unit is asked to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// A signal name without `SIG`: `TERM`, `INT`, `QUIT`, `HUP`, `USR1`, `USR2`.
    pub signal: String,
    /// Milliseconds until it is killed.
    pub grace_ms: u64,
}

/// Where copies may go, and how they spread.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    pub strategy: Strategy,
    /// All must hold. `zone == eu-1`, `gpu`, `!slow`, `arch in (x86_64, aarch64)`; keys are labels or
    /// `node.name`, `node.id`, `node.os`, `node.arch`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Copies go to different nodes first, then to the least loaded.
    #[default]
    Spread,
    /// Copies fill nodes that are in use already.
    Pack,
}

/// What happens to a copy whose node is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disconnect {
    pub policy: DisconnectPolicy,
    /// `singleton` only: milliseconds without contact after which the node itself stops the copy.
    pub stop_after_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DisconnectPolicy {
    /// Replaced when its node is lost; two copies may live for a while.
    #[default]
    Keep,
    /// Replaced only when the old copy has surely stopped.
    Singleton,
}

/// The least memory that a copy may have: in less, the kernel kills it before its program runs.
const LEAST_MEMORY: Bytes = Bytes(1 << 20);

const fn one() -> u32 {
    1
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::default(),
            delay_ms: 500,
            max_delay_ms: 60_000,
            retries: None,
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            signal: "TERM".to_owned(),
            grace_ms: 10_000,
        }
    }
}

impl Default for Disconnect {
    fn default() -> Self {
        Self {
            policy: DisconnectPolicy::default(),
            stop_after_ms: 60_000,
        }
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Process,
        Self::Container,
        Self::Compose,
        Self::Vm,
        Self::Job,
        Self::Model,
    ];

    /// The word for it in specs, on wires and in flags.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Container => "container",
            Self::Compose => "compose",
            Self::Vm => "vm",
            Self::Job => "job",
            Self::Model => "model",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether the driver can stop a copy by itself while cut off, as `singleton` needs.
    #[must_use]
    pub const fn enforces_singleton(self) -> bool {
        matches!(self, Self::Process)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl WorkloadSpec {
    /// A spec with one process and all defaults, for programs that build specs.
    #[must_use]
    pub fn of_process(name: &str, command: Vec<String>) -> Self {
        Self {
            process: Some(ProcessSpec::new(command)),
            ..Self::bare(name)
        }
    }

    /// A spec with one container and all defaults, for programs that build specs.
    #[must_use]
    pub fn of_container(name: &str, image: &str, command: Vec<String>) -> Self {
        Self {
            container: Some(ContainerSpec::new(image, command)),
            ..Self::bare(name)
        }
    }

    /// A spec without a section, for programs that add one; it is none that passes [`Self::check`].
    #[must_use]
    pub fn bare(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            count: 1,
            process: None,
            container: None,
            compose: None,
            vm: None,
            job: None,
            model: None,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            resources: Resources::default(),
            limits: Limits::default(),
            ports: Vec::new(),
            restart: Restart::default(),
            health: None,
            stop: Stop::default(),
            placement: Placement::default(),
            disconnect: Disconnect::default(),
            update: Update::default(),
            labels: BTreeMap::new(),
        }
    }

    /// The kind, by its section. A checked spec has exactly one.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        if self.container.is_some() {
            Kind::Container
        } else if self.compose.is_some() {
            Kind::Compose
        } else if self.vm.is_some() {
            Kind::Vm
        } else if self.job.is_some() {
            Kind::Job
        } else if self.model.is_some() {
            Kind::Model
        } else {
            Kind::Process
        }
    }

    /// The kind of driver that runs a copy: that of the section, or for a job the one that its command needs.
    #[must_use]
    pub const fn runs_on(&self) -> Kind {
        match &self.job {
            Some(job) => job.runs_on(),
            None => self.kind(),
        }
    }

    /// The spec as a driver takes it: of a job, the process or container that does its work.
    #[must_use]
    pub fn runnable(spec: &Arc<Self>) -> Arc<Self> {
        spec.job
            .as_ref()
            .map_or_else(|| Arc::clone(spec), |job| Arc::new(job.lowered(spec)))
    }

    /// When a copy that ended is started again. A job is tried until it has succeeded or its retries are spent.
    #[must_use]
    pub fn restarts(&self) -> Restart {
        match &self.job {
            Some(job) => Restart {
                policy: RestartPolicy::OnFailure,
                retries: Some(job.retries),
                ..self.restart.clone()
            },
            None => self.restart.clone(),
        }
    }

    /// Whether it is only a plan for jobs: at each due moment a job of its own is made from it.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.schedule.is_some())
    }

    /// How many copies of this spec are to be placed: a schedule has none itself.
    #[must_use]
    pub fn copies(&self) -> u32 {
        if self.is_scheduled() { 0 } else { self.count }
    }

    /// What each copy takes from its node.
    #[must_use]
    pub fn claims(&self) -> crate::Claims {
        let port = |port: &PortMapping| Port {
            number: port.host,
            protocol: port.protocol,
        };
        crate::Claims {
            resources: self.resources,
            ports: self.ports.iter().map(port).collect(),
        }
    }

    /// Whether a running copy of `self` differs from one of `other`. Name, count, placement, the
    /// disconnect rule, the update rule and labels of the workload change nothing inside a copy.
    #[must_use]
    pub fn same_template(&self, other: &Self) -> bool {
        let bare = |spec: &Self| Self {
            name: String::new(),
            count: 0,
            placement: Placement::default(),
            update: Update::default(),
            labels: BTreeMap::new(),
            ..spec.clone()
        };
        bare(self) == bare(other)
    }

    /// Refuses what makes no sense, naming every finding at once.
    ///
    /// # Errors
    /// `spec-invalid` with one detail per finding.
    pub fn check(&self) -> Result<(), Refusal> {
        let mut findings = Vec::new();
        self.check_names(&mut findings);
        self.check_sections(&mut findings);
        self.check_numbers(&mut findings);
        self.update.check(self, &mut findings);
        if findings.is_empty() {
            return Ok(());
        }
        let name = if self.name.is_empty() {
            "the spec"
        } else {
            &self.name
        };
        let sentence = format!("{name} makes no sense: {}", findings.join("; "));
        Err(Refusal::new(
            Code::SpecInvalid,
            sentence,
            "correct the named keys and apply it again",
        )
        .with_details(findings))
    }

    fn check_names(&self, findings: &mut Vec<String>) {
        if !is_dns_label(&self.name) {
            findings.push(format!(
                "name: `{}` is no name; use 1 to 63 lower-case letters, digits and inner dashes",
                self.name
            ));
        }
        for key in self
            .env
            .keys()
            .filter(|key| key.is_empty() || key.contains(['=', '\0']))
        {
            findings.push(format!("env: `{key}` is no variable name"));
        }
        if self.env.values().any(|value| value.contains('\0')) {
            findings.push("env: a value holds a NUL character".to_owned());
        }
    }

    fn check_sections(&self, findings: &mut Vec<String>) {
        let sections = [
            self.process.is_some(),
            self.container.is_some(),
            self.compose.is_some(),
            self.vm.is_some(),
            self.job.is_some(),
            self.model.is_some(),
        ];
        let present = sections.into_iter().filter(|present| *present).count();
        if present != 1 {
            findings.push(format!(
                "exactly one section of process, container, compose, vm, job, model is needed; {present} are there"
            ));
        }
        if let Some(process) = &self.process {
            process.check(findings);
        }
        if let Some(container) = &self.container {
            container.check(findings);
            if self.limits.open_files.is_some() && container.ulimits.contains_key("nofile") {
                findings.push("container.ulimits: nofile is limits.open_files".to_owned());
            }
            if container.adopt.is_some() && self.count > 1 {
                findings.push(format!(
                    "container.adopt: one container becomes one copy, and `count` is {}",
                    self.count
                ));
            }
        }
        if let Some(compose) = &self.compose {
            compose.check(&self.env, findings);
            if self.limits != Limits::default() {
                findings.push(
                    "limits: a compose project limits its services itself, in its file".to_owned(),
                );
            }
        }
        if let Some(vm) = &self.vm {
            vm.check(!self.ports.is_empty(), findings);
        }
        if let Some(job) = &self.job {
            job.check(self, findings);
        }
        if let Some(health) = &self.health {
            health.check(self, findings);
        }
        secret::check(self, findings);
    }

    fn check_numbers(&self, findings: &mut Vec<String>) {
        // The slots behind are those of copies that run beside the counted ones.
        const MOST_COPIES: u32 = crate::FIRST_SPARE_SLOT;
        if self.count > MOST_COPIES {
            findings.push(format!(
                "count: {} copies are more than {MOST_COPIES}",
                self.count
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        for port in &self.ports {
            if port.host == 0 || port.target == Some(0) {
                findings.push("ports: 0 is no port".to_owned());
            }
            if !seen.insert((port.host, port.protocol)) {
                findings.push(format!("ports: host port {} is named twice", port.host));
            }
        }
        if self.restart.retries.is_some() && self.restart.policy != RestartPolicy::OnFailure {
            findings.push("restart.retries: only the policy `on-failure` counts them".to_owned());
        }
        const SIGNALS: [&str; 6] = ["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"];
        if !SIGNALS.contains(&self.stop.signal.as_str()) {
            findings.push(format!(
                "stop.signal: `{}` is none of {}",
                self.stop.signal,
                SIGNALS.join(", ")
            ));
        }
        let memory = self.limits.memory.unwrap_or(self.resources.memory);
        if memory.0 > 0 && memory < LEAST_MEMORY {
            findings.push(format!(
                "resources.memory: {memory} is less than {LEAST_MEMORY}, in which nothing starts"
            ));
        }
        if self
            .limits
            .memory
            .is_some_and(|limit| limit < self.resources.memory)
        {
            findings.push("limits.memory: smaller than resources.memory".to_owned());
        }
        if self.disconnect.policy == DisconnectPolicy::Singleton
            && self.disconnect.stop_after_ms < 1000
        {
            findings.push("disconnect.stop_after_ms: less than 1000".to_owned());
        }
    }
}

/// The workload's name that is nearest to another system's: what a name may not hold becomes a dash.
#[must_use]
pub fn near_name(text: &str) -> String {
    const MOST: usize = 63;
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let name: String = text.chars().map(letter).take(MOST).collect();
    name.trim_matches('-').to_owned()
}

/// 1 to 63 lower-case letters, digits and inner dashes, a letter or digit first.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
