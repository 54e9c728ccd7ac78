//! The control stream: optional, and answered with Unimplemented by most schedulers, which is fine.
//!
//! Registration and heartbeats go on as calls, and are repeated here. What a scheduler sends is carried out as if it had
//! called the node's service; the stream has no answers, so heartbeats tell what came of it.

use std::convert::Infallible;
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use hostler_wire::persys::agent;
use hostler_wire::persys::control::agent_control_client::AgentControlClient;
use hostler_wire::persys::control::control_message::Message;
use hostler_wire::persys::control::workload_spec::Workload;
use hostler_wire::persys::control::{self, ControlMessage, HeartbeatRequest, RegisterNodeRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::core::Core;
use super::host::MIB;
use super::spec;
use crate::uplink::channel::failure;

/// Opens the stream and does what comes on it; never completes, because the calls go on without it.
pub(super) async fn listen(
    core: &Arc<Core>,
    mut scheduler: AgentControlClient<Channel>,
    (request, heartbeats): (RegisterNodeRequest, mpsc::Receiver<HeartbeatRequest>),
) -> Infallible {
    let first = ControlMessage {
        message: Some(Message::Register(request)),
    };
    let repeated = ReceiverStream::new(heartbeats).map(|heartbeat| ControlMessage {
        message: Some(Message::Heartbeat(heartbeat)),
    });
    let outbound = stream::iter([first]).chain(repeated);
    match scheduler.control_stream(outbound).await {
        Ok(answer) => {
            let mut inbound = answer.into_inner();
            while let Ok(Some(received)) = inbound.message().await {
                take(core, received).await;
            }
            tracing::debug!("the control stream has ended; calls go on");
        }
        Err(status) if status.code() == tonic::Code::Unimplemented => {
            tracing::debug!("the scheduler has no control stream; calls go on");
        }
        Err(status) => {
            tracing::warn!(reason = failure(&status), "no control stream; calls go on");
        }
    }
    std::future::pending().await
}

async fn take(core: &Arc<Core>, received: ControlMessage) {
    let Some(order) = received.message else {
        return;
    };
    let taking = Arc::clone(core);
    // The next one waits for it; the stream may break off.
    core.finish(async move { carry_out(&taking, order).await })
        .await;
}

async fn carry_out(core: &Core, order: Message) {
    match order {
        Message::Apply(request) if wants(&request.desired_state) == Wants::Deleted => {
            core.delete(&request.workload_id).await;
        }
        Message::Apply(request) => {
            core.apply(applied(request)).await;
        }
        Message::Delete(request) => {
            core.delete(&request.workload_id).await;
        }
        // These are for a scheduler.
        Message::Register(_) | Message::Heartbeat(_) => {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Running,
    Stopped,
    Deleted,
}

/// Anything else than a stop and a deletion means that it is to run.
fn wants(desired: &str) -> Wants {
    match desired.to_ascii_lowercase().as_str() {
        "stopped" | "stop" => Wants::Stopped,
        "deleted" | "delete" => Wants::Deleted,
        _ => Wants::Running,
    }
}

/// A request of the control contract as one of the agent's.
fn applied(request: control::ApplyWorkloadRequest) -> agent::ApplyWorkloadRequest {
    let desired = match wants(&request.desired_state) {
        Wants::Stopped => agent::DesiredState::Stopped,
        Wants::Running | Wants::Deleted => agent::DesiredState::Running,
    };
    let spec = request.spec.and_then(|spec| {
        let control::WorkloadSpec {
            resources,
            workload,
            metadata,
            ..
        } = spec;
        let spec = match workload? {
            Workload::Container(theirs) => {
                agent::workload_spec::Spec::Container(container(theirs, resources, metadata))
            }
            Workload::Compose(theirs) => agent::workload_spec::Spec::Compose(agent::ComposeSpec {
                project_name: String::new(),
                compose_yaml: if theirs.source_type.trim().eq_ignore_ascii_case("git") {
                    spec::from_git(&theirs.git_repo, &theirs.git_ref)
                } else {
                    theirs.inline_yaml
                },
                env: theirs.env,
            }),
            Workload::Vm(_) => agent::workload_spec::Spec::Vm(agent::VmSpec::default()),
        };
        Some(agent::WorkloadSpec { spec: Some(spec) })
    });
    agent::ApplyWorkloadRequest {
        id: request.workload_id,
        r#type: agent::WorkloadType::Unspecified as i32,
        revision_id: request.revision_id,
        desired_state: desired as i32,
        spec,
    }
}

fn container(
    theirs: control::ContainerSpec,
    resources: Option<control::ResourceRequirements>,
    labels: std::collections::BTreeMap<String, String>,
) -> agent::ContainerSpec {
    let volume = |it: control::VolumeMount| agent::VolumeMount {
        host_path: it.host_path,
        container_path: it.container_path,
        read_only: it.read_only,
    };
    let port = |it: control::Port| agent::PortMapping {
        host_port: it.host_port,
        container_port: it.container_port,
        protocol: it.protocol,
    };
    let managed = |it: control::ManagedVolumeSpec| agent::ManagedVolumeSpec {
        name: it.name,
        driver: it.driver,
        size_gb: it.size_gb,
        access_mode: it.access_mode,
        fs_type: it.fs_type,
        mount_path: it.mount_path,
        read_only: it.read_only,
        retain_policy: it.retain_policy,
    };
    agent::ContainerSpec {
        image: theirs.image,
        command: theirs.command,
        args: Vec::new(),
        env: theirs.env,
        volumes: theirs.volumes.into_iter().map(volume).collect(),
        ports: theirs.ports.into_iter().map(port).collect(),
        resources: resources.map(|it| agent::ResourceLimits {
            cpu_shares: it.cpu_millicores,
            memory_bytes: it
                .memory_mb
                .saturating_mul(i64::try_from(MIB).unwrap_or(i64::MAX)),
            memory_swap_bytes: 0,
        }),
        restart_policy: Some(agent::RestartPolicy {
            policy: theirs.restart_policy,
            max_retry_count: 0,
        }),
        labels,
        managed_volumes: theirs.managed_volumes.into_iter().map(managed).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use futures::FutureExt as _;
    use hostler_kit::{SystemClock, SystemEntropy, Tasks};
    use tokio::sync::watch;

    use super::super::{Persys, records};
    use super::*;
    use crate::config::{AgentConfig, Parts};
    use crate::reconcile::Handle;
    use crate::show::Picture;

    /// Records are written, and no reconciler follows them.
    fn core(dir: &std::path::Path) -> Arc<Core> {
        records::make_dir(dir).unwrap();
        let config = AgentConfig::new("127.0.0.1:1", dir);
        let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy));
        let parts = Parts::new(Vec::new(), clock, entropy, Tasks::new());
        let (picture, runtimes) = (
            watch::channel(Arc::new(Picture::default())).1,
            Arc::default(),
        );
        let handle = Handle {
            tuned: crate::tuning::Tuned::untouched(),
            abilities: crate::probe::start(&parts.tasks, &runtimes, &picture),
            figures: tokio::sync::watch::channel(Arc::default()).1,
            inputs: mpsc::channel(16).0,
            picture,
            runtimes,
            pressure: watch::channel(None).1,
            care: crate::care::Sights::unseen(),
            guardian: Arc::new(crate::permit::Guardian::new(crate::GuardFile::Nowhere)),
            vault: crate::vault::Vault::default(),
        };
        let alive = Arc::new(watch::Sender::new(()));
        let core = Core::new(config, Persys::new("node-1"), parts, handle, alive);
        core.has_begun.send_replace(true);
        Arc::new(core)
    }

    #[tokio::test]
    async fn an_order_is_carried_out_although_its_stream_breaks_off() {
        let dir = tempfile::tempdir().unwrap();
        let core = core(dir.path());
        let container = control::ContainerSpec {
            image: "nginx".to_owned(),
            ..control::ContainerSpec::default()
        };
        let order = Message::Apply(control::ApplyWorkloadRequest {
            workload_id: "web".to_owned(),
            desired_state: "Stopped".to_owned(),
            spec: Some(control::WorkloadSpec {
                workload: Some(Workload::Container(container)),
                ..control::WorkloadSpec::default()
            }),
            ..control::ApplyWorkloadRequest::default()
        });
        let message = Some(order);
        let taken = take(&core, ControlMessage { message }).now_or_never();
        assert_eq!(taken, None, "the disk takes its time");
        let kept = async {
            while core.workload("web").is_none() {
                tokio::task::yield_now().await;
            }
        };
        let kept = tokio::time::timeout(Duration::from_secs(60), kept).await;
        assert_eq!(kept, Ok(()), "it is on disk and nobody knows");
    }

    #[test]
    fn a_spec_of_the_control_contract_is_taken_over_field_by_field() {
        let theirs = control::ContainerSpec {
            image: "nginx".to_owned(),
            command: vec!["serve".to_owned()],
            restart_policy: "always".to_owned(),
            ports: vec![control::Port {
                host_port: 8080,
                container_port: 80,
                protocol: "udp".to_owned(),
            }],
            ..control::ContainerSpec::default()
        };
        let request = applied(control::ApplyWorkloadRequest {
            workload_id: "web".to_owned(),
            revision_id: "r1".to_owned(),
            desired_state: "STOP".to_owned(),
            spec: Some(control::WorkloadSpec {
                resources: Some(control::ResourceRequirements {
                    cpu_millicores: 500,
                    memory_mb: 64,
                    disk_gb: 1,
                }),
                workload: Some(Workload::Container(theirs)),
                metadata: BTreeMap::from([("team".to_owned(), "shop".to_owned())]),
                ..control::WorkloadSpec::default()
            }),
        });
        assert_eq!((request.id.as_str(), request.desired_state), ("web", 2));
        let (_, spec) = super::super::spec::read(&request).unwrap();
        assert_eq!(spec.resources.cpu.0, 500);
        assert_eq!(spec.resources.memory.0, 64 << 20);
        assert_eq!(spec.ports[0].protocol, hostler_model::spec::Protocol::Udp);
        assert_eq!(spec.container.unwrap().labels["team"], "shop");
        assert_eq!(wants(""), Wants::Running);
        assert_eq!(wants("Deleted"), Wants::Deleted);
    }
}
