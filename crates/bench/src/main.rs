//! `hostler-bench`: measures Hostler against its targets. `cargo xtask bench` builds and runs it.
//!
//! Every figure is a ratio, processor time per operation, a count or a size, or a wall time beside the cost
//! of one fsync and one fork+exec of the same run. Servers run on the first core, their clients on the last.
//! The baselines are in this program too, so that both are measured in the same minute. Owns everything that
//! it starts and ends it by its id. A row that cannot be measured says why; the others go on.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a terminal tool that measures wall time: it prints, reads the clock and divides counts"
)]

mod baseline;
mod bench;
mod cores;
mod costs;
mod machine;
mod meter;
mod plane;
mod report;
mod rows;
mod samples;
mod session;
mod spawned;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::baseline::Baseline;
use crate::bench::{Bench, Length};
use crate::report::Report;

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask bench",
    about = "Measures Hostler against its targets"
)]
struct Options {
    /// Only these rows, such as C1; all if left out
    #[arg(long = "row", value_name = "ID")]
    rows: Vec<String>,
    /// A few seconds a row; the exit status then says whether counts and memory are as they should be
    #[arg(long, conflicts_with = "long")]
    short: bool,
    /// With the rows that take minutes and gigabytes
    #[arg(long)]
    long: bool,
    /// Where data is written while measuring; must be a real disk
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    data_dir: PathBuf,
    /// The file for the figures [default: DATA-DIR/bench.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The program to measure [default: `hostler` beside this one]
    #[arg(long, value_name = "FILE")]
    hostler: Option<PathBuf>,
    /// A Docker engine that has `busybox:local`
    #[arg(long, value_name = "unix://PATH", env = "HOSTLER_TEST_DOCKER")]
    docker: Option<String>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The programs that the harness starts beside itself.
#[derive(Subcommand)]
enum Part {
    /// Serves a baseline on a free port until it is killed.
    #[command(hide = true)]
    Baseline { which: Baseline },
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<ExitCode> {
    if let Some(Part::Baseline { which }) = options.part {
        baseline::serve(which)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = rows::chosen(&options.rows)?;
    let length = match (options.short, options.long) {
        (true, _) => Length::Short,
        (_, true) => Length::Long,
        _ => Length::Usual,
    };
    let hostler = match options.hostler {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("hostler"),
    };
    let bench = Bench::prepare(&options.data_dir, hostler, length, options.docker)?;
    let mut report = Report::new(&bench);
    report.print_head();
    for row in rows {
        report.add(row, (row.run)(&bench));
    }
    report.print_table();
    let json = options
        .json
        .unwrap_or_else(|| options.data_dir.join("bench.json"));
    report
        .write(&json)
        .with_context(|| format!("write {}", json.display()))?;
    println!("figures: {}", json.display());
    Ok(report.exit_code())
}
