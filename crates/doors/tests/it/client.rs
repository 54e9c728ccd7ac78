//! Our own client against our own server: what the command line does.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use hostler_wire::api::{
    ApplyQuery, AssignmentFilter, LabelPatch, LogQuery, NodeState, StateWord, WorkloadStatus,
};
use hostler_wire::client::{Client, ClientError, Expect, Force, Happening};

use crate::server::{DEADLINE, Server, spec};

#[tokio::test]
async fn our_client_reads_what_our_server_writes() {
    let server = Server::start().await;
    let node = server.node("box").await;
    node.beat();
    let client = Client::new(&server.url(""), None).unwrap();
    assert!(client.ready().await.unwrap().ready);
    assert_eq!(client.version().await.unwrap().api, "v1");
    let applied = client
        .apply(spec("web", 2), ApplyQuery::default(), Expect::Absent)
        .await
        .unwrap();
    assert!(applied[0].created);
    server
        .until("/api/v1/workloads/web", |it| it["status"] == "running")
        .await;
    let workload = client.workload("web").await.unwrap();
    assert_eq!(workload.status, WorkloadStatus::Running);
    assert_eq!(workload.standing.settled, 2);
    let filter = AssignmentFilter {
        node: Some("box".to_owned()),
        ..AssignmentFilter::default()
    };
    let copies = client.assignments(&filter).await.unwrap();
    assert_eq!(copies.len(), 2);
    assert!(
        copies
            .iter()
            .all(|copy| copy.state.word == StateWord::Running)
    );
    assert_eq!(client.why("web").await.unwrap().pending, 0);
    assert!(
        client.plan(spec("web", 3)).await.unwrap().workloads[0]
            .placements
            .len()
            == 1
    );

    let patch = LabelPatch(BTreeMap::from([("zone".to_owned(), Some("a".to_owned()))]));
    let labelled = client
        .label("box", &patch, Expect::Revision(1))
        .await
        .unwrap();
    assert_eq!(
        (labelled.state, labelled.labels["zone"].as_str()),
        (NodeState::Ready, "a")
    );
    let error = client
        .remove_node("box", Force::No, Expect::Any)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("node-busy"));

    let query = LogQuery {
        tail: Some(1),
        ..LogQuery::default()
    };
    let lines: Vec<_> = client.logs("web", &query).await.unwrap().collect().await;
    assert_eq!(lines.len(), 2);
    assert!(
        lines
            .iter()
            .all(|line| line.as_ref().is_ok_and(|line| line.text == "line 1"))
    );

    let kept = client.events(None).await.unwrap();
    let mut happenings = client.follow_events(None).await.unwrap();
    for event in kept {
        let next = tokio::time::timeout(DEADLINE, happenings.next())
            .await
            .unwrap();
        assert_eq!(next.unwrap().unwrap(), Happening::Event(event));
    }
    client.delete("web", Expect::Any).await.unwrap();
    let refused = client.workload("nothing").await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { .. }),
        "{refused:?}"
    );
    server.shut_down().await;
}
