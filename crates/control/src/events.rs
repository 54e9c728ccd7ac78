//! The newest events in memory, filled from commits and at load, for readers and event streams.
//!
//! The store keeps each event under its number modulo the capacity, so the log is bounded without anybody
//! cleaning up. In memory the ring is one run of numbers without holes. The lock is a leaf; nothing fails.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use hostler_model::Event;

pub(crate) struct EventRing {
    capacity: usize,
    events: RwLock<VecDeque<Arc<Event>>>,
}

impl EventRing {
    pub(crate) fn new(capacity: u64) -> Self {
        let capacity = usize::try_from(capacity.max(1)).unwrap_or(usize::MAX);
        Self {
            capacity,
            events: RwLock::default(),
        }
    }

    /// Starts anew from what a store holds, in any order: the longest run that ends with the newest.
    pub(crate) fn fill(&self, mut stored: Vec<Arc<Event>>) {
        stored.sort_by_key(|event| event.sequence);
        stored.dedup_by_key(|event| event.sequence);
        let mut run: VecDeque<Arc<Event>> = VecDeque::new();
        for event in stored.into_iter().rev().take(self.capacity) {
            match run.front() {
                Some(newer) if newer.sequence != event.sequence + 1 => break,
                _ => run.push_front(event),
            }
        }
        *self.events.write().unwrap_or_else(PoisonError::into_inner) = run;
    }

    pub(crate) fn append(&self, fresh: impl IntoIterator<Item = Arc<Event>>) {
        let mut events = self.events.write().unwrap_or_else(PoisonError::into_inner);
        for event in fresh {
            if events.len() == self.capacity {
                events.pop_front();
            }
            events.push_back(event);
        }
    }

    /// At most `limit` events, and the number of the oldest that is kept. After a number: the first ones
    /// behind it. Without one: the newest.
    pub(crate) fn read(&self, after: Option<u64>, limit: usize) -> (Vec<Arc<Event>>, u64) {
        let events = self.events.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = events.front().map_or(0, |event| event.sequence);
        let start = match after {
            Some(after) => events.partition_point(|event| event.sequence <= after),
            None => events.len().saturating_sub(limit),
        };
        (
            events.iter().skip(start).take(limit).cloned().collect(),
            oldest,
        )
    }

    pub(crate) fn newest(&self) -> u64 {
        let events = self.events.read().unwrap_or_else(PoisonError::into_inner);
        events.back().map_or(0, |event| event.sequence)
    }
}

#[cfg(test)]
mod tests {
    use hostler_model::{EventKind, Level, Subject, Timestamp};

    use super::*;

    fn event(sequence: u64) -> Arc<Event> {
        Arc::new(Event {
            sequence,
            at: Timestamp::default(),
            kind: EventKind::NodeJoined,
            level: Level::Info,
            subject: Subject::default(),
            message: String::new(),
            actor: String::new(),
        })
    }

    fn numbers(ring: &EventRing, after: Option<u64>, limit: usize) -> Vec<u64> {
        ring.read(after, limit)
            .0
            .iter()
            .map(|event| event.sequence)
            .collect()
    }

    #[test]
    fn the_ring_keeps_the_newest_and_reads_on_behind_a_number() {
        let ring = EventRing::new(4);
        ring.append((1..=6).map(event));
        assert_eq!(numbers(&ring, None, 2), [5, 6]);
        assert_eq!(numbers(&ring, Some(0), 2), [3, 4]);
        assert_eq!(numbers(&ring, Some(4), 9), [5, 6]);
        assert_eq!(numbers(&ring, Some(6), 9), [0; 0]);
        assert_eq!(ring.read(None, 1).1, 3);
        assert_eq!(ring.newest(), 6);
    }

    #[test]
    fn filling_takes_the_newest_run_without_holes() {
        let ring = EventRing::new(8);
        ring.fill([7, 2, 6, 5, 3].map(event).to_vec());
        assert_eq!(numbers(&ring, Some(0), 9), [5, 6, 7]);
    }
}
