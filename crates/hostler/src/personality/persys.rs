//! `persys-agent`: registers at a Persys scheduler, serves its calls, and passes requests on to it.
//!
//! ```text
//!   persys-agent [-standalone] [-insecure] [--config FILE]                the agent
//!   persys-agent apply|delete|retry --id ID …                             one call to the scheduler
//! ```
//!
//! Flags take one dash or two, and their values behind `=` or a space. Two listeners are owned here: the service on
//! `PERSYS_GRPC_PORT`, over TLS unless that is switched off, and the figures on `PERSYS_METRICS_PORT`, in plain text.

mod figures;
mod file;
mod line;
mod relay;
mod settings;
mod spec_file;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostler_agent::persys::{Figures, Persys};
use hostler_agent::{Agent, AgentConfig, Care, GuardFile, Parts, Uplink};
use hostler_doors::{BindError, Bound, Listener, serve};
use hostler_kit::trust::{ClientTls, MemberFiles, ServerTls};
use hostler_kit::{Clock, Entropy, SystemClock, SystemEntropy, Tasks, telemetry};
use hostler_model::spec::Kind;
use hostler_runtime::container::Registries;

use crate::commands::single_thread;
use crate::compose::{
    Notify, Signals, compose_runtime, container_runtime, holdings, shim, shut_down, usual_guard,
    vm_runtime, with_volumes,
};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{AgentSettings, Environment, persys_files_refused};
use crate::status::ExitStatus;

use line::Given;
use settings::Settings;

const NAME: &str = "persys-agent";
const USAGE: &str = "\
Usage: persys-agent [-standalone] [-insecure] [--config FILE]
       persys-agent apply  --id ID [--type T --spec-file FILE] [--revision R] [--desired-state S]
       persys-agent delete --id ID
       persys-agent retry  --id ID

  -standalone      serve, and call no scheduler
  -insecure        speak without TLS, both ways
  --config FILE    read this file instead of agent_config.yaml in /etc/persys, ~/.persys or here
  -h, -version     this text; the version

TLS is on both ways, with the files PERSYS_TLS_CERT, PERSYS_TLS_KEY and PERSYS_TLS_CA.
apply, delete and retry ask the scheduler at PERSYS_SCHEDULER_ADDR and print its answer.
PERSYS_* variables count more than the file; docs/guide/persys-agent.md lists them.
";

/// What the node's owner sets for agents of every contract.
struct Owned {
    registries: Registries,
    guard: GuardFile,
    care: Care,
}

pub(super) fn main(
    words: &[String],
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let owned = Owned {
        registries: Registries::default(),
        guard: usual_guard(),
        care: Care::default(),
    };
    main_with(words, environment, owned, printer)
}

fn main_with(
    words: &[String],
    environment: &Environment,
    owned: Owned,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let given = Given::parse(words)?;
    if given.wants_help {
        printer.raw(USAGE);
        return Ok(ExitStatus::Done);
    }
    if given.wants_version {
        printer.data(&format!("{NAME} (hostler {})", env!("CARGO_PKG_VERSION")));
        return Ok(ExitStatus::Done);
    }
    let settings = Settings::resolve(&given, environment)?;
    telemetry::install(&settings.log, telemetry::Format::Text);
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    match &given.verb {
        Some(verb) => single_thread()?.block_on(Box::pin(relay::ask(verb, &settings, printer))),
        None => single_thread()?.block_on(Box::pin(look_after((settings, owned), printer))),
    }
}

/// `hostler agent --dialect persys`: the agent's own variables count more than what is said of all agents.
pub(super) fn of_settings(
    told: &AgentSettings,
    (server, file): (Option<&str>, Option<&Path>),
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let scheduler = server.map(|server| server.trim_end_matches('/').to_owned());
    let (certificate, key) = told.trust.certificate.clone().unzip();
    let state = told.data_dir.join("state.db").display().to_string();
    let (nfs, ceph) = (&told.volumes.nfs, &told.volumes.ceph);
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let variables = [
        ("PERSYS_TLS_CERT", path(&certificate)),
        ("PERSYS_TLS_KEY", path(&key)),
        ("PERSYS_TLS_CA", path(&told.trust.ca)),
        ("PERSYS_STORAGE_LOCAL_ROOT", path(&told.volumes.local_root)),
        ("PERSYS_STORAGE_NFS_SERVER", nfs.server.clone()),
        ("PERSYS_STORAGE_NFS_EXPORT", nfs.export.clone()),
        ("PERSYS_STORAGE_NFS_OPTIONS", nfs.options.clone()),
        ("PERSYS_STORAGE_NFS_STAGE_DIR", path(&nfs.stage_dir)),
        ("PERSYS_STORAGE_CEPH_CLUSTER", ceph.cluster.clone()),
        ("PERSYS_STORAGE_CEPH_POOL", ceph.pool.clone()),
        ("PERSYS_STORAGE_CEPH_USER", ceph.user.clone()),
        ("PERSYS_STORAGE_CEPH_KEYRING", path(&ceph.keyring)),
        ("PERSYS_STORAGE_CEPH_STAGE_DIR", path(&ceph.stage_dir)),
        ("PERSYS_SCHEDULER_ADDR", scheduler),
        ("PERSYS_NODE_ID", told.name.clone()),
        ("PERSYS_STATE_PATH", Some(state)),
        ("DOCKER_HOST", Some(told.docker_socket.clone())),
    ];
    let set = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let plain = told.persys_insecure.then(|| "-insecure".to_owned());
    let named = file.map(|file| ["--config".to_owned(), file.display().to_string()]);
    let words: Vec<String> = plain
        .into_iter()
        .chain(named.into_iter().flatten())
        .collect();
    let owned = Owned {
        registries: told.registries.clone(),
        guard: told.guard.clone(),
        care: told.care,
    };
    main_with(&words, &environment.with_defaults(set), owned, printer)
}

/// Serves and calls until it is told to stop; what runs goes on without it.
async fn look_after(
    (settings, owned): (Settings, Owned),
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let mut signals = Signals::new()?;
    let tasks = Tasks::new();
    let tls = serving(settings.tls.service.as_ref())?;
    let service = bind(settings.grpc, "PERSYS_GRPC_PORT").await?;
    let service = match &tls {
        Some(tls) => service.secured(tls),
        None => service,
    };
    let shown = bind(settings.metrics, "PERSYS_METRICS_PORT").await?;
    let (grpc, metrics) = (service.addr(), shown.addr());
    let figures = Figures::default();
    let started = start((settings, owned), grpc, figures.clone(), &tasks).await;
    let agent = started.map_err(|failure| match failure.status {
        ExitStatus::DataUnwritable => Failure {
            advice: "set PERSYS_STATE_PATH to where this user may write".to_owned(),
            ..failure
        },
        _ => failure,
    })?;
    if let Some(services) = agent.services() {
        let serving = serve(service, services.into_axum_router(), tasks.clone());
        tasks.spawn("persys listener", serving);
    }
    let showing = serve(shown, figures::router(figures), tasks.clone());
    tasks.spawn("figures listener", showing);
    printer.data(&format!("serving persys.agent.v1 on {grpc}"));
    printer.data(&format!("serving metrics on http://{metrics}/metrics"));

    let (notify, vitals) = (Notify::of_process(), agent.vitals());
    notify.attend(&tasks, move || vitals.is_alive());
    notify.answer_reloads(&tasks);
    notify.follow(agent.status(), &tasks);
    notify.ready();
    let mut status = agent.status();
    let telling = async {
        loop {
            let now = status.borrow_and_update().to_string();
            printer.data(&now);
            if status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    // Cancel-safe: both arms only wait and write whole lines.
    tokio::select! {
        () = signals.stop() => {}
        () = telling => {}
    }
    notify.stopping();
    shut_down(&tasks).await;
    agent.stopped().await;
    Ok(ExitStatus::Done)
}

/// Whoever calls must show a certificate of the authority in the files; none: plain text.
fn serving(files: Option<&MemberFiles>) -> Result<Option<ServerTls>, Failure> {
    let tls = files.cloned().map(ServerTls::of_files).transpose();
    tls.map_err(|error| persys_files_refused("the service", &error))
}

/// The scheduler must show a certificate of the authority in the files for the name that is called; none: plain text.
fn calling(files: Option<&MemberFiles>) -> Result<Option<ClientTls>, Failure> {
    let tls = files.cloned().map(ClientTls::of_files).transpose();
    tls.map_err(|error| persys_files_refused("the scheduler", &error))
}

async fn start(
    (settings, owned): (Settings, Owned),
    grpc: SocketAddr,
    figures: Figures,
    tasks: &Tasks,
) -> Result<Agent, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let seams = (&clock, entropy.as_ref());
    let holdings = holdings(&settings.data_dir, settings.volumes, seams)?;
    let mut runtimes = Vec::new();
    if settings.kinds.contains(&Kind::Container) {
        let seams = (&clock, entropy.as_ref());
        let engine = (settings.docker_socket.as_str(), owned.registries);
        let engine = container_runtime(&settings.data_dir, engine, seams, tasks)?;
        runtimes.push(with_volumes(engine, &holdings, tasks));
    }
    if settings.kinds.contains(&Kind::Vm) {
        let shim = shim(&settings.data_dir)?;
        let machines = vm_runtime(&settings.data_dir, settings.vm, shim, (&clock, tasks));
        runtimes.push(with_volumes(machines, &holdings, tasks));
    }
    if settings.kinds.contains(&Kind::Compose) {
        let seams = (&clock, entropy.as_ref());
        let driver = compose_runtime(&settings.data_dir, &settings.docker_socket, seams, tasks)?;
        runtimes.push(driver);
    }
    let scheduler = settings.tls.scheduler.as_ref();
    let persys = Persys {
        tls: calling(scheduler.filter(|_| !settings.standalone))?,
        standalone: settings.standalone,
        grpc_endpoint: settings.grpc_endpoint,
        grpc_port: grpc.port(),
        version: settings.version,
        kinds: settings.kinds,
        admission: settings.admission,
        control_stream: settings.control_stream,
        figures,
        ..Persys::new(settings.node_id.clone())
    };
    let config = AgentConfig {
        name: Some(settings.node_id),
        labels: settings.labels,
        uplink: Uplink::Persys(persys),
        guard: owned.guard,
        care: owned.care,
        ..AgentConfig::new(settings.scheduler, settings.data_dir)
    };
    let parts = Parts::new(runtimes, clock, entropy, tasks.clone());
    Ok(Agent::start(config, parts).await?)
}

/// Takes a port; a taken one is told with the setting that moves it.
async fn bind(addr: SocketAddr, setting: &str) -> Result<Bound, Failure> {
    Listener::plain(addr)
        .bind()
        .await
        .map_err(|error| match error {
            BindError::PortTaken { addr } => Failure::new(
                ExitStatus::PortTaken,
                format!(
                    "port {} of {} is taken by another program",
                    addr.port(),
                    addr.ip()
                ),
                format!("stop it, or choose another port with {setting}"),
            ),
            error => error.into(),
        })
}
