//! `miaas-agent`: variables, no flags.

use std::time::Duration;

use hostler_agent::Uplink;
use hostler_agent::miaas::Miaas;

use super::flags::{Flag, Kind};
use super::lines::{Form, stdout};
use super::run::Agent;
use super::{read, seconds};
use crate::compose::NodeAgentConfig;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{AgentSettings, Environment, Surroundings, Told};
use crate::status::ExitStatus;

const NAME: &str = "miaas-agent";
const USUAL_SERVER: &str = "http://localhost:8080";

/// None is MIaaS's; both have a variable, too.
const FLAGS: [Flag; 2] = [
    Flag {
        name: "data-dir",
        kind: Kind::Text,
        usual: "",
        help: "Where the agent keeps its files; variable HOSTLER_DATA_DIR",
    },
    Flag {
        name: "health-listen",
        kind: Kind::Text,
        usual: "",
        help: "Where it answers /healthz, /readyz and /metrics; variable HOSTLER_AGENT_LISTEN",
    },
];

pub(super) fn main(
    words: &[String],
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let Some(given) = read(NAME, &FLAGS, words, printer)? else {
        return Ok(ExitStatus::Done);
    };
    if let Some(word) = given.rest.first() {
        let sentence = format!("{NAME} takes no arguments, and `{word}` is one");
        return Err(Failure::usage(sentence, "see `miaas-agent -h`"));
    }
    let told = Told {
        data_dir: given.text("data-dir").map(Into::into),
        listen: given.text("health-listen").map(str::to_owned),
    };
    let around = Surroundings::resolve(told, NAME, environment)?;
    let (server, miaas) = resolve(None, environment)?;
    let node = NodeAgentConfig {
        trust: around.trust,
        uplink: Uplink::Miaas(miaas),
        journal: stdout(Form::Plain, environment),
        ..NodeAgentConfig::new(server, around.data_dir, around.docker_socket)
    };
    let agent = Agent {
        node,
        listen: around.listen,
        services: None,
        names_signal: false,
        log: around.log,
    };
    super::start(agent, printer)
}

pub(super) fn of_settings(
    settings: &AgentSettings,
    server: Option<&str>,
    environment: &Environment,
) -> Result<Agent, Failure> {
    let (server, miaas) = resolve(server, environment)?;
    let node = NodeAgentConfig {
        trust: settings.trust.clone().uninvited(),
        name: settings.name.clone(),
        uplink: Uplink::Miaas(miaas),
        journal: stdout(Form::Plain, environment),
        registries: settings.registries.clone(),
        guard: settings.guard.clone(),
        care: settings.care,
        ..NodeAgentConfig::new(
            server,
            settings.data_dir.clone(),
            settings.docker_socket.clone(),
        )
    };
    Ok(Agent {
        node,
        listen: settings.listen,
        services: None,
        names_signal: false,
        log: settings.log.clone(),
    })
}

/// The control plane and what the contract leaves to choose.
fn resolve(server: Option<&str>, environment: &Environment) -> Result<(String, Miaas), Failure> {
    let server = server.or_else(|| environment.get("CONTROL_PLANE_URL"));
    let interval: Duration = seconds(
        "HEARTBEAT_INTERVAL",
        environment.get("HEARTBEAT_INTERVAL"),
        30,
    )?;
    let server = server.unwrap_or(USUAL_SERVER).to_owned();
    Ok((server, Miaas { interval }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_have_their_defaults() {
        let (server, miaas) = resolve(None, &Environment::of(&[])).unwrap();
        assert_eq!(
            (server.as_str(), miaas.interval.as_secs()),
            ("http://localhost:8080", 30)
        );
        let variables = [
            ("CONTROL_PLANE_URL", "http://plane:1"),
            ("HEARTBEAT_INTERVAL", "60"),
        ];
        let environment = Environment::of(&variables);
        let (server, miaas) = resolve(None, &environment).unwrap();
        assert_eq!(
            (server.as_str(), miaas.interval.as_secs()),
            ("http://plane:1", 60)
        );
        let (server, _) = resolve(Some("http://flag:2"), &environment).unwrap();
        assert_eq!(server, "http://flag:2");
    }
}
