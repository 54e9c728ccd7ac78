//! No answer precedes its sync: what the kernel was asked to do, in order, as strace saw it.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::child::Orders;

const COMMITS: usize = 300;

/// What of a traced process matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The log is written to: counted when the call begins.
    LogWritten,
    /// The log is synced: counted when the call has come back well.
    LogSynced,
    /// An acknowledgement begins to be said.
    Acknowledged,
}

#[test]
#[ignore = "needs strace"]
fn no_commit_is_answered_before_its_log_is_synced() {
    let directory = TempDir::new().expect("a directory");
    // One lane: between two acknowledgements there is exactly one commit.
    let orders = Orders {
        directory: directory.path().join("data"),
        lanes: 1,
        commits: COMMITS,
        failpoint: None,
        migrates: false,
    };
    let seen = trace(&orders, &directory.path().join("trace"));
    let (mut unsynced, mut synced, mut acknowledged) = (false, 0, 0);
    for event in seen {
        match event {
            Seen::LogWritten => unsynced = true,
            Seen::LogSynced => (unsynced, synced) = (false, synced + 1),
            Seen::Acknowledged => {
                acknowledged += 1;
                assert!(
                    !unsynced,
                    "acknowledgement {acknowledged} precedes its sync"
                );
                assert!(
                    synced > 0,
                    "acknowledgement {acknowledged} has no sync of its own"
                );
                synced = 0;
            }
        }
    }
    assert_eq!(acknowledged, COMMITS, "all commits were traced");
}

fn trace(orders: &Orders, output: &Path) -> Vec<Seen> {
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-y",
        "-s",
        "16",
        "-e",
        "trace=fdatasync,fsync,pwrite64,write",
        "-o",
    ]);
    strace
        .arg(output)
        .arg(std::env::current_exe().expect("a test has a path"));
    orders.arm(&mut strace);
    let status = strace
        .stdout(Stdio::null())
        .status()
        .expect("strace starts");
    assert!(status.success(), "{status}");
    let text = std::fs::read_to_string(output).expect("strace has written");
    let mut syncing = Vec::new();
    text.lines()
        .filter_map(|line| see(line, &mut syncing))
        .collect()
}

/// Reads one line. A call that another thread's overtakes is split: `… <unfinished ...>` when it begins and
/// `… resumed>) = 0` when it ends; `syncing` holds the threads that are in between.
fn see(line: &str, syncing: &mut Vec<String>) -> Option<Seen> {
    let (thread, call) = line.trim_start().split_once(' ')?;
    let call = call.trim_start();
    let is_log = call.contains("hostler.db-wal>");
    let is_sync = call.starts_with("fdatasync(") || call.starts_with("fsync(");
    if call.starts_with("<... fdatasync resumed>") || call.starts_with("<... fsync resumed>") {
        let place = syncing.iter().position(|waiting| waiting == thread)?;
        syncing.remove(place);
        return call.ends_with("= 0").then_some(Seen::LogSynced);
    }
    if is_log && is_sync {
        if call.ends_with("<unfinished ...>") {
            syncing.push(thread.to_owned());
            return None;
        }
        return call.ends_with("= 0").then_some(Seen::LogSynced);
    }
    if is_log && (call.starts_with("pwrite64(") || call.starts_with("write(")) {
        return Some(Seen::LogWritten);
    }
    (call.starts_with("write(1<") && call.contains("\"ack ")).then_some(Seen::Acknowledged)
}
