//! Random sequences of commits: every engine does what a plain map does.

use std::collections::BTreeMap;

use bytes::Bytes;
use hostler_store::contract::{Engine, delete, put};
use hostler_store::{CommitError, Entry, Guard, Page, Revision, Store, Watch, Write};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::engines::{HISTORY, Memory, Sqlite};

/// One commit, in terms of the few keys that make collisions likely.
#[derive(Debug, Clone)]
struct Step {
    writes: Vec<(usize, Option<u8>)>,
    guard: Option<(usize, Aim)>,
}

/// What a guard says about its key.
#[derive(Debug, Clone, Copy)]
enum Aim {
    Absent,
    /// The revision that the key has, or one that it has not.
    Unchanged {
        is_true: bool,
    },
}

const KEYS: [&str; 8] = ["a", "a/", "a/1", "a/2", "a/2/x", "b/1", "b/2", "é"];

type Snapshot = BTreeMap<String, (Bytes, Revision)>;

/// The plain map, with all that it ever was.
struct Model {
    now: Snapshot,
    past: Vec<Snapshot>,
}

impl Model {
    fn new() -> Self {
        Self {
            now: Snapshot::new(),
            past: vec![Snapshot::new()],
        }
    }

    /// The revision of the commit, or the name of its refusal.
    fn commit(&mut self, writes: &[Write], guards: &[Guard]) -> Result<Revision, &'static str> {
        let mut next = self.now.clone();
        let revision = self.past.len() as Revision;
        let mut keys: Vec<&String> = writes.iter().map(Write::key).collect();
        keys.sort();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("twice");
        }
        for guard in guards {
            let holds = match guard {
                Guard::Absent { key } => !self.now.contains_key(key),
                Guard::Unchanged { key, revision } => {
                    self.now.get(key).is_some_and(|(_, at)| at == revision)
                }
                Guard::Leader { .. } => false,
            };
            if !holds {
                return Err("guard");
            }
        }
        if writes.is_empty() {
            return Ok(revision - 1);
        }
        for write in writes {
            match write {
                Write::Put { key, value } => next.insert(key.clone(), (value.clone(), revision)),
                Write::Delete { key } => next.remove(key),
            };
        }
        self.past.push(next.clone());
        self.now = next;
        Ok(revision)
    }

    fn guards(&self, step: &Step) -> Vec<Guard> {
        let guard = step.guard.map(|(key, aim)| {
            let key = KEYS[key].to_owned();
            match aim {
                Aim::Absent => Guard::Absent { key },
                Aim::Unchanged { is_true } => {
                    let revision = self.now.get(&key).map_or(0, |(_, revision)| *revision);
                    Guard::Unchanged {
                        key,
                        revision: revision + u64::from(!is_true),
                    }
                }
            }
        });
        guard.into_iter().collect()
    }
}

fn writes(step: &Step) -> Vec<Write> {
    let write = |(key, value): &(usize, Option<u8>)| match value {
        Some(value) => put(KEYS[*key], &value.to_string()),
        None => delete(KEYS[*key]),
    };
    step.writes.iter().map(write).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..KEYS.len();
    let write = (key.clone(), proptest::option::weighted(0.7, any::<u8>()));
    let aim = prop_oneof![
        Just(Aim::Absent),
        any::<bool>().prop_map(|is_true| Aim::Unchanged { is_true }),
    ];
    let guard = proptest::option::weighted(0.4, (key, aim));
    let step = (proptest::collection::vec(write, 0..4), guard)
        .prop_map(|(writes, guard)| Step { writes, guard });
    proptest::collection::vec(step, 1..HISTORY)
}

async fn listed(store: &dyn Store, prefix: &str, at: Revision) -> Vec<Entry> {
    let (mut entries, mut page) = (
        Vec::new(),
        Page {
            after: None,
            limit: 2,
            at: Some(at),
        },
    );
    loop {
        let listing = store
            .list(prefix, page.clone())
            .await
            .expect("history is kept");
        assert_eq!(listing.revision, at);
        page.after = listing.entries.last().map(|entry| entry.key.clone());
        entries.extend(listing.entries);
        if !listing.more {
            return entries;
        }
    }
}

fn expected(snapshot: &Snapshot, prefix: &str) -> Vec<Entry> {
    let under = snapshot.iter().filter(|(key, _)| key.starts_with(prefix));
    let entry = |(key, (value, revision)): (&String, &(Bytes, Revision))| Entry {
        key: key.clone(),
        value: value.clone(),
        revision: *revision,
    };
    under.map(entry).collect()
}

/// Lays what a watch gives over what was there when it began, until the newest revision.
async fn followed(watch: &mut dyn Watch, from: &Snapshot, newest: Revision) -> Snapshot {
    let (mut snapshot, mut revision) = (from.clone(), None);
    while revision.is_none_or(|revision| revision < newest) {
        let committed = watch.next().await.expect("history is kept");
        revision = Some(committed.revision);
        for write in committed.writes {
            match write {
                Write::Put { key, value } => snapshot.insert(key, (value, committed.revision)),
                Write::Delete { key } => snapshot.remove(&key),
            };
        }
    }
    snapshot
}

async fn same_as_the_model(store: &dyn Store, steps: &[Step]) {
    let mut model = Model::new();
    for step in steps {
        let (writes, guards) = (writes(step), model.guards(step));
        let wanted = model.commit(&writes, &guards);
        let answer = store
            .commit(writes, guards)
            .await
            .map_err(|error| match error {
                CommitError::GuardFailed { index: 0 } => "guard",
                CommitError::DuplicateKey { .. } => "twice",
                other => panic!("{other}"),
            });
        assert_eq!(answer, wanted, "{step:?}");
    }
    let newest = model.past.len() as Revision - 1;
    for (at, snapshot) in (0..).zip(&model.past) {
        for prefix in ["", "a/", "a/2", "é"] {
            assert_eq!(
                listed(store, prefix, at).await,
                expected(snapshot, prefix),
                "at {at}"
            );
        }
        if at < newest {
            let mut watch = store.watch("", at).await.expect("history is kept");
            let reached = followed(&mut *watch, snapshot, newest).await;
            assert_eq!(reached, model.now, "followed from {at}");
        }
    }
}

fn check(engine: &dyn Engine, cases: u32) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async { same_as_the_model(&*engine.open().await, &steps).await });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn the_store_in_memory_does_what_a_map_does() {
    check(&Memory::default(), 256);
}

#[test]
fn the_store_on_disk_does_what_a_map_does() {
    check(&Sqlite::new(), 32);
}
