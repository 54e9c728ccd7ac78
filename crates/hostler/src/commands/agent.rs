//! `agent`: this machine's agent, until it is told to stop. What it runs goes on without it.

use hostler_agent::AgentStatus;
use hostler_kit::{Tasks, telemetry};
use tokio::sync::watch;

use super::{reload, single_thread};
use crate::args::AgentArgs;
use crate::compose::{
    MachineId, NodeAgent, NodeAgentConfig, Notify, Signals, Wish, agent_door, shut_down,
};
use crate::failure::Failure;
use crate::personality;
use crate::printer::Printer;
use crate::settings::{AgentSettings, Environment, Target};
use crate::status::ExitStatus;

pub(crate) fn agent(
    settings: AgentSettings,
    (args, environment): (AgentArgs, &Environment),
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let server = match &settings.target {
        Target::Session { server } => server.clone(),
        Target::Foreign { .. } => return personality::of_settings(settings, environment, printer),
    };
    telemetry::install(&settings.log.filter, settings.log.format);
    single_thread()?.block_on(Box::pin(look_after(
        (server, settings),
        (&args, environment),
        printer,
    )))
}

async fn look_after(
    (server, mut settings): (String, AgentSettings),
    layers: (&AgentArgs, &Environment),
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let mut signals = Signals::with_reload()?;
    let tasks = Tasks::new();
    let bound = match settings.listen {
        Some(addr) => Some(agent_door::bind(addr).await?),
        None => None,
    };
    let config = NodeAgentConfig {
        trust: settings.trust.clone(),
        machine: Some(MachineId(settings.machine_id.clone())),
        name: settings.name.clone(),
        labels: settings.labels.clone(),
        reserve: settings.reserve,
        care: settings.care,
        vm: settings.vm.clone(),
        volumes: settings.volumes.clone(),
        registries: settings.registries.clone(),
        guard: settings.guard.clone(),
        ..NodeAgentConfig::new(
            server,
            settings.data_dir.clone(),
            settings.docker_socket.clone(),
        )
    };
    // Where it is to be asked first what became of the machine, the answer may take long.
    let started = tokio::select! {
        biased;
        () = signals.stop() => None,
        started = Box::pin(NodeAgent::start(config, &tasks)) => Some(started?),
    };
    let Some(agent) = started else {
        shut_down(&tasks).await;
        return Ok(ExitStatus::Done);
    };
    if let Some(bound) = bound {
        printer.data(&format!("listening on http://{}", bound.addr()));
        agent_door::serve(bound, agent.vitals(), &tasks);
    }
    let (notify, vitals) = (Notify::of_process(), agent.vitals());
    notify.attend(&tasks, move || vitals.is_alive());
    notify.follow(agent.status(), &tasks);
    notify.ready();
    let mut telling = Box::pin(tell(agent.status(), printer));
    loop {
        // Cancel-safe: all arms only wait and write whole lines.
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop => break,
                Wish::Reload => {
                    notify.reloading();
                    reload::agent(&mut settings, layers, &agent);
                    notify.ready();
                }
            },
            () = &mut telling => break,
        }
    }
    notify.stopping();
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
