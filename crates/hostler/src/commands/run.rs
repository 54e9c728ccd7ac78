//! `run`: one workload, described by flags.

use hostler_model::Resources;
use hostler_model::spec::{
    ContainerSpec, Disconnect, DisconnectPolicy, JobSpec, Placement, ProcessSpec, PullPolicy,
    Restart, RestartPolicy, Strategy, WorkloadSpec,
};

use super::Remote;
use super::apply::{Applying, submit};
use crate::args::{PortText, RunArgs, RunKind, RunPull, RunRestart, RunStrategy};
use crate::failure::Failure;
use crate::status::ExitStatus;

pub(crate) async fn run(remote: &Remote<'_>, args: RunArgs) -> Result<ExitStatus, Failure> {
    let applying = Applying::new(
        (args.dry_run, args.require_placement),
        &args.wait,
        &args.output,
    );
    let spec = spec(args)?;
    let text = serde_json::to_string(&spec).map_err(|error| {
        Failure::failed(
            format!("cannot write the spec: {error}"),
            "use `hostler apply`",
        )
    })?;
    submit(remote, vec![text], applying).await
}

/// The spec that the flags describe.
fn spec(args: RunArgs) -> Result<WorkloadSpec, Failure> {
    let mut spec = template(&args)?;
    spec.count = args.count;
    spec.resources = Resources {
        cpu: args.cpu.unwrap_or_default(),
        memory: args.memory.unwrap_or_default(),
        ..Resources::default()
    };
    spec.ports = args.ports.into_iter().map(|PortText(port)| port).collect();
    spec.env = args.env.into_iter().collect();
    spec.labels = args.labels.into_iter().collect();
    spec.restart = Restart {
        policy: policy(args.restart),
        ..Restart::default()
    };
    spec.placement = Placement {
        strategy: match args.strategy {
            Some(RunStrategy::Pack) => Strategy::Pack,
            Some(RunStrategy::Spread) | None => Strategy::Spread,
        },
        constraints: args.constraints,
    };
    if args.singleton {
        spec.disconnect = Disconnect {
            policy: DisconnectPolicy::Singleton,
            ..Disconnect::default()
        };
    }
    Ok(spec)
}

/// The section that names the kind, and nothing else.
fn template(args: &RunArgs) -> Result<WorkloadSpec, Failure> {
    if args.job {
        return Ok(job(args));
    }
    let by_image = || {
        if args.image.is_some() {
            RunKind::Container
        } else {
            RunKind::Process
        }
    };
    match (args.kind.unwrap_or_else(by_image), &args.image) {
        (RunKind::Container, Some(image)) => Ok(container(args, image)),
        (RunKind::Process, None) => process(args),
        (RunKind::Container, None) => Err(Failure::usage(
            "a container needs an image",
            "write `hostler run NAME IMAGE`",
        )),
        (RunKind::Process, Some(image)) => Err(Failure::usage(
            format!("a process has no image, and `{image}` stands where one would"),
            "write the command after `--`: `hostler run NAME --kind process -- COMMAND`",
        )),
    }
}

fn process(args: &RunArgs) -> Result<WorkloadSpec, Failure> {
    if args.pull.is_some() {
        return Err(Failure::usage(
            "a process has no image to pull",
            "leave --pull out",
        ));
    }
    if args.command.is_empty() {
        return Err(Failure::usage(
            "a process needs a command",
            "write it after `--`",
        ));
    }
    let mut spec = WorkloadSpec::of_process(&args.name, args.command.clone());
    spec.process = Some(ProcessSpec {
        working_dir: args.workdir.clone(),
        user: args.user.clone(),
        ..ProcessSpec::new(args.command.clone())
    });
    Ok(spec)
}

fn container(args: &RunArgs, image: &str) -> WorkloadSpec {
    let mut spec = WorkloadSpec::of_container(&args.name, image, args.command.clone());
    spec.container = Some(ContainerSpec {
        working_dir: args.workdir.clone(),
        user: args.user.clone(),
        pull: match args.pull {
            Some(RunPull::Always) => PullPolicy::Always,
            Some(RunPull::Never) => PullPolicy::Never,
            Some(RunPull::Missing) | None => PullPolicy::Missing,
        },
        ..ContainerSpec::new(image, args.command.clone())
    });
    spec
}

fn job(args: &RunArgs) -> WorkloadSpec {
    let bare = JobSpec::new(args.command.clone());
    let timeout = args
        .timeout
        .map(|most| u64::try_from(most.as_millis()).unwrap_or(u64::MAX));
    let mut spec = WorkloadSpec::bare(&args.name);
    spec.job = Some(JobSpec {
        image: args.job_image.clone().or_else(|| args.image.clone()),
        working_dir: args.workdir.clone(),
        user: args.user.clone(),
        retries: args.retries.unwrap_or_default(),
        timeout_ms: timeout,
        schedule: args.schedule.clone(),
        timezone: args
            .timezone
            .clone()
            .unwrap_or_else(|| bare.timezone.clone()),
        ..bare
    });
    spec
}

const fn policy(flag: Option<RunRestart>) -> RestartPolicy {
    match flag {
        Some(RunRestart::Always) | None => RestartPolicy::Always,
        Some(RunRestart::OnFailure) => RestartPolicy::OnFailure,
        Some(RunRestart::UnlessStopped) => RestartPolicy::UnlessStopped,
        Some(RunRestart::No) => RestartPolicy::No,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(line: &[&str]) -> Result<WorkloadSpec, Failure> {
        let words = ["hostler", "run"].iter().chain(line);
        let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!()
        };
        spec(*args)
    }

    #[test]
    fn an_image_makes_a_container_and_a_command_alone_a_process() {
        let web = parsed(&[
            "web",
            "busybox:local",
            "-p",
            "8081",
            "--",
            "httpd",
            "-f",
            "-p",
            "8081",
        ])
        .unwrap();
        let container = web.container.as_ref().unwrap();
        assert_eq!(container.image, "busybox:local");
        assert_eq!(container.command, ["httpd", "-f", "-p", "8081"]);
        assert_eq!(web.ports[0].host, 8081);
        assert!(web.check().is_ok());
        let ticker = parsed(&["ticker", "--kind", "process", "--", "bash", "-c", "true"]).unwrap();
        assert_eq!(
            ticker.process.as_ref().unwrap().command,
            ["bash", "-c", "true"]
        );
        assert!(ticker.check().is_ok());
    }

    #[test]
    fn flags_become_the_keys_of_the_spec() {
        let line = [
            "job", "--count", "3", "--cpu", "250m", "--memory", "64MiB", "--env", "A=b=c",
        ];
        let more = [
            "--restart",
            "on-failure",
            "--constraint",
            "zone == eu-1",
            "--strategy",
            "pack",
            "--singleton",
        ];
        let spec = parsed(&[&line[..], &more[..], &["--", "true"]].concat()).unwrap();
        assert_eq!(
            (spec.count, spec.resources.cpu.0, spec.resources.memory.0),
            (3, 250, 64 << 20)
        );
        assert_eq!(spec.env["A"], "b=c");
        assert_eq!(spec.restart.policy, RestartPolicy::OnFailure);
        assert_eq!(spec.placement.constraints[0].to_string(), "zone == eu-1");
        assert_eq!(spec.placement.strategy, Strategy::Pack);
        assert_eq!(spec.disconnect.policy, DisconnectPolicy::Singleton);
    }

    #[test]
    fn a_job_is_a_command_or_an_image_with_its_own_flags() {
        let line = ["tidy", "--job", "--retries", "2", "--timeout", "10m"];
        let more = ["--schedule", "30 2 * * *", "--timezone", "Europe/Berlin"];
        let spec = parsed(&[&line[..], &more[..], &["--", "tidy", "-a"]].concat()).unwrap();
        spec.check().unwrap();
        let job = spec.job.unwrap();
        assert_eq!((job.retries, job.timeout_ms), (2, Some(600_000)));
        assert_eq!(job.schedule.as_deref(), Some("30 2 * * *"));
        assert_eq!(
            (job.timezone.as_str(), job.command.len()),
            ("Europe/Berlin", 2)
        );
        let line = ["tidy", "--job", "--image", "busybox", "--", "true"];
        let job = parsed(&line).unwrap().job.unwrap();
        assert_eq!(job.image.as_deref(), Some("busybox"));
        for line in [
            &["run", "x", "--retries", "2", "--", "true"][..],
            &["run", "x", "--job", "--restart", "no", "--", "true"],
            &["run", "x", "--job", "--timezone", "UTC", "--", "true"],
        ] {
            let words = ["hostler"].iter().chain(line);
            assert!(Cli::try_parse_from(words).is_err(), "{line:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            &["web", "--kind", "container", "--", "true"][..],
            &["web", "busybox", "--kind", "process", "--", "true"],
            &["web"],
            &["web", "--pull", "always", "--", "true"],
        ] {
            assert_eq!(
                parsed(line).unwrap_err().status,
                ExitStatus::Usage,
                "{line:?}"
            );
        }
    }
}
