//! Clocks: ours against the server's, and those of the nodes as they told them when their sessions opened. Leases and
//! generations need no clocks; certificates, logs and schedules do.

use hostler_model::Timestamp;
use hostler_wire::api::{Health, Node};

use super::finding::{Finding, Gravity, here};

/// What certificates and people do not mind.
const FINE_MILLIS: u64 = 2_000;
/// What ends logins and certificates.
const BAD_MILLIS: u64 = 60_000;
const ADVICE: &str = "keep its clock by NTP: `timedatectl set-ntp true`, or chrony";

/// The server's word was had between two looks at our clock.
pub(super) fn ours(health: &Health, (asked, told): (Timestamp, Timestamp)) -> Option<Finding> {
    let server = Timestamp::parse(&health.timestamp)?.as_millis();
    let (asked, told) = (asked.as_millis(), told.as_millis());
    // Anything in between may be right.
    let (offset, word) = match server {
        server if server < asked => (asked - server, "ahead of"),
        server if server > told => (server - told, "behind"),
        _ => return None,
    };
    let gravity = gravity(offset)?;
    let sentence = format!("its clock is {} s {word} the server's", offset / 1000);
    Some(here(gravity, sentence, ADVICE))
}

/// A node's, as far as its agent tells it.
pub(super) fn of_node(node: &Node) -> Option<Finding> {
    let offset = node.clock_offset_ms?;
    let gravity = gravity(offset.unsigned_abs())?;
    let word = if offset > 0 { "ahead of" } else { "behind" };
    Some(Finding {
        gravity,
        about: format!("node {}", node.name),
        sentence: format!(
            "its clock was {} s {word} the server's when it joined",
            offset.unsigned_abs() / 1000
        ),
        advice: ADVICE.to_owned(),
    })
}

const fn gravity(offset: u64) -> Option<Gravity> {
    match offset {
        ..FINE_MILLIS => None,
        FINE_MILLIS..BAD_MILLIS => Some(Gravity::Warning),
        BAD_MILLIS.. => Some(Gravity::Problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(server: u64, asked: u64, told: u64) -> Option<(Gravity, String)> {
        let health = Health {
            status: String::new(),
            timestamp: Timestamp::from_millis(server).to_string(),
            database: String::new(),
            version: String::new(),
            decision_engine_loaded: false,
        };
        let moments = (Timestamp::from_millis(asked), Timestamp::from_millis(told));
        ours(&health, moments).map(|it| (it.gravity, it.sentence))
    }

    #[test]
    fn a_clock_counts_as_wrong_only_beyond_the_way_of_the_question() {
        assert_eq!(found(1_000_000, 1_000_000, 1_000_500), None);
        assert_eq!(
            found(1_005_000, 1_000_000, 1_010_000),
            None,
            "a slow answer"
        );
        let (gravity, sentence) = found(1_015_500, 1_000_000, 1_010_000).unwrap();
        assert_eq!(
            (gravity, sentence.as_str()),
            (Gravity::Warning, "its clock is 5 s behind the server's")
        );
        let (gravity, sentence) = found(1_000_000, 1_090_000, 1_090_001).unwrap();
        assert_eq!(
            (gravity, sentence.as_str()),
            (Gravity::Problem, "its clock is 90 s ahead of the server's")
        );
    }

    #[test]
    fn a_node_is_told_if_it_has_told_its_clock() {
        let node = |offset: Option<i64>| -> Node {
            serde_json::from_value(serde_json::json!({
                "id": "1", "name": "box", "capabilities": {}, "last_seen": 0, "status": "online",
                "state": "ready", "joined_at": "", "clock_offset_ms": offset
            }))
            .unwrap()
        };
        assert_eq!(of_node(&node(None)), None);
        assert_eq!(of_node(&node(Some(-500))), None);
        assert_eq!(
            of_node(&node(Some(-5_000))).unwrap().gravity,
            Gravity::Warning
        );
        let far = of_node(&node(Some(600_000))).unwrap();
        assert_eq!(far.gravity, Gravity::Problem);
        assert!(far.sentence.contains("600 s ahead"), "{}", far.sentence);
    }
}
