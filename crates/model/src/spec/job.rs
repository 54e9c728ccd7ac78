//! The `job` section: work that runs to completion, once or at the moments of a schedule.
//!
//! ```yaml
//! job:
//!   command: [tar, -czf, /backup/shop.tgz, /srv/shop]
//!   retries: 2
//!   timeout_ms: 600000
//!   schedule: "30 2 * * *"
//!   timezone: Europe/Berlin
//! ```
//!
//! Without `image` the command is a process of the node, with one it is a container. `count` copies run at the
//! same time. A job with a schedule runs nothing itself: at each due moment a job of its own is made from it.

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{ContainerSpec, Kind, ProcessSpec, WorkloadSpec};
use crate::Timestamp;

/// Work that runs to completion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Program and arguments; may be left out with an image that has a command of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Runs the command in a container of this image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How often a copy that failed is started again.
    #[serde(default)]
    pub retries: u32,
    /// Milliseconds that one run may take; it is stopped then and counts as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Minute, hour, day of month, month, day of week: `*/15 * * * *`, or `@daily` and its kin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// In which time zone the schedule is read, by its IANA name.
    #[serde(default = "utc", skip_serializing_if = "is_utc")]
    pub timezone: String,
    /// What happens at a due moment while an earlier one's job still runs.
    #[serde(default, skip_serializing_if = "Concurrency::is_default")]
    pub concurrency: Concurrency,
    /// How many ended jobs of the schedule are kept.
    #[serde(default = "three", skip_serializing_if = "is_three")]
    pub history: u32,
}

/// What happens at a due moment while an earlier one's job still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concurrency {
    /// Both run.
    #[default]
    Allow,
    /// The due moment is passed over.
    Forbid,
    /// The earlier one is stopped.
    Replace,
}

/// Why a schedule cannot be followed; a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoSchedule(String);

/// The most letters of the name of a schedule: the jobs made from it get the minute and a number added.
const MOST_SCHEDULE_NAME: usize = 63 - "-12345678-99".len();
/// The most kept jobs of one schedule.
const MOST_HISTORY: u32 = 100;

fn utc() -> String {
    "UTC".to_owned()
}

fn is_utc(zone: &String) -> bool {
    zone == "UTC"
}

const fn three() -> u32 {
    3
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_three(number: &u32) -> bool {
    *number == 3
}

impl Concurrency {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl JobSpec {
    /// A job with all defaults: one run of the command, as a process.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            image: None,
            working_dir: None,
            user: None,
            retries: 0,
            timeout_ms: None,
            schedule: None,
            timezone: utc(),
            concurrency: Concurrency::default(),
            history: three(),
        }
    }

    /// The kind of driver that runs it.
    #[must_use]
    pub const fn runs_on(&self) -> Kind {
        if self.image.is_some() {
            Kind::Container
        } else {
            Kind::Process
        }
    }

    /// The spec with the process or container that does the work in place of the job.
    pub(super) fn lowered(&self, spec: &WorkloadSpec) -> WorkloadSpec {
        let mut lowered = WorkloadSpec {
            job: None,
            restart: spec.restarts(),
            ..spec.clone()
        };
        match &self.image {
            Some(image) => {
                let mut container = ContainerSpec::new(image, self.command.clone());
                container.working_dir.clone_from(&self.working_dir);
                container.user.clone_from(&self.user);
                lowered.container = Some(container);
            }
            None => {
                let mut process = ProcessSpec::new(self.command.clone());
                process.working_dir.clone_from(&self.working_dir);
                process.user.clone_from(&self.user);
                lowered.process = Some(process);
            }
        }
        lowered
    }

    /// The last due moment of the schedule that is not after `now`.
    ///
    /// # Errors
    /// A schedule or time zone that cannot be read; a checked spec has none.
    pub fn last_due(&self, now: Timestamp) -> Result<Option<Timestamp>, NoSchedule> {
        let Some((cron, now)) = self.clockwork(now)? else {
            return Ok(None);
        };
        Ok(cron
            .find_previous_occurrence(&now, true)
            .ok()
            .and_then(moment))
    }

    /// The first due moment of the schedule after `now`; none for a day that never comes.
    ///
    /// # Errors
    /// As [`Self::last_due`].
    pub fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, NoSchedule> {
        let Some((cron, now)) = self.clockwork(now)? else {
            return Ok(None);
        };
        Ok(cron.find_next_occurrence(&now, false).ok().and_then(moment))
    }

    fn clockwork(&self, now: Timestamp) -> Result<Option<(croner::Cron, jiff::Zoned)>, NoSchedule> {
        let Some(schedule) = &self.schedule else {
            return Ok(None);
        };
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(schedule).map_err(|error| {
            NoSchedule(format!(
                "job.schedule: `{schedule}` cannot be read: {error}"
            ))
        })?;
        let zone = TimeZone::get(&self.timezone).map_err(|_| {
            let zone = &self.timezone;
            NoSchedule(format!("job.timezone: no time zone is named `{zone}`"))
        })?;
        let millis = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let now = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        Ok(Some((cron, now.to_zoned(zone))))
    }

    pub(super) fn check(&self, spec: &WorkloadSpec, findings: &mut Vec<String>) {
        if self.image.is_none() && self.command.first().is_none_or(String::is_empty) {
            findings.push("job: neither `command` nor `image` is there".to_owned());
        }
        let lowered = self.lowered(spec);
        let mut inner = Vec::new();
        if let Some(container) = &lowered.container {
            container.check(&mut inner);
        }
        if let Some(process) = lowered.process.as_ref().filter(|it| !it.command.is_empty()) {
            process.check(&mut inner);
        }
        let renamed = inner.into_iter().map(|finding| {
            let rest = finding
                .split_once('.')
                .map_or(finding.as_str(), |(_, rest)| rest);
            format!("job.{rest}")
        });
        findings.extend(renamed);
        if self.timeout_ms == Some(0) {
            findings.push("job.timeout_ms: 0 makes no sense".to_owned());
        }
        self.check_schedule(&spec.name, findings);
    }

    fn check_schedule(&self, name: &str, findings: &mut Vec<String>) {
        if self.schedule.is_none() {
            return;
        }
        let epoch = Timestamp::default();
        match self.next_due(epoch) {
            Err(NoSchedule(finding)) => findings.push(finding),
            Ok(None) => findings.push("job.schedule: names a moment that never comes".to_owned()),
            Ok(Some(_)) => {}
        }
        if self.history > MOST_HISTORY {
            findings.push(format!("job.history: more than {MOST_HISTORY}"));
        }
        if name.len() > MOST_SCHEDULE_NAME {
            findings.push(format!(
                "name: longer than {MOST_SCHEDULE_NAME} letters; the jobs of a schedule are named `{name}-<minute>`"
            ));
        }
    }
}

fn moment(zoned: jiff::Zoned) -> Option<Timestamp> {
    u64::try_from(zoned.timestamp().as_millisecond())
        .ok()
        .map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::spec::{RestartPolicy, parse_one};

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn scheduled(schedule: &str, timezone: &str) -> JobSpec {
        JobSpec {
            schedule: Some(schedule.to_owned()),
            timezone: timezone.to_owned(),
            ..JobSpec::new(vec!["true".to_owned()])
        }
    }

    #[test]
    fn due_moments_are_found_before_and_after_a_moment() {
        let quarter = scheduled("*/15 * * * *", "UTC");
        let now = at("2026-03-01T10:16:30Z");
        assert_eq!(quarter.last_due(now), Ok(Some(at("2026-03-01T10:15:00Z"))));
        assert_eq!(quarter.next_due(now), Ok(Some(at("2026-03-01T10:30:00Z"))));
        let on_time = at("2026-03-01T10:15:00Z");
        assert_eq!(quarter.last_due(on_time), Ok(Some(on_time)));
        assert_eq!(
            quarter.next_due(on_time),
            Ok(Some(at("2026-03-01T10:30:00Z")))
        );
        let daily = scheduled("@daily", "UTC");
        assert_eq!(daily.last_due(now), Ok(Some(at("2026-03-01T00:00:00Z"))));
        assert_eq!(JobSpec::new(vec![]).next_due(now), Ok(None));
    }

    #[test]
    fn a_schedule_is_read_in_its_time_zone_through_both_changes_of_the_clock() {
        let nightly = scheduled("30 2 * * *", "Europe/Berlin");
        let next = |text| nightly.next_due(at(text)).unwrap().unwrap().to_string();
        assert_eq!(
            next("2026-01-10T12:00:00Z"),
            at("2026-01-11T01:30:00Z").to_string()
        );
        assert_eq!(
            next("2026-07-10T12:00:00Z"),
            at("2026-07-11T00:30:00Z").to_string()
        );
        // 02:30 is left out on the day that summer begins, and there twice on the day that it ends.
        let spring = next("2026-03-28T12:00:00Z");
        assert!(spring.starts_with("2026-03-29T01:00"), "{spring}");
        assert_eq!(
            next("2026-10-24T12:00:00Z"),
            at("2026-10-25T00:30:00Z").to_string()
        );
        assert_eq!(
            next("2026-10-25T00:30:00Z"),
            at("2026-10-26T01:30:00Z").to_string()
        );
    }

    #[test]
    fn a_job_becomes_the_process_or_container_that_does_its_work() {
        let text = "name: x\njob: {command: [a, b], retries: 2, user: web, working_dir: /srv}\n";
        let spec = Arc::new(parse_one(text).unwrap());
        assert_eq!((spec.kind(), spec.runs_on()), (Kind::Job, Kind::Process));
        let runnable = WorkloadSpec::runnable(&spec);
        runnable.check().unwrap();
        let process = runnable.process.as_ref().unwrap();
        assert_eq!(
            (process.command.len(), process.user.as_deref()),
            (2, Some("web"))
        );
        assert_eq!(process.working_dir.as_deref(), Some("/srv"));
        assert_eq!(runnable.restart.policy, RestartPolicy::OnFailure);
        assert_eq!(runnable.restart.retries, Some(2));
        let spec = Arc::new(parse_one("name: x\njob: {image: busybox}\n").unwrap());
        assert_eq!(spec.runs_on(), Kind::Container);
        let runnable = WorkloadSpec::runnable(&spec);
        assert_eq!(runnable.container.as_ref().unwrap().image, "busybox");
        assert!(runnable.job.is_none());
    }

    #[test]
    fn only_a_schedule_has_no_copies_of_its_own() {
        let once = parse_one("name: x\ncount: 3\njob: {command: [a]}\n").unwrap();
        assert_eq!((once.is_scheduled(), once.copies()), (false, 3));
        let often =
            parse_one("name: x\ncount: 3\njob: {command: [a], schedule: '@hourly'}\n").unwrap();
        assert_eq!((often.is_scheduled(), often.copies()), (true, 0));
    }

    #[test]
    fn jobs_that_make_no_sense_are_refused() {
        for (name, job, finding) in [
            ("x", "{}", "neither `command` nor `image`"),
            ("x", "{image: 'a b'}", "job.image"),
            ("x", "{command: [a], working_dir: b}", "job.working_dir"),
            ("x", "{command: [a], timeout_ms: 0}", "job.timeout_ms"),
            ("x", "{command: [a], schedule: hourly}", "job.schedule"),
            (
                "x",
                "{command: [a], schedule: '* * * * * *'}",
                "job.schedule",
            ),
            ("x", "{command: [a], schedule: '0 0 31 2 *'}", "never comes"),
            (
                "x",
                "{command: [a], schedule: '@daily', timezone: Mars/Olympus}",
                "job.timezone",
            ),
            (
                "x",
                "{command: [a], schedule: '@daily', history: 101}",
                "job.history",
            ),
            (
                &"x".repeat(52),
                "{command: [a], schedule: '@daily'}",
                "longer than 51",
            ),
        ] {
            let refused = parse_one(&format!("name: {name}\njob: {job}\n")).unwrap_err();
            assert!(refused.sentence.contains(finding), "{job}: {refused}");
        }
        let long = format!("name: {}\njob: {{command: [a]}}\n", "x".repeat(52));
        assert!(parse_one(&long).is_ok());
    }
}
