//! The program called `spot-agent`.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::foreign::{Asked, Plane, called, get, in_order};
use crate::program::{Ended, Running, eventually, hostler, signal};

const BEAT: &str = "POST /api/agents/a-1/heartbeat";

fn rule(asked: &Asked) -> (u16, Value) {
    if asked.headers.get("authorization").map(String::as_str) != Some("Bearer token-1") {
        return (401, json!({"error": "Missing client token"}));
    }
    match asked.line.as_str() {
        "POST /api/agents/register" => (200, json!({"agent_id": "a-1"})),
        "GET /api/agents/a-1/pending-commands" => (
            200,
            json!([{"id": "c-1", "target_mode": "ondemand", "created_at": "2025-01-01T00:00:00"}]),
        ),
        "GET /api/agents/a-1/config" => (200, json!({"auto_switch_enabled": false})),
        _ => (200, json!({"success": true})),
    }
}

fn last(plane: &Plane) -> Asked {
    plane.asked("").pop().unwrap()
}

/// A root as the installer makes it.
fn root(server: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("config")).unwrap();
    let conf = format!(
        "SERVER_URL={server}\nCLIENT_TOKEN=token-1\nLOGICAL_AGENT_ID=agent-host-1\nINSTANCE_ID=i-1\n\
         INSTANCE_TYPE=t3.medium\nREGION=ap-south-1\nAZ=ap-south-1a\nAMI_ID=ami-1\nCURRENT_MODE=spot\n\
         AGENT_VERSION=2.0.0\n"
    );
    std::fs::write(root.path().join("config/agent.conf"), conf).unwrap();
    root
}

fn agent(root: &Path, command: &str) -> Command {
    let mut agent = called("spot-agent", root);
    agent.arg(command).arg("--root").arg(root);
    agent
        .env("HEARTBEAT_INTERVAL", "1")
        .env("COMMANDS_INTERVAL", "1");
    agent
}

fn state(root: &Path) -> Value {
    let text = std::fs::read(root.join("data/agent_state.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

#[test]
fn it_registers_beats_answers_and_says_offline_at_its_end() {
    for (zone, number, word) in [
        ("UTC", Signal::TERM, "Received signal 15"),
        ("America/New_York", Signal::INT, "Received signal 2"),
        ("Asia/Kolkata", Signal::TERM, "Received signal 15"),
    ] {
        let plane = Plane::start(rule);
        let root = root(&plane.url());
        let mut agent = Running::start(agent(root.path(), "start").env("TZ", zone));
        plane.until_asked(BEAT, 2);
        plane.until_asked("POST /api/agents/a-1/commands/c-1/executed", 1);
        assert_eq!(
            std::fs::read_to_string(root.path().join("agent_id.txt")).unwrap(),
            "a-1\n"
        );
        eventually("the state is written", || {
            state(root.path())["last_heartbeat"].is_string()
        });
        eventually("the settings are written", || {
            state(root.path())["auto_switch_enabled"] == false
        });
        let shown = state(root.path());
        let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 10, "{shown}");
        assert_eq!(
            (&shown["agent_id"], &shown["server_url"]),
            (&json!("a-1"), &json!(plane.url()))
        );
        let beaten = format!("{}Z", shown["last_heartbeat"].as_str().unwrap());
        let now = now_by_date();
        let beaten: i64 = seconds(&beaten);
        assert!((now - beaten).abs() < 3600 / 2, "UTC in {zone}: {shown}");
        signal(agent.pid(), number);
        assert_eq!(agent.code(), Some(0));
        let last = last(&plane);
        assert_eq!(
            (last.line.as_str(), last.body),
            (BEAT, json!({"status": "offline"}))
        );
        let told = [
            "INFO - Registering agent with server...",
            "INFO - Agent registered with ID: a-1",
            "INFO - Executing command c-1: ondemand",
            "ERROR - Command execution failed: switching to on-demand needs the spot engine",
            word,
            "INFO - Agent shutdown initiated",
        ];
        in_order(&agent.data(), &told);
        assert!(
            agent
                .data()
                .last()
                .unwrap()
                .ends_with("Agent shutdown initiated")
        );
    }
}

/// Seconds since 1970, by the machine's own tool.
fn now_by_date() -> i64 {
    date(&["-u", "+%s"])
}

fn seconds(moment: &str) -> i64 {
    date(&["-u", "-d", moment, "+%s"])
}

fn date(words: &[&str]) -> i64 {
    let said = Command::new("date").args(words).output().unwrap();
    String::from_utf8_lossy(&said.stdout)
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn an_agent_that_was_registered_keeps_its_id() {
    let plane = Plane::start(rule);
    let root = root(&plane.url());
    for beats in [1, 3] {
        let mut agent = Running::start(&mut agent(root.path(), "start"));
        plane.until_asked(BEAT, beats);
        assert_eq!(agent.terminate(), Some(0));
    }
    assert_eq!(plane.asked("POST /api/agents/register").len(), 1);
}

#[test]
fn shutdown_ends_the_running_agent_and_has_the_last_word() {
    let plane = Plane::start(rule);
    let root = root(&plane.url());
    let mut running = Running::start(&mut agent(root.path(), "start"));
    plane.until_asked(BEAT, 1);
    let ended = Ended::from(agent(root.path(), "shutdown").output().unwrap()).with_code(0);
    assert!(
        ended.stdout.contains("INFO - Agent shutdown initiated"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains("Error"), "{}", ended.stdout);
    assert_eq!(running.code(), Some(0));
    assert_eq!(last(&plane).body, json!({"status": "offline"}));
    assert_eq!(
        plane
            .asked(BEAT)
            .iter()
            .filter(|beat| beat.body["status"] == "offline")
            .count(),
        2
    );
    let again = Ended::from(agent(root.path(), "shutdown").output().unwrap()).with_code(0);
    assert!(
        again.stdout.contains("Agent shutdown initiated"),
        "{}",
        again.stdout
    );
}

#[test]
fn shutdown_ends_with_0_whatever_fails_in_it() {
    let root = root("http://127.0.0.1:9");
    std::fs::write(root.path().join("agent_id.txt"), "a-1\n").unwrap();
    let ended = Ended::from(agent(root.path(), "shutdown").output().unwrap()).with_code(0);
    in_order(
        &ended.stdout.lines().map(str::to_owned).collect::<Vec<_>>(),
        &[
            "ERROR - Error during shutdown: cannot connect",
            "INFO - Agent shutdown initiated",
        ],
    );
    std::fs::write(root.path().join("config/agent.conf"), "nonsense\n").unwrap();
    let ended = Ended::from(agent(root.path(), "shutdown").output().unwrap()).with_code(0);
    assert!(
        ended
            .stdout
            .contains("agent.conf:1: this line is no KEY=VALUE"),
        "{}",
        ended.stdout
    );
}

#[test]
fn shutdown_ends_no_process_that_is_not_this_program() {
    let root = root("http://127.0.0.1:9");
    let dir = root.path().join("data/agent");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("lock"), std::process::id().to_string()).unwrap();
    let lock = std::fs::File::open(dir.join("lock")).unwrap();
    let alone = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&lock, alone).unwrap();
    let ended = Ended::from(agent(root.path(), "shutdown").output().unwrap()).with_code(0);
    let part = format!(
        "process {} is no agent that can be ended",
        std::process::id()
    );
    assert!(ended.stdout.contains(&part), "{}", ended.stdout);
}

#[test]
fn variables_may_say_it_all_and_count_more_than_the_file() {
    let plane = Plane::start(rule);
    let root = root("http://127.0.0.1:9");
    let mut command = agent(root.path(), "start");
    command
        .env("SERVER_URL", plane.url())
        .env("CURRENT_MODE", "ondemand");
    let mut agent = Running::start(&mut command);
    let beats = plane.until_asked(BEAT, 1);
    assert_eq!(beats[0].body["mode"], "ondemand");
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn prices_and_a_copy_are_reported_where_the_file_asks_for_them() {
    let plane = Plane::start(rule);
    let root = root(&plane.url());
    let prices = root.path().join("prices.json");
    std::fs::write(&prices, r#"{"on_demand_price": 0.5}"#).unwrap();
    let conf = root.path().join("config/agent.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(
        &conf,
        format!("{text}PRICES_FILE={}\nREPLICA_ID=r-1\n", prices.display()),
    )
    .unwrap();
    let mut agent = Running::start(&mut agent(root.path(), "start"));
    let report = plane.until_asked("POST /api/agents/a-1/pricing-report", 1);
    assert_eq!(report[0].body["pricing"]["on_demand_price"], 0.5);
    let synced = plane.until_asked("POST /api/agents/a-1/replicas/r-1/sync-status", 2);
    assert_eq!(synced[0].body["state_transfer_progress"], 0.0);
    eventually("the report is stamped", || {
        state(root.path())["last_pricing_report"].is_string()
    });
    assert_eq!(state(root.path())["replica_mode"], "manual");
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn the_dialect_of_our_own_agent_leads_to_the_same_and_tells_no_token() {
    let plane = Plane::start(rule);
    let root = root(&plane.url());
    let mut command = hostler(root.path());
    command.args(["agent", "--dialect", "spot", "--listen", "127.0.0.1:0"]);
    command.args([
        "--docker-socket",
        "/nonexistent/docker.sock",
        "--log-level",
        "trace",
    ]);
    command.arg("--data-dir").arg(root.path());
    let mut agent = Running::start(command.env("HOSTLER_LOG_LEVEL", "trace"));
    let line = agent.line("listening on http://");
    let host = line.rsplit("http://").next().unwrap().to_owned();
    eventually("it is ready", || {
        get(&host, "/readyz").contains("registered as a-1")
    });
    agent.line("DEBUG - Heartbeat sent successfully");
    assert_eq!(agent.terminate(), Some(0));
    assert_eq!(last(&plane).body, json!({"status": "offline"}));
    assert!(root.path().join("agent_id.txt").exists());
    assert!(!agent.said().contains("token-1"), "the token is a secret");
}

#[test]
fn what_makes_no_sense_ends_with_2() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().to_str().unwrap();
    for (words, part) in [
        (&["-root", root][..], "no command was given"),
        (&["restart", "-root", root], "there is no command `restart`"),
        (&["start", "now", "-root", root], "one word too many"),
        (&["start", "-root", root], "CLIENT_TOKEN is required"),
        (
            &["start", "-config", "/nonexistent/agent.conf"],
            "cannot read /nonexistent/agent.conf",
        ),
    ] {
        let ended: Ended = called("spot-agent", home.path())
            .args(words)
            .output()
            .unwrap()
            .into();
        let ended = ended.with_code(2);
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains(part),
            "{}",
            ended.stderr
        );
    }
}
