//! What the program is made of, as a CycloneDX document: every crate that is compiled into it, with its licence, the
//! checksum of its archive and what it uses itself. The same tree gives the same document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::VERSION;
use crate::cross::Target;
use crate::{arch, tree};

pub(super) const FILE: &str = "hostler.cdx.json";

/// A crate: its name and its version.
type Key = (String, String);

/// Writes it into a folder.
pub(super) fn write(folder: &Path, target: Option<Target>) -> Result<PathBuf> {
    let metadata = arch::metadata()?;
    let target = match target {
        Some(target) => target.triple().to_owned(),
        None => arch::host()?,
    };
    let arguments = [
        "tree",
        "--locked",
        "--offline",
        "--package",
        "hostler",
        "--edges",
        "normal",
    ];
    let form = ["--prefix", "none", "--format", "{p}", "--target", &target];
    let built = tree::output(&mut tree::cargo(&[&arguments[..], &form].concat()))?;
    let lock =
        std::fs::read_to_string(tree::root().join("Cargo.lock")).context("read Cargo.lock")?;
    let document = document(&metadata, &named(&built), &checksums(&lock)?)?;
    let file = folder.join(FILE);
    std::fs::write(&file, format!("{document:#}\n"))?;
    Ok(file)
}

/// The crates that `cargo tree` prints. What `cargo metadata` says is more: it has what tests switch on, too.
fn named(text: &str) -> BTreeSet<Key> {
    let key = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        Some((name, words.next()?.strip_prefix('v')?.to_owned()))
    };
    text.lines().filter_map(key).collect()
}

fn checksums(lock: &str) -> Result<BTreeMap<Key, String>> {
    let lock: toml::Value = toml::from_str(lock).context("read Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let row = |package: &toml::Value| {
        let text = |key| Some(package.get(key)?.as_str()?.to_owned());
        Some(((text("name")?, text("version")?), text("checksum")?))
    };
    Ok(packages.into_iter().flatten().filter_map(row).collect())
}

fn document(
    metadata: &Value,
    built: &BTreeSet<Key>,
    checksums: &BTreeMap<Key, String>,
) -> Result<Value> {
    let packages = metadata["packages"].as_array().context("no packages")?;
    let nodes = metadata["resolve"]["nodes"]
        .as_array()
        .context("no graph")?;
    let of_id: BTreeMap<&str, Key> = packages
        .iter()
        .filter_map(|it| Some((it["id"].as_str()?, key(it)?)))
        .filter(|(_, key)| built.contains(key))
        .collect();
    let mut components: Vec<Value> = packages
        .iter()
        .filter(|it| key(it).is_some_and(|key| built.contains(&key) && key.0 != "hostler"))
        .map(|it| component(it, checksums))
        .collect();
    components.sort_by_key(|it| it["bom-ref"].as_str().map(str::to_owned));
    let program = ("hostler".to_owned(), VERSION.to_owned());
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "application",
            "bom-ref": reference(&program),
            "name": "hostler",
            "version": VERSION,
            "licenses": [{"expression": "Apache-2.0"}],
            "purl": reference(&program),
        }},
        "components": components,
        "dependencies": uses(nodes, &of_id),
    }))
}

/// What each crate uses, of those that are known.
fn uses(nodes: &[Value], of_id: &BTreeMap<&str, Key>) -> Vec<Value> {
    let mut dependencies: Vec<Value> = nodes
        .iter()
        .filter_map(|node| {
            let uses: BTreeSet<String> = node["deps"]
                .as_array()?
                .iter()
                .filter(|edge| is_normal(edge))
                .filter_map(|edge| Some(reference(of_id.get(edge["pkg"].as_str()?)?)))
                .collect();
            let user = of_id.get(node["id"].as_str()?)?;
            Some(json!({"ref": reference(user), "dependsOn": uses}))
        })
        .collect();
    dependencies.sort_by_key(|it| it["ref"].as_str().map(str::to_owned));
    dependencies
}

fn component(package: &Value, checksums: &BTreeMap<Key, String>) -> Value {
    let (name, version) = key(package).unwrap_or_default();
    let key = (name, version);
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(&key),
        "name": key.0,
        "version": key.1,
        "scope": "required",
        "purl": reference(&key),
    });
    if let Some(licence) = package["license"].as_str() {
        // An older way to write it.
        let licence = licence.replace('/', " OR ");
        component["licenses"] = json!([{"expression": licence}]);
    }
    if let Some(sum) = checksums.get(&key) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
    }
    if let Some(url) = package["repository"].as_str() {
        component["externalReferences"] = json!([{"type": "vcs", "url": url}]);
    }
    component
}

fn key(package: &Value) -> Option<Key> {
    let text = |key: &str| Some(package[key].as_str()?.to_owned());
    Some((text("name")?, text("version")?))
}

fn reference((name, version): &Key) -> String {
    // The one character of versions that means something in a package URL.
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn is_normal(edge: &Value) -> bool {
    let kinds = edge["dep_kinds"].as_array();
    kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, licence: &str) -> Value {
        json!({"id": format!("{name} {version}"), "name": name, "version": version, "license": licence})
    }

    fn edge(to: &str, kind: Value) -> Value {
        json!({"pkg": to, "dep_kinds": [{"kind": kind}]})
    }

    #[test]
    fn what_is_built_in_is_listed_with_its_licence_and_checksum_and_nothing_else_is() {
        let metadata = json!({
            "packages": [package("hostler", VERSION, "Apache-2.0"), package("a", "1.0.0+x", "MIT/Apache-2.0"),
                package("test-only", "2.0.0", "MIT")],
            "resolve": {"nodes": [
                {"id": format!("hostler {VERSION}"), "deps": [edge("a 1.0.0+x", Value::Null),
                    edge("test-only 2.0.0", json!("dev"))]},
                {"id": "a 1.0.0+x", "deps": []},
                {"id": "test-only 2.0.0", "deps": []},
            ]},
        });
        let built = named(&format!(
            "hostler v{VERSION} (/x)\na v1.0.0+x\na v1.0.0+x (*)\n"
        ));
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0+x\"\nchecksum = \"5e\"\n";
        let document = document(&metadata, &built, &checksums(lock).unwrap()).unwrap();
        let a = &document["components"];
        assert_eq!(a.as_array().unwrap().len(), 1, "{a}");
        assert_eq!(a[0]["purl"], "pkg:cargo/a@1.0.0%2Bx");
        assert_eq!(a[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(a[0]["hashes"][0]["content"], "5e");
        let uses = &document["dependencies"][1];
        assert_eq!(uses["ref"], format!("pkg:cargo/hostler@{VERSION}"));
        assert_eq!(uses["dependsOn"], json!(["pkg:cargo/a@1.0.0%2Bx"]));
    }
}
