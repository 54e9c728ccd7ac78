//! The agents of other fleets. Called by the name of one, this program is that agent: with its flags, variables and
//! files, with its lines on stdout, and with its exit codes. `hostler agent --dialect` leads to the same agents.
//!
//! | name | contract | what it has |
//! |---|---|---|
//! | `miaas-agent` | MIaaS | variables |
//! | `node-agent` | Orchion | flags, a file |
//! | `spot-agent` | spot | commands, a file, variables |
//! | `persys-agent` | Persys | flags, a file, variables, commands |
//!
//! Each has a file of its own here that turns what it was given into data; `run` is the same for all but Persys's,
//! which serves as well as it calls and has a folder.

mod flags;
mod lines;
mod log_files;
mod miaas;
mod orchion;
mod persys;
mod run;
mod spot;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use hostler_kit::telemetry;

use crate::commands::single_thread;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{AgentSettings, Environment, Foreign, Target};
use crate::status::ExitStatus;

pub(crate) use spot::parse as spot_keys;

use flags::{Flag, Given, Parsed};
use run::Agent;

/// Whose agent this program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Personality {
    Miaas,
    Node,
    Spot,
    Persys,
}

impl Personality {
    /// By the name that the program was called by.
    pub(crate) fn of(program: &Path) -> Option<Self> {
        match program.file_name()?.to_str()? {
            "miaas-agent" => Some(Self::Miaas),
            "node-agent" => Some(Self::Node),
            "spot-agent" => Some(Self::Spot),
            "persys-agent" => Some(Self::Persys),
            _ => None,
        }
    }

    /// The whole program. These agents know three exit codes: 0, 1 for what failed, 2 for what makes no sense.
    pub(crate) fn main(
        self,
        words: impl Iterator<Item = OsString>,
        environment: &Environment,
        printer: &Printer,
    ) -> ExitCode {
        let words: Vec<String> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let ended = match self {
            Self::Miaas => miaas::main(&words, environment, printer),
            Self::Node => orchion::main(&words, environment, printer),
            Self::Spot => spot::main(&words, environment, printer),
            Self::Persys => persys::main(&words, environment, printer),
        };
        let status = ended.unwrap_or_else(|failure| {
            printer.failure(&failure);
            match failure.status {
                ExitStatus::Usage => ExitStatus::Usage,
                _ => ExitStatus::Failed,
            }
        });
        status.into()
    }
}

/// `hostler agent` with the contract of another fleet.
pub(crate) fn of_settings(
    settings: AgentSettings,
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let Target::Foreign {
        dialect,
        server,
        file,
    } = &settings.target
    else {
        // Ours is not led here.
        return Err(Failure::failed("there is no such contract", ""));
    };
    let (server, file) = (server.as_deref(), file.as_deref());
    let agent = match dialect {
        // It serves as well as it calls.
        Foreign::Persys => {
            return persys::of_settings(&settings, (server, file), environment, printer);
        }
        Foreign::Miaas => miaas::of_settings(&settings, server, environment)?,
        Foreign::Orchion => orchion::of_settings(&settings, (server, file), environment)?,
        Foreign::Spot => spot::of_settings(&settings, (server, file), environment)?,
    };
    start(agent, printer)
}

/// Runs an agent until it is told to stop.
fn start(agent: Agent, printer: &Printer) -> Result<ExitStatus, Failure> {
    telemetry::install(&agent.log.filter, agent.log.format);
    single_thread()?.block_on(Box::pin(agent.run(printer)))
}

/// Reads the flags; none if only help or the version was asked for, which is then told.
fn read(
    agent: &str,
    flags: &[Flag],
    words: &[String],
    printer: &Printer,
) -> Result<Option<Given>, Failure> {
    let see = format!("`{agent} -h` lists what can be said");
    match flags::parse(flags, words).map_err(|wrong| Failure::usage(wrong, &see))? {
        Parsed::Help => {
            printer.text(&flags::usage(agent, flags));
            Ok(None)
        }
        Parsed::Version => {
            let version = env!("CARGO_PKG_VERSION");
            printer.data(&format!("{agent} (hostler {version})"));
            Ok(None)
        }
        Parsed::Run(given) => Ok(Some(given)),
    }
}

/// A whole number of seconds from a variable or a file, as these agents write intervals.
fn seconds(name: &str, text: Option<&str>, usual: u64) -> Result<std::time::Duration, Failure> {
    const MOST: u64 = 24 * 60 * 60;
    let Some(text) = text else {
        return Ok(std::time::Duration::from_secs(usual));
    };
    match text.trim().parse() {
        Ok(seconds @ 1..=MOST) => Ok(std::time::Duration::from_secs(seconds)),
        _ => Err(Failure::usage(
            format!("{name} is `{text}`, which is no interval"),
            format!("set it to a whole number of seconds from 1 to {MOST}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_whose_agent_it_is() {
        let of = |name: &str| Personality::of(Path::new(name));
        assert_eq!(of("/usr/local/bin/miaas-agent"), Some(Personality::Miaas));
        assert_eq!(of("node-agent"), Some(Personality::Node));
        assert_eq!(of("./spot-agent"), Some(Personality::Spot));
        assert_eq!(of("/opt/persys-agent"), Some(Personality::Persys));
        assert_eq!(of("hostler"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn an_interval_is_a_whole_number_of_seconds() {
        let of = |text| seconds("HEARTBEAT_INTERVAL", text, 30).map(|span| span.as_secs());
        assert_eq!(of(None), Ok(30));
        assert_eq!(of(Some(" 5 ")), Ok(5));
        for wrong in ["0", "-1", "1.5", "30s", "", "86401"] {
            let refused = of(Some(wrong)).unwrap_err();
            assert_eq!(refused.status, ExitStatus::Usage, "{wrong}");
            assert!(
                refused.sentence.contains("HEARTBEAT_INTERVAL"),
                "{}",
                refused.sentence
            );
        }
    }
}
