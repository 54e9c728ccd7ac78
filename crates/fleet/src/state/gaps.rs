//! The vacant slots of a workload, as intervals: a large workload without copies costs one entry, not one
//! per slot. Owned by the index of copies; nothing here can fail.

use std::collections::BTreeMap;
use std::ops::Range;

/// Vacant slots out of all that there can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// First slot to one past the last; intervals neither touch nor overlap.
    intervals: BTreeMap<u32, u32>,
}

impl Default for Gaps {
    fn default() -> Self {
        Self {
            intervals: BTreeMap::from([(0, u32::MAX)]),
        }
    }
}

impl Gaps {
    /// The vacant slots below `count`, ascending.
    pub(crate) fn below(&self, count: u32) -> impl Iterator<Item = u32> + '_ {
        self.intervals
            .range(..count)
            .flat_map(move |(start, end)| *start..(*end).min(count))
    }

    /// The vacant slots among these, ascending; each is looked at.
    pub(crate) fn among(&self, slots: Range<u32>) -> impl Iterator<Item = u32> + '_ {
        slots.filter(|slot| self.around(*slot).is_some())
    }

    /// Whether a slot below `count` is vacant.
    pub(crate) fn any_below(&self, count: u32) -> bool {
        self.intervals
            .first_key_value()
            .is_some_and(|(start, _)| *start < count)
    }

    /// The slot is taken. Taking it twice is harmless.
    pub(crate) fn take(&mut self, slot: u32) {
        let Some((start, end)) = self.around(slot) else {
            return;
        };
        self.intervals.remove(&start);
        if start < slot {
            self.intervals.insert(start, slot);
        }
        if slot + 1 < end {
            self.intervals.insert(slot + 1, end);
        }
    }

    /// The slot is vacant again. Giving it back twice is harmless.
    pub(crate) fn give(&mut self, slot: u32) {
        if slot == u32::MAX || self.around(slot).is_some() {
            return;
        }
        let end = self.intervals.remove(&(slot + 1)).unwrap_or(slot + 1);
        let before = self.intervals.range(..slot).next_back();
        let start = match before {
            Some((start, before_end)) if *before_end == slot => *start,
            _ => slot,
        };
        self.intervals.insert(start, end);
    }

    fn around(&self, slot: u32) -> Option<(u32, u32)> {
        let (start, end) = self.intervals.range(..=slot).next_back()?;
        (slot < *end).then_some((*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn gaps_agree_with_a_plain_set(steps in prop::collection::vec((any::<bool>(), 0..24_u32), 0..80)) {
            let mut gaps = Gaps::default();
            let mut taken = BTreeSet::new();
            for (take, slot) in steps {
                if take {
                    gaps.take(slot);
                    taken.insert(slot);
                } else {
                    gaps.give(slot);
                    taken.remove(&slot);
                }
                let vacant: Vec<u32> = (0..20).filter(|slot| !taken.contains(slot)).collect();
                prop_assert_eq!(gaps.below(20).collect::<Vec<_>>(), vacant.clone());
                prop_assert_eq!(gaps.any_below(20), !vacant.is_empty());
                let middle: Vec<u32> = vacant.iter().copied().filter(|slot| (5..9).contains(slot)).collect();
                prop_assert_eq!(gaps.among(5..9).collect::<Vec<_>>(), middle);
            }
            let same = taken.iter().fold(Gaps::default(), |mut gaps, slot| { gaps.take(*slot); gaps });
            prop_assert_eq!(gaps, same);
        }
    }
}
