//! What the tests of the spot manager's contract share: a client, its agents, and requests in their name.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Server};

/// A server with one client.
pub(crate) struct Spot {
    pub server: Server,
    pub client: String,
    pub token: String,
}

/// The eleven keys of the seed's installer.
pub(crate) fn registration(logical: &str, instance: &str) -> Value {
    json!({
        "logical_agent_id": logical,
        "instance_id": instance,
        "instance_type": "t3.medium",
        "region": "ap-south-1",
        "az": "ap-south-1a",
        "ami_id": "ami-0123",
        "mode": "spot",
        "hostname": "ip-10-0-0-1",
        "private_ip": "10.0.0.1",
        "public_ip": "",
        "agent_version": "2.0.0",
    })
}

/// Prices as an agent reports them.
pub(crate) fn prices(zones: &[(&str, f64)]) -> Value {
    let pool = |(zone, price): &(&str, f64)| json!({"pool_id": format!("t3.medium.{zone}"), "instance_type": "t3.medium", "az": zone, "price": price});
    json!({
        "instance": {"instance_id": "i-1", "instance_type": "t3.medium", "region": "ap-south-1",
            "az": "ap-south-1a", "mode": "spot", "pool_id": "t3.medium.ap-south-1a"},
        "pricing": {"on_demand_price": 0.0448, "current_spot_price": 0.0134,
            "cheapest_pool": null, "collected_at": "2025-01-01T00:00:00+00:00",
            "spot_pools": zones.iter().map(pool).collect::<Vec<_>>()},
    })
}

impl Spot {
    pub(crate) async fn start() -> Self {
        Self::of(Server::start().await).await
    }

    pub(crate) async fn of(server: Server) -> Self {
        let (client, token) = create(&server, "acme").await;
        Self {
            server,
            client,
            token,
        }
    }

    /// A request with the client's token.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str())];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.server.send(method, path, &headers, body).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &Value::Null).await
    }

    /// What a successful answer holds.
    #[track_caller]
    pub(crate) fn ok(answer: &Answer) -> Value {
        assert!(
            answer.status.is_success(),
            "{}: {}",
            answer.status,
            answer.text
        );
        answer.json()
    }

    pub(crate) async fn register(&self, logical: &str, instance: &str) -> String {
        let answer = self
            .post("/api/agents/register", &registration(logical, instance))
            .await;
        let registered = Self::ok(&answer);
        registered["agent_id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn agents(&self) -> Vec<Value> {
        self.list(&format!("/api/client/{}/agents", self.client))
            .await
    }

    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let answer = self.server.get(path).await;
        Self::ok(&answer).as_array().expect("a bare array").clone()
    }

    pub(crate) async fn configure(&self, agent: &str, settings: &Value) -> Answer {
        self.post(&format!("/api/client/agents/{agent}/config"), settings)
            .await
    }
}

/// A client of that name: its id and its token.
pub(crate) async fn create(server: &Server, name: &str) -> (String, String) {
    let body = json!({"name": name, "email": format!("{name}@example.com")}).to_string();
    let answer = server.post("/api/admin/clients/create", &body).await;
    let client = &Spot::ok(&answer)["client"];
    let text = |key: &str| client[key].as_str().expect("text").to_owned();
    (text("id"), text("token"))
}

/// Asserts the contract's error.
#[track_caller]
pub(crate) fn is_error(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    assert_eq!(answer.json()["error"], error, "{}", answer.text);
}
