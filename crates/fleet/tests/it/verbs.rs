//! Single verbs: what they answer, what they refuse, and what they leave alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostler_fleet::{
    Applied, ApplyOptions, Change, Expect, Reply, State, Turn, UnitReport, Verb, why,
};
use hostler_model::spec::{
    Constraint, DisconnectPolicy, PortMapping, Protocol, Strategy, WorkloadSpec,
};
use hostler_model::{
    Code, CommandKind, Desired, EventKind, Exit, Liveness, NodeId, NodeState, Pressure, Refusal,
    UnitId, WorkloadId,
};

use crate::world::{World, hello, resources, spec};

fn refused(world: &mut World, verb: &Verb) -> Refusal {
    world.submit(verb).expect_err("the verb is refused")
}

fn apply(spec: WorkloadSpec, options: ApplyOptions) -> Verb {
    Verb::Apply {
        specs: vec![Arc::new(spec)],
        options,
    }
}

#[test]
fn founding_twice_changes_nothing_and_an_epoch_is_new() {
    let mut world = World::default();
    let founded = world.must(&Verb::Found);
    assert!(
        world
            .submit(&Verb::Found)
            .expect("never refused")
            .changes
            .is_empty()
    );
    let Reply::Fleet { id, epoch } = world.must(&Verb::NewEpoch) else {
        panic!("an epoch answers with the fleet");
    };
    assert_eq!(world.state.fleet(), Some((id, epoch)));
    assert_ne!(founded, Reply::Fleet { id, epoch });
}

#[test]
fn a_hello_that_tells_nothing_new_changes_nothing() {
    let mut world = World::with_nodes(1);
    let again = Verb::Announce(Box::new(hello("node-0", resources(1000, 1024))));
    assert!(world.submit(&again).expect("welcome").changes.is_empty());
    let node = world.node("node-0");
    let resumed = world
        .submit(&Verb::Resume {
            node,
            units: Vec::new(),
        })
        .expect("welcome");
    assert!(resumed.changes.is_empty());
}

#[test]
fn a_second_machine_of_the_same_name_gets_a_suffix_and_labels_stay_a_persons() {
    let mut world = World::with_nodes(1);
    let mut twin = hello("node-0", resources(1000, 1024));
    twin.identity.foreign = "another key".to_owned();
    world.join_as(twin);
    assert_eq!(
        world.state.find_node("node-0-2").map(|node| node.state()),
        Ok(NodeState::Ready)
    );

    let node = world.node("node-0");
    let labels = BTreeMap::from([("zone".to_owned(), Some("eu".to_owned()))]);
    world.must(&Verb::Label {
        node,
        labels,
        expect: Expect::Revision(1),
    });
    let mut hello = hello("node-0", resources(2000, 1024));
    hello.labels.insert("zone".to_owned(), "us".to_owned());
    world.must(&Verb::Announce(Box::new(hello)));
    let node = world.state.node(node).expect("it is there");
    assert_eq!(node.labels["zone"], "eu");
    assert_eq!(node.capacity, resources(2000, 1024));
}

#[test]
fn a_removed_node_cannot_come_back_with_its_identity_but_its_name_is_free() {
    let mut world = World::with_nodes(1);
    let node = world.node("node-0");
    world.must(&Verb::RemoveNode {
        node,
        force: false,
        expect: Expect::Any,
    });
    let old = Verb::Announce(Box::new(hello("node-0", resources(1000, 1024))));
    assert_eq!(refused(&mut world, &old).code, Code::NodeGone);
    let mut fresh = hello("node-0", resources(1000, 1024));
    fresh.identity.foreign = "a new key".to_owned();
    let fresh = world.join_as(fresh);
    assert_eq!(world.node("node-0"), fresh);
    assert_eq!(
        world.state.nodes().count(),
        2,
        "the record stays as history"
    );
}

#[test]
fn a_busy_node_is_removed_only_by_force_and_its_slots_are_filled_elsewhere() {
    let mut world = World::with_nodes(2);
    let web = world.apply(spec("web", 2));
    world.run();
    let node = world.node("node-0");
    assert_eq!(
        refused(
            &mut world,
            &Verb::RemoveNode {
                node,
                force: false,
                expect: Expect::Any
            }
        )
        .code,
        Code::NodeBusy
    );
    world.must(&Verb::RemoveNode {
        node,
        force: true,
        expect: Expect::Any,
    });
    world.run();
    let nodes: Vec<_> = world.copies(web).iter().map(|copy| copy.node).collect();
    assert_eq!(nodes, [world.node("node-1"); 2]);
}

#[test]
fn the_same_spec_again_changes_nothing_and_a_count_outdates_no_copy() {
    let mut world = World::with_nodes(2);
    let web = world.apply(spec("web", 1));
    world.run();
    let again = world
        .submit(&apply(spec("web", 1), ApplyOptions::default()))
        .expect("fine");
    assert!(again.changes.is_empty());
    let unchanged = Applied {
        id: web,
        name: "web".to_owned(),
        revision: 1,
        changed: false,
        created: false,
    };
    assert_eq!(again.reply, Reply::Applied(vec![unchanged]));

    let before = world.copies(web).remove(0);
    world.apply(spec("web", 2));
    world.run();
    let copies = world.copies(web);
    assert_eq!((copies.len(), &copies[0]), (2, &before));
    assert_eq!(world.state.history(web).count(), 2);
}

#[test]
fn a_dry_run_decides_in_full_and_changes_nothing() {
    let mut world = World::with_nodes(1);
    let options = ApplyOptions {
        dry_run: true,
        ..ApplyOptions::default()
    };
    let decision = world.submit(&apply(spec("web", 2), options)).expect("fine");
    assert!(decision.changes.is_empty());
    let Reply::Applied(applied) = decision.reply else {
        panic!("applying answers with the workloads");
    };
    assert!(applied[0].created && applied[0].changed && applied[0].revision == 1);
}

#[test]
fn required_placement_is_refused_with_the_reasons_of_the_nodes() {
    let mut world = World::with_nodes(2);
    let options = ApplyOptions {
        require_placement: true,
        ..ApplyOptions::default()
    };
    let refusal = refused(&mut world, &apply(spec("web", 9), options));
    assert_eq!(refusal.code, Code::NoPlacement);
    assert!(
        refusal.sentence.contains("1 copy of web"),
        "{}",
        refusal.sentence
    );
    assert_eq!(
        refusal.details.len(),
        1,
        "both nodes are full then, and say the same"
    );
    assert!(refusal.details[0].contains("cpu short"), "{refusal:?}");
    assert!(world.submit(&apply(spec("web", 8), options)).is_ok());
}

#[test]
fn required_placement_takes_its_places_at_once() {
    let mut world = World::with_nodes(2);
    let options = ApplyOptions {
        require_placement: true,
        ..ApplyOptions::default()
    };
    world
        .submit(&apply(spec("web", 8), options))
        .expect("it fits");
    assert_eq!(world.state.assignments().count(), 8);
    let late = refused(&mut world, &apply(spec("late", 1), options));
    assert_eq!(
        late.code,
        Code::NoPlacement,
        "what was applied before has its places"
    );
    let rehearsal = ApplyOptions {
        dry_run: true,
        ..options
    };
    let again = world
        .submit(&apply(spec("web", 8), rehearsal))
        .expect("it has its places");
    assert!(again.changes.is_empty());
}

#[test]
fn documents_of_one_request_share_the_room_and_are_applied_together_or_not() {
    let mut world = World::with_nodes(2);
    let options = ApplyOptions {
        require_placement: true,
        ..ApplyOptions::default()
    };
    let both = |a, b| Verb::Apply {
        specs: vec![Arc::new(spec("a", a)), Arc::new(spec("b", b))],
        options,
    };
    let refusal = refused(&mut world, &both(4, 5));
    assert_eq!(refusal.code, Code::NoPlacement);
    assert!(
        refusal.sentence.contains("1 copy of b"),
        "{}",
        refusal.sentence
    );
    assert!(refusal.details[0].contains("cpu short"), "{refusal:?}");
    assert_eq!(world.state.workloads().len(), 0);
    let Reply::Applied(applied) = world.must(&both(4, 4)) else {
        panic!("applying answers with the workloads");
    };
    assert_eq!(applied.len(), 2);
    assert_eq!(world.state.assignments().count(), 8);
}

#[test]
fn ports_are_shared_out_between_documents_of_one_request() {
    let mut world = World::with_nodes(2);
    let with_port = |name: &str, port| {
        let mut spec = spec(name, 1);
        spec.ports.push(PortMapping {
            name: None,
            host: port,
            target: None,
            protocol: Protocol::Tcp,
        });
        Arc::new(spec)
    };
    let verb = Verb::Apply {
        specs: vec![with_port("a", 80), with_port("b", 80), with_port("c", 81)],
        options: ApplyOptions {
            require_placement: true,
            ..ApplyOptions::default()
        },
    };
    world.must(&verb);
    let on = |name: &str| {
        let id = world.state.workload_by_name(name).expect("applied").id;
        world.copies(id)[0].node
    };
    assert_ne!(on("a"), on("b"), "a port has one owner on a node");
}

#[test]
fn two_documents_of_one_name_are_refused() {
    let mut world = World::with_nodes(1);
    let verb = Verb::Apply {
        specs: vec![Arc::new(spec("web", 1)), Arc::new(spec("web", 2))],
        options: ApplyOptions::default(),
    };
    assert_eq!(refused(&mut world, &verb).code, Code::SpecInvalid);
}

#[test]
fn expectations_are_held_against_the_revision() {
    let mut world = World::with_nodes(1);
    let absent = ApplyOptions {
        expect: Expect::Absent,
        ..ApplyOptions::default()
    };
    assert!(world.submit(&apply(spec("web", 1), absent)).is_ok());
    assert_eq!(
        refused(&mut world, &apply(spec("web", 2), absent)).code,
        Code::RevisionConflict
    );
    let stale = ApplyOptions {
        expect: Expect::Revision(7),
        ..ApplyOptions::default()
    };
    assert_eq!(
        refused(&mut world, &apply(spec("web", 2), stale)).code,
        Code::RevisionConflict
    );
    assert_eq!(
        refused(&mut world, &apply(spec("new", 2), stale)).code,
        Code::RevisionConflict
    );
}

#[test]
fn a_name_is_free_again_once_the_deleted_workload_is_gone() {
    let mut world = World::with_nodes(1);
    let web = world.apply(spec("web", 1));
    world.run();
    world.delete(web);
    let again = apply(spec("web", 1), ApplyOptions::default());
    assert_eq!(refused(&mut world, &again).code, Code::WorkloadDeleting);
    let start = Verb::SetDesired {
        workload: web,
        desired: Desired::Running,
        expect: Expect::Any,
    };
    assert_eq!(refused(&mut world, &start).code, Code::WorkloadDeleting);
    world.run();
    assert!(world.state.workload(web).is_none());
    assert_ne!(world.apply(spec("web", 1)), web);
}

#[test]
fn a_container_cannot_be_a_singleton_and_a_kind_without_driver_stays_pending() {
    let mut world = World::with_nodes(1);
    let mut container = WorkloadSpec::of_container("db", "db:1", Vec::new());
    container.disconnect.policy = DisconnectPolicy::Singleton;
    let verb = apply(container, ApplyOptions::default());
    assert_eq!(refused(&mut world, &verb).code, Code::DriverUnsupported);

    let mut vm = spec("vm", 1);
    vm.process = None;
    vm.vm = Some(hostler_model::spec::VmSpec {
        image: "disk".to_owned(),
        ..Default::default()
    });
    let vm = world.apply(vm);
    world.run();
    assert_eq!(world.state.pending_copies(vm), 1);
    let why = hostler_fleet::why(&world.state, vm).expect("it is there");
    assert!(why.to_string().contains("no working vm driver"), "{why}");
}

#[test]
fn reports_about_old_generations_change_nothing() {
    let mut world = World::with_nodes(1);
    let web = world.apply(spec("web", 1));
    world.run();
    world.must(&Verb::Restart {
        workload: web,
        expect: Expect::Any,
    });
    world.run();
    let copy = world.copies(web).remove(0);
    assert_eq!(copy.generation, 2);
    let old = UnitId {
        generation: 1,
        ..copy.unit()
    };
    let reports = vec![
        UnitReport::Finished {
            unit: old,
            exit: Exit::Code(0),
            runs: 1,
        },
        UnitReport::Gone { unit: old },
        UnitReport::Gone { unit: copy.unit() },
    ];
    let decision = world
        .submit(&Verb::Report {
            node: copy.node,
            reports,
        })
        .expect("fine");
    assert!(decision.changes.is_empty(), "and a wanted copy does not go");
}

#[test]
fn a_copy_whose_node_has_no_runtime_for_it_is_placed_elsewhere() {
    let mut world = World::with_nodes(2);
    let web = world.apply(spec("web", 1));
    world.run();
    let copy = world.copies(web).remove(0);
    let report = Verb::Report {
        node: copy.node,
        reports: vec![UnitReport::Homeless { unit: copy.unit() }],
    };
    let decision = world.submit(&report).expect("fine");
    assert!(decision.changes.is_empty(), "its node has one");
    let name = world.state.node(copy.node).unwrap().name.clone();
    let mut hello = hello(&name, resources(1000, 1024));
    for runtime in &mut hello.facts.runtimes {
        runtime.available = false;
    }
    world.must(&Verb::Announce(Box::new(hello)));
    world.must(&report);
    world.run();
    let copies = world.copies(web);
    assert_eq!(copies.len(), 1);
    assert_ne!(copies[0].node, copy.node);
}

#[test]
fn a_command_is_answered_once() {
    let mut world = World::with_nodes(1);
    let node = world.node("node-0");
    let Reply::Command { id } = world.must(&Verb::Issue {
        node,
        kind: CommandKind::Cleanup,
    }) else {
        panic!("an order answers with its command");
    };
    let answer = Verb::Acknowledge {
        node,
        command: id,
        result: Err("the disk is full".to_owned()),
    };
    world.must(&answer);
    assert!(world.submit(&answer).expect("fine").changes.is_empty());
    assert_eq!(world.state.commands_of(node).count(), 1);
}

#[test]
fn retention_keeps_the_newest_revisions_and_those_that_run() {
    let mut world = World::with_nodes(1);
    let web = world.apply(spec("web", 1));
    world.run();
    for count in 2..=40 {
        world.apply(spec("web", count));
    }
    while let Reply::Touched { more: true, .. } = world.must(&Verb::Prune { limit: 7 }) {}
    let kept: Vec<u64> = world
        .state
        .history(web)
        .map(|revision| revision.number)
        .collect();
    let expected: Vec<u64> = std::iter::once(1).chain(21..=40).collect();
    assert_eq!(kept, expected);
}

#[test]
fn nodes_that_hold_the_intent_back_or_have_not_resumed_get_nothing() {
    let mut world = World::with_nodes(1);
    let node = world.node("node-0");
    world.must(&Verb::HeldBack {
        node,
        reason: Some("too much would stop".to_owned()),
    });
    world.must(&Verb::Announce(Box::new(hello(
        "joining",
        resources(1000, 1024),
    ))));
    let web = world.apply(spec("web", 1));
    world.run();
    assert_eq!(world.state.pending_copies(web), 1);
    world.must(&Verb::HeldBack { node, reason: None });
    world.run();
    assert_eq!(world.state.pending_copies(web), 0);
}

#[test]
fn a_node_under_pressure_keeps_what_it_has_and_gets_nothing_until_it_is_relieved() {
    let mut world = World::with_nodes(1);
    let node = world.node("node-0");
    let old = world.apply(spec("old", 1));
    world.run();
    let pressed = |pressure: &[Pressure]| Verb::Pressed {
        node,
        pressure: pressure.iter().copied().collect(),
    };
    world.must(&pressed(&[Pressure::Disk, Pressure::Memory]));
    world.must(&pressed(&[Pressure::Disk, Pressure::Memory]));
    let web = world.apply(spec("web", 1));
    world.run();
    assert_eq!(world.state.pending_copies(web), 1);
    assert_eq!(world.copies(old).len(), 1, "what is there stays");
    let why = why(&world.state, web).unwrap();
    let said = &why.nodes[0].findings;
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].to_string(), "is short of memory, disk");
    assert_eq!(why.nearest.as_deref(), Some("free memory, disk on node-0"));
    world.must(&pressed(&[]));
    world.run();
    assert_eq!(world.state.pending_copies(web), 0);
    let told: Vec<String> = world
        .events()
        .into_iter()
        .filter(|event| event.contains("short of"))
        .collect();
    let expected = [
        "node-pressed: node node-0 is short of memory, disk: nothing new is placed there",
        "node-relieved: node node-0 is short of nothing any more",
    ];
    assert_eq!(told, expected, "one event for each transition");
}

#[test]
fn resuming_removes_what_should_stop_and_is_not_there() {
    let mut world = World::with_nodes(2);
    let web = world.apply(spec("web", 2));
    world.run();
    let lost = world.node("node-0");
    world.must(&Verb::Silent { node: lost });
    world.run();
    assert_eq!(world.copies(web).len(), 3);
    world.must(&Verb::Announce(Box::new(hello(
        "node-0",
        resources(1000, 1024),
    ))));
    assert_eq!(
        world.state.node(lost).map(|node| node.liveness),
        Some(Liveness::Joining)
    );
    world.must(&Verb::Resume {
        node: lost,
        units: Vec::new(),
    });
    assert_eq!(world.copies(web).len(), 2);
}

#[test]
fn spread_copies_go_to_different_nodes_and_pack_fills_one() {
    let mut world = World::with_nodes(4);
    let wide = world.apply(spec("wide", 4));
    world.settle();
    assert_eq!(nodes_of(&world, wide), 4);
    world.delete(wide);
    world.run();
    let mut dense = spec("dense", 4);
    dense.placement.strategy = Strategy::Pack;
    let dense = world.apply(dense);
    world.settle();
    assert_eq!(nodes_of(&world, dense), 1);
}

#[test]
fn constraints_on_facts_and_labels_choose_the_node() {
    let mut world = World::with_nodes(40);
    let node = world.node("node-7");
    let labels = BTreeMap::from([("gpu".to_owned(), Some("a100".to_owned()))]);
    world.must(&Verb::Label {
        node,
        labels,
        expect: Expect::Any,
    });
    for (number, constraint) in ["gpu", "gpu in (a100, h100)", "node.name == node-7"]
        .into_iter()
        .enumerate()
    {
        let mut spec = spec(&format!("w{number}"), 1);
        spec.placement
            .constraints
            .push(constraint.parse::<Constraint>().expect("a constraint"));
        let id = world.apply(spec);
        world.settle();
        let on: Vec<_> = world.copies(id).iter().map(|copy| copy.node).collect();
        assert_eq!(on, [node], "{constraint}");
    }
}

#[test]
fn things_are_found_by_name_id_beginning_and_last_digits() {
    let mut world = World::with_nodes(2);
    let web = world.apply(spec("web", 1));
    world.settle();
    let found = |text: &str, state: &State| state.find_workload(text).map(|workload| workload.id);
    for text in [
        "web".to_owned(),
        web.to_string(),
        web.to_string()[..30].to_owned(),
        web.short(),
    ] {
        assert_eq!(found(&text, &world.state), Ok(web), "{text}");
    }
    let prefix = &world.node("node-0").to_string()[..6];
    assert_eq!(
        world
            .state
            .find_node(prefix)
            .map_err(|refusal| refusal.code),
        Err(Code::Ambiguous)
    );
    assert_eq!(
        found("nothing", &world.state).map_err(|refusal| refusal.code),
        Err(Code::WorkloadNotFound)
    );
    let copy = world.copies(web).remove(0);
    assert_eq!(
        world
            .state
            .find_assignment(&copy.id.short())
            .map(|found| found.id),
        Ok(copy.id)
    );
}

#[test]
fn the_intent_of_a_node_names_the_spec_that_each_copy_runs() {
    let mut world = World::with_nodes(1);
    let web = world.apply(spec("web", 1));
    world.settle();
    let mut next = spec("web", 1);
    next.resources = resources(5000, 1);
    world.apply(next);
    world.settle();
    let intent = world.state.intent(world.node("node-0"));
    assert_eq!(intent.len(), 1);
    assert_eq!((intent[0].workload, intent[0].revision), (web, 1));
    assert_eq!(
        intent[0].spec.resources,
        resources(250, 256),
        "nothing else fits, so the old one runs"
    );
}

fn nodes_of(world: &World, workload: hostler_model::WorkloadId) -> usize {
    let nodes: std::collections::BTreeSet<_> = world
        .copies(workload)
        .iter()
        .map(|copy| copy.node)
        .collect();
    nodes.len()
}

#[test]
fn ids_that_nobody_has_are_refused_or_change_nothing() {
    let mut world = World::default();
    let (node, workload) = (NodeId::LEAST, WorkloadId::MOST);
    let expect = Expect::Any;
    let verbs = [
        Verb::Resume {
            node,
            units: Vec::new(),
        },
        Verb::Suspect {
            node,
            reason: String::new(),
        },
        Verb::Silent { node },
        Verb::Returned { node },
        Verb::Fence {
            node,
            assignments: Vec::new(),
        },
        Verb::Report {
            node,
            reports: Vec::new(),
        },
        Verb::HeldBack { node, reason: None },
        Verb::Discover {
            node,
            facts: Box::default(),
        },
        Verb::Pressed {
            node,
            pressure: std::collections::BTreeSet::new(),
        },
        Verb::Label {
            node,
            labels: BTreeMap::new(),
            expect,
        },
        Verb::Cordon {
            node,
            expect: Expect::Any,
        },
        Verb::Uncordon {
            node,
            expect: Expect::Any,
        },
        Verb::Drain {
            node,
            expect: Expect::Any,
        },
        Verb::Undrain {
            node,
            expect: Expect::Any,
        },
        Verb::FinishDrain { node },
        Verb::RemoveNode {
            node,
            force: true,
            expect: Expect::Any,
        },
        Verb::SetDesired {
            workload,
            desired: Desired::Running,
            expect,
        },
        Verb::Restart {
            workload,
            expect: Expect::Any,
        },
        Verb::Delete { workload, expect },
        Verb::Settle { workload, limit: 1 },
        Verb::Issue {
            node,
            kind: CommandKind::Cleanup,
        },
        Verb::Acknowledge {
            node,
            command: hostler_model::CommandId::LEAST,
            result: Ok(String::new()),
        },
        Verb::Prune { limit: 1 },
    ];
    for verb in verbs {
        match world.submit(&verb) {
            Ok(decision) => assert!(decision.changes.is_empty(), "{verb:?}"),
            Err(refusal) => assert!(refusal.code.as_str().ends_with("-not-found"), "{verb:?}"),
        }
    }
    assert_eq!(world.state, State::default());
}

#[test]
fn a_verb_that_saw_another_revision_changes_nothing() {
    let mut world = World::with_nodes(1);
    let node = world.node("node-0");
    let workload = world.apply(spec("web", 1));
    world.run();
    let expect = Expect::Revision(9);
    let force = true;
    for verb in [
        Verb::Cordon { node, expect },
        Verb::Uncordon { node, expect },
        Verb::Drain { node, expect },
        Verb::Undrain { node, expect },
        Verb::RemoveNode {
            node,
            force,
            expect,
        },
        Verb::Restart { workload, expect },
    ] {
        let refusal = refused(&mut world, &verb);
        assert_eq!(refusal.code, Code::RevisionConflict, "{verb:?}");
    }
}

#[test]
fn a_turn_of_health_is_one_event_for_all_copies_of_a_node_and_changes_nothing_else() {
    let mut world = World::with_nodes(1);
    let web = world.apply(spec("web", 2));
    world.run();
    let node = world.node("node-0");
    let units: Vec<_> = world
        .state
        .assignments_of(web)
        .map(|it| it.unit())
        .collect();
    let turn = Turn::Unhealthy("status 503".to_owned());
    let told = |unit| UnitReport::Turned {
        unit,
        turn: turn.clone(),
    };
    let stranger = UnitId {
        generation: 99,
        ..units[0]
    };
    let reports = units.iter().copied().chain([stranger]).map(told).collect();
    let decision = world.submit(&Verb::Report { node, reports }).unwrap();
    let [Change::Append(event)] = &decision.changes[..] else {
        panic!("{:?}", decision.changes);
    };
    assert_eq!(event.kind, EventKind::CopyUnhealthy);
    assert_eq!(event.message, "2 copies of web: unhealthy: status 503");
    let first = vec![UnitReport::Turned {
        unit: units[0],
        turn: Turn::Crashing(Exit::Code(78)),
    }];
    let decision = world
        .submit(&Verb::Report {
            node,
            reports: first,
        })
        .unwrap();
    let [Change::Append(event)] = &decision.changes[..] else {
        panic!("{:?}", decision.changes);
    };
    assert_eq!(event.subject.assignment, Some(units[0].assignment));
    assert!(event.message.contains("exit code 78"), "{}", event.message);
}
