//! Stories of runs that go wrong: unhealthy, too long, too often.

use hostler_model::spec::JobSpec;
use hostler_model::{CrashLoop, Health};

use super::*;

fn on_failure(retries: u32) -> impl FnOnce(&mut WorkloadSpec) {
    move |spec| {
        spec.restart = Restart {
            policy: RestartPolicy::OnFailure,
            retries: Some(retries),
            ..Restart::default()
        };
    }
}

/// A job that may take so long and is started again so often.
fn job(seconds: u64, retries: u32) -> impl FnOnce(&mut WorkloadSpec) {
    move |spec| {
        spec.process = None;
        spec.job = Some(JobSpec {
            retries,
            timeout_ms: Some(seconds * 1000),
            ..JobSpec::new(vec!["work".to_owned()])
        });
    }
}

fn unhealthy(note: &mut Note) {
    let why = "/ready answers with status 503".to_owned();
    note.health = Some(Health::Unhealthy { why });
}

fn crash_looping(note: &mut Note) {
    note.recall(Some(Arc::new(CrashLoop {
        exit: Exit::Code(78),
        at: BIRTH,
        run: 1,
        log: vec!["no configuration".to_owned()],
    })));
}

fn broken_off(exit: Exit) -> impl FnOnce(&mut Note) {
    move |note| note.broken_off = Some((1, exit))
}

fn stories_of_health() -> Vec<(&'static str, World)> {
    let a1 = unit('a', 1);
    let world = World::new;
    let running = || world().runs(a1).has(a1, RUNNING);
    vec![
        (
            "what is starting is left alone",
            running().note(a1, |note| note.health = Some(Health::Starting)),
        ),
        (
            "what is unhealthy is stopped",
            running().note(a1, unhealthy),
        ),
        (
            "what is unhealthy under policy no is left and shown",
            world()
                .policy(a1, RestartPolicy::No)
                .has(a1, RUNNING)
                .note(a1, unhealthy),
        ),
        (
            "what is unhealthy and stops already gets no other step",
            running().note(a1, |note| {
                unhealthy(note);
                note.doing = Some(Doing::Stopping);
            }),
        ),
        (
            "what was unhealthy is started again although it ended well",
            world()
                .policy(a1, RestartPolicy::OnFailure)
                .has(a1, exited(Exit::Code(0)))
                .note(a1, broken_off(Exit::Unhealthy)),
        ),
        (
            "an earlier run that was unhealthy says nothing of a later one",
            world()
                .policy(a1, RestartPolicy::OnFailure)
                .has(a1, exited(Exit::Code(0)))
                .note(a1, |note| note.broken_off = Some((0, Exit::Unhealthy))),
        ),
        (
            "a crash loop is shown with its beginning",
            world()
                .runs(a1)
                .has(a1, exited(Exit::Signal(9)))
                .note(a1, crash_looping),
        ),
        (
            "a crash loop that runs is looked at when that run lasts",
            world()
                .wants(a1, |spec| spec.restart.max_delay_ms = 130_000)
                .has(a1, RUNNING)
                .note(a1, crash_looping),
        ),
    ]
}

fn stories_of_ends() -> Vec<(&'static str, World)> {
    let a1 = unit('a', 1);
    let world = World::new;
    let ended = |exit| move |world: World| world.has(a1, exited(exit));
    vec![
        (
            "on-failure goes on while it has retries",
            ended(Exit::Code(1))(world().wants(a1, on_failure(1))),
        ),
        (
            "on-failure rests when its retries are spent",
            ended(Exit::Code(1))(world().wants(a1, on_failure(0))),
        ),
        (
            "a job in its time is left alone until it is over",
            world().wants(a1, job(160, 0)).has(a1, RUNNING),
        ),
        (
            "a job that takes too long is stopped",
            world().wants(a1, job(100, 0)).has(a1, RUNNING),
        ),
        (
            "a job that takes too long is stopped while the node is cut off",
            world()
                .wants(a1, job(99, 0))
                .has(a1, RUNNING)
                .contact(5000, true),
        ),
        (
            "a job that timed out is tried again",
            ended(Exit::Signal(15))(world().wants(a1, job(9, 1)))
                .note(a1, broken_off(Exit::TimedOut)),
        ),
        (
            "a job that timed out for the last time has failed so",
            ended(Exit::Code(0))(world().wants(a1, job(9, 0))).note(a1, broken_off(Exit::TimedOut)),
        ),
        (
            "a job that succeeded rests",
            ended(Exit::Code(0))(world().wants(a1, job(9, 3))),
        ),
        (
            "a job is tried again after a reboot",
            ended(Exit::Unknown)(world().wants(a1, job(9, 1))),
        ),
    ]
}

#[test]
fn what_goes_wrong_calls_for_its_steps() {
    let mut told = String::new();
    for (name, world) in stories_of_health().into_iter().chain(stories_of_ends()) {
        let _ = write!(told, "{name}\n{}\n", world.told());
    }
    insta::assert_snapshot!("wrongs", told);
}
