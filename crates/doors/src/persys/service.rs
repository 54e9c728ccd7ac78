//! The gRPC service: each call decoded, made and counted.

use std::future::Future;
use std::sync::Arc;

use hostler_wire::persys::control::agent_control_server::AgentControl;
use hostler_wire::persys::control::{
    ApplyWorkloadRequest, ApplyWorkloadResponse, ControlMessage, DeleteWorkloadRequest,
    DeleteWorkloadResponse, GetClusterSummaryRequest, GetClusterSummaryResponse, GetNodeRequest,
    GetNodeResponse, GetWorkloadRequest, GetWorkloadResponse, HeartbeatRequest, HeartbeatResponse,
    ListNodesRequest, ListNodesResponse, ListWorkloadsRequest, ListWorkloadsResponse,
    RegisterNodeRequest, RegisterNodeResponse, RetryWorkloadRequest, RetryWorkloadResponse,
    SubmitAutomationSuggestionRequest, SubmitAutomationSuggestionResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Door, beat, register, stream, views, words, workloads};
use crate::Access;
use crate::access::Who;

/// Messages that wait for an agent to read them.
const ANSWERS: usize = 32;

type Answer<T> = Result<Response<T>, Status>;

pub(super) struct Service(pub(super) Arc<Door>, pub(super) Access);

impl Service {
    async fn counted<T>(
        &self,
        method: &'static str,
        made: impl Future<Output = Result<T, Status>>,
    ) -> Answer<T> {
        let door = &self.0;
        let begun = door.control.clock().uptime();
        let answer = Box::pin(made).await;
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        let took = door.control.clock().uptime().saturating_sub(begun);
        door.figures.served(method, words::code_name(code), took);
        answer.map(Response::new)
    }
}

fn required<'a>(field: &str, id: &'a str) -> Result<&'a str, Status> {
    if id.is_empty() {
        return Err(Status::invalid_argument(format!("{field} is required")));
    }
    Ok(id)
}

#[tonic::async_trait]
impl AgentControl for Service {
    type ControlStreamStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn register_node(
        &self,
        request: Request<RegisterNodeRequest>,
    ) -> Answer<RegisterNodeResponse> {
        let made = register::register(&self.0, request.into_inner());
        self.counted("RegisterNode", made).await
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Answer<HeartbeatResponse> {
        let made = beat::heartbeat(&self.0, request.into_inner());
        self.counted("Heartbeat", made).await
    }

    async fn apply_workload(
        &self,
        request: Request<ApplyWorkloadRequest>,
    ) -> Answer<ApplyWorkloadResponse> {
        let made = workloads::apply(&self.0, request.into_inner());
        self.counted("ApplyWorkload", async { Ok(made.await) })
            .await
    }

    async fn delete_workload(
        &self,
        request: Request<DeleteWorkloadRequest>,
    ) -> Answer<DeleteWorkloadResponse> {
        let id = request.into_inner().workload_id;
        let made = async { Ok(workloads::delete(&self.0, &id).await) };
        self.counted("DeleteWorkload", made).await
    }

    async fn retry_workload(
        &self,
        request: Request<RetryWorkloadRequest>,
    ) -> Answer<RetryWorkloadResponse> {
        let id = request.into_inner().workload_id;
        let made = async {
            let retried = workloads::retry(&self.0, &id).await;
            if let Err(why) = &retried {
                tracing::info!(id, why, "retry not accepted");
            }
            let accepted = retried.is_ok();
            Ok(RetryWorkloadResponse { accepted })
        };
        self.counted("RetryWorkload", made).await
    }

    async fn submit_automation_suggestion(
        &self,
        request: Request<SubmitAutomationSuggestionRequest>,
    ) -> Answer<SubmitAutomationSuggestionResponse> {
        let made = workloads::suggest(&self.0, request.into_inner().suggestion);
        self.counted("SubmitAutomationSuggestion", async { Ok(made.await) })
            .await
    }

    async fn list_nodes(&self, request: Request<ListNodesRequest>) -> Answer<ListNodesResponse> {
        let made = async {
            let nodes = views::nodes(&self.0, &request.into_inner().status);
            Ok(ListNodesResponse { nodes })
        };
        self.counted("ListNodes", made).await
    }

    async fn get_node(&self, request: Request<GetNodeRequest>) -> Answer<GetNodeResponse> {
        let id = request.into_inner().node_id;
        let made = async {
            let found = views::find_node(&self.0, required("node_id", &id)?);
            let node = found.ok_or_else(|| Status::not_found(format!("node {id} not found")))?;
            Ok(GetNodeResponse { node: Some(node) })
        };
        self.counted("GetNode", made).await
    }

    async fn list_workloads(
        &self,
        request: Request<ListWorkloadsRequest>,
    ) -> Answer<ListWorkloadsResponse> {
        let filter = request.into_inner();
        let made = async {
            let workloads = views::workloads(&self.0, &filter.node_id, &filter.status);
            Ok(ListWorkloadsResponse { workloads })
        };
        self.counted("ListWorkloads", made).await
    }

    async fn get_workload(
        &self,
        request: Request<GetWorkloadRequest>,
    ) -> Answer<GetWorkloadResponse> {
        let id = request.into_inner().workload_id;
        let made = async {
            let found = views::find_workload(&self.0, required("workload_id", &id)?);
            let found = found.ok_or_else(|| Status::not_found(workloads::not_found(&id)))?;
            let workload = Some(found);
            Ok(GetWorkloadResponse { workload })
        };
        self.counted("GetWorkload", made).await
    }

    async fn get_cluster_summary(
        &self,
        _request: Request<GetClusterSummaryRequest>,
    ) -> Answer<GetClusterSummaryResponse> {
        let made = async { Ok(views::summary(&self.0)) };
        self.counted("GetClusterSummary", made).await
    }

    async fn control_stream(
        &self,
        request: Request<Streaming<ControlMessage>>,
    ) -> Answer<Self::ControlStreamStream> {
        let (answers, stream) = mpsc::channel(ANSWERS);
        let who = request.extensions().get().unwrap_or(&Who::Nobody);
        let stay = self.1.warrant(who);
        let held = stream::hold(Arc::clone(&self.0), (request.into_inner(), stay), answers);
        self.0.control.tasks().spawn("persys stream", held);
        let opened = async { Ok(ReceiverStream::new(stream)) };
        self.counted("ControlStream", opened).await
    }
}
