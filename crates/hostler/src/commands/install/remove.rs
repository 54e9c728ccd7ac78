//! Taking a part off the machine. What it runs goes on, and its data stays, unless they are to go with it; and then only
//! once nothing of them is in use.

use std::fs;
use std::path::Path;

use hostler_shim::kernel::{Holder, lock_holder};

use super::parts::{ALL, PROGRAM, SERVER_USER, SLICE, SPOT_ROOT, UNITS};
use super::{Site, config, spot};
use crate::args::{Part, UninstallArgs};
use crate::commands::rm::agree;
use crate::failure::Failure;
use crate::status::ExitStatus;

/// `units/<driver>/<unit>/shim.lock`, and one step more for drivers that keep units within units.
const DEEP: usize = 4;

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
            let _ = place.tool("userdel", &[SERVER_USER], None).await;
        }
        if !self.is_left(|part| part != Part::SpotAgent) {
            place.remove(PROGRAM)?;
            place.remove(&format!("{PROGRAM}.previous"))?;
        }
        Ok(())
    }

    /// The agents of other contracts have their data below our own agent's.
    fn purge_among_others(&self, data: &str) -> Result<(), Failure> {
        let is_others = |name: &str| {
            let mut parts = ALL.into_iter().filter(|part| part.link().is_some());
            parts.any(|part| part.word() == name && self.place.has(&part.unit_path()))
        };
        let entries = fs::read_dir(self.place.at(data))
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_others(&name) {
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
