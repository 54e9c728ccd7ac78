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
mod stream;
mod tickets;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_control::Control;
use hostler_kit::Entropy;
use hostler_wire::session::MAX_MESSAGE_BYTES;
use hostler_wire::session::v1::session_server::{Session, SessionServer};
use hostler_wire::session::v1::{BulkFrame, NodeMessage, ServerMessage, bulk_frame};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::stream::Conversation;
use self::tickets::{Tickets, Transfer};

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
}

impl SessionDoor {
    /// The service for one control plane; `entropy` makes the tickets.
    #[must_use]
    pub fn new(control: Control, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            control,
            tickets: Arc::new(Tickets::new(entropy)),
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

#[tonic::async_trait]
impl Session for SessionDoor {
    type ControlStream = ReceiverStream<Result<ServerMessage, Status>>;
    type BulkStream = BoxStream<'static, Result<BulkFrame, Status>>;

    async fn control(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (answers, stream) = mpsc::channel(ANSWERS);
        let (control, tickets) = (self.control.clone(), Arc::clone(&self.tickets));
        let conversation = Conversation::new(control, tickets, request.into_inner(), answers);
        self.control.tasks().spawn("session", conversation.run());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn bulk(
        &self,
        request: Request<Streaming<BulkFrame>>,
    ) -> Result<Response<Self::BulkStream>, Status> {
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
}
