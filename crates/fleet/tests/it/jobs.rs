//! Schedules: what a due moment makes, by the rule for jobs that still run, and what is kept.

use hostler_fleet::{Expect, NodeAnnouncement, Reply, Verb, jobs, why};
use hostler_model::spec::{Concurrency, JobSpec, WorkloadSpec};
use hostler_model::{Code, Contract, Desired, Exit, Timestamp, Workload, WorkloadId};

use crate::world::{World, hello, resources, spec};

const MINUTE: u64 = 60;

fn schedule(concurrency: Concurrency) -> WorkloadSpec {
    let mut spec = WorkloadSpec::bare("tidy");
    spec.job = Some(JobSpec {
        schedule: Some("*/10 * * * *".to_owned()),
        concurrency,
        history: 2,
        ..JobSpec::new(vec!["tidy".to_owned()])
    });
    spec
}

/// What the keeper does, and what follows.
fn tick(world: &mut World, schedule: WorkloadId) {
    world.must(&Verb::Tick { workload: schedule });
    world.run();
}

fn jobs_of(world: &World, schedule: WorkloadId) -> Vec<Workload> {
    let mut jobs: Vec<_> = world
        .state
        .jobs_of(schedule)
        .map(|it| Workload::clone(it))
        .collect();
    jobs.sort_by_key(|job| job.due);
    jobs
}

fn finish(world: &mut World, job: &Workload, exit: Exit) {
    let copies: Vec<_> = world.state.assignments_of(job.id).cloned().collect();
    for copy in copies {
        world.finish(&copy, exit);
    }
    world.run();
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a moment")
}

/// It is 22:13:20 when the world begins.
fn world(concurrency: Concurrency) -> (World, WorkloadId) {
    let mut world = World::with_nodes(1);
    let id = world.apply(schedule(concurrency));
    world.run();
    (world, id)
}

#[test]
fn a_schedule_places_nothing_and_makes_one_job_for_each_due_moment() {
    let (mut world, id) = world(Concurrency::Allow);
    assert_eq!(world.state.assignments_of(id).count(), 0);
    assert_eq!(world.state.pending_copies(id), 0);
    tick(&mut world, id);
    assert_eq!(
        jobs_of(&world, id).len(),
        0,
        "22:10 was before it was there"
    );
    world.pass(10 * MINUTE);
    let before = world.state.workload(id).unwrap().revision;
    tick(&mut world, id);
    tick(&mut world, id);
    let jobs = jobs_of(&world, id);
    let due = at("2023-11-14T22:20:00Z");
    assert_eq!(jobs.len(), 1, "deciding again changes nothing");
    assert_eq!(jobs[0].name, format!("tidy-{}", due.as_millis() / 60_000));
    assert_eq!((jobs[0].due, jobs[0].parent), (Some(due), Some(id)));
    assert!(!jobs[0].spec.is_scheduled());
    jobs[0].spec.check().unwrap();
    assert_eq!(
        world.state.assignments_of(jobs[0].id).count(),
        1,
        "it is an ordinary job"
    );
    assert_eq!(world.state.workload(id).unwrap().revision, before);
}

#[test]
fn of_missed_moments_only_the_last_counts() {
    let (mut world, id) = world(Concurrency::Allow);
    world.pass(600 * MINUTE);
    tick(&mut world, id);
    tick(&mut world, id);
    let jobs = jobs_of(&world, id);
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].due, Some(at("2023-11-15T08:10:00Z")));
}

#[test]
fn a_stopped_schedule_makes_nothing_and_catches_nothing_up() {
    let (mut world, id) = world(Concurrency::Allow);
    let set = |desired| Verb::SetDesired {
        workload: id,
        desired,
        expect: Expect::Any,
    };
    world.must(&set(Desired::Stopped));
    world.pass(30 * MINUTE);
    tick(&mut world, id);
    world.must(&set(Desired::Running));
    tick(&mut world, id);
    assert_eq!(jobs_of(&world, id).len(), 0);
    world.pass(10 * MINUTE);
    tick(&mut world, id);
    assert_eq!(jobs_of(&world, id).len(), 1);
}

#[test]
fn what_happens_to_an_earlier_job_follows_from_the_rule() {
    for (concurrency, running, stopped) in [
        (Concurrency::Allow, 2, 0),
        (Concurrency::Forbid, 1, 0),
        (Concurrency::Replace, 1, 1),
    ] {
        let (mut world, id) = world(concurrency);
        for _ in 0..2 {
            world.pass(10 * MINUTE);
            tick(&mut world, id);
        }
        let jobs = jobs_of(&world, id);
        let count = |desired| jobs.iter().filter(|job| job.desired == desired).count();
        assert_eq!(count(Desired::Running), running, "{concurrency:?}");
        assert_eq!(count(Desired::Stopped), stopped, "{concurrency:?}");
        let skipped = world
            .events()
            .iter()
            .filter(|it| it.contains("job-skipped"))
            .count();
        assert_eq!(skipped, usize::from(concurrency == Concurrency::Forbid));
    }
}

#[test]
fn a_forbidden_schedule_goes_on_once_the_earlier_job_has_ended() {
    let (mut world, id) = world(Concurrency::Forbid);
    world.pass(10 * MINUTE);
    tick(&mut world, id);
    let first = jobs_of(&world, id).remove(0);
    assert!(jobs::is_active(&world.state, &first));
    finish(&mut world, &first, Exit::Code(1));
    assert!(!jobs::is_active(&world.state, &first));
    world.pass(10 * MINUTE);
    tick(&mut world, id);
    assert_eq!(jobs_of(&world, id).len(), 2);
}

#[test]
fn only_the_last_ended_jobs_are_kept_and_all_go_with_the_schedule() {
    let (mut world, id) = world(Concurrency::Allow);
    for _ in 0..5 {
        world.pass(10 * MINUTE);
        tick(&mut world, id);
        let last = jobs_of(&world, id).pop().unwrap();
        finish(&mut world, &last, Exit::Code(0));
    }
    let kept: Vec<_> = jobs_of(&world, id)
        .into_iter()
        .map(|job| job.due.unwrap())
        .collect();
    let expected = [
        "2023-11-14T22:40:00Z",
        "2023-11-14T22:50:00Z",
        "2023-11-14T23:00:00Z",
    ];
    assert_eq!(
        kept,
        expected.map(at),
        "two that have ended, and the one that ended last"
    );
    world.delete(id);
    world.run();
    assert_eq!(world.state.workloads().count(), 0);
}

#[test]
fn a_rerun_of_a_schedule_makes_a_job_now_and_one_of_a_job_runs_it_again() {
    let (mut world, id) = world(Concurrency::Forbid);
    let rerun = |workload| Verb::Rerun {
        workload,
        expect: Expect::Any,
    };
    for _ in 0..2 {
        let Reply::Workload { id: job, .. } = world.must(&rerun(id)) else {
            panic!("a rerun answers with the job");
        };
        assert_eq!(world.state.workload(job).unwrap().parent, Some(id));
    }
    world.run();
    let names: Vec<_> = jobs_of(&world, id)
        .into_iter()
        .map(|job| job.name)
        .collect();
    assert!(names.iter().any(|name| name.ends_with("-2")), "{names:?}");
    assert!(names.iter().all(|name| name.len() <= 63));

    let first = jobs_of(&world, id).remove(0);
    finish(&mut world, &first, Exit::TimedOut);
    let before = world.state.assignments_of(first.id).next().unwrap().clone();
    assert!(before.is_finished());
    world.must(&rerun(first.id));
    world.run();
    let copies: Vec<_> = world.state.assignments_of(first.id).collect();
    assert!(
        copies
            .iter()
            .any(|copy| copy.generation > before.generation && !copy.is_finished())
    );

    let web = world.apply(spec("web", 1));
    let refused = world.submit(&rerun(web)).unwrap_err();
    assert_eq!(refused.code, Code::BadRequest);
}

#[test]
fn a_job_goes_to_no_node_whose_agent_knows_no_jobs() {
    let mut world = World::with_nodes(0);
    let foreign = NodeAnnouncement {
        key: None,
        introduction: Default::default(),
        contract: Contract::Persys,
        ..hello("theirs", resources(1000, 1024))
    };
    world.join_as(foreign);
    let mut once = WorkloadSpec::bare("once");
    once.job = Some(JobSpec::new(vec!["true".to_owned()]));
    let job = world.apply(once);
    let web = world.apply(spec("web", 1));
    world.run();
    assert_eq!(world.state.pending_copies(web), 0);
    assert_eq!(world.state.pending_copies(job), 1);
    let why = why(&world.state, job).expect("it is there");
    let said = why.nodes[0].findings[0].to_string();
    assert!(said.contains("job"), "{said}");
    world.join("ours", resources(1000, 1024));
    world.run();
    assert_eq!(world.state.pending_copies(job), 0);
}
