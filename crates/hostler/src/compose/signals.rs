//! The wish to stop: Ctrl-C, or SIGTERM from a service manager.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Listens from the moment it is made.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::failed(
                format!("cannot listen to signals: {error}"),
                "raise the limit of open files",
            )
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// Completes when somebody wants the program to stop. Cancel-safe.
    pub(crate) async fn stop(&mut self) {
        self.number().await;
    }

    /// The same, with the number of the signal.
    pub(crate) async fn number(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }
}
