//! The session contract (`hostler.session.v1`): how our own agents speak to the control plane.
//!
//! ```text
//!   node ── Control stream ──► greet ─► listen ─┬─ beat, at once ─────────────► Attachment
//!                                               └─ observed, results, queued ─► Attachment (may wait for a commit)
//!   node ◄── answers ────────────────────────────── deliver ◄── wake ────────── Control (intent, commands)
//!   node ── Bulk stream, with a ticket ──────────────────────────────────────► whoever asked for a log or an errand
//! ```
//!
//! - [`SessionDoor`] is the gRPC service. `stream` holds one conversation, `listen` reads its node, and
//!   `deliver` knows what the node was told; `link` is how the control plane reaches it; `tickets` pairs a bulk stream with its asker.
//! - What a node says is converted in `convert` and goes no further as wire types.
//!
//! What can fail: a hello that is refused is answered with a typed refusal; everything else ends the
//! stream with a status. Each wait has a bound; a node that reads or writes too slowly loses its stream
//! and comes again.

mod convert;
mod deliver;
mod link;
mod listen;
mod members;
mod stream;
mod tickets;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_control::Control;
use hostler_kit::Entropy;
use hostler_kit::trust::Print;
use hostler_model::{Code, Refusal};
use hostler_wire::session::MAX_MESSAGE_BYTES;
use hostler_wire::session::v1::session_server::{SERVICE_NAME, Session, SessionServer};
use hostler_wire::session::v1::{self, BulkFrame, NodeMessage, ServerMessage, bulk_frame};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::members::Members;
use self::stream::Conversation;
use self::tickets::{Tickets, Transfer};
use crate::access::Who;
use crate::audit::By;
use crate::reflection::Told;
use crate::{Access, Peer};

/// What reflection tells of it.
pub(crate) const TOLD: Told = Told {
    descriptors: hostler_wire::session::DESCRIPTORS,
    services: &[SERVICE_NAME],
};

/// How long a node may take for the first message of a stream.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// Answers that wait for a node to read them.
const ANSWERS: usize = 32;
/// Words of an errand that wait for its node; more make who says them wait.
const SAID: usize = 2;

/// The gRPC service of the session contract.
pub struct SessionDoor {
    control: Control,
    tickets: Arc<Tickets>,
    access: Access,
}

impl SessionDoor {
    /// The service for one control plane; `entropy` makes the tickets.
    #[must_use]
    pub fn new(control: Control, entropy: Arc<dyn Entropy>, access: Access) -> Self {
        Self {
            control,
            tickets: Arc::new(Tickets::new(entropy)),
            access,
        }
    }

    /// What the node has shown; a server without login asks for nothing.
    fn shown<T>(&self, request: &Request<T>) -> Shown {
        if !self.access.is_guarded() {
            return Shown::NotAsked;
        }
        let peer = request.extensions().get::<Peer>();
        peer.and_then(|peer| peer.key)
            .map_or(Shown::Nothing, Shown::Key)
    }

    const fn members<'a>(&'a self, peer: Option<&'a Peer>) -> Members<'a> {
        Members {
            control: &self.control,
            access: &self.access,
            peer,
        }
    }

    /// The service with the contract's limits, to be mounted.
    #[must_use]
    pub fn into_server(self) -> SessionServer<Self> {
        SessionServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// What a node has proved about itself.
#[derive(Debug, Clone, Copy)]
enum Shown {
    /// There is no login.
    NotAsked,
    Nothing,
    Key(Print),
}

/// Who holds a stream.
#[derive(Clone)]
struct Asking {
    access: Access,
    peer: Option<Peer>,
    shown: Shown,
}

impl Asking {
    /// Whether it is a node, where that is asked.
    fn check(&self) -> Result<(), Refusal> {
        match self.shown {
            Shown::NotAsked => Ok(()),
            Shown::Nothing => Err(stream::no_certificate()),
            Shown::Key(key) => self.access.node(key).map(drop),
        }
    }

    /// Writes down that a machine has joined by saying so, as it may where there is no login.
    async fn joined(&self, name: &str) {
        let by = By::anonymous();
        let audit = self.access.audit();
        let who = (&by, self.peer.as_ref());
        audit.machine(who, "Join", (name, None)).await;
    }

    /// Writes down that it was refused.
    async fn refused(&self, call: &'static str, thing: &str, refusal: &Refusal) {
        let by = match self.shown {
            Shown::NotAsked => By::anonymous(),
            Shown::Nothing => By::nobody(None),
            Shown::Key(key) => {
                let node = self.access.node(key).map(Who::Node);
                node.map_or_else(|_| By::nobody(None), |node| self.access.by(&node))
            }
        };
        let audit = self.access.audit();
        let said = (thing, Some(refusal));
        audit.machine((&by, self.peer.as_ref()), call, said).await;
    }
}

#[tonic::async_trait]
impl Session for SessionDoor {
    type ControlStream = ReceiverStream<Result<ServerMessage, Status>>;
    type BulkStream = BoxStream<'static, Result<BulkFrame, Status>>;

    async fn control(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (answers, stream) = mpsc::channel(ANSWERS);
        let shown = self.shown(&request);
        let peer = request.extensions().get::<Peer>().copied();
        let who = Asking {
            access: self.access.clone(),
            peer,
            shown,
        };
        let parts = (self.control.clone(), Arc::clone(&self.tickets), who);
        let conversation = Conversation::new(parts, request.into_inner(), answers);
        self.control.tasks().spawn("session", conversation.run());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn bulk(
        &self,
        request: Request<Streaming<BulkFrame>>,
    ) -> Result<Response<Self::BulkStream>, Status> {
        let who = Asking {
            access: self.access.clone(),
            peer: request.extensions().get::<Peer>().copied(),
            shown: self.shown(&request),
        };
        if let Err(refusal) = who.check() {
            who.refused("Bulk", "", &refusal).await;
            return Err(match refusal.code {
                Code::Unauthenticated => Status::unauthenticated(refusal.sentence),
                _ => Status::permission_denied(refusal.sentence),
            });
        }
        let mut frames = request.into_inner();
        let first = tokio::time::timeout(FIRST_MESSAGE, frames.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no ticket came"))??;
        let Some(bulk_frame::Frame::Ticket(ticket)) = first.and_then(|first| first.frame) else {
            return Err(Status::invalid_argument(
                "the first frame of a transfer is its ticket",
            ));
        };
        // The answer stays open for as long as somebody reads the transfer. Only errands say anything there.
        let (said, answers) = mpsc::channel(SAID);
        self.tickets.redeem(&ticket, Transfer { frames, said })?;
        let answers = ReceiverStream::new(answers).map(|said| Ok(convert::said(said)));
        Ok(Response::new(answers.boxed()))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::Membership>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let members = self.members(peer.as_ref());
        Ok(Response::new(members.join(request.into_inner()).await))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::Membership>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let members = self.members(peer.as_ref());
        Ok(Response::new(members.renew(request.get_ref()).await))
    }
}
