//! Why copies are pending: the core's findings, with a code and a sentence each.

use hostler_control::fleet::{Finding, NodeFinding, Why};
use hostler_wire::api;

use super::count;

/// The findings as the API shows them.
pub(in crate::api) fn why(why: &Why) -> api::Why {
    api::Why {
        workload: why.workload.to_string(),
        workload_name: why.name.clone(),
        pending: why.pending,
        summary: summary(why),
        nodes: why.nodes.iter().map(group).collect(),
        omitted: count(why.omitted_nodes),
        fix: why.nearest.clone(),
    }
}

fn summary(why: &Why) -> String {
    let copies = match why.pending {
        0 => "every copy has a node".to_owned(),
        1 => "1 copy has no node".to_owned(),
        many => format!("{many} copies have no node"),
    };
    let findings = why.findings.iter().map(ToString::to_string);
    std::iter::once(copies)
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
