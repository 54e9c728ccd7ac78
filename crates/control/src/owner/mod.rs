//! The owner task: it alone holds `head` and decides.
//!
//! ```text
//!   inbox ──► decide on head ──► gathered ──(nothing in flight)──► in flight ──► view, answers
//!                  ▲                                                   │
//!                  └──── decided again on head = view ◄──── lost ──────┤
//!                                                                      ├──► happened after all ──► view
//!                                 over: not-leader ◄── leader lost ────┘
//! ```
//!
//! - *Gathered*: decided, applied to `head`, waiting. Refusals and verbs that change nothing wait with the
//!   changes that they were decided behind: nobody hears of what may still be lost.
//! - *In flight*: one batch is being committed.
//! - *Lost*: the store was unavailable. Its fate is found out before anything else is decided: the leader
//!   lease is taken anew, so that the old commit can no longer happen, and the store is asked. Verbs are
//!   decided again only if their commit did not happen; where that cannot be told, those whose effect
//!   would double are refused as unknown.
//! - *Over*: the leader lease is gone. Everybody is refused, and the loop ends for good.
//!
//! Owns `head`, the batches and the lease. Failures of the store are handled here; callers get refusals.

mod recovery;

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use hostler_fleet::{Decision, Moment, Reply, State, Verb, decide};
use hostler_model::{Code, Refusal, Timestamp};
use hostler_store::{CommitError, Limits, Revision, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::batch::{Batch, Decided, Load, Request};
use crate::commit::{CommitFailure, Errand, Landing, Probe};
use crate::leader::{Leader, Renewal};
use crate::metrics::Ending;
use crate::refusals;
use crate::shared::Shared;

/// Most verbs that are decided before the batch is sent off, if many wait.
const ROUND: usize = 1_024;
/// Waits between tries while the store is unavailable.
const FIRST_WAIT: Duration = Duration::from_millis(50);

pub(crate) struct Owner {
    shared: Arc<Shared>,
    head: State,
    /// The store's revision that the view shows.
    revision: Revision,
    leader: Leader,
    limits: Limits,
    inbox: mpsc::Receiver<Request>,
    /// Only the last one still grows; there are two when a decision did not fit into the first.
    gathered: VecDeque<Batch>,
    in_flight: Option<InFlight>,
}

struct InFlight {
    batch: Batch,
    landing: oneshot::Receiver<Landing>,
}

/// Why the loop is over.
enum End {
    Stopping,
    SteppedDown,
}

impl Owner {
    pub(crate) fn new(
        shared: Arc<Shared>,
        (head, revision): (State, Revision),
        leader: Leader,
        inbox: mpsc::Receiver<Request>,
    ) -> Self {
        let limits = shared.parts.store.limits();
        let gathered = VecDeque::new();
        Self {
            shared,
            head,
            revision,
            leader,
            limits,
            inbox,
            gathered,
            in_flight: None,
        }
    }

    pub(crate) async fn run(mut self) {
        let end = loop {
            if let Some(end) = self.launch().await {
                break end;
            }
            if let Some(end) = self.step().await {
                break end;
            }
        };
        match end {
            End::Stopping => self.stop().await,
            End::SteppedDown => self.step_down(),
        }
    }

    /// Waits for what comes next. Cancel-safe in every arm: a landing and the inbox are channels.
    async fn step(&mut self) -> Option<End> {
        let shared = Arc::clone(&self.shared);
        let is_idle = self.in_flight.is_none();
        let renewal = tokio::time::sleep(self.leader.due_in());
        tokio::select! {
            biased;
            () = shared.parts.tasks.stopping() => Some(End::Stopping),
            landing = landed(&mut self.in_flight) => self.land(landing).await,
            () = renewal, if is_idle => self.renew().await,
            request = self.inbox.recv(), if self.gathered.len() <= 1 => {
                request.map_or(Some(End::Stopping), |request| {
                    self.take_with_those_behind(request);
                    None
                })
            }
        }
    }

    // --- deciding

    fn take_with_those_behind(&mut self, first: Request) {
        self.take(first);
        for _ in 0..ROUND {
            if self.gathered.len() > 1 {
                return;
            }
            match self.inbox.try_recv() {
                Ok(request) => self.take(request),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, request: Request) {
        if request.is_abandoned() {
            return;
        }
        let parts = &self.shared.parts;
        let moment = Moment {
            now: Timestamp::from_millis(parts.clock.wall_millis()),
            seed: parts.entropy.next_u128(),
        };
        let decision = decide(&self.head, &moment, &request.actor, &request.verb);
        let (result, load) = match decision.and_then(|decision| self.weigh(decision)) {
            Ok((reply, load)) => (Ok(reply), load),
            Err(refusal) => (Err(refusal), Load::default()),
        };
        self.count(&request.verb, result.is_ok(), load.is_empty());
        self.gather(
            Decided {
                request,
                moment,
                result,
            },
            load,
        );
    }

    fn weigh(&self, decision: Decision) -> Result<(Reply, Load), Refusal> {
        match Load::of(decision.changes, self.limits) {
            Some(load) => Ok((decision.reply, load)),
            None => Err(refusals::too_large()),
        }
    }

    /// Nobody hears of what was decided before everything that it was decided on is durable.
    fn gather(&mut self, decided: Decided, load: Load) {
        let is_alone = self.in_flight.is_none() && self.gathered.is_empty();
        if load.is_empty() && is_alone {
            self.shared.tell(decided);
            return;
        }
        for change in load.changes() {
            self.head.apply(change);
        }
        let fits = self
            .gathered
            .back()
            .is_some_and(|last| last.takes(&load, self.limits));
        if !fits {
            self.gathered.push_back(Batch::default());
        }
        if let Some(last) = self.gathered.back_mut() {
            last.add(decided, load);
        }
    }

    fn count(&self, verb: &Verb, is_ok: bool, is_empty: bool) {
        let ending = match (is_ok, is_empty) {
            (false, _) => Ending::Refused,
            (true, true) => Ending::Unchanged,
            (true, false) => Ending::Changed,
        };
        self.shared.metrics.count_verb(verb, ending);
    }

    // --- committing

    /// Sends the first batch off, if none is in flight.
    async fn launch(&mut self) -> Option<End> {
        while self.in_flight.is_none() {
            let batch = self.gathered.pop_front()?;
            if batch.changes.is_empty() {
                self.answer(batch);
                continue;
            }
            if self.leader.due_in().is_zero()
                && let Some(end) = self.renew().await
            {
                self.gathered.push_front(batch);
                return Some(end);
            }
            if self.leader.is_stale() {
                return self.recover(batch, None).await;
            }
            self.send_off(batch);
        }
        None
    }

    fn send_off(&mut self, batch: Batch) {
        self.shared.begin_commit();
        let (landing, landed) = oneshot::channel();
        let errand = Errand {
            store: Arc::clone(&self.shared.parts.store),
            clock: Arc::clone(&self.shared.parts.clock),
            changes: Arc::clone(&batch.changes),
            event_capacity: self.shared.config.event_capacity,
            guard: self.leader.guard(),
        };
        self.shared.spawn("commit", async move {
            // If the owner has gone, nobody needs to know.
            let _ = landing.send(errand.run().await);
        });
        self.in_flight = Some(InFlight {
            batch,
            landing: landed,
        });
    }

    async fn land(&mut self, landing: Option<Landing>) -> Option<End> {
        let InFlight { batch, .. } = self.in_flight.take()?;
        self.shared.end_commit();
        let Some(landing) = landing else {
            // The commit task panicked: whether it committed is as unknown as if the store had not answered.
            return self.recover(batch, None).await;
        };
        match landing.result {
            Ok(revision) => {
                self.shared
                    .metrics
                    .count_commit(batch.changes.len(), landing.took);
                self.publish(batch, revision);
                None
            }
            Err(failure) => self.handle(failure, batch, landing.probe).await,
        }
    }

    async fn handle(
        &mut self,
        failure: CommitFailure,
        batch: Batch,
        probe: Option<Probe>,
    ) -> Option<End> {
        self.shared.metrics.count_failed_commit();
        match failure {
            CommitFailure::Commit(CommitError::LeaderLost | CommitError::GuardFailed { .. }) => {
                self.gathered.push_front(batch);
                Some(End::SteppedDown)
            }
            CommitFailure::Commit(CommitError::Store(error)) => {
                tracing::warn!(%error, "a commit was not answered");
                self.shared.note_store(Some(&error));
                self.recover(batch, probe).await
            }
            failure @ (CommitFailure::Encoding(_)
            | CommitFailure::Commit(
                CommitError::TooLarge | CommitError::DuplicateKey { .. },
            )) => {
                tracing::error!(%failure, "a batch cannot be committed");
                let advice = "please report this; the server's log says more";
                batch.refuse(&Refusal::new(
                    Code::Internal,
                    "the change cannot be stored",
                    advice,
                ));
                self.decide_again(Vec::new());
                None
            }
        }
    }

    /// The batch is durable: everybody may see it.
    fn publish(&mut self, batch: Batch, revision: Revision) {
        self.revision = revision;
        self.shared.note_store(None);
        self.shared.publish(&batch.changes, revision);
        self.answer(batch);
    }

    fn answer(&self, batch: Batch) {
        for decided in batch.decided {
            self.shared.tell(decided);
        }
    }

    async fn renew(&mut self) -> Option<End> {
        let asked = self.leader.renew(self.revision);
        let renewal = tokio::time::timeout(self.shared.config.leader_ttl, asked).await;
        match renewal.unwrap_or_else(|_| Renewal::Unavailable(no_answer())) {
            Renewal::Held => {
                self.shared.set_store_ok(true);
                None
            }
            Renewal::Lost => Some(End::SteppedDown),
            Renewal::Unavailable(error) => {
                tracing::warn!(%error, "the leader lease was not renewed");
                self.shared.set_store_ok(false);
                tokio::time::sleep(FIRST_WAIT).await;
                None
            }
        }
    }

    // --- the end

    /// Finishes what was decided, refuses what was not, and gives the lease back.
    async fn stop(mut self) {
        self.inbox.close();
        while let Ok(request) = self.inbox.try_recv() {
            request.tell(Err(refusals::stopping()));
        }
        let patience = self.shared.config.patience;
        let finished = tokio::time::timeout(patience, self.finish()).await;
        if finished.is_err() {
            tracing::warn!("the store did not take the last changes in time");
            self.refuse_all(&refusals::outcome_unknown());
        }
        self.shared.over();
        self.leader.release().await;
        self.shared.end();
    }

    async fn finish(&mut self) {
        loop {
            if let Some(End::SteppedDown) = self.launch().await {
                self.refuse_all(&refusals::not_leader());
                return;
            }
            if self.in_flight.is_none() {
                return;
            }
            let landing = landed(&mut self.in_flight).await;
            if let Some(End::SteppedDown) = self.land(landing).await {
                self.refuse_all(&refusals::not_leader());
                return;
            }
        }
    }

    fn step_down(mut self) {
        tracing::error!("another server decides now, or did; this one steps down");
        self.shared.over();
        self.inbox.close();
        self.refuse_all(&refusals::not_leader());
        while let Ok(request) = self.inbox.try_recv() {
            request.tell(Err(refusals::not_leader()));
        }
        self.shared.end();
    }

    fn refuse_all(&mut self, refusal: &Refusal) {
        let in_flight = self.in_flight.take();
        if let Some(InFlight { batch, .. }) = in_flight {
            batch.refuse(&refusals::outcome_unknown());
        }
        for batch in self.gathered.drain(..) {
            batch.refuse(refusal);
        }
    }
}

/// Waits for the batch in flight; forever if there is none.
async fn landed(in_flight: &mut Option<InFlight>) -> Option<Landing> {
    match in_flight {
        Some(in_flight) => (&mut in_flight.landing).await.ok(),
        None => pending().await,
    }
}

fn no_answer() -> StoreError {
    StoreError::Unavailable("no answer in time".into())
}
