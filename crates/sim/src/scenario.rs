//! Scenarios: what is asked of the fleet and what happens to it, all of it given by the seed. Pure.

use std::fmt;
use std::time::Duration;

use hostler_kit::{Entropy, SeededEntropy};
use hostler_model::spec::{DisconnectPolicy, WorkloadSpec};
use hostler_model::{Bytes, Desired, MilliCpu, Resources};

/// How long things happen before everything is healed.
const TURMOIL: Duration = Duration::from_secs(60);
/// Every so many seeds nothing goes wrong but the clocks.
const CLOCKS_ONLY_EVERY: u64 = 5;
/// Steps in one scenario, not counting those that heal.
const STEPS: u64 = 28;

/// The longest hold: with a beat and the slowest link on top it is still shorter than a lease, so that no node
/// may be judged lost for it.
const HOLD_MOST_MS: u64 = 3_300;

/// The nodes' names.
pub(crate) const NODES: [&str; 3] = ["a", "b", "c"];

/// What the seed gives.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub flavour: Flavour,
    /// In order of time, counted from the start.
    pub steps: Vec<(Duration, Step)>,
    /// When everything is healed.
    pub end: Duration,
}

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    Everything,
    /// Requests go on and units crash, but the only fault is that wall clocks jump.
    ClocksOnly,
}

/// One thing that is asked or happens. Nodes are counted from 0.
#[derive(Debug, Clone)]
pub enum Step {
    Ask(Wish),
    /// The operator restarts every copy of a workload; asked once, whatever comes of it.
    Restart(usize),
    Drain(usize),
    Undrain(usize),
    Cut(usize, Way),
    /// What is sent waits, as on a link that loses packets and sends them again.
    Hold(usize),
    Slow(usize, Duration),
    Mend(usize),
    CrashAgent(usize),
    /// The agent dies and the machine with it.
    Reboot(usize),
    StartAgent(usize),
    CrashServer,
    StartServer,
    CrashUnit(usize, u64),
    /// Node, or the server behind the last one; milliseconds.
    JumpClock(usize, i64),
    FailCommit(CommitFault),
}

/// Which way a link is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Both,
    ToServer,
    FromServer,
}

/// How the store fails one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// It did not happen.
    Fails,
    /// It happened and was not answered.
    Unanswered,
}

/// What the operator wants of a workload.
#[derive(Debug, Clone)]
pub enum Wish {
    Apply {
        workload: usize,
        count: u32,
        version: u64,
    },
    Desire {
        workload: usize,
        desired: Desired,
    },
}

/// A workload of the scenario.
pub(crate) struct Template {
    pub(crate) name: &'static str,
    most: u32,
    program: &'static str,
    grace_ms: u64,
    singleton_ms: Option<u64>,
}

pub(crate) const WORKLOADS: [Template; 4] = [
    Template {
        name: "web",
        most: 4,
        program: "serve",
        grace_ms: 1_000,
        singleton_ms: None,
    },
    Template {
        name: "api",
        most: 3,
        program: "stubborn",
        grace_ms: 1_500,
        singleton_ms: None,
    },
    Template {
        name: "lock",
        most: 1,
        program: "serve",
        grace_ms: 1_000,
        singleton_ms: Some(6_000),
    },
    Template {
        name: "pair",
        most: 2,
        program: "stubborn",
        grace_ms: 2_000,
        singleton_ms: Some(12_000),
    },
];

/// The environment variable that makes two versions of a workload differ.
const VERSION: &str = "VERSION";

impl Scenario {
    /// The scenario of a seed; the same every time.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let flavour = match seed % CLOCKS_ONLY_EVERY {
            4 => Flavour::ClocksOnly,
            _ => Flavour::Everything,
        };
        let mut draw = Draw {
            entropy: SeededEntropy::new(seed),
            versions: 0,
        };
        let mut steps = Vec::new();
        // Something is to be there before anything happens to it.
        for workload in 0..WORKLOADS.len() {
            let at = Duration::from_millis(500 + draw.below(4_000));
            steps.push((at, Step::Ask(draw.apply(workload))));
        }
        for _ in 0..STEPS {
            let at = Duration::from_millis(5_000 + draw.below(55_000));
            steps.extend(draw.happening(flavour, at));
        }
        // Stable: what was drawn first comes first.
        steps.sort_by_key(|(at, _)| *at);
        Self {
            flavour,
            steps,
            end: TURMOIL,
        }
    }
}

/// Draws from the seed.
struct Draw {
    entropy: SeededEntropy,
    versions: u64,
}

impl Draw {
    fn below(&self, bound: u64) -> u64 {
        self.entropy.next_u64() % bound
    }

    fn index(&self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    fn span(&self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(least_ms + self.below(most_ms - least_ms))
    }

    /// Something, and what undoes it.
    fn happening(&mut self, flavour: Flavour, at: Duration) -> Vec<(Duration, Step)> {
        let node = self.index(NODES.len());
        let kinds = match flavour {
            Flavour::Everything => 18,
            Flavour::ClocksOnly => 10,
        };
        match self.below(kinds) {
            0..=3 => vec![(at, Step::Ask(self.wish()))],
            4 => vec![(at, Step::CrashUnit(node, self.entropy.next_u64()))],
            5 => vec![(at, Step::Restart(self.index(WORKLOADS.len())))],
            6 => self.for_a_while(
                (at, Step::Drain(node)),
                (1_000, 20_000),
                Step::Undrain(node),
            ),
            7..=9 => vec![(at, self.jump())],
            _ => self.fault(at, node),
        }
    }

    fn fault(&mut self, at: Duration, node: usize) -> Vec<(Duration, Step)> {
        match self.below(8) {
            0 | 1 => {
                let way = [Way::Both, Way::Both, Way::ToServer, Way::FromServer][self.index(4)];
                self.for_a_while((at, Step::Cut(node, way)), (500, 25_000), Step::Mend(node))
            }
            2 => self.for_a_while(
                (at, Step::Hold(node)),
                (200, HOLD_MOST_MS),
                Step::Mend(node),
            ),
            3 => {
                let latency = self.span(50, 500);
                self.for_a_while(
                    (at, Step::Slow(node, latency)),
                    (2_000, 20_000),
                    Step::Mend(node),
                )
            }
            4 => self.for_a_while(
                (at, Step::CrashAgent(node)),
                (100, 20_000),
                Step::StartAgent(node),
            ),
            5 => self.for_a_while(
                (at, Step::Reboot(node)),
                (2_000, 20_000),
                Step::StartAgent(node),
            ),
            6 => self.for_a_while((at, Step::CrashServer), (100, 15_000), Step::StartServer),
            _ => {
                let fault = [CommitFault::Fails, CommitFault::Unanswered][self.index(2)];
                vec![(at, Step::FailCommit(fault))]
            }
        }
    }

    fn for_a_while(
        &self,
        first: (Duration, Step),
        (least_ms, most_ms): (u64, u64),
        undo: Step,
    ) -> Vec<(Duration, Step)> {
        let until = first.0 + self.span(least_ms, most_ms);
        vec![first, (until, undo)]
    }

    fn wish(&mut self) -> Wish {
        let workload = self.index(WORKLOADS.len());
        match self.below(8) {
            0..=4 => self.apply(workload),
            5 => Wish::Desire {
                workload,
                desired: Desired::Stopped,
            },
            6 => Wish::Desire {
                workload,
                desired: Desired::Running,
            },
            _ => Wish::Desire {
                workload,
                desired: Desired::Deleted,
            },
        }
    }

    /// Another count, or another version, or both.
    fn apply(&mut self, workload: usize) -> Wish {
        let most = WORKLOADS[workload].most;
        let count = 1 + u32::try_from(self.below(u64::from(most))).unwrap_or(0);
        self.versions += self.below(2);
        Wish::Apply {
            workload,
            count,
            version: self.versions,
        }
    }

    fn jump(&self) -> Step {
        let host = self.index(NODES.len() + 1);
        let most: i64 = 3_600_000;
        let millis = i64::try_from(self.below(2 * most.unsigned_abs())).unwrap_or(0) - most;
        Step::JumpClock(host, millis)
    }
}

impl Wish {
    pub(crate) const fn workload(&self) -> usize {
        match self {
            Self::Apply { workload, .. } | Self::Desire { workload, .. } => *workload,
        }
    }
}

impl Template {
    /// The spec to apply.
    pub(crate) fn spec(&self, count: u32, version: u64) -> WorkloadSpec {
        let mut spec = WorkloadSpec::of_process(self.name, vec![self.program.to_owned()]);
        spec.count = count;
        spec.env.insert(VERSION.to_owned(), version.to_string());
        spec.stop.grace_ms = self.grace_ms;
        spec.resources = Resources {
            cpu: MilliCpu(500),
            memory: Bytes(64 << 20),
            disk: Bytes(0),
        };
        if let Some(stop_after_ms) = self.singleton_ms {
            spec.disconnect.policy = DisconnectPolicy::Singleton;
            spec.disconnect.stop_after_ms = stop_after_ms;
        }
        spec
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |index: &usize| NODES.get(*index).copied().unwrap_or("the server");
        match self {
            Self::Ask(wish) => write!(f, "ask: {wish}"),
            Self::Restart(workload) => write!(f, "ask: restart {}", WORKLOADS[*workload].name),
            Self::Drain(node) => write!(f, "ask: drain {}", host(node)),
            Self::Undrain(node) => write!(f, "ask: undrain {}", host(node)),
            Self::Cut(node, Way::Both) => write!(f, "cut {} off", host(node)),
            Self::Cut(node, Way::ToServer) => {
                write!(f, "cut {} off towards the server", host(node))
            }
            Self::Cut(node, Way::FromServer) => write!(f, "cut {} off from the server", host(node)),
            Self::Hold(node) => write!(f, "hold the link of {}", host(node)),
            Self::Slow(node, most) => {
                write!(f, "slow {} down to {} ms", host(node), most.as_millis())
            }
            Self::Mend(node) => write!(f, "mend the link of {}", host(node)),
            Self::CrashAgent(node) => write!(f, "crash the agent of {}", host(node)),
            Self::Reboot(node) => write!(f, "crash {}", host(node)),
            Self::StartAgent(node) => write!(f, "start the agent of {}", host(node)),
            Self::CrashServer => write!(f, "crash the server"),
            Self::StartServer => write!(f, "start the server"),
            Self::CrashUnit(node, _) => write!(f, "crash a unit on {}", host(node)),
            Self::JumpClock(node, millis) => {
                write!(f, "the clock of {} jumps by {millis} ms", host(node))
            }
            Self::FailCommit(fault) => write!(f, "the store fails a commit: {fault:?}"),
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = WORKLOADS[self.workload()].name;
        match self {
            Self::Apply { count, version, .. } => write!(f, "{name}: {count} of version {version}"),
            Self::Desire { desired, .. } => write!(f, "{name}: {desired:?}"),
        }
    }
}
