//! The contract suite: one set of clauses that every engine passes.
//!
//! An engine's tests implement [`Engine`] and call [`run`]; a clause that does not hold panics with its
//! sentence. Each clause opens a fresh, empty store, so their order does not matter.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    CommitError, Entry, Guard, KEY_BYTES, LeaseError, LeaseToken, Page, Revision, Store,
    StoreError, Watch, Write,
};

/// How the suite gets its stores and moves their time.
#[async_trait]
pub trait Engine: Send + Sync {
    /// A fresh, empty store.
    async fn open(&self) -> Arc<dyn Store>;

    /// Lets the time of the leases pass.
    async fn let_pass(&self, span: Duration);

    /// More commits than this are forgotten.
    fn history(&self) -> usize;
}

const TTL: Duration = Duration::from_secs(10);
/// A watch that has something to give does so well within this time, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs every clause.
pub async fn run(engine: &dyn Engine) {
    a_commit_is_seen_whole_with_its_revision(engine).await;
    revisions_grow_by_one_and_refusals_take_none(engine).await;
    an_unchanged_guard_holds_only_at_its_revision(engine).await;
    an_absent_guard_holds_only_without_the_key(engine).await;
    a_failed_guard_changes_nothing(engine).await;
    a_commit_without_writes_only_checks(engine).await;
    limits_are_exact(engine).await;
    a_key_is_written_once_per_commit(engine).await;
    a_prefix_is_listed_in_byte_order(engine).await;
    pages_show_one_revision_while_others_write(engine).await;
    forgotten_and_future_revisions_are_compacted(engine).await;
    a_watch_replays_and_then_follows(engine).await;
    a_watch_gives_only_its_prefix(engine).await;
    a_slow_watch_is_told_to_relist(engine).await;
    a_lease_has_one_holder_and_is_renewed(engine).await;
    a_lease_that_ran_out_is_taken_with_a_larger_number(engine).await;
    a_stale_leader_changes_nothing(engine).await;
    a_released_lease_is_free(engine).await;
}

/// A put.
#[must_use]
pub fn put(key: &str, value: &str) -> Write {
    Write::Put {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// A delete.
#[must_use]
pub fn delete(key: &str) -> Write {
    Write::Delete {
        key: key.to_owned(),
    }
}

async fn commit(store: &dyn Store, writes: Vec<Write>) -> Revision {
    store
        .commit(writes, Vec::new())
        .await
        .expect("a commit without guards happens")
}

async fn get(store: &dyn Store, key: &str) -> Option<Entry> {
    store.get(key).await.expect("a key can be read")
}

fn entry(key: &str, value: &str, revision: Revision) -> Entry {
    Entry {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        revision,
    }
}

async fn everything(store: &dyn Store, prefix: &str) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut page = Page::default();
    loop {
        let listing = store
            .list(prefix, page.clone())
            .await
            .expect("a prefix can be listed");
        page.at = Some(listing.revision);
        page.after = listing.entries.last().map(|entry| entry.key.clone());
        all.extend(listing.entries);
        if !listing.more {
            return all;
        }
    }
}

async fn take(store: &dyn Store, name: &str) -> LeaseToken {
    store
        .lease(name, TTL, None)
        .await
        .expect("a free lease is given")
}

async fn next(watch: &mut Box<dyn Watch>) -> Result<(Revision, Vec<Write>), StoreError> {
    let next = tokio::time::timeout(PATIENCE, watch.next()).await;
    let committed = next.expect("the watch has something to give")?;
    Ok((committed.revision, committed.writes))
}

async fn a_commit_is_seen_whole_with_its_revision(engine: &dyn Engine) {
    let store = &*engine.open().await;
    assert_eq!(get(store, "a/1").await, None, "a fresh store is empty");
    let first = commit(store, vec![put("a/1", "one"), put("a/2", "two")]).await;
    let second = commit(
        store,
        vec![put("a/1", "uno"), delete("a/2"), put("a/3", "")],
    )
    .await;
    assert!(second > first, "revisions grow");
    assert_eq!(
        get(store, "a/1").await,
        Some(entry("a/1", "uno", second)),
        "a put replaces"
    );
    assert_eq!(get(store, "a/2").await, None, "a delete removes");
    assert_eq!(
        get(store, "a/3").await,
        Some(entry("a/3", "", second)),
        "a value may be empty"
    );
}

async fn revisions_grow_by_one_and_refusals_take_none(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let first = commit(store, vec![put("a", "1")]).await;
    let absent = vec![Guard::Absent {
        key: "a".to_owned(),
    }];
    store
        .commit(vec![put("a", "2")], absent)
        .await
        .expect_err("the guard does not hold");
    let second = commit(store, vec![put("a", "3"), put("b", "3")]).await;
    assert_eq!(second, first + 1, "one commit, one revision");
    let listing = store
        .list("", Page::default())
        .await
        .expect("all can be listed");
    assert_eq!(
        listing.revision, second,
        "a listing shows the newest revision"
    );
}

async fn an_unchanged_guard_holds_only_at_its_revision(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let first = commit(store, vec![put("a", "1")]).await;
    let guard = |revision| {
        vec![Guard::Unchanged {
            key: "a".to_owned(),
            revision,
        }]
    };
    let second = store
        .commit(vec![put("a", "2")], guard(first))
        .await
        .expect("it is unchanged");
    let stale = store.commit(vec![put("a", "3")], guard(first)).await;
    assert!(
        matches!(stale, Err(CommitError::GuardFailed { index: 0 })),
        "{stale:?}"
    );
    commit(store, vec![delete("a")]).await;
    let gone = store.commit(vec![put("a", "4")], guard(second)).await;
    assert!(
        matches!(gone, Err(CommitError::GuardFailed { index: 0 })),
        "{gone:?}"
    );
}

async fn an_absent_guard_holds_only_without_the_key(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let guard = || {
        vec![Guard::Absent {
            key: "a".to_owned(),
        }]
    };
    store
        .commit(vec![put("a", "1")], guard())
        .await
        .expect("the key is absent");
    let taken = store.commit(vec![put("a", "2")], guard()).await;
    assert!(
        matches!(taken, Err(CommitError::GuardFailed { index: 0 })),
        "{taken:?}"
    );
    commit(store, vec![delete("a")]).await;
    store
        .commit(vec![put("a", "3")], guard())
        .await
        .expect("a deleted key is absent");
}

async fn a_failed_guard_changes_nothing(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let revision = commit(store, vec![put("a", "1"), put("b", "1")]).await;
    let guards = vec![
        Guard::Unchanged {
            key: "a".to_owned(),
            revision,
        },
        Guard::Absent {
            key: "b".to_owned(),
        },
    ];
    let refused = store
        .commit(vec![put("a", "2"), delete("b"), put("c", "2")], guards)
        .await;
    assert!(
        matches!(refused, Err(CommitError::GuardFailed { index: 1 })),
        "{refused:?}"
    );
    let kept = vec![entry("a", "1", revision), entry("b", "1", revision)];
    assert_eq!(everything(store, "").await, kept, "nothing is half-applied");
}

async fn a_commit_without_writes_only_checks(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let revision = commit(store, vec![put("a", "1")]).await;
    assert_eq!(
        commit(store, Vec::new()).await,
        revision,
        "it takes no revision"
    );
    let absent = vec![Guard::Absent {
        key: "a".to_owned(),
    }];
    store
        .commit(Vec::new(), absent)
        .await
        .expect_err("its guards are checked");
}

async fn limits_are_exact(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let limits = store.limits();
    let many = |count: usize| (0..count).map(|n| put(&format!("k/{n:06}"), "")).collect();
    commit(store, many(limits.writes)).await;
    let refused = store.commit(many(limits.writes + 1), Vec::new()).await;
    assert!(
        matches!(refused, Err(CommitError::TooLarge)),
        "one write too many: {refused:?}"
    );
    let large = |bytes: usize| vec![put("a", &"x".repeat(bytes - 1))];
    commit(store, large(limits.bytes)).await;
    let refused = store.commit(large(limits.bytes + 1), Vec::new()).await;
    assert!(
        matches!(refused, Err(CommitError::TooLarge)),
        "one byte too many: {refused:?}"
    );
    commit(store, vec![put(&"k".repeat(KEY_BYTES), "")]).await;
    let refused = store
        .commit(vec![put(&"k".repeat(KEY_BYTES + 1), "")], Vec::new())
        .await;
    assert!(
        matches!(refused, Err(CommitError::TooLarge)),
        "a key too long: {refused:?}"
    );
}

async fn a_key_is_written_once_per_commit(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let refused = store
        .commit(vec![put("a", "1"), put("b", "1"), delete("a")], Vec::new())
        .await;
    assert!(
        matches!(&refused, Err(CommitError::DuplicateKey { key }) if key == "a"),
        "{refused:?}"
    );
    assert_eq!(
        everything(store, "").await,
        Vec::new(),
        "nothing was changed"
    );
}

async fn a_prefix_is_listed_in_byte_order(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let keys = ["n/é", "n/z", "n/a", "n/", "n", "n0", "m/z", "n/a/b", "n/A"];
    let revision = commit(store, keys.iter().map(|key| put(key, key)).collect()).await;
    let listed: Vec<Entry> = everything(store, "n/").await;
    let wanted = ["n/", "n/A", "n/a", "n/a/b", "n/z", "n/é"];
    let wanted: Vec<Entry> = wanted.iter().map(|key| entry(key, key, revision)).collect();
    assert_eq!(
        listed, wanted,
        "bytewise, the prefix itself included, its neighbours not"
    );
    let page = Page {
        after: Some("a".to_owned()),
        limit: 2,
        at: None,
    };
    let listing = store.list("n/", page).await.expect("a page");
    assert_eq!(
        listing.entries,
        wanted[..2],
        "`after` may lie before the prefix"
    );
    assert!(listing.more, "four follow");
    let page = Page {
        after: Some("n/z".to_owned()),
        limit: 1,
        at: None,
    };
    let listing = store.list("n/", page).await.expect("a page");
    assert_eq!(
        (listing.entries, listing.more),
        (wanted[5..].to_vec(), false),
        "the last page"
    );
}

async fn pages_show_one_revision_while_others_write(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let before: Vec<Write> = (0..20).map(|n| put(&format!("k/{n:02}"), "old")).collect();
    let revision = commit(store, before).await;
    let mut listed = Vec::new();
    let mut page = Page {
        after: None,
        limit: 3,
        at: None,
    };
    for round in 0.. {
        let listing = store
            .list("k/", page.clone())
            .await
            .expect("history is kept");
        assert_eq!(
            listing.revision, revision,
            "every page shows the first one's revision"
        );
        page.at = Some(listing.revision);
        page.after = listing.entries.last().map(|entry| entry.key.clone());
        listed.extend(listing.entries);
        if !listing.more {
            break;
        }
        let changed = put(&format!("k/{:02}", 19 - round), "new");
        let added = put(&format!("k/{:02}x", 19 - round), "added");
        commit(
            store,
            vec![changed, added, delete(&format!("k/{:02}", 3 * round + 4))],
        )
        .await;
    }
    let wanted: Vec<Entry> = (0..20)
        .map(|n| entry(&format!("k/{n:02}"), "old", revision))
        .collect();
    assert_eq!(
        listed, wanted,
        "changes, additions and deletions since are not seen"
    );
}

async fn forget_all(engine: &dyn Engine, store: &dyn Store) -> Revision {
    let mut newest = 0;
    for n in 0..=engine.history() {
        newest = commit(store, vec![put("noise", &n.to_string())]).await;
    }
    newest
}

async fn forgotten_and_future_revisions_are_compacted(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let old = commit(store, vec![put("a", "1")]).await;
    commit(store, vec![put("a", "2")]).await;
    let newest = forget_all(engine, store).await;
    for at in [old, newest + 1] {
        let listed = store
            .list(
                "a",
                Page {
                    at: Some(at),
                    ..Page::default()
                },
            )
            .await;
        let Err(StoreError::Compacted { oldest }) = listed else {
            panic!("at {at}: {listed:?}")
        };
        assert!(oldest > old && oldest <= newest, "{oldest} is remembered");
        let watched = store.watch("a", at).await.err();
        assert!(
            matches!(watched, Some(StoreError::Compacted { .. })),
            "from {at}: {watched:?}"
        );
        let page = Page {
            at: Some(oldest),
            ..Page::default()
        };
        store
            .list("a", page)
            .await
            .expect("the oldest revision can be listed");
    }
}

async fn a_watch_replays_and_then_follows(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let first = commit(store, vec![put("a/1", "1")]).await;
    let second = commit(store, vec![put("a/2", "2"), put("a/1", "2")]).await;
    let mut watch = store.watch("a/", first).await.expect("history is kept");
    let replayed = next(&mut watch).await.expect("the second commit");
    let in_order = vec![put("a/2", "2"), put("a/1", "2")];
    assert_eq!(
        replayed,
        (second, in_order),
        "once, and in the order of the commit"
    );
    let waiting = tokio::time::timeout(Duration::from_millis(1), watch.next()).await;
    assert!(waiting.is_err(), "nothing else has happened");
    let (third, live) = tokio::join!(commit(store, vec![delete("a/1")]), next(&mut watch));
    assert_eq!(
        live.expect("the third commit"),
        (third, vec![delete("a/1")]),
        "none is lost"
    );
}

async fn a_watch_gives_only_its_prefix(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let mut watch = store.watch("a/", 0).await.expect("from the beginning");
    commit(store, vec![put("b/1", "1")]).await;
    let mixed = commit(store, vec![put("a/1", "1"), put("b/2", "1"), put("a", "1")]).await;
    let given = next(&mut watch).await.expect("the mixed commit");
    assert_eq!(
        given,
        (mixed, vec![put("a/1", "1")]),
        "others' writes are left out"
    );
}

async fn a_slow_watch_is_told_to_relist(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let mut watch = store.watch("", 0).await.expect("from the beginning");
    commit(store, vec![put("a", "1")]).await;
    let newest = forget_all(engine, store).await;
    let slow = next(&mut watch).await;
    assert!(
        matches!(slow, Err(StoreError::Compacted { .. })),
        "{slow:?}"
    );
    let mut watch = store.watch("", newest).await.expect("from now on");
    let after = commit(store, vec![put("a", "2")]).await;
    let given = next(&mut watch).await.expect("the newest commit");
    assert_eq!(
        given,
        (after, vec![put("a", "2")]),
        "after relisting it goes on"
    );
}

async fn a_lease_has_one_holder_and_is_renewed(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let token = take(store, "leader").await;
    let other = store.lease("leader", TTL, None).await;
    assert!(matches!(other, Err(LeaseError::Held)), "{other:?}");
    for _ in 0..3 {
        engine.let_pass(TTL * 2 / 3).await;
        let renewed = store
            .lease("leader", TTL, Some(&token))
            .await
            .expect("the holder renews");
        assert_eq!(renewed, token, "it is the same holding");
        let other = store.lease("leader", TTL, None).await;
        assert!(matches!(other, Err(LeaseError::Held)), "{other:?}");
    }
    let elsewhere = take(store, "other").await;
    assert_ne!(elsewhere.number, token.number, "names do not share numbers");
    let guards = vec![Guard::Leader { token }, Guard::Leader { token: elsewhere }];
    store
        .commit(vec![put("a", "1")], guards)
        .await
        .expect("both are held");
}

async fn a_lease_that_ran_out_is_taken_with_a_larger_number(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let first = take(store, "leader").await;
    engine.let_pass(TTL * 2).await;
    let guards = vec![Guard::Leader {
        token: first.clone(),
    }];
    let refused = store.commit(vec![put("a", "1")], guards).await;
    assert!(
        matches!(refused, Err(CommitError::LeaderLost)),
        "it is nobody's: {refused:?}"
    );
    let second = take(store, "leader").await;
    assert!(
        second.number > first.number,
        "{second:?} comes after {first:?}"
    );
    let late = store.lease("leader", TTL, Some(&first)).await;
    assert!(
        matches!(late, Err(LeaseError::Held)),
        "an old token does not renew: {late:?}"
    );
    engine.let_pass(TTL * 2).await;
    let again = store
        .lease("leader", TTL, Some(&second))
        .await
        .expect("nobody holds it");
    assert!(
        again.number > second.number,
        "a holding that ran out is not renewed"
    );
}

async fn a_stale_leader_changes_nothing(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let stale = take(store, "leader").await;
    engine.let_pass(TTL * 2).await;
    let present = take(store, "leader").await;
    let revision = commit(store, vec![put("a", "1")]).await;
    let leader = |token: &LeaseToken| Guard::Leader {
        token: token.clone(),
    };
    let absent = Guard::Absent {
        key: "a".to_owned(),
    };
    let refused = store
        .commit(vec![put("a", "2")], vec![absent, leader(&stale)])
        .await;
    assert!(
        matches!(refused, Err(CommitError::LeaderLost)),
        "before any other: {refused:?}"
    );
    assert_eq!(
        get(store, "a").await,
        Some(entry("a", "1", revision)),
        "nothing was changed"
    );
    let unchanged = Guard::Unchanged {
        key: "a".to_owned(),
        revision,
    };
    let guards = vec![unchanged, leader(&present)];
    store
        .commit(vec![put("a", "3")], guards)
        .await
        .expect("the present leader decides");
    let invented = LeaseToken {
        name: "nobody".to_owned(),
        number: present.number,
    };
    let refused = store
        .commit(vec![put("a", "4")], vec![leader(&invented)])
        .await;
    assert!(
        matches!(refused, Err(CommitError::LeaderLost)),
        "{refused:?}"
    );
}

async fn a_released_lease_is_free(engine: &dyn Engine) {
    let store = &*engine.open().await;
    let first = take(store, "leader").await;
    store
        .release(&first)
        .await
        .expect("the holder gives it back");
    let second = take(store, "leader").await;
    assert!(
        second.number > first.number,
        "{second:?} comes after {first:?}"
    );
    store
        .release(&first)
        .await
        .expect("a stale token is no error");
    let other = store.lease("leader", TTL, None).await;
    assert!(
        matches!(other, Err(LeaseError::Held)),
        "and does nothing: {other:?}"
    );
}
