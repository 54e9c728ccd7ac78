//! What is the same for every foreign agent: the ports, the agent, and the wait for a signal.

use std::net::SocketAddr;

use hostler_agent::{Level, Line, Uplink};
use hostler_kit::Tasks;

use crate::compose::{NodeAgent, NodeAgentConfig, Notify, Signals, agent_door, shut_down};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::LogSettings;
use crate::status::ExitStatus;

/// A foreign agent, resolved.
pub(super) struct Agent {
    pub(super) node: NodeAgentConfig,
    /// Where the agent answers about itself.
    pub(super) listen: Option<SocketAddr>,
    /// Where the contract's own services are to be reached.
    pub(super) services: Option<SocketAddr>,
    /// Whether the contract's agent names the signal that ends it.
    pub(super) names_signal: bool,
    pub(super) log: LogSettings,
}

impl Agent {
    /// Stdout is the contract's; where things listen is told on stderr.
    pub(super) async fn run(mut self, printer: &Printer) -> Result<ExitStatus, Failure> {
        let mut signals = Signals::new()?;
        let tasks = Tasks::new();
        let door = match self.listen {
            Some(addr) => Some(agent_door::bind(addr).await?),
            None => None,
        };
        let services = match self.services {
            Some(addr) => Some(agent_door::bind(addr).await?),
            None => None,
        };
        if let (Some(bound), Uplink::Orchion(orchion)) = (&services, &mut self.node.uplink) {
            orchion.agent_port = bound.addr().port();
        }
        let journal = self.node.journal.clone();
        let agent = NodeAgent::start(self.node, &tasks).await?;
        if let Some(bound) = door {
            printer.talk(&format!("listening on http://{}", bound.addr()));
            agent_door::serve(bound, agent.vitals(), &tasks);
        }
        if let (Some(bound), Some(router)) = (services, agent.services()) {
            printer.talk(&format!("serving on {}", bound.addr()));
            let served = hostler_doors::serve(bound, router, tasks.clone());
            tasks.spawn("agent services", served);
        }
        let (notify, vitals) = (Notify::of_process(), agent.vitals());
        notify.attend(&tasks, move || vitals.is_alive());
        notify.answer_reloads(&tasks);
        notify.follow(agent.status(), &tasks);
        notify.ready();
        let signal = signals.number().await;
        notify.stopping();
        if self.names_signal {
            journal.write(&Line::new(Level::Info, format!("Received signal {signal}")));
        }
        shut_down(&tasks).await;
        agent.stopped().await;
        Ok(ExitStatus::Done)
    }
}
