//! `backup`: asks the running server for all that it keeps, and writes it as one archive. A file is complete at its
//! place and has been read through once, or it is not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_wire::api::BackupQuery;
use hostler_wire::client::ClientError;

use super::Remote;
use crate::args::BackupArgs;
use crate::backup::{self, Manifest};
use crate::compose::Signals;
use crate::failure::Failure;
use crate::status::ExitStatus;

pub(crate) async fn backup(remote: &Remote<'_>, args: BackupArgs) -> Result<ExitStatus, Failure> {
    let mut signals = Signals::new()?;
    // Cancel-safe: what is half written is removed below, or by its own guard.
    tokio::select! {
        biased;
        done = Box::pin(take(remote, args)) => done,
        () = signals.stop() => Err(Failure::failed(
            "the backup was interrupted",
            "nothing of it is left here; take it again",
        )),
    }
}

async fn take(remote: &Remote<'_>, args: BackupArgs) -> Result<ExitStatus, Failure> {
    let query = BackupQuery {
        keys: args.with_keys,
    };
    if args.file.as_deref() == Some(Path::new("-")) {
        if io::stdout().is_terminal() {
            return Err(Failure::usage(
                "an archive is nothing for a terminal",
                "name a file, or send stdout somewhere",
            ));
        }
        let mut pieces = remote.client.backup(query).await?;
        while let Some(piece) = pieces.next().await {
            remote.printer.bytes(&piece?);
        }
        return Ok(ExitStatus::Done);
    }
    let path = args.file.unwrap_or_else(|| usual_name(remote));
    if path.exists() {
        return Err(Failure::usage(
            format!("{} exists", path.display()),
            "name another file; a backup never overwrites one",
        ));
    }
    let pieces = remote.client.backup(query).await?;
    let manifest = write(pieces, &path).await?;
    tell(remote, &path, &manifest);
    Ok(ExitStatus::Done)
}

fn usual_name(remote: &Remote<'_>) -> PathBuf {
    let now = remote.now().to_string();
    let plain = |c: &char| c.is_ascii_digit() || *c == 'T';
    let digits: String = now.chars().take(19).filter(plain).collect();
    PathBuf::from(format!("hostler-{digits}.tar"))
}

fn tell(remote: &Remote<'_>, path: &Path, manifest: &Manifest) {
    let printer = remote.printer;
    let keys = if manifest.has_keys() {
        ", with keys"
    } else {
        ""
    };
    printer.data(&format!(
        "{}: fleet {} at revision {}{keys}",
        path.display(),
        manifest.fleet,
        manifest.revision
    ));
    if manifest.has_keys() {
        printer.talk("the keys of the fleet are in it: keep it as you keep them");
    } else if !manifest.left_out.is_empty() {
        printer.talk(&format!(
            "left out: {}; keep them elsewhere, or take the backup with --with-keys",
            manifest.left_out.join(", ")
        ));
    }
}

/// Removes what is not whole.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What cannot be removed is named so that nobody takes it for a backup.
        let _ = fs::remove_file(&self.0);
    }
}

async fn write(
    mut pieces: BoxStream<'static, Result<Bytes, ClientError>>,
    path: &Path,
) -> Result<Manifest, Failure> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let unwritable = |error: io::Error| {
        Failure::failed(
            format!("cannot write {}: {error}", path.display()),
            "name a file where there is room and you may write; a `.partial` beside it can go",
        )
    };
    let mut options = OpenOptions::new();
    let opened = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial);
    let mut file = opened.map_err(unwritable)?;
    let unfinished = Unfinished(partial.clone());
    while let Some(piece) = pieces.next().await {
        file.write_all(&piece?).map_err(unwritable)?;
    }
    file.sync_all().map_err(unwritable)?;
    let looked = check(&partial)?;
    // A link never takes another file's place, as a rename does.
    fs::hard_link(&partial, path)
        .or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Err(error),
            // Some file systems have no links.
            _ => fs::rename(&partial, path),
        })
        .map_err(unwritable)?;
    drop(unfinished);
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let above = File::open(above.unwrap_or_else(|| Path::new(".")));
    above
        .and_then(|above| above.sync_all())
        .map_err(unwritable)?;
    Ok(looked)
}

/// Reads the archive as a restore would.
fn check(partial: &Path) -> Result<Manifest, Failure> {
    let mut place = partial.as_os_str().to_owned();
    place.push(".check");
    let place = PathBuf::from(place);
    let looked = backup::unpack(partial, &place);
    // It lies beside the archive and is named after it.
    let _ = backup::clear(&place);
    looked.map_err(|error| {
        Failure::failed(format!("the backup is not whole: {error}"), "take it again")
    })
}
