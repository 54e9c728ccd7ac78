//! `arch`: the edges between crates are those of the table in ARCHITECTURE.md, the pure crates are pure, and the shim
//! is small.
//!
//! Tests may use more: a crate's own test features, and `store` and `runtime` for their memory engine, their
//! fake and their contract suites.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::tree;

/// What tests of every crate may use beside its own edges.
const FOR_TESTS: [&str; 2] = ["store", "runtime"];

/// Crates that do no I/O and never wait.
const PURE: [&str; 2] = ["model", "fleet"];

/// None of these may be anywhere below a pure crate.
const IMPURE: [&str; 8] = [
    "tokio", "hyper", "reqwest", "axum", "tonic", "rusqlite", "rustix", "tracing",
];

/// None of these may be anywhere below the shim, of which a node runs as many as it has processes.
const LARGE: [&str; 5] = ["tokio", "bollard", "hyper", "tracing", "regex"];

/// All that `wire` may use: it is shipped to programs of other people.
const FOR_WIRE: [&str; 16] = [
    "bytes",
    "eventsource-stream",
    "futures",
    "http",
    "prost",
    "prost-types",
    "reqwest",
    "rustls",
    "serde",
    "serde_json",
    "thiserror",
    "tokio",
    "tokio-tungstenite",
    "tonic",
    "tonic-prost",
    "utoipa",
];

/// Compares the table with `cargo metadata` and lists every edge that is not allowed.
pub(crate) fn main() -> Result<()> {
    let architecture = std::fs::read_to_string(tree::root().join("ARCHITECTURE.md"))
        .context("read ARCHITECTURE.md")?;
    let table = Table::read(&architecture)?;
    let metadata = metadata()?;
    let mut wrong = wrong_edges(&table, &metadata)?;
    wrong.extend(wrong_wire(&metadata));
    for name in PURE {
        wrong.extend(brought_along(&metadata, (name, "pure"), &IMPURE));
    }
    wrong.extend(brought_along(&metadata, ("shim", "small"), &LARGE));
    for line in &wrong {
        println!("{line}");
    }
    ensure!(wrong.is_empty(), "{} edges are not allowed", wrong.len());
    Ok(())
}

/// The resolved graph as it is on this machine; crates of other platforms would have to be downloaded.
pub(crate) fn metadata() -> Result<Value> {
    let host = host()?;
    let arguments = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        &host,
    ];
    let text = tree::output(&mut tree::cargo(&arguments))?;
    serde_json::from_str(&text).context("read what cargo metadata says")
}

/// The platform of this machine, as rustc calls it.
pub(crate) fn host() -> Result<String> {
    let rustc = tree::output(Command::new("rustc").arg("-vV"))?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}

/// Which crate may import which.
struct Table(BTreeMap<String, BTreeSet<String>>);

impl Table {
    /// Reads the rows between the heading `may import` and the end of that table.
    fn read(text: &str) -> Result<Self> {
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip_while(|line| !(line.starts_with('|') && line.contains("may import")))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        ensure!(
            !rows.is_empty(),
            "ARCHITECTURE.md has no table of crates with `may import`"
        );
        let names: BTreeSet<String> = rows.iter().map(|row| bare(row[0])).collect();
        let mut table = BTreeMap::new();
        for row in &rows {
            let name = bare(row[0]);
            let text = row.last().copied().unwrap_or_default();
            table.insert(name.clone(), allowed(&name, text, &names)?);
        }
        Ok(Self(table))
    }
}

fn bare(name: &str) -> String {
    name.trim_matches('`').to_owned()
}

/// `–`, `all`, `all but a`, or `a, b`.
fn allowed(name: &str, text: &str, names: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    if let Some(rest) = text.strip_prefix("all") {
        let but = rest.trim().strip_prefix("but").unwrap_or_default().trim();
        let product = names
            .iter()
            .filter(|other| *other != name && *other != but && *other != "xtask");
        return Ok(product.cloned().collect());
    }
    let listed: BTreeSet<String> = text
        .split(',')
        .map(|word| bare(word.trim()))
        .filter(|word| word != "–" && !word.is_empty())
        .collect();
    match listed.iter().find(|word| !names.contains(*word)) {
        Some(unknown) => {
            bail!("ARCHITECTURE.md: `{name}` may import `{unknown}`, which is no crate")
        }
        None => Ok(listed),
    }
}

/// The crate's name in the table, if the package is one of ours.
fn ours(package: &str) -> Option<&str> {
    match package {
        "hostler" | "xtask" => Some(package),
        _ => package.strip_prefix("hostler-"),
    }
}

fn packages(metadata: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = metadata["packages"].as_array().into_iter().flatten();
    all.filter(|package| package["source"].is_null())
        .filter_map(|package| Some((ours(package["name"].as_str()?)?, package)))
}

fn wrong_edges(table: &Table, metadata: &Value) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (name, package) in packages(metadata) {
        let Some(allowed) = table.0.get(name) else {
            bail!("crate `{name}` has no row in the table of ARCHITECTURE.md");
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(other) = dependency["name"].as_str().and_then(ours) else {
                continue;
            };
            let is_for_tests = dependency["kind"] == "dev";
            let is_fine = allowed.contains(other)
                || (is_for_tests && (other == name || FOR_TESTS.contains(&other)));
            if !is_fine {
                let purpose = if is_for_tests { " in its tests" } else { "" };
                wrong.push(format!("`{name}` may not import `{other}`{purpose}"));
            }
        }
    }
    Ok(wrong)
}

fn wrong_wire(metadata: &Value) -> Vec<String> {
    packages(metadata)
        .filter(|(name, _)| *name == "wire")
        .flat_map(|(_, package)| package["dependencies"].as_array().into_iter().flatten())
        .filter(|dependency| dependency["kind"].is_null())
        .filter_map(|dependency| dependency["name"].as_str())
        .filter(|name| !FOR_WIRE.contains(name))
        .map(|name| format!("`wire` may not use the crate `{name}`"))
        .collect()
}

/// What a crate brings along that it must not.
fn brought_along(metadata: &Value, (of, how): (&str, &str), banned: &[&str]) -> Vec<String> {
    let graph: BTreeMap<&str, Vec<&str>> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| Some((node["id"].as_str()?, needs(node))))
        .collect();
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let mut wrong = Vec::new();
    for (name, package) in packages(metadata).filter(|(name, _)| *name == of) {
        let mut waiting: Vec<&str> = package["id"].as_str().into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if seen.insert(id) {
                waiting.extend(graph.get(id).into_iter().flatten());
            }
        }
        let found = seen
            .iter()
            .filter_map(|id| names.get(id))
            .filter(|found| banned.contains(found));
        wrong.extend(
            found.map(|found| format!("`{name}` is {how} and may not bring `{found}` along")),
        );
    }
    wrong
}

/// The packages that a package of the resolved graph needs outside its tests.
fn needs(node: &Value) -> Vec<&str> {
    let dependencies = node["deps"].as_array().into_iter().flatten();
    dependencies
        .filter(|dependency| {
            let kinds = dependency["dep_kinds"].as_array();
            kinds.is_none_or(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        })
        .filter_map(|dependency| dependency["pkg"].as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TABLE: &str = "\
text
| crate | what it is | may import |
|---|---|---|
| `a` | nouns | – |
| `b` | verbs | a |
| `store` | things | a |
| `c` | top | all but b |

| other | table |
";

    fn metadata(name: &str, other: &str, kind: Value) -> Value {
        json!({"packages": [{"name": name, "source": null, "dependencies": [
            {"name": other, "kind": kind}, {"name": "serde", "kind": null},
        ]}]})
    }

    #[test]
    fn an_edge_that_the_table_lacks_is_listed() {
        let table = Table::read(TABLE).expect("a table");
        let wrong = |name, other, kind| {
            wrong_edges(&table, &metadata(name, other, kind)).expect("names are known")
        };
        assert!(wrong("hostler-b", "hostler-a", Value::Null).is_empty());
        assert!(wrong("hostler-c", "hostler-store", Value::Null).is_empty());
        assert_eq!(
            wrong("hostler-a", "hostler-b", Value::Null),
            ["`a` may not import `b`"]
        );
        assert_eq!(
            wrong("hostler-c", "hostler-b", Value::Null),
            ["`c` may not import `b`"]
        );
    }

    #[test]
    fn tests_may_use_the_store_but_not_every_crate() {
        let table = Table::read(TABLE).expect("a table");
        let wrong = |other| {
            wrong_edges(&table, &metadata("hostler-b", other, json!("dev")))
                .expect("names are known")
        };
        assert!(wrong("hostler-store").is_empty());
        assert!(wrong("hostler-b").is_empty());
        assert_eq!(wrong("hostler-c"), ["`b` may not import `c` in its tests"]);
    }

    #[test]
    fn a_table_that_names_no_crate_is_refused() {
        let wrong = TABLE.replace("verbs | a", "verbs | z");
        assert!(Table::read(&wrong).is_err());
        assert!(Table::read("no table").is_err());
    }
}
