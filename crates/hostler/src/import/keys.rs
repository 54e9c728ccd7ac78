//! The keys of one service, each taken once. What nobody took at the end had no place, and is told.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Keys that say nothing where there is one container per workload.
const SILENT: [&str; 5] = ["container_name", "expose", "env_file", "extends", "links"];

pub(super) struct Keys<'n> {
    service: &'n str,
    keys: Map<String, Value>,
    notes: &'n mut Vec<String>,
}

impl<'n> Keys<'n> {
    pub(super) fn new(service: &'n str, value: &Value, notes: &'n mut Vec<String>) -> Self {
        Self {
            service,
            keys: value.as_object().cloned().unwrap_or_default(),
            notes,
        }
    }

    /// Tells something about the service.
    pub(super) fn note(&mut self, sentence: &str) {
        self.notes.push(format!("`{}` {sentence}", self.service));
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.keys.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.take(key).as_ref().and_then(scalar)
    }

    pub(super) fn flag(&mut self, key: &str) -> bool {
        self.take(key)
            .and_then(|value| value.as_bool())
            .unwrap_or(false)
    }

    /// A list, or the one value in its place.
    pub(super) fn list(&mut self, key: &str) -> Vec<String> {
        match self.take(key) {
            Some(Value::Array(values)) => values.iter().filter_map(scalar).collect(),
            Some(value) => scalar(&value).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// A command: a list, or words as a shell parts them. None if it is not there.
    pub(super) fn words(&mut self, key: &str) -> Option<Vec<String>> {
        match self.take(key)? {
            Value::String(text) => {
                let words = shlex::split(&text);
                if words.is_none() {
                    self.note(&format!(
                        "has a `{key}` with a quote that does not end; it is left out"
                    ));
                }
                words
            }
            Value::Array(values) => Some(values.iter().filter_map(scalar).collect()),
            _ => None,
        }
    }

    /// Names and values, written as a section or as a list of `NAME=value`.
    pub(super) fn pairs(&mut self, key: &str, between: char) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        match self.take(key) {
            Some(Value::Object(values)) => {
                for (name, value) in values {
                    match scalar(&value) {
                        Some(value) => {
                            pairs.insert(name, value);
                        }
                        None => self.note(&format!(
                            "has no value for `{name}` under `{key}`; it is left out"
                        )),
                    }
                }
            }
            Some(Value::Array(values)) => {
                for text in values.iter().filter_map(scalar) {
                    let (name, value) = text.split_once(between).unwrap_or((&text, ""));
                    pairs.insert(name.to_owned(), value.to_owned());
                }
            }
            _ => {}
        }
        pairs
    }

    /// Tells what is left.
    pub(super) fn finish(&mut self) {
        let left: Vec<String> = self
            .keys
            .iter()
            .filter(|(key, value)| says(key, value))
            .map(|it| it.0.clone())
            .collect();
        for key in left {
            self.note(&format!(
                "says `{key}`, which has no place in a container's spec"
            ));
        }
    }
}

fn says(key: &str, value: &Value) -> bool {
    let is_empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    };
    !is_empty && !SILENT.contains(&key) && !key.starts_with("x-")
}

/// A plain value as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    }
}
