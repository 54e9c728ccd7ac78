//! `server`: the control plane, until it is told to stop.

use hostler_kit::{Tasks, telemetry};

use super::multi_thread;
use crate::compose::{ControlPlane, Signals, shut_down};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::ServerSettings;
use crate::status::ExitStatus;

/// Two: deciding and serving do not wait for each other, and an idle server stays small.
const WORKERS: usize = 2;

pub(crate) fn server(settings: ServerSettings, printer: &Printer) -> Result<ExitStatus, Failure> {
    telemetry::install(&settings.log.filter, settings.log.format);
    multi_thread(WORKERS)?.block_on(Box::pin(serve(settings, printer)))
}

async fn serve(settings: ServerSettings, printer: &Printer) -> Result<ExitStatus, Failure> {
    let mut signals = Signals::new()?;
    let tasks = Tasks::new();
    let plane = ControlPlane::start(&settings, &tasks).await?;
    plane.tell(printer);
    // Cancel-safe: both arms only wait.
    let end = tokio::select! {
        () = signals.stop() => Ok(ExitStatus::Done),
        failure = plane.deposed() => Err(failure),
    };
    shut_down(&tasks).await;
    end
}
