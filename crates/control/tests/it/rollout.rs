//! Rollouts as their keeper drives them: by what nodes say of the copies, in simulated time.

use std::time::Duration;

use hostler_control::Control;
use hostler_control::fake::FakeNode;
use hostler_control::fleet::{Expect, State, Verb};
use hostler_model::spec::{Update, WorkloadSpec};
use hostler_model::{Exit, Stage, Workload, WorkloadId};

use crate::world::{World, apply, beat_for, copies, join, spec, stop, until, user};

/// A workload of four whose form is told by one variable.
fn paced(form: &str, update: Update) -> WorkloadSpec {
    let mut spec = spec("web", 4, 100);
    spec.env.insert("FORM".to_owned(), form.to_owned());
    spec.update = update;
    spec
}

fn failing(how: &str, update: Update) -> WorkloadSpec {
    let mut spec = paced(how, update);
    spec.env.insert("FAKE".to_owned(), how.to_owned());
    spec
}

fn record(control: &Control, workload: WorkloadId) -> Workload {
    Workload::clone(control.view().workload(workload).unwrap())
}

/// How many wanted copies run the present form.
fn renewed(view: &State, workload: WorkloadId) -> usize {
    let record = view.workload(workload).unwrap();
    let copies = view.assignments_of(workload);
    copies
        .filter(|copy| copy.is_wanted() && copy.template == record.template)
        .count()
}

async fn placed(control: &Control) -> WorkloadId {
    let web = apply(control, paced("old", Update::default()))
        .await
        .unwrap();
    until(control, "placed", |view| view.pending_copies(web) == 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    web
}

async fn beating(node: &FakeNode, seconds: u64) {
    beat_for(&[node], seconds).await;
}

#[tokio::test(start_paused = true)]
async fn copies_are_replaced_one_after_the_other_each_when_the_last_has_run_for_long_enough() {
    let world = World::new(31);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let web = placed(&control).await;
    let update = Update {
        min_healthy_ms: 10_000,
        ..Update::default()
    };
    apply(&control, paced("new", update)).await.unwrap();
    for turn in 1..=4 {
        beating(&node, 5).await;
        assert_eq!(renewed(&control.view(), web), turn, "one at a time");
        beating(&node, 6).await;
    }
    let done = record(&control, web);
    assert_eq!(
        (done.rollout, done.revision),
        (None, 2),
        "rolled out, and no revision more"
    );
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_form_that_ends_again_and_again_brings_the_old_one_back() {
    let world = World::new(32);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let web = placed(&control).await;
    let before = copies(&control, web);
    let update = Update {
        auto_revert: true,
        ..Update::default()
    };
    apply(&control, failing("crashes", update)).await.unwrap();
    beating(&node, 20).await;
    let record = record(&control, web);
    assert_eq!(record.revision, 3);
    assert_eq!(record.rollout, None, "the way back is rolled out as well");
    assert_eq!(record.spec.env["FORM"], "old");
    let view = control.view();
    let step = view.revision(web, 3).unwrap();
    let note = step.note.clone().unwrap();
    assert!(
        note.starts_with("rolled back to revision 1: web.")
            && note.ends_with("ended 9 times, last with exit code 3"),
        "{note}"
    );
    assert_eq!(step.actor, "keeper/rollout");
    let same = view
        .assignments_of(web)
        .filter(|copy| before.iter().any(|it| it == &***copy));
    assert_eq!(same.count(), 3, "only the one that was tried was touched");
    drop(view);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn without_the_wish_to_go_back_a_failed_rollout_stops_and_waits_for_a_person() {
    let world = World::new(33);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let web = placed(&control).await;
    let update = Update {
        healthy_deadline_ms: 60_000,
        max_parallel: 2,
        ..Update::default()
    };
    apply(&control, failing("starts", update)).await.unwrap();
    beating(&node, 50).await;
    assert_eq!(record(&control, web).rollout.unwrap().stage, Stage::Rolling);
    beating(&node, 20).await;
    let Stage::Failed { reason } = record(&control, web).rollout.unwrap().stage else {
        panic!("it has failed");
    };
    assert!(
        reason.contains("no progress for 60 s: web.0 on one is being started"),
        "{reason}"
    );
    beating(&node, 600).await;
    assert_eq!(renewed(&control.view(), web), 2, "nothing more was touched");
    let back = Verb::Rollback {
        workload: web,
        to: None,
        expect: Expect::Revision(2),
    };
    control.submit(user(), back).await.unwrap();
    beating(&node, 20).await;
    assert_eq!(
        (
            record(&control, web).revision,
            record(&control, web).rollout
        ),
        (3, None)
    );
    assert_eq!(renewed(&control.view(), web), 4);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_ends_badly_for_good_fails_the_rollout_at_once() {
    let world = World::new(34);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let web = placed(&control).await;
    let update = Update {
        min_healthy_ms: 60_000,
        ..Update::default()
    };
    apply(&control, paced("new", update)).await.unwrap();
    beating(&node, 5).await;
    let tried = copies(&control, web)
        .into_iter()
        .find(|copy| copy.trial)
        .unwrap();
    node.finish(tried.unit(), Exit::Code(1)).await.unwrap();
    beating(&node, 2).await;
    let stage = record(&control, web).rollout.unwrap().stage;
    assert!(matches!(stage, Stage::Failed { .. }), "{stage:?}");
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_starts_anew_goes_on_with_the_rollout_where_it_was() {
    let world = World::new(35);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let web = placed(&control).await;
    let update = Update {
        min_healthy_ms: 10_000,
        ..Update::default()
    };
    apply(&control, paced("new", update)).await.unwrap();
    beating(&node, 16).await;
    assert_eq!(renewed(&control.view(), web), 2);
    stop(control).await;

    let control = world.start().await;
    assert_eq!(renewed(&control.view(), web), 2, "the same copies");
    let mut node = node;
    node.reconnect(&control).await.unwrap();
    beating(&node, 7).await;
    assert_eq!(
        renewed(&control.view(), web),
        2,
        "how long it ran is measured anew"
    );
    beating(&node, 40).await;
    assert_eq!(renewed(&control.view(), web), 4);
    assert_eq!(record(&control, web).rollout, None);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn old_copies_that_run_nothing_are_replaced_without_waiting_for_their_turn() {
    let world = World::new(36);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let web = apply(&control, failing("crashes", Update::default()))
        .await
        .unwrap();
    until(&control, "placed", |view| view.pending_copies(web) == 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let update = Update {
        min_healthy_ms: 30_000,
        ..Update::default()
    };
    apply(&control, paced("good", update)).await.unwrap();
    beating(&node, 5).await;
    assert_eq!(renewed(&control.view(), web), 4, "none of them was of use");
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn canaries_wait_for_a_person_and_promote_themselves_if_they_may() {
    for auto_promote in [false, true] {
        let world = World::new(37);
        let control = world.start().await;
        let node = join(&control, "one").await;
        let web = placed(&control).await;
        let update = Update {
            canary: 1,
            auto_promote,
            max_parallel: 4,
            healthy_deadline_ms: 60_000,
            ..Update::default()
        };
        apply(&control, paced("new", update)).await.unwrap();
        beating(&node, 120).await;
        if !auto_promote {
            assert_eq!(record(&control, web).rollout.unwrap().stage, Stage::Canary);
            assert_eq!(
                (renewed(&control.view(), web), copies(&control, web).len()),
                (1, 5)
            );
            let promote = Verb::Promote {
                workload: web,
                expect: Expect::Revision(2),
            };
            control.submit(user(), promote).await.unwrap();
            beating(&node, 10).await;
        }
        assert_eq!(record(&control, web).rollout, None);
        assert_eq!(
            (renewed(&control.view(), web), copies(&control, web).len()),
            (4, 4)
        );
        stop(control).await;
    }
}
