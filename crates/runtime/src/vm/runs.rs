//! The life of a machine: looked over and started, asked to end, cut off.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use hostler_model::spec::{PortMapping, Protocol, Stop};
use hostler_model::{Exit, FailureCode, Timestamp, UnitId};

use super::images::refused;
use super::{Inner, disks, plain, qmp, tail};
use crate::logs::{LogQuery, Run};
use crate::{FoundState, Runtime as _, RuntimeError};

/// A guest that is still booting does not notice its power button.
const PRESS_AGAIN: Duration = Duration::from_secs(2);
/// Between two looks for QEMU's monitor while it starts.
const GLANCE: Duration = Duration::from_millis(20);
/// QEMU opens its monitor before the guest runs; only a machine that is overloaded takes longer.
const MONITOR_PATIENCE: Duration = Duration::from_secs(60);
/// Most of a failed boot's last lines that are told with it.
const TAIL: usize = 1500;

impl Inner {
    pub(super) async fn start(&self, id: UnitId) -> Result<(), RuntimeError> {
        let found = self.process.look(id).await?;
        let (run, began) = match found.state {
            // It may be the run of a start that nobody waited for.
            FoundState::Running { since } => (found.runs, since),
            FoundState::Prepared | FoundState::Exited { .. } => {
                self.look_over(id).await?;
                (found.runs + 1, self.now())
            }
        };
        self.process.start(id).await?;
        self.await_monitor(id, run, began).await
    }

    /// What a machine needs of its node at this moment.
    async fn look_over(&self, id: UnitId) -> Result<(), RuntimeError> {
        let machine = self.machine(id).await?;
        for bridge in machine.nics.iter().filter_map(|nic| nic.bridge.as_ref()) {
            check_bridge(bridge)?;
        }
        machine.ports.iter().try_for_each(check_port)?;
        disks::ready(&machine.disks, &self.tool).await
    }

    /// Waits until QEMU is up. One that ended before has told why.
    async fn await_monitor(
        &self,
        id: UnitId,
        run: u32,
        began: Timestamp,
    ) -> Result<(), RuntimeError> {
        let monitor = self.monitor(id);
        let answering = async {
            while qmp::power(&monitor).await.is_err() {
                tokio::time::sleep(GLANCE).await;
            }
        };
        // Cancel-safe: each arm only waits.
        tokio::select! {
            () = answering => return Ok(()),
            () = self.process.ended(id) => {}
            () = tokio::time::sleep(MONITOR_PATIENCE) => {
                tracing::warn!(unit = %id, "QEMU's monitor does not answer");
                return Ok(());
            }
        }
        let found = self.process.look(id).await?;
        match found.state {
            FoundState::Exited { exit, .. } if !exit.is_success() && found.runs == run => {
                let message = format!(
                    "QEMU ended with {exit}: {}",
                    self.last_words(id, began).await
                );
                self.process.take_back(id, run).await?;
                Err(RuntimeError::Boot { message })
            }
            // A guest may be over before anybody asked.
            _ => Ok(()),
        }
    }

    /// The log goes on from one try to the next, so only what was said since is told.
    async fn last_words(&self, id: UnitId, began: Timestamp) -> String {
        let query = LogQuery {
            run: Run::Latest,
            tail: Some(20),
            since: Some(began),
            ..LogQuery::default()
        };
        let Ok(lines) = self.process.logs(id, query).await else {
            return "it left no word".to_owned();
        };
        let lines: Vec<String> = lines
            .filter_map(|line| async { line.ok().map(|line| plain(line).text) })
            .collect()
            .await;
        let words = tail(lines.iter().map(String::as_str), TAIL, "\n");
        if words.is_empty() {
            "it left no word".to_owned()
        } else {
            words
        }
    }

    pub(super) async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        let found = self.process.look(id).await?;
        if matches!(found.state, FoundState::Running { .. }) {
            let machine = self.machine(id).await;
            // A record that is lost must not keep the guest from ending.
            let grace =
                machine.map_or_else(|_| Stop::default().grace_ms, |machine| machine.grace_ms);
            let grace = Duration::from_millis(grace);
            let asked = self.press_until_ended(id);
            if tokio::time::timeout(grace, asked).await.is_err() {
                tracing::warn!(unit = %id, "the guest does not power off; it is cut off");
                // Held, it writes no more, and what is in flight goes to the disks first.
                let _ = qmp::tell(&self.monitor(id), &[qmp::Order::Pause]).await;
            }
        }
        self.process.stop(id).await
    }

    /// Presses the guest's power button until it is over.
    async fn press_until_ended(&self, id: UnitId) {
        let monitor = self.monitor(id);
        let pressing = async {
            loop {
                // One that is held cannot notice.
                let orders = [qmp::Order::Resume, qmp::Order::PowerDown];
                if let Err(error) = qmp::tell(&monitor, &orders).await {
                    tracing::debug!(unit = %id, %error, "the power button cannot be pressed");
                }
                tokio::time::sleep(PRESS_AGAIN).await;
            }
        };
        // Cancel-safe: each arm only waits.
        tokio::select! {
            () = pressing => {}
            () = self.process.ended(id) => {}
        }
    }
}

fn check_bridge(bridge: &str) -> Result<(), RuntimeError> {
    if Path::new("/sys/class/net")
        .join(bridge)
        .join("bridge")
        .is_dir()
    {
        return Ok(());
    }
    let message = format!("there is no bridge `{bridge}` on the node");
    Err(refused(FailureCode::BridgeMissing, message))
}

/// QEMU says only in words that a port is taken, so it is tried beforehand.
fn check_port(port: &PortMapping) -> Result<(), RuntimeError> {
    let address = (Ipv4Addr::UNSPECIFIED, port.host);
    let bound = match port.protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    };
    match bound {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(RuntimeError::PortInUse { port: port.host })
        }
        // Whatever else is in the way, QEMU tells.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_told_as_such() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = |protocol| PortMapping {
            name: None,
            host: taken.local_addr().unwrap().port(),
            target: None,
            protocol,
        };
        let error = check_port(&port(Protocol::Tcp)).unwrap_err();
        assert_eq!(error.code(), "port-in-use");
        assert!(check_bridge("lo").is_err(), "no bridge");
    }
}
