//! Volumes that no unit holds and that still have an owner: what a copy that has gone elsewhere stored here. They stay
//! until that copy comes back, until its workload is known to be deleted, or until a person lets them go. Of what is on
//! a server or in a cluster, only the second counts: other nodes have it as well.

use std::sync::Arc;

use async_trait::async_trait;
use hostler_model::WorkloadId;
use hostler_model::spec::Kind;

use super::record::{Holding, Known};
use super::{Holdings, Parting, Volume, WithVolumes};
use crate::{Discarded, Leftover, LeftoverKind, Leftovers, RuntimeError, disk};

#[async_trait]
impl Leftovers for WithVolumes {
    async fn place(&self) -> Option<std::path::PathBuf> {
        self.runtime().leftovers()?.place().await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, RuntimeError> {
        let mut all = match self.runtime().leftovers() {
            Some(own) => own.leftovers().await?,
            None => Vec::new(),
        };
        all.extend(self.holdings().left(self.runtime().kind()).await?);
        Ok(all)
    }

    async fn discard(&self, kind: LeftoverKind, name: &str) -> Result<Discarded, RuntimeError> {
        match (kind, self.runtime().leftovers()) {
            (LeftoverKind::Volume { workload } | LeftoverKind::SharedVolume { workload }, _) => {
                self.holdings().discard(workload, name).await
            }
            (_, Some(own)) => own.discard(kind, name).await,
            (_, None) => Ok(Discarded::Gone),
        }
    }
}

impl Holdings {
    /// The owned volumes that units of this kind claimed last, once for each workload that owns data in them.
    async fn left(&self, kind: Kind) -> Result<Vec<Leftover>, RuntimeError> {
        let known = self.records.all_known().await?;
        // After that: what is claimed meanwhile is seen as held.
        let holdings = self.records.holdings().await?;
        let mut left = Vec::new();
        for known in known.into_iter().filter(|known| known.kind == Some(kind)) {
            let Some(volume) = &known.volume else {
                continue;
            };
            let needed = needed(&known, volume, &holdings);
            let frees = needed.is_none() && known.may_go(volume);
            let bytes = match frees {
                true => self.usage(volume).await?,
                false => 0,
            };
            for workload in known.workloads() {
                left.push(Leftover {
                    kind: match volume.is_local() {
                        true => LeftoverKind::Volume { workload },
                        false => LeftoverKind::SharedVolume { workload },
                    },
                    name: volume.full_name(),
                    bytes,
                    made_at: known.made_at,
                    used_at: known.used_at,
                    needed: needed.clone(),
                });
            }
        }
        Ok(left)
    }

    async fn usage(&self, volume: &Volume) -> Result<u64, RuntimeError> {
        let Some(driver) = self.drivers.get(volume.driver.as_str()).map(Arc::clone) else {
            return Ok(0);
        };
        let volume = volume.clone();
        disk::off_thread("measure a volume", move || Ok(driver.usage(&volume))).await
    }

    /// Takes the workload off the owners; the last one takes along what this node made. The record goes last: what is
    /// broken off is found again.
    async fn discard(&self, workload: WorkloadId, name: &str) -> Result<Discarded, RuntimeError> {
        let known = self.records.all_known().await?;
        let volumes = known.into_iter().filter_map(|known| known.volume);
        let Some(volume) = volumes.into_iter().find(|it| it.full_name() == name) else {
            return Ok(Discarded::Gone);
        };
        // Whoever claims it from now on waits for the turn, and makes it anew.
        let _turn = self.turn(&volume).await;
        let (known, why) = self.look_again(&volume).await?;
        if let Some(why) = why {
            return Ok(Discarded::Stays(why));
        }
        let is_last = known.workloads() == [workload] && known.may_go(&volume);
        // Elsewhere the marker says whether the data goes with its owner.
        if is_last || !volume.is_local() {
            let driver = self.driver(&volume)?;
            driver.detach(&volume).await?;
            for owner in known.owners.iter().filter(|it| it.workload == workload) {
                let leaver = self.leaver(*owner, None);
                driver.part(&volume, &leaver, Parting::Delete).await?;
            }
        }
        let _claims = self.claims.lock().await;
        if !self.is_held(&volume).await? {
            let mut known = self.records.known(&volume).await?;
            known.owners.retain(|owner| owner.workload != workload);
            self.records.save_known(&volume, known).await?;
        }
        Ok(Discarded::Gone)
    }

    async fn look_again(&self, volume: &Volume) -> Result<(Known, Option<String>), RuntimeError> {
        let _claims = self.claims.lock().await;
        let known = self.records.known(volume).await?;
        let holdings = self.records.holdings().await?;
        let why = needed(&known, volume, &holdings);
        Ok((known, why))
    }

    async fn is_held(&self, volume: &Volume) -> Result<bool, RuntimeError> {
        let holdings = self.records.holdings().await?;
        Ok(holdings.iter().any(|holding| holding.holds(volume)))
    }
}

/// Why it may not go.
fn needed(known: &Known, volume: &Volume, holdings: &[Holding]) -> Option<String> {
    if holdings.iter().any(|holding| holding.holds(volume)) {
        return Some("a unit uses it".to_owned());
    }
    let retained = "its spec says that it outlives its workload";
    (!known.retained_by.is_empty()).then(|| retained.to_owned())
}

impl Known {
    /// Whether the data may be deleted at all, as far as that can be known here.
    fn may_go(&self, volume: &Volume) -> bool {
        self.is_ours && volume.is_local()
    }

    fn workloads(&self) -> Vec<WorkloadId> {
        let mut workloads: Vec<_> = self.owners.iter().map(|owner| owner.workload).collect();
        workloads.dedup();
        workloads
    }
}

impl Volume {
    fn full_name(&self) -> String {
        format!("{}.{}", self.driver, self.name)
    }
}
