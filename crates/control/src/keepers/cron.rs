//! Schedules: when a moment is due, its job is made. Which moment that is, and what it makes, is decided by the
//! core; a server that was down, or that takes over, finds in the records what was decided last.

use std::time::Duration;

use hostler_fleet::{State, Verb, jobs};
use hostler_model::{Timestamp, WorkloadId};

use super::submit;
use crate::Control;

/// The longest wait: schedules that are new are seen by then.
const PERIOD: Duration = Duration::from_secs(5);
/// The shortest: a due moment that was refused is tried again after it.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(control: Control) {
    loop {
        let now = control.shared.now().1;
        let due = due(&control.view(), now);
        for workload in due {
            submit(&control, "cron", Verb::Tick { workload }).await;
        }
        let now = control.shared.now().1;
        let next = next(&control.view(), now);
        let wait = next.map_or(PERIOD, |next| next.since(now).min(PERIOD));
        tokio::time::sleep(wait.max(PAUSE)).await;
    }
}

fn due(view: &State, now: Timestamp) -> Vec<WorkloadId> {
    let due = view.schedules().filter(|it| jobs::due(it, now).is_some());
    due.map(|schedule| schedule.id).collect()
}

/// The next due moment of any schedule.
fn next(view: &State, now: Timestamp) -> Option<Timestamp> {
    let next = view.schedules().filter_map(|schedule| {
        let job = schedule.spec.job.as_ref()?;
        job.next_due(now).ok().flatten()
    });
    next.min()
}
