//! The session contract, spoken by a client that says exactly what each test wants.

mod ends;

use std::collections::HashMap;

use hostler_model::UnitId;
use hostler_wire::session::v1::session_client::SessionClient;
use hostler_wire::session::v1::{self, node_message, server_message, unit_state};
use hostler_wire::session::{DigestItem, digest};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::server::{DEADLINE, Server, spec};

/// The node's side of a control stream.
pub(crate) struct Node {
    pub(crate) client: SessionClient<Channel>,
    says: mpsc::Sender<v1::NodeMessage>,
    hears: Streaming<v1::ServerMessage>,
}

pub(crate) fn hello(name: &str) -> v1::Hello {
    let kinds = ["process", "container"].map(|kind| v1::RuntimeFact {
        kind: kind.to_owned(),
        available: true,
        ..v1::RuntimeFact::default()
    });
    v1::Hello {
        versions: Some(v1::Versions::ours()),
        agent_version: "0.1.0".to_owned(),
        identity: format!("key-of-{name}"),
        name: name.to_owned(),
        facts: Some(v1::Facts {
            hostname: name.to_owned(),
            boot_id: "boot-1".to_owned(),
            runtimes: kinds.into(),
            ..v1::Facts::default()
        }),
        capacity: Some(v1::Resources {
            milli_cpu: 4_000,
            memory_bytes: 8 << 30,
            disk_bytes: 8 << 30,
        }),
        ..v1::Hello::default()
    }
}

impl Node {
    pub(crate) async fn connect(server: &Server) -> Self {
        let mut client = SessionClient::connect(server.url(""))
            .await
            .expect("a connection");
        let (says, stream) = mpsc::channel(64);
        let hears = client
            .control(ReceiverStream::new(stream))
            .await
            .expect("a stream");
        Self {
            client,
            says,
            hears: hears.into_inner(),
        }
    }

    /// Says hello and observes nothing; answers the welcome.
    pub(crate) async fn join(server: &Server, name: &str) -> (Self, v1::Welcome) {
        let mut node = Self::connect(server).await;
        node.say(node_message::Message::Hello(hello(name))).await;
        node.observe(true, Vec::new()).await;
        let server_message::Message::Welcome(welcome) = node.hear().await else {
            panic!("a welcome is expected")
        };
        (node, welcome)
    }

    pub(crate) async fn say(&self, message: node_message::Message) {
        let message = v1::NodeMessage {
            message: Some(message),
        };
        self.says.send(message).await.expect("the stream takes it");
    }

    pub(crate) async fn observe(&self, full: bool, units: Vec<v1::ObservedUnit>) {
        self.say(node_message::Message::Observed(v1::Observed {
            full,
            last: full,
            units,
        }))
        .await;
    }

    pub(crate) async fn beat(&self, sequence: u64, observed_digest: u64) {
        let usage = Some(v1::Usage {
            cpu_percent: 12.5,
            ..v1::Usage::default()
        });
        let beat = v1::Beat {
            sequence,
            usage,
            observed_digest,
        };
        self.say(node_message::Message::Beat(beat)).await;
    }

    async fn heard(&mut self) -> Result<Option<server_message::Message>, Status> {
        let heard = tokio::time::timeout(DEADLINE, self.hears.message()).await;
        let heard = heard.expect("something is said")?;
        Ok(heard.and_then(|it| it.message))
    }

    pub(crate) async fn hear(&mut self) -> server_message::Message {
        self.heard()
            .await
            .expect("the stream lasts")
            .expect("a message")
    }

    /// Hears intents until `is_enough`, and answers what the node should run, by assignment.
    pub(crate) async fn intent(
        &mut self,
        intent: &mut HashMap<String, v1::IntentItem>,
        is_enough: impl Fn(&HashMap<String, v1::IntentItem>, bool) -> bool,
    ) {
        loop {
            let server_message::Message::Intent(part) = self.hear().await else {
                panic!("an intent is expected")
            };
            for id in &part.removed_assignments {
                intent.remove(id);
            }
            for item in part.items {
                intent.insert(item.unit.clone().expect("a unit").assignment, item);
            }
            if is_enough(intent, part.full && part.last) {
                return;
            }
        }
    }

    async fn refusal(&mut self) -> String {
        let server_message::Message::Refused(refused) = self.hear().await else {
            panic!("a refusal is expected")
        };
        assert!(
            !refused.sentence.is_empty() && !refused.advice.is_empty(),
            "{refused:?}"
        );
        assert!(
            self.heard().await.is_ok_and(|it| it.is_none()),
            "nothing follows a refusal"
        );
        refused.code
    }

    async fn status(&mut self) -> Status {
        loop {
            match self.heard().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a status"),
                Err(status) => return status,
            }
        }
    }
}

pub(crate) fn observed(item: &v1::IntentItem, state: unit_state::State) -> v1::ObservedUnit {
    v1::ObservedUnit {
        unit: item.unit.clone(),
        workload: item.workload.clone(),
        kind: "process".to_owned(),
        state: Some(v1::UnitState { state: Some(state) }),
        runs: 1,
        parts: Vec::new(),
        health: None,
        crash_loop: None,
    }
}

pub(crate) fn running() -> unit_state::State {
    unit_state::State::Running(unit_state::Running { since_ms: 1 })
}

fn digest_item(item: &v1::IntentItem, state: u32) -> DigestItem {
    let unit = item.unit.as_ref().expect("a unit");
    let id: hostler_model::AssignmentId = unit.assignment.parse().expect("an id");
    let unit = UnitId {
        assignment: id,
        generation: unit.generation,
    };
    (*unit.assignment.as_bytes(), unit.generation, state, 1)
}

#[tokio::test]
async fn a_node_joins_beats_and_is_told_everything() {
    let server = Server::start().await;
    server.apply("web", 1).await;
    let (mut node, welcome) = Node::join(&server, "box").await;
    assert_eq!(welcome.version, 1);
    assert_eq!(welcome.fleet_id, server.control.fleet_id().to_string());
    assert_eq!(
        welcome.store_epoch,
        server.control.store_epoch().to_string()
    );
    assert!(welcome.beat_interval_ms > 0 && welcome.lease_ms > welcome.beat_interval_ms);
    let run = server.control.server_run();
    assert_eq!(
        (welcome.server_run, welcome.store_revision),
        (run.id, run.store_revision)
    );
    let mut intent = HashMap::new();
    node.intent(&mut intent, |intent, _| intent.len() == 1)
        .await;
    node.beat(1, 0).await;
    let server_message::Message::BeatAck(ack) = node.hear().await else {
        panic!("an ack")
    };
    assert_eq!(ack.sequence, 1);
    let shown = server.get("/api/v1/nodes/box").await.json();
    assert_eq!(
        (&shown["state"], &shown["id"]),
        (&"ready".into(), &welcome.node_id.into())
    );
    assert_eq!(shown["metrics"]["cpu_usage"], 12.5);
    drop(node);
    server
        .until("/api/v1/nodes/box", |node| node["state"] == "suspect")
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn every_intent_tells_a_revision_that_covers_it() {
    let server = Server::start().await;
    let (mut node, _) = Node::join(&server, "box").await;
    for name in ["web", "api"] {
        let before = server.control.store_revision();
        server.apply(name, 1).await;
        let part = loop {
            let server_message::Message::Intent(part) = node.hear().await else {
                panic!("an intent is expected")
            };
            if !part.items.is_empty() {
                break part;
            }
        };
        assert!(part.store_revision > before, "its commit is newer");
        assert!(part.store_revision <= server.control.store_revision());
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_beat_that_is_not_newer_is_ignored() {
    let server = Server::start().await;
    let (mut node, _) = Node::join(&server, "box").await;
    node.intent(&mut HashMap::new(), |_, whole| whole).await;
    for sequence in [5, 5, 4, 6] {
        node.beat(sequence, 0).await;
    }
    for expected in [5, 6] {
        let server_message::Message::BeatAck(ack) = node.hear().await else {
            panic!("an ack")
        };
        assert_eq!(ack.sequence, expected);
    }
    assert_eq!(server.control.metrics().beats_stale, 2);
    server.shut_down().await;
}

#[tokio::test]
async fn a_digest_that_differs_asks_for_everything_anew() {
    let server = Server::start().await;
    server.apply("web", 1).await;
    let (mut node, _) = Node::join(&server, "box").await;
    let mut intent = HashMap::new();
    node.intent(&mut intent, |intent, _| intent.len() == 1)
        .await;
    let item = intent.values().next().expect("an item").clone();
    let ours = digest([digest_item(&item, 3)]);
    node.beat(1, ours).await;
    assert!(matches!(
        node.hear().await,
        server_message::Message::Resend(_)
    ));
    assert!(matches!(
        node.hear().await,
        server_message::Message::BeatAck(_)
    ));
    node.observe(true, vec![observed(&item, running())]).await;
    server
        .until("/api/v1/workloads/web", |it| it["status"] == "running")
        .await;
    node.beat(2, ours).await;
    assert!(matches!(
        node.hear().await,
        server_message::Message::BeatAck(_)
    ));
    server.shut_down().await;
}

#[tokio::test]
async fn intent_goes_in_increments_until_the_record_is_gone() {
    let server = Server::start().await;
    let (mut node, _) = Node::join(&server, "box").await;
    let mut intent = HashMap::new();
    node.intent(&mut intent, |intent, whole| whole && intent.is_empty())
        .await;
    server.apply("web", 2).await;
    node.intent(&mut intent, |intent, whole| !whole && intent.len() == 2)
        .await;
    let units = intent
        .values()
        .map(|item| observed(item, running()))
        .collect();
    node.observe(false, units).await;
    server
        .until("/api/v1/workloads/web", |it| it["running"] == 2)
        .await;
    server.apply("web", 1).await;
    let stopping = |intent: &HashMap<String, v1::IntentItem>| {
        intent
            .values()
            .find(|item| !item.stop_cause.is_empty())
            .cloned()
    };
    node.intent(&mut intent, |intent, _| stopping(intent).is_some())
        .await;
    let stopped = stopping(&intent).expect("an item");
    assert_eq!(
        (stopped.stop_cause.as_str(), stopped.slot),
        ("scaled-down", 1)
    );
    node.observe(
        false,
        vec![observed(
            &stopped,
            unit_state::State::Gone(unit_state::Gone {}),
        )],
    )
    .await;
    node.intent(&mut intent, |intent, _| intent.len() == 1)
        .await;
    let copies = server.get("/api/v1/assignments").await.json();
    assert_eq!(copies.as_array().expect("a list").len(), 1);
    server.shut_down().await;
}

#[tokio::test]
async fn an_increment_carries_the_spec_that_it_needs() {
    let server = Server::start().await;
    let (mut node, _) = Node::join(&server, "box").await;
    node.intent(&mut HashMap::new(), |_, whole| whole).await;
    server.apply("web", 1).await;
    let server_message::Message::Intent(part) = node.hear().await else {
        panic!("an intent")
    };
    assert_eq!(
        (part.version, part.items.len(), part.specs.len()),
        (2, 1, 1)
    );
    let spec: Value = serde_json::from_slice(&part.specs[0].json).expect("JSON");
    assert_eq!(
        (&spec["name"], &spec["process"]["command"]),
        (&"web".into(), &json!(["sleep", "inf"]))
    );
    assert_eq!(part.specs[0].revision, part.items[0].revision);
    let applied = v1::Applied {
        version: part.version,
    };
    node.say(node_message::Message::Applied(applied)).await;
    node.beat(1, 0).await;
    assert!(matches!(
        node.hear().await,
        server_message::Message::BeatAck(_)
    ));
    server.shut_down().await;
}

#[tokio::test]
async fn large_sets_go_in_parts_both_ways() {
    let server = Server::start().await;
    let (mut node, _) = Node::join(&server, "box").await;
    let mut intent = HashMap::new();
    node.intent(&mut intent, |_, whole| whole).await;
    server.apply("web", 900).await;
    node.intent(&mut intent, |intent, _| intent.len() == 900)
        .await;
    drop(node);
    server
        .until("/api/v1/nodes/box", |node| node["state"] == "suspect")
        .await;

    let mut node = Node::connect(&server).await;
    node.say(node_message::Message::Hello(hello("box"))).await;
    assert!(matches!(
        node.hear().await,
        server_message::Message::Welcome(_)
    ));
    let units: Vec<_> = intent
        .values()
        .map(|item| observed(item, running()))
        .collect();
    let chunks: Vec<_> = units.chunks(200).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        let last = number + 1 == chunks.len();
        let part = v1::Observed {
            full: true,
            last,
            units: chunk.to_vec(),
        };
        node.say(node_message::Message::Observed(part)).await;
    }
    let mut again = HashMap::new();
    node.intent(&mut again, |_, whole| whole).await;
    assert_eq!(again.len(), 900);
    server
        .until("/api/v1/workloads/web", |it| it["running"] == 900)
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_command_is_told_once_and_its_answer_recorded() {
    let server = Server::start().await;
    let (mut node, _) = Node::join(&server, "box").await;
    node.intent(&mut HashMap::new(), |_, whole| whole).await;
    server.post("/api/v1/nodes/box/cleanup", "").await;
    let server_message::Message::Command(command) = node.hear().await else {
        panic!("a command")
    };
    assert_eq!(
        serde_json::from_slice::<Value>(&command.json).expect("JSON")["kind"],
        "cleanup"
    );
    // Another change wakes the link; the command is not told again.
    server.apply("web", 1).await;
    node.intent(&mut HashMap::new(), |intent, _| intent.len() == 1)
        .await;
    for command in [
        command.id.clone(),
        "0199c0de-0000-7000-8000-000000000001".to_owned(),
    ] {
        let answer = v1::Acknowledge {
            command,
            done: true,
            message: "3 deleted".to_owned(),
        };
        node.say(node_message::Message::Acknowledge(answer)).await;
    }
    let done = |list: &Value| list[0]["state"]["word"] == "done";
    let list = server.until("/api/v1/nodes/box/commands", done).await;
    assert_eq!(list[0]["state"]["message"], "3 deleted");
    node.beat(1, 0).await;
    assert!(matches!(
        node.hear().await,
        server_message::Message::BeatAck(_)
    ));
    server.shut_down().await;
}

#[tokio::test]
async fn a_node_that_holds_back_is_shown_with_its_reason() {
    let server = Server::start().await;
    let (node, _) = Node::join(&server, "box").await;
    let held = |reason: &str| v1::Held {
        reason: reason.to_owned(),
        would_stop: 3,
    };
    node.say(node_message::Message::Held(held("3 of 4 would stop")))
        .await;
    server
        .until("/api/v1/nodes/box", |it| {
            it["held_back"] == "3 of 4 would stop"
        })
        .await;
    node.say(node_message::Message::Held(held(""))).await;
    server
        .until("/api/v1/nodes/box", |it| it.get("held_back").is_none())
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_node_that_is_short_of_something_is_shown_with_it_while_it_says_so() {
    let server = Server::start().await;
    let (node, _) = Node::join(&server, "box").await;
    let beat = async |sequence, short_of: Option<&[&str]>| {
        let pressure = short_of.map(|words| v1::Pressure {
            short_of: words.iter().map(|&word| word.to_owned()).collect(),
        });
        let usage = Some(v1::Usage {
            pressure,
            ..v1::Usage::default()
        });
        let beat = v1::Beat {
            sequence,
            usage,
            observed_digest: 0,
        };
        node.say(node_message::Message::Beat(beat)).await;
    };
    beat(1, Some(&["disk", "patience"])).await;
    let path = "/api/v1/nodes/box";
    let is_short = |it: &serde_json::Value| it["pressure"] == serde_json::json!(["disk"]);
    server.until(path, is_short).await;
    beat(2, None).await;
    beat(3, Some(&["disk", "memory"])).await;
    server
        .until(path, |it| {
            it["pressure"] == serde_json::json!(["memory", "disk"])
        })
        .await;
    beat(4, Some(&[])).await;
    server.until(path, |it| it.get("pressure").is_none()).await;
    server.shut_down().await;
}

#[tokio::test]
async fn of_the_workloads_that_a_node_keeps_data_of_it_is_told_those_that_are_unknown() {
    let server = Server::start().await;
    let spec = "name: web\nprocess: {command: [sleep, '9']}\n";
    server.post("/api/v1/workloads", spec).await;
    let made = server.get("/api/v1/workloads/web").await.json();
    let known = made["id"].as_str().expect("an id").to_owned();
    let (mut node, _) = Node::join(&server, "box").await;
    let unknown = hostler_model::WorkloadId::LEAST.to_string();
    let workloads = vec![known, unknown.clone(), "nonsense".to_owned()];
    node.say(node_message::Message::Kept(v1::Kept { workloads }))
        .await;
    let told = loop {
        if let server_message::Message::Unwanted(told) = node.hear().await {
            break told;
        }
    };
    assert_eq!(told.workloads, [unknown]);
    server.shut_down().await;
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_refused() {
    let server = Server::start().await;
    for versions in [
        None,
        Some(v1::Versions {
            lowest: 7,
            highest: 9,
        }),
    ] {
        let mut node = Node::connect(&server).await;
        let hello = v1::Hello {
            versions,
            ..hello("box")
        };
        node.say(node_message::Message::Hello(hello)).await;
        assert_eq!(node.refusal().await, "version-unsupported");
    }
    assert_eq!(server.get("/api/v1/nodes").await.json(), json!([]));
    server.shut_down().await;
}

#[tokio::test]
async fn a_clock_that_is_off_is_shown_with_its_node() {
    let server = Server::start().await;
    let health = server.get("/health").await.json();
    let now = hostler_model::Timestamp::parse(health["timestamp"].as_str().unwrap());
    let mut node = Node::connect(&server).await;
    let ahead = v1::Hello {
        time_ms: now.unwrap().as_millis() + 3_600_000,
        ..hello("box")
    };
    node.say(node_message::Message::Hello(ahead)).await;
    node.observe(true, Vec::new()).await;
    node.hear().await;
    let shown = server.get("/api/v1/nodes/box").await.json();
    let offset = shown["clock_offset_ms"].as_i64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&offset), "{offset}");
    // An older agent tells none.
    let (_silent, _) = Node::join(&server, "silent").await;
    let shown = server.get("/api/v1/nodes/silent").await.json();
    assert!(shown["clock_offset_ms"].is_null(), "{shown}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_hello_that_makes_no_sense_is_refused() {
    let server = Server::start().await;
    let mut node = Node::connect(&server).await;
    node.beat(1, 0).await;
    assert_eq!(node.refusal().await, "bad-request");
    let mut node = Node::connect(&server).await;
    let nameless = v1::Hello {
        identity: String::new(),
        ..hello("box")
    };
    node.say(node_message::Message::Hello(nameless)).await;
    assert_eq!(node.refusal().await, "bad-request");
    let (mut node, _) = Node::join(&server, "box").await;
    node.intent(&mut HashMap::new(), |_, whole| whole).await;
    node.say(node_message::Message::Hello(hello("box"))).await;
    assert_eq!(node.refusal().await, "bad-request");
    let (mut node, _) = Node::join(&server, "box").await;
    node.intent(&mut HashMap::new(), |_, whole| whole).await;
    node.observe(false, vec![v1::ObservedUnit::default()]).await;
    assert_eq!(node.refusal().await, "bad-request");
    server.shut_down().await;
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_stream() {
    let server = Server::start().await;
    let (mut node, _) = Node::join(&server, "box").await;
    node.intent(&mut HashMap::new(), |_, whole| whole).await;
    let large = v1::Held {
        reason: "x".repeat(70_000),
        would_stop: 0,
    };
    node.say(node_message::Message::Held(large)).await;
    assert_eq!(node.status().await.code(), Code::OutOfRange);
    server
        .until("/api/v1/nodes/box", |node| node["state"] == "suspect")
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_spec_that_no_message_carries_is_refused_when_it_is_applied() {
    let server = Server::start().await;
    let text = format!("{}env: {{A: {}}}\n", spec("web", 1), "x".repeat(50 << 10));
    server
        .post("/api/v1/workloads", &text)
        .await
        .is_problem(413, "body-too-large");
    server.shut_down().await;
}

#[tokio::test]
async fn what_a_unit_uses_is_shown_with_its_copy_and_summed_in_the_figures() {
    let server = Server::start().await;
    server.apply("web", 1).await;
    let (mut node, _) = Node::join(&server, "box").await;
    let mut intent = HashMap::new();
    node.intent(&mut intent, |intent, _| intent.len() == 1)
        .await;
    let item = intent.values().next().expect("an item").clone();
    node.observe(false, vec![observed(&item, running())]).await;
    server
        .until("/api/v1/workloads/web", |it| it["running"] == 1)
        .await;
    let assignment = item.unit.clone().expect("a unit").assignment;
    let path = format!("/api/v1/assignments/{assignment}");
    let before = server.get(&path).await.json();
    assert!(before.get("usage").is_none(), "{before}");
    let used = v1::UnitUsage {
        unit: item.unit.clone(),
        cpu_nanos: 3_000_000_000,
        milli_cpu: 250,
        memory_bytes: 1 << 20,
        read_bytes: Some(0),
        sent_bytes: Some(9),
        ..v1::UnitUsage::default()
    };
    let nobodys = v1::UnitUsage {
        unit: None,
        ..used.clone()
    };
    let usage = v1::Usage {
        units: vec![used, nobodys],
        ..v1::Usage::default()
    };
    let beat = v1::Beat {
        sequence: 1,
        usage: Some(usage),
        observed_digest: 0,
    };
    node.say(node_message::Message::Beat(beat)).await;
    server.until(&path, |it| it.get("usage").is_some()).await;
    let shown = server.get(&path).await.json();
    let expected = serde_json::json!({"milli_cpu": 250, "cpu_ms": 3000, "memory_bytes": 1 << 20,
        "read_bytes": 0, "sent_bytes": 9});
    assert_eq!(shown["usage"], expected, "what is not known is left out");
    let figures = server.get("/metrics").await.text;
    let line = format!(
        "hostler_workload_memory_bytes{{workload=\"web\"}} {}",
        1 << 20
    );
    assert!(figures.contains(&line), "{figures}");
    server.shut_down().await;
}
