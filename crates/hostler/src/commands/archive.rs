//! Tar streams to and from files of this machine. Both sides work in threads of their own, a piece at a time, so that
//! an archive of any length takes little memory.
//!
//! What comes from a copy is not trusted: it is unpacked into a new directory that is ours alone, nothing is written
//! outside of it or through a link, and only then it is moved to its place. A broken archive leaves nothing.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use bytes::{Buf as _, Bytes};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};
use hostler_wire::client::ClientError;
use tar::{Archive, Builder, Entry, EntryType, Header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::failure::Failure;

/// Pieces on their way between a thread and the network.
const PIECES: usize = 4;
/// Bytes of a piece that is packed.
const PIECE: usize = 32 * 1024;

/// Packs a file or directory under another name. The archive breaks off where something cannot be read; the second
/// half says what that was.
pub(crate) fn pack(
    source: PathBuf,
    name: OsString,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    impl Future<Output = Result<(), Failure>>,
) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let packing = tokio::task::spawn_blocking(move || {
        let outlet = Outlet {
            sender: sender.clone(),
            piece: Vec::with_capacity(PIECE),
        };
        let mut builder = Builder::new(outlet);
        // The path itself may be a link to what is meant; those below it are copied as links.
        let packed = fs::metadata(&source)
            .map_err(|error| unreadable(&source, &error))
            .and_then(|about| add(&mut builder, &source, Path::new(&name), &about))
            .and_then(|()| {
                let whole = builder.into_inner().and_then(|mut outlet| outlet.flush());
                whole.map_err(|_| Stopped::Gone)
            });
        match packed {
            Ok(()) | Err(Stopped::Gone) => Ok(()),
            Err(Stopped::Failed(failure)) => {
                // The other side learns that this is no end.
                let _ = sender.blocking_send(Err(io::ErrorKind::InvalidData.into()));
                Err(failure)
            }
        }
    });
    let packed = async move { packing.await.unwrap_or(Ok(())) };
    (ReceiverStream::new(receiver), packed)
}

/// An archive of nothing: whether there is a directory in which it could be unpacked is all that it asks.
pub(crate) fn nothing() -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    // Two empty blocks end an archive.
    stream::iter([Ok(Bytes::from_static(&[0; 1024]))])
}

/// Unpacks an archive whose names all begin with one name, which becomes the target.
pub(crate) async fn unpack(
    mut pieces: BoxStream<'static, Result<Bytes, ClientError>>,
    target: PathBuf,
) -> Result<(), Failure> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let unpacking = tokio::task::spawn_blocking(move || {
        let inlet = Inlet {
            receiver,
            piece: Bytes::new(),
            is_over: false,
        };
        place(inlet, &target)
    });
    let mut broken = None;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map(Some).map_err(|error| {
            broken = Some(error);
            io::ErrorKind::UnexpectedEof.into()
        });
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    if broken.is_none() {
        // Whoever has stopped taking it has said why, or will.
        let _ = sender.send(Ok(None)).await;
    }
    drop(sender);
    let unpacked = unpacking.await;
    match broken {
        Some(error) => Err(error.into()),
        None => unpacked.unwrap_or_else(|_| Err(wrong("the unpacking broke off"))),
    }
}

/// Why packing stopped.
enum Stopped {
    /// Nobody takes the archive any more; why, they say.
    Gone,
    Failed(Failure),
}

impl Stopped {
    fn of(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            // The outlet's word; nothing that can be copied has it.
            io::ErrorKind::BrokenPipe => Self::Gone,
            _ => unreadable(path, error),
        }
    }
}

fn add(
    builder: &mut Builder<Outlet>,
    path: &Path,
    name: &Path,
    about: &Metadata,
) -> Result<(), Stopped> {
    let mut header = Header::new_gnu();
    header.set_mode(about.permissions().mode() & 0o7777);
    header.set_mtime(u64::try_from(about.mtime()).unwrap_or_default());
    // Whose it is here says nothing there.
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    let kind = about.file_type();
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        let added = builder.append_data(&mut header, name, io::empty());
        added.map_err(|error| Stopped::of(path, &error))?;
        let mut entries = fs::read_dir(path)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|error| unreadable(path, &error))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let about = fs::symlink_metadata(&path).map_err(|error| unreadable(&path, &error))?;
            add(builder, &path, &name.join(entry.file_name()), &about)?;
        }
        return Ok(());
    }
    let added = if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        let leads = fs::read_link(path).map_err(|error| unreadable(path, &error))?;
        builder.append_link(&mut header, name, leads)
    } else if kind.is_file() {
        header.set_entry_type(EntryType::Regular);
        header.set_size(about.len());
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        // One that grows meanwhile is copied as long as it was, one that shrinks is filled up: its length was told.
        let whole = file.chain(io::repeat(0)).take(about.len());
        builder.append_data(&mut header, name, whole)
    } else {
        // Sockets, pipes and devices are no files that could be copied.
        return Ok(());
    };
    added.map_err(|error| Stopped::of(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Stopped {
    let sentence = format!("cannot read {}: {error}", path.display());
    Stopped::Failed(Failure::failed(
        sentence,
        "what came before it may have arrived",
    ))
}

/// Unpacks beside the target and moves the result there.
fn place(inlet: Inlet, target: &Path) -> Result<(), Failure> {
    let above = match target.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    let aside = Aside::make(above)?;
    let name = unpack_into(inlet, &aside.0)?;
    let there = fs::symlink_metadata(target);
    if there.is_ok_and(|it| it.is_dir()) {
        let sentence = format!("{} is there already", target.display());
        return Err(Failure::failed(
            sentence,
            "remove it, or choose another name",
        ));
    }
    let whole = aside.0.join(name);
    let about = fs::symlink_metadata(&whole).map_err(|error| unwritable(target, &error))?;
    if !about.is_dir() {
        return fs::rename(&whole, target).map_err(|error| unwritable(target, &error));
    }
    // Nobody moves a directory into which they may not write, so its mode comes last.
    let mode = about.permissions();
    fs::set_permissions(&whole, fs::Permissions::from_mode(mode.mode() | 0o700))
        .and_then(|()| fs::rename(&whole, target))
        .and_then(|()| fs::set_permissions(target, mode))
        .map_err(|error| unwritable(target, &error))
}

/// A directory of ours that goes with what is left in it.
struct Aside(PathBuf);

impl Aside {
    fn make(above: &Path) -> Result<Self, Failure> {
        let name = format!(".hostler-cp-{}", std::process::id());
        let path = above.join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| unwritable(&path, &error))?;
        Ok(Self(path))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        open_up(&self.0);
        // What cannot be removed has nothing to do with what was asked for.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lets a tree be removed, whatever modes its archive gave it.
fn open_up(directory: &Path) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Answers the one name with which all begins.
fn unpack_into(inlet: Inlet, aside: &Path) -> Result<OsString, Failure> {
    let mut archive = Archive::new(inlet);
    archive.set_overwrite(false);
    let mut first: Option<OsString> = None;
    let mut directories = Vec::new();
    let unpack = |entry: &mut Entry<'_, Inlet>| match entry.unpack_in(aside) {
        Ok(true) => Ok(()),
        // What would be written elsewhere, over a link too.
        Ok(false) => Err(wrong("it has a name that leads elsewhere")),
        Err(error) => Err(wrong(&error)),
    };
    let entries = archive.entries().map_err(|error| wrong(&error))?;
    for entry in entries {
        let mut entry = entry.map_err(|error| wrong(&error))?;
        let path = entry.path().map_err(|error| wrong(&error))?;
        let name = top(&path).ok_or_else(|| wrong("it has a name that leads elsewhere"))?;
        if *first.get_or_insert_with(|| name.clone()) != name {
            return Err(wrong("it has more than what was asked for"));
        }
        match entry.header().entry_type() {
            EntryType::Regular
            | EntryType::Continuous
            | EntryType::GNUSparse
            | EntryType::Symlink
            | EntryType::Link => unpack(&mut entry)?,
            // Their modes come last: some let nothing be written into them.
            EntryType::Directory => directories.push(entry),
            // Sockets, pipes and devices are no files that could be copied.
            _ => {}
        }
    }
    for directory in directories.iter_mut().rev() {
        unpack(directory)?;
    }
    drop(directories);
    // An archive says where it ends, but only the end of the stream says that nothing went wrong on the way.
    let rest = io::copy(&mut archive.into_inner(), &mut io::sink());
    rest.map_err(|error| wrong(&error))?;
    first.ok_or_else(|| wrong("it is empty"))
}

/// The first name of a path below here.
fn top(path: &Path) -> Option<OsString> {
    let mut names = path.components().filter(|it| *it != Component::CurDir);
    let first = match names.next()? {
        Component::Normal(name) => name.to_owned(),
        _ => return None,
    };
    names
        .all(|it| matches!(it, Component::Normal(_)))
        .then_some(first)
}

fn wrong(why: &(impl std::fmt::Display + ?Sized)) -> Failure {
    Failure::failed(
        format!("the archive cannot be unpacked: {why}"),
        "nothing was copied",
    )
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(
        format!("cannot write {}: {error}", path.display()),
        "choose a place in which you may write",
    )
}

/// Where a thread writes what the network sends.
struct Outlet {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend(bytes.iter().take(taken));
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = self.sender.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Where a thread reads what the network brings. Without the word that nothing more comes it has broken off.
struct Inlet {
    receiver: mpsc::Receiver<io::Result<Option<Bytes>>>,
    piece: Bytes,
    is_over: bool,
}

impl Read for Inlet {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.is_over {
            match self.receiver.blocking_recv() {
                Some(Ok(Some(piece))) => self.piece = piece,
                Some(Ok(None)) => self.is_over = true,
                Some(Err(error)) => return Err(error),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.piece.len().min(into.len());
        self.piece
            .copy_to_slice(into.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Written<'a> = (&'a str, EntryType, &'a str);

    /// An archive with names as they are, whatever a sane writer thought of them.
    fn archive(entries: &[Written<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o500);
            let bytes = header.as_gnu_mut().unwrap();
            bytes.name[..name.len()].copy_from_slice(name.as_bytes());
            let content = if *kind == EntryType::Symlink {
                header.set_link_name(text).unwrap();
                ""
            } else {
                text
            };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    async fn unpacked(bytes: &[u8], target: &Path) -> Result<(), Failure> {
        let pieces: Vec<_> = bytes
            .chunks(700)
            .map(|it| Ok(Bytes::copy_from_slice(it)))
            .collect();
        unpack(stream::iter(pieces).boxed(), target.to_owned()).await
    }

    #[tokio::test]
    async fn an_archive_becomes_the_target_whatever_its_modes() {
        let home = tempfile::tempdir().unwrap();
        let whole = archive(&[
            ("./site", EntryType::Directory, ""),
            ("./site/deep", EntryType::Directory, ""),
            ("./site/deep/page", EntryType::Regular, "hello"),
            ("./site/link", EntryType::Symlink, "/etc/passwd"),
            ("./site/pipe", EntryType::Fifo, ""),
        ]);
        let target = home.path().join("mine");
        unpacked(&whole, &target).await.unwrap();
        assert_eq!(fs::read(target.join("deep/page")).unwrap(), b"hello");
        let mode = fs::metadata(target.join("deep"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o500);
        assert_eq!(
            fs::read_link(target.join("link")).unwrap(),
            Path::new("/etc/passwd")
        );
        assert!(!target.join("pipe").exists());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_leads_elsewhere_or_is_no_whole_archive_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let through = outside.to_str().unwrap();
        let whole = archive(&[("a", EntryType::Regular, &"x".repeat(5_000))]);
        let wrongs = [
            archive(&[("../outside/evil", EntryType::Regular, "x")]),
            archive(&[("a/../../outside/evil", EntryType::Regular, "x")]),
            archive(&[("/outside/evil", EntryType::Regular, "x")]),
            archive(&[
                ("a", EntryType::Symlink, through),
                ("a/evil", EntryType::Regular, "x"),
            ]),
            archive(&[
                ("a/b", EntryType::Symlink, through),
                ("a/b/evil", EntryType::Regular, "x"),
            ]),
            archive(&[
                ("a", EntryType::Regular, "x"),
                ("b", EntryType::Regular, "x"),
            ]),
            archive(&[]),
            whole[..4_000].to_vec(),
            vec![7; 2_000],
        ];
        for (index, wrong) in wrongs.iter().enumerate() {
            let target = home.path().join("target");
            let failure = unpacked(wrong, &target).await.unwrap_err();
            let told = &failure.sentence;
            assert!(
                told.starts_with("the archive cannot be unpacked"),
                "{index}: {told}"
            );
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{index}");
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "{index}");
        }
    }

    #[tokio::test]
    async fn an_error_behind_the_archives_own_end_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let whole = archive(&[
            ("a", EntryType::Directory, ""),
            ("a/b", EntryType::Directory, ""),
            ("a/b/page", EntryType::Regular, "hello"),
        ]);
        let broken = ClientError::Interrupted {
            addr: "there".to_owned(),
        };
        let pieces = stream::iter([Ok(Bytes::from(whole)), Err(broken)]).boxed();
        let failure = unpack(pieces, home.path().join("target")).await;
        assert!(failure.unwrap_err().sentence.contains("broke off"));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_copy_that_is_given_up_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let whole = archive(&[("a", EntryType::Regular, "hello")]);
        let pieces = stream::iter([Ok(Bytes::from(whole))]);
        let pieces = pieces.chain(stream::pending()).boxed();
        let target = home.path().join("target");
        let mut unpacking = Box::pin(unpack(pieces, target.clone()));
        let left = || fs::read_dir(home.path()).unwrap().count();
        while left() == 0 {
            assert!(futures::poll!(&mut unpacking).is_pending());
            tokio::task::yield_now().await;
        }
        drop(unpacking);
        // Its thread cleans up behind itself.
        while left() > 0 {
            assert!(!target.exists());
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_tree_that_was_packed_is_unpacked_the_same() {
        let home = tempfile::tempdir().unwrap();
        let tree = home.path().join("tree");
        fs::create_dir_all(tree.join("deep")).unwrap();
        fs::write(tree.join("deep/page"), vec![b'x'; 100_000]).unwrap();
        std::os::unix::fs::symlink("deep", tree.join("link")).unwrap();
        let (pieces, packing) = pack(tree, "other".into());
        let pieces = pieces.map(|piece| Ok(piece.unwrap())).boxed();
        let target = home.path().join("back");
        let (unpacked, packed) = futures::join!(unpack(pieces, target.clone()), packing);
        unpacked.and(packed).unwrap();
        assert_eq!(fs::read(target.join("deep/page")).unwrap().len(), 100_000);
        assert_eq!(
            fs::read_link(target.join("link")).unwrap(),
            Path::new("deep")
        );
        let (pieces, packing) = pack(home.path().join("missing"), "x".into());
        let (pieces, packed) = futures::join!(pieces.collect::<Vec<_>>(), packing);
        assert!(pieces.last().is_some_and(Result::is_err), "it breaks off");
        assert!(packed.unwrap_err().sentence.starts_with("cannot read"));
    }
}
