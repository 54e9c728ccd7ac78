//! Who owns and who holds a volume that nodes share, as it is marked beside the data. Pure: the drivers read and write
//! it where their data is.
//!
//! Holding and owning are two things. A unit holds a volume from its provision to its removal; its copy owns the data
//! until it is gone for good. A hold is taken over by a newer generation of the same copy alone: the fleet makes one
//! only when the older has gone, or is lost with its node. Nobody else takes anything over. An operator who knows
//! better removes the marker: then the data is whoever's names it next, and nothing of ours.
//!
//! A hold says whether its copy came in with it. So an entry that came to nothing can be taken back whole by whoever
//! finds it, also after an answer that was lost or an agent that died in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hostler_model::{Timestamp, UnitId, WorkloadId};
use serde::{Deserialize, Serialize};

use super::record::Owner;

/// What a unit says that wants a volume, and what stays of that while it holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// The name of the node, for people, with the mark of its agent.
    pub(super) node: String,
    pub(super) unit: UnitId,
    pub(super) owner: Owner,
    /// The data outlives the workload.
    pub(super) retain: bool,
    /// Its copy did not own the data before. The marker knows, whatever was said.
    #[serde(default)]
    pub(super) is_first: bool,
    /// When it was said last.
    pub(super) at: Timestamp,
}

/// Who lets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaver {
    pub(super) node: String,
    /// None where no unit of the node has the volume any more: what is marked of them is out of date.
    pub(super) unit: Option<UnitId>,
    pub(super) owner: Owner,
}

/// What becomes of the data when a unit lets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parting {
    /// Nothing has run with it: if the copy came in with this unit it goes again, and with it what was made.
    TakeBack,
    /// It stays its copy's.
    Keep,
    /// It stays, and is nobody's.
    Disown,
    /// It goes, if nobody else has to do with it.
    Delete,
}

/// The marker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Marker {
    /// Made by a node of the fleet. What was there before is a person's.
    pub(super) is_ours: bool,
    /// The owner shares it with nobody.
    pub(super) is_exclusive: bool,
    /// Who wants it to outlive its workload. An owner changes its own wish alone, and the wish of one that has left
    /// stays.
    pub(super) retained_by: BTreeSet<Owner>,
    pub(super) owners: BTreeSet<Owner>,
    pub(super) holders: Vec<Claim>,
}

/// Who has what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conflict {
    Owned(Owner),
    Held(Claim),
}

impl Marker {
    /// Enters the unit and its copy; answers whether the copy did not own it before. A refusal changes nothing.
    pub(super) fn enter(&mut self, claim: &Claim, is_exclusive: bool) -> Result<bool, Conflict> {
        let has_one = self.is_exclusive || is_exclusive;
        let mut others = self.owners.iter().filter(|it| **it != claim.owner);
        if let Some(other) = others.next().filter(|_| has_one) {
            return Err(Conflict::Owned(*other));
        }
        let is_past = |it: &Claim| {
            let is_older = it.unit.generation < claim.unit.generation;
            it.unit == claim.unit || (it.owner == claim.owner && is_older)
        };
        let mut present = self.holders.iter().filter(|it| !is_past(it));
        if let Some(holder) = present.find(|it| has_one || it.owner == claim.owner) {
            return Err(Conflict::Held(holder.clone()));
        }
        let is_new_owner = self.owners.insert(claim.owner);
        let is_first = is_new_owner || self.came_with(claim.unit);
        self.holders.retain(|it| !is_past(it));
        self.holders.push(Claim {
            is_first,
            ..claim.clone()
        });
        self.is_exclusive = is_exclusive;
        match claim.retain {
            true => self.retained_by.insert(claim.owner),
            false => self.retained_by.remove(&claim.owner),
        };
        Ok(is_new_owner)
    }

    pub(super) fn is_held_by(&self, unit: UnitId) -> bool {
        self.holders.iter().any(|it| it.unit == unit)
    }

    /// Whether the unit's copy owns the data only since the unit holds it.
    fn came_with(&self, unit: UnitId) -> bool {
        let mut holders = self.holders.iter();
        holders.any(|it| it.unit == unit && it.is_first)
    }

    /// Takes the unit off, and its copy too unless that keeps the data; answers whether the data is to go. It does not
    /// while anybody else holds or owns it, nor if it is not ours to delete.
    pub(super) fn leave(&mut self, leaver: &Leaver, parting: Parting) -> bool {
        let came_with = leaver.unit.is_some_and(|unit| self.came_with(unit));
        let is_taken_back = parting == Parting::TakeBack && came_with;
        let parting = match parting {
            Parting::TakeBack if came_with => Parting::Delete,
            Parting::TakeBack => Parting::Keep,
            parting => parting,
        };
        self.holders.retain(|it| match leaver.unit {
            Some(unit) => it.unit != unit,
            None => it.node != leaver.node || it.owner != leaver.owner,
        });
        // A newer generation of the copy has the data now.
        let is_followed = self.holders.iter().any(|it| it.owner == leaver.owner);
        if parting == Parting::Keep || is_followed {
            return false;
        }
        let was_owner = self.owners.remove(&leaver.owner);
        if is_taken_back {
            // It has nothing to keep yet; what another wanted to stay stays.
            self.retained_by.remove(&leaver.owner);
        }
        let may_go = self.is_ours && !self.is_retained() && self.is_over();
        parting == Parting::Delete && was_owner && may_go
    }

    pub(super) fn is_retained(&self) -> bool {
        !self.retained_by.is_empty()
    }

    /// Whether nobody has anything to do with it any more.
    pub(super) fn is_over(&self) -> bool {
        self.owners.is_empty() && self.holders.is_empty()
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned(Owner { workload, slot }) => write!(
                f,
                "it has the data of copy {slot} of workload {workload}; name another, or delete that workload"
            ),
            Self::Held(Claim { unit, node, .. }) => {
                write!(
                    f,
                    "unit {unit} on node {node} holds it; if that node is gone for good, remove the volume's marker"
                )
            }
        }
    }
}

const PREFIX: &str = "hostler.";
/// That Hostler made the image.
pub(super) const OURS: &str = "hostler.ours";
const RETAINED: &str = "hostler.retained.";
const OWNER: &str = "hostler.owner.";
const HOLDER: &str = "hostler.holder.";
const YES: &str = "yes";
const EXCLUSIVE: &str = "exclusive";
const SHARED: &str = "shared";

/// The same as pairs of text, where there is no file. Each owner and each holder has a pair of its own, so that nodes
/// which write at the same time never undo what the other has written.
pub(super) type Pairs = BTreeMap<String, String>;

impl Marker {
    pub(super) fn to_pairs(&self) -> serde_json::Result<Pairs> {
        let mut pairs = Pairs::new();
        if self.is_over() {
            return Ok(pairs);
        }
        if self.is_ours {
            pairs.insert(OURS.to_owned(), YES.to_owned());
        }
        for owner in &self.retained_by {
            pairs.insert(retained_key(*owner), YES.to_owned());
        }
        let shares = if self.is_exclusive { EXCLUSIVE } else { SHARED };
        for owner in &self.owners {
            pairs.insert(owner_key(*owner), shares.to_owned());
        }
        for holder in &self.holders {
            pairs.insert(holder_key(holder.unit), serde_json::to_string(holder)?);
        }
        Ok(pairs)
    }

    /// Pairs of others are passed over; one of ours that makes no sense is an error, because it may be a hold.
    pub(super) fn of_pairs(pairs: &Pairs) -> Result<Self, String> {
        let mut marker = Self::default();
        for (key, value) in pairs.iter().filter(|(key, _)| is_ours(key)) {
            let strange = || format!("its metadata `{key}` makes no sense");
            if let Some(owner) = key.strip_prefix(OWNER) {
                marker.owners.insert(owner_of(owner).ok_or_else(strange)?);
                marker.is_exclusive |= value != SHARED;
            } else if let Some(owner) = key.strip_prefix(RETAINED) {
                let owner = owner_of(owner).ok_or_else(strange)?;
                marker.retained_by.insert(owner);
            } else if key.starts_with(HOLDER) {
                let holder = serde_json::from_str(value).map_err(|_| strange())?;
                marker.holders.push(holder);
            }
        }
        marker.is_ours = pairs.contains_key(OURS);
        Ok(marker)
    }
}

/// Whether a pair is part of a marker.
pub(super) fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// Whether it is another's. Who writes that may bring back what the other has just taken away.
pub(super) fn is_of_others(key: &str, claim: &Claim) -> bool {
    let own = [
        owner_key(claim.owner),
        retained_key(claim.owner),
        holder_key(claim.unit),
    ];
    let mut kinds = [OWNER, RETAINED, HOLDER].into_iter();
    kinds.any(|kind| key.starts_with(kind)) && own.iter().all(|it| it != key)
}

fn owner_key(Owner { workload, slot }: Owner) -> String {
    format!("{OWNER}{workload}.{slot}")
}

fn retained_key(Owner { workload, slot }: Owner) -> String {
    format!("{RETAINED}{workload}.{slot}")
}

fn owner_of(text: &str) -> Option<Owner> {
    let (workload, slot) = text.rsplit_once('.')?;
    let workload: WorkloadId = workload.parse().ok()?;
    let slot = slot.parse().ok()?;
    Some(Owner { workload, slot })
}

fn holder_key(unit: UnitId) -> String {
    format!("{HOLDER}{unit}")
}

#[cfg(test)]
mod tests {
    use hostler_model::AssignmentId;

    use super::*;

    fn owner(workload: u128) -> Owner {
        Owner {
            workload: WorkloadId::mint(Timestamp::from_millis(1), workload),
            slot: 0,
        }
    }

    fn claim(workload: u128, generation: u64) -> Claim {
        let now = Timestamp::from_millis(generation);
        Claim {
            node: format!("node-{generation}"),
            unit: UnitId {
                assignment: AssignmentId::mint(now, u128::from(generation)),
                generation,
            },
            owner: owner(workload),
            retain: false,
            is_first: false,
            at: now,
        }
    }

    fn leaver(claim: &Claim) -> Leaver {
        Leaver {
            node: claim.node.clone(),
            unit: Some(claim.unit),
            owner: claim.owner,
        }
    }

    fn ours() -> Marker {
        Marker {
            is_ours: true,
            ..Marker::default()
        }
    }

    #[test]
    fn a_hold_is_taken_over_by_a_newer_generation_of_the_same_copy_and_by_nobody_else() {
        let mut marker = ours();
        let (old, new) = (claim(1, 4), claim(1, 5));
        assert_eq!(marker.enter(&old, true), Ok(true));
        assert_eq!(marker.enter(&old, true), Ok(false), "renewed");
        let stranger = claim(2, 9);
        let refused = marker.clone().enter(&stranger, true);
        assert_eq!(refused, Err(Conflict::Owned(old.owner)));
        let refused = marker.clone().enter(&stranger, false);
        assert_eq!(refused, Err(Conflict::Owned(old.owner)));
        assert_eq!(marker.enter(&new, true), Ok(false));
        assert_eq!(marker.holders, std::slice::from_ref(&new), "not the first");
        let before = marker.clone();
        let refused = marker.enter(&old, true);
        assert_eq!(refused, Err(Conflict::Held(new)), "the older is fenced off");
        assert_eq!(marker, before);
    }

    #[test]
    fn data_goes_with_its_copy_only_if_it_is_ours_and_nobody_else_holds_or_owns_it() {
        let (one, two) = (claim(1, 4), claim(2, 5));
        let entered = |mut marker: Marker| {
            marker.enter(&one, false).unwrap();
            marker
        };
        let leaves = |mut marker: Marker| marker.leave(&leaver(&one), Parting::Delete);
        assert!(leaves(entered(ours())));
        assert!(!leaves(entered(Marker::default())), "a person's");
        assert!(!leaves(ours()), "another workload's or nobody's");
        let mut shared = entered(ours());
        shared.enter(&two, false).unwrap();
        assert!(!leaves(shared.clone()), "held by another");
        shared.leave(&leaver(&two), Parting::Keep);
        assert!(!leaves(shared.clone()), "owned by another");
        assert!(!shared.leave(&leaver(&two), Parting::Disown));
        assert!(leaves(shared));
        let mut retained = entered(ours());
        let wish = Claim {
            retain: true,
            ..one.clone()
        };
        retained.enter(&wish, false).unwrap();
        assert!(!leaves(retained));

        // The older generation goes when the newer has it already, and takes nothing along.
        let mut followed = entered(ours());
        let newer = claim(1, 6);
        followed.enter(&newer, false).unwrap();
        assert!(!followed.leave(&leaver(&one), Parting::Delete));
        assert_eq!(followed.owners, BTreeSet::from([one.owner]));
        assert!(followed.leave(&leaver(&newer), Parting::Delete));
    }

    #[test]
    fn what_one_owner_wanted_to_stay_is_deleted_by_no_other() {
        let (one, two) = (claim(1, 4), claim(2, 5));
        let wish = Claim {
            retain: true,
            ..one.clone()
        };
        let mut marker = ours();
        marker.enter(&wish, false).unwrap();
        let mut alone = marker.clone();
        assert!(alone.leave(&leaver(&one), Parting::TakeBack), "its own");
        marker.enter(&two, false).unwrap();
        assert!(!marker.leave(&leaver(&one), Parting::Disown));
        marker.enter(&two, false).unwrap();
        let marker = Marker::of_pairs(&marker.to_pairs().unwrap()).unwrap();
        for parting in [Parting::Delete, Parting::TakeBack] {
            assert!(!marker.clone().leave(&leaver(&two), parting), "{parting:?}");
        }

        let mut changed = ours();
        changed.enter(&wish, false).unwrap();
        changed.enter(&one, false).unwrap();
        assert!(changed.leave(&leaver(&one), Parting::Delete));
    }

    #[test]
    fn a_node_without_the_unit_takes_off_what_is_marked_of_its_own_and_no_more() {
        let (here, there) = (claim(1, 4), claim(2, 5));
        let mut marker = ours();
        for claim in [&here, &there] {
            marker.enter(claim, false).unwrap();
        }
        let gone = Leaver {
            unit: None,
            ..leaver(&here)
        };
        assert!(!marker.leave(&gone, Parting::Delete));
        assert!(marker.holders.len() == 1 && marker.is_held_by(there.unit));
    }

    #[test]
    fn an_entry_is_taken_back_whole_and_what_was_the_copys_before_stays_its_own() {
        let (old, new) = (claim(1, 4), claim(1, 5));
        let mut marker = ours();
        marker.enter(&old, true).unwrap();
        marker.enter(&old, true).unwrap();
        let mut taken_back = marker.clone();
        assert!(
            taken_back.leave(&leaver(&old), Parting::TakeBack),
            "renewed"
        );
        assert!(taken_back.is_over());

        marker.enter(&new, true).unwrap();
        assert!(!marker.leave(&leaver(&new), Parting::TakeBack));
        assert_eq!(marker.owners, BTreeSet::from([old.owner]));
        assert!(marker.holders.is_empty());
    }

    #[test]
    fn nobody_writes_the_pairs_of_another() {
        let (one, two) = (claim(1, 4), claim(2, 5));
        let mut marker = ours();
        marker.enter(&one, false).unwrap();
        for key in marker.to_pairs().unwrap().keys() {
            assert!(!is_of_others(key, &one), "{key}");
            assert_eq!(is_of_others(key, &two), key != OURS, "{key}");
        }
    }

    #[test]
    fn a_marker_is_the_same_in_pairs_and_what_makes_no_sense_is_no_free_volume() {
        let mut marker = ours();
        marker.enter(&claim(1, 4), true).unwrap();
        let mut pairs = marker.to_pairs().unwrap();
        pairs.insert("conf_rbd_cache".to_owned(), "false".to_owned());
        assert_eq!(Marker::of_pairs(&pairs), Ok(marker.clone()));
        marker.leave(&leaver(&claim(1, 4)), Parting::Disown);
        assert!(marker.to_pairs().unwrap().is_empty());
        for key in ["hostler.owner.x", "hostler.holder.x", "hostler.retained.x"] {
            pairs.insert(key.to_owned(), "?".to_owned());
            assert!(Marker::of_pairs(&pairs).is_err(), "{key}");
            pairs.remove(key);
        }
    }
}
