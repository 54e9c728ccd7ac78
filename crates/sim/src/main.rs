//! Replays seeds: `hostler-sim --seed N [--trace]`, or `hostler-sim --from N --seeds M` for a campaign.
//!
//! Answers with status 0 if all invariants held, 1 if not, 2 if it was not understood. `HOSTLER_LOG` takes
//! `tracing`'s directives and sends the programs' own logs to stderr.

use std::io::{self, Write as _};
use std::process::ExitCode;

use hostler_kit::telemetry;

const USAGE: &str = "usage: hostler-sim --seed N [--trace] | --from N --seeds M";

/// What was asked for.
struct Request {
    from: u64,
    seeds: u64,
    trace: bool,
}

fn main() -> ExitCode {
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment is read here and nowhere else"
    )]
    if let Ok(filter) = std::env::var("HOSTLER_LOG") {
        telemetry::install(&filter, telemetry::Format::Text);
    }
    let Some(request) = parse(std::env::args().skip(1)) else {
        let _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    match play(&request) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Request> {
    let mut request = Request {
        from: 0,
        seeds: 0,
        trace: false,
    };
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse().ok();
        match word.as_str() {
            "--seed" => {
                request.from = number()?;
                request.seeds = 1;
            }
            "--from" => request.from = number()?,
            "--seeds" => request.seeds = number()?,
            "--trace" => request.trace = true,
            _ => return None,
        }
    }
    (request.seeds > 0).then_some(request)
}

/// Says whether all invariants held.
fn play(request: &Request) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let mut has_held = true;
    for seed in request.from..request.from + request.seeds {
        let outcome = hostler_sim::run(seed)?;
        if request.trace {
            for line in &outcome.trace {
                writeln!(out, "{line}")?;
            }
        }
        writeln!(out, "{outcome}")?;
        has_held &= outcome.violation.is_none();
    }
    Ok(has_held)
}
