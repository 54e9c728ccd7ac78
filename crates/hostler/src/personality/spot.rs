//! `spot-agent`: the commands `start` and `shutdown`, and a file of `KEY=VALUE` lines over which variables count more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hostler_agent::spot::{FilePrices, Instance, NoTransfer, Prices, Replica, Spot, Timers};
use hostler_agent::{Level, Line, TcpDial, Uplink, running_agent, spot};
use hostler_kit::telemetry;
use rustix::process::{Pid, Signal};

use super::flags::{Flag, Kind};
use super::lines::{Form, stdout_and_files};
use super::run::Agent;
use super::{read, seconds};
use crate::commands::single_thread;
use crate::compose::NodeAgentConfig;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{AgentSettings, AgentTrust, Environment, Surroundings, Told};
use crate::status::ExitStatus;

const NAME: &str = "spot-agent";
const USUAL_ROOT: &str = "/opt/spot-agent";
const USUAL_SERVER: &str = "http://localhost:5000";
/// How long a running agent may take to end before the last word is said for it.
const ENDING: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);

const FLAGS: [Flag; 3] = [
    Flag {
        name: "config",
        kind: Kind::Text,
        usual: "ROOT/config/agent.conf",
        help: "File of KEY=VALUE lines; variables of the same names count more",
    },
    Flag {
        name: "health-listen",
        kind: Kind::Text,
        usual: "",
        help: "Where the agent answers /healthz, /readyz and /metrics; variable HOSTLER_AGENT_LISTEN",
    },
    Flag {
        name: "root",
        kind: Kind::Text,
        usual: USUAL_ROOT,
        help: "Directory with config, data and agent_id.txt; variable SPOT_AGENT_ROOT",
    },
];

/// What the file and the variables say.
struct Said<'a> {
    file: BTreeMap<String, String>,
    environment: &'a Environment,
}

pub(super) fn main(
    words: &[String],
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let advice = "write `spot-agent start` or `spot-agent shutdown`";
    let (command, words) = match words.split_first() {
        Some((first, rest)) if !first.starts_with('-') => (Some(first.as_str()), rest),
        _ => (None, words),
    };
    let Some(given) = read(NAME, &FLAGS, words, printer)? else {
        return Ok(ExitStatus::Done);
    };
    // The command may also stand behind the flags.
    let mut rest = command
        .into_iter()
        .chain(given.rest.iter().map(String::as_str));
    let command = rest.next();
    if let Some(word) = rest.next() {
        return Err(Failure::usage(
            format!("`{word}` is one word too many"),
            advice,
        ));
    }
    let root = given
        .text("root")
        .or_else(|| environment.get("SPOT_AGENT_ROOT"));
    let root = PathBuf::from(root.unwrap_or(USUAL_ROOT));
    let named = given.text("config").map(Path::new);
    match command {
        Some("start") => {
            let listen = given.text("health-listen").map(str::to_owned);
            super::start(agent(&root, (named, listen), environment)?, printer)
        }
        Some("shutdown") => shut_down(&root, named, environment),
        Some(word) => Err(Failure::usage(
            format!("there is no command `{word}`"),
            advice,
        )),
        None => Err(Failure::usage("no command was given", advice)),
    }
}

fn agent(
    root: &Path,
    (named, listen): (Option<&Path>, Option<String>),
    environment: &Environment,
) -> Result<Agent, Failure> {
    let (server, spot) = resolve(root, (None, named), environment)?;
    let told = Told {
        data_dir: Some(root.join("data")),
        listen,
    };
    let around = Surroundings::resolve(told, NAME, environment)?;
    let node = NodeAgentConfig {
        uplink: Uplink::Spot(Box::new(spot)),
        journal: stdout_and_files(Form::Dated, environment, &root.join("logs")),
        trust: around.trust,
        ..NodeAgentConfig::new(server, around.data_dir, around.docker_socket)
    };
    Ok(Agent {
        node,
        listen: around.listen,
        services: None,
        names_signal: true,
        log: around.log,
    })
}

pub(super) fn of_settings(
    settings: &AgentSettings,
    (server, file): (Option<&str>, Option<&Path>),
    environment: &Environment,
) -> Result<Agent, Failure> {
    let (server, spot) = resolve(&settings.data_dir, (server, file), environment)?;
    let node = NodeAgentConfig {
        uplink: Uplink::Spot(Box::new(spot)),
        journal: stdout_and_files(Form::Dated, environment, &settings.data_dir.join("logs")),
        trust: settings.trust.clone().uninvited(),
        registries: settings.registries.clone(),
        guard: settings.guard.clone(),
        care: settings.care,
        ..NodeAgentConfig::new(
            server,
            settings.data_dir.join("data"),
            settings.docker_socket.clone(),
        )
    };
    Ok(Agent {
        node,
        listen: settings.listen,
        services: None,
        names_signal: true,
        log: settings.log.clone(),
    })
}

/// Ends the agent that runs here, and has the last word. Whatever fails on the way is told, and the end is good all
/// the same: whoever shuts down must not be held up by it.
fn shut_down(
    root: &Path,
    named: Option<&Path>,
    environment: &Environment,
) -> Result<ExitStatus, Failure> {
    telemetry::install("warn", telemetry::Format::Text);
    let journal = stdout_and_files(Form::Dated, environment, &root.join("logs"));
    let failed = |problem: &str| {
        let text = format!("Error during shutdown: {problem}");
        journal.write(&Line::new(Level::Error, text));
    };
    single_thread()?.block_on(async {
        if let Err(problem) = end_running(&root.join("data")).await {
            failed(&problem);
        }
        let told = resolve(root, (None, named), environment).and_then(|(server, spot)| {
            let tls = AgentTrust::of_foreign(environment)?.towards(&server)?;
            Ok((server, tls, spot))
        });
        let said = match told {
            Ok((server, tls, spot)) => {
                let (server, dial) = ((server.as_str(), tls), Arc::new(TcpDial));
                let last_word = spot::shutdown(server, &spot, dial, Arc::clone(&journal));
                last_word.await.map_err(|error| error.to_string())
            }
            Err(failure) => Err(failure.sentence),
        };
        if let Err(problem) = said {
            failed(&problem);
        }
    });
    Ok(ExitStatus::Done)
}

/// Tells the agent that works on the data directory to end, and waits for it.
async fn end_running(data_dir: &Path) -> Result<(), String> {
    let Some(pid) = running_agent(data_dir) else {
        return Ok(());
    };
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.filter(|_| is_ours(pid));
    let process = process.ok_or_else(|| format!("process {pid} is no agent that can be ended"))?;
    rustix::process::kill_process(process, Signal::TERM)
        .map_err(|error| format!("cannot end process {pid}: {error}"))?;
    let ended = async {
        while running_agent(data_dir).is_some() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(ENDING, ended).await;
    waited.map_err(|_| format!("process {pid} does not end"))
}

/// A pid that was written down may be another process's in another namespace.
fn is_ours(pid: u32) -> bool {
    let program = |pid: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        // One that was replaced while it runs is still the same program.
        let name = link.file_name()?.to_string_lossy().into_owned();
        Some(name.trim_end_matches(" (deleted)").to_owned())
    };
    let own = program("self");
    own.is_some() && program(&pid.to_string()) == own
}

/// The server and all that the contract's files say.
fn resolve(
    root: &Path,
    (server, named): (Option<&str>, Option<&Path>),
    environment: &Environment,
) -> Result<(String, Spot), Failure> {
    let said = Said::load(root, named, environment)?;
    let server = server.or_else(|| said.get("SERVER_URL"));
    let server = server.unwrap_or(USUAL_SERVER).to_owned();
    let missing: Vec<String> = [
        "CLIENT_TOKEN",
        "LOGICAL_AGENT_ID",
        "INSTANCE_ID",
        "INSTANCE_TYPE",
        "AZ",
    ]
    .into_iter()
    .filter(|key| said.get(key).is_none())
    .map(|key| format!("{key} is required"))
    .collect();
    if !missing.is_empty() {
        let sentence = format!("the agent is not told who it is: {}", missing.join(", "));
        return Err(Failure::usage(
            sentence,
            "set them in config/agent.conf or as variables; docs/guide/agents-of-others.md lists all",
        ));
    }
    Ok((server, said.spot(root)?))
}

impl<'a> Said<'a> {
    fn load(
        root: &Path,
        named: Option<&Path>,
        environment: &'a Environment,
    ) -> Result<Self, Failure> {
        let usual = root.join("config").join("agent.conf");
        let path = named.unwrap_or(&usual);
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            // Variables may say it all.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                String::new()
            }
            Err(error) => {
                let sentence = format!("cannot read {}: {error}", path.display());
                return Err(Failure::usage(
                    sentence,
                    "name a readable file with -config",
                ));
            }
        };
        let file = parse(&text).map_err(|line| {
            let sentence = format!("{}:{line}: this line is no KEY=VALUE", path.display());
            Failure::usage(sentence, "correct the line, or put a # before it")
        })?;
        Ok(Self { file, environment })
    }

    fn get(&self, key: &str) -> Option<&str> {
        let in_file = || self.file.get(key).map(String::as_str);
        let value = self.environment.get(key).or_else(in_file);
        value.filter(|value| !value.is_empty())
    }

    fn text(&self, key: &str) -> String {
        self.get(key).unwrap_or_default().to_owned()
    }

    fn spot(&self, root: &Path) -> Result<Spot, Failure> {
        let az = self.text("AZ");
        // A zone is its region and one letter.
        let region = self.get("REGION").map(str::to_owned);
        let region = region.unwrap_or_else(|| az.trim_end_matches(char::is_alphabetic).to_owned());
        let mode = self.get("CURRENT_MODE").unwrap_or("unknown").to_owned();
        let replica = self.get("REPLICA_ID").map(|id| Replica {
            id: id.to_owned(),
            source: Arc::new(NoTransfer),
        });
        let prices = self.get("PRICES_FILE");
        let prices = prices.map(|path| Arc::new(FilePrices(path.into())) as Arc<dyn Prices>);
        let every = |key: &str, usual| seconds(key, self.get(key), usual);
        Ok(Spot {
            client_token: self.text("CLIENT_TOKEN"),
            logical_agent_id: self.text("LOGICAL_AGENT_ID"),
            instance: Instance {
                id: self.text("INSTANCE_ID"),
                kind: self.text("INSTANCE_TYPE"),
                region,
                az,
                ami_id: self.text("AMI_ID"),
                mode,
                hostname: None,
                private_ip: self.get("PRIVATE_IP").map(str::to_owned),
                public_ip: self.get("PUBLIC_IP").map(str::to_owned),
            },
            agent_version: self.get("AGENT_VERSION").unwrap_or("2.0.0").to_owned(),
            root: root.to_owned(),
            timers: Timers {
                heartbeat: every("HEARTBEAT_INTERVAL", 30)?,
                commands: every("COMMANDS_INTERVAL", 15)?,
                config: every("CONFIG_INTERVAL", 60)?,
                pricing: every("PRICING_INTERVAL", 300)?,
            },
            prices,
            replica,
        })
    }
}

/// `KEY=VALUE` lines as systemd reads them: comments, empty lines, values in quotes. Answers the number of a line
/// that is none.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, String>, usize> {
    let mut keys = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or(number + 1)?;
        let value = value.trim();
        let bare = ['"', '\'']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        keys.insert(key.trim().to_owned(), bare.unwrap_or(value).to_owned());
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const CONF: &str = "SERVER_URL=http://server:5000\nCLIENT_TOKEN=token-1\nLOGICAL_AGENT_ID=agent-host-1\n\
        INSTANCE_ID=i-1\nINSTANCE_TYPE=t3.medium\nREGION=ap-south-1\nAZ=ap-south-1a\nAMI_ID=ami-1\n\
        CURRENT_MODE=spot\nAGENT_VERSION=2.0.0\n";

    fn resolved(conf: &str, variables: &[(&str, &str)]) -> Result<(String, Spot), Failure> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("config")).unwrap();
        std::fs::write(root.path().join("config/agent.conf"), conf).unwrap();
        resolve(root.path(), (None, None), &Environment::of(variables))
    }

    #[test]
    fn the_ten_keys_of_the_file_are_read() {
        let (server, spot) = resolved(CONF, &[]).unwrap();
        assert_eq!(server, "http://server:5000");
        assert_eq!(
            (spot.client_token.as_str(), spot.agent_version.as_str()),
            ("token-1", "2.0.0")
        );
        let instance = &spot.instance;
        assert_eq!(
            (instance.id.as_str(), instance.kind.as_str()),
            ("i-1", "t3.medium")
        );
        assert_eq!(
            (instance.region.as_str(), instance.az.as_str()),
            ("ap-south-1", "ap-south-1a")
        );
        assert_eq!(
            (instance.ami_id.as_str(), instance.mode.as_str()),
            ("ami-1", "spot")
        );
        assert_eq!(spot.timers, Timers::default());
        assert!(spot.prices.is_none() && spot.replica.is_none());
        assert!(
            !format!("{spot:?}").contains("token-1"),
            "the token is a secret"
        );
    }

    #[test]
    fn variables_count_more_and_what_is_left_out_has_a_default() {
        let variables = [
            ("CLIENT_TOKEN", "other"),
            ("HEARTBEAT_INTERVAL", "5"),
            ("PRICES_FILE", "/prices.json"),
            ("REPLICA_ID", "r1"),
        ];
        let conf = "CLIENT_TOKEN=token-1\nLOGICAL_AGENT_ID=a\nINSTANCE_ID=i\nINSTANCE_TYPE=t\nAZ=us-east-1b\n";
        let (server, spot) = resolved(conf, &variables).unwrap();
        assert_eq!(server, "http://localhost:5000");
        assert_eq!(spot.client_token, "other");
        assert_eq!(
            (spot.instance.region.as_str(), spot.instance.mode.as_str()),
            ("us-east-1", "unknown")
        );
        assert_eq!(spot.timers.heartbeat, Duration::from_secs(5));
        assert!(spot.prices.is_some() && spot.replica.is_some());
        let refused = resolved(CONF, &[("CONFIG_INTERVAL", "often")]).unwrap_err();
        assert!(
            refused.sentence.contains("CONFIG_INTERVAL is `often`"),
            "{}",
            refused.sentence
        );
    }

    #[test]
    fn what_is_missing_is_named_all_at_once() {
        let refused = resolved("INSTANCE_ID=\n", &[("AZ", "a")]).unwrap_err();
        assert_eq!(refused.status, ExitStatus::Usage);
        for key in [
            "CLIENT_TOKEN",
            "LOGICAL_AGENT_ID",
            "INSTANCE_ID",
            "INSTANCE_TYPE",
        ] {
            assert!(
                refused.sentence.contains(&format!("{key} is required")),
                "{}",
                refused.sentence
            );
        }
        assert!(!refused.sentence.contains("AZ is"), "{}", refused.sentence);
    }

    #[test]
    fn lines_are_read_as_systemd_reads_them() {
        let keys = parse("# comment\n\n A = b=c \nQ=\"x y\"\nS='z'\n;also\n").unwrap();
        let keys: Vec<(&str, &str)> = keys
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(keys, [("A", "b=c"), ("Q", "x y"), ("S", "z")]);
        assert_eq!(parse("A=1\nnonsense\n"), Err(2));
    }

    /// Lines near to what stands in such a file.
    fn line() -> impl Strategy<Value = String> {
        let key = prop_oneof![
            Just("CLIENT_TOKEN"),
            Just("LOGICAL_AGENT_ID"),
            Just("INSTANCE_ID"),
            Just("INSTANCE_TYPE"),
            Just("AZ"),
            Just("REGION"),
            Just("SERVER_URL"),
            Just("HEARTBEAT_INTERVAL"),
            Just("REPLICA_ID"),
        ];
        let value = prop_oneof!["\\PC{0,20}", "[\"'=#; a\u{e9}]{0,8}", "[0-9]{0,25}"];
        let pair = (key, value).prop_map(|(key, value)| format!("{key}={value}"));
        prop_oneof![4 => pair, 1 => ".{0,30}", 1 => "[;#].{0,10}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_in_the_file_is_read_or_refused_in_words(lines in vec(line(), 0..14)) {
            let conf = lines.join("\n");
            match parse(&conf) {
                Ok(keys) => prop_assert!(keys.len() <= conf.lines().count()),
                Err(number) => {
                    let line = conf.lines().nth(number - 1).unwrap();
                    prop_assert!(!line.contains('=') && !line.trim().is_empty(), "{line}");
                }
            }
            match resolved(&conf, &[]) {
                Ok((_, spot)) => {
                    let instance = &spot.instance;
                    let needed = [&spot.client_token, &spot.logical_agent_id, &instance.id, &instance.kind];
                    prop_assert!(needed.into_iter().all(|text| !text.is_empty()));
                }
                Err(failure) => prop_assert!(
                    !failure.sentence.is_empty() && !failure.sentence.contains('\n')
                ),
            }
        }
    }
}
