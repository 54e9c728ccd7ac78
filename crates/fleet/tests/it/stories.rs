//! Stories told as snapshots: what the fleet looks like after each chapter, and the events it wrote.

use std::collections::BTreeMap;

use hostler_fleet::{Expect, Verb, why};
use hostler_model::spec::{PortMapping, Protocol, RestartPolicy, Strategy};
use hostler_model::{Desired, Exit};

use crate::world::{World, resources, singleton, spec};

/// Chapters with a picture after each, and all events at the end.
#[derive(Default)]
struct Tale(Vec<String>);

impl Tale {
    fn chapter(&mut self, title: &str, world: &World) {
        self.0.push(format!("== {title}\n{}", world.picture()));
    }

    fn end(self, world: &World) -> String {
        format!(
            "{}\n== events\n{}",
            self.0.join("\n"),
            world.events().join("\n")
        )
    }
}

#[test]
fn a_lost_node_is_replaced_and_stops_its_old_copies_when_it_returns() {
    let mut world = World::with_nodes(3);
    let mut tale = Tale::default();
    world.apply(spec("web", 3));
    world.run();
    tale.chapter("web runs on three nodes", &world);

    let lost = world.node("node-1");
    world.must(&Verb::Suspect {
        node: lost,
        reason: "its connection broke".to_owned(),
    });
    world.run();
    tale.chapter("a suspect node is left alone", &world);
    world.must(&Verb::Silent { node: lost });
    world.run();
    tale.chapter("lost, it is replaced", &world);
    world.must(&Verb::Returned { node: lost });
    world.run();
    tale.chapter("back, it has stopped the older generation", &world);
    insta::assert_snapshot!(tale.end(&world));
}

#[test]
fn a_drain_moves_what_runs_and_is_done_when_the_processes_are_gone() {
    let mut world = World::with_nodes(2);
    let mut tale = Tale::default();
    world.apply(singleton("db", 1));
    world.run();
    world.apply(spec("web", 3));
    world.run();
    tale.chapter("two workloads run", &world);

    let draining = world.node("node-0");
    world.must(&Verb::Drain {
        node: draining,
        expect: Expect::Any,
    });
    world.settle();
    tale.chapter(
        "draining: replacements stand beside what still stops, but for the singleton",
        &world,
    );
    assert!(
        world.submit(&Verb::FinishDrain { node: draining }).is_err(),
        "copies are left"
    );
    world.run();
    world.must(&Verb::FinishDrain { node: draining });
    tale.chapter("drained", &world);
    world.must(&Verb::Undrain {
        node: draining,
        expect: Expect::Any,
    });
    tale.chapter("open again", &world);
    insta::assert_snapshot!(tale.end(&world));
}

#[test]
fn an_update_is_made_in_place_where_it_fits_and_elsewhere_where_it_does_not() {
    let mut world = World::with_nodes(2);
    let mut tale = Tale::default();
    let mut small = spec("small", 2);
    small.placement.strategy = Strategy::Pack;
    world.apply(small.clone());
    world.run();
    tale.chapter("both copies share a node", &world);

    small.resources = resources(700, 256);
    world.apply(small.clone());
    world.run();
    tale.chapter("grown, one stays and one has moved", &world);

    small.resources = resources(1200, 256);
    let id = world.apply(small.clone());
    world.run();
    tale.chapter("too large for any node, what runs goes on running", &world);
    insta::assert_snapshot!(
        "an_update_why",
        why(&world.state, id).expect("it is there").to_string()
    );

    small.resources = resources(700, 256);
    small.count = 1;
    world.apply(small);
    world.run();
    tale.chapter("smaller again, and one copy fewer", &world);
    insta::assert_snapshot!(tale.end(&world));
}

#[test]
fn a_singleton_is_replaced_only_when_its_old_copy_has_surely_stopped() {
    let mut world = World::with_nodes(2);
    let mut tale = Tale::default();
    let db = world.apply(singleton("db", 1));
    world.run();
    let copy = world.copies(db).remove(0);
    world.must(&Verb::Silent { node: copy.node });
    world.run();
    tale.chapter("its node is lost: it waits", &world);
    insta::assert_snapshot!(
        "a_singleton_why",
        why(&world.state, db).expect("it is there").to_string()
    );

    world.must(&Verb::Fence {
        node: copy.node,
        assignments: vec![copy.id],
    });
    world.run();
    tale.chapter("fenced: it runs elsewhere", &world);
    world.must(&Verb::Returned { node: copy.node });
    world.run();
    tale.chapter("its old node is back and has let go", &world);
    insta::assert_snapshot!(tale.end(&world));
}

#[test]
fn a_fenced_singleton_whose_node_returns_first_stays_there() {
    let mut world = World::with_nodes(1);
    let db = world.apply(singleton("db", 1));
    world.run();
    let copy = world.copies(db).remove(0);
    world.must(&Verb::Silent { node: copy.node });
    world.must(&Verb::Fence {
        node: copy.node,
        assignments: vec![copy.id],
    });
    world.run();
    world.must(&Verb::Returned { node: copy.node });
    world.run();
    let kept = world.copies(db);
    assert_eq!(kept, [copy], "the same copy, no longer fenced");
}

#[test]
fn stop_start_restart_and_delete_account_for_every_copy() {
    let mut world = World::with_nodes(2);
    let mut tale = Tale::default();
    let web = world.apply(spec("web", 2));
    world.run();
    world.must(&Verb::SetDesired {
        workload: web,
        desired: Desired::Stopped,
        expect: Expect::Any,
    });
    world.settle();
    world.must(&Verb::SetDesired {
        workload: web,
        desired: Desired::Running,
        expect: Expect::Any,
    });
    world.settle();
    tale.chapter(
        "stopped and started again: slots wait for their old copies",
        &world,
    );
    world.run();
    tale.chapter("which are gone now", &world);
    world.must(&Verb::Restart {
        workload: web,
        expect: Expect::Any,
    });
    world.run();
    tale.chapter("restarted in place", &world);
    world.delete(web);
    world.settle();
    tale.chapter("deleted: the record waits for the copies", &world);
    world.run();
    tale.chapter("nothing is left", &world);
    insta::assert_snapshot!(tale.end(&world));
}

#[test]
fn finished_work_rests_through_the_loss_and_removal_of_its_node_and_a_restart_revives_it() {
    let mut world = World::with_nodes(2);
    let mut tale = Tale::default();
    let mut once = spec("once", 1);
    once.restart.policy = RestartPolicy::No;
    let once = world.apply(once);
    world.run();
    let copy = world.copies(once).remove(0);
    world.finish(&copy, Exit::Code(0));
    assert_eq!(
        world.state.copies_on(copy.node),
        0,
        "what finished holds nothing"
    );
    world.must(&Verb::Silent { node: copy.node });
    world.run();
    world.must(&Verb::RemoveNode {
        node: copy.node,
        force: false,
        expect: Expect::Any,
    });
    world.run();
    tale.chapter("finished, its node removed, it rests", &world);
    world.must(&Verb::Restart {
        workload: once,
        expect: Expect::Any,
    });
    world.run();
    tale.chapter("revived elsewhere", &world);
    insta::assert_snapshot!(tale.end(&world));
}

#[test]
fn why_tells_every_reason_of_every_node_and_the_nearest_fix() {
    let mut world = World::with_nodes(6);
    let mut web = spec("web", 1);
    web.ports.push(PortMapping {
        name: None,
        host: 80,
        target: None,
        protocol: Protocol::Tcp,
    });
    world.apply(web);
    world.run();
    for node in ["node-1", "node-2"] {
        let node = world.node(node);
        world.must(&Verb::Cordon {
            node,
            expect: Expect::Any,
        });
    }
    let node = world.node("node-3");
    let labels = BTreeMap::from([("zone".to_owned(), Some("eu".to_owned()))]);
    world.must(&Verb::Label {
        node,
        labels,
        expect: Expect::Any,
    });
    let node = world.node("node-4");
    world.must(&Verb::Silent { node });
    let mut picky = spec("picky", 2);
    picky.resources = resources(1250, 2048);
    picky
        .placement
        .constraints
        .push("zone == eu".parse().expect("a constraint"));
    picky.ports.push(PortMapping {
        name: None,
        host: 80,
        target: None,
        protocol: Protocol::Tcp,
    });
    let picky = world.apply(picky);
    world.run();
    insta::assert_snapshot!(why(&world.state, picky).expect("it is there").to_string());
}

#[test]
fn a_count_beyond_reason_fills_no_node_beyond_the_most() {
    let mut world = World::with_nodes(2);
    let mut swarm = spec("swarm", 1_000_000);
    swarm.resources = hostler_model::Resources::ZERO;
    let workload = world.apply(swarm);
    for limit in [1500, 1500] {
        world.must(&Verb::Settle { workload, limit });
    }
    for node in ["node-0", "node-1"] {
        let node = world.node(node);
        assert_eq!(world.state.assignments_on(node).count(), 1000);
    }
    let why = hostler_fleet::why(&world.state, workload).expect("it is there");
    assert_eq!(why.pending, 998_000);
    let said = why.to_string();
    assert!(said.contains("has 1000 copies already"), "{said}");
}
