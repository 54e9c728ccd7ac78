//! Which runtimes of an agent work, by its own word: nothing new goes where one does not.

use hostler_control::fleet::{NodeAnnouncement, Verb};
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
        let record = self.door.control.view().node(self.node).cloned();
        let Some(node) = record.filter(|node| !node.is_gone()) else {
            return;
        };
        if let Some(announcement) = corrected(&node, &told.runtime_status) {
            tracing::info!(node = %self.node, status = ?told.runtime_status, "runtimes changed");
            let verb = Verb::Announce(Box::new(announcement));
            let actor = Actor::Node(node.name.clone());
            if let Err(refusal) = self.door.control.submit(actor, verb).await {
                tracing::debug!(node = %self.node, %refusal, "not recorded");
                self.health_at = now;
            }
        }
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
