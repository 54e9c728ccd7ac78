//! The file of keys: read, locked with a passphrase, and replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroU32;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::pbkdf2;

use super::{Clear, Home, KEY_BYTES, Key, KeyringError, Lock, random};
use crate::Entropy;

const FIRST_LINE: &str = "hostler secrets 1";
const HASH: &str = "pbkdf2-hmac-sha256";
const SALT_BYTES: usize = 16;
/// What the keys are sealed as.
const CONTEXT: &[u8] = b"hostler secrets keys";
/// More than any file of keys takes.
const MOST_BYTES: u64 = 64 << 10;

pub(super) struct Read {
    pub(super) keys: Vec<Key>,
    pub(super) was_locked: bool,
}

/// The keys of the file; nothing if there is none.
pub(super) fn read(path: &Path, lock: Option<&Lock>) -> Result<Option<Read>, KeyringError> {
    let failed = |source| KeyringError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(KeyringError::Open(path.to_owned()));
    }
    let mut text = Clear::new(Vec::new());
    let mut bounded = io::Read::take(&mut file, MOST_BYTES);
    bounded.read_to_end(&mut text.0).map_err(failed)?;
    let unreadable = || KeyringError::Unreadable(path.to_owned());
    let text = std::str::from_utf8(text.reveal()).map_err(|_| unreadable())?;
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(unreadable());
    }
    let rest: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let is_locked = rest.first().is_some_and(|line| line.starts_with(HASH));
    let keys = if is_locked {
        let lock = lock.ok_or_else(|| KeyringError::Locked(path.to_owned()))?;
        let (salt, sealed) = locked(&rest).ok_or_else(unreadable)?;
        let opened = key_of(lock.passphrase.reveal(), salt.iterations, &salt.bytes)
            .open(CONTEXT, sealed)
            .ok_or_else(|| KeyringError::WrongPassphrase(path.to_owned()))?;
        let lines = std::str::from_utf8(opened.reveal()).map_err(|_| unreadable())?;
        keys(lines.lines())
    } else {
        keys(rest.into_iter())
    };
    Ok(Some(Read {
        keys: keys.ok_or_else(unreadable)?,
        was_locked: is_locked,
    }))
}

/// Written beside, synced, renamed, directory synced.
pub(super) fn write(home: &Home, keys: &[Key], entropy: &dyn Entropy) -> Result<(), KeyringError> {
    let Home { path, lock } = home;
    let failed = |source| KeyringError::Io {
        path: path.clone(),
        source,
    };
    let mut lines = Clear::new(Vec::with_capacity(keys.len() * 96));
    for key in keys {
        lines.0.extend(format!("key {} ", key.id).bytes());
        let bytes = Clear::new(STANDARD.encode(key.bytes.reveal()).into_bytes());
        lines.0.extend(bytes.reveal());
        lines.0.push(b'\n');
    }
    let body = match lock {
        None => lines,
        Some(lock) => {
            let salt = random(SALT_BYTES, entropy);
            let iterations = NonZeroU32::new(lock.iterations).unwrap_or(NonZeroU32::MIN);
            let key = key_of(lock.passphrase.reveal(), iterations, &salt);
            let sealed = key.seal(CONTEXT, &lines, entropy);
            let sealed = sealed.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
            let salt = STANDARD.encode(salt);
            Clear::new(format!("{HASH} {iterations} {salt}\nsealed {sealed}\n").into_bytes())
        }
    };
    replace(path, &body).map_err(failed)
}

fn replace(path: &Path, body: &Clear) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or_else(|| Path::new("."));
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    // Of a server that died while it wrote.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(format!("{FIRST_LINE}\n").as_bytes())?;
    file.write_all(body.reveal())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(dir)?.sync_all()
}

struct Salt {
    iterations: NonZeroU32,
    bytes: Vec<u8>,
}

fn locked<'a>(lines: &[&'a str]) -> Option<(Salt, &'a str)> {
    let [hash, sealed] = lines else { return None };
    let mut words = hash.split(' ').skip(1);
    let iterations = words.next()?.parse().ok()?;
    let bytes = STANDARD.decode(words.next()?).ok()?;
    Some((Salt { iterations, bytes }, sealed.strip_prefix("sealed ")?))
}

fn keys<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Vec<Key>> {
    let key = |line: &str| {
        let (id, bytes) = line.strip_prefix("key ")?.split_once(' ')?;
        let bytes = Clear::new(STANDARD.decode(bytes).ok()?);
        (bytes.len() == KEY_BYTES).then(|| Key {
            id: id.to_owned(),
            bytes,
        })
    };
    let keys: Vec<Key> = lines.map(key).collect::<Option<_>>()?;
    (!keys.is_empty()).then_some(keys)
}

/// The key that a passphrase gives.
fn key_of(passphrase: &[u8], iterations: NonZeroU32, salt: &[u8]) -> Key {
    let mut bytes = Clear::new(vec![0; KEY_BYTES]);
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        salt,
        passphrase,
        &mut bytes.0,
    );
    Key {
        id: String::new(),
        bytes,
    }
}
