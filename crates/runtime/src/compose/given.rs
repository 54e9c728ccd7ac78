//! The files of a project as they were given, as far as compose repeats what is in them and not where they are: which
//! files of the node it reads for the services' variables and labels. What other files say behind `extends` and
//! `include` counts likewise, and those files themselves do.
//!
//! Blocks. Nothing fails: what cannot be read, or leads where nobody can know, is told as such and judged as no path.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// No path, so that it lies below none that the owner lets.
const UNKNOWN: &str = "file of the project";
/// Longer files than anybody writes.
const MOST_BYTES: u64 = 4 << 20;
/// More than anybody has.
const MOST_FILES: usize = 256;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Given {
    services: BTreeMap<String, Option<GivenService>>,
    include: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GivenService {
    env_file: Option<Value>,
    label_file: Option<Value>,
    extends: Option<Value>,
}

/// Follows files to files.
#[derive(Default)]
struct Trail {
    found: Vec<String>,
    /// Files with the directory that their paths begin at, and which of their services.
    seen: HashSet<(PathBuf, PathBuf, Option<String>)>,
}

/// The files of the node that the services are read from, beside the project's own `files`, whose paths begin at `dir`.
pub(super) fn files_behind(files: &[PathBuf], dir: &Path) -> Vec<String> {
    let mut trail = Trail::default();
    for file in files {
        trail.follow(file, dir, None);
    }
    trail.found
}

impl Trail {
    fn follow(&mut self, file: &Path, dir: &Path, service: Option<&str>) {
        let step = (file.to_owned(), dir.to_owned(), service.map(str::to_owned));
        if self.seen.contains(&step) {
            return;
        }
        if self.seen.len() >= MOST_FILES {
            return self.found.push(format!("{UNKNOWN}, one of too many"));
        }
        self.seen.insert(step);
        let Some(given) = read(file) else {
            return self.found.push(format!("{UNKNOWN} {}", file.display()));
        };
        for include in &given.include {
            self.include(include, dir);
        }
        let services = given.services.iter();
        let meant = services.filter(|(name, _)| service.is_none_or(|it| it == name.as_str()));
        for it in meant.filter_map(|(_, service)| service.as_ref()) {
            for named in [&it.env_file, &it.label_file].into_iter().flatten() {
                for name in list(named) {
                    self.note(name, dir);
                }
            }
            if let Some(extends) = &it.extends {
                self.extend(extends, (file, dir));
            }
        }
    }

    fn extend(&mut self, extends: &Value, (file, dir): (&Path, &Path)) {
        let service = extends.get("service").unwrap_or(extends).as_str();
        match extends.get("file").and_then(Value::as_str) {
            None => self.follow(file, dir, service),
            Some(name) => {
                if let Some(other) = self.note(name.to_owned(), dir) {
                    let beside = other.parent().unwrap_or(dir).to_owned();
                    self.follow(&other, &beside, service);
                }
            }
        }
    }

    fn include(&mut self, include: &Value, dir: &Path) {
        let paths = list(include.get("path").unwrap_or(include));
        let named = |key| include.get(key).map_or_else(Vec::new, list);
        for name in named("env_file") {
            self.note(name, dir);
        }
        let mut place = None;
        for name in named("project_directory") {
            place = self.note(name, dir);
        }
        for name in paths {
            if let Some(file) = self.note(name, dir) {
                // What is put over the first file begins where that one is.
                let beside = || file.parent().unwrap_or(dir).to_owned();
                let place = place.get_or_insert_with(beside).clone();
                self.follow(&file, &place, None);
            }
        }
    }

    /// Answers where it is, if that can be known: variables and other machines lead anywhere.
    fn note(&mut self, name: String, dir: &Path) -> Option<PathBuf> {
        let is_elsewhere = name.contains("://") || name.starts_with("git@");
        if name.contains('$') || name.starts_with('~') || is_elsewhere {
            self.found.push(format!("{UNKNOWN} {name}"));
            return None;
        }
        let path = dir.join(name);
        self.found.push(path.to_string_lossy().into_owned());
        Some(path)
    }
}

fn read(file: &Path) -> Option<Given> {
    let text = text(file).ok()?;
    serde_saphyr::from_str(&text).ok()
}

fn text(file: &Path) -> io::Result<String> {
    // What is no file may never end.
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    let length = File::open(file)?
        .take(MOST_BYTES + 1)
        .read_to_string(&mut text)?;
    match u64::try_from(length) {
        Ok(length) if length <= MOST_BYTES => Ok(text),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// One or several, as texts or with a `path` in each.
fn list(value: &Value) -> Vec<String> {
    let one = |value: &Value| {
        let path = value.get("path").unwrap_or(value);
        path.as_str()
            .map_or_else(|| path.to_string(), str::to_owned)
    };
    match value {
        Value::Array(several) => several.iter().map(one).collect(),
        value => vec![one(value)],
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The files behind `own/compose.yaml`, below a directory that is `/` here.
    fn behind(files: &[(&str, &str)]) -> Vec<String> {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().to_str().unwrap();
        for (name, text) in files {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("ROOT", root)).unwrap();
        }
        let own = home.path().join("own");
        let found = files_behind(&[own.join("compose.yaml")], &own);
        found.iter().map(|it| it.replace(root, "")).collect()
    }

    fn of_service(service: &str) -> Vec<String> {
        let text = format!("services: {{w: {{image: a, {service}}}, x: null}}");
        behind(&[("own/compose.yaml", &text)])
    }

    #[test]
    fn files_of_variables_and_labels_are_told_as_the_given_file_names_them() {
        for key in ["env_file", "label_file"] {
            assert_eq!(of_service(&format!("{key}: /etc/e")), ["/etc/e"]);
            let several = of_service(&format!("{key}: ['../e', b]"));
            assert_eq!(several, ["/own/../e", "/own/b"]);
            let unknown = of_service(&format!("{key}: '/srv/${{WHERE}}'"));
            assert_eq!(unknown, ["file of the project /srv/${WHERE}"]);
        }
        let long = of_service("env_file: [{path: /e, required: false}]");
        assert_eq!(long, ["/e"]);
        let broken = of_service("env_file: [");
        assert_eq!(broken, ["file of the project /own/compose.yaml"]);
    }

    #[test]
    fn what_a_service_takes_from_an_anchor_counts_as_its_own() {
        let text =
            "x-base: &base {env_file: /etc/e}\nservices:\n  w:\n    <<: *base\n    image: a\n";
        assert_eq!(behind(&[("own/compose.yaml", text)]), ["/etc/e"]);
    }

    #[test]
    fn files_behind_extends_are_told_from_where_the_other_file_is() {
        let own =
            "services: {w: {extends: {file: ../other/base.yaml, service: b}}, v: {extends: w}}";
        let base = "services: {b: {extends: c, env_file: e}, c: {label_file: l, extends: {file: ROOT/deep.yaml, service: d}}, z: {env_file: /no}}";
        let deep = "services: {d: {env_file: /etc/shadow, extends: d}}";
        let found = behind(&[
            ("own/compose.yaml", own),
            ("other/base.yaml", base),
            ("deep.yaml", deep),
        ]);
        let mut found: Vec<_> = found.iter().map(|it| it.replace("/own/..", "")).collect();
        found.sort();
        found.dedup();
        assert_eq!(
            found,
            [
                "/deep.yaml",
                "/etc/shadow",
                "/other/base.yaml",
                "/other/e",
                "/other/l",
            ]
        );
    }

    #[test]
    fn files_behind_include_are_told_likewise_and_what_cannot_be_known_is_no_path() {
        let own = "include: [ROOT/a/one.yaml, {path: [../b/two.yaml], project_directory: /place, env_file: [/v]}, 'oci://x/y']\nservices: {}";
        let found = behind(&[
            ("own/compose.yaml", own),
            ("a/one.yaml", "services: {w: {env_file: e}}"),
            ("b/two.yaml", "services: {w: {env_file: e}}"),
        ]);
        assert_eq!(
            found,
            [
                "/a/one.yaml",
                "/a/e",
                "/v",
                "/place",
                "/own/../b/two.yaml",
                "/place/e",
                "file of the project oci://x/y",
            ]
        );
        let lost = of_service("extends: {file: /dev/null, service: a}");
        assert_eq!(lost, ["/dev/null", "file of the project /dev/null"]);
    }
}
