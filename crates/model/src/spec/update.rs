//! The `update` section: how a new form of the copies takes the place of the old one.

use serde::{Deserialize, Serialize};

use super::{DisconnectPolicy, WorkloadSpec};

/// How a rollout goes, for a change of the spec as for a restart of every copy. It is no part of what a copy
/// runs: changing it replaces none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// Most copies that are down at a time because of the rollout.
    pub max_parallel: u32,
    /// Milliseconds that a new copy must have run without a break to count as healthy.
    pub min_healthy_ms: u64,
    /// Milliseconds without progress after which the rollout has failed.
    pub healthy_deadline_ms: u64,
    /// So many new copies run beside the old ones first; nothing else changes until they are promoted.
    pub canary: u32,
    /// Promote the canaries once all of them are healthy, without a person.
    pub auto_promote: bool,
    /// Go back to the revision before the rollout if it fails.
    pub auto_revert: bool,
    pub order: UpdateOrder,
}

/// Whether old or new comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// A copy stops, then its new form starts in its place.
    #[default]
    StopFirst,
    /// New copies run beside the old ones before any of those stops, so that there are never fewer than
    /// `count`. They need room of their own.
    StartFirst,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            max_parallel: 1,
            min_healthy_ms: 1_000,
            healthy_deadline_ms: 300_000,
            canary: 0,
            auto_promote: false,
            auto_revert: false,
            order: UpdateOrder::default(),
        }
    }
}

impl Update {
    /// Whether the section says nothing of its own.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self, spec: &WorkloadSpec, findings: &mut Vec<String>) {
        if self.max_parallel == 0 {
            findings.push("update.max_parallel: with 0 no copy would ever be replaced".to_owned());
        }
        if self.healthy_deadline_ms <= self.min_healthy_ms {
            findings.push(format!(
                "update.healthy_deadline_ms: {} is not longer than min_healthy_ms, {}; every rollout would fail",
                self.healthy_deadline_ms, self.min_healthy_ms
            ));
        }
        // A workload may be scaled down to nothing for a while.
        if self.canary > spec.count && spec.count > 0 {
            findings.push(format!(
                "update.canary: {} are more than the {} copies that there are to be",
                self.canary, spec.count
            ));
        }
        if self.auto_promote && self.canary == 0 {
            findings.push("update.auto_promote: there is no canary to promote".to_owned());
        }
        if spec.disconnect.policy == DisconnectPolicy::Singleton {
            if self.canary > 0 {
                findings
                    .push("update.canary: nothing may run beside a copy of a singleton".to_owned());
            }
            if self.order == UpdateOrder::StartFirst {
                findings.push(
                    "update.order: a singleton must have stopped before its new form starts"
                        .to_owned(),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse_one;

    fn parsed(rest: &str) -> Result<WorkloadSpec, crate::Refusal> {
        parse_one(&format!(
            "name: x\ncount: 2\nprocess: {{command: [a]}}\n{rest}\n"
        ))
    }

    #[test]
    fn what_makes_no_sense_is_found() {
        for (text, finding) in [
            ("update: {max_parallel: 0}", "max_parallel"),
            ("update: {min_healthy_ms: 300000}", "healthy_deadline_ms"),
            ("update: {canary: 3}", "more than the 2 copies"),
            ("update: {auto_promote: true}", "no canary"),
            (
                "update: {canary: 1}\ndisconnect: {policy: singleton}",
                "beside a copy of a singleton",
            ),
            (
                "update: {order: start-first}\ndisconnect: {policy: singleton}",
                "must have stopped",
            ),
            ("update: {parallel: 1}", "there is no key `parallel`"),
        ] {
            let refused = parsed(text).unwrap_err();
            assert!(refused.sentence.contains(finding), "{text}: {refused}");
        }
    }

    #[test]
    fn how_copies_are_replaced_is_no_part_of_what_they_run() {
        let plain = parsed("").unwrap();
        let text = "update: {max_parallel: 2, canary: 1, auto_promote: true, auto_revert: true, order: start-first}";
        let paced = parsed(text).unwrap();
        assert!(plain.same_template(&paced));
        assert_eq!(
            paced.update.min_healthy_ms, 1_000,
            "what is left out has its default"
        );
        let json = serde_json::to_string(&paced).unwrap();
        assert_eq!(parse_one(&json).unwrap(), paced);
        let json = serde_json::to_string(&plain).unwrap();
        assert!(!json.contains("update"), "an older agent reads it: {json}");
    }
}
