//! The agent under a spot server: registration, loops, files, the last word, and the server's faults.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hostler_agent::spot::{
    FilePrices, Instance, NoTransfer, Progress, Replica, Source, Spot, Timers, shutdown,
};
use hostler_agent::{AgentStatus, Dial, Journal, Uplink};
use serde_json::{Value, json};

use crate::network::Weather;
use crate::node::{Running, World};
use crate::plane::{Answer, Asked, Lines, Plane};

const REGISTER: &str = "POST /api/agents/register";
const BEAT: &str = "POST /api/agents/agent-1/heartbeat";
const COMMANDS: &str = "GET /api/agents/agent-1/pending-commands";
const CONFIG: &str = "GET /api/agents/agent-1/config";
const PRICES: &str = "POST /api/agents/agent-1/pricing-report";
const SYNC: &str = "POST /api/agents/agent-1/replicas/r1/sync-status";

#[derive(Default)]
struct State {
    /// Whether each agent that is known said last that it is online.
    agents: BTreeMap<String, bool>,
    /// Wants the token in the body, too.
    is_old: bool,
    commands: Vec<Value>,
    executed: Vec<(String, Value)>,
    config: Value,
    faults: BTreeMap<&'static str, Answer>,
}

fn not_found() -> Answer {
    Answer::Json(404, json!({"error": "Agent not found"}))
}

fn done() -> Answer {
    Answer::Json(200, json!({"success": true}))
}

fn rule(state: &mut State, asked: &Asked) -> Answer {
    let fault = state
        .faults
        .iter()
        .find(|(part, _)| asked.line.contains(*part));
    if let Some((_, fault)) = fault {
        return fault.clone();
    }
    if asked.headers.get("authorization").map(String::as_str) != Some("Bearer token-1") {
        return Answer::Json(401, json!({"error": "Invalid client token"}));
    }
    if asked.line == REGISTER {
        return register(state, asked);
    }
    let path = asked.line.split_once("/api/agents/").unwrap().1;
    let (id, what) = path.split_once('/').unwrap();
    match what {
        "heartbeat" => match state.agents.get_mut(id) {
            Some(is_online) => {
                *is_online = asked.body["status"] == "online";
                done()
            }
            None => not_found(),
        },
        "config" if state.agents.contains_key(id) => Answer::Json(200, state.config.clone()),
        "config" => not_found(),
        "pending-commands" => Answer::Json(200, json!(state.commands)),
        "pricing-report" => done(),
        what if what.ends_with("/sync-status") => done(),
        what => {
            let command = what.strip_prefix("commands/").unwrap();
            let command = command.strip_suffix("/executed").unwrap().to_owned();
            state
                .commands
                .retain(|known| known["id"] != command.as_str());
            state.executed.push((command, asked.body.clone()));
            done()
        }
    }
}

fn register(state: &mut State, asked: &Asked) -> Answer {
    if state.is_old && asked.body.get("client_token").is_none() {
        let details = json!({"client_token": ["Missing data for required field."]});
        let body = json!({"error": "Validation failed", "details": details});
        return Answer::Json(400, body);
    }
    state.agents.insert("agent-1".to_owned(), true);
    let config = json!({"auto_switch_enabled": false, "replica_count": 0});
    Answer::Json(
        200,
        json!({"agent_id": "agent-1", "client_id": "c", "config": config}),
    )
}

fn spot(world: &World) -> Spot {
    Spot {
        client_token: "token-1".to_owned(),
        logical_agent_id: "agent-host-1".to_owned(),
        instance: Instance {
            id: "i-1".to_owned(),
            kind: "t3.medium".to_owned(),
            region: "ap-south-1".to_owned(),
            az: "ap-south-1a".to_owned(),
            ami_id: "ami-1".to_owned(),
            mode: "spot".to_owned(),
            ..Instance::default()
        },
        agent_version: "2.0.0".to_owned(),
        root: world.dir.path().join("spot"),
        timers: Timers::default(),
        prices: None,
        replica: None,
    }
}

async fn start(world: &World, lines: &Arc<Lines>, spot: Spot) -> Running {
    std::fs::create_dir_all(&spot.root).unwrap();
    let journal = Arc::clone(lines) as Arc<dyn Journal>;
    let started = world.try_start(|config| {
        config.uplink = Uplink::Spot(Box::new(spot));
        config.journal = journal;
    });
    started.await.unwrap()
}

fn state_file(world: &World) -> Value {
    let path = world.dir.path().join("spot/data/agent_state.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn id_file(world: &World) -> std::path::PathBuf {
    world.dir.path().join("spot/agent_id.txt")
}

#[tokio::test(start_paused = true)]
async fn it_registers_with_the_eleven_keys_and_keeps_its_id() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    let agent = start(&world, &lines, spot(&world)).await;
    let beats = plane.until_asked(BEAT, 3).await;
    let expected = json!({
        "logical_agent_id": "agent-host-1", "instance_id": "i-1", "instance_type": "t3.medium",
        "region": "ap-south-1", "az": "ap-south-1a", "ami_id": "ami-1", "mode": "spot",
        "hostname": "host", "private_ip": "", "public_ip": "", "agent_version": "2.0.0",
    });
    assert_eq!(plane.asked(REGISTER)[0].body, expected);
    let expected = json!({
        "status": "online", "instance_id": "i-1", "instance_type": "t3.medium", "mode": "spot",
        "az": "ap-south-1a",
    });
    assert_eq!(beats[0].body, expected);
    for pair in beats.windows(2) {
        assert_eq!((pair[1].at - pair[0].at).as_secs(), 30);
    }
    assert_eq!(
        std::fs::read_to_string(id_file(&world)).unwrap(),
        "agent-1\n"
    );
    lines.until("Heartbeat sent successfully", 3).await;
    assert_eq!(
        lines.texts()[..2],
        [
            "Registering agent with server...",
            "Agent registered with ID: agent-1"
        ]
    );
    agent
        .until(|status| {
            *status
                == AgentStatus::Registered {
                    id: "agent-1".to_owned(),
                }
        })
        .await;
    agent.stop().await;
    let again = start(&world, &lines, spot(&world)).await;
    plane.until_asked(BEAT, 5).await;
    assert_eq!(
        plane.asked(REGISTER).len(),
        1,
        "an agent with an id does not register"
    );
    again.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_state_file_has_its_ten_keys_and_follows_the_settings() {
    let (world, lines) = (World::new(), Lines::new());
    let config =
        json!({"enabled": true, "auto_switch_enabled": true, "manual_replica_enabled": false});
    let state = State {
        config,
        ..State::default()
    };
    let plane = Plane::start(&world, state, rule);
    let agent = start(&world, &lines, spot(&world)).await;
    lines.until("Agent registered", 1).await;
    plane.until_asked(CONFIG, 1).await;
    lines
        .until("Configuration changed: auto_switch_enabled=true", 1)
        .await;
    lines.until("Heartbeat sent successfully", 1).await;
    world.pass(Duration::from_secs(1)).await;
    let expected = json!({
        "agent_id": "agent-1", "logical_agent_id": "agent-host-1", "instance_id": "i-1",
        "current_mode": "spot", "server_url": "http://control.example:8080",
        "last_heartbeat": "2023-11-14T22:13:20", "last_pricing_report": null,
        "replica_mode": "none", "auto_switch_enabled": true, "manual_replica_enabled": false,
    });
    assert_eq!(state_file(&world), expected);
    plane.state().config = json!({"auto_switch_enabled": false, "manual_replica_enabled": true});
    let polls = plane.until_asked(CONFIG, 2).await;
    assert_eq!((polls[1].at - polls[0].at).as_secs(), 60);
    lines
        .until(
            "Configuration changed: auto_switch_enabled=false, manual_replica_enabled=true",
            1,
        )
        .await;
    world.pass(Duration::from_secs(1)).await;
    let now = state_file(&world);
    assert_eq!(now["auto_switch_enabled"], false);
    assert_eq!(now["manual_replica_enabled"], true);
    world.pass(Duration::from_secs(300)).await;
    assert_eq!(
        lines.count("Configuration changed"),
        2,
        "what stays is no news"
    );
    agent.stop().await;
    let left = std::fs::read_dir(world.dir.path().join("spot/data")).unwrap();
    assert_eq!(left.count(), 1, "nothing half-written is left");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_no_state_stops_nothing_and_the_id_is_kept() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    let root = world.dir.path().join("spot");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("data"), "in the way").unwrap();
    let agent = start(&world, &lines, spot(&world)).await;
    lines.until("Cannot write the agent's state: ", 2).await;
    plane.until_asked(BEAT, 3).await;
    assert_eq!(
        std::fs::read_to_string(id_file(&world)).unwrap(),
        "agent-1\n"
    );
    std::fs::remove_file(root.join("data")).unwrap();
    plane.until_asked(BEAT, 5).await;
    assert_eq!(state_file(&world)["agent_id"], "agent-1");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_file_that_is_no_state_is_set_aside() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    let data = world.dir.path().join("spot/data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("agent_state.json"), "{\"agent_id\": ").unwrap();
    let agent = start(&world, &lines, spot(&world)).await;
    plane.until_asked(BEAT, 2).await;
    assert_eq!(state_file(&world)["agent_id"], "agent-1");
    assert!(data.join("agent_state.json.corrupt").exists());
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_or_says_no_is_tried_again() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    world.network.set(Weather::Cut);
    let agent = start(&world, &lines, spot(&world)).await;
    lines
        .until(
            "Failed to register agent: cannot connect to control.example:8080",
            3,
        )
        .await;
    plane
        .state()
        .faults
        .insert("register", Answer::Json(200, json!({"agent_id": null})));
    world.network.set(Weather::Fair);
    let told = lines
        .until("Failed to register agent: the answer is not understood", 1)
        .await;
    assert!(told.text.contains(r#"{"agent_id":null}"#), "{}", told.text);
    assert!(!id_file(&world).exists());
    plane.state().faults.clear();
    lines.until("Heartbeat sent successfully", 1).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_server_gets_the_token_in_the_body_too() {
    let (world, lines) = (World::new(), Lines::new());
    let state = State {
        is_old: true,
        ..State::default()
    };
    let plane = Plane::start(&world, state, rule);
    let _agent = start(&world, &lines, spot(&world)).await;
    lines.until("Agent registered with ID: agent-1", 1).await;
    let asked = plane.asked(REGISTER);
    assert!(asked[0].body.get("client_token").is_none());
    assert_eq!(asked[1].body["client_token"], "token-1");
    assert_eq!(lines.count("Failed to register"), 0);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_that_fail_are_told_and_go_on() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    let agent = start(&world, &lines, spot(&world)).await;
    lines.until("Heartbeat sent successfully", 1).await;
    for (fault, part) in [
        (
            Answer::Json(500, json!({"error": "oops"})),
            "the answer was 500 Internal Server Error: oops",
        ),
        (Answer::Silence, "no answer within 10 s"),
        (Answer::HangUp, "connection closed"),
    ] {
        plane.state().faults.insert("heartbeat", fault);
        let before = lines.count("Heartbeat failed: ");
        let told = lines.until("Heartbeat failed: ", before + 1).await;
        assert!(told.text.contains(part), "{}", told.text);
    }
    agent
        .until(|status| matches!(status, AgentStatus::Connecting { problem: Some(_) }))
        .await;
    plane.state().faults.clear();
    let sent = lines.count("Heartbeat sent successfully");
    lines.until("Heartbeat sent successfully", sent + 1).await;
    agent
        .until(|status| matches!(status, AgentStatus::Registered { .. }))
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_deleted_goes_on_and_does_not_come_back_to_life() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    let agent = start(&world, &lines, spot(&world)).await;
    lines.until("Heartbeat sent successfully", 1).await;
    plane.state().agents.clear();
    lines
        .until(
            "Heartbeat failed: the answer was 404 Not Found: Agent not found",
            5,
        )
        .await;
    assert_eq!(lines.count("The server does not know agent agent-1"), 1);
    assert_eq!(plane.asked(REGISTER).len(), 1);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn commands_are_answered_in_the_contracts_words() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    plane.state().commands = vec![
        json!({"id": "c1", "target_mode": "spot", "target_pool_id": "t3.medium.b", "priority": 75}),
        json!({"id": "c2", "target_mode": "ondemand", "target_pool_id": null}),
        json!({"id": "c3", "target_mode": "terminate"}),
        json!({"id": "c4", "target_mode": "terminate", "terminate_wait_seconds": 0}),
        json!({"id": "c5", "target_mode": "dance"}),
        json!({"id": "c6"}),
    ];
    let _agent = start(&world, &lines, spot(&world)).await;
    plane
        .until_asked("POST /api/agents/agent-1/commands/c6/executed", 1)
        .await;
    let polls = plane.until_asked(COMMANDS, 3).await;
    assert_eq!((polls[2].at - polls[1].at).as_secs(), 15);
    let engine = "needs the spot engine, which this version of the agent does not have";
    let answers = [
        (
            "c1",
            false,
            format!("Command failed: switching to pool t3.medium.b {engine}"),
        ),
        (
            "c2",
            false,
            format!("Command failed: switching to on-demand {engine}"),
        ),
        (
            "c3",
            false,
            format!("Command failed: ending the instance after 300 s {engine}"),
        ),
        (
            "c4",
            true,
            "Command executed successfully: the instance is kept".to_owned(),
        ),
        (
            "c5",
            false,
            "Command failed: Unknown command type: dance".to_owned(),
        ),
        (
            "c6",
            false,
            "Command failed: Unknown command type: unknown".to_owned(),
        ),
    ];
    let executed = plane.state().executed.clone();
    let expected = answers.map(|(id, success, message)| {
        (
            id.to_owned(),
            json!({"success": success, "message": message}),
        )
    });
    assert_eq!(executed, expected);
    assert_eq!(lines.count("Executing command c1: spot"), 1);
    assert_eq!(lines.count("Executing command c6: unknown"), 1);
    assert_eq!(
        lines.count("Command execution failed: Unknown command type: dance"),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn polls_that_fail_are_told_and_a_command_is_answered_once_it_can_be() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    plane.state().faults.insert(
        "pending-commands",
        Answer::Json(503, json!({"error": "busy"})),
    );
    plane.state().commands = vec![json!({"id": "c1", "target_mode": "ondemand"})];
    let _agent = start(&world, &lines, spot(&world)).await;
    let told = lines.until("Command polling failed: ", 2).await;
    assert!(
        told.text.ends_with("503 Service Unavailable: busy"),
        "{}",
        told.text
    );
    plane.state().faults.clear();
    plane.state().faults.insert("executed", Answer::HangUp);
    lines.until("Command polling failed: ", 4).await;
    plane.state().faults.clear();
    plane.until_asked(COMMANDS, 8).await;
    assert_eq!(plane.state().executed.len(), 1);
    assert_eq!(lines.count("Executing command c1"), 1, "it is done once");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_server_does_not_take_holds_up_no_other() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    let refused = Answer::Json(500, json!({"error": "oops"}));
    plane.state().faults.insert("c1/executed", refused);
    let item = |id: &str| json!({"id": id, "target_mode": "ondemand"});
    plane.state().commands = vec![item("c1"), item("c2")];
    let _agent = start(&world, &lines, spot(&world)).await;
    let told = lines.until("Command polling failed: ", 3).await;
    assert!(told.text.ends_with("oops"), "{}", told.text);
    let ids = |plane: &Plane<State>| {
        let executed = plane.state().executed.clone();
        executed.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&plane), ["c2"]);
    plane.state().faults.clear();
    plane.until_asked(COMMANDS, 6).await;
    assert_eq!(ids(&plane), ["c2", "c1"]);
    assert_eq!(lines.count("Executing command c1"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_word_is_offline_and_nothing_follows_it() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    let agent = start(&world, &lines, spot(&world)).await;
    lines.until("Heartbeat sent successfully", 1).await;
    agent.stop().await;
    let last = plane.asked("").pop().unwrap();
    assert_eq!(
        (last.line.as_str(), &last.body),
        (BEAT, &json!({"status": "offline"}))
    );
    assert_eq!(last.headers["authorization"], "Bearer token-1");
    assert!(!plane.state().agents["agent-1"]);
    assert_eq!(lines.texts().last().unwrap(), "Agent shutdown initiated");
    let asked = plane.asked("").len();
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(plane.asked("").len(), asked);
}

#[tokio::test(start_paused = true)]
async fn an_end_is_not_held_up_by_what_fails_in_it() {
    for (fault, part) in [
        (Answer::Silence, "no answer within 5 s"),
        (Answer::HangUp, "connection closed"),
        (Answer::Json(500, json!({"error": "oops"})), "oops"),
    ] {
        let (world, lines) = (World::new(), Lines::new());
        let plane = Plane::start(&world, State::default(), rule);
        let agent = start(&world, &lines, spot(&world)).await;
        lines.until("Heartbeat sent successfully", 1).await;
        plane.state().faults.insert("heartbeat", fault);
        let begun = tokio::time::Instant::now();
        agent.stop().await;
        assert!(
            begun.elapsed() <= Duration::from_secs(6),
            "in simulated time"
        );
        let told = lines.until("Error during shutdown: ", 1).await;
        assert!(told.text.contains(part), "{}", told.text);
        assert_eq!(lines.texts().last().unwrap(), "Agent shutdown initiated");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_without_id_ends_without_a_last_word() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    plane.state().faults.insert("register", Answer::Silence);
    let agent = start(&world, &lines, spot(&world)).await;
    plane.until_asked(REGISTER, 1).await;
    agent.stop().await;
    assert_eq!(plane.asked("").len(), 1);
    assert_eq!(lines.texts().last().unwrap(), "Agent shutdown initiated");
}

#[tokio::test(start_paused = true)]
async fn shutdown_says_offline_for_an_agent_that_does_not_run() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    plane.state().agents.insert("agent-1".to_owned(), true);
    let spot = spot(&world);
    let ask = |spot: Spot| {
        let dial = Arc::clone(&world.network) as Arc<dyn Dial>;
        let journal = Arc::clone(&lines) as Arc<dyn Journal>;
        async move { shutdown(("http://control.example:8080", None), &spot, dial, journal).await }
    };
    ask(spot.clone()).await.unwrap();
    assert_eq!(plane.asked("").len(), 0, "it was never registered");
    std::fs::create_dir_all(&spot.root).unwrap();
    std::fs::write(id_file(&world), "agent-1\n").unwrap();
    ask(spot.clone()).await.unwrap();
    assert_eq!(plane.asked(BEAT)[0].body, json!({"status": "offline"}));
    assert!(!plane.state().agents["agent-1"]);
    world.network.set(Weather::Cut);
    ask(spot).await.unwrap();
    assert_eq!(lines.count("Error during shutdown: cannot connect"), 1);
    assert_eq!(lines.count("Agent shutdown initiated"), 3);
}

#[tokio::test(start_paused = true)]
async fn prices_are_reported_where_there_is_a_source_of_them() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    let file = world.dir.path().join("prices.json");
    let with_prices = Spot {
        prices: Some(Arc::new(FilePrices(file.clone()))),
        ..spot(&world)
    };
    let agent = start(&world, &lines, with_prices).await;
    let told = lines.until("Pricing collection failed: ", 1).await;
    assert!(told.text.contains("prices.json"), "{}", told.text);
    write_prices(&file, 0.02);
    let reported = plane.until_asked(PRICES, 1).await;
    let expected = json!({
        "instance": {
            "instance_id": "i-1", "instance_type": "t3.medium", "region": "ap-south-1",
            "az": "ap-south-1a", "mode": "spot", "pool_id": "t3.medium.ap-south-1a",
        },
        "pricing": {
            "on_demand_price": 0.0416, "current_spot_price": 0.02,
            "cheapest_pool": {"pool_id": "t3.medium.ap-south-1a", "price": 0.02},
            "spot_pools": [{
                "pool_id": "t3.medium.ap-south-1a", "instance_type": "t3.medium",
                "az": "ap-south-1a", "price": 0.02,
            }],
            "collected_at": reported[0].body["pricing"]["collected_at"],
        },
    });
    assert_eq!(reported[0].body, expected);
    let collected = reported[0].body["pricing"]["collected_at"]
        .as_str()
        .unwrap();
    assert!(collected.ends_with("+00:00"), "{collected}");
    let again = plane.until_asked(PRICES, 2).await;
    assert_eq!((again[1].at - again[0].at).as_secs(), 300);
    lines.until("Pricing report sent", 2).await;
    world.pass(Duration::from_secs(1)).await;
    let stamp = state_file(&world)["last_pricing_report"].clone();
    assert!(
        stamp.as_str().is_some_and(|stamp| stamp.len() == 19),
        "{stamp}"
    );
    agent.stop().await;
    let reports = plane.asked(PRICES).len();
    world.pass(Duration::from_secs(900)).await;
    assert_eq!(
        plane.asked(PRICES).len(),
        reports,
        "collecting stops with the agent"
    );
    let without = start(&world, &lines, spot(&world)).await;
    world.pass(Duration::from_secs(900)).await;
    assert_eq!(plane.asked(PRICES).len(), reports);
    assert_eq!(
        state_file(&world)["last_pricing_report"],
        stamp,
        "it is remembered"
    );
    without.stop().await;
}

fn write_prices(path: &Path, price: f64) {
    let pool = json!({
        "pool_id": "t3.medium.ap-south-1a", "instance_type": "t3.medium", "az": "ap-south-1a",
        "price": price,
    });
    let table = json!({"on_demand_price": 0.0416, "spot_pools": [pool]});
    std::fs::write(path, table.to_string()).unwrap();
}

/// A copy that comes closer with each round, and fails in between.
#[derive(Debug, Default)]
struct Rounds {
    round: AtomicUsize,
    fails: Mutex<Vec<usize>>,
}

#[async_trait]
impl Source for Rounds {
    async fn sync(&self) -> Result<Progress, String> {
        let round = self.round.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(40)).await;
        if self.fails.lock().unwrap().contains(&round) {
            return Err("the primary does not answer".to_owned());
        }
        let percent = if round == 0 { 30.0 } else { 100.0 };
        Ok(Progress { percent })
    }
}

#[tokio::test(start_paused = true)]
async fn a_manual_replica_reports_every_second_and_five_seconds_after_an_error() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    let source = Rounds::default();
    source.fails.lock().unwrap().push(2);
    let replica = Replica {
        id: "r1".to_owned(),
        source: Arc::new(source),
    };
    let as_replica = Spot {
        replica: Some(replica),
        ..spot(&world)
    };
    let agent = start(&world, &lines, as_replica).await;
    let reports = plane.until_asked(SYNC, 3).await;
    let report = |status: &str, progress: f64| json!({"sync_status": status, "sync_latency_ms": 40, "state_transfer_progress": progress});
    assert_eq!(reports[0].body, report("syncing", 30.0));
    assert_eq!(reports[1].body, report("synced", 100.0));
    assert_eq!((reports[1].at - reports[0].at).as_secs(), 1);
    assert_eq!(
        (reports[2].at - reports[1].at).as_secs(),
        6,
        "one second, and five after the error"
    );
    assert_eq!(
        lines.count("Replica sync error: the primary does not answer"),
        1
    );
    plane
        .state()
        .faults
        .insert("sync-status", Answer::Json(500, json!({"error": "oops"})));
    lines
        .until("Replica sync error: the answer was 500", 1)
        .await;
    assert_eq!(state_file(&world)["replica_mode"], "manual");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_a_transfer_says_that_nothing_was_copied() {
    let (world, lines) = (World::new(), Lines::new());
    let plane = Plane::start(&world, State::default(), rule);
    let replica = Replica {
        id: "r1".to_owned(),
        source: Arc::new(NoTransfer),
    };
    let as_replica = Spot {
        replica: Some(replica),
        ..spot(&world)
    };
    let _agent = start(&world, &lines, as_replica).await;
    let reports = plane.until_asked(SYNC, 4).await;
    assert_eq!(reports[3].body["sync_status"], "syncing");
    assert_eq!(reports[3].body["state_transfer_progress"], 0.0);
}
