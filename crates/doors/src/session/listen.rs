//! Reading one node's messages: beats are taken at once, everything that may have to wait for a commit becomes
//! a [`Word`] in a bounded queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hostler_control::{Attachment, BeatVerdict};
use hostler_model::{ObservedUnit, Refusal};
use hostler_wire::session::v1::{self, NodeMessage, node_message, server_message};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::convert;
use super::stream::{Answers, End};

/// How long a node may be silent in all; its lease ends long before.
pub(super) const SILENCE: Duration = Duration::from_secs(600);
/// Most units in one observed set.
const MOST_UNITS: usize = 100_000;

/// What a node said that may have to wait for a commit.
#[derive(Debug)]
pub(super) enum Word {
    Full(Vec<ObservedUnit>),
    Delta(Vec<ObservedUnit>),
    Acknowledge(v1::Acknowledge),
    Held(v1::Held),
    Facts(v1::Facts),
    /// By the print of its certificate.
    Believes(String),
}

/// Reads the node's messages: beats are taken at once, words are queued.
pub(super) struct Listening<'a> {
    pub attachment: &'a Attachment,
    pub answers: &'a Answers,
    pub words: mpsc::Sender<Word>,
    /// Words that are queued or being said.
    pub unsaid: &'a AtomicUsize,
}

impl Listening<'_> {
    pub(super) async fn run(self, messages: &mut Streaming<NodeMessage>) -> End {
        let mut gathered = Vec::new();
        loop {
            let message = match tokio::time::timeout(SILENCE, messages.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return End::Broken,
                Ok(Err(status)) => return End::Status(status),
                Err(_) => return End::Status(Status::deadline_exceeded("the node fell silent")),
            };
            // A message of a newer version is no message to us.
            let Some(message) = message.message else {
                continue;
            };
            if let Err(end) = self.take(message, &mut gathered).await {
                return end;
            }
        }
    }

    async fn take(
        &self,
        message: node_message::Message,
        gathered: &mut Vec<ObservedUnit>,
    ) -> Result<(), End> {
        use node_message::Message;
        match message {
            Message::Beat(beat) => self.beat(beat).await,
            Message::Observed(part) => {
                let word = observed(part, gathered).map_err(End::Refused)?;
                self.queue(word).await
            }
            Message::Acknowledge(it) => self.queue(Some(Word::Acknowledge(it))).await,
            Message::Held(held) => self.queue(Some(Word::Held(held))).await,
            Message::Facts(facts) => self.queue(Some(Word::Facts(facts))).await,
            Message::Believes(it) => {
                let print = convert::print(&it.authority);
                self.queue(print.map(Word::Believes)).await
            }
            // What the node has on its disk changes nothing here: at the next hello it is told all again.
            Message::Applied(_) => Ok(()),
            Message::Kept(kept) => self.kept(&kept).await,
            Message::Leave(_) => Err(End::Left),
            Message::Hello(_) => Err(End::Refused(convert::refused(
                "a session has one hello, and it came already",
            ))),
        }
    }

    async fn beat(&self, beat: v1::Beat) -> Result<(), End> {
        let usage = convert::usage(beat.usage.unwrap_or_default());
        match self
            .attachment
            .beat(beat.sequence, usage, beat.observed_digest)
        {
            BeatVerdict::Stale => return Ok(()),
            BeatVerdict::Accepted => {}
            // What differs may well be in a word that waits for a commit.
            BeatVerdict::Resend if self.unsaid.load(Ordering::Acquire) > 0 => {}
            BeatVerdict::Resend => {
                self.answers
                    .send(server_message::Message::Resend(v1::Resend {}))
                    .await?;
            }
        }
        let ack = v1::BeatAck {
            sequence: beat.sequence,
        };
        self.answers
            .send(server_message::Message::BeatAck(ack))
            .await
    }

    /// The node deletes data only of what is told here to be unknown.
    async fn kept(&self, kept: &v1::Kept) -> Result<(), End> {
        let workloads = kept.workloads.iter().filter_map(|id| id.parse().ok());
        let unwanted = self.attachment.unknown(workloads);
        let workloads = unwanted.iter().map(ToString::to_string).collect();
        let answer = v1::Unwanted { workloads };
        self.answers
            .send(server_message::Message::Unwanted(answer))
            .await
    }

    async fn queue(&self, word: Option<Word>) -> Result<(), End> {
        let Some(word) = word else { return Ok(()) };
        self.unsaid.fetch_add(1, Ordering::AcqRel);
        self.words.send(word).await.map_err(|_| End::Broken)
    }
}

/// One part of what a node observes; a full set is a word only when its last part has come.
fn observed(part: v1::Observed, gathered: &mut Vec<ObservedUnit>) -> Result<Option<Word>, Refusal> {
    let units = part.units.into_iter().map(convert::observed);
    if !part.full {
        return Ok(Some(Word::Delta(units.collect::<Result<_, _>>()?)));
    }
    for unit in units {
        if gathered.len() == MOST_UNITS {
            return Err(convert::refused(
                "the node observes more units than a session takes",
            ));
        }
        gathered.push(unit?);
    }
    Ok(part.last.then(|| Word::Full(std::mem::take(gathered))))
}
