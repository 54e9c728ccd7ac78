//! The store in memory fails as it is told to.

use std::sync::Arc;
use std::time::Duration;

use hostler_kit::Tasks;
use hostler_store::contract::put;
use hostler_store::{CommitError, Fault, Gate, Guard, MemoryStore, Store, StoreError};

use crate::engines::ManualClock;

fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(ManualClock::default())))
}

async fn exists(store: &dyn Store, key: &str) -> bool {
    store.get(key).await.expect("a key can be read").is_some()
}

#[tokio::test]
async fn faults_strike_one_commit_each_in_order() {
    let store = store();
    store.fail_next(Fault::CommitFails);
    store.fail_next(Fault::CommitUnknown);
    for (key, happened) in [("fails", false), ("unknown", true)] {
        let answer = store.commit(vec![put(key, "1")], Vec::new()).await;
        let unavailable = matches!(answer, Err(CommitError::Store(StoreError::Unavailable(_))));
        assert!(unavailable, "{key}: {answer:?}");
        assert_eq!(exists(&*store, key).await, happened, "{key}");
    }
    store
        .commit(vec![put("well", "1")], Vec::new())
        .await
        .expect("no fault is left");
}

#[tokio::test]
async fn a_lost_leader_is_refused_and_may_stand_again() {
    let store = store();
    let token = store
        .lease("leader", Duration::from_secs(9), None)
        .await
        .expect("it is free");
    store.fail_next(Fault::LeaderLost);
    let guards = vec![Guard::Leader {
        token: token.clone(),
    }];
    let refused = store.commit(vec![put("a", "1")], guards).await;
    assert!(
        matches!(refused, Err(CommitError::LeaderLost)),
        "{refused:?}"
    );
    assert!(!exists(&*store, "a").await, "nothing was changed");
    let again = store
        .lease("leader", Duration::from_secs(9), Some(&token))
        .await;
    assert!(
        again.expect("it is free").number > token.number,
        "a new holding"
    );
}

#[tokio::test]
async fn commits_wait_at_a_closed_gate() {
    for (gate, happened) in [(Gate::BeforeCommit, false), (Gate::AfterCommit, true)] {
        let store = store();
        store.set_gate(gate);
        let tasks = Tasks::new();
        let caller = Arc::clone(&store);
        tasks.spawn("caller", async move {
            caller
                .commit(vec![put("a", "1")], Vec::new())
                .await
                .expect("it goes on");
        });
        while store.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(exists(&*store, "a").await, happened, "{gate:?}");
        store.set_gate(Gate::Open);
        tasks
            .shut_down(Duration::from_secs(60))
            .await
            .expect("the caller is answered");
        assert!(exists(&*store, "a").await, "{gate:?}");
        assert_eq!(store.waiting(), 0);
    }
}

#[tokio::test]
async fn a_commit_dropped_before_it_happens_never_does() {
    let store = store();
    store.set_gate(Gate::BeforeCommit);
    let commit = store.commit(vec![put("a", "1")], Vec::new());
    let waited = tokio::time::timeout(Duration::from_millis(1), commit).await;
    assert!(waited.is_err(), "the gate is closed");
    store.set_gate(Gate::Open);
    tokio::task::yield_now().await;
    assert!(!exists(&*store, "a").await);
}
