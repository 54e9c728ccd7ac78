//! Secrets as the core decides about them: sealed text in, records out, and who names what.

use std::collections::BTreeMap;

use hostler_fleet::{Expect, Reply, Resealed, State, Verb};
use hostler_model::spec::{SecretUse, WorkloadSpec};
use hostler_model::{Code, Contract, Sealed};
use proptest::prelude::*;

use crate::world::{World, hello, resources, spec};

fn sealed(key: &str, text: &str) -> Sealed {
    Sealed {
        key: key.to_owned(),
        text: text.to_owned(),
    }
}

fn put(name: &str, version: u64) -> Verb {
    Verb::PutSecret {
        name: name.to_owned(),
        version,
        sealed: sealed("k1", &format!("{name} {version}")),
        expect: Expect::Any,
    }
}

fn remove(name: &str) -> Verb {
    Verb::RemoveSecret {
        name: name.to_owned(),
        expect: Expect::Any,
    }
}

fn naming(name: &str, secrets: &[&str]) -> WorkloadSpec {
    let mut spec = spec(name, 1);
    spec.secrets = secrets.iter().map(|secret| usage(secret)).collect();
    spec
}

fn usage(secret: &str) -> SecretUse {
    SecretUse {
        name: secret.to_owned(),
        env: None,
        file: None,
        mode: None,
    }
}

fn code(world: &mut World, verb: &Verb) -> Code {
    let before = world.state.clone();
    let refusal = world.submit(verb).expect_err("it is refused");
    assert_eq!(world.state, before);
    refusal.code
}

#[test]
fn versions_count_up_and_a_value_for_another_version_is_refused() {
    let mut world = World::with_nodes(0);
    assert_eq!(world.must(&put("db", 1)), Reply::Secret { version: 1 });
    assert_eq!(code(&mut world, &put("db", 1)), Code::RevisionConflict);
    assert_eq!(code(&mut world, &put("db", 3)), Code::RevisionConflict);
    assert_eq!(world.must(&put("db", 2)), Reply::Secret { version: 2 });
    assert_eq!(code(&mut world, &put("a/b", 1)), Code::NameInvalid);
    let seen = Verb::PutSecret {
        name: "db".to_owned(),
        version: 3,
        sealed: sealed("k1", "x"),
        expect: Expect::Revision(1),
    };
    assert_eq!(code(&mut world, &seen), Code::RevisionConflict);
    assert_eq!(world.state.secret("db").unwrap().version, 2);
}

#[test]
fn a_spec_that_names_an_unknown_secret_is_refused_and_a_known_one_is_kept_while_it_is_named() {
    let mut world = World::with_nodes(1);
    let apply = |spec: WorkloadSpec| Verb::Apply {
        specs: vec![spec.into()],
        options: Default::default(),
    };
    let refused = apply(naming("web", &["db"]));
    assert_eq!(code(&mut world, &refused), Code::SecretNotFound);
    world.must(&put("db", 1));
    let web = world.apply(naming("web", &["db"]));
    world.run();
    let refusal = world.submit(&remove("db")).unwrap_err();
    assert_eq!(refusal.code, Code::SecretInUse);
    assert!(refusal.sentence.contains("web"), "{refusal}");
    world.delete(web);
    world.run();
    world.must(&remove("db"));
    assert!(world.state.secret("db").is_none());
    assert_eq!(code(&mut world, &remove("db")), Code::SecretNotFound);
}

#[test]
fn a_secret_that_a_running_copy_of_an_older_revision_names_stays() {
    let mut world = World::with_nodes(1);
    world.must(&put("db", 1));
    let web = world.apply(naming("web", &["db"]));
    world.run();
    world.apply(naming("web", &[]));
    // The copy is not replaced yet.
    assert_eq!(code(&mut world, &remove("db")), Code::SecretInUse);
    world.run();
    world.must(&remove("db"));
    let back = Verb::Rollback {
        workload: web,
        to: Some(1),
        expect: Expect::Any,
    };
    assert_eq!(code(&mut world, &back), Code::SecretNotFound);
}

#[test]
fn no_node_of_another_contract_gets_a_copy_that_names_a_secret() {
    let mut world = World::with_nodes(0);
    let mut foreign = hello("foreign", resources(1000, 1024));
    foreign.contract = Contract::Persys;
    foreign.identity.contract = Contract::Persys;
    world.join_as(foreign);
    world.must(&put("db", 1));
    let web = world.apply(naming("web", &["db"]));
    world.run();
    assert_eq!(world.state.assignments_of(web).count(), 0);
    let why = hostler_fleet::why(&world.state, web).unwrap();
    let told = format!("{:?}", why.nodes);
    assert!(told.contains("NoSecrets"), "{told}");
    world.join("ours", resources(1000, 1024));
    world.run();
    let copies: Vec<_> = world.state.assignments_of(web).collect();
    assert_eq!(copies.len(), 1);
    assert_eq!(copies[0].node, world.node("ours"));
}

#[test]
fn resealing_passes_over_what_changed_meanwhile() {
    let mut world = World::with_nodes(0);
    for name in ["a", "b"] {
        world.must(&put(name, 1));
    }
    let resealed = |name: &str, version| Resealed {
        name: name.to_owned(),
        version,
        from: "k1".to_owned(),
        sealed: sealed("k2", "new"),
    };
    let chunk = |secrets| Verb::Reseal {
        to: "k2".to_owned(),
        secrets,
    };
    let verb = chunk(vec![resealed("a", 1), resealed("b", 7), resealed("c", 1)]);
    let told = world.must(&verb);
    assert_eq!(
        told,
        Reply::Touched {
            count: 1,
            more: true
        }
    );
    assert_eq!(world.state.secret("b").unwrap().sealed, sealed("k1", "b 1"));
    let told = world.must(&chunk(vec![resealed("a", 1), resealed("b", 1)]));
    assert_eq!(
        told,
        Reply::Touched {
            count: 1,
            more: false
        }
    );
    let told = world.must(&chunk(Vec::new()));
    assert_eq!(
        told,
        Reply::Touched {
            count: 0,
            more: false
        }
    );
    let a = world.state.secret("a").unwrap();
    assert_eq!((a.version, &a.sealed), (1, &sealed("k2", "new")));
}

#[derive(Debug, Clone)]
enum Step {
    Put { secret: u8, skew: u8 },
    Remove { secret: u8 },
    Apply { workload: u8, secrets: Vec<u8> },
    Delete { workload: u8 },
    Rollback { workload: u8, to: u64 },
    Reseal { secret: u8, key: u8 },
    Run,
}

fn step() -> impl Strategy<Value = Step> {
    let secret = 0..3_u8;
    let workload = 0..3_u8;
    prop_oneof![
        (secret.clone(), prop_oneof![9 => Just(0_u8), 1 => Just(1)])
            .prop_map(|(secret, skew)| Step::Put { secret, skew }),
        secret.clone().prop_map(|secret| Step::Remove { secret }),
        (workload.clone(), prop::collection::vec(0..3_u8, 0..3))
            .prop_map(|(workload, secrets)| Step::Apply { workload, secrets }),
        workload
            .clone()
            .prop_map(|workload| Step::Delete { workload }),
        (workload, 1..4_u64).prop_map(|(workload, to)| Step::Rollback { workload, to }),
        (secret, 0..3_u8).prop_map(|(secret, key)| Step::Reseal { secret, key }),
        Just(Step::Run),
    ]
}

fn secret(number: u8) -> String {
    format!("secret-{number}")
}

fn verb_of(state: &State, step: &Step) -> Option<Verb> {
    let workload = |number: u8| {
        let found = state.workload_by_name(&format!("web-{number}"));
        found.map(|workload| workload.id)
    };
    Some(match step {
        Step::Put {
            secret: number,
            skew,
        } => {
            let name = secret(*number);
            let present = state.secret(&name).map_or(0, |it| it.version);
            put(&name, present + 1 + u64::from(*skew))
        }
        Step::Remove { secret: number } => remove(&secret(*number)),
        Step::Apply { workload, secrets } => {
            let mut names: Vec<String> = secrets.iter().map(|it| secret(*it)).collect();
            names.sort();
            names.dedup();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Verb::Apply {
                specs: vec![naming(&format!("web-{workload}"), &names).into()],
                options: Default::default(),
            }
        }
        Step::Delete { workload: number } => Verb::Delete {
            workload: workload(*number)?,
            expect: Expect::Any,
        },
        Step::Rollback {
            workload: number,
            to,
        } => Verb::Rollback {
            workload: workload(*number)?,
            to: Some(*to),
            expect: Expect::Any,
        },
        Step::Reseal {
            secret: number,
            key,
        } => {
            let old = state.secret(&secret(*number))?;
            let key = format!("k{key}");
            Verb::Reseal {
                to: key.clone(),
                secrets: vec![Resealed {
                    name: old.name.clone(),
                    version: old.version,
                    from: old.sealed.key.clone(),
                    sealed: sealed(&key, &old.sealed.text),
                }],
            }
        }
        Step::Run => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes in whatever order: what a workload or a copy names is there, versions of a secret only count up
    /// while it is there, a value never changes without its version, and the records rebuild the state.
    #[test]
    fn what_is_named_is_there_and_versions_only_count_up(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::with_nodes(2);
        let mut seen: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for step in steps {
            match verb_of(&world.state, &step) {
                // A refusal is an answer too; what it leaves is looked at below.
                Some(verb) => drop(world.submit(&verb)),
                None => world.run(),
            }
            let state = &world.state;
            for workload in state.workloads() {
                let copies = state.assignments_of(workload.id);
                let run = copies.filter_map(|copy| state.revision(workload.id, copy.revision));
                let specs = run.map(|it| &it.spec).chain([&workload.spec]);
                for named in specs.flat_map(|spec| &spec.secrets) {
                    prop_assert!(state.secret(&named.name).is_some(), "{step:?}: {}", named.name);
                }
            }
            seen.retain(|name, _| state.secret(name).is_some());
            for secret in state.secrets() {
                let now = (secret.version, secret.sealed.text.clone());
                if let Some(before) = seen.insert(secret.name.clone(), now.clone()) {
                    prop_assert!(now.0 > before.0 || now == before, "{step:?}: {before:?} {now:?}");
                }
            }
        }
        let again = State::from_changes(&world.log);
        prop_assert_eq!(&again, &world.state);
    }
}
