//! Restarts of a server under load, as a service manager does them: nodes are not lost, what was acknowledged is there,
//! and where the manager keeps the socket nobody is even refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::fleet::Fleet;
use crate::program::{Ended, Raises, eventually, hostler, is_alive};

const RESTARTS: usize = 5;
const NODES: [&str; 3] = ["box", "second", "third"];

/// What a writer has seen.
#[derive(Default)]
struct Noted {
    acknowledged: BTreeMap<String, u64>,
    /// What it was told in the place of an answer.
    failures: Vec<String>,
}

#[test]
fn restarts_under_load_lose_no_node_and_no_acknowledged_write() {
    let mut fleet = three_nodes();
    fleet.run_sleeper("sleeper", &["--count", "3"]).with_code(0);
    let mut pids = fleet.starts("sleeper");
    pids.sort_unstable();
    let noted = restart_under_load(&mut fleet);
    assert_all_there(&fleet, &noted);
    assert_eq!(fleet.against_nodes(), Vec::<String>::new());
    let mut now = fleet.starts("sleeper");
    now.sort_unstable();
    assert_eq!(now, pids, "nothing was started anew");
    assert!(pids.into_iter().all(is_alive), "and nothing stopped");
}

#[test]
fn nobody_is_refused_during_a_restart_if_the_socket_is_kept() {
    let mut fleet = three_nodes();
    assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
    fleet.keep_socket();
    fleet.start_server();
    let noted = restart_under_load(&mut fleet);
    assert_eq!(noted.failures, Vec::<String>::new());
    assert_all_there(&fleet, &noted);
    let happened = fleet.happened();
    assert!(!happened.iter().any(|kind| kind == "node-lost"));
}

#[test]
fn a_socket_that_nobody_serves_is_told_at_the_start() {
    let mut fleet = Fleet::without_agent("/nonexistent/docker.sock");
    fleet.kill_server();
    fleet.keep_socket();
    let mut command = hostler(fleet.path());
    command
        .args([
            "server",
            "--insecure",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(fleet.server_dir());
    let ended = Ended::from(fleet.with_kept_socket(command).output().unwrap());
    let ended = ended.with_code(2);
    assert!(
        ended.stderr.contains("nothing here listens there"),
        "{}",
        ended.stderr
    );
}

fn three_nodes() -> Fleet {
    let mut fleet = Fleet::start();
    fleet.add_node("second");
    fleet.add_node("third");
    fleet
}

/// Restarts the server as often, while somebody writes all the time, and waits for its nodes each time.
fn restart_under_load(fleet: &mut Fleet) -> Noted {
    let (noted, is_over) = (Mutex::new(Noted::default()), AtomicBool::new(false));
    let (home, addr) = (fleet.path().to_owned(), fleet.addr());
    std::thread::scope(|scope| {
        let _over = Raises(&is_over);
        scope.spawn(|| write_until((&home, &addr), &is_over, &noted));
        let count = || noted.lock().unwrap().acknowledged.len();
        for _ in 0..RESTARTS {
            let before = count();
            eventually("something is written", || count() > before + 3);
            assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
            fleet.start_server();
            for node in NODES {
                eventually("the node is back", || {
                    fleet.state_of(node) == "ready" && is_connected(fleet, node)
                });
            }
        }
    });
    noted.into_inner().unwrap()
}

/// A node that was never away for the records may still be on its way back.
fn is_connected(fleet: &Fleet, node: &str) -> bool {
    let shown = fleet.run(&["node", "show", node, "-o", "json"]);
    shown.code == Some(0) && shown.json()["lease"]["age_ms"].is_u64()
}

/// A client that tries again.
fn write_until((home, addr): (&Path, &str), is_over: &AtomicBool, noted: &Mutex<Noted>) {
    for count in 0.. {
        let name = format!("note-{count}");
        loop {
            let mut command = hostler(home);
            command.env("HOSTLER_ADDR", addr);
            command.args([
                "run", &name, "--count", "0", "-d", "-o", "json", "--", "true",
            ]);
            let ended = Ended::from(command.output().unwrap());
            if ended.code == Some(0) {
                let revision = ended.json()[0]["revision"].as_u64().unwrap();
                noted.lock().unwrap().acknowledged.insert(name, revision);
                break;
            }
            noted.lock().unwrap().failures.push(ended.stderr);
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        if is_over.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn assert_all_there(fleet: &Fleet, noted: &Noted) {
    assert!(noted.acknowledged.len() > RESTARTS);
    for (name, revision) in &noted.acknowledged {
        let shown = fleet.run(&["show", name, "-o", "json"]).with_code(0).json();
        assert!(
            shown["revision"].as_u64() >= Some(*revision),
            "{name}: {shown}"
        );
    }
}
