//! Whether this is the machine on which the node's identity was made, or its disk is a copy of that machine's or has moved.
//!
//! ```text
//!   not rebooted since, no marks kept, one in common, or no kind in common ──► the same machine; what is told now is kept
//!   another machine ─┬─ it can join by itself ──► a copy: what the disk brought is set aside, a new node begins
//!                    ├─ it has a token ─────────► as above if that is taken, as below if it is refused: see `arrival`
//!                    └─ it cannot ──────────────► moved: it goes on as the node if the control plane lets it, which it does
//!                                                 while no other machine is connected as that node; starts nothing before
//! ```
//!
//! ```text
//! <data>/agent/machine.json      the marks of the machine, its last boot, and whose disk it is a copy of
//! <data>/copied-from-<node>/     what came with a copied disk: nothing of it is used
//! ```
//!
//! A folder that is a mount point keeps what came with it in a `copied-from-<node>` of its own.
//!
//! It is looked at once, before anything else of the data directory is. What can fail: another agent uses the directory;
//! a file or folder cannot be read, written or renamed. Then the agent does not start, for it would pass itself off as
//! somebody else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hostler_kit::trust::{Invitation, Print};
use hostler_model::NodeId;
use serde::{Deserialize, Serialize};

use crate::arrival::{self, Elsewhere};
use crate::ledger::{self, Origin, files};
use crate::membership;
use crate::{Machine, StartError};

/// What an agent keeps about its node: its volumes, its units, its identity and intent. What is the likeliest to be a
/// mount point goes first, and the agent's own last.
const KEPT: [&str; 3] = ["volumes", "units", "agent"];
/// How folders of what was set aside are called.
const ASIDE: &str = "copied-from-";
/// In a folder of what was set aside: what is to be the agent's, until it is.
const FRESH: &str = "fresh";
/// Copies of copies that are set aside in one directory.
const MOST_ASIDE: u32 = 1000;

/// What tells this machine from others, by kind: the strongest first. See [`Machine::marks`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineMarks {
    /// What a person has set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
    /// That of the board or of the virtual machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// The lasting addresses of network devices.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub devices: BTreeSet<String>,
}

/// What an agent can do when it finds itself on another machine.
#[derive(Debug, Clone)]
pub enum Admittance {
    /// No token is asked for.
    Joins,
    /// It has a token, which may be refused.
    Asks(Invitation),
    /// Without the identity that it has it is nobody.
    Needs,
}

/// Where an agent has started.
#[derive(Debug)]
pub enum Found {
    Here(Birthplace),
    /// On another machine, which may be let in as a node of its own.
    Elsewhere(Elsewhere),
}

/// Where the node's identity was made. Clones are one.
#[derive(Debug, Clone)]
pub struct Birthplace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    now: Known,
    has_moved: AtomicBool,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) marks: MachineMarks,
    /// What the control plane knows the machine by: made of the marks that it had first. Empty if none was known yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    mark: String,
    /// The machine's boot at which it was written last; empty if that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    boot_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    copied_from: Option<NodeId>,
}

impl MachineMarks {
    /// Whether these are surely of two machines. What one of them does not know proves nothing, and a weaker kind counts
    /// only where no stronger one can be compared: a machine keeps its board when it gets other network devices.
    #[must_use]
    pub fn is_other_than(&self, other: &Self) -> bool {
        if let (Some(one), Some(other)) = (&self.told, &other.told) {
            return one != other;
        }
        if let (Some(one), Some(other)) = (&self.product, &other.product) {
            return one != other;
        }
        !self.devices.is_empty()
            && !other.devices.is_empty()
            && self.devices.is_disjoint(&other.devices)
    }

    /// These, and of kinds that cannot be read now what was known of them.
    fn or(self, known: &Self) -> Self {
        let devices = if self.devices.is_empty() {
            known.devices.clone()
        } else {
            self.devices
        };
        Self {
            told: self.told.or_else(|| known.told.clone()),
            product: self.product.or_else(|| known.product.clone()),
            devices,
        }
    }

    /// All of them in one word.
    fn print(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        Print::of(&text).to_string()
    }
}

impl Birthplace {
    /// Looks where the data directory is now, and sets aside what a copied disk has brought. `told` is what a person has
    /// set as the machine's mark.
    ///
    /// # Errors
    /// [`StartError::InUse`], [`StartError::Data`].
    pub fn look(
        data_dir: &Path,
        (machine, told): (&dyn Machine, Option<String>),
        admittance: Admittance,
    ) -> Result<Found, StartError> {
        let marks = MachineMarks {
            told,
            ..machine.marks()
        };
        let boot_id = machine.facts().boot_id;
        Self::look_at(data_dir, (marks, boot_id), admittance)
    }

    fn look_at(
        data_dir: &Path,
        here: (MachineMarks, String),
        admittance: Admittance,
    ) -> Result<Found, StartError> {
        let dir = data_dir.join("agent");
        finish(data_dir)?;
        files::make_dir(&dir).map_err(|source| unusable(data_dir, source))?;
        // Nobody else may look meanwhile. The ledger takes it again.
        let lock = ledger::lock(&dir)?;
        let found = Self::find((data_dir, lock), here, admittance);
        found.map_err(|source| unusable(data_dir, source))
    }

    fn find(
        (data_dir, lock): (&Path, File),
        (marks, boot_id): (MachineMarks, String),
        admittance: Admittance,
    ) -> io::Result<Found> {
        let dir = data_dir.join("agent");
        let path = dir.join("machine.json");
        let known = known(&dir, &path)?;
        // A machine that did not reboot is the same one, whatever was taken out of it or is called otherwise now.
        let is_same_boot = !boot_id.is_empty() && boot_id == known.boot_id;
        let is_changed = marks.is_other_than(&known.marks);
        let is_elsewhere = !is_same_boot && is_changed;
        let here = |marks| {
            // A machine that was copied while it ran has the boot of its original, too, and must not be called like it.
            let mark = (!is_changed).then(|| known.first_mark());
            let mut here = Known {
                marks,
                mark: mark.unwrap_or_default(),
                boot_id,
                copied_from: known.copied_from,
            };
            here.mark = here.first_mark();
            here
        };
        if !is_elsewhere {
            let now = here(marks.or(&known.marks));
            if now != known {
                keep(&path, &now)?;
            }
            arrival::forget(data_dir)?;
            return Ok(Found::Here(Self::of(path, now, false)));
        }
        let here = here(marks);
        match admittance {
            _ if is_begun(&aside(data_dir)?) => begin_anew(data_dir, here).map(Found::Here),
            Admittance::Asks(token) if membership::is_member(&dir, &token) => {
                Ok(Found::Elsewhere(Elsewhere::new(data_dir, here, lock)))
            }
            Admittance::Joins | Admittance::Asks(_) => begin_anew(data_dir, here).map(Found::Here),
            Admittance::Needs => go_on(data_dir, here).map(Found::Here),
        }
    }

    fn of(path: PathBuf, now: Known, has_moved: bool) -> Self {
        Self(Arc::new(Inner {
            path,
            now,
            has_moved: AtomicBool::new(has_moved),
        }))
    }

    /// What tells this machine from others with the same identity. It stays when some of its marks change.
    pub(crate) fn mark(&self) -> String {
        let now = &self.0.now;
        if now.mark.is_empty() {
            return now.marks.print();
        }
        now.mark.clone()
    }

    /// The node whose disk this is a copy of.
    pub(crate) fn copied_from(&self) -> Option<NodeId> {
        self.0.now.copied_from
    }

    /// The control plane knows this machine as the node.
    pub(crate) fn is_welcome(&self) {
        if !self.0.has_moved.swap(false, Ordering::AcqRel) {
            return;
        }
        tracing::warn!("the node goes on, on another machine than before");
        // If it is not written, the next start asks again.
        if let Err(error) = keep(&self.0.path, &self.0.now) {
            tracing::warn!(%error, "the marks of this machine could not be kept");
        }
    }
}

impl Known {
    /// What it was called first, while it is the same machine. Files of older agents do not say it, but it follows from
    /// the marks that those told; where no mark is known, nothing does.
    fn first_mark(&self) -> String {
        if self.mark.is_empty() && self.marks != MachineMarks::default() {
            return self.marks.print();
        }
        self.mark.clone()
    }
}

/// What an earlier agent wrote down. Where there is an identity, one that cannot be understood must not pass for none:
/// a copy would be taken for the original.
fn known(dir: &Path, path: &Path) -> io::Result<Known> {
    let named = |error: &dyn std::fmt::Display| {
        io::Error::other(format!("{} cannot be read: {error}", path.display()))
    };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Known::default()),
        Err(error) => return Err(named(&error)),
    };
    match serde_json::from_slice(&text) {
        Ok(known) => Ok(known),
        Err(error) if dir.join("identity.json").exists() => Err(named(&format!(
            "{error}; if this is the machine on which the node was made, remove the file; if its disk was copied from \
             another, remove the folder {}",
            dir.display()
        ))),
        Err(_) => Ok(Known::default()),
    }
}

pub(crate) fn unusable(data_dir: &Path, source: io::Error) -> StartError {
    StartError::Data {
        path: data_dir.display().to_string(),
        source,
    }
}

pub(crate) fn keep(path: &Path, known: &Known) -> io::Result<()> {
    files::write(path, known)?;
    files::sync_dir(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// It may be the node that it was, on another machine.
pub(crate) fn go_on(data_dir: &Path, here: Known) -> io::Result<Birthplace> {
    let dir = data_dir.join("agent");
    tracing::warn!(
        "this disk was made on another machine; nothing of its work is started before the control plane knows this one \
         as its node"
    );
    set_intent_aside(&dir)?;
    Ok(Birthplace::of(dir.join("machine.json"), here, true))
}

/// The node whose disk lies here.
pub(crate) fn whose(data_dir: &Path) -> Option<NodeId> {
    let fleet = files::read::<Origin>(&data_dir.join("agent").join("fleet.json"));
    fleet.ok().flatten().map(|origin| origin.node_id)
}

/// Where what came with the disk goes.
fn aside(data_dir: &Path) -> io::Result<PathBuf> {
    let whose = whose(data_dir).map_or_else(|| "another".to_owned(), |node| node.to_string());
    free_folder(data_dir, &format!("{ASIDE}{whose}"))
}

/// The agent's folder goes last: until it has gone, the next start does this again. What a machine that was let in
/// already has made comes in its place; if only that is missing, the next start has it from [`finish`].
pub(crate) fn begin_anew(data_dir: &Path, here: Known) -> io::Result<Birthplace> {
    let copied_from = whose(data_dir);
    let aside = aside(data_dir)?;
    files::make_dir(&aside)?;
    let known = Known {
        copied_from,
        ..here
    };
    let fresh = aside.join(FRESH);
    // What the disk brought may itself have been begun on another machine.
    if !arrival::is_of(&fresh, &known) {
        arrival::remove(&fresh)?;
        arrival::hand_over(data_dir, &fresh, &known)?;
    }
    keep(&fresh.join("machine.json"), &known)?;
    // It lasts before anything goes: it may have the only key that the control plane knows this machine by.
    files::sync_dir(&aside)?;
    files::sync_dir(data_dir)?;
    let name = aside.file_name().unwrap_or_default();
    for kept in KEPT {
        let (from, to) = (data_dir.join(kept), aside.join(kept));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_immovable(&error) && kept != "agent" => {
                move_within(&from, Path::new(name))?;
            }
            moved => moved?,
        }
    }
    files::sync_dir(&aside)?;
    files::sync_dir(data_dir)?;
    take_place(&fresh, data_dir)?;
    arrival::forget(data_dir)?;
    let original = copied_from.map(tracing::field::display);
    tracing::warn!(
        original, aside = %aside.display(),
        "this disk is a copy of another machine's: this machine joins as a new node, and what came with the copy was \
         set aside"
    );
    let path = data_dir.join("agent").join("machine.json");
    Ok(Birthplace::of(path, known, false))
}

/// What is to be the agent's folder becomes it.
fn take_place(fresh: &Path, data_dir: &Path) -> io::Result<()> {
    fs::rename(fresh, data_dir.join("agent"))?;
    files::sync_dir(fresh.parent().unwrap_or(data_dir))?;
    files::sync_dir(data_dir)
}

/// A start may have broken off when the agent's own had gone and nothing was in its place yet.
fn finish(data_dir: &Path) -> Result<(), StartError> {
    if data_dir.join("agent").exists() {
        return Ok(());
    }
    let unusable = |source| unusable(data_dir, source);
    let Some(aside) = unfinished(data_dir).map_err(unusable)? else {
        return Ok(());
    };
    // Whoever is about to do it holds the lock of the folder that has gone.
    let _lock = ledger::lock(&aside.join("agent"))?;
    tracing::warn!(aside = %aside.display(), "what came with a copied disk was set aside by a start that broke off");
    take_place(&aside.join(FRESH), data_dir).map_err(unusable)
}

/// Where the agent's own went, and what is to come in its place still lies.
fn unfinished(data_dir: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let is_aside = entry.file_name().to_string_lossy().starts_with(ASIDE);
        if is_aside && path.join(FRESH).exists() && path.join("agent").exists() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// It is a mount point, or there is one of that name from a start that broke off.
fn is_immovable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy
            | io::ErrorKind::CrossesDevices
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::AlreadyExists
    )
}

/// Moves what lies in a folder into one of that name in it, on the same mount.
fn move_within(folder: &Path, name: &Path) -> io::Result<()> {
    let aside = folder.join(name);
    files::make_dir(&aside)?;
    let entries: io::Result<Vec<_>> = fs::read_dir(folder)?.collect();
    for entry in entries? {
        let from = entry.path();
        // The second belongs to the file system.
        if from == aside || entry.file_name() == "lost+found" {
            continue;
        }
        match fs::rename(&from, aside.join(entry.file_name())) {
            Err(error) if is_immovable(&error) && from.is_dir() => move_within(&from, name)?,
            moved => moved?,
        }
    }
    files::sync_dir(&aside)?;
    files::sync_dir(folder)
}

/// A new one, or that of a start that broke off before the agent's own was moved.
fn free_folder(data_dir: &Path, name: &str) -> io::Result<PathBuf> {
    let numbered = (2..MOST_ASIDE).map(|number| format!("{name}-{number}"));
    let names = std::iter::once(name.to_owned()).chain(numbered);
    let mut paths = names.map(|name| data_dir.join(name));
    let free = paths.find(|path| !path.exists() || is_begun(path));
    free.ok_or_else(|| io::Error::other("too many copies were set aside here"))
}

/// Whether setting aside has begun there, and broke off before the agent's own was moved.
fn is_begun(aside: &Path) -> bool {
    aside.join(FRESH).exists() && !aside.join("agent").exists()
}

/// What should run is told anew by a control plane that knows the machine.
fn set_intent_aside(dir: &Path) -> io::Result<()> {
    let (intent, aside) = (dir.join("intent"), dir.join("intent.moved"));
    if files::list(&intent).is_empty() {
        return Ok(());
    }
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(&intent, &aside)?;
    files::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(told: &str, product: &str, devices: &[&str]) -> MachineMarks {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        MachineMarks {
            told: some(told),
            product: some(product),
            devices: devices.iter().map(|it| (*it).to_owned()).collect(),
        }
    }

    fn look_at(
        data: &Path,
        here: (MachineMarks, String),
        admittance: Admittance,
    ) -> Result<Birthplace, StartError> {
        match Birthplace::look_at(data, here, admittance)? {
            Found::Here(birthplace) => Ok(birthplace),
            Found::Elsewhere(_) => panic!("nobody was to be asked"),
        }
    }

    /// A machine of that mark, and its boot.
    fn booted(told: &str) -> (MachineMarks, String) {
        (marks(told, "", &[]), format!("boot of {told}"))
    }

    #[test]
    fn another_machine_is_one_that_differs_in_the_strongest_mark_that_both_have() {
        let here = marks("", "board", &["a", "b"]);
        for (same, why) in [
            (marks("", "board", &["x"]), "other devices in one board"),
            (marks("", "", &["b", "c"]), "a device was replaced"),
            (marks("", "", &[]), "nothing is known"),
            (marks("rack-1", "board", &[]), "it was named"),
        ] {
            assert!(!here.is_other_than(&same), "{why}");
            assert!(!same.is_other_than(&here), "{why}");
        }
        for (other, why) in [
            (
                marks("", "other", &["a", "b"]),
                "a copy keeps addresses that were set",
            ),
            (marks("", "", &["c"]), "no device in common"),
        ] {
            assert!(here.is_other_than(&other), "{why}");
        }
        let named = marks("one", "board", &[]);
        assert!(named.is_other_than(&marks("two", "board", &[])));
        assert!(!named.is_other_than(&marks("one", "other", &[])));
    }

    #[test]
    fn what_a_copied_disk_brought_is_set_aside_as_a_whole_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let look = |told: &str, admittance| look_at(data, booted(told), admittance).unwrap();
        look("one", Admittance::Joins);
        for name in KEPT {
            fs::create_dir_all(data.join(name)).unwrap();
            fs::write(data.join(name).join("of-one"), "").unwrap();
        }
        look("one", Admittance::Joins);
        assert!(data.join("agent/of-one").exists(), "the same machine");
        let copy = look("two", Admittance::Joins);
        assert_eq!(copy.copied_from(), None, "no fleet was known");
        for name in KEPT {
            assert!(
                data.join("copied-from-another")
                    .join(name)
                    .join("of-one")
                    .exists()
            );
            assert!(!data.join(name).join("of-one").exists());
        }
        fs::write(data.join("agent/of-two"), "").unwrap();
        look("two", Admittance::Joins);
        assert!(data.join("agent/of-two").exists(), "it is at home now");
    }

    #[test]
    fn a_disk_that_moved_starts_nothing_until_the_machine_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let look = |told: &str| look_at(data, booted(told), Admittance::Needs).unwrap();
        let intent = data.join("agent/intent/one.json");
        let wanted = || {
            fs::create_dir_all(intent.parent().unwrap()).unwrap();
            fs::write(&intent, "{}").unwrap();
        };
        look("one");
        wanted();
        drop(look("two"));
        assert!(!intent.exists());
        wanted();
        let moved = look("two");
        assert!(!intent.exists(), "nobody has welcomed it yet");
        moved.is_welcome();
        wanted();
        drop(look("two"));
        assert!(intent.exists());
    }

    #[test]
    fn a_machine_that_did_not_reboot_is_the_same_and_what_was_known_of_it_stays_known() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let look = |marks, boot: &str| {
            look_at(data, (marks, boot.to_owned()), Admittance::Joins).unwrap();
            fs::write(data.join("agent/of-it"), "").unwrap();
        };
        let kept = || -> Known {
            let text = fs::read(data.join("agent/machine.json")).unwrap();
            serde_json::from_slice(&text).unwrap()
        };
        look(marks("", "board", &["a"]), "one");
        look(marks("", "", &[]), "two");
        assert_eq!(kept().marks, marks("", "board", &["a"]), "nothing was read");
        assert_eq!(kept().boot_id, "two");
        look(marks("", "board", &["b"]), "two");
        look(marks("", "other", &["c"]), "two");
        assert_eq!(kept().marks, marks("", "other", &["c"]));
        assert!(!data.join("copied-from-another").exists());
        look(marks("", "third", &[]), "three");
        assert!(data.join("copied-from-another/agent/of-it").exists());
        assert_eq!(kept().marks, marks("", "third", &[]));
    }

    #[test]
    fn a_start_that_broke_off_before_the_new_key_was_in_its_place_loses_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let look = |told: &str| look_at(data, booted(told), Admittance::Joins).unwrap();
        look("one");
        let aside = data.join("copied-from-another");
        let fresh = aside.join("fresh");
        fs::create_dir_all(&fresh).unwrap();
        let (marks, boot_id) = booted("two");
        let two = Known {
            marks,
            boot_id,
            ..Known::default()
        };
        keep(&fresh.join("machine.json"), &two).unwrap();
        fs::write(fresh.join("key.pem"), "that of two").unwrap();
        fs::rename(data.join("agent"), aside.join("agent")).unwrap();
        look("two");
        let kept = fs::read(data.join("agent/key.pem")).unwrap();
        assert_eq!(kept, b"that of two");
        assert!(!fresh.exists() && aside.join("agent").exists());
        assert!(!data.join("copied-from-another-2").exists());
    }

    #[test]
    fn a_machine_keeps_its_mark_while_it_is_the_same_and_a_file_of_an_older_agent_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let look = |devices: &[&str], boot: &str| {
            let here = (marks("", "", devices), boot.to_owned());
            look_at(data, here, Admittance::Needs).unwrap().mark()
        };
        let nothing = look(&[], "one");
        let first = look(&["a", "b"], "two");
        assert_ne!(first, nothing, "what has no marks has no lasting one");
        assert_eq!(look(&["b", "c"], "three"), first, "a device was replaced");
        assert_eq!(look(&["c"], "four"), first);
        assert_ne!(look(&["d"], "four"), first, "copied while it ran, or not");
        let path = data.join("agent/machine.json");
        let older = r#"{"marks": {"devices": ["a", "b"]}, "boot_id": "five"}"#;
        fs::write(&path, older).unwrap();
        assert_eq!(look(&["b", "c"], "six"), first, "that one told it so");
        assert_eq!(look(&["c"], "seven"), first);
    }

    #[test]
    fn what_another_machine_began_of_joining_is_not_taken() {
        for (whose, is_taken) in [("two", true), ("one", false)] {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path();
            let look = |told: &str| look_at(data, booted(told), Admittance::Joins).unwrap();
            look("one");
            let joining = data.join("joining/agent");
            fs::create_dir_all(&joining).unwrap();
            let known = Known {
                marks: booted(whose).0,
                ..Known::default()
            };
            keep(&joining.join("machine.json"), &known).unwrap();
            fs::write(joining.join("key.pem"), "a key").unwrap();
            look("two");
            assert_eq!(data.join("agent/key.pem").exists(), is_taken, "{whose}");
            assert!(!data.join("joining").exists());
        }
    }

    #[test]
    fn marks_that_cannot_be_understood_are_an_error_where_there_is_an_identity() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let look = || look_at(data, booted("one"), Admittance::Joins);
        fs::create_dir(data.join("agent")).unwrap();
        let path = data.join("agent/machine.json");
        fs::write(&path, "half of").unwrap();
        fs::write(data.join("agent/identity.json"), "{}").unwrap();
        let error = look().unwrap_err();
        assert!(matches!(error, StartError::Data { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"half of");
        fs::remove_file(data.join("agent/identity.json")).unwrap();
        look().unwrap();
    }

    #[test]
    fn nothing_is_looked_at_while_another_agent_uses_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        fs::create_dir(&agent).unwrap();
        let held = ledger::lock(&agent).unwrap();
        let look = || look_at(dir.path(), booted("one"), Admittance::Joins);
        let error = look().unwrap_err();
        assert!(matches!(error, StartError::InUse { .. }), "{error}");
        drop(held);
        look().unwrap();
    }

    #[test]
    fn a_start_that_broke_off_is_gone_on_with_and_a_folder_that_stays_is_emptied_into_itself() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let look = |told: &str| look_at(data, booted(told), Admittance::Joins).unwrap();
        look("one");
        let aside = data.join("copied-from-another");
        // The volumes had gone, and are there again; the rest had not.
        for path in ["fresh", "volumes/before"] {
            fs::create_dir_all(aside.join(path)).unwrap();
        }
        for path in ["volumes/local", "volumes/lost+found", "units/one"] {
            fs::create_dir_all(data.join(path)).unwrap();
        }
        look("two");
        assert!(!data.join("copied-from-another-2").exists());
        assert!(aside.join("agent").exists() && aside.join("units/one").exists());
        assert!(!aside.join("fresh").exists());
        let within = data.join("volumes/copied-from-another");
        assert!(within.join("local").exists() && !data.join("volumes/local").exists());
        assert!(data.join("volumes/lost+found").exists());
    }
}
