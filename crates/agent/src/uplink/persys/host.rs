//! How busy the machine is and what it has promised, for heartbeats, health and admission, and where the scheduler
//! reaches the node.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use hostler_model::Resources;
use hostler_wire::persys::control::NodeUsage;

use super::core::{Core, Workload, lock};
use super::spec::No;
use super::{causes, states};
use crate::dial::Server;

/// Shares count since the last look, so one that follows sooner takes over what was seen.
const FRESH: Duration = Duration::from_secs(1);
/// How long the scheduler's name may take to be looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// The file system that the contract speaks of.
const ROOT: &str = "/";

/// The last look at the machine.
#[derive(Debug, Default)]
pub(super) struct Looks {
    last: Option<(Duration, Look)>,
}

/// How busy the machine is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Look {
    pub(super) has: Resources,
    pub(super) used: Resources,
    /// Of all cores.
    pub(super) cpu_percent: f64,
}

impl Look {
    pub(super) fn memory_percent(&self) -> f64 {
        percent(self.used.memory.0, self.has.memory.0)
    }

    pub(super) fn disk_percent(&self) -> f64 {
        percent(self.used.disk.0, self.has.disk.0)
    }
}

impl Core {
    pub(super) fn look(&self) -> Look {
        let now = self.parts.clock.uptime();
        let mut looks = lock(&self.looks);
        if let Some((at, look)) = looks.last
            && now.saturating_sub(at) < FRESH
        {
            return look;
        }
        let (machine, root) = (&self.parts.machine, Path::new(ROOT));
        let usage = machine.usage(root);
        let has = self
            .config
            .capacity
            .unwrap_or_else(|| machine.capacity(root));
        let cpu_percent = f64::from(usage.cpu_percent);
        let used = Resources {
            cpu: hostler_model::MilliCpu(part(cpu_percent, has.cpu.0)),
            memory: usage.memory_used,
            disk: hostler_model::Bytes(has.disk.0.saturating_sub(usage.disk_free.0)),
        };
        let look = Look {
            has,
            used,
            cpu_percent,
        };
        looks.last = Some((now, look));
        look
    }

    /// What has been promised to workloads that are to run and have not ended.
    pub(super) fn allocated(&self) -> Resources {
        let picture = self.picture();
        let holds = |workload: &Workload| {
            workload.is_wanted() && !states::show(workload, &picture).is_settled_otherwise()
        };
        let workloads = self.workloads();
        let specs = workloads
            .iter()
            .filter(|it| holds(it))
            .filter_map(|it| it.spec.as_ref());
        specs.fold(Resources::ZERO, |sum, spec| Resources {
            cpu: hostler_model::MilliCpu(sum.cpu.0.saturating_add(spec.resources.cpu.0)),
            memory: hostler_model::Bytes(sum.memory.0.saturating_add(spec.resources.memory.0)),
            disk: hostler_model::Bytes(sum.disk.0.saturating_add(spec.resources.disk.0)),
        })
    }

    pub(super) fn node_usage(&self) -> NodeUsage {
        let (look, allocated) = (self.look(), self.allocated());
        NodeUsage {
            cpu_allocated_millicores: whole(allocated.cpu.0),
            cpu_used_millicores: whole(look.used.cpu.0),
            memory_allocated_mb: whole(allocated.memory.0.div_ceil(MIB)),
            memory_used_mb: whole(look.used.memory.0 / MIB),
            disk_allocated_gb: whole(allocated.disk.0.div_ceil(GIB)),
            disk_used_gb: whole(look.used.disk.0 / GIB),
        }
    }

    /// Whether the machine is too busy for anything new to begin.
    pub(super) fn admit(&self) -> Result<(), No> {
        let (look, most) = (self.look(), self.persys.admission);
        let figures = [
            ("memory", look.memory_percent(), most.memory),
            ("CPU", look.cpu_percent, most.cpu),
            ("disk", look.disk_percent(), most.disk),
        ];
        let over: Vec<String> = figures
            .into_iter()
            .filter(|(_, used, most)| used > most)
            .map(|(what, used, most)| {
                format!("{used:.0} % of the node's {what} is in use, more than {most:.0} %")
            })
            .collect();
        if over.is_empty() {
            return Ok(());
        }
        Err(No::new(causes::QUOTA, over.join("; ")))
    }

    /// Where the scheduler reaches the node: what was set, else the node's address on the way to the scheduler, else
    /// its first one.
    pub(super) async fn endpoint(&self, scheduler: &Server) -> String {
        if let Some(set) = &self.persys.grpc_endpoint {
            return set.clone();
        }
        let towards = address_of(scheduler).await;
        let towards = towards.and_then(|it| self.parts.machine.address_towards(it));
        let first = || self.parts.machine.facts().addresses.first()?.parse().ok();
        let own = towards
            .or_else(first)
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        std::net::SocketAddr::new(own, self.persys.grpc_port).to_string()
    }
}

async fn address_of(scheduler: &Server) -> Option<IpAddr> {
    if let Ok(address) = scheduler.host.parse() {
        return Some(address);
    }
    let looking = tokio::net::lookup_host((scheduler.host.as_str(), scheduler.port));
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, looking)
        .await
        .ok()?
        .ok()?;
    found.map(|found| found.ip()).next()
}

pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

pub(super) fn whole(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "percentages lose nothing that matters"
)]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64 * 100.0
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a share of a machine is small and not below zero"
)]
fn part(percent: f64, whole: u64) -> u64 {
    (percent.max(0.0) / 100.0 * whole as f64).round() as u64
}
