//! `doctor`: looks this machine and the fleet over and says what is wrong, what is worth knowing, and what to do about
//! each.
//!
//! `machine`, `ports`, `engines` and `directory` look at this machine, `clocks` at every clock; the fleet is looked at
//! here. Each finding is a [`Finding`]; what cannot be found out is none.

mod clocks;
mod directory;
mod doors;
mod engines;
mod finding;
mod machine;
mod ports;

use hostler_model::Timestamp;
use hostler_wire::api::{
    Door, Health, Node, NodeFilter, NodeState, Ready, Version, Workload, WorkloadStatus,
};
use hostler_wire::client::ClientError;

use self::finding::{Finding, Gravity};
use super::{Remote, skew, word};
use crate::args::{DoctorArgs, OutputForm};
use crate::failure::Failure;
use crate::printer::Paint;
use crate::settings::{self, DoctorSettings, Environment};
use crate::status::ExitStatus;

const OURS: &str = env!("CARGO_PKG_VERSION");

/// Everything that is looked at.
struct Look {
    addr: String,
    health: Health,
    /// Our clock before and after the server told its health.
    asked_between: (Timestamp, Timestamp),
    version: Version,
    /// Nobody is asked for a login.
    is_open: bool,
    ready: Ready,
    audit_lost: u64,
    doors: Vec<Door>,
    nodes: Vec<Node>,
    workloads: Vec<Workload>,
}

pub(crate) async fn doctor(
    remote: &Remote<'_>,
    args: DoctorArgs,
    environment: &Environment,
) -> Result<ExitStatus, Failure> {
    let here = DoctorSettings::resolve(&args, environment)?;
    let mut findings = examine_here(remote, &here, environment).await;
    let look = match args.here {
        true => None,
        false => match look(remote).await {
            Ok(look) => Some(look),
            Err(error) => {
                findings.push(unanswered(remote, &error.into()));
                None
            }
        },
    };
    findings.extend(look.iter().flat_map(examine));
    findings.sort_by_key(|finding| finding.gravity);
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &findings)?,
        OutputForm::Name => findings
            .iter()
            .for_each(|it| remote.printer.data(&it.about)),
        OutputForm::Table | OutputForm::Wide => tell(remote, look.as_ref(), &findings),
    }
    let is_ill = findings.iter().any(|it| it.gravity == Gravity::Problem);
    Ok(match is_ill {
        true if look.is_none() && !args.here => ExitStatus::Unreachable,
        true => ExitStatus::Failed,
        false => ExitStatus::Done,
    })
}

async fn examine_here(
    remote: &Remote<'_>,
    here: &DoctorSettings,
    environment: &Environment,
) -> Vec<Finding> {
    let now = i64::try_from(remote.now().as_millis() / 1_000).unwrap_or(i64::MAX);
    let mut findings = machine::examine(&here.data_dirs, environment.is_root).await;
    for data_dir in &here.data_dirs {
        findings.extend(directory::examine(data_dir, now));
    }
    findings.extend(directory::examine_foreign(&here.persys_files, now));
    findings.extend(here.listen.and_then(ports::examine));
    findings.extend(engines::examine(&here.docker_socket, environment).await);
    findings.extend(
        here.troubles.iter().map(|trouble| {
            finding::here(Gravity::Problem, trouble.sentence.clone(), &trouble.advice)
        }),
    );
    findings
}

async fn look(remote: &Remote<'_>) -> Result<Look, ClientError> {
    let client = &remote.client;
    let asked = remote.now();
    let health = client.health().await?;
    let told = remote.now();
    Ok(Look {
        addr: remote.addr.clone(),
        health,
        asked_between: (asked, told),
        version: client.version().await?,
        // One that does not know the question, or us, is not called open.
        is_open: client.whoami().await.is_ok_and(|who| who.role.is_none()),
        ready: client.ready().await?,
        // One of an older version has none.
        audit_lost: client.audit_lost().await.unwrap_or_default(),
        // An older server opens none.
        doors: client.doors().await.unwrap_or_default(),
        nodes: client.nodes(NodeFilter { gone: Some(false) }).await?,
        workloads: client.workloads().await?,
    })
}

fn unanswered(remote: &Remote<'_>, failure: &Failure) -> Finding {
    Finding {
        gravity: Gravity::Problem,
        about: format!("server {}", remote.addr),
        sentence: failure.sentence.clone(),
        advice: failure.advice.clone(),
    }
}

fn tell(remote: &Remote<'_>, look: Option<&Look>, findings: &[Finding]) {
    let printer = remote.printer;
    for finding in findings {
        let paint = match finding.gravity {
            Gravity::Problem => Paint::Bad,
            Gravity::Warning => Paint::Busy,
            Gravity::Note => Paint::Plain,
        };
        let gravity = printer.paint(paint, &word(&finding.gravity));
        printer.data(&format!(
            "{gravity}: {}: {}",
            finding.about, finding.sentence
        ));
        if !finding.advice.is_empty() {
            printer.data(&format!("  {}", finding.advice));
        }
    }
    let found = |gravity| findings.iter().filter(|it| it.gravity == gravity).count();
    let fleet = look.map_or_else(String::new, |look| {
        let (nodes, workloads) = (look.nodes.len(), look.workloads.len());
        let (nodes, workloads) = (count(nodes, "node"), count(workloads, "workload"));
        format!(", the server, {nodes} and {workloads}")
    });
    printer.data(&format!(
        "looked at this machine{fleet}: {}, {}",
        count(found(Gravity::Problem), "problem"),
        count(found(Gravity::Warning), "warning"),
    ));
}

fn count(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

/// What is wrong and worth knowing, the gravest first.
fn examine(look: &Look) -> Vec<Finding> {
    let mut findings = server(look);
    findings.extend(
        look.doors
            .iter()
            .flat_map(|it| doors::examine(&look.addr, it)),
    );
    findings.extend(clocks::ours(&look.health, look.asked_between));
    findings.extend(look.nodes.iter().filter_map(clocks::of_node));
    findings.extend(look.nodes.iter().filter_map(|node| skewed(node, look)));
    findings.extend(look.nodes.iter().flat_map(node));
    findings.extend(look.workloads.iter().filter_map(workload));
    findings.sort_by_key(|finding| finding.gravity);
    findings
}

fn server(look: &Look) -> Vec<Finding> {
    let about = || format!("server {}", look.addr);
    let failed = look.ready.checks.iter().filter(|check| !check.ok);
    let mut findings: Vec<_> = failed
        .map(|check| Finding {
            gravity: Gravity::Problem,
            about: about(),
            sentence: format!("its {} is not well: {}", check.name, check.detail),
            advice: "look at the server's log and at its disk".to_owned(),
        })
        .collect();
    if look.version.version != OURS {
        findings.push(Finding {
            gravity: Gravity::Warning,
            about: about(),
            sentence: format!(
                "it is version {}, this program {OURS}",
                look.version.version
            ),
            advice: "use programs of one version where you can".to_owned(),
        });
    }
    if look.audit_lost > 0 {
        findings.push(Finding {
            gravity: Gravity::Problem,
            about: about(),
            sentence: format!(
                "{} lines of the audit are lost since it began",
                look.audit_lost
            ),
            advice: "see to the disk of its data directory; its log says when it began".to_owned(),
        });
    }
    if look.nodes.is_empty() {
        findings.push(Finding {
            gravity: Gravity::Problem,
            about: about(),
            sentence: "the fleet has no node, so nothing can run".to_owned(),
            advice: format!("run `hostler agent --server {}` on a machine", look.addr),
        });
    }
    if look.is_open {
        let sentence = "it asks nobody for a login: whoever reaches it can do everything, \
             also through the routes of MIaaS, Orchion, Persys and the spot manager";
        let advice =
            "keep it on loopback or in a network of your own; SECURITY.md lists what is open";
        findings.push(Finding {
            gravity: Gravity::Note,
            about: about(),
            sentence: sentence.to_owned(),
            advice: advice.to_owned(),
        });
    }
    findings
}

fn node(node: &Node) -> Vec<Finding> {
    let finding = |gravity, sentence: String, advice: &str| Finding {
        gravity,
        about: format!("node {}", node.name),
        sentence,
        advice: advice.to_owned(),
    };
    let mut findings = Vec::new();
    match node.state {
        NodeState::Lost => findings.push(finding(
            Gravity::Problem,
            "it has not been heard for longer than its lease".to_owned(),
            "look at its agent and the network; `hostler node rm` gives it up",
        )),
        NodeState::Suspect => findings.push(finding(
            Gravity::Warning,
            "its connection broke or its beats are late".to_owned(),
            "wait a moment; if it stays so, look at its agent and the network",
        )),
        NodeState::Drained => findings.push(finding(
            Gravity::Note,
            "it is drained and takes no copies".to_owned(),
            "`hostler node undrain` lets them come again",
        )),
        _ => {}
    }
    if let Some(reason) = &node.held_back {
        findings.push(finding(
            Gravity::Problem,
            format!("it holds its orders back: {reason}"),
            "if that is right, `hostler node accept` lets them go",
        ));
    }
    if !node.pressure.is_empty() {
        findings.push(finding(
            Gravity::Warning,
            format!(
                "it is short of {}: nothing new is placed there",
                node.pressure.join(", ")
            ),
            "`hostler node gc --dry-run` says what could be deleted there",
        ));
    }
    findings.extend(rare_beats(node));
    let unwell = node
        .facts
        .runtimes
        .iter()
        .filter(|runtime| !runtime.available);
    findings.extend(unwell.map(|runtime| {
        let sentence = format!("it cannot run {}: {}", runtime.kind, runtime.note);
        finding(Gravity::Note, sentence, "")
    }));
    findings
}

/// Versions next to each other work together; the further apart, the less is promised.
fn skewed(node: &Node, look: &Look) -> Option<Finding> {
    let server = look.version.version.as_str();
    let skew = skew::of(node, Some(server))?;
    let advice = match skew {
        "older" => "upgrade the agent: what it runs goes on meanwhile",
        _ => "upgrade the server: it is upgraded before its agents",
    };
    Some(Finding {
        gravity: Gravity::Warning,
        about: format!("node {}", node.name),
        sentence: format!(
            "its agent {} is {skew} than the server {server}",
            node.facts.agent_version
        ),
        advice: advice.to_owned(),
    })
}

/// The agent chooses its interval, and chose it too long for the lease.
fn rare_beats(node: &Node) -> Option<Finding> {
    let lease = node.lease?;
    let advised = lease.advised_ms?;
    let (spacing, window) = (lease.spacing_ms.unwrap_or_default(), lease.window_ms);
    Some(Finding {
        gravity: Gravity::Warning,
        about: format!("node {}", node.name),
        sentence: format!(
            "it beats every {spacing} ms only, and is lost after {window} ms of silence"
        ),
        advice: format!("set its agent's interval to {advised} ms or less"),
    })
}

fn workload(workload: &Workload) -> Option<Finding> {
    let gravity = match workload.status {
        WorkloadStatus::Failed | WorkloadStatus::Degraded => Gravity::Problem,
        WorkloadStatus::Pending => Gravity::Warning,
        _ => return None,
    };
    let (status, running) = (word(&workload.status), workload.running);
    Some(Finding {
        gravity,
        about: format!("workload {}", workload.name),
        sentence: format!("it is {status}: {running} of {} copies run", workload.count),
        advice: format!("`hostler why {}` says why", workload.name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(nodes: serde_json::Value, workloads: serde_json::Value) -> Look {
        Look {
            addr: "http://127.0.0.1:8080".to_owned(),
            health: serde_json::from_value(json!({"status": "healthy"})).unwrap(),
            asked_between: (Timestamp::from_millis(0), Timestamp::from_millis(0)),
            version: Version {
                version: OURS.to_owned(),
                api: "v1".to_owned(),
                session: hostler_wire::api::SessionVersions {
                    lowest: 1,
                    highest: 1,
                },
            },
            is_open: true,
            ready: serde_json::from_value(json!({"ready": true, "checks": []})).unwrap(),
            audit_lost: 0,
            doors: Vec::new(),
            nodes: serde_json::from_value(nodes).unwrap(),
            workloads: serde_json::from_value(workloads).unwrap(),
        }
    }

    fn box_with(more: serde_json::Value) -> serde_json::Value {
        let mut node = json!({
            "id": "1", "name": "box", "capabilities": {}, "last_seen": 0, "status": "online",
            "state": "ready", "joined_at": ""
        });
        for (key, value) in more.as_object().unwrap() {
            node[key] = value.clone();
        }
        node
    }

    fn told(look: &Look) -> Vec<(Gravity, String)> {
        let findings = examine(look).into_iter();
        findings
            .map(|it| (it.gravity, format!("{}: {}", it.about, it.sentence)))
            .collect()
    }

    #[test]
    fn a_healthy_fleet_has_notes_only() {
        let look = look(json!([box_with(json!({}))]), json!([]));
        assert!(
            told(&look)
                .iter()
                .all(|(gravity, _)| *gravity == Gravity::Note)
        );
    }

    #[test]
    fn only_a_server_without_a_login_is_called_open() {
        let mut look = look(json!([box_with(json!({}))]), json!([]));
        let is_told = |look: &Look| told(look).iter().any(|it| it.1.contains("login"));
        assert!(is_told(&look));
        look.is_open = false;
        assert!(!is_told(&look));
    }

    #[test]
    fn the_gravest_comes_first_with_what_to_do() {
        let nodes = json!([
            box_with(json!({"state": "suspect"})),
            box_with(json!({"state": "lost", "name": "far"})),
            box_with(json!({"held_back": "it would stop too much", "name": "shy"})),
            box_with(json!({"pressure": ["disk"], "name": "full"})),
            box_with(json!({
                "name": "slow",
                "lease": {"age_ms": 1, "window_ms": 30000, "spacing_ms": 20000, "advised_ms": 10000}
            })),
            box_with(json!({"facts": {"runtimes": [{"kind": "container", "note": "no engine"}]}})),
        ]);
        let workloads = json!([{
            "id": "2", "name": "web", "kind": "process", "desired": "running", "status": "degraded",
            "revision": 1, "count": 2, "running": 1, "spec": {}, "created_at": "", "updated_at": ""
        }]);
        let look = look(nodes, workloads);
        let told = told(&look);
        let problems: Vec<_> = told.iter().filter(|it| it.0 == Gravity::Problem).collect();
        assert_eq!(problems.len(), 3, "{told:?}");
        assert!(told[0].1.starts_with("node far: it has not been heard"));
        assert!(
            told.iter()
                .any(|it| it.1 == "workload web: it is degraded: 1 of 2 copies run")
        );
        assert!(
            told.iter()
                .any(|it| it.1 == "node box: it cannot run container: no engine")
        );
        let slow = "node slow: it beats every 20000 ms only, and is lost after 30000 ms of silence";
        assert!(told.contains(&(Gravity::Warning, slow.to_owned())));
        assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    #[test]
    fn an_agent_of_another_version_is_a_warning_with_what_to_upgrade() {
        let of = |version: &str| {
            box_with(json!({"contract": "session", "facts": {"agent_version": version}}))
        };
        let look = look(json!([of("0.0.1"), of("99.0.0"), of(OURS)]), json!([]));
        let findings = examine(&look);
        let skewed: Vec<_> = findings
            .iter()
            .filter(|it| it.sentence.contains("its agent"))
            .collect();
        assert_eq!(skewed.len(), 2, "{findings:?}");
        assert!(skewed[0].advice.contains("upgrade the agent"));
        assert!(skewed[1].advice.contains("upgrade the server"));
    }

    #[test]
    fn an_empty_fleet_and_an_unwell_server_are_problems() {
        let mut look = look(json!([]), json!([]));
        look.ready = serde_json::from_value(json!({
            "ready": false, "checks": [{"name": "store", "ok": false, "detail": "it is full"}]
        }))
        .unwrap();
        look.version.version = "9.9.9".to_owned();
        look.audit_lost = 7;
        let told = told(&look);
        assert_eq!(told.iter().filter(|it| it.0 == Gravity::Problem).count(), 3);
        assert!(told.iter().any(|it| it.1.contains("7 lines of the audit")));
        assert!(told.iter().any(|it| it.0 == Gravity::Warning));
    }
}
