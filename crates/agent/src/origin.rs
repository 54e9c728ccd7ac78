//! Whether this is the machine on which the node's identity was made, or its disk is a copy of that machine's or has moved.
//!
//! ```text
//!   no marks kept, or one in common, or no kind in common ──► the same machine; the marks of now are kept
//!   another machine ─┬─ it can join by itself ──► a copy: what the disk brought is set aside, a new node begins
//!                    └─ it cannot ──────────────► moved: it goes on as the node if the control plane lets it, which it does
//!                                                 while no other machine is connected as that node; starts nothing before
//! ```
//!
//! ```text
//! <data>/agent/machine.json      the marks of the machine, and whose disk it is a copy of
//! <data>/copied-from-<node>/     what came with a copied disk: nothing of it is used
//! ```
//!
//! It is looked at once, before anything else of the data directory is. What can fail: a file or folder cannot be written
//! or renamed; then the agent does not start, for it would pass itself off as somebody else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hostler_kit::trust::Print;
use hostler_model::NodeId;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::ledger::{Origin, files};
use crate::{Machine, StartError};

/// What an agent keeps about its node: its identity and intent, its units, its volumes.
const KEPT: [&str; 3] = ["units", "volumes", "agent"];
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admittance {
    /// It has a token, or none is asked for.
    Joins,
    /// Without the identity that it has it is nobody.
    Needs,
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
struct Known {
    marks: MachineMarks,
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

    /// All of them in one word.
    fn print(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        Print::of(&text).to_string()
    }
}

impl Birthplace {
    /// Looks where the data directory is now, and sets aside what a copied disk has brought. `told` is what a person has
    /// set as the machine's mark. While another agent uses the directory nothing is done: it will not start anyway.
    ///
    /// # Errors
    /// [`StartError::Data`].
    pub fn look(
        data_dir: &Path,
        (machine, told): (&dyn Machine, Option<String>),
        admittance: Admittance,
    ) -> Result<Self, StartError> {
        let marks = MachineMarks {
            told,
            ..machine.marks()
        };
        let looked = Self::look_at(data_dir, marks, admittance);
        looked.map_err(|source| StartError::Data {
            path: data_dir.display().to_string(),
            source,
        })
    }

    fn look_at(data_dir: &Path, marks: MachineMarks, admittance: Admittance) -> io::Result<Self> {
        let dir = data_dir.join("agent");
        files::make_dir(&dir)?;
        let path = dir.join("machine.json");
        let lock = files::open_lock(&dir.join("lock"))?;
        let is_free = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        let known: Known = files::read(&path).unwrap_or(None).unwrap_or_default();
        let now = Known {
            marks,
            copied_from: known.copied_from,
        };
        let is_elsewhere = now.marks.is_other_than(&known.marks);
        let (now, has_moved) = match (is_free && is_elsewhere, admittance) {
            (false, _) => {
                if is_free && now != known {
                    keep(&path, &now)?;
                }
                (now, false)
            }
            (true, Admittance::Joins) => (begin_anew(data_dir, now.marks)?, false),
            (true, Admittance::Needs) => {
                tracing::warn!(
                    "this disk was made on another machine; nothing of its work is started before the control plane \
                     knows this one as its node"
                );
                set_intent_aside(&dir)?;
                (now, true)
            }
        };
        Ok(Self(Arc::new(Inner {
            path,
            now,
            has_moved: AtomicBool::new(has_moved),
        })))
    }

    /// What tells this machine from others with the same identity.
    pub(crate) fn mark(&self) -> String {
        self.0.now.marks.print()
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

fn keep(path: &Path, known: &Known) -> io::Result<()> {
    files::write(path, known)?;
    files::sync_dir(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// The agent's folder goes last: until it has gone, the next start does this again.
fn begin_anew(data_dir: &Path, marks: MachineMarks) -> io::Result<Known> {
    let fleet = files::read::<Origin>(&data_dir.join("agent").join("fleet.json"));
    let copied_from = fleet.ok().flatten().map(|origin| origin.node_id);
    let whose = copied_from.map_or_else(|| "another".to_owned(), |node| node.to_string());
    let aside = free_folder(data_dir, &format!("copied-from-{whose}"))?;
    let known = Known { marks, copied_from };
    let fresh = aside.join("fresh");
    files::make_dir(&fresh)?;
    keep(&fresh.join("machine.json"), &known)?;
    for name in KEPT {
        match fs::rename(data_dir.join(name), aside.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(&fresh, data_dir.join("agent"))?;
    files::sync_dir(&aside)?;
    files::sync_dir(data_dir)?;
    tracing::warn!(
        original = whose, aside = %aside.display(),
        "this disk is a copy of another machine's: this machine joins as a new node, and what came with the copy was \
         set aside"
    );
    Ok(known)
}

fn free_folder(data_dir: &Path, name: &str) -> io::Result<PathBuf> {
    let numbered = (2..MOST_ASIDE).map(|number| format!("{name}-{number}"));
    let names = std::iter::once(name.to_owned()).chain(numbered);
    let mut paths = names.map(|name| data_dir.join(name));
    let free = paths.find(|path| !path.exists());
    let free = free.ok_or_else(|| io::Error::other("too many copies were set aside here"))?;
    files::make_dir(&free)?;
    Ok(free)
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
        let look = |told: &str, admittance| {
            Birthplace::look_at(data, marks(told, "", &[]), admittance).unwrap()
        };
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
        let look = |told: &str| {
            Birthplace::look_at(data, marks(told, "", &[]), Admittance::Needs).unwrap()
        };
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
}
