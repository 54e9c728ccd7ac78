//! Workloads that came through another contract.

use std::sync::Arc;

use hostler_fleet::{Expect, Reply, Verb};
use hostler_model::spec::WorkloadSpec;
use hostler_model::{AliasOwner, Code, Desired, Foreign, WorkloadId};

use crate::world::{World, foreign, spec};

fn verb(foreign: &Arc<Foreign>, spec: &WorkloadSpec, desired: Desired) -> Verb {
    Verb::ApplyForeign {
        foreign: Arc::clone(foreign),
        spec: Arc::new(spec.clone()),
        desired,
        expect: Expect::Any,
    }
}

/// The workload, its revision, and whether anything changed.
fn apply(
    world: &mut World,
    foreign: &Arc<Foreign>,
    spec: &WorkloadSpec,
    desired: Desired,
) -> (WorkloadId, u64, bool) {
    match world.must(&verb(foreign, spec, desired)) {
        Reply::Workload {
            id,
            revision,
            changed,
        } => (id, revision, changed),
        other => panic!("answered with {other:?}"),
    }
}

#[test]
fn a_foreign_id_is_one_workload_whatever_its_name() {
    let mut world = World::with_nodes(1);
    world.apply(spec("web", 1));
    let ours = foreign("Web/1", "r1", b"a");
    let (id, revision, changed) = apply(&mut world, &ours, &spec("web", 1), Desired::Running);
    assert_eq!((revision, changed), (1, true));
    let record = world.state.workload(id).unwrap();
    assert_eq!(record.name, format!("web-{}", id.short()));
    assert_eq!(record.foreign.as_ref(), Some(&ours));
    assert_eq!(world.state.workload_by_alias(&ours.key).unwrap().id, id);
    let again = apply(&mut world, &ours, &spec("other", 1), Desired::Running);
    assert_eq!(
        again,
        (id, 1, false),
        "its name stays, and nothing else differs"
    );
}

#[test]
fn a_change_of_payload_renews_copies_and_one_of_the_desired_state_does_not() {
    let mut world = World::with_nodes(1);
    let (id, ..) = apply(
        &mut world,
        &foreign("w", "", b"a"),
        &spec("w", 1),
        Desired::Running,
    );
    world.settle();
    let first = world.copies(id)[0].generation;
    let changed = apply(
        &mut world,
        &foreign("w", "", b"b"),
        &spec("w", 1),
        Desired::Running,
    );
    assert_eq!(changed, (id, 2, true));
    world.run();
    world.settle();
    assert!(world.copies(id).iter().any(|copy| copy.generation > first));
    let stopped = apply(
        &mut world,
        &foreign("w", "", b"b"),
        &spec("w", 1),
        Desired::Stopped,
    );
    assert_eq!(stopped, (id, 3, true));
    let record = world.state.workload(id).unwrap();
    assert_eq!((record.template, record.desired), (2, Desired::Stopped));
    assert_eq!(&*record.foreign.as_ref().unwrap().payload, b"b");
    let step = world.state.revision(id, 1).unwrap();
    assert_eq!(&*step.foreign.as_ref().unwrap().payload, b"a");
}

#[test]
fn a_revision_changes_with_the_payload_and_never_without_it() {
    let mut world = World::with_nodes(1);
    let derived = Foreign::derived_revision(b"b");
    for (asked, payload, kept) in [
        ("rev-1", b"a", "rev-1"),
        ("rev-2", b"a", "rev-1"),
        ("rev-1", b"b", derived.as_str()),
        ("rev-3", b"c", "rev-3"),
        ("rev-4", b"c", "rev-3"),
    ] {
        let it = foreign("w", asked, payload);
        let (id, ..) = apply(&mut world, &it, &spec("w", 1), Desired::Running);
        let record = world.state.workload(id).unwrap();
        let foreign = record.foreign.as_ref().unwrap();
        assert_eq!(
            (foreign.revision.as_str(), &*foreign.payload),
            (kept, &payload[..]),
            "{asked}"
        );
    }
}

#[test]
fn a_deleted_one_is_refused_until_it_is_gone_and_then_its_id_is_free() {
    let mut world = World::with_nodes(1);
    let it = foreign("w", "", b"a");
    let (id, ..) = apply(&mut world, &it, &spec("w", 1), Desired::Running);
    world.settle();
    world.delete(id);
    let refused = world.decide(&verb(&it, &spec("w", 1), Desired::Running));
    assert_eq!(refused.unwrap_err().code, Code::WorkloadDeleting);
    world.settle();
    world.run();
    world.settle();
    assert!(world.state.workload(id).is_none());
    assert_eq!(world.state.aliases_of(AliasOwner::Workload(id)).count(), 0);
    let (fresh, ..) = apply(&mut world, &it, &spec("w", 1), Desired::Running);
    assert_ne!(fresh, id);
}

#[test]
fn a_long_name_is_cut_to_make_room_for_its_suffix() {
    let mut world = World::with_nodes(1);
    let name = "x".repeat(63);
    world.apply(spec(&name, 0));
    let (id, ..) = apply(
        &mut world,
        &foreign("w", "", b""),
        &spec(&name, 0),
        Desired::Running,
    );
    assert_eq!(world.state.workload(id).unwrap().name.len(), 63);
}

#[test]
fn one_that_must_be_new_is_refused_if_its_id_is_taken_and_changes_nothing() {
    let mut world = World::with_nodes(1);
    let create = |payload: &[u8]| Verb::ApplyForeign {
        foreign: foreign("w", "", payload),
        spec: Arc::new(spec("w", 1)),
        desired: Desired::Running,
        expect: Expect::Absent,
    };
    let Reply::Workload { id, .. } = world.must(&create(b"a")) else {
        panic!("a workload is made");
    };
    for payload in [b"a", b"b"] {
        let refused = world.decide(&create(payload)).unwrap_err();
        assert_eq!(refused.code, Code::RevisionConflict);
    }
    let record = world.state.workload(id).unwrap();
    assert_eq!(record.revision, 1);
    assert_eq!(&*record.foreign.as_ref().unwrap().payload, b"a");
    world.delete(id);
    let refused = world.decide(&create(b"a")).unwrap_err();
    assert_eq!(refused.code, Code::WorkloadDeleting);
}
