//! The watch over pressure: looks at the machine every few seconds and shows what it is short of. A beat only reads
//! what was seen last; nothing is shown before the first look, so that nobody takes silence for ease.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::Clock;
use hostler_model::Pressure;
use tokio::sync::watch;

use super::places::Places;
use super::pressure::Gauge;
use crate::Machine;
use crate::config::Parts;
use crate::tuning::Tuned;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// What the machine is short of; none before the first look.
pub(crate) type Shown = Option<BTreeSet<Pressure>>;

struct Watch {
    machine: Arc<dyn Machine>,
    clock: Arc<dyn Clock>,
    tuned: Tuned,
    gauge: Gauge,
    places: Places,
    told: watch::Sender<Shown>,
}

/// Starts the task. It ends when the tasks are told to stop.
pub(super) fn start(parts: &Parts, tuned: Tuned, data_dir: PathBuf) -> watch::Receiver<Shown> {
    let (told, shown) = watch::channel(None);
    let watch = Watch {
        machine: Arc::clone(&parts.machine),
        clock: Arc::clone(&parts.clock),
        tuned,
        gauge: Gauge::default(),
        places: Places::new(data_dir, parts.runtimes.clone()),
        told,
    };
    parts.tasks.spawn_until_stop("pressure", watch.run());
    shown
}

impl Watch {
    async fn run(mut self) {
        loop {
            self.look().await;
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn look(&mut self) {
        let mut used = BTreeMap::new();
        let mut note = |pressure, percent: Option<u64>| {
            if let Some(percent) = percent {
                let most: &mut u64 = used.entry(pressure).or_default();
                *most = percent.max(*most);
            }
        };
        let headroom = self.machine.headroom();
        note(
            Pressure::Memory,
            headroom.memory.map(|it| it.percent_used()),
        );
        note(Pressure::Pids, headroom.pids.map(|it| it.percent_used()));
        for place in self.places.all().await {
            let Some(file_system) = self.machine.file_system(&place) else {
                continue;
            };
            note(Pressure::Disk, Some(file_system.bytes.percent_used()));
            note(
                Pressure::Inodes,
                file_system.inodes.map(|it| it.percent_used()),
            );
        }
        let short_of = self
            .gauge
            .take(&used, &self.tuned.now().care.limits, self.clock.uptime());
        self.told.send_if_modified(|shown| {
            let is_new = shown.as_ref() != Some(&short_of);
            if is_new {
                tracing::info!(short_of = Pressure::phrase(&short_of), "pressure");
                *shown = Some(short_of);
            }
            is_new
        });
    }
}
