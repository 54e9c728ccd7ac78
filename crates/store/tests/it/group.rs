//! Many callers at once: each gets its own answer, in an order that all can see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hostler_kit::{SystemClock, Tasks};
use hostler_store::contract::{Engine, put};
use hostler_store::{CommitError, Guard, SqliteOptions, SqliteStore, Store};
use tokio::sync::mpsc;

use crate::child::numbered;
use crate::engines::Sqlite;

const CALLERS: usize = 64;

#[tokio::test]
async fn one_of_many_racing_callers_wins_and_its_neighbours_are_not_harmed() {
    let engine = Sqlite::new();
    let store = engine.open().await;
    let (sender, mut results) = mpsc::channel(2 * CALLERS);
    let tasks = Tasks::new();
    for caller in 0..CALLERS {
        let (store, sender) = (Arc::clone(&store), sender.clone());
        tasks.spawn("caller", async move {
            let own = store.commit(vec![put(&format!("own/{caller}"), "1")], Vec::new());
            let guard = Guard::Absent {
                key: "slot".to_owned(),
            };
            let race = store.commit(vec![put("slot", &caller.to_string())], vec![guard]);
            let (own, race) = tokio::join!(own, race);
            own.expect("a commit without guards happens");
            sender.send((caller, race)).await.expect("the test listens");
        });
    }
    drop(sender);
    let mut winners = Vec::new();
    while let Some((caller, race)) = results.recv().await {
        match race {
            Ok(revision) => winners.push((caller, revision)),
            Err(CommitError::GuardFailed { index: 0 }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let [(winner, revision)] = winners[..] else {
        panic!("one wins: {winners:?}")
    };
    let slot = store
        .get("slot")
        .await
        .expect("a key can be read")
        .expect("it is taken");
    assert_eq!(
        (slot.value, slot.revision),
        (winner.to_string().into(), revision)
    );
    let own = store
        .list("own/", hostler_store::Page::default())
        .await
        .expect("a page");
    assert_eq!(own.entries.len(), CALLERS, "all others happened");
    assert_eq!(
        own.revision,
        CALLERS as u64 + 1,
        "and each took one revision"
    );
    tasks
        .shut_down(Duration::from_secs(60))
        .await
        .expect("all callers end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_watches_stay_true_beside_a_steady_writer() {
    let engine = Sqlite::new();
    let store = engine.open().await;
    let rounds = Arc::new(AtomicU64::new(0));
    let tasks = Tasks::new();
    let (writer, written, inside) = (Arc::clone(&store), Arc::clone(&rounds), tasks.clone());
    tasks.spawn("writer", async move {
        let mut n = 0;
        while !inside.is_stopping() {
            n += 1;
            let value = n.to_string();
            let writes = vec![put("pair/left", &value), put("pair/right", &value)];
            let revision = writer.commit(writes, Vec::new()).await.expect("it happens");
            assert_eq!(revision, n, "nobody else writes");
            written.store(n, Ordering::SeqCst);
        }
    });
    for _ in 0..200 {
        let before = rounds.load(Ordering::SeqCst);
        let page = |after, at| hostler_store::Page {
            after,
            limit: 1,
            at,
        };
        let first = store.list("pair/", page(None, None)).await.expect("a page");
        assert!(first.revision >= before, "an answered commit is seen");
        let Some(left) = first.entries.first() else {
            continue;
        };
        let mut watch = match store.watch("pair/", first.revision).await {
            Ok(watch) => watch,
            Err(error) => panic!("the newest revision can be watched: {error}"),
        };
        let second = page(Some(left.key.clone()), Some(first.revision));
        match store.list("pair/", second).await {
            Ok(second) => assert_eq!(second.entries[0].value, left.value, "one snapshot"),
            // The writer may have gone on by more than the short history of this store.
            Err(hostler_store::StoreError::Compacted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        match watch.next().await {
            Ok(next) => assert_eq!(next.revision, first.revision + 1, "none is left out"),
            Err(hostler_store::StoreError::Compacted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    tasks
        .shut_down(Duration::from_secs(60))
        .await
        .expect("the writer ends");
}

#[tokio::test]
async fn the_log_starts_over_although_commits_leave_no_gap() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = SqliteOptions {
        checkpoint_after: 64 << 10,
        ..SqliteOptions::default()
    };
    let clock = Arc::new(SystemClock::new());
    let store = SqliteStore::open_with(directory.path(), clock, options).expect("it opens");
    let mut longest = 0;
    for n in 0..2_000 {
        store
            .commit(numbered(0, n), Vec::new())
            .await
            .expect("it happens");
        let log = std::fs::metadata(directory.path().join("hostler.db-wal"));
        longest = longest.max(log.expect("the log is there").len());
    }
    assert!(longest > 64 << 10, "there was something to fold");
    assert!(
        longest < 6 << 20,
        "the commits are over 24 MiB of log, {longest} at once"
    );
}
