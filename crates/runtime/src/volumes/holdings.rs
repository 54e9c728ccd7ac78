//! Owns the records of who holds which volume, and calls the storage drivers. What it says is on disk before anything
//! is done, so that an agent that died half-way finds what it left.
//!
//! Two rules keep data safe. While a unit holds a volume that one copy may use, no other unit gets it: neither one of
//! another workload nor a newer generation of the same copy. And what a copy has written stays its own while no unit
//! holds it, until the copy is gone for good: a volume of another workload is never taken over, and never deleted. Nor
//! is one that Hostler has not made. Where other nodes have a volume as well, both rules are kept by the marker beside
//! the data, and what is known here only says which data to ask about once its workload is deleted.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use hostler_kit::Clock;
use hostler_model::spec::{Kind, ManagedVolume};
use hostler_model::{FailureCode, StorageFact, Timestamp, UnitId};

use super::ceph::Ceph;
use super::local::Local;
use super::nfs::Nfs;
use super::record::{Held, Holding, Known, Owner, Phase, Records};
use super::refused;
use super::{Attached, Claim, Form, Leaver, Parting, Storage, Tools, Volume, VolumeSettings};
use crate::{Data, RuntimeError, Unit};

/// What holdings are made of.
pub struct HoldingsConfig {
    /// A directory of their own. Nobody else writes below it.
    pub dir: PathBuf,
    /// What the node is called in the markers of volumes that it shares with others. No other agent is called so.
    pub node: String,
    pub settings: VolumeSettings,
    pub tools: Tools,
    pub clock: Arc<dyn Clock>,
}

/// Who holds which volume on this node; shared by all runtime drivers.
pub struct Holdings {
    pub(super) records: Records,
    pub(super) drivers: BTreeMap<&'static str, Arc<dyn Storage>>,
    node: String,
    clock: Arc<dyn Clock>,
    /// Claims are made one at a time.
    pub(super) claims: tokio::sync::Mutex<()>,
    /// One step at a time on each volume.
    turns: Mutex<HashMap<(String, String), Turn>>,
}

type Turn = Arc<tokio::sync::Mutex<()>>;

/// What becomes of a unit's volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It came to nothing: everything is as it was.
    TakeBack,
    Keep,
    Delete,
}

impl Holdings {
    /// Makes them; touches nothing yet.
    #[must_use]
    pub fn new(config: HoldingsConfig) -> Self {
        let HoldingsConfig {
            dir,
            node,
            settings,
            tools,
            clock,
        } = config;
        let stage = |told: &Option<PathBuf>, usual: &str| {
            let place = told.clone().unwrap_or_else(|| dir.join(usual));
            std::path::absolute(&place).unwrap_or(place)
        };
        let local = stage(&settings.local_root, ManagedVolume::LOCAL);
        let nfs = stage(&settings.nfs.stage_dir, ManagedVolume::NFS);
        let ceph = stage(&settings.ceph.stage_dir, ManagedVolume::CEPH);
        let drivers: [(_, Arc<dyn Storage>); 3] = [
            (
                ManagedVolume::LOCAL,
                Arc::new(Local::at(local, tools.clone())),
            ),
            (
                ManagedVolume::NFS,
                Arc::new(Nfs::new(settings.nfs, nfs, tools.clone())),
            ),
            (
                ManagedVolume::CEPH,
                Arc::new(Ceph::new(settings.ceph, ceph, tools)),
            ),
        ];
        Self::with((dir, node), drivers.into(), clock)
    }

    pub(super) fn with(
        (dir, node): (PathBuf, String),
        drivers: BTreeMap<&'static str, Arc<dyn Storage>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            records: Records::in_dir(dir),
            drivers,
            node,
            clock,
            claims: tokio::sync::Mutex::default(),
            turns: Mutex::default(),
        }
    }

    /// Which storage drivers work here.
    #[must_use]
    pub fn drivers(&self) -> Vec<StorageFact> {
        let fact = |(name, driver): (&&str, &Arc<dyn Storage>)| {
            let note = driver.probe().err();
            StorageFact {
                driver: (*name).to_owned(),
                available: note.is_none(),
                note: note.unwrap_or_default(),
            }
        };
        self.drivers.iter().map(fact).collect()
    }

    /// Claims the unit's volumes and brings them to the node. If it fails, nothing of it is left.
    pub(super) async fn attach(
        &self,
        unit: &Unit,
        kind: Kind,
    ) -> Result<Vec<Attached>, RuntimeError> {
        // What could only be half undone before is undone first.
        let left = self.records.holding(unit.id).await?;
        if left.is_some_and(|left| left.volumes.len() < unit.spec.volumes().len()) {
            self.release(unit.id).await?;
        }
        let mut holding = self.claim(unit, kind).await?;
        let brought = self.bring(&mut holding).await;
        if brought.is_err() {
            self.take_back(unit.id).await;
        }
        brought
    }

    /// Undoes what was done for a unit that nothing has run of. What cannot be undone stays on record.
    pub(super) async fn take_back(&self, id: UnitId) {
        let undone = async {
            match self.records.holding(id).await? {
                Some(holding) if holding.phase == Phase::Preparing => {
                    self.give_up(holding, Ending::TakeBack).await
                }
                _ => Ok(()),
            }
        };
        if let Err(error) = undone.await {
            tracing::warn!(unit = %id, %error, "volumes of a unit that came to nothing stay here");
        }
    }

    /// From now on the unit's data counts.
    pub(super) async fn ready(&self, id: UnitId) -> Result<Option<Holding>, RuntimeError> {
        let Some(mut holding) = self.records.holding(id).await? else {
            return Ok(None);
        };
        if holding.phase == Phase::Preparing {
            holding.phase = Phase::Ready;
            self.records.save_holding(&holding).await?;
        }
        Ok(Some(holding))
    }

    /// Brings volumes back that a reboot has taken, before the unit is started.
    pub(super) async fn attach_again(&self, id: UnitId) -> Result<(), RuntimeError> {
        let Some(holding) = self.ready(id).await? else {
            return Ok(());
        };
        for held in &holding.volumes {
            let _turn = self.turn(&held.volume).await;
            let driver = self.driver(&held.volume)?;
            let claim = self.claim_of(&holding, held);
            driver.renew(&held.volume, &claim).await?;
            driver.attach(&held.volume).await?;
        }
        Ok(())
    }

    /// Puts on record that the unit is being removed. Once it was to be with its data, it is.
    pub(super) async fn leave(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        let Some(mut holding) = self.records.holding(id).await? else {
            return Ok(());
        };
        let was_to_go = matches!(
            holding.phase,
            Phase::Leaving {
                does_delete: true,
                ..
            }
        );
        holding.phase = Phase::Leaving {
            at: self.now(),
            does_delete: was_to_go || data == Data::Delete,
        };
        self.records.save_holding(&holding).await
    }

    /// Lets go of what a unit held of which nothing is left.
    pub(super) async fn release(&self, id: UnitId) -> Result<(), RuntimeError> {
        let Some(holding) = self.records.holding(id).await? else {
            return Ok(());
        };
        let ending = match holding.phase {
            Phase::Preparing => Ending::TakeBack,
            Phase::Leaving {
                does_delete: true, ..
            } => Ending::Delete,
            Phase::Ready | Phase::Leaving { .. } => Ending::Keep,
        };
        self.give_up(holding, ending).await
    }

    /// What the units of a runtime driver hold.
    pub(super) async fn of_kind(&self, kind: Kind) -> Result<Vec<Holding>, RuntimeError> {
        let mut holdings = self.records.holdings().await?;
        holdings.retain(|holding| holding.kind == kind);
        Ok(holdings)
    }

    async fn claim(&self, unit: &Unit, kind: Kind) -> Result<Holding, RuntimeError> {
        let _turn = self.claims.lock().await;
        if let Some(mut holding) = self.records.holding(unit.id).await? {
            // It was to go, and is wanted again.
            if matches!(holding.phase, Phase::Leaving { .. }) {
                holding.phase = Phase::Ready;
                self.records.save_holding(&holding).await?;
            }
            return Ok(holding);
        }
        let mut holding = self.wanted(unit, kind)?;
        let others = self.records.holdings().await?;
        let mut known = Vec::new();
        for held in &mut holding.volumes {
            check_free(held, &others)?;
            if held.volume.is_local() {
                known.push(self.entitle(held, (holding.owner, kind)).await?);
            }
        }
        self.records.save_holding(&holding).await?;
        let local = holding.volumes.iter().filter(|it| it.volume.is_local());
        for (held, known) in local.zip(known) {
            self.records.save_known(&held.volume, known).await?;
        }
        Ok(holding)
    }

    /// What the marker of a volume is told of the unit that holds it.
    fn claim_of(&self, holding: &Holding, held: &Held) -> Claim {
        Claim {
            node: self.node.clone(),
            unit: holding.unit,
            owner: holding.owner,
            retain: held.retain,
            is_first: false,
            at: self.now(),
        }
    }

    /// Who lets go of a volume: a unit; or, where none has it any more, the node.
    pub(super) fn leaver(&self, owner: Owner, unit: Option<UnitId>) -> Leaver {
        Leaver {
            node: self.node.clone(),
            unit,
            owner,
        }
    }

    /// What the spec asks for, if this node can give it.
    fn wanted(&self, unit: &Unit, kind: Kind) -> Result<Holding, RuntimeError> {
        let form = match kind {
            Kind::Vm => Form::Disk,
            _ => Form::Directory,
        };
        let mut volumes = Vec::new();
        for spec in unit.spec.volumes() {
            let volume = Volume::of(spec, unit.slot, form);
            if volume.name.is_empty() {
                let message = format!("`{}` is no name of a volume", spec.name);
                return Err(refused(FailureCode::VolumeInvalid, message));
            }
            self.driver(&volume)?.probe().map_err(|note| {
                let message = format!(
                    "volume `{}`: no storage driver {} here: {note}",
                    spec.name, spec.driver
                );
                refused(FailureCode::VolumeDriverMissing, message)
            })?;
            volumes.push(Held {
                volume,
                called: spec.name.clone(),
                target: spec.target.clone(),
                read_only: spec.is_read_only(),
                retain: spec.retain,
                is_new: false,
                is_new_owner: false,
                is_entitled: false,
                is_ours: false,
            });
        }
        Ok(Holding {
            unit: unit.id,
            kind,
            owner: Owner {
                workload: unit.workload,
                slot: unit.slot,
            },
            phase: Phase::Preparing,
            volumes,
        })
    }

    /// Enters the copy among the volume's owners, unless it is another's.
    async fn entitle(
        &self,
        held: &mut Held,
        (owner, kind): (Owner, Kind),
    ) -> Result<Known, RuntimeError> {
        let mut known = self.records.known(&held.volume).await?;
        let mut others = known.owners.iter().filter(|other| **other != owner);
        let is_exclusive = held.volume.is_exclusive();
        // Elsewhere the marker says so, and has let it in.
        if let Some(other) = others.next().filter(|_| held.volume.is_local())
            && (known.is_exclusive || is_exclusive)
        {
            let message = format!(
                "volume `{}` holds the data of copy {} of workload {}; name another, or delete that workload here",
                held.called, other.slot, other.workload
            );
            return Err(refused(FailureCode::VolumeInUse, message));
        }
        check_form(held, &known)?;
        held.is_new_owner = known.owners.insert(owner);
        match held.retain {
            true => known.retained_by.insert(owner),
            false => known.retained_by.remove(&owner),
        };
        held.is_ours = known.is_ours;
        let now = self.now();
        let is_first = known.volume.is_none();
        Ok(Known {
            is_exclusive,
            volume: Some(held.volume.clone()),
            kind: Some(kind),
            made_at: if is_first { now } else { known.made_at },
            used_at: now,
            ..known
        })
    }

    async fn bring(&self, holding: &mut Holding) -> Result<Vec<Attached>, RuntimeError> {
        let mut attached = Vec::new();
        for number in 0..holding.volumes.len() {
            let volume = holding.volumes[number].volume.clone();
            let _turn = self.turn(&volume).await;
            let driver = self.driver(&volume)?;
            let claim = self.claim_of(holding, &holding.volumes[number]);
            let provisioned = driver.provision(&volume, &claim).await?;
            if !volume.is_local() {
                self.note_entry(holding, number).await?;
            }
            if provisioned.is_new || provisioned.is_new_owner {
                let held = &mut holding.volumes[number];
                // What an earlier try made or entered is still to be undone.
                held.is_entitled |= provisioned.is_new_owner;
                held.is_new |= provisioned.is_new;
                held.is_ours |= provisioned.is_new;
                self.records.save_holding(holding).await?;
            }
            if provisioned.is_new {
                self.note_made(&volume).await?;
            }
            let place = driver.attach(&volume).await?;
            attached.push(holding.volumes[number].attached(place));
        }
        Ok(attached)
    }

    /// Puts on record whose data it is, now that the marker says so.
    async fn note_entry(&self, holding: &mut Holding, number: usize) -> Result<(), RuntimeError> {
        let _claims = self.claims.lock().await;
        let who = (holding.owner, holding.kind);
        let held = &mut holding.volumes[number];
        let was_new = held.is_new_owner;
        let known = self.entitle(held, who).await?;
        held.is_new_owner |= was_new;
        self.records.save_known(&held.volume, known).await
    }

    /// Puts on record that this node made it.
    async fn note_made(&self, volume: &Volume) -> Result<(), RuntimeError> {
        let _claims = self.claims.lock().await;
        let known = self.records.known(volume).await?;
        let known = Known {
            is_ours: true,
            ..known
        };
        self.records.save_known(volume, known).await
    }

    /// Lets go of one volume after the other. Each is off the record once that is done.
    async fn give_up(&self, mut holding: Holding, ending: Ending) -> Result<(), RuntimeError> {
        while let Some(held) = holding.volumes.last().cloned() {
            let _turn = self.turn(&held.volume).await;
            self.let_go(&held, &holding, ending).await?;
            holding.volumes.pop();
            if holding.volumes.is_empty() {
                self.records.forget_holding(holding.unit).await?;
            } else {
                self.records.save_holding(&holding).await?;
            }
        }
        Ok(())
    }

    async fn let_go(
        &self,
        held: &Held,
        holding: &Holding,
        ending: Ending,
    ) -> Result<(), RuntimeError> {
        let (volume, driver) = (&held.volume, self.driver(&held.volume)?);
        let units = self.records.holdings().await?;
        let has_others = units
            .iter()
            .any(|other| other.unit != holding.unit && other.holds(volume));
        if !has_others {
            driver.detach(volume).await?;
        }
        let (disowns, deletes) = match ending {
            Ending::TakeBack => (held.is_new_owner, held.is_new),
            Ending::Delete => (true, !held.retain),
            Ending::Keep => (false, false),
        };
        let is_told = volume.is_local() || self.part(held, holding, ending).await?;
        let claims = self.claims.lock().await;
        let mut known = self.records.known(volume).await?;
        let may_go = volume.is_local() && (held.is_ours || known.is_ours);
        if !is_told && ending == Ending::TakeBack {
            known.remember(volume, holding, self.now());
        }
        let is_owned = known.owners.contains(&holding.owner);
        if disowns && is_told {
            known.owners.remove(&holding.owner);
            if ending == Ending::TakeBack {
                known.retained_by.remove(&holding.owner);
            }
        }
        let deletes = deletes && may_go && known.owners.is_empty();
        let is_wanted = !known.retained_by.is_empty();
        if deletes && is_wanted {
            self.keep_for_another(holding).await?;
        }
        if is_owned {
            known.used_at = self.now();
            self.records.save_known(volume, known.clone()).await?;
        }
        drop(claims);
        // Whoever claims it now waits for the turn, and makes it anew.
        if deletes && !is_wanted && !has_others {
            let leaver = self.leaver(holding.owner, Some(holding.unit));
            driver.part(volume, &leaver, Parting::Delete).await?;
        }
        Ok(())
    }

    /// Puts on record that the volume which is let go of stays, as one that owned it before wanted: that wish goes with
    /// the last owner, and a second try must not delete.
    async fn keep_for_another(&self, holding: &Holding) -> Result<(), RuntimeError> {
        let mut kept = holding.clone();
        if let Some(held) = kept.volumes.last_mut() {
            held.retain = true;
            held.is_new = false;
        }
        self.records.save_holding(&kept).await
    }

    /// Tells the marker that the unit lets go. Where its data stays, a server that cannot be asked holds nothing up: a
    /// newer generation takes the hold over, and what is known here is asked about once the workload is deleted. Answers
    /// whether the marker could be told.
    async fn part(
        &self,
        held: &Held,
        holding: &Holding,
        ending: Ending,
    ) -> Result<bool, RuntimeError> {
        let parting = match ending {
            Ending::TakeBack => Parting::TakeBack,
            Ending::Delete if held.retain => Parting::Disown,
            Ending::Delete => Parting::Delete,
            Ending::Keep => Parting::Keep,
        };
        let was_let_in = held.is_new || held.is_entitled;
        let leaves_data = match ending {
            Ending::TakeBack => !was_let_in,
            Ending::Keep => true,
            Ending::Delete => false,
        };
        let leaver = self.leaver(holding.owner, Some(holding.unit));
        let driver = self.driver(&held.volume)?;
        let parted = driver.part(&held.volume, &leaver, parting).await;
        match parted {
            Err(error) if leaves_data => {
                let volume = &held.volume.name;
                tracing::warn!(unit = %holding.unit, volume, %error, "its marker may still say that the unit holds it");
                Ok(false)
            }
            parted => parted.map(|()| true),
        }
    }

    pub(super) fn driver(&self, volume: &Volume) -> Result<&dyn Storage, RuntimeError> {
        let driver = self.drivers.get(volume.driver.as_str());
        driver.map(AsRef::as_ref).ok_or_else(|| {
            let message = format!("there is no storage driver `{}`", volume.driver);
            refused(FailureCode::VolumeDriverMissing, message)
        })
    }

    pub(super) async fn turn(&self, volume: &Volume) -> tokio::sync::OwnedMutexGuard<()> {
        let key = (volume.driver.clone(), volume.name.clone());
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // Turns that nobody waits for are not kept.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(key).or_default())
        };
        turn.lock_owned().await
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.wall_millis())
    }
}

impl Known {
    /// That the marker may have the copy among the owners, though nobody has heard that it let the copy in.
    fn remember(&mut self, volume: &Volume, holding: &Holding, now: Timestamp) {
        self.owners.insert(holding.owner);
        if self.volume.is_none() {
            self.volume = Some(volume.clone());
            self.kind = Some(holding.kind);
            self.made_at = now;
        }
    }
}

impl Holding {
    pub(super) fn holds(&self, volume: &Volume) -> bool {
        let mut volumes = self.volumes.iter().map(|held| &held.volume);
        volumes.any(|held| held.driver == volume.driver && held.name == volume.name)
    }
}

/// Whether its owners have used it as this unit would.
fn check_form(held: &Held, known: &Known) -> Result<(), RuntimeError> {
    let was = known.volume.as_ref().map(|volume| volume.form);
    if !held.volume.is_local() || was.is_none_or(|form| form == held.volume.form) {
        return Ok(());
    }
    let (is, wanted) = match held.volume.form {
        Form::Disk => ("a directory", "a machine's disk"),
        Form::Directory => ("a machine's disk", "a directory"),
    };
    let message = format!(
        "volume `{}` is {is} with data here and cannot be {wanted}; name another",
        held.called
    );
    Err(refused(FailureCode::VolumeProvisionFailed, message))
}

/// Whether no unit holds it that does not share, and this one need not.
fn check_free(held: &Held, others: &[Holding]) -> Result<(), RuntimeError> {
    let is_same = |other: &&Held| {
        other.volume.driver == held.volume.driver && other.volume.name == held.volume.name
    };
    for other in others {
        let theirs = other.volumes.iter().find(is_same);
        let Some(theirs) = theirs else { continue };
        if theirs.volume.is_exclusive() || held.volume.is_exclusive() {
            let message = format!("volume `{}` is held by unit {}", held.called, other.unit);
            return Err(refused(FailureCode::VolumeInUse, message));
        }
    }
    Ok(())
}
