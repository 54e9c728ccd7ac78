//! Why copies do not run as wanted: the core's findings, and what nodes say of the copies they have, with a
//! code and a sentence each.

use std::collections::BTreeMap;

use hostler_control::Control;
use hostler_control::fleet::{Finding, NodeFinding, State, Why};
use hostler_model::{Assignment, Workload};
use hostler_wire::api;
use hostler_wire::api::StateWord;

use super::assignment::state_of;
use super::count;

/// Reasons that are told apart; beyond it one for each code.
const MOST_REASONS: usize = 20;
/// Copies of a group that are named.
const NAMED_COPIES: usize = 5;
/// From so many starts on, what ends again is in a loop.
const LOOPS: u32 = 3;

/// The findings as the API shows them, with the copies that have a node and do not run.
pub(in crate::api) fn why(why: &Why, copies: Vec<api::CopyGroup>) -> api::Why {
    api::Why {
        workload: why.workload.to_string(),
        workload_name: why.name.clone(),
        pending: why.pending,
        summary: summary(why, &copies),
        findings: why.findings.iter().map(reason).collect(),
        copies,
        nodes: why.nodes.iter().map(group).collect(),
        omitted: count(why.omitted_nodes),
        fix: why.nearest.clone(),
    }
}

fn summary(why: &Why, idle: &[api::CopyGroup]) -> String {
    let copies = match why.pending {
        0 => "every copy has a node".to_owned(),
        1 => "1 copy has no node".to_owned(),
        many => format!("{many} copies have no node"),
    };
    let idle = match idle.iter().map(|group| group.count).sum::<u32>() {
        0 => None,
        1 => Some("1 copy has a node and does not run".to_owned()),
        many => Some(format!("{many} copies have a node and do not run")),
    };
    let findings = why.findings.iter().map(ToString::to_string);
    std::iter::once(copies)
        .chain(idle)
        .chain(findings)
        .collect::<Vec<_>>()
        .join("; ")
}

fn group(group: &NodeFinding) -> api::NodeGroup {
    api::NodeGroup {
        names: group.names.clone(),
        count: count(group.count),
        reasons: group.findings.iter().map(reason).collect(),
    }
}

fn reason(finding: &Finding) -> api::Reason {
    let json = serde_json::to_value(finding).unwrap_or_default();
    let code = json
        .get("reason")
        .and_then(|code| code.as_str())
        .unwrap_or_default();
    api::Reason {
        code: code.to_owned(),
        sentence: finding.to_string(),
    }
}

/// The wanted copies that have a node and do not run, by reason, the most first.
pub(in crate::api) fn ailing(
    control: &Control,
    state: &State,
    workload: &Workload,
) -> Vec<api::CopyGroup> {
    let mut groups: BTreeMap<(String, String), api::CopyGroup> = BTreeMap::new();
    let copies = state.assignments_of(workload.id);
    for copy in copies.filter(|copy| copy.is_wanted()) {
        let (now, runs) = state_of(control, state, copy);
        let Some(reason) = ailment(copy, &now, runs) else {
            continue;
        };
        let mut key = (reason.code.clone(), reason.sentence.clone());
        if groups.len() >= MOST_REASONS && !groups.contains_key(&key) {
            key.1.clear();
        }
        let remedy = remedy(&reason.code, &now, runs, &workload.name);
        let group = groups.entry(key).or_insert_with(|| api::CopyGroup {
            names: Vec::new(),
            count: 0,
            runs: 0,
            reason,
            remedy,
            log: Vec::new(),
        });
        if let (true, Some(first)) = (group.log.is_empty(), now.crash_loop) {
            group.log = first.log;
        }
        group.count += 1;
        group.runs = group.runs.max(runs);
        if group.names.len() < NAMED_COPIES {
            let node = state.node(copy.node).map_or("?", |node| node.name.as_str());
            group
                .names
                .push(format!("{}.{} on {node}", workload.name, copy.slot));
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

/// Why a copy does not run; nothing if it does, or has ended well.
fn ailment(copy: &Assignment, now: &api::AssignmentState, runs: u32) -> Option<api::Reason> {
    let exit = now.exit.as_deref().unwrap_or("unknown exit");
    if let Some(outcome) = &copy.outcome {
        let is_bad = !outcome.exit.is_success();
        return is_bad.then(|| told("ended-badly", format!("ended for good: {exit}")));
    }
    let detail = |otherwise: &str| {
        if now.detail.is_empty() {
            otherwise.to_owned()
        } else {
            now.detail.clone()
        }
    };
    if let Some(first) = &now.crash_loop {
        let sentence = format!(
            "ends early again and again, the first time with {}",
            first.exit
        );
        return Some(told("crash-loop", sentence));
    }
    match (now.word, now.health.as_deref()) {
        (StateWord::Running, Some("unhealthy")) => {
            return Some(told("unhealthy", format!("is unhealthy: {}", now.detail)));
        }
        (StateWord::Running, Some("starting")) => {
            return Some(told(
                "health-starting",
                "runs, and its health check has not passed yet",
            ));
        }
        _ => {}
    }
    match now.word {
        StateWord::Running | StateWord::Finished => None,
        StateWord::CrashLooping => Some(told("crash-loop", "ends early again and again")),
        StateWord::Waiting if runs >= LOOPS => Some(told(
            "crash-loop",
            format!("ends again and again, and waits to be started once more: {exit}"),
        )),
        StateWord::Waiting => Some(told(
            "ended",
            format!("ended, and waits to be started again: {exit}"),
        )),
        StateWord::Failed => Some(told(
            now.code.as_deref().unwrap_or("failed"),
            detail("could not be started"),
        )),
        StateWord::Assigned => Some(told("assigned", "its node has not begun with it yet")),
        StateWord::Preparing => Some(told("preparing", detail("is being prepared"))),
        StateWord::Starting => Some(told("starting", "is being started")),
        StateWord::Stopping => Some(told("stopping", "is being stopped")),
        StateWord::Gone => Some(told("gone", "its node does not have it any more")),
        StateWord::Unknown => Some(told("unknown", detail("its node is silent"))),
    }
}

/// What would help against an ailment.
fn remedy(code: &str, now: &api::AssignmentState, runs: u32, workload: &str) -> Option<String> {
    let remedy = match code {
        "crash-loop" | "ended" | "ended-badly" if now.exit.as_deref() == Some("out of memory") => {
            "raise `resources.memory` of its spec".to_owned()
        }
        // The latest run may have begun meanwhile, and the one before has surely ended.
        "crash-loop" | "ended" if runs > 1 => {
            format!("`hostler logs --previous {workload}` shows what it wrote before it ended")
        }
        "ended" | "ended-badly" => {
            format!("`hostler logs {workload}` shows what it wrote before it ended")
        }
        "unhealthy" => {
            "check what its health check asks for; `hostler logs` shows what the copy wrote"
                .to_owned()
        }
        "unknown" => "`hostler node ls` shows how its node stands".to_owned(),
        _ => return now.remedy.clone(),
    };
    Some(remedy)
}

fn told(code: &str, sentence: impl Into<String>) -> api::Reason {
    api::Reason {
        code: code.to_owned(),
        sentence: sentence.into(),
    }
}
