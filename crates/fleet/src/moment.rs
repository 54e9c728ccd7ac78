//! The moment of a decision: the time and the only randomness that `decide` sees.

use hostler_model::Timestamp;

/// When a decision is made, and the seed of every id that it mints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Wall time, for records that people read. No rule measures a span with it: spans are measured in uptime
    /// by the shell, which submits a verb when one is over.
    pub now: Timestamp,
    /// Fresh for each verb.
    pub seed: u128,
}

/// Draws from a moment's seed; the same seed draws the same.
#[derive(Debug)]
pub(crate) struct Draws {
    state: u128,
}

impl Moment {
    pub(crate) const fn draws(&self) -> Draws {
        Draws { state: self.seed }
    }
}

impl Draws {
    /// 128 more bits (splitmix64 twice, over both halves of the state).
    pub(crate) fn next(&mut self) -> u128 {
        self.state = self
            .state
            .wrapping_add(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let [high, low] = [self.state >> 64, self.state & u128::from(u64::MAX)];
        u128::from(mixed(high)) << 64 | u128::from(mixed(low ^ high.rotate_left(17)))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the mixer works on the low 64 bits"
)]
const fn mixed(bits: u128) -> u64 {
    let mut bits = bits as u64;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
