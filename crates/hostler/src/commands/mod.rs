//! One file per verb. A verb gets resolved settings, does its one thing over the API or by composing the
//! long-running parts, and says how it ended.

mod adopt;
mod agent;
mod apply;
mod archive;
mod audit;
mod authority;
mod backup;
mod completion;
mod copy;
mod cp;
mod demo;
mod desired;
mod doctor;
mod drain;
mod events;
mod exec;
mod explain;
mod history;
mod import;
mod install;
mod job;
mod login;
mod logs;
mod man;
mod miaas;
mod node;
mod pieces;
mod plan;
mod port_forward;
mod ps;
mod reload;
mod reopen;
mod restore;
mod rm;
mod rollout;
mod run;
mod secret;
mod server;
mod show;
mod skew;
mod specs;
mod terminal;
pub(crate) mod token;
mod up;
mod version;
mod wait;
mod why;

use std::future::Future;
use std::pin::Pin;

use hostler_kit::trust::ClientTls;
use hostler_kit::{Clock as _, SystemClock};
use hostler_model::Timestamp;
use hostler_wire::client::Client;
use serde::Serialize;

use crate::args::{
    AccessCommand, AgentArgs, ClientArgs, Command, ErrandCommand, MiaasCommand, SecretCommand,
    UpkeepCommand,
};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{
    AgentSettings, ClientSettings, Environment, RestoreSettings, ServerSettings, UpSettings,
};
use crate::status::ExitStatus;

/// A verb of whatever kind, under way.
type Work<'a> = Pin<Box<dyn Future<Output = Result<ExitStatus, Failure>> + 'a>>;

/// What a verb that talks to a server works with.
pub(crate) struct Remote<'a> {
    pub(crate) printer: &'a Printer,
    pub(crate) client: Client,
    pub(crate) addr: String,
    clock: SystemClock,
}

/// Runs a command to its end.
pub(crate) fn execute(
    command: Command,
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let ask = Ask::new(environment, printer);
    match command {
        Command::Up(args) => up::up(UpSettings::resolve(args, environment)?, printer),
        Command::Server(args) => {
            let settings = ServerSettings::resolve(args.clone(), environment)?;
            server::server(settings, (args, environment), printer)
        }
        Command::Agent(args) => {
            let settings = AgentSettings::resolve(AgentArgs::clone(&args), environment)?;
            agent::agent(settings, (*args, environment), printer)
        }
        Command::Service(command) => install::change(&command, environment, printer),
        Command::Run(args) => ask.remote(args.client.clone(), async |remote| {
            run::run(&remote, *args).await
        }),
        Command::Apply(args) => ask.remote(args.client.clone(), async |remote| {
            apply::apply(&remote, args).await
        }),
        Command::Plan(args) => ask.remote(args.client.clone(), async |remote| {
            plan::plan(&remote, args).await
        }),
        Command::Import(args) => ask.remote(args.client.clone(), async |remote| {
            import::import(&remote, environment, *args).await
        }),
        Command::Ps(args) => ask.remote(args.client.clone(), async |remote| {
            ps::ps(&remote, args).await
        }),
        Command::Show(args) => ask.remote(args.client.clone(), async |remote| {
            show::show(&remote, args).await
        }),
        Command::Why(args) => ask.remote(args.client.clone(), async |remote| {
            why::why(&remote, args).await
        }),
        Command::Logs(args) => ask.remote(args.client.clone(), async |remote| {
            logs::logs(&remote, args).await
        }),
        Command::Errand(command) => {
            let client = command.client().clone();
            ask.remote(client, async |remote| errand(&remote, command).await)
        }
        Command::Stop(args) => ask.remote(args.client.clone(), async |remote| {
            desired::stop(&remote, args).await
        }),
        Command::Start(args) => ask.remote(args.client.clone(), async |remote| {
            desired::start(&remote, args).await
        }),
        Command::Restart(args) => ask.remote(args.client.clone(), async |remote| {
            desired::restart(&remote, args).await
        }),
        Command::Rm(args) => ask.remote(args.client.clone(), async |remote| {
            rm::rm(&remote, args).await
        }),
        Command::History(args) => ask.remote(args.client.clone(), async |remote| {
            history::history(&remote, args).await
        }),
        Command::Rollback(args) => ask.remote(args.client.clone(), async |remote| {
            rollout::rollback(&remote, args).await
        }),
        Command::Promote(args) => ask.remote(args.client.clone(), async |remote| {
            rollout::promote(&remote, args).await
        }),
        Command::Job(command) => {
            let client = command.client().clone();
            ask.remote(client, async |remote| job::job(&remote, command).await)
        }
        Command::Secret(command) => ask.secret(command),
        Command::Node(command) => {
            let client = node::client(&command).clone();
            ask.remote(client, async |remote| node::node(&remote, command).await)
        }
        Command::Access(command) => access(&ask, command),
        Command::Events(args) => ask.remote(args.client.clone(), async |remote| {
            events::events(&remote, args).await
        }),
        Command::Upkeep(command) => upkeep(&ask, command),
        Command::Version(args) => ask.remote(args.client.clone(), async |remote| {
            version::version(&remote, args).await
        }),
        Command::Explain(args) => explain::explain(&args, printer),
        Command::Completion(args) => Ok(completion::completion(&args, printer)),
        Command::Man(args) => man::man(&args, printer),
        Command::Openapi => Ok(openapi(printer)),
    }
}

fn openapi(printer: &Printer) -> ExitStatus {
    printer.text(hostler_doors::OPENAPI);
    ExitStatus::Done
}

fn access(ask: &Ask<'_>, command: AccessCommand) -> Result<ExitStatus, Failure> {
    match command {
        AccessCommand::Token(command) => {
            let client = command.client().clone();
            ask.remote(client, async |remote| token::token(&remote, command).await)
        }
        AccessCommand::Authority(command) => {
            let client = command.client().clone();
            ask.remote(client, async |remote| {
                authority::authority(&remote, command).await
            })
        }
        AccessCommand::Miaas(MiaasCommand::RotateKey(args)) => ask
            .remote(args.client.clone(), async |remote| {
                miaas::rotate_key(&remote, args).await
            }),
        AccessCommand::Login(args) => login::login(args, ask.environment, ask.printer),
        AccessCommand::Logout => login::logout(ask.environment, ask.printer),
    }
}

async fn errand(remote: &Remote<'_>, command: ErrandCommand) -> Result<ExitStatus, Failure> {
    match command {
        ErrandCommand::Exec(args) => exec::exec(remote, args).await,
        ErrandCommand::PortForward(args) => port_forward::port_forward(remote, args).await,
        ErrandCommand::Cp(args) => cp::cp(remote, args).await,
    }
}

fn upkeep(ask: &Ask<'_>, command: UpkeepCommand) -> Result<ExitStatus, Failure> {
    let (environment, printer) = (ask.environment, ask.printer);
    match command {
        UpkeepCommand::Audit(args) => ask.remote(args.client.clone(), async |remote| {
            audit::audit(&remote, args).await
        }),
        UpkeepCommand::Doctor(args) => ask.remote(args.client.clone(), async |remote| {
            doctor::doctor(&remote, args, environment).await
        }),
        UpkeepCommand::Backup(args) => ask.remote(args.client.clone(), async |remote| {
            backup::backup(&remote, args).await
        }),
        UpkeepCommand::Restore(args) => {
            restore::restore(RestoreSettings::resolve(args, environment)?, printer)
        }
    }
}

struct Ask<'a> {
    environment: &'a Environment,
    printer: &'a Printer,
}

impl<'a> Ask<'a> {
    const fn new(environment: &'a Environment, printer: &'a Printer) -> Self {
        Self {
            environment,
            printer,
        }
    }

    fn secret(&self, command: SecretCommand) -> Result<ExitStatus, Failure> {
        let client = command.client().clone();
        self.remote(client, async |remote| {
            secret::secret(&remote, command).await
        })
    }

    /// Runs a verb that talks to a server, on one thread.
    fn remote<F>(
        &self,
        args: ClientArgs,
        verb: impl FnOnce(Remote<'a>) -> F,
    ) -> Result<ExitStatus, Failure>
    where
        F: Future<Output = Result<ExitStatus, Failure>>,
    {
        let (runtime, remote) = self.reach(args)?;
        finish(&runtime, Box::pin(verb(remote)))
    }

    fn reach(&self, args: ClientArgs) -> Result<(tokio::runtime::Runtime, Remote<'a>), Failure> {
        let settings = ClientSettings::resolve(args, self.environment)?;
        let runtime = single_thread()?;
        let inside = runtime.enter();
        let remote = Remote::new(&settings, self.printer)?;
        drop(inside);
        Ok((runtime, remote))
    }
}

/// One verb of thirty to the end. A runtime's loop is compiled for each kind of work, and here there is one kind.
fn finish(runtime: &tokio::runtime::Runtime, work: Work<'_>) -> Result<ExitStatus, Failure> {
    runtime.block_on(work)
}

impl<'a> Remote<'a> {
    pub(crate) fn new(settings: &ClientSettings, printer: &'a Printer) -> Result<Self, Failure> {
        let tls = (settings.addr.starts_with("https://"))
            .then(|| ClientTls::new(&settings.anchors, None))
            .transpose()?;
        let tls = tls.map(|tls| tls.config());
        let client = Client::secured(&settings.addr, settings.token.as_deref(), tls)?;
        Ok(Self {
            printer,
            client,
            addr: settings.addr.clone(),
            clock: SystemClock::new(),
        })
    }

    /// The wall clock's moment.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.wall_millis())
    }
}

/// A runtime for work that needs no second thread.
pub(crate) fn single_thread() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(no_runtime)
}

/// A runtime with so many workers.
pub(crate) fn multi_thread(workers: usize) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(no_runtime)
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::failed(
        format!("cannot start: {error}"),
        "raise the limit of open files and threads",
    )
}

/// The word that a value of the API has on the wire.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}
