//! Persys's contract, from both sides: a scheduler with a state of its own, and a plain client of the node's service.

mod calling;
mod scheduler;
mod serving;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hostler_agent::persys::Persys;
use hostler_agent::{AgentConfig, StartError, Uplink};
use hostler_model::{Bytes, UnitId, Usage};
use hostler_wire::persys::agent::agent_service_client::AgentServiceClient;
use hostler_wire::persys::agent::{
    ActualState, ApplyWorkloadRequest, ApplyWorkloadResponse, ContainerSpec, DeleteWorkloadRequest,
    DeleteWorkloadResponse, DesiredState, GetWorkloadStatusRequest, ListActionsRequest,
    ListWorkloadsRequest, ResourceLimits, RestartPolicy, WorkloadSpec, WorkloadStatus,
    WorkloadType, workload_spec,
};
use tonic::Status;
use tonic::service::Routes;

use self::scheduler::Scheduler;
use crate::node::{Running, World};

/// In simulated time; reached only by what never comes true.
const PATIENCE: Duration = Duration::from_secs(600);
const GIB: u64 = 1 << 30;

/// A machine whose scheduler speaks Persys's contract.
struct Place {
    world: World,
    scheduler: Arc<Scheduler>,
}

/// An agent on it, with a plain client of its service.
struct Node {
    running: Running,
    client: AgentServiceClient<Routes>,
}

impl Place {
    fn new() -> Self {
        let world = World::new();
        *world.body.usage.lock().unwrap() = Usage {
            cpu_percent: 25.0,
            memory_used: Bytes(2 * GIB),
            disk_free: Bytes(60 * GIB),
            ..Usage::default()
        };
        let scheduler = Scheduler::start(&world.network);
        Self { world, scheduler }
    }

    async fn start(&self) -> Node {
        self.start_with(|_, _| {}).await.unwrap()
    }

    async fn start_with(
        &self,
        change: impl FnOnce(&mut AgentConfig, &mut Persys),
    ) -> Result<Node, StartError> {
        let start = |config: &mut AgentConfig| {
            let mut persys = Persys::new("node-1");
            config.server = "192.0.2.1:8085".to_owned();
            change(config, &mut persys);
            config.uplink = Uplink::Persys(persys);
        };
        let running = self.world.try_start(start).await?;
        let client = AgentServiceClient::new(running.agent.services().unwrap());
        Ok(Node { running, client })
    }

    /// The units that run now, by their generation.
    fn generations(&self) -> Vec<u64> {
        let running = self.world.machine.running().into_iter();
        running.map(|unit: UnitId| unit.generation).collect()
    }

    /// Where the node keeps its records.
    fn records(&self) -> std::path::PathBuf {
        self.world.dir.path().join("agent/persys")
    }
}

impl Node {
    async fn apply(&self, request: ApplyWorkloadRequest) -> ApplyWorkloadResponse {
        let answer = self.client.clone().apply_workload(request).await;
        answer.unwrap().into_inner()
    }

    async fn delete(&self, id: &str) -> DeleteWorkloadResponse {
        let request = DeleteWorkloadRequest { id: id.to_owned() };
        let answer = self.client.clone().delete_workload(request).await;
        answer.unwrap().into_inner()
    }

    async fn status(&self, id: &str) -> Result<WorkloadStatus, Status> {
        let request = GetWorkloadStatusRequest { id: id.to_owned() };
        let answer = self.client.clone().get_workload_status(request).await?;
        Ok(answer.into_inner().status.unwrap())
    }

    async fn list(&self, of: WorkloadType) -> Vec<String> {
        let request = ListWorkloadsRequest { r#type: of as i32 };
        let answer = self.client.clone().list_workloads(request).await.unwrap();
        let workloads = answer.into_inner().workloads.into_iter();
        workloads.map(|it| it.id).collect()
    }

    async fn actions(&self) -> Vec<String> {
        let request = ListActionsRequest::default();
        let answer = self.client.clone().list_actions(request).await.unwrap();
        let actions = answer.into_inner().actions.into_iter();
        actions
            .map(|it| format!("{} {} {}", it.action_type, it.workload_id, it.status))
            .collect()
    }

    /// Waits until the node says so of the workload.
    async fn until(&self, id: &str, state: ActualState) -> WorkloadStatus {
        let waiting = async {
            loop {
                let status = self.status(id).await.unwrap();
                if status.actual_state() == state {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(status) => status,
            Err(_) => panic!("never {state:?}: {:?}", self.status(id).await),
        }
    }

    /// Waits until the node does not know the workload any more.
    async fn until_unknown(&self, id: &str) {
        let waiting = async {
            while self.status(id).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
            "{id} is never forgotten"
        );
    }
}

/// A container that runs the program of the fake machine.
fn container(id: &str, revision: &str, program: &str) -> ApplyWorkloadRequest {
    let spec = ContainerSpec {
        image: "busybox".to_owned(),
        command: program.split(' ').map(str::to_owned).collect(),
        resources: Some(ResourceLimits {
            cpu_shares: 250,
            memory_bytes: 64 << 20,
            memory_swap_bytes: 0,
        }),
        restart_policy: Some(RestartPolicy {
            policy: "always".to_owned(),
            max_retry_count: 0,
        }),
        env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
        ..ContainerSpec::default()
    };
    ApplyWorkloadRequest {
        id: id.to_owned(),
        r#type: WorkloadType::Container as i32,
        revision_id: revision.to_owned(),
        desired_state: DesiredState::Running as i32,
        spec: Some(WorkloadSpec {
            spec: Some(workload_spec::Spec::Container(spec)),
        }),
    }
}

fn change(request: &mut ApplyWorkloadRequest) -> &mut ContainerSpec {
    match request.spec.as_mut().and_then(|spec| spec.spec.as_mut()) {
        Some(workload_spec::Spec::Container(spec)) => spec,
        other => panic!("{other:?}"),
    }
}

fn stopped(mut request: ApplyWorkloadRequest) -> ApplyWorkloadRequest {
    request.desired_state = DesiredState::Stopped as i32;
    request
}

fn once(mut request: ApplyWorkloadRequest) -> ApplyWorkloadRequest {
    change(&mut request).restart_policy = None;
    request
}
