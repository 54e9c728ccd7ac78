//! What the node's owner says of its care: `[gc]` and `[pressure]` of `agent.toml`, with flags and variables for what
//! is changed most.

use std::time::Duration;

use hostler_agent::{Budget, Care, Limits};
use serde::Deserialize;

use super::Environment;
use crate::args::{AgentArgs, span};
use crate::failure::Failure;

/// `[gc]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GcFile {
    start: Option<u64>,
    stop: Option<u64>,
    min_age: Option<String>,
    every: Option<String>,
}

/// `[pressure]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PressureFile {
    memory: Option<u64>,
    disk: Option<u64>,
    inodes: Option<u64>,
    pids: Option<u64>,
}

/// Rounds that follow each other faster would only cost.
const SHORTEST_ROUND: Duration = Duration::from_secs(10);

/// Flag > variable > file > default.
pub(super) fn resolve(
    args: &AgentArgs,
    (gc, pressure): (GcFile, PressureFile),
    environment: &Environment,
) -> Result<Care, Failure> {
    let usual = Care::default();
    let number = |flag: Option<u64>, name: &str, file: Option<u64>, usual: u64| {
        let told = environment.get(name).map(|text| {
            let refused =
                |_| Failure::usage(format!("{name} is `{text}`, which is no number"), ADVICE);
            text.parse().map_err(refused)
        });
        let percent: u64 = flag.map(Ok).or(told).transpose()?.or(file).unwrap_or(usual);
        percents(name, percent)
    };
    let start = number(
        args.gc_start,
        "HOSTLER_GC_START",
        gc.start,
        usual.budget.start,
    )?;
    let stop = number(
        args.gc_stop,
        "HOSTLER_GC_STOP",
        gc.stop,
        usual.budget.stop.min(start),
    )?;
    if stop > start {
        let sentence = format!("deleting would begin at {start} % and end at {stop} %");
        return Err(Failure::usage(sentence, "set the stop below the start"));
    }
    let told = environment.get("HOSTLER_GC_MIN_AGE").map(str::to_owned);
    let min_age = told.or(gc.min_age).map(|text| spans("min_age", &text));
    let every = gc.every.map(|text| spans("every", &text)).transpose()?;
    let limit = |name: &str, file: Option<u64>, usual: u64| percents(name, file.unwrap_or(usual));
    Ok(Care {
        budget: Budget {
            start,
            stop,
            min_age: args
                .gc_min_age
                .map(Ok)
                .or(min_age)
                .transpose()?
                .unwrap_or(usual.budget.min_age),
            every: every.unwrap_or(usual.budget.every).max(SHORTEST_ROUND),
        },
        limits: Limits {
            memory: limit("memory", pressure.memory, usual.limits.memory)?,
            disk: limit("disk", pressure.disk, usual.limits.disk)?,
            inodes: limit("inodes", pressure.inodes, usual.limits.inodes)?,
            pids: limit("pids", pressure.pids, usual.limits.pids)?,
        },
    })
}

const ADVICE: &str = "set it to a percentage from 1 to 100, where 100 is never";

fn percents(name: &str, percent: u64) -> Result<u64, Failure> {
    if (1..=100).contains(&percent) {
        return Ok(percent);
    }
    Err(Failure::usage(format!("`{name}` is {percent}"), ADVICE))
}

fn spans(name: &str, text: &str) -> Result<Duration, Failure> {
    span(text).map_err(|why| Failure::usage(format!("`{name}` is `{text}`: {why}"), "write `1h`"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        agent: AgentArgs,
    }

    fn of(words: &[&str], text: &str, variables: &[(&str, &str)]) -> Result<Care, Failure> {
        #[derive(Deserialize)]
        #[serde(default)]
        #[derive(Default)]
        struct File {
            gc: GcFile,
            pressure: PressureFile,
        }
        let words = std::iter::once("agent").chain(words.iter().copied());
        let args = Line::parse_from(words).agent;
        let file: File = toml::from_str(text).unwrap();
        resolve(&args, (file.gc, file.pressure), &Environment::of(variables))
    }

    #[test]
    fn a_flag_beats_the_variable_the_file_and_the_default() {
        assert_eq!(of(&[], "", &[]).unwrap(), Care::default());
        let text =
            "[gc]\nstart = 60\nstop = 40\nmin_age = '2h'\nevery = '1s'\n[pressure]\ndisk = 70\n";
        let file = of(&[], text, &[]).unwrap();
        assert_eq!((file.budget.start, file.budget.stop), (60, 40));
        assert_eq!(file.budget.min_age, Duration::from_secs(7200));
        assert_eq!(file.budget.every, SHORTEST_ROUND, "not faster than that");
        assert_eq!((file.limits.disk, file.limits.memory), (70, 95));
        let variables = [("HOSTLER_GC_START", "65"), ("HOSTLER_GC_MIN_AGE", "5m")];
        let told = of(&["--gc-min-age", "1m"], text, &variables).unwrap();
        assert_eq!(told.budget.start, 65);
        assert_eq!(told.budget.min_age, Duration::from_secs(60));
        let low = of(&["--gc-start", "50"], "", &[]).unwrap();
        assert_eq!(
            low.budget.stop, 50,
            "the usual stop is no higher than the start"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (words, text) in [
            (&["--gc-start", "0"][..], ""),
            (&["--gc-start", "101"], ""),
            (&["--gc-start", "50", "--gc-stop", "60"], ""),
            (&[], "[pressure]\ndisk = 0\n"),
            (&[], "[gc]\nmin_age = 'soon'\n"),
        ] {
            assert!(of(words, text, &[]).is_err(), "{words:?} {text}");
        }
        assert!(of(&[], "", &[("HOSTLER_GC_STOP", "few")]).is_err());
    }
}
