//! `install` and `uninstall`: a part as a service of systemd, and off the machine again.
//!
//! ```text
//!   settings are read as the part will read them ──► program, units, settings ──► reload, enable ──► start ──► 3 s ──► active?
//!        └── refused: nothing was changed                └── nothing changed and it runs: nothing to do
//! ```
//!
//! Each step looks whether it is done already, so that installing again is the upgrade, and goes on where an earlier
//! try broke off. What the agent runs is touched by neither command: it lives in a slice of its own.

mod config;
mod parts;
mod place;
mod remove;
mod spot;
mod systemd;

use std::path::Path;

use self::parts::{ALL, PROGRAM, SERVER_DATA, SERVER_USER, SLICE, UNITS};
use self::place::{Place, Put};
use self::systemd::Systemd;
use super::single_thread;
use crate::args::{InstallArgs, Part, ServiceCommand};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::Environment;
use crate::status::ExitStatus;

/// This very program, also where its file was replaced since it began.
const ITSELF: &str = "/proc/self/exe";

/// What both commands work with.
struct Site<'a> {
    place: Place,
    environment: &'a Environment,
    printer: &'a Printer,
}

/// What installing came to.
struct Outcome {
    is_changed: bool,
    is_active: bool,
    /// What systemd said, if it said no.
    words: String,
}

pub(crate) fn change(
    command: &ServiceCommand,
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let site = Site::of(environment, printer)?;
    single_thread()?.block_on(Box::pin(async {
        match command {
            ServiceCommand::Install(args) if args.part == Part::SpotAgent => {
                spot::install(&site, args).await
            }
            ServiceCommand::Install(args) => site.install(args).await,
            ServiceCommand::Uninstall(args) => remove::uninstall(&site, args).await,
        }
    }))
}

impl<'a> Site<'a> {
    fn of(environment: &'a Environment, printer: &'a Printer) -> Result<Self, Failure> {
        Ok(Self {
            place: Place::of(environment)?,
            environment,
            printer,
        })
    }

    const fn systemd(&self) -> Systemd<'_> {
        Systemd(&self.place)
    }

    async fn install(&self, args: &InstallArgs) -> Result<ExitStatus, Failure> {
        let part = args.part;
        let files = config::files(&self.place, args, self.environment)?;
        let mut is_changed = self.settle(part, &files)?;
        if part == Part::Server {
            self.make_user().await?;
        }
        let program = program_of(std::env::current_exe().ok().as_deref());
        let is_newer = match program.as_str() {
            PROGRAM => self.place.put_program(Path::new(ITSELF), PROGRAM)?,
            // A package brought it, and has replaced it if the service runs another.
            packaged => self.runs_another(part.service(), packaged).await?,
        };
        if let Some(link) = part.link() {
            // Beside it, so that both may be moved together.
            let to = if program == PROGRAM {
                "hostler"
            } else {
                &program
            };
            is_changed |= self.place.link(link, to)?;
        }
        is_changed |= is_newer;
        let outcome = self
            .serve(part, &self.unit(part, &program), is_changed)
            .await?;
        if is_newer {
            self.restart_others(part).await?;
        }
        self.tell(part, &program, (outcome, is_newer))
    }

    /// Writes the settings; a refusal leaves none of them behind.
    fn settle(&self, part: Part, files: &[Put]) -> Result<bool, Failure> {
        let mut is_changed = false;
        let mut fresh: Vec<&str> = Vec::new();
        for file in files {
            let is_there = self.place.has(&file.path);
            let is_read = file.path == part.settings()[0];
            let check = |path: &Path| match is_read {
                true => config::check(part, path, &self.place),
                false => Ok(()),
            };
            match self.place.put_checked(file, check) {
                Ok(is_new) => is_changed |= is_new,
                Err(failure) => {
                    for path in fresh {
                        self.place.remove(path)?;
                    }
                    return Err(failure);
                }
            }
            if !is_there {
                fresh.push(&file.path);
            }
        }
        Ok(is_changed)
    }

    /// The control plane works as a user who may do nothing else.
    async fn make_user(&self) -> Result<(), Failure> {
        let users = self.place.read("/etc/passwd")?.unwrap_or_default();
        let own = format!("{SERVER_USER}:");
        if users.lines().any(|line| line.starts_with(&own)) {
            return Ok(());
        }
        let words = [
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            SERVER_DATA,
            "--shell",
            "/usr/sbin/nologin",
            SERVER_USER,
        ];
        let ended = self.place.tool("useradd", &words).await?;
        if ended.is_good {
            return Ok(());
        }
        let sentence = format!("cannot make the user {SERVER_USER}: {}", ended.stderr);
        Err(Failure::failed(
            sentence,
            "make it yourself, then install again",
        ))
    }

    fn unit(&self, part: Part, program: &str) -> String {
        let unit = part.unit(program);
        let data = config::toml_text(&self.place, part.settings()[0], "data_dir");
        match data.filter(|data| part == Part::Server && data != SERVER_DATA) {
            // What is nobody else's must be named to be writable.
            Some(data) => {
                let strict = "ProtectSystem=strict\n";
                unit.replace(strict, &format!("{strict}ReadWritePaths={data}\n"))
            }
            None => unit,
        }
    }

    /// From the unit's file to a service that stays.
    async fn serve(&self, part: Part, unit: &str, is_changed: bool) -> Result<Outcome, Failure> {
        let mut is_new = self.place.put(&Put::new(part.unit_path(), unit, 0o644))?;
        if part.has_work() {
            let (name, text) = SLICE;
            is_new |= self
                .place
                .put(&Put::new(format!("{UNITS}/{name}"), text, 0o644))?;
        }
        let (systemd, service) = (self.systemd(), part.service());
        if is_new {
            systemd.reload().await?;
        }
        systemd.enable(service).await?;
        let is_changed = is_changed || is_new;
        let verb = match systemd.is_active(service).await? {
            true if is_changed => Some("restart"),
            true => None,
            false => Some("start"),
        };
        let Some(verb) = verb else {
            return Ok(Outcome {
                is_changed,
                is_active: true,
                words: String::new(),
            });
        };
        let words = systemd.start(verb, service).await?.stderr;
        let is_active = systemd.stays(service).await?;
        Ok(Outcome {
            is_changed: true,
            is_active,
            words,
        })
    }

    /// Whether the service runs, and from a file that is no longer there under that name.
    async fn runs_another(&self, service: &str, program: &str) -> Result<bool, Failure> {
        let pid = self.systemd().main_pid(service).await?;
        let runs = |pid| {
            let running = self.place.at(&format!("/proc/{pid}/exe"));
            !place::is_one(&running, &self.place.at(program))
        };
        Ok(pid.is_some_and(runs))
    }

    /// What else of ours runs the program that was just replaced.
    async fn restart_others(&self, but: Part) -> Result<(), Failure> {
        let (systemd, printer) = (self.systemd(), self.printer);
        let shares = |part: &Part| *part != but && *part != Part::SpotAgent;
        for part in ALL.into_iter().filter(shares) {
            let service = part.service();
            if self.place.has(&part.unit_path()) && systemd.is_active(service).await? {
                systemd.start("restart", service).await?;
                printer.talk(&format!("{service} was started anew with the same program"));
            }
        }
        Ok(())
    }

    fn tell(
        &self,
        part: Part,
        program: &str,
        (outcome, is_newer): (Outcome, bool),
    ) -> Result<ExitStatus, Failure> {
        let (service, printer) = (part.service(), self.printer);
        if !outcome.is_active {
            let mut advice = format!("see why: journalctl -u {service} -n 50");
            let previous = format!("{program}.previous");
            if is_newer && self.place.has(&previous) {
                advice.push_str(&format!("; the program before is {previous}"));
            }
            let sentence = format!("{service} is not active after 3 seconds");
            let words = outcome.words.lines().map(str::to_owned).collect();
            return Err(Failure::failed(sentence, advice).with_details(words));
        }
        let version = env!("CARGO_PKG_VERSION");
        printer.talk(&match outcome.is_changed {
            true => format!("{service} is active: {program}, version {version}"),
            false => format!("{service} is active; there was nothing to change"),
        });
        printer.talk(&format!("settings: {}", part.settings()[0]));
        printer.talk(&format!("log: journalctl -u {service} -f"));
        match part {
            Part::Server => self.tell_login(),
            Part::Agent => self.tell_joining(),
            _ => {}
        }
        Ok(ExitStatus::Done)
    }

    /// An agent without a token is active and joins nothing.
    fn tell_joining(&self) {
        let said = |key| config::toml_text(&self.place, Part::Agent.settings()[0], key);
        let is_secure = said("server").is_some_and(|server| server.starts_with("https://"));
        if is_secure && said("token_file").is_none() {
            self.printer.talk(
                "no join token was given: a machine that has not joined before needs one, as HOSTLER_JOIN_TOKEN before \
                 the command or with --token-file",
            );
        }
    }

    /// How a person gets in, and a machine.
    fn tell_login(&self) {
        let path = Part::Server.settings()[0];
        if config::is_insecure(&self.place, path) {
            return;
        }
        let data = config::toml_text(&self.place, path, "data_dir");
        let data = data.unwrap_or_else(|| SERVER_DATA.to_owned());
        let found = match data == SERVER_DATA {
            true => "root's hostler finds it by itself".to_owned(),
            false => format!("hostler finds it with HOSTLER_DATA_DIR={data}"),
        };
        let printer = self.printer;
        printer.talk(&format!("the admin's login: {data}/admin.toml; {found}"));
        printer.talk("to let a machine join: hostler token create");
    }
}

/// Where the unit finds the program: where a package put it, else where we do.
fn program_of(own: Option<&Path>) -> String {
    let packaged = own.filter(|own| own.starts_with("/usr/bin") || own.starts_with("/bin"));
    packaged.map_or_else(|| PROGRAM.to_owned(), |own| own.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_a_package_is_used_where_it_is() {
        let of = |path: &str| program_of(Some(Path::new(path)));
        assert_eq!(of("/usr/bin/hostler"), "/usr/bin/hostler");
        assert_eq!(of("/home/ada/hostler"), PROGRAM);
        assert_eq!(program_of(None), PROGRAM);
        let unit = Part::Agent.unit("/usr/bin/hostler");
        assert!(
            unit.contains("ExecStart=/usr/bin/hostler agent\n"),
            "{unit}"
        );
    }
}
