//! What a service manager is told: that the program is ready, how it stands, that it still works, that it reads its
//! configuration anew, and that it ends.
//!
//! systemd names a datagram socket in `NOTIFY_SOCKET`. Where it names none, as on a terminal, nobody is told anything and
//! SIGHUP means what it always means. Each message goes out in one piece or is lost; nothing waits for it longer than a
//! second, and nothing fails by it.
//!
//! ```text
//!   start ──► READY=1 ──► WATCHDOG=1 at half the period, for as long as the program works ──► STOPPING=1 ──► end
//!               ▲  SIGHUP │
//!               └─────────┘ RELOADING=1
//! ```

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use hostler_agent::AgentStatus;
use hostler_kit::Tasks;
use rustix::time::ClockId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::settings::Environment;

const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Notify {
    socket: Option<Arc<UnixDatagram>>,
    /// How often the watchdog wants to hear something.
    beat: Option<Duration>,
}

impl Notify {
    pub(crate) fn of_process() -> Self {
        Self::of(&Environment::of_process())
    }

    fn of(environment: &Environment) -> Self {
        let named = environment.get("NOTIFY_SOCKET").map(connect);
        let socket = match named {
            Some(Ok(socket)) => Some(Arc::new(socket)),
            Some(Err(error)) => {
                tracing::warn!(%error, "the service manager's socket cannot be reached");
                None
            }
            None => None,
        };
        Self {
            socket,
            beat: beat(environment, std::process::id()),
        }
    }

    /// The program does what it is there for.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// One line for people who ask the service manager how it stands.
    pub(crate) fn status(&self, text: &str) {
        self.tell(&format!("STATUS={}", text.replace(['\n', '\r'], " ")));
    }

    /// The program was told to end, and does.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The configuration is being read anew; `ready` says when that is done.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(ClockId::Monotonic);
        let micros = Duration::try_from(now).map_or(0, |now| now.as_micros());
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Tells the watchdog that the program works, until the family stops or it works no more.
    pub(crate) fn attend(&self, tasks: &Tasks, works: impl Fn() -> bool + Send + 'static) {
        let (notify, Some(beat)) = (self.clone(), self.beat) else {
            return;
        };
        if self.socket.is_none() {
            return;
        }
        tasks.spawn_until_stop("watchdog", async move {
            let mut beats = tokio::time::interval(beat);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beats.tick().await;
                if works() {
                    notify.tell("WATCHDOG=1");
                }
            }
        });
    }

    /// Answers SIGHUP for a program that has nothing to read anew.
    pub(crate) fn answer_reloads(&self, tasks: &Tasks) {
        if self.socket.is_none() {
            return;
        }
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return;
        };
        let notify = self.clone();
        tasks.spawn_until_stop("reloads", async move {
            while hangup.recv().await.is_some() {
                notify.reloading();
                notify.ready();
            }
        });
    }

    /// Keeps the service manager's line about an agent that of the agent.
    pub(crate) fn follow(&self, mut status: watch::Receiver<AgentStatus>, tasks: &Tasks) {
        if self.socket.is_none() {
            return;
        }
        let notify = self.clone();
        tasks.spawn_until_stop("status for the service manager", async move {
            loop {
                let text = status.borrow_and_update().to_string();
                notify.status(&text);
                if status.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!(%error, message, "the service manager was not told");
        }
    }
}

/// By a path, or by a name behind an `@` that is in no directory.
fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Half the watchdog's period, if it watches this process.
fn beat(environment: &Environment, own: u32) -> Option<Duration> {
    let number = |name: &str| environment.get(name)?.parse::<u64>().ok();
    let is_meant =
        environment.get("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(u64::from(own));
    let period = number("WATCHDOG_USEC").filter(|micros| *micros > 1)?;
    is_meant.then(|| Duration::from_micros(period / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_hears_from_the_process_that_it_watches_at_half_its_period() {
        let of = |variables: &[(&str, &str)]| beat(&Environment::of(variables), 7);
        let thirty = ("WATCHDOG_USEC", "30000000");
        assert_eq!(of(&[thirty]), Some(Duration::from_secs(15)));
        assert_eq!(
            of(&[thirty, ("WATCHDOG_PID", "7")]),
            Some(Duration::from_secs(15))
        );
        for variables in [
            &[][..],
            &[thirty, ("WATCHDOG_PID", "8")],
            &[("WATCHDOG_USEC", "0")],
            &[("WATCHDOG_USEC", "soon")],
        ] {
            assert_eq!(of(variables), None, "{variables:?}");
        }
    }

    #[test]
    fn a_message_arrives_whole_by_path_and_by_name() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let abstract_name = format!("hostler-notify-{}", std::process::id());
        let name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (listener, told) in [
            (
                UnixDatagram::bind(&path).unwrap(),
                path.display().to_string(),
            ),
            (
                UnixDatagram::bind_addr(&name).unwrap(),
                format!("@{abstract_name}"),
            ),
        ] {
            let notify = Notify::of(&Environment::of(&[("NOTIFY_SOCKET", &told)]));
            notify.status("two\nlines");
            let mut buffer = [0; 64];
            let count = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"STATUS=two lines");
        }
    }

    #[test]
    fn a_manager_that_is_not_there_is_told_nothing_and_breaks_nothing() {
        for variables in [&[][..], &[("NOTIFY_SOCKET", "/nonexistent/notify")]] {
            let notify = Notify::of(&Environment::of(variables));
            notify.ready();
            notify.stopping();
            assert!(notify.socket.is_none());
        }
    }
}
