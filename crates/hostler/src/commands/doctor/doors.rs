//! The doors of other contracts on a server with login: what each of them relaxes.

use std::net::SocketAddr;

use hostler_wire::api::Door;

use super::finding::{Finding, Gravity};

pub(super) fn examine(server: &str, door: &Door) -> Vec<Finding> {
    let word = &door.contract;
    let finding = |gravity, sentence, advice: &str| Finding {
        gravity,
        about: format!("server {server}, door {word}"),
        sentence,
        advice: advice.to_owned(),
    };
    let mut findings = Vec::new();
    if !door.open.is_empty() {
        let sentence = format!(
            "whoever reaches it may use without a token: {}",
            door.open.join(", ")
        );
        let advice = format!("`--compat-auth {word}=token` asks everybody who they are");
        findings.push(finding(Gravity::Warning, sentence, &advice));
    }
    if !door.own.is_empty() {
        let sentence = format!(
            "the contract's own credential opens, for what is its holder's: {}",
            few(&door.own)
        );
        let advice = "`GET /api/v1/doors` names each route";
        findings.push(finding(Gravity::Note, sentence, advice));
    }
    for port in door.ports.iter().filter(|port| port.tls != "on") {
        let addr = port.addr.parse::<SocketAddr>();
        let gravity = if addr.is_ok_and(|addr| addr.ip().is_loopback()) {
            Gravity::Note
        } else {
            Gravity::Warning
        };
        let sentence = format!(
            "{} takes plain text: whoever is on the way can read what is shown there",
            port.addr
        );
        let advice = format!("`--compat-tls {word}=on` asks for TLS");
        findings.push(finding(gravity, sentence, &advice));
    }
    findings
}

/// The first of them, and how many there are beside: what asks for a credential need not fill the screen.
fn few(routes: &[String]) -> String {
    const NAMED: usize = 3;
    let (named, more) = routes.split_at(routes.len().min(NAMED));
    match more.len() {
        0 => named.join(", "),
        more => format!("{}, and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(door: serde_json::Value) -> Vec<(Gravity, String)> {
        let door = serde_json::from_value(door).unwrap();
        let findings = examine("https://x", &door).into_iter();
        findings.map(|it| (it.gravity, it.sentence)).collect()
    }

    #[test]
    fn what_a_door_relaxes_is_told_by_its_routes() {
        assert_eq!(told(json!({"contract": "miaas", "auth": "token"})), []);
        let told = told(json!({
            "contract": "spot", "auth": "contract", "open": ["GET /api/agents"],
            "own": ["POST /api/agents/register"],
            "ports": [
                {"addr": "0.0.0.0:5000", "tls": "sniff"}, {"addr": "127.0.0.1:1", "tls": "off"},
                {"addr": "0.0.0.0:2", "tls": "on"}
            ]
        }));
        let gravities: Vec<_> = told.iter().map(|it| it.0).collect();
        let (note, warning) = (Gravity::Note, Gravity::Warning);
        assert_eq!(gravities, [warning, note, warning, note]);
        assert!(told[0].1.contains("GET /api/agents"), "{told:?}");
        assert!(told[1].1.contains("register"), "{told:?}");
        assert!(told[2].1.contains("0.0.0.0:5000"), "{told:?}");
    }

    #[test]
    fn a_long_list_of_what_asks_for_a_credential_is_cut() {
        let routes: Vec<String> = (0..5).map(|it| format!("GET /{it}")).collect();
        assert_eq!(few(&routes), "GET /0, GET /1, GET /2, and 2 more");
        assert_eq!(few(&routes[..2]), "GET /0, GET /1");
    }
}
