//! A runtime driver whose units get the volumes that their specs ask for. It passes everything else on.
//!
//! The runtime's own record of a unit and what the unit holds are two things, and an agent may die between them:
//!
//! ```text
//!   held, and the runtime has no such unit      it was being prepared: taken back; or it was removed behind our back:
//!                                               let go of, and its data stays
//!   leaving, and the runtime has no such unit   found as exited, so that it is removed again
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use hostler_kit::Tasks;
use hostler_model::spec::Kind;
use hostler_model::{Exit, Part, RuntimeFact, StorageFact, UnitId};

use super::record::{Holding, Phase};
use super::{Attached, Holdings};
use crate::logs::{LogLine, LogQuery};
use crate::turns::{Turn, Turns, to_the_end};
use crate::{
    Adoption, Census, Data, Exec, Fencing, Files, Found, FoundState, Guests, Judged, Leftovers,
    NativeHealth, Ports, Progress, Runtime, RuntimeError, Secrets, Stats, Unit, Volumes, disk,
};

/// A runtime driver, and what its units hold.
pub struct WithVolumes {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Arc<dyn Runtime>,
    holdings: Arc<Holdings>,
    tasks: Tasks,
    turns: Turns,
}

impl WithVolumes {
    /// Goes around the driver; touches nothing yet.
    #[must_use]
    pub fn over(runtime: Arc<dyn Runtime>, holdings: Arc<Holdings>, tasks: Tasks) -> Self {
        let inner = Inner {
            runtime,
            holdings,
            tasks,
            turns: Turns::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(super) fn runtime(&self) -> &dyn Runtime {
        self.inner.runtime.as_ref()
    }

    pub(super) fn holdings(&self) -> &Holdings {
        &self.inner.holdings
    }
}

#[async_trait]
impl Runtime for WithVolumes {
    fn kind(&self) -> Kind {
        self.inner.runtime.kind()
    }

    async fn probe(&self) -> RuntimeFact {
        self.inner.runtime.probe().await
    }

    async fn prepare(&self, unit: &Unit, progress: Progress<'_>) -> Result<(), RuntimeError> {
        if unit.spec.volumes().is_empty() {
            return self.inner.runtime.prepare(unit, progress).await;
        }
        let turn = self.inner.turns.take(unit.id).await;
        progress("attaching volumes".to_owned());
        let (volumes, _turn) = self.inner.attach(unit, turn).await?;
        let with_places = Unit {
            volumes,
            ..unit.clone()
        };
        match self.inner.runtime.prepare(&with_places, progress).await {
            Ok(()) => self.inner.holdings.ready(unit.id).await.map(drop),
            Err(error) => {
                self.inner.holdings.take_back(unit.id).await;
                Err(error)
            }
        }
    }

    async fn start(&self, id: UnitId) -> Result<(), RuntimeError> {
        let _turn = self.inner.turns.take(id).await;
        self.inner.holdings.attach_again(id).await?;
        self.inner.runtime.start(id).await
    }

    async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        self.inner.runtime.stop(id).await
    }

    async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        let turn = self.inner.turns.take(id).await;
        self.inner.holdings.leave(id, data).await?;
        self.inner.runtime.remove(id, data).await?;
        self.inner.holdings.release(id).await?;
        drop(turn);
        self.inner.turns.forget(id);
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<Found>, RuntimeError> {
        // First: a unit that gets ready meanwhile is none that was left.
        let kind = self.inner.runtime.kind();
        let holdings = self.inner.holdings.of_kind(kind).await;
        let holdings = holdings.unwrap_or_else(|error| {
            // Units are found all the same; what is left of others waits.
            tracing::warn!(%error, "what units hold cannot be read");
            Vec::new()
        });
        let mut found = self.inner.runtime.observe().await?;
        let known: HashSet<UnitId> = found.iter().map(|unit| unit.id).collect();
        for holding in holdings {
            if known.contains(&holding.unit) {
                continue;
            }
            match left(&holding) {
                Some(unit) => found.push(unit),
                None => self.inner.settle(holding.unit),
            }
        }
        Ok(found)
    }

    fn parts(&self, id: UnitId) -> Vec<Part> {
        self.inner.runtime.parts(id)
    }

    async fn changed(&self) {
        self.inner.runtime.changed().await;
    }

    async fn logs(
        &self,
        id: UnitId,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        self.inner.runtime.logs(id, query).await
    }

    fn fencing(&self) -> Option<&dyn Fencing> {
        self.inner.runtime.fencing()
    }

    fn stats(&self) -> Option<&dyn Stats> {
        self.inner.runtime.stats()
    }

    fn census(&self) -> Option<&dyn Census> {
        self.inner.runtime.census()
    }

    fn guests(&self) -> Option<&dyn Guests> {
        self.inner.runtime.guests()
    }

    fn exec(&self) -> Option<&dyn Exec> {
        self.inner.runtime.exec()
    }

    fn native_health(&self) -> Option<&dyn NativeHealth> {
        self.inner.runtime.native_health()
    }

    fn leftovers(&self) -> Option<&dyn Leftovers> {
        Some(self)
    }

    fn adoption(&self) -> Option<&dyn Adoption> {
        self.inner.runtime.adoption()
    }

    fn judged(&self) -> Option<&dyn Judged> {
        self.inner.runtime.judged()
    }

    fn secrets(&self) -> Option<&dyn Secrets> {
        self.inner.runtime.secrets()
    }

    fn files(&self) -> Option<&dyn Files> {
        self.inner.runtime.files()
    }

    fn ports(&self) -> Option<&dyn Ports> {
        self.inner.runtime.ports()
    }

    fn volumes(&self) -> Option<&dyn Volumes> {
        Some(self)
    }
}

impl Volumes for WithVolumes {
    fn drivers(&self) -> Vec<StorageFact> {
        self.inner.holdings.drivers()
    }
}

impl Inner {
    async fn attach(&self, unit: &Unit, turn: Turn) -> Result<(Vec<Attached>, Turn), RuntimeError> {
        let (holdings, kind) = (Arc::clone(&self.holdings), self.runtime.kind());
        let unit = unit.clone();
        let attached = to_the_end(&self.tasks, "attach volumes", async move {
            let answer = holdings.attach(&unit, kind).await;
            answer.map(|attached| (attached, turn))
        });
        let lost = || {
            let source = std::io::ErrorKind::Interrupted.into();
            Err(disk::error("attach volumes", source))
        };
        attached.await.unwrap_or_else(lost)
    }

    /// Lets go of what the runtime has no unit for, unless a verb works on the unit: that will.
    fn settle(self: &Arc<Self>, id: UnitId) {
        let inner = Arc::clone(self);
        let Some(turn) = self.turns.try_take(id) else {
            return;
        };
        self.tasks.spawn("let go of volumes", async move {
            let _turn = turn;
            match inner.release_unknown(id).await {
                Ok(true) => {
                    tracing::info!(unit = %id, "volumes that nothing runs with are released")
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(unit = %id, %error, "volumes are not released"),
            }
        });
    }

    /// Looks once more first, now that no verb comes between: the unit may have got ready since it was not found.
    async fn release_unknown(&self, id: UnitId) -> Result<bool, RuntimeError> {
        let found = self.runtime.observe().await?;
        if found.iter().any(|unit| unit.id == id) {
            return Ok(false);
        }
        self.holdings.release(id).await?;
        Ok(true)
    }
}

/// A unit that was being removed and of which only volumes are left.
fn left(holding: &Holding) -> Option<Found> {
    let Phase::Leaving { at, .. } = holding.phase else {
        return None;
    };
    Some(Found {
        id: holding.unit,
        workload: holding.owner.workload,
        state: FoundState::Exited {
            exit: Exit::Unknown,
            at,
        },
        runs: 0,
    })
}
