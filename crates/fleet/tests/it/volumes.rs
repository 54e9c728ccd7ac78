//! Where copies with managed volumes go.

use hostler_fleet::{Expect, Verb, why};
use hostler_model::spec::{WorkloadSpec, parse_one};
use hostler_model::{Desired, NodeFacts, StorageFact, WorkloadId};

use crate::world::{World, hello, resources, spec};

fn with_volume(mut spec: WorkloadSpec, driver: &str) -> WorkloadSpec {
    let volume = format!("{{name: data, target: /data, driver: {driver}}}");
    let text = format!("name: x\nprocess: {{command: [a], volumes: [{volume}]}}");
    if let Some(process) = &mut spec.process {
        process.volumes = parse_one(&text).expect("a spec").volumes().to_vec();
    }
    spec
}

fn set(world: &mut World, workload: WorkloadId, desired: Desired) {
    world.must(&Verb::SetDesired {
        workload,
        desired,
        expect: Expect::Any,
    });
    world.run();
}

fn nodes(world: &World, workload: WorkloadId) -> Vec<String> {
    let copies = world.copies(workload).into_iter();
    let copies = copies.filter(|copy| copy.is_wanted());
    copies
        .map(|copy| world.state.node(copy.node).expect("its node").name.clone())
        .collect()
}

#[test]
fn a_copy_goes_back_to_the_node_that_has_its_data() {
    let mut world = World::with_nodes(3);
    let db = world.apply(with_volume(spec("db", 2), "local"));
    world.run();
    let first = nodes(&world, db);
    set(&mut world, db, Desired::Stopped);
    assert_eq!(nodes(&world, db), [""; 0]);
    // Its nodes are the fullest now, and would come last.
    for (number, node) in first.iter().enumerate() {
        let mut heavy = spec(&format!("heavy-{number}"), 1);
        heavy.resources = resources(2000, 1024);
        let constraint = format!("node.name == {node}").parse().unwrap();
        heavy.placement.constraints = vec![constraint];
        world.apply(heavy);
    }
    world.run();
    set(&mut world, db, Desired::Running);
    assert_eq!(nodes(&world, db), first);

    // Without data there is nothing to go back for.
    let web = world.apply(spec("web", 2));
    world.run();
    assert!(world.state.workload(web).unwrap().homes.is_empty());
}

#[test]
fn an_outdated_copy_stays_with_its_data_until_its_agent_has_said_what_it_can_do() {
    let mut world = World::with_nodes(2);
    let db = world.apply(with_volume(spec("db", 1), "local"));
    world.run();
    let home = world.node(&nodes(&world, db)[0]);
    let facts = world.state.node(home).expect("its node").facts.clone();
    let tell = |world: &mut World, facts: NodeFacts| {
        let facts = Box::new(facts);
        world.must(&Verb::Discover { node: home, facts });
        world.run();
    };
    // Its agent has just begun, and no driver has answered yet.
    let early = NodeFacts {
        runtimes: Vec::new(),
        ..facts.clone()
    };
    tell(&mut world, early);
    let before = world.copies(db);
    let mut next = with_volume(spec("db", 1), "local");
    next.env.insert("GREETING".to_owned(), "hello".to_owned());
    world.apply(next);
    world.run();
    assert_eq!(world.copies(db), before, "it neither moves nor changes");

    tell(&mut world, facts);
    let after = world.copies(db);
    assert_eq!((after.len(), after[0].node), (1, home));
    assert!(after[0].generation > before[0].generation);
}

#[test]
fn a_copy_whose_node_is_gone_is_placed_elsewhere_and_its_home_is_there() {
    let mut world = World::with_nodes(2);
    let db = world.apply(with_volume(spec("db", 1), "local"));
    world.run();
    let lost = world.node(&nodes(&world, db)[0]);
    world.must(&Verb::Silent { node: lost });
    world.run();
    let copies = world.copies(db);
    let now = copies.iter().find(|copy| copy.is_wanted()).unwrap().node;
    assert_ne!(now, lost);
    assert_eq!(world.state.workload(db).unwrap().homes[&0], now);
    // The data of a slot that is taken away is not waited for.
    world.apply(with_volume(spec("db", 0), "local"));
    world.run();
    assert!(world.state.workload(db).unwrap().homes.is_empty());
}

#[test]
fn a_volume_needs_a_node_with_its_storage_and_the_reason_is_told() {
    let mut world = World::with_nodes(1);
    let far = world.apply(with_volume(spec("far", 1), "nfs"));
    world.run();
    assert_eq!(nodes(&world, far), [""; 0]);
    let told = why(&world.state, far).unwrap().to_string();
    assert!(told.contains("node-0: has no storage driver nfs"), "{told}");
    assert!(
        told.contains("make the storage driver nfs work on node-0"),
        "{told}"
    );

    let mut other = hello("other", resources(4000, 4096));
    other.facts.storage = vec![StorageFact {
        driver: "nfs".to_owned(),
        available: true,
        note: String::new(),
    }];
    world.join_as(other);
    world.run();
    assert_eq!(nodes(&world, far), ["other"]);

    // A foreign agent says it with a label.
    let rbd = world.apply(with_volume(spec("rbd", 1), "ceph-rbd"));
    let mut labelled = hello("labelled", resources(4000, 4096));
    let label = ("storage.ceph-rbd".to_owned(), "true".to_owned());
    labelled.labels.extend([label]);
    world.join_as(labelled);
    world.run();
    assert_eq!(nodes(&world, rbd), ["labelled"]);
}
