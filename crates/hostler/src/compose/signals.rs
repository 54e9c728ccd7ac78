//! The wish to stop: Ctrl-C, or SIGTERM from a service manager. And for who asks for it, the wish that the configuration
//! is read again: SIGHUP. Whoever does not ask is ended by it, as by a terminal that is closed.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// What somebody wants the program to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Stop,
    Reload,
}

/// Listens from the moment it is made.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            hang_up: None,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// The same, with SIGHUP as the wish to reload.
    pub(crate) fn with_reload() -> Result<Self, Failure> {
        Ok(Self {
            hang_up: Some(signal(SignalKind::hangup()).map_err(failed)?),
            ..Self::new()?
        })
    }

    /// Completes when somebody wants the program to stop. Cancel-safe.
    pub(crate) async fn stop(&mut self) {
        self.number().await;
    }

    /// Completes with the next wish of either kind. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Wish {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Stop,
            () = hung_up(&mut self.hang_up) => Wish::Reload,
        }
    }

    /// The same, with the number of the signal.
    pub(crate) async fn number(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }
}

async fn hung_up(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::failed(
        format!("cannot listen to signals: {error}"),
        "raise the limit of open files",
    )
}
