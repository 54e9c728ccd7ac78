//! Accounts, rented machines and their market, told as single stories. `rented_histories` draws random ones.

use std::collections::{BTreeMap, BTreeSet};

use hostler_fleet::{
    AccountVerb, Arrival, Expect, MachineReport, NodeAnnouncement, Notices, OldPrimary,
    PolicyChange, PoolPrice, PriceReport, RentedVerb, ReplicaChange, ReplicaOrder, Reply,
    SwitchOrder, SwitchReport, Verb,
};
use hostler_model::{
    AccountId, AccountStatus, AliasKey, Code, CommandKind, CommandState, Contract, Market, Money,
    Node, NodeFacts, NodeId, Policy, PoolId, QuoteSource, Rental, ReplicaId, ReplicaKind,
    ReplicaStatus, Resources, Role, Standing, SwitchEnd, SwitchPrices, SwitchStamps, SwitchTarget,
    Timestamp, Token,
};

use crate::invariants::rebuilt;
use crate::world::World;

pub(crate) fn open(world: &mut World, name: &str) -> AccountId {
    match world.must(&account(AccountVerb::Open {
        name: name.to_owned(),
        email: None,
        token: Token::new(format!("token-{name}")),
    })) {
        Reply::Account { id } => id,
        other => panic!("answered with {other:?}"),
    }
}

pub(crate) fn account(verb: AccountVerb) -> Verb {
    Verb::Account(Box::new(verb))
}

pub(crate) fn rented(node: NodeId, verb: RentedVerb) -> Verb {
    Verb::Rented {
        node,
        verb: Box::new(verb),
    }
}

pub(crate) fn on(machine: &str) -> MachineReport {
    MachineReport {
        id: Some(machine.to_owned()),
        instance_type: Some("t3.medium".to_owned()),
        region: Some("ap-south-1".to_owned()),
        zone: Some("ap-south-1a".to_owned()),
        market: Some(Market::Spot),
        image: Some("ami-1".to_owned()),
        pool: None,
        baseline: Money::from_dollars(0.1),
    }
}

pub(crate) fn arrival(account: AccountId, logical: &str, machine: &str) -> Verb {
    Verb::Rent(Box::new(Arrival {
        account,
        hello: NodeAnnouncement {
            key: None,
            introduction: Default::default(),
            identity: AliasKey {
                contract: Contract::Spot,
                scope: format!("agent/{account}"),
                foreign: logical.to_owned(),
            },
            contract: Contract::Spot,
            name: logical.to_owned(),
            facts: NodeFacts::default(),
            capacity: Resources::ZERO,
            labels: BTreeMap::new(),
            instance: None,
        },
        machine: on(machine),
    }))
}

pub(crate) fn arrive(
    world: &mut World,
    account: AccountId,
    logical: &str,
    machine: &str,
) -> NodeId {
    match world.must(&arrival(account, logical, machine)) {
        Reply::Node { id, .. } => id,
        other => panic!("answered with {other:?}"),
    }
}

pub(crate) fn remove(node: NodeId) -> Verb {
    Verb::RemoveNode {
        node,
        force: true,
        expect: Expect::Any,
    }
}

pub(crate) fn refused(world: &mut World, verb: &Verb) -> Code {
    let before = world.state.clone();
    let refusal = world.submit(verb).expect_err("a refusal");
    assert_eq!(world.state, before, "a refusal changes nothing");
    refusal.code
}

pub(crate) fn changes(world: &mut World, verb: &Verb) -> usize {
    world.submit(verb).expect("no refusal").changes.len()
}

pub(crate) fn rental(world: &World, node: NodeId) -> &Rental {
    world.state.rental(node).expect("a rental")
}

pub(crate) fn node(world: &World, id: NodeId) -> &Node {
    world.state.node(id).expect("a node")
}

pub(crate) fn primary(world: &World, node: NodeId) -> &str {
    rental(world, node).primary().map_or("", |it| &it.id)
}

pub(crate) fn pool(zone: &str) -> PoolId {
    PoolId::of("t3.medium", zone).expect("a pool")
}

pub(crate) fn prices(node: NodeId, zones: &[(&str, f64)]) -> Verb {
    let price = |(zone, dollars): &(&str, f64)| PoolPrice {
        pool: pool(zone),
        instance_type: "t3.medium".to_owned(),
        zone: (*zone).to_owned(),
        spot: Money::from_dollars(*dollars),
    };
    Verb::Quote(Box::new(PriceReport {
        node,
        region: "ap-south-1".to_owned(),
        on_demand: Money::from_dollars(0.1).map(|it| ("t3.medium".to_owned(), it)),
        pools: zones.iter().map(price).collect(),
        source: QuoteSource::Primary,
    }))
}

pub(crate) fn switch(from: &str, to: &str) -> SwitchReport {
    let end = |machine: &str| SwitchEnd {
        machine: machine.to_owned(),
        instance_type: "t3.medium".to_owned(),
        market: Market::Spot,
        ..SwitchEnd::default()
    };
    SwitchReport {
        from: end(from),
        to: end(to),
        trigger: "manual".to_owned(),
        command: None,
        prices: SwitchPrices {
            on_demand: Money::from_dollars(0.1),
            old_spot: None,
            new_spot: Money::from_dollars(0.03),
        },
        stamps: SwitchStamps::default(),
    }
}

pub(crate) fn switched(node: NodeId, report: SwitchReport) -> Verb {
    rented(node, RentedVerb::Switched(Box::new(report)))
}

pub(crate) fn policy(node: NodeId, change: PolicyChange) -> Verb {
    rented(node, RentedVerb::SetPolicy(change))
}

pub(crate) fn manual_on() -> PolicyChange {
    PolicyChange {
        manual_replica: Some(true),
        ..PolicyChange::default()
    }
}

pub(crate) fn replica_in(zone: &str) -> RentedVerb {
    RentedVerb::AddReplica(Box::new(ReplicaOrder {
        kind: ReplicaKind::Manual,
        pool: pool(zone),
        author: "ada".to_owned(),
        tags: "{}".to_owned(),
        signal: None,
    }))
}

/// A fleet with one account and one agent on `i-1`.
pub(crate) fn one() -> (World, AccountId, NodeId) {
    let mut world = World::default();
    world.must(&Verb::Found);
    let ada = open(&mut world, "ada");
    let node = arrive(&mut world, ada, "agent-box-1", "i-1");
    (world, ada, node)
}

#[test]
fn the_same_word_is_the_same_agent_wherever_it_runs() {
    let (mut world, ada, node) = one();
    assert_eq!(changes(&mut world, &arrival(ada, "agent-box-1", "i-1")), 0);
    assert_eq!(arrive(&mut world, ada, "agent-box-1", "i-2"), node);
    assert_eq!(primary(&world, node), "i-2");
    let instance = self::node(&world, node)
        .instance
        .clone()
        .expect("a machine");
    assert_eq!(
        (instance.id.as_str(), instance.market),
        ("i-2", Market::Spot)
    );
    let left = rental(&world, node).machine("i-1").expect("kept");
    assert_eq!(left.role, Role::Left);
    assert_ne!(arrive(&mut world, ada, "agent-box-2", "i-3"), node);
    let bob = open(&mut world, "bob");
    assert_ne!(arrive(&mut world, bob, "agent-box-1", "i-4"), node);
}

#[test]
fn a_machine_that_was_left_does_not_take_its_node_back() {
    let (mut world, ada, node) = one();
    arrive(&mut world, ada, "agent-box-1", "i-2");
    assert_eq!(
        refused(&mut world, &arrival(ada, "agent-box-1", "i-1")),
        Code::StaleReport
    );
    let moved = rented(node, RentedVerb::Moved(on("i-1")));
    assert_eq!(refused(&mut world, &moved), Code::StaleReport);
    let back = switched(node, switch("i-2", "i-1"));
    assert_eq!(refused(&mut world, &back), Code::StaleReport);
    assert_eq!(primary(&world, node), "i-2");
}

#[test]
fn what_was_removed_stays_removed() {
    let (mut world, ada, node) = one();
    world.must(&prices(node, &[("ap-south-1b", 0.02)]));
    world.must(&policy(node, manual_on()));
    world.must(&rented(node, replica_in("ap-south-1b")));
    world.must(&remove(node));
    let gone = rental(&world, node);
    assert!(gone.standing_by().next().is_none() && gone.primary().is_none());
    assert_eq!(
        gone.policy,
        Policy {
            terminate_wait_seconds: 300,
            ..Policy::OFF
        }
    );
    for verb in [
        arrival(ada, "agent-box-1", "i-9"),
        rented(node, RentedVerb::Moved(on("i-9"))),
        rented(node, RentedVerb::Stands(Standing::Failing)),
        policy(node, manual_on()),
        prices(node, &[("ap-south-1c", 0.02)]),
        // What a beat that was under way asks for.
        Verb::Returned { node },
        Verb::Resume {
            node,
            units: Vec::new(),
        },
        Verb::Silent { node },
    ] {
        assert_eq!(refused(&mut world, &verb), Code::NodeGone, "{verb:?}");
    }
    assert_ne!(arrive(&mut world, ada, "agent-box-9", "i-9"), node);
}

/// An order to move to on-demand.
fn ordered(node: NodeId, priority: u32, request: Option<&str>) -> Verb {
    rented(
        node,
        RentedVerb::OrderSwitch(Box::new(SwitchOrder {
            to: SwitchTarget::OnDemand,
            reason: String::new(),
            is_by_hand: false,
            priority,
            author: "ada".to_owned(),
            request: request.map(str::to_owned),
        })),
    )
}

#[test]
fn a_switch_is_ordered_as_the_settings_allow_and_a_person_orders_it_all_the_same() {
    let (mut world, _, node) = one();
    let order = |to: SwitchTarget, is_by_hand| {
        rented(
            node,
            RentedVerb::OrderSwitch(Box::new(SwitchOrder {
                to,
                reason: String::new(),
                is_by_hand,
                priority: 5,
                author: "ada".to_owned(),
                request: None,
            })),
        )
    };
    let here = SwitchTarget::Spot(pool("ap-south-1a"));
    assert_eq!(world.must(&order(here.clone(), false)), Reply::Done);
    let setting = |change| policy(node, change);
    world.must(&setting(PolicyChange {
        auto_switch: Some(false),
        auto_terminate: Some(false),
        ..PolicyChange::default()
    }));
    let to_demand = order(SwitchTarget::OnDemand, false);
    assert_eq!(refused(&mut world, &to_demand), Code::Forbidden);
    world.must(&setting(PolicyChange {
        enabled: Some(false),
        ..PolicyChange::default()
    }));
    assert_eq!(refused(&mut world, &to_demand), Code::NodeStateConflict);
    let Reply::Command { id } = world.must(&order(here, true)) else {
        panic!("a command");
    };
    let command = world.state.command(id).expect("kept");
    let CommandKind::Switch {
        machine,
        terminate_wait_seconds,
        ..
    } = &command.kind
    else {
        panic!("a switch");
    };
    assert_eq!(machine.as_deref(), Some("i-1"));
    assert_eq!(*terminate_wait_seconds, Some(0), "its machine is kept");
}

#[test]
fn a_request_made_twice_is_one_order_and_orders_stand_in_line() {
    let (mut world, _, node) = one();
    let order = |priority, request| ordered(node, priority, request);
    let first = world.must(&order(5, Some("r1")));
    assert_eq!(world.must(&order(9, Some("r1"))), first);
    let Reply::Command { id } = first else {
        panic!("a command");
    };
    world.must(&Verb::Acknowledge {
        node,
        command: id,
        result: Ok("done".to_owned()),
    });
    let again = order(9, Some("r1"));
    assert_eq!(
        world.must(&again),
        Reply::Command { id },
        "also once it is done"
    );
    // At one moment: age alone still tells which came first.
    let moment = world.moment();
    let mut state = world.state.clone();
    for _ in 0..3 {
        let decided =
            hostler_fleet::decide(&state, &moment, &crate::world::actor(), &order(5, None));
        state.apply_all(&decided.expect("an order").changes);
    }
    let ages: BTreeSet<Timestamp> = state.commands_of(node).map(|it| it.created_at).collect();
    assert_eq!(ages.len(), 4);
    for _ in 0..256 {
        world.must(&order(5, None));
    }
    assert_eq!(refused(&mut world, &order(5, None)), Code::Overloaded);
    world.must(&remove(node));
    assert!(
        world
            .state
            .commands_of(node)
            .all(|command| command.state != CommandState::Pending)
    );
}

#[test]
fn switching_by_itself_and_a_replica_by_hand_exclude_each_other() {
    let (mut world, _, node) = one();
    world.must(&prices(node, &[("ap-south-1b", 0.02)]));
    assert_eq!(
        refused(&mut world, &rented(node, replica_in("ap-south-1b"))),
        Code::ReplicaStateConflict
    );
    world.must(&policy(node, manual_on()));
    assert!(!rental(&world, node).policy.auto_switch);
    world.must(&rented(node, replica_in("ap-south-1b")));
    assert_eq!(
        refused(&mut world, &rented(node, replica_in("ap-south-1b"))),
        Code::ReplicaStateConflict,
        "one at a time"
    );
    let auto = PolicyChange {
        auto_switch: Some(true),
        ..PolicyChange::default()
    };
    world.must(&policy(node, auto));
    let after = rental(&world, node);
    assert!(after.policy.auto_switch && !after.policy.manual_replica);
    assert_eq!(after.replicas[0].status, ReplicaStatus::Terminated);
    assert_eq!(changes(&mut world, &policy(node, auto)), 0);
    let both = PolicyChange {
        manual_replica: Some(true),
        ..auto
    };
    assert_eq!(refused(&mut world, &policy(node, both)), Code::BadRequest);
}

#[test]
fn a_switch_is_counted_once_and_saves_what_it_says() {
    let (mut world, ada, node) = one();
    let mut report = switch("i-1", "i-2");
    report.stamps.old_ended = Some(Timestamp::from_millis(1));
    world.must(&switched(node, report.clone()));
    assert_eq!(primary(&world, node), "i-2");
    let old = rental(&world, node).machine("i-1").expect("kept");
    assert_eq!(old.role, Role::Ended, "it may be ended and has been");
    assert_eq!(changes(&mut world, &switched(node, report)), 0);
    assert_eq!(world.state.switches_of(node).count(), 1);
    let saved = &world.state.account(ada).expect("there").savings;
    assert_eq!(
        saved.total,
        Money::from_dollars(0.07 * 24.0).expect("money")
    );
    world.must(&switched(node, switch("i-2", "i-3")));
    let old = rental(&world, node).machine("i-2").expect("kept");
    assert_eq!(old.role, Role::Left, "nobody said that it has ended");
    assert_eq!(
        refused(&mut world, &switched(node, switch("i-3", "i-3"))),
        Code::BadRequest
    );
}

#[test]
fn a_replica_goes_its_way_and_takes_over() {
    let (mut world, _, node) = one();
    world.must(&prices(node, &[("ap-south-1b", 0.02)]));
    world.must(&policy(node, manual_on()));
    let Reply::Replica { id } = world.must(&rented(node, replica_in("ap-south-1b"))) else {
        panic!("a replica");
    };
    let change = |change| {
        rented(
            node,
            RentedVerb::ChangeReplica {
                replica: id,
                change,
            },
        )
    };
    let promote = rented(
        node,
        RentedVerb::Promote {
            replica: id,
            old: OldPrimary::Demote,
        },
    );
    assert_eq!(refused(&mut world, &promote), Code::ReplicaStateConflict);
    let told = ReplicaChange {
        machine: Some("i-7".to_owned()),
        status: Some(ReplicaStatus::Ready),
        ..ReplicaChange::default()
    };
    world.must(&change(told.clone()));
    assert_eq!(changes(&mut world, &change(told)), 0);
    assert_eq!(
        rental(&world, node).machine("i-7").map(|it| it.role),
        Some(Role::Replica)
    );
    world.must(&promote);
    assert_eq!(primary(&world, node), "i-7");
    assert_eq!(
        rental(&world, node).machine("i-1").map(|it| it.role),
        Some(Role::Left)
    );
    let end = rented(node, RentedVerb::EndReplica { replica: id });
    assert_eq!(refused(&mut world, &end), Code::ReplicaStateConflict);
    let unknown = rented(
        node,
        RentedVerb::EndReplica {
            replica: ReplicaId::MOST,
        },
    );
    assert_eq!(refused(&mut world, &unknown), Code::ReplicaNotFound);
}

#[test]
fn the_best_replica_saves_a_node_whose_machine_is_taken() {
    let (mut world, _, node) = one();
    let taken = rented(
        node,
        RentedVerb::Taken {
            machine: "i-1".to_owned(),
            due_at: None,
            replica: None,
        },
    );
    assert_eq!(world.must(&taken), Reply::Done, "nothing stands by");
    world.must(&prices(node, &[("ap-south-1b", 0.02)]));
    world.must(&policy(node, manual_on()));
    let Reply::Replica { id } = world.must(&rented(node, replica_in("ap-south-1b"))) else {
        panic!("a replica");
    };
    assert_eq!(
        world.must(&taken),
        Reply::Done,
        "it has not come far enough"
    );
    let change = ReplicaChange {
        machine: Some("i-7".to_owned()),
        status: Some(ReplicaStatus::Syncing),
        ..ReplicaChange::default()
    };
    world.must(&rented(
        node,
        RentedVerb::ChangeReplica {
            replica: id,
            change,
        },
    ));
    assert_eq!(world.must(&taken), Reply::Replica { id });
    assert_eq!(primary(&world, node), "i-7");
    assert_eq!(rental(&world, node).interruptions.len(), 3);
    assert_eq!(world.must(&taken), Reply::Replica { id }, "told again");
    assert_eq!(changes(&mut world, &taken), 0);
    assert_eq!(primary(&world, node), "i-7");
}

fn taken(node: NodeId, machine: &str) -> Verb {
    rented(
        node,
        RentedVerb::Taken {
            machine: machine.to_owned(),
            due_at: None,
            replica: None,
        },
    )
}

/// Orders a replica and tells its machine.
fn ready_on(world: &mut World, node: NodeId, machine: &str) -> ReplicaId {
    let Reply::Replica { id } = world.must(&rented(node, replica_in("ap-south-1b"))) else {
        panic!("a replica");
    };
    let change = ReplicaChange {
        machine: Some(machine.to_owned()),
        status: Some(ReplicaStatus::Ready),
        ..ReplicaChange::default()
    };
    let replica = id;
    world.must(&rented(node, RentedVerb::ChangeReplica { replica, change }));
    id
}

#[test]
fn only_the_machine_that_the_node_is_on_can_be_taken_from_it() {
    let (mut world, _, node) = one();
    world.must(&prices(node, &[("ap-south-1b", 0.02)]));
    world.must(&policy(node, manual_on()));
    world.must(&switched(node, switch("i-1", "i-2")));
    let replica = ready_on(&mut world, node, "i-7");
    let left = taken(node, "i-1");
    assert_eq!(refused(&mut world, &left), Code::StaleReport);
    assert_eq!(world.must(&taken(node, "i-7")), Reply::Done);
    let after = rental(&world, node);
    assert_eq!(primary(&world, node), "i-2", "the node stays where it is");
    let failed = after.replica(replica).expect("kept");
    assert_eq!(failed.status, ReplicaStatus::Failed);
    assert!(failed.error.is_some());
    assert_eq!(after.machine("i-7").map(|it| it.role), Some(Role::Left));
    assert_eq!(
        changes(&mut world, &rented(node, replica_in("ap-south-1b"))),
        2
    );
}

#[test]
fn a_machine_that_was_left_is_handed_out_after_its_time_and_once_in_a_while() {
    let (mut world, _, node) = one();
    world.must(&prices(node, &[("ap-south-1b", 0.02)]));
    world.must(&policy(node, manual_on()));
    world.must(&switched(node, switch("i-1", "i-2")));
    let ask = rented(node, RentedVerb::OrderEnds);
    let machines = |ids: &[&str]| Reply::Machines(ids.iter().map(|&id| id.to_owned()).collect());
    assert_eq!(changes(&mut world, &ask), 0, "it is kept for a while");
    world.pass(300);
    assert_eq!(world.must(&ask), machines(&["i-1"]));
    assert_eq!(
        world.must(&ask),
        machines(&[]),
        "it was handed out just now"
    );
    world.pass(300);
    assert_eq!(world.must(&ask), machines(&["i-1"]), "nobody has ended it");
    // What stood by need not wait; where machines are kept, none is ended.
    let replica = ready_on(&mut world, node, "i-7");
    world.must(&rented(node, RentedVerb::EndReplica { replica }));
    let change = |change| policy(node, change);
    let kept = PolicyChange {
        auto_terminate: Some(false),
        ..PolicyChange::default()
    };
    world.must(&change(kept));
    assert_eq!(world.must(&ask), machines(&[]));
    let ended = PolicyChange {
        auto_terminate: Some(true),
        terminate_wait_seconds: Some(0),
        ..PolicyChange::default()
    };
    world.must(&change(ended));
    world.pass(600);
    assert_eq!(
        world.must(&ask),
        machines(&["i-7"]),
        "0 keeps what was left"
    );
}

#[test]
fn prices_fall_into_five_minutes_and_the_first_of_equals_stays() {
    let (mut world, _, node) = one();
    world.must(&prices(
        node,
        &[("ap-south-1a", 0.03), ("ap-south-1b", 0.02)],
    ));
    let again = prices(node, &[("ap-south-1a", 0.03), ("ap-south-1b", 0.02)]);
    assert_eq!(
        changes(&mut world, &again),
        0,
        "the same again is nothing new"
    );
    world.must(&prices(node, &[("ap-south-1a", 0.05)]));
    let a = pool("ap-south-1a");
    assert_eq!(
        world.state.pool(&a).and_then(|it| it.spot),
        Money::from_dollars(0.05)
    );
    let quotes: Vec<_> = world.state.quotes(&a).collect();
    assert_eq!(quotes.len(), 1);
    assert_eq!(Some(quotes[0].spot), Money::from_dollars(0.03));
    assert_eq!(quotes[0].on_demand, Money::from_dollars(0.1));
    let many = vec![("ap-south-1a", 0.03); 501];
    assert_eq!(
        refused(&mut world, &prices(node, &many)),
        Code::BodyTooLarge
    );
}

#[test]
fn accounts_are_opened_once_and_closed_with_their_agents() {
    let (mut world, ada, node) = one();
    let twice = account(AccountVerb::Open {
        name: "ADA ".to_owned(),
        email: None,
        token: Token::new("token-x"),
    });
    assert_eq!(refused(&mut world, &twice), Code::AccountNameTaken);
    let renew = account(AccountVerb::RenewToken {
        account: ada,
        token: Token::new("token-new"),
    });
    world.must(&renew);
    assert!(world.state.account_by_token("token-ada").is_none());
    assert_eq!(
        world.state.account_by_token("token-new").map(|it| it.id),
        Some(ada)
    );
    let suspend = account(AccountVerb::SetStatus {
        account: ada,
        status: AccountStatus::Suspended,
    });
    world.must(&suspend);
    assert_eq!(
        refused(&mut world, &arrival(ada, "agent-box-5", "i-5")),
        Code::Forbidden
    );
    let read = account(AccountVerb::MarkRead {
        account: ada,
        notices: Notices::One(7),
    });
    world.must(&read);
    assert_eq!(changes(&mut world, &read), 0);
    world.must(&account(AccountVerb::Close { account: ada }));
    assert!(world.state.account(ada).is_none() && self::node(&world, node).is_gone());
    assert_eq!(
        refused(&mut world, &arrival(ada, "agent-box-5", "i-5")),
        Code::AccountNotFound
    );
}

#[test]
fn what_piles_up_is_forgotten_by_count() {
    let (mut world, _, node) = one();
    for number in 1..=5_050 {
        let (from, to) = (format!("i-{number}"), format!("i-{}", number + 1));
        world.must(&switched(node, switch(&from, &to)));
    }
    assert!(rental(&world, node).machines.len() <= Rental::MACHINES);
    for round in 0..12 {
        let zones: Vec<String> = (0..50).map(|zone| format!("z{round}-{zone}")).collect();
        let zones: Vec<(&str, f64)> = zones.iter().map(|zone| (zone.as_str(), 0.1)).collect();
        world.must(&prices(node, &zones));
    }
    while let Reply::Touched { more: true, .. } = world.must(&Verb::Prune { limit: 64 }) {}
    assert_eq!(world.state.switches().len(), 5_000);
    assert_eq!(world.state.pools().len(), 512);
    assert!(world.state.quotes(&pool("z0-0")).next().is_none());
    assert!(world.state.quotes(&pool("z11-0")).next().is_some());
    assert_eq!(rebuilt(&world.state), world.state);
}
