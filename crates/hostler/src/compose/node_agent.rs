//! The agent of this machine: drivers, ledger and the session with the control plane.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use hostler_agent::{
    Admittance, Agent, AgentConfig, AgentStatus, ArrivalTools, Birthplace, Care, Dial, Found,
    GuardFile, Journal, LocalMachine, Parts, StartError, TcpDial, ToLog, Tuning, Uplink, Vitals,
};
use hostler_kit::{Clock, Entropy, SystemClock, SystemEntropy, Tasks};
use hostler_model::Resources;
use hostler_runtime::Runtime;
use hostler_runtime::compose::{ComposeConfig, ComposeRuntime, Programs};
use hostler_runtime::container::{ContainerConfig, ContainerRuntime, Registries};
use hostler_runtime::process::{ProcessConfig, ProcessRuntime, ShimCommand};
use hostler_runtime::vm::{VmConfig, VmRuntime, VmSettings};
use hostler_runtime::volumes::{Holdings, HoldingsConfig, Tools, VolumeSettings, WithVolumes};
use tokio::sync::watch;

use super::notify::Notify;
use super::shim::shim;
use crate::failure::Failure;
use crate::settings::{AgentTrust, Environment};
use crate::status::ExitStatus;

/// What the agent is composed with.
#[derive(Debug)]
pub(crate) struct NodeAgentConfig {
    pub(crate) server: String,
    pub(crate) trust: AgentTrust,
    /// Whether the disk may be a copy of another machine's: what a person has set as this machine's mark. The agent
    /// beside its own control plane does not ask.
    pub(crate) machine: Option<MachineId>,
    pub(crate) data_dir: PathBuf,
    pub(crate) name: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) docker_socket: String,
    pub(crate) vm: VmSettings,
    pub(crate) volumes: VolumeSettings,
    pub(crate) registries: Registries,
    pub(crate) guard: GuardFile,
    pub(crate) reserve: Resources,
    pub(crate) care: Care,
    /// The contract, and where the lines go that it promises.
    pub(crate) uplink: Uplink,
    pub(crate) journal: Arc<dyn Journal>,
}

/// What a person has set as this machine's mark, if anything.
#[derive(Debug, Clone, Default)]
pub(crate) struct MachineId(pub(crate) Option<String>);

impl NodeAgentConfig {
    /// An agent of our own contract with all defaults.
    pub(crate) fn new(server: String, data_dir: PathBuf, docker_socket: String) -> Self {
        let vm = VmSettings {
            images: vec![data_dir.join("images")],
            ..VmSettings::default()
        };
        Self {
            server,
            trust: AgentTrust::default(),
            machine: None,
            data_dir,
            name: None,
            labels: BTreeMap::new(),
            docker_socket,
            vm,
            volumes: VolumeSettings::default(),
            registries: Registries::default(),
            guard: usual_guard(),
            reserve: Resources::ZERO,
            care: Care::default(),
            uplink: Uplink::Session,
            journal: Arc::new(ToLog),
        }
    }
}

/// A running agent.
pub(crate) struct NodeAgent {
    agent: Agent,
    container: Arc<ContainerRuntime>,
}

impl NodeAgent {
    /// Starts the agent; it looks for the control plane by itself.
    pub(crate) async fn start(config: NodeAgentConfig, tasks: &Tasks) -> Result<Self, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let birthplace = birthplace(&config, (&clock, &entropy), tasks).await?;
        let units = config.data_dir.join("units");
        let unwritable = |error: std::io::Error| data_failure(&config.data_dir, &error);
        std::fs::create_dir_all(&units).map_err(unwritable)?;
        let owner = owner(&units, entropy.as_ref()).map_err(unwritable)?;
        let shim = shim(&config.data_dir)?;
        let process = ProcessRuntime::new(ProcessConfig {
            dir: units.join("process"),
            shim: shim.clone(),
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
        });
        let socket = config.docker_socket;
        let container = Arc::new(ContainerRuntime::new(ContainerConfig {
            engine: socket.clone(),
            dir: units.join("container"),
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
            owner: owner.clone(),
            registries: config.registries,
        }));
        let compose = project_driver(&units, &socket, (&clock, owner), tasks);
        let engine = Arc::clone(&container) as Arc<dyn Runtime>;
        let vm = vm_runtime(&config.data_dir, config.vm, shim, (&clock, tasks));
        let seams = (&clock, entropy.as_ref());
        let holdings = holdings(&config.data_dir, config.volumes, seams)?;
        let mut runtimes: Vec<Arc<dyn Runtime>> = [Arc::new(process), engine, vm]
            .map(|runtime| with_volumes(runtime, &holdings, tasks))
            .into();
        runtimes.push(compose);
        let agent_config = AgentConfig {
            invitation: config.trust.invitation,
            anchors: config.trust.anchors,
            certificate: config.trust.certificate,
            birthplace,
            introduces_key: true,
            name: config.name,
            labels: config.labels,
            reserved: config.reserve,
            care: config.care,
            uplink: config.uplink,
            journal: config.journal,
            guard: config.guard,
            ..AgentConfig::new(config.server, config.data_dir)
        };
        let agent = Agent::start(
            agent_config,
            Parts::new(runtimes, clock, entropy, tasks.clone()),
        )
        .await?;
        Ok(Self { agent, container })
    }

    /// Tells it anew what may change while it runs.
    pub(crate) fn tune(&self, tuning: Tuning) {
        self.agent.tune(tuning);
    }

    /// The same of where images come from.
    pub(crate) fn set_registries(&self, registries: Registries) {
        self.container.set_registries(registries);
    }

    /// How it stands with the control plane.
    pub(crate) fn status(&self) -> watch::Receiver<AgentStatus> {
        self.agent.status()
    }

    /// What its contract wants served on the node.
    pub(crate) fn services(&self) -> Option<Router> {
        let services = self.agent.services();
        services.map(|services| services.into_axum_router())
    }

    /// What it tells about itself.
    pub(crate) fn vitals(&self) -> Vitals {
        self.agent.vitals()
    }

    /// Whether the container engine has the image already; one that does not answer has none.
    pub(crate) async fn has_image(&self, image: &str) -> bool {
        self.container.has_image(image).await.unwrap_or(false)
    }

    /// Completes when the agent has ended; its units run on.
    pub(crate) async fn stopped(&self) {
        self.agent.stopped().await;
    }
}

/// Where the node's identity was made. Before anything else of the data directory is looked at.
async fn birthplace(
    config: &NodeAgentConfig,
    (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
    tasks: &Tasks,
) -> Result<Option<Birthplace>, Failure> {
    let Some(MachineId(told)) = config.machine.clone() else {
        return Ok(None);
    };
    std::fs::create_dir_all(&config.data_dir)
        .map_err(|error| data_failure(&config.data_dir, &error))?;
    let admittance = match &config.trust.invitation {
        _ if config.server.starts_with("http://") => Admittance::Joins,
        Some(token) => Admittance::Asks(token.clone()),
        None => Admittance::Needs,
    };
    let machine = LocalMachine::new();
    let elsewhere = match Birthplace::look(&config.data_dir, (&machine, told), admittance)? {
        Found::Here(birthplace) => return Ok(Some(birthplace)),
        Found::Elsewhere(elsewhere) => elsewhere,
    };
    // The answer may take long, and the service manager is not to wait for it.
    let (notify, asking) = (Notify::of_process(), tasks.child());
    notify.attend(&asking, || true);
    notify.status("asks to be let in as a node of its own");
    notify.ready();
    let asked = AgentConfig {
        invitation: config.trust.invitation.clone(),
        anchors: config.trust.anchors.clone(),
        name: config.name.clone(),
        labels: config.labels.clone(),
        ..AgentConfig::new(config.server.clone(), config.data_dir.clone())
    };
    let dial: Arc<dyn Dial> = Arc::new(TcpDial);
    let tools = ArrivalTools {
        clock,
        entropy,
        dial: &dial,
        machine: &machine,
        say: &|text: &str| notify.status(text),
    };
    let settled = elsewhere.settle(&asked, tools).await;
    asking.stop();
    Ok(Some(settled?))
}

/// Where the node's owner says what may run here, unless an agent is told otherwise; it holds for agents of every
/// contract.
pub(crate) fn usual_guard() -> GuardFile {
    GuardFile::Usual(PathBuf::from("/etc/hostler/guard.toml"))
}

/// The container driver alone, for the agents of contracts that know no plain processes.
pub(crate) fn container_runtime(
    data_dir: &Path,
    (docker_socket, registries): (&str, Registries),
    (clock, entropy): (&Arc<dyn Clock>, &dyn Entropy),
    tasks: &Tasks,
) -> Result<Arc<dyn Runtime>, Failure> {
    let units = data_dir.join("units");
    let unwritable = |error: std::io::Error| data_failure(data_dir, &error);
    std::fs::create_dir_all(&units).map_err(unwritable)?;
    let owner = owner(&units, entropy).map_err(unwritable)?;
    Ok(Arc::new(ContainerRuntime::new(ContainerConfig {
        engine: docker_socket.to_owned(),
        dir: units.join("container"),
        clock: Arc::clone(clock),
        tasks: tasks.clone(),
        owner,
        registries,
    })))
}

/// The driver of virtual machines.
pub(crate) fn vm_runtime(
    data_dir: &Path,
    settings: VmSettings,
    shim: ShimCommand,
    (clock, tasks): (&Arc<dyn Clock>, &Tasks),
) -> Arc<dyn Runtime> {
    Arc::new(VmRuntime::new(VmConfig {
        dir: data_dir.join("units").join("vm"),
        shim,
        clock: Arc::clone(clock),
        tasks: tasks.clone(),
        settings,
    }))
}

/// Who holds which volume on this node.
pub(crate) fn holdings(
    data_dir: &Path,
    settings: VolumeSettings,
    (clock, entropy): (&Arc<dyn Clock>, &dyn Entropy),
) -> Result<Arc<Holdings>, Failure> {
    let units = data_dir.join("units");
    let unwritable = |error: std::io::Error| data_failure(data_dir, &error);
    std::fs::create_dir_all(&units).map_err(unwritable)?;
    let mark = owner(&units, entropy).map_err(unwritable)?;
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy();
    Ok(Arc::new(Holdings::new(HoldingsConfig {
        dir: data_dir.join("volumes"),
        node: format!("{machine}-{}", mark.get(..8).unwrap_or(&mark)),
        settings,
        tools: Tools::default(),
        clock: Arc::clone(clock),
    })))
}

/// The driver, whose units can have volumes.
pub(crate) fn with_volumes(
    runtime: Arc<dyn Runtime>,
    holdings: &Arc<Holdings>,
    tasks: &Tasks,
) -> Arc<dyn Runtime> {
    let holdings = Arc::clone(holdings);
    Arc::new(WithVolumes::over(runtime, holdings, tasks.clone()))
}

/// The compose driver alone, likewise.
pub(crate) fn compose_runtime(
    data_dir: &Path,
    docker_socket: &str,
    (clock, entropy): (&Arc<dyn Clock>, &dyn Entropy),
    tasks: &Tasks,
) -> Result<Arc<dyn Runtime>, Failure> {
    let units = data_dir.join("units");
    let unwritable = |error: std::io::Error| data_failure(data_dir, &error);
    std::fs::create_dir_all(&units).map_err(unwritable)?;
    let owner = owner(&units, entropy).map_err(unwritable)?;
    Ok(project_driver(&units, docker_socket, (clock, owner), tasks))
}

/// Projects run on the engine of the containers, by the programs that this process's user has.
fn project_driver(
    units: &Path,
    docker_socket: &str,
    (clock, owner): (&Arc<dyn Clock>, String),
    tasks: &Tasks,
) -> Arc<dyn Runtime> {
    Arc::new(ComposeRuntime::new(ComposeConfig {
        engine: docker_socket.to_owned(),
        dir: units.join("compose"),
        owner,
        programs: Programs::default(),
        environment: Environment::of_process().of_tools(),
        clock: Arc::clone(clock),
        tasks: tasks.clone(),
    }))
}

/// Tells the units of this data directory from those of another agent on the same machine. Made once, and
/// moves with the directory.
fn owner(units: &Path, entropy: &dyn Entropy) -> std::io::Result<String> {
    let path = units.join("owner");
    match std::fs::read_to_string(&path) {
        Ok(owner) if !owner.trim().is_empty() => return Ok(owner.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let owner = format!("{:032x}", entropy.next_u128());
    let fresh = units.join("owner.new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(owner.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, &path)?;
    std::fs::File::open(units)?.sync_all()?;
    Ok(owner)
}

fn data_failure(data_dir: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        ExitStatus::DataUnwritable,
        format!(
            "cannot write to the data directory: {}: {error}",
            data_dir.display()
        ),
        "choose another --data-dir, or give this user the right to write there",
    )
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let (status, advice) = match error {
            StartError::InUse { .. } | StartError::Foreign { .. } => (ExitStatus::DataInUse, ""),
            StartError::Server { .. } | StartError::Trust(_) | StartError::TokenInPlain { .. } => {
                (ExitStatus::Usage, "")
            }
            StartError::Data { .. } => {
                let advice =
                    "choose another --data-dir, or give this user the right to write there";
                (ExitStatus::DataUnwritable, advice)
            }
        };
        // These hold their advice behind a semicolon.
        let text = error.to_string();
        let (sentence, told) = text.split_once("; ").unwrap_or((&text, advice));
        Self::new(status, sentence, told)
    }
}

#[cfg(test)]
mod tests {
    use hostler_kit::SeededEntropy;

    use super::*;

    #[test]
    fn an_owner_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let first = owner(directory.path(), &SeededEntropy::new(1)).unwrap();
        let again = owner(directory.path(), &SeededEntropy::new(2)).unwrap();
        assert_eq!(first, again);
        assert_eq!(first.len(), 32);
    }
}
