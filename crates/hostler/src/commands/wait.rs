//! Waiting for an effect: polls what the server says, shows how far it has come, and ends with a summary or
//! with every reason why it is not there yet.

use std::time::Duration;

use hostler_wire::api::{
    Assignment, Desired, Intent, NodeGroup, StateWord, Why, Workload, WorkloadStatus,
};
use hostler_wire::client::ClientError;

use super::{Remote, word};
use crate::age;
use crate::failure::Failure;
use crate::status::ExitStatus;

/// How often it looks while the effect may come at once, and how often later.
const SOON: Duration = Duration::from_millis(25);
const LATER: Duration = Duration::from_millis(250);
const LOOKS_SOON: u32 = 80;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Every wanted copy runs, or has ended well; of a generation after this one.
    Running {
        after: u64,
    },
    Stopped,
    Gone,
}

/// Whose effect is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) goal: Goal,
}

/// What one look says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    Reached(String),
    NotYet(String),
    /// It will not come by waiting.
    Never(String),
}

/// Waits until every target has reached its goal.
pub(crate) async fn wait(
    remote: &Remote<'_>,
    targets: &[Target],
    most: Duration,
) -> Result<(), Failure> {
    let mut last = Vec::new();
    let Ok(end) = tokio::time::timeout(most, all(remote, targets, &mut last)).await else {
        return Err(too_late(remote, targets, &last, most).await);
    };
    for summary in end? {
        remote.printer.talk(&summary);
    }
    Ok(())
}

async fn all(
    remote: &Remote<'_>,
    targets: &[Target],
    last: &mut Vec<Look>,
) -> Result<Vec<String>, Failure> {
    let mut progress = remote.printer.progress();
    last.clear();
    last.resize(targets.len(), Look::NotYet(String::new()));
    for looks in 0_u32.. {
        for (target, seen) in targets.iter().zip(last.iter_mut()) {
            if !matches!(seen, Look::Reached(_)) {
                *seen = look(remote, target).await?;
            }
        }
        if let Some(Look::Never(sentence)) = last.iter().find(|look| matches!(look, Look::Never(_)))
        {
            return Err(Failure::failed(
                sentence,
                "`hostler logs` and `hostler events` say more",
            ));
        }
        let open: Vec<&str> = last.iter().filter_map(Look::open).collect();
        if open.is_empty() {
            break;
        }
        progress.tell(&open.join("; "));
        tokio::time::sleep(if looks < LOOKS_SOON { SOON } else { LATER }).await;
    }
    Ok(last.iter().map(|look| look.text().to_owned()).collect())
}

async fn look(remote: &Remote<'_>, target: &Target) -> Result<Look, Failure> {
    let name = &target.name;
    match remote.client.workload(&target.id).await {
        Ok(workload) => Ok(judge(&workload, target.goal)),
        Err(ClientError::Refused(problem)) if problem.code == "workload-not-found" => {
            Ok(match target.goal {
                Goal::Gone => Look::Reached(format!("{name}: removed")),
                Goal::Running { .. } | Goal::Stopped => {
                    Look::Never(format!("{name} was removed meanwhile"))
                }
            })
        }
        Err(ClientError::Unreachable { .. }) => Ok(Look::NotYet(format!(
            "{name}: the server does not answer, trying again"
        ))),
        Err(error) => Err(error.into()),
    }
}

fn judge(workload: &Workload, goal: Goal) -> Look {
    match goal {
        Goal::Running { after } => judge_running(workload, after),
        Goal::Stopped if workload.status == WorkloadStatus::Stopped => {
            Look::Reached(format!("{}: stopped", workload.name))
        }
        Goal::Stopped | Goal::Gone => {
            let left = workload.copies.as_ref().map_or(0, Vec::len);
            Look::NotYet(format!("{}: {left} copies not gone yet", workload.name))
        }
    }
}

fn judge_running(workload: &Workload, after: u64) -> Look {
    let name = &workload.name;
    if workload.desired != Desired::Running {
        return Look::Never(format!(
            "{name} was meant to run, but meanwhile it is to be {}",
            word(&workload.desired)
        ));
    }
    let copies = workload.copies.as_deref().unwrap_or_default();
    let wanted: Vec<&Assignment> = copies
        .iter()
        .filter(|copy| copy.intent == Intent::Run)
        .collect();
    let is_new = |copy: &&Assignment| copy.generation > after && !copy.is_outdated;
    if let Some(copy) = wanted
        .iter()
        .filter(|copy| is_new(copy))
        .find(|copy| has_failed(copy))
    {
        let exit = copy
            .outcome
            .as_ref()
            .map_or("unknown exit", |outcome| &outcome.exit);
        return Look::Never(format!("{name}.{} ended badly: {exit}", copy.slot));
    }
    let settled = wanted
        .iter()
        .filter(|copy| is_new(copy) && is_settled(copy))
        .count();
    let text = format!("{name}: {settled} of {} running", workload.count);
    if settled == workload.count as usize {
        return Look::Reached(summary(name, &wanted));
    }
    let waiting = wanted.iter().find(|copy| !is_settled(copy));
    let detail = waiting
        .map(|copy| standing(copy))
        .filter(|detail| !detail.is_empty());
    Look::NotYet(detail.map_or_else(|| text.clone(), |detail| format!("{text} ({detail})")))
}

fn summary(name: &str, copies: &[&Assignment]) -> String {
    if !copies.is_empty()
        && copies
            .iter()
            .all(|copy| copy.state.word == StateWord::Finished)
    {
        return format!("{name}: finished");
    }
    let mut nodes: Vec<&str> = copies.iter().map(|copy| copy.node_name.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let shown = nodes.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    let more = nodes.len().saturating_sub(3);
    let rest = if more > 0 {
        format!(" and {more} more nodes")
    } else {
        String::new()
    };
    match copies.len() {
        0 => format!("{name}: no copies wanted"),
        1 => format!("{name}: running on {shown}"),
        count => format!("{name}: {count} copies running on {shown}{rest}"),
    }
}

/// What a copy does and why it is no further, for a person.
pub(crate) fn standing(copy: &Assignment) -> String {
    let state = word(&copy.state.word);
    let exit = copy.state.exit.as_deref().unwrap_or_default();
    let why = if copy.state.detail.is_empty() {
        exit
    } else {
        &copy.state.detail
    };
    if why.is_empty() {
        state
    } else {
        format!("{state}: {why}")
    }
}

fn is_settled(copy: &Assignment) -> bool {
    matches!(copy.state.word, StateWord::Running) || copy.outcome.is_some()
}

fn has_failed(copy: &Assignment) -> bool {
    copy.outcome
        .as_ref()
        .is_some_and(|outcome| outcome.exit_code != Some(0))
}

async fn too_late(
    remote: &Remote<'_>,
    targets: &[Target],
    last: &[Look],
    most: Duration,
) -> Failure {
    let open: Vec<&str> = last.iter().filter_map(Look::open).collect();
    let mut details = Vec::new();
    for (target, _) in targets
        .iter()
        .zip(last)
        .filter(|(_, look)| look.open().is_some())
    {
        if let Ok(why) = remote.client.why(&target.id).await {
            details.extend(reasons(&why));
        }
    }
    let sentence = format!("not there after {}: {}", age::rough(most), open.join("; "));
    let advice =
        "nothing was undone: `hostler ps` shows how it goes on, `hostler why` says what is missing";
    Failure::new(ExitStatus::Pending, sentence, advice).with_details(details)
}

/// Every reason, a line each.
pub(crate) fn reasons(why: &Why) -> Vec<String> {
    if why.pending == 0 {
        return Vec::new();
    }
    let group = |group: &NodeGroup| {
        let sentences: Vec<&str> = group
            .reasons
            .iter()
            .map(|reason| reason.sentence.as_str())
            .collect();
        let more = group
            .count
            .saturating_sub(u32::try_from(group.names.len()).unwrap_or(u32::MAX));
        let rest = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("{}{rest}: {}", group.names.join(", "), sentences.join("; "))
    };
    let head = std::iter::once(format!("{}: {}", why.workload_name, why.summary));
    let omitted = (why.omitted > 0).then(|| format!("{} more nodes", why.omitted));
    let fix = why.fix.as_ref().map(|fix| format!("nearest: {fix}"));
    head.chain(why.nodes.iter().map(group))
        .chain(omitted)
        .chain(fix)
        .collect()
}

impl Look {
    fn text(&self) -> &str {
        match self {
            Self::Reached(text) | Self::NotYet(text) | Self::Never(text) => text,
        }
    }

    fn open(&self) -> Option<&str> {
        match self {
            Self::NotYet(text) => Some(text),
            Self::Reached(_) | Self::Never(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(count: u32, copies: &serde_json::Value) -> Workload {
        serde_json::from_value(serde_json::json!({
            "id": "w", "name": "web", "kind": "process", "desired": "running", "status": "pending",
            "revision": 1, "count": count, "spec": {}, "created_at": "", "updated_at": "", "copies": copies,
        }))
        .unwrap()
    }

    fn copy(slot: u32, generation: u64, state: &str) -> serde_json::Value {
        serde_json::json!({
            "id": "a", "short": "a", "workload": "w", "workload_name": "web", "slot": slot, "node": "n",
            "node_name": "box", "generation": generation, "revision": 1, "intent": "run",
            "state": { "word": state, "detail": "" }, "created_at": "", "claims": {},
        })
    }

    #[test]
    fn a_missing_copy_is_not_yet_and_the_last_one_reaches_the_goal() {
        let goal = Goal::Running { after: 0 };
        let one = judge(
            &workload(2, &serde_json::json!([copy(0, 1, "running")])),
            goal,
        );
        assert_eq!(one, Look::NotYet("web: 1 of 2 running".to_owned()));
        let both = serde_json::json!([copy(0, 1, "running"), copy(1, 2, "running")]);
        let both = judge(&workload(2, &both), goal);
        assert_eq!(
            both,
            Look::Reached("web: 2 copies running on box".to_owned())
        );
    }

    #[test]
    fn a_restart_waits_for_newer_generations() {
        let old = workload(1, &serde_json::json!([copy(0, 4, "running")]));
        assert!(matches!(
            judge(&old, Goal::Running { after: 4 }),
            Look::NotYet(_)
        ));
        assert!(matches!(
            judge(&old, Goal::Running { after: 3 }),
            Look::Reached(_)
        ));
    }

    #[test]
    fn a_copy_that_ended_badly_for_good_is_not_waited_for() {
        let mut ended = copy(0, 1, "finished");
        ended["outcome"] =
            serde_json::json!({ "exit": "exit code 3", "exit_code": 3, "at": "", "runs": 1 });
        let look = judge(
            &workload(1, &serde_json::json!([ended])),
            Goal::Running { after: 0 },
        );
        assert_eq!(
            look,
            Look::Never("web.0 ended badly: exit code 3".to_owned())
        );
    }

    #[test]
    fn all_reasons_are_told() {
        let reason = |code: &str, sentence: &str| hostler_wire::api::Reason {
            code: code.to_owned(),
            sentence: sentence.to_owned(),
        };
        let why = Why {
            workload: "w".to_owned(),
            workload_name: "web".to_owned(),
            pending: 1,
            summary: "1 copy has no node".to_owned(),
            nodes: vec![NodeGroup {
                names: vec!["a".to_owned(), "b".to_owned()],
                count: 5,
                reasons: vec![
                    reason("memory-short", "1GiB of memory short"),
                    reason("port", "port 80 taken"),
                ],
            }],
            omitted: 2,
            fix: Some("ask for less memory".to_owned()),
        };
        let expected = [
            "web: 1 copy has no node",
            "a, b and 3 more: 1GiB of memory short; port 80 taken",
            "2 more nodes",
            "nearest: ask for less memory",
        ];
        assert_eq!(reasons(&why), expected);
    }
}
