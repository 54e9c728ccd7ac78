//! The owner task and a store that fails in each of its ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use hostler_control::fleet::{Reply, Verb};
use hostler_control::{Control, ControlConfig};
use hostler_model::{Code, CommandKind, NodeId, Refusal};
use hostler_store::{
    CommitError, Entry, Fault, Gate, Guard, LeaseError, LeaseToken, Limits, Listing, MemoryStore,
    Page, Revision, Store, StoreError, Watch, Write,
};
use tokio::task::JoinHandle;

use crate::world::{World, apply, join, spec, stop, user};

fn applying(control: &Control, name: &str) -> JoinHandle<Result<(), Refusal>> {
    let (control, name) = (control.clone(), name.to_owned());
    #[expect(
        clippy::disallowed_methods,
        reason = "a client of its own, which the test joins"
    )]
    tokio::spawn(async move { apply(&control, spec(&name, 1, 100)).await.map(|_| ()) })
}

async fn waiting_at_the_gate(world: &World) {
    while world.store.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_batch_is_in_flight_goes_together() {
    let world = World::new(1);
    let control = world.start().await;
    let before = control.metrics();
    world.store.set_gate(Gate::BeforeCommit);
    let first = applying(&control, "first");
    waiting_at_the_gate(&world).await;
    let others: Vec<_> = (0..50)
        .map(|n| applying(&control, &format!("n{n}")))
        .collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(
        control.view().workloads().len(),
        0,
        "nothing is seen before it is durable"
    );
    world.store.set_gate(Gate::Open);
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(control.view().workloads().len(), 51);
    assert!(control.metrics().commits <= before.commits + 3);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_hangs_makes_the_server_unready() {
    let world = World::new(9);
    let control = world.start().await;
    world.store.set_gate(Gate::BeforeCommit);
    let hanging = applying(&control, "web");
    waiting_at_the_gate(&world).await;
    assert!(control.readiness().is_ready(), "it may just be slow");
    tokio::time::sleep(control.config().leader_ttl / 2).await;
    assert!(!control.readiness().is_ready());
    world.store.set_gate(Gate::Open);
    hanging.await.unwrap().unwrap();
    assert!(control.readiness().is_ready());
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_waits_for_what_it_was_decided_on() {
    let world = World::new(2);
    let control = world.start().await;
    world.store.set_gate(Gate::BeforeCommit);
    let first = applying(&control, "web");
    waiting_at_the_gate(&world).await;
    let other = control.clone();
    let mut again = spec("web", 1, 100);
    again.count = 7;
    let verb = Verb::Apply {
        specs: vec![Arc::new(again)],
        options: hostler_control::fleet::ApplyOptions {
            expect: hostler_control::fleet::Expect::Absent,
            ..Default::default()
        },
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "a client of its own, which the test joins"
    )]
    let refused = tokio::spawn(async move { other.submit(user(), verb).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        !refused.is_finished(),
        "it would tell of what may still be lost"
    );
    // The first apply is lost for good, because its caller goes away; then the second is no conflict.
    first.abort();
    world.store.fail_next(Fault::CommitFails);
    world.store.set_gate(Gate::Open);
    assert!(matches!(
        refused.await.unwrap(),
        Ok(Reply::Applied(applied)) if applied[0].created
    ));
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_batch_is_decided_again() {
    let world = World::new(3);
    let control = world.start().await;
    for _ in 0..3 {
        world.store.fail_next(Fault::CommitFails);
    }
    apply(&control, spec("web", 1, 100)).await.unwrap();
    assert_eq!(control.metrics().batches_lost, 1);
    assert!(control.readiness().is_ready());
    stop(control).await;
    let again = world.start().await;
    assert!(again.view().workload_by_name("web").is_some());
    stop(again).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_happened_unanswered_is_found_and_not_done_twice() {
    let world = World::new(4);
    let control = world.start().await;
    let node = join(&control, "one").await.id();
    let issue = || Verb::Issue {
        node,
        kind: CommandKind::Cleanup,
    };
    world.store.fail_next(Fault::CommitUnknown);
    assert!(matches!(
        control.submit(user(), issue()).await,
        Ok(Reply::Command { .. })
    ));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(control.view().commands_of(node).count(), 1);
    assert_eq!(control.metrics().batches_lost, 0);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn where_the_fate_cannot_be_told_what_would_double_is_refused_as_unknown() {
    let world = World::new(5);
    let control = world.start().await;
    let fake = join(&control, "one").await;
    fake.disconnect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let node: NodeId = fake.id();
    let other = control.clone();
    world.store.set_gate(Gate::AfterCommit);
    world.store.fail_next(Fault::CommitUnknown);
    let issue = Verb::Issue {
        node,
        kind: CommandKind::Cleanup,
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "a client of its own, which the test joins"
    )]
    let issued = tokio::spawn(async move { other.submit(user(), issue).await });
    waiting_at_the_gate(&world).await;
    // Somebody else writes behind the owner's back, so that revisions tell nothing.
    let fleet = world.store.get("fleet").await.unwrap().unwrap();
    world.store.set_gate(Gate::Open);
    let put = Write::Put {
        key: fleet.key,
        value: fleet.value,
    };
    world.store.commit(vec![put], Vec::new()).await.unwrap();
    assert_eq!(
        issued.await.unwrap().unwrap_err().code,
        Code::StoreUnavailable
    );
    assert_eq!(
        control.view().commands_of(node).count(),
        1,
        "it had happened"
    );
    apply(&control, spec("web", 1, 100)).await.unwrap();
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_leader_steps_down_and_never_decides_again() {
    let world = World::new(6);
    let control = world.start().await;
    world.store.fail_next(Fault::LeaderLost);
    let refused = apply(&control, spec("web", 1, 100)).await.unwrap_err();
    assert_eq!(refused.code, Code::NotLeader);
    control.over().await;
    assert!(!control.is_leading());
    assert!(!control.readiness().is_ready());
    let refused = apply(&control, spec("web", 1, 100)).await.unwrap_err();
    assert_eq!(refused.code, Code::NotLeader);
    let next = world.start().await;
    assert!(next.view().workload_by_name("web").is_none());
    stop(next).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_held_up_does_not_write_over_its_successor() {
    let world = World::new(7);
    let old = world.start().await;
    world.store.set_gate(Gate::BeforeCommit);
    let held = applying(&old, "web");
    waiting_at_the_gate(&world).await;
    world.store.revoke_leases();
    let parts = world.parts();
    #[expect(
        clippy::disallowed_methods,
        reason = "a server of its own, which the test joins"
    )]
    let starting = tokio::spawn(Control::start(ControlConfig::default(), parts));
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.store.set_gate(Gate::Open);
    let new = starting.await.unwrap().unwrap();
    assert_eq!(held.await.unwrap().unwrap_err().code, Code::NotLeader);
    old.over().await;
    assert!(new.view().workload_by_name("web").is_none());
    stop(new).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_callers_are_told_so_in_time() {
    let world = World::new(8);
    let control = world.start().await;
    for _ in 0..200 {
        world.store.fail_next(Fault::CommitFails);
    }
    let refused = apply(&control, spec("web", 1, 100)).await.unwrap_err();
    assert_eq!(refused.code, Code::StoreUnavailable);
    let cause = "the store is unavailable: a fault was asked for";
    assert!(refused.sentence.starts_with(cause), "{}", refused.sentence);
    let readiness = control.readiness();
    assert!(!readiness.is_ready());
    assert!(
        readiness
            .checks
            .iter()
            .any(|check| check.name == "store" && !check.is_ok)
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(control.readiness().is_ready(), "it comes back by itself");
    apply(&control, spec("web", 1, 100)).await.unwrap();
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_unnoticed_is_kept_if_nobody_wrote() {
    let world = World::new(9);
    let control = world.start().await;
    world.store.revoke_leases();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(control.is_leading());
    apply(&control, spec("web", 1, 100)).await.unwrap();

    world.store.revoke_leases();
    let fleet = world.store.get("fleet").await.unwrap().unwrap();
    let put = Write::Put {
        key: fleet.key,
        value: fleet.value,
    };
    world.store.commit(vec![put], Vec::new()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!control.is_leading(), "somebody did");
    let keys = world
        .store
        .list("workloads/", Page::default())
        .await
        .unwrap();
    assert_eq!(keys.entries.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn verbs_of_a_lost_batch_come_before_those_behind_it() {
    let world = World::new(10);
    let control = world.start().await;
    world.store.set_gate(Gate::BeforeCommit);
    let first = {
        let control = control.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "a client of its own, which the test joins"
        )]
        tokio::spawn(async move { apply(&control, spec("web", 1, 100)).await })
    };
    waiting_at_the_gate(&world).await;
    let second = {
        let control = control.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "a client of its own, which the test joins"
        )]
        tokio::spawn(async move { apply(&control, spec("web", 2, 100)).await })
    };
    tokio::time::sleep(Duration::from_millis(10)).await;
    world.store.fail_next(Fault::CommitFails);
    world.store.set_gate(Gate::Open);
    let (first, second) = (
        first.await.unwrap().unwrap(),
        second.await.unwrap().unwrap(),
    );
    assert_eq!(first, second);
    assert_eq!(control.view().workload(first).unwrap().spec.count, 2);
    stop(control).await;
}

/// A store whose next commit is answered with `Unavailable` and happens a while later, if it still may.
struct Late {
    store: Arc<MemoryStore>,
    is_late: AtomicBool,
    landed: Arc<tokio::sync::Mutex<Option<Result<Revision, CommitError>>>>,
}

#[async_trait]
impl Store for Late {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        self.store.list(prefix, page).await
    }

    async fn commit(
        &self,
        writes: Vec<Write>,
        guards: Vec<Guard>,
    ) -> Result<Revision, CommitError> {
        if !self.is_late.swap(false, Ordering::SeqCst) {
            return self.store.commit(writes, guards).await;
        }
        let (store, landed) = (Arc::clone(&self.store), Arc::clone(&self.landed));
        #[expect(
            clippy::disallowed_methods,
            reason = "the engine's own, which the test waits for"
        )]
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            *landed.lock().await = Some(store.commit(writes, guards).await);
        });
        Err(StoreError::Unavailable("the connection broke".into()).into())
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(prefix, from).await
    }

    async fn lease(
        &self,
        name: &str,
        ttl: Duration,
        token: Option<&LeaseToken>,
    ) -> Result<LeaseToken, LeaseError> {
        self.store.lease(name, ttl, token).await
    }

    async fn release(&self, token: &LeaseToken) -> Result<(), StoreError> {
        self.store.release(token).await
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_given_up_cannot_happen_later() {
    let world = World::new(11);
    let landed = Arc::default();
    let late = Arc::new(Late {
        store: world.store.clone(),
        is_late: AtomicBool::new(false),
        landed: Arc::clone(&landed),
    });
    let parts = world.parts_over(late.clone());
    let control = Control::start(ControlConfig::default(), parts)
        .await
        .unwrap();
    late.is_late.store(true, Ordering::SeqCst);
    let web = apply(&control, spec("web", 1, 100)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let landed = landed.lock().await.take().unwrap();
    assert!(matches!(landed, Err(CommitError::LeaderLost)), "{landed:?}");
    assert!(control.is_leading());
    assert_eq!(
        control
            .view()
            .workloads()
            .map(|workload| workload.id)
            .collect::<Vec<_>>(),
        [web]
    );
    stop(control).await;
}
