//! The audit as it is read from afar: its lines, and which of them are wanted.

use serde::de::{Error as _, IntoDeserializer as _};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::is_false;

/// Who did what, from where, and how it ended. Its keys stand as they do in the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditLine {
    /// When it was answered, by the server's clock.
    pub at: String,
    pub actor: AuditActor,
    /// The address at the other end of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    pub door: String,
    /// Of gRPC the call.
    pub method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// What the path names, or what was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thing: Option<String>,
    /// What that is called, where it is named by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The id that the answer had in `x-request-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    pub outcome: AuditOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditActor {
    /// `person`, `node`, `client`, `program`, `anonymous` or `nobody`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of the token, the node or the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuditOutcome {
    Done,
    Refused,
    Failed,
    /// Whoever asked went away before the answer; it may have been done all the same.
    BrokenOff,
    #[serde(other)]
    Unknown,
}

/// What stands in the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum AuditRecord {
    Line(Box<AuditLine>),
    Gap(AuditGap),
}

/// Lines that are missing before the next one: the disk took none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditGap {
    pub lost: u64,
}

/// The newest lines that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The oldest first.
    pub lines: Vec<AuditRecord>,
    /// How many lines were passed over that cannot be read.
    #[serde(default)]
    pub unreadable: u64,
    /// Where to go on towards older lines, of which there may be none: a request looks through a part of the files, and
    /// may find nothing there. None: the search is over, at the oldest line or where all lines are older than `since`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// Which lines.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct AuditQuery {
    /// At most so many lines, 1 to 1000; 500 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only lines before that place, which an earlier page has told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Only lines at or after this moment (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Only what this one did: a name, an id, or one of the kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Only what was done to this, by its name, or by the id where it was named so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thing: Option<String>,
    /// Only what ended so.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "asked_outcome"
    )]
    pub outcome: Option<AuditOutcome>,
    /// Only what came by this door.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// What strangers were refused, which has files of its own, and nothing else.
    #[serde(skip_serializing_if = "is_false")]
    pub strangers: bool,
}

/// A later server's words are unknown in a line; who asks for one that is none has made a mistake.
fn asked_outcome<'de, D: Deserializer<'de>>(from: D) -> Result<Option<AuditOutcome>, D::Error> {
    let text = String::deserialize(from)?;
    let word: Result<_, D::Error> = AuditOutcome::deserialize(text.as_str().into_deserializer());
    match word? {
        AuditOutcome::Unknown if text != "unknown" => {
            let expected = "one of done, refused, failed, broken-off, unknown is expected";
            Err(D::Error::custom(expected))
        }
        outcome => Ok(Some(outcome)),
    }
}
