//! Nodes in Orchion's words: what its agents say of their machines, read for placement and kept as it was written,
//! and the picture of every node of the fleet that its clients get.
//!
//! Capabilities are sentences for people (`8 cores`, `15.62 GB`, `linux/amd64`). What can be read out of them becomes
//! facts; what cannot counts as unknown and is shown all the same. Nothing here fails.

use std::collections::BTreeMap;

use hostler_control::Control;
use hostler_control::fleet::{NodeAnnouncement, State};
use hostler_model::{
    AliasKey, AliasOwner, Bytes, Contract, Liveness, MilliCpu, Node, NodeFacts, NodeId, Resources,
};
use hostler_wire::orchion::v1;
use serde::{Deserialize, Serialize};

/// The scope of aliases of nodes.
const SCOPE: &str = "node";

/// What an agent said of itself, kept in the node's facts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    pub hostname: String,
    /// Where its own service listens.
    pub agent_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
}

/// Orchion's capabilities, written as its gateway writes them: what is empty is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Capabilities {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cpu: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub memory: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gpu_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gpu_vram_total: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gpu_vram_available: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gpu_vram_used: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gpu_temperature: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gpu_power_usage: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub power_usage: String,
}

/// A node as clients see it, over HTTP and over gRPC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Picture {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "is_zero")]
    pub last_seen_unix: i64,
    /// The same once more: the dashboard reads this spelling, the editor's extension the other one.
    #[serde(rename = "lastSeenUnix", skip_serializing_if = "is_zero")]
    pub last_seen_unix_again: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_address: String,
}

/// The alias of a node that has this id there.
pub(super) fn key(id: &str) -> AliasKey {
    AliasKey {
        contract: Contract::Orchion,
        scope: SCOPE.to_owned(),
        foreign: id.to_owned(),
    }
}

/// What the agent of the node said of itself, if it speaks this contract.
pub(super) fn told(node: &Node) -> Told {
    let foreign = node.facts.foreign.as_deref();
    foreign
        .filter(|_| node.contract == Contract::Orchion)
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default()
}

/// The hello of an agent with that id.
pub(super) fn announcement(id: &str, told: &Told, addresses: Vec<String>) -> NodeAnnouncement {
    let facts = facts(told, addresses);
    NodeAnnouncement {
        key: None,
        introduction: Default::default(),
        identity: key(id),
        contract: Contract::Orchion,
        name: told.hostname.clone(),
        capacity: Resources {
            cpu: MilliCpu(u64::from(facts.cpu_count) * 1000),
            memory: facts.memory,
            disk: Bytes(0),
        },
        facts,
        labels: BTreeMap::new(),
        instance: None,
    }
}

fn facts(told: &Told, addresses: Vec<String>) -> NodeFacts {
    let said = told.capabilities.clone().unwrap_or_default();
    let (os, arch) = said.os.split_once('/').unwrap_or((&said.os, ""));
    NodeFacts {
        hostname: told.hostname.clone(),
        os: os.trim().to_lowercase(),
        arch: arch_of(arch.trim()).to_owned(),
        cpu_count: cores(&said.cpu),
        memory: bytes(&said.memory),
        addresses,
        foreign: serde_json::to_string(told).ok(),
        ..NodeFacts::default()
    }
}

/// The nodes that are there: neither removed nor silent beyond their lease. Orchion's registry holds no others.
pub(super) fn living(control: &Control) -> Vec<Picture> {
    let view = control.view();
    let is_living =
        |node: &Node| !node.is_gone() && !matches!(node.liveness, Liveness::Lost { .. });
    let living = view.nodes().filter(|node| is_living(node));
    living.map(|node| picture(control, &view, node)).collect()
}

/// The id by which clients of this contract know a node: its agent's own, or ours.
pub(super) fn id(state: &State, node: NodeId) -> String {
    let mut aliases = state.aliases_of(AliasOwner::Node(node));
    let theirs =
        aliases.find(|alias| alias.key.contract == Contract::Orchion && alias.key.scope == SCOPE);
    theirs.map_or_else(|| node.to_string(), |alias| alias.key.foreign.clone())
}

fn picture(control: &Control, state: &State, node: &Node) -> Picture {
    let live = control.live(node.id);
    let heard = live.as_ref().filter(|live| live.beats > 0);
    let seen = heard.map_or(node.joined_at, |live| live.last_seen.max(node.joined_at));
    let last_seen_unix = i64::try_from(seen.as_millis() / 1000).unwrap_or(i64::MAX);
    let told = told(node);
    let figures = live.and_then(|live| live.figures);
    let fresh = figures.and_then(|json| serde_json::from_str(&json).ok());
    let said = match node.contract {
        Contract::Orchion => fresh.or(told.capabilities),
        _ => Some(said_for(&node.facts)),
    };
    let hostname = match node.facts.hostname.as_str() {
        "" if node.contract != Contract::Orchion => &node.name,
        hostname => hostname,
    };
    Picture {
        id: id(state, node.id),
        hostname: hostname.to_owned(),
        capabilities: said,
        last_seen_unix,
        last_seen_unix_again: last_seen_unix,
        agent_address: told.agent_address,
    }
}

/// What Orchion's agent would say on that machine.
fn said_for(facts: &NodeFacts) -> Capabilities {
    let word = |is_known: bool, text: String| if is_known { text } else { String::new() };
    let os = match facts.arch.as_str() {
        "" => facts.os.clone(),
        arch => format!("{}/{}", facts.os, goarch(arch)),
    };
    Capabilities {
        cpu: word(facts.cpu_count > 0, format!("{} cores", facts.cpu_count)),
        memory: word(facts.memory.0 > 0, gigabytes(facts.memory)),
        os: word(!facts.os.is_empty(), os),
        ..Capabilities::default()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "two decimals of a gigabyte are shown"
)]
fn gigabytes(bytes: Bytes) -> String {
    format!("{:.2} GB", bytes.0 as f64 / f64::from(1_u32 << 30))
}

/// The first whole number of the text.
fn cores(text: &str) -> u32 {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().unwrap_or(0)
}

/// A number with a unit. Its agents call 2^30 bytes a GB.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number has no sign, and what is too large becomes the largest"
)]
fn bytes(text: &str) -> Bytes {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let scale = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" | "BYTES" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Bytes(0),
    };
    let number: f64 = number.parse().unwrap_or(0.0);
    Bytes((number * 2_f64.powi(scale)) as u64)
}

/// As `uname -m` says it, from the word that Go has for it.
fn arch_of(goarch: &str) -> &str {
    match goarch {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i686",
        other => other,
    }
}

fn goarch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" => "386",
        arm if arm.starts_with("armv") => "arm",
        other => other,
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Capabilities {
    /// Without the figures that change all the time and decide nothing.
    pub(super) fn lasting(&self) -> Self {
        Self {
            gpu_vram_available: String::new(),
            gpu_vram_used: String::new(),
            gpu_temperature: String::new(),
            gpu_power_usage: String::new(),
            power_usage: String::new(),
            ..self.clone()
        }
    }
}

impl From<v1::Capabilities> for Capabilities {
    #[expect(
        deprecated,
        reason = "agents still send it, and it is shown as it was sent"
    )]
    fn from(said: v1::Capabilities) -> Self {
        Self {
            cpu: said.cpu,
            memory: said.memory,
            os: said.os,
            gpu_type: said.gpu_type,
            gpu_vram_total: said.gpu_vram_total,
            gpu_vram_available: said.gpu_vram_available,
            gpu_vram_used: said.gpu_vram_used,
            gpu_temperature: said.gpu_temperature,
            gpu_power_usage: said.gpu_power_usage,
            power_usage: said.power_usage,
        }
    }
}

impl From<Capabilities> for v1::Capabilities {
    #[expect(
        deprecated,
        reason = "agents still send it, and it is shown as it was sent"
    )]
    fn from(said: Capabilities) -> Self {
        Self {
            cpu: said.cpu,
            memory: said.memory,
            os: said.os,
            gpu_type: said.gpu_type,
            gpu_vram_total: said.gpu_vram_total,
            gpu_vram_available: said.gpu_vram_available,
            power_usage: said.power_usage,
            gpu_vram_used: said.gpu_vram_used,
            gpu_temperature: said.gpu_temperature,
            gpu_power_usage: said.gpu_power_usage,
        }
    }
}

impl From<Picture> for v1::Node {
    fn from(picture: Picture) -> Self {
        Self {
            id: picture.id,
            hostname: picture.hostname,
            capabilities: picture.capabilities.map(Into::into),
            last_seen_unix: picture.last_seen_unix,
            agent_address: picture.agent_address,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(cpu: &str, memory: &str, os: &str) -> NodeFacts {
        let capabilities = Capabilities {
            cpu: cpu.to_owned(),
            memory: memory.to_owned(),
            os: os.to_owned(),
            ..Capabilities::default()
        };
        let told = Told {
            capabilities: Some(capabilities),
            ..Told::default()
        };
        facts(&told, Vec::new())
    }

    #[test]
    fn sentences_become_facts_and_nonsense_is_unknown() {
        let facts = of("8 cores", "15.50 GB", "linux/amd64");
        assert_eq!(
            (facts.cpu_count, facts.os.as_str(), facts.arch.as_str()),
            (8, "linux", "x86_64")
        );
        assert_eq!(facts.memory, Bytes(31 << 29));
        for (text, expected) in [
            ("512 MB", 512 << 20),
            ("2TiB", 2 << 40),
            ("1048576", 1 << 20),
            ("", 0),
            ("much", 0),
            ("4 parsecs", 0),
            ("1.2.3 GB", 0),
            ("-1 GB", 0),
        ] {
            assert_eq!(bytes(text), Bytes(expected), "{text}");
        }
        for (text, expected) in [
            ("16", 16),
            ("x86, 4-core", 86),
            ("", 0),
            ("many", 0),
            ("99999999999", 0),
        ] {
            assert_eq!(cores(text), expected, "{text}");
        }
        assert_eq!(of("", "", "Windows").os, "windows");
    }

    #[test]
    fn a_machine_of_ours_is_described_as_their_agent_would() {
        let facts = NodeFacts {
            os: "linux".to_owned(),
            arch: "aarch64".to_owned(),
            cpu_count: 4,
            memory: Bytes(16_000 << 20),
            ..NodeFacts::default()
        };
        let said = said_for(&facts);
        assert_eq!(
            (said.cpu.as_str(), said.memory.as_str(), said.os.as_str()),
            ("4 cores", "15.62 GB", "linux/arm64")
        );
        assert_eq!(said_for(&NodeFacts::default()), Capabilities::default());
    }

    #[test]
    fn what_is_empty_is_left_out_and_both_spellings_are_there() {
        assert_eq!(serde_json::to_string(&Picture::default()).unwrap(), "{}");
        let picture = Picture {
            id: "a".to_owned(),
            capabilities: Some(Capabilities::default()),
            last_seen_unix: 7,
            last_seen_unix_again: 7,
            ..Picture::default()
        };
        let json = r#"{"id":"a","capabilities":{},"last_seen_unix":7,"lastSeenUnix":7}"#;
        assert_eq!(serde_json::to_string(&picture).unwrap(), json);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn any_sentence_can_be_read(cpu in ".{0,20}", memory in "[0-9.]{0,30} ?[kKMGTxé]{0,3}", os in ".{0,20}") {
            let facts = of(&cpu, &memory, &os);
            let json = facts.foreign.expect("it is kept");
            let kept: Told = serde_json::from_str(&json).expect("it reads back");
            prop_assert_eq!(kept.capabilities.expect("they are kept").cpu, cpu);
        }
    }
}
