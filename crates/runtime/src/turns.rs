//! Whose turn it is to do something with a unit: one verb at a time for each, and what was begun is done to its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hostler_kit::Tasks;
use hostler_model::UnitId;
use tokio::sync::{OwnedMutexGuard, oneshot};

/// A driver's turns.
#[derive(Default)]
pub(crate) struct Turns {
    of_units: Mutex<HashMap<UnitId, Arc<tokio::sync::Mutex<()>>>>,
}

/// Somebody's turn, for as long as it is held.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl Turns {
    /// Waits for the turn.
    pub(crate) async fn take(&self, id: UnitId) -> Turn {
        self.of(id).lock_owned().await
    }

    /// The turn, unless a verb works on the unit just now.
    pub(crate) fn try_take(&self, id: UnitId) -> Option<Turn> {
        self.of(id).try_lock_owned().ok()
    }

    /// The unit is gone.
    pub(crate) fn forget(&self, id: UnitId) {
        lock(&self.of_units).remove(&id);
    }

    fn of(&self, id: UnitId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.of_units).entry(id).or_default())
    }
}

/// Does the work in a task of its own: it ends even if nobody waits for it any more, and with it the turn that it
/// holds, so that a verb that comes next finds what was made. None if the task was broken off.
pub(crate) async fn to_the_end<T: Send + 'static>(
    tasks: &Tasks,
    name: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (sender, done) = oneshot::channel();
    tasks.spawn(name, async move {
        // Whoever asked may have gone.
        let _ = sender.send(work.await);
    });
    done.await.ok()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
