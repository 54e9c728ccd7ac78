//! `restore`: puts a backup into a data directory on which no server runs.
//!
//! The archive is unpacked beside the store and checked to the last byte, and the copy gets its new epoch there, before
//! anything that is in the directory is touched. Then the old store steps aside and the new one takes its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostler_control::{Control, Parts};
use hostler_kit::{Clock, Entropy, SystemClock, SystemEntropy, Tasks};
use hostler_model::{StoreEpoch, Timestamp};
use hostler_store::{Replacement, SqliteStore, Store};

use super::single_thread;
use crate::backup::{self, ArchiveError, KEYS, Manifest};
use crate::compose::shut_down;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::RestoreSettings;
use crate::status::ExitStatus;

/// Where the archive is unpacked.
const STAGED: &str = "restore.partial";

pub(crate) fn restore(settings: RestoreSettings, printer: &Printer) -> Result<ExitStatus, Failure> {
    let replacement = Replacement::begin(&settings.data_dir)?;
    if replacement.is_occupied() && !settings.force {
        return Err(Failure::failed(
            format!(
                "there is a store in {} already",
                settings.data_dir.display()
            ),
            "name an empty --data-dir, or set that store aside with --force",
        ));
    }
    let staged = settings.data_dir.join(STAGED);
    let prepared = prepare(&settings.file, &staged);
    let (manifest, epoch) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            // What is left of it is removed by the next try as well.
            let _ = backup::clear(&staged);
            return Err(failure);
        }
    };
    let now = SystemClock::new().wall_millis();
    let aside = aside(&settings.data_dir, Timestamp::from_millis(now));
    let put = replacement.put(&staged, &KEYS, &aside);
    put.map_err(|error| half_way(&settings.data_dir, &error))?;
    // Empty by now.
    let _ = backup::clear(&staged);
    tell(printer, (&settings.data_dir, &aside), &manifest, epoch);
    Ok(ExitStatus::Done)
}

fn prepare(archive: &Path, staged: &Path) -> Result<(Manifest, StoreEpoch), Failure> {
    let disk = |error| Failure::from(ArchiveError::Disk(error));
    backup::clear(staged).map_err(disk)?;
    let manifest = backup::unpack(archive, staged)?;
    let epoch = single_thread()?.block_on(Box::pin(renew(staged)))?;
    Ok((manifest, epoch))
}

/// The store's new epoch: every agent that knew the old one holds back until somebody says that all is well.
async fn renew(staged: &Path) -> Result<StoreEpoch, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let store = Arc::new(SqliteStore::open(staged, Arc::clone(&clock))?);
    let tasks = Tasks::new();
    let renewed = Control::renew_epoch(Parts {
        store: Arc::clone(&store) as Arc<dyn Store>,
        clock,
        entropy,
        tasks: tasks.clone(),
    });
    let renewed = renewed.await;
    shut_down(&tasks).await;
    // The last handle folds the log into the database.
    if Arc::into_inner(store).is_none() {
        return Err(Failure::failed(
            "the unpacked store is still in use",
            "try again; nothing was changed",
        ));
    }
    Ok(renewed?.1)
}

/// A place beside the store that is not there yet.
fn aside(data_dir: &Path, now: Timestamp) -> PathBuf {
    let digits = |c: &char| c.is_ascii_digit() || *c == 'T';
    let stamp: String = now.to_string().chars().take(19).filter(digits).collect();
    let name = |count: u32| match count {
        0 => data_dir.join(format!("before-restore-{stamp}")),
        count => data_dir.join(format!("before-restore-{stamp}-{count}")),
    };
    let mut free = (0..).map(name).filter(|path| !path.exists());
    free.next()
        .unwrap_or_else(|| data_dir.join("before-restore"))
}

fn tell(
    printer: &Printer,
    (data_dir, aside): (&Path, &Path),
    manifest: &Manifest,
    epoch: StoreEpoch,
) {
    printer.data(&format!(
        "restored fleet {} as of {} (revision {}) into {}",
        manifest.fleet,
        manifest.made_at,
        manifest.revision,
        data_dir.display()
    ));
    if aside.exists() {
        printer.data(&format!(
            "what was there before lies in {}",
            aside.display()
        ));
    }
    printer.talk(&format!(
        "the store has the new epoch {epoch}: each node holds its orders back until `hostler node accept NODE`"
    ));
    let is_missing = |name: &&String| !data_dir.join(name).exists();
    let missing: Vec<&str> = (manifest.left_out.iter().filter(is_missing))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        printer.talk(&format!(
            "the backup has no keys: put {} of the old server there before you start this one",
            missing.join(", ")
        ));
    }
}

fn half_way(data_dir: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(
        format!("the restore into {} broke off: {error}", data_dir.display()),
        "make room and run it again with --force; what was there before lies in before-restore-*",
    )
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        Self::failed(&error, error.advice())
    }
}
