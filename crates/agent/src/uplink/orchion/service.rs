//! What a node of Orchion serves: inference. This version has no model engines, and says so with the contract's own
//! error, so that an orchestrator tells its user why nothing comes.

use hostler_wire::orchion::v1;
use hostler_wire::orchion::v1::node_agent_server::{NodeAgent, NodeAgentServer};
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

/// The service of a node without engines.
#[derive(Debug, Clone, Copy)]
pub(super) struct WithoutEngines;

pub(super) fn node_agent() -> NodeAgentServer<WithoutEngines> {
    NodeAgentServer::new(WithoutEngines)
}

#[tonic::async_trait]
impl NodeAgent for WithoutEngines {
    type ChatCompletionStream = Empty<Result<v1::ChatCompletionResponse, Status>>;

    async fn chat_completion(
        &self,
        request: Request<v1::ChatCompletionRequest>,
    ) -> Result<Response<Self::ChatCompletionStream>, Status> {
        Err(no_executor(&request.get_ref().model))
    }

    async fn embeddings(
        &self,
        request: Request<v1::EmbeddingRequest>,
    ) -> Result<Response<v1::EmbeddingResponse>, Status> {
        Err(no_executor(&request.get_ref().model))
    }
}

fn no_executor(model: &str) -> Status {
    if model.is_empty() {
        return Status::invalid_argument("model is required");
    }
    Status::internal(format!(
        "no executor for model {model}: this node has no model engines"
    ))
}
