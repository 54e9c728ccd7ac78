//! The node as a client of the scheduler: registering, beating, being lost and found again.

use std::time::Duration;

use hostler_agent::AgentStatus;
use hostler_model::FailureCode;
use hostler_model::spec::Kind;
use hostler_runtime::fake::Fault;
use hostler_wire::persys::agent::{ActualState, WorkloadType};
use hostler_wire::persys::control::{self, FailureReason, control_message};

use super::{Place, container, once, stopped};
use crate::network::Weather;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// When something happened, in whole seconds.
fn at<T>(told: &[(Duration, T)]) -> Vec<u64> {
    told.iter().map(|(at, _)| at.as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_persys_node_registers_with_all_that_the_contract_asks_for() {
    let place = Place::new();
    let node = place
        .start_with(|config, persys| {
            config.labels.insert("region".to_owned(), "eu".to_owned());
            persys.version = "9.9".to_owned();
        })
        .await
        .unwrap();
    place
        .scheduler
        .until("a beat", |state| !state.beats.is_empty())
        .await;
    node.running
        .until(|status| matches!(status, AgentStatus::Registered { id } if id == "node-1"))
        .await;

    let state = place.scheduler.state();
    let (_, told) = &state.registrations[0];
    assert_eq!(state.registrations.len(), 1);
    assert_eq!(
        (told.node_id.as_str(), told.agent_version.as_str()),
        ("node-1", "9.9")
    );
    assert_eq!(told.grpc_endpoint, "198.51.100.7:50051");
    assert_eq!(
        (told.labels["os"].as_str(), told.labels["region"].as_str()),
        ("linux", "eu")
    );
    assert!(told.labels.contains_key("arch"));
    assert!(told.timestamp.is_some_and(|at| at.seconds >= 1_700_000_000));
    let has = told.capabilities.as_ref().unwrap();
    assert_eq!(
        (has.cpu_total_millicores, has.memory_total_mb),
        (4000, 8192)
    );
    assert_eq!(has.supported_workload_types, ["container"]);
    assert!(has.supported_storage_drivers.is_empty());
    let pool = &has.storage_pools[0];
    assert_eq!(
        (pool.name.as_str(), pool.r#type.as_str(), pool.total_gb),
        ("root", "local", 100)
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_heartbeat_comes_at_once_and_the_next_ones_at_the_given_interval() {
    let place = Place::new();
    place.scheduler.state().interval = 7;
    let _node = place.start().await;
    place
        .scheduler
        .until("four beats", |state| state.beats.len() == 4)
        .await;
    assert_eq!(at(&place.scheduler.state().beats), [0, 7, 14, 21]);
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_names_no_interval_hears_from_the_node_every_ten_seconds() {
    let place = Place::new();
    place.scheduler.state().interval = 0;
    let _node = place.start().await;
    place
        .scheduler
        .until("three beats", |state| state.beats.len() == 3)
        .await;
    assert_eq!(at(&place.scheduler.state().beats), [0, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_accepted_says_so_and_asks_less_and_less_often() {
    let place = Place::new();
    place.scheduler.state().refusals = 8;
    let node = place.start().await;
    node.running
        .until(|status| {
            status
                .to_string()
                .contains("does not accept this node: told to refuse")
        })
        .await;
    place
        .scheduler
        .until("a beat", |state| !state.beats.is_empty())
        .await;
    let state = place.scheduler.state();
    let waits: Vec<Duration> = state
        .registrations
        .windows(2)
        .map(|two| two[1].0 - two[0].0)
        .collect();
    assert_eq!(waits.len(), 8);
    for (wait, most) in waits.into_iter().zip([1, 2, 4, 8, 16, 30, 30, 30]) {
        let most = seconds(most);
        // The connection of each try takes a moment of its own.
        let span = most / 2..=most + Duration::from_millis(50);
        assert!(span.contains(&wait), "{wait:?} of {most:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_known_any_more_registers_again() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "serve")).await;
    place
        .scheduler
        .until("it runs", |state| {
            state.shows("web").is_some_and(|it| it.state == "Running")
        })
        .await;
    let unit = place.world.machine.running();
    place.scheduler.state().nodes.clear();
    place
        .scheduler
        .until("a second registration", |state| {
            state.registrations.len() == 2
        })
        .await;
    let beats = place.scheduler.state().beats.len();
    place
        .scheduler
        .until("beats again", |state| state.beats.len() > beats)
        .await;
    assert_eq!(place.world.machine.running(), unit);
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_was_restarted_with_nothing_is_told_everything() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", ActualState::Running).await;
    place.scheduler.die();
    place.world.pass(seconds(300)).await;
    assert_eq!(
        place.generations(),
        [1],
        "nothing stops because nobody listens"
    );
    node.apply(container("db", "r1", "serve")).await;
    node.until("db", ActualState::Running).await;
    place.scheduler.state().beats.clear();
    place.scheduler.serve();
    place
        .scheduler
        .until("both are told", |state| {
            ["web", "db"]
                .iter()
                .all(|id| state.shows(id).is_some_and(|it| it.state == "Running"))
        })
        .await;
    assert!(place.scheduler.state().nodes.contains("node-1"));
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_not_answered_in_ten_seconds_are_made_on_a_new_connection() {
    let place = Place::new();
    place.scheduler.state().is_mute = true;
    let node = place.start().await;
    node.running
        .until(|status| status.to_string().contains("no answer within 10 s"))
        .await;
    assert!(place.world.network.dials() >= 1);
    place.scheduler.state().is_mute = false;
    place
        .scheduler
        .until("a beat", |state| !state.beats.is_empty())
        .await;
    let state = place.scheduler.state();
    let wait = state.registrations[1].0 - state.registrations[0].0;
    assert!(wait >= seconds(10) && wait < seconds(12), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_that_are_lost_on_the_way_are_noticed_and_the_node_comes_back() {
    let place = Place::new();
    let node = place.start().await;
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", ActualState::Running).await;
    for weather in [Weather::Silent, Weather::Cut] {
        place.world.network.set(weather);
        node.running
            .until(|status| matches!(status, AgentStatus::Connecting { .. }))
            .await;
        place.world.pass(seconds(400)).await;
        assert_eq!(place.generations(), [1], "{weather:?}");
        let registrations = place.scheduler.state().registrations.len();
        place.world.network.set(Weather::Fair);
        place
            .scheduler
            .until("registered again", |state| {
                state.registrations.len() > registrations
            })
            .await;
        node.running
            .until(|status| matches!(status, AgentStatus::Registered { .. }))
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_runs_out_and_the_node_registers_again() {
    let place = Place::new();
    place.scheduler.state().acknowledges = false;
    let _node = place.start().await;
    place
        .scheduler
        .until("a second registration", |state| {
            state.registrations.len() == 2
        })
        .await;
    let state = place.scheduler.state();
    let wait = state.registrations[1].0 - state.registrations[0].0;
    assert!(wait >= seconds(180) && wait < seconds(182), "{wait:?}");
    let again = state.registrations[1].0;
    let before = state.beats.iter().filter(|(at, _)| *at < again);
    assert_eq!(before.count(), 3, "it beat for as long as the lease lasted");
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_whose_clock_is_behind_gives_leases_all_the_same() {
    let place = Place::new();
    place.scheduler.state().behind = seconds(3600);
    let _node = place.start().await;
    place
        .scheduler
        .until("many beats", |state| state.beats.len() == 5)
        .await;
    let state = place.scheduler.state();
    assert_eq!(state.registrations.len(), 1);
    assert_eq!(at(&state.beats), [0, 60, 120, 180, 240]);
}

#[tokio::test(start_paused = true)]
async fn time_asleep_counts_against_the_lease() {
    let place = Place::new();
    let _node = place.start().await;
    place
        .scheduler
        .until("a beat", |state| !state.beats.is_empty())
        .await;
    *place.world.body.asleep.lock().unwrap() = seconds(500);
    place
        .scheduler
        .until("registered again", |state| state.registrations.len() == 2)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_takes_nothing_new_goes_on_beating_and_takes_work_again() {
    let place = Place::new();
    let node = place.start().await;
    place
        .scheduler
        .until("a beat", |state| !state.beats.is_empty())
        .await;
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", ActualState::Running).await;
    place.scheduler.state().is_frozen = true;
    let beats = place.scheduler.state().beats.len();
    place
        .scheduler
        .until("the word to drain", |state| state.beats.len() > beats)
        .await;
    place.world.pass(seconds(1)).await;

    let refused = node.apply(container("db", "r1", "serve")).await;
    assert!(
        !refused.applied && refused.message.contains("drains this node"),
        "{refused:?}"
    );
    let refused = node.apply(container("web", "r2", "serve")).await;
    assert!(!refused.applied, "{refused:?}");
    assert!(node.status("db").await.is_err());
    assert!(node.apply(container("web", "r1", "serve")).await.skipped);
    assert_eq!(place.generations(), [1], "what runs goes on");

    // The leases of a frozen scheduler are shorter than its interval.
    place
        .scheduler
        .until("beats", |state| state.beats.len() > beats + 4)
        .await;
    assert_eq!(place.scheduler.state().registrations.len(), 1);
    assert!(
        node.apply(stopped(container("web", "r1", "serve")))
            .await
            .applied,
        "stopping is nothing new"
    );

    place.scheduler.state().is_frozen = false;
    let beats = place.scheduler.state().beats.len();
    place
        .scheduler
        .until("the word to go on", |state| state.beats.len() > beats)
        .await;
    place.world.pass(seconds(1)).await;
    assert!(node.apply(container("db", "r1", "serve")).await.applied);
    node.until("db", ActualState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_tell_what_is_promised_and_what_is_used() {
    let place = Place::new();
    let node = place.start().await;
    place
        .scheduler
        .until("a beat", |state| !state.beats.is_empty())
        .await;
    node.apply(container("web", "r1", "serve")).await;
    node.apply(container("db", "r1", "serve")).await;
    node.apply(stopped(container("off", "r1", "serve"))).await;
    node.apply(once(container("done", "r1", "exit 0"))).await;
    node.until("done", ActualState::Stopped).await;
    node.until("db", ActualState::Running).await;
    let beats = place.scheduler.state().beats.len();
    place
        .scheduler
        .until("a beat", |state| state.beats.len() > beats)
        .await;
    let state = place.scheduler.state();
    let (_, beat) = state.beats.last().unwrap();
    assert_eq!(
        (beat.node_id.as_str(), beat.timestamp.is_some()),
        ("node-1", true)
    );
    let usage = beat.usage.unwrap();
    assert_eq!(
        (usage.cpu_allocated_millicores, usage.cpu_used_millicores),
        (500, 1000)
    );
    assert_eq!(
        (usage.memory_allocated_mb, usage.memory_used_mb),
        (128, 2048)
    );
    assert_eq!((usage.disk_allocated_gb, usage.disk_used_gb), (0, 40));
    let of_web = state.shows("web").unwrap().usage.clone().unwrap();
    assert_eq!(
        (of_web.memory_bytes, of_web.r#type.as_str()),
        (1 << 20, "container")
    );
    assert!((of_web.cpu_percent - 100.0).abs() < 1.0, "{of_web:?}");
    let of_usage: Vec<&str> = beat
        .workload_usage
        .iter()
        .map(|it| it.workload_id.as_str())
        .collect();
    assert_eq!(of_usage, ["db", "web"]);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_tell_the_settled_states_by_their_names_and_why_something_failed() {
    let place = Place::new();
    place.scheduler.state().interval = 1;
    let node = place.start().await;
    place.world.machine.fail_prepare(Fault::DiskFull, 1_000);
    node.apply(container("full", "r1", "serve")).await;
    place
        .scheduler
        .until("the trouble", |state| {
            let full = state.shows("full");
            full.is_some_and(|it| it.state == "Pending" && it.reason.is_some())
        })
        .await;
    {
        let state = place.scheduler.state();
        let reason = state.shows("full").unwrap().reason.clone().unwrap();
        assert_eq!(reason.code, "STORAGE_FULL");
        assert!(reason.retryable && reason.next_retry_at.is_some());
    }
    place
        .scheduler
        .until("the failure", |state| {
            state.shows("full").is_some_and(|it| it.state == "Failed")
        })
        .await;
    {
        let state = place.scheduler.state();
        let full = state.shows("full").unwrap();
        assert_eq!(full.failure_reason(), FailureReason::StorageError);
        let reason = full.reason.as_ref().unwrap();
        assert_eq!(
            (reason.code.as_str(), reason.retryable),
            ("STORAGE_FULL", true)
        );
        assert!(reason.next_retry_at.is_none() && reason.last_transition.is_some());
        assert!(full.message.contains("no space"), "{}", full.message);
    }
    node.delete("full").await;
    node.until_unknown("full").await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_tell_each_of_the_eight_reasons_by_the_drivers_typed_error() {
    let of = Fault::Unsatisfiable;
    for (fault, reason, code) in [
        (
            Fault::Image,
            FailureReason::ImagePullFailed,
            "IMAGE_PULL_FAILED",
        ),
        (
            of(FailureCode::ImageNotFound),
            FailureReason::ImageNotFound,
            "INVALID_IMAGE",
        ),
        (
            of(FailureCode::LimitsRefused),
            FailureReason::InsufficientResources,
            "INSUFFICIENT_RESOURCES",
        ),
        (
            Fault::PortInUse(80),
            FailureReason::NetworkError,
            "PORT_BIND_CONFLICT",
        ),
        (Fault::DiskFull, FailureReason::StorageError, "STORAGE_FULL"),
        (
            Fault::Command,
            FailureReason::InvalidSpec,
            "INVALID_CONFIGURATION",
        ),
        (
            of(FailureCode::ComposeFailed),
            FailureReason::RuntimeError,
            "RUNTIME_ERROR",
        ),
        (
            of(FailureCode::VmBootFailed),
            FailureReason::VmBootFailed,
            "VM_BOOT_FAILED",
        ),
    ] {
        let place = Place::new();
        place.scheduler.state().interval = 1;
        let node = place.start().await;
        place.world.machine.fail_prepare(fault, 1_000);
        node.apply(container("web", "r1", "serve")).await;
        place
            .scheduler
            .until("the failure", |state| {
                state.shows("web").is_some_and(|it| it.state == "Failed")
            })
            .await;
        let state = place.scheduler.state();
        let web = state.shows("web").unwrap();
        assert_eq!(web.failure_reason(), reason);
        assert_eq!(web.reason.as_ref().unwrap().code, code);
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_follow_a_workload_from_running_to_stopped() {
    let place = Place::new();
    place.scheduler.state().interval = 1;
    let node = place.start().await;
    let told = |state: &'static str| {
        move |it: &super::scheduler::State| it.shows("web").is_some_and(|it| it.state == state)
    };
    node.apply(container("web", "r1", "serve")).await;
    place.scheduler.until("running", told("Running")).await;
    node.apply(stopped(container("web", "r1", "serve"))).await;
    place.scheduler.until("stopped", told("Stopped")).await;
    node.apply(once(container("web", "r2", "exit 3"))).await;
    place.scheduler.until("failed", told("Failed")).await;
    let state = place.scheduler.state();
    let web = state.shows("web").unwrap();
    assert_eq!(web.failure_reason(), FailureReason::RuntimeError);
    assert!(web.message.contains("exit code 3"), "{}", web.message);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_do_not_wait_for_an_engine_that_does_not_answer() {
    let place = Place::new();
    place.scheduler.state().interval = 5;
    let node = place.start().await;
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", ActualState::Running).await;
    place.world.machine.set_preparation_time(seconds(10_000));
    node.apply(container("slow", "r1", "serve")).await;
    place.world.machine.set_down(Some("told to be down"));
    let from = place.scheduler.state().beats.len();
    place
        .scheduler
        .until("beats", |state| state.beats.len() > from + 5)
        .await;
    let state = place.scheduler.state();
    let times = at(&state.beats[from..]);
    assert!(
        times.windows(2).all(|two| two[1] - two[0] == 5),
        "{times:?}"
    );
    assert_eq!(state.registrations.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_begins_to_work_is_told_by_registering_again() {
    let place = Place::new();
    place.world.machine.set_down(Some("told to be down"));
    let _node = place.start().await;
    place
        .scheduler
        .until("a beat", |state| !state.beats.is_empty())
        .await;
    place.world.machine.set_down(None);
    place
        .scheduler
        .until("registered again", |state| state.registrations.len() == 2)
        .await;
    let state = place.scheduler.state();
    let types = |n: usize| {
        let capabilities = state.registrations[n].1.capabilities.clone();
        capabilities.unwrap().supported_workload_types
    };
    assert!(types(0).is_empty());
    assert_eq!(types(1), ["container"]);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_does_not_say_what_it_can_do_delays_the_registration_a_little() {
    let place = Place::new();
    place.world.kinds.lock().unwrap().push(Kind::Compose);
    place.world.machine.set_mute(Kind::Compose, true);
    let _node = place.start().await;
    let first = place
        .scheduler
        .until("registered", |state| !state.registrations.is_empty());
    tokio::time::timeout(seconds(5), first).await.unwrap();
    place.world.machine.set_mute(Kind::Compose, false);
    place
        .scheduler
        .until("registered again", |state| state.registrations.len() == 2)
        .await;
    let state = place.scheduler.state();
    let types = |n: usize| {
        let capabilities = state.registrations[n].1.capabilities.clone();
        capabilities.unwrap().supported_workload_types
    };
    assert_eq!(
        (types(0), types(1)),
        (
            vec!["container".to_owned()],
            vec!["container".to_owned(), "compose".to_owned()]
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_driver_without_its_program_is_told_once_it_has_it_and_not_before() {
    let place = Place::new();
    place.world.kinds.lock().unwrap().push(Kind::Compose);
    let machine = &place.world.machine;
    machine.set_lack(Kind::Compose, Some("there is no program"));
    let _node = place.start().await;
    place
        .scheduler
        .until("beats", |state| state.beats.len() == 5)
        .await;
    assert_eq!(place.scheduler.state().registrations.len(), 1);
    machine.set_lack(Kind::Compose, None);
    place
        .scheduler
        .until("registered again", |state| state.registrations.len() == 2)
        .await;
    let capabilities = place.scheduler.state().registrations[1]
        .1
        .capabilities
        .clone();
    let types = capabilities.unwrap().supported_workload_types;
    assert_eq!(types, ["container", "compose"]);
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_without_a_control_stream_is_a_normal_one() {
    let place = Place::new();
    let _node = place
        .start_with(|_, persys| persys.control_stream = true)
        .await
        .unwrap();
    place
        .scheduler
        .until("beats", |state| state.beats.len() == 3)
        .await;
    let state = place.scheduler.state();
    assert_eq!((state.registrations.len(), state.stream_calls), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_control_stream_is_left_alone_unless_it_is_asked_for() {
    let place = Place::new();
    place.scheduler.state().has_stream = true;
    let _node = place.start().await;
    place
        .scheduler
        .until("beats", |state| state.beats.len() == 3)
        .await;
    assert_eq!(place.scheduler.state().stream_calls, 0);
}

#[tokio::test(start_paused = true)]
async fn what_comes_on_the_control_stream_is_carried_out() {
    let place = Place::new();
    place.scheduler.state().has_stream = true;
    let node = place
        .start_with(|_, persys| persys.control_stream = true)
        .await
        .unwrap();
    place
        .scheduler
        .until("a stream", |state| !state.streams.is_empty())
        .await;
    place
        .scheduler
        .until("a repeated heartbeat", |state| state.streamed.len() >= 3)
        .await;
    assert_eq!(
        place.scheduler.state().streamed[..3],
        ["register", "heartbeat", "heartbeat"]
    );
    let container = control::ContainerSpec {
        image: "busybox".to_owned(),
        command: vec!["serve".to_owned()],
        ..control::ContainerSpec::default()
    };
    place.scheduler.send(control_message::Message::Apply(
        control::ApplyWorkloadRequest {
            workload_id: "web".to_owned(),
            revision_id: "r1".to_owned(),
            desired_state: "Running".to_owned(),
            spec: Some(control::WorkloadSpec {
                r#type: "container".to_owned(),
                workload: Some(control::workload_spec::Workload::Container(container)),
                ..control::WorkloadSpec::default()
            }),
        },
    ));
    while node.status("web").await.is_err() {
        place.world.pass(Duration::from_millis(50)).await;
    }
    node.until("web", ActualState::Running).await;
    place.scheduler.send(control_message::Message::Delete(
        control::DeleteWorkloadRequest {
            workload_id: "web".to_owned(),
        },
    ));
    node.until_unknown("web").await;
    assert_eq!(place.world.machine.running(), []);
}

#[tokio::test(start_paused = true)]
async fn a_compose_project_runs_where_its_driver_is_inline_and_out_of_a_repository() {
    let place = Place::new();
    place.world.kinds.lock().unwrap().push(Kind::Compose);
    place.scheduler.state().has_stream = true;
    let node = place
        .start_with(|_, persys| persys.control_stream = true)
        .await
        .unwrap();
    place
        .scheduler
        .until("a stream", |state| !state.streams.is_empty())
        .await;
    let send = |id: &str, project: control::ComposeSpec| {
        let spec = control::WorkloadSpec {
            r#type: "compose".to_owned(),
            workload: Some(control::workload_spec::Workload::Compose(project)),
            ..control::WorkloadSpec::default()
        };
        let apply = control::ApplyWorkloadRequest {
            workload_id: id.to_owned(),
            revision_id: "r1".to_owned(),
            desired_state: "Running".to_owned(),
            spec: Some(spec),
        };
        place.scheduler.send(control_message::Message::Apply(apply));
    };
    send(
        "inline",
        control::ComposeSpec {
            inline_yaml: "services: {web: {image: a}}".to_owned(),
            ..control::ComposeSpec::default()
        },
    );
    send(
        "from-git",
        control::ComposeSpec {
            source_type: "git".to_owned(),
            git_repo: "https://git.example/shop".to_owned(),
            git_ref: "v1".to_owned(),
            ..control::ComposeSpec::default()
        },
    );
    for id in ["inline", "from-git"] {
        while node.status(id).await.is_err() {
            place.world.pass(Duration::from_millis(50)).await;
        }
        node.until(id, ActualState::Running).await;
    }
    let mut listed = node.list(WorkloadType::Compose).await;
    listed.sort();
    assert_eq!(listed, ["from-git", "inline"]);
}

#[tokio::test(start_paused = true)]
async fn a_standalone_node_calls_nobody_and_serves() {
    let place = Place::new();
    let node = place
        .start_with(|_, persys| persys.standalone = true)
        .await
        .unwrap();
    node.apply(container("web", "r1", "serve")).await;
    node.until("web", ActualState::Running).await;
    place.world.pass(seconds(300)).await;
    assert_eq!(place.world.network.dials(), 0);
    node.running.stop().await;
}
