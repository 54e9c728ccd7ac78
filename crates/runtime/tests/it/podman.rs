//! The container driver on Podman's compatible socket, where that differs from Docker. `HOSTLER_TEST_PODMAN`
//! says where the service listens; it has the image `busybox:local`.

use std::path::Path;

use hostler_model::Exit;
use hostler_model::spec::{Mount, WorkloadSpec};
use hostler_runtime::container::ContainerRuntime;
use hostler_runtime::{Data, FoundState, LogQuery, Runtime, contract};

use crate::container::{busybox, driver};

#[expect(
    clippy::disallowed_methods,
    reason = "the environment says where the test's service is"
)]
fn podman(dir: &Path) -> ContainerRuntime {
    let service = std::env::var("HOSTLER_TEST_PODMAN");
    let service = service.expect("HOSTLER_TEST_PODMAN says where the service listens");
    let owner = dir.file_name().unwrap().to_str().unwrap();
    driver(service, dir.to_owned(), owner)
}

fn quiet(_: String) {}

/// Without a network of its own, which would need the machine's firewall.
fn alone(script: &str) -> WorkloadSpec {
    let mut spec = busybox(script);
    spec.container.as_mut().unwrap().network = Some("none".to_owned());
    spec.stop.grace_ms = 200;
    spec
}

#[tokio::test]
#[ignore = "needs podman"]
async fn a_container_of_podman_is_started_found_stopped_started_again_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let first = podman(dir.path());
    let unit = contract::unit(alone("echo hello; exec sleep 1000"));
    first.prepare(&unit, &quiet).await.unwrap();
    first.start(unit.id).await.unwrap();
    drop(first);

    let second = podman(dir.path());
    let found = second.observe().await.unwrap();
    assert_eq!(found.len(), 1, "what runs is found again");
    assert!(matches!(found[0].state, FoundState::Running { .. }));
    let latest = LogQuery::default();
    assert_eq!(
        contract::texts(&second, unit.id, &latest, 1).await,
        ["hello"]
    );

    assert_eq!(second.stop(unit.id).await.unwrap(), Exit::Signal(9));
    let found = second.observe().await.unwrap();
    assert!(matches!(found[0].state, FoundState::Exited { .. }));
    second.start(unit.id).await.unwrap();
    assert_eq!(second.observe().await.unwrap()[0].runs, 2);
    assert_eq!(
        contract::texts(&second, unit.id, &latest, 1)
            .await
            .last()
            .unwrap(),
        "hello"
    );
    second.remove(unit.id, Data::Delete).await.unwrap();
    assert!(second.observe().await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs podman"]
async fn what_ends_by_itself_on_podman_is_seen_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let driver = podman(dir.path());
    let unit = contract::unit(alone("exit 3"));
    driver.prepare(&unit, &quiet).await.unwrap();
    driver.start(unit.id).await.unwrap();
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(3));
    driver.remove(unit.id, Data::Delete).await.unwrap();
}

#[tokio::test]
#[ignore = "needs podman"]
async fn a_mount_whose_source_is_missing_is_refused_and_not_made_by_podman() {
    let dir = tempfile::tempdir().unwrap();
    let driver = podman(dir.path());
    let missing = dir.path().join("missing");
    let mut spec = alone("true");
    spec.container.as_mut().unwrap().mounts = vec![Mount {
        source: missing.to_str().unwrap().to_owned(),
        target: "/there".to_owned(),
        read_only: false,
    }];
    let unit = contract::unit(spec);
    let error = driver.prepare(&unit, &quiet).await.unwrap_err();
    assert_eq!(error.code(), "mount-not-found", "{error}");
    assert!(!missing.exists());
}
