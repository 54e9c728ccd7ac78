//! What the machine driver has beside its units: the disks of assignments that have no unit here any more.

use std::collections::BTreeSet;
use std::path::PathBuf;

use async_trait::async_trait;
use hostler_model::AssignmentId;

use super::{Inner, VmRuntime, disks};
use crate::{Discarded, Leftover, LeftoverKind, Leftovers, Runtime as _, RuntimeError, disk};

#[async_trait]
impl Leftovers for VmRuntime {
    async fn place(&self) -> Option<PathBuf> {
        None
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, RuntimeError> {
        let inner = &self.inner;
        let dirs = inner.disks.clone();
        let listed = disk::off_thread("look for disks", move || disk::entries(&dirs)).await?;
        let owned = inner.whose.all().await?;
        let units = inner.assignments().await?;
        let mut kept = Vec::new();
        for (dir, name) in listed {
            let Ok(assignment) = name.parse::<AssignmentId>() else {
                continue;
            };
            if units.contains(&assignment) {
                continue;
            }
            let whose = owned.iter().find(|(it, _)| *it == assignment);
            let whose = whose.map(|(_, owned)| *owned);
            let bytes = move || Ok(disk::usage(&dir));
            kept.push(Leftover {
                kind: LeftoverKind::Data {
                    assignment,
                    workload: whose.map(|owned| owned.workload),
                },
                name,
                bytes: disk::off_thread("measure disks", bytes).await?,
                made_at: whose.map(|owned| owned.made_at).unwrap_or_default(),
                used_at: whose.map(|owned| owned.used_at).unwrap_or_default(),
                needed: None,
            });
        }
        Ok(kept)
    }

    async fn discard(&self, kind: LeftoverKind, _name: &str) -> Result<Discarded, RuntimeError> {
        let LeftoverKind::Data { assignment, .. } = kind else {
            return Ok(Discarded::Gone);
        };
        let inner = &self.inner;
        let Some(_hold) = inner.whose.try_hold(assignment) else {
            return Ok(Discarded::Stays("a unit is being made of it".to_owned()));
        };
        if inner.assignments().await?.contains(&assignment) {
            return Ok(Discarded::Stays("a unit uses it".to_owned()));
        }
        let dir = inner.disks_of(assignment);
        disk::off_thread("delete the disks", move || disks::delete(&dir)).await?;
        inner.whose.forget(assignment).await?;
        Ok(Discarded::Gone)
    }
}

impl Inner {
    /// Assignments that have a unit here.
    async fn assignments(&self) -> Result<BTreeSet<AssignmentId>, RuntimeError> {
        let units = self.process.observe().await?;
        Ok(units.iter().map(|unit| unit.id.assignment).collect())
    }
}
