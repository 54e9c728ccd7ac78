//! Who may come in.

use std::collections::BTreeMap;

use hostler_fleet::{
    AccessVerb, Change, Introduction, JoinTokenOrder, Joining, NodeAnnouncement, Reply, TokenOrder,
    Verb,
};
use hostler_model::{
    AccessRole, Admission, Code, EventKind, JoinTokenId, NodeFacts, NodeId, NodeState, Refusal,
    Resources, Timestamp, TokenId, key_alias,
};

use crate::world::{World, hello, resources};

fn order(world: &World) -> JoinTokenOrder {
    let now = world.moment().now;
    JoinTokenOrder {
        id: JoinTokenId::mint(now, world.moment().seed),
        hash: "right".to_owned(),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        uses: None,
        replaces: None,
        needs_approval: false,
        expires_at: Timestamp::from_millis(now.as_millis() + 3_600_000),
    }
}

fn invite(world: &mut World, order: JoinTokenOrder) -> JoinTokenId {
    let id = order.id;
    world.must(&Verb::Access(Box::new(AccessVerb::Invite(order))));
    id
}

fn joining(token: JoinTokenId, name: &str) -> Joining {
    Joining {
        token,
        hash: "right".to_owned(),
        key: format!("print-of-{name}"),
        hello: NodeAnnouncement {
            facts: NodeFacts::default(),
            capacity: Resources::ZERO,
            ..hello(name, Resources::ZERO)
        },
    }
}

fn join(world: &mut World, joining: &Joining) -> Result<NodeId, Refusal> {
    let decision = world.submit(&Verb::Join(Box::new(joining.clone())))?;
    match decision.reply {
        Reply::Node { id, .. } => Ok(id),
        other => panic!("{other:?}"),
    }
}

fn announce(world: &mut World, key: &str, identity: &str) -> Result<NodeId, Refusal> {
    let said = NodeAnnouncement {
        key: Some(key_alias(&format!("print-of-{key}"))),
        ..hello(identity, resources(1000, 1024))
    };
    match world.submit(&Verb::Announce(Box::new(said)))?.reply {
        Reply::Node { id, .. } => Ok(id),
        other => panic!("{other:?}"),
    }
}

fn code<T: std::fmt::Debug>(refused: Result<T, Refusal>) -> Code {
    refused.expect_err("it is refused").code
}

#[test]
fn a_machine_that_joins_is_a_node_once_however_often_it_asks() {
    let mut world = World::with_nodes(0);
    let order = JoinTokenOrder {
        uses: Some(1),
        ..order(&world)
    };
    let token = invite(&mut world, order);
    let id = join(&mut world, &joining(token, "box")).unwrap();
    assert_eq!(join(&mut world, &joining(token, "box")), Ok(id));
    let node = world.state.node(id).unwrap();
    assert_eq!(
        (node.state(), &node.labels["zone"]),
        (NodeState::Joining, &"a".to_owned())
    );
    assert_eq!(
        code(join(&mut world, &joining(token, "other"))),
        Code::JoinTokenSpent
    );
    // Its session is told by its key.
    assert_eq!(announce(&mut world, "box", "box"), Ok(id));
    assert_eq!(world.state.nodes().len(), 1);
}

#[test]
fn a_token_that_is_wrong_over_or_revoked_lets_nobody_in() {
    let mut world = World::with_nodes(0);
    let order = order(&world);
    let token = invite(&mut world, order);
    let wrong = Joining {
        hash: "wrong".to_owned(),
        ..joining(token, "box")
    };
    assert_eq!(code(join(&mut world, &wrong)), Code::JoinTokenInvalid);
    world.must(&Verb::Access(Box::new(AccessVerb::RevokeJoin { token })));
    assert_eq!(
        code(join(&mut world, &joining(token, "box"))),
        Code::JoinTokenInvalid
    );
    let order = self::order(&world);
    let token = invite(&mut world, order);
    world.pass(3_601);
    assert_eq!(
        code(join(&mut world, &joining(token, "box"))),
        Code::JoinTokenSpent
    );
    assert_eq!(world.state.nodes().len(), 0);
    // The next one that is made clears it away.
    let order = self::order(&world);
    invite(&mut world, order);
    assert_eq!(world.state.join_tokens().len(), 1);
}

#[test]
fn a_node_that_waits_gets_nothing_until_it_is_let_in() {
    let mut world = World::with_nodes(0);
    let order = JoinTokenOrder {
        needs_approval: true,
        ..order(&world)
    };
    let token = invite(&mut world, order);
    let node = join(&mut world, &joining(token, "box")).unwrap();
    assert_eq!(world.state.node(node).unwrap().state(), NodeState::Pending);
    assert_eq!(code(announce(&mut world, "box", "box")), Code::NodePending);
    for verb in [
        Verb::Cordon {
            node,
            expect: Default::default(),
        },
        Verb::Uncordon {
            node,
            expect: Default::default(),
        },
        Verb::Drain {
            node,
            expect: Default::default(),
        },
        Verb::Undrain {
            node,
            expect: Default::default(),
        },
    ] {
        assert_eq!(code(world.submit(&verb)), Code::NodePending, "{verb:?}");
    }
    world.must(&Verb::Access(Box::new(AccessVerb::Approve { node })));
    assert_eq!(world.state.node(node).unwrap().admission, Admission::Open);
    assert_eq!(announce(&mut world, "box", "box"), Ok(node));
}

#[test]
fn a_key_speaks_for_its_own_node_and_no_other() {
    let mut world = World::with_nodes(0);
    let order = order(&world);
    let token = invite(&mut world, order);
    let one = join(&mut world, &joining(token, "one")).unwrap();
    let two = join(&mut world, &joining(token, "two")).unwrap();
    assert_eq!(code(announce(&mut world, "two", "one")), Code::Forbidden);
    assert_eq!(
        code(announce(&mut world, "nobody", "one")),
        Code::NodeKeyUnknown
    );
    assert_eq!(announce(&mut world, "one", "one"), Ok(one));
    let remove = Verb::RemoveNode {
        node: two,
        force: false,
        expect: Default::default(),
    };
    world.must(&remove);
    assert_eq!(code(announce(&mut world, "two", "two")), Code::NodeGone);
    assert_eq!(
        code(join(&mut world, &joining(token, "two"))),
        Code::NodeGone
    );
}

#[test]
fn a_node_from_before_there_were_keys_gets_one_and_its_copy_does_not() {
    let mut world = World::with_nodes(0);
    let old = world.join("box", resources(1000, 1024));
    let any = order(&world);
    let any = invite(&mut world, any);
    // What it calls itself was overheard: a token that lets anybody in proves nothing.
    let refused = join(&mut world, &joining(any, "box"));
    assert_eq!(code(refused), Code::NodeUnproven);
    let order = JoinTokenOrder {
        replaces: Some(old),
        ..order(&world)
    };
    let token = invite(&mut world, order);
    assert_eq!(join(&mut world, &joining(token, "box")), Ok(old));
    assert_eq!(announce(&mut world, "box", "box"), Ok(old));
    for token in [any, token] {
        let copy = Joining {
            key: "print-of-a-copy".to_owned(),
            ..joining(token, "box")
        };
        assert_eq!(code(join(&mut world, &copy)), Code::NodeIdentityInUse);
    }
}

fn introduced(name: &str, introduction: Introduction) -> Verb {
    Verb::Announce(Box::new(NodeAnnouncement {
        introduction,
        ..hello(name, resources(1000, 1024))
    }))
}

#[test]
fn a_node_without_login_is_known_later_by_the_first_key_that_it_told() {
    let mut world = World::with_nodes(0);
    let told = |key: &str| Introduction {
        key: Some(key_alias(&format!("print-of-{key}"))),
        ..Introduction::default()
    };
    world.must(&introduced("box", told("box")));
    let id = world.state.node_by_name("box").unwrap().id;
    world.must(&introduced("box", told("somebody-else")));
    world.must(&introduced("other", told("box")));
    assert_eq!(announce(&mut world, "box", "box"), Ok(id));
    assert_eq!(
        code(announce(&mut world, "somebody-else", "box")),
        Code::NodeKeyUnknown
    );
    // The one that told another's key has none.
    let order = order(&world);
    let token = invite(&mut world, order);
    let refused = join(&mut world, &joining(token, "other"));
    assert_eq!(code(refused), Code::NodeUnproven);
}

#[test]
fn what_tells_a_machine_from_its_copies_is_written_when_it_changes_and_kept_when_it_is_not_said() {
    let mut world = World::with_nodes(0);
    let of = |mark: Option<&str>| {
        let introduction = Introduction {
            machine: mark.map(str::to_owned),
            ..Introduction::default()
        };
        introduced("box", introduction)
    };
    let marked = |world: &World| world.state.node_by_name("box").unwrap().machine.clone();
    for (said, kept, is_written) in [
        (Some("one"), "one", true),
        (Some("one"), "one", false),
        (None, "one", false),
        (Some("two"), "two", true),
    ] {
        let decision = world.submit(&of(said)).unwrap();
        assert_eq!(marked(&world).as_deref(), Some(kept));
        assert_eq!(!decision.changes.is_empty(), is_written, "{said:?}");
    }
}

#[test]
fn a_node_from_a_copied_disk_says_so_and_takes_nothing_of_the_original() {
    let mut world = World::with_nodes(0);
    let order = order(&world);
    let token = invite(&mut world, order);
    let original = join(&mut world, &joining(token, "box")).unwrap();
    let mut copy = joining(token, "copy");
    copy.hello.name = "box".to_owned();
    copy.hello.introduction.copied_from = Some(original);
    let decision = world.submit(&Verb::Join(Box::new(copy))).unwrap();
    let events: Vec<_> = decision.changes.iter().filter_map(event).collect();
    assert!(events.contains(&EventKind::NodeCloned), "{events:?}");
    let node = world.state.node_by_name("box-2").unwrap();
    assert_eq!(node.labels["copied-from"], "box");
    assert_eq!(world.state.node(original).unwrap().name, "box");
    // Whoever says it of a node that nobody knows is a new node like others.
    let mut strange = joining(token, "strange");
    strange.hello.introduction.copied_from = Some(NodeId::mint(world.moment().now, 77));
    world.must(&Verb::Join(Box::new(strange)));
    let strange = world.state.node_by_name("strange").unwrap();
    assert!(!strange.labels.contains_key("copied-from"));
}

fn event(change: &Change) -> Option<EventKind> {
    match change {
        Change::Append(event) => Some(event.kind),
        _ => None,
    }
}

#[test]
fn a_machine_takes_anothers_place_with_its_name_and_labels_if_a_person_said_so() {
    let mut world = World::with_nodes(0);
    let first = order(&world);
    let token = invite(&mut world, first);
    let old = join(&mut world, &joining(token, "box")).unwrap();
    announce(&mut world, "box", "box").unwrap();
    let label = Verb::Label {
        node: old,
        labels: BTreeMap::from([("rack".to_owned(), Some("7".to_owned()))]),
        expect: Default::default(),
    };
    world.must(&label);
    let order = JoinTokenOrder {
        replaces: Some(old),
        uses: Some(1),
        ..order(&world)
    };
    let token = invite(&mut world, order);
    let new = join(&mut world, &joining(token, "fresh")).unwrap();
    assert!(world.state.node(old).unwrap().is_gone());
    let node = world.state.node(new).unwrap();
    assert_eq!(
        (node.name.as_str(), node.labels["rack"].as_str()),
        ("box", "7")
    );
}

#[test]
fn tokens_of_people_have_names_of_their_own() {
    let mut world = World::with_nodes(0);
    let issue = |world: &World, name: &str| {
        Verb::Access(Box::new(AccessVerb::Issue(TokenOrder {
            id: TokenId::mint(world.moment().now, world.moment().seed),
            name: name.to_owned(),
            role: AccessRole::Viewer,
            account: None,
            hash: "hash".to_owned(),
            expires_at: None,
        })))
    };
    let verb = issue(&world, "anna");
    world.must(&verb);
    let verb = issue(&world, "anna");
    assert_eq!(code(world.submit(&verb)), Code::TokenNameTaken);
    for name in ["", "a b", "ä", &"x".repeat(65)] {
        let verb = issue(&world, name);
        assert_eq!(code(world.submit(&verb)), Code::NameInvalid, "{name}");
    }
    let token = world.state.tokens().next().unwrap().id;
    world.must(&Verb::Access(Box::new(AccessVerb::Revoke { token })));
    let verb = Verb::Access(Box::new(AccessVerb::Revoke { token }));
    assert_eq!(code(world.submit(&verb)), Code::TokenNotFound);
    // No debug print tells a hash.
    let verb = issue(&world, "ben");
    assert!(!format!("{verb:?}").contains("\"hash\""));
}
