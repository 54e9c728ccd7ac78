//! One number for everything that is observed on a node, so that both sides of a session notice with eight
//! bytes whether their pictures agree.
//!
//! The digest is the exclusive or of one hash for each unit: it does not depend on order, and a change of
//! one unit changes it without looking at the others. Details that only people read, such as the progress
//! of a download, do not count. A unit that is gone is not observed and counts as nothing. A unit without
//! a health check that does not keep crashing counts as it did before there were such.

use crate::{Health, ObservedUnit, UnitState};

/// The digest of a whole node.
#[must_use]
pub fn digest<'a>(units: impl IntoIterator<Item = &'a ObservedUnit>) -> u64 {
    units
        .into_iter()
        .fold(0, |sum, unit| sum ^ unit_digest(unit))
}

/// What one unit adds to the digest; adding it again takes it out.
#[must_use]
pub fn unit_digest(unit: &ObservedUnit) -> u64 {
    let Some(state) = state_number(&unit.state) else {
        return 0;
    };
    let (high, low) = unit.unit.assignment.as_bytes().split_at(8);
    let words = [
        word(high),
        word(low),
        unit.unit.generation,
        (state | condition(unit)) << 32 | u64::from(unit.runs),
    ];
    words
        .into_iter()
        .fold(0x9e37_79b9_7f4a_7c15, |sum, word| mixed(sum ^ mixed(word)))
}

/// Part of the session contract: a state keeps its number.
const fn state_number(state: &UnitState) -> Option<u64> {
    match state {
        UnitState::Preparing { .. } => Some(1),
        UnitState::Starting => Some(2),
        UnitState::Running { .. } => Some(3),
        UnitState::Waiting { .. } => Some(4),
        UnitState::Failed { .. } => Some(5),
        UnitState::Stopping => Some(6),
        UnitState::Finished { .. } => Some(7),
        UnitState::Gone => None,
    }
}

/// Health and crash loop, in bits above those of the state. Part of the session contract.
const fn condition(unit: &ObservedUnit) -> u64 {
    let health = match &unit.health {
        None => 0,
        Some(Health::Starting) => 1,
        Some(Health::Healthy) => 2,
        Some(Health::Unhealthy { .. }) => 3,
    };
    health << 8 | (unit.crash_loop.is_some() as u64) << 16
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The finisher of splitmix64, moved off its fixed point at zero.
const fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Kind;
    use crate::{AssignmentId, Timestamp, UnitId, WorkloadId};

    fn unit(seed: u128, generation: u64, state: UnitState) -> ObservedUnit {
        let assignment = AssignmentId::mint(Timestamp::from_millis(1), seed);
        ObservedUnit {
            unit: UnitId {
                assignment,
                generation,
            },
            workload: WorkloadId::mint(Timestamp::from_millis(1), 0),
            kind: Kind::Process,
            state,
            runs: 1,
            parts: Vec::new(),
            health: None,
            crash_loop: None,
        }
    }

    #[test]
    fn order_does_not_matter_and_a_unit_that_is_gone_counts_as_nothing() {
        let one = unit(1, 1, UnitState::Starting);
        let two = unit(2, 1, UnitState::Stopping);
        let gone = unit(3, 1, UnitState::Gone);
        assert_eq!(digest([&one, &two]), digest([&two, &gone, &one]));
        assert_eq!(digest([]), 0);
    }

    #[test]
    fn state_generation_and_runs_matter_and_moments_do_not() {
        let running = |at| UnitState::Running {
            since: Timestamp::from_millis(at),
        };
        let base = unit(1, 1, running(5));
        assert_eq!(unit_digest(&base), unit_digest(&unit(1, 1, running(6))));
        let mut again = base.clone();
        again.runs = 2;
        let unhealthy = |why: &str| ObservedUnit {
            health: Some(Health::Unhealthy {
                why: why.to_owned(),
            }),
            ..base.clone()
        };
        assert_eq!(unit_digest(&unhealthy("a")), unit_digest(&unhealthy("b")));
        let healthy = ObservedUnit {
            health: Some(Health::Healthy),
            ..base.clone()
        };
        let crashing = ObservedUnit {
            crash_loop: Some(std::sync::Arc::new(crate::CrashLoop {
                exit: crate::Exit::Code(1),
                at: Timestamp::from_millis(1),
                run: 1,
                log: Vec::new(),
            })),
            ..base.clone()
        };
        assert_ne!(unit_digest(&healthy), unit_digest(&unhealthy("a")));
        for other in [
            unit(1, 1, UnitState::Starting),
            unit(1, 2, running(5)),
            again,
            healthy,
            crashing,
            unhealthy("a"),
        ] {
            assert_ne!(unit_digest(&base), unit_digest(&other));
        }
    }

    #[test]
    fn the_numbers_are_part_of_the_contract() {
        let pinned = unit_digest(&unit(1, 1, UnitState::Starting));
        assert_eq!(pinned, PINNED, "{pinned:#x}");
    }

    const PINNED: u64 = 0x61d1_6130_b7e1_834d;
}
