//! One conversation with one node: from its hello to the end of the stream.
//!
//! ```text
//!   greet ──refused──► Refused, end
//!     │
//!     ▼            ┌─ listen:  each message; beats are taken at once, the rest is queued
//!   converse ──────┼─ work:    the queue, in order; each entry may wait for a commit
//!     │            └─ deliver: once the node has told all it observes: intent and commands, on each wake
//!     ▼
//!   end: the stream broke, the agent took its leave, the node was refused, a newer session took over, or the server
//!        stops
//! ```
//!
//! The three run side by side in one task and share the node's `Attachment`, so that a slow commit delays
//! no beat. Dropping the attachment tells the control plane that the connection is gone; after a leave, once the words
//! before it were said, it is closed, and the node is what it was until its lease says otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hostler_control::fleet::{NodeAnnouncement, Reply, Verb};
use hostler_control::{Attachment, Control, Judged, Link, Marks, Trust};
use hostler_model::{Actor, Code, IntentItem, NodeId, Refusal, key_alias};
use hostler_wire::session::negotiate;
use hostler_wire::session::v1::{self, NodeMessage, ServerMessage, node_message, server_message};
use tokio::sync::{Notify, mpsc};
use tonic::{Status, Streaming};

use super::deliver::Told;
use super::link::SessionLink;
use super::listen::{Listening, SILENCE, Word};
use super::tickets::Tickets;
use super::{Asking, FIRST_MESSAGE, Shown, convert};

/// How long a node may take to read one answer.
const READING: Duration = Duration::from_secs(20);
/// How long a node may take to tell all it observes after its hello.
const FIRST_OBSERVED: Duration = Duration::from_secs(60);
/// Words of a node that wait for a commit; more make it wait.
const QUEUE: usize = 16;

/// Where the answers to one node go.
#[derive(Debug, Clone)]
pub(super) struct Answers(mpsc::Sender<Result<ServerMessage, Status>>);

/// One conversation.
pub(super) struct Conversation {
    control: Control,
    tickets: Arc<Tickets>,
    who: Asking,
    /// What the node calls itself, once it has said so.
    name: String,
    messages: Streaming<NodeMessage>,
    answers: Answers,
}

/// Why a conversation is over.
#[derive(Debug)]
pub(super) enum End {
    /// The node hung up, or reads no more.
    Broken,
    /// The agent stops, and said so.
    Left,
    /// A typed no.
    Refused(Refusal),
    /// The contract was broken, by size or by time.
    Status(Status),
}

impl Answers {
    /// Sends one answer, or notices that nobody reads.
    pub(super) async fn send(&self, message: server_message::Message) -> Result<(), End> {
        let message = ServerMessage {
            message: Some(message),
        };
        let sent = tokio::time::timeout(READING, self.0.send(Ok(message))).await;
        sent.ok().and_then(Result::ok).ok_or(End::Broken)
    }

    /// Completes when nobody reads any more.
    async fn gone(&self) {
        self.0.closed().await;
    }

    async fn close(&self, status: Status) {
        // Nobody may be there to read it, and then nothing is lost.
        let _ = tokio::time::timeout(READING, self.0.send(Err(status))).await;
    }
}

impl Conversation {
    pub(super) fn new(
        (control, tickets, who): (Control, Arc<Tickets>, Asking),
        messages: Streaming<NodeMessage>,
        answers: mpsc::Sender<Result<ServerMessage, Status>>,
    ) -> Self {
        Self {
            control,
            tickets,
            who,
            name: String::new(),
            messages,
            answers: Answers(answers),
        }
    }

    /// Holds the conversation until it ends, and says why.
    pub(super) async fn run(mut self) {
        let (tasks, answers) = (self.control.tasks().clone(), self.answers.clone());
        let end = tokio::select! {
            biased;
            end = Box::pin(self.hold()) => end,
            () = tasks.stopping() => End::Status(Status::unavailable("the server is stopping")),
        };
        match end {
            End::Broken | End::Left => {}
            End::Status(status) => answers.close(status).await,
            End::Refused(refusal) => {
                let access = &self.who.access;
                access.tell_refusal(self.who.peer.as_ref(), "session", &refusal);
                self.who.refused("Control", &self.name, &refusal).await;
                let message = convert::refused_message(refusal);
                // As above: the node may have gone.
                let _ = answers
                    .send(server_message::Message::Refused(message))
                    .await;
            }
        }
    }

    async fn hold(&mut self) -> End {
        let (attachment, link) = match self.greet().await {
            Ok(greeted) => greeted,
            Err(end) => return end,
        };
        let end = self.converse(&attachment, &link).await;
        tracing::info!(node = %attachment.node(), "session ended");
        if matches!(end, End::Left) {
            attachment.close();
        }
        end
    }

    /// Hello, version, announcement, attachment, welcome.
    async fn greet(&mut self) -> Result<(Attachment, Arc<SessionLink>), End> {
        let first = tokio::time::timeout(FIRST_MESSAGE, self.messages.message()).await;
        let first = first.map_err(|_| End::Status(Status::deadline_exceeded("no hello came")))?;
        let first = first.map_err(End::Status)?.and_then(|first| first.message);
        let Some(node_message::Message::Hello(hello)) = first else {
            return Err(End::Refused(convert::refused(
                "the first message of a session is its hello",
            )));
        };
        self.name.clone_from(&hello.name);
        let offset = self.offset_of(hello.time_ms);
        let version = negotiate(hello.versions.unwrap_or_default()).ok_or_else(no_version)?;
        let mark = convert::mark(&hello.machine).unwrap_or_default().to_owned();
        let known = self.refuse_another(&hello, &mark).map_err(End::Refused)?;
        let judged = match known {
            Some(node) => self.refuse_double(node).await?,
            None => Judged::default(),
        };
        let (node, boot_id) = self.announce(hello).await.map_err(End::Refused)?;
        let link = Arc::new(SessionLink {
            woken: Notify::new(),
            answers: self.answers.clone(),
            tickets: Arc::clone(&self.tickets),
        });
        let marks = Marks {
            boot_id: &boot_id,
            own: &mark,
        };
        let attached =
            self.control
                .take_over(node, (marks, judged), Arc::clone(&link) as Arc<dyn Link>);
        let attachment = attached.map_err(End::Refused)?;
        attachment.note_clock(offset);
        let welcome = self.welcome(version, node);
        self.answers
            .send(server_message::Message::Welcome(welcome))
            .await?;
        Ok((attachment, link))
    }

    /// How far the node's clock is ahead of ours, in milliseconds; the way of the hello counts as being behind.
    fn offset_of(&self, told: u64) -> Option<i64> {
        let ours = self.control.clock().wall_millis();
        (told > 0).then(|| told.cast_signed().saturating_sub(ours.cast_signed()))
    }

    /// Before the hello of a copy's machine changes what is known of the original's. Answers which node it is, if it is
    /// known.
    fn refuse_another(&self, hello: &v1::Hello, mark: &str) -> Result<Option<NodeId>, Refusal> {
        let alias = match self.who.shown {
            Shown::Key(key) => key_alias(&key.to_string()),
            Shown::NotAsked | Shown::Nothing => convert::identity(hello.identity.clone())?,
        };
        let view = self.control.view();
        let known = view.node_by_alias(&alias).filter(|node| !node.is_gone());
        let known = known.map(|node| node.id);
        drop(view);
        let Some(node) = known else { return Ok(None) };
        let facts = hello.facts.as_ref();
        let text = |of: fn(&v1::Facts) -> &str| facts.map_or("", of);
        let marks = Marks {
            boot_id: text(|facts| &facts.boot_id),
            own: mark,
        };
        let hostname = text(|facts| &facts.hostname);
        self.control.refuse_while_in_use(node, (marks, hostname))?;
        Ok(Some(node))
    }

    /// Whoever has gone while it waited takes nothing over.
    async fn refuse_double(&self, node: NodeId) -> Result<Judged, End> {
        // Cancel-safe: what is judged is forgotten.
        tokio::select! {
            biased;
            () = self.answers.gone() => Err(End::Broken),
            judged = self.control.refuse_double(node) => judged.map_err(End::Refused),
        }
    }

    async fn announce(&self, hello: v1::Hello) -> Result<(NodeId, String), Refusal> {
        let key = match self.who.shown {
            Shown::NotAsked => None,
            Shown::Nothing => return Err(no_certificate()),
            Shown::Key(key) => Some(key_alias(&key.to_string())),
        };
        let mut announcement = convert::announcement(hello)?;
        if key.is_some() {
            // What was proved counts, and nothing else.
            announcement.introduction.key = None;
        }
        let announcement = NodeAnnouncement {
            key,
            ..announcement
        };
        let (name, boot_id) = (
            announcement.name.clone(),
            announcement.facts.boot_id.clone(),
        );
        // Where there is login, a machine has joined before.
        let is_new = announcement.key.is_none()
            && (self.control.view())
                .node_by_alias(&announcement.identity)
                .is_none();
        let verb = Verb::Announce(Box::new(announcement));
        match self.control.submit(Actor::Node(name.clone()), verb).await? {
            Reply::Node { id, .. } => {
                tracing::info!(node = %id, name, contract = "session", "node joined");
                if is_new {
                    self.who.joined(&name).await;
                }
                Ok((id, boot_id))
            }
            other => Err(unexpected(&other)),
        }
    }

    fn welcome(&self, version: u32, node: NodeId) -> v1::Welcome {
        let rules = &self.control.config().lease;
        let run = self.control.server_run();
        v1::Welcome {
            version,
            fleet_id: self.control.fleet_id().to_string(),
            store_epoch: self.control.store_epoch().to_string(),
            node_id: node.to_string(),
            beat_interval_ms: millis(rules.beat),
            lease_ms: millis(rules.window),
            server_time_ms: self.control.clock().wall_millis(),
            store_revision: run.store_revision,
            server_run: run.id,
            takes_facts: true,
        }
    }

    async fn converse(&mut self, attachment: &Attachment, link: &SessionLink) -> End {
        let (words, queue) = mpsc::channel(QUEUE);
        let told_all = Notify::new();
        let unsaid = AtomicUsize::new(0);
        let listening = Listening {
            unsaid: &unsaid,
            attachment,
            answers: &self.answers,
            words,
        };
        let mut working = std::pin::pin!(work(attachment, queue, (&told_all, &unsaid)));
        let delivering = deliver(&self.control, attachment.node(), link, &told_all);
        let urging = urge(
            (&self.control, self.who.access.trust()),
            attachment.node(),
            &self.answers,
        );
        // Each arm ends the conversation, so nothing that is lost by cancelling is missed.
        let end = tokio::select! {
            biased;
            end = listening.run(&mut self.messages) => end,
            end = &mut working => end,
            end = delivering => end,
            end = urging => end,
            () = attachment.closed() => self.taken_over(),
        };
        if !matches!(end, End::Left) {
            return end;
        }
        // What was said before the leave is taken in first, though nobody may be there any more to hear that it was. With
        // the listener the way into the queue has gone, so that the queue ends.
        tokio::select! {
            biased;
            end = working => match end {
                End::Broken => End::Left,
                end => end,
            },
            () = attachment.closed() => self.taken_over(),
        }
    }

    fn taken_over(&self) -> End {
        End::Status(match self.control.tasks().is_stopping() {
            true => Status::unavailable("the server stops"),
            false => Status::aborted("a newer session took over"),
        })
    }
}

/// Takes the words in order. A word that the store does not take ends the session: the node comes again
/// and says everything anew.
async fn work(
    attachment: &Attachment,
    mut queue: mpsc::Receiver<Word>,
    (told_all, unsaid): (&Notify, &AtomicUsize),
) -> End {
    let mut patience = FIRST_OBSERVED;
    loop {
        // Cancel-safe: a word that was not received stays in the queue.
        let word = match tokio::time::timeout(patience, queue.recv()).await {
            Ok(Some(word)) => word,
            Ok(None) => return End::Broken,
            Err(_) if patience == FIRST_OBSERVED => {
                return End::Status(Status::deadline_exceeded("the observed set did not come"));
            }
            Err(_) => continue,
        };
        let is_full = matches!(word, Word::Full(_));
        if let Err(refusal) = say(attachment, word).await {
            return End::Refused(refusal);
        }
        unsaid.fetch_sub(1, Ordering::AcqRel);
        if is_full {
            patience = SILENCE;
            told_all.notify_one();
        }
    }
}

async fn say(attachment: &Attachment, word: Word) -> Result<(), Refusal> {
    match word {
        Word::Full(units) => attachment.observed_full(units).await,
        Word::Delta(units) => attachment.observed_delta(units).await,
        Word::Held(held) => {
            let reason = (!held.reason.is_empty()).then_some(held.reason);
            attachment.held_back(reason).await
        }
        Word::Believes(print) => attachment.believes(print).await,
        // The version is that of the hello, and stays.
        Word::Facts(facts) => {
            let facts = convert::facts(facts, String::new());
            attachment.discovered(facts).await
        }
        Word::Acknowledge(it) => {
            let id = it.command.parse();
            let id = id.map_err(|_| convert::refused("a command is acknowledged by its id"))?;
            let result = if it.done {
                Ok(it.message)
            } else {
                Err(it.message)
            };
            match attachment.acknowledge(id, result).await {
                // The record was pruned or its node removed: the answer has nowhere to go.
                Err(refusal) if refusal.code == Code::CommandNotFound => Ok(()),
                said => said,
            }
        }
    }
}

/// Tells the node what to run and do, first in full and then on each wake.
async fn deliver(control: &Control, node: NodeId, link: &SessionLink, told_all: &Notify) -> End {
    told_all.notified().await;
    let mut told = Told::default();
    loop {
        let intent = control.intent(node);
        // Read after the intent, so that nothing in it is newer.
        let store_revision = control.store_revision();
        // Before the intent that names them, and read after it: what it names is there.
        for secrets in secrets_of(control, &mut told, &intent) {
            let message = server_message::Message::Secrets(secrets);
            if let Err(end) = link.answers.send(message).await {
                return end;
            }
        }
        for part in told.intent(&intent) {
            let part = v1::Intent {
                store_revision,
                ..part
            };
            if let Err(end) = link
                .answers
                .send(server_message::Message::Intent(part))
                .await
            {
                return end;
            }
        }
        for command in told.commands(&control.pending_commands(node)) {
            if let Err(end) = link
                .answers
                .send(server_message::Message::Command(command))
                .await
            {
                return end;
            }
        }
        // Cancel-safe, and a wake that came meanwhile is kept.
        link.woken.notified().await;
    }
}

/// Asks the node to renew whenever it does not believe the authority that signs, so that former keys can be let go.
async fn urge(
    (control, trust): (&Control, Option<&Trust>),
    node: NodeId,
    answers: &Answers,
) -> End {
    let Some(trust) = trust else {
        return std::future::pending().await;
    };
    let mut signing = trust.signing();
    loop {
        let print = signing.borrow_and_update().to_string();
        if believed(control, node).as_ref() != Some(&print) {
            let message = server_message::Message::RenewNow(v1::RenewNow {});
            if let Err(end) = answers.send(message).await {
                return end;
            }
        }
        // Cancel-safe: the newest print is kept. The sender lives as long as the server.
        if signing.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn believed(control: &Control, node: NodeId) -> Option<String> {
    let view = control.view();
    view.node(node).and_then(|node| node.believes.clone())
}

/// The values that the node needs and does not have. One that cannot be opened is left out: its copies say so.
fn secrets_of(control: &Control, told: &mut Told, intent: &[IntentItem]) -> Vec<v1::Secrets> {
    let known = |name: &str| {
        let view = control.view();
        view.secret(name).map(|it| (it.version, it.created_at))
    };
    let give = |name: &str| match control.give_secret(name) {
        Ok(given) => Some(v1::SecretValue {
            name: name.to_owned(),
            version: given.version,
            value: given.value.reveal().to_vec(),
        }),
        Err(refusal) => {
            tracing::error!(code = %refusal.code, %refusal, "a secret is not given to a node");
            None
        }
    };
    told.secrets(intent, known, give)
}

fn no_version() -> End {
    let versions = v1::Versions::ours();
    let sentence = format!(
        "this server speaks versions {} to {} of the session contract, and the agent none of them",
        versions.lowest, versions.highest
    );
    let advice = "run an agent whose version is at most one behind the server's";
    End::Refused(Refusal::new(Code::VersionUnsupported, sentence, advice))
}

pub(super) fn no_certificate() -> Refusal {
    let sentence = "this fleet's nodes show a certificate, and none was shown";
    let advice = "start the agent with a token from `hostler token create` and an https:// address";
    Refusal::new(Code::Unauthenticated, sentence, advice)
}

pub(super) fn unexpected(reply: &Reply) -> Refusal {
    tracing::error!(?reply, "an announcement was answered with something else");
    Refusal::new(
        Code::Internal,
        "the announcement was not understood",
        "look at the server's log",
    )
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
