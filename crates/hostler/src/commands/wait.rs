//! Waiting for an effect: asks the server for news, shows how far it has come, and ends with a summary or
//! with every reason why it is not there yet.

use std::time::Duration;

use hostler_wire::api::{
    Assignment, CopyGroup, Desired, NodeGroup, Rollout, RolloutStage, WaitQuery, Why, Workload,
    WorkloadStatus,
};
use hostler_wire::client::ClientError;

use super::{Remote, word};
use crate::age;
use crate::failure::Failure;
use crate::status::ExitStatus;

/// How long the server is asked to wait for news of the only workload, and of one among several.
const ALONE: Duration = Duration::from_secs(5);
const TOGETHER: Duration = Duration::from_millis(250);
/// How long to wait for a server that does not answer.
const AGAIN: Duration = Duration::from_millis(250);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Every wanted copy is of the present spec and restart, and runs or has ended well.
    Running,
    Stopped,
    Gone,
}

/// Whose effect is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) goal: Goal,
    /// The revision that it is about: another one that came by going back is none that was waited for.
    pub(crate) revision: Option<u64>,
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
    let mut marks = vec![None; targets.len()];
    let mut asked = None;
    loop {
        for (index, target) in targets.iter().enumerate() {
            if asked != Some(index) && !matches!(last[index], Look::Reached(_)) {
                last[index] = look(remote, target, &mut marks[index], Duration::ZERO).await?;
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
        let patience = match open.as_slice() {
            [] => break,
            [_] => ALONE,
            _ => TOGETHER,
        };
        progress.tell(&open.join("; "));
        asked = last.iter().position(|look| look.open().is_some());
        if let Some(first) = asked {
            last[first] = look(remote, &targets[first], &mut marks[first], patience).await?;
        }
    }
    Ok(last.iter().map(|look| look.text().to_owned()).collect())
}

/// Looks once; with patience, once there is news.
async fn look(
    remote: &Remote<'_>,
    target: &Target,
    mark: &mut Option<String>,
    patience: Duration,
) -> Result<Look, Failure> {
    let name = &target.name;
    let query = WaitQuery {
        wait: u64::try_from(patience.as_millis()).ok(),
        after: mark.clone().filter(|_| !patience.is_zero()),
    };
    match remote.client.workload_news(&target.id, &query).await {
        Ok(workload) => {
            let look = judge(&workload, target);
            *mark = Some(workload.standing.mark);
            Ok(look)
        }
        Err(ClientError::Refused(problem)) if problem.code == "workload-not-found" => {
            Ok(match target.goal {
                Goal::Gone => Look::Reached(format!("{name}: removed")),
                Goal::Running | Goal::Stopped => {
                    Look::Never(format!("{name} was removed meanwhile"))
                }
            })
        }
        Err(ClientError::Unreachable { .. }) => {
            tokio::time::sleep(AGAIN).await;
            Ok(Look::NotYet(format!(
                "{name}: the server does not answer, trying again"
            )))
        }
        Err(error) => Err(error.into()),
    }
}

fn judge(workload: &Workload, target: &Target) -> Look {
    match target.goal {
        Goal::Running => judge_running(workload, target.revision),
        Goal::Stopped if workload.status == WorkloadStatus::Stopped => {
            Look::Reached(format!("{}: stopped", workload.name))
        }
        Goal::Stopped | Goal::Gone => {
            let left = workload.standing.wanted + workload.standing.stopping;
            Look::NotYet(format!("{}: {left} copies not gone yet", workload.name))
        }
    }
}

fn judge_running(workload: &Workload, revision: Option<u64>) -> Look {
    let Workload {
        name,
        count,
        standing,
        ..
    } = workload;
    if workload.desired != Desired::Running {
        return Look::Never(format!(
            "{name} was meant to run, but meanwhile it is to be {}",
            word(&workload.desired)
        ));
    }
    if let Some(note) = &workload.note
        && revision.is_some_and(|revision| revision < workload.revision)
    {
        return Look::Never(format!("{name} was {note}"));
    }
    if let Some(rollout) = &workload.rollout {
        return judge_rollout(name, rollout);
    }
    let first = standing.troubles.first();
    if standing.failed > 0 {
        let failed = first.and_then(|copy| copy.outcome.as_ref().zip(Some(copy.slot)));
        return Look::Never(failed.map_or_else(
            || format!("{} copies of {name} ended badly", standing.failed),
            |(outcome, slot)| format!("{name}.{slot} ended badly: {}", outcome.exit),
        ));
    }
    if workload.status == WorkloadStatus::Scheduled {
        return Look::Reached(format!("{name}: scheduled"));
    }
    if standing.settled == *count {
        return Look::Reached(summary(workload));
    }
    if standing.settled > *count {
        return Look::NotYet(format!("{name}: copies beyond {count} are still to go"));
    }
    let text = format!("{name}: {} of {count} running", standing.settled);
    let detail = match first {
        Some(copy) if copy.is_outdated => "an older revision runs".to_owned(),
        Some(copy) => standing_of(copy),
        None => return Look::NotYet(text),
    };
    Look::NotYet(format!("{text} ({detail})"))
}

/// A rollout is waited for to its end, or until it is a person's turn.
fn judge_rollout(name: &str, rollout: &Rollout) -> Look {
    let text = format!("{name}: {}", rollout.summary);
    match rollout.stage {
        RolloutStage::Failed => Look::Never(text),
        _ if rollout.needs_person => Look::Reached(text),
        _ => Look::NotYet(text),
    }
}

fn summary(workload: &Workload) -> String {
    let Workload { name, standing, .. } = workload;
    if workload.status == WorkloadStatus::Finished {
        return format!("{name}: finished");
    }
    let shown = standing.nodes.join(", ");
    let more = (standing.node_count as usize).saturating_sub(standing.nodes.len());
    let rest = if more > 0 {
        format!(" and {more} more nodes")
    } else {
        String::new()
    };
    match standing.settled {
        0 => format!("{name}: no copies wanted"),
        1 => format!("{name}: running on {shown}"),
        count => format!("{name}: {count} copies running on {shown}{rest}"),
    }
}

/// What a copy does and why it is no further, for a person.
pub(crate) fn standing_of(copy: &Assignment) -> String {
    let state = word(&copy.state.word);
    let exit = copy.state.exit.as_deref().unwrap_or_default();
    let mut why = if copy.state.detail.is_empty() {
        exit.to_owned()
    } else {
        copy.state.detail.clone()
    };
    if let Some(code) = &copy.state.code {
        why = format!("{code}: {why}");
    }
    match copy.state.health.as_deref() {
        Some(health @ "unhealthy") => why = format!("{health}: {why}"),
        Some("starting") => why = "its health check has not passed yet".to_owned(),
        Some(health) => why = health.to_owned(),
        None => {}
    }
    if let Some(first) = &copy.state.crash_loop {
        let last = first
            .log
            .last()
            .map_or(String::new(), |line| format!(": {line}"));
        why = format!("first {}{last}", first.exit);
    }
    if why.is_empty() {
        state
    } else {
        format!("{state}: {why}")
    }
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

/// Every reason, a line each; none if nothing is amiss.
pub(crate) fn reasons(why: &Why) -> Vec<String> {
    if why.pending == 0 && why.findings.is_empty() && why.copies.is_empty() && why.nodes.is_empty()
    {
        return Vec::new();
    }
    let head = std::iter::once(format!("{}: {}", why.workload_name, why.summary));
    let omitted = (why.omitted > 0).then(|| format!("{} more nodes", why.omitted));
    let fix = why.fix.as_ref().map(|fix| format!("nearest: {fix}"));
    head.chain(why.copies.iter().flat_map(of_copies))
        .chain(why.nodes.iter().map(of_nodes))
        .chain(omitted)
        .chain(fix)
        .collect()
}

fn of_copies(group: &CopyGroup) -> Vec<String> {
    let CopyGroup { reason, runs, .. } = group;
    let starts = if *runs > 1 {
        format!(" (started {runs} times)")
    } else {
        String::new()
    };
    let line = format!(
        "{}: {} [{}]{starts}",
        named(&group.names, group.count),
        reason.sentence,
        reason.code
    );
    let remedy = group.remedy.as_ref().map(|remedy| format!("try: {remedy}"));
    let log = group.log.iter().map(|line| format!("  | {line}"));
    std::iter::once(line).chain(log).chain(remedy).collect()
}

fn of_nodes(group: &NodeGroup) -> String {
    let sentences: Vec<&str> = group
        .reasons
        .iter()
        .map(|reason| reason.sentence.as_str())
        .collect();
    let said = if sentences.is_empty() {
        "a copy fits".to_owned()
    } else {
        sentences.join("; ")
    };
    format!("{}: {said}", named(&group.names, group.count))
}

fn named(names: &[String], count: u32) -> String {
    let more = count.saturating_sub(u32::try_from(names.len()).unwrap_or(u32::MAX));
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{rest}", names.join(", "))
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

    fn workload(count: u32, standing: &serde_json::Value) -> Workload {
        serde_json::from_value(serde_json::json!({
            "id": "w", "name": "web", "kind": "process", "desired": "running", "status": "pending",
            "revision": 1, "count": count, "spec": {}, "created_at": "", "updated_at": "",
            "standing": standing,
        }))
        .unwrap()
    }

    fn target() -> Target {
        Target {
            id: "w".to_owned(),
            name: "web".to_owned(),
            goal: Goal::Running,
            revision: Some(1),
        }
    }

    fn copy(state: &str) -> serde_json::Value {
        serde_json::json!({
            "id": "a", "short": "a", "workload": "w", "workload_name": "web", "slot": 0, "node": "n",
            "node_name": "box", "generation": 1, "revision": 1, "intent": "run",
            "state": { "word": state, "detail": "" }, "created_at": "", "claims": {},
        })
    }

    #[test]
    fn a_missing_copy_is_not_yet_and_the_last_one_reaches_the_goal() {
        let standing =
            |settled| serde_json::json!({ "settled": settled, "nodes": ["box"], "node_count": 1 });
        assert_eq!(
            judge(&workload(2, &standing(1)), &target()),
            Look::NotYet("web: 1 of 2 running".to_owned())
        );
        assert_eq!(
            judge(&workload(2, &standing(2)), &target()),
            Look::Reached("web: 2 copies running on box".to_owned())
        );
    }

    #[test]
    fn a_copy_of_an_older_revision_is_waited_for() {
        let mut old = copy("running");
        old["is_outdated"] = true.into();
        let standing = serde_json::json!({ "wanted": 1, "outdated": 1, "troubles": [old] });
        assert_eq!(
            judge(&workload(1, &standing), &target()),
            Look::NotYet("web: 0 of 1 running (an older revision runs)".to_owned())
        );
    }

    #[test]
    fn a_copy_that_ended_badly_for_good_is_not_waited_for() {
        let mut ended = copy("finished");
        ended["outcome"] =
            serde_json::json!({ "exit": "exit code 3", "exit_code": 3, "at": "", "runs": 1 });
        let standing = serde_json::json!({ "wanted": 1, "failed": 1, "troubles": [ended] });
        assert_eq!(
            judge(&workload(1, &standing), &target()),
            Look::Never("web.0 ended badly: exit code 3".to_owned())
        );
    }

    #[test]
    fn a_rollout_is_waited_for_until_it_is_through_or_needs_a_person() {
        let rolling = |stage: &str, needs_person: bool| {
            let mut workload = workload(2, &serde_json::json!({ "settled": 2, "wanted": 3 }));
            workload.rollout = serde_json::from_value(serde_json::json!({
                "revision": 2, "from": 1, "stage": stage, "renewed": 2, "healthy": 1, "outdated": 0,
                "beside": 0, "beside_healthy": 0, "needs_person": needs_person, "summary": "on its way",
            }))
            .unwrap();
            judge(&workload, &target())
        };
        let text = "web: on its way".to_owned();
        assert_eq!(rolling("rolling", false), Look::NotYet(text.clone()));
        assert_eq!(rolling("canary", false), Look::NotYet(text.clone()));
        assert_eq!(rolling("canary", true), Look::Reached(text.clone()));
        assert_eq!(rolling("failed", true), Look::Never(text));
    }

    #[test]
    fn what_was_rolled_back_meanwhile_is_not_waited_for() {
        let mut back = workload(1, &serde_json::json!({ "settled": 1 }));
        (back.revision, back.note) = (2, Some("rolled back to revision 1: it ends".to_owned()));
        assert_eq!(
            judge(&back, &target()),
            Look::Never("web was rolled back to revision 1: it ends".to_owned())
        );
        back.revision = 1;
        assert!(
            matches!(judge(&back, &target()), Look::Reached(_)),
            "it is what was asked for"
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
            findings: Vec::new(),
            copies: vec![CopyGroup {
                names: vec!["web.0 on a".to_owned()],
                count: 2,
                runs: 4,
                reason: reason("crash-loop", "ends again and again"),
                remedy: Some("read its log".to_owned()),
                log: Vec::new(),
            }],
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
            "web.0 on a and 1 more: ends again and again [crash-loop] (started 4 times)",
            "try: read its log",
            "a, b and 3 more: 1GiB of memory short; port 80 taken",
            "2 more nodes",
            "nearest: ask for less memory",
        ];
        assert_eq!(reasons(&why), expected);
        let of_an_update = Why { pending: 0, ..why };
        assert_eq!(reasons(&of_an_update), expected);
    }
}
