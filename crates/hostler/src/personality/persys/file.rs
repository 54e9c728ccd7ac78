//! `agent_config.yaml`: where it is looked for, and its plain values by key. A list of labels may be a map.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::Failure;
use crate::settings::Environment;

/// The file that is looked for where none is named.
pub(super) const FILE: &str = "agent_config.yaml";
/// Largest file that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// The named file, or the first of the usual places that has one.
pub(super) fn read(
    named: Option<&Path>,
    environment: &Environment,
) -> Result<BTreeMap<String, String>, Failure> {
    let told = environment.get("PERSYS_CONFIG_FILE").map(PathBuf::from);
    let path = match named.map(Path::to_owned).or(told) {
        Some(path) => path,
        None => match usual(environment).into_iter().find(|path| path.is_file()) {
            Some(path) => path,
            None => return Ok(BTreeMap::new()),
        },
    };
    let unreadable = |why: &dyn std::fmt::Display| {
        Failure::usage(
            format!(
                "cannot read the configuration file {}: {why}",
                path.display()
            ),
            "correct it, or name another with --config",
        )
    };
    let size = std::fs::metadata(&path)
        .map_err(|error| unreadable(&error))?
        .len();
    if size > MOST_BYTES {
        return Err(unreadable(&format!("it has {size} bytes")));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&error))?;
    parse(&text).map_err(|why| unreadable(&why))
}

fn usual(environment: &Environment) -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("/etc/persys")];
    if let (false, Some(home)) = (environment.is_root, environment.get("HOME")) {
        places.push(Path::new(home).join(".persys"));
    }
    places.push(PathBuf::from("."));
    places.into_iter().map(|place| place.join(FILE)).collect()
}

/// Plain values by key. Nothing and empty values are left out.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let file: Option<BTreeMap<String, Value>> =
        serde_saphyr::from_str(text).map_err(|error| error.to_string().replace('\n', " "))?;
    let mut values = BTreeMap::new();
    for (key, value) in file.unwrap_or_default() {
        let value = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Object(pairs) => pairs
                .into_iter()
                .map(|(key, value)| format!("{key}={}", plain(&value)))
                .collect::<Vec<_>>()
                .join(","),
            Value::Array(_) => return Err(format!("`{key}` is a list")),
        };
        values.insert(key.to_ascii_lowercase(), value);
    }
    Ok(values)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
