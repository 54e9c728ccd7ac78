//! Running the tests: with nextest where it is installed, else with `cargo test`. The lanes are told when the
//! tests have ended, and the last thing printed is the summary.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::lanes::Plan;
use super::{Length, Stop};
use crate::tree;

/// How often the end of the runner and a signal to us are looked for.
const PATIENCE: Duration = Duration::from_millis(50);

/// By convention, what a shell gives for a program that a signal ended.
const SIGNALLED: u8 = 128;

/// Runs everything that the plan does not leave out.
pub(crate) fn run(plan: &Plan, length: Length, stop: &Stop) -> Result<ExitCode> {
    let has_nextest = tree::cargo(&["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if has_nextest {
        let documented = doctests(stop)?;
        let tested = nextest(plan, length, stop)?;
        return Ok(if documented.success() {
            code(tested, stop)
        } else {
            ExitCode::FAILURE
        });
    }
    println!("cargo-nextest is not installed; `cargo test` runs the tests");
    cargo_test(plan, stop)
}

fn nextest(plan: &Plan, length: Length, stop: &Stop) -> Result<ExitStatus> {
    let mut command = tree::cargo(&["nextest", "run", "--workspace", "--run-ignored", "all"]);
    if length == Length::Full {
        command.args(["--profile", "nightly"]);
    }
    let filter = nextest_filter(plan);
    if !filter.is_empty() {
        command.args(["--filterset", &filter]);
    }
    if std::io::stderr().is_terminal() {
        command.args(["--color", "always"]);
    }
    command.envs(plan.environment().iter().map(|(name, value)| (name, value)));
    let mut child = begin(command.stderr(Stdio::piped()))?;
    let output = child.stderr.take().context("nextest has an output")?;
    let lanes = plan.summary();
    let reader = std::thread::spawn(move || pass_on(output, lanes));
    let status = wait(&mut child, stop)?;
    reader.join().ok();
    Ok(status)
}

/// Prints what nextest prints, and the lanes just before its summary.
fn pass_on(output: ChildStderr, lanes: String) {
    let mut lanes = Some(lanes);
    for line in BufReader::new(output)
        .lines()
        .map_while(std::result::Result::ok)
    {
        let is_summary = plain(&line).trim_start().starts_with("Summary [");
        if is_summary && let Some(lanes) = lanes.take() {
            eprintln!("{lanes}");
        }
        eprintln!("{line}");
    }
    // Nothing was summed up: the build failed, or there was no test.
    if let Some(lanes) = lanes {
        eprintln!("{lanes}");
    }
}

/// Everything but the tests that are left out.
fn nextest_filter(plan: &Plan) -> String {
    let names: Vec<&str> = plan.left_out().collect();
    if names.is_empty() {
        return String::new();
    }
    format!("not test(/(^|::)({})$/)", names.join("|"))
}

fn cargo_test(plan: &Plan, stop: &Stop) -> Result<ExitCode> {
    let mut command = tree::cargo(&[
        "test",
        "--workspace",
        "--no-fail-fast",
        "--",
        "--include-ignored",
    ]);
    for name in plan.left_out() {
        command.args(["--skip", name]);
    }
    command.envs(plan.environment().iter().map(|(name, value)| (name, value)));
    let mut child = begin(command.stdout(Stdio::piped()))?;
    let output = child.stdout.take().context("cargo test has an output")?;
    let reader = std::thread::spawn(move || {
        let mut total = Counts::default();
        for line in BufReader::new(output)
            .lines()
            .map_while(std::result::Result::ok)
        {
            total.add(&line);
            println!("{line}");
        }
        total
    });
    let status = wait(&mut child, stop)?;
    let total = reader.join().unwrap_or_default();
    println!("{}", plan.summary());
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    Ok(code(status, stop))
}

/// The sums of all test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …`.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        let (_, figures) = rest.split_once(". ").unwrap_or_default();
        for figure in figures.split("; ") {
            let (number, what) = figure.split_once(' ').unwrap_or_default();
            let number: u64 = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" | "filtered out" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// The examples in documentation, which nextest does not run. What they say is shown if one fails.
fn doctests(stop: &Stop) -> Result<ExitStatus> {
    let mut command = tree::cargo(&["test", "--workspace", "--doc", "--quiet"]);
    let mut child = begin(command.stdout(Stdio::piped()))?;
    let mut output = child.stdout.take().context("cargo test has an output")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        // Text that cannot be read is not shown; the status tells of the failure.
        output.read_to_string(&mut text).ok();
        text
    });
    let status = wait(&mut child, stop)?;
    let text = reader.join().unwrap_or_default();
    if !status.success() {
        println!("{text}");
    }
    Ok(status)
}

/// Starts a runner in a process group of its own, so that Ctrl-C reaches it once, from us, and we outlive it.
fn begin(command: &mut Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .context("run cargo")
}

/// Waits for the runner. A signal to us is passed on to it, so that it ends its tests.
fn wait(child: &mut Child, stop: &Stop) -> Result<ExitStatus> {
    let mut is_told = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stop.asked().is_some() && !is_told {
            // It may have ended just now.
            kill_process_group(Pid::from_child(child), Signal::INT).ok();
            is_told = true;
        }
        std::thread::sleep(PATIENCE);
    }
}

fn code(status: ExitStatus, stop: &Stop) -> ExitCode {
    match stop.asked() {
        Some(signal) => ExitCode::from(SIGNALLED.saturating_add(u8::try_from(signal).unwrap_or(0))),
        None if status.success() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

/// The line without its colours.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_all_binaries_are_summed() {
        let mut counts = Counts::default();
        counts.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished",
        );
        counts.add(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; x",
        );
        counts.add("test some::test ... ok");
        assert_eq!(
            counts,
            Counts {
                passed: 4,
                failed: 2,
                skipped: 3
            }
        );
    }

    #[test]
    fn colours_do_not_hide_the_summary() {
        let line = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.1s] 3 tests run";
        assert_eq!(plain(line), "     Summary [   0.1s] 3 tests run");
    }
}
