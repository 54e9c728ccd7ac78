//! The side that calls: registers, then beats for as long as it is heard.
//!
//! ```text
//!   dial ─► RegisterNode ─► Heartbeat at once, then at the interval ─► error, lease over ─► dial …
//!              └─ not accepted, no answer ──────────── backoff 1 s to 30 s, with jitter ────┘
//! ```
//!
//! It owns the connection and the lease. Every wait has an end: the connection, each call, the lease. What runs goes on
//! whatever happens here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::Backoff;
use hostler_model::Timestamp;
use hostler_model::spec::Kind;
use hostler_wire::persys::control::agent_control_client::AgentControlClient;
use hostler_wire::persys::control::{
    HeartbeatRequest, NodeCapabilities, RegisterNodeRequest, StoragePool, WorkloadUsageSnapshot,
};
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::core::{Core, Workload};
use super::host::{GIB, MIB, whole};
use super::serve::SOURCE;
use super::{states, stream};
use crate::dial::Server;
use crate::journal::{Level, Line};
use crate::status::AgentStatus;
use crate::uplink::channel::{SignsOfLife, connect, failure};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long any call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the scheduler names no interval.
const USUAL_INTERVAL: Duration = Duration::from_secs(10);
/// No lease makes the node beat more often.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Heartbeats that may wait for the control stream.
const COPIES: usize = 4;

pub(super) struct Client {
    core: Arc<Core>,
    server: Server,
    status: watch::Sender<AgentStatus>,
}

/// How it ended with a scheduler.
#[derive(Debug)]
enum Ended {
    /// It said no.
    Refused(String),
    /// It does not know the node any more.
    Forgotten,
    /// It does not answer, or its lease is over.
    Lost(String),
    /// There is something new that only a registration can tell.
    Again,
}

/// On what terms the node beats.
struct Terms<'a> {
    lease: Lease,
    interval: Duration,
    /// The kinds that were told.
    kinds: &'a BTreeSet<Kind>,
    /// Where heartbeats are repeated.
    copies: mpsc::Sender<HeartbeatRequest>,
}

/// How long the node counts as heard, in time that goes on while the machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    until: Duration,
    /// When to beat next.
    next: Duration,
}

impl Client {
    pub(super) const fn new(
        core: Arc<Core>,
        server: Server,
        status: watch::Sender<AgentStatus>,
    ) -> Self {
        Self {
            core,
            server,
            status,
        }
    }

    pub(super) async fn run(self) {
        let tasks = self.core.parts.tasks.clone();
        let work = async {
            // What runs here is known before anybody is told that the node can run something.
            self.core.begun().await;
            let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
            loop {
                let mut was_heard = false;
                let ended = Box::pin(self.session(&mut was_heard)).await;
                if was_heard {
                    backoff.reset();
                }
                let wait = backoff.next(self.core.parts.entropy.as_ref());
                self.tell(ended, wait);
                tokio::time::sleep(wait).await;
            }
        };
        // Dropping it closes the connection; nothing else is held.
        tokio::select! {
            biased;
            () = tasks.stopping() => {}
            () = work => {}
        }
    }

    /// Registers and beats until that ends.
    async fn session(&self, was_heard: &mut bool) -> Ended {
        let (channel, ()) = futures::join!(
            connect(&self.server, &self.core.parts.dial, SignsOfLife::Beats),
            self.core.first_facts()
        );
        let kinds = self.working();
        let channel = match channel {
            Ok(channel) => channel,
            Err(problem) => return Ended::Lost(problem),
        };
        let mut scheduler = AgentControlClient::new(channel);
        let request = self.registration(&kinds).await;
        let sent = self.moment();
        let answer = match call(scheduler.register_node(request.clone())).await {
            Ok(answer) => answer,
            Err(status) => return Ended::Lost(failure(&status)),
        };
        if !answer.accepted {
            return Ended::Refused(answer.reason);
        }
        let interval = match u64::try_from(answer.heartbeat_interval_seconds) {
            Ok(0) | Err(_) => USUAL_INTERVAL,
            Ok(seconds) => Duration::from_secs(seconds),
        };
        let lease = Lease::of(
            sent,
            span(answer.lease_expires_at, self.core.now(), interval),
            interval,
        );
        self.registered(&request, interval);
        let (copies, copied) = mpsc::channel(COPIES);
        let terms = Terms {
            lease,
            interval,
            kinds: &kinds,
            copies,
        };
        let beating = self.beat(scheduler.clone(), terms, was_heard);
        if !self.core.persys.control_stream {
            return beating.await;
        }
        tokio::select! {
            ended = beating => ended,
            never = stream::listen(&self.core, scheduler, (request, copied)) => match never {},
        }
    }

    async fn beat(
        &self,
        mut scheduler: AgentControlClient<Channel>,
        terms: Terms<'_>,
        was_heard: &mut bool,
    ) -> Ended {
        let Terms {
            mut lease,
            interval,
            kinds,
            copies,
        } = terms;
        // The first one comes at once.
        lease.next = self.moment();
        loop {
            let due = lease.next.min(lease.until);
            tokio::time::sleep(due.saturating_sub(self.moment())).await;
            let sent = self.moment();
            if sent >= lease.until {
                return Ended::Lost("the lease is over and was not renewed".to_owned());
            }
            // A kind that is lost is told by the health check and by what is refused: to register again breaks the beats.
            if !self.working().is_subset(kinds) {
                return Ended::Again;
            }
            let heartbeat = self.heartbeat();
            // A scheduler that reads the stream learns from it what became of its orders; where nobody reads, none is
            // missed.
            let _ = copies.try_send(heartbeat.clone());
            let answer = match call(scheduler.heartbeat(heartbeat)).await {
                Ok(answer) => answer,
                Err(status) if status.code() == tonic::Code::NotFound => return Ended::Forgotten,
                Err(status) => return Ended::Lost(failure(&status)),
            };
            self.heed(answer.drain_node);
            if answer.acknowledged {
                *was_heard = true;
                lease = Lease::of(
                    sent,
                    span(answer.lease_expires_at, self.core.now(), interval),
                    interval,
                );
            } else {
                self.say(Level::Warn, "the scheduler did not acknowledge a heartbeat");
                lease.next = sent + interval;
            }
        }
    }

    /// Obeys, and takes it back, too.
    fn heed(&self, drain: bool) {
        if !self.core.set_draining(drain) {
            return;
        }
        if drain {
            self.say(
                Level::Warn,
                "the scheduler drains this node: nothing new is taken, what runs goes on",
            );
        } else {
            self.say(Level::Info, "the scheduler no longer drains this node");
        }
    }

    /// The kinds whose drivers say that they work.
    fn working(&self) -> BTreeSet<Kind> {
        let works = |kind: &Kind| self.core.ability(*kind).is_ok();
        self.core.offered().filter(works).collect()
    }

    async fn registration(&self, kinds: &BTreeSet<Kind>) -> RegisterNodeRequest {
        let core = &self.core;
        let facts = core.parts.machine.facts();
        let root = core.look().has;
        let has = root.minus(&core.config.reserved);
        let pool = StoragePool {
            name: "root".to_owned(),
            r#type: "local".to_owned(),
            total_gb: whole(root.disk.0 / GIB),
        };
        RegisterNodeRequest {
            node_id: core.persys.node_id.clone(),
            capabilities: Some(NodeCapabilities {
                cpu_total_millicores: whole(has.cpu.0),
                memory_total_mb: whole(has.memory.0 / MIB),
                storage_pools: vec![pool],
                supported_workload_types: kinds
                    .iter()
                    .map(|kind| kind.as_str().to_owned())
                    .collect(),
                supported_storage_drivers: core.storage(),
            }),
            labels: super::labels(&core.config, &facts.os, &facts.arch),
            agent_version: core.version(),
            grpc_endpoint: core.endpoint(&self.server).await,
            cluster_id: String::new(),
            timestamp: Some(states::stamp(core.now())),
        }
    }

    fn heartbeat(&self) -> HeartbeatRequest {
        let (core, picture) = (&self.core, self.core.picture());
        let usage = |workload: &Workload| {
            core.usage(workload).map(|usage| WorkloadUsageSnapshot {
                workload_id: workload.record.id.clone(),
                r#type: workload.kind.as_str().to_owned(),
                cpu_percent: usage.cpu_percent,
                memory_bytes: whole(usage.memory),
                disk_read_bytes: whole(usage.read),
                disk_write_bytes: whole(usage.written),
                net_rx_bytes: whole(usage.received),
                net_tx_bytes: whole(usage.sent),
                collected_at: Some(states::stamp(usage.at)),
                source: SOURCE.to_owned(),
            })
        };
        let statuses = core.workloads().into_iter().map(|workload| {
            let (shown, since) = core.show(&workload, &picture);
            let mut status = states::of_control(&workload, &shown, since);
            status.usage = usage(&workload);
            status
        });
        let workload_statuses: Vec<_> = statuses.collect();
        HeartbeatRequest {
            node_id: core.persys.node_id.clone(),
            usage: Some(core.node_usage()),
            workload_usage: workload_statuses
                .iter()
                .filter_map(|it| it.usage.clone())
                .collect(),
            workload_statuses,
            timestamp: Some(states::stamp(core.now())),
        }
    }

    fn registered(&self, request: &RegisterNodeRequest, interval: Duration) {
        let line = Line::new(Level::Info, "registered with the scheduler")
            .with("node_id", &request.node_id)
            .with("scheduler", self.server.origin())
            .with("endpoint", &request.grpc_endpoint)
            .with("heartbeat_interval", format!("{} s", interval.as_secs()));
        self.core.config.journal.write(&line);
        let id = request.node_id.clone();
        self.status.send_replace(AgentStatus::Registered { id });
    }

    fn tell(&self, ended: Ended, wait: Duration) {
        let (level, text, reason) = match ended {
            Ended::Refused(reason) => (
                Level::Warn,
                "the scheduler does not accept this node",
                reason,
            ),
            Ended::Lost(problem) => (
                Level::Warn,
                "lost the scheduler; what runs goes on",
                problem,
            ),
            Ended::Forgotten => {
                let reason = "it does not know this node".to_owned();
                (Level::Warn, "registering again", reason)
            }
            Ended::Again => {
                let reason = "a driver works that did not work before".to_owned();
                (Level::Info, "registering again", reason)
            }
        };
        let line = Line::new(level, text)
            .with("reason", &reason)
            .with("retry_in", format!("{:.1} s", wait.as_secs_f64()));
        self.core.config.journal.write(&line);
        let problem = Some(format!("{text}: {reason}"));
        self.status
            .send_replace(AgentStatus::Connecting { problem });
    }

    fn say(&self, level: Level, text: &str) {
        self.core.config.journal.write(&Line::new(level, text));
    }

    /// Time that goes on while the machine is suspended, as the scheduler's does.
    fn moment(&self) -> Duration {
        self.core.parts.clock.uptime() + self.core.parts.machine.asleep()
    }
}

impl Lease {
    /// A short lease is renewed before it is over, whatever the interval.
    fn of(sent: Duration, span: Duration, interval: Duration) -> Self {
        let next = interval.min((span * 2 / 3).max(SHORTEST_INTERVAL));
        Self {
            until: sent + span,
            next: sent + next,
        }
    }
}

/// How long a lease lasts that ends at that moment. Clocks may differ by more than a lease is long; then it lasts
/// three intervals, as it does when it is granted.
fn span(ends: Option<prost_types::Timestamp>, now: Timestamp, interval: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let usual = interval.saturating_mul(3);
    let Some(ends) = ends else { return usual };
    let millis = ends.seconds.saturating_mul(1000);
    let millis = millis.saturating_add(i64::from(ends.nanos) / 1_000_000);
    let ends = Timestamp::from_millis(u64::try_from(millis).unwrap_or(0));
    let left = ends.since(now);
    if left < SHORTEST_INTERVAL {
        usual
    } else {
        left.min(LONGEST)
    }
}

/// A call within its time.
async fn call<T>(calling: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL_TIMEOUT, calling).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} s",
            CALL_TIMEOUT.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_shorter_than_the_interval_is_renewed_in_time() {
        let seconds = Duration::from_secs;
        let usual = Lease::of(seconds(5), seconds(180), seconds(60));
        assert_eq!((usual.next, usual.until), (seconds(65), seconds(185)));
        let frozen = Lease::of(seconds(5), seconds(30), seconds(60));
        assert_eq!((frozen.next, frozen.until), (seconds(25), seconds(35)));
    }

    #[test]
    fn a_lease_is_a_span_whatever_the_scheduler_writes() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let interval = Duration::from_secs(60);
        let ends = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        for (ends, expected) in [
            (ends(1_700_000_030, 500_000_000), 30_500),
            (None, 180_000),
            (ends(0, 0), 180_000),
            (ends(1_700_000_000, 0), 180_000),
            (ends(i64::MIN, i32::MIN), 180_000),
            (ends(i64::MAX, i32::MAX), 86_400_000),
        ] {
            assert_eq!(span(ends, now, interval).as_millis(), expected, "{ends:?}");
        }
    }
}
