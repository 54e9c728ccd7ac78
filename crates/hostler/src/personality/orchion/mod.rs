//! `node-agent`: flags, and a file in YAML or JSON whose keys are the flags' names; flags count more.
//!
//! What asks for model engines, limits and jobs is read, checked and kept, and each is told in one line to have no
//! effect yet.

mod file;
mod table;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_agent::orchion::{Engines, Gpus, Jobs, Limits, Ollama, Orchion, Vllm};
use hostler_agent::{Journal, Level, Line, Uplink};

use self::table::{FLAGS, USUAL_SERVER};
use super::flags::{self, Given};
use super::lines::{Form, stdout};
use super::read;
use super::run::Agent;
use crate::compose::NodeAgentConfig;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{AgentSettings, Environment, Surroundings, Told};
use crate::status::ExitStatus;

const NAME: &str = "node-agent";

/// All that was said, on the line and in the file.
struct Said {
    given: Given,
    limits: Limits,
    jobs: Jobs,
    /// What has no effect yet: what it is called, and its value.
    without_effect: Vec<(String, String)>,
}

pub(super) fn main(
    words: &[String],
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let Some(given) = read(NAME, &FLAGS, words, printer)? else {
        return Ok(ExitStatus::Done);
    };
    if let Some(word) = given.rest.first() {
        let sentence = format!("{NAME} takes flags only, and `{word}` is none");
        return Err(Failure::usage(sentence, "see `node-agent -h`"));
    }
    let file = given.text("config").map(PathBuf::from);
    let said = Said::of(given, file.as_deref())?;
    let told = Told {
        data_dir: said.given.text("data-dir").map(Into::into),
        listen: said.given.text("health-listen").map(str::to_owned),
    };
    let around = Surroundings::resolve(told, NAME, environment)?;
    let server = server(said.given.text("orchestrator").unwrap_or(USUAL_SERVER));
    let node = NodeAgentConfig {
        trust: around.trust,
        ..NodeAgentConfig::new(server, around.data_dir, around.docker_socket)
    };
    let agent = Agent {
        node,
        listen: around.listen,
        services: None,
        names_signal: false,
        log: around.log,
    };
    super::start(said.complete(agent, environment)?, printer)
}

pub(super) fn of_settings(
    settings: &AgentSettings,
    (server, file): (Option<&str>, Option<&Path>),
    environment: &Environment,
) -> Result<Agent, Failure> {
    let said = Said::of(Given::default(), file)?;
    let named = server.or_else(|| said.given.text("orchestrator"));
    let node = NodeAgentConfig {
        trust: settings.trust.clone().uninvited(),
        registries: settings.registries.clone(),
        guard: settings.guard.clone(),
        care: settings.care,
        ..NodeAgentConfig::new(
            self::server(named.unwrap_or(USUAL_SERVER)),
            settings.data_dir.clone(),
            settings.docker_socket.clone(),
        )
    };
    let agent = Agent {
        node,
        listen: settings.listen,
        services: None,
        names_signal: false,
        log: settings.log.clone(),
    };
    let mut agent = said.complete(agent, environment)?;
    if let (Uplink::Orchion(orchion), Some(name)) = (&mut agent.node.uplink, &settings.name) {
        orchion.hostname = Some(name.clone());
    }
    Ok(agent)
}

/// The contract writes `host:port`.
fn server(text: &str) -> String {
    if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    }
}

impl Said {
    fn of(mut given: Given, named: Option<&Path>) -> Result<Self, Failure> {
        let mut limits = Limits::default();
        let mut jobs = Jobs::default();
        if let Some(path) = named {
            let keys = file::load(path)?;
            file::take(&keys, &mut given, (&mut limits, &mut jobs)).map_err(|wrong| {
                let sentence = format!("{}: {wrong}", path.display());
                Failure::usage(sentence, "docs/guide/agents-of-others.md lists the keys")
            })?;
        }
        let is_of_engines = |name: &&'static str| {
            name.starts_with("vllm-") || name.starts_with("ollama-") || name.starts_with("enable-")
        };
        let mut without_effect: Vec<(String, String)> = given
            .names()
            .filter(is_of_engines)
            .map(|name| {
                (
                    format!("-{name}"),
                    given.text(name).unwrap_or_default().to_owned(),
                )
            })
            .collect();
        without_effect.extend(limits.told());
        without_effect.extend(jobs.told());
        Ok(Self {
            given,
            limits,
            jobs,
            without_effect,
        })
    }

    /// The agent with its contract, after what has no effect yet was told.
    fn complete(self, mut agent: Agent, environment: &Environment) -> Result<Agent, Failure> {
        let orchion = self.orchion();
        agent.services = Some(SocketAddr::new(self.host()?, orchion.agent_port));
        let journal = stdout(Form::Json, environment);
        self.tell(journal.as_ref());
        agent.node.journal = journal;
        agent.node.uplink = Uplink::Orchion(Box::new(orchion));
        Ok(agent)
    }

    fn tell(&self, journal: &dyn Journal) {
        for (name, value) in &self.without_effect {
            let text = format!("{name} is kept and has no effect yet");
            let line = Line::new(Level::Warn, text).with("name", name);
            journal.write(&line.with("value", value));
        }
    }

    fn orchion(&self) -> Orchion {
        Orchion {
            heartbeat_interval: self.span("heartbeat-interval"),
            capability_interval: self.span("capability-interval"),
            node_id: self.text("node-id"),
            hostname: self.text("hostname"),
            agent_port: self.number("agent-port"),
            engines: self.engines(),
            limits: self.limits,
            jobs: self.jobs,
        }
    }

    fn engines(&self) -> Engines {
        let is_on = |name: &str| self.given.text(name) == Some("true");
        let vllm = || Vllm {
            model: self.usual("vllm-model").to_owned(),
            port: self.number("vllm-port"),
            gpus: self.gpus("vllm-gpus"),
            tensor_parallel: self.number("vllm-tensor-parallel"),
            max_model_len: self.number("vllm-max-model-len"),
        };
        let ollama = || Ollama {
            model: self.usual("ollama-model").to_owned(),
            port: self.number("ollama-port"),
            gpus: self.gpus("ollama-gpus"),
        };
        Engines {
            vllm: is_on("enable-vllm").then(vllm),
            ollama: is_on("enable-ollama").then(ollama),
        }
    }

    fn host(&self) -> Result<IpAddr, Failure> {
        let Some(host) = self.text("agent-host") else {
            return Ok(Ipv4Addr::UNSPECIFIED.into());
        };
        host.parse().map_err(|_| {
            let sentence = format!("-agent-host is `{host}`, which is no address of this machine");
            Failure::usage(sentence, "write an IP address such as 127.0.0.1")
        })
    }

    fn text(&self, name: &str) -> Option<String> {
        let text = self.given.text(name);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// What was given, or what counts without it.
    fn usual(&self, name: &str) -> &str {
        let usual = || {
            FLAGS
                .iter()
                .find(|flag| flag.name == name)
                .map(|flag| flag.usual)
        };
        self.given.text(name).or_else(usual).unwrap_or_default()
    }

    /// A number that was looked at when it was read; each flag's bounds fit its type.
    fn number<T: std::str::FromStr + Default>(&self, name: &str) -> T {
        self.usual(name).parse().unwrap_or_default()
    }

    fn span(&self, name: &str) -> Duration {
        flags::span(self.usual(name)).unwrap_or_default()
    }

    fn gpus(&self, name: &str) -> Gpus {
        match flags::gpus(self.usual(name)) {
            Some(numbers) if !numbers.is_empty() => Gpus::These(numbers),
            _ => Gpus::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use hostler_model::{Bytes, MilliCpu};

    use super::super::flags::Parsed;
    use super::*;

    fn said(line: &str, file: Option<&str>) -> Result<Said, Failure> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let Ok(Parsed::Run(given)) = flags::parse(&FLAGS, &words) else {
            panic!("{line}");
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node-agent.yaml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        Said::of(given, file.map(|_| path.as_path()))
    }

    /// Keeps what is written.
    #[derive(Debug, Default)]
    struct Kept(Mutex<Vec<String>>);

    impl Journal for Kept {
        fn write(&self, line: &Line) {
            self.0.lock().unwrap().push(line.text.clone());
        }
    }

    #[test]
    fn without_a_word_the_contracts_defaults_count() {
        let said = said("", None).unwrap();
        let orchion = said.orchion();
        assert_eq!(orchion.heartbeat_interval, Duration::from_secs(5));
        assert_eq!(orchion.capability_interval, Duration::from_secs(10));
        assert_eq!((orchion.agent_port, orchion.node_id), (50_052, None));
        assert_eq!(orchion.engines, Engines::default());
        assert!(said.without_effect.is_empty());
    }

    #[test]
    fn engines_are_kept_with_their_defaults_and_told_in_one_line_a_flag() {
        let said = said(
            "--enable-vllm -vllm-gpus=0,1 -enable-ollama --ollama-model phi",
            None,
        )
        .unwrap();
        let engines = said.orchion().engines;
        let vllm = Vllm {
            model: "mistralai/Mistral-7B-Instruct-v0.1".to_owned(),
            port: 8000,
            gpus: Gpus::These(vec![0, 1]),
            tensor_parallel: 1,
            max_model_len: 4096,
        };
        let ollama = Ollama {
            model: "phi".to_owned(),
            port: 11_434,
            gpus: Gpus::All,
        };
        assert_eq!((engines.vllm, engines.ollama), (Some(vllm), Some(ollama)));
        let kept = Kept::default();
        said.tell(&kept);
        let expected = [
            "-enable-ollama",
            "-enable-vllm",
            "-ollama-model",
            "-vllm-gpus",
        ];
        let expected = expected.map(|name| format!("{name} is kept and has no effect yet"));
        assert_eq!(*kept.0.lock().unwrap(), expected);
        assert!(
            self::said("-vllm-model x", None)
                .unwrap()
                .orchion()
                .engines
                .vllm
                .is_none()
        );
    }

    #[test]
    fn the_file_is_yaml_or_json_and_flags_count_more() {
        let yaml = "orchestrator: plane:1\nheartbeat_interval: 7\ncapability-interval: 1m\nnode_id: a\n\
                    hostname: b\nenable_vllm: true\nresource_limits:\n  cpu: 2\n  memory: 1GiB\n\
                    jobs:\n  max_concurrent: 3\n  timeout: 10m\n";
        let json = r#"{"orchestrator": "plane:1", "heartbeat_interval": "7s", "capability_interval": "60s",
            "node_id": "a", "hostname": "b", "enable_vllm": true, "resource_limits": {"cpu": "2", "memory": "1GiB"},
            "jobs": {"max_concurrent": 3, "timeout": 600}}"#;
        for text in [yaml, json] {
            let said = said("-node-id mine", Some(text)).unwrap();
            let orchion = said.orchion();
            assert_eq!(said.given.text("orchestrator"), Some("plane:1"));
            assert_eq!(orchion.heartbeat_interval, Duration::from_secs(7));
            assert_eq!(orchion.capability_interval, Duration::from_secs(60));
            assert_eq!(orchion.node_id.as_deref(), Some("mine"));
            assert_eq!(orchion.hostname.as_deref(), Some("b"));
            assert!(orchion.engines.vllm.is_some());
            assert_eq!(orchion.limits.cpu, Some(MilliCpu(2000)));
            assert_eq!(orchion.limits.memory, Some(Bytes(1 << 30)));
            assert_eq!(orchion.jobs.max_concurrent, Some(3));
            assert_eq!(orchion.jobs.timeout, Some(Duration::from_secs(600)));
            let told: Vec<&str> = said
                .without_effect
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            let expected = [
                "-enable-vllm",
                "resource_limits.cpu",
                "resource_limits.memory",
                "jobs.max_concurrent",
                "jobs.timeout",
            ];
            assert_eq!(told, expected);
        }
        assert!(said("", Some("\n")).is_ok());
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused_by_name_and_key() {
        for (text, part) in [
            ("orchestrater: x", "there is no key `orchestrater`"),
            ("heartbeat_interval: soon", "flag -heartbeat-interval"),
            ("node_id: [a]", "`node_id` is one value"),
            (
                "resource_limits: {gpu: 1}",
                "no key `gpu` in resource_limits",
            ),
            ("jobs: {max_concurrent: 0}", "`max_concurrent` is `0`"),
            ("jobs: {timeout: later}", "`timeout` is `later`"),
            ("config: other.yaml", "cannot stand in the file"),
            ("- a\n- b", "no set of keys"),
            ("a: [", "cannot use the configuration file"),
        ] {
            let Err(refused) = said("", Some(text)) else {
                panic!("{text}");
            };
            assert_eq!(refused.status, ExitStatus::Usage);
            assert!(
                refused.sentence.contains(part),
                "{text}: {}",
                refused.sentence
            );
            assert!(
                refused.sentence.contains("node-agent.yaml"),
                "{}",
                refused.sentence
            );
        }
        let missing = Said::of(Given::default(), Some(Path::new("/nonexistent/a.yaml")));
        assert!(missing.is_err());
    }

    #[test]
    fn every_default_of_a_flag_is_one_of_its_kind() {
        let mut given = Given::default();
        for flag in FLAGS.iter().filter(|flag| !flag.usual.is_empty()) {
            given.add(flag, flag.usual).unwrap();
        }
        assert!(
            FLAGS[..20]
                .windows(2)
                .all(|pair| pair[0].name < pair[1].name)
        );
    }
}
