//! Placement constraints: small sentences about a node's labels and facts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One sentence about a node. Text: `zone == eu-1`, `zone != eu-1`, `zone in (a, b)`, `zone not in (a, b)`,
/// `gpu` (the label exists), `!gpu` (it does not).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Constraint {
    pub key: String,
    pub operator: Operator,
    /// One for `==` and `!=`, any number for `in`, none for existence.
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
}

impl Constraint {
    /// Whether it holds for a node whose value of the key is `value`.
    #[must_use]
    pub fn holds(&self, value: Option<&str>) -> bool {
        let named = || value.is_some_and(|value| self.values.iter().any(|named| named == value));
        match self.operator {
            Operator::In => named(),
            Operator::NotIn => !named(),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
        }
    }
}

fn word(text: &str) -> Result<String, String> {
    let text = text.trim().trim_matches(['"', '\'']);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    if text.is_empty() || !text.chars().all(allowed) {
        return Err(format!("`{text}` is no label word"));
    }
    Ok(text.to_owned())
}

fn list(text: &str) -> Result<Vec<String>, String> {
    let inner = text
        .trim()
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'));
    inner
        .ok_or_else(|| format!("`{}` is no list; write (a, b)", text.trim()))?
        .split(',')
        .map(word)
        .collect()
}

impl FromStr for Constraint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let made = |key: &str, operator, values| {
            Ok(Self {
                key: word(key)?,
                operator,
                values,
            })
        };
        if let Some((key, value)) = text.split_once("!=") {
            return made(key, Operator::NotIn, vec![word(value)?]);
        }
        if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return made(key, Operator::In, vec![word(value)?]);
        }
        if let Some((key, values)) = text.split_once(" not in ") {
            return made(key, Operator::NotIn, list(values)?);
        }
        if let Some((key, values)) = text.split_once(" in ") {
            return made(key, Operator::In, list(values)?);
        }
        match text.trim().strip_prefix('!') {
            Some(key) => made(key, Operator::Absent, Vec::new()),
            None => made(text, Operator::Exists, Vec::new()),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            operator,
            values,
        } = self;
        match (operator, values.as_slice()) {
            (Operator::In, [value]) => write!(f, "{key} == {value}"),
            (Operator::NotIn, [value]) => write!(f, "{key} != {value}"),
            (Operator::In, values) => write!(f, "{key} in ({})", values.join(", ")),
            (Operator::NotIn, values) => write!(f, "{key} not in ({})", values.join(", ")),
            (Operator::Exists, _) => f.write_str(key),
            (Operator::Absent, _) => write!(f, "!{key}"),
        }
    }
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_prints_as_it_reads() {
        for text in [
            "zone == eu-1",
            "zone != eu-1",
            "zone in (a, b)",
            "zone not in (a, b)",
            "gpu",
            "!gpu",
        ] {
            assert_eq!(text.parse::<Constraint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_missing_label_satisfies_not_in_but_not_in() {
        let not_in: Constraint = "zone != eu-1".parse().unwrap();
        let is_in: Constraint = "zone == eu-1".parse().unwrap();
        assert!(not_in.holds(None) && !is_in.holds(None));
        assert!(is_in.holds(Some("eu-1")) && !not_in.holds(Some("eu-1")));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "a b", "zone in eu-1", "zone ==", "!", "in (a)"] {
            assert!(text.parse::<Constraint>().is_err(), "{text}");
        }
    }
}
