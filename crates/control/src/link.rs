//! How the control plane reaches a node. Each door implements [`Link`] for its contract.

use async_trait::async_trait;
use futures::stream::BoxStream;
use hostler_model::{Refusal, Timestamp, UnitId};

use crate::Tunnels;

/// The way to one node.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// The node's intent or commands in the view have changed: fetch
    /// [`Control::intent`](crate::Control::intent) and
    /// [`Control::pending_commands`](crate::Control::pending_commands) and deliver them when possible.
    ///
    /// Called on the way of every commit: it must not block, and several calls may become one delivery.
    fn wake(&self);

    /// Opens a log transfer from the node, or says that it cannot. Bounded in time by the implementation.
    async fn logs(
        &self,
        unit: UnitId,
        query: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal>;

    /// Whether it can do errands inside the node's copies.
    fn tunnels(&self) -> Option<&dyn Tunnels> {
        None
    }
}

/// What to read of a copy's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogRequest {
    /// The run before the latest.
    pub previous: bool,
    /// Only the last so many lines; none means all that is kept.
    pub tail: Option<u64>,
    /// Only lines at or after this moment.
    pub since: Option<Timestamp>,
    /// Go on with what is still to be written.
    pub follow: bool,
}

/// One line, or part of a line, of a copy's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    pub at: Timestamp,
    pub stream: LogStream,
    /// Without the line break.
    pub text: String,
    /// More of the same line follows.
    pub is_partial: bool,
    /// Which run wrote it, from 1.
    pub run: u32,
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
    /// Hostler's own word, such as a gap that is marked.
    Notice,
}
