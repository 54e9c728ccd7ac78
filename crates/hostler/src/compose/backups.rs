//! Backups of a running server. The store is copied beside itself by a reader, so that commits go on; the copy is
//! looked over, loses its name, and is sent from then on. One backup is made at a time.
//!
//! A task does all of it, and ends by itself when nobody waits any more: a copy that is under way is never met by the
//! next. What can fail: the disk, with `store-unavailable`. What a killed server leaves is removed by the next start.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_control::Control;
use hostler_doors::Backups;
use hostler_kit::Tasks;
use hostler_model::{Code, Refusal, Timestamp};
use hostler_store::SqliteStore;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::backup::{FORMAT, KEYS, Manifest, STORE, Source, Stretch, lay_out};

/// The copy's name in the data directory while it is made.
const COPY: &str = "backup.copy";
/// The same before it is whole, as the store calls it.
const PARTIAL: &str = "backup.copy.partial";
/// How long the copy may take to be made.
const MAKING: Duration = Duration::from_secs(1_800);
/// How long a reader may take nothing.
const READING: Duration = Duration::from_secs(60);
/// Bytes that are sent at a time, and pieces on their way.
const PIECE: usize = 64 << 10;
const PIECES: usize = 4;
/// A key is small; whatever is larger is none.
const KEY_BYTES: u64 = 1 << 20;

/// Backups of one store.
pub(super) struct StoreBackups {
    store: Arc<SqliteStore>,
    control: Control,
    data_dir: PathBuf,
    turn: Arc<Semaphore>,
}

impl StoreBackups {
    pub(super) fn new(store: Arc<SqliteStore>, control: &Control, data_dir: &Path) -> Arc<Self> {
        sweep(data_dir);
        Arc::new(Self {
            store,
            control: control.clone(),
            data_dir: data_dir.to_owned(),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    fn manifest(&self) -> Manifest {
        let now = Timestamp::from_millis(self.control.clock().wall_millis());
        Manifest {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            made_at: now.to_string(),
            fleet: self.control.fleet_id().to_string(),
            epoch: self.control.store_epoch().to_string(),
            revision: 0,
            left_out: Vec::new(),
            files: Vec::new(),
        }
    }
}

#[async_trait]
impl Backups for StoreBackups {
    async fn take(&self, keys: bool) -> Result<BoxStream<'static, io::Result<Bytes>>, Refusal> {
        let turn = Arc::clone(&self.turn).try_acquire_owned();
        let turn = turn.map_err(|_| busy())?;
        let (answer, begun) = oneshot::channel();
        let (pieces, stream) = mpsc::channel(PIECES);
        let (store, manifest) = (Arc::clone(&self.store), self.manifest());
        let (data_dir, tasks) = (self.data_dir.clone(), self.control.tasks().clone());
        self.control.tasks().spawn("backup", async move {
            let _turn = turn;
            let made = tokio::select! {
                biased;
                // What is under way breaks off with it, so that nobody waits for a large copy to stop the server.
                () = tasks.stopping() => Err(failed(&"the server stops")),
                made = make(&store, manifest, (data_dir, keys)) => made,
            };
            match made {
                Ok(stretches) => {
                    // Whoever asked may have gone; then nothing is sent.
                    if answer.send(Ok(())).is_ok() {
                        send(stretches, &pieces, &tasks).await;
                    }
                }
                Err(refusal) => drop(answer.send(Err(refusal))),
            }
        });
        // Bounded by the task, which answers or ends.
        begun.await.map_err(|_| failed(&"it broke off"))??;
        Ok(ReceiverStream::new(stream).boxed())
    }
}

/// Copies the store and lays the archive out.
async fn make(
    store: &SqliteStore,
    manifest: Manifest,
    (data_dir, keys): (PathBuf, bool),
) -> Result<Vec<Stretch>, Refusal> {
    let copy = data_dir.join(COPY);
    let (at, beside) = (copy.clone(), data_dir.clone());
    // Before the copy and after it: keys that change meanwhile might not open what was copied.
    let before = blocking(move || {
        remove(&at).map_err(|error| failed(&error))?;
        held(&beside, keys)
    });
    let before = before.await?;
    let made = tokio::time::timeout(MAKING, store.backup_to(&copy)).await;
    made.map_err(|_| failed(&"it took too long"))?
        .map_err(|error| failed(&error))?;
    let laid_out = blocking(move || {
        let after = held(&data_dir, keys);
        let outcome = after.and_then(|after| lay_out_all(manifest, &copy, (before, after)));
        // The open file is all that is needed from here on.
        remove(&copy).map_err(|error| failed(&error))?;
        outcome
    });
    laid_out.await
}

/// Work on files, off the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| failed(&error))?
}

/// The keys beside the store.
enum Held {
    LeftOut(Vec<String>),
    /// Open, and so what they were when this was made.
    Taken(Vec<Source>),
}

fn held(data_dir: &Path, with_keys: bool) -> Result<Held, Refusal> {
    let held = || -> io::Result<Held> {
        let (keys, strange) = keys(data_dir)?;
        if !with_keys {
            return Ok(Held::LeftOut(keys));
        }
        if let Some(name) = strange.first() {
            return Err(io::Error::other(format!(
                "the key {} is a link, no plain file, or too large to be one; put the key itself there",
                name.display()
            )));
        }
        let of = |name: String| {
            let file = File::open(data_dir.join(&name))?;
            Source::new(name, file)
        };
        let keys: io::Result<Vec<Source>> = keys.into_iter().map(of).collect();
        Ok(Held::Taken(keys?))
    };
    held().map_err(|error| failed(&error))
}

/// Looks the copy over and lays the archive out.
fn lay_out_all(
    mut manifest: Manifest,
    copy: &Path,
    (before, after): (Held, Held),
) -> Result<Vec<Stretch>, Refusal> {
    manifest.revision = hostler_store::examine(copy).map_err(|error| failed(&error))?;
    let laid_out = |manifest, sources: Vec<Source>| -> io::Result<Vec<Stretch>> {
        let store = Source::new(STORE.to_owned(), File::open(copy)?)?;
        lay_out(manifest, std::iter::once(store).chain(sources).collect())
    };
    let laid_out = match (before, after) {
        (Held::Taken(before), Held::Taken(after)) => {
            let parts = |of: &[Source]| -> Vec<_> { of.iter().map(|it| it.part.clone()).collect() };
            if parts(&before) != parts(&after) {
                return Err(moved());
            }
            laid_out(manifest, after)
        }
        (_, Held::LeftOut(keys)) => {
            manifest.left_out = keys;
            laid_out(manifest, Vec::new())
        }
        (Held::LeftOut(_), Held::Taken(_)) => return Err(moved()),
    };
    laid_out.map_err(|error| failed(&error))
}

/// The names of the keys beside the store, relative to the data directory; and what is there that no archive holds.
fn keys(data_dir: &Path) -> io::Result<(Vec<String>, Vec<PathBuf>)> {
    let (mut names, mut strange) = (Vec::new(), Vec::new());
    let mut waiting: Vec<PathBuf> = KEYS.iter().map(PathBuf::from).collect();
    while let Some(name) = waiting.pop() {
        let about = match fs::symlink_metadata(data_dir.join(&name)) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if about.is_dir() {
            for entry in fs::read_dir(data_dir.join(&name))? {
                waiting.push(name.join(entry?.file_name()));
            }
        } else if about.is_file()
            && about.len() <= KEY_BYTES
            && let Some(name) = name.to_str()
        {
            names.push(name.to_owned());
        } else {
            strange.push(name);
        }
    }
    names.sort_unstable();
    Ok((names, strange))
}

async fn send(stretches: Vec<Stretch>, pieces: &mpsc::Sender<io::Result<Bytes>>, tasks: &Tasks) {
    for stretch in stretches {
        let sent = match stretch {
            Stretch::Bytes(bytes) => give(Ok(bytes), pieces, tasks).await,
            Stretch::File(file, length) => send_file(file, length, pieces, tasks).await,
        };
        if !sent {
            return;
        }
    }
}

async fn send_file(
    file: File,
    length: u64,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    tasks: &Tasks,
) -> bool {
    let mut file = Some(file);
    let mut left = length;
    while left > 0 {
        let Some(mut taken) = file.take() else {
            return false;
        };
        let most = left.min(PIECE as u64);
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::new();
            let read = (&mut taken).take(most).read_to_end(&mut piece);
            read.map(|_| (taken, piece))
        });
        let piece = match read.await {
            Ok(Ok((taken, piece))) if !piece.is_empty() => {
                file = Some(taken);
                Ok(Bytes::from(piece))
            }
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        left = left.saturating_sub(piece.as_ref().map_or(0, |piece| piece.len() as u64));
        let is_over = piece.is_err();
        if !give(piece, pieces, tasks).await || is_over {
            return false;
        }
    }
    true
}

/// Whether the piece is on its way.
async fn give(
    piece: io::Result<Bytes>,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    tasks: &Tasks,
) -> bool {
    tokio::select! {
        biased;
        () = tasks.stopping() => {
            // Without this an archive that breaks off might look whole to a careless reader.
            let _ = pieces.try_send(Err(io::ErrorKind::ConnectionAborted.into()));
            false
        }
        sent = tokio::time::timeout(READING, pieces.send(piece)) => matches!(sent, Ok(Ok(()))),
    }
}

/// What a server that was killed has left takes as much room as the store.
fn sweep(data_dir: &Path) {
    for name in [COPY, PARTIAL] {
        let path = data_dir.join(name);
        if let Err(error) = remove(&path) {
            tracing::warn!(path = %path.display(), %error, "what a backup has left stays");
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn busy() -> Refusal {
    let sentence = "another backup is being made";
    Refusal::new(Code::Overloaded, sentence, "ask again when it is done")
}

fn moved() -> Refusal {
    let sentence = "the keys of the fleet were changed while the store was copied";
    Refusal::new(Code::Overloaded, sentence, "ask again: nothing was sent")
}

fn failed(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::StoreUnavailable,
        format!("the store cannot be copied: {error}"),
        "look at the server's disk: a backup takes as much room there as the store, for a while",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_removes_what_a_backup_has_left() {
        let data = tempfile::tempdir().unwrap();
        for name in [COPY, PARTIAL, "kept"] {
            fs::write(data.path().join(name), "").unwrap();
        }
        sweep(data.path());
        sweep(data.path());
        let is_there = [COPY, PARTIAL, "kept"].map(|name| data.path().join(name).exists());
        assert_eq!(is_there, [false, false, true]);
    }

    #[tokio::test]
    async fn keys_that_change_while_the_store_is_copied_are_not_taken_for_its_own() {
        let data = tempfile::tempdir().unwrap();
        let store =
            SqliteStore::open(data.path(), Arc::new(hostler_kit::SystemClock::new())).unwrap();
        let copy = data.path().join(COPY);
        store.backup_to(&copy).await.unwrap();
        let key = data.path().join("secrets.key");
        let manifest = || Manifest {
            format: FORMAT,
            version: String::new(),
            made_at: String::new(),
            fleet: String::new(),
            epoch: String::new(),
            revision: 0,
            left_out: Vec::new(),
            files: Vec::new(),
        };
        fs::write(&key, "one").unwrap();
        let before = held(data.path(), true).unwrap();
        let same = held(data.path(), true).unwrap();
        lay_out_all(manifest(), &copy, (before, same)).unwrap();
        let before = held(data.path(), true).unwrap();
        fs::write(&key, "two").unwrap();
        let after = held(data.path(), true).unwrap();
        let refusal = lay_out_all(manifest(), &copy, (before, after)).unwrap_err();
        assert_eq!(refusal.code, Code::Overloaded);
        let before = held(data.path(), false).unwrap();
        fs::write(&key, "three").unwrap();
        let after = held(data.path(), false).unwrap();
        lay_out_all(manifest(), &copy, (before, after)).unwrap();
    }

    #[test]
    fn a_key_that_no_archive_holds_is_found_and_not_passed_over() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("trust")).unwrap();
        fs::write(data.path().join("trust/authority.pem"), "key").unwrap();
        let (names, strange) = keys(data.path()).unwrap();
        assert_eq!(names, ["trust/authority.pem"]);
        assert!(strange.is_empty());
        std::os::unix::fs::symlink("/elsewhere", data.path().join("secrets.key")).unwrap();
        let large = File::create(data.path().join("trust/large")).unwrap();
        large.set_len(KEY_BYTES + 1).unwrap();
        let (_, mut strange) = keys(data.path()).unwrap();
        strange.sort();
        assert_eq!(strange, ["secrets.key", "trust/large"].map(PathBuf::from));
    }
}
