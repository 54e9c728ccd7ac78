//! Taking a part off the machine. What it runs goes on, and its data stays, unless they are to go with it; and then only
//! once nothing of them is in use.

use std::fs;
use std::path::{Path, PathBuf};

use hostler_shim::kernel::{Holder, lock_holder};

use super::parts::{ALL, PROGRAM, SERVER_USER, SLICE, SPOT_ROOT, UNITS};
use super::{Site, config, spot};
use crate::args::{Part, UninstallArgs};
use crate::commands::rm::agree;
use crate::failure::Failure;
use crate::status::ExitStatus;

/// `units/<driver>/<unit>/shim.lock`, and one step more for drivers that keep units within units.
const DEEP: usize = 4;
const MOUNTS: &str = "/proc/self/mountinfo";
/// What only a control plane has in its directory: the fleet itself.
const FLEET: [&str; 3] = ["hostler.db", "trust", "secrets.key"];

pub(super) async fn uninstall(
    site: &Site<'_>,
    args: &UninstallArgs,
) -> Result<ExitStatus, Failure> {
    let (part, place, printer) = (args.part, &site.place, site.printer);
    let data = config::toml_text(place, part.settings()[0], "data_dir");
    let data = data.unwrap_or_else(|| part.data().to_owned());
    let at_work = working(&place.at(&data).join("units"), DEEP);
    if args.purge {
        refuse_while_working(at_work)?;
        site.refuse_more_than_its_own(part, &data)?;
        agree(
            printer,
            args.yes,
            &format!("delete all data of the {} in {data}", part.word()),
        )?;
    }
    if part == Part::SpotAgent {
        printer.data("Uninstalling Spot Agent...");
        spot::say_offline(site).await;
        spot::let_it_end().await;
    }
    site.dismiss(part).await?;
    if part == Part::SpotAgent {
        spot::remove(place).await?;
    }
    if args.purge {
        site.purge(part, &data).await?;
    }
    if part == Part::SpotAgent {
        printer.data("✓ Agent uninstalled successfully");
        if !args.purge {
            printer.data(&format!("Note: Logs retained in {SPOT_ROOT}/logs"));
        }
        printer.data("To complete removal, delete agent from server dashboard");
    } else {
        printer.talk(&format!(
            "{} is no service of this machine any more",
            part.service()
        ));
    }
    if at_work > 0 {
        printer.talk(&format!(
            "it left {at_work} processes at work; installing again finds them"
        ));
    }
    if !args.purge {
        printer.talk(&format!("its data stays in {data}; --purge deletes it"));
    }
    Ok(ExitStatus::Done)
}

impl Site<'_> {
    /// Off systemd's list, with everything that only served to be on it.
    async fn dismiss(&self, part: Part) -> Result<(), Failure> {
        let place = &self.place;
        self.systemd().dismiss(part.service()).await?;
        place.remove(&part.unit_path())?;
        if let Some(link) = part.link() {
            place.remove(link)?;
        }
        if !self.is_left(|part| part.has_work()) {
            place.remove(&format!("{UNITS}/{}", SLICE.0))?;
        }
        self.systemd().reload().await
    }

    /// Settings and data; the program as well, if nothing else of ours is a service here.
    async fn purge(&self, part: Part, data: &str) -> Result<(), Failure> {
        let place = &self.place;
        // Once more, now that the part has ended: until then it could mount.
        self.refuse_more_than_its_own(part, data)?;
        for path in part.settings() {
            place.remove(path)?;
        }
        match part {
            Part::SpotAgent => place.remove(SPOT_ROOT)?,
            Part::Agent if data == part.data() => self.purge_among_others(data)?,
            _ if data == part.data() => place.remove(data)?,
            // A person chose that directory, and may have chosen one with other things in it.
            _ => self
                .printer
                .talk(&format!("{data} stays: it was chosen in the settings")),
        }
        if part == Part::Server {
            // A user who still runs something stays.
            let _ = place.tool("userdel", &[SERVER_USER]).await;
        }
        if !self.is_left(|part| part != Part::SpotAgent) {
            place.remove(PROGRAM)?;
            place.remove(&format!("{PROGRAM}.previous"))?;
        }
        Ok(())
    }

    /// Refuses if deletion would go beyond the part's own: into what is mounted there, or to a control plane's data.
    fn refuse_more_than_its_own(&self, part: Part, data: &str) -> Result<(), Failure> {
        let data = match part {
            Part::SpotAgent => SPOT_ROOT,
            _ if data == part.data() => data,
            // It stays anyhow.
            _ => return Ok(()),
        };
        let dir = self.place.at(data);
        let dir = fs::canonicalize(&dir).unwrap_or(dir);
        if let Some(name) = fleet_in(&dir).filter(|_| part != Part::Server) {
            return Err(Failure::failed(
                format!("{data} holds a control plane's data: {name}"),
                "leave --purge out; or move the control plane's files to a directory of their own first",
            ));
        }
        let told = fs::read(MOUNTS).map_err(|error| {
            Failure::failed(
                format!("cannot read {MOUNTS}, and so not see what is mounted in {data}: {error}"),
                "leave --purge out",
            )
        })?;
        let mut mounts = mounted(&String::from_utf8_lossy(&told), &dir);
        mounts.retain(|it| part != Part::Agent || !self.is_in_others(&dir, it));
        let Some(first) = mounts.first() else {
            return Ok(());
        };
        Err(Failure::failed(
            format!(
                "{} is mounted in {data}, and would be emptied with it",
                first.display()
            ),
            "delete or move the workloads that use it first, or unmount it; or leave --purge out",
        ))
    }

    fn is_in_others(&self, dir: &Path, mount: &Path) -> bool {
        let below = mount.strip_prefix(dir).ok();
        let first = below.and_then(|it| it.components().next());
        first.is_some_and(|it| self.is_others(&it.as_os_str().to_string_lossy()))
    }

    /// Whether another contract's agent that is installed has its data there.
    fn is_others(&self, name: &str) -> bool {
        let mut parts = ALL.into_iter().filter(|part| part.link().is_some());
        parts.any(|part| part.word() == name && self.place.has(&part.unit_path()))
    }

    /// The agents of other contracts have their data below our own agent's.
    fn purge_among_others(&self, data: &str) -> Result<(), Failure> {
        let entries = fs::read_dir(self.place.at(data))
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !self.is_others(&name) {
                self.place.remove(&format!("{data}/{name}"))?;
            }
        }
        // It stays if something of the others is in it.
        let _ = fs::remove_dir(self.place.at(data));
        Ok(())
    }

    fn is_left(&self, is_meant: impl Fn(Part) -> bool) -> bool {
        ALL.into_iter()
            .any(|part| is_meant(part) && self.place.has(&part.unit_path()))
    }
}

fn refuse_while_working(at_work: usize) -> Result<(), Failure> {
    if at_work == 0 {
        return Ok(());
    }
    Err(Failure::failed(
        format!("{at_work} processes of this node are at work on that data"),
        "move the work away with `hostler node drain`, or leave --purge out",
    ))
}

fn fleet_in(dir: &Path) -> Option<&'static str> {
    let mut names = FLEET.into_iter();
    names.find(|name| fs::symlink_metadata(dir.join(name)).is_ok())
}

/// What the kernel says is mounted at the directory or below it.
fn mounted(told: &str, dir: &Path) -> Vec<PathBuf> {
    let points = told.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(unescaped);
    points.filter(|point| point.starts_with(dir)).collect()
}

/// The kernel writes blanks and backslashes in octal, as in `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut path = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let code = rest.get(at + 1..at + 4);
        let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) else {
            break;
        };
        path.push_str(&rest[..at]);
        path.push(char::from(byte));
        rest = &rest[at + 4..];
    }
    path.push_str(rest);
    path.into()
}

/// How many shims hold the lock of a unit below the directory.
fn working(dir: &Path, deep: usize) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir && deep > 0 {
                working(&entry.path(), deep - 1)
            } else if entry.file_name() == "shim.lock" {
                // What cannot be asked counts as in use.
                usize::from(!matches!(lock_holder(&entry.path()), Ok(Holder::Nobody)))
            } else {
                0
            }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_at_or_below_a_directory_are_found_and_neighbours_are_not() {
        let told = "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 24 0:40 / /var/lib/hostler/volumes/nfs/a\\040b rw - nfs4 server:/a rw\n\
            31 24 8:2 / /var/lib/hostler-server rw - ext4 /dev/sdb rw\n";
        let dir = Path::new("/var/lib/hostler");
        let found = mounted(told, dir);
        assert_eq!(found, [PathBuf::from("/var/lib/hostler/volumes/nfs/a b")]);
        assert_eq!(mounted(told, Path::new("/var/lib/hostler-server")).len(), 1);
        assert!(mounted(told, Path::new("/opt/spot-agent")).is_empty());
    }

    #[test]
    fn a_control_planes_data_is_known_by_each_of_its_files() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(fleet_in(data.path()), None);
        for name in FLEET {
            fs::write(data.path().join(name), "").unwrap();
            assert_eq!(fleet_in(data.path()), Some(name));
            fs::remove_file(data.path().join(name)).unwrap();
        }
    }
}
