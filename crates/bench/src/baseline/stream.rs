//! A trivial tonic server of the session contract.

use std::pin::Pin;

use anyhow::Result;
use futures::{Stream, StreamExt as _};
use hostler_wire::session::v1::node_message::Message as FromNode;
use hostler_wire::session::v1::server_message::Message as FromServer;
use hostler_wire::session::v1::session_server::{Session, SessionServer};
use hostler_wire::session::v1::{
    BeatAck, BulkFrame, Intent, JoinRequest, Membership, NodeMessage, RenewRequest, ServerMessage,
    Welcome,
};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// As agents are told: the interval that the idle figures are about.
const BEAT_INTERVAL_MS: u64 = 5_000;

struct Echo;

pub(super) async fn serve(listener: TcpListener) -> Result<()> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder()
        .add_service(SessionServer::new(Echo))
        .serve_with_incoming(incoming)
        .await?)
}

#[async_trait::async_trait]
impl Session for Echo {
    type ControlStream = Pin<Box<dyn Stream<Item = Result<ServerMessage, Status>> + Send>>;
    type BulkStream = Pin<Box<dyn Stream<Item = Result<BulkFrame, Status>> + Send>>;

    async fn control(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let answers = request.into_inner().filter_map(|message| {
            let answer = message.map(|message| message.message.and_then(answer));
            std::future::ready(answer.transpose())
        });
        let answers = answers.map(|answer| {
            answer.map(|message| ServerMessage {
                message: Some(message),
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn bulk(
        &self,
        _request: Request<Streaming<BulkFrame>>,
    ) -> Result<Response<Self::BulkStream>, Status> {
        Err(Status::unimplemented("the baseline has no bulk transfers"))
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<Membership>, Status> {
        Err(Status::unimplemented("the baseline has no members"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<Membership>, Status> {
        Err(Status::unimplemented("the baseline has no members"))
    }
}

fn answer(message: FromNode) -> Option<FromServer> {
    match message {
        FromNode::Hello(_) => Some(FromServer::Welcome(Welcome {
            version: 1,
            fleet_id: "01890000-0000-7000-8000-000000000001".to_owned(),
            store_epoch: "01890000-0000-7000-8000-000000000002".to_owned(),
            node_id: "01890000-0000-7000-8000-000000000003".to_owned(),
            beat_interval_ms: BEAT_INTERVAL_MS,
            lease_ms: 5 * BEAT_INTERVAL_MS,
            takes_facts: true,
            ..Welcome::default()
        })),
        FromNode::Observed(observed) if observed.full && observed.last => {
            let nothing = Intent {
                version: 1,
                full: true,
                last: true,
                ..Intent::default()
            };
            Some(FromServer::Intent(nothing))
        }
        FromNode::Beat(beat) => Some(FromServer::BeatAck(BeatAck {
            sequence: beat.sequence,
        })),
        FromNode::Facts(_)
        | FromNode::Believes(_)
        | FromNode::Leave(_)
        | FromNode::Kept(_)
        | FromNode::Observed(_)
        | FromNode::Acknowledge(_)
        | FromNode::Held(_)
        | FromNode::Applied(_) => None,
    }
}
