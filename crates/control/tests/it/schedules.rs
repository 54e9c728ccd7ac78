//! Schedules over simulated time: the keeper makes a job at each due moment, also after an outage.

use std::time::Duration;

use hostler_control::Control;
use hostler_model::WorkloadId;
use hostler_model::spec::{JobSpec, WorkloadSpec};

use crate::world::{World, apply, stop, until};

fn hourly() -> WorkloadSpec {
    let mut spec = WorkloadSpec::bare("tidy");
    spec.job = Some(JobSpec {
        schedule: Some("@hourly".to_owned()),
        history: 100,
        ..JobSpec::new(vec!["tidy".to_owned()])
    });
    spec
}

fn due(control: &Control, schedule: WorkloadId) -> Vec<String> {
    let view = control.view();
    let jobs = view.jobs_of(schedule);
    jobs.filter_map(|job| Some(job.due?.to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_job_is_made_at_each_due_moment_and_one_for_an_outage() {
    let world = World::new(1);
    // It is 22:13:20.
    let control = world.start().await;
    let schedule = apply(&control, hourly()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    let three = |view: &hostler_control::fleet::State| view.jobs_of(schedule).count() == 3;
    until(&control, "three jobs", three).await;
    assert_eq!(
        due(&control, schedule),
        [
            "2023-11-14T23:00:00.000Z",
            "2023-11-15T00:00:00.000Z",
            "2023-11-15T01:00:00.000Z"
        ]
    );
    stop(control).await;

    tokio::time::sleep(Duration::from_secs(10 * 3600)).await;
    let control = world.start().await;
    let four = |view: &hostler_control::fleet::State| view.jobs_of(schedule).count() == 4;
    until(&control, "the last one that was missed", four).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let due = due(&control, schedule);
    assert_eq!(due.len(), 4, "{due:?}");
    assert_eq!(due[3], "2023-11-15T11:00:00.000Z");
    stop(control).await;
}
