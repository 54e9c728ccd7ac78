//! `kill -9` of server and agent at any moment: nothing acknowledged is lost, nothing stops, no second copy.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use hostler_kit::{Entropy as _, SeededEntropy};

use crate::fleet::Fleet;
use crate::program::{eventually, is_alive};

const COPIES: usize = 3;
/// How often what a busy machine has spoilt is begun.
const RUNS: u32 = 3;

#[test]
fn kill_9_of_server_or_agent_at_random_points_loses_nothing_and_stops_nothing() {
    let seed = number("HOSTLER_TEST_SEED", 1);
    println!("repeat with HOSTLER_TEST_SEED={seed}");
    until_it_shows(|| kill_at_random_points(&SeededEntropy::new(seed)));
}

/// On a machine so busy that a lease ran out meanwhile a run shows nothing; then another is made.
pub(crate) fn until_it_shows(mut run: impl FnMut() -> bool) {
    assert!(
        (0..RUNS).any(|_| run()),
        "the machine is too busy: a lease ran out in each run, so they show nothing"
    );
}

/// Whether it shows something.
fn kill_at_random_points(random: &SeededEntropy) -> bool {
    let mut fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &["--count", "3"]).with_code(0);
    // Somewhere else to go, so that a second copy would have a place.
    fleet.add_spare();
    let mut pids = fleet.starts("sleeper");
    pids.sort_unstable();
    let mut acknowledged = BTreeMap::new();
    for round in 0..number("HOSTLER_TEST_ROUNDS", 3) {
        let choice = random.next_u64() % 3;
        let moment = Duration::from_millis(random.next_u64() % 400);
        let noted = kill_under_load(&mut fleet, (choice, moment), |fleet, is_over| {
            write_until(fleet, is_over, round)
        });
        acknowledged.extend(noted);
        restart(&mut fleet);
        for (name, revision) in &acknowledged {
            let shown = fleet.run(&["show", name, "-o", "json"]).with_code(0).json();
            assert!(
                shown["revision"].as_u64() >= Some(*revision),
                "{name}: {shown}"
            );
        }
        if !assert_same(&fleet, &pids) {
            return false;
        }
    }
    fleet.run(&["rm", "-y", "sleeper"]).with_code(0);
    assert!(
        !pids.into_iter().any(is_alive),
        "adopted copies are stopped like any other"
    );
    true
}

/// Kills server (0), agent (1) or both (2) at a moment while the load goes on, and gives what the load noted.
pub(crate) fn kill_under_load<T: Send>(
    fleet: &mut Fleet,
    (choice, moment): (u64, Duration),
    load: impl FnOnce(&Fleet, &AtomicBool) -> T + Send,
) -> T {
    let is_over = AtomicBool::new(false);
    let (mut server, mut agent) = (fleet.server.take(), fleet.agent.take());
    let noted = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(fleet, &is_over));
        sleep(moment);
        if choice != 1 {
            server.take().unwrap().kill();
        }
        if choice != 0 {
            agent.take().unwrap().kill();
        }
        sleep(moment);
        is_over.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    (fleet.server, fleet.agent) = (server, agent);
    noted
}

/// Writes all the while, and notes what was acknowledged.
fn write_until(fleet: &Fleet, is_over: &AtomicBool, round: u64) -> Vec<(String, u64)> {
    let mut acknowledged = Vec::new();
    for count in 0.. {
        let name = format!("note-{round}-{count}");
        let ended = fleet.run(&[
            "run", &name, "--count", "0", "-d", "-o", "json", "--", "true",
        ]);
        if ended.code == Some(0) {
            acknowledged.push((name, ended.json()[0]["revision"].as_u64().unwrap()));
        }
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

/// Starts again what was killed.
pub(crate) fn restart(fleet: &mut Fleet) {
    if fleet.server.is_none() {
        fleet.start_server();
    }
    if fleet.agent.is_none() {
        fleet.start_agent();
    }
    fleet.wait_ready();
}

/// The same processes run, the fleet knows all of them as running, and no other was ever started. On a machine
/// so busy that a lease ran out meanwhile, copies are replaced by right; then it shows nothing and says so.
fn assert_same(fleet: &Fleet, pids: &[u32]) -> bool {
    let was_lost = || fleet.happened().iter().any(|kind| kind == "node-lost");
    eventually("all copies are seen running", || {
        let copies = fleet.copies("sleeper");
        let runs = |copy: &serde_json::Value| copy["state"]["word"] == "running";
        was_lost() || (copies.len() == COPIES && copies.iter().all(runs))
    });
    if was_lost() {
        return false;
    }
    let mut now = fleet.starts("sleeper");
    now.sort_unstable();
    assert_eq!(now, pids, "no second copy was started");
    assert!(pids.iter().all(|pid| is_alive(*pid)), "none was stopped");
    true
}

#[test]
fn a_node_that_stays_away_loses_its_copies_and_gives_the_older_ones_up_when_it_returns() {
    let mut fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    fleet.add_spare();
    let first = fleet.starts("sleeper")[0];
    fleet.kill_agent();
    eventually("its node is suspected or worse", || {
        fleet.state_of("box") != "ready"
    });
    eventually("another copy runs on the other node", || {
        let copies = fleet.copies("sleeper");
        let is_there = |copy: &serde_json::Value| {
            copy["node_name"] == "spare" && copy["state"]["word"] == "running"
        };
        copies.iter().any(is_there)
    });
    assert!(
        fleet.happened().iter().any(|kind| kind == "node-lost"),
        "not before its lease ran out"
    );
    assert!(
        is_alive(first),
        "nobody can reach the old one, so it runs on"
    );
    fleet.start_agent();
    eventually("the older one is stopped", || !is_alive(first));
    eventually("one copy is left", || fleet.copies("sleeper").len() == 1);
    let alive = fleet
        .starts("sleeper")
        .into_iter()
        .filter(|pid| is_alive(*pid));
    assert_eq!(alive.count(), 1);
}

#[test]
fn a_process_that_died_while_the_agent_was_dead_is_started_again_when_it_returns() {
    let mut fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    fleet.kill_agent();
    let pid = fleet.starts("sleeper")[0];
    crate::program::signal(pid, rustix::process::Signal::KILL);
    eventually("it is dead", || !is_alive(pid));
    fleet.start_agent();
    eventually("it is started again", || fleet.starts("sleeper").len() == 2);
}

#[test]
fn a_process_that_dies_while_the_server_is_away_is_started_again_at_once() {
    let mut fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    fleet.kill_server();
    crate::program::signal(fleet.starts("sleeper")[0], rustix::process::Signal::KILL);
    eventually("it is started again", || fleet.starts("sleeper").len() == 2);
    fleet.start_server();
    fleet.wait_ready();
    eventually("the server learns of it", || {
        fleet.copies("sleeper")[0]["runs"] == 2
    });
}

#[test]
fn following_a_log_goes_on_after_the_server_was_away() {
    let mut fleet = Fleet::start();
    let script = "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.1; done";
    fleet
        .run(&["run", "ticker", "--", "sh", "-c", script])
        .with_code(0);
    let mut command = crate::program::hostler(fleet.path());
    command
        .env("HOSTLER_ADDR", fleet.addr())
        .args(["logs", "-f", "ticker"]);
    let mut follower = crate::program::Running::start(&mut command);
    follower.line("tick 3");
    fleet.kill_server();
    fleet.start_server();
    follower.line("the stream broke off");
    follower.line("tick 60");
    let said = follower.said();
    let ticks: Vec<u32> = said
        .lines()
        .filter_map(|line| line.strip_prefix("tick ")?.parse().ok())
        .collect();
    let expected: Vec<u32> = (1..=u32::try_from(ticks.len()).unwrap()).collect();
    assert_eq!(ticks, expected, "no line is missing and none comes twice");
}

#[test]
fn an_agent_facing_an_emptied_store_kills_nothing_until_an_operator_says_so() {
    let mut fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    let pid = fleet.starts("sleeper")[0];
    fleet.kill_server();
    std::fs::remove_dir_all(fleet.server_dir()).unwrap();
    fleet.start_server();
    eventually("the intent is held back", || is_held_back(&fleet));
    assert!(is_alive(pid));
    let shown = fleet.run(&["node", "show", "box"]).with_code(0).stdout;
    assert!(shown.contains("held back"), "{shown}");
    fleet.run(&["node", "accept", "box"]).with_code(0);
    eventually("the operator's word counts", || !is_alive(pid));
}

#[test]
fn an_agent_facing_a_restored_older_store_kills_nothing_until_an_operator_says_so() {
    let mut fleet = Fleet::start();
    fleet.run_sleeper("early", &["--count", "2"]).with_code(0);
    assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
    let backup = fleet.path().join("backup");
    copy(&fleet.server_dir(), &backup);
    fleet.start_server();
    fleet.wait_ready();
    // Half of what runs: by number alone the guard would let it go.
    fleet.run_sleeper("late", &["--count", "2"]).with_code(0);
    let (early, late) = (fleet.starts("early"), fleet.starts("late"));
    fleet.kill_server();
    std::fs::remove_dir_all(fleet.server_dir()).unwrap();
    copy(&backup, &fleet.server_dir());
    fleet.start_server();
    eventually("the intent is held back", || is_held_back(&fleet));
    let all_alive = |pids: &[u32]| pids.iter().all(|pid| is_alive(*pid));
    assert!(all_alive(&early) && all_alive(&late));
    let shown = fleet.run(&["node", "show", "box"]).with_code(0).stdout;
    assert!(shown.contains("restored from an older copy"), "{shown}");

    // Another run over the older copy makes it no more right.
    fleet.kill_server();
    fleet.start_server();
    eventually("the intent is held back again", || is_held_back(&fleet));
    assert!(all_alive(&early) && all_alive(&late));

    fleet.run(&["node", "accept", "box"]).with_code(0);
    eventually("the operator's word counts", || {
        !late.iter().any(|pid| is_alive(*pid))
    });
    assert!(all_alive(&early), "the older store knows these");
    assert_eq!(fleet.starts("early").len(), 2, "and none was started anew");
}

#[test]
fn the_right_store_put_back_after_an_older_one_is_followed_without_a_word() {
    let mut fleet = Fleet::start();
    fleet.run_sleeper("early", &["--count", "2"]).with_code(0);
    assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
    let (older, right) = (fleet.path().join("older"), fleet.path().join("right"));
    copy(&fleet.server_dir(), &older);
    fleet.start_server();
    fleet.wait_ready();
    fleet.run_sleeper("late", &[]).with_code(0);
    assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
    std::fs::rename(fleet.server_dir(), &right).unwrap();
    copy(&older, &fleet.server_dir());
    fleet.start_server();
    eventually("the intent is held back", || is_held_back(&fleet));
    fleet.kill_server();
    std::fs::remove_dir_all(fleet.server_dir()).unwrap();
    std::fs::rename(&right, fleet.server_dir()).unwrap();
    fleet.start_server();
    fleet.wait_ready();
    eventually("the intent is followed", || !is_held_back(&fleet));
    let (early, late) = (fleet.starts("early"), fleet.starts("late"));
    assert_eq!(
        (early.len(), late.len()),
        (2, 1),
        "nothing was started anew"
    );
    assert!(early.into_iter().chain(late).all(is_alive));
}

fn is_held_back(fleet: &Fleet) -> bool {
    fleet
        .node()
        .is_some_and(|node| node["held_back"].is_string())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a campaign is comes from outside"
)]
pub(crate) fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}
