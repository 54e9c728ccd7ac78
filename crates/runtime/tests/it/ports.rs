//! A port that somebody else has: named, nothing more is left than the unit itself, and the next try succeeds once
//! the port is free.

use hostler_model::spec::{PortMapping, Protocol, WorkloadSpec};
use hostler_runtime::contract;
use hostler_runtime::{Data, FoundState, Runtime as _, RuntimeError};

use crate::container::{Yard, busybox};
use crate::{free_port, quiet};

fn publishing(port: u16, protocol: Protocol) -> WorkloadSpec {
    let mut spec = busybox("sleep 1000");
    spec.ports = vec![PortMapping {
        name: None,
        host: port,
        target: Some(9),
        protocol,
    }];
    spec
}

/// Starts in vain, then for good once the port was given back.
async fn in_vain_then_well(yard: &Yard, spec: WorkloadSpec, give_back: impl FnOnce()) {
    let driver = yard.driver();
    let port = spec.ports[0].host;
    let unit = contract::unit(spec);
    driver.prepare(&unit, &quiet).await.unwrap();
    for _ in 0..3 {
        let error = driver.start(unit.id).await.unwrap_err();
        assert_eq!(error.code(), "port-in-use", "{error}");
        assert!(
            matches!(error, RuntimeError::PortInUse { port: named } if named == port),
            "{error}"
        );
    }
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert_eq!((found.state, found.runs), (FoundState::Prepared, 0));
    let listed = yard.docker(&["ps", "-aq", "--filter", &yard.filter()]);
    assert_eq!(
        listed.lines().count(),
        1,
        "no try left a container of its own"
    );
    give_back();
    driver.start(unit.id).await.unwrap();
    assert_eq!(contract::find(&driver, unit.id).await.unwrap().runs, 1);
    driver.remove(unit.id, Data::Delete).await.unwrap();
    assert_eq!(yard.docker(&["ps", "-aq", "--filter", &yard.filter()]), "");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_port_on_which_a_program_of_the_node_listens_is_named_and_tried_again() {
    let yard = Yard::new();
    let port = free_port();
    let tcp = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    in_vain_then_well(&yard, publishing(port, Protocol::Tcp), move || drop(tcp)).await;
    let port = free_port();
    let udp = std::net::UdpSocket::bind(("0.0.0.0", port)).unwrap();
    in_vain_then_well(&yard, publishing(port, Protocol::Udp), move || drop(udp)).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_port_that_a_container_of_somebody_else_holds_is_named_and_tried_again() {
    let yard = Yard::new();
    let port = free_port();
    let publish = format!("{port}:9");
    let run = [
        "run",
        "-d",
        "-p",
        &publish,
        "busybox:local",
        "sleep",
        "1000",
    ];
    let theirs = yard.docker(&run);
    let give_back = || {
        yard.docker(&["rm", "-f", theirs.trim()]);
    };
    in_vain_then_well(&yard, publishing(port, Protocol::Tcp), give_back).await;
}
