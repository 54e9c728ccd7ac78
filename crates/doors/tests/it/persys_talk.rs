//! The control contract, spoken by a plain client: each call against what the contract's tables say. The same
//! conversations are held with another program where `outside` finds one.
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions, not in what they share"
)]

use hostler_wire::persys::control::agent_control_client::AgentControlClient;
use hostler_wire::persys::control::{
    self, ApplyWorkloadRequest, ApplyWorkloadResponse, AutomationActionType, AutomationSuggestion,
    DeleteWorkloadRequest, FailureReason, GetClusterSummaryRequest, GetNodeRequest,
    GetWorkloadRequest, ListNodesRequest, ListWorkloadsRequest, RegisterNodeResponse,
    RetryWorkloadRequest, SubmitAutomationSuggestionRequest, workload_spec::Workload,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::outside::Outsider;
use crate::persys_world::{Fleet, beat_of, client, container, registration};

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

type Client = AgentControlClient<Channel>;

/// One conversation partner; every id carries the prefix, so that a program may be talked to again.
struct Talk {
    client: Client,
    prefix: String,
}

impl Talk {
    fn id(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn registered(
        &mut self,
        request: control::RegisterNodeRequest,
    ) -> Result<RegisterNodeResponse, Status> {
        Ok(self.client.register_node(request).await?.into_inner())
    }

    async fn apply(
        &mut self,
        id: &str,
        spec: Option<control::WorkloadSpec>,
        desired: &str,
    ) -> ApplyWorkloadResponse {
        let request = ApplyWorkloadRequest {
            workload_id: id.to_owned(),
            spec,
            revision_id: "rev-1".to_owned(),
            desired_state: desired.to_owned(),
        };
        let answer = self.client.apply_workload(request).await;
        answer.unwrap().into_inner()
    }

    async fn workload(&mut self, id: &str) -> Result<control::WorkloadView, Status> {
        let workload_id = id.to_owned();
        let request = GetWorkloadRequest { workload_id };
        let answer = self.client.get_workload(request).await?;
        Ok(answer.into_inner().workload.unwrap())
    }

    async fn nodes(&mut self, status: &str) -> Vec<String> {
        let status = status.to_owned();
        let answer = self.client.list_nodes(ListNodesRequest { status }).await;
        let nodes = answer.unwrap().into_inner().nodes;
        nodes.into_iter().map(|it| it.node_id).collect()
    }

    async fn workloads(&mut self, node_id: &str, status: &str) -> Vec<String> {
        let request = ListWorkloadsRequest {
            node_id: node_id.to_owned(),
            status: status.to_owned(),
        };
        let answer = self.client.list_workloads(request).await;
        let workloads = answer.unwrap().into_inner().workloads;
        workloads.into_iter().map(|it| it.workload_id).collect()
    }

    async fn suggest(
        &mut self,
        target: &str,
        action: AutomationActionType,
        desired: &str,
    ) -> control::SubmitAutomationSuggestionResponse {
        let suggestion = AutomationSuggestion {
            target_workload: target.to_owned(),
            action_type: action as i32,
            desired_state: desired.to_owned(),
            ..AutomationSuggestion::default()
        };
        let request = SubmitAutomationSuggestionRequest {
            suggestion: Some(suggestion),
        };
        let answer = self.client.submit_automation_suggestion(request).await;
        answer.unwrap().into_inner()
    }
}

async fn registrations(talk: &mut Talk) {
    let id = talk.id("node");
    for (node, endpoint) in [
        (String::new(), NOWHERE),
        (id.clone(), ""),
        (id.clone(), "no-port"),
        (id.clone(), "host:0"),
    ] {
        let refused = talk.registered(registration(&node, endpoint)).await;
        assert_eq!(
            refused.unwrap_err().code(),
            Code::InvalidArgument,
            "{endpoint}"
        );
    }
    for (cpu, memory) in [(0, 1), (1, 0), (-1, 1)] {
        let mut request = registration(&id, NOWHERE);
        let capabilities = request.capabilities.as_mut().unwrap();
        (
            capabilities.cpu_total_millicores,
            capabilities.memory_total_mb,
        ) = (cpu, memory);
        let answer = talk.registered(request).await.unwrap();
        assert!(!answer.accepted && !answer.reason.is_empty(), "{answer:?}");
    }
    let nodeless = control::RegisterNodeRequest {
        capabilities: None,
        ..registration(&id, NOWHERE)
    };
    assert!(!talk.registered(nodeless).await.unwrap().accepted);

    let answer = talk.registered(registration(&id, NOWHERE)).await.unwrap();
    assert!(answer.accepted);
    assert_eq!(
        (answer.reason.as_str(), answer.heartbeat_interval_seconds),
        ("registered", 60)
    );
    assert!(answer.lease_expires_at.is_some());
    assert!(talk.nodes("").await.contains(&id));
    let node_id = id.clone();
    let found = talk.client.get_node(GetNodeRequest { node_id }).await;
    let node = found.unwrap().into_inner().node.unwrap();
    assert_eq!(node.grpc_endpoint, NOWHERE);
    assert_eq!(
        node.supported_workload_types,
        ["container", "compose", "vm"]
    );
    assert_eq!(node.labels["region"], "eu");
    assert!(node.labels.contains_key("scheduler_shard"));
    assert!((node.total_cpu_cores - 4.0).abs() < 1e-9);
    assert_eq!(
        (node.total_memory_mb, node.available_memory_mb),
        (8_192, 8_192)
    );
    for (node_id, code) in [("", Code::InvalidArgument), ("nobody", Code::NotFound)] {
        let node_id = node_id.to_owned();
        let refused = talk.client.get_node(GetNodeRequest { node_id }).await;
        assert_eq!(refused.unwrap_err().code(), code);
    }
}

async fn heartbeats(talk: &mut Talk) {
    let id = talk.id("beats");
    for (node, code) in [
        (String::new(), Code::InvalidArgument),
        (talk.id("nobody"), Code::NotFound),
    ] {
        let refused = talk.client.heartbeat(beat_of(&node)).await.unwrap_err();
        assert_eq!(refused.code(), code);
    }
    assert!(
        talk.registered(registration(&id, NOWHERE))
            .await
            .unwrap()
            .accepted
    );
    let beat = control::HeartbeatRequest {
        usage: Some(control::NodeUsage {
            cpu_used_millicores: 1_234,
            memory_used_mb: 192,
            ..control::NodeUsage::default()
        }),
        workload_statuses: vec![control::WorkloadStatus {
            workload_id: talk.id("nobodys"),
            state: "Running".to_owned(),
            ..control::WorkloadStatus::default()
        }],
        ..beat_of(&id)
    };
    let answer = talk.client.heartbeat(beat).await.unwrap().into_inner();
    assert!(answer.acknowledged && !answer.drain_node);
    assert!(answer.lease_expires_at.is_some());
    for _ in 0..2 {
        // A heartbeat without figures leaves them as they were.
        let node_id = id.clone();
        let found = talk.client.get_node(GetNodeRequest { node_id }).await;
        let node = found.unwrap().into_inner().node.unwrap();
        assert!((node.available_cpu_cores - 2.766).abs() < 1e-9, "{node:?}");
        assert_eq!(node.available_memory_mb, 8_000);
        assert!(node.last_heartbeat.is_some());
        talk.client.heartbeat(beat_of(&id)).await.unwrap();
    }
}

async fn refusals(talk: &mut Talk) {
    let id = talk.id("refused");
    let mut typed = container("busybox:1");
    typed.r#type = "vm".to_owned();
    let mut imageless = container("");
    imageless.metadata.clear();
    let mut git = container("x");
    git.r#type = "compose".to_owned();
    git.workload = Some(Workload::Compose(control::ComposeSpec {
        source_type: "git".to_owned(),
        ..control::ComposeSpec::default()
    }));
    let empty = control::WorkloadSpec::default();
    for spec in [typed, imageless, git, empty] {
        let answer = talk.apply(&id, Some(spec), "Running").await;
        assert!(
            !answer.success && !answer.error_message.is_empty(),
            "{answer:?}"
        );
        assert_eq!(answer.failure_reason(), FailureReason::InvalidSpec);
    }
    let nameless = talk.apply("", Some(container("busybox:1")), "").await;
    assert_eq!(nameless.failure_reason(), FailureReason::InvalidSpec);
    assert_eq!(
        talk.workload(&id).await.unwrap_err().code(),
        Code::NotFound,
        "what was refused was not kept"
    );
    let unknown = talk.apply(&id, None, "Stopped").await;
    assert!(!unknown.success);
    assert_eq!(unknown.failure_reason(), FailureReason::RuntimeError);
    assert!(unknown.error_message.contains("not found"));
}

async fn workloads(talk: &mut Talk) {
    let id = talk.id("work");
    // No node can take it, and still it was kept.
    let mut hungry = container("busybox:1");
    hungry.resources.as_mut().unwrap().cpu_millicores = 64_000;
    let answer = talk.apply(&id, Some(hungry), "").await;
    assert!(answer.success, "{}", answer.error_message);
    let view = talk.workload(&id).await.unwrap();
    assert_eq!(
        (
            view.desired_state.as_str(),
            view.status.as_str(),
            view.r#type.as_str()
        ),
        ("Running", "Pending", "container")
    );
    assert_eq!(
        (view.revision_id.as_str(), view.retry_max_attempts),
        ("rev-1", 5)
    );
    assert_eq!(view.assigned_node_id, "");
    assert!(talk.workloads("", "pending").await.contains(&id));
    assert!(!talk.workloads("", "Running").await.contains(&id));
    assert!(talk.workloads("nowhere", "").await.is_empty());

    assert!(talk.apply(&id, None, "STOPPED").await.success);
    let view = talk.workload(&id).await.unwrap();
    assert_eq!(
        (view.desired_state.as_str(), view.status.as_str()),
        ("Stopped", "Stopped")
    );
    assert_eq!(view.revision_id, "rev-1", "it follows from the spec");
    let workload_id = id.clone();
    let request = RetryWorkloadRequest { workload_id };
    let retried = talk.client.retry_workload(request).await.unwrap();
    assert!(retried.into_inner().accepted);

    let summary = talk
        .client
        .get_cluster_summary(GetClusterSummaryRequest {})
        .await;
    let summary = summary.unwrap().into_inner();
    assert!(summary.total_workloads >= 1 && summary.generated_at.is_some());
    assert_eq!(
        summary.total_nodes,
        summary.ready_nodes + summary.not_ready_nodes
    );

    for (target, is_known) in [(id.clone(), true), (talk.id("nobody"), false)] {
        let workload_id = target.clone();
        let request = DeleteWorkloadRequest { workload_id };
        let deleted = talk
            .client
            .delete_workload(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(deleted.success, is_known, "{target}");
        assert_eq!(deleted.error_message.is_empty(), is_known);
    }
    let workload_id = talk.id("nobody");
    let request = RetryWorkloadRequest { workload_id };
    let retried = talk.client.retry_workload(request).await.unwrap();
    assert!(!retried.into_inner().accepted);
    let refused = talk.workload("").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

async fn suggestions(talk: &mut Talk) {
    use AutomationActionType as Action;
    let id = talk.id("auto");
    assert!(
        talk.apply(&id, Some(container("busybox:1")), "Stopped")
            .await
            .success
    );
    for (target, action, desired, applied) in [
        (id.as_str(), Action::AutomationActionScaleReplicas, "", ""),
        ("", Action::AutomationActionRetryWorkload, "", ""),
        ("nobody", Action::AutomationActionDeleteWorkload, "", ""),
        (id.as_str(), Action::Unspecified, "", ""),
        (
            id.as_str(),
            Action::AutomationActionSetDesiredState,
            "",
            "set_desired_state",
        ),
        (
            id.as_str(),
            Action::AutomationActionRetryWorkload,
            "",
            "retry_workload",
        ),
    ] {
        let answer = talk.suggest(target, action, desired).await;
        let is_accepted = !applied.is_empty();
        let decision = if is_accepted { "accepted" } else { "rejected" };
        assert_eq!(
            (
                answer.accepted,
                answer.decision.as_str(),
                answer.applied_action.as_str()
            ),
            (is_accepted, decision, applied),
            "{action:?}"
        );
        assert!(!answer.reason.is_empty() && answer.decided_at.is_some());
    }
    let view = talk.workload(&id).await.unwrap();
    assert_eq!(view.desired_state, "Running", "without a word it runs");
    let answer = talk
        .suggest(&id, Action::AutomationActionDeleteWorkload, "")
        .await;
    assert_eq!(answer.applied_action, "delete_workload");
}

async fn with_ours(hold: impl AsyncFnOnce(&mut Talk)) {
    let plane = Fleet::new().start().await;
    let mut talk = Talk {
        client: plane.client.clone(),
        prefix: "t-".to_owned(),
    };
    hold(&mut talk).await;
    plane.shut_down().await;
}

#[tokio::test]
async fn registrations_are_checked_and_answered() {
    with_ours(registrations).await;
}

#[tokio::test]
async fn heartbeats_renew_and_are_refused_for_nobody() {
    with_ours(heartbeats).await;
}

#[tokio::test]
async fn a_spec_that_makes_no_sense_is_refused_and_not_kept() {
    with_ours(refusals).await;
}

#[tokio::test]
async fn what_was_kept_is_a_success_and_shows_in_the_views() {
    with_ours(workloads).await;
}

#[tokio::test]
async fn suggestions_act_as_the_calls_do_but_for_scaling() {
    with_ours(suggestions).await;
}

#[tokio::test]
async fn another_program_holds_the_same_conversations() {
    let Some(theirs) = Outsider::of("HOSTLER_FOREIGN_PERSYS") else {
        return;
    };
    let mut talk = Talk {
        client: client(&format!("http://{}", theirs.addr)).await,
        prefix: format!("t{}-", std::process::id()),
    };
    registrations(&mut talk).await;
    heartbeats(&mut talk).await;
    refusals(&mut talk).await;
    workloads(&mut talk).await;
    suggestions(&mut talk).await;
}

#[tokio::test]
async fn the_port_serves_this_contract_alone_and_the_main_one_serves_it_too() {
    let plane = Fleet::new().start().await;
    let main = client(&format!("http://{}", plane.main)).await;
    let mut main = main;
    let listed = main.list_nodes(ListNodesRequest::default()).await.unwrap();
    assert!(listed.into_inner().nodes.is_empty());
    let channel = Channel::from_shared(format!("http://{}", plane.grpc)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut other =
        hostler_wire::persys::agent::agent_service_client::AgentServiceClient::new(channel);
    let request = hostler_wire::persys::agent::HealthCheckRequest {};
    let refused = other.health_check(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let plain = crate::server::http().no_proxy().build().unwrap();
    let url = format!("http://{}/api/v1/nodes", plane.grpc);
    let answer = plain.get(url).send().await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12");
    plane.shut_down().await;
}

#[tokio::test]
async fn the_cluster_of_an_agent_is_kept_and_shown() {
    let plane = Fleet::new().start().await;
    plane.register("node-1", NOWHERE).await;
    let url = format!("http://{}/api/v1/nodes/node-1", plane.main);
    let plain = crate::server::http().no_proxy().build().unwrap();
    let text = plain.get(url).send().await.unwrap().text().await.unwrap();
    let node: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(node["facts"]["foreign"]["cluster_id"], "cluster-7");
    assert_eq!(node["facts"]["foreign"]["storage_pools"][0]["name"], "root");
    assert_eq!(
        node["facts"]["foreign"]["supported_storage_drivers"][1],
        "ceph-rbd"
    );
    assert_eq!(node["labels"]["storage.ceph-rbd"], "true");
    assert_eq!(node["capabilities"]["cpu_count"], 4);
    assert_eq!(node["contract"], "persys");
    plane.shut_down().await;
}
