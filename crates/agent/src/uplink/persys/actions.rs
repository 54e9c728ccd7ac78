//! What a scheduler asked for and what became of it: a bounded history, in memory. Pure.
//!
//! ```text
//!   pending ──► running ──► completed
//!                  └──────► failed
//! ```

use std::collections::{BTreeMap, VecDeque};

use hostler_model::Timestamp;
use hostler_wire::persys::agent::{AgentAction, ListActionsRequest};

use super::states::seconds;

/// How many are kept; the oldest that has ended goes first.
const KEPT: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    Apply,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Pending,
    Running,
    Completed,
    Failed(String),
}

#[derive(Debug, Clone)]
pub(super) struct Action {
    pub(super) task_id: String,
    pub(super) workload: String,
    pub(super) task: Task,
    /// Of the unit that it is about.
    pub(super) generation: u64,
    pub(super) standing: Standing,
    created: Timestamp,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
}

/// How often a task ended so, and how long that took in all.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) seconds: f64,
}

#[derive(Debug, Default)]
pub(super) struct Actions {
    kept: VecDeque<Action>,
    tallies: BTreeMap<(Task, &'static str), Tally>,
    last_stamp: u64,
}

impl Task {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply_workload",
            Self::Delete => "delete_workload",
        }
    }
}

impl Standing {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
        }
    }

    const fn has_ended(&self) -> bool {
        matches!(self, Self::Completed | Self::Failed(_))
    }
}

impl Actions {
    /// Puts a new one on the list. What was asked of the workload before and has not ended is overtaken by it.
    pub(super) fn begin(
        &mut self,
        task: Task,
        workload: &str,
        generation: u64,
        now: Timestamp,
    ) -> String {
        self.settle(workload, now, |_| {
            Some(Standing::Failed("overtaken by a newer request".to_owned()))
        });
        let word = match task {
            Task::Apply => "apply",
            Task::Delete => "delete",
        };
        // No two have the same name, however fast they come.
        self.last_stamp = (self.last_stamp + 1).max(now.as_millis().saturating_mul(1_000_000));
        let task_id = format!("{word}-{workload}-{}", self.last_stamp);
        self.kept.push_back(Action {
            task_id: task_id.clone(),
            workload: workload.to_owned(),
            task,
            generation,
            standing: Standing::Pending,
            created: now,
            started: None,
            ended: None,
        });
        if self.kept.len() > KEPT {
            let oldest = self.kept.iter().position(|it| it.standing.has_ended());
            self.kept.remove(oldest.unwrap_or(0));
        }
        task_id
    }

    /// Moves what has not ended of a workload to where it stands now.
    pub(super) fn settle(
        &mut self,
        workload: &str,
        now: Timestamp,
        standing: impl Fn(&Action) -> Option<Standing>,
    ) {
        let open = self
            .kept
            .iter_mut()
            .filter(|it| it.workload == workload && !it.standing.has_ended());
        for action in open {
            let Some(next) = standing(action).filter(|next| *next != action.standing) else {
                continue;
            };
            action.started.get_or_insert(now);
            if next.has_ended() {
                action.ended = Some(now);
                let tally = self
                    .tallies
                    .entry((action.task, next.as_str()))
                    .or_default();
                tally.count += 1;
                tally.seconds += now.since(action.created).as_secs_f64();
            }
            action.standing = next;
        }
    }

    /// The latest of a workload.
    pub(super) fn latest(&self, workload: &str) -> Option<&Action> {
        self.kept.iter().rev().find(|it| it.workload == workload)
    }

    pub(super) fn open(&self) -> usize {
        self.kept
            .iter()
            .filter(|it| !it.standing.has_ended())
            .count()
    }

    pub(super) fn tallies(&self) -> &BTreeMap<(Task, &'static str), Tally> {
        &self.tallies
    }

    pub(super) fn list(&self, asked: &ListActionsRequest) -> Vec<AgentAction> {
        let is_asked = |it: &&Action| {
            let fits = |asked: &str, is: &str| asked.is_empty() || asked.eq_ignore_ascii_case(is);
            (asked.workload_id.is_empty() || asked.workload_id == it.workload)
                && fits(&asked.action_type, it.task.as_str())
                && fits(&asked.status, it.standing.as_str())
        };
        let most = match usize::try_from(asked.limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        };
        // They stand in the order in which they came.
        let found = self.kept.iter().filter(is_asked);
        if asked.newest_first {
            found.rev().take(most).map(Action::told).collect()
        } else {
            found.take(most).map(Action::told).collect()
        }
    }
}

impl Action {
    fn told(&self) -> AgentAction {
        AgentAction {
            task_id: self.task_id.clone(),
            workload_id: self.workload.clone(),
            action_type: self.task.as_str().to_owned(),
            status: self.standing.as_str().to_owned(),
            error: match &self.standing {
                Standing::Failed(error) => error.clone(),
                _ => String::new(),
            },
            created_at: seconds(self.created),
            started_at: self.started.map_or(0, seconds),
            ended_at: self.ended.map_or(0, seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn list(actions: &Actions, change: impl FnOnce(&mut ListActionsRequest)) -> Vec<String> {
        let mut asked = ListActionsRequest::default();
        change(&mut asked);
        let found = actions.list(&asked).into_iter();
        found
            .map(|it| format!("{} {}", it.workload_id, it.status))
            .collect()
    }

    #[test]
    fn the_history_is_filtered_sorted_and_limited() {
        let mut actions = Actions::default();
        actions.begin(Task::Apply, "a", 1, at(1000));
        actions.begin(Task::Delete, "b", 1, at(2000));
        actions.begin(Task::Apply, "c", 1, at(3000));
        actions.settle("b", at(4000), |_| Some(Standing::Completed));
        assert_eq!(
            list(&actions, |_| {}),
            ["a pending", "b completed", "c pending"]
        );
        assert_eq!(
            list(&actions, |it| (it.newest_first, it.limit) = (true, 2)),
            ["c pending", "b completed"]
        );
        assert_eq!(
            list(&actions, |it| it.action_type = "delete_workload".into()),
            ["b completed"]
        );
        assert_eq!(
            list(&actions, |it| it.status = "PENDING".into()),
            ["a pending", "c pending"]
        );
        assert_eq!(
            list(&actions, |it| it.workload_id = "c".into()),
            ["c pending"]
        );
        assert_eq!(list(&actions, |it| it.limit = -1).len(), 3);
        let ended = actions.list(&ListActionsRequest::default()).remove(1);
        assert_eq!((ended.created_at, ended.ended_at), (2, 4));
    }

    #[test]
    fn a_newer_request_overtakes_an_older_one_and_no_two_share_a_name() {
        let mut actions = Actions::default();
        let first = actions.begin(Task::Apply, "a", 1, at(1000));
        let second = actions.begin(Task::Apply, "a", 2, at(1000));
        assert_ne!(first, second);
        assert_eq!(list(&actions, |_| {}), ["a failed", "a pending"]);
        assert_eq!(actions.latest("a").unwrap().generation, 2);
        assert_eq!(actions.open(), 1);
    }

    #[test]
    fn the_history_is_bounded_and_what_is_open_stays() {
        let mut actions = Actions::default();
        actions.begin(Task::Apply, "open", 1, at(1));
        for n in 0..2 * KEPT {
            let name = format!("w{n}");
            actions.begin(Task::Apply, &name, 1, at(2));
            actions.settle(&name, at(3), |_| Some(Standing::Completed));
        }
        assert_eq!(list(&actions, |_| {}).len(), KEPT);
        assert!(actions.latest("open").is_some() && actions.latest("w0").is_none());
    }
}
