//! Tasks with a name, an owner and an end: whoever starts one can cancel it and wait for it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

/// A task of whatever kind. What surrounds it is compiled once, and not again for each of a hundred kinds.
type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A family of tasks that stop together. Clones belong to the same family.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// A fresh family.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A family that stops with this one, and may stop before it.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            tracker: self.tracker.clone(),
            stop: self.stop.child_token(),
        }
    }

    /// Starts a task that must end soon after [`Tasks::stopping`] fires. A panic inside is logged by name.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(name, Box::pin(task));
    }

    fn start(&self, name: &'static str, task: Boxed) {
        let span = tracing::debug_span!("task", name);
        let ended = Panics { name, armed: true };
        // No block that awaits it: such a block has room for the task twice.
        let watched = task.map(move |()| ended.disarm());
        self.tracker.spawn(watched.instrument(span));
    }

    /// Starts a task that is dropped at its next await when the family stops; it must hold nothing that
    /// an abrupt end would break.
    pub fn spawn_until_stop<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start_until_stop(name, Box::pin(task));
    }

    fn start_until_stop(&self, name: &'static str, task: Boxed) {
        let stop = self.stop.clone();
        let until_stop = async move {
            stop.run_until_cancelled(task).await;
        };
        self.start(name, Box::pin(until_stop));
    }

    /// Completes when the family is told to stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the family has been told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Something that is no task of its own and has to end all the same: the family waits until it is dropped.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold(self.tracker.token())
    }

    /// The token behind the family, for libraries that take one.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Tells the family to stop, without waiting.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Tells the family to stop and waits until every task (of parents and children alike) has ended, or
    /// `grace` is over.
    ///
    /// # Errors
    /// The number of tasks that were still running when the grace was over.
    pub async fn shut_down(&self, grace: Duration) -> Result<(), usize> {
        self.stop();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait())
            .await
            .map_err(|_| self.tracker.len())
    }
}

/// Keeps a family from having ended.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "held for its end")] TaskTrackerToken);

/// Notices when a task unwinds.
struct Panics {
    name: &'static str,
    armed: bool,
}

impl Panics {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        if self.armed && std::thread::panicking() {
            tracing::error!(task = self.name, "task panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use tracing::Dispatch;
    use tracing::subscriber::NoSubscriber;

    use super::*;

    #[tokio::test]
    async fn a_family_stops_together_and_is_waited_for() {
        let tasks = Tasks::new();
        let child = tasks.child();
        let inside = child.clone();
        child.spawn("waits", async move { inside.stopping().await });
        child.spawn_until_stop("never ends", std::future::pending());
        assert_eq!(tasks.shut_down(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_waited_for() {
        let tasks = Tasks::new();
        let held = tasks.hold();
        assert_eq!(tasks.shut_down(Duration::from_secs(1)).await, Err(1));
        drop(held);
        assert_eq!(tasks.shut_down(Duration::from_secs(1)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_stop_is_counted() {
        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        assert_eq!(tasks.shut_down(Duration::from_secs(1)).await, Err(1));
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named_and_waited_for_like_any_other() {
        let said = tempfile::NamedTempFile::new().unwrap();
        let log = Arc::new(said.reopen().unwrap());
        let subscriber = Dispatch::new(tracing_subscriber::fmt().with_writer(log).finish());
        // Of one alone, a thread that has none would decide for all whether a line is wanted.
        let _second = Dispatch::new(NoSubscriber::default());
        let _default = tracing::dispatcher::set_default(&subscriber);
        let tasks = Tasks::new();
        tasks.spawn("clumsy", async { panic!("on purpose") });
        tasks.spawn("calm", async {});
        assert_eq!(tasks.shut_down(Duration::from_secs(60)).await, Ok(()));
        let said = fs::read_to_string(said.path()).unwrap();
        assert_eq!(said.matches("task panicked").count(), 1, "{said}");
        assert!(said.contains("clumsy"), "{said}");
    }
}
