#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions, not in what they share"
)]
//! Seeds that must hold, and the proof that a seed gives one history. `HOSTLER_SIM_SEEDS` raises their number.
//! Beside them stories of one agent whose contract is another's.

mod orchion;

use hostler_sim::{Flavour, Outcome, Scenario, run};

/// Seeds of a short run.
const SEEDS: u64 = 20;
/// How often two histories may differ while the machine is too busy to keep real time out of them.
const FURTHER_TRIES: u32 = 5;

fn seeds() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "campaigns set the number of seeds"
    )]
    let asked = std::env::var("HOSTLER_SIM_SEEDS");
    asked
        .ok()
        .and_then(|asked| asked.parse().ok())
        .unwrap_or(SEEDS)
}

/// Two tests share the seeds, so that two cores have something to do.
fn all_hold(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let outcome = run(seed).unwrap();
        assert!(outcome.violation.is_none(), "{outcome}");
    }
}

#[test]
fn every_even_seed_holds() {
    all_hold((0..seeds()).step_by(2));
}

#[test]
fn every_odd_seed_holds() {
    all_hold((1..seeds()).step_by(2));
}

/// Two histories of one seed; those that differ although both had all the time they needed come as they are.
fn two_histories(seed: u64) -> (Outcome, Outcome) {
    let both = || (run(seed).unwrap(), run(seed).unwrap());
    let (mut first, mut second) = both();
    for _ in 0..FURTHER_TRIES {
        let was_starved = first.was_starved || second.was_starved;
        if first.trace == second.trace || !was_starved {
            break;
        }
        (first, second) = both();
    }
    (first, second)
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in [0, 1, 2, 4] {
        let (first, second) = two_histories(seed);
        let differing = first
            .trace
            .iter()
            .zip(&second.trace)
            .position(|(a, b)| a != b);
        assert_eq!(
            differing.map(|line| (&first.trace[line], &second.trace[line])),
            None,
            "seed {seed}"
        );
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}

#[test]
fn seeds_differ_and_some_have_no_fault_but_jumping_clocks() {
    let flavours: Vec<Flavour> = (0..10).map(|seed| Scenario::new(seed).flavour).collect();
    assert!(flavours.contains(&Flavour::ClocksOnly) && flavours.contains(&Flavour::Everything));
    let story = |seed| format!("{:?}", Scenario::new(seed).steps);
    assert_ne!(story(1), story(2));
    assert_eq!(story(1), story(1));
}
