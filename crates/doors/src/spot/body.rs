//! Reading bodies leniently: unknown keys are dropped, null and the empty string are as good as nothing, numbers
//! and truth may be written as text. A body that is missing is an empty object.

use axum::extract::{FromRequest, Request};
use hostler_model::{Market, Money, PoolId, Timestamp};
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::answer::No;
use super::who::InBody;

/// Most bytes of a body, as the contract has it.
const BODY_BYTES: usize = 100 << 20;
/// Most characters of a word that is kept: an id, a name, a zone.
pub(super) const WORD: usize = 255;
/// What is kept of a longer text, such as an error message.
const PROSE: usize = 2_000;

/// The keys of a JSON object.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    keys: Map<String, Value>,
    /// Where it is told whose token they have.
    pub(super) client: InBody,
}

impl<S: Sync> FromRequest<S> for Fields {
    type Rejection = No;

    async fn from_request(request: Request, _: &S) -> Result<Self, No> {
        let client = request.extensions().get::<InBody>().cloned();
        let limited = Limited::new(request.into_body(), BODY_BYTES);
        let bytes = match limited.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let sentence = format!("the body is larger than {BODY_BYTES} bytes");
                return Err(No::new(StatusCode::PAYLOAD_TOO_LARGE, sentence));
            }
            Err(_) => return Err(No::bad("the body broke off")),
        };
        let fields = Self::parse(&bytes)?;
        Ok(Self {
            client: client.unwrap_or_default(),
            ..fields
        })
    }
}

impl Fields {
    fn of(keys: Map<String, Value>) -> Self {
        Self {
            keys,
            client: InBody::default(),
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, No> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(keys)) => Ok(Self::of(keys)),
            Ok(_) => Err(No::bad("the body is no JSON object")),
            Err(error) => Err(No::bad(format!("the body is no JSON: {error}"))),
        }
    }

    /// The value, unless it is as good as nothing.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.keys
            .get(key)
            .filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    /// A word that is kept as it is.
    pub(super) fn word(&self, key: &str) -> Result<Option<String>, No> {
        let word = match self.get(key) {
            None => return Ok(None),
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return Err(No::bad(format!("{key} is no text"))),
        };
        if word.chars().count() > WORD {
            return Err(No::bad(format!("{key} is longer than {WORD} characters")));
        }
        if word.chars().any(char::is_control) {
            return Err(No::bad(format!("{key} is no plain text")));
        }
        Ok((!word.is_empty()).then_some(word))
    }

    pub(super) fn needed(&self, key: &str) -> Result<String, No> {
        self.word(key)?
            .ok_or_else(|| No::bad(format!("Missing {key}")))
    }

    /// A text for people, of which the beginning is kept.
    pub(super) fn prose(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.chars().take(PROSE).collect()),
            other => Some(other.to_string().chars().take(PROSE).collect()),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) => number.as_f64().map(|number| number != 0.0),
            Value::String(text) => match text.trim().to_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn number(&self, key: &str) -> Option<f64> {
        let number = match self.get(key)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number: &f64| number.is_finite())
    }

    /// A whole number from 0 up; a fraction is cut off.
    pub(super) fn whole(&self, key: &str) -> Option<u32> {
        let number = self.number(key)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked"
        )]
        (0.0..=f64::from(u32::MAX))
            .contains(&number)
            .then_some(number as u32)
    }

    pub(super) fn money(&self, key: &str) -> Option<Money> {
        self.number(key).and_then(Money::from_dollars)
    }

    /// A moment, with or without a zone; without one it is UTC.
    pub(super) fn moment(&self, key: &str) -> Option<Timestamp> {
        let text = self.get(key)?.as_str()?.trim();
        Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}Z")))
    }

    pub(super) fn market(&self, key: &str) -> Option<Market> {
        self.get(key)?.as_str().and_then(market)
    }

    pub(super) fn pool(&self, key: &str) -> Result<Option<PoolId>, No> {
        let Some(word) = self.word(key)? else {
            return Ok(None);
        };
        if word == "n/a" {
            return Ok(None);
        }
        let pool = PoolId::new(&word);
        pool.map(Some)
            .ok_or_else(|| No::bad(format!("{key} names no pool")))
    }

    /// The object below a key; an empty one if there is none.
    pub(super) fn child(&self, key: &str) -> Self {
        match self.get(key) {
            Some(Value::Object(keys)) => Self::of(keys.clone()),
            _ => Self::default(),
        }
    }

    /// The objects of a list.
    pub(super) fn children(&self, key: &str) -> Vec<Self> {
        let list = self.get(key).and_then(Value::as_array);
        let objects = list.into_iter().flatten().filter_map(Value::as_object);
        objects.cloned().map(Self::of).collect()
    }

    /// How many entries a list has.
    pub(super) fn count(&self, key: &str) -> usize {
        self.get(key).and_then(Value::as_array).map_or(0, Vec::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// The contract's word for how a machine is paid for.
pub(super) fn market(word: &str) -> Option<Market> {
    match word.trim().to_lowercase().as_str() {
        "spot" => Some(Market::Spot),
        "ondemand" | "on-demand" | "on_demand" => Some(Market::OnDemand),
        "unknown" => Some(Market::Unknown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).expect("an object")
    }

    #[test]
    fn nothing_null_and_the_empty_string_are_the_same() {
        for body in [r#"{}"#, r#"{"a":null}"#, r#"{"a":""}"#] {
            let fields = fields(body);
            assert_eq!(fields.word("a").unwrap(), None);
            assert_eq!((fields.flag("a"), fields.number("a")), (None, None));
        }
        assert!(Fields::parse(b" \n").expect("nothing").is_empty());
    }

    #[test]
    fn numbers_and_truth_may_be_text() {
        let fields = fields(
            r#"{"a":"8","b":8.9,"c":"true","d":0,"e":-1,"f":[],"g":"2025-01-01T00:00:00",
                "h":"2025-01-01T01:00:00+01:00","i":1e300}"#,
        );
        assert_eq!((fields.whole("a"), fields.whole("b")), (Some(8), Some(8)));
        assert_eq!(
            (fields.flag("c"), fields.flag("d")),
            (Some(true), Some(false))
        );
        assert_eq!((fields.whole("e"), fields.whole("i")), (None, None));
        assert!(fields.word("f").is_err() && fields.number("f").is_none());
        assert_eq!(fields.moment("g"), fields.moment("h"));
        assert!(fields.moment("g").is_some());
        assert_eq!(fields.money("i"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_reading_of_anything_ends(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            let quoted = serde_json::json!({"a": text}).to_string();
            for body in [&bytes[..], text.as_bytes(), quoted.as_bytes()] {
                let Ok(fields) = Fields::parse(body) else { continue };
                let _ = (fields.word("a"), fields.prose("a"), fields.flag("a"), fields.whole("a"));
                let _ = (fields.money("a"), fields.moment("a"), fields.pool("a"), fields.market("a"));
                let _ = (fields.child("a"), fields.children("a"), fields.count("a"));
            }
        }
    }
}
