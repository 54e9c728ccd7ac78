//! The leader lease: whoever holds it decides, and every commit is guarded by its token.
//!
//! Owned by the owner task. A lease that ran out while this server was suspended is taken anew only if
//! nobody has written in between; a commit that was refused for the token is never tried again.

use std::sync::Arc;
use std::time::Duration;

use hostler_kit::Clock;
use hostler_store::{CommitError, Guard, LeaseError, LeaseToken, Revision, Store, StoreError};

use crate::StartError;

/// The lease's name in the store.
const NAME: &str = "leader";
/// How often a held lease is tried while starting.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// This server's holding.
pub(crate) struct Leader {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ttl: Duration,
    token: LeaseToken,
    renewed_at: Duration,
}

/// What became of a renewal.
#[derive(Debug)]
pub(crate) enum Renewal {
    Held,
    /// Somebody else decides, or did.
    Lost,
    Unavailable(StoreError),
}

impl Leader {
    /// Takes the lease; waits until a dead holder's has run out.
    pub(crate) async fn take(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        ttl: Duration,
    ) -> Result<Self, StartError> {
        let deadline = clock.uptime() + ttl + TRY_EVERY * 2;
        loop {
            let asked_at = clock.uptime();
            match store.lease(NAME, ttl, None).await {
                Ok(token) => {
                    return Ok(Self {
                        store,
                        clock,
                        ttl,
                        token,
                        renewed_at: asked_at,
                    });
                }
                Err(LeaseError::Held) if clock.uptime() < deadline => {
                    tokio::time::sleep(TRY_EVERY).await;
                }
                Err(LeaseError::Held) => return Err(StartError::Led),
                Err(error) => return Err(StartError::Lease(error)),
            }
        }
    }

    /// The guard of every commit.
    pub(crate) fn guard(&self) -> Guard {
        Guard::Leader {
            token: self.token.clone(),
        }
    }

    /// How long until the lease should be renewed.
    pub(crate) fn due_in(&self) -> Duration {
        (self.renewed_at + self.ttl / 3).saturating_sub(self.clock.uptime())
    }

    /// Whether so much time has passed that the lease may have run out: renew before committing.
    pub(crate) fn is_stale(&self) -> bool {
        self.clock.uptime().saturating_sub(self.renewed_at) >= self.ttl - self.ttl / 3
    }

    /// Renews. A lease that had run out is kept only if the store still shows `revision`.
    pub(crate) async fn renew(&mut self, revision: Revision) -> Renewal {
        let asked_at = self.clock.uptime();
        match self.store.lease(NAME, self.ttl, Some(&self.token)).await {
            Ok(token) if token == self.token => {
                self.renewed_at = asked_at;
                Renewal::Held
            }
            Ok(token) => self.adopt(token, asked_at, revision).await,
            Err(LeaseError::Held) => Renewal::Lost,
            Err(LeaseError::Store(error)) => Renewal::Unavailable(error),
        }
    }

    /// Gives the lease up and takes it again, so that no commit under the old token can still happen.
    /// Answers the store's revision from then on.
    pub(crate) async fn retake(&mut self) -> Result<Revision, Renewal> {
        let asked_at = self.clock.uptime();
        self.store
            .release(&self.token)
            .await
            .map_err(Renewal::Unavailable)?;
        self.token = match self.store.lease(NAME, self.ttl, None).await {
            Ok(token) => token,
            Err(LeaseError::Held) => return Err(Renewal::Lost),
            Err(LeaseError::Store(error)) => return Err(Renewal::Unavailable(error)),
        };
        self.renewed_at = asked_at;
        self.present_revision().await
    }

    /// Gives the lease back, so that another server need not wait for it to run out.
    pub(crate) async fn release(self) {
        if let Err(error) = self.store.release(&self.token).await {
            tracing::debug!(%error, "the leader lease runs out by itself");
        }
    }

    async fn adopt(&mut self, token: LeaseToken, at: Duration, revision: Revision) -> Renewal {
        tracing::warn!("the leader lease had run out while this server was held up");
        self.token = token;
        self.renewed_at = at;
        match self.present_revision().await {
            Ok(present) if present == revision => Renewal::Held,
            Ok(_) => Renewal::Lost,
            Err(renewal) => renewal,
        }
    }

    async fn present_revision(&self) -> Result<Revision, Renewal> {
        match self.store.commit(Vec::new(), vec![self.guard()]).await {
            Ok(revision) => Ok(revision),
            Err(CommitError::Store(error)) => Err(Renewal::Unavailable(error)),
            Err(_) => Err(Renewal::Lost),
        }
    }
}
