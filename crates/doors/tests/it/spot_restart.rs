//! A control plane that ends and comes back: what agents and clients were told still holds.

use std::sync::Arc;

use hostler_control::{Control, ControlConfig, Parts};
use hostler_doors::{Dialect, Listener, Parts as Doors, serve};
use hostler_kit::{Clock, Entropy, SystemClock, SystemEntropy, Tasks};
use hostler_store::{MemoryStore, Store};
use serde_json::{Value, json};

use crate::server::DEADLINE;

struct Plane {
    tasks: Tasks,
    url: String,
    client: reqwest::Client,
}

impl Plane {
    /// A control plane over the store, with the contract on a listener of its own.
    async fn start(clock: &Arc<dyn Clock>, store: &Arc<dyn Store>) -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let tasks = Tasks::new();
        let parts = Parts {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            entropy: Arc::clone(&entropy),
            tasks: tasks.clone(),
        };
        let control = Control::start(ControlConfig::default(), parts)
            .await
            .expect("it starts");
        let bound = Listener::plain(([127, 0, 0, 1], 0).into())
            .bind()
            .await
            .expect("a port");
        let url = format!("http://{}", bound.addr());
        let router = Doors::new(&control, &entropy).router(Dialect::Spot);
        tasks.spawn("listener", serve(bound, router, tasks.clone()));
        let client = crate::server::http().no_proxy().build().expect("a client");
        Self { tasks, url, client }
    }

    async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        (token, body): (&str, Value),
    ) -> (u16, Value) {
        let request = self
            .client
            .request(method, format!("{}{path}", self.url))
            .timeout(DEADLINE);
        let answer = request
            .bearer_auth(token)
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("text");
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> Value {
        let (status, answer) = self.ask(reqwest::Method::POST, path, (token, body)).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    async fn get(&self, path: &str, token: &str) -> Value {
        let (status, answer) = self
            .ask(reqwest::Method::GET, path, (token, json!({})))
            .await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn stop(self) {
        self.tasks
            .shut_down(DEADLINE)
            .await
            .expect("every task ends");
    }
}

#[tokio::test]
async fn accounts_settings_orders_and_history_outlive_the_server() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&clock)));
    let plane = Plane::start(&clock, &store).await;
    let created = plane
        .post("/api/admin/clients/create", "", json!({"name": "acme"}))
        .await;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let (client, token) = (
        text(&created["client"]["id"]),
        text(&created["client"]["token"]),
    );
    let body = crate::spot::registration("agent-a-1", "i-1");
    let agent = text(
        &plane
            .post("/api/agents/register", &token, body.clone())
            .await["agent_id"],
    );
    plane
        .post(
            &format!("/api/client/agents/{agent}/config"),
            "",
            json!({"terminateWaitMinutes": 7}),
        )
        .await;
    plane
        .post(
            &format!("/api/agents/{agent}/pricing-report"),
            &token,
            crate::spot::prices(&[("ap-south-1b", 0.01)]),
        )
        .await;
    let order = json!({"target_mode": "ondemand", "request_id": "once"});
    let order_path = format!("/api/agents/{agent}/issue-switch-command");
    let command = plane.post(&order_path, &token, order.clone()).await["command_id"].clone();
    plane.post(&format!("/api/agents/{agent}/switch-report"), &token, json!({
        "old_instance": {"instance_id": "i-1", "mode": "spot"}, "new_instance": {"instance_id": "i-2", "mode": "ondemand"},
        "prices": {"on_demand": 0.1, "old_spot": 0.2}})).await;
    let history = plane
        .get(&format!("/api/client/{client}/switch-history"), "")
        .await;
    let overview = plane.get(&format!("/api/client/{client}"), "").await;
    plane.stop().await;

    let plane = Plane::start(&clock, &store).await;
    let config = plane
        .get(&format!("/api/agents/{agent}/config"), &token)
        .await;
    assert_eq!(config["terminate_wait_seconds"], 420);
    let waiting = plane
        .get(&format!("/api/agents/{agent}/pending-commands"), &token)
        .await;
    assert_eq!(waiting[0]["id"], command);
    assert_eq!(
        plane.post(&order_path, &token, order).await["command_id"],
        command,
        "the same request is the same order"
    );
    assert_eq!(
        plane
            .get(&format!("/api/client/{client}/switch-history"), "")
            .await,
        history
    );
    assert_eq!(
        plane.get(&format!("/api/client/{client}"), "").await["totalSavings"],
        overview["totalSavings"]
    );
    let other = json!({"target_mode": "ondemand"});
    assert_eq!(
        plane.post(&order_path, &token, other).await["success"],
        false,
        "it is there by now"
    );
    let pricing = plane.get("/api/client/instances/i-2/pricing", "").await;
    assert_eq!(pricing["pools"][0]["id"], "t3.medium.ap-south-1b");
    let again = plane
        .post(
            "/api/agents/register",
            &token,
            crate::spot::registration("agent-a-1", "i-2"),
        )
        .await;
    assert_eq!(again["agent_id"], agent.as_str());
    plane.stop().await;
}

#[tokio::test]
async fn its_own_listener_speaks_only_the_contract() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&clock)));
    let plane = Plane::start(&clock, &store).await;
    let health = plane.get("/health", "").await;
    assert_eq!(
        (&health["status"], &health["database"]),
        (&json!("healthy"), &json!("connected"))
    );
    assert_eq!(health["decision_engine_loaded"], false);
    assert!(health["timestamp"].is_string() && health["version"].is_string());
    for path in ["/api/v1/nodes", "/nothing"] {
        let (status, answer) = plane.ask(reqwest::Method::GET, path, ("", json!({}))).await;
        assert_eq!((status, answer["error"].is_string()), (404, true), "{path}");
    }
    let (status, answer) = plane
        .ask(
            reqwest::Method::PUT,
            "/api/agents/register",
            ("", json!({})),
        )
        .await;
    assert_eq!((status, answer["error"].is_string()), (405, true));
    plane.stop().await;
}
