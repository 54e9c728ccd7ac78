//! A control plane inside the harness, with nodes that need no machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use hostler_control::{Attachment, Control, ControlConfig, Link, LogRecord, LogRequest, Parts};
use hostler_fleet::{ApplyOptions, LeaseRules, NodeAnnouncement, Reply, Verb};
use hostler_kit::{Clock, SystemClock, SystemEntropy, Tasks};
use hostler_model::spec::{Kind, WorkloadSpec};
use hostler_model::{
    Actor, AliasKey, Bytes, Code, Contract, MilliCpu, NodeFacts, NodeId, Refusal, Resources,
    RuntimeFact, UnitId, WorkloadId,
};
use hostler_store::{MemoryStore, SqliteStore, Store};
use tokio::time::timeout;

/// Beats are not what these rows are about: nodes that never beat stay alive for the whole row.
const QUIET: Duration = Duration::from_secs(3600);
/// Verbs under way at once while a fleet is set up.
const IN_FLIGHT: usize = 1024;
/// For everything to be placed.
const PATIENCE: Duration = Duration::from_secs(1200);
const GRACE: Duration = Duration::from_secs(60);

/// A control plane and its tasks.
pub(super) struct Plane {
    pub(super) control: Control,
    tasks: Tasks,
}

/// A node that takes every intent and says nothing. Dropping it breaks its connection.
pub(super) struct QuietNode {
    _attachment: Attachment,
}

struct QuietLink;

impl Plane {
    /// In memory, or durable in the folder.
    pub(super) async fn start(data: Option<&Path>) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let store: Arc<dyn Store> = match data {
            Some(data) => Arc::new(SqliteStore::open(data, Arc::clone(&clock))?),
            None => Arc::new(MemoryStore::new(Arc::clone(&clock))),
        };
        let tasks = Tasks::new();
        let parts = Parts {
            store,
            clock,
            entropy: Arc::new(SystemEntropy),
            tasks: tasks.clone(),
        };
        let config = ControlConfig {
            lease: LeaseRules::for_beat(QUIET),
            patience: PATIENCE,
            ..ControlConfig::default()
        };
        let control = Control::start(config, parts).await?;
        Ok(Self { control, tasks })
    }

    /// Joins so many nodes that stay quiet.
    pub(super) async fn join(&self, count: usize) -> Result<Vec<QuietNode>> {
        let joining = (0..count).map(|number| self.join_one(number));
        futures::stream::iter(joining)
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
    }

    /// Submits the hellos of so many nodes, many at once, without connecting them.
    pub(super) async fn register(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        let hellos = numbers.map(|number| self.announce(number));
        let mut hellos = futures::stream::iter(hellos).buffer_unordered(IN_FLIGHT);
        while let Some(result) = hellos.next().await {
            result?;
        }
        Ok(())
    }

    /// Applies a workload; its copies are placed by the keeper.
    pub(super) async fn apply(
        &self,
        name: &str,
        count: u32,
        each: Resources,
    ) -> Result<WorkloadId> {
        let mut spec = WorkloadSpec::of_process(name, vec!["sleep".to_owned(), "1000".to_owned()]);
        spec.count = count;
        spec.resources = each;
        let verb = Verb::Apply {
            specs: vec![Arc::new(spec)],
            options: ApplyOptions::default(),
        };
        match self.submit(verb).await? {
            Reply::Applied(applied) if applied.len() == 1 => Ok(applied[0].id),
            other => bail!("unexpected: {other:?}"),
        }
    }

    /// Waits until the committed state shows every copy on a node.
    pub(super) async fn placed(&self, workload: WorkloadId) -> Result<()> {
        let mut changes = self.control.watch_changes();
        let all = async {
            while self.control.view().pending_copies(workload) > 0 {
                changes.changed().await?;
            }
            Ok(())
        };
        timeout(PATIENCE, all)
            .await
            .context("waiting for the placements")?
    }

    pub(super) async fn end(self) -> Result<()> {
        drop(self.control);
        let left = self.tasks.shut_down(GRACE).await;
        left.map_err(|left| anyhow::anyhow!("{left} tasks of the control plane did not end"))
    }

    async fn submit(&self, verb: Verb) -> Result<Reply> {
        let reply = self
            .control
            .submit(Actor::Keeper("bench".to_owned()), verb)
            .await;
        reply.map_err(|refusal| anyhow::anyhow!("refused: {refusal:?}"))
    }

    async fn announce(&self, number: usize) -> Result<NodeId> {
        match self
            .submit(Verb::Announce(Box::new(announcement(number))))
            .await?
        {
            Reply::Node { id, .. } => Ok(id),
            other => bail!("unexpected: {other:?}"),
        }
    }

    async fn join_one(&self, number: usize) -> Result<QuietNode> {
        let id = self.announce(number).await?;
        let refused = |refusal| anyhow::anyhow!("refused: {refusal:?}");
        let attachment = self
            .control
            .attach(id, format!("boot {number}").as_str(), Arc::new(QuietLink))
            .map_err(refused)?;
        attachment
            .observed_full(Vec::new())
            .await
            .map_err(refused)?;
        Ok(QuietNode {
            _attachment: attachment,
        })
    }
}

#[async_trait]
impl Link for QuietLink {
    fn wake(&self) {}

    async fn logs(
        &self,
        _unit: UnitId,
        _query: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal> {
        Err(Refusal::new(
            Code::LogNotFound,
            "a quiet node has no logs",
            "",
        ))
    }
}

fn announcement(number: usize) -> NodeAnnouncement {
    let name = format!("n{number}");
    let capacity = Resources {
        cpu: MilliCpu(64_000),
        memory: Bytes(256 << 30),
        disk: Bytes(1 << 40),
    };
    let runtime = RuntimeFact {
        kind: Kind::Process,
        available: true,
        version: "1".to_owned(),
        note: String::new(),
    };
    NodeAnnouncement {
        key: None,
        introduction: Default::default(),
        identity: AliasKey {
            contract: Contract::Session,
            scope: "node".to_owned(),
            foreign: format!("{number:032x}"),
        },
        contract: Contract::Session,
        name: name.clone(),
        facts: NodeFacts {
            hostname: name,
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            kernel: "6.1".to_owned(),
            cpu_count: 64,
            boot_id: format!("boot {number}"),
            memory: capacity.memory,
            addresses: vec!["10.0.0.1".to_owned()],
            runtimes: vec![runtime],
            ..NodeFacts::default()
        },
        capacity,
        labels: BTreeMap::from([("zone".to_owned(), format!("z{}", number % 3))]),
        instance: None,
    }
}
