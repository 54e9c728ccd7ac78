//! Random histories of accounts, rented machines and their market.

use std::collections::BTreeSet;

use hostler_fleet::{
    AccountVerb, Change, Notices, OldPrimary, PolicyChange, RentedVerb, ReplicaChange, State,
    SwitchOrder, Verb,
};
use hostler_model::{
    AccountStatus, AliasKey, Contract, NodeId, Rental, ReplicaId, ReplicaKind, ReplicaStatus, Role,
    SwitchTarget, Timestamp, Token,
};
use proptest::prelude::*;

use crate::invariants::check_state;
use crate::rented::*;
use crate::world::World;

/// What happens next; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Arrive {
        agent: u8,
        machine: u8,
    },
    Move {
        agent: u8,
        machine: u8,
    },
    Beside {
        agent: u8,
        machine: u8,
    },
    Switch {
        agent: u8,
        from: u8,
        to: u8,
        ended: bool,
    },
    Policy {
        agent: u8,
        bits: u8,
    },
    Price {
        agent: u8,
        zone: u8,
        price: u8,
    },
    Replica {
        agent: u8,
        zone: u8,
        is_manual: bool,
    },
    Change {
        agent: u8,
        machine: Option<u8>,
        status: u8,
    },
    Promote {
        agent: u8,
        keeps: bool,
    },
    End {
        agent: u8,
        how: u8,
        machine: u8,
    },
    Order {
        agent: u8,
        request: u8,
    },
    Remove {
        agent: u8,
    },
    Account {
        how: u8,
    },
    Prune,
}

fn step() -> impl Strategy<Value = Step> {
    let agent = 0..3_u8;
    let machine = 0..5_u8;
    let two = (agent.clone(), machine.clone());
    prop_oneof![
        4 => two.clone().prop_map(|(agent, machine)| Step::Arrive { agent, machine }),
        3 => two.clone().prop_map(|(agent, machine)| Step::Move { agent, machine }),
        1 => two.clone().prop_map(|(agent, machine)| Step::Beside { agent, machine }),
        3 => (two, 0..5_u8, any::<bool>())
            .prop_map(|((agent, from), to, ended)| Step::Switch { agent, from, to, ended }),
        3 => (agent.clone(), any::<u8>()).prop_map(|(agent, bits)| Step::Policy { agent, bits }),
        2 => (agent.clone(), 0..3_u8, 1..9_u8)
            .prop_map(|(agent, zone, price)| Step::Price { agent, zone, price }),
        3 => (agent.clone(), 0..3_u8, any::<bool>())
            .prop_map(|(agent, zone, is_manual)| Step::Replica { agent, zone, is_manual }),
        4 => (agent.clone(), prop::option::of(machine.clone()), 0..6_u8)
            .prop_map(|(agent, machine, status)| Step::Change { agent, machine, status }),
        2 => (agent.clone(), any::<bool>()).prop_map(|(agent, keeps)| Step::Promote { agent, keeps }),
        3 => (agent.clone(), 0..6_u8, machine).prop_map(|(agent, how, machine)| Step::End { agent, how, machine }),
        1 => (agent.clone(), 0..3_u8).prop_map(|(agent, request)| Step::Order { agent, request }),
        1 => agent.prop_map(|agent| Step::Remove { agent }),
        1 => (0..4_u8).prop_map(|how| Step::Account { how }),
        1 => Just(Step::Prune),
    ]
}

fn verb_of(world: &World, step: &Step) -> Option<Verb> {
    let ada = world.state.accounts().next().map(|account| account.id);
    let key = |agent: u8| AliasKey {
        contract: Contract::Spot,
        scope: ada.map_or_else(String::new, |ada| format!("agent/{ada}")),
        foreign: format!("agent-{agent}"),
    };
    let at = |agent: u8| world.state.node_by_alias(&key(agent)).map(|node| node.id);
    let name = |machine: u8| format!("i-{machine}");
    let newest = |node: NodeId| world.state.rental(node)?.replicas.last().map(|it| it.id);
    Some(match step {
        Step::Arrive { agent, machine } => {
            arrival(ada?, &format!("agent-{agent}"), &name(*machine))
        }
        Step::Move { agent, machine } => {
            rented(at(*agent)?, RentedVerb::Moved(on(&name(*machine))))
        }
        Step::Beside { agent, machine } => {
            rented(at(*agent)?, RentedVerb::Beside(on(&name(*machine))))
        }
        Step::Switch {
            agent,
            from,
            to,
            ended,
        } => {
            let mut report = switch(&name(*from), &name(*to));
            report.stamps.old_ended = ended.then(|| Timestamp::from_millis(1));
            switched(at(*agent)?, report)
        }
        Step::Policy { agent, bits } => {
            let bit = |at: u8| (bits >> at & 1 == 1).then_some(bits >> (at + 1) & 1 == 1);
            let change = PolicyChange {
                auto_switch: bit(0),
                manual_replica: bit(2),
                auto_terminate: bit(4),
                enabled: bit(6),
                ..PolicyChange::default()
            };
            policy(at(*agent)?, change)
        }
        Step::Price { agent, zone, price } => prices(
            at(*agent)?,
            &[(&format!("z{zone}"), f64::from(*price) / 100.0)],
        ),
        Step::Replica {
            agent,
            zone,
            is_manual,
        } => {
            let mut order = replica_in(&format!("z{zone}"));
            if let RentedVerb::AddReplica(order) = &mut order
                && !is_manual
            {
                order.kind = ReplicaKind::AutomaticRebalance;
                order.signal = Some((hostler_model::Signal::Rebalance, None));
            }
            rented(at(*agent)?, order)
        }
        Step::Change {
            agent,
            machine,
            status,
        } => {
            let statuses = [
                ReplicaStatus::Launching,
                ReplicaStatus::Syncing,
                ReplicaStatus::Ready,
                ReplicaStatus::Failed,
                ReplicaStatus::Terminated,
                ReplicaStatus::Promoted,
            ];
            let node = at(*agent)?;
            let change = ReplicaChange {
                machine: machine.map(name),
                status: Some(statuses[usize::from(*status)]),
                ..ReplicaChange::default()
            };
            let replica = newest(node)?;
            rented(node, RentedVerb::ChangeReplica { replica, change })
        }
        Step::Promote { agent, keeps } => {
            let node = at(*agent)?;
            let old = if *keeps {
                OldPrimary::Keep
            } else {
                OldPrimary::Demote
            };
            let replica = newest(node)?;
            rented(node, RentedVerb::Promote { replica, old })
        }
        Step::End {
            agent,
            how,
            machine,
        } => end_verb(at(*agent)?, (*how, name(*machine)), newest(at(*agent)?))?,
        Step::Order { agent, request } => rented(
            at(*agent)?,
            RentedVerb::OrderSwitch(Box::new(SwitchOrder {
                to: SwitchTarget::OnDemand,
                reason: String::new(),
                is_by_hand: *request == 0,
                priority: 1,
                author: String::new(),
                request: Some(request.to_string()),
            })),
        ),
        Step::Remove { agent } => remove(at(*agent)?),
        Step::Account { how } => account(match how {
            0 => AccountVerb::Open {
                name: "ada".to_owned(),
                email: None,
                token: Token::new("token-ada"),
            },
            1 => AccountVerb::Close { account: ada? },
            2 => AccountVerb::SetStatus {
                account: ada?,
                status: AccountStatus::Active,
            },
            _ => AccountVerb::MarkRead {
                account: ada?,
                notices: Notices::Through(3),
            },
        }),
        Step::Prune => Verb::Prune { limit: 5 },
    })
}

fn end_verb(
    node: NodeId,
    (how, machine): (u8, String),
    replica: Option<ReplicaId>,
) -> Option<Verb> {
    Some(rented(
        node,
        match how {
            0 => RentedVerb::Ends {
                reason: "why".to_owned(),
            },
            1 => RentedVerb::OrderEnds,
            2 => RentedVerb::Ended {
                machine,
                error: None,
            },
            3 => RentedVerb::Taken {
                machine,
                due_at: None,
                replica,
            },
            4 => RentedVerb::AtRisk { machine },
            _ => RentedVerb::EndReplica { replica: replica? },
        },
    ))
}

/// What must hold of rented machines at any time.
fn check_rentals(state: &State) {
    for rental in state.rentals() {
        let node = state.node(rental.node).expect("its node is kept");
        let primaries: Vec<_> = rental
            .machines
            .iter()
            .filter(|machine| machine.role == Role::Primary)
            .collect();
        assert!(primaries.len() <= 1, "{rental:?}");
        let policy = rental.policy;
        assert!(!(policy.auto_switch && policy.manual_replica));
        assert!(rental.standing_by().count() <= 1, "{rental:?}");
        assert!(rental.machines.len() <= Rental::MACHINES);
        assert!(rental.replicas.len() <= Rental::REPLICAS);
        assert!(rental.interruptions.len() <= Rental::INTERRUPTIONS);
        let ids: BTreeSet<&str> = rental.machines.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids.len(), rental.machines.len(), "each machine once");
        if node.is_gone() {
            assert!(!policy.enabled && !policy.auto_switch && primaries.is_empty());
            assert!(rental.standing_by().next().is_none());
        } else {
            assert!(state.account(rental.account).is_some());
            if let Some(primary) = primaries.first() {
                let instance = node.instance.as_ref().expect("a machine");
                assert_eq!(*instance, primary.instance());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        rng_seed: prop::test_runner::RngSeed::Fixed(13),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_of_rented_machines_keeps_the_invariants(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::default();
        world.must(&Verb::Found);
        open(&mut world, "ada");
        for step in &steps {
            let Some(verb) = verb_of(&world, step) else { continue };
            let before = world.state.clone();
            let first = world.decide(&verb);
            let decision = world.submit(&verb);
            prop_assert_eq!(&first, &decision, "the same input gives the same answer");
            match decision {
                Ok(decision) => {
                    let mut twice = world.state.clone();
                    twice.apply_all(&decision.changes);
                    prop_assert_eq!(&twice, &world.state, "applying twice is as once");
                    let of_gone = |change: &Change| match change {
                        Change::PutRental(rental) => before.node(rental.node).is_some_and(|it| it.is_gone()),
                        _ => false,
                    };
                    prop_assert!(!decision.changes.iter().any(of_gone), "{verb:?} of a node that is gone");
                }
                Err(refusal) => {
                    prop_assert!(!refusal.sentence.is_empty());
                    prop_assert_eq!(&before, &world.state);
                }
            }
            check_rentals(&world.state);
        }
        check_state(&world);
        prop_assert_eq!(State::from_changes(&world.log), world.state);
    }
}
