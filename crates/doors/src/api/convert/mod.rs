//! Nouns to the bodies of the API. Everything here reads: one view, what the nodes last said, and no more.

mod assignment;
mod difference;
mod event;
mod job;
mod node;
mod rollout;
mod why;
mod workload;

use hostler_model::{Desired, Resources, Timestamp};
use hostler_wire::api;

pub(super) use assignment::assignment;
pub(super) use difference::difference;
pub(super) use event::{event, line, notice};
pub(super) use job::job;
pub(super) use node::{command, node};
pub(super) use rollout::rollout_plan;
pub(super) use why::{ailing, why};
pub(super) use workload::{applied, revision, workload, workload_in_detail};

const fn resources(resources: Resources) -> api::Resources {
    api::Resources {
        milli_cpu: resources.cpu.0,
        memory_bytes: resources.memory.0,
        disk_bytes: resources.disk.0,
    }
}

const fn desired(desired: Desired) -> api::Desired {
    match desired {
        Desired::Running => api::Desired::Running,
        Desired::Stopped => api::Desired::Stopped,
        Desired::Deleted => api::Desired::Deleted,
    }
}

pub(super) fn moment(at: Timestamp) -> String {
    at.to_string()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
