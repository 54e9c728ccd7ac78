//! Which runtimes of an agent work, by its own word: nothing new goes where one does not.

use hostler_control::fleet::{NodeAnnouncement, UnitReport, Verb};
use hostler_model::Actor;
use hostler_model::spec::Kind;

use super::*;

/// Between two questions.
const HEALTH: Duration = Duration::from_secs(60);
const HEALTHY: &str = "healthy";

impl Driver {
    /// Asks from time to time, and after each registration, which names the runtimes anew.
    pub(super) async fn check_health(&mut self, caller: &Caller) {
        let now = self.now();
        if now < self.health_at {
            return;
        }
        self.health_at = now + HEALTH;
        let told = match caller.health().await {
            Ok(told) => told,
            // Its list tells whether it can be reached; one that has no such call is believed to be well.
            Err(trouble) => {
                tracing::debug!(node = %self.node, ?trouble, "no word on its health");
                return;
            }
        };
        if self.correct(&told.runtime_status).await.is_err() {
            self.health_at = now;
        }
    }

    /// The agent would not have a copy, because it has no runtime for it: nothing more of that kind goes there, and
    /// the copy goes elsewhere. Its health, or the next registration, takes that back.
    pub(super) async fn turn_out(&mut self, id: &str, why: &str) {
        let fleet = self.door.control.fleet_id();
        let wants = want::of(&self.door.control.view(), self.node, fleet);
        let Some(want) = wants.get(id).filter(|want| want.goal == Goal::Run) else {
            return;
        };
        let status = BTreeMap::from([(want.kind.as_str().to_owned(), why.to_owned())]);
        if self.correct(&status).await.is_err() {
            return;
        }
        self.health_at = self.now() + HEALTH;
        let unit = want.unit;
        let reports = vec![UnitReport::Homeless { unit }];
        let node = self.node;
        // Refused, it is tried here again.
        let _ = self.submit(Verb::Report { node, reports }).await;
    }

    /// Puts on record which runtimes work, if that is news. Of a node that is alive or joins: an announcement says
    /// that a node was heard of, and being dialled is not that.
    async fn correct(&mut self, told: &BTreeMap<String, String>) -> Result<(), Refusal> {
        let record = self.door.control.view().node(self.node).cloned();
        let Some(node) = record.filter(|node| is_heard(node)) else {
            return Ok(());
        };
        let Some(announcement) = corrected(&node, told) else {
            return Ok(());
        };
        tracing::info!(node = %self.node, status = ?told, "runtimes changed");
        self.submit(Verb::Announce(Box::new(announcement))).await
    }

    async fn submit(&mut self, verb: Verb) -> Result<(), Refusal> {
        let record = self.door.control.view().node(self.node).cloned();
        let actor = Actor::Node(record.map_or_else(String::new, |node| node.name.clone()));
        let submitted = self.door.control.submit(actor, verb).await;
        if let Err(refusal) = &submitted {
            tracing::debug!(node = %self.node, %refusal, "not recorded");
        }
        submitted.map(|_| ())
    }
}

/// The node as its agent now says that it is, if that is news.
fn corrected(node: &Node, told: &BTreeMap<String, String>) -> Option<NodeAnnouncement> {
    let mut facts = node.facts.clone();
    for (word, status) in told {
        let runtime = facts
            .runtimes
            .iter_mut()
            .find(|it| Some(it.kind) == kind_of(word));
        let Some(runtime) = runtime else { continue };
        runtime.available = status.trim().eq_ignore_ascii_case(HEALTHY);
        runtime.note = if runtime.available {
            String::new()
        } else {
            status.clone()
        };
    }
    (facts != node.facts).then(|| NodeAnnouncement {
        key: None,
        introduction: Default::default(),
        identity: words::node_key(&facts.hostname),
        contract: node.contract,
        name: node.name.clone(),
        facts,
        capacity: node.capacity,
        labels: node.labels.clone(),
        instance: node.instance.clone(),
    })
}

/// Agents name a runtime by the type that it runs, or by its engine.
fn kind_of(word: &str) -> Option<Kind> {
    match word.trim().to_ascii_lowercase().as_str() {
        "docker" => Some(Kind::Container),
        "libvirt" => Some(Kind::Vm),
        _ => words::kind(word),
    }
}
