//! One table for people and one file for programs: target, measured, baseline, ratio, verdict, and how to
//! repeat the row.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::bench::{Bench, Length};
use crate::costs::Costs;
use crate::machine::Machine;
use crate::rows::Row;
use crate::samples::millis;

/// A number with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// Which way is good, and how far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Met,
    Short,
    /// Not measured here; the note says why.
    NotMeasured,
    /// The row could not be carried out.
    Broken,
}

/// What a figure depends on. Speed is never judged in a short run: other work on the machine decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Nature {
    Speed,
    Memory,
    Count,
}

/// One measured thing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) id: &'static str,
    pub(crate) what: String,
    pub(crate) target: String,
    pub(crate) measured: Option<Figure>,
    pub(crate) baseline: Option<Figure>,
    /// Measured over baseline; without a baseline, over the target.
    pub(crate) ratio: Option<f64>,
    pub(crate) verdict: Verdict,
    pub(crate) nature: Nature,
    pub(crate) note: String,
    pub(crate) repeat: String,
}

/// Everything that a run found.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    version: &'static str,
    machine: &'a Machine,
    costs: Costs,
    length: &'static str,
    lines: Vec<Line>,
    #[serde(skip)]
    is_short: bool,
}

pub(crate) const fn figure(value: f64, unit: &'static str) -> Figure {
    Figure { value, unit }
}

impl Line {
    /// A figure against its bound, in the unit of the figure.
    pub(crate) fn new(
        id: &'static str,
        what: impl Into<String>,
        nature: Nature,
        measured: Figure,
        bound: Bound,
    ) -> Self {
        let (is_met, limit, sign) = match bound {
            Bound::AtMost(limit) => (measured.value <= limit, limit, "≤"),
            Bound::AtLeast(limit) => (measured.value >= limit, limit, "≥"),
        };
        Self {
            id,
            what: what.into(),
            target: format!("{sign} {}", figure(limit, measured.unit)),
            measured: Some(measured),
            baseline: None,
            ratio: (limit > 0.0).then(|| measured.value / limit),
            verdict: if is_met { Verdict::Met } else { Verdict::Short },
            nature,
            note: String::new(),
            repeat: repeat(id),
        }
    }

    /// What was measured beside it; the ratio is now over that.
    pub(crate) fn against(mut self, baseline: f64) -> Self {
        let Some(measured) = self.measured else {
            return self;
        };
        self.baseline = Some(figure(baseline, measured.unit));
        self.ratio = (baseline > 0.0).then(|| measured.value / baseline);
        self
    }

    /// The target in words, where the bare bound would not explain itself.
    pub(crate) fn target(mut self, words: &str) -> Self {
        self.target = format!("{words} ({})", self.target);
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// A row that this machine or this length of run leaves out.
    pub(crate) fn left_out(id: &'static str, what: &str, why: impl Into<String>) -> Self {
        Self::without_figure(id, what, Verdict::NotMeasured, why.into())
    }

    fn without_figure(id: &'static str, what: &str, verdict: Verdict, note: String) -> Self {
        Self {
            id,
            what: what.to_owned(),
            target: String::new(),
            measured: None,
            baseline: None,
            ratio: None,
            verdict,
            nature: Nature::Count,
            note,
            repeat: repeat(id),
        }
    }
}

impl<'a> Report<'a> {
    pub(crate) fn new(bench: &'a Bench) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            machine: &bench.machine,
            costs: bench.costs,
            length: match bench.length {
                Length::Short => "short",
                Length::Usual => "usual",
                Length::Long => "long",
            },
            lines: Vec::new(),
            is_short: bench.is_short(),
        }
    }

    pub(crate) fn print_head(&self) {
        println!("{}", self.machine);
        println!(
            "one fsync {:.2} ms, one fork+exec {:.2} ms",
            millis(self.costs.fsync),
            millis(self.costs.fork_exec)
        );
    }

    /// Takes what a row found and says it at once; rows take a while.
    pub(crate) fn add(&mut self, row: &Row, found: Result<Vec<Line>>) {
        let lines = found.unwrap_or_else(|error| {
            vec![Line::without_figure(
                row.id,
                row.what,
                Verdict::Broken,
                format!("{error:#}"),
            )]
        });
        for line in lines {
            println!("{line}");
            self.lines.push(line);
        }
    }

    pub(crate) fn print_table(&self) {
        println!();
        println!("| id | what | target | measured | baseline | ratio | verdict | note |");
        println!("|---|---|---|---|---|---|---|---|");
        for line in &self.lines {
            let Line {
                id,
                what,
                target,
                verdict,
                note,
                ..
            } = line;
            let [measured, baseline] = [line.measured, line.baseline].map(shown);
            let ratio = line
                .ratio
                .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
            println!(
                "| {id} | {what} | {target} | {measured} | {baseline} | {ratio} | {verdict} | {note} |"
            );
        }
        println!("one row again: `{}`", repeat("ID"));
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        Ok(std::fs::write(
            path,
            serde_json::to_string_pretty(self)? + "\n",
        )?)
    }

    /// A row that broke is a failure. So are, in a short run, counts and sizes over their target.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let is_bad = |line: &Line| match line.verdict {
            Verdict::Broken => true,
            Verdict::Short => self.is_short && line.nature != Nature::Speed,
            Verdict::Met | Verdict::NotMeasured => false,
        };
        if self.lines.iter().any(is_bad) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

fn repeat(id: &str) -> String {
    format!("cargo xtask bench --row {id}")
}

fn shown(figure: Option<Figure>) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| figure.to_string())
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, unit } = self;
        let digits = match value.abs() {
            100.0.. => 0,
            10.0.. => 1,
            0.1.. => 2,
            _ => 3,
        };
        write!(f, "{value:.digits$} {unit}")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Short => "short",
            Self::NotMeasured => "n/a",
            Self::Broken => "broken",
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<3} {:<6} {}: {}",
            self.id,
            self.verdict,
            self.what,
            shown(self.measured)
        )?;
        if !self.target.is_empty() {
            write!(f, ", target {}", self.target)?;
        }
        if let Some(baseline) = self.baseline {
            write!(f, ", baseline {baseline}")?;
        }
        if !self.note.is_empty() {
            write!(f, " – {}", self.note)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_by_its_bound_and_compared_with_its_baseline() {
        let line = |value, bound| {
            Line::new("X1", "x", Nature::Speed, figure(value, "ms"), bound).against(2.0)
        };
        assert_eq!(line(3.0, Bound::AtMost(3.0)).verdict, Verdict::Met);
        assert_eq!(line(3.1, Bound::AtMost(3.0)).verdict, Verdict::Short);
        assert_eq!(line(2.9, Bound::AtLeast(3.0)).verdict, Verdict::Short);
        assert_eq!(line(3.0, Bound::AtLeast(3.0)).ratio, Some(1.5));
    }
}
