//! Files and ports of the process driver. Files are read and written by `tar` as a command inside the unit: as its
//! user, in its directory and among its mounts, so that nobody reads or writes what the unit could not.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use hostler_model::spec::ProcessNetwork;
use hostler_model::{Exit, UnitId};
use hostler_shim::record::UnitDir;
use tokio::io::AsyncWriteExt as _;

use super::ProcessRuntime;

use crate::exec::{self, no_parts};
use crate::files::{copy_failed, forward_unsupported, not_found};
use crate::{Archive, Exec as _, ExecCommand, Execution, Files, Ports, RuntimeError, Stream, disk};

/// How long a look at a path may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);
/// What is kept of the words of `tar`.
const MOST_WORDS: usize = 1024;
/// The exit of a `tar` that has packed all, but not everything as it was at one moment.
const CHANGED: i32 = 1;
/// Its words for that: a log that grows is copied as far as it went.
const CHANGES: [&str; 2] = [
    "file changed as we read it",
    "File removed before we read it",
];

#[async_trait]
impl Files for ProcessRuntime {
    async fn read(
        &self,
        id: UnitId,
        part: Option<&str>,
        path: &str,
    ) -> Result<Archive, RuntimeError> {
        no_parts(part)?;
        self.test(id, "-e", path).await?;
        let (directory, name) = split(path);
        let name = format!("./{name}");
        let mut command = words(&["tar", "-cf", "-", "-C", &directory, &name]);
        // What it says is understood.
        command.env.insert("LC_ALL".to_owned(), "C".to_owned());
        let packing = Packing {
            execution: self.begin(id, None, &command).await?,
            words: Vec::new(),
        };
        let pieces = stream::try_unfold(Some(packing), async |packing| match packing {
            Some(packing) => packing.next().await,
            None => Ok(None),
        });
        Ok(pieces.boxed())
    }

    async fn write(
        &self,
        id: UnitId,
        part: Option<&str>,
        path: &str,
        mut archive: Archive<io::Error>,
    ) -> Result<(), RuntimeError> {
        no_parts(part)?;
        self.test(id, "-d", path).await?;
        // Whoever unpacks as root would else give files to whoever has them elsewhere.
        let mut command = words(&["tar", "-xof", "-", "-C", path]);
        command.input = true;
        let mut execution = self.begin(id, None, &command).await?;
        let mut input = execution.input();
        let feeding = async {
            while let Some(piece) = archive.next().await {
                let piece = piece.map_err(|error| copy_failed(&error.to_string()))?;
                if let Some(input) = &mut input
                    && input.write_all(&piece).await.is_err()
                {
                    // It has ended, and says why.
                    break;
                }
            }
            input = None;
            Ok(())
        };
        // An archive that broke off is no end: what unpacks it is killed.
        let both = futures::future::try_join(feeding, finish(&mut *execution, Vec::new()));
        both.await.map(|_| ())
    }
}

impl ProcessRuntime {
    /// Whether the path is as `test` says.
    async fn test(&self, id: UnitId, what: &str, path: &str) -> Result<(), RuntimeError> {
        let command = words(&["test", what, path]);
        let done = exec::run(self, id, &command, (LOOK_PATIENCE, MOST_WORDS)).await?;
        if done.exit.is_success() {
            return Ok(());
        }
        Err(not_found(path, &String::from_utf8_lossy(&done.output)))
    }
}

/// A `tar` that packs.
struct Packing {
    execution: Box<dyn Execution>,
    words: Vec<u8>,
}

impl Packing {
    async fn next(mut self) -> Result<Option<(Bytes, Option<Self>)>, RuntimeError> {
        loop {
            match self.execution.output().await? {
                Some((Stream::Stdout, piece)) => return Ok(Some((piece.into(), Some(self)))),
                Some((_, piece)) => keep(&mut self.words, &piece),
                None => {
                    return match self.execution.end().await? {
                        Exit::Code(CHANGED) if tells_of_changes(&self.words) => Ok(None),
                        exit => ended(exit, &self.words).map(|()| None),
                    };
                }
            }
        }
    }
}

/// Waits for the end; a bad one is told in the program's own words.
async fn finish(execution: &mut dyn Execution, mut words: Vec<u8>) -> Result<(), RuntimeError> {
    while let Some((_, piece)) = execution.output().await? {
        keep(&mut words, &piece);
    }
    ended(execution.end().await?, &words)
}

fn ended(exit: Exit, words: &[u8]) -> Result<(), RuntimeError> {
    if exit.is_success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(words);
    Err(copy_failed(&format!("tar: {exit}: {words}")))
}

/// Whether every line that was kept whole is of a file that changed meanwhile.
fn tells_of_changes(words: &[u8]) -> bool {
    let text = String::from_utf8_lossy(words);
    let whole: &str = match text.rsplit_once('\n') {
        // The last line may be cut off where no more is kept.
        Some((whole, _)) if words.len() == MOST_WORDS => whole,
        _ => &text,
    };
    let mut lines = whole.lines().filter(|line| !line.is_empty()).peekable();
    lines.peek().is_some() && lines.all(|line| CHANGES.iter().any(|change| line.ends_with(*change)))
}

fn keep(words: &mut Vec<u8>, piece: &[u8]) {
    let room = MOST_WORDS - words.len();
    words.extend(piece.iter().take(room));
}

fn words(words: &[&str]) -> ExecCommand {
    ExecCommand::new(words.iter().map(|&word| word.to_owned()).collect())
}

/// The directory in which the last name of the path is. What has no last name is packed as a whole.
fn split(path: &str) -> (String, String) {
    let path = Path::new(path);
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            let text = |it: &std::ffi::OsStr| it.to_string_lossy().into_owned();
            (text(parent.as_os_str()), text(name))
        }
        _ => (path.to_string_lossy().into_owned(), ".".to_owned()),
    }
}

#[async_trait]
impl Ports for ProcessRuntime {
    async fn address(
        &self,
        id: UnitId,
        part: Option<&str>,
        port: u16,
    ) -> Result<SocketAddr, RuntimeError> {
        no_parts(part)?;
        self.is_running(id).await?;
        let inner = Arc::clone(&self.inner);
        let record = disk::off_thread("read the unit", move || UnitDir::of(&inner.dir, id).unit());
        let record = record.await?.ok_or(RuntimeError::NotFound(id))?;
        let network = record.spec.process.as_ref().map(|it| it.isolation.network);
        match network.unwrap_or_default() {
            ProcessNetwork::Host => Ok((Ipv4Addr::LOCALHOST, port).into()),
            ProcessNetwork::Private | ProcessNetwork::None => {
                Err(forward_unsupported("the process has a network of its own"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_change_while_they_are_packed_are_no_failure() {
        let changed = b"tar: ./log/a: file changed as we read it\n";
        let removed = b"tar: ./log/b: File removed before we read it\n";
        assert!(tells_of_changes(changed));
        assert!(tells_of_changes(&[&changed[..], removed].concat()));
        assert!(tells_of_changes(&changed.repeat(100)[..MOST_WORDS]));
        let denied = b"tar: ./log/c: Cannot open: Permission denied\n";
        assert!(!tells_of_changes(&[&changed[..], denied].concat()));
        assert!(!tells_of_changes(b""));
    }

    #[test]
    fn a_path_is_packed_by_its_last_name() {
        let split = |path| {
            let (directory, name) = split(path);
            format!("{directory}|{name}")
        };
        assert_eq!(split("/srv/www"), "/srv|www");
        assert_eq!(split("/srv/www/"), "/srv|www");
        assert_eq!(split("www"), ".|www");
        assert_eq!(split("/"), "/|.");
        assert_eq!(split("."), ".|.");
        assert_eq!(split(".."), "..|.");
        assert_eq!(split("-x"), ".|-x");
    }
}
