//! The uplink of our own contract: keeps a session with the control plane, whatever happens to it.
//!
//! ```text
//!   Connecting ──► Joined (or Held) ──► lost ──► Connecting …    backoff 100 ms to 5 s, with jitter
//!       └────────► Refused ──► asks again: soon if that may help, slowly if a person has to act
//! ```
//!
//! It owns nothing but the connection: what it tells comes from the reconciler's picture, what it is told
//! goes to the reconciler. Losing the session loses nothing and stops nothing.

mod bulk;
mod convert;
mod errands;
mod gather;
mod joined;
mod open;
mod parts;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hostler_kit::Backoff;
use hostler_kit::trust::Print;
use hostler_model::{Code, NodeId};
use hostler_wire::session::v1;
use tokio::sync::watch;

use super::{Setup, Started};
use crate::config::{AgentConfig, Parts};
use crate::dial::Server;
use crate::ledger::Identity;
use crate::membership::{About, Membership, NoMembership};
use crate::origin::Birthplace;
use crate::reconcile::Handle;
use crate::status::AgentStatus;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Wait after a refusal that only a person can lift.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// Wait while another machine holds the identity: its lease may run out.
const IN_USE_WAIT: Duration = Duration::from_secs(5);
/// After this many failures in a row the certificate is doubted.
const FAILURES: u32 = 3;
/// How long the first look at the node may delay the first session.
const FIRST_LOOK: Duration = Duration::from_secs(3);

struct Uplink {
    config: AgentConfig,
    parts: Parts,
    server: Server,
    membership: Option<Arc<Membership>>,
    key: Option<Print>,
    identity: Identity,
    handle: Handle,
    status: watch::Sender<AgentStatus>,
    /// The second connection, opened when the control plane first asks for a transfer.
    bulk: bulk::Bulk,
}

/// How a session ended.
#[derive(Debug)]
enum Ended {
    /// The agent is told to stop.
    Stopping,
    /// The connection broke, or the other side is silent.
    Lost(String),
    /// The other side said no.
    Refused(v1::Refused),
    /// To be opened again at once: the machine was suspended, or has something new to tell.
    Again(&'static str),
}

/// Starts the task. It ends when the tasks are told to stop.
pub(super) fn start(setup: Setup) -> Started {
    let Setup {
        config,
        parts,
        server,
        membership,
        key,
        identity,
        handle,
        alive,
    } = setup;
    if let Some(membership) = &membership {
        let way = (server.clone(), Arc::clone(&parts.dial));
        membership.keep(way, &parts.tasks);
    }
    let (status, shown) = watch::channel(AgentStatus::Connecting { problem: None });
    let tasks = parts.tasks.clone();
    let bulk = bulk::Bulk::new(server.clone(), Arc::clone(&parts.dial), tasks.clone());
    let mut uplink = Uplink {
        config,
        parts,
        server,
        membership,
        key,
        identity,
        handle,
        status,
        bulk,
    };
    tasks.spawn("uplink", async move {
        uplink.run().await;
        drop(alive);
    });
    Started::calling(shown)
}

impl Uplink {
    async fn run(&mut self) {
        let tasks = self.parts.tasks.clone();
        if !self.first_look().await {
            return;
        }
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut failures = 0;
        loop {
            let begun = self.parts.clock.uptime();
            let (ended, was_joined) = match self.belong().await {
                Ok(()) => self.session().await,
                Err(ended) => (ended, false),
            };
            failures = if was_joined { 0 } else { failures + 1 };
            if failures % FAILURES == FAILURES - 1 {
                self.doubt().await;
            }
            let lasted = self.parts.clock.uptime().saturating_sub(begun);
            // Only a session that held counts: two agents with one identity take it from each other at once.
            if was_joined && lasted > LONGEST_WAIT {
                backoff.reset();
            }
            let wait = match ended {
                Ended::Stopping => return,
                Ended::Again(reason) => {
                    tracing::info!(reason, "opening the session again");
                    self.status
                        .send_replace(AgentStatus::Connecting { problem: None });
                    Duration::ZERO
                }
                Ended::Lost(problem) => {
                    self.lost(problem, was_joined);
                    backoff.next(self.parts.entropy.as_ref())
                }
                Ended::Refused(refused) => {
                    if refused.code == Code::NodeKeyUnknown.as_str()
                        && let Some(membership) = &self.membership
                    {
                        membership.lapse();
                    }
                    let wait = refusal_wait(&refused.code);
                    self.refused(refused);
                    wait.unwrap_or_else(|| backoff.next(self.parts.entropy.as_ref()))
                }
            };
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Makes sure that the node has a certificate, where one is asked for.
    async fn belong(&self) -> Result<(), Ended> {
        let Some(membership) = &self.membership else {
            return Ok(());
        };
        let about = About {
            identity: &self.identity.identity,
            name: &self.identity.name,
            labels: &self.config.labels,
            copied_from: self.copied_from(),
        };
        let way = (&self.server, &self.parts.dial);
        let tasks = &self.parts.tasks;
        tokio::select! {
            biased;
            () = tasks.stopping() => Err(Ended::Stopping),
            ensured = membership.ensure(way, &about) => ensured.map_err(|error| match error {
                NoMembership::Silent(problem) => Ended::Lost(problem),
                NoMembership::Refused(refused) => Ended::Refused(refused),
            }),
        }
    }

    fn copied_from(&self) -> Option<NodeId> {
        let birthplace = self.config.birthplace.as_ref();
        birthplace.and_then(Birthplace::copied_from)
    }

    /// The newest authority that the node believes, where it is a member.
    fn believed(&self) -> watch::Receiver<Option<Print>> {
        let membership = self.membership.as_ref();
        membership.map_or_else(|| watch::channel(None).1, |it| it.believes())
    }

    /// The certificate may be one that the other side does not take, though it seems good here: clocks differ, and
    /// authorities are replaced.
    async fn doubt(&self) {
        let Some(membership) = &self.membership else {
            return;
        };
        let way = (&self.server, &self.parts.dial);
        tokio::select! {
            biased;
            () = self.parts.tasks.stopping() => {}
            renewed = membership.again(way) => {
                if let Err(problem) = renewed {
                    tracing::debug!(%problem, "no fresh certificate either");
                }
            }
        }
    }

    /// Waits until the drivers have said what is here, for a while; answers whether to go on.
    async fn first_look(&self) -> bool {
        let mut picture = self.handle.picture.clone();
        let complete = picture.wait_for(|picture| picture.is_complete);
        // The watch closes only when the reconciler ends, and it ends only when all stops.
        tokio::select! {
            biased;
            () = self.parts.tasks.stopping() => false,
            looked = tokio::time::timeout(FIRST_LOOK, complete) => {
                !matches!(looked, Ok(Err(_)))
            }
        }
    }

    fn lost(&self, problem: String, was_joined: bool) {
        if was_joined {
            tracing::warn!(problem, "lost the control plane; what runs goes on");
        } else {
            tracing::debug!(problem, "cannot reach the control plane");
        }
        self.status.send_if_modified(|status| {
            // The first failure of a row is news for the log; the rest is only kept for those who look.
            if matches!(status, AgentStatus::Connecting { problem: None }) && !was_joined {
                tracing::warn!(
                    server = self.config.server,
                    problem,
                    "cannot reach the control plane"
                );
            }
            let next = AgentStatus::Connecting {
                problem: Some(problem),
            };
            let is_new = *status != next;
            *status = next;
            is_new
        });
    }

    fn refused(&self, refused: v1::Refused) {
        let v1::Refused {
            code,
            sentence,
            advice,
        } = refused;
        let next = AgentStatus::Refused {
            code,
            sentence,
            advice,
        };
        self.status.send_if_modified(|status| {
            let is_new = *status != next;
            if let (
                true,
                AgentStatus::Refused {
                    code,
                    sentence,
                    advice,
                },
            ) = (is_new, &next)
            {
                tracing::error!(
                    code,
                    sentence,
                    advice,
                    "refused by the control plane; what runs goes on"
                );
            }
            *status = next;
            is_new
        });
    }
}

/// How long to wait after a refusal; none if trying again soon may help.
pub(crate) fn refusal_wait(code: &str) -> Option<Duration> {
    let code = Code::ALL.iter().find(|known| known.as_str() == code)?;
    match code {
        Code::NodeIdentityInUse | Code::NodePending => Some(IN_USE_WAIT),
        Code::NotLeader | Code::StoreUnavailable | Code::Overloaded | Code::Internal => None,
        _ => Some(REFUSED_WAIT),
    }
}

/// The next of a set of futures to complete; waits forever while there are none.
async fn next_of<S: futures::Stream + Unpin>(futures: &mut S) -> S::Item {
    poll_fn(|context| match Pin::new(&mut *futures).poll_next(context) {
        Poll::Ready(Some(item)) => Poll::Ready(item),
        // Nothing is left; whoever adds to the set comes back here.
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_only_a_person_lifts_is_asked_slowly() {
        assert_eq!(refusal_wait("node-gone"), Some(REFUSED_WAIT));
        assert_eq!(refusal_wait("version-unsupported"), Some(REFUSED_WAIT));
        assert_eq!(refusal_wait("node-identity-in-use"), Some(IN_USE_WAIT));
        assert_eq!(refusal_wait("not-leader"), None);
        assert_eq!(refusal_wait("a-code-of-tomorrow"), None);
    }
}
