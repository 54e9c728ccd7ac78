//! The control plane drives agents that it dials: a stateful double on loopback, end to end.
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions, not in what they share"
)]

use std::net::SocketAddr;

use hostler_kit::Tasks;
use hostler_wire::persys::agent::{self, ActualState, DesiredState};
use hostler_wire::persys::control::{self, workload_spec::Workload};
use prost::Message as _;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::persys_world::{Double, Fleet, Manners, Plane, container, until};
use crate::server::DEADLINE;

async fn ready(plane: &Plane, id: &str) -> Double {
    let agent = Double::start().await;
    plane.register(id, &agent.endpoint()).await;
    plane.until_node(id, "Ready").await;
    agent
}

async fn post(plane: &Plane, path: &str, body: &str) -> Value {
    let url = format!("http://{}{path}", plane.main);
    let client = crate::server::http().no_proxy().build().unwrap();
    let answer = client.post(url).body(body.to_owned()).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn get(plane: &Plane, path: &str) -> Value {
    let url = format!("http://{}{path}", plane.main);
    let client = crate::server::http().no_proxy().build().unwrap();
    let text = client.get(url).send().await.unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

fn last(agent: &Double, id: &str) -> agent::ApplyWorkloadRequest {
    let bytes = agent.applied(id).pop().expect("it was applied");
    agent::ApplyWorkloadRequest::decode(&*bytes).unwrap()
}

#[tokio::test]
async fn a_workload_is_applied_stopped_started_and_deleted_on_an_agent_that_queues() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    agent.behave(Manners {
        queue: 2,
        by_text: true,
        ..Manners::default()
    });
    plane.apply("Web 1", "rev-1", container("busybox:1")).await;
    let view = plane.until_status("Web 1", "Running").await;
    assert_eq!(
        (view.assigned_node_id.as_str(), view.revision_id.as_str()),
        ("node-1", "rev-1")
    );
    let told = last(&agent, "Web 1");
    assert_eq!(told.desired_state(), DesiredState::Running);
    assert_eq!(told.revision_id, "rev-1");
    assert_eq!(agent.applied("Web 1").len(), 1, "once is enough");
    let calls = agent.memory().calls.clone();
    let first = calls.iter().position(|it| it == "apply Web 1").unwrap();
    assert_eq!(
        calls[first - 1],
        "status Web 1",
        "it looks before it applies"
    );

    plane.desire("Web 1", "stop").await;
    plane.until_status("Web 1", "Stopped").await;
    assert_eq!(
        agent.states()["Web 1"],
        ActualState::Stopped,
        "its disks stay"
    );
    plane.desire("Web 1", "Running").await;
    plane.until_status("Web 1", "Running").await;
    assert_eq!(agent.states()["Web 1"], ActualState::Running);

    plane.delete("Web 1").await;
    plane.until_gone("Web 1").await;
    assert!(agent.states().is_empty());
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_stopped_workload_that_is_deleted_leaves_nothing_on_its_agent() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    plane.apply("db", "", container("busybox:1")).await;
    plane.until_status("db", "Running").await;
    plane.desire("db", "Stopped").await;
    plane.until_status("db", "Stopped").await;
    agent
        .until("parked", |it| {
            it.states().get("db") == Some(&ActualState::Stopped)
        })
        .await;
    // Long enough for a look that finds it resting there.
    let looks = agent.memory().calls.len();
    plane.register("node-1", &agent.endpoint()).await;
    agent
        .until("looked", |it| it.memory().calls.len() >= looks)
        .await;
    plane.delete("db").await;
    plane.until_gone("db").await;
    agent.until("gone", |it| it.states().is_empty()).await;
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_payload_is_replayed_byte_for_byte_to_an_agent_that_lost_it_and_after_a_restart() {
    let fleet = Fleet::new();
    let plane = fleet.start().await;
    let agent = ready(&plane, "node-1").await;
    let mut spec = container("busybox:1");
    if let Some(Workload::Container(it)) = &mut spec.workload {
        it.privileged = true;
        it.restart_policy = String::new();
        it.ports = vec![control::Port {
            host_port: 8081,
            container_port: 80,
            protocol: String::new(),
        }];
    }
    plane.apply("web", "", spec).await;
    plane.until_status("web", "Running").await;
    let first = agent.applied("web");
    agent.forget();
    agent.until("again", |it| it.applied("web").len() > 1).await;
    plane.until_status("web", "Running").await;
    plane.shut_down().await;

    agent.forget();
    let plane = fleet.start().await;
    agent
        .until("a third time", |it| it.applied("web").len() > 2)
        .await;
    plane.until_status("web", "Running").await;
    for again in agent.applied("web") {
        assert_eq!(again, first[0]);
    }
    let told = last(&agent, "web");
    let Some(agent::workload_spec::Spec::Container(it)) = told.spec.unwrap().spec else {
        panic!("a container")
    };
    assert_eq!(it.command, ["sleep", "inf"]);
    assert_eq!(it.resources.unwrap().cpu_shares, 100);
    assert_eq!(it.resources.unwrap().memory_bytes, 64 << 20);
    assert_eq!(it.labels["team"], "a");
    assert_eq!(it.labels["persys.privileged"], "true");
    assert_eq!(it.restart_policy, None);
    assert_eq!(told.revision_id.len(), 24, "it follows from the payload");
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn another_spec_is_another_revision_and_the_same_one_is_none() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    plane.apply("web", "rev-1", container("busybox:1")).await;
    plane.until_status("web", "Running").await;
    plane.apply("web", "rev-2", container("busybox:1")).await;
    assert_eq!(plane.workload("web").await.unwrap().revision_id, "rev-1");
    plane.apply("web", "rev-1", container("busybox:2")).await;
    let changed = plane.workload("web").await.unwrap().revision_id;
    assert_ne!(changed, "rev-1", "agents skip a revision that they have");
    agent.until("anew", |it| it.applied("web").len() > 1).await;
    assert_eq!(last(&agent, "web").revision_id, changed);
    plane.until_status("web", "Running").await;
    assert_eq!(agent.applied("web").len(), 2);
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_failure_keeps_its_code_is_tried_again_and_given_up_if_no_try_mends_it() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    agent.behave(Manners {
        failing: Some(("IMAGE_PULL_FAILED", "no route to the registry")),
        ..Manners::default()
    });
    plane.apply("web", "", container("busybox:1")).await;
    let view = plane.until_status("web", "Failed").await;
    let reason = view.reason.unwrap();
    assert_eq!(
        (reason.code.as_str(), reason.message.as_str()),
        ("IMAGE_PULL_FAILED", "no route to the registry")
    );
    assert_eq!(view.failure_reason, "no route to the registry");
    agent
        .until("tried again", |it| it.applied("web").len() > 1)
        .await;
    agent.behave(Manners::default());
    plane.until_status("web", "Running").await;

    agent.behave(Manners {
        refusing: Some(("INVALID_IMAGE", "no such manifest")),
        ..Manners::default()
    });
    plane.apply("web", "", container("busybox:9")).await;
    let is_given_up = |view: &control::WorkloadView| {
        view.reason
            .as_ref()
            .is_some_and(|it| !it.retryable && it.code == "INVALID_IMAGE")
    };
    plane.until_workload("web", is_given_up).await;
    let tries = agent.applied("web").len();
    agent.behave(Manners::default());
    plane.register("node-1", &agent.endpoint()).await;
    plane.beat("node-1", Vec::new()).await;
    assert_eq!(agent.applied("web").len(), tries, "no try mends it");
    let workload_id = "web".to_owned();
    let mut client = plane.client.clone();
    let retried = client
        .retry_workload(control::RetryWorkloadRequest { workload_id })
        .await
        .unwrap();
    assert!(retried.into_inner().accepted);
    plane.until_status("web", "Running").await;
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_state_that_an_agent_does_not_know_is_left_alone() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    agent.behave(Manners {
        is_vague: true,
        ..Manners::default()
    });
    plane.apply("web", "", container("busybox:1")).await;
    plane.until_status("web", "Pending").await;
    agent
        .until("applied", |it| !it.applied("web").is_empty())
        .await;
    for _ in 0..3 {
        plane.beat("node-1", Vec::new()).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert_eq!(agent.applied("web").len(), 1);
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn an_agent_that_cannot_be_reached_gets_nothing_new_and_goes_on_when_it_can() {
    let fleet = Fleet::new();
    let plane = fleet.start().await;
    let agent = ready(&plane, "node-1").await;
    plane.apply("web", "", container("busybox:1")).await;
    plane.until_status("web", "Running").await;
    let gone = agent.stop().await;
    let view = plane.until_node("node-1", "NotReady").await;
    assert!(view.status_reason.contains("cannot be reached"), "{view:?}");
    assert_eq!(view.status_updated_by, "reconciler");
    plane.apply("second", "", container("busybox:1")).await;
    plane.beat("node-1", Vec::new()).await;
    assert_eq!(plane.workload("second").await.unwrap().status, "Pending");
    let running = plane.workload("web").await.unwrap();
    assert_eq!(running.status, "Running", "nobody said that it ended");
    let failed = control::WorkloadStatus {
        workload_id: "web".to_owned(),
        state: "failed".to_owned(),
        failure_reason: control::FailureReason::StorageError as i32,
        message: "disk is full".to_owned(),
        ..control::WorkloadStatus::default()
    };
    plane.beat("node-1", vec![failed]).await;
    let view = plane.until_status("web", "Failed").await;
    assert_eq!(
        view.reason.unwrap().code,
        "STORAGE_ERROR",
        "its heartbeats are believed"
    );

    let agent = Double::again(gone).await;
    plane.beat("node-1", Vec::new()).await;
    plane.until_node("node-1", "Ready").await;
    plane.until_status("second", "Running").await;
    plane.until_status("web", "Running").await;
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_control_plane_that_starts_again_goes_on_driving_by_itself() {
    let fleet = Fleet::new();
    let plane = fleet.start().await;
    let agent = ready(&plane, "node-1").await;
    plane.apply("web", "", container("busybox:1")).await;
    plane.until_status("web", "Running").await;
    plane.shut_down().await;
    let plane = fleet.start().await;
    plane.until_status("web", "Running").await;
    assert_eq!(agent.applied("web").len(), 1, "what runs is left alone");
    plane.apply("second", "", container("busybox:1")).await;
    plane.until_status("second", "Running").await;
    plane.delete("web").await;
    plane.until_gone("web").await;
    assert_eq!(agent.states().keys().collect::<Vec<_>>(), ["second"]);
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn our_own_workloads_run_there_too_and_what_nobody_gave_it_stays() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    agent.plant("somebody-elses");
    agent.plant("hostler-00000000-0199c0de-0000-7000-8000-000000000001");
    let spec = "name: mine\ncontainer: {image: 'busybox:1', command: [sleep, inf]}\n";
    post(&plane, "/api/v1/workloads", spec).await;
    until("it runs", || async {
        let shown = get(&plane, "/api/v1/workloads/mine").await;
        (shown["status"] == "running").then_some(())
    })
    .await;
    let ours: Vec<String> = agent.states().into_keys().collect();
    let fleet = format!("hostler-{}-", plane.control.fleet_id().short());
    let id = ours
        .iter()
        .find(|id| id.starts_with(&fleet))
        .unwrap()
        .clone();
    assert_eq!(plane.workload("mine").await.unwrap().status, "Running");

    post(&plane, "/api/v1/workloads/mine/restart", "").await;
    agent
        .until("made anew", |it| it.applied(&id).len() > 1)
        .await;
    let revisions: Vec<String> = agent
        .applied(&id)
        .iter()
        .map(|it| {
            agent::ApplyWorkloadRequest::decode(&**it)
                .unwrap()
                .revision_id
        })
        .collect();
    assert_eq!(revisions, ["1", "1-r1"]);
    plane.delete("mine").await;
    plane.until_gone("mine").await;
    let left: Vec<String> = agent.states().into_keys().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn what_the_contract_cannot_say_is_never_run_without_it() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    let spec = "name: mine\ncontainer: {image: 'busybox:1', user: nobody}\n";
    post(&plane, "/api/v1/workloads", spec).await;
    let view = plane.until_status("mine", "Failed").await;
    assert!(view.failure_reason.contains("container.user"), "{view:?}");
    assert!(agent.states().is_empty());
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_drain_moves_work_to_another_agent_and_tells_the_first() {
    let plane = Fleet::new().start().await;
    let first = ready(&plane, "node-1").await;
    plane.apply("web", "", container("busybox:1")).await;
    plane.until_status("web", "Running").await;
    assert!(!plane.beat("node-1", Vec::new()).await.drain_node);
    let second = ready(&plane, "node-2").await;
    post(&plane, "/api/v1/nodes/node-1/drain", "").await;
    assert!(plane.beat("node-1", Vec::new()).await.drain_node);
    second
        .until("moved", |it| {
            it.states().get("web") == Some(&ActualState::Running)
        })
        .await;
    first.until("left", |it| it.states().is_empty()).await;
    until("drained", || async {
        let node = get(&plane, "/api/v1/nodes/node-1").await;
        (node["state"] == "drained").then_some(())
    })
    .await;
    assert!(plane.beat("node-1", Vec::new()).await.drain_node);
    assert_eq!(plane.node("node-1").await.status, "Draining");
    assert_eq!(
        plane.workload("web").await.unwrap().assigned_node_id,
        "node-2"
    );
    plane.shut_down().await;
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn an_order_that_the_contract_lacks_is_answered_as_refused() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    post(&plane, "/api/v1/nodes/node-1/cleanup", "").await;
    until("refused", || async {
        let commands = get(&plane, "/api/v1/nodes/node-1/commands").await;
        (commands[0]["state"]["word"] == "failed").then_some(())
    })
    .await;
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn nothing_new_goes_to_a_runtime_that_does_not_work() {
    let plane = Fleet::new().start().await;
    let agent = Double::start().await;
    agent.behave(Manners {
        health: Some(&[("docker", "unhealthy: no socket"), ("vm", "healthy")]),
        ..Manners::default()
    });
    plane.register("node-1", &agent.endpoint()).await;
    let types = async || plane.node("node-1").await.supported_workload_types;
    until("told", || async {
        (types().await == ["compose", "vm"]).then_some(())
    })
    .await;
    plane.apply("web", "", container("busybox:1")).await;
    let why = get(&plane, "/api/v1/workloads/web/why").await.to_string();
    assert!(why.contains("no socket"), "{why}");
    agent.behave(Manners {
        health: Some(&[("docker", "healthy")]),
        ..Manners::default()
    });
    plane.register("node-1", &agent.endpoint()).await;
    plane.until_status("web", "Running").await;
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_delete_that_comes_to_nothing_is_told_by_the_agents_actions_and_tried_again() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    plane.apply("web", "", container("busybox:1")).await;
    plane.until_status("web", "Running").await;
    agent.behave(Manners {
        stuck: Some("device is busy"),
        ..Manners::default()
    });
    plane.delete("web").await;
    let deletes = |agent: &Double| {
        let calls = &agent.memory().calls;
        calls.iter().filter(|it| *it == "delete web").count()
    };
    agent.until("tried again", |it| deletes(it) > 1).await;
    let view = plane.workload("web").await.unwrap();
    assert_eq!(
        (view.status.as_str(), view.assigned_node_id.as_str()),
        ("Deleting", "node-1")
    );
    agent.behave(Manners::default());
    plane.until_gone("web").await;
    assert!(agent.states().is_empty());
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_copy_that_finds_no_runtime_goes_to_another_node() {
    let why = ("RUNTIME_NOT_AVAILABLE", "Runtime not available: no docker");
    let at_once = Manners {
        refusing: Some(why),
        ..Manners::default()
    };
    let later = Manners {
        failing: Some(why),
        ..Manners::default()
    };
    for manners in [at_once, later] {
        let plane = Fleet::new().start().await;
        let first = ready(&plane, "node-1").await;
        first.behave(manners);
        plane.apply("web", "", container("busybox:1")).await;
        until("no containers", || async {
            let types = plane.node("node-1").await.supported_workload_types;
            (types == ["compose", "vm"]).then_some(())
        })
        .await;
        plane.until_status("web", "Pending").await;
        let second = ready(&plane, "node-2").await;
        let view = plane.until_status("web", "Running").await;
        assert_eq!(view.assigned_node_id, "node-2");
        first.until("left", |it| it.states().is_empty()).await;
        plane.shut_down().await;
        first.end().await;
        second.end().await;
    }
}

#[tokio::test]
async fn what_an_agent_never_had_is_gone_although_it_remembers_a_failed_task() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    agent.behave(Manners {
        refusing: Some(("STORAGE_FULL", "no space")),
        is_haunted: true,
        ..Manners::default()
    });
    plane.apply("web", "", container("busybox:1")).await;
    plane.until_status("web", "Failed").await;
    plane.delete("web").await;
    plane.until_gone("web").await;
    plane.shut_down().await;
    agent.end().await;
}

/// Passes connections on to `to`; those that are open when `mute` becomes true carry nothing from then on.
async fn relay(listener: TcpListener, to: SocketAddr, mute: watch::Receiver<bool>, tasks: Tasks) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut muted = mute.clone();
        let was_muted = *muted.borrow();
        let passed = async move {
            let mut far = TcpStream::connect(to).await.unwrap();
            let silence = async {
                if was_muted || muted.wait_for(|muted| *muted).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                () = silence => {}
            }
            std::future::pending().await
        };
        tasks.spawn_until_stop("relayed", passed);
    }
}

#[tokio::test]
async fn a_connection_that_went_silent_is_given_up_for_a_new_one() {
    let plane = Fleet::new().start().await;
    let agent = Double::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let (mute, muted) = watch::channel(false);
    let tasks = Tasks::new();
    let relayed = relay(listener, agent.addr, muted, tasks.clone());
    tasks.spawn_until_stop("relay", relayed);
    plane.register("node-1", &endpoint).await;
    plane.apply("web", "", container("busybox:1")).await;
    plane.until_status("web", "Running").await;
    mute.send_replace(true);
    plane.apply("second", "", container("busybox:1")).await;
    plane.until_status("second", "Running").await;
    plane.shut_down().await;
    tasks.shut_down(DEADLINE).await.unwrap();
    agent.end().await;
}

/// `{"vcpus":2,"memory_mb":256,"disks":[{"path":"/srv/a.qcow2","device":"vdc"}]}` in base64.
const MACHINE: &str = "eyJ2Y3B1cyI6MiwibWVtb3J5X21iIjoyNTYsImRpc2tzIjpbeyJwYXRoIjoiL3Nydi9hLnFjb3cyIiwiZGV2aWNlIjoidmRjIn1dfQ==";

#[tokio::test]
async fn machines_and_projects_reach_the_agent_as_they_came() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    let whole = control::WorkloadSpec {
        r#type: "vm".to_owned(),
        metadata: [("persys.vm_spec_b64".to_owned(), MACHINE.to_owned())].into(),
        workload: Some(Workload::Vm(control::VmSpec::default())),
        ..control::WorkloadSpec::default()
    };
    plane.apply("vm-1", "", whole).await;
    plane.until_status("vm-1", "Running (ip=10.0.0.9)").await;
    let told = last(&agent, "vm-1");
    assert_eq!(told.r#type(), agent::WorkloadType::Vm);
    let Some(agent::workload_spec::Spec::Vm(vm)) = told.spec.unwrap().spec else {
        panic!("a machine")
    };
    assert_eq!((vm.vcpus, vm.disks[0].path.as_str()), (2, "/srv/a.qcow2"));
    let filter = control::ListWorkloadsRequest {
        node_id: "node-1".to_owned(),
        status: "RUNNING".to_owned(),
    };
    let mut client = plane.client.clone();
    let listed = client.list_workloads(filter).await.unwrap().into_inner();
    assert_eq!(listed.workloads.len(), 1);

    let project = |source: &str, inline: &str| control::WorkloadSpec {
        r#type: "docker-compose".to_owned(),
        workload: Some(Workload::Compose(control::ComposeSpec {
            source_type: source.to_owned(),
            git_repo: "https://git.example/x".to_owned(),
            inline_yaml: inline.to_owned(),
            env: [("A".to_owned(), "b".to_owned())].into(),
            ..control::ComposeSpec::default()
        })),
        ..control::WorkloadSpec::default()
    };
    plane
        .apply("Stack", "", project("inline", "services: {}"))
        .await;
    plane.until_status("Stack", "Running").await;
    let told = last(&agent, "Stack");
    let Some(agent::workload_spec::Spec::Compose(it)) = told.spec.unwrap().spec else {
        panic!("a project")
    };
    assert_eq!(
        (
            it.project_name.as_str(),
            it.compose_yaml.as_str(),
            it.env["A"].as_str()
        ),
        ("stack", "services: {}", "b")
    );
    plane.apply("from-git", "", project("git", "")).await;
    let view = plane.until_status("from-git", "Failed").await;
    assert!(view.failure_reason.contains("git"), "{view:?}");
    assert!(agent.applied("from-git").is_empty());
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn managed_volumes_go_where_their_driver_is() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    let with = |driver: &str| {
        let mut spec = container("busybox:1");
        if let Some(Workload::Container(it)) = &mut spec.workload {
            it.managed_volumes = vec![control::ManagedVolumeSpec {
                name: "data".to_owned(),
                driver: driver.to_owned(),
                mount_path: "/data".to_owned(),
                ..control::ManagedVolumeSpec::default()
            }];
        }
        spec
    };
    plane.apply("far", "", with("nfs")).await;
    plane.apply("near", "", with("ceph_rbd")).await;
    plane.until_status("near", "Running").await;
    let why = get(&plane, "/api/v1/workloads/far/why").await.to_string();
    assert!(why.contains("has no storage driver nfs"), "{why}");
    let mut more = crate::persys_world::registration("node-1", &agent.endpoint());
    let capabilities = more.capabilities.as_mut().unwrap();
    capabilities.supported_storage_drivers = vec!["nfs".to_owned()];
    let mut client = plane.client.clone();
    client.register_node(more).await.unwrap();
    plane.until_status("far", "Running").await;
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn what_ends_is_finished_by_our_policy_and_kept_up_by_the_contracts() {
    let plane = Fleet::new().start().await;
    let agent = ready(&plane, "node-1").await;
    agent.behave(Manners {
        exits: Some(0),
        ..Manners::default()
    });
    let spec = "name: once\ncontainer: {image: 'busybox:1'}\nrestart: {policy: no}\n";
    post(&plane, "/api/v1/workloads", &spec.replace("no}", "'no'}")).await;
    until("it is finished", || async {
        let shown = get(&plane, "/api/v1/workloads/once").await;
        (shown["status"] == "finished").then_some(())
    })
    .await;
    assert_eq!(plane.workload("once").await.unwrap().status, "Stopped");
    let id = agent.states().into_keys().next().unwrap();
    let mut kept_up = container("busybox:1");
    if let Some(Workload::Container(it)) = &mut kept_up.workload {
        it.restart_policy = "no".to_owned();
    }
    plane.apply("service", "", kept_up).await;
    agent
        .until("again", |it| it.applied("service").len() > 1)
        .await;
    plane.until_status("service", "RetryPending").await;
    assert_eq!(agent.applied(&id).len(), 1, "it rests");
    plane.shut_down().await;
    agent.end().await;
}
