//! The `process` section: a plain process of the node, and how far it is kept apart from the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ManagedVolume, volume};

/// A plain process of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// Program and arguments. A program without a slash is looked up in the copy's PATH.
    pub command: Vec<String>,
    /// Absolute; the copy's own directory if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Makes a working directory that is missing; it belongs to the user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub make_working_dir: bool,
    /// Name or number; the agent's user if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Supplementary groups, by name or number; none if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Files on the node with lines of `NAME=value`, read at each run. Later ones win, `env` wins over all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_files: Vec<String>,
    /// Octal digits, such as `"027"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
    /// -20 to 19; more is more polite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// The kernel's limits per process, soft and hard alike.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<Ulimit, UlimitValue>,
    /// Neither it nor what it starts can become more than it is, by a set-user-id program or otherwise.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub no_new_privileges: bool,
    #[serde(default, skip_serializing_if = "Isolation::is_none")]
    pub isolation: Isolation,
    #[serde(default, skip_serializing_if = "Seccomp::is_off")]
    pub seccomp: Seccomp,
    /// Volumes that the node makes and keeps; the process sees them at their targets, nothing else does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<ManagedVolume>,
}

/// What the kernel bounds per process, by the names of `ulimit` and Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ulimit {
    /// Bytes of address space.
    As,
    /// Bytes of a core dump.
    Core,
    /// Seconds of processor time.
    Cpu,
    Data,
    /// Bytes of a file that is written.
    Fsize,
    Memlock,
    Nofile,
    /// Processes and threads of the user.
    Nproc,
    Stack,
}

/// A number, or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UlimitValue {
    Most(u64),
    Unlimited(Unlimited),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unlimited {
    Unlimited,
}

/// Which of the node's namespaces it does not share. Only an agent that is root can grant them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Isolation {
    /// Mounts of its own, with an empty `/tmp` and `/var/tmp` that go with the run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tmp: bool,
    /// Sees only what it started itself, and is process 1 there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pid: bool,
    /// Shared memory, semaphores and message queues of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ipc: bool,
    /// A host name of its own: the workload's name and the copy's slot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub uts: bool,
    #[serde(skip_serializing_if = "ProcessNetwork::is_host")]
    pub network: ProcessNetwork,
}

/// The network that a process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessNetwork {
    /// The node's.
    #[default]
    Host,
    /// Its own, with a loopback interface and nothing else.
    Private,
    /// None: not even loopback is up.
    None,
}

/// Which system calls are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    #[default]
    Off,
    /// Those that change the machine rather than the process.
    Default,
}

const fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
const fn is_yes(flag: &bool) -> bool {
    *flag
}

impl ProcessSpec {
    /// A process with all defaults.
    #[must_use]
    pub const fn new(command: Vec<String>) -> Self {
        Self {
            command,
            working_dir: None,
            make_working_dir: false,
            user: None,
            groups: Vec::new(),
            env_files: Vec::new(),
            umask: None,
            nice: None,
            ulimits: BTreeMap::new(),
            no_new_privileges: true,
            isolation: Isolation {
                tmp: false,
                pid: false,
                ipc: false,
                uts: false,
                network: ProcessNetwork::Host,
            },
            seccomp: Seccomp::Off,
            volumes: Vec::new(),
        }
    }

    /// The umask as a number; none if the digits are no umask.
    #[must_use]
    pub fn umask_bits(&self) -> Option<u32> {
        let digits = self.umask.as_deref()?;
        // `from_str_radix` takes a sign too.
        let is_octal = digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let bits = u32::from_str_radix(digits, 8).ok()?;
        (is_octal && bits <= 0o777).then_some(bits)
    }

    pub(super) fn check(&self, findings: &mut Vec<String>) {
        let mut find = |wrong: bool, finding: &str| {
            if wrong {
                findings.push(format!("process.{finding}"));
            }
        };
        find(
            self.command.first().is_none_or(String::is_empty),
            "command: names no program",
        );
        let has_nul = self.command.iter().any(|word| word.contains('\0'));
        find(has_nul, "command: holds a NUL character");
        let dir = self.working_dir.as_deref();
        find(
            dir.is_some_and(|path| !is_place(path)),
            "working_dir: is no absolute path",
        );
        find(
            self.make_working_dir && dir.is_none(),
            "make_working_dir: the copy's own directory is always made: name a `working_dir`",
        );
        let files = &self.env_files;
        find(
            files.iter().any(|path| !is_place(path)),
            "env_files: holds what is no absolute path",
        );
        let is_group = |name: &String| !name.is_empty() && !name.contains([':', '\0', '\n']);
        find(
            !self.groups.iter().all(is_group),
            "groups: holds what is no name or number of a group",
        );
        find(
            self.umask.is_some() && self.umask_bits().is_none(),
            "umask: is not one to three octal digits, such as \"027\"",
        );
        find(
            self.nice.is_some_and(|nice| !(-20..=19).contains(&nice)),
            "nice: is not between -20 and 19",
        );
        find(
            self.seccomp != Seccomp::Off && !self.no_new_privileges,
            "seccomp: needs no_new_privileges",
        );
        volume::check("process", &self.volumes, findings);
    }
}

impl Ulimit {
    /// The word for it in specs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::As => "as",
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Memlock => "memlock",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Stack => "stack",
        }
    }
}

impl UlimitValue {
    /// The number; none for no limit.
    #[must_use]
    pub const fn most(self) -> Option<u64> {
        match self {
            Self::Most(most) => Some(most),
            Self::Unlimited(Unlimited::Unlimited) => None,
        }
    }
}

impl Isolation {
    /// Whether everything is shared with the node.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl ProcessNetwork {
    const fn is_host(&self) -> bool {
        matches!(self, Self::Host)
    }
}

impl Seccomp {
    const fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }
}

fn is_place(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(change: impl FnOnce(&mut ProcessSpec)) -> Vec<String> {
        let mut spec = ProcessSpec::new(vec!["true".to_owned()]);
        change(&mut spec);
        let mut findings = Vec::new();
        spec.check(&mut findings);
        findings
    }

    #[test]
    fn each_key_that_makes_no_sense_is_one_finding() {
        assert_eq!(findings(|_| {}), [""; 0]);
        let text = |text: &str| text.to_owned();
        type Change = Box<dyn FnOnce(&mut ProcessSpec)>;
        let cases: Vec<(&str, Change)> = vec![
            ("command", Box::new(|it| it.command.clear())),
            ("command", Box::new(|it| it.command.push("a\0b".to_owned()))),
            (
                "working_dir",
                Box::new(move |it| it.working_dir = Some(text("srv"))),
            ),
            (
                "make_working_dir",
                Box::new(|it| it.make_working_dir = true),
            ),
            (
                "env_files",
                Box::new(move |it| it.env_files = vec![text("a.env")]),
            ),
            ("groups", Box::new(move |it| it.groups = vec![text("a:b")])),
            ("groups", Box::new(move |it| it.groups = vec![text("")])),
            ("umask", Box::new(move |it| it.umask = Some(text("0888")))),
            ("umask", Box::new(move |it| it.umask = Some(text("+22")))),
            ("umask", Box::new(move |it| it.umask = Some(text("1777")))),
            ("umask", Box::new(move |it| it.umask = Some(text("")))),
            ("nice", Box::new(|it| it.nice = Some(20))),
            (
                "seccomp",
                Box::new(|it| {
                    it.seccomp = Seccomp::Default;
                    it.no_new_privileges = false;
                }),
            ),
        ];
        for (key, change) in cases {
            let found = findings(change);
            assert_eq!(found.len(), 1, "{key}: {found:?}");
            assert!(
                found[0].starts_with(&format!("process.{key}: ")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_is_left_out_is_not_written_and_what_is_written_reads_back() {
        let plain = ProcessSpec::new(vec!["true".to_owned()]);
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(text, r#"{"command":["true"]}"#);
        assert_eq!(serde_json::from_str::<ProcessSpec>(&text).unwrap(), plain);
        let full = r#"{"command":["true"],"umask":"0027","nice":5,"groups":["adm"],
            "ulimits":{"core":0,"nofile":"unlimited"},"no_new_privileges":false,
            "isolation":{"tmp":true,"pid":true,"network":"none"}}"#;
        let full: ProcessSpec = serde_json::from_str(full).unwrap();
        assert_eq!(full.umask_bits(), Some(0o27));
        assert_eq!(full.ulimits[&Ulimit::Core].most(), Some(0));
        assert_eq!(full.ulimits[&Ulimit::Nofile].most(), None);
        assert!(!full.no_new_privileges && full.isolation.pid && !full.isolation.ipc);
        let again = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<ProcessSpec>(&again).unwrap(), full);
        for wrong in [
            r#"{"command":["a"],"ulimits":{"files":1}}"#,
            r#"{"command":["a"],"ulimits":{"core":-1}}"#,
            r#"{"command":["a"],"ulimits":{"core":"none"}}"#,
            r#"{"command":["a"],"isolation":{"user":true}}"#,
            r#"{"command":["a"],"seccomp":"strict"}"#,
        ] {
            assert!(
                serde_json::from_str::<ProcessSpec>(wrong).is_err(),
                "{wrong}"
            );
        }
    }
}
