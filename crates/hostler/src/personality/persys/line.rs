//! The line of `persys-agent`, read: flags as Go's programs take them, and at most one verb. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::failure::Failure;

/// What stands on the line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) verb: Option<Verb>,
    pub(super) wants_help: bool,
    pub(super) wants_version: bool,
    pub(super) standalone: bool,
    pub(super) insecure: bool,
    pub(super) config: Option<PathBuf>,
}

/// A request to pass on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verb {
    Apply(Apply),
    Delete { id: String },
    Retry { id: String },
}

/// What is to be applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Apply {
    pub(super) id: String,
    pub(super) kind: Option<String>,
    pub(super) spec_file: Option<PathBuf>,
    pub(super) revision: String,
    pub(super) desired_state: String,
}

impl Given {
    /// Reads the line.
    pub(super) fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut given = Self::default();
        let mut values: BTreeMap<&str, String> = BTreeMap::new();
        let mut verb = None;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix('-') else {
                if verb.is_some() {
                    return Err(unknown(word));
                }
                verb = Some(word.as_str());
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "standalone" => given.standalone = switch(word, value.as_deref())?,
                "insecure" => given.insecure = switch(word, value.as_deref())?,
                "h" | "help" => given.wants_help = true,
                "version" => given.wants_version = true,
                "config" | "id" | "type" | "spec-file" | "revision" | "desired-state" => {
                    let value = value.or_else(|| words.next().cloned());
                    let value = value.ok_or_else(|| {
                        Failure::usage(format!("{word} needs a value"), see_help())
                    })?;
                    values.insert(name, value);
                }
                _ => return Err(unknown(word)),
            }
        }
        given.config = values.remove("config").map(PathBuf::from);
        given.verb = verb.map(|verb| Verb::of(verb, &mut values)).transpose()?;
        match values.keys().next() {
            Some(left) if !given.wants_help => Err(Failure::usage(
                format!("--{left} says nothing here"),
                see_help(),
            )),
            _ => Ok(given),
        }
    }
}

impl Verb {
    fn of(word: &str, values: &mut BTreeMap<&str, String>) -> Result<Self, Failure> {
        let mut take = |name: &str| values.remove(name).unwrap_or_default();
        let id = take("id");
        if id.is_empty() {
            return Err(Failure::usage(format!("{word} needs --id"), see_help()));
        }
        match word {
            "apply" => {
                let full = |text: String| (!text.is_empty()).then_some(text);
                Ok(Self::Apply(Apply {
                    id,
                    kind: full(take("type")),
                    spec_file: full(take("spec-file")).map(PathBuf::from),
                    revision: take("revision"),
                    desired_state: take("desired-state"),
                }))
            }
            "delete" => Ok(Self::Delete { id }),
            "retry" => Ok(Self::Retry { id }),
            _ => Err(unknown(word)),
        }
    }
}

fn switch(word: &str, value: Option<&str>) -> Result<bool, Failure> {
    value.map_or(Ok(true), |value| truth(word, value))
}

/// Reads a switch.
pub(super) fn truth(name: &str, value: &str) -> Result<bool, Failure> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" => Ok(true),
        "false" | "f" | "0" | "no" => Ok(false),
        _ => Err(Failure::usage(
            format!("{name} is `{value}`, which is neither true nor false"),
            "set it to `true` or `false`",
        )),
    }
}

fn unknown(word: &str) -> Failure {
    Failure::usage(
        format!("`{}` is not known", word.escape_debug()),
        see_help(),
    )
}

fn see_help() -> &'static str {
    "`persys-agent -h` tells what can be said"
}
