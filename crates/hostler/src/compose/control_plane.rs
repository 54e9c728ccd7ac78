//! The control plane: the store on disk, `Control`, and the doors on one listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hostler_control::{Control, ControlConfig, Parts, StartError};
use hostler_doors::{BindError, Bound, Dialect, Listener, serve};
use hostler_kit::{Clock, Entropy, SystemClock, SystemEntropy, Tasks};
use hostler_store::{OpenError, SqliteStore};

use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{CompatListener, Historic, ServerSettings};
use crate::status::ExitStatus;

/// How often it is looked whether this server still decides.
const LOOK: Duration = Duration::from_millis(500);

/// A control plane that serves.
pub(crate) struct ControlPlane {
    /// Where, with the port that was given.
    pub(crate) addr: SocketAddr,
    /// The ports of other systems, with those that were given.
    pub(crate) compat: Vec<(&'static str, SocketAddr)>,
    control: Control,
}

impl ControlPlane {
    /// Takes the ports, then the data directory, then the leader lease, and serves until the family stops.
    pub(crate) async fn start(settings: &ServerSettings, tasks: &Tasks) -> Result<Self, Failure> {
        let bound = Listener::plain(settings.listen).bind().await?;
        let addr = bound.addr();
        let mut beside = Vec::new();
        for listener in &settings.compat {
            beside.push((listener.historic, bind(listener).await?));
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let store = SqliteStore::open(&settings.data_dir, Arc::clone(&clock))?;
        let parts = Parts {
            store: Arc::new(store),
            clock,
            entropy: Arc::clone(&entropy),
            tasks: tasks.clone(),
        };
        let control = Control::start(ControlConfig::default(), parts).await?;
        let mut doors = hostler_doors::Parts::new(&control, &entropy);
        doors.miaas = settings.contracts.miaas.clone();
        doors.orchion = settings.contracts.orchion.clone();
        let router = doors.router(Dialect::Hostler);
        tasks.spawn("listener", serve(bound, router, tasks.clone()));
        let mut compat = Vec::new();
        for (historic, bound) in beside {
            compat.push((historic.word, bound.addr()));
            let router = doors.router(historic.dialect);
            tasks.spawn("listener", serve(bound, router, tasks.clone()));
        }
        tracing::info!(%addr, data_dir = %settings.data_dir.display(), "control plane serves");
        Ok(Self {
            addr,
            compat,
            control,
        })
    }

    /// One line for each address.
    pub(crate) fn tell(&self, printer: &Printer) {
        printer.data(&format!("listening on http://{}", self.addr));
        for (word, addr) in &self.compat {
            printer.data(&format!("listening on http://{addr} for {word}"));
        }
    }

    /// The address as clients and agents write it.
    pub(crate) fn url(&self) -> String {
        // An agent on this machine cannot dial "every address".
        let mut addr = self.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(if addr.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        format!("http://{addr}")
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
            OpenError::Foreign { .. }
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
