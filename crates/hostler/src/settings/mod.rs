//! Resolved settings: one struct per command, without anything optional that has a default.
//!
//! Flag > environment (`HOSTLER_…`) > configuration file > default. The environment comes as data.

mod care;
mod compat;
mod contracts;
mod environment;
mod file;
mod foreign;
mod persys;
mod registries;
mod secrets;
mod trust;
mod vm;
mod volumes;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hostler_agent::{Care, GuardFile};
use hostler_doors::{Auth, Caps};
use hostler_kit::telemetry;
use hostler_kit::trust::Anchors;
use hostler_model::{Bytes, Contract, MilliCpu, Resources, is_node_name};
use hostler_runtime::container::Registries;
use hostler_runtime::vm::VmSettings;
use hostler_runtime::volumes::VolumeSettings;

use crate::args::{
    AgentArgs, ClientArgs, CompatArgs, Dialect, LogArgs, LogFormat, OutputArgs, OutputForm,
};
use crate::args::{DoctorArgs, RestoreArgs, ServerArgs, UpArgs, WaitArgs};
use crate::failure::Failure;

use compat::{Compat, Words};
pub(crate) use compat::{CompatListener, Historic, Tls};
pub(crate) use contracts::{ContractSettings, JwtSecret};
pub(crate) use environment::Environment;
use file::{AgentFile, ServerFile};
pub(crate) use foreign::{Foreign, Surroundings, Target, Told};
pub(crate) use persys::{AGENTS as PERSYS_AGENT_FILES, PersysTls, refused as persys_files_refused};
use secrets::SecretsSettings;
pub(crate) use trust::{AgentTrust, Login, ServerTrust};
pub(crate) use vm::resolve as machines;
pub(crate) use volumes::resolve as volumes;

const DEFAULT_ADDR: &str = "http://127.0.0.1:8080";
/// `up` keeps the screen calm: what troubles single copies is in `ps`, and an engine that is not there is told
/// in one line.
const UP_FILTER: &str = "warn,hostler_agent::reconcile=error";
const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// What `up` runs with.
#[derive(Debug)]
pub(crate) struct UpSettings {
    pub(crate) demo: bool,
    pub(crate) server: ServerSettings,
    pub(crate) name: Option<String>,
    pub(crate) docker_socket: String,
    pub(crate) vm: VmSettings,
    pub(crate) volumes: VolumeSettings,
}

/// What `server` runs with.
#[derive(Debug)]
pub(crate) struct ServerSettings {
    pub(crate) listen: SocketAddr,
    /// How many may be connected to each port.
    pub(crate) caps: Caps,
    /// Other systems' ports.
    pub(crate) compat: Vec<CompatListener>,
    /// Which doors of other systems a server with login opens, and to whom.
    pub(crate) doors: BTreeMap<Contract, Auth>,
    pub(crate) contracts: ContractSettings,
    pub(crate) persys: PersysTls,
    /// None: plain text, and no login.
    pub(crate) trust: Option<ServerTrust>,
    pub(crate) data_dir: PathBuf,
    pub(crate) secrets: SecretsSettings,
    pub(crate) log: LogSettings,
}

/// What `restore` works with.
#[derive(Debug)]
pub(crate) struct RestoreSettings {
    pub(crate) file: PathBuf,
    /// That of the server.
    pub(crate) data_dir: PathBuf,
    pub(crate) force: bool,
}

/// What `doctor` looks at on its own machine.
#[derive(Debug)]
pub(crate) struct DoctorSettings {
    /// Of the server and of the agent; mostly one.
    pub(crate) data_dirs: Vec<PathBuf>,
    /// Keys and certificates of Persys's authority.
    pub(crate) persys_files: Vec<PathBuf>,
    pub(crate) docker_socket: String,
    /// Where a server here would listen, unless it may choose.
    pub(crate) listen: Option<SocketAddr>,
    /// Files that make no sense.
    pub(crate) troubles: Vec<Failure>,
}

/// What `agent` runs with.
#[derive(Debug)]
pub(crate) struct AgentSettings {
    pub(crate) target: Target,
    pub(crate) trust: AgentTrust,
    /// Persys's own `-insecure`.
    pub(crate) persys_insecure: bool,
    pub(crate) data_dir: PathBuf,
    pub(crate) name: Option<String>,
    /// Tells the machine from those with a copy of its disk.
    pub(crate) machine_id: Option<String>,
    /// Where the agent answers about itself; none means nowhere.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) docker_socket: String,
    pub(crate) vm: VmSettings,
    pub(crate) volumes: VolumeSettings,
    pub(crate) registries: Registries,
    pub(crate) guard: GuardFile,
    pub(crate) reserve: Resources,
    pub(crate) care: Care,
    pub(crate) log: LogSettings,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub(crate) filter: String,
    pub(crate) format: telemetry::Format,
}

/// How the command line reaches the server.
pub(crate) struct ClientSettings {
    pub(crate) addr: String,
    pub(crate) token: Option<String>,
    /// Whom to believe where the address says https.
    pub(crate) anchors: Anchors,
}

/// The token is not shown.
impl std::fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientSettings({})", self.addr)
    }
}

/// Whether and how long to wait for the effect; none means not at all.
pub(crate) type Wait = Option<Duration>;

impl UpSettings {
    /// `up` takes no configuration file: it is for one machine and one person.
    pub(crate) fn resolve(args: UpArgs, environment: &Environment) -> Result<Self, Failure> {
        let layers = Layers { environment };
        let listen = layers.text(args.listen, "HOSTLER_LISTEN", None);
        let insecure = layers.switch(args.insecure, "HOSTLER_INSECURE", None)?;
        let listen = allowed(listen.as_deref().unwrap_or("127.0.0.1:8080"), insecure)?;
        let data_dir = layers.data_dir(args.data_dir, None)?;
        let plain = args.compat.persys_insecure;
        let compat = (Words::default(), None);
        let compat = layers.compat(args.compat, compat, (listen.ip(), insecure, false))?;
        Ok(Self {
            vm: vm::resolve(Default::default(), environment, &data_dir)?,
            volumes: layers.volumes(Default::default())?,
            demo: args.demo,
            server: ServerSettings {
                listen,
                caps: layers.caps((None, None))?,
                persys: PersysTls::resolve(
                    Default::default(),
                    environment,
                    (&compat.listeners, plain),
                ),
                compat: compat.listeners,
                doors: compat.doors,
                contracts: ContractSettings::resolve(Default::default(), environment)?,
                trust: None,
                secrets: secrets::resolve(args.secrets, (None, None), (environment, &data_dir))?,
                data_dir,
                log: layers.log(args.log, (None, None), UP_FILTER)?,
            },
            name: layers.name(args.name, None)?,
            docker_socket: layers.docker_socket(args.docker_socket, None),
        })
    }
}

impl ServerSettings {
    pub(crate) fn resolve(args: ServerArgs, environment: &Environment) -> Result<Self, Failure> {
        let layers = Layers { environment };
        let named = args
            .config
            .or_else(|| environment.get("HOSTLER_CONFIG").map(PathBuf::from));
        let file: ServerFile = file::read(named.as_deref(), &environment.etc.join("server.toml"))?;
        let listen = layers.text(args.listen, "HOSTLER_LISTEN", file.listen);
        let insecure = layers.switch(args.insecure, "HOSTLER_INSECURE", file.insecure)?;
        let listen = address(listen.as_deref().unwrap_or("0.0.0.0:8080"))?;
        let trust = ServerTrust::resolve(args.trust, file.tls, environment)?;
        let plain = args.compat.persys_insecure || file.persys_insecure.unwrap_or(false);
        let words = Words {
            names: file.compat,
            auth: file.compat_auth,
            tls: file.compat_tls,
        };
        let compat = (words, Some(plain));
        let compat = layers.compat(args.compat, compat, (listen.ip(), insecure, !insecure))?;
        let contracts = (file.miaas, file.orchion, file.spot);
        let contracts = ContractSettings::resolve(contracts, environment)?;
        if !insecure {
            contracts.refuse_public_secret()?;
        }
        let data_dir = layers.data_dir(args.data_dir, file.data_dir)?;
        let of_file = (file.secrets_key, file.secrets_passphrase_file);
        Ok(Self {
            secrets: secrets::resolve(args.secrets, of_file, (environment, &data_dir))?,
            listen,
            caps: layers.caps((file.connections, file.connections_per_address))?,
            persys: PersysTls::resolve(file.persys, environment, (&compat.listeners, plain)),
            compat: compat.listeners,
            doors: compat.doors,
            contracts,
            trust: (!insecure).then_some(trust),
            data_dir,
            log: layers.log(args.log, (file.log_level, file.log_format), "info")?,
        })
    }
}

impl RestoreSettings {
    pub(crate) fn resolve(args: RestoreArgs, environment: &Environment) -> Result<Self, Failure> {
        let layers = Layers { environment };
        let named = args
            .config
            .or_else(|| environment.get("HOSTLER_CONFIG").map(PathBuf::from));
        let file: ServerFile = file::read(named.as_deref(), &environment.etc.join("server.toml"))?;
        Ok(Self {
            file: args.file,
            data_dir: layers.data_dir(args.data_dir, file.data_dir)?,
            force: args.force,
        })
    }
}

impl DoctorSettings {
    /// A file that makes no sense is something to tell, and the defaults are looked at in its place.
    pub(crate) fn resolve(args: &DoctorArgs, environment: &Environment) -> Result<Self, Failure> {
        let layers = Layers { environment };
        let mut troubles = Vec::new();
        let server: Result<ServerFile, _> = file::read(None, &environment.etc.join("server.toml"));
        let server = server.map_err(|trouble| troubles.push(trouble));
        let server = server.unwrap_or_default();
        let agent: Result<AgentFile, _> = file::read(None, &environment.etc.join("agent.toml"));
        let agent = agent.map_err(|trouble| troubles.push(trouble));
        let agent = agent.unwrap_or_default();
        let mut data_dirs = Vec::new();
        for of_file in [server.data_dir, agent.data_dir] {
            data_dirs.push(layers.data_dir(args.data_dir.clone(), of_file)?);
        }
        data_dirs.dedup();
        let listen = layers.text(None, "HOSTLER_LISTEN", server.listen);
        let listen = address(listen.as_deref().unwrap_or("0.0.0.0:8080"));
        let listen = listen.map_err(|trouble| troubles.push(trouble)).ok();
        let socket = (args.docker_socket.clone(), agent.docker_socket);
        Ok(Self {
            persys_files: persys::files_here(server.persys, environment),
            data_dirs,
            docker_socket: layers.docker_socket(socket.0, socket.1),
            listen: listen.filter(|listen| listen.port() != 0),
            troubles,
        })
    }
}

impl AgentSettings {
    pub(crate) fn resolve(args: AgentArgs, environment: &Environment) -> Result<Self, Failure> {
        let layers = Layers { environment };
        let named = args
            .config
            .clone()
            .or_else(|| environment.get("HOSTLER_CONFIG").map(PathBuf::from));
        let file: AgentFile = file::read(named.as_deref(), &environment.etc.join("agent.toml"))?;
        let listen = layers.text(args.listen.clone(), "HOSTLER_AGENT_LISTEN", file.listen);
        let insecure = layers.switch(args.insecure, "HOSTLER_INSECURE", file.insecure)?;
        let server = layers.text(args.server.clone(), "HOSTLER_SERVER", file.server);
        let dialect = layers.dialect(args.dialect, file.dialect)?;
        let variable = || environment.get("HOSTLER_DIALECT_CONFIG").map(PathBuf::from);
        let dialect_file = args.dialect_config.clone().or_else(variable);
        let kept = file.reserve.unwrap_or_default();
        let cpu = layers.text(args.reserve_cpu.clone(), "HOSTLER_RESERVE_CPU", None);
        let memory = layers.text(args.reserve_memory.clone(), "HOSTLER_RESERVE_MEMORY", None);
        let disk = layers.text(args.reserve_disk.clone(), "HOSTLER_RESERVE_DISK", None);
        let care = care::resolve(&args, (file.gc, file.pressure), environment)?;
        let data_dir = layers.data_dir(args.data_dir, file.data_dir)?;
        Ok(Self {
            care,
            vm: vm::resolve(file.vm, environment, &data_dir)?,
            volumes: layers.volumes(file.volumes)?,
            target: foreign::target((dialect, server), dialect_file)?,
            trust: AgentTrust::resolve(args.trust, (file.tls, file.token_file), environment)?,
            persys_insecure: args.persys_insecure,
            data_dir,
            name: layers.name(args.name, file.name)?,
            machine_id: layers.text(args.machine_id, "HOSTLER_MACHINE_ID", None),
            listen: listen.map(|text| allowed(&text, insecure)).transpose()?,
            labels: layers.labels(args.labels, file.labels)?,
            docker_socket: layers.docker_socket(args.docker_socket, file.docker_socket),
            registries: file.container.resolve()?,
            guard: layers.guard(args.guard, file.guard),
            reserve: Resources {
                cpu: quantity::<MilliCpu>(cpu.as_deref(), kept.cpu)?,
                memory: quantity::<Bytes>(memory.as_deref(), kept.memory)?,
                disk: quantity::<Bytes>(disk.as_deref(), kept.disk)?,
            },
            log: layers.log(args.log, (file.log_level, file.log_format), "info")?,
        })
    }
}

impl ClientSettings {
    pub(crate) fn resolve(args: ClientArgs, environment: &Environment) -> Result<Self, Failure> {
        let addr = Layers { environment }.text(args.addr, "HOSTLER_ADDR", None);
        let addr = addr.map(|addr| url(&addr, "--addr")).transpose()?;
        let token = environment.get("HOSTLER_TOKEN").map(str::to_owned);
        let named = environment.get("HOSTLER_CA").map(PathBuf::from);
        let named = named.map(|path| Anchors::from_file(&path)).transpose()?;
        let Some(login) = Login::find(environment, addr.as_deref())? else {
            return Ok(Self {
                addr: addr.unwrap_or_else(|| DEFAULT_ADDR.to_owned()),
                token,
                anchors: named.unwrap_or(Anchors::Machine),
            });
        };
        let kept = login.ca.as_deref().map(Anchors::from_pem).transpose()?;
        Ok(Self {
            addr: login.addr,
            token: Some(token.unwrap_or(login.token)),
            anchors: named.or(kept).unwrap_or(Anchors::Machine),
        })
    }
}

/// How data is shown: the flag, else a table.
pub(crate) fn form(args: &OutputArgs) -> OutputForm {
    args.output.unwrap_or(OutputForm::Table)
}

/// Waiting is the default.
pub(crate) fn wait(args: &WaitArgs) -> Wait {
    (!args.detach).then(|| args.wait_timeout.unwrap_or(DEFAULT_WAIT))
}

/// The layers under a flag.
struct Layers<'a> {
    environment: &'a Environment,
}

impl Layers<'_> {
    fn text(&self, flag: Option<String>, variable: &str, file: Option<String>) -> Option<String> {
        flag.or_else(|| self.environment.get(variable).map(str::to_owned))
            .or(file)
    }

    /// How many may be connected, in all and from one address.
    fn caps(&self, (all, one): (Option<usize>, Option<usize>)) -> Result<Caps, Failure> {
        let told = |variable: &str, file: Option<usize>, default: usize| {
            let number = match self.environment.get(variable) {
                Some(text) => text.parse().ok(),
                None => Some(file.unwrap_or(default)),
            };
            // The semaphore of a listener takes no more than fits beside its flags.
            number
                .filter(|number| (8..=10_000_000).contains(number))
                .ok_or_else(|| {
                    let sentence =
                        format!("{variable}, or its key in the file, is no number of connections");
                    Failure::usage(sentence, "set it to a whole number from 8 to 10000000")
                })
        };
        let default = Caps::default();
        Ok(Caps {
            connections: told("HOSTLER_CONNECTIONS", all, default.connections)?,
            per_address: told("HOSTLER_CONNECTIONS_PER_ADDRESS", one, default.per_address)?,
        })
    }

    fn volumes(&self, file: volumes::VolumesFile) -> Result<VolumeSettings, Failure> {
        let told = |name: &str| self.environment.get(&format!("HOSTLER_VOLUMES_{name}"));
        volumes::resolve(file, |name| told(name).map(str::to_owned))
    }

    /// A name that a person gave the node.
    fn name(&self, flag: Option<String>, file: Option<String>) -> Result<Option<String>, Failure> {
        let name = self.text(flag, "HOSTLER_NAME", file);
        match name {
            Some(name) if !is_node_name(&name) => Err(Failure::usage(
                format!("`{}` is no name for a node", name.escape_debug()),
                "use 1 to 253 characters without spaces, or leave --name out to take the host name",
            )),
            name => Ok(name),
        }
    }

    fn switch(&self, flag: bool, variable: &str, file: Option<bool>) -> Result<bool, Failure> {
        if flag {
            return Ok(true);
        }
        match self.environment.get(variable) {
            Some("1" | "true" | "yes") => Ok(true),
            Some("0" | "false" | "no") => Ok(false),
            Some(other) => {
                let sentence = format!("{variable} is `{other}`, which is neither true nor false");
                Err(Failure::usage(sentence, "set it to `true` or `false`"))
            }
            None => Ok(file.unwrap_or(false)),
        }
    }

    fn compat(
        &self,
        flags: CompatArgs,
        (file, plain): (Words, Option<bool>),
        (host, insecure, login): (IpAddr, bool, bool),
    ) -> Result<Compat, Failure> {
        let words = |flag: Vec<String>, variable: &str, file: Vec<String>| {
            let variable = self.environment.get(variable).map(str::to_owned);
            match variable {
                _ if !flag.is_empty() => flag,
                Some(words) => vec![words],
                None => file,
            }
        };
        let words = Words {
            names: words(flags.compat, "HOSTLER_COMPAT", file.names),
            auth: words(flags.compat_auth, "HOSTLER_COMPAT_AUTH", file.auth),
            tls: words(flags.compat_tls, "HOSTLER_COMPAT_TLS", file.tls),
        };
        let around = compat::Around {
            environment: self.environment,
            host,
            insecure,
            login,
            persys_insecure: flags.persys_insecure || plain.unwrap_or(false),
        };
        compat::resolve(&words, &around)
    }

    fn data_dir(&self, flag: Option<PathBuf>, file: Option<PathBuf>) -> Result<PathBuf, Failure> {
        let environment = self.environment;
        let named = flag
            .or_else(|| environment.get("HOSTLER_DATA_DIR").map(PathBuf::from))
            .or(file);
        let home = || {
            environment
                .get("HOME")
                .map(|home| PathBuf::from(home).join(".local/share"))
        };
        let usual = || {
            if environment.is_root {
                return Some(PathBuf::from("/var/lib/hostler"));
            }
            let data = environment.get("XDG_DATA_HOME").map(PathBuf::from);
            data.or_else(home).map(|data| data.join("hostler"))
        };
        let chosen = named.or_else(usual).ok_or_else(|| {
            Failure::usage(
                "there is no home directory to keep data in",
                "name a directory with --data-dir",
            )
        })?;
        std::path::absolute(&chosen).map_err(|error| {
            Failure::usage(
                format!("no data directory: {error}"),
                "name a directory with --data-dir",
            )
        })
    }

    fn dialect(&self, flag: Option<Dialect>, file: Option<Dialect>) -> Result<Dialect, Failure> {
        let named = self.environment.get("HOSTLER_DIALECT");
        let named = named.map(|word| {
            <Dialect as clap::ValueEnum>::from_str(word, false).map_err(|_| {
                let sentence = format!("HOSTLER_DIALECT is `{word}`, which is no contract");
                Failure::usage(sentence, "set it to session, miaas, orchion or spot")
            })
        });
        Ok(flag
            .or(named.transpose()?)
            .or(file)
            .unwrap_or(Dialect::Session))
    }

    /// A file that is named has to be there; the usual one counts if it is.
    fn guard(&self, flag: Option<PathBuf>, file: Option<PathBuf>) -> GuardFile {
        let variable = || self.environment.get("HOSTLER_GUARD").map(PathBuf::from);
        let named = flag.or_else(variable).or(file);
        let usual = || GuardFile::Usual(self.environment.etc.join("guard.toml"));
        named.map_or_else(usual, GuardFile::Named)
    }

    fn docker_socket(&self, flag: Option<String>, file: Option<String>) -> String {
        let named = self.text(flag, "HOSTLER_DOCKER_SOCKET", file);
        let usual = || self.environment.get("DOCKER_HOST").map(str::to_owned);
        named
            .or_else(usual)
            .unwrap_or_else(|| "/var/run/docker.sock".to_owned())
    }

    fn labels(
        &self,
        flags: Vec<(String, String)>,
        file: BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let mut labels = file;
        let words = self
            .environment
            .get("HOSTLER_LABELS")
            .unwrap_or("")
            .split(',');
        for word in words.filter(|word| !word.is_empty()) {
            let pair = crate::args::pair(word.trim());
            let (key, value) =
                pair.map_err(|sentence| Failure::usage(sentence, "see HOSTLER_LABELS"))?;
            labels.insert(key, value);
        }
        labels.extend(flags);
        Ok(labels)
    }

    fn log(
        &self,
        flags: LogArgs,
        file: (Option<String>, Option<LogFormat>),
        usual: &str,
    ) -> Result<LogSettings, Failure> {
        let rust_log = || self.environment.get("RUST_LOG").map(str::to_owned);
        let level = flags
            .log_level
            .or_else(|| self.environment.get("HOSTLER_LOG_LEVEL").map(str::to_owned));
        let filter = level
            .or_else(rust_log)
            .or(file.0)
            .unwrap_or_else(|| usual.to_owned());
        let named = match self.environment.get("HOSTLER_LOG_FORMAT") {
            None => None,
            Some("text") => Some(LogFormat::Text),
            Some("json") => Some(LogFormat::Json),
            Some(other) => {
                let sentence =
                    format!("HOSTLER_LOG_FORMAT is `{other}`, which is no form of log lines");
                return Err(Failure::usage(sentence, "set it to `text` or `json`"));
            }
        };
        let format = match flags
            .log_format
            .or(named)
            .or(file.1)
            .unwrap_or(LogFormat::Text)
        {
            LogFormat::Text => telemetry::Format::Text,
            LogFormat::Json => telemetry::Format::Json,
        };
        Ok(LogSettings { filter, format })
    }
}

fn quantity<T: FromStr<Err: std::fmt::Display>>(
    text: Option<&str>,
    usual: T,
) -> Result<T, Failure> {
    text.map_or(Ok(usual), |text| {
        text.parse()
            .map_err(|error| Failure::usage(error, "see `--help`"))
    })
}

/// An address to listen on: beyond loopback only for who knows that there is no login.
fn allowed(text: &str, insecure: bool) -> Result<SocketAddr, Failure> {
    let listen = address(text)?;
    if !listen.ip().is_loopback() && !insecure {
        return Err(Failure::usage(
            format!("there is no login, so {listen} would be open to everyone who reaches it"),
            "listen on this machine only, as in `--listen 127.0.0.1:8080`, or allow it with --insecure",
        ));
    }
    Ok(listen)
}

/// `HOST:PORT`, where the host may be a name.
fn address(text: &str) -> Result<SocketAddr, Failure> {
    let refused = |why: &dyn std::fmt::Display| {
        Failure::usage(
            format!("`{text}` is no address to listen on: {why}"),
            "write HOST:PORT, such as `127.0.0.1:8080`",
        )
    };
    let mut found = text.to_socket_addrs().map_err(|error| refused(&error))?;
    found
        .next()
        .ok_or_else(|| refused(&"the name has no address"))
}

/// `http://host:port` or `https://host:port`; a bare `host:port` is taken as the first.
fn url(text: &str, flag: &str) -> Result<String, Failure> {
    let advice =
        format!("write {flag} https://HOST:PORT, or http://HOST:PORT where there is no login");
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    match with_scheme.split_once("://") {
        Some(("http" | "https", rest)) if !rest.trim_end_matches('/').is_empty() => {
            Ok(with_scheme.trim_end_matches('/').to_owned())
        }
        _ => Err(Failure::usage(
            format!("`{text}` is no address of a server"),
            advice,
        )),
    }
}

#[cfg(test)]
mod tests;
