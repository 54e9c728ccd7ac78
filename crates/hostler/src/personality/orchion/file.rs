//! The file of `node-agent`: YAML or JSON, with the flags' names as keys and two sections beside them. Pure but for the
//! reading.

use std::path::Path;

use hostler_agent::orchion::{Jobs, Limits};
use hostler_model::{Bytes, MilliCpu};
use serde_json::{Map, Value};

use super::super::flags::{self, Given, Kind};
use super::table::FLAGS;
use crate::failure::Failure;

/// YAML reads JSON, too.
pub(super) fn load(path: &Path) -> Result<Map<String, Value>, Failure> {
    let wrong = |why: String| {
        let sentence = format!(
            "cannot use the configuration file {}: {why}",
            path.display()
        );
        Failure::usage(
            sentence,
            "name a readable file in YAML or JSON with -config",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_saphyr::from_str::<Value>(&text) {
        Ok(Value::Object(keys)) => Ok(keys),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(wrong("it is no set of keys".to_owned())),
        Err(error) => Err(wrong(error.to_string().replace('\n', " "))),
    }
}

/// Takes the keys of the file over; `_` and `-` are the same in them.
pub(super) fn take(
    keys: &Map<String, Value>,
    given: &mut Given,
    (limits, jobs): (&mut Limits, &mut Jobs),
) -> Result<(), String> {
    for (key, value) in keys {
        let name = key.replace('_', "-");
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("resource-limits", Value::Object(keys)) => take_limits(keys, limits)?,
            ("jobs", Value::Object(keys)) => take_jobs(keys, jobs)?,
            ("config", _) => return Err(format!("`{key}` cannot stand in the file")),
            (name, value) => {
                let flag = FLAGS.iter().find(|flag| flag.name == name);
                let flag = flag.ok_or_else(|| format!("there is no key `{key}`"))?;
                given.add(flag, &scalar(key, flag.kind, value)?)?;
            }
        }
    }
    Ok(())
}

/// A value as it would stand on the line. A bare number of seconds is a span, too.
fn scalar(key: &str, kind: Kind, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if kind == Kind::Span => Ok(format!("{number}s")),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(switch) => Ok(switch.to_string()),
        _ => Err(format!("`{key}` is one value, no list and no set of keys")),
    }
}

fn take_limits(keys: &Map<String, Value>, limits: &mut Limits) -> Result<(), String> {
    for (key, value) in keys {
        let text = scalar(key, Kind::Text, value)?;
        match key.as_str() {
            "cpu" => limits.cpu = Some(text.parse::<MilliCpu>().map_err(|why| why.to_string())?),
            "memory" => limits.memory = Some(text.parse::<Bytes>().map_err(|why| why.to_string())?),
            _ => return Err(format!("there is no key `{key}` in resource_limits")),
        }
    }
    Ok(())
}

fn take_jobs(keys: &Map<String, Value>, jobs: &mut Jobs) -> Result<(), String> {
    for (key, value) in keys {
        let text = scalar(key, Kind::Text, value)?;
        match key.replace('-', "_").as_str() {
            "max_concurrent" => {
                let count = text.parse().ok().filter(|count| *count > 0);
                let count = count.ok_or_else(|| format!("`{key}` is `{text}`, which is no count"));
                jobs.max_concurrent = Some(count?);
            }
            "timeout" => {
                let text = scalar(key, Kind::Span, value)?;
                let span = flags::span(&text).filter(|span| !span.is_zero());
                let span = span.ok_or_else(|| format!("`{key}` is `{text}`, which is no span"));
                jobs.timeout = Some(span?);
            }
            _ => return Err(format!("there is no key `{key}` in jobs")),
        }
    }
    Ok(())
}
