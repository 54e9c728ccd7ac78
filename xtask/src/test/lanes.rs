//! Lanes: which ignored tests there are, what each needs, and whether it is here.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};

use super::provision;
use crate::package::deb;
use crate::tree;

/// A component that some tests need.
pub(crate) struct Lane {
    name: String,
    /// What is used, or why it is left out.
    state: Result<String, String>,
}

impl Lane {
    pub(crate) fn on(name: &str, with: String) -> Self {
        let name = name.to_owned();
        Self {
            name,
            state: Ok(with),
        }
    }

    pub(crate) fn off(name: &str, why: String) -> Self {
        let name = name.to_owned();
        Self {
            name,
            state: Err(why),
        }
    }

    /// A lane that needs a program, or to be root.
    fn found(name: &str) -> Self {
        if name == "root" {
            return if rustix::process::getuid().is_root() {
                Self::on(name, "we are root".into())
            } else {
                Self::off(name, "we are not root".into())
            };
        }
        if name == deb::TOOL {
            return match (deb::installed(), provision::program("dpkg-shlibdeps")) {
                (Some(path), Some(_)) => Self::on(name, path.display().to_string()),
                (None, _) => Self::off(name, format!("there is no `{name}` in the pinned version")),
                (_, None) => Self::off(name, "there is no program `dpkg-shlibdeps`".to_owned()),
            };
        }
        let program = match name {
            "iproute2" => "ip",
            other => other,
        };
        match provision::program(program) {
            Some(path) => Self::on(name, path.display().to_string()),
            None => Self::off(name, format!("there is no program `{program}`")),
        }
    }
}

/// Compose projects by `docker-compose`, on the engine of the docker lane.
pub(crate) fn compose(docker: &Lane) -> Lane {
    const NAME: &str = "compose";
    let missing = || "there is no program `docker-compose`".to_owned();
    let path = provision::program("docker-compose").ok_or_else(missing);
    match docker.state.clone().and(path) {
        Ok(path) => Lane::on(NAME, path.display().to_string()),
        Err(why) => Lane::off(NAME, why),
    }
}

/// Compose projects by `docker compose`, where the engine's client has it.
pub(crate) fn compose_v2(docker: &Lane) -> Lane {
    const NAME: &str = "compose-v2";
    let version = Command::new("docker")
        .args(["compose", "version", "--short"])
        .output();
    let version = version.ok().filter(|it| it.status.success());
    let version = version.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    let version = version.ok_or_else(|| "there is no `docker compose`".to_owned());
    match docker.state.clone().and(version) {
        Ok(version) => Lane::on(NAME, format!("docker compose {version}")),
        Err(why) => Lane::off(NAME, why),
    }
}

/// A test that is ignored by default.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ignored {
    name: String,
    reason: String,
}

impl Ignored {
    /// What it needs, such as `qemu and compose`; nothing if it is ignored for another reason, such as being a part
    /// of another test.
    fn needs(&self) -> impl Iterator<Item = &str> {
        let needs = self.reason.strip_prefix("needs ");
        needs.into_iter().flat_map(|needs| needs.split(" and "))
    }
}

/// What is run with which environment.
pub(crate) struct Plan {
    lanes: Vec<Lane>,
    /// Tests to leave out, by name.
    left_out: BTreeSet<String>,
    counts: BTreeMap<String, usize>,
    environment: Vec<(String, String)>,
}

impl Plan {
    /// One lane per need that occurs; those that need more than a program are prepared by the caller.
    pub(crate) fn new(ignored: &[Ignored], engines: Vec<Lane>) -> Self {
        let mut counts = BTreeMap::new();
        for need in ignored.iter().flat_map(Ignored::needs) {
            *counts.entry(need.to_owned()).or_insert(0) += 1;
        }
        let mut lanes: Vec<Lane> = counts
            .keys()
            .filter(|need| engines.iter().all(|lane| lane.name != **need))
            .map(
                |need| match engines[0].state.is_err() && ON_DOCKER.contains(&need.as_str()) {
                    true => Lane::off(need, "there is no Docker engine to use it".to_owned()),
                    false => Lane::found(need),
                },
            )
            .collect();
        lanes.splice(..0, engines);
        let is_on = |need: &str| {
            lanes
                .iter()
                .any(|lane| lane.name == need && lane.state.is_ok())
        };
        let can_run = |test: &Ignored| test.needs().count() > 0 && test.needs().all(is_on);
        let left_out = ignored
            .iter()
            .filter(|test| !can_run(test))
            .map(|test| test.name.clone())
            .collect();
        Self {
            lanes,
            left_out,
            counts,
            environment: Vec::new(),
        }
    }

    /// Something for the environment of the tests.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The names of tests that must not run.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = &str> {
        self.left_out.iter().map(String::as_str)
    }

    /// For people: which lanes ran and which were left out.
    pub(crate) fn summary(&self) -> String {
        let width = self.lanes.iter().map(|lane| lane.name.len()).max();
        let width = width.unwrap_or_default();
        let mut text = String::from("lanes:\n");
        for lane in &self.lanes {
            let count = self.counts.get(&lane.name).copied().unwrap_or(0);
            let (word, why) = match &lane.state {
                Ok(with) => ("ran     ", with),
                Err(why) => ("LEFT OUT", why),
            };
            text.push_str(&format!(
                "  {:<width$} {word} ({count} tests): {why}\n",
                lane.name
            ));
        }
        text.push_str(&foreign_programs(|variable| {
            std::env::var_os(variable).is_some()
        }));
        text
    }
}

/// Needs that the first engine has to meet as well.
const ON_DOCKER: [&str; 1] = ["docker-registry"];

/// Original programs that the conversations of the contracts may be held with; `doors/tests/it/outside.rs`
/// says how they are named.
const FOREIGN: [&str; 5] = [
    "HOSTLER_FOREIGN_MIAAS_SEED",
    "HOSTLER_FOREIGN_MIAAS",
    "HOSTLER_FOREIGN_ORCHION",
    "HOSTLER_FOREIGN_PERSYS",
    "HOSTLER_FOREIGN_SPOT",
];

/// Which of them took part, and which variables would bring the others in.
fn foreign_programs(is_named: impl Fn(&str) -> bool) -> String {
    let (named, missing): (Vec<&str>, Vec<&str>) =
        FOREIGN.iter().partition(|variable| is_named(variable));
    let mut text = String::new();
    for (word, variables) in [("talked to", named), ("LEFT OUT", missing)] {
        if !variables.is_empty() {
            text.push_str(&format!(
                "  foreign programs {word}: {}\n",
                variables.join(", ")
            ));
        }
    }
    text
}

/// Every ignored test below `crates/`, as the sources say.
pub(crate) fn ignored_tests() -> Result<Vec<Ignored>> {
    let mut found = Vec::new();
    for file in tree::files(&tree::root().join("crates"), "rs")? {
        let text = std::fs::read_to_string(&file).with_context(|| tree::shown(&file))?;
        found.extend(ignored_in(&text));
    }
    Ok(found)
}

/// The runner does not tell the reasons, so the sources are asked: an `ignore` attribute and the next `fn`.
fn ignored_in(text: &str) -> Vec<Ignored> {
    let mut found = Vec::new();
    let mut waiting = None;
    for line in text.lines().map(str::trim) {
        let reason = line
            .strip_prefix("#[ignore = \"")
            .and_then(|rest| rest.strip_suffix("\"]"));
        if let Some(reason) = reason {
            waiting = Some(reason.to_owned());
        } else if let Some(name) = crate::contracts::function(line)
            && let Some(reason) = waiting.take()
        {
            let name = name.to_owned();
            found.push(Ignored { name, reason });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
#[tokio::test]
#[ignore = \"needs docker\"]
async fn a_container_runs() {}

#[test]
#[ignore = \"is the child process of other tests\"]
fn child() {}

#[test]
#[ignore = \"needs a-program-that-nobody-has\"]
fn never() {}
";

    #[test]
    fn foreign_programs_that_are_not_named_are_said_to_be_left_out() {
        let text = foreign_programs(|variable| variable == "HOSTLER_FOREIGN_SPOT");
        assert!(text.starts_with("  foreign programs talked to: HOSTLER_FOREIGN_SPOT\n"));
        assert!(text.contains("LEFT OUT: HOSTLER_FOREIGN_MIAAS_SEED, HOSTLER_FOREIGN_MIAAS,"));
    }

    #[test]
    fn a_registry_is_of_use_only_to_an_engine() {
        let text = "#[ignore = \"needs docker-registry\"]\nfn pulls() {}\n";
        let engines = ["docker", "podman"].map(|name| Lane::off(name, "there is none".into()));
        let plan = Plan::new(&ignored_in(text), engines.into());
        assert_eq!(plan.left_out().collect::<Vec<_>>(), ["pulls"]);
        assert!(
            plan.summary().contains("no Docker engine"),
            "{}",
            plan.summary()
        );
    }

    #[test]
    fn what_needs_several_components_runs_only_with_all_of_them() {
        let text = "#[ignore = \"needs docker and podman\"]\nfn both() {}\n";
        let docker = || Lane::on("docker", "an engine".into());
        let half = Plan::new(
            &ignored_in(text),
            vec![docker(), Lane::off("podman", "there is none".into())],
        );
        assert_eq!(half.left_out().collect::<Vec<_>>(), ["both"]);
        let both = Plan::new(
            &ignored_in(text),
            vec![docker(), Lane::on("podman", "a service".into())],
        );
        assert_eq!(both.left_out().count(), 0);
    }

    #[test]
    fn reasons_are_read_from_the_source() {
        let found = ignored_in(TEXT);
        let names: Vec<_> = found.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["a_container_runs", "child", "never"]);
        assert_eq!(found[0].needs().collect::<Vec<_>>(), ["docker"]);
        assert_eq!(found[1].needs().count(), 0);
    }

    #[test]
    fn what_is_not_here_is_left_out_and_said() {
        let plan = Plan::new(
            &ignored_in(TEXT),
            vec![
                Lane::on("docker", "an engine".into()),
                Lane::off("podman", "there is none".into()),
            ],
        );
        let left_out: Vec<_> = plan.left_out().collect();
        assert_eq!(left_out, ["child", "never"]);
        let summary = plan.summary();
        assert!(
            summary.contains("ran      (1 tests): an engine"),
            "{summary}"
        );
        assert!(
            summary.contains("LEFT OUT (1 tests): there is no program"),
            "{summary}"
        );
    }
}
