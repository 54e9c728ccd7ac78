//! The agent under a MIaaS control plane: both ages of it, and its faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hostler_agent::miaas::Miaas;
use hostler_agent::{AgentStatus, Journal, Uplink};
use hostler_model::spec::WorkloadSpec;
use serde_json::{Value, json};

use crate::control::unit;
use crate::network::Weather;
use crate::node::{Running, World};
use crate::plane::{Answer, Asked, Lines, Plane};

const REGISTER: &str = "POST /api/v1/nodes/register";
const NODES: &str = "POST /api/v1/nodes/node-";

/// How old the double is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// A new node at each registration, an opaque token that is not read.
    First,
    /// A node has one id by its name; heartbeats need the token of the last registration.
    Later,
}

struct State {
    age: Age,
    /// Names by node id.
    nodes: BTreeMap<String, String>,
    registrations: usize,
    /// Takes the place of every answer while it is set.
    fault: Option<Answer>,
}

impl State {
    fn of(age: Age) -> Self {
        Self {
            age,
            nodes: BTreeMap::new(),
            registrations: 0,
            fault: None,
        }
    }

    fn token(&self) -> String {
        match self.age {
            Age::First => "opaque".to_owned(),
            Age::Later => format!("jwt.{}", self.registrations),
        }
    }

    fn register(&mut self, asked: &Asked) -> Answer {
        let name = asked.body["name"].as_str().unwrap().to_owned();
        self.registrations += 1;
        let id = match self.age {
            Age::First => format!("node-{}", self.registrations),
            Age::Later => format!("node-{name}"),
        };
        self.nodes.insert(id.clone(), name);
        let body = json!({
            "node_id": id,
            "node_token": self.token(),
            "control_plane_url": "http://elsewhere.example:9",
        });
        Answer::Json(if self.age == Age::First { 200 } else { 201 }, body)
    }

    fn heartbeat(&self, asked: &Asked, id: &str) -> Answer {
        let token = format!("Bearer {}", self.token());
        if self.age == Age::Later && asked.headers.get("authorization") != Some(&token) {
            return Answer::Json(401, json!({"detail": "Invalid or expired token"}));
        }
        if !self.nodes.contains_key(id) {
            return Answer::Json(404, json!({"detail": "Node not found"}));
        }
        Answer::Json(200, json!({"status": "ok", "timestamp": 1.5}))
    }
}

fn rule(state: &mut State, asked: &Asked) -> Answer {
    if let Some(fault) = &state.fault {
        return fault.clone();
    }
    let beat = asked.line.strip_prefix("POST /api/v1/nodes/");
    match beat.and_then(|rest| rest.strip_suffix("/heartbeat")) {
        Some(id) => state.heartbeat(asked, id),
        None if asked.line == REGISTER => state.register(asked),
        None => Answer::Json(404, json!({"detail": "Not Found"})),
    }
}

async fn start(world: &World, lines: &Arc<Lines>) -> Running {
    let journal = Arc::clone(lines) as Arc<dyn Journal>;
    let started = world.try_start(|config| {
        config.uplink = Uplink::Miaas(Miaas::default());
        config.journal = journal;
    });
    started.await.unwrap()
}

fn is_registered(status: &AgentStatus) -> bool {
    matches!(status, AgentStatus::Registered { .. })
}

#[tokio::test(start_paused = true)]
async fn it_registers_and_sends_a_heartbeat_every_thirty_seconds() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::of(Age::First), rule);
    let agent = start(&world, &lines).await;
    let beats = plane.until_asked(NODES, 3).await;
    let registered = &plane.asked(REGISTER)[0];
    let expected = json!({
        "name": "host",
        "ip": "127.0.0.1",
        "capabilities": {
            "os": "linux", "cpu_count": 4, "mem_mb": 16384, "disk_mb": 102_400, "gpus": [],
        },
    });
    assert_eq!(registered.body, expected);
    assert_eq!(registered.headers["content-type"], "application/json");
    assert_eq!(registered.headers["host"], "control.example:8080");
    assert!(!registered.headers.contains_key("authorization"));
    for pair in beats.windows(2) {
        assert_eq!((pair[1].at - pair[0].at).as_secs(), 30);
    }
    assert_eq!(beats[0].line, "POST /api/v1/nodes/node-1/heartbeat");
    assert_eq!(beats[0].headers["authorization"], "Bearer opaque");
    let expected = json!({
        "cpu_usage": 12.5, "mem_usage": 40.0, "disk_free_mb": 2048, "running_containers": [],
    });
    assert_eq!(beats[0].body, expected);
    lines.until("Heartbeat sent", 3).await;
    let capabilities =
        "{'os': 'linux', 'cpu_count': 4, 'mem_mb': 16384, 'disk_mb': 102400, 'gpus': []}";
    let told = [
        "Starting MIaaS agent...",
        &format!("Detected capabilities: {capabilities}"),
        "Registering with control plane...",
        "Registered successfully. Node ID: node-1",
        "Starting heartbeat loop (interval: 30s)",
        "Heartbeat sent: CPU 12.5%, Mem 40.0%, Disk 2048 MB free",
    ];
    assert_eq!(lines.texts()[..6], told);
    agent.until(is_registered).await;
    assert_eq!(plane.asked(REGISTER).len(), 1);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_later_control_plane_answers_201_and_reads_the_token() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::of(Age::Later), rule);
    let _agent = start(&world, &lines).await;
    lines.until("Heartbeat sent", 2).await;
    let beats = plane.asked(NODES);
    assert_eq!(beats[1].headers["authorization"], "Bearer jwt.1");
    assert_eq!(beats[1].line, "POST /api/v1/nodes/node-host/heartbeat");
}

#[tokio::test(start_paused = true)]
async fn the_address_in_the_answer_is_not_trusted() {
    let (world, lines) = (World::new(), Lines::new());
    Plane::start(&world, State::of(Age::First), rule);
    let _agent = start(&world, &lines).await;
    lines.until("Heartbeat sent", 1).await;
    assert_eq!(world.network.dialled(), "control.example:8080");
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_is_not_there_yet_is_told_with_its_causes_and_tried_again() {
    let (world, lines) = (World::new(), Lines::new());
    Plane::start(&world, State::of(Age::First), rule);
    world.network.set(Weather::Cut);
    let agent = start(&world, &lines).await;
    let told = lines
        .until("Failed to register with control plane", 8)
        .await;
    assert!(
        told.text.contains("cannot connect to control.example:8080"),
        "{}",
        told.text
    );
    let texts = lines.texts();
    let at = texts
        .iter()
        .position(|text| text.starts_with("Failed"))
        .unwrap();
    let causes = [
        "  - The control plane may not be running: curl http://control.example:8080/health",
        "  - CONTROL_PLANE_URL may be wrong; it is http://control.example:8080",
        "  - There may be no network from here to control.example",
        "  - A firewall may close port 8080",
    ];
    assert_eq!(texts[at + 1..at + 5], causes);
    assert_eq!(lines.count("  - A firewall"), 1, "causes are told once");
    agent
        .until(|status| matches!(status, AgentStatus::Connecting { problem: Some(_) }))
        .await;
    let tries = world.network.dials();
    world.pass(Duration::from_secs(300)).await;
    assert!(world.network.dials() - tries <= 20, "waits grow to 30 s");
    world.network.set(Weather::Fair);
    agent.until(is_registered).await;
    lines.until("Heartbeat sent", 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_no_is_told_in_its_own_words() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::of(Age::First), rule);
    for (fault, part) in [
        (
            Answer::Json(422, json!({"detail": [{"msg": "Field required"}]})),
            "Field required",
        ),
        (
            Answer::Json(500, json!({"detail": "database is locked"})),
            "database is locked",
        ),
        (
            Answer::Json(200, json!({"node_token": "x"})),
            "it names no node_id",
        ),
        (Answer::Json(200, Value::Null), "it names no node_id"),
        (Answer::HangUp, "connection closed"),
        (Answer::Silence, "no answer within 10 s"),
        (
            Answer::Raw(
                "HTTP/1.1 301 Moved\r\nlocation: https://plane\r\ncontent-length: 0\r\n\r\n"
                    .to_owned(),
            ),
            "it leads to https://plane",
        ),
        (
            Answer::Raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned()),
            "end of file",
        ),
    ] {
        plane.state().fault = Some(fault);
        let before = lines.count("Failed to register with control plane");
        let agent = start(&world, &lines).await;
        let told = lines
            .until("Failed to register with control plane", before + 1)
            .await;
        assert!(told.text.contains(part), "{part}: {}", told.text);
        agent.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_removed_is_told_what_a_person_can_do() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::of(Age::First), rule);
    let detail = "node host was removed from the fleet";
    plane.state().fault = Some(Answer::Json(410, json!({"detail": detail})));
    let agent = start(&world, &lines).await;
    let failed = "Failed to register with control plane";
    let told = lines.until(failed, 3).await;
    assert!(told.text.ends_with(detail), "{}", told.text);
    let removed = "  - The node was removed from that fleet, and stays removed under this name";
    assert_eq!(lines.count(removed), 1);
    assert_eq!(
        lines.count("  - CONTROL_PLANE_URL"),
        0,
        "the address is right"
    );
    plane.state().fault = None;
    agent.until(is_registered).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_come_in_chunks_or_end_with_its_connection() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::of(Age::First), rule);
    let body = r#"{"node_id":7}"#;
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nd\r\n{body}\r\n0\r\n\r\n");
    let ended = format!("HTTP/1.0 200 OK\r\n\r\n{body}");
    for (registrations, text) in [(1, chunked), (2, ended)] {
        plane.state().fault = Some(Answer::Raw(text));
        let agent = start(&world, &lines).await;
        lines
            .until("Registered successfully. Node ID: 7", registrations)
            .await;
        agent.stop().await;
    }
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(2 << 20));
    plane.state().fault = Some(Answer::Raw(endless));
    let agent = start(&world, &lines).await;
    let told = lines
        .until("Failed to register with control plane", 1)
        .await;
    assert!(told.text.contains("length limit exceeded"), "{}", told.text);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_lost_its_nodes_is_registered_with_at_once() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::of(Age::First), rule);
    let _agent = start(&world, &lines).await;
    lines.until("Heartbeat sent", 1).await;
    plane.state().nodes.clear();
    lines
        .until("Registered successfully. Node ID: node-2", 1)
        .await;
    assert_eq!(
        lines.count("Heartbeat failed: the answer was 404 Not Found: Node not found"),
        1
    );
    lines.until("Heartbeat sent", 2).await;
    let beats = plane.asked("POST /api/v1/nodes/node-2/");
    assert_eq!(beats.len(), 1, "the new id is used");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_taken_any_more_makes_it_register_at_once() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::of(Age::Later), rule);
    let _agent = start(&world, &lines).await;
    lines.until("Heartbeat sent", 1).await;
    // As after a change of the secret.
    plane.state().registrations += 1;
    lines.until("Registered successfully", 2).await;
    lines.until("Heartbeat sent", 2).await;
    assert_eq!(
        plane.asked(NODES).last().unwrap().headers["authorization"],
        "Bearer jwt.3"
    );
    plane.state().fault = Some(Answer::Json(403, json!({"detail": "no"})));
    lines.until("Heartbeat failed", 2).await;
    lines.until("Failed to register", 1).await;
    plane.state().fault = None;
    lines.until("Heartbeat sent", 3).await;
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_make_it_register_and_fewer_do_not() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::of(Age::First), rule);
    let agent = start(&world, &lines).await;
    lines.until("Heartbeat sent", 1).await;
    plane.state().fault = Some(Answer::Json(500, json!({"detail": "oops"})));
    lines.until("Heartbeat failed", 4).await;
    agent
        .until(|status| matches!(status, AgentStatus::Connecting { problem: Some(_) }))
        .await;
    plane.state().fault = None;
    lines.until("Heartbeat sent", 2).await;
    agent.until(is_registered).await;
    assert_eq!(plane.asked(REGISTER).len(), 1);
    plane.state().fault = Some(Answer::Silence);
    lines
        .until("Heartbeat failed: no answer within 10 s", 5)
        .await;
    plane.until_asked(REGISTER, 2).await;
    plane.state().fault = None;
    lines.until("Registered successfully", 2).await;
    lines.until("Heartbeat sent", 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_without_intent_stops_nothing_and_hears_what_runs() {
    let (world, lines) = (World::new(), Lines::new());
    let container = WorkloadSpec::of_container("web", "web:1", vec!["serve".to_owned()]);
    world.control.state().want(unit(1, 1), &container);
    let agent = world.start().await;
    world.control.until_shown(unit(1, 1), "running").await;
    agent.stop().await;
    let plane = Plane::start(&world, State::of(Age::First), rule);
    let agent = start(&world, &lines).await;
    let beats = plane.until_asked(NODES, 30).await;
    assert_eq!(beats[29].body["running_containers"], json!(["web-0"]));
    agent.stop().await;
    world
        .machine
        .set_containers(&["theirs", "hostler-web-0-1-g1"]);
    let agent = start(&world, &lines).await;
    let all = json!(["hostler-web-0-1-g1", "theirs"]);
    let beats = plane.until_asked(NODES, 40).await;
    assert_eq!(
        beats[39].body["running_containers"], all,
        "ours and others'"
    );
    assert_eq!(world.machine.running(), [unit(1, 1)]);
    agent.stop().await;
    assert_eq!(world.machine.running(), [unit(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_none_starts_nothing() {
    let world = World::new();
    let started = world.try_start(|config| {
        config.uplink = Uplink::Miaas(Miaas::default());
        config.server = "ftp://control.example".to_owned();
    });
    let Err(refused) = started.await else {
        panic!("it started");
    };
    assert!(
        refused
            .to_string()
            .contains("the scheme is neither http nor https")
    );
}
