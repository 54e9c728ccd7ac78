//! Calls to one agent, each bounded in time and counted. What can fail is told in three ways that matter: the
//! agent cannot be reached, it does not know the id, or it says no. One that is not believed, or believes us not, is
//! not reached.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::Clock;
use hostler_kit::trust::ClientTls;
use hostler_wire::persys::agent::agent_service_client::AgentServiceClient;
use hostler_wire::persys::agent::{
    AgentAction, ApplyWorkloadRequest, ApplyWorkloadResponse, DeleteWorkloadRequest,
    DeleteWorkloadResponse, GetWorkloadStatusRequest, HealthCheckRequest, HealthCheckResponse,
    ListActionsRequest, ListWorkloadsRequest, WorkloadStatus,
};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint as Dialled};
use tonic::{Code, Response, Status};

use super::seen::is_not_found;
use crate::persys::figures::Figures;
use crate::persys::register::Endpoint;
use crate::persys::{Door, words};

/// For the connection, and for each call that does not make anything.
const CALL: Duration = Duration::from_secs(10);
const APPLY: Duration = Duration::from_secs(45);
const APPLY_MACHINE: Duration = Duration::from_secs(240);

/// One agent, as it is called.
#[derive(Clone)]
pub(super) struct Caller {
    client: AgentServiceClient<Channel>,
    clock: Arc<dyn Clock>,
    figures: Arc<Figures>,
}

/// Why a call brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    Unreachable(String),
    NotFound,
    /// The agent's own no.
    Refused(String),
}

impl Caller {
    /// A way to the agent; nothing is dialled yet.
    pub(super) fn new(endpoint: &Endpoint, door: &Door) -> Option<Self> {
        let dialled = Dialled::from_shared(endpoint.url()).ok()?;
        let dialled = dialled.connect_timeout(CALL);
        let channel = match &door.tls {
            None => dialled.connect_lazy(),
            Some(tls) => secured(dialled, endpoint, tls)?,
        };
        Some(Self {
            client: AgentServiceClient::new(channel),
            clock: Arc::clone(door.control.clock()),
            figures: Arc::clone(&door.figures),
        })
    }

    /// Everything that is on the agent.
    pub(super) async fn list(&self) -> Result<Vec<WorkloadStatus>, Trouble> {
        let mut client = self.client.clone();
        let asked = async move {
            client
                .list_workloads(ListWorkloadsRequest { r#type: 0 })
                .await
        };
        Ok(self.call("ListWorkloads", CALL, asked).await?.workloads)
    }

    pub(super) async fn status(&self, id: &str) -> Result<WorkloadStatus, Trouble> {
        let (mut client, id) = (self.client.clone(), id.to_owned());
        let asked = async move {
            client
                .get_workload_status(GetWorkloadStatusRequest { id })
                .await
        };
        let answer = self.call("GetWorkloadStatus", CALL, asked).await?;
        // No status is no knowledge of the id.
        answer.status.ok_or(Trouble::NotFound)
    }

    pub(super) async fn apply(
        &self,
        request: ApplyWorkloadRequest,
    ) -> Result<ApplyWorkloadResponse, Trouble> {
        let within = match request.r#type() {
            hostler_wire::persys::agent::WorkloadType::Vm => APPLY_MACHINE,
            _ => APPLY,
        };
        let mut client = self.client.clone();
        let asked = async move { client.apply_workload(request).await };
        self.call("ApplyWorkload", within, asked).await
    }

    pub(super) async fn delete(&self, id: &str) -> Result<DeleteWorkloadResponse, Trouble> {
        let (mut client, id) = (self.client.clone(), id.to_owned());
        let asked = async move { client.delete_workload(DeleteWorkloadRequest { id }).await };
        self.call("DeleteWorkload", CALL, asked).await
    }

    pub(super) async fn health(&self) -> Result<HealthCheckResponse, Trouble> {
        let mut client = self.client.clone();
        let asked = async move { client.health_check(HealthCheckRequest {}).await };
        self.call("HealthCheck", CALL, asked).await
    }

    /// What the agent did last for the id.
    pub(super) async fn last_action(&self, id: &str) -> Result<Option<AgentAction>, Trouble> {
        let mut client = self.client.clone();
        let request = ListActionsRequest {
            workload_id: id.to_owned(),
            limit: 1,
            newest_first: true,
            ..ListActionsRequest::default()
        };
        let asked = async move { client.list_actions(request).await };
        let answer = self.call("ListActions", CALL, asked).await?;
        Ok(answer.actions.into_iter().next())
    }

    async fn call<T>(
        &self,
        rpc: &'static str,
        within: Duration,
        asked: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Trouble> {
        let begun = self.clock.uptime();
        let late = |_| {
            Err(Status::deadline_exceeded(
                "the agent did not answer in time",
            ))
        };
        let answer = tokio::time::timeout(within, Box::pin(asked)).await;
        let answer = answer.unwrap_or_else(late);
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        let took = self.clock.uptime().saturating_sub(begun);
        self.figures.agent_call(rpc, words::code_name(code), took);
        answer.map(Response::into_inner).map_err(Trouble::from)
    }
}

/// The same over TLS: the agent must show a certificate for the address that it registered.
fn secured(dialled: Dialled, endpoint: &Endpoint, tls: &ClientTls) -> Option<Channel> {
    let origin: Uri = format!("https://{endpoint}").parse().ok()?;
    let (endpoint, tls) = (endpoint.clone(), tls.clone());
    let connector = tower::service_fn(move |_: Uri| {
        let (endpoint, tls) = (endpoint.clone(), tls.clone());
        async move {
            let (host, port) = endpoint.parts();
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let secured = tls.connect(host, stream, &[b"h2"]).await?;
            Ok::<_, io::Error>(TokioIo::new(secured))
        }
    });
    let dialled = dialled.origin(origin);
    Some(dialled.connect_with_connector_lazy(connector))
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        const TEXTS: [&str; 5] = [
            "connection refused",
            "no such host",
            "transport error",
            "connection error",
            "broken pipe",
        ];
        let message = words_of(&status);
        let text = message.to_ascii_lowercase();
        let is_away = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
            || TEXTS.iter().any(|it| text.contains(it));
        if is_away {
            Self::Unreachable(message)
        } else if status.code() == Code::NotFound || is_not_found(&text) {
            Self::NotFound
        } else {
            Self::Refused(message)
        }
    }
}

/// The status's words with their causes, each once: why a connection did not come to stand is in the innermost.
fn words_of(status: &Status) -> String {
    let mut words = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_understood_by_code_and_by_text() {
        for (status, meant) in [
            (Status::not_found("gone"), Trouble::NotFound),
            (Status::unknown("status NOT found"), Trouble::NotFound),
            (
                Status::unavailable("x"),
                Trouble::Unreachable("x".to_owned()),
            ),
            (
                Status::unknown("dial: Connection refused"),
                Trouble::Unreachable("dial: Connection refused".to_owned()),
            ),
            (
                Status::unknown("no disk"),
                Trouble::Refused("no disk".to_owned()),
            ),
        ] {
            assert_eq!(Trouble::from(status.clone()), meant, "{status:?}");
        }
    }
}
