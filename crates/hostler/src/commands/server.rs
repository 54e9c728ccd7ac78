//! `server`: the control plane, until it is told to stop.

use hostler_kit::{Tasks, telemetry};

use super::{multi_thread, reload};
use crate::args::ServerArgs;
use crate::compose::{ControlPlane, Notify, Passed, Signals, Wish, shut_down};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{Environment, ServerSettings};
use crate::status::ExitStatus;

/// Two: deciding and serving do not wait for each other, and an idle server stays small.
const WORKERS: usize = 2;

pub(crate) fn server(
    settings: ServerSettings,
    layers: (ServerArgs, &Environment),
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    telemetry::install(&settings.log.filter, settings.log.format);
    multi_thread(WORKERS)?.block_on(Box::pin(serve(settings, layers, printer)))
}

async fn serve(
    mut settings: ServerSettings,
    (args, environment): (ServerArgs, &Environment),
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let mut signals = Signals::with_reload()?;
    let tasks = Tasks::new();
    let passed = Passed::of_process(environment)?;
    let plane = ControlPlane::start_on(passed, &settings, &tasks).await?;
    plane.tell(printer);
    let notify = Notify::of_process();
    notify.attend(&tasks, || true);
    notify.status(&format!("serves on {}", plane.url()));
    notify.ready();
    let end = loop {
        // Cancel-safe: all arms only wait.
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop => break Ok(ExitStatus::Done),
                Wish::Reload => {
                    notify.reloading();
                    reload::server(&mut settings, (&args, environment), &plane);
                    notify.ready();
                }
            },
            failure = plane.deposed() => break Err(failure),
        }
    };
    notify.stopping();
    plane.close().await;
    shut_down(&tasks).await;
    end
}
