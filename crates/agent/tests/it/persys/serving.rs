//! The node as the scheduler's runtime: a plain client against the service, with the fake machine under it.

use std::fs;
use std::time::Duration;

use futures::future::join_all;
use hostler_agent::persys::{Admission, Figures};
use hostler_agent::{AgentConfig, LedgerIo, StartError};
use hostler_model::Exit;
use hostler_model::spec::Kind;
use hostler_runtime::fake::Fault;
use hostler_wire::persys::agent::{
    ActualState, ApplyWorkloadRequest, DiskConfig, HealthCheckRequest, ListActionsRequest, VmSpec,
    WorkloadSpec, WorkloadType, workload_spec,
};
use tonic::Code;

use super::{Place, change, container, once, stopped};
use crate::control::unit;
use crate::node::serve;

const RUNNING: ActualState = ActualState::Running;

#[tokio::test(start_paused = true)]
async fn an_apply_is_accepted_at_once_and_runs_soon_after() {
    let place = Place::new();
    let node = place.start().await;
    let answer = node.apply(container("web", "r1", "serve")).await;
    assert!(answer.applied && !answer.skipped, "{answer:?}");
    let status = answer.status.unwrap();
    assert_eq!(status.actual_state(), ActualState::Pending);
    assert!(
        status.metadata["task_id"].starts_with("apply-web-"),
        "{status:?}"
    );
    assert!(["pending", "running"].contains(&status.metadata["task_status"].as_str()));

    let status = node.until("web", RUNNING).await;
    assert_eq!(
        (status.id.as_str(), status.revision_id.as_str()),
        ("web", "r1")
    );
    assert_eq!(
        (status.r#type(), status.desired_state),
        (WorkloadType::Container, 1)
    );
    assert!(status.created_at >= 1_700_000_000 && status.updated_at >= status.created_at);
    assert_eq!(status.metadata["task_status"], "completed");
    assert_eq!(status.metadata["container.image"], "busybox");
    assert_eq!(node.actions().await, ["apply_workload web completed"]);
    assert_eq!(place.generations(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_applied_is_skipped_and_a_new_one_takes_its_place() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "serve")).await;
    assert!(
        node.apply(container("web", "r1", "serve")).await.skipped,
        "also on its way"
    );
    node.until("web", RUNNING).await;
    let again = node.apply(container("web", "r1", "serve --other")).await;
    assert!(again.applied && again.skipped, "{again:?}");
    assert_eq!(place.generations(), [1]);

    let newer = node.apply(container("web", "r2", "serve")).await;
    assert!(newer.applied && !newer.skipped);
    let status = node.until("web", RUNNING).await;
    assert_eq!(status.revision_id, "r2");
    place.world.pass(Duration::from_secs(1)).await;
    assert_eq!(place.generations(), [2], "the older one is gone");
    assert_eq!(node.list(WorkloadType::Unspecified).await, ["web"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_revision_the_request_itself_tells_what_is_new() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "", "serve")).await;
    node.until("web", RUNNING).await;
    assert!(node.apply(container("web", "", "serve")).await.skipped);
    assert!(
        !node
            .apply(container("web", "", "serve --other"))
            .await
            .skipped
    );
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_makes_no_sense_is_an_answer_and_changes_nothing() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", RUNNING).await;
    let mut wrong = container("web", "r2", "serve");
    change(&mut wrong).image.clear();
    let answer = node.apply(wrong).await;
    assert!(
        !answer.applied && answer.message.contains("image"),
        "{answer:?}"
    );
    let told = answer.status.unwrap();
    assert_eq!(
        (told.actual_state(), told.revision_id.as_str()),
        (RUNNING, "r1")
    );
    assert_eq!(told.metadata["failure_reason"], "INVALID_SPECIFICATION");
    let nothing = node.apply(ApplyWorkloadRequest::default()).await;
    assert!(
        !nothing.applied && nothing.message.contains("id"),
        "{nothing:?}"
    );
    let mut odd = container("odd", "r1", "serve");
    odd.desired_state = 9;
    assert!(!node.apply(odd).await.applied);
    assert_eq!(node.until("web", RUNNING).await.revision_id, "r1");
    assert_eq!(node.list(WorkloadType::Unspecified).await, ["web"]);
    assert_eq!(place.generations(), [1]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_workload_is_not_found_by_code_and_by_words() {
    let place = Place::new();
    let node = place.start().await;
    let refused = node.status("nothing").await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("not found"));
    let answer = node.delete("nothing").await;
    assert!(
        !answer.success && answer.message.contains("not found"),
        "{answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deleted_workload_is_known_until_nothing_of_it_is_left() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "stubborn")).await;
    node.until("web", RUNNING).await;
    assert_eq!(fs::read_dir(place.records()).unwrap().count(), 1);
    assert!(node.delete("web").await.success);
    assert!(node.delete("web").await.success, "asked again");
    let told = node.status("web").await.expect("it takes its grace");
    assert_eq!(told.actual_state(), ActualState::Pending);
    assert_ne!(told.message, "running");
    node.until_unknown("web").await;
    assert_eq!(place.world.machine.running(), []);
    assert_eq!(fs::read_dir(place.records()).unwrap().count(), 0);
    let actions = node.actions().await;
    assert_eq!(
        actions,
        [
            "apply_workload web completed",
            "delete_workload web completed"
        ]
    );

    node.apply(container("web", "r1", "serve")).await;
    node.until("web", RUNNING).await;
}

#[tokio::test(start_paused = true)]
async fn what_rests_already_is_stopped_and_deleted_all_the_same() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", RUNNING).await;
    node.apply(stopped(container("web", "r1", "serve"))).await;
    node.until("web", ActualState::Stopped).await;
    node.delete("web").await;
    node.until_unknown("web").await;

    place.world.machine.fail_start(Fault::PortInUse(80), 1);
    node.apply(container("db", "r1", "serve")).await;
    node.until("db", ActualState::Failed).await;
    place.world.pass(Duration::from_secs(5)).await;
    node.apply(stopped(container("db", "r1", "serve"))).await;
    let status = node.until("db", ActualState::Stopped).await;
    assert_eq!(status.metadata["task_status"], "completed");
    node.delete("db").await;
    node.until_unknown("db").await;
    assert!(node.list(WorkloadType::Unspecified).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_outlives_the_agent() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "stubborn")).await;
    node.until("web", RUNNING).await;
    node.delete("web").await;
    node.running.stop().await;
    let node = place.start().await;
    node.until_unknown("web").await;
    assert_eq!(place.world.machine.running(), []);
}

#[tokio::test(start_paused = true)]
async fn a_workload_is_stopped_and_run_again_by_its_desired_state() {
    let place = Place::new();
    let node = place.start().await;
    let request = container("web", "r1", "serve");
    node.apply(request.clone()).await;
    node.until("web", RUNNING).await;
    let answer = node.apply(stopped(request.clone())).await;
    assert!(answer.applied && !answer.skipped);
    let status = node.until("web", ActualState::Stopped).await;
    assert_eq!(status.desired_state, 2);
    assert_eq!(place.world.machine.running(), []);
    assert!(node.apply(stopped(request.clone())).await.skipped);
    assert!(!node.apply(request).await.skipped);
    node.until("web", RUNNING).await;
    assert_eq!(place.generations(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_agent_keeps_what_was_applied_without_stopping_it() {
    let place = Place::new();
    let node = place.start().await;
    for id in ["web", "db", "cache"] {
        node.apply(container(id, "r1", "serve")).await;
        node.until(id, RUNNING).await;
    }
    node.apply(stopped(container("off", "r1", "serve"))).await;
    node.until("off", ActualState::Stopped).await;
    let running = place.world.machine.running();
    node.running.stop().await;
    assert_eq!(
        place.world.machine.running(),
        running,
        "an agent that stops stops nothing"
    );

    let node = place.start().await;
    for id in ["web", "db", "cache"] {
        assert_eq!(node.until(id, RUNNING).await.revision_id, "r1");
        assert!(node.apply(container(id, "r1", "serve")).await.skipped);
    }
    node.until("off", ActualState::Stopped).await;
    place.world.pass(Duration::from_secs(60)).await;
    assert_eq!(place.world.machine.running(), running);

    // They are restarted by their policy, as before.
    place.world.machine.crash(running[0], Exit::Signal(9));
    place.world.pass(Duration::from_secs(5)).await;
    assert_eq!(place.world.machine.running(), running);
}

#[tokio::test(start_paused = true)]
async fn the_records_alone_bring_everything_back() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", RUNNING).await;
    node.running.stop().await;
    fs::remove_dir_all(place.world.dir.path().join("agent/intent")).unwrap();
    let node = place.start().await;
    node.until("web", RUNNING).await;
    place.world.pass(Duration::from_secs(60)).await;
    assert_eq!(place.generations(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_damaged_stops_nothing_and_the_next_apply_replaces_its_unit() {
    let place = Place::new();
    let node = place.start().await;
    for id in ["web", "db", "cache"] {
        node.apply(container(id, "r1", "serve")).await;
        node.until(id, RUNNING).await;
    }
    node.running.stop().await;
    let broken = fs::read_dir(place.records()).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        fs::read_to_string(&path)
            .unwrap()
            .contains("\"web\"")
            .then_some(path)
    });
    fs::write(broken.unwrap(), "{").unwrap();
    let node = place.start().await;
    node.until("db", RUNNING).await;
    place.world.pass(Duration::from_secs(60)).await;
    assert_eq!(place.generations(), [1, 1, 1]);
    assert!(node.status("web").await.is_err());

    assert!(!node.apply(container("web", "r1", "serve")).await.skipped);
    node.until("web", RUNNING).await;
    place.world.pass(Duration::from_secs(1)).await;
    let mut generations = place.generations();
    generations.sort_unstable();
    assert_eq!(generations, [1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_no_record_refuses_the_apply_and_nothing_runs() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("db", "r1", "serve")).await;
    node.until("db", RUNNING).await;
    fs::remove_dir_all(place.records()).unwrap();
    let answer = node.apply(container("web", "r1", "serve")).await;
    assert!(
        !answer.applied && answer.message.contains("put on record"),
        "{answer:?}"
    );
    place.world.pass(Duration::from_secs(5)).await;
    assert_eq!(place.generations(), [1]);
    let told = node.status("web").await.unwrap();
    assert_eq!(
        (told.actual_state(), told.metadata["task_status"].as_str()),
        (ActualState::Failed, "failed")
    );
}

#[tokio::test(start_paused = true)]
async fn a_kind_without_a_driver_is_refused_in_the_words_that_schedulers_look_for() {
    let place = Place::new();
    let node = place.start().await;
    let mut vm = container("vm", "r1", "");
    vm.r#type = WorkloadType::Vm as i32;
    vm.spec = Some(WorkloadSpec {
        spec: Some(workload_spec::Spec::Vm(machine())),
    });
    let answer = node.apply(vm).await;
    assert!(
        !answer.applied && answer.message.contains("runtime not available"),
        "{answer:?}"
    );
    place.world.machine.set_down(Some("told to be down"));
    place.world.pass(Duration::from_secs(1)).await;
    // Something has to fail before anybody knows.
    node.apply(container("web", "r1", "serve")).await;
    place.world.pass(Duration::from_secs(1)).await;
    let answer = node.apply(container("db", "r1", "serve")).await;
    assert!(
        !answer.applied && answer.message.contains("runtime not available"),
        "{answer:?}"
    );
}

/// One with an empty disk.
fn machine() -> VmSpec {
    VmSpec {
        vcpus: 1,
        memory_mb: 256,
        disks: vec![DiskConfig {
            device: "vda".to_owned(),
            size_gb: 1,
            ..DiskConfig::default()
        }],
        ..VmSpec::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_applied_shown_with_what_is_known_of_its_guest_and_deleted() {
    let place = Place::new();
    place.world.kinds.lock().unwrap().push(Kind::Vm);
    let node = place.start().await;
    let of = |vm: VmSpec, revision: &str| ApplyWorkloadRequest {
        r#type: WorkloadType::Vm as i32,
        spec: Some(WorkloadSpec {
            spec: Some(workload_spec::Spec::Vm(vm)),
        }),
        ..container("db", revision, "")
    };
    let mut huge = machine();
    huge.cloud_init = "x".repeat((256 << 10) + 1);
    let answer = node.apply(of(huge, "r1")).await;
    assert!(!answer.applied, "{answer:?}");
    let told = &answer.status.unwrap().metadata;
    assert_eq!(told["failure_reason"], "CLOUD_INIT_INVALID");

    assert!(node.apply(of(machine(), "r1")).await.applied);
    let shown = node.until("db", RUNNING).await;
    assert_eq!(shown.metadata["vm.domain_state"], "running");
    assert_eq!(shown.r#type, WorkloadType::Vm as i32);
    // Guests are looked at from time to time.
    place.world.pass(Duration::from_secs(20)).await;
    let shown = node.status("db").await.unwrap();
    let of_guest = |key: &str| shown.metadata[key].as_str();
    assert_eq!(of_guest("vm.primary_ip"), "10.0.2.15");
    assert_eq!(of_guest("vm.ip_addresses"), "10.0.2.15");
    assert_eq!(
        of_guest("vm.mac_addresses"),
        "52:54:00:00:00:01,52:54:00:00:00:02"
    );
    assert_eq!(of_guest("vm.interfaces"), "user,br0");
    assert_eq!(of_guest("vm.domain_state_code"), "1");
    node.delete("db").await;
    node.until_unknown("db").await;
    assert!(place.world.machine.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_silent_says_nothing_about_what_runs() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", RUNNING).await;
    node.running.stop().await;
    place.world.machine.set_down(Some("told to be down"));
    let node = place.start().await;
    let status = node.until("web", ActualState::Unknown).await;
    assert_eq!(status.metadata["failure_reason"], "RUNTIME_NOT_AVAILABLE");
    place.world.machine.set_down(None);
    node.until("web", RUNNING).await;
    assert_eq!(place.generations(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_too_busy_keeps_the_workload_and_says_why_it_does_not_begin() {
    let place = Place::new();
    let node = place
        .start_with(|_, persys| {
            persys.admission = Admission {
                cpu: 20.0,
                ..Admission::default()
            }
        })
        .await
        .unwrap();
    let answer = node.apply(container("web", "r1", "serve")).await;
    assert!(
        !answer.applied && answer.message.contains("CPU"),
        "{answer:?}"
    );
    let status = node.status("web").await.unwrap();
    assert_eq!(status.actual_state(), ActualState::Failed);
    assert_eq!(status.metadata["failure_reason"], "RESOURCE_QUOTA_EXCEEDED");
    place.world.pass(Duration::from_secs(5)).await;
    assert_eq!(place.world.machine.running(), []);

    place.world.body.usage.lock().unwrap().cpu_percent = 5.0;
    place.world.pass(Duration::from_secs(5)).await;
    assert!(node.apply(container("web", "r1", "serve")).await.applied);
    node.until("web", RUNNING).await;
    place.world.body.usage.lock().unwrap().cpu_percent = 90.0;
    place.world.pass(Duration::from_secs(5)).await;
    assert!(
        node.apply(container("web", "r2", "serve")).await.applied,
        "it has its share already"
    );
}

#[tokio::test(start_paused = true)]
async fn a_passing_trouble_is_tried_again_by_the_node_itself() {
    let place = Place::new();
    let node = place.start().await;
    place.world.machine.fail_prepare(Fault::Image, 3);
    node.apply(container("web", "r1", "serve")).await;
    place.world.pass(Duration::from_millis(200)).await;
    let status = node.status("web").await.unwrap();
    assert_eq!(status.actual_state(), ActualState::Pending);
    assert_eq!(status.metadata["failure_reason"], "IMAGE_PULL_FAILED");
    assert!(status.metadata.contains_key("next_retry_time"));
    node.until("web", RUNNING).await;
    assert_eq!(place.generations(), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_keeps_failing_is_given_up_says_why_and_runs_once_it_is_applied_again() {
    let place = Place::new();
    let node = place.start().await;
    // Tries come after 0.5, 1, 2, 4 and 8 seconds: the sixth is the first after a quarter of a minute.
    place.world.machine.fail_prepare(Fault::Image, 6);
    node.apply(container("web", "r1", "serve")).await;
    let status = node.until("web", ActualState::Failed).await;
    assert_eq!(status.metadata["failure_reason"], "IMAGE_PULL_FAILED");
    assert_eq!(status.metadata["retryable"], "true");
    assert_eq!(status.metadata["task_status"], "failed");
    place.world.pass(Duration::from_secs(600)).await;
    assert_eq!(
        place.world.machine.running(),
        [],
        "whoever takes it for resting is right"
    );
    node.running.stop().await;
    let node = place.start().await;
    node.until("web", ActualState::Failed).await;
    let again = node.apply(container("web", "r1", "serve")).await;
    assert!(again.applied && !again.skipped, "{again:?}");
    node.until("web", RUNNING).await;
}

#[tokio::test(start_paused = true)]
async fn a_lasting_trouble_is_not_tried_again() {
    let place = Place::new();
    let node = place.start().await;
    place.world.machine.fail_start(Fault::PortInUse(80), 1);
    node.apply(container("web", "r1", "serve")).await;
    let status = node.until("web", ActualState::Failed).await;
    assert_eq!(status.metadata["failure_reason"], "PORT_BIND_CONFLICT");
    assert_eq!(status.metadata["retry_terminal"], "true");
    place.world.pass(Duration::from_secs(600)).await;
    assert_eq!(place.world.machine.running(), []);
}

#[tokio::test(start_paused = true)]
async fn without_a_scheduler_nothing_is_given_up() {
    let place = Place::new();
    let node = place
        .start_with(|_, persys| persys.standalone = true)
        .await
        .unwrap();
    place.world.machine.fail_prepare(Fault::Image, 8);
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", RUNNING).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_error_is_kept_for_one_that_is_told_to_stop() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(once(container("web", "r1", "exit 3"))).await;
    let failed = node.until("web", ActualState::Failed).await;
    assert_eq!(failed.metadata["container.exit_code"], "3");
    node.apply(stopped(once(container("web", "r1", "exit 3"))))
        .await;
    let status = node.until("web", ActualState::Stopped).await;
    assert!(status.message.contains("exit code 3"), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn what_ended_by_itself_is_stopped_and_the_same_revision_runs_it_again() {
    let place = Place::new();
    let node = place.start().await;
    let request = once(container("job", "r1", "exit 0"));
    node.apply(request.clone()).await;
    let status = node.until("job", ActualState::Stopped).await;
    assert_eq!(status.metadata["task_status"], "completed");
    place.world.pass(Duration::from_secs(60)).await;
    assert!(!node.apply(request).await.skipped);
    let status = node.until("job", ActualState::Stopped).await;
    assert_eq!(node.actions().await.len(), 2, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_for_one_workload_take_turns() {
    let place = Place::new();
    // The disk takes its time, so that requests could cross.
    let node = place
        .start_with(|config, _| config.ledger_io = LedgerIo::Threads)
        .await
        .unwrap();
    let requests = (0..20).map(|n| node.apply(container("web", &format!("r{n}"), "serve")));
    let answers = join_all(requests).await;
    assert!(answers.iter().all(|it| it.applied && !it.skipped));
    let status = node.until("web", RUNNING).await;
    place.world.pass(Duration::from_secs(5)).await;
    assert_eq!(place.generations(), [20], "{status:?}");
    let others = (0..50).map(|n| {
        let node = &node;
        async move { node.apply(container(&format!("w{n}"), "r1", "serve")).await }
    });
    assert!(join_all(others).await.iter().all(|it| it.applied));
    for n in 0..50 {
        node.until(&format!("w{n}"), RUNNING).await;
    }
    assert_eq!(place.world.machine.running().len(), 51);
    assert_eq!(node.list(WorkloadType::Container).await.len(), 51);
    assert!(node.list(WorkloadType::Vm).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn health_tells_each_driver_and_how_busy_the_machine_is() {
    let place = Place::new();
    let node = place.start().await;
    let ask = || async {
        node.client
            .clone()
            .health_check(HealthCheckRequest {})
            .await
            .unwrap()
            .into_inner()
    };
    let health = ask().await;
    assert!(health.healthy && !health.version.is_empty());
    assert_eq!(health.runtime_status["container"], "healthy");
    assert!(health.runtime_status["vm"].starts_with("unhealthy: "));
    let percents = (
        health.cpu_utilization,
        health.memory_utilization,
        health.disk_utilization,
    );
    assert_eq!(percents, (25.0, 25.0, 40.0));
    place.world.machine.set_down(Some("told to be down"));
    place.world.pass(Duration::from_secs(1)).await;
    assert_eq!(
        ask().await.runtime_status["container"],
        "unhealthy: told to be down"
    );
}

#[tokio::test(start_paused = true)]
async fn actions_are_listed_as_they_are_asked_for() {
    let place = Place::new();
    let node = place.start().await;
    for id in ["a", "b", "c"] {
        node.apply(container(id, "r1", "serve")).await;
        node.until(id, RUNNING).await;
    }
    node.delete("b").await;
    node.until_unknown("b").await;
    let request = ListActionsRequest {
        newest_first: true,
        limit: 2,
        ..ListActionsRequest::default()
    };
    let answer = node
        .client
        .clone()
        .list_actions(request)
        .await
        .unwrap()
        .into_inner();
    let told: Vec<_> = answer
        .actions
        .iter()
        .map(|it| (it.workload_id.as_str(), it.action_type.as_str()))
        .collect();
    assert_eq!(told, [("b", "delete_workload"), ("c", "apply_workload")]);
    let first = &answer.actions[0];
    assert!(first.ended_at >= first.started_at && first.started_at >= first.created_at);
}

#[tokio::test(start_paused = true)]
async fn figures_count_what_was_done() {
    let place = Place::new();
    let figures = Figures::default();
    assert_eq!(figures.read(), None);
    let given = figures.clone();
    let node = place
        .start_with(|_, persys| persys.figures = given)
        .await
        .unwrap();
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", RUNNING).await;
    node.apply(container("db", "r1", "serve")).await;
    node.until("db", RUNNING).await;
    node.delete("db").await;
    node.until_unknown("db").await;
    node.apply(ApplyWorkloadRequest::default()).await;
    let read = figures.read().unwrap();
    assert_eq!(read.workloads[&("Running", "container")], 1);
    assert_eq!(
        (read.created, read.deleted, read.failed, read.open),
        (2, 1, 1, 0)
    );
    assert_eq!(read.errors["INVALID_SPECIFICATION"], 1);
    assert_eq!(read.work[&("apply_workload", "completed")].count, 2);
    assert_eq!(read.work[&("delete_workload", "completed")].count, 1);
    assert!(read.runtimes["container"] && !read.runtimes["vm"]);
    assert!(read.looks > 0);
}

#[tokio::test(start_paused = true)]
async fn the_intents_of_two_control_planes_are_never_mixed() {
    let place = Place::new();
    let ours = place
        .world
        .try_start(|_: &mut AgentConfig| {})
        .await
        .unwrap();
    // The scheduler listens on the only cable, so our own control plane takes it over for a while.
    place.world.control.serve();
    place.world.control.run(unit(1, 1), &serve("web"));
    place.world.control.until_shown(unit(1, 1), "running").await;
    place
        .world
        .control
        .until("on disk", |state| !state.applied.is_empty())
        .await;
    ours.stop().await;
    let refused = place.start_with(|_, _| {}).await.err();
    assert!(
        matches!(refused, Some(StartError::Foreign { .. })),
        "{refused:?}"
    );
    assert_eq!(place.world.machine.running(), [unit(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stops_lets_go_of_its_files() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "serve")).await;
    // The client of its service lives on.
    let client = node.client.clone();
    node.running.stop().await;
    let node = place.start().await;
    node.until("web", RUNNING).await;
    drop(client);
}
