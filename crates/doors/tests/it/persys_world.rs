//! A control plane with Persys's two ports, and a scripted agent that keeps what it is told.
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions, not in what they share"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hostler_control::fleet::LeaseRules;
use hostler_control::{Control, ControlConfig, Parts};
use hostler_doors::{Dialect, Listener, serve};
use hostler_kit::{Clock, Entropy, SystemClock, SystemEntropy, Tasks};
use hostler_store::MemoryStore;
use hostler_wire::persys::agent::agent_service_server::{AgentService, AgentServiceServer};
use hostler_wire::persys::agent::{
    ActualState, AgentAction, ApplyWorkloadRequest, ApplyWorkloadResponse, DeleteWorkloadRequest,
    DeleteWorkloadResponse, DesiredState, GetWorkloadStatusRequest, GetWorkloadStatusResponse,
    HealthCheckRequest, HealthCheckResponse, ListActionsRequest, ListActionsResponse,
    ListWorkloadsRequest, ListWorkloadsResponse, WorkloadStatus, WorkloadType,
};
use hostler_wire::persys::control::agent_control_client::AgentControlClient;
use hostler_wire::persys::control::{
    self, GetNodeRequest, GetWorkloadRequest, HeartbeatRequest, NodeView, RegisterNodeRequest,
    WorkloadView, workload_spec::Workload,
};
use prost::Message as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::server::DEADLINE;

/// One fleet: its store outlives control planes.
pub(crate) struct Fleet {
    store: Arc<MemoryStore>,
    clock: Arc<dyn Clock>,
    config: ControlConfig,
}

/// A control plane that serves.
pub(crate) struct Plane {
    pub(crate) control: Control,
    pub(crate) client: AgentControlClient<Channel>,
    pub(crate) grpc: SocketAddr,
    pub(crate) figures: SocketAddr,
    pub(crate) main: SocketAddr,
    tasks: Tasks,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        Self::with(ControlConfig::default())
    }

    /// Heartbeats that are silent for three seconds lose their node.
    pub(crate) fn hasty() -> Self {
        let seconds = Duration::from_secs;
        let mut config = ControlConfig {
            reconnect: seconds(3),
            ..ControlConfig::default()
        };
        config.foreign.persys = LeaseRules {
            beat: seconds(1),
            window: seconds(3),
            suspect_after: seconds(2),
            most: seconds(6),
        };
        Self::with(config)
    }

    fn with(config: ControlConfig) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let store = Arc::new(MemoryStore::new(Arc::clone(&clock)));
        Self {
            store,
            clock,
            config,
        }
    }

    pub(crate) async fn start(&self) -> Plane {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let tasks = Tasks::new();
        let parts = Parts {
            store: self.store.clone(),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&entropy),
            tasks: tasks.clone(),
        };
        let control = Control::start(self.config.clone(), parts).await.unwrap();
        let doors = hostler_doors::Parts::new(&control, &entropy);
        let mut addrs = Vec::new();
        for dialect in [Dialect::Persys, Dialect::PersysFigures, Dialect::Hostler] {
            let bound = Listener::plain(([127, 0, 0, 1], 0).into())
                .bind()
                .await
                .unwrap();
            addrs.push(bound.addr());
            let served = serve(bound, doors.router(dialect), tasks.clone());
            tasks.spawn("listener", served);
        }
        Plane {
            control,
            client: client(&format!("http://{}", addrs[0])).await,
            grpc: addrs[0],
            figures: addrs[1],
            main: addrs[2],
            tasks,
        }
    }
}

pub(crate) async fn client(url: &str) -> AgentControlClient<Channel> {
    AgentControlClient::connect(url.to_owned()).await.unwrap()
}

impl Plane {
    pub(crate) async fn shut_down(self) {
        let ended = self.tasks.shut_down(DEADLINE).await;
        assert_eq!(ended, Ok(()), "every task ends");
    }

    pub(crate) async fn register(&self, id: &str, endpoint: &str) {
        let answer = self
            .client
            .clone()
            .register_node(registration(id, endpoint))
            .await
            .unwrap()
            .into_inner();
        assert!(answer.accepted, "{}", answer.reason);
    }

    pub(crate) async fn beat(
        &self,
        id: &str,
        statuses: Vec<control::WorkloadStatus>,
    ) -> control::HeartbeatResponse {
        let request = HeartbeatRequest {
            workload_statuses: statuses,
            ..beat_of(id)
        };
        let mut client = self.client.clone();
        client.heartbeat(request).await.unwrap().into_inner()
    }

    pub(crate) async fn apply(&self, id: &str, revision: &str, spec: control::WorkloadSpec) {
        let request = control::ApplyWorkloadRequest {
            workload_id: id.to_owned(),
            spec: Some(spec),
            revision_id: revision.to_owned(),
            desired_state: String::new(),
        };
        self.applied(request).await;
    }

    /// Changes the desired state alone.
    pub(crate) async fn desire(&self, id: &str, desired: &str) {
        let request = control::ApplyWorkloadRequest {
            workload_id: id.to_owned(),
            desired_state: desired.to_owned(),
            ..control::ApplyWorkloadRequest::default()
        };
        self.applied(request).await;
    }

    async fn applied(&self, request: control::ApplyWorkloadRequest) {
        let mut client = self.client.clone();
        let answer = client.apply_workload(request).await.unwrap().into_inner();
        assert!(answer.success, "{}", answer.error_message);
    }

    pub(crate) async fn delete(&self, id: &str) {
        let workload_id = id.to_owned();
        let mut client = self.client.clone();
        let answer = client
            .delete_workload(control::DeleteWorkloadRequest { workload_id })
            .await
            .unwrap()
            .into_inner();
        assert!(answer.success, "{}", answer.error_message);
    }

    pub(crate) async fn workload(&self, id: &str) -> Result<WorkloadView, Status> {
        let workload_id = id.to_owned();
        let mut client = self.client.clone();
        let answer = client
            .get_workload(GetWorkloadRequest { workload_id })
            .await?;
        Ok(answer.into_inner().workload.unwrap())
    }

    pub(crate) async fn node(&self, id: &str) -> NodeView {
        let node_id = id.to_owned();
        let mut client = self.client.clone();
        let answer = client.get_node(GetNodeRequest { node_id }).await.unwrap();
        answer.into_inner().node.unwrap()
    }

    pub(crate) async fn until_workload(
        &self,
        id: &str,
        what: impl Fn(&WorkloadView) -> bool,
    ) -> WorkloadView {
        until(id, || async {
            let view = self.workload(id).await.ok()?;
            what(&view).then_some(view)
        })
        .await
    }

    pub(crate) async fn until_status(&self, id: &str, status: &str) -> WorkloadView {
        let seen = Mutex::new(String::new());
        let asking = async {
            loop {
                let view = self.workload(id).await.unwrap();
                if view.status == status {
                    return view;
                }
                *seen.lock().unwrap() = format!("{view:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(DEADLINE, asking).await {
            Ok(view) => view,
            Err(_) => panic!("{id} never was {status}: {}", seen.lock().unwrap()),
        }
    }

    pub(crate) async fn until_node(&self, id: &str, status: &str) -> NodeView {
        until(&format!("{id} {status}"), || async {
            let view = self.node(id).await;
            (view.status == status).then_some(view)
        })
        .await
    }

    /// Waits until the workload is no more.
    pub(crate) async fn until_gone(&self, id: &str) {
        until(id, || async { self.workload(id).await.err() }).await;
    }
}

/// Asks until there is an answer.
pub(crate) async fn until<T, F>(what: &str, ask: impl Fn() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answered = tokio::time::timeout(DEADLINE, asking).await;
    answered.unwrap_or_else(|_| panic!("never: {what}"))
}

pub(crate) fn registration(id: &str, endpoint: &str) -> RegisterNodeRequest {
    RegisterNodeRequest {
        node_id: id.to_owned(),
        capabilities: Some(control::NodeCapabilities {
            cpu_total_millicores: 4_000,
            memory_total_mb: 8_192,
            storage_pools: vec![control::StoragePool {
                name: "root".to_owned(),
                r#type: "local".to_owned(),
                total_gb: 100,
            }],
            supported_workload_types: vec![
                "docker-container".to_owned(),
                "COMPOSE".to_owned(),
                "vm".to_owned(),
                "container".to_owned(),
            ],
            supported_storage_drivers: vec!["ceph_rbd".to_owned()],
        }),
        labels: [("region".to_owned(), "eu".to_owned())].into(),
        agent_version: "1.2.3".to_owned(),
        grpc_endpoint: endpoint.to_owned(),
        cluster_id: "cluster-7".to_owned(),
        timestamp: None,
    }
}

pub(crate) fn beat_of(id: &str) -> HeartbeatRequest {
    HeartbeatRequest {
        node_id: id.to_owned(),
        ..HeartbeatRequest::default()
    }
}

pub(crate) fn container(image: &str) -> control::WorkloadSpec {
    control::WorkloadSpec {
        r#type: "container".to_owned(),
        resources: Some(control::ResourceRequirements {
            cpu_millicores: 100,
            memory_mb: 64,
            disk_gb: 0,
        }),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
        workload: Some(Workload::Container(control::ContainerSpec {
            image: image.to_owned(),
            command: vec!["sleep".to_owned(), "inf".to_owned()],
            env: [("A".to_owned(), "b".to_owned())].into(),
            restart_policy: "always".to_owned(),
            ..control::ContainerSpec::default()
        })),
    }
}

/// How an agent behaves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// Applies and deletes are queued: they take effect after so many looks at the workload.
    pub(crate) queue: u32,
    /// What it does not know is told by text only, with the code Unknown.
    pub(crate) by_text: bool,
    /// The next applies fail with this code and message.
    pub(crate) failing: Option<(&'static str, &'static str)>,
    /// The same, told in the answer instead of the status.
    pub(crate) refusing: Option<(&'static str, &'static str)>,
    /// What comes to run says that its state is not known.
    pub(crate) is_vague: bool,
    /// What runs ends at once with this exit code.
    pub(crate) exits: Option<i32>,
    /// Deletes are taken and come to nothing for now, for this reason.
    pub(crate) stuck: Option<&'static str>,
    /// Of what it does not know it says that its last task failed.
    pub(crate) is_haunted: bool,
    /// What it says of its runtimes; none has no such call.
    pub(crate) health: Option<&'static [(&'static str, &'static str)]>,
}

#[derive(Debug, Clone)]
struct Kept {
    status: WorkloadStatus,
    /// Looks until `next` is true.
    waits: u32,
    next: Option<ActualState>,
    is_going: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    kept: BTreeMap<String, Kept>,
    pub(crate) manners: Manners,
    /// Each apply as its bytes.
    pub(crate) applied: Vec<(String, Vec<u8>)>,
    /// Each call with its id.
    pub(crate) calls: Vec<String>,
    /// How often it was asked for everything.
    pub(crate) lists: u32,
}

/// A stateful double of an agent. Its memory outlives its server.
pub(crate) struct Double {
    pub(crate) addr: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    place: TcpSocket,
    tasks: Tasks,
}

/// An agent whose server was taken away.
pub(crate) struct Gone {
    pub(crate) addr: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    /// Bound to the address and deaf, so that nobody else is given its port meanwhile.
    place: TcpSocket,
}

struct Served(Arc<Mutex<Memory>>);

impl Double {
    pub(crate) async fn start() -> Self {
        let place = TcpSocket::new_v4().unwrap();
        place.set_reuseaddr(true).unwrap();
        place.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self::over(Arc::default(), place).await
    }

    async fn over(memory: Arc<Mutex<Memory>>, place: TcpSocket) -> Self {
        let addr = place.local_addr().unwrap();
        let listener = TcpListener::bind(addr).await.unwrap();
        let tasks = Tasks::new();
        let stop = tasks.token().clone();
        let service = AgentServiceServer::new(Served(Arc::clone(&memory)));
        tasks.spawn("agent double", async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(
                    TcpListenerStream::new(listener),
                    stop.cancelled_owned(),
                )
                .await
                .unwrap();
        });
        Self {
            addr,
            memory,
            place,
            tasks,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.addr.to_string()
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    pub(crate) fn behave(&self, manners: Manners) {
        self.memory().manners = manners;
    }

    pub(crate) fn states(&self) -> BTreeMap<String, ActualState> {
        let memory = self.memory();
        let states = memory.kept.iter();
        states
            .map(|(id, kept)| (id.clone(), kept.status.actual_state()))
            .collect()
    }

    /// What was applied under the id, as bytes.
    pub(crate) fn applied(&self, id: &str) -> Vec<Vec<u8>> {
        let memory = self.memory();
        let of_id = memory.applied.iter().filter(|(known, _)| known == id);
        of_id.map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Puts a workload there that nobody applied.
    pub(crate) fn plant(&self, id: &str) {
        let status = WorkloadStatus {
            id: id.to_owned(),
            actual_state: ActualState::Running as i32,
            ..WorkloadStatus::default()
        };
        let kept = Kept {
            status,
            waits: 0,
            next: None,
            is_going: false,
        };
        self.memory().kept.insert(id.to_owned(), kept);
    }

    /// The agent forgets everything, as one that lost its state.
    pub(crate) fn forget(&self) {
        self.memory().kept.clear();
    }

    /// Takes the server away; answers where it was and what it knows.
    pub(crate) async fn stop(self) -> Gone {
        self.tasks.shut_down(DEADLINE).await.unwrap();
        Gone {
            addr: self.addr,
            memory: self.memory,
            place: self.place,
        }
    }

    /// The same agent again, at the same address.
    pub(crate) async fn again(gone: Gone) -> Self {
        Self::over(gone.memory, gone.place).await
    }

    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        until(what, || async { wanted(self).then_some(()) }).await;
    }

    pub(crate) async fn end(self) {
        self.stop().await;
    }
}

impl Memory {
    fn absent(&self, id: &str) -> Status {
        if self.manners.by_text {
            Status::unknown(format!("workload {id}: status not found"))
        } else {
            Status::not_found(format!("{id} is unknown"))
        }
    }

    /// What is left of a task that failed.
    fn echo(&self, id: &str) -> Option<WorkloadStatus> {
        self.manners.is_haunted.then(|| WorkloadStatus {
            id: id.to_owned(),
            actual_state: ActualState::Failed as i32,
            message: "the task failed".to_owned(),
            ..WorkloadStatus::default()
        })
    }

    /// One look: what was queued comes nearer.
    fn look(&mut self, id: &str) -> Option<WorkloadStatus> {
        let is_stuck = self.manners.stuck.is_some();
        let kept = self.kept.get_mut(id)?;
        if kept.is_going && is_stuck {
            return Some(kept.status.clone());
        }
        if kept.waits > 0 {
            kept.waits -= 1;
        } else if kept.is_going {
            self.kept.remove(id);
            return None;
        } else if let Some(next) = kept.next.take() {
            kept.status.actual_state = next as i32;
            kept.status.message.clear();
        }
        self.kept.get(id).map(|kept| kept.status.clone())
    }

    fn apply(&mut self, request: ApplyWorkloadRequest) -> ApplyWorkloadResponse {
        self.applied
            .push((request.id.clone(), request.encode_to_vec()));
        if let Some((code, message)) = self.manners.refusing {
            let status = WorkloadStatus {
                metadata: [("failure_reason".to_owned(), code.to_owned())].into(),
                ..WorkloadStatus::default()
            };
            return ApplyWorkloadResponse {
                message: message.to_owned(),
                status: Some(status),
                ..ApplyWorkloadResponse::default()
            };
        }
        let mut status = WorkloadStatus {
            id: request.id.clone(),
            r#type: request.r#type,
            revision_id: request.revision_id.clone(),
            desired_state: request.desired_state,
            actual_state: ActualState::Pending as i32,
            message: "task pending".to_owned(),
            ..WorkloadStatus::default()
        };
        if request.r#type() == WorkloadType::Vm {
            let address = ("vm.primary_ip".to_owned(), "10.0.0.9".to_owned());
            status.metadata.extend([address]);
        }
        let mut next = match request.desired_state() {
            DesiredState::Stopped => ActualState::Stopped,
            _ if self.manners.is_vague => ActualState::Unknown,
            _ => ActualState::Running,
        };
        if let Some(code) = self.manners.exits {
            next = ActualState::Stopped;
            let code = ("container.exit_code".to_owned(), code.to_string());
            status.metadata.extend([code]);
        }
        if let Some((code, message)) = self.manners.failing {
            next = ActualState::Failed;
            for (key, value) in [("failure_reason", code), ("failure_message", message)] {
                status.metadata.insert(key.to_owned(), value.to_owned());
            }
        }
        let is_queued = self.manners.queue > 0;
        if !is_queued {
            status.actual_state = next as i32;
            status.message.clear();
        }
        let kept = Kept {
            status: status.clone(),
            waits: self.manners.queue,
            next: is_queued.then_some(next),
            is_going: false,
        };
        self.kept.insert(request.id, kept);
        ApplyWorkloadResponse {
            applied: true,
            status: Some(status),
            ..ApplyWorkloadResponse::default()
        }
    }
}

#[tonic::async_trait]
impl AgentService for Served {
    async fn apply_workload(
        &self,
        request: Request<ApplyWorkloadRequest>,
    ) -> Result<Response<ApplyWorkloadResponse>, Status> {
        let request = request.into_inner();
        let mut memory = self.0.lock().unwrap();
        memory.calls.push(format!("apply {}", request.id));
        Ok(Response::new(memory.apply(request)))
    }

    async fn delete_workload(
        &self,
        request: Request<DeleteWorkloadRequest>,
    ) -> Result<Response<DeleteWorkloadResponse>, Status> {
        let id = request.into_inner().id;
        let mut memory = self.0.lock().unwrap();
        memory.calls.push(format!("delete {id}"));
        let queue = memory.manners.queue;
        let Some(kept) = memory.kept.get_mut(&id) else {
            return Ok(Response::new(DeleteWorkloadResponse {
                success: false,
                message: "workload not found".to_owned(),
            }));
        };
        kept.is_going = true;
        kept.waits = queue;
        Ok(Response::new(DeleteWorkloadResponse {
            success: true,
            message: String::new(),
        }))
    }

    async fn get_workload_status(
        &self,
        request: Request<GetWorkloadStatusRequest>,
    ) -> Result<Response<GetWorkloadStatusResponse>, Status> {
        let id = request.into_inner().id;
        let mut memory = self.0.lock().unwrap();
        memory.calls.push(format!("status {id}"));
        let absent = memory.absent(&id);
        let status = memory.look(&id).or_else(|| memory.echo(&id));
        let status = Some(status.ok_or(absent)?);
        Ok(Response::new(GetWorkloadStatusResponse { status }))
    }

    async fn list_workloads(
        &self,
        _request: Request<ListWorkloadsRequest>,
    ) -> Result<Response<ListWorkloadsResponse>, Status> {
        let mut memory = self.0.lock().unwrap();
        memory.lists += 1;
        let ids: Vec<String> = memory.kept.keys().cloned().collect();
        let workloads = ids.iter().filter_map(|id| memory.look(id)).collect();
        Ok(Response::new(ListWorkloadsResponse { workloads }))
    }

    async fn health_check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let health = self.0.lock().unwrap().manners.health;
        let runtimes = health.ok_or_else(|| Status::unimplemented("it has no such call"))?;
        let runtimes = runtimes.iter();
        Ok(Response::new(HealthCheckResponse {
            healthy: true,
            runtime_status: runtimes
                .map(|(word, status)| ((*word).to_owned(), (*status).to_owned()))
                .collect(),
            ..HealthCheckResponse::default()
        }))
    }

    async fn list_actions(
        &self,
        request: Request<ListActionsRequest>,
    ) -> Result<Response<ListActionsResponse>, Status> {
        let stuck = self.0.lock().unwrap().manners.stuck;
        let action = stuck.map(|error| AgentAction {
            workload_id: request.into_inner().workload_id,
            action_type: "delete_workload".to_owned(),
            status: "failed".to_owned(),
            error: error.to_owned(),
            ..AgentAction::default()
        });
        let actions = action.into_iter().collect();
        Ok(Response::new(ListActionsResponse { actions }))
    }
}
