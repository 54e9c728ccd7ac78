//! A control plane with a state of its own: what one node should run, what it said, which commands it did.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hostler_kit::Tasks;
use hostler_model::spec::WorkloadSpec;
use hostler_model::{
    AssignmentId, CommandId, CommandKind, FleetId, NodeId, StoreEpoch, Timestamp, UnitId,
    WorkloadId,
};
use hostler_wire::session::v1::node_message::Message as FromNode;
use hostler_wire::session::v1::server_message::Message as ToNode;
use hostler_wire::session::v1::session_server::{Session, SessionServer};
use hostler_wire::session::v1::unit_state::State as Shown;
use hostler_wire::session::v1::{self, BulkFrame, NodeMessage, ServerMessage, bulk_frame};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::network::Network;

pub(crate) const BEAT: Duration = Duration::from_secs(1);
pub(crate) const LEASE: Duration = Duration::from_secs(5);
/// In simulated time; reached only by what never comes true.
const PATIENCE: Duration = Duration::from_secs(600);

/// One copy that should run, or should stop.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) unit: UnitId,
    pub(crate) spec: WorkloadSpec,
    pub(crate) stop: Option<&'static str>,
}

/// What a node has said and what it is told.
pub(crate) struct State {
    pub(crate) fleet: FleetId,
    pub(crate) epoch: StoreEpoch,
    /// The store's revision; 0 tells none, as older control planes do.
    pub(crate) revision: u64,
    /// The run, and the store's revision when it began.
    pub(crate) run: (u64, u64),
    pub(crate) node: NodeId,
    pub(crate) wanted: BTreeMap<AssignmentId, Wanted>,
    pub(crate) commands: BTreeMap<CommandId, CommandKind>,
    pub(crate) refusal: Option<v1::Refused>,
    pub(crate) answers_beats: bool,
    /// Welcomes nobody and says nothing.
    pub(crate) is_mute: bool,
    /// Takes the full intent apart into messages of so many items.
    pub(crate) items_per_part: usize,

    /// Facts may come again within a session.
    pub(crate) takes_facts: bool,

    pub(crate) hellos: Vec<v1::Hello>,
    /// How often the agent has taken its leave.
    pub(crate) leaves: u32,
    /// Facts that came after a hello.
    pub(crate) facts: Vec<v1::Facts>,
    pub(crate) observed: BTreeMap<UnitId, v1::ObservedUnit>,
    pub(crate) full_sets: usize,
    pub(crate) parts: usize,
    pub(crate) gone: BTreeSet<UnitId>,
    pub(crate) beats: u64,
    pub(crate) last_beat: v1::Beat,
    /// Figures of units, as they came.
    pub(crate) usage: Vec<v1::UnitUsage>,
    pub(crate) held: Option<v1::Held>,
    pub(crate) applied: Vec<u64>,
    pub(crate) acknowledged: Vec<v1::Acknowledge>,
    /// Of which workloads the node keeps data, as it told last.
    pub(crate) kept: Vec<String>,
    /// Workloads that were deleted.
    pub(crate) unknown: BTreeSet<String>,
    pub(crate) bulk: Vec<BulkFrame>,
    /// Where the answers of the transfer under way go.
    answers: Option<mpsc::UnboundedSender<Result<BulkFrame, Status>>>,
    /// The last version of the intent that was sent.
    pub(crate) version: u64,
    sessions: Vec<mpsc::UnboundedSender<Result<ServerMessage, Status>>>,
}

/// The double.
pub(crate) struct Control {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    serving: Mutex<Tasks>,
    tasks: Tasks,
    network: Arc<Network>,
}

pub(crate) fn moment() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

/// The unit of the assignment of that number.
pub(crate) fn unit(n: u128, generation: u64) -> UnitId {
    UnitId {
        assignment: AssignmentId::mint(moment(), n),
        generation,
    }
}

pub(crate) fn epoch(n: u128) -> StoreEpoch {
    StoreEpoch::mint(moment(), n)
}

impl Control {
    pub(crate) fn start(network: &Arc<Network>, tasks: &Tasks) -> Arc<Self> {
        let state = State {
            fleet: FleetId::mint(moment(), 1),
            epoch: epoch(1),
            revision: 0,
            run: (0, 0),
            node: NodeId::mint(moment(), 1),
            wanted: BTreeMap::new(),
            commands: BTreeMap::new(),
            refusal: None,
            answers_beats: true,
            is_mute: false,
            items_per_part: 1000,
            takes_facts: true,
            hellos: Vec::new(),
            leaves: 0,
            facts: Vec::new(),
            observed: BTreeMap::new(),
            full_sets: 0,
            parts: 0,
            gone: BTreeSet::new(),
            beats: 0,
            last_beat: v1::Beat::default(),
            usage: Vec::new(),
            held: None,
            applied: Vec::new(),
            acknowledged: Vec::new(),
            kept: Vec::new(),
            unknown: BTreeSet::new(),
            bulk: Vec::new(),
            answers: None,
            version: 0,
            sessions: Vec::new(),
        };
        let control = Arc::new(Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            serving: Mutex::new(tasks.child()),
            tasks: tasks.clone(),
            network: Arc::clone(network),
        });
        control.serve();
        control
    }

    /// Comes up, again.
    pub(crate) fn serve(self: &Arc<Self>) {
        let serving = self.tasks.child();
        *self.serving.lock().unwrap() = serving.clone();
        let incoming = self.network.listen();
        let service = SessionServer::new(Door(Arc::clone(self), serving.clone()));
        serving.spawn_until_stop("double", async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let _ = server.serve_with_incoming(incoming).await;
        });
    }

    /// Dies, with every session; its state stays.
    pub(crate) fn die(&self) {
        self.serving.lock().unwrap().stop();
        self.state().sessions.clear();
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until something is true of the state.
    pub(crate) async fn until(&self, what: &str, is_true: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !is_true(&self.state()) {
                let _ = changed.changed().await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            let state = self.state();
            panic!(
                "never: {what}; observed {:?}, held {:?}",
                state.observed, state.held
            );
        }
    }

    pub(crate) async fn until_shown(&self, unit: UnitId, word: &str) {
        self.until(&format!("{unit} {word}"), |state| state.shows(unit, word))
            .await;
    }

    /// Wants a copy to run and tells the node.
    pub(crate) fn run(&self, unit: UnitId, spec: &WorkloadSpec) {
        let wanted = Wanted {
            unit,
            spec: spec.clone(),
            stop: None,
        };
        self.tell(wanted);
    }

    /// Wants a copy to stop and tells the node.
    pub(crate) fn stop(&self, unit: UnitId, cause: &'static str) {
        let spec = self.state().wanted[&unit.assignment].spec.clone();
        self.tell(Wanted {
            unit,
            spec,
            stop: Some(cause),
        });
    }

    /// Tells the node a secret's value. It is not told again in later sessions.
    pub(crate) fn give_secret(&self, name: &str, value: &str) {
        let value = v1::SecretValue {
            name: name.to_owned(),
            version: 1,
            value: value.as_bytes().to_vec(),
        };
        let mut state = self.state();
        state.send(ToNode::Secrets(v1::Secrets {
            values: vec![value],
            forgotten: Vec::new(),
        }));
    }

    fn tell(&self, wanted: Wanted) {
        let mut state = self.state();
        state.wanted.insert(wanted.unit.assignment, wanted.clone());
        let part = state.increment(vec![wanted], Vec::new());
        state.send(ToNode::Intent(part));
    }

    /// Orders something, and orders it again at each session until it is acknowledged.
    pub(crate) fn order(&self, n: u128, command: CommandKind) -> CommandId {
        let id = CommandId::mint(moment(), n);
        let mut state = self.state();
        state.commands.insert(id, command.clone());
        state.send(order(id, &command));
        id
    }

    /// Asks for a log; what comes is gathered in `bulk`.
    pub(crate) fn ask_logs(&self, unit: UnitId, follow: bool) {
        let request = v1::LogRequest {
            unit: Some(wire(unit)),
            follow,
            ..v1::LogRequest::default()
        };
        self.open(v1::open::Request::Logs(request));
    }

    /// Asks for an errand; what comes is gathered in `bulk` anew.
    pub(crate) fn ask_errand(&self, unit: UnitId, errand: v1::errand::Errand) {
        self.state().bulk.clear();
        self.open(v1::open::Request::Errand(v1::Errand {
            unit: Some(wire(unit)),
            part: String::new(),
            errand: Some(errand),
        }));
    }

    fn open(&self, request: v1::open::Request) {
        self.state().send(ToNode::Open(v1::Open {
            ticket: "ticket-1".into(),
            request: Some(request),
        }));
    }

    /// Says a word of the errand under way.
    pub(crate) fn say(&self, frame: bulk_frame::Frame) {
        let frame = BulkFrame { frame: Some(frame) };
        let state = self.state();
        let answers = state.answers.as_ref().expect("an errand is under way");
        answers.send(Ok(frame)).expect("it is heard");
    }

    fn changed(&self) {
        self.changed.send_replace(());
    }
}

impl State {
    pub(crate) fn shows(&self, unit: UnitId, word: &str) -> bool {
        self.shown(unit) == Some(word)
    }

    /// Why the node could not begin with a unit: code and message.
    pub(crate) fn failure(&self, unit: UnitId) -> Option<(String, String)> {
        match self.observed.get(&unit)?.state.as_ref()?.state.as_ref()? {
            Shown::Failed(failed) => Some((failed.code.clone(), failed.message.clone())),
            _ => None,
        }
    }

    /// The word for what the node said last of a unit.
    pub(crate) fn shown(&self, unit: UnitId) -> Option<&'static str> {
        let state = self.observed.get(&unit)?.state.as_ref()?.state.as_ref()?;
        Some(match state {
            Shown::Preparing(_) => "preparing",
            Shown::Starting(_) => "starting",
            Shown::Running(_) => "running",
            Shown::Waiting(_) => "waiting",
            Shown::Failed(failed) if failed.code == "driver-missing" => "driver-missing",
            Shown::Failed(failed) if failed.code == "engine-down" => "engine-down",
            Shown::Failed(_) => "failed",
            Shown::Stopping(_) => "stopping",
            Shown::Finished(_) => "finished",
            Shown::Gone(_) => "gone",
        })
    }

    pub(crate) fn runs(&self, unit: UnitId) -> u32 {
        self.observed.get(&unit).map_or(0, |observed| observed.runs)
    }

    pub(crate) fn want(&mut self, unit: UnitId, spec: &WorkloadSpec) {
        let wanted = Wanted {
            unit,
            spec: spec.clone(),
            stop: None,
        };
        self.wanted.insert(unit.assignment, wanted);
    }

    /// Whether the node holds an intent back now.
    pub(crate) fn is_held(&self) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| !held.reason.is_empty())
    }

    fn send(&mut self, message: ToNode) {
        let message = ServerMessage {
            message: Some(message),
        };
        self.sessions
            .retain(|session| session.send(Ok(message.clone())).is_ok());
    }

    fn increment(&mut self, wanted: Vec<Wanted>, removed: Vec<AssignmentId>) -> v1::Intent {
        self.version += 1;
        v1::Intent {
            version: self.version,
            full: false,
            last: true,
            specs: wanted.iter().map(spec).collect(),
            items: wanted.iter().map(item).collect(),
            removed_assignments: removed.iter().map(ToString::to_string).collect(),
            store_revision: self.revision,
        }
    }

    fn full(&mut self) -> Vec<v1::Intent> {
        self.version += 1;
        let wanted: Vec<Wanted> = self.wanted.values().cloned().collect();
        let mut parts: Vec<v1::Intent> = wanted
            .chunks(self.items_per_part)
            .map(|part| v1::Intent {
                version: self.version,
                full: true,
                last: false,
                specs: part.iter().map(spec).collect(),
                items: part.iter().map(item).collect(),
                removed_assignments: Vec::new(),
                store_revision: self.revision,
            })
            .collect();
        if parts.is_empty() {
            let version = self.version;
            parts.push(v1::Intent {
                version,
                full: true,
                store_revision: self.revision,
                ..v1::Intent::default()
            });
        }
        parts.last_mut().unwrap().last = true;
        parts
    }

    /// Takes in what a node observes, and forgets what had to stop and is gone.
    fn observe(&mut self, observed: v1::Observed) {
        self.parts += 1;
        for shown in observed.units {
            let unit = read(shown.unit.as_ref().unwrap());
            let is_gone = matches!(shown.state.as_ref().unwrap().state, Some(Shown::Gone(_)));
            if is_gone {
                self.observed.remove(&unit);
                self.gone.insert(unit);
                let had_to = self
                    .wanted
                    .get(&unit.assignment)
                    .is_some_and(|wanted| wanted.stop.is_some() && wanted.unit == unit);
                if had_to {
                    self.wanted.remove(&unit.assignment);
                    let part = self.increment(Vec::new(), vec![unit.assignment]);
                    self.send(ToNode::Intent(part));
                }
            } else {
                self.observed.insert(unit, shown);
            }
        }
    }
}

fn wire(unit: UnitId) -> v1::UnitId {
    v1::UnitId {
        assignment: unit.assignment.to_string(),
        generation: unit.generation,
    }
}

fn read(unit: &v1::UnitId) -> UnitId {
    UnitId {
        assignment: unit.assignment.parse().unwrap(),
        generation: unit.generation,
    }
}

/// Each assignment is a workload of its own, and its generation is the revision.
pub(crate) fn workload(unit: UnitId) -> String {
    let bytes = u128::from_be_bytes(*unit.assignment.as_bytes());
    WorkloadId::mint(moment(), bytes).to_string()
}

fn spec(wanted: &Wanted) -> v1::Spec {
    v1::Spec {
        workload: workload(wanted.unit),
        revision: wanted.unit.generation,
        json: serde_json::to_vec(&wanted.spec).unwrap(),
    }
}

fn item(wanted: &Wanted) -> v1::IntentItem {
    v1::IntentItem {
        unit: Some(wire(wanted.unit)),
        workload: workload(wanted.unit),
        workload_name: wanted.spec.name.clone(),
        slot: 0,
        revision: wanted.unit.generation,
        stop_cause: wanted.stop.unwrap_or_default().to_owned(),
        finished: false,
    }
}

fn order(id: CommandId, command: &CommandKind) -> ToNode {
    let json = serde_json::to_vec(command).unwrap();
    ToNode::Command(v1::Command {
        id: id.to_string(),
        json,
    })
}

/// The service; its sessions end when the double dies.
struct Door(Arc<Control>, Tasks);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Session for Door {
    type ControlStream = Answers<ServerMessage>;
    type BulkStream = Answers<BulkFrame>;

    async fn control(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let control = Arc::clone(&self.0);
        self.1.spawn_until_stop("double session", async move {
            let mut messages = request.into_inner();
            while let Ok(Some(message)) = messages.message().await {
                if control.take(message.message.unwrap(), &sender).is_err() {
                    return;
                }
                control.changed();
            }
        });
        let until = self.1.token().clone();
        let answers = UnboundedReceiverStream::new(receiver);
        let answers = futures::StreamExt::take_until(answers, until.cancelled_owned());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn bulk(
        &self,
        request: Request<Streaming<BulkFrame>>,
    ) -> Result<Response<Self::BulkStream>, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let control = Arc::clone(&self.0);
        self.1.spawn_until_stop("double transfer", async move {
            let mut frames = request.into_inner();
            control.state().answers = Some(sender);
            while let Ok(Some(frame)) = frames.message().await {
                let is_end = matches!(frame.frame, Some(bulk_frame::Frame::End(_)));
                control.state().bulk.push(frame);
                control.changed();
                if is_end {
                    break;
                }
            }
            control.state().answers = None;
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            receiver,
        ))))
    }

    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::Membership>, Status> {
        Err(Status::unimplemented("this double has no members"))
    }

    async fn renew(
        &self,
        _: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::Membership>, Status> {
        Err(Status::unimplemented("this double has no members"))
    }
}

/// The session is over.
struct Over;

impl Control {
    fn take(
        &self,
        message: FromNode,
        session: &mpsc::UnboundedSender<Result<ServerMessage, Status>>,
    ) -> Result<(), Over> {
        let mut state = self.state();
        let answer = |message| {
            let _ = session.send(Ok(ServerMessage {
                message: Some(message),
            }));
        };
        match message {
            FromNode::Hello(hello) => {
                state.hellos.push(hello);
                if let Some(refused) = state.refusal.clone() {
                    answer(ToNode::Refused(refused));
                    return Err(Over);
                }
                if !state.is_mute {
                    answer(ToNode::Welcome(state.welcome()));
                }
            }
            FromNode::Observed(observed) => {
                let (is_full, is_last) = (observed.full, observed.last);
                state.observe(observed);
                if is_full && is_last && !state.is_mute {
                    state.full_sets += 1;
                    let parts = state.full();
                    parts
                        .into_iter()
                        .for_each(|part| answer(ToNode::Intent(part)));
                    let commands = state.commands.clone();
                    commands
                        .iter()
                        .for_each(|(id, command)| answer(order(*id, command)));
                    state.sessions.push(session.clone());
                }
            }
            FromNode::Believes(_) => {}
            FromNode::Leave(_) => {
                state.leaves += 1;
                return Err(Over);
            }
            FromNode::Beat(beat) => {
                state.beats += 1;
                if state.answers_beats {
                    answer(ToNode::BeatAck(v1::BeatAck {
                        sequence: beat.sequence,
                    }));
                }
                let usage = beat.usage.iter().flat_map(|usage| usage.units.clone());
                state.usage.extend(usage);
                state.last_beat = beat;
            }
            FromNode::Acknowledge(acknowledged) => {
                let id = acknowledged.command.parse().unwrap();
                state.commands.remove(&id);
                state.acknowledged.push(acknowledged);
            }
            FromNode::Facts(facts) => state.facts.push(facts),
            FromNode::Held(held) => state.held = Some(held),
            FromNode::Applied(applied) => state.applied.push(applied.version),
            FromNode::Kept(kept) => {
                state.kept.clone_from(&kept.workloads);
                let is_unknown = |id: &&String| state.unknown.contains(*id);
                let workloads = kept.workloads.iter().filter(is_unknown);
                let workloads = workloads.cloned().collect();
                answer(ToNode::Unwanted(v1::Unwanted { workloads }));
            }
        }
        Ok(())
    }

    /// Asks the node for everything.
    pub(crate) fn ask_again(&self) {
        self.state().send(ToNode::Resend(v1::Resend {}));
    }
}

impl State {
    fn welcome(&self) -> v1::Welcome {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap();
        v1::Welcome {
            version: 1,
            fleet_id: self.fleet.to_string(),
            store_epoch: self.epoch.to_string(),
            node_id: self.node.to_string(),
            beat_interval_ms: millis(BEAT),
            lease_ms: millis(LEASE),
            server_time_ms: moment().as_millis(),
            store_revision: self.run.1,
            server_run: self.run.0,
            takes_facts: self.takes_facts,
        }
    }
}
