//! The session contract: the messages of `proto/hostler/session/v1/session.proto`, and the few rules that
//! both sides must follow to the bit: the versions spoken, the size of a message and the digest of what a
//! node observes. Pure functions; nothing here can fail.

/// Generated from `proto/`; see `cargo xtask proto`.
#[path = "../gen/hostler.session.v1.rs"]
pub mod v1;

#[cfg(test)]
mod golden;

/// The oldest version of this contract that this build speaks.
pub const VERSION_LOWEST: u32 = 1;

/// The newest version of this contract that this build speaks.
pub const VERSION_HIGHEST: u32 = 1;

/// No encoded message is larger; larger sets go in parts.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// One observed unit as the digest sees it: the 16 bytes of the assignment's id, the generation, the
/// state's field number in `UnitState` (see [`state_number`]) and the number of runs.
pub type DigestItem = ([u8; 16], u64, u32, u32);

impl v1::Versions {
    /// What this build speaks.
    #[must_use]
    pub const fn ours() -> Self {
        Self {
            lowest: VERSION_LOWEST,
            highest: VERSION_HIGHEST,
        }
    }
}

/// The highest version that both this build and the other side speak.
#[must_use]
pub fn negotiate(theirs: v1::Versions) -> Option<u32> {
    let version = theirs.highest.min(VERSION_HIGHEST);
    (version >= theirs.lowest.max(VERSION_LOWEST)).then_some(version)
}

/// The number of a state for the digest: its field number in the contract, 0 if no state is set. A state
/// that this build does not know reads as 0 too, so that the digests differ and the set is sent in full.
#[must_use]
pub const fn state_number(state: &v1::UnitState) -> u32 {
    use v1::unit_state::State;
    match &state.state {
        None => 0,
        Some(State::Preparing(_)) => 1,
        Some(State::Starting(_)) => 2,
        Some(State::Running(_)) => 3,
        Some(State::Waiting(_)) => 4,
        Some(State::Failed(_)) => 5,
        Some(State::Stopping(_)) => 6,
        Some(State::Finished(_)) => 7,
        Some(State::Gone(_)) => 8,
    }
}

/// The digest of a set of observed units; the order does not matter, and nothing observed is 0.
///
/// Each unit is written as 32 bytes: the assignment's 16, then generation (8), state number (4) and runs (4),
/// big-endian. FNV-1a (64 bits) over these bytes is mixed by the finaliser of SplitMix64. The digest is the
/// wrapping sum over all units; the sum does not depend on order, and the mixing keeps units that differ in
/// one bit from cancelling each other.
#[must_use]
pub fn digest(units: impl IntoIterator<Item = DigestItem>) -> u64 {
    units
        .into_iter()
        .fold(0, |sum, unit| sum.wrapping_add(unit_digest(unit)))
}

fn unit_digest((assignment, generation, state, runs): DigestItem) -> u64 {
    let mut hash = FNV_OFFSET;
    let words = generation.to_be_bytes().into_iter();
    let words = words.chain(state.to_be_bytes()).chain(runs.to_be_bytes());
    for byte in assignment.into_iter().chain(words) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: [DigestItem; 3] = [([1; 16], 1, 3, 1), ([2; 16], 7, 4, 2), ([3; 16], 1, 3, 1)];

    #[test]
    fn the_highest_common_version_counts() {
        let versions = |lowest, highest| v1::Versions { lowest, highest };
        assert_eq!(negotiate(v1::Versions::ours()), Some(1));
        assert_eq!(negotiate(versions(1, 9)), Some(1));
        assert_eq!(negotiate(versions(2, 9)), None);
        assert_eq!(negotiate(versions(0, 0)), None);
        assert_eq!(negotiate(versions(5, 1)), None);
    }

    #[test]
    fn the_digest_ignores_order_and_sees_every_field() {
        let [a, b, c] = UNITS;
        let whole = digest(UNITS);
        assert_eq!(digest([c, a, b]), whole);
        for changed in [
            ([9; 16], a.1, a.2, a.3),
            (a.0, 2, a.2, a.3),
            (a.0, a.1, 4, a.3),
            (a.0, a.1, a.2, 2),
        ] {
            assert_ne!(digest([changed, b, c]), whole);
        }
        assert_ne!(digest([a, b]), whole);
        assert_ne!(digest([a, a]), 0);
    }

    /// An agent and a control plane of different ages compare these numbers: they may never change.
    #[test]
    fn the_digest_never_changes() {
        assert_eq!(digest([]), 0);
        assert_eq!(digest([([0; 16], 0, 0, 0)]), 0xd991_e919_0428_32c6);
        assert_eq!(digest(UNITS), 0xa9e5_bb59_f470_150a);
    }

    #[test]
    fn states_have_their_field_numbers() {
        use v1::unit_state::{Gone, Running, State};
        let of = |state| state_number(&v1::UnitState { state });
        assert_eq!(of(None), 0);
        assert_eq!(of(Some(State::Running(Running { since_ms: 1 }))), 3);
        assert_eq!(of(Some(State::Gone(Gone {}))), 8);
    }
}
