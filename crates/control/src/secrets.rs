//! Secrets: sealed before they go to the domain, opened for the node that runs a copy that names them, and for nobody
//! else.
//!
//! The keys are the keyring's. A turn of keys is safe to be broken off anywhere:
//!
//! ```text
//!   new key in the file ──► chunk by chunk: open, seal with it, `Reseal` ──► nothing is under another ──► old key goes
//!        │                       │                                                  ▲
//!        └── killed ── start ────┴── both keys are read, and the keeper goes on ────┘
//! ```
//!
//! Whoever sets a secret holds the gate for reading from sealing to the answer, and the end of a turn holds it for
//! writing: no value is sealed with a key that is about to go. The owner's inbox is in order, so that a verb whose
//! caller gave up is decided before the one that says that nothing is left.

use std::sync::Arc;

use hostler_fleet::{Expect, Reply, Resealed, Verb};
use hostler_kit::sealed::{Clear, Keyring, KeyringError};
use hostler_model::{Actor, Code, Refusal, Sealed, Secret};

use crate::{Control, refusals};

/// The largest value: with its name it fits into one message to a node.
const MOST_BYTES: usize = 32 << 10;
/// Secrets that are resealed by one verb. Of the largest, that many fit into a commit of every store.
const CHUNK: usize = 8;
/// How often a value is sealed anew because somebody else was faster.
const TRIES: usize = 3;
/// More rounds than any number of secrets takes: each makes progress, or is the last.
const ROUNDS: usize = 100_000;

/// One secret's value, for the node that has a copy that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub version: u64,
    pub value: Clear,
}

/// How a turn of keys ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resealing {
    /// How many secrets got the new key now.
    pub count: usize,
    /// How many are under a key that is not here; they stay as they are.
    pub unopened: usize,
}

impl Control {
    /// Gives the secret a new value, and answers its version. Who runs already keeps the value that it has.
    ///
    /// # Errors
    /// `name-invalid`, `body-too-large`, `revision-conflict`, `secrets-locked`, and what [`Self::submit`] refuses with.
    pub async fn set_secret(
        &self,
        actor: Actor,
        name: &str,
        value: &Clear,
        expect: Expect,
    ) -> Result<u64, Refusal> {
        if value.len() > MOST_BYTES {
            let sentence = format!("the value is larger than {MOST_BYTES} bytes");
            let advice = "keep the large part in a volume, and its key in the secret";
            return Err(Refusal::new(Code::BodyTooLarge, sentence, advice));
        }
        let keyring = self.keyring()?;
        let _gate = self.shared.secrets.read().await;
        let mut tries = 0;
        loop {
            tries += 1;
            let present = self.view().secret(name).map(|it| it.version);
            let version = present.unwrap_or(0) + 1;
            let verb = Verb::PutSecret {
                name: name.to_owned(),
                version,
                sealed: self.seal(keyring, name, version, value)?,
                expect,
            };
            match self.submit(actor.clone(), verb).await {
                Err(refusal)
                    if refusal.code == Code::RevisionConflict
                        && expect == Expect::Any
                        && tries < TRIES => {}
                Err(refusal) => return Err(refusal),
                Ok(_) => return Ok(version),
            }
        }
    }

    /// The value of a secret. For the links of nodes alone: no door shows it to a person.
    ///
    /// # Errors
    /// `secret-not-found`, `secrets-locked`.
    pub fn give_secret(&self, name: &str) -> Result<Given, Refusal> {
        let secret = self.view().secret(name).cloned();
        let secret = secret.ok_or_else(|| refusals::no_secret(name))?;
        let value = self.open(self.keyring()?, &secret)?;
        Ok(Given {
            version: secret.version,
            value,
        })
    }

    /// Seals every secret with a new key, and forgets the old one.
    ///
    /// # Errors
    /// `secrets-locked`, and what [`Self::submit`] refuses with: the keeper goes on then, with both keys.
    pub async fn rekey(&self, actor: Actor) -> Result<Resealing, Refusal> {
        self.keyring()?;
        if !self.is_leading() {
            return Err(self.shared.not_deciding());
        }
        // A turn that is under way is finished first: one at a time.
        self.reseal(actor.clone()).await?;
        let gate = self.shared.secrets.write().await;
        self.on_disk(|keyring, control| keyring.begin_turn(control.shared.parts.entropy.as_ref()))
            .await?;
        drop(gate);
        self.reseal(actor).await
    }

    /// Whether secrets are under more than one key, or an old key has not gone yet.
    pub(crate) fn is_resealing(&self) -> bool {
        self.shared.config.secrets.as_ref().is_some_and(|keyring| {
            let primary = keyring.primary();
            keyring.is_turning() || self.view().secrets().any(|it| it.sealed.key != primary)
        })
    }

    /// Goes on with a turn of keys to its end.
    pub(crate) async fn reseal(&self, actor: Actor) -> Result<Resealing, Refusal> {
        let keyring = self.keyring()?;
        let mut done = Resealing {
            count: 0,
            unopened: 0,
        };
        for _ in 0..ROUNDS {
            let to = keyring.primary();
            let (secrets, unopened) = self.resealed(keyring, &to)?;
            done.unopened = unopened;
            let is_last = secrets.is_empty();
            let gate = match is_last {
                true => Some(self.shared.secrets.write().await),
                false => None,
            };
            let verb = Verb::Reseal {
                to: to.clone(),
                secrets,
            };
            let Reply::Touched { count, more } = self.submit(actor.clone(), verb).await? else {
                return Err(refusals::internal(
                    "a turn of keys was answered with something else",
                ));
            };
            done.count += count;
            if !is_last || (more && unopened == 0) {
                continue;
            }
            // The gate is held: nothing is sealed with an old key any more.
            self.on_disk(|keyring, control| {
                let view = control.view();
                let used: Vec<String> = view.secrets().map(|it| it.sealed.key.clone()).collect();
                drop(view);
                let is_used = |key: &str| used.iter().any(|it| it == key);
                keyring.end_turn(is_used, control.shared.parts.entropy.as_ref())
            })
            .await?;
            drop(gate);
            break;
        }
        Ok(done)
    }

    /// The next chunk, and how many of all cannot be opened.
    fn resealed(&self, keyring: &Keyring, to: &str) -> Result<(Vec<Resealed>, usize), Refusal> {
        let others: Vec<Arc<Secret>> = {
            let view = self.view();
            let others = view.secrets().filter(|it| it.sealed.key != to);
            others.cloned().collect()
        };
        let (mut chunk, mut unopened) = (Vec::new(), 0);
        for secret in others {
            if chunk.len() >= CHUNK {
                break;
            }
            let Ok(value) = self.open(keyring, &secret) else {
                // A turn beside this one may have resealed it since, and let its old key go.
                let now = self.view().secret(&secret.name).cloned();
                unopened += usize::from(now.is_some_and(|it| it.sealed.key == secret.sealed.key));
                continue;
            };
            chunk.push(Resealed {
                name: secret.name.clone(),
                version: secret.version,
                from: secret.sealed.key.clone(),
                sealed: self.seal(keyring, &secret.name, secret.version, &value)?,
            });
        }
        Ok((chunk, unopened))
    }

    fn seal(
        &self,
        keyring: &Keyring,
        name: &str,
        version: u64,
        value: &Clear,
    ) -> Result<Sealed, Refusal> {
        let context = Secret::context(name, version);
        let entropy = self.shared.parts.entropy.as_ref();
        let sealed = keyring.seal(&context, value, entropy);
        let sealed = sealed.map(|(key, text)| Sealed { key, text });
        sealed.ok_or_else(|| refusals::internal("the value could not be sealed"))
    }

    fn open(&self, keyring: &Keyring, secret: &Secret) -> Result<Clear, Refusal> {
        let context = Secret::context(&secret.name, secret.version);
        let Sealed { key, text } = &secret.sealed;
        let opened = keyring.open_sealed(key, &context, text);
        opened.map_err(|why| refusals::locked(&secret.name, &why.to_string()))
    }

    fn keyring(&self) -> Result<&Keyring, Refusal> {
        let keyring = self.shared.config.secrets.as_deref();
        keyring.ok_or_else(refusals::no_keys)
    }

    /// The keyring's file is written off the runtime's threads: a passphrase takes its time.
    async fn on_disk(
        &self,
        work: impl FnOnce(&Keyring, &Self) -> Result<(), KeyringError> + Send + 'static,
    ) -> Result<(), Refusal> {
        let control = self.clone();
        let written = tokio::task::spawn_blocking(move || match &control.shared.config.secrets {
            Some(keyring) => {
                work(keyring, &control).map_err(|error| refusals::keys_unwritten(&error))
            }
            None => Err(refusals::no_keys()),
        });
        written
            .await
            .unwrap_or_else(|_| Err(refusals::internal("the keys were not written")))
    }
}
