//! What the owner does when the store did not answer a commit: nothing is decided until the commit's fate
//! is known.
//!
//! First the leader lease is given up and taken again. From then on the old commit cannot happen any more,
//! because its token is stale. Then the store's revision and one record of the batch tell what became of it.

use std::time::Duration;

use hostler_fleet::Verb;
use hostler_kit::Backoff;
use hostler_store::{Revision, StoreError};

use super::{End, FIRST_WAIT, Owner, no_answer};
use crate::StartError;
use crate::batch::{Batch, Request};
use crate::commit::Probe;
use crate::leader::Renewal;
use crate::load::{Loaded, load};
use crate::refusals;

const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What became of a commit that the store did not answer.
enum Fate {
    Happened(Revision),
    DidNot,
    /// More has happened to the store than this server knows of; this is what it holds now.
    Unclear(Box<Loaded>),
}

/// Why the fate is not known yet.
enum Trouble {
    /// Another server decides: it never will be known here.
    Lost,
    /// Ask again later.
    Unavailable(StoreError),
    /// The store holds what this server cannot read.
    Unreadable(StartError),
}

impl Owner {
    pub(super) async fn recover(&mut self, batch: Batch, probe: Option<Probe>) -> Option<End> {
        self.shared.set_store_ok(false);
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let fate = loop {
            let trouble = match self.fate(probe.as_ref()).await {
                Ok(fate) => break fate,
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Unavailable(error) => {
                    tracing::warn!(%error, "the store is unavailable");
                    self.shared.note_store(Some(&error));
                }
                Trouble::Lost => {
                    batch.refuse(&refusals::outcome_unknown());
                    return Some(End::SteppedDown);
                }
                Trouble::Unreadable(error) => {
                    tracing::error!(%error, "the store holds what cannot be read");
                    batch.refuse(&refusals::outcome_unknown());
                    return Some(End::SteppedDown);
                }
            }
            let parts = self.shared.parts.clone();
            let wait = tokio::time::sleep(backoff.next(parts.entropy.as_ref()));
            tokio::select! {
                biased;
                () = parts.tasks.stopping() => {
                    batch.refuse(&refusals::outcome_unknown());
                    return Some(End::Stopping);
                }
                () = wait => {}
            }
        };
        self.shared.set_store_ok(true);
        self.follow(fate, batch);
        None
    }

    fn follow(&mut self, fate: Fate, batch: Batch) {
        match fate {
            Fate::Happened(revision) => {
                tracing::info!("the commit had happened");
                self.publish(batch, revision);
            }
            Fate::DidNot => {
                tracing::info!(
                    verbs = batch.decided.len(),
                    "the commit had not happened; deciding again"
                );
                self.shared.metrics.count_lost_batch();
                self.decide_again(requests_of(batch));
            }
            Fate::Unclear(loaded) => {
                tracing::warn!("the store was changed meanwhile; starting from what it holds");
                self.shared.metrics.count_lost_batch();
                self.revision = loaded.revision;
                self.shared.replace(*loaded);
                let (again, unknown): (Vec<_>, Vec<_>) = requests_of(batch)
                    .into_iter()
                    .partition(|request| is_repeatable(&request.verb));
                for request in unknown {
                    request.tell(Err(refusals::outcome_unknown()));
                }
                self.decide_again(again);
            }
        }
    }

    /// Starts over from the view: first these, then all that was gathered behind them, in order.
    pub(super) fn decide_again(&mut self, first: Vec<Request>) {
        self.head = self.shared.view().clone();
        let behind: Vec<Request> = self.gathered.drain(..).flat_map(requests_of).collect();
        for request in first.into_iter().chain(behind) {
            self.take(request);
        }
    }

    async fn fate(&mut self, probe: Option<&Probe>) -> Result<Fate, Trouble> {
        let known = self.revision;
        let bound = self.shared.config.leader_ttl;
        let present = tokio::time::timeout(bound, self.leader.retake())
            .await
            .unwrap_or_else(|_| Err(Renewal::Unavailable(no_answer())))?;
        if present == known {
            return Ok(Fate::DidNot);
        }
        if present == known + 1
            && let Some(probe) = probe
        {
            let asked = self.shared.parts.store.get(&probe.key);
            let entry = tokio::time::timeout(bound, asked)
                .await
                .unwrap_or_else(|_| Err(no_answer()))?;
            if entry.is_some_and(|entry| entry.revision == present && entry.value == probe.value) {
                return Ok(Fate::Happened(present));
            }
        }
        let loaded = load(self.shared.parts.store.as_ref()).await?;
        Ok(Fate::Unclear(Box::new(loaded)))
    }
}

fn requests_of(batch: Batch) -> Vec<Request> {
    batch
        .decided
        .into_iter()
        .map(|decided| decided.request)
        .collect()
}

/// Whether deciding the verb on its own effect changes nothing more.
const fn is_repeatable(verb: &Verb) -> bool {
    !matches!(
        verb,
        Verb::Issue { .. } | Verb::Restart { .. } | Verb::Rerun { .. } | Verb::NewEpoch
    )
}

impl From<Renewal> for Trouble {
    fn from(renewal: Renewal) -> Self {
        match renewal {
            Renewal::Unavailable(error) => Self::Unavailable(error),
            Renewal::Held | Renewal::Lost => Self::Lost,
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error)
    }
}

impl From<StartError> for Trouble {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store(error) => Self::Unavailable(error),
            error => Self::Unreadable(error),
        }
    }
}
