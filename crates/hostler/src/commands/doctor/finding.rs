//! One thing that was found. Plain data.

use serde::Serialize;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Gravity {
    /// Something does not work.
    Problem,
    /// Something may stop working.
    Warning,
    /// Good to know.
    Note,
}

/// What it is, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) gravity: Gravity,
    /// What it is about: `server`, `node box-1`, `workload web`, `this machine`.
    pub(super) about: String,
    pub(super) sentence: String,
    /// What to do; empty if there is nothing to be done.
    pub(super) advice: String,
}

/// Of the machine that the doctor runs on.
pub(super) fn here(gravity: Gravity, sentence: impl Into<String>, advice: &str) -> Finding {
    Finding {
        gravity,
        about: "this machine".to_owned(),
        sentence: sentence.into(),
        advice: advice.to_owned(),
    }
}
