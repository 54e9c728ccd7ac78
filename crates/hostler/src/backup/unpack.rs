//! Takes an archive apart into an empty directory. Whatever is not as the manifest says is an error, and then nothing
//! of it is to be used: a name that is not expected, a length, a hash, an end that comes too early.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hostler_store::OpenError;
use sha2::{Digest as _, Sha256};
use tar::{Archive, Entry};

use super::manifest::{FORMAT, MANIFEST, Manifest, Part, STORE};
use super::pack::hexadecimal;

/// A manifest of thousands of keys is smaller.
const MANIFEST_BYTES: u64 = 4 << 20;
/// Bytes that are copied at a time.
const PIECE: usize = 128 << 10;

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("it is no backup of Hostler: {why}")]
    Foreign { why: String },
    #[error("it is of form {found}, this program knows forms up to {FORMAT}")]
    Newer { found: u32 },
    #[error("it ends too early, in `{name}`")]
    Truncated { name: String },
    #[error("it is damaged: `{name}` is not what its manifest says")]
    Damaged { name: String },
    #[error("its store cannot be used: {0}")]
    Store(#[source] OpenError),
    #[error("it cannot be unpacked: {0}")]
    Disk(#[source] io::Error),
}

impl ArchiveError {
    /// What to do about it.
    pub(crate) const fn advice(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => {
                "name a file that `hostler backup` wrote and that you may read"
            }
            Self::Foreign { .. } => "name a file that `hostler backup` wrote",
            Self::Newer { .. } => {
                "restore it with the program of the version that made it, or a newer one"
            }
            Self::Truncated { .. } | Self::Damaged { .. } => {
                "copy the backup anew from where it is kept, or use an older one; nothing was changed"
            }
            Self::Store(error) => error.advice(),
            Self::Disk(_) => {
                "make room for twice the archive's length where it is unpacked, then try again"
            }
        }
    }
}

/// Unpacks into a directory that is made for it, and checks everything, the store's own pages too.
pub(crate) fn unpack(archive: &Path, into: &Path) -> Result<Manifest, ArchiveError> {
    let unreadable = |source| ArchiveError::Unreadable {
        path: archive.to_owned(),
        source,
    };
    let file = File::open(archive).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::ErrorKind::InvalidInput.into()));
    }
    make_directory(into).map_err(ArchiveError::Disk)?;
    let mut archive = Archive::new(file);
    let foreign = |error: io::Error| ArchiveError::Foreign {
        why: error.to_string(),
    };
    let mut entries = archive.entries().map_err(foreign)?;
    let first = entries.next().ok_or_else(|| ArchiveError::Foreign {
        why: "it is empty".to_owned(),
    })?;
    let manifest = read_manifest(first.map_err(foreign)?)?;
    for part in &manifest.files {
        let truncated = || ArchiveError::Truncated {
            name: part.name.clone(),
        };
        let entry = entries.next().ok_or_else(truncated)?;
        take(entry.map_err(|_| truncated())?, part, into)?;
    }
    let revision = hostler_store::examine(&into.join(STORE)).map_err(ArchiveError::Store)?;
    if revision != manifest.revision {
        return Err(ArchiveError::Damaged {
            name: MANIFEST.to_owned(),
        });
    }
    Ok(manifest)
}

fn read_manifest(entry: Entry<'_, File>) -> Result<Manifest, ArchiveError> {
    let foreign = |why: String| ArchiveError::Foreign { why };
    if entry.path_bytes().as_ref() != MANIFEST.as_bytes() {
        return Err(foreign("it does not begin with a manifest".to_owned()));
    }
    let length = entry.size();
    let mut text = Vec::new();
    let read = entry.take(MANIFEST_BYTES).read_to_end(&mut text);
    if read.is_err() || (text.len() as u64) < length {
        return Err(ArchiveError::Truncated {
            name: MANIFEST.to_owned(),
        });
    }
    let form: Form = serde_json::from_slice(&text).map_err(|error| foreign(error.to_string()))?;
    if form.format > FORMAT {
        return Err(ArchiveError::Newer { found: form.format });
    }
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| foreign(error.to_string()))?;
    if manifest.is_sound() {
        Ok(manifest)
    } else {
        Err(foreign(
            "its manifest names files that no backup has".to_owned(),
        ))
    }
}

/// What every form of manifest has.
#[derive(serde::Deserialize)]
struct Form {
    format: u32,
}

/// One file, checked while it is written.
fn take(mut entry: Entry<'_, File>, part: &Part, into: &Path) -> Result<(), ArchiveError> {
    let name = || part.name.clone();
    if entry.path_bytes().as_ref() != part.name.as_bytes() || entry.size() != part.bytes {
        return Err(ArchiveError::Damaged { name: name() });
    }
    let target = into.join(&part.name);
    if let Some(above) = target.parent() {
        make_directory(above).map_err(ArchiveError::Disk)?;
    }
    let mut file = private_file(&target).map_err(ArchiveError::Disk)?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut left = part.bytes;
    while left > 0 {
        let read = entry.read(&mut piece);
        let read = read.map_err(|_| ArchiveError::Truncated { name: name() })?;
        if read == 0 {
            return Err(ArchiveError::Truncated { name: name() });
        }
        digest.update(&piece[..read]);
        file.write_all(&piece[..read]).map_err(ArchiveError::Disk)?;
        left = left.saturating_sub(read as u64);
    }
    if hexadecimal(&digest.finalize()) != part.sha256 {
        return Err(ArchiveError::Damaged { name: name() });
    }
    file.sync_all().map_err(ArchiveError::Disk)
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Removes what was unpacked; what is not there is fine.
pub(crate) fn clear(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hostler_kit::{Entropy as _, SeededEntropy, SystemClock};
    use hostler_store::SqliteStore;
    use tar::{Builder, Header};

    use super::*;

    /// An archive of an empty store, with a key beside it.
    async fn archive(home: &Path) -> Vec<u8> {
        let clock = Arc::new(SystemClock::new());
        let store = SqliteStore::open(&home.join("data"), clock).unwrap();
        let copy = home.join("copy.db");
        store.backup_to(&copy).await.unwrap();
        drop(store);
        let revision = hostler_store::examine(&copy).unwrap();
        let contents = [
            (STORE, fs::read(&copy).unwrap()),
            ("trust/authority.pem", b"a key".to_vec()),
        ];
        let files = contents.iter().map(|(name, bytes)| Part {
            name: (*name).to_owned(),
            bytes: bytes.len() as u64,
            sha256: hexadecimal(&Sha256::digest(bytes)),
        });
        let manifest = Manifest {
            format: FORMAT,
            version: "1".to_owned(),
            made_at: String::new(),
            fleet: String::new(),
            epoch: String::new(),
            revision,
            left_out: Vec::new(),
            files: files.collect(),
        };
        let mut builder = Builder::new(Vec::new());
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let entries = [(MANIFEST, manifest)].into_iter().chain(contents);
        for (name, bytes) in entries {
            let mut header = Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            builder
                .append_data(&mut header, name, bytes.as_slice())
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[tokio::test]
    async fn a_damaged_archive_is_refused_and_writes_nowhere_else() {
        let home = tempfile::tempdir().unwrap();
        let whole = archive(home.path()).await;
        let (file, into) = (home.path().join("archive"), home.path().join("in/to"));
        fs::write(&file, &whole).unwrap();
        unpack(&file, &into).unwrap();
        clear(&into).unwrap();

        let entropy = SeededEntropy::new(1);
        let below = |count: usize| usize::try_from(entropy.next_u64() >> 32).unwrap() % count;
        for round in 0..300 {
            let mut sent = whole.clone();
            // Mostly in the heads of entries and in the manifest, which is where something is read from it.
            let at = below(if round % 4 == 0 { whole.len() } else { 4 * 512 });
            match round % 3 {
                0 => sent[at] ^= 1 << below(8),
                1 => sent.truncate(at),
                _ => drop(sent.splice(at..at, b"../../../x".iter().copied())),
            }
            fs::write(&file, &sent).unwrap();
            if unpack(&file, &into).is_ok() {
                let kept = fs::read(into.join("trust/authority.pem")).unwrap();
                assert_eq!(kept, b"a key", "round {round}");
            }
            clear(&into).unwrap();
            let mut left: Vec<_> = fs::read_dir(home.path())
                .unwrap()
                .map(|it| it.unwrap().file_name().into_string().unwrap())
                .collect();
            left.sort();
            assert_eq!(left, ["archive", "copy.db", "data", "in"], "round {round}");
            let beside = fs::read_dir(home.path().join("in")).unwrap().count();
            assert_eq!(beside, 0, "round {round}");
        }
    }
}
