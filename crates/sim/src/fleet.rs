//! One simulation from its seed to its verdict.
//!
//! ```text
//!   the scenario's steps, tick by tick ──► everything healed ──► at rest for a while ──► held
//!            └── after each tick: answers, what runs, events, invariants ──► Violation
//! ```
//!
//! Owns the hosts and what outlives them. All happens on the caller's thread. A tick is short against every
//! span of the fleet; within it time is exact.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hostler_model::UnitId;
use hostler_store::Fault;
use tempfile::TempDir;

use crate::checks::{Checks, Standing, unsettled};
use crate::client::Client;
use crate::clock::Timeline;
use crate::node::Node;
use crate::pace::Pace;
use crate::panics;
use crate::report::{Outcome, Violation};
use crate::scenario::{CommitFault, NODES, Scenario, Step, Way};
use crate::server::{self, Server};

const TICK: Duration = Duration::from_millis(10);
/// Latency of a healthy link.
const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(40));
/// How long the healed fleet may take, and how long it must then stay at rest.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(5);
/// What one host's connections may buffer; more than the session's windows, so that the network loses nothing.
const TCP_SEGMENTS: usize = 4_096;
/// Most events read at a time.
const EVENTS: usize = 1_024;

/// Simulates the seed's scenario.
///
/// # Errors
/// The machine's own: no directory for the ledgers. What the fleet does wrong is in the outcome.
pub fn run(seed: u64) -> std::io::Result<Outcome> {
    let scenario = Scenario::new(seed);
    let dir = tempfile::tempdir()?;
    panics::watch();
    let mut fleet = Fleet::new(seed, &dir);
    let verdict = fleet.play(&scenario).and_then(|()| fleet.settle());
    let (violation, settled_in) = match verdict {
        Ok(settled_in) => (None, settled_in),
        Err(violation) => {
            fleet.note(&violation.to_string());
            (Some(violation), Duration::ZERO)
        }
    };
    Ok(Outcome {
        seed,
        was_starved: fleet.pace.was_starved(),
        trace: fleet.trace,
        settled_in,
        violation,
    })
}

struct Fleet {
    hosts: turmoil::Sim<'static>,
    timeline: Arc<Timeline>,
    server: Arc<Server>,
    nodes: Vec<Arc<Node>>,
    client: Client,
    checks: Checks,
    troubles: Vec<Trouble>,
    running: Vec<BTreeSet<UnitId>>,
    pace: Pace,
    /// The last event in the trace.
    event: u64,
    trace: Vec<String>,
}

/// What is wrong with a node now.
#[derive(Default, Clone, Copy)]
struct Trouble {
    is_cut: bool,
    is_held: bool,
    is_down: bool,
}

impl Fleet {
    fn new(seed: u64, dir: &TempDir) -> Self {
        let timeline = Arc::new(Timeline::default());
        let mut hosts = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::MAX)
            .min_message_latency(LATENCY.0)
            .max_message_latency(LATENCY.1)
            .tcp_capacity(TCP_SEGMENTS)
            .build();
        let server = Arc::new(Server::new(seed << 8, &timeline));
        let program = Arc::clone(&server);
        hosts.host(server::HOST, move || Arc::clone(&program).run());
        let node = |(index, name): (u64, &'static str)| {
            let seed = seed << 8 | (index + 1);
            Arc::new(Node::new(name, seed, &timeline, dir.path().join(name)))
        };
        let nodes: Vec<Arc<Node>> = (0..).zip(NODES).map(node).collect();
        for node in &nodes {
            let program = Arc::clone(node);
            hosts.host(node.name, move || Arc::clone(&program).run());
        }
        Self {
            hosts,
            timeline,
            server,
            client: Client::new(),
            checks: Checks::default(),
            troubles: vec![Trouble::default(); nodes.len()],
            running: vec![BTreeSet::new(); nodes.len()],
            nodes,
            pace: Pace::new(),
            event: 0,
            trace: Vec::new(),
        }
    }

    /// Carries the steps out.
    fn play(&mut self, scenario: &Scenario) -> Result<(), Violation> {
        let mut steps = scenario.steps.iter().peekable();
        while self.now() < scenario.end {
            while let Some((_, step)) = steps.next_if(|(at, _)| *at <= self.now()) {
                self.note(&step.to_string());
                self.take(step);
            }
            self.tick()?;
        }
        Ok(())
    }

    /// Heals everything and waits until the fleet is at rest; answers how long that took.
    fn settle(&mut self) -> Result<Duration, Violation> {
        self.note("everything is healed");
        self.take(&Step::StartServer);
        for node in 0..self.nodes.len() {
            self.take(&Step::Mend(node));
            self.take(&Step::StartAgent(node));
            self.take(&Step::Undrain(node));
        }
        let begun = self.now();
        let mut rest_since = None;
        while self.now() < begun + SETTLE_WITHIN + REST {
            self.tick()?;
            let now = self.now();
            match self.unsettled() {
                Some(_) => rest_since = None,
                None if rest_since.is_some_and(|since| now >= since + REST) => {
                    self.note("at rest");
                    return Ok(now.saturating_sub(begun + REST));
                }
                None => {
                    rest_since.get_or_insert(now);
                }
            }
        }
        let missing = self.unsettled();
        Err(Violation::Unsettled(
            missing.unwrap_or_else(|| "it does not stay at rest".to_owned()),
        ))
    }

    fn unsettled(&self) -> Option<String> {
        match self.server.control() {
            Some(control) => unsettled(&control, &self.client, &self.nodes),
            None => Some("the server does not run".to_owned()),
        }
    }

    // --- steps

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Ask(ref wish) => self.client.wish(wish.clone()),
            Step::Restart(workload) => self.client.restart(&self.server, workload),
            Step::Drain(node) => self.client.drain(node, true),
            Step::Undrain(node) => self.client.drain(node, false),
            Step::Cut(node, way) => self.cut(node, way),
            Step::Hold(node) if !self.troubles[node].is_cut => {
                self.hosts.hold(NODES[node], server::HOST);
                self.troubles[node].is_held = true;
            }
            Step::Hold(_) => {}
            Step::Slow(node, most) => {
                self.hosts
                    .set_link_max_message_latency(NODES[node], server::HOST, most);
            }
            Step::Mend(node) => self.mend(node),
            Step::CrashAgent(node) => self.crash_agent(node),
            Step::Reboot(node) => {
                self.crash_agent(node);
                self.nodes[node].reboot();
            }
            Step::StartAgent(node) if self.troubles[node].is_down => {
                self.hosts.bounce(NODES[node]);
                self.troubles[node].is_down = false;
            }
            Step::StartAgent(_) => {}
            Step::CrashServer => {
                self.hosts.crash(server::HOST);
                self.server.crashed();
                self.client.server_crashed(self.now());
            }
            Step::StartServer if !self.hosts.is_host_running(server::HOST) => {
                self.hosts.bounce(server::HOST);
            }
            Step::StartServer => {}
            Step::CrashUnit(node, nth) => {
                self.nodes[node].crash_unit(nth);
            }
            Step::JumpClock(host, millis) => {
                let wall = self
                    .nodes
                    .get(host)
                    .map_or(&self.server.wall, |node| &node.wall);
                wall.jump(millis);
            }
            Step::FailCommit(CommitFault::Fails) => self.server.fail_commit(Fault::CommitFails),
            Step::FailCommit(CommitFault::Unanswered) => {
                self.server.fail_commit(Fault::CommitUnknown)
            }
        }
    }

    fn cut(&mut self, node: usize, way: Way) {
        self.mend(node);
        let (name, server) = (NODES[node], server::HOST);
        match way {
            Way::Both => self.hosts.partition(name, server),
            Way::ToServer => self.hosts.partition_oneway(name, server),
            Way::FromServer => self.hosts.partition_oneway(server, name),
        }
        self.troubles[node].is_cut = true;
    }

    fn mend(&mut self, node: usize) {
        let trouble = &mut self.troubles[node];
        if std::mem::take(&mut trouble.is_held) {
            self.hosts.release(NODES[node], server::HOST);
        }
        if std::mem::take(&mut trouble.is_cut) {
            self.hosts.repair(NODES[node], server::HOST);
        }
        self.hosts
            .set_link_max_message_latency(NODES[node], server::HOST, LATENCY.1);
    }

    fn crash_agent(&mut self, node: usize) {
        self.hosts.crash(NODES[node]);
        self.troubles[node].is_down = true;
    }

    // --- ticks

    fn tick(&mut self) -> Result<(), Violation> {
        let now = self.now();
        self.timeline.set(now);
        self.client.ask(&self.server, now);
        let panicked = panics::seen();
        let stepped = self.hosts.step();
        stepped.map_err(|error| Violation::Failed(error.to_string()))?;
        if panics::seen() > panicked {
            return Err(Violation::Failed("a task panicked".to_owned()));
        }
        let now = self.now();
        self.timeline.set(now);
        self.pace.tick(now);
        for line in self.client.hear(self.server.take_answers(), now)? {
            self.note(&line);
        }
        self.note_running();
        self.check(now)
    }

    fn check(&mut self, now: Duration) -> Result<(), Violation> {
        let is_serving = self.server.control().is_some();
        let standing = |(node, trouble): (&Arc<Node>, &Trouble)| {
            let is_away = trouble.is_cut || trouble.is_down;
            Standing {
                name: node.name,
                running: node.running(),
                is_away,
                is_troubled: is_away || trouble.is_held || !is_serving,
            }
        };
        let standings: Vec<Standing> = self
            .nodes
            .iter()
            .zip(&self.troubles)
            .map(standing)
            .collect();
        if let Some(control) = self.server.control() {
            self.checks.learn(&control.view());
            self.client.check(&control.view())?;
        }
        self.checks.doubles(now, &standings)?;
        self.read_events(now)
    }

    /// Events go into the trace; some must not happen.
    fn read_events(&mut self, now: Duration) -> Result<(), Violation> {
        let Some(control) = self.server.control() else {
            return Ok(());
        };
        let (events, _) = control.events(Some(self.event), EVENTS);
        for event in events {
            self.event = event.sequence;
            let (kind, at) = (event.kind.as_str(), event.at.as_millis());
            self.note(&format!(
                "event {} at {at}: {kind}: {}",
                event.sequence, event.message
            ));
            self.checks.event(now, &control.view(), &event)?;
        }
        Ok(())
    }

    /// What began or ceased to run goes into the trace.
    fn note_running(&mut self) {
        for index in 0..self.nodes.len() {
            let present: BTreeSet<UnitId> = self.nodes[index].running().into_iter().collect();
            let before = std::mem::replace(&mut self.running[index], present);
            let name = self.nodes[index].name;
            let present = &self.running[index];
            let ended = before
                .difference(present)
                .map(|unit| format!("{unit} ended on {name}"));
            let begun = present
                .difference(&before)
                .map(|unit| format!("{unit} runs on {name}"));
            let lines: Vec<String> = ended.chain(begun).collect();
            lines.iter().for_each(|line| self.note(line));
        }
    }

    fn note(&mut self, text: &str) {
        let line = format!("{:>9.3} {text}", self.now().as_secs_f64());
        self.trace.push(line);
    }

    fn now(&self) -> Duration {
        self.hosts.elapsed()
    }
}
