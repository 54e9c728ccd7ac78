//! Pulls and what is made of them, with an engine that is a double, and from a registry that stalls.

use std::sync::Arc;
use std::time::Duration;

use hostler_kit::{SystemClock, Tasks};
use hostler_model::spec::{PullPolicy, WorkloadSpec};
use hostler_runtime::container::{ContainerConfig, ContainerRuntime, Registries};
use hostler_runtime::{Data, Found, FoundState, Runtime as _, RuntimeError, Unit, contract};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::engine::{FakeEngine, Pulling};
use crate::{quiet, until};

/// Soon over for a test, and long for a machine that talks to itself.
const SHORT: Duration = Duration::from_millis(2500);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

struct Yard {
    driver: Arc<ContainerRuntime>,
    _dir: tempfile::TempDir,
}

impl Yard {
    fn at(engine: &str, patience: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ContainerConfig {
            engine: engine.to_owned(),
            dir: dir.path().to_owned(),
            owner: dir.path().display().to_string(),
            registries: Registries::default(),
            clock: Arc::new(SystemClock::new()),
            tasks: Tasks::new(),
        };
        let driver = Arc::new(ContainerRuntime::with_pull_patience(config, patience));
        Self { driver, _dir: dir }
    }

    /// Prepares in the background.
    fn begin(&self, unit: &Unit) -> tokio::task::JoinSet<Result<(), RuntimeError>> {
        let (driver, unit) = (Arc::clone(&self.driver), unit.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { driver.prepare(&unit, &quiet).await });
        tasks
    }
}

fn unit(image: &str) -> Unit {
    let mut spec = WorkloadSpec::of_container("test", image, Vec::new());
    spec.container.as_mut().unwrap().pull = PullPolicy::Missing;
    contract::unit(spec)
}

#[tokio::test]
async fn a_pull_that_goes_silent_ends_as_an_image_that_is_not_to_be_had_and_can_be_tried_again() {
    let engine = FakeEngine::start().await;
    let yard = Yard::at(&engine.address, SHORT);
    let unit = unit("web:local");
    for pulling in [Pulling::Silent, Pulling::Stalls] {
        engine.set_pulling(pulling);
        let error = yard.driver.prepare(&unit, &quiet).await.unwrap_err();
        assert_eq!(error.code(), "image-unavailable", "{error}");
        assert!(error.to_string().contains("for 2.5 s"), "{error}");
        until("the engine is rid of it", async || {
            engine.state().pulls_under_way == 0
        })
        .await;
    }
    engine.set_pulling(Pulling::Works);
    yard.driver.prepare(&unit, &quiet).await.unwrap();
    let found = contract::find(&*yard.driver, unit.id).await;
    assert!(
        matches!(
            found,
            Some(Found {
                state: FoundState::Prepared,
                ..
            })
        ),
        "{found:?}"
    );
}

#[tokio::test]
async fn pulls_that_stall_hold_up_nobody_whose_image_is_here() {
    let engine = FakeEngine::start().await;
    engine.set_pulling(Pulling::Stalls);
    engine.state().images.push("here:local".to_owned());
    let yard = Yard::at(&engine.address, LONG);
    let slow: Vec<_> = (0..20)
        .map(|n| yard.begin(&unit(&format!("slow{n}:local"))))
        .collect();
    until("they take turns", async || {
        engine.state().pulls_under_way == 8
    })
    .await;
    yard.driver
        .prepare(&unit("here:local"), &quiet)
        .await
        .unwrap();
    assert_eq!(engine.state().containers.len(), 1);
    drop(slow);
}

#[tokio::test]
async fn a_dropped_preparation_ends_its_pull_and_the_unit_can_be_removed() {
    let engine = FakeEngine::start().await;
    engine.set_pulling(Pulling::Stalls);
    let yard = Yard::at(&engine.address, LONG);
    let unit = unit("web:local");
    let preparing = yard.begin(&unit);
    until("it pulls", async || engine.state().pulls_under_way == 1).await;
    drop(preparing);
    yard.driver.remove(unit.id, Data::Delete).await.unwrap();
    until("the engine is rid of it", async || {
        engine.state().pulls_under_way == 0
    })
    .await;
}

#[tokio::test]
async fn a_removal_finds_the_container_of_a_creation_that_nobody_waits_for() {
    let engine = FakeEngine::start().await;
    engine.state().images.push("here:local".to_owned());
    engine.set_open(false);
    let yard = Yard::at(&engine.address, LONG);
    let unit = unit("here:local");
    let preparing = yard.begin(&unit);
    until("it is being made", async || {
        engine.state().creations_under_way == 1
    })
    .await;
    drop(preparing);
    let driver = Arc::clone(&yard.driver);
    let mut removing = tokio::task::JoinSet::new();
    removing.spawn(async move { driver.remove(unit.id, Data::Delete).await });
    // Long enough for a removal that waits for nothing to be over.
    tokio::time::sleep(SHORT).await;
    engine.set_open(true);
    removing.join_next().await.unwrap().unwrap().unwrap();
    until("it was made", async || {
        engine.state().creations_under_way == 0
    })
    .await;
    assert!(engine.state().containers.is_empty());
}

/// A registry that says that it is one, and nothing more.
async fn stalled_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    Tasks::new().spawn("registry", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            Tasks::new().spawn("request", async move {
                let mut head = [0; 4096];
                let mut length = stream.read(&mut head).await.unwrap_or(0);
                while head[..length].starts_with(b"GET /v2/ ") {
                    let hello = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    let _ = stream.write_all(hello).await;
                    length = stream.read(&mut head).await.unwrap_or(0);
                }
                if !head[..length].starts_with(b"GET ") && !head[..length].starts_with(b"HEAD ") {
                    // Not over TLS.
                    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                    return;
                }
                while stream.read(&mut head).await.is_ok_and(|length| length > 0) {}
            });
        }
    });
    address
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_registry_that_stalls_ends_the_pull_of_a_real_engine() {
    let registry = stalled_registry().await;
    let yard = Yard::at(&crate::container::engine(), SHORT);
    let unit = unit(&format!("{registry}/web:local"));
    let error = yard.driver.prepare(&unit, &quiet).await.unwrap_err();
    assert_eq!(error.code(), "image-unavailable", "{error}");
    assert!(
        error.to_string().contains("nothing of it came for 2.5 s"),
        "{error}"
    );
    yard.driver.remove(unit.id, Data::Delete).await.unwrap();
}
