//! The control plane: the store on disk, `Control`, and the doors on one listener.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hostler_agent::{LocalMachine, Machine as _};
use hostler_control::{Control, ControlConfig, Parts, StartError, Trust, TrustConfig};
use hostler_doors::{
    Access, Audit, Auth, BindError, Bound, Dialect, Listener, Opened, OwnPort, miaas, serve_through,
};
use hostler_kit::sealed::{Keyring, KeyringError};
use hostler_kit::{Clock, Entropy, SystemClock, SystemEntropy, Tasks};
use hostler_model::Timestamp;
use hostler_store::{OpenError, SqliteStore, Store};

use super::backups::StoreBackups;
use super::first_admin::{self, FirstAdmin, first_admin};
use super::passed::Passed;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{CompatListener, Historic, JwtSecret, ServerSettings, Tls};
use crate::status::ExitStatus;

/// How long what was asked may take to be answered once the doorway is closed.
const ANSWERING: Duration = Duration::from_secs(3);
/// How often it is looked whether this server still decides.
const LOOK: Duration = Duration::from_millis(500);
/// Where in the data directory it is written down who did what.
const AUDIT: &str = "audit";

/// A control plane that serves.
pub(crate) struct ControlPlane {
    /// Where, with the port that was given.
    pub(crate) addr: SocketAddr,
    /// The ports of other systems, with those that were given, and what is spoken there.
    compat: Vec<(&'static str, &'static str, SocketAddr)>,
    /// Made at this start.
    admin: Option<FirstAdmin>,
    is_secure: bool,
    control: Control,
    miaas_keys: miaas::Keys,
    /// Stops before the rest: nothing new is taken, and what was asked is answered.
    doorway: Tasks,
}

impl ControlPlane {
    /// Takes the ports, then the data directory, then the leader lease, and serves until the family stops.
    pub(crate) async fn start(settings: &ServerSettings, tasks: &Tasks) -> Result<Self, Failure> {
        Self::start_on(Passed::default(), settings, tasks).await
    }

    /// The same with sockets that a service manager keeps.
    pub(crate) async fn start_on(
        mut passed: Passed,
        settings: &ServerSettings,
        tasks: &Tasks,
    ) -> Result<Self, Failure> {
        // Files that are missing are told before anything is taken.
        let (persys_port, persys_agents) = settings.persys.open()?;
        let mut bound = match passed.take(settings.listen) {
            Some(socket) => taken_over(socket, settings.listen)?,
            None => Listener::plain(settings.listen).bind().await?,
        };
        let addr = bound.addr();
        let beside = ports_beside(settings, &mut passed).await?;
        passed.all_taken()?;
        let doorway = Tasks::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let store = SqliteStore::open(&settings.data_dir, Arc::clone(&clock))?;
        let trust = open_trust(settings, addr, &clock)?;
        let store = Arc::new(store);
        // After the store, which makes the directory and keeps other servers out of it.
        let (keyring, made) = open_keyring(settings).await?;
        let parts = Parts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            clock,
            entropy: Arc::clone(&entropy),
            tasks: tasks.clone(),
        };
        let config = ControlConfig {
            secrets: Some(Arc::new(keyring)),
            ..ControlConfig::default()
        };
        let control = Control::start(config, parts).await?;
        if let Some(made) = made {
            refuse_a_new_key(&control, &made)?;
        }
        let mut doors = hostler_doors::Parts::new(&control, &entropy);
        doors.miaas = settings.contracts.miaas.clone();
        doors.orchion = settings.contracts.orchion.clone();
        doors.miaas_keys = miaas_keys(settings, entropy.as_ref())?;
        if let Some(tls) = persys_agents {
            doors.dial_persys_agents_over(tls);
        }
        bound = bound.capped(settings.caps);
        doors.crowd = Some(bound.crowd().clone());
        let mut admin = None;
        if let Some(trust) = &trust {
            let opened = opened(settings, &beside);
            tell_opened(&opened);
            doors.access = Access::guarded_with(&control, trust, opened);
            bound = bound.secured(trust.tls());
            trust.keep(tasks);
            let local = local_url(addr, true);
            let resets = settings.trust.as_ref().is_some_and(|it| it.resets_admin);
            let of = (settings.data_dir.as_path(), local.as_str(), resets);
            admin = first_admin((&control, trust), entropy.as_ref(), of).await?;
            first_admin::keep(trust, &settings.data_dir, tasks);
        }
        doors.access = doors.access.audited(begin_audit(settings, &control)?);
        doors.backups = Some(StoreBackups::new(store, &control, &settings.data_dir));
        let router = doors.router(Dialect::Hostler);
        let families = || (tasks.clone(), doorway.clone());
        tasks.spawn("listener", serve_through(bound, router, families()));
        let mut compat = Vec::new();
        for (CompatListener { historic, tls, .. }, bound) in beside {
            let bound = match (historic.dialect, &persys_port) {
                (Dialect::Persys, Some(persys)) => bound.secured(persys),
                _ => speaking(tls, trust.as_ref(), bound),
            };
            compat.push((historic.word, tls.scheme(), bound.addr()));
            let router = doors.router(historic.dialect);
            tasks.spawn("listener", serve_through(bound, router, families()));
        }
        tracing::info!(%addr, data_dir = %settings.data_dir.display(), "control plane serves");
        Ok(Self {
            addr,
            compat,
            admin,
            is_secure: trust.is_some(),
            control,
            miaas_keys: doors.miaas_keys,
            doorway,
        })
    }

    /// One line for each address.
    pub(crate) fn tell(&self, printer: &Printer) {
        let scheme = if self.is_secure { "https" } else { "http" };
        printer.data(&format!("listening on {scheme}://{}", self.addr));
        for (word, scheme, addr) in &self.compat {
            printer.data(&format!("listening on {scheme}://{addr} for {word}"));
        }
        if let Some(FirstAdmin { path, join }) = &self.admin {
            printer.talk(&format!(
                "the fleet has an admin now, whose token is in {}; `hostler` finds it there by itself\n\
                 within an hour, machines join with:\n{}",
                path.display(),
                join.line(printer.is_watched())
            ));
        }
    }

    /// The address as clients and agents write it.
    pub(crate) fn url(&self) -> String {
        local_url(self.addr, self.is_secure)
    }

    /// The tokens of MIaaS's nodes are signed with what the operator gives now. Answers whether that is something else.
    pub(crate) fn sign_miaas_with(&self, given: &JwtSecret, life: Duration) -> bool {
        let now = Timestamp::from_millis(self.control.clock().wall_millis());
        let former = given.former.as_deref();
        self.miaas_keys.give(&given.secret, former, now, life)
    }

    /// Takes nothing new, and waits until what was asked is answered; the sessions of nodes go on.
    pub(crate) async fn close(&self) {
        if let Err(open) = self.doorway.shut_down(ANSWERING).await {
            tracing::info!(open, "some requests are not answered before the end");
        }
    }

    /// Completes when this server no longer decides. It never takes that back.
    pub(crate) async fn deposed(&self) -> Failure {
        while self.control.is_leading() {
            tokio::time::sleep(LOOK).await;
        }
        Failure::new(
            ExitStatus::NotLeading,
            "this server no longer holds the leader lease",
            "another one decides now, or the disk was too slow; a service manager starts this one again",
        )
    }
}

/// What is said while the server ends is on the disk before it has ended.
fn begin_audit(settings: &ServerSettings, control: &Control) -> Result<Audit, Failure> {
    let audit = Audit::open(&settings.data_dir.join(AUDIT), control.clock());
    let audit = audit.map_err(|error| {
        let sentence = format!("the audit cannot begin: {error}");
        Failure::failed(sentence, "look how many threads this machine may start")
    })?;
    let (tasks, last) = (control.tasks().clone(), audit.clone());
    control.tasks().spawn("audit", async move {
        tasks.stopping().await;
        last.flush().await;
    });
    Ok(audit)
}

/// An agent on this machine cannot dial "every address".
fn local_url(mut addr: SocketAddr, is_secure: bool) -> String {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let scheme = if is_secure { "https" } else { "http" };
    format!("{scheme}://{addr}")
}

/// The keys of the fleet's secrets, and their file if it was made just now.
async fn open_keyring(settings: &ServerSettings) -> Result<(Keyring, Option<PathBuf>), Failure> {
    let (key_file, lock) = (
        settings.secrets.key_file.clone(),
        settings.secrets.lock.clone(),
    );
    let made = (!key_file.exists()).then(|| key_file.clone());
    let opening =
        tokio::task::spawn_blocking(move || Keyring::open(&key_file, lock, &SystemEntropy));
    let opened = opening.await;
    let opened =
        opened.map_err(|error| Failure::failed(format!("no keys: {error}"), "start again"))?;
    Ok((opened?, made))
}

/// A port of a contract's own with what it speaks. Without login there is no certificate to speak with.
fn speaking(tls: Tls, trust: Option<&Trust>, bound: Bound) -> Bound {
    match (tls, trust) {
        (Tls::On, Some(trust)) => bound.secured(trust.tls()),
        (Tls::Sniff, Some(trust)) => bound.sniffing(trust.tls()),
        (Tls::Off, _) | (_, None) => bound,
    }
}

/// What signs the tokens of MIaaS's nodes: what the operator gives, else the server's own; without login what
/// everybody knows, as that contract has it.
fn miaas_keys(settings: &ServerSettings, entropy: &dyn Entropy) -> Result<miaas::Keys, Failure> {
    if let Some(JwtSecret { secret, former }) = &settings.contracts.jwt {
        return Ok(miaas::Keys::given(secret, former.as_deref()));
    }
    if settings.trust.is_none() {
        return Ok(miaas::Keys::public());
    }
    let path = settings.data_dir.join("trust/miaas.key");
    let keys = miaas::Keys::open(&path, settings.contracts.miaas.ttl, entropy);
    keys.map_err(|error| {
        Failure::failed(
            format!("the keys of MIaaS's tokens in {}: {error}", path.display()),
            "see to its rights (0600) and its disk; without the file, new keys are made and MIaaS's nodes register anew",
        )
    })
}

/// The doors of other contracts, as they are told to whoever asks.
fn opened(settings: &ServerSettings, beside: &[(CompatListener, Bound)]) -> Opened {
    let ports = beside.iter().map(|(listener, bound)| OwnPort {
        contract: listener.historic.contract(),
        addr: bound.addr().to_string(),
        tls: listener.tls.as_str(),
    });
    Opened {
        doors: settings.doors.clone(),
        open_replica_routes: settings.contracts.open_replica_routes,
        ports: ports.collect(),
    }
}

/// Once, for whoever reads the log: what is open beside our own contract.
fn tell_opened(opened: &Opened) {
    for (contract, auth) in &opened.doors {
        let contract = contract.as_str();
        match auth {
            Auth::Token => tracing::info!(contract, "a door is open to whoever shows a token"),
            Auth::Contract => tracing::warn!(
                contract,
                "a door is open to whoever its contract lets in: `hostler doctor` lists the routes"
            ),
        }
    }
    for port in opened.ports.iter().filter(|port| port.tls != "on") {
        let (contract, addr) = (port.contract.as_str(), &port.addr);
        tracing::warn!(contract, addr, tls = port.tls, "a port takes plain text");
    }
}

/// A key that was made at this start opens nothing: where there are secrets, the one that sealed them is missing.
fn refuse_a_new_key(control: &Control, made: &Path) -> Result<(), Failure> {
    let sealed = control.view().secrets().len();
    if sealed == 0 {
        return Ok(());
    }
    // What was just made has sealed nothing, and would be taken for the right one at the next start.
    if let Err(error) = std::fs::remove_file(made) {
        tracing::warn!(file = %made.display(), %error, "the new file of keys stays");
    }
    Err(Failure::failed(
        format!(
            "the store holds {sealed} secrets, and the file {} with their key is missing",
            made.display()
        ),
        "put it back, or take it from a backup made with keys; if it is lost for good, put the secrets.key of a new \
         server there and set the secrets anew",
    ))
}

/// The fleet's identity, where there is login.
fn open_trust(
    settings: &ServerSettings,
    addr: SocketAddr,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Trust>, Failure> {
    let Some(told) = &settings.trust else {
        return Ok(None);
    };
    let facts = LocalMachine::new().facts();
    let (mut names, mut urls) = (told.names.clone(), Vec::new());
    if addr.ip().is_unspecified() {
        names.extend(facts.addresses);
    } else {
        names.push(addr.ip().to_string());
    }
    for name in &names {
        let is_six = name.parse::<std::net::Ipv6Addr>().is_ok();
        let host = if is_six {
            format!("[{name}]")
        } else {
            name.clone()
        };
        urls.push(format!("https://{host}:{}", addr.port()));
    }
    names.extend([
        facts.hostname,
        "localhost".into(),
        "127.0.0.1".into(),
        "::1".into(),
    ]);
    let config = TrustConfig {
        dir: settings.data_dir.join("trust"),
        names,
        urls,
        authority: told.authority.clone(),
        certificate: told.certificate.clone(),
    };
    Ok(Some(Trust::open(config, Arc::clone(clock))?))
}

/// Listens on a socket that a service manager keeps.
fn taken_over(socket: TcpListener, addr: SocketAddr) -> Result<Bound, Failure> {
    Bound::passed(socket).map_err(|error| {
        Failure::failed(
            format!("the socket that was passed for {addr} cannot be listened on: {error}"),
            "look at the socket unit, and start it again",
        )
    })
}

/// Takes the ports of other systems.
async fn ports_beside(
    settings: &ServerSettings,
    passed: &mut Passed,
) -> Result<Vec<(CompatListener, Bound)>, Failure> {
    let mut beside = Vec::new();
    for listener in &settings.compat {
        let bound = match passed.take(listener.addr) {
            Some(socket) => taken_over(socket, listener.addr)?,
            None => bind(listener).await?,
        };
        beside.push((*listener, bound.capped(settings.caps)));
    }
    Ok(beside)
}

/// Takes another system's port. Two systems may want one.
async fn bind(listener: &CompatListener) -> Result<Bound, Failure> {
    let Historic { word, rival, .. } = listener.historic;
    let bound = Listener::plain(listener.addr).bind().await;
    bound.map_err(|error| match error {
        BindError::PortTaken { addr } => Failure::new(
            ExitStatus::PortTaken,
            format!(
                "port {} of {}, wanted for {word}, is taken by another program: {rival} uses it too",
                addr.port(),
                addr.ip()
            ),
            format!("stop that program, or choose another port with --compat {word}=HOST:PORT"),
        ),
        other => other.into(),
    })
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let status = match error {
            BindError::PortTaken { .. } => ExitStatus::PortTaken,
            BindError::NotAllowed { .. }
            | BindError::NoSuchAddress { .. }
            | BindError::Other { .. } => ExitStatus::Failed,
        };
        // The sentence holds its advice behind a colon.
        let text = error.to_string();
        let (sentence, advice) = text.split_once(": ").unwrap_or((&text, ""));
        Self::new(status, sentence, advice)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let status = match error {
            OpenError::DirectoryUnwritable { .. } => ExitStatus::DataUnwritable,
            OpenError::NewerVersion { .. } => ExitStatus::DataNewer,
            OpenError::InUse { .. } => ExitStatus::DataInUse,
            OpenError::HalfRestored { .. }
            | OpenError::Foreign { .. }
            | OpenError::Corrupt { .. }
            | OpenError::Backup { .. }
            | OpenError::Migration { .. }
            | OpenError::Sqlite { .. }
            | OpenError::Thread { .. } => ExitStatus::Failed,
        };
        let sentence = with_cause(&error);
        Self::new(status, sentence, error.advice())
    }
}

impl From<KeyringError> for Failure {
    fn from(error: KeyringError) -> Self {
        let advice = match &error {
            KeyringError::Io { .. } => {
                "name another file with --secrets-key, or see to its disk and its rights"
            }
            KeyringError::Open(_) => "take the rights of others from it, as with `chmod 600`",
            KeyringError::Unreadable(_) => {
                "put the file of keys there that was in its place, from a backup"
            }
            KeyringError::Locked(_) => {
                "give the passphrase with --secrets-passphrase-file or HOSTLER_SECRETS_PASSPHRASE"
            }
            KeyringError::WrongPassphrase(_) => "give the passphrase that it was locked with",
        };
        Self::failed(with_cause(&error), advice)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let (status, advice) = match &error {
            StartError::Led => (ExitStatus::NotLeading, "stop the other server first"),
            StartError::Lease(_) | StartError::Store(_) => (
                ExitStatus::Failed,
                "look for a full or failing disk, then start again",
            ),
            StartError::Record { .. } => (
                ExitStatus::DataNewer,
                "start the program that wrote it, or restore a backup",
            ),
            StartError::Found(_) => (ExitStatus::Failed, "look at the log, then start again"),
        };
        Self::new(status, with_cause(&error), advice)
    }
}

/// The sentence with that of its cause.
fn with_cause(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
