//! Nothing acknowledged is lost: a child is killed between every pair of durable steps and at random
//! points, and what it was told is compared with what is there afterwards.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use hostler_kit::{Entropy as _, SystemClock, SystemEntropy};
use hostler_store::{Entry, Failpoint, Page, Point, SqliteOptions, SqliteStore, Store};
use tempfile::TempDir;

use crate::child::{Orders, longer_schema, number_at, open};

/// Random kills in an ordinary run; `HOSTLER_STORE_KILLS` raises it for long campaigns.
const KILLS: usize = 6;
const LANES: usize = 4;
/// More commits than any child lives to make.
const MANY: usize = 1_000_000;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// What a child has said.
#[derive(Debug, Default)]
struct Said {
    lease: u64,
    /// (lane, number) to revision.
    acknowledged: BTreeMap<(usize, u64), u64>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words[index].parse::<u64>().expect("the child says numbers");
        match words[..] {
            ["lease", _] => self.lease = number(1),
            ["ack", lane, _, _] => {
                let lane = lane.parse().expect("lanes are numbers");
                self.acknowledged.insert((lane, number(2)), number(3));
            }
            // The last line may be cut off, and the harness has lines of its own.
            _ => {}
        }
    }
}

/// Runs a child until it ends by itself or has had `kill_after` commits acknowledged.
fn run(orders: &Orders, kill_after: Option<usize>) -> (Said, ExitStatus) {
    let mut child = orders.command().spawn().expect("the child starts");
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut said = Said::default();
    for line in BufReader::new(stdout).lines() {
        said.hear(&line.expect("the child speaks text"));
        if kill_after.is_some_and(|most| said.acknowledged.len() >= most) {
            child.kill().expect("our own child can be killed");
        }
    }
    let status = child.wait().expect("our own child can be waited for");
    (said, status)
}

fn orders(directory: &Path) -> Orders {
    let directory = directory.to_owned();
    Orders {
        directory,
        lanes: LANES,
        commits: MANY,
        failpoint: None,
        migrates: false,
    }
}

async fn everything(store: &dyn Store) -> (Vec<Entry>, u64) {
    let (mut entries, mut page) = (
        Vec::new(),
        Page {
            limit: 5_000,
            ..Page::default()
        },
    );
    loop {
        let listing = store
            .list("", page.clone())
            .await
            .expect("the store can be listed");
        page.at = Some(listing.revision);
        page.after = listing.entries.last().map(|entry| entry.key.clone());
        entries.extend(listing.entries);
        if !listing.more {
            return (entries, listing.revision);
        }
    }
}

/// Every acknowledged commit is there, with its revision; every commit is whole; every revision is one
/// commit.
async fn check(store: &dyn Store, said: &Said) {
    let (entries, revision) = everything(store).await;
    let by_key: BTreeMap<&str, &Entry> = entries.iter().map(|e| (e.key.as_str(), e)).collect();
    for (&(lane, n), &acknowledged) in &said.acknowledged {
        let entry = by_key.get(format!("lane/{lane}/log/{n:08}").as_str());
        let found = entry.map(|entry| entry.revision);
        assert_eq!(
            found,
            Some(acknowledged),
            "commit {n} of lane {lane} was acknowledged"
        );
    }
    let mut commits = 0;
    for lane in 0..LANES {
        let last = number_at(store, &format!("lane/{lane}/left")).await;
        commits += last;
        if last == 0 {
            continue;
        }
        let newest = by_key[format!("lane/{lane}/log/{last:08}").as_str()];
        for side in ["left", "right"] {
            let entry = by_key[format!("lane/{lane}/{side}").as_str()];
            let same = (&entry.value, entry.revision) == (&newest.value, newest.revision);
            assert!(same, "commit {last} of lane {lane} is whole: {side}");
        }
    }
    assert_eq!(commits, revision, "each revision is one commit");
    let logged = entries
        .iter()
        .filter(|entry| entry.key.contains("/log/"))
        .count();
    assert_eq!(
        u64::try_from(logged).ok(),
        Some(commits),
        "none is missing in between"
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "a long campaign is asked for this way"
)]
fn kills() -> usize {
    std::env::var("HOSTLER_STORE_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(KILLS)
}

#[tokio::test]
async fn what_was_acknowledged_outlives_an_abort_at_every_point_of_a_commit() {
    let points = [
        Point::BeforeBegin,
        Point::AfterWrites,
        Point::BeforeCommit,
        Point::AfterCommitBeforeAnswer,
        Point::DuringCheckpoint,
    ];
    let directory = TempDir::new().expect("a directory");
    let mut lease = 0;
    for at in points {
        // Early, and once the log has been folded and started over.
        for after in [1, 40] {
            let after = if at == Point::DuringCheckpoint {
                after / 20
            } else {
                after
            };
            let failpoint = Some(Failpoint { at, after });
            let (said, status) = run(
                &Orders {
                    failpoint,
                    ..orders(directory.path())
                },
                None,
            );
            assert_eq!(status.signal(), Some(SIGABRT), "{at:?} strikes: {status}");
            assert!(
                said.lease > lease,
                "lease numbers grow: {} after {lease}",
                said.lease
            );
            lease = said.lease;
            check(&open(directory.path()), &said).await;
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_kills_at_random() {
    let directory = TempDir::new().expect("a directory");
    for _ in 0..kills() {
        let most = 1 + usize::try_from(SystemEntropy.next_u64() % 300).expect("a small number");
        let (said, status) = run(&orders(directory.path()), Some(most));
        assert_eq!(
            status.signal(),
            Some(SIGKILL),
            "killed after {most}: {status}"
        );
        assert!(
            said.acknowledged.len() >= most,
            "it was heard until the end"
        );
        check(&open(directory.path()), &said).await;
    }
}

#[tokio::test]
async fn an_abort_after_the_backup_of_a_migration_leaves_the_former_version() {
    let directory = TempDir::new().expect("a directory");
    let (said, _) = run(
        &Orders {
            commits: 5,
            ..orders(directory.path())
        },
        None,
    );
    assert_eq!(
        said.acknowledged.len(),
        5 * LANES,
        "the child ends by itself"
    );
    let at = Point::DuringMigrationAfterBackup;
    let failpoint = Some(Failpoint { at, after: 0 });
    let migrating = Orders {
        failpoint,
        migrates: true,
        ..orders(directory.path())
    };
    let (_, status) = run(&migrating, None);
    assert_eq!(status.signal(), Some(SIGABRT), "{status}");

    check(&open(directory.path()), &said).await;
    let restored = TempDir::new().expect("a directory");
    let backup = directory.path().join("hostler.db.v1.backup");
    std::fs::copy(backup, restored.path().join("hostler.db")).expect("the backup is there");
    check(&open(restored.path()), &said).await;

    let options = SqliteOptions {
        migrations: longer_schema(),
        ..SqliteOptions::default()
    };
    let clock = Arc::new(SystemClock::new());
    let migrated = SqliteStore::open_with(directory.path(), clock, options);
    check(&migrated.expect("the next start migrates"), &said).await;
}
