//! A runtime without processes, for tests of those who drive one.
//!
//! The units live in a [`FakeMachine`] that outlives its drivers, as a real machine outlives the agent:
//! drop a [`FakeRuntime`] and make another, and it finds what the first one left. The machine can be told to
//! fail, to be down, to crash a unit and to reboot. Time comes from a [`Clock`](hostler_kit::Clock), so that simulated time works.
//!
//! The program of a unit is the first word of its command:
//!
//! ```text
//!   exit CODE               ends at once
//!   exit-after MS CODE      ends by itself after that time
//!   print LINE…             writes the lines, then runs until it is stopped
//!   print-exit CODE LINE…   writes the lines, then ends
//!   obliging CODE           runs until it is stopped, then ends with the code
//!   stubborn                ignores the stop signal and has to be killed
//!   (anything else)         runs until the stop signal kills it
//! ```
//!
//! A command inside a unit is one of the same words, or one that the machine was told of
//! ([`FakeMachine::set_command`]); what runs until it is stopped never ends there. Two more have an input, and end
//! with it: `cat` writes what it reads, and `sizes` writes the size of its terminal, at first and for each piece that
//! it reads. Files in units are kept as the archives in which they came.

mod exec;
mod files;
mod machine;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_model::spec::Kind;
use hostler_model::{Exit, Part, RuntimeFact, UnitId};

pub use machine::{FakeMachine, Fault};

use crate::logs::{LogLine, LogQuery};
use crate::secrets::Given;
use crate::vm::{Interface, Power};
use crate::{
    Adoptable, Adoption, Census, Data, Discarded, Exec, Fencing, Files, Found, Guest, Guests,
    Leftover, LeftoverKind, Leftovers, NativeHealth, Ports, Progress, Runtime, RuntimeError,
    Secrets, Stats, Unit, UnitStats,
};

/// A driver of one kind on a [`FakeMachine`].
#[derive(Debug)]
pub struct FakeRuntime {
    machine: Arc<FakeMachine>,
    kind: Kind,
    /// The machine's version at the last wake-up.
    seen: AtomicU64,
}

impl FakeRuntime {
    /// A driver, as an agent makes one when it starts.
    #[must_use]
    pub const fn new(machine: Arc<FakeMachine>, kind: Kind) -> Self {
        Self {
            machine,
            kind,
            seen: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn kind(&self) -> Kind {
        self.kind
    }

    async fn probe(&self) -> RuntimeFact {
        self.machine.speaks(self.kind).await;
        let down = self.machine.down_note();
        let note = down
            .or_else(|| self.machine.lack_of(self.kind))
            .unwrap_or_default();
        RuntimeFact {
            kind: self.kind,
            available: note.is_empty(),
            version: "fake".to_owned(),
            note,
        }
    }

    async fn prepare(&self, unit: &Unit, progress: Progress<'_>) -> Result<(), RuntimeError> {
        progress(format!("preparing {}", unit.workload_name));
        let pause = self.machine.preparation_time();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.machine.prepare(unit)
    }

    async fn start(&self, id: UnitId) -> Result<(), RuntimeError> {
        self.machine.start(id)
    }

    async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        if let Some(grace) = self.machine.ask_to_stop(id)? {
            tokio::time::sleep(grace).await;
            self.machine.kill(id);
        }
        self.machine.last_exit(id)
    }

    async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        match self.stop(id).await {
            Ok(_) | Err(RuntimeError::NotFound(_)) => self.machine.forget(id, data),
            Err(error) => Err(error),
        }
    }

    async fn observe(&self) -> Result<Vec<Found>, RuntimeError> {
        self.machine.observe(self.kind)
    }

    fn parts(&self, id: UnitId) -> Vec<Part> {
        self.machine.parts(id)
    }

    async fn changed(&self) {
        loop {
            let waiting = self.machine.changed(self.seen.load(Ordering::Relaxed));
            match self.machine.next_end() {
                // Both arms only wait: dropping either loses nothing.
                Some(span) => tokio::select! {
                    biased;
                    () = tokio::time::sleep(span) => self.machine.settle(),
                    version = waiting => return self.seen.store(version, Ordering::Relaxed),
                },
                None => return self.seen.store(waiting.await, Ordering::Relaxed),
            }
        }
    }

    async fn logs(
        &self,
        id: UnitId,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        let first = self.machine.read_log(id, &query)?;
        let read = first.read;
        let kept = futures::stream::iter(first.lines.into_iter().map(Ok));
        if !query.follow {
            return Ok(kept.boxed());
        }
        let machine = Arc::clone(&self.machine);
        let rest = futures::stream::unfold(read, move |read| {
            let machine = Arc::clone(&machine);
            async move {
                let (line, read) = machine.next_line(id, read).await?;
                Some((Ok(line), read))
            }
        });
        Ok(kept.chain(rest).boxed())
    }

    fn fencing(&self) -> Option<&dyn Fencing> {
        self.kind.enforces_singleton().then_some(self)
    }

    fn stats(&self) -> Option<&dyn Stats> {
        Some(self)
    }

    fn secrets(&self) -> Option<&dyn Secrets> {
        Some(self)
    }

    fn census(&self) -> Option<&dyn Census> {
        let has_engine = self.kind == Kind::Container && self.machine.containers().is_some();
        has_engine.then_some(self)
    }

    fn adoption(&self) -> Option<&dyn Adoption> {
        (self.kind == Kind::Container).then_some(self)
    }

    fn exec(&self) -> Option<&dyn Exec> {
        Some(self)
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }

    fn ports(&self) -> Option<&dyn Ports> {
        Some(self)
    }

    fn native_health(&self) -> Option<&dyn NativeHealth> {
        (self.kind == Kind::Container).then_some(self)
    }

    fn leftovers(&self) -> Option<&dyn Leftovers> {
        Some(self)
    }

    fn guests(&self) -> Option<&dyn Guests> {
        (self.kind == Kind::Vm).then_some(self)
    }
}

#[async_trait]
impl Adoption for FakeRuntime {
    async fn adoptable(&self) -> Result<Vec<Adoptable>, RuntimeError> {
        Ok(self.machine.strangers())
    }
}

/// Every guest runs, at one address that is known and one that is not.
#[async_trait]
impl Guests for FakeRuntime {
    async fn look(&self, id: UnitId) -> Result<Guest, RuntimeError> {
        self.machine.measure(id)?;
        let interface = |mac: &str, bridge: Option<&str>, address| Interface {
            mac: mac.to_owned(),
            bridge: bridge.map(str::to_owned),
            address,
        };
        let known = std::net::Ipv4Addr::new(10, 0, 2, 15);
        Ok(Guest {
            power: Power::Running,
            interfaces: vec![
                interface("52:54:00:00:00:01", None, Some(known.into())),
                interface("52:54:00:00:00:02", Some("br0"), None),
            ],
        })
    }

    async fn pause(&self, id: UnitId) -> Result<(), RuntimeError> {
        self.machine.measure(id).map(drop)
    }

    async fn resume(&self, id: UnitId) -> Result<(), RuntimeError> {
        self.machine.measure(id).map(drop)
    }
}

#[async_trait]
impl Leftovers for FakeRuntime {
    async fn place(&self) -> Option<std::path::PathBuf> {
        None
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, RuntimeError> {
        self.machine.leftovers(self.kind)
    }

    async fn discard(&self, kind: LeftoverKind, name: &str) -> Result<Discarded, RuntimeError> {
        self.machine.discard(self.kind, (kind, name))
    }
}

#[async_trait]
impl Census for FakeRuntime {
    async fn running(&self) -> Result<Vec<String>, RuntimeError> {
        Ok(self.machine.containers().unwrap_or_default())
    }
}

impl Secrets for FakeRuntime {
    fn give(&self, id: UnitId, secrets: Vec<Given>) {
        self.machine.give(id, secrets);
    }
}

#[async_trait]
impl Fencing for FakeRuntime {
    async fn extend(&self, id: UnitId, span: Duration) -> Result<(), RuntimeError> {
        self.machine.extend(id, span)
    }
}

#[async_trait]
impl Stats for FakeRuntime {
    async fn measure(&self, id: UnitId) -> Result<UnitStats, RuntimeError> {
        self.machine.measure(id)
    }
}

#[cfg(test)]
mod tests {
    use hostler_kit::SimulatedClock;

    use super::*;
    use crate::FoundState;
    use crate::contract;

    fn machine() -> Arc<FakeMachine> {
        FakeMachine::new(Arc::new(SimulatedClock::starting_at(1_700_000_000_000)))
    }

    fn quiet(_: String) {}

    #[tokio::test(start_paused = true)]
    async fn the_fake_keeps_the_contract() {
        let machine = machine();
        contract::run(&contract::Subject {
            remake: Box::new(move || {
                Arc::new(FakeRuntime::new(Arc::clone(&machine), Kind::Process))
            }),
            spec: Box::new(contract::fake_spec),
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_fake_keeps_data_as_every_driver_does() {
        let runtime = FakeRuntime::new(machine(), Kind::Process);
        let spec = contract::fake_spec(&contract::Behaviour::Forever);
        contract::data_is_kept_until_it_is_discarded(&runtime, spec).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reboot_ends_what_runs_and_nobody_saw_how() {
        let machine = machine();
        let runtime = FakeRuntime::new(Arc::clone(&machine), Kind::Process);
        let unit = contract::unit(contract::fake_spec(&contract::Behaviour::Forever));
        runtime.prepare(&unit, &quiet).await.unwrap();
        runtime.start(unit.id).await.unwrap();
        machine.reboot();
        let found = runtime.observe().await.unwrap();
        assert!(matches!(
            found[0].state,
            FoundState::Exited {
                exit: Exit::Unknown,
                ..
            }
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn faults_are_answered_as_often_as_told_and_an_engine_that_is_down_is_no_empty_list() {
        let machine = machine();
        let runtime = FakeRuntime::new(Arc::clone(&machine), Kind::Process);
        let unit = contract::unit(contract::fake_spec(&contract::Behaviour::Forever));
        machine.fail_prepare(Fault::DiskFull, 1);
        assert_eq!(
            runtime.prepare(&unit, &quiet).await.unwrap_err().code(),
            "disk-full"
        );
        runtime.prepare(&unit, &quiet).await.unwrap();
        machine.set_down(Some("told to be down"));
        assert_eq!(runtime.observe().await.unwrap_err().code(), "engine-down");
        machine.set_down(None);
        machine.crash(unit.id, Exit::Code(1));
        assert_eq!(runtime.observe().await.unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_switch_that_is_not_extended_stops_the_unit() {
        let machine = machine();
        let runtime = FakeRuntime::new(Arc::clone(&machine), Kind::Process);
        let mut spec = contract::fake_spec(&contract::Behaviour::Forever);
        spec.disconnect.policy = hostler_model::spec::DisconnectPolicy::Singleton;
        let unit = contract::unit(spec);
        runtime.prepare(&unit, &quiet).await.unwrap();
        runtime.start(unit.id).await.unwrap();
        let fencing = runtime.fencing().unwrap();
        fencing
            .extend(unit.id, Duration::from_secs(90))
            .await
            .unwrap();
        tokio::time::advance(Duration::from_secs(80)).await;
        assert!(matches!(
            runtime.observe().await.unwrap()[0].state,
            FoundState::Running { .. }
        ));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(matches!(
            runtime.observe().await.unwrap()[0].state,
            FoundState::Exited { .. }
        ));
    }
}
