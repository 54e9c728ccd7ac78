//! The keys that sign the tokens of nodes. The newest signs; an older one is believed until the tokens that it signed are
//! over, or until it is dropped.
//!
//! Where the operator gives none, a server with login makes its own and keeps them in a file that its owner alone may
//! read. The keys own that file; what can fail is the disk. Clones are one.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hostler_kit::Entropy;
use hostler_kit::files::{Readers, replace};
use hostler_model::{Code, Refusal, Timestamp};
use hostler_wire::api;
use serde::{Deserialize, Serialize};

/// The secret that MIaaS signs with unless told otherwise. It is public, so tokens prove nothing under it.
const PUBLIC: &str = "development-secret-change-in-production";
/// More than any file of keys takes.
const MOST_BYTES: u64 = 256 << 10;
/// Most keys that are kept; beyond, the oldest is dropped.
const MOST_KEYS: usize = 64;

/// The keys of one server.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    /// None: the operator gives them.
    home: Option<PathBuf>,
    /// The newest first.
    keys: RwLock<Vec<Key>>,
    /// One rotation at a time; beats do not wait for its disk.
    turn: Mutex<()>,
}

/// One key. What it is made of is never shown.
#[derive(Clone, Serialize, Deserialize)]
struct Key {
    /// Stands in the head of its tokens; empty for one that the operator gave, as the contract knows no such thing.
    id: String,
    secret: String,
    /// The longest life, in seconds, of tokens that it has signed.
    life: u64,
    /// Until when it is believed once another one signs.
    #[serde(default)]
    until: Option<u64>,
}

impl Keys {
    /// The secret that everybody knows, as the contract has it.
    #[must_use]
    pub fn public() -> Self {
        Self::given(PUBLIC, None)
    }

    /// A secret that the operator gives, and one that was in its place before.
    #[must_use]
    pub fn given(secret: &str, former: Option<&str>) -> Self {
        let secrets = std::iter::once(secret).chain(former);
        let keys = secrets.map(|secret| Key {
            id: String::new(),
            secret: secret.to_owned(),
            life: 0,
            until: None,
        });
        Self::of(None, keys.collect())
    }

    /// Those of the file, or a first one.
    ///
    /// # Errors
    /// The file cannot be read, written or understood, or others may read it.
    pub fn open(path: &Path, life: Duration, entropy: &dyn Entropy) -> io::Result<Self> {
        let mut keys = read(path)?;
        let before = keys.first().map(|newest| newest.life);
        match keys.first_mut() {
            Some(newest) => newest.life = newest.life.max(life.as_secs()),
            None => keys.push(Key::draw(life, entropy)),
        }
        if keys.first().map(|newest| newest.life) != before {
            write(path, &keys)?;
        }
        Ok(Self::of(Some(path.to_owned()), keys))
    }

    fn of(home: Option<PathBuf>, keys: Vec<Key>) -> Self {
        Self(Arc::new(Inner {
            home,
            keys: RwLock::new(keys),
            turn: Mutex::new(()),
        }))
    }

    fn all(&self) -> Vec<Key> {
        let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// Whether anybody could sign as this server does.
    #[must_use]
    pub fn is_public(secret: &str) -> bool {
        secret.is_empty() || secret == PUBLIC
    }

    pub(super) fn signs_publicly(&self) -> bool {
        self.newest(|key| Self::is_public(&key.secret))
    }

    /// Looks at the key that signs: its id and its secret.
    pub(super) fn with_newest<T>(&self, look: impl FnOnce(&str, &[u8]) -> T) -> T {
        self.newest(|key| look(&key.id, key.secret.as_bytes()))
    }

    fn newest<T>(&self, look: impl FnOnce(&Key) -> T) -> T {
        let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
        match keys.first() {
            Some(key) => look(key),
            // There is always one; a token that nothing signed is none.
            None => look(&Key {
                id: String::new(),
                secret: String::new(),
                life: 0,
                until: None,
            }),
        }
    }

    /// Whether a key that is believed now, and has that id if one is told, passes the check.
    pub(super) fn any(
        &self,
        id: Option<&str>,
        now: Timestamp,
        check: impl Fn(&[u8]) -> bool,
    ) -> bool {
        let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
        let is_meant = |key: &&Key| id.is_none_or(|id| key.id == id) && key.is_believed(now);
        let mut meant = keys.iter().filter(is_meant);
        meant.any(|key| check(key.secret.as_bytes()))
    }

    /// Another secret signs from now on, because the operator says so. The former one is believed for as long as
    /// tokens live. Answers whether it is another one.
    pub fn give(&self, secret: &str, former: Option<&str>, now: Timestamp, life: Duration) -> bool {
        if self.0.home.is_some() {
            return false;
        }
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        let is_known = |keys: &[Key], secret: &str| keys.iter().any(|key| key.secret == secret);
        let is_same = keys.first().is_some_and(|newest| newest.secret == secret);
        let mut fresh = Self::given(secret, former).all();
        if is_same && fresh.iter().all(|key| is_known(&keys, &key.secret)) {
            return false;
        }
        for mut old in keys.drain(..) {
            if !is_known(&fresh, &old.secret) && old.is_believed(now) {
                let until = now.plus(life).as_millis();
                old.until = Some(old.until.map_or(until, |told| told.min(until)));
                fresh.push(old);
            }
        }
        *keys = fresh;
        true
    }

    /// A new key signs from now on; the file has it before anybody gets a token of it. `at_once` drops the older ones, and
    /// their tokens are worth nothing.
    ///
    /// # Errors
    /// `bad-request` where the operator gives the secret, `store-unavailable` if the file cannot be written.
    pub fn rotate(
        &self,
        (now, life): (Timestamp, Duration),
        entropy: &dyn Entropy,
        at_once: bool,
    ) -> Result<api::MiaasKeys, Refusal> {
        let Some(home) = &self.0.home else {
            let sentence = "the secret of MIaaS's tokens was given by whoever runs the server";
            let advice = "change JWT_SECRET, or `jwt_secret` in [miaas] and reload, and name the \
                          former one in JWT_SECRET_FORMER or `jwt_secret_former`";
            return Err(Refusal::new(Code::BadRequest, sentence, advice));
        };
        let turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.all();
        let mut next = vec![Key::draw(life, entropy)];
        let old = keys.iter().filter(|key| !at_once && key.is_believed(now));
        next.extend(old.map(|key| {
            Key {
                until: Some(
                    key.until
                        .unwrap_or_else(|| now.plus(Duration::from_secs(key.life)).as_millis()),
                ),
                ..key.clone()
            }
        }));
        next.truncate(MOST_KEYS);
        write(home, &next).map_err(|error| {
            let sentence = format!("the keys of MIaaS's tokens cannot be written: {error}");
            Refusal::new(
                Code::StoreUnavailable,
                sentence,
                "look at the server's disk",
            )
        })?;
        let told = api::MiaasKeys {
            key: next.first().map(|key| key.id.clone()).unwrap_or_default(),
            former: next.len().saturating_sub(1),
        };
        *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = next;
        drop(turn);
        Ok(told)
    }
}

impl Key {
    fn draw(life: Duration, entropy: &dyn Entropy) -> Self {
        let secret: String = (0..4)
            .map(|_| format!("{:016x}", entropy.next_u64()))
            .collect();
        Self {
            id: format!("{:016x}", entropy.next_u64()),
            secret,
            life: life.as_secs(),
            until: None,
        }
    }

    fn is_believed(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now.as_millis() < until)
    }
}

fn read(path: &Path) -> io::Result<Vec<Key>> {
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if about.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other("others may read it"));
    }
    if about.len() > MOST_BYTES {
        return Err(io::Error::other("it is no file of keys"));
    }
    // What is wrong with it is not told with a piece of it.
    let unreadable = |_| io::Error::other("it is no file of keys");
    serde_json::from_slice(&std::fs::read(path)?).map_err(unreadable)
}

fn write(path: &Path, keys: &[Key]) -> io::Result<()> {
    replace(path, &serde_json::to_vec(keys)?, Readers::Owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostler_kit::SystemEntropy;

    const LIFE: Duration = Duration::from_secs(100);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn secret(keys: &Keys) -> Vec<u8> {
        keys.with_newest(|_, secret| secret.to_vec())
    }

    fn believes(keys: &Keys, secret: &[u8], now: Timestamp) -> bool {
        keys.any(None, now, |own| own == secret)
    }

    #[test]
    fn a_key_is_made_once_is_its_owners_alone_and_is_believed_until_its_tokens_are_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("miaas.json");
        let keys = Keys::open(&path, LIFE, &SystemEntropy).unwrap();
        let first = secret(&keys);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A longer life of tokens is known to the key that signs them.
        let keys = Keys::open(&path, LIFE * 2, &SystemEntropy).unwrap();
        assert_eq!(secret(&keys), first);
        keys.rotate((at(1_000), LIFE), &SystemEntropy, false)
            .unwrap();
        let keys = Keys::open(&path, LIFE, &SystemEntropy).unwrap();
        let second = secret(&keys);
        assert_ne!(second, first);
        assert!(believes(&keys, &first, at(1_199)) && believes(&keys, &second, at(9_999)));
        assert!(!believes(&keys, &first, at(1_200)));
        keys.rotate((at(1_100), LIFE), &SystemEntropy, true)
            .unwrap();
        assert!(!believes(&keys, &first, at(1_101)) && !believes(&keys, &second, at(1_101)));
    }

    #[test]
    fn keys_that_others_may_read_or_that_are_none_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("miaas.json");
        Keys::open(&path, LIFE, &SystemEntropy).unwrap();
        let open = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(&path, open).unwrap();
        assert!(Keys::open(&path, LIFE, &SystemEntropy).is_err());
        replace(&path, b"nothing", Readers::Owner).unwrap();
        assert!(Keys::open(&path, LIFE, &SystemEntropy).is_err());
    }

    #[test]
    fn what_the_operator_gives_wins_and_the_former_secret_is_believed_for_a_while() {
        let keys = Keys::given("a", Some("z"));
        assert!(keys.rotate((at(1), LIFE), &SystemEntropy, false).is_err());
        assert!(!keys.give("a", Some("z"), at(1), LIFE));
        assert!(keys.give("b", None, at(1), LIFE));
        assert_eq!(secret(&keys), b"b");
        for former in [b"a", b"z"] {
            assert!(believes(&keys, former, at(100)));
            assert!(!believes(&keys, former, at(101)));
        }
        assert!(keys.give("c", Some("b"), at(2), LIFE));
        assert!(believes(&keys, b"b", at(9_999)), "it is named");
    }
}
