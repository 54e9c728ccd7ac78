//! A full disk: nothing is acknowledged that is not kept, and the store works again when there is space.

use std::process::Command;
use std::sync::Arc;

use hostler_kit::SystemClock;
use hostler_store::contract::{delete, put};
use hostler_store::{CommitError, Page, SqliteOptions, SqliteStore, Store, StoreError};
use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::TempDir;

use crate::child::{open, say};

const ORDERS: &str = "HOSTLER_STORE_TEST_FULL_DISK";
/// Larger than any limit of these tests takes.
const FAR: usize = 10_000;

fn key(n: usize) -> String {
    format!("k/{n:05}")
}

/// Commits until one fails; how many went well.
async fn fill(store: &dyn Store) -> usize {
    for n in 0..FAR {
        let writes = vec![
            put(&key(n), &"x".repeat(2_000)),
            put("last", &n.to_string()),
        ];
        match store.commit(writes, Vec::new()).await {
            Ok(_) => {}
            Err(CommitError::Store(StoreError::Unavailable(_))) => return n,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the disk is never full");
}

/// The first `kept` commits are there and no other.
async fn check(store: &dyn Store, kept: usize) {
    let listing = store
        .list(
            "k/",
            Page {
                limit: FAR,
                ..Page::default()
            },
        )
        .await;
    let listing = listing.expect("reads need no space");
    assert_eq!(
        listing.revision, kept as u64,
        "a failed commit takes no revision"
    );
    let keys: Vec<String> = listing.entries.into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, (0..kept).map(key).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_database_refuses_and_takes_again_what_fits() {
    let directory = TempDir::new().expect("a directory");
    let options = SqliteOptions {
        most_pages: Some(64),
        ..SqliteOptions::default()
    };
    let clock = Arc::new(SystemClock::new());
    let store = SqliteStore::open_with(directory.path(), clock, options).expect("it opens");
    let kept = fill(&store).await;
    check(&store, kept).await;
    let large = put("large", &"x".repeat(2_000));
    let refused = store.commit(vec![large], Vec::new()).await.unwrap_err();
    assert!(refused.to_string().contains("full"), "{refused}");
    let mut watch = store.watch("", kept as u64).await.expect("from now on");
    let freed = store
        .commit(vec![delete(&key(0)), delete(&key(1))], Vec::new())
        .await;
    let freed = freed.expect("a delete needs no new page");
    assert_eq!(
        watch.next().await.expect("the delete").revision,
        freed,
        "no watcher saw more"
    );
    store
        .commit(vec![put("small", "1")], Vec::new())
        .await
        .expect("it fits again");
}

#[test]
fn a_failing_write_to_the_log_is_not_acknowledged_and_heals() {
    let directory = TempDir::new().expect("a directory");
    // A limit on file size fails writes in the middle of the log, as a full disk does. The signal that
    // would come with it is ignored by the shell and therefore by its child.
    let mut shell = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -S -f 1024; exec \"$0\" \"$@\"";
    shell
        .args(["-c", script])
        .arg(std::env::current_exe().expect("a test has a path"));
    let child = [
        "--exact",
        "full_disk::fills_a_small_disk",
        "--ignored",
        "--nocapture",
    ];
    shell.args(child).env(ORDERS, directory.path());
    let output = shell.output().expect("the child starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{errors}", output.status);
    assert!(
        text.contains("healed"),
        "the child did its work: {text}{errors}"
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open(directory.path());
        let healed = store.get("healed").await.expect("a key can be read");
        assert!(
            healed.is_some(),
            "what was acknowledged after the failure is there"
        );
    });
}

#[test]
#[ignore = "is the child process of another test"]
#[expect(
    clippy::disallowed_methods,
    reason = "a child process gets its orders this way"
)]
fn fills_a_small_disk() {
    let Ok(directory) = std::env::var(ORDERS) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open(directory.as_ref());
        let kept = fill(&store).await;
        check(&store, kept).await;
        let again = store
            .commit(vec![put("more", &"x".repeat(100_000))], Vec::new())
            .await;
        assert!(
            matches!(again, Err(CommitError::Store(_))),
            "still full: {again:?}"
        );
        setrlimit(
            Resource::Fsize,
            Rlimit {
                current: None,
                maximum: None,
            },
        )
        .expect("more space");
        let healed = store.commit(vec![put("healed", "1")], Vec::new()).await;
        assert_eq!(healed.expect("there is space"), kept as u64 + 1);
        say("healed");
    });
}
