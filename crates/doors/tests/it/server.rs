//! A server for one test: control plane, doors and listener on a free port, and a client for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hostler_control::fake::{FakeMachine, FakeNode};
use hostler_control::fleet::LeaseRules;
use hostler_control::{Control, ControlConfig, Parts};
use hostler_doors::{Dialect, Listener, serve};
use hostler_kit::{Clock, Entropy, SystemClock, SystemEntropy, Tasks};
use hostler_store::MemoryStore;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// How long a condition may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub control: Control,
    pub addr: SocketAddr,
    pub tasks: Tasks,
    client: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(calm()).await
    }

    pub(crate) async fn with(config: ControlConfig) -> Self {
        Self::of(config, &store(), |parts| parts.router(Dialect::Hostler)).await
    }

    /// A server over that store, which may have been another's before, with doors as they are asked for.
    pub(crate) async fn of(
        config: ControlConfig,
        store: &Arc<MemoryStore>,
        doors: impl FnOnce(hostler_doors::Parts) -> axum::Router,
    ) -> Self {
        Self::under(Arc::new(SystemClock::new()), config, store, doors).await
    }

    /// The same, by that clock.
    pub(crate) async fn under(
        clock: Arc<dyn Clock>,
        config: ControlConfig,
        store: &Arc<MemoryStore>,
        doors: impl FnOnce(hostler_doors::Parts) -> axum::Router,
    ) -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let tasks = Tasks::new();
        let parts = Parts {
            store: Arc::<MemoryStore>::clone(store),
            clock,
            entropy: Arc::clone(&entropy),
            tasks: tasks.clone(),
        };
        let control = Control::start(config, parts)
            .await
            .expect("the control plane starts");
        let bound = Listener::plain(([127, 0, 0, 1], 0).into())
            .bind()
            .await
            .expect("a free port");
        let addr = bound.addr();
        let router = doors(hostler_doors::Parts::new(&control, &entropy));
        tasks.spawn("listener", serve(bound, router, tasks.clone()));
        let client = crate::server::http()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Self {
            control,
            addr,
            tasks,
            client,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, self.url(path))
            .timeout(DEADLINE)
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.request(method, path).body(body);
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).expect("a header name");
            request = request.header(name, HeaderValue::try_from(*value).expect("a header value"));
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("the body is text");
        Answer {
            status,
            headers,
            text,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(Method::POST, path, &[], body.to_owned()).await
    }

    /// Applies one process workload and answers its body.
    pub(crate) async fn apply(&self, name: &str, count: u32) -> Answer {
        self.post("/api/v1/workloads", &spec(name, count)).await
    }

    /// A fake node that joined and obeys.
    pub(crate) async fn node(&self, name: &str) -> FakeNode {
        FakeNode::join(&self.control, FakeMachine::named(name))
            .await
            .expect("the node joins")
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, path: &str, is_there: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let answer = self.get(path).await;
                if answer.status.is_success() && is_there(&answer.json()) {
                    return answer.json();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(DEADLINE, asking).await {
            Ok(there) => there,
            Err(_) => panic!(
                "{path} never was as expected: {}",
                self.get(path).await.text
            ),
        }
    }

    pub(crate) async fn shut_down(self) {
        let ended = self.tasks.shut_down(DEADLINE).await;
        assert_eq!(ended, Ok(()), "every task ends");
    }
}

/// A client in the making. Without a provider of cryptography none is made, also for plain http.
pub(crate) fn http() -> reqwest::ClientBuilder {
    // A second try leaves the first one's in place.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// As a server is by default, but with leases that outlast every test: nodes here beat only when their test says
/// so, and on a busy machine a test may last longer than they would be believed.
pub(crate) fn calm() -> ControlConfig {
    let window = DEADLINE * 10;
    ControlConfig {
        lease: LeaseRules {
            window,
            suspect_after: window / 2,
            most: window,
            ..LeaseRules::default()
        },
        ..ControlConfig::default()
    }
}

/// A store in memory.
pub(crate) fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock::new())))
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("plain text"))
    }

    /// Asserts that this is a problem document of that code and status, whole as each must be.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) -> Value {
        let json = self.json();
        assert_eq!(
            (self.status.as_u16(), &json["code"]),
            (status, &code.into()),
            "{}",
            self.text
        );
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(json["status"], status);
        assert_eq!(json["type"], format!("/docs/errors/{code}"));
        assert_eq!(json["request_id"], self.header("x-request-id"));
        assert!(
            !json["detail"].as_str().expect("a sentence").is_empty(),
            "{}",
            self.text
        );
        json
    }
}

pub(crate) fn spec(name: &str, count: u32) -> String {
    format!("name: {name}\ncount: {count}\nprocess: {{command: [sleep, inf]}}\n")
}
