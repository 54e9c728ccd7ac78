//! `agent`: this machine's agent, until it is told to stop. What it runs goes on without it.

use hostler_agent::AgentStatus;
use hostler_kit::{Tasks, telemetry};
use tokio::sync::watch;

use super::single_thread;
use crate::compose::{NodeAgent, NodeAgentConfig, Signals, agent_door, shut_down};
use crate::failure::Failure;
use crate::personality;
use crate::printer::Printer;
use crate::settings::{AgentSettings, Environment, Target};
use crate::status::ExitStatus;

pub(crate) fn agent(
    settings: AgentSettings,
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let server = match &settings.target {
        Target::Session { server } => server.clone(),
        Target::Foreign { .. } => return personality::of_settings(settings, environment, printer),
    };
    telemetry::install(&settings.log.filter, settings.log.format);
    single_thread()?.block_on(Box::pin(look_after(server, settings, printer)))
}

async fn look_after(
    server: String,
    settings: AgentSettings,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let mut signals = Signals::new()?;
    let tasks = Tasks::new();
    let bound = match settings.listen {
        Some(addr) => Some(agent_door::bind(addr).await?),
        None => None,
    };
    let config = NodeAgentConfig {
        trust: settings.trust,
        name: settings.name,
        labels: settings.labels,
        reserve: settings.reserve,
        care: settings.care,
        vm: settings.vm,
        volumes: settings.volumes,
        registries: settings.registries,
        guard: settings.guard,
        ..NodeAgentConfig::new(server, settings.data_dir, settings.docker_socket)
    };
    let agent = NodeAgent::start(config, &tasks).await?;
    if let Some(bound) = bound {
        printer.data(&format!("listening on http://{}", bound.addr()));
        agent_door::serve(bound, agent.vitals(), &tasks);
    }
    // Cancel-safe: both arms only wait and write whole lines.
    tokio::select! {
        () = signals.stop() => {}
        () = tell(agent.status(), printer) => {}
    }
    shut_down(&tasks).await;
    agent.stopped().await;
    Ok(ExitStatus::Done)
}

/// One line whenever the agent stands differently with its control plane.
async fn tell(mut status: watch::Receiver<AgentStatus>, printer: &Printer) {
    loop {
        let now = status.borrow_and_update().clone();
        printer.data(&now.to_string());
        if let AgentStatus::Refused { advice, .. } = &now {
            printer.talk(&format!("  {advice}"));
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
