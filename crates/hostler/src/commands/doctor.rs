//! `doctor`: looks the fleet over and says what is wrong, what is worth knowing, and what to do about each.

use hostler_wire::api::{Node, NodeFilter, NodeState, Ready, Version, Workload, WorkloadStatus};
use serde::Serialize;

use super::{Remote, word};
use crate::args::{DoctorArgs, OutputForm};
use crate::failure::Failure;
use crate::printer::Paint;
use crate::settings;
use crate::status::ExitStatus;

const OURS: &str = env!("CARGO_PKG_VERSION");

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Gravity {
    /// Something does not work.
    Problem,
    /// Something may stop working.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    gravity: Gravity,
    /// What it is about: `server`, `node box-1`, `workload web`.
    about: String,
    sentence: String,
    /// What to do; empty if there is nothing to be done.
    advice: String,
}

/// Everything that is looked at.
struct Look {
    addr: String,
    version: Version,
    ready: Ready,
    nodes: Vec<Node>,
    workloads: Vec<Workload>,
}

pub(crate) async fn doctor(remote: &Remote<'_>, args: DoctorArgs) -> Result<ExitStatus, Failure> {
    let look = Look {
        addr: remote.addr.clone(),
        version: remote.client.version().await?,
        ready: remote.client.ready().await?,
        nodes: remote
            .client
            .nodes(NodeFilter { gone: Some(false) })
            .await?,
        workloads: remote.client.workloads().await?,
    };
    let findings = examine(&look);
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &findings)?,
        OutputForm::Name => findings
            .iter()
            .for_each(|it| remote.printer.data(&it.about)),
        OutputForm::Table | OutputForm::Wide => tell(remote, &look, &findings),
    }
    let is_ill = findings.iter().any(|it| it.gravity == Gravity::Problem);
    Ok(if is_ill {
        ExitStatus::Failed
    } else {
        ExitStatus::Done
    })
}

fn tell(remote: &Remote<'_>, look: &Look, findings: &[Finding]) {
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
    printer.data(&format!(
        "looked at the server, {} and {}: {}, {}",
        count(look.nodes.len(), "node"),
        count(look.workloads.len(), "workload"),
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
    if look.nodes.is_empty() {
        findings.push(Finding {
            gravity: Gravity::Problem,
            about: about(),
            sentence: "the fleet has no node, so nothing can run".to_owned(),
            advice: format!("run `hostler agent --server {}` on a machine", look.addr),
        });
    }
    findings.push(Finding {
        gravity: Gravity::Note,
        about: about(),
        sentence:
            "it asks nobody for a login: whoever reaches it can do everything, also through the \
                   routes of MIaaS, Orchion, Persys and the spot manager"
                .to_owned(),
        advice: "keep it on loopback or in a network of your own; SECURITY.md lists what is open"
            .to_owned(),
    });
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
            version: Version {
                version: OURS.to_owned(),
                api: "v1".to_owned(),
                session: hostler_wire::api::SessionVersions {
                    lowest: 1,
                    highest: 1,
                },
            },
            ready: serde_json::from_value(json!({"ready": true, "checks": []})).unwrap(),
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
    fn an_empty_fleet_and_an_unwell_server_are_problems() {
        let mut look = look(json!([]), json!([]));
        look.ready = serde_json::from_value(json!({
            "ready": false, "checks": [{"name": "store", "ok": false, "detail": "it is full"}]
        }))
        .unwrap();
        look.version.version = "9.9.9".to_owned();
        let told = told(&look);
        assert_eq!(told.iter().filter(|it| it.0 == Gravity::Problem).count(), 2);
        assert!(told.iter().any(|it| it.0 == Gravity::Warning));
    }
}
