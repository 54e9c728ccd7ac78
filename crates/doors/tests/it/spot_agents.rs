//! Agents of the spot manager: registration, beats, settings, orders, deletion.

use std::io;
use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::Server;
use crate::spot::{Spot, create, is_error, registration};

#[tokio::test]
async fn the_seeds_body_registers_and_so_do_its_variants() {
    let spot = Spot::start().await;
    let answer = spot
        .post("/api/agents/register", &registration("agent-a-1", "i-1"))
        .await;
    let registered = Spot::ok(&answer);
    assert_eq!(registered["client_id"], spot.client.as_str());
    let config = &registered["config"];
    for (key, value) in [
        ("enabled", json!(true)),
        ("auto_switch_enabled", json!(true)),
        ("auto_terminate_enabled", json!(true)),
        ("terminate_wait_seconds", json!(300)),
        ("replica_enabled", json!(false)),
        ("replica_count", json!(0)),
        ("min_savings_percent", json!(15.0)),
        ("risk_threshold", json!(0.3)),
        ("max_switches_per_week", json!(10)),
        ("min_pool_duration_hours", json!(2)),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    let mut other = registration("agent-a-2", "i-2");
    other["public_ip"] = Value::Null;
    other["something_new"] = json!({"deep": [1, 2]});
    other["client_token"] = "not read while there is a header".into();
    assert!(
        spot.post("/api/agents/register", &other)
            .await
            .status
            .is_success()
    );
    let mut bare = registration("agent-a-3", "i-3");
    bare["client_token"] = spot.token.as_str().into();
    for headers in [&[][..], &[("authorization", "Bearer ")][..]] {
        let answer = spot
            .server
            .send(
                Method::POST,
                "/api/agents/register",
                headers,
                bare.to_string(),
            )
            .await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }
    let least = json!({"logical_agent_id": "agent-a-4", "instance_id": "i-4", "region": "r",
        "az": "ra", "instance_type": "t"});
    spot.post("/api/agents/register", &least).await;
    let modes: Vec<_> = spot
        .agents()
        .await
        .iter()
        .map(|it| it["currentMode"].clone())
        .collect();
    assert_eq!(modes.iter().filter(|mode| *mode == "unknown").count(), 1);
    assert_eq!(modes.len(), 4);
    spot.server.shut_down().await;
}

#[tokio::test]
async fn what_does_not_fit_is_named_key_by_key_and_registers_nothing() {
    let spot = Spot::start().await;
    let mut body = registration("agent-a-1", "i-1");
    body["az"] = "".into();
    body["mode"] = "rented".into();
    body["instance_type"] = "x".repeat(65).into();
    body["hostname"] = json!([]);
    let answer = spot.post("/api/agents/register", &body).await;
    is_error(&answer, 400, "Validation failed");
    let details = answer.json()["details"]
        .as_object()
        .expect("findings")
        .clone();
    let keys: Vec<&str> = details.keys().map(String::as_str).collect();
    assert_eq!(keys, ["az", "hostname", "instance_type", "mode"]);
    assert!(details.values().all(|found| found[0].is_string()));
    assert!(spot.agents().await.is_empty());
    spot.server.shut_down().await;
}

#[tokio::test]
async fn tokens_open_what_is_ones_own_and_nothing_else() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let (_, stranger) = create(&spot.server, "other").await;
    let beat = format!("/api/agents/{id}/heartbeat");
    let as_token = |token: String| [("authorization".to_owned(), token)];
    for (token, status, error) in [
        (String::new(), 401, "Missing client token"),
        ("Bearer wrong".to_owned(), 401, "Invalid client token"),
        (format!("Bearer {stranger}"), 404, "Agent not found"),
    ] {
        let headers = as_token(token);
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let answer = spot.server.send(Method::POST, &beat, &headers, "{}").await;
        is_error(&answer, status, error);
    }
    let bearer = format!("Bearer {stranger}");
    let headers = [("authorization", bearer.as_str())];
    spot.post(
        &format!("/api/agents/{id}/issue-switch-command"),
        &json!({"target_mode": "ondemand"}),
    )
    .await;
    let commands = format!("/api/agents/{id}/pending-commands");
    let others = spot.server.send(Method::GET, &commands, &headers, "").await;
    assert_eq!(others.json(), json!([]), "nobody else's orders are told");
    let order = spot.get(&commands).await.json()[0]["id"]
        .as_str()
        .expect("an order")
        .to_owned();
    let executed = format!("/api/agents/{id}/commands/{order}/executed");
    let answer = spot
        .server
        .send(Method::POST, &executed, &headers, "{}")
        .await;
    assert_eq!(answer.json(), json!({"success": true}));
    assert_eq!(
        spot.list_own(&commands).await.len(),
        1,
        "a stranger's word has no effect"
    );
    let reported = spot
        .server
        .send(
            Method::POST,
            &format!("/api/agents/{id}/pricing-report"),
            &headers,
            "{}",
        )
        .await;
    is_error(&reported, 404, "Agent not found");
    spot.server.shut_down().await;
}

impl Spot {
    async fn list_own(&self, path: &str) -> Vec<Value> {
        Spot::ok(&self.get(path).await)
            .as_array()
            .expect("a list")
            .clone()
    }
}

#[tokio::test]
async fn a_client_that_is_suspended_is_refused_and_a_renewed_token_ends_the_old_one() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let renewed = spot
        .server
        .post(
            &format!("/api/admin/clients/{}/regenerate-token", spot.client),
            "",
        )
        .await;
    let token = Spot::ok(&renewed)["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    assert_eq!(token.len(), "token-".len() + 32);
    is_error(
        &spot.get(&format!("/api/agents/{id}/config")).await,
        401,
        "Invalid client token",
    );
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let valid = spot
        .server
        .send(Method::GET, "/api/client/validate", &headers, "")
        .await;
    assert_eq!(
        (valid.json()["valid"].clone(), valid.json()["name"].clone()),
        (json!(true), json!("acme"))
    );
    let account = spot.client.parse().expect("an id");
    let verb = hostler_control::fleet::AccountVerb::SetStatus {
        account,
        status: hostler_model::AccountStatus::Suspended,
    };
    let verb = hostler_control::fleet::Verb::Account(Box::new(verb));
    let actor = hostler_model::Actor::User("ada".to_owned());
    spot.server
        .control
        .submit(actor, verb)
        .await
        .expect("suspended");
    let refused = spot
        .server
        .send(Method::GET, "/api/client/validate", &headers, "")
        .await;
    is_error(&refused, 403, "Client account is not active");
    assert_eq!(refused.json()["valid"], false);
    spot.server.shut_down().await;
}

#[tokio::test]
async fn a_beat_tells_of_the_machine_and_commits_nothing_if_nothing_is_new() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let path = format!("/api/agents/{id}/heartbeat");
    let beat = json!({"status": "online", "instance_id": "i-1", "instance_type": "t3.medium",
        "mode": "spot", "az": "ap-south-1a", "monitored_instances": ["i-1"]});
    assert_eq!(
        spot.post(&path, &beat).await.json(),
        json!({"success": true})
    );
    let before = spot.server.control.store_revision();
    for body in [&beat, &json!({"status": "online"}), &Value::Null] {
        assert!(spot.post(&path, body).await.status.is_success());
    }
    assert_eq!(
        spot.server.control.store_revision(),
        before,
        "a beat is no commit"
    );
    let mut moved = beat.clone();
    moved["instance_id"] = "i-2".into();
    moved["mode"] = "ondemand".into();
    spot.post(&path, &moved).await;
    let row = spot.agents().await[0].clone();
    assert_eq!(
        (&row["id"], &row["instanceId"]),
        (&json!(id), &json!("i-2"))
    );
    assert_eq!(row["currentMode"], "ondemand");
    // The agent on the machine that was left changes nothing, not even by saying that it goes.
    let mut late = beat;
    late["status"] = "offline".into();
    assert!(spot.post(&path, &late).await.status.is_success());
    let row = spot.agents().await[0].clone();
    assert_eq!(
        (&row["instanceId"], &row["status"]),
        (&json!("i-2"), &json!("online"))
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn an_agent_that_says_goodbye_is_offline_and_stays_visible_until_it_beats() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let path = format!("/api/agents/{id}/heartbeat");
    spot.post(&path, &json!({"status": "offline"})).await;
    assert_eq!(spot.agents().await[0]["status"], "offline");
    let before = spot.server.control.store_revision();
    spot.post(&path, &json!({"status": "offline"})).await;
    assert_eq!(spot.server.control.store_revision(), before);
    // The judge comes by every 200 ms; the lease that is still good does not bring it back.
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    assert_eq!(spot.agents().await[0]["status"], "offline");
    spot.post(&path, &json!({"status": "switching"})).await;
    assert_eq!(spot.agents().await[0]["status"], "switching");
    spot.post(&path, &json!({"status": "online"})).await;
    assert_eq!(spot.agents().await[0]["status"], "online");
    let ended = spot
        .post(
            &format!("/api/agents/{id}/termination"),
            &json!({"reason": "spot"}),
        )
        .await;
    assert_eq!(ended.json(), json!({"success": true}));
    assert_eq!(spot.agents().await[0]["status"], "offline");
    spot.server.shut_down().await;
}

#[tokio::test]
async fn a_silent_agent_goes_offline_by_itself() {
    let mut config = hostler_control::ControlConfig::default();
    config.foreign.spot.beat = std::time::Duration::from_millis(50);
    config.foreign.spot.window = std::time::Duration::from_millis(400);
    config.foreign.spot.suspect_after = std::time::Duration::from_millis(300);
    config.foreign.spot.most = std::time::Duration::from_millis(800);
    let spot = Spot::of(Server::with(config).await).await;
    spot.register("agent-a-1", "i-1").await;
    let path = format!("/api/client/{}/agents", spot.client);
    spot.server
        .until(&path, |agents| agents[0]["status"] == "offline")
        .await;
    spot.server.shut_down().await;
}

#[tokio::test]
async fn the_same_word_keeps_the_id_and_a_new_word_gets_a_new_one() {
    let spot = Spot::start().await;
    let first = spot.register("agent-a-1", "i-1").await;
    assert_eq!(spot.register("agent-a-1", "i-2").await, first);
    assert_eq!(spot.agents().await[0]["instanceId"], "i-2");
    assert_ne!(spot.register("agent-a-2", "i-3").await, first);
    // Two machines from one image: the one that was left is told to rest.
    let answer = spot
        .post("/api/agents/register", &registration("agent-a-1", "i-1"))
        .await;
    let rest = Spot::ok(&answer);
    assert_eq!(rest["agent_id"], first.as_str());
    assert_eq!(
        (
            &rest["config"]["enabled"],
            &rest["config"]["auto_switch_enabled"]
        ),
        (&json!(false), &json!(false))
    );
    let rows = spot.agents().await;
    assert!(rows.iter().any(|row| row["instanceId"] == "i-2"));
    spot.server.shut_down().await;
}

#[tokio::test]
async fn deleted_stays_deleted() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    spot.post(
        &format!("/api/agents/{id}/issue-switch-command"),
        &json!({"target_mode": "ondemand"}),
    )
    .await;
    let deleted = spot
        .server
        .send(Method::DELETE, &format!("/api/client/agents/{id}"), &[], "")
        .await;
    assert_eq!(Spot::ok(&deleted)["agent_id"], id.as_str());
    assert!(spot.agents().await.is_empty());
    let before = spot.server.control.store_revision();
    let answer = spot
        .post("/api/agents/register", &registration("agent-a-1", "i-1"))
        .await;
    let again = Spot::ok(&answer);
    assert_eq!(
        (&again["agent_id"], &again["config"]["enabled"]),
        (&json!(id), &json!(false))
    );
    is_error(
        &spot
            .post(&format!("/api/agents/{id}/heartbeat"), &json!({}))
            .await,
        404,
        "Agent not found",
    );
    is_error(
        &spot.get(&format!("/api/agents/{id}")).await,
        404,
        "Agent not found",
    );
    is_error(
        &spot.get(&format!("/api/agents/{id}/config")).await,
        404,
        "Agent not found",
    );
    assert_eq!(
        spot.get(&format!("/api/agents/{id}/pending-commands"))
            .await
            .json(),
        json!([])
    );
    is_error(
        &spot
            .configure(&id, &json!({"autoSwitchEnabled": true}))
            .await,
        404,
        "Agent not found",
    );
    assert_eq!(
        spot.server.control.store_revision(),
        before,
        "nothing was changed"
    );
    let history = spot
        .list(&format!("/api/client/{}/agents/history", spot.client))
        .await;
    assert_eq!(
        (&history[0]["id"], &history[0]["status"]),
        (&json!(id), &json!("deleted"))
    );
    assert_eq!(history[0]["enabled"], false);
    assert!(history[0]["terminatedAt"].is_string());
    assert_ne!(spot.register("agent-a-9", "i-1").await, id);
    let twice = spot
        .server
        .send(Method::DELETE, &format!("/api/client/agents/{id}"), &[], "")
        .await;
    is_error(&twice, 404, "Agent not found");
    spot.server.shut_down().await;
}

#[tokio::test]
async fn a_beat_that_is_under_way_does_not_revive_an_agent_that_is_deleted_meanwhile() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let body = registration("agent-a-1", "i-2").to_string();
    let begun = |path: String| {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             content-length: {}\r\n\r\n{}",
            spot.token,
            body.len(),
            &body[..40]
        );
        let addr = spot.server.addr;
        async move {
            let mut stream = TcpStream::connect(addr).await.expect("it listens");
            stream
                .write_all(request.as_bytes())
                .await
                .expect("it reads");
            stream
        }
    };
    let beat = begun(format!("/api/agents/{id}/heartbeat")).await;
    let hello = begun("/api/agents/register".to_owned()).await;
    let path = format!("/api/client/agents/{id}");
    Spot::ok(&spot.server.send(Method::DELETE, &path, &[], "").await);
    let before = spot.server.control.store_revision();
    for (mut stream, status) in [(beat, "404"), (hello, "200")] {
        let rest = &body.as_bytes()[40..];
        stream.write_all(rest).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
    assert!(spot.agents().await.is_empty());
    assert_eq!(spot.server.control.store_revision(), before);
    spot.server.shut_down().await;
}

#[tokio::test]
async fn the_end_of_a_machine_that_was_left_is_not_the_agents() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    spot.register("agent-a-1", "i-2").await;
    let path = format!("/api/agents/{id}/termination");
    let ends = |machine: &str| json!({"reason": "spot", "instance_id": machine});
    Spot::ok(&spot.post(&path, &ends("i-1")).await);
    assert_eq!(spot.agents().await[0]["status"], "online");
    Spot::ok(&spot.post(&path, &ends("i-2")).await);
    assert_eq!(spot.agents().await[0]["status"], "offline");
    spot.server.shut_down().await;
}

#[tokio::test]
async fn orders_wait_in_line_until_they_are_executed_and_a_request_is_made_once() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let issue = format!("/api/agents/{id}/issue-switch-command");
    let there = json!({"target_mode": "spot", "target_pool_id": "t3.medium.ap-south-1a"});
    let already = spot.post(&issue, &there).await;
    assert_eq!(
        (already.status.as_u16(), &already.json()["success"]),
        (200, &json!(false))
    );
    assert_eq!(already.json()["current_mode"], "spot");
    let mut ids = Vec::new();
    for (priority, request) in [
        (json!(null), "a"),
        (json!(50), "b"),
        (json!(5), "c"),
        (json!(5), "c"),
    ] {
        let body = json!({"target_mode": "ondemand", "priority": priority, "request_id": request, "reason": "why"});
        let issued = spot.post(&issue, &body).await;
        assert_eq!(issued.status.as_u16(), 201, "{}", issued.text);
        ids.push(issued.json()["command_id"].clone());
    }
    assert_eq!(ids[2], ids[3], "the same request is the same order");
    let forced = spot
        .server
        .post(
            "/api/client/instances/i-1/force-switch",
            r#"{"target":"pool","pool_id":"t3.medium.ap-south-1b"}"#,
        )
        .await;
    ids.push(Spot::ok(&forced)["command_id"].clone());
    let commands = format!("/api/agents/{id}/pending-commands");
    for _ in 0..2 {
        let waiting = spot.list_own(&commands).await;
        let line: Vec<&Value> = waiting.iter().map(|command| &command["id"]).collect();
        assert_eq!(line, [&ids[4], &ids[1], &ids[0], &ids[2]]);
    }
    let first = spot.list_own(&commands).await[0].clone();
    assert_eq!(
        (&first["target_mode"], &first["target_pool_id"]),
        (&json!("spot"), &json!("t3.medium.ap-south-1b"))
    );
    assert_eq!(
        (&first["priority"], &first["instance_id"]),
        (&json!(75), &json!("i-1"))
    );
    assert_eq!(first["terminate_wait_seconds"], 300);
    assert!(
        !first["created_at"]
            .as_str()
            .expect("a moment")
            .ends_with('Z')
    );
    let executed = |command: &Value| {
        format!(
            "/api/agents/{id}/commands/{}/executed",
            command.as_str().unwrap_or("x")
        )
    };
    for body in [
        json!({"success": true, "message": "done"}),
        json!({"success": false, "message": "no"}),
    ] {
        assert_eq!(
            spot.post(&executed(&ids[4]), &body).await.json(),
            json!({"success": true})
        );
    }
    assert_eq!(
        spot.post(&executed(&json!("nobody")), &json!({}))
            .await
            .json(),
        json!({"success": true})
    );
    assert_eq!(spot.list_own(&commands).await.len(), 3);
    spot.post(
        &executed(&ids[1]),
        &json!({"success": false, "message": "Command failed: x"}),
    )
    .await;
    let figures = spot
        .get(&format!("/api/agents/{id}/statistics"))
        .await
        .json();
    assert_eq!(
        (&figures["successfulSwitches"], &figures["failedSwitches"]),
        (&json!(1), &json!(1))
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn an_order_that_may_not_be_given_is_refused_and_says_why() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let issue = format!("/api/agents/{id}/issue-switch-command");
    for body in [
        json!({}),
        json!({"target_mode": "x"}),
        json!({"target_mode": "spot"}),
        json!({"target_mode": "spot", "target_pool_id": "a/b"}),
    ] {
        assert_eq!(
            spot.post(&issue, &body).await.status.as_u16(),
            400,
            "{body}"
        );
    }
    let ondemand = json!({"target_mode": "ondemand"});
    spot.configure(&id, &json!({"autoSwitchEnabled": false}))
        .await;
    assert_eq!(spot.post(&issue, &ondemand).await.status.as_u16(), 403);
    spot.configure(
        &id,
        &json!({"autoSwitchEnabled": true, "autoTerminateEnabled": false}),
    )
    .await;
    spot.post(
        &format!("/api/client/agents/{id}/toggle-enabled"),
        &json!({"enabled": false}),
    )
    .await;
    is_error(
        &spot.post(&issue, &ondemand).await,
        400,
        "Agent is disabled",
    );
    spot.post(
        &format!("/api/client/agents/{id}/toggle-enabled"),
        &json!({"enabled": true}),
    )
    .await;
    assert_eq!(spot.post(&issue, &ondemand).await.status.as_u16(), 201);
    let order = spot
        .get(&format!("/api/agents/{id}/pending-commands"))
        .await
        .json()[0]
        .clone();
    assert_eq!(
        order["terminate_wait_seconds"], 0,
        "0 keeps the old machine"
    );
    is_error(
        &spot
            .post(
                "/api/client/instances/i-9/force-switch",
                &json!({"target": "ondemand"}),
            )
            .await,
        404,
        "Instance not found",
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn the_log_names_an_agent_before_it_is_answered() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    // The test's runtime has one thread, so the server's tasks log here as well.
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    // Of one alone, a thread that has none would decide for all whether a line is wanted.
    let _second = tracing::dispatcher::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let joined = text.lines().find(|line| line.contains("node joined"));
    let joined = joined.expect("a line");
    for word in [id.as_str(), "ip-10-0-0-1", "spot", "INFO"] {
        assert!(joined.contains(word), "{word} in {joined}");
    }
    assert!(!text.contains(&spot.token), "no token is logged");
    spot.server.shut_down().await;
}
