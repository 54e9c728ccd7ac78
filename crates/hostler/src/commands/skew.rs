//! How the version of a node's agent stands to that of its server. Only our own agents are compared: those of other
//! contracts count their versions in their own way.

use std::cmp::Ordering;

use hostler_wire::api::Node;

/// `older` or `newer` than the server; none if it is the same, or cannot be told.
pub(crate) fn of(node: &Node, server: Option<&str>) -> Option<&'static str> {
    let agent = node.facts.agent_version.as_str();
    if node.contract != "session" || agent.is_empty() {
        return None;
    }
    match compare(agent, server?) {
        Ordering::Less => Some("older"),
        Ordering::Greater => Some("newer"),
        Ordering::Equal => None,
    }
}

/// By the numbers of `MAJOR.MINOR.PATCH`; what stands behind them is before the release, and then text decides.
fn compare(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        let release = text.split(['-', '+']).next().unwrap_or_default();
        let numbers = release.split('.');
        numbers.map(|word| word.parse().unwrap_or(0)).collect()
    };
    let rest = |text: &str| text.split_once('-').map(|(_, rest)| rest.to_owned());
    numbers(a)
        .cmp(&numbers(b))
        .then_with(|| match (rest(a), rest(b)) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => a.cmp(&b),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (a, b, expected) in [
            ("0.1.0", "0.1.0", Ordering::Equal),
            ("0.9.0", "0.10.0", Ordering::Less),
            ("1.0.0", "0.10.9", Ordering::Greater),
            ("1.0.0-rc.1", "1.0.0", Ordering::Less),
            ("1.0.0+abc", "1.0.0", Ordering::Equal),
        ] {
            assert_eq!(compare(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_our_own_agents_are_compared() {
        let node = |contract: &str, version: &str| -> Node {
            serde_json::from_value(serde_json::json!({
                "id": "1", "name": "box", "capabilities": {}, "last_seen": 0, "status": "online",
                "state": "ready", "joined_at": "", "contract": contract,
                "facts": {"agent_version": version}
            }))
            .unwrap()
        };
        assert_eq!(of(&node("session", "0.1.0"), Some("0.2.0")), Some("older"));
        assert_eq!(of(&node("session", "0.3.0"), Some("0.2.0")), Some("newer"));
        assert_eq!(of(&node("session", "0.2.0"), Some("0.2.0")), None);
        assert_eq!(of(&node("spot", "2.0.0"), Some("0.2.0")), None);
        assert_eq!(of(&node("session", "0.1.0"), None), None);
        assert_eq!(of(&node("session", ""), Some("0.2.0")), None);
    }
}
