//! Values that must not lie about in clear: in memory as [`Clear`], which is neither printed nor written, and sealed
//! with AES-256-GCM by the keys of a [`Keyring`].
//!
//! The keyring owns its file, which only its owner may read:
//!
//! ```text
//! hostler secrets 1                                 hostler secrets 1
//! key <id> <base64 of 32 bytes>                     pbkdf2-hmac-sha256 <iterations> <base64 of the salt>
//! key <id> <base64 of 32 bytes>                     sealed <base64 of nonce and ciphertext of the key lines>
//! ```
//!
//! The first key seals, all open. While values are moved to a new key there are two; the file says so before anything
//! is sealed with the new one, and the old one goes from it after everything is. What can fail: the file, its rights,
//! the passphrase; and a value that was changed, or is another than it is said to be, does not open.

mod file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::Entropy;

const KEY_BYTES: usize = 32;

/// A value in clear. It is printed as nothing, written by nobody, and overwritten when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Clear(Vec<u8>);

/// The keys, and where they are kept.
pub struct Keyring {
    /// Where they are kept; nowhere for tests and simulations.
    home: Option<Home>,
    keys: Mutex<Vec<Key>>,
}

struct Home {
    path: PathBuf,
    lock: Option<Lock>,
}

/// A passphrase, and how often it is hashed for a file that is written anew. A file that is there says it itself.
#[derive(Debug, Clone)]
pub struct Lock {
    pub passphrase: Clear,
    pub iterations: u32,
}

#[derive(Clone)]
struct Key {
    id: String,
    bytes: Clear,
}

/// Why the keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("the file {} cannot be read or written", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Others than its owner may read it.
    #[error("the file {} can be read by others than its owner", .0.display())]
    Open(PathBuf),
    /// It is no file of keys, or was damaged.
    #[error("the file {} holds no keys of this program", .0.display())]
    Unreadable(PathBuf),
    #[error("the file {} is locked with a passphrase, and none was given", .0.display())]
    Locked(PathBuf),
    #[error("the passphrase does not open the file {}", .0.display())]
    WrongPassphrase(PathBuf),
}

/// Why a sealed value does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("its key is not in the keyring")]
    NoKey,
    #[error("it was changed, or belongs to something else")]
    Tampered,
}

impl Clear {
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The value, for whoever may have it.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without a reader the compiler could leave it out.
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for Clear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clear(…)")
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("primary", &self.primary())
            .finish_non_exhaustive()
    }
}

impl Keyring {
    /// Keys that are kept nowhere, for tests and simulations.
    #[must_use]
    pub fn in_memory(entropy: &dyn Entropy) -> Self {
        Self {
            home: None,
            keys: Mutex::new(vec![Key::mint(entropy)]),
        }
    }

    /// The keys of the file, which is made if it is missing. With a passphrase an open file gets locked.
    ///
    /// # Errors
    /// See [`KeyringError`]; the file is left as it is.
    pub fn open(
        path: &Path,
        lock: Option<Lock>,
        entropy: &dyn Entropy,
    ) -> Result<Self, KeyringError> {
        let read = file::read(path, lock.as_ref())?;
        let (keys, is_as_wanted) = match read {
            Some(file::Read { keys, was_locked }) => (keys, was_locked == lock.is_some()),
            None => (vec![Key::mint(entropy)], false),
        };
        let home = Home {
            path: path.to_owned(),
            lock,
        };
        if !is_as_wanted {
            file::write(&home, &keys, entropy)?;
        }
        Ok(Self {
            home: Some(home),
            keys: Mutex::new(keys),
        })
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn primary(&self) -> String {
        self.keys()
            .first()
            .map_or_else(String::new, |key| key.id.clone())
    }

    /// Whether there is an older key beside the one that seals.
    #[must_use]
    pub fn is_turning(&self) -> bool {
        self.keys().len() > 1
    }

    /// Seals the value as what it belongs to: the key's id, and nonce and ciphertext in base64. Nothing if the
    /// cipher refuses, which it does for no value that fits into memory.
    #[must_use]
    pub fn seal(
        &self,
        context: &str,
        value: &Clear,
        entropy: &dyn Entropy,
    ) -> Option<(String, String)> {
        let key = self.keys().first()?.clone();
        let text = key.seal(context.as_bytes(), value, entropy)?;
        Some((key.id, text))
    }

    /// Opens what was sealed as that.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_sealed(&self, key: &str, context: &str, text: &str) -> Result<Clear, OpenError> {
        let key = self.keys().iter().find(|it| it.id == key).cloned();
        let key = key.ok_or(OpenError::NoKey)?;
        key.open(context.as_bytes(), text)
            .ok_or(OpenError::Tampered)
    }

    /// Seals with a new key from now on; the others go on opening. On the disk when it answers.
    ///
    /// # Errors
    /// The file could not be written; nothing has changed.
    pub fn begin_turn(&self, entropy: &dyn Entropy) -> Result<(), KeyringError> {
        let mut keys = self.keys();
        let mut next = vec![Key::mint(entropy)];
        next.extend(keys.iter().cloned());
        self.write(&next, entropy)?;
        *keys = next;
        Ok(())
    }

    /// Forgets the older keys that nothing is sealed with.
    ///
    /// # Errors
    /// The file could not be written; nothing has changed.
    pub fn end_turn(
        &self,
        is_used: impl Fn(&str) -> bool,
        entropy: &dyn Entropy,
    ) -> Result<(), KeyringError> {
        let mut keys = self.keys();
        let mut next = keys.clone();
        let mut is_first = true;
        next.retain(|key| std::mem::take(&mut is_first) || is_used(&key.id));
        if next.len() == keys.len() {
            return Ok(());
        }
        self.write(&next, entropy)?;
        *keys = next;
        Ok(())
    }

    fn write(&self, keys: &[Key], entropy: &dyn Entropy) -> Result<(), KeyringError> {
        match &self.home {
            Some(home) => file::write(home, keys, entropy),
            None => Ok(()),
        }
    }

    fn keys(&self) -> MutexGuard<'_, Vec<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn mint(entropy: &dyn Entropy) -> Self {
        Self {
            id: format!("{:016x}", entropy.next_u64()),
            bytes: Clear(random(KEY_BYTES, entropy)),
        }
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        let key = UnboundKey::new(&AES_256_GCM, self.bytes.reveal()).ok()?;
        Some(LessSafeKey::new(key))
    }

    /// A nonce is drawn for each value: 96 random bits do not meet within any number of secrets.
    fn seal(&self, context: &[u8], value: &Clear, entropy: &dyn Entropy) -> Option<String> {
        let nonce: [u8; NONCE_LEN] = random(NONCE_LEN, entropy).try_into().ok()?;
        // Room for the tag, so that the clear text is not left behind by a move.
        let mut bytes = Vec::with_capacity(value.len() + AES_256_GCM.tag_len());
        bytes.extend_from_slice(value.reveal());
        let nonce_of_value = Nonce::assume_unique_for_key(nonce);
        self.cipher()?
            .seal_in_place_append_tag(nonce_of_value, Aad::from(context), &mut bytes)
            .ok()?;
        Some(STANDARD.encode([&nonce[..], &bytes].concat()))
    }

    fn open(&self, context: &[u8], text: &str) -> Option<Clear> {
        let bytes = STANDARD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut value = Clear(sealed.to_vec());
        let opened = self
            .cipher()?
            .open_in_place(nonce, Aad::from(context), &mut value.0)
            .ok()?
            .len();
        value.0.truncate(opened);
        Some(value)
    }
}

/// From the kernel, where the entropy is the system's.
fn random(count: usize, entropy: &dyn Entropy) -> Vec<u8> {
    let words = std::iter::repeat_with(|| entropy.next_u64().to_ne_bytes());
    words.flatten().take(count).collect()
}

#[cfg(test)]
mod tests;
