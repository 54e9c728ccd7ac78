//! Rollouts, told step by step: what is replaced when, and what happens in the middle.

use hostler_fleet::{Expect, Progress, State, Verb, rollout_standing};
use hostler_model::spec::{PortMapping, Protocol, Update, UpdateOrder, WorkloadSpec};
use hostler_model::{
    Assignment, Code, Desired, Exit, FIRST_SPARE_SLOT, Stage, Workload, WorkloadId,
};

use crate::world::{World, resources, singleton, spec};

fn form(mut spec: WorkloadSpec, form: &str, update: Update) -> WorkloadSpec {
    spec.env.insert("FORM".to_owned(), form.to_owned());
    spec.update = update;
    spec
}

fn web(count: u32, name: &str, update: Update) -> WorkloadSpec {
    form(spec("web", count), name, update)
}

fn at_once(max_parallel: u32) -> Update {
    Update {
        max_parallel,
        ..Update::default()
    }
}

fn with_canary(canary: u32) -> Update {
    Update {
        canary,
        ..Update::default()
    }
}

fn record(world: &World, id: WorkloadId) -> Workload {
    Workload::clone(world.state.workload(id).expect("it is there"))
}

/// The wanted copies of the present form.
fn renewed(world: &World, id: WorkloadId) -> Vec<Assignment> {
    let record = record(world, id);
    let mut copies = wanted(world, id);
    copies.retain(|copy| copy.template == record.template && copy.restart == record.restart);
    copies
}

fn wanted(world: &World, id: WorkloadId) -> Vec<Assignment> {
    let mut copies = world.copies(id);
    copies.retain(Assignment::is_wanted);
    copies
}

fn fail(world: &mut World, id: WorkloadId) {
    let seen = Progress {
        healthy: Vec::new(),
        failed: Some("web.0 on node-0 ended for good with exit code 1".to_owned()),
        ..world.seen(id)
    };
    world.must(&Verb::Advance(Box::new(seen)));
}

fn roll_back(world: &mut World, workload: WorkloadId, to: Option<u64>) {
    world.must(&Verb::Rollback {
        workload,
        to,
        expect: Expect::Any,
    });
}

fn promote(world: &mut World, workload: WorkloadId) {
    world.must(&Verb::Promote {
        workload,
        expect: Expect::Any,
    });
}

fn refusal(world: &mut World, verb: &Verb) -> Code {
    let before = world.state.clone();
    let refused = world.submit(verb).expect_err("it is refused");
    assert_eq!(world.state, before, "a refusal changes nothing");
    refused.code
}

/// A fleet of that many nodes where the old form runs in so many copies.
fn fleet(nodes: usize, count: u32) -> (World, WorkloadId) {
    let mut world = World::with_nodes(nodes);
    let id = world.apply(web(count, "old", Update::default()));
    world.run();
    (world, id)
}

#[test]
fn no_more_copies_are_replaced_than_may_be_down_until_the_new_ones_are_healthy() {
    let (mut world, id) = fleet(3, 5);
    world.apply(web(5, "new", at_once(2)));
    for expected in [2, 4, 5] {
        world.work();
        assert_eq!(renewed(&world, id).len(), expected);
        world.work();
        assert_eq!(renewed(&world, id).len(), expected, "nothing was heard");
        world.prove();
    }
    assert_eq!(record(&world, id).rollout, None);
    assert_eq!(record(&world, id).revision, 2, "rolling out is no revision");
}

#[test]
fn a_restart_takes_the_same_way() {
    let (mut world, id) = fleet(3, 3);
    let expect = Expect::Any;
    world.must(&Verb::Restart {
        workload: id,
        expect,
    });
    world.work();
    assert_eq!(renewed(&world, id).len(), 1);
    // One more while the first is under way: what was tried is tried anew.
    world.must(&Verb::Restart {
        workload: id,
        expect,
    });
    world.work();
    assert_eq!(renewed(&world, id).len(), 1);
    world.run();
    assert_eq!(renewed(&world, id).len(), 3);
    assert_eq!(
        (record(&world, id).revision, record(&world, id).rollout),
        (1, None)
    );
}

#[test]
fn canaries_run_beside_the_old_copies_and_nothing_else_changes_before_they_are_promoted() {
    let (mut world, id) = fleet(3, 4);
    let before = wanted(&world, id);
    world.apply(web(4, "new", with_canary(2)));
    world.run();
    let slots: Vec<u32> = renewed(&world, id).iter().map(|copy| copy.slot).collect();
    assert_eq!(slots, [FIRST_SPARE_SLOT, FIRST_SPARE_SLOT + 1]);
    assert!(before.iter().all(|copy| wanted(&world, id).contains(copy)));
    let standing = rollout_standing(&world.state, &record(&world, id)).expect("one is under way");
    assert_eq!(
        (standing.renewed, standing.outdated, standing.beside_healthy),
        (0, 4, 2)
    );

    promote(&mut world, id);
    world.work();
    assert_eq!(
        renewed(&world, id).len(),
        3,
        "one old copy is replaced, the canaries go on"
    );
    world.run();
    assert_eq!(renewed(&world, id).len(), 4);
    assert_eq!(world.copies(id).len(), 4, "the canaries have gone");
}

#[test]
fn a_rollback_removes_the_canaries_and_touches_nothing_else() {
    let (mut world, id) = fleet(3, 3);
    let before = wanted(&world, id);
    world.apply(web(3, "new", with_canary(1)));
    world.run();
    roll_back(&mut world, id, None);
    world.run();
    assert_eq!(world.copies(id), before);
    let record = record(&world, id);
    assert_eq!((record.revision, record.rollout), (3, None));
    let step = world.state.revision(id, 3).expect("it is kept");
    assert_eq!(step.note.as_deref(), Some("rolled back to revision 1"));
    assert_eq!(step.spec.env["FORM"], "old");
}

#[test]
fn a_failed_rollout_comes_back_by_itself_if_that_is_wanted_else_it_waits() {
    for auto_revert in [true, false] {
        let (mut world, id) = fleet(3, 3);
        let update = Update {
            auto_revert,
            ..Update::default()
        };
        world.apply(web(3, "new", update));
        world.work();
        fail(&mut world, id);
        world.run();
        let after = record(&world, id);
        if auto_revert {
            assert_eq!(
                (after.revision, after.template, after.rollout),
                (3, 1, None)
            );
            assert!(wanted(&world, id).iter().all(|copy| copy.template == 1));
            let touched = wanted(&world, id)
                .into_iter()
                .filter(|copy| copy.revision == 3);
            assert_eq!(touched.count(), 1, "the one that had been tried");
        } else {
            assert!(matches!(
                after.rollout.map(|it| it.stage),
                Some(Stage::Failed { .. })
            ));
            assert_eq!((after.revision, renewed(&world, id).len()), (2, 1));
            promote(&mut world, id);
            world.run();
            assert_eq!(renewed(&world, id).len(), 3, "a person went on with it");
        }
    }
}

#[test]
fn a_way_back_that_fails_does_not_go_back_again() {
    let (mut world, id) = fleet(3, 3);
    let update = Update {
        auto_revert: true,
        max_parallel: 3,
        ..Update::default()
    };
    world.apply(web(3, "old", update.clone()));
    world.apply(web(3, "new", update));
    world.work();
    fail(&mut world, id);
    world.work();
    fail(&mut world, id);
    world.run();
    let after = record(&world, id);
    assert_eq!(after.revision, 4);
    assert!(matches!(
        after.rollout.map(|it| it.stage),
        Some(Stage::Failed { .. })
    ));
}

#[test]
fn what_a_lost_node_takes_along_is_replaced_by_the_old_form_while_the_rollout_is_held() {
    let (mut world, id) = fleet(4, 3);
    world.apply(web(3, "new", with_canary(1)));
    world.run();
    let lost = wanted(&world, id).remove(0);
    world.must(&Verb::Silent { node: lost.node });
    world.run();
    let again = wanted(&world, id)
        .into_iter()
        .find(|copy| copy.slot == lost.slot);
    let again = again.expect("it was replaced");
    assert_eq!((again.template, again.revision, again.trial), (1, 1, false));
    let item = world
        .state
        .intent_item(&again)
        .expect("its workload is there");
    assert_eq!(item.spec.env["FORM"], "old");

    promote(&mut world, id);
    world.work();
    let lost = wanted(&world, id)
        .into_iter()
        .find(|copy| copy.template == 1);
    let lost = lost.expect("one is old still");
    world.must(&Verb::Silent { node: lost.node });
    world.run();
    assert!(wanted(&world, id).iter().all(|copy| copy.template == 2));
    assert_eq!(record(&world, id).rollout, None);
}

#[test]
fn a_node_drains_while_a_rollout_is_held_and_while_it_goes_on() {
    for canary in [1, 0] {
        let (mut world, id) = fleet(3, 4);
        world.apply(web(4, "new", with_canary(canary)));
        world.work();
        let draining = wanted(&world, id)[0].node;
        world.must(&Verb::Drain {
            node: draining,
            expect: Expect::Any,
        });
        // Nobody hears how the new copies fare: the drain goes on all the same.
        world.work();
        world.must(&Verb::FinishDrain { node: draining });
        let old = wanted(&world, id)
            .iter()
            .filter(|copy| copy.template == 1)
            .count();
        assert!(canary == 0 || old == 4, "it moved as it was");
        world.run();
        promote_if_held(&mut world, id);
        world.run();
        assert_eq!(renewed(&world, id).len(), 4);
    }
}

fn promote_if_held(world: &mut World, id: WorkloadId) {
    if record(world, id).rollout.is_some() {
        promote(world, id);
    }
}

#[test]
fn a_newer_spec_takes_over_and_replaces_what_had_not_proved_itself_first() {
    let (mut world, id) = fleet(3, 4);
    world.apply(web(4, "bad", at_once(2)));
    world.work();
    let tried: Vec<u32> = renewed(&world, id).iter().map(|copy| copy.slot).collect();
    world.apply(web(4, "good", at_once(2)));
    world.work();
    let now: Vec<u32> = renewed(&world, id).iter().map(|copy| copy.slot).collect();
    assert_eq!(now, tried, "no further copy is down");
    let base = record(&world, id).rollout.expect("one is under way").base;
    assert_eq!(base.revision, 1, "the way back leads to what was good");
    world.run();
    assert_eq!(renewed(&world, id).len(), 4);
}

#[test]
fn applying_the_old_spec_in_the_middle_leaves_alone_what_still_runs_it() {
    let (mut world, id) = fleet(3, 4);
    let before = wanted(&world, id);
    world.apply(web(4, "new", Update::default()));
    world.work();
    world.apply(web(4, "old", Update::default()));
    world.run();
    let untouched = wanted(&world, id)
        .into_iter()
        .filter(|copy| before.contains(copy));
    assert_eq!(untouched.count(), 3);
    assert_eq!(
        (record(&world, id).template, record(&world, id).rollout),
        (1, None)
    );
}

#[test]
fn the_count_changes_in_the_middle() {
    let (mut world, id) = fleet(4, 4);
    world.apply(web(4, "new", with_canary(1)));
    world.run();
    world.apply(web(6, "new", with_canary(1)));
    world.run();
    let old = wanted(&world, id)
        .iter()
        .filter(|copy| copy.template == 1)
        .count();
    assert_eq!(
        (old, renewed(&world, id).len()),
        (6, 1),
        "the new slots are as the others"
    );
    world.apply(web(2, "new", with_canary(1)));
    world.run();
    let old = wanted(&world, id)
        .iter()
        .filter(|copy| copy.template == 1)
        .count();
    assert_eq!((old, renewed(&world, id).len()), (2, 1));
    promote(&mut world, id);
    world.work();
    world.apply(web(5, "new", with_canary(1)));
    world.run();
    assert_eq!((renewed(&world, id).len(), world.copies(id).len()), (5, 5));
    assert_eq!(record(&world, id).rollout, None);
}

#[test]
fn stopping_ends_a_rollout_and_what_starts_again_is_new() {
    let (mut world, id) = fleet(3, 3);
    world.apply(web(3, "new", with_canary(1)));
    world.run();
    for desired in [Desired::Stopped, Desired::Running] {
        world.must(&Verb::SetDesired {
            workload: id,
            desired,
            expect: Expect::Any,
        });
        world.run();
    }
    assert_eq!((renewed(&world, id).len(), world.copies(id).len()), (3, 3));
    assert_eq!(record(&world, id).rollout, None);
}

#[test]
fn the_state_survives_and_what_was_concluded_from_an_older_step_counts_for_nothing() {
    let (mut world, id) = fleet(3, 4);
    world.apply(web(4, "new", Update::default()));
    world.work();
    let seen = world.seen(id);
    world.must(&Verb::Advance(Box::new(seen.clone())));
    world.work();
    world.state = State::from_changes(&world.log);
    let failed = Progress {
        failed: Some("late".to_owned()),
        ..seen
    };
    let decision = world
        .submit(&Verb::Advance(Box::new(failed)))
        .expect("never refused");
    assert!(decision.changes.is_empty(), "{:?}", decision.changes);
    world.work();
    assert_eq!(renewed(&world, id).len(), 2, "and no step was made twice");
    world.run();
    assert_eq!(renewed(&world, id).len(), 4);
}

#[test]
fn a_copy_that_does_not_run_any_more_holds_up_the_next() {
    let (mut world, id) = fleet(3, 3);
    world.apply(web(3, "new", Update::default()));
    world.work();
    let first = renewed(&world, id).remove(0);
    world.prove();
    let lapsed = Progress {
        healthy: Vec::new(),
        lapsed: vec![first.unit()],
        ..world.seen(id)
    };
    world.must(&Verb::Advance(Box::new(lapsed)));
    world.work();
    assert_eq!(renewed(&world, id).len(), 1);
    world.run();
    assert_eq!(renewed(&world, id).len(), 3);
}

#[test]
fn where_everything_is_full_what_runs_goes_on_running() {
    let mut world = World::with_nodes(2);
    let mut large = web(2, "old", Update::default());
    large.resources = resources(700, 256);
    let id = world.apply(large.clone());
    world.run();
    let before = wanted(&world, id);
    // Nothing larger than a node fits in place or elsewhere, and nothing fits beside.
    let mut larger = form(large.clone(), "new", at_once(2));
    larger.resources = resources(1_200, 256);
    world.apply(larger);
    world.run();
    assert_eq!(wanted(&world, id), before);
    let mut beside = form(large, "newer", at_once(2));
    beside.update.order = UpdateOrder::StartFirst;
    world.apply(beside);
    world.run();
    assert_eq!(
        wanted(&world, id),
        before,
        "none stops before another stands in for it"
    );
    assert_eq!(world.state.pending_copies(id), 2, "which is told");
}

#[test]
fn with_start_first_there_are_never_fewer_than_wanted() {
    let (mut world, id) = fleet(3, 4);
    let update = Update {
        order: UpdateOrder::StartFirst,
        ..at_once(2)
    };
    world.apply(web(4, "new", update));
    for _ in 0..20 {
        world.work();
        let up = wanted(&world, id).into_iter().filter(|copy| !copy.trial);
        assert!(up.count() >= 4);
        world.prove();
    }
    assert_eq!((renewed(&world, id).len(), world.copies(id).len()), (4, 4));
    assert_eq!(record(&world, id).rollout, None);
}

#[test]
fn where_each_node_has_its_port_taken_start_first_stops_first() {
    let mut world = World::with_nodes(3);
    let listening = |name: &str, order| {
        let mut spec = web(
            3,
            name,
            Update {
                order,
                ..at_once(1)
            },
        );
        spec.ports.push(PortMapping {
            name: None,
            host: 80,
            target: None,
            protocol: Protocol::Tcp,
        });
        spec
    };
    let id = world.apply(listening("old", UpdateOrder::StopFirst));
    world.run();
    world.apply(listening("new", UpdateOrder::StartFirst));
    world.work();
    assert_eq!(renewed(&world, id).len(), 1);
    world.run();
    assert_eq!(renewed(&world, id).len(), 3);
}

#[test]
fn a_singleton_that_has_to_move_is_replaced_once_it_is_gone_and_the_next_waits_for_it() {
    let mut world = World::with_nodes(3);
    let mut small = form(singleton("db", 2), "old", Update::default());
    small.resources = resources(400, 256);
    small.placement.strategy = hostler_model::spec::Strategy::Pack;
    let id = world.apply(small.clone());
    world.run();
    let mut large = form(small, "new", Update::default());
    large.resources = resources(900, 256);
    world.apply(large);
    world.settle();
    let live = wanted(&world, id).len();
    assert_eq!(
        (live, renewed(&world, id).len()),
        (1, 0),
        "it stops first, and no other"
    );
    world.work();
    assert_eq!(renewed(&world, id).len(), 1);
    world.run();
    assert_eq!(renewed(&world, id).len(), 2);
}

#[test]
fn finished_copies_are_replaced_at_once() {
    let mut world = World::with_nodes(2);
    let mut once = web(4, "old", Update::default());
    once.restart.policy = hostler_model::spec::RestartPolicy::No;
    let id = world.apply(once.clone());
    world.run();
    for copy in wanted(&world, id) {
        world.finish(&copy, Exit::Code(0));
    }
    world.apply(form(once, "new", Update::default()));
    world.work();
    world.prove();
    world.work();
    assert_eq!(renewed(&world, id).len(), 4);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (mut world, id) = fleet(2, 2);
    let expect = Expect::Any;
    let promote = Verb::Promote {
        workload: id,
        expect,
    };
    assert_eq!(refusal(&mut world, &promote), Code::NoRollout);
    let back = |to, expect| Verb::Rollback {
        workload: id,
        to,
        expect,
    };
    assert_eq!(
        refusal(&mut world, &back(None, expect)),
        Code::RevisionNotFound
    );
    assert_eq!(
        refusal(&mut world, &back(Some(7), expect)),
        Code::RevisionNotFound
    );
    world.apply(web(2, "new", with_canary(1)));
    let restart = Verb::Restart {
        workload: id,
        expect,
    };
    assert_eq!(refusal(&mut world, &restart), Code::RolloutHeld);
    let stale = Expect::Revision(1);
    assert_eq!(
        refusal(&mut world, &back(None, stale)),
        Code::RevisionConflict
    );
    let promote = Verb::Promote {
        workload: id,
        expect: stale,
    };
    assert_eq!(refusal(&mut world, &promote), Code::RevisionConflict);
}

#[test]
fn without_a_rollout_going_back_means_the_last_revision_that_differs() {
    let (mut world, id) = fleet(3, 2);
    world.apply(web(2, "new", Update::default()));
    world.run();
    world.apply(web(3, "new", Update::default()));
    world.run();
    roll_back(&mut world, id, None);
    world.run();
    let after = record(&world, id);
    assert_eq!(
        (
            after.revision,
            after.spec.env["FORM"].as_str(),
            after.spec.count
        ),
        (4, "old", 2)
    );
    roll_back(&mut world, id, Some(3));
    world.run();
    assert_eq!(
        (record(&world, id).revision, renewed(&world, id).len()),
        (5, 3)
    );
    let same = world.submit(&Verb::Rollback {
        workload: id,
        to: Some(3),
        expect: Expect::Any,
    });
    assert!(same.expect("it is no refusal").changes.is_empty());
}

#[test]
fn the_base_of_a_rollout_is_kept_however_many_revisions_come() {
    let (mut world, id) = fleet(2, 2);
    for step in 0..40 {
        world.apply(web(2, &format!("try {step}"), with_canary(1)));
        world.run();
    }
    while matches!(
        world.must(&Verb::Prune { limit: 100 }),
        hostler_fleet::Reply::Touched { count: 1.., .. }
    ) {}
    assert!(
        world.state.revision(id, 2).is_none(),
        "others are forgotten"
    );
    roll_back(&mut world, id, None);
    assert_eq!(record(&world, id).spec.env["FORM"], "old");
}
