//! What is known of guests, under the keys that schedulers look for. It is gathered from time to time beside what
//! workloads use: no answer waits for a driver.

use std::collections::BTreeMap;
use std::time::Duration;

use hostler_model::UnitState;
use hostler_model::spec::Kind;
use hostler_runtime::Guest;
use hostler_runtime::vm::Power;
use hostler_wire::persys::agent::ActualState;

use super::core::{Core, Workload, lock};
use super::states::Shown;

/// How often guests are looked at, and how long one look may take.
const PERIOD: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(5);

impl Core {
    /// Looks at guests, one after the other, for as long as the agent lives.
    pub(super) async fn look_at_guests(&self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            for workload in self.workloads() {
                self.look_at_guest(&workload).await;
            }
        }
    }

    /// Looks at the guest of a running machine; forgets what it knew of one that does not run.
    async fn look_at_guest(&self, workload: &Workload) {
        let id = &workload.record.id;
        let picture = self.picture();
        let unit = picture.units.get(&workload.unit);
        let is_running = unit.is_some_and(|it| matches!(it.state, UnitState::Running { .. }));
        let runtime = self
            .handle
            .runtimes
            .get(&workload.kind)
            .filter(|_| is_running);
        let Some(guests) = runtime.and_then(|runtime| runtime.guests()) else {
            lock(&self.guests).remove(id);
            return;
        };
        let looking = guests.look(workload.unit);
        // One that does not answer now is known from before.
        if let Ok(Ok(guest)) = tokio::time::timeout(PATIENCE, looking).await {
            lock(&self.guests).insert(id.clone(), guest);
        }
    }
}

/// The keys of a machine; none for any other workload.
pub(super) fn metadata(
    workload: &Workload,
    shown: &Shown,
    guest: Option<&Guest>,
) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    if workload.kind != Kind::Vm {
        return metadata;
    }
    let mut put = |key: &str, value: String| {
        if !value.is_empty() {
            metadata.insert(key.to_owned(), value);
        }
    };
    let (state, code) = domain(shown, guest);
    put("vm.domain_state", state.to_owned());
    put("vm.domain_state_code", code.to_string());
    let interfaces = guest.map_or(&[][..], |guest| &guest.interfaces);
    let addresses = || interfaces.iter().filter_map(|it| it.address);
    let listed: Vec<String> = addresses().map(|it| it.to_string()).collect();
    let macs: Vec<&str> = interfaces.iter().map(|it| it.mac.as_str()).collect();
    let networks = interfaces
        .iter()
        .map(|it| it.bridge.as_deref().unwrap_or("user"));
    put("vm.primary_ip", listed.first().cloned().unwrap_or_default());
    put("vm.ip_addresses", listed.join(","));
    put("vm.mac_addresses", macs.join(","));
    put("vm.interfaces", networks.collect::<Vec<_>>().join(","));
    metadata
}

/// The state of the guest, and its number, as schedulers know them from libvirt.
fn domain(shown: &Shown, guest: Option<&Guest>) -> (&'static str, u32) {
    match (shown.actual, guest.map(|guest| guest.power)) {
        (ActualState::Running, Some(Power::Paused)) => ("paused", 3),
        (ActualState::Running, Some(Power::Shutdown)) => ("shutdown", 4),
        (ActualState::Running, Some(Power::Panicked)) => ("crashed", 6),
        (ActualState::Running, Some(Power::Running | Power::Other) | None) => ("running", 1),
        (ActualState::Failed, _) => ("crashed", 6),
        (ActualState::Stopped, _) => ("shutoff", 5),
        _ => ("nostate", 0),
    }
}
