//! Work that comes and goes while server and agent are killed: what was acknowledged is what runs in the end,
//! once, and nothing else does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hostler_kit::{Entropy as _, SeededEntropy};

use crate::crash::{kill_under_load, number, restart};
use crate::fleet::Fleet;
use crate::program::{eventually, is_alive};

/// Enough to have some in every state at the moment of the kill.
const MOST_A_ROUND: u64 = 12;

/// What was acknowledged last of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Runs,
    Removed,
    /// No answer came: either is right.
    None,
}

#[test]
fn acknowledged_work_is_what_runs_in_the_end_once_whatever_was_killed() {
    let seed = number("HOSTLER_TEST_SEED", 1);
    println!("repeat with HOSTLER_TEST_SEED={seed}");
    let random = SeededEntropy::new(seed);
    let mut fleet = Fleet::start();
    for round in 0..number("HOSTLER_TEST_ROUNDS", 3) {
        let choice = random.next_u64() % 3;
        let moment = Duration::from_millis(random.next_u64() % 600);
        let noted = kill_under_load(&mut fleet, (choice, moment), |fleet, is_over| {
            churn(fleet, is_over, round)
        });
        restart(&mut fleet);
        for (name, word) in &noted {
            settles(&fleet, name, *word);
        }
        for (name, _) in &noted {
            fleet.run(&["rm", "-y", name]);
        }
    }
}

/// Runs sleepers and removes every other one.
fn churn(fleet: &Fleet, is_over: &AtomicBool, round: u64) -> Vec<(String, Word)> {
    let mut noted = Vec::new();
    for count in 0..MOST_A_ROUND {
        let name = format!("sleeper-{round}-{count}");
        let ran = fleet.run_sleeper(&name, &["-d"]).code == Some(0);
        let mut word = if ran { Word::Runs } else { Word::None };
        if count % 2 == 1 {
            let removed = fleet.run(&["rm", "-y", "-d", &name]).code == Some(0);
            word = if removed { Word::Removed } else { Word::None };
        }
        noted.push((name, word));
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    noted
}

fn settles(fleet: &Fleet, name: &str, word: Word) {
    let alive = || {
        fleet
            .starts(name)
            .into_iter()
            .filter(|pid| is_alive(*pid))
            .count()
    };
    let mut is_known = false;
    eventually("what runs is what was acknowledged", || {
        let shown = fleet.run(&["show", name, "-o", "json"]);
        is_known = shown.code == Some(0) && shown.json()["desired"] == "running";
        let fits = match word {
            Word::Runs => is_known,
            Word::Removed => shown.code == Some(1),
            Word::None => true,
        };
        fits && alive() == usize::from(is_known)
    });
    // On a machine so busy that a lease ran out, copies are replaced by right.
    let was_lost = || fleet.happened().iter().any(|kind| kind == "node-lost");
    assert!(
        !is_known || fleet.starts(name).len() == 1 || was_lost(),
        "{name} was started more than once"
    );
}
