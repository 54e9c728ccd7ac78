//! The session contract: the messages of `proto/hostler/session/v1/session.proto`, and the few rules that
//! both sides must follow to the bit: the versions spoken, the size of a message and the digest of what a
//! node observes. Pure functions; nothing here can fail.

use std::fmt;

/// Generated from `proto/`; see `cargo xtask proto`.
#[path = "../gen/hostler.session.v1.rs"]
pub mod v1;

/// What reflection tells of this contract: its file, as an encoded set of descriptors.
pub const DESCRIPTORS: &[u8] = include_bytes!("../gen/hostler.session.v1.bin");

#[cfg(test)]
mod golden;

/// The oldest version of this contract that this build speaks.
pub const VERSION_LOWEST: u32 = 1;

/// The newest version of this contract that this build speaks.
pub const VERSION_HIGHEST: u32 = 1;

/// No encoded message is larger; larger sets go in parts.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// One observed unit as the digest sees it: the 16 bytes of the assignment's id, the generation, the
/// state's number (see [`unit_number`]) and the number of runs.
pub type DigestItem = ([u8; 16], u64, u32, u32);

/// Without its value.
impl fmt::Debug for v1::JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretValue")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

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

/// The number of a unit for the digest: that of its state, and above it the field number of what its health
/// check says, eight bits up, and 1 for a crash loop, sixteen bits up. Without either it is the state's.
#[must_use]
pub fn unit_number(unit: &v1::ObservedUnit) -> u32 {
    use v1::health::State;
    let health = match unit
        .health
        .as_ref()
        .and_then(|health| health.state.as_ref())
    {
        None => 0,
        Some(State::Starting(_)) => 1,
        Some(State::Healthy(_)) => 2,
        Some(State::Unhealthy(_)) => 3,
    };
    let state = unit.state.as_ref().map_or(0, state_number);
    state | health << 8 | u32::from(unit.crash_loop.is_some()) << 16
}

/// The digest of a set of observed units; the order does not matter, and nothing observed is 0.
///
/// It is the exclusive or of one hash for each unit. A unit that is gone (state 8) counts as nothing. The hash
/// of a unit folds four words into `0x9e37_79b9_7f4a_7c15` by `sum = mix(sum ^ mix(word))`: the two halves of the
/// assignment's id, big-endian; the generation; the state's number in the upper half and the runs in the lower.
/// `mix` adds `0x9e37_79b9_7f4a_7c15` and is then the finaliser of SplitMix64.
#[must_use]
pub fn digest(units: impl IntoIterator<Item = DigestItem>) -> u64 {
    units
        .into_iter()
        .fold(0, |sum, unit| sum ^ unit_digest(unit))
}

fn unit_digest((assignment, generation, state, runs): DigestItem) -> u64 {
    if state & 0xff == GONE {
        return 0;
    }
    let (high, low) = assignment.split_at(8);
    let counts = u64::from(state) << 32 | u64::from(runs);
    let words = [word(high), word(low), generation, counts];
    words
        .into_iter()
        .fold(GOLDEN, |sum, word| mixed(sum ^ mixed(word)))
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

const fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(GOLDEN);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The state number of a unit that is gone.
const GONE: u32 = 8;

/// The golden ratio's fraction, in 64 bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: [DigestItem; 3] = [([1; 16], 1, 3, 1), ([2; 16], 7, 4, 2), ([3; 16], 1, 3, 1)];

    #[test]
    fn what_holds_a_secret_shows_none_in_debug_prints() {
        let join = v1::JoinRequest {
            token: "canary".to_owned(),
            identity: "canary".to_owned(),
            ..v1::JoinRequest::default()
        };
        let secret = v1::SecretValue {
            value: b"canary".to_vec(),
            ..v1::SecretValue::default()
        };
        let client = crate::client::Client::new("http://127.0.0.1:1", Some("canary"));
        for text in [
            format!("{join:?}"),
            format!("{secret:?}"),
            format!("{client:?}"),
        ] {
            assert!(
                !text.contains("canary") && !text.contains("99, 97"),
                "{text}"
            );
        }
    }

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
        assert_eq!(digest([a, b, c, ([9; 16], 1, GONE, 1)]), whole);
    }

    /// An agent and a control plane of different ages compare these numbers: they may never change.
    #[test]
    fn the_digest_never_changes() {
        assert_eq!(digest([]), 0);
        assert_eq!(digest([([0; 16], 0, 0, 0)]), 0xccc5_deef_ea6b_b856);
        assert_eq!(digest(UNITS), 0xae9c_776d_4886_781b);
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
