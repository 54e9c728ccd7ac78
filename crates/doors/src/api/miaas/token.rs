//! Tokens of nodes: JWTs, signed with HMAC-SHA256, with MIaaS's claims and no others.
//!
//! Moments are seconds since 1970 from the control plane's clock; no calendar and no time zone is involved. Owns
//! nothing. A token that is not taken is not told why.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hostler_model::Timestamp;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Keys;
use crate::secret;

/// The header where the key has no name. The algorithm is the only one that is written and taken.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const KIND: &str = "node_agent";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub node_id: String,
    pub node_name: String,
    iat: u64,
    exp: u64,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
}

/// A token for a node, good from now on for so long.
pub(super) fn issue(
    keys: &Keys,
    (id, name): (&str, &str),
    (now, ttl): (Timestamp, Duration),
) -> String {
    let iat = now.as_millis() / 1000;
    let claims = Claims {
        node_id: id.to_owned(),
        node_name: name.to_owned(),
        iat,
        exp: iat.saturating_add(ttl.as_secs()),
        kind: KIND.to_owned(),
    };
    let claims = serde_json::to_vec(&claims).unwrap_or_default();
    keys.with_newest(|id, secret| {
        let head = match id {
            "" => HEADER.to_owned(),
            id => json!({"alg": "HS256", "kid": id, "typ": "JWT"}).to_string(),
        };
        let signed = format!("{}.{}", BASE64.encode(head), BASE64.encode(claims));
        let signature = BASE64.encode(secret::hash(secret, signed.as_bytes()));
        format!("{signed}.{signature}")
    })
}

/// What the token says, if this server signed it, it is a node's, and it is not expired.
pub(super) fn read(keys: &Keys, token: &str, now: Timestamp) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (head, claims) = signed.split_once('.')?;
    let signature = BASE64.decode(signature).ok()?;
    let head: Head = serde_json::from_slice(&BASE64.decode(head).ok()?).ok()?;
    let is_ours = |secret: &[u8]| secret::is_hash(secret, signed.as_bytes(), &signature);
    if !keys.any(head.kid.as_deref(), now, is_ours) {
        return None;
    }
    let claims: Claims = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
    let is_good = head.alg == "HS256" && claims.kind == KIND && now.as_millis() / 1000 < claims.exp;
    is_good.then_some(claims)
}

/// The token that a request carries. Another scheme counts as none.
pub(super) fn of(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_759_856_899_567);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn token() -> String {
        issue(&keys("a"), ("id", "box"), (NOW, DAY))
    }

    fn keys(secret: &str) -> Keys {
        Keys::given(secret, None)
    }

    /// Signs any text as this server would.
    fn signed(head: &str, claims: &str) -> String {
        let signed = format!("{}.{}", BASE64.encode(head), BASE64.encode(claims));
        let signature = secret::hash(b"a", signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(signature))
    }

    #[test]
    fn a_token_has_the_claims_of_the_contract_in_seconds_of_utc() {
        let token = token();
        let parts: Vec<&str> = token.split('.').collect();
        let text = |part: &str| String::from_utf8(BASE64.decode(part).unwrap()).unwrap();
        assert_eq!(text(parts[0]), HEADER);
        let claims = r#"{"node_id":"id","node_name":"box","iat":1759856899,"exp":1759943299,"type":"node_agent"}"#;
        assert_eq!(text(parts[1]), claims);
        assert_eq!(token, signed(HEADER, claims));
    }

    #[test]
    fn a_token_is_good_until_it_expires_and_with_its_own_secret_only() {
        let token = token();
        let good = read(&keys("a"), &token, NOW).unwrap();
        assert_eq!(
            (good.node_id.as_str(), good.node_name.as_str()),
            ("id", "box")
        );
        let second = Duration::from_secs(1);
        assert!(read(&keys("a"), &token, NOW.plus(DAY - second)).is_some());
        assert!(read(&keys("a"), &token, NOW.plus(DAY)).is_none());
        assert!(read(&keys("b"), &token, NOW).is_none());
    }

    #[test]
    fn a_key_with_a_name_is_named_and_no_other_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let own = Keys::open(&path, DAY, &hostler_kit::SystemEntropy).unwrap();
        let token = issue(&own, ("id", "box"), (NOW, DAY));
        assert!(read(&own, &token, NOW).is_some());
        let other = Keys::open(&dir.path().join("other"), DAY, &hostler_kit::SystemEntropy);
        assert!(read(&other.unwrap(), &token, NOW).is_none());
        own.rotate((NOW, DAY), &hostler_kit::SystemEntropy, false)
            .unwrap();
        assert!(read(&own, &token, NOW).is_some(), "it lives on");
        let secret = own.with_newest(|_, secret| secret.to_vec());
        let head = r#"{"alg":"HS256","kid":"unknown","typ":"JWT"}"#;
        let body = token.split('.').nth(1).unwrap();
        let forged = format!("{}.{body}", BASE64.encode(head));
        let signature = BASE64.encode(secret::hash(&secret, forged.as_bytes()));
        assert!(read(&own, &format!("{forged}.{signature}"), NOW).is_none());
    }

    #[test]
    fn what_was_tampered_with_or_is_no_token_of_a_node_is_not_taken() {
        let good =
            r#"{"node_id":"id","node_name":"b","iat":1,"exp":9999999999,"type":"node_agent"}"#;
        assert!(read(&keys("a"), &signed(HEADER, good), NOW).is_some());
        for (head, claims) in [
            (r#"{"alg":"none"}"#, good),
            (r#"{"alg":"HS512"}"#, good),
            (
                HEADER,
                r#"{"node_id":"id","node_name":"b","iat":1,"exp":9999999999,"type":"user"}"#,
            ),
            (
                HEADER,
                r#"{"node_id":"id","node_name":"b","iat":1,"type":"node_agent"}"#,
            ),
            (HEADER, "[]"),
        ] {
            assert!(
                read(&keys("a"), &signed(head, claims), NOW).is_none(),
                "{head} {claims}"
            );
        }
        let token = token();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        for bad in [
            "",
            ".",
            "..",
            "a.b.c",
            signed,
            &format!("{signed}."),
            &format!("x{signed}.{signature}"),
            &format!("{token}.{signature}"),
        ] {
            assert!(read(&keys("a"), bad, NOW).is_none(), "{bad}");
        }
    }

    #[test]
    fn no_text_is_taken_for_a_token_or_makes_the_reader_fail() {
        use proptest::prelude::*;
        use proptest::test_runner::{Config, TestRunner};

        let config = Config {
            failure_persistence: None,
            ..Config::with_cases(512)
        };
        let text = prop_oneof![".{0,80}", "[A-Za-z0-9_.=-]{0,120}"];
        let tried = TestRunner::new(config).run(&text, |text| {
            prop_assert!(read(&keys("a"), &text, NOW).is_none());
            Ok(())
        });
        tried.unwrap();
    }

    #[test]
    fn the_scheme_is_read_without_regard_to_case() {
        for (header, expected) in [
            ("Bearer a.b.c", Some("a.b.c")),
            ("bearer  a.b.c", Some("a.b.c")),
            ("BEARER a.b.c", Some("a.b.c")),
            ("Basic a.b.c", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("a.b.c", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, header.parse().unwrap());
            assert_eq!(of(&headers), expected, "{header}");
        }
        assert_eq!(of(&HeaderMap::new()), None);
    }
}
