//! The node's side of a session, without a node: says hello, observes nothing, beats. Speaks to the server
//! and to the baseline alike.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hostler_wire::session::v1::node_message::Message as FromNode;
use hostler_wire::session::v1::server_message::Message as FromServer;
use hostler_wire::session::v1::session_client::SessionClient;
use hostler_wire::session::v1::{
    Beat, Facts, Hello, NodeMessage, Observed, Resources, RuntimeFact, ServerMessage, Usage,
    Versions,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// For each step of joining.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connected session.
pub(crate) struct Session {
    outbound: mpsc::Sender<NodeMessage>,
    inbound: Streaming<ServerMessage>,
    sequence: u64,
}

impl Session {
    /// Connects as node `number` and gets through hello, welcome and the first full intent.
    pub(crate) async fn join(url: &str, number: usize) -> Result<Self> {
        let endpoint = tonic::transport::Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true);
        let channel = timeout(PATIENCE, endpoint.connect()).await??;
        let (outbound, receiver) = mpsc::channel(64);
        outbound
            .send(message(FromNode::Hello(hello(number))))
            .await?;
        let nothing = Observed {
            full: true,
            last: true,
            units: Vec::new(),
        };
        outbound.send(message(FromNode::Observed(nothing))).await?;
        let mut client: SessionClient<Channel> = SessionClient::new(channel);
        let opening = client.control(ReceiverStream::new(receiver));
        let inbound = timeout(PATIENCE, opening).await??.into_inner();
        let mut session = Self {
            outbound,
            inbound,
            sequence: 0,
        };
        timeout(PATIENCE, session.settle())
            .await
            .context("waiting for the first intent")??;
        Ok(session)
    }

    /// Sends one beat.
    pub(crate) async fn beat(&mut self) -> Result<()> {
        self.sequence += 1;
        let beat = Beat {
            sequence: self.sequence,
            usage: Some(Usage {
                cpu_percent: 12.5,
                memory_percent: 40.0,
                memory_used_bytes: 4 << 30,
                disk_free_bytes: 100 << 30,
                running_containers: Vec::new(),
                units: Vec::new(),
                pressure: None,
            }),
            observed_digest: 0,
        };
        Ok(self.outbound.send(message(FromNode::Beat(beat))).await?)
    }

    /// Waits for the answer to a beat.
    pub(crate) async fn acked(&mut self) -> Result<()> {
        loop {
            match self.next().await? {
                FromServer::BeatAck(_) => return Ok(()),
                FromServer::Resend(_) => bail!("the server wants everything again"),
                FromServer::Intent(_)
                | FromServer::Command(_)
                | FromServer::Open(_)
                | FromServer::Secrets(_)
                | FromServer::Unwanted(_)
                | FromServer::RenewNow(_) => {}
                other @ (FromServer::Welcome(_) | FromServer::Refused(_)) => {
                    bail!("unexpected: {other:?}")
                }
            }
        }
    }

    async fn settle(&mut self) -> Result<()> {
        loop {
            match self.next().await? {
                FromServer::Refused(refused) => bail!("{}: {}", refused.code, refused.sentence),
                FromServer::Intent(intent) if intent.full && intent.last => return Ok(()),
                _ => {}
            }
        }
    }

    async fn next(&mut self) -> Result<FromServer> {
        let message = self
            .inbound
            .message()
            .await?
            .context("the server ended the stream")?;
        message.message.context("an empty message")
    }
}

fn message(message: FromNode) -> NodeMessage {
    NodeMessage {
        message: Some(message),
    }
}

fn hello(number: usize) -> Hello {
    let runtime = RuntimeFact {
        kind: "process".to_owned(),
        available: true,
        version: "1".to_owned(),
        note: String::new(),
    };
    let facts = Facts {
        hostname: format!("bench-{number}"),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        kernel: "6.1".to_owned(),
        cpu_count: 8,
        memory_bytes: 32 << 30,
        disks: Vec::new(),
        addresses: vec![format!("10.0.0.{}", number % 250)],
        boot_id: format!("boot-{number}"),
        runtimes: vec![runtime],
        storage: Vec::new(),
    };
    Hello {
        versions: Some(Versions::ours()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        identity: format!("{number:032x}"),
        name: format!("bench-{number}"),
        facts: Some(facts),
        capacity: Some(Resources {
            milli_cpu: 8000,
            memory_bytes: 32 << 30,
            disk_bytes: 100 << 30,
        }),
        ..Hello::default()
    }
}
