//! The spot agent's own way onto a machine and off it, as its contract has it: its directories, the ten keys, the
//! registration before the start, and the words that people look for.
//!
//! Who the agent is stays over every further installation (`LOGICAL_AGENT_ID` in `agent.conf`), and is new after it was
//! uninstalled. What the machine is, is asked anew each time: variables count more than the metadata service, and that
//! more than what `agent.conf` says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hostler_agent::spot::{Instance, Spot, Timers, USUAL_METADATA, describe_self, register};
use hostler_agent::{Journal, Level, Line, TcpDial, spot};
use hostler_kit::{Clock as _, SystemClock};

use super::config::refuse_strangers;
use super::parts::SPOT_ROOT;
use super::place::{Place, Put};
use super::{ITSELF, Site};
use crate::args::{InstallArgs, Part};
use crate::failure::Failure;
use crate::personality::spot_keys;
use crate::settings::AgentTrust;
use crate::status::ExitStatus;

const CONF: &str = "/opt/spot-agent/config/agent.conf";
const PROGRAM: &str = "/opt/spot-agent/bin/spot-agent";
const ID: &str = "/opt/spot-agent/agent_id.txt";
const TOKEN: &str = "/opt/spot-agent/client_token.txt";
const URL: &str = "/opt/spot-agent/server_url.txt";
const USUAL_SERVER: &str = "http://your-server:5000";
const VERSION: &str = "2.0.0";
const ENDING: Duration = Duration::from_secs(2);
const LOGS_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Who the agent is to be, and whose.
struct Wanted {
    server: String,
    spot: Spot,
}

pub(super) async fn install(site: &Site<'_>, args: &InstallArgs) -> Result<ExitStatus, Failure> {
    let (place, printer) = (&site.place, site.printer);
    refuse_strangers(args)?;
    printer.data("Installing Spot Agent...");
    let Wanted { server, spot } = wanted(site, args).await?;
    let tls = AgentTrust::of_foreign(site.environment)?.towards(&server)?;
    printer.data("Registering agent with server...");
    let id = match register((&server, tls), &spot, Arc::new(TcpDial)).await {
        Ok(id) => id,
        Err(answer) => {
            printer.data("Error: Failed to register agent");
            printer.data(&format!("Response: {answer}"));
            return Ok(ExitStatus::Failed);
        }
    };
    printer.data(&format!("✓ Agent registered with ID: {id}"));
    for dir in ["bin", "config", "logs", "data"] {
        place.make_dir(&format!("{SPOT_ROOT}/{dir}"), 0o755)?;
    }
    let mut is_changed = place.put_program(Path::new(ITSELF), PROGRAM)?;
    for file in files(&server, &spot, &id) {
        is_changed |= place.put(&file)?;
    }
    let part = Part::SpotAgent;
    let outcome = site.serve(part, &part.unit(PROGRAM), is_changed).await?;
    if !outcome.is_active {
        printer.data("✗ Agent failed to start. Check logs:");
        printer.data("journalctl -u spot-agent -n 50");
        return Ok(ExitStatus::Failed);
    }
    printer.data("✓ Agent installed and running successfully");
    printer.data(&format!("Agent ID: {id}"));
    printer.data(&format!("Logical Agent ID: {}", spot.logical_agent_id));
    Ok(ExitStatus::Done)
}

/// Says for the agent that it is offline, by the files that the installer left; whatever fails is only told.
pub(super) async fn say_offline(site: &Site<'_>) {
    let text = |path: &str| site.place.read(path).ok().flatten();
    let text = |path: &str| text(path).map(|text| text.trim().to_owned());
    let (Some(token), Some(server)) = (text(TOKEN), text(URL)) else {
        site.printer
            .talk("the server was not told: client_token.txt or server_url.txt is missing");
        return;
    };
    let spot = Spot {
        root: site.place.at(SPOT_ROOT),
        ..bare(token)
    };
    let tls = AgentTrust::of_foreign(site.environment).and_then(|trust| trust.towards(&server));
    let tls = match tls {
        Ok(tls) => tls,
        Err(failure) => {
            let sentence = failure.sentence;
            site.printer
                .talk(&format!("the server was not told: {sentence}"));
            return;
        }
    };
    let journal = Arc::new(Faults::default());
    let (server, dial) = ((server.as_str(), tls), Arc::new(TcpDial));
    let told = spot::shutdown(server, &spot, dial, journal.clone()).await;
    let faults = journal.told();
    let faults = faults
        .into_iter()
        .chain(told.err().map(|it| it.to_string()));
    for fault in faults {
        site.printer
            .talk(&format!("the server was not told: {fault}"));
    }
}

/// For what the server does once it has heard of it.
pub(super) async fn let_it_end() {
    tokio::time::sleep(ENDING).await;
}

/// Program, settings, old logs and lines of cron; its data and what it is known by stay.
pub(super) async fn remove(place: &Place) -> Result<(), Failure> {
    for dir in ["bin", "config"] {
        place.remove(&format!("{SPOT_ROOT}/{dir}"))?;
    }
    forget_old_logs(&place.at("/opt/spot-agent/logs"), &SystemClock::new());
    forget_cron(place).await;
    Ok(())
}

/// Files that were last written more than seven days ago.
fn forget_old_logs(dir: &Path, clock: &SystemClock) {
    let now = Duration::from_millis(clock.wall_millis());
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries {
        let Ok(about) = entry.metadata() else {
            continue;
        };
        let written = about.modified().ok();
        let written = written.and_then(|moment| moment.duration_since(UNIX_EPOCH).ok());
        let is_old = written.is_some_and(|written| now.saturating_sub(written) > LOGS_KEPT);
        if about.is_file() && is_old {
            // One that stays is only a log.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Lines of root's table that name the agent. A machine without cron has none.
async fn forget_cron(place: &Place) {
    let Ok(table) = place.output("crontab", &["-l"], None).await else {
        return;
    };
    let kept = without_agent(&table.stdout);
    if table.status.success() && kept.len() < table.stdout.len() {
        // Nothing depends on it: the program that the lines name is gone.
        let _ = place.output("crontab", &["-"], Some(&kept)).await;
    }
}

/// A table's other lines, byte for byte: they are somebody else's. `crontab` refuses a table whose last line has no break.
fn without_agent(table: &[u8]) -> Vec<u8> {
    let name = b"spot-agent";
    let lines = table.split_inclusive(|byte| *byte == b'\n');
    let kept = lines.filter(|line| !line.windows(name.len()).any(|it| it == name));
    let mut kept = kept.collect::<Vec<_>>().concat();
    if kept.last().is_some_and(|last| *last != b'\n') {
        kept.push(b'\n');
    }
    kept
}

async fn wanted(site: &Site<'_>, args: &InstallArgs) -> Result<Wanted, Failure> {
    let there = site.place.read(CONF)?.unwrap_or_default();
    let there = kept_keys(&there)?;
    let variable = |key: &str| site.environment.get(key).map(str::to_owned);
    let kept = |key: &str| there.get(key).cloned().filter(|text| !text.is_empty());
    let of_file = args.token_file.as_deref().map(fs::read_to_string);
    let of_file = of_file.transpose().map_err(|error| {
        Failure::usage(
            format!("cannot read the token file: {error}"),
            "name a readable file",
        )
    })?;
    let token = args
        .token
        .clone()
        .or(of_file)
        .or_else(|| variable("CLIENT_TOKEN"));
    let token = token.or_else(|| kept("CLIENT_TOKEN")).ok_or_else(|| {
        Failure::failed(
            "CLIENT_TOKEN environment variable required",
            "the server's administrator knows the client's token",
        )
    })?;
    let server = args.server.clone().or_else(|| variable("SERVER_URL"));
    let server = server.or_else(|| kept("SERVER_URL"));
    let instance = instance(site, &there).await?;
    let host = instance.hostname.clone().unwrap_or_default();
    let fresh = || format!("agent-{host}-{}", SystemClock::new().wall_millis() / 1000);
    let logical = variable("LOGICAL_AGENT_ID").or_else(|| kept("LOGICAL_AGENT_ID"));
    let wanted = Wanted {
        server: server.unwrap_or_else(|| USUAL_SERVER.to_owned()),
        spot: Spot {
            logical_agent_id: logical.unwrap_or_else(fresh),
            instance,
            ..bare(token.trim().to_owned())
        },
    };
    for (key, value) in keys(&wanted.server, &wanted.spot) {
        if !can_be_kept(&value) {
            let sentence = format!("{key} has a character that agent.conf cannot hold");
            return Err(Failure::failed(
                sentence,
                "write it without blanks and quotes",
            ));
        }
    }
    Ok(wanted)
}

/// What an earlier installation has written. Who the agent is stands there, so that nothing of it is passed over.
fn kept_keys(text: &str) -> Result<BTreeMap<String, String>, Failure> {
    spot_keys(text).map_err(|line| {
        let sentence = format!("{CONF}:{line}: this line is no KEY=VALUE");
        let advice = "correct the line, or remove the file: then the agent is another one";
        Failure::failed(sentence, advice)
    })
}

/// The machine, by variables, by the metadata service, by what an earlier installation found.
async fn instance(site: &Site<'_>, there: &BTreeMap<String, String>) -> Result<Instance, Failure> {
    let variable = |key: &str| site.environment.get(key).map(str::to_owned);
    let endpoint = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let endpoint = endpoint.as_deref().unwrap_or(USUAL_METADATA);
    let needed = ["INSTANCE_ID", "INSTANCE_TYPE", "AZ"];
    let is_told = needed.iter().all(|key| variable(key).is_some());
    let asked = match is_told {
        true => Ok(Instance::default()),
        false => describe_self(endpoint, Arc::new(TcpDial)).await,
    };
    let problem = asked.as_ref().err().cloned().unwrap_or_default();
    let asked = asked.unwrap_or_default();
    let text = |key: &str, asked: &str| {
        let asked = Some(asked.to_owned()).filter(|text| !text.is_empty());
        let kept = || there.get(key).cloned();
        variable(key).or(asked).or_else(kept).unwrap_or_default()
    };
    let az = text("AZ", &asked.az);
    let instance = Instance {
        id: text("INSTANCE_ID", &asked.id),
        kind: text("INSTANCE_TYPE", &asked.kind),
        region: variable("REGION")
            .unwrap_or_else(|| az.trim_end_matches(char::is_alphabetic).to_owned()),
        ami_id: text("AMI_ID", &asked.ami_id),
        mode: Some(text("CURRENT_MODE", &asked.mode))
            .filter(|mode| !mode.is_empty())
            .unwrap_or_else(|| "ondemand".to_owned()),
        hostname: Some(host_name()),
        private_ip: Some(text(
            "PRIVATE_IP",
            asked.private_ip.as_deref().unwrap_or_default(),
        )),
        public_ip: Some(text(
            "PUBLIC_IP",
            asked.public_ip.as_deref().unwrap_or_default(),
        )),
        az,
    };
    if instance.id.is_empty() || instance.kind.is_empty() || instance.az.is_empty() {
        return Err(Failure::failed(
            format!("it is not known which instance this is: {problem}"),
            format!("set the variables {}", needed.join(", ")),
        ));
    }
    Ok(instance)
}

fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// Whether everybody who reads `agent.conf` reads that value as it is.
fn can_be_kept(value: &str) -> bool {
    !value.contains(|c: char| c.is_control() || c.is_whitespace() || "\"'\\".contains(c))
}

/// The ten keys, in the contract's order.
fn keys(server: &str, spot: &Spot) -> [(&'static str, String); 10] {
    let instance = &spot.instance;
    [
        ("SERVER_URL", server.to_owned()),
        ("CLIENT_TOKEN", spot.client_token.clone()),
        ("LOGICAL_AGENT_ID", spot.logical_agent_id.clone()),
        ("INSTANCE_ID", instance.id.clone()),
        ("INSTANCE_TYPE", instance.kind.clone()),
        ("REGION", instance.region.clone()),
        ("AZ", instance.az.clone()),
        ("AMI_ID", instance.ami_id.clone()),
        ("CURRENT_MODE", instance.mode.clone()),
        ("AGENT_VERSION", spot.agent_version.clone()),
    ]
}

fn files(server: &str, spot: &Spot, id: &str) -> [Put; 4] {
    let lines = keys(server, spot).map(|(key, value)| format!("{key}={value}\n"));
    [
        Put::new(CONF, lines.concat(), 0o600),
        Put::new(TOKEN, format!("{}\n", spot.client_token), 0o600),
        Put::new(URL, format!("{server}\n"), 0o644),
        Put::new(ID, format!("{id}\n"), 0o644),
    ]
}

fn bare(client_token: String) -> Spot {
    Spot {
        client_token,
        logical_agent_id: String::new(),
        instance: Instance::default(),
        agent_version: VERSION.to_owned(),
        root: SPOT_ROOT.into(),
        timers: Timers::default(),
        prices: None,
        replica: None,
    }
}

/// Keeps what went wrong, for one who speaks later.
#[derive(Debug, Default)]
struct Faults(std::sync::Mutex<Vec<String>>);

impl Faults {
    fn told(&self) -> Vec<String> {
        let mut faults = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut faults)
    }
}

impl Journal for Faults {
    fn write(&self, line: &Line) {
        if line.level >= Level::Warn {
            let mut faults = self
                .0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            faults.push(line.text.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Lines of cron: some that name the agent, and whatever else is in such a table.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let named = (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20));
        let named =
            named.prop_map(|(before, behind)| [&before[..], b"spot-agent", &behind].concat());
        let near = Just(b"* * * * * /opt/spot_agent/bin/spot-agen t\r".to_vec());
        let line = prop_oneof![named, near, vec(any::<u8>(), 0..60)];
        line.prop_map(|bytes| bytes.into_iter().filter(|byte| *byte != b'\n').collect())
    }

    fn names(line: &[u8]) -> bool {
        String::from_utf8_lossy(line).contains("spot-agent")
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn of_a_table_of_cron_only_lines_that_name_the_agent_go(
            lines in vec(line(), 0..12),
            is_ended: bool,
        ) {
            let end = if is_ended && !lines.is_empty() { &b"\n"[..] } else { b"" };
            let table = [lines.join(&b'\n'), end.to_vec()].concat();
            let kept = without_agent(&table);
            let of = |table: &[u8]| -> Vec<Vec<u8>> {
                let lines = table.split_inclusive(|byte| *byte == b'\n');
                lines.map(|line| line.strip_suffix(b"\n").unwrap_or(line).to_vec()).collect()
            };
            let expected: Vec<_> = of(&table).into_iter().filter(|it| !names(it)).collect();
            prop_assert_eq!(of(&kept), expected);
            prop_assert!(kept.is_empty() || kept.ends_with(b"\n"));
        }

        #[test]
        fn what_the_installer_writes_is_what_the_agent_reads(
            values in vec("[^\\s\\p{Cc}\"'\\\\]{0,30}", 10),
        ) {
            let [server, token, logical, id, kind, region, az, ami_id, mode, version] = &values[..] else {
                unreachable!("ten are made");
            };
            let spot = Spot {
                logical_agent_id: logical.clone(),
                agent_version: version.clone(),
                instance: Instance {
                    id: id.clone(),
                    kind: kind.clone(),
                    region: region.clone(),
                    az: az.clone(),
                    ami_id: ami_id.clone(),
                    mode: mode.clone(),
                    ..Instance::default()
                },
                ..bare(token.clone())
            };
            prop_assert!(values.iter().all(|value| can_be_kept(value)));
            let [conf, ..] = files(server, &spot, "id");
            let read = kept_keys(&conf.text).map_err(|it| it.sentence);
            let expected = keys(server, &spot).map(|(key, value)| (key.to_owned(), value));
            prop_assert_eq!(read, Ok(BTreeMap::from(expected)));
        }
    }

    #[test]
    fn a_line_of_agent_conf_that_is_none_is_named_and_nobody_becomes_another_agent() {
        let refused = kept_keys("LOGICAL_AGENT_ID=a\n<<<<<<< mine\n").unwrap_err();
        assert!(
            refused.sentence.contains("agent.conf:2: "),
            "{}",
            refused.sentence
        );
        let read = kept_keys("LOGICAL_AGENT_ID=a\n# SERVER_URL\n").unwrap();
        assert_eq!(read["LOGICAL_AGENT_ID"], "a");
    }
}
