//! The simulated server: the store, which outlives it as a disk does, and the program that runs the real
//! control plane with the doors on its listener.
//!
//! Requests reach it as calls of [`Control::submit`], as from a door. What is under way when the host
//! crashes is never answered. The program fails if the control plane does not start or steps down.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hostler_control::fleet::{Reply, Verb};
use hostler_control::{Control, ControlConfig, Parts};
use hostler_kit::{Clock, Entropy, SeededEntropy, Tasks};
use hostler_model::{Actor, Refusal};
use hostler_store::{Fault, MemoryStore, Store};
use tokio::sync::Notify;
use turmoil::net::TcpListener;

use crate::clock::{HostClock, Timeline, Wall};
use crate::network::SimAccept;

/// The host's name.
pub(crate) const HOST: &str = "server";
const PORT: u16 = 8080;

/// The disk and the clock of the server, and the way to what runs there.
pub(crate) struct Server {
    pub(crate) wall: Arc<Wall>,
    timeline: Arc<Timeline>,
    store: Arc<MemoryStore>,
    seed: u64,
    starts: AtomicU64,
    /// The control plane that runs now.
    control: Mutex<Option<Control>>,
    requests: Mutex<VecDeque<Request>>,
    arrived: Notify,
    answers: Mutex<Vec<Answer>>,
}

/// A verb and the number under which it is answered.
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) verb: Verb,
}

/// What became of a request.
pub(crate) struct Answer {
    pub(crate) number: u64,
    pub(crate) result: Result<Reply, Refusal>,
}

/// Where agents find the server.
pub(crate) fn url() -> String {
    format!("http://{HOST}:{PORT}")
}

impl Server {
    /// A server with an empty disk.
    pub(crate) fn new(seed: u64, timeline: &Arc<Timeline>) -> Self {
        let wall = Arc::new(Wall::default());
        let clock = HostClock::starting_now(timeline, &wall);
        Self {
            wall,
            timeline: Arc::clone(timeline),
            store: Arc::new(MemoryStore::new(Arc::new(clock))),
            seed,
            starts: AtomicU64::new(0),
            control: Mutex::default(),
            requests: Mutex::default(),
            arrived: Notify::new(),
            answers: Mutex::default(),
        }
    }

    /// What the host runs: one control plane, until the host crashes.
    pub(crate) async fn run(self: Arc<Self>) -> turmoil::Result {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let clock: Arc<dyn Clock> = Arc::new(HostClock::starting_now(&self.timeline, &self.wall));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(self.seed ^ start << 32));
        let tasks = Tasks::new();
        let parts = Parts {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            clock,
            entropy: Arc::clone(&entropy),
            tasks: tasks.clone(),
        };
        let control = Control::start(ControlConfig::default(), parts).await?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        let router = hostler_doors::router(&control, &entropy);
        let serving = hostler_doors::serve(SimAccept(listener), router, tasks.clone());
        tasks.spawn("listener", serving);
        *self.control_slot() = Some(control.clone());
        tokio::select! {
            biased;
            () = control.over() => Err("the control plane stepped down".into()),
            () = Arc::clone(&self).take_requests(control.clone(), tasks) => Ok(()),
        }
    }

    /// The control plane, if one runs.
    pub(crate) fn control(&self) -> Option<Control> {
        self.control_slot().clone()
    }

    /// Leaves a request at the door.
    pub(crate) fn ask(&self, request: Request) {
        lock(&self.requests).push_back(request);
        self.arrived.notify_one();
    }

    /// What was answered since the last time.
    pub(crate) fn take_answers(&self) -> Vec<Answer> {
        std::mem::take(&mut *lock(&self.answers))
    }

    /// The host has crashed: what was asked is forgotten, and the process's leases are free, as when the
    /// kernel lets go of a dead process's locks.
    pub(crate) fn crashed(&self) {
        *self.control_slot() = None;
        lock(&self.requests).clear();
        lock(&self.answers).clear();
        self.store.revoke_leases();
    }

    /// The next commit meets this fault.
    pub(crate) fn fail_commit(&self, fault: Fault) {
        self.store.fail_next(fault);
    }

    async fn take_requests(self: Arc<Self>, control: Control, tasks: Tasks) {
        loop {
            let next = lock(&self.requests).pop_front();
            let Some(Request { number, verb }) = next else {
                self.arrived.notified().await;
                continue;
            };
            let (server, control) = (Arc::clone(&self), control.clone());
            tasks.spawn("request", async move {
                let actor = Actor::User("operator".to_owned());
                let result = control.submit(actor, verb).await;
                lock(&server.answers).push(Answer { number, result });
            });
        }
    }

    fn control_slot(&self) -> MutexGuard<'_, Option<Control>> {
        lock(&self.control)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
