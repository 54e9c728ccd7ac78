//! One session: it opens here, with hello and welcome, and goes on in `joined` until it ends.
//!
//! ```text
//!   connect ─► Hello, Observed (full) ─► Welcome ─► ┌ Beat every interval      ┐
//!                                        Refused    │ Observed when it changes │ ─► lost, suspended, stopping
//!                                                   └ Intent, Command, Open    ┘
//! ```
//!
//! Every wait has an end: the connection, the welcome, each message that is sent, and the lease, within which
//! a beat must be answered.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use hostler_kit::trust::Print;
use hostler_model::spec::Kind;
use hostler_model::{NodeFacts, Resources};
use hostler_wire::session::v1;
use hostler_wire::session::v1::node_message::Message as Out;
use hostler_wire::session::v1::server_message::Message as In;
use hostler_wire::session::v1::session_client::SessionClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::joined::{Session, full_set, lost, message};
use super::{Ended, Uplink, convert};
use crate::ledger::Origin;
use crate::origin::Birthplace;
use crate::probe::Known;
use crate::uplink::channel::{SignsOfLife, connect};

/// How long the other side may take to answer the hello.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the hello waits for what the drivers can do. Most answer within this; what the others say follows later.
const FIRST_FACTS: Duration = Duration::from_millis(20);
/// Messages that may wait to be sent.
const OUTBOX: usize = 64;
/// Bounds of what the control plane may ask for.
const BEATS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

/// A session that was welcome, what it hears, and how often it is to beat.
type Opened<'a> = (Session<'a>, Streaming<v1::ServerMessage>, Duration);

impl Uplink {
    /// Opens a session and stays in it; answers how it ended and whether it was welcome.
    pub(super) async fn session(&mut self) -> (Ended, bool) {
        let tasks = self.parts.tasks.clone();
        // Dropping what is not open yet closes its streams; nothing else is held. A session that is open takes its leave.
        let opened = tokio::select! {
            biased;
            () = tasks.stopping() => Err(Ended::Stopping),
            opened = Box::pin(self.open()) => opened,
        };
        match opened {
            Ok((session, inbound, interval)) => {
                (Box::pin(session.run(inbound, interval)).await, true)
            }
            Err(ended) => (ended, false),
        }
    }

    async fn open(&mut self) -> Result<Opened<'_>, Ended> {
        let kinds: Vec<Kind> = self.handle.runtimes.keys().copied().collect();
        let (channel, ()) = futures::join!(
            connect(&self.server, &self.parts.dial, SignsOfLife::Beats),
            self.handle.abilities.settled(&kinds, FIRST_FACTS)
        );
        let channel = channel.map_err(Ended::Lost)?;
        let known = self.handle.abilities.known();
        let picture = Arc::clone(&self.handle.picture.borrow_and_update());

        let reserved = self.handle.tuned.now().reserved;
        let mut believed = self.believed();
        let believes = *believed.borrow_and_update();
        let (out, outbox) = mpsc::channel(OUTBOX);
        let sent = picture.units.clone();
        let mut first = vec![message(Out::Hello(self.hello(
            &known,
            (reserved, believes),
            picture.origin,
        )))];
        first.extend(full_set(&sent));
        let outbound = stream::iter(first).chain(ReceiverStream::new(outbox));
        let mut client = SessionClient::new(channel);
        let answer = tokio::time::timeout(WELCOME_TIMEOUT, client.control(outbound)).await;
        let mut inbound = answer
            .map_err(|_| no_welcome())?
            .map_err(lost)?
            .into_inner();
        let welcome = self.welcome(&mut inbound).await?;
        let speaker = convert::speaker(&welcome).map_err(|error| Ended::Lost(error.to_string()))?;
        let origin = speaker.origin;
        if let Some(birthplace) = &self.config.birthplace {
            birthplace.is_welcome();
        }
        tracing::info!(
            node = %origin.node_id, fleet = %origin.fleet_id, version = welcome.version, "joined the fleet"
        );

        let interval = beat_interval(&welcome);
        let lease = Duration::from_millis(welcome.lease_ms).max(interval * 3);
        let session = Session::new(self, speaker, out, sent)
            .within(lease)
            .having(known, welcome.takes_facts)
            .keeping(reserved)
            .believing(believed);
        Ok((session, inbound, interval))
    }

    async fn welcome(
        &self,
        inbound: &mut Streaming<v1::ServerMessage>,
    ) -> Result<v1::Welcome, Ended> {
        let first = tokio::time::timeout(WELCOME_TIMEOUT, inbound.message()).await;
        match first
            .map_err(|_| no_welcome())?
            .map_err(lost)?
            .and_then(|first| first.message)
        {
            Some(In::Welcome(welcome)) => Ok(welcome),
            Some(In::Refused(refused)) => Err(Ended::Refused(refused)),
            Some(_) => Err(Ended::Lost("the first answer was no welcome".to_owned())),
            None => Err(Ended::Lost(
                "the control plane closed the session".to_owned(),
            )),
        }
    }

    fn hello(
        &self,
        known: &Known,
        (reserved, believes): (Resources, Option<Print>),
        origin: Option<Origin>,
    ) -> v1::Hello {
        let birthplace = self.config.birthplace.as_ref();
        let has = match self.config.capacity {
            Some(capacity) => capacity,
            None => self.parts.machine.capacity(&self.config.data_dir),
        };
        v1::Hello {
            versions: Some(v1::Versions::ours()),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            identity: self.identity.identity.clone(),
            name: self.identity.name.clone(),
            facts: Some(self.facts(known)),
            capacity: Some(convert::resources(has.minus(&reserved))),
            labels: self.config.labels.clone(),
            resume: origin.map(convert::resume),
            time_ms: self.parts.clock.wall_millis(),
            machine: birthplace.map_or_else(String::new, Birthplace::mark),
            copied_from: text(self.copied_from()),
            key: text(self.key),
            believes: text(believes),
        }
    }

    /// What the machine is, and what its drivers can do.
    pub(super) fn facts(&self, known: &Known) -> v1::Facts {
        convert::facts(NodeFacts {
            runtimes: known.values().cloned().collect(),
            storage: self.handle.storage(),
            ..self.parts.machine.facts()
        })
    }
}

fn beat_interval(welcome: &v1::Welcome) -> Duration {
    Duration::from_millis(welcome.beat_interval_ms).clamp(BEATS.0, BEATS.1)
}

fn text(known: Option<impl ToString>) -> String {
    known.map_or_else(String::new, |known| known.to_string())
}

fn no_welcome() -> Ended {
    Ended::Lost(format!("no welcome within {} s", WELCOME_TIMEOUT.as_secs()))
}
