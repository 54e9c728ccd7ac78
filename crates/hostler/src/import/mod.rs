//! Compose files as specs. Pure: texts in, specs and sentences out; whoever calls reads the files and asks compose.
//!
//! A file becomes one workload of the kind compose, word for word, or one container per service. For the latter
//! compose itself has filled the variables in and followed every reference first: there is no second reader of its
//! language here. What has no place in a spec is told, each with a sentence, and never dropped in silence.

mod keys;
mod lean;
mod places;
mod service;
mod units;

use std::collections::BTreeMap;

use hostler_model::Refusal;
use hostler_model::spec::{ComposeSpec, PortMapping, WorkloadSpec, check_travels, near_name};
use serde_json::Value;

pub(crate) use lean::yaml;

use keys::Keys;

/// What came of a file.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    pub(crate) specs: Vec<WorkloadSpec>,
    /// What could not be carried over, or has to be seen to.
    pub(crate) notes: Vec<String>,
}

/// Keys that lead to other files, which a node does not have.
const REFERENCES: [(&str, &str); 2] = [
    ("env_file", "write its variables under `environment`"),
    ("extends", "write what it takes from there into the service"),
];
const PROFILES: &str = "COMPOSE_PROFILES";

/// One workload of the kind compose, with the text as it is and a value for each variable that it uses.
///
/// # Errors
/// `spec-invalid` if the text is no compose file that a node could read.
pub(crate) fn project(
    name: &str,
    text: &str,
    variables: &BTreeMap<String, String>,
    profiles: &[String],
) -> Result<Imported, Refusal> {
    let file = parsed(text)?;
    let mut notes = Vec::new();
    let mut spec = WorkloadSpec {
        compose: Some(ComposeSpec::of_text(text)),
        ..WorkloadSpec::bare(&near_name(name))
    };
    for variable in hostler_runtime::compose::variables(text) {
        match variables.get(&variable.name) {
            Some(value) => {
                spec.env.insert(variable.name, value.clone());
            }
            None if variable.has_default => {}
            None => notes.push(format!(
                "nobody gives `{}`, which the file uses: set it under `env`",
                variable.name
            )),
        }
    }
    if !profiles.is_empty() {
        spec.env.insert(PROFILES.to_owned(), profiles.join(","));
    }
    for (service, value) in services(&file) {
        let mut keys = Keys::new(service, value, &mut notes);
        spec.ports.extend(published(&mut keys));
        references(&mut keys);
    }
    for section in ["secrets", "configs", "include"] {
        let has_files = file
            .get(section)
            .is_some_and(|it| it.to_string().contains("file"));
        if has_files || (section == "include" && file.get(section).is_some()) {
            notes.push(format!(
                "`{section}` reads files that are not on the node: keep the project in a repository, and use `compose.git`"
            ));
        }
    }
    spec.check()?;
    check_travels(&spec)?;
    Ok(Imported {
        specs: vec![spec],
        notes,
    })
}

/// One container per service, from what compose made of the file.
///
/// # Errors
/// `spec-invalid` if that is no compose file.
pub(crate) fn containers(
    project: &str,
    resolved: &str,
    profiles: &[String],
) -> Result<Imported, Refusal> {
    let mut file = parsed(resolved)?;
    unescape(&mut file);
    let mut imported = Imported::default();
    for (name, value) in services(&file) {
        let mut keys = Keys::new(name, value, &mut imported.notes);
        if !service::is_on(&mut keys, profiles) {
            continue;
        }
        let Some(spec) = service::spec(&format!("{project}-{name}"), &mut keys, &file) else {
            continue;
        };
        match spec.check().and_then(|()| check_travels(&spec)) {
            Ok(()) => imported.specs.push(spec),
            Err(refusal) => imported
                .notes
                .push(format!("`{name}` is left out: {}", refusal.sentence)),
        }
    }
    if imported.specs.len() > 1 {
        imported.notes.push(
            "services of a project reach each other by name, containers of different workloads do not: give them \
             a network of the node under `container.network`, or keep the project with `--as compose`"
                .to_owned(),
        );
    }
    Ok(imported)
}

fn parsed(text: &str) -> Result<Value, Refusal> {
    let refused = |why: String| {
        let sentence = format!("the compose file cannot be read: {why}");
        Refusal::new(
            hostler_model::Code::SpecInvalid,
            sentence,
            "see that compose itself takes the file",
        )
    };
    let file: Value = serde_saphyr::from_str(text)
        .map_err(|error| refused(error.without_snippet().to_string()))?;
    if services(&file).next().is_none() {
        return Err(refused("it has no `services`".to_owned()));
    }
    Ok(file)
}

fn services(file: &Value) -> impl Iterator<Item = (&String, &Value)> {
    file.get("services")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// Ports that are taken on the node, as far as their numbers stand in the text.
fn published(keys: &mut Keys<'_>) -> Vec<PortMapping> {
    let Some(Value::Array(ports)) = keys.take("ports") else {
        return Vec::new();
    };
    let (written, others): (Vec<Value>, Vec<Value>) = ports
        .into_iter()
        .partition(|port| !port.to_string().contains("${"));
    if !others.is_empty() {
        keys.note(
            "publishes ports that are variables: list them under the workload's `ports`, too",
        );
    }
    let ports = written
        .iter()
        .filter_map(|port| places::port(port, keys))
        .collect::<Vec<_>>();
    ports
        .into_iter()
        .map(|port| PortMapping {
            target: None,
            ..port
        })
        .collect()
}

/// Tells what a node will not find beside the text.
fn references(keys: &mut Keys<'_>) {
    for (key, advice) in REFERENCES {
        let value = keys.take(key);
        if value.is_some_and(|value| key != "extends" || value.get("file").is_some()) {
            keys.note(&format!(
                "reads another file by `{key}`, which is not on the node: {advice}"
            ));
        }
    }
    if keys.take("build").is_some() {
        keys.note("is built from a directory that is not on the node: push its image, or use `compose.git`");
    }
    let Some(Value::Array(volumes)) = keys.take("volumes") else {
        return;
    };
    let source = |volume: &Value| match volume {
        Value::String(text) => text.split(':').next().map(str::to_owned),
        other => other
            .get("source")
            .and_then(Value::as_str)
            .map(str::to_owned),
    };
    for source in volumes.iter().filter_map(source) {
        if source.starts_with(['.', '~']) {
            keys.note(&format!(
                "mounts `{source}` of this machine: on the node that begins empty"
            ));
        }
    }
}

/// Compose writes `$$` where a value holds `$`.
fn unescape(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace("$$", "$"),
        Value::Array(values) => values.iter_mut().for_each(unescape),
        Value::Object(values) => values.values_mut().for_each(unescape),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
