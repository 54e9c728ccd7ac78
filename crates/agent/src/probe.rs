//! What the drivers of this node can do: asked at the start, again when an engine comes or goes, and now and then,
//! because programs are installed and removed.
//!
//! Each driver is asked by a task of its own, so that a slow one keeps nobody waiting. Until a driver has answered
//! nothing is known of its kind, and nobody may count on it. The tasks own the facts; nothing here fails: a driver
//! that gives no answer is a fact, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::Tasks;
use hostler_model::RuntimeFact;
use hostler_model::spec::Kind;
use hostler_runtime::Runtime;
use tokio::sync::watch;

use crate::show::Picture;

/// A driver that takes longer than this for one answer counts as one that cannot work.
const PATIENCE: Duration = Duration::from_secs(30);
/// A driver that cannot work is asked again after this time, and one that can after the longer one: most of what
/// takes that from it is noticed earlier by what it says of its units.
const WHILE_MISSING: Duration = Duration::from_secs(30);
const WHILE_WORKING: Duration = Duration::from_secs(600);

/// What is known of each driver.
pub(crate) type Known = BTreeMap<Kind, RuntimeFact>;

/// Reads what is known of the drivers.
#[derive(Debug, Clone)]
pub(crate) struct Abilities(watch::Receiver<Arc<Known>>);

/// Asks one driver.
struct Prober {
    runtime: Arc<dyn Runtime>,
    kind: Kind,
    picture: watch::Receiver<Arc<Picture>>,
    known: Arc<watch::Sender<Arc<Known>>>,
    /// Whether the engine did not answer when the picture was last looked at.
    was_down: Option<bool>,
}

/// Starts a task for each driver. They end when the tasks are told to stop.
pub(crate) fn start(
    tasks: &Tasks,
    runtimes: &BTreeMap<Kind, Arc<dyn Runtime>>,
    picture: &watch::Receiver<Arc<Picture>>,
) -> Abilities {
    let (known, read) = watch::channel(Arc::default());
    let known = Arc::new(known);
    for (kind, runtime) in runtimes {
        let prober = Prober {
            runtime: Arc::clone(runtime),
            kind: *kind,
            picture: picture.clone(),
            known: Arc::clone(&known),
            was_down: None,
        };
        tasks.spawn_until_stop("probe", prober.run());
    }
    Abilities(read)
}

impl Abilities {
    /// The facts of the drivers that have answered.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits until each of the kinds is known, or for as long as that.
    pub(crate) async fn settled(&self, kinds: &[Kind], at_most: Duration) {
        let mut known = self.0.clone();
        let all = known.wait_for(|known| kinds.iter().all(|kind| known.contains_key(kind)));
        // Either way what is known now is told, and the rest later.
        let _ = tokio::time::timeout(at_most, all).await;
    }

    /// Completes when something else is known than at the last call. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // All is being stopped.
            std::future::pending::<()>().await;
        }
    }
}

impl Prober {
    async fn run(mut self) {
        loop {
            let fact = self.ask().await;
            let is_available = fact.available;
            self.tell(fact);
            let pause = if is_available {
                WHILE_WORKING
            } else {
                WHILE_MISSING
            };
            // Either way it is asked again.
            let _ = tokio::time::timeout(pause, self.contradicted(is_available)).await;
        }
    }

    async fn ask(&self) -> RuntimeFact {
        let answer = tokio::time::timeout(PATIENCE, self.runtime.probe()).await;
        answer.unwrap_or_else(|_| RuntimeFact {
            kind: self.kind,
            available: false,
            version: String::new(),
            note: format!("no answer within {} s", PATIENCE.as_secs()),
        })
    }

    fn tell(&self, fact: RuntimeFact) {
        self.known.send_if_modified(|known| {
            let is_new = known.get(&self.kind) != Some(&fact);
            if is_new {
                Arc::make_mut(known).insert(self.kind, fact);
            }
            is_new
        });
    }

    /// Completes when the engine has begun to answer though the driver said that it cannot work, or the reverse.
    async fn contradicted(&mut self, is_available: bool) {
        loop {
            let now = {
                let picture = self.picture.borrow_and_update();
                // Before that, an engine that was not asked looks like one that does not answer.
                let is_down = picture.down.contains(&self.kind);
                picture.is_complete.then_some(is_down)
            };
            if now != self.was_down && now.is_some() {
                self.was_down = now;
                if now == Some(is_available) {
                    return;
                }
            }
            if self.picture.changed().await.is_err() {
                // All is being stopped.
                std::future::pending::<()>().await;
            }
        }
    }
}
