//! Events and log lines, single and as streams.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::is_false;

/// Something that happened in the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts up by one over the life of the fleet; the resume id of the stream.
    pub sequence: u64,
    pub at: String,
    /// The stable name, such as `node-lost`.
    pub kind: String,
    pub level: Level,
    #[serde(default)]
    pub subject: Subject,
    /// One sentence for a person.
    pub message: String,
    /// Who caused it: `user/<name>`, `keeper/<name>` or `node/<name>`.
    #[serde(default)]
    pub actor: String,
}

/// How much a person should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Info,
    Warning,
    #[serde(other)]
    Unknown,
}

/// What an event is about, as ids; what is known is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Subject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment: Option<String>,
}

/// Events that the fleet has forgotten: the log is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventGap {
    /// The oldest event that is still kept.
    pub oldest: u64,
}

/// Which events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct EventQuery {
    /// Go on with what is still to happen, as a stream.
    #[serde(skip_serializing_if = "is_false")]
    pub follow: bool,
    /// Only events after this sequence number. A `Last-Event-ID` header says the same and wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// One line of a copy's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    pub at: String,
    pub stream: LogStream,
    /// Without the line break.
    pub text: String,
    /// More of the same line follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub partial: bool,
    /// Which run of the copy wrote it, from 1.
    #[serde(default)]
    pub run: u32,
    /// Which copy of the workload.
    #[serde(default)]
    pub slot: u32,
    /// The assignment, by the last eight digits of its id.
    #[serde(default)]
    pub copy: String,
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogStream {
    Stdout,
    Stderr,
    /// Hostler's own word, such as a gap that is marked.
    Notice,
    #[serde(other)]
    Unknown,
}

/// What to read of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct LogQuery {
    /// Only the last so many lines of each copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// Only lines at or after this moment (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The run before the latest.
    #[serde(skip_serializing_if = "is_false")]
    pub previous: bool,
    /// Go on with what is still to be written.
    #[serde(skip_serializing_if = "is_false")]
    pub follow: bool,
    /// Only this copy of the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}
