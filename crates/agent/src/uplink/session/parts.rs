//! Sets that are larger than one message, in parts.

use hostler_wire::session::MAX_MESSAGE_BYTES;
use hostler_wire::session::v1;
use prost::Message;

/// Room for the envelope around the units of one part.
const ENVELOPE_BYTES: usize = 64;
/// No driver says more than this in one message for people.
const MAX_TEXT_BYTES: usize = 8 * 1024;
/// Parts of one unit that are told, and bytes of a part's name.
const MOST_PARTS: usize = 200;
const MAX_NAME_BYTES: usize = 128;

/// Splits the units into messages of at most 64 KiB. A full set has at least one part and its last one says so.
pub(super) fn observed(units: Vec<v1::ObservedUnit>, is_full: bool) -> Vec<v1::NodeMessage> {
    let mut parts: Vec<Vec<v1::ObservedUnit>> = vec![Vec::new()];
    let mut room = MAX_MESSAGE_BYTES - ENVELOPE_BYTES;
    for mut unit in units {
        shorten(&mut unit);
        // A field of a list costs its tag and its length beside its bytes.
        let bytes = unit.encoded_len() + 8;
        if bytes > room {
            parts.push(Vec::new());
            room = MAX_MESSAGE_BYTES - ENVELOPE_BYTES;
        }
        room = room.saturating_sub(bytes);
        if let Some(part) = parts.last_mut() {
            part.push(unit);
        }
    }
    let count = parts.len();
    let message = |(at, units)| {
        let observed = v1::Observed {
            full: is_full,
            last: at + 1 == count,
            units,
        };
        v1::NodeMessage {
            message: Some(v1::node_message::Message::Observed(observed)),
        }
    };
    parts.into_iter().enumerate().map(message).collect()
}

/// Cuts texts for people that would not fit into any message.
fn shorten(unit: &mut v1::ObservedUnit) {
    use v1::unit_state::State;
    unit.parts.truncate(MOST_PARTS);
    for part in &mut unit.parts {
        let most = part.name.floor_char_boundary(MAX_NAME_BYTES);
        part.name.truncate(most);
    }
    let text = match unit.state.as_mut().and_then(|state| state.state.as_mut()) {
        Some(State::Preparing(preparing)) => &mut preparing.detail,
        Some(State::Failed(failed)) => &mut failed.message,
        _ => return,
    };
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(generation: u64, message: &str) -> v1::ObservedUnit {
        let failed = v1::unit_state::Failed {
            code: "node-io".into(),
            message: message.into(),
            retry_at_ms: 1,
        };
        v1::ObservedUnit {
            unit: Some(v1::UnitId {
                assignment: "a".repeat(36),
                generation,
            }),
            workload: "w".repeat(36),
            kind: "process".into(),
            state: Some(v1::UnitState {
                state: Some(v1::unit_state::State::Failed(failed)),
            }),
            runs: 1,
            parts: Vec::new(),
            health: None,
            crash_loop: None,
        }
    }

    fn split(units: Vec<v1::ObservedUnit>, is_full: bool) -> Vec<v1::Observed> {
        let parts = observed(units, is_full);
        parts
            .into_iter()
            .map(|part| {
                assert!(
                    part.encoded_len() <= MAX_MESSAGE_BYTES,
                    "{}",
                    part.encoded_len()
                );
                match part.message {
                    Some(v1::node_message::Message::Observed(observed)) => observed,
                    other => panic!("{other:?}"),
                }
            })
            .collect()
    }

    #[test]
    fn a_large_set_goes_in_parts_and_only_the_last_says_so() {
        let units: Vec<_> = (0..2_000).map(|n| unit(n, "no")).collect();
        let parts = split(units.clone(), true);
        assert!(parts.len() > 2);
        let lasts: Vec<bool> = parts.iter().map(|part| part.last).collect();
        assert!(lasts[parts.len() - 1] && lasts.iter().filter(|last| **last).count() == 1);
        let back: Vec<_> = parts.into_iter().flat_map(|part| part.units).collect();
        assert_eq!(back, units);
    }

    #[test]
    fn an_empty_full_set_is_one_part() {
        let parts = split(Vec::new(), true);
        assert_eq!(
            parts,
            [v1::Observed {
                full: true,
                last: true,
                units: Vec::new()
            }]
        );
    }

    #[test]
    fn a_text_that_fits_no_message_is_cut() {
        let parts = split(vec![unit(1, &"ä".repeat(100_000))], false);
        assert_eq!(parts.len(), 1);
    }
}
