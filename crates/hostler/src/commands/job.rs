//! `job`: what runs to completion, and the schedules that make such.

use hostler_wire::api::Job;
use hostler_wire::client::Expect;

use super::{Remote, logs, word};
use crate::age;
use crate::args::{JobCommand, JobLsArgs, JobRerunArgs, LogsArgs, OutputForm};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;
use crate::table::{self, Table};

pub(crate) async fn job(remote: &Remote<'_>, command: JobCommand) -> Result<ExitStatus, Failure> {
    match command {
        JobCommand::Ls(args) => list(remote, args).await,
        JobCommand::Logs(args) => logs_of(remote, args).await,
        JobCommand::Rerun(args) => rerun(remote, args).await,
    }
}

async fn list(remote: &Remote<'_>, args: JobLsArgs) -> Result<ExitStatus, Failure> {
    let mut jobs = remote.client.jobs().await?;
    if let Some(target) = &args.schedule {
        let schedule = remote.client.job(target).await?;
        let made = |job: &Job| job.parent.as_ref() == Some(&schedule.name);
        jobs.retain(|job| job.id == schedule.id || made(job));
    }
    // A schedule stands before its jobs, the newest of which come first.
    jobs.sort_by_cached_key(|job| {
        let family = job.parent.clone().unwrap_or_else(|| job.name.clone());
        let due = std::cmp::Reverse(job.due.clone());
        (family, job.parent.is_some(), due, job.name.clone())
    });
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &jobs)?,
        OutputForm::Name => jobs.iter().for_each(|job| remote.printer.data(&job.name)),
        OutputForm::Table | OutputForm::Wide => table(remote, &jobs),
    }
    Ok(ExitStatus::Done)
}

fn table(remote: &Remote<'_>, jobs: &[Job]) {
    let head = [
        "NAME", "STATUS", "DONE", "SCHEDULE", "NEXT", "AGE", "DETAIL",
    ];
    let mut table = Table::new(&head);
    for job in jobs {
        let done = match &job.schedule {
            Some(_) => String::new(),
            None => format!("{}/{}", job.succeeded, job.count),
        };
        table.row(vec![
            job.name.clone().into(),
            table::state(&word(&job.status)),
            done.into(),
            job.schedule.clone().unwrap_or_default().into(),
            job.next_due.clone().unwrap_or_default().into(),
            age::since(&job.created_at, remote.now()).into(),
            job.reason.clone().unwrap_or_default().into(),
        ]);
    }
    table.print(remote.printer);
}

async fn logs_of(remote: &Remote<'_>, mut args: LogsArgs) -> Result<ExitStatus, Failure> {
    let job = remote.client.job(&args.workload).await?;
    if job.schedule.is_some() {
        let jobs = remote.client.jobs().await?;
        let made = jobs
            .into_iter()
            .filter(|it| it.parent.as_ref() == Some(&job.name));
        let newest = made.max_by_key(|job| (job.due.clone(), job.id.clone()));
        args.workload = newest.map(|job| job.id).ok_or_else(|| {
            Failure::failed(
                format!("schedule {} has made no job yet", job.name),
                format!("`hostler job rerun {}` makes one now", job.name),
            )
        })?;
    }
    logs::logs(remote, args).await
}

async fn rerun(remote: &Remote<'_>, args: JobRerunArgs) -> Result<ExitStatus, Failure> {
    let job = remote.client.rerun(&args.job, Expect::Any).await?;
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &job)?,
        OutputForm::Name => remote.printer.data(&job.name),
        OutputForm::Table | OutputForm::Wide => {
            remote.printer.data(&format!("{} is to run", job.name));
        }
    }
    Ok(ExitStatus::Done)
}
