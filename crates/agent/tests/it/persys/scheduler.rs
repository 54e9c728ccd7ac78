//! A scheduler with a state of its own, and with faults: it refuses, forgets, falls silent, freezes, dies.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hostler_kit::{Clock as _, SimulatedClock, Tasks};
use hostler_wire::persys::control::agent_control_server::{AgentControl, AgentControlServer};
use hostler_wire::persys::control::*;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::PATIENCE;
use crate::control::moment;
use crate::network::Network;

/// What it knows and how it behaves.
pub(super) struct State {
    /// The nodes that it knows.
    pub(super) nodes: BTreeSet<String>,
    /// What was told, and when.
    pub(super) registrations: Vec<(Duration, RegisterNodeRequest)>,
    pub(super) beats: Vec<(Duration, HeartbeatRequest)>,
    pub(super) interval: i32,
    pub(super) lease: Duration,
    /// How far its clock is behind the node's.
    pub(super) behind: Duration,
    /// So many registrations are not accepted.
    pub(super) refusals: u32,
    pub(super) acknowledges: bool,
    /// Calls are taken in and never answered.
    pub(super) is_mute: bool,
    /// It drains its nodes and gives short leases.
    pub(super) is_frozen: bool,
    pub(super) has_stream: bool,
    pub(super) streams: Vec<mpsc::UnboundedSender<Result<ControlMessage, Status>>>,
    pub(super) stream_calls: u32,
    /// What came on streams, by its kind.
    pub(super) streamed: Vec<&'static str>,
}

pub(super) struct Scheduler {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    network: Arc<Network>,
    serving: Mutex<Tasks>,
    clock: SimulatedClock,
}

impl State {
    fn fresh() -> Self {
        Self {
            nodes: BTreeSet::new(),
            registrations: Vec::new(),
            beats: Vec::new(),
            interval: 60,
            lease: Duration::from_secs(180),
            behind: Duration::ZERO,
            refusals: 0,
            acknowledges: true,
            is_mute: false,
            is_frozen: false,
            has_stream: false,
            streams: Vec::new(),
            stream_calls: 0,
            streamed: Vec::new(),
        }
    }

    /// The state that the last heartbeat told of a workload.
    pub(super) fn shows(&self, id: &str) -> Option<&WorkloadStatus> {
        let (_, beat) = self.beats.last()?;
        beat.workload_statuses
            .iter()
            .find(|it| it.workload_id == id)
    }
}

impl Scheduler {
    pub(super) fn start(network: &Arc<Network>) -> Arc<Self> {
        let scheduler = Arc::new(Self {
            state: Mutex::new(State::fresh()),
            changed: watch::Sender::new(()),
            network: Arc::clone(network),
            serving: Mutex::new(Tasks::new()),
            clock: SimulatedClock::starting_at(moment().as_millis()),
        });
        scheduler.serve();
        scheduler
    }

    /// Comes up, again.
    pub(super) fn serve(self: &Arc<Self>) {
        let serving = Tasks::new();
        *self.serving.lock().unwrap() = serving.clone();
        let incoming = self.network.listen();
        let service = AgentControlServer::new(Door(Arc::clone(self)));
        serving.spawn_until_stop("scheduler", async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let _ = server.serve_with_incoming(incoming).await;
        });
    }

    /// Dies, with its connections and all that it knew.
    pub(super) fn die(&self) {
        self.serving.lock().unwrap().stop();
        self.state().nodes.clear();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) async fn until(&self, what: &str, is_true: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !is_true(&self.state()) {
                let _ = changed.changed().await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            let state = self.state();
            panic!("never: {what}; last beat {:?}", state.beats.last());
        }
    }

    /// Sends something on every open stream.
    pub(super) fn send(&self, message: control_message::Message) {
        for stream in &self.state().streams {
            let message = ControlMessage {
                message: Some(message.clone()),
            };
            let _ = stream.send(Ok(message));
        }
    }

    fn lease(&self, state: &State) -> Option<prost_types::Timestamp> {
        let span = if state.is_frozen {
            Duration::from_secs(30)
        } else {
            state.lease
        };
        let now = self.clock.wall_millis() - u64::try_from(state.behind.as_millis()).unwrap();
        let ends = now + u64::try_from(span.as_millis()).unwrap();
        Some(prost_types::Timestamp {
            seconds: i64::try_from(ends / 1000).unwrap(),
            nanos: i32::try_from(ends % 1000 * 1_000_000).unwrap(),
        })
    }

    async fn answer<T>(
        &self,
        answer: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let answer = {
            let mut state = self.state();
            let answer = answer(&mut state);
            (!state.is_mute).then_some(answer)
        };
        self.changed.send_replace(());
        match answer {
            Some(answer) => answer.map(Response::new),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.serving.lock().unwrap().stop();
    }
}

struct Door(Arc<Scheduler>);

#[tonic::async_trait]
impl AgentControl for Door {
    type ControlStreamStream = Pin<Box<dyn Stream<Item = Result<ControlMessage, Status>> + Send>>;

    async fn register_node(
        &self,
        request: Request<RegisterNodeRequest>,
    ) -> Result<Response<RegisterNodeResponse>, Status> {
        let (it, request) = (&self.0, request.into_inner());
        it.answer(|state| {
            let at = it.clock.uptime();
            state.registrations.push((at, request.clone()));
            if request.node_id.is_empty() || !request.grpc_endpoint.contains(':') {
                return Err(Status::invalid_argument(
                    "node_id and grpc_endpoint are required",
                ));
            }
            let has = request.capabilities.unwrap_or_default();
            let is_refused = state.refusals > 0 || state.is_frozen;
            state.refusals = state.refusals.saturating_sub(1);
            if is_refused || has.cpu_total_millicores <= 0 || has.memory_total_mb <= 0 {
                return Ok(RegisterNodeResponse {
                    accepted: false,
                    reason: "told to refuse".to_owned(),
                    ..RegisterNodeResponse::default()
                });
            }
            state.nodes.insert(request.node_id);
            Ok(RegisterNodeResponse {
                accepted: true,
                reason: "registered".to_owned(),
                heartbeat_interval_seconds: state.interval,
                lease_expires_at: it.lease(state),
            })
        })
        .await
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let (it, request) = (&self.0, request.into_inner());
        it.answer(|state| {
            if !state.nodes.contains(&request.node_id) {
                return Err(Status::not_found("node not found"));
            }
            state.beats.push((it.clock.uptime(), request));
            Ok(HeartbeatResponse {
                acknowledged: state.acknowledges,
                drain_node: state.is_frozen,
                lease_expires_at: it.lease(state),
            })
        })
        .await
    }

    async fn control_stream(
        &self,
        request: Request<Streaming<ControlMessage>>,
    ) -> Result<Response<Self::ControlStreamStream>, Status> {
        let (it, mut inbound) = (Arc::clone(&self.0), request.into_inner());
        let answer = self.0.answer(|state| {
            state.stream_calls += 1;
            if !state.has_stream {
                return Err(Status::unimplemented("no control stream"));
            }
            let (sender, receiver) = mpsc::unbounded_channel();
            state.streams.push(sender);
            let stream: Self::ControlStreamStream =
                Box::pin(UnboundedReceiverStream::new(receiver));
            Ok(stream)
        });
        let answer = answer.await?;
        let serving = self.0.serving.lock().unwrap().clone();
        serving.spawn_until_stop("stream", async move {
            while let Ok(Some(received)) = inbound.message().await {
                let word = match received.message {
                    Some(control_message::Message::Register(_)) => "register",
                    Some(control_message::Message::Heartbeat(_)) => "heartbeat",
                    _ => "other",
                };
                it.state().streamed.push(word);
                it.changed.send_replace(());
            }
        });
        Ok(answer)
    }

    async fn apply_workload(
        &self,
        _: Request<ApplyWorkloadRequest>,
    ) -> Result<Response<ApplyWorkloadResponse>, Status> {
        Err(unused())
    }

    async fn delete_workload(
        &self,
        _: Request<DeleteWorkloadRequest>,
    ) -> Result<Response<DeleteWorkloadResponse>, Status> {
        Err(unused())
    }

    async fn retry_workload(
        &self,
        _: Request<RetryWorkloadRequest>,
    ) -> Result<Response<RetryWorkloadResponse>, Status> {
        Err(unused())
    }

    async fn submit_automation_suggestion(
        &self,
        _: Request<SubmitAutomationSuggestionRequest>,
    ) -> Result<Response<SubmitAutomationSuggestionResponse>, Status> {
        Err(unused())
    }

    async fn list_nodes(
        &self,
        _: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        Err(unused())
    }

    async fn get_node(
        &self,
        _: Request<GetNodeRequest>,
    ) -> Result<Response<GetNodeResponse>, Status> {
        Err(unused())
    }

    async fn list_workloads(
        &self,
        _: Request<ListWorkloadsRequest>,
    ) -> Result<Response<ListWorkloadsResponse>, Status> {
        Err(unused())
    }

    async fn get_workload(
        &self,
        _: Request<GetWorkloadRequest>,
    ) -> Result<Response<GetWorkloadResponse>, Status> {
        Err(unused())
    }

    async fn get_cluster_summary(
        &self,
        _: Request<GetClusterSummaryRequest>,
    ) -> Result<Response<GetClusterSummaryResponse>, Status> {
        Err(unused())
    }
}

/// No agent calls these.
fn unused() -> Status {
    Status::unimplemented("not for agents")
}
