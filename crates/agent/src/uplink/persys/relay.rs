//! The scheduler's control service for others on this node: what an external component asks for is passed on and the
//! scheduler's answer is handed back.

use std::sync::Arc;
use std::time::Duration;

use hostler_kit::trust::ClientTls;
use hostler_wire::persys::control::agent_control_client::AgentControlClient;
use hostler_wire::persys::control::{
    ApplyWorkloadRequest, ApplyWorkloadResponse, DeleteWorkloadRequest, DeleteWorkloadResponse,
    RetryWorkloadRequest, RetryWorkloadResponse,
};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::dial::{Dial, Server};
use crate::uplink::channel::{SignsOfLife, connect, failure};

/// A scheduler places and starts within the call.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a scheduler.
#[derive(Debug, Clone)]
pub struct Scheduler {
    addr: String,
    client: AgentControlClient<Channel>,
}

/// Why nothing was passed on, or no answer came back.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("`{addr}` is no scheduler's address: {reason}")]
    Address { addr: String, reason: String },
    #[error("no scheduler answers at {addr}: {reason}")]
    Unreachable { addr: String, reason: String },
    /// It refused the call itself.
    #[error("the scheduler at {addr} refused: {reason}")]
    Refused { addr: String, reason: String },
}

impl Scheduler {
    /// Connects to `host:port`; in plain text unless it is said how TLS is spoken.
    ///
    /// # Errors
    /// The address is none, or nobody is there whom we believe and who believes us.
    pub async fn connect(
        addr: &str,
        tls: Option<ClientTls>,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, RelayError> {
        let server = server(addr, tls.is_some()).map_err(|reason| RelayError::Address {
            addr: addr.to_owned(),
            reason,
        })?;
        let server = match tls {
            Some(tls) => server.with_tls(tls),
            None => server,
        };
        let channel = connect(&server, &dial, SignsOfLife::Beats).await;
        let channel = channel.map_err(|reason| RelayError::Unreachable {
            addr: addr.to_owned(),
            reason,
        })?;
        Ok(Self {
            addr: addr.to_owned(),
            client: AgentControlClient::new(channel),
        })
    }

    /// Has a workload run or stopped.
    ///
    /// # Errors
    /// No answer, or a call refused as such; a workload that is refused is an answer.
    pub async fn apply(
        &mut self,
        request: ApplyWorkloadRequest,
    ) -> Result<ApplyWorkloadResponse, RelayError> {
        let mut client = self.client.clone();
        self.call(client.apply_workload(request)).await
    }

    /// Has a workload deleted.
    ///
    /// # Errors
    /// As [`Scheduler::apply`].
    pub async fn delete(
        &mut self,
        workload_id: &str,
    ) -> Result<DeleteWorkloadResponse, RelayError> {
        let request = DeleteWorkloadRequest {
            workload_id: workload_id.to_owned(),
        };
        let mut client = self.client.clone();
        self.call(client.delete_workload(request)).await
    }

    /// Has a workload that failed tried again.
    ///
    /// # Errors
    /// As [`Scheduler::apply`].
    pub async fn retry(&mut self, workload_id: &str) -> Result<RetryWorkloadResponse, RelayError> {
        let request = RetryWorkloadRequest {
            workload_id: workload_id.to_owned(),
        };
        let mut client = self.client.clone();
        self.call(client.retry_workload(request)).await
    }

    async fn call<T>(
        &self,
        calling: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RelayError> {
        let addr = self.addr.clone();
        match tokio::time::timeout(PATIENCE, calling).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
                let reason = failure(&status);
                Err(RelayError::Unreachable { addr, reason })
            }
            Ok(Err(status)) => {
                let reason = failure(&status);
                Err(RelayError::Refused { addr, reason })
            }
            Err(_) => {
                let reason = format!("no answer within {} s", PATIENCE.as_secs());
                Err(RelayError::Unreachable { addr, reason })
            }
        }
    }
}

/// Reads `host:port`. A scheme before it must agree with whether TLS is spoken.
pub(super) fn server(addr: &str, is_secure: bool) -> Result<Server, String> {
    let url = match (addr.split_once("://"), is_secure) {
        (None, true) => format!("https://{addr}"),
        (None, false) => format!("http://{addr}"),
        (Some(("http", _)), true) => return Err("it is one for plain text, and TLS is on".into()),
        (Some(("https", _)), false) => return Err("it is one for TLS, and TLS is off".into()),
        (Some(_), _) => addr.to_owned(),
    };
    Server::parse(&url).map_err(|_| "it names no host and port".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_is_a_host_and_a_port() {
        for addr in ["127.0.0.1:8085", "http://127.0.0.1:8085", "[::1]:8085"] {
            let server = server(addr, false).unwrap();
            assert_eq!((server.port, server.is_secure()), (8085, false), "{addr}");
        }
        for addr in ["", "host", "https://host:1", "host:1/path", "host:port"] {
            assert!(server(addr, false).is_err(), "{addr}");
        }
        for addr in ["127.0.0.1:8085", "https://127.0.0.1:8085"] {
            assert!(server(addr, true).unwrap().is_secure(), "{addr}");
        }
        assert!(server("http://host:1", true).is_err());
    }
}
