//! The vault: values of secrets, in this process's memory and nowhere else.
//!
//! The uplink fills it before an intent names what is in it, and steps take from it what they give to the drivers. An
//! agent that was started anew has none: the session brings them with the first intent, and until then what names one
//! waits. While the node is cut off it keeps what it has, so that what dies is started again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hostler_kit::sealed::Clear;
use hostler_model::spec::WorkloadSpec;
use hostler_model::{FailureCode, UnitId};
use hostler_runtime::secrets::gather;
use hostler_runtime::{Runtime, RuntimeError};

/// What the node was told of secrets. Clones are one vault.
#[derive(Clone, Default)]
pub(crate) struct Vault(Arc<Mutex<BTreeMap<String, Held>>>);

struct Held {
    value: Clear,
    /// The control plane has said in this session that a copy here needs it.
    is_wanted: bool,
}

impl Vault {
    /// A session begins: what is wanted is told anew in it.
    pub(crate) fn begin(&self) {
        for held in self.lock().values_mut() {
            held.is_wanted = false;
        }
    }

    pub(crate) fn put(&self, name: String, value: Clear) {
        let held = Held {
            value,
            is_wanted: true,
        };
        self.lock().insert(name, held);
    }

    pub(crate) fn forget(&self, name: &str) {
        if let Some(held) = self.lock().get_mut(name) {
            held.is_wanted = false;
        }
    }

    /// Drops what is wanted no more, unless the intent that is followed names it.
    pub(crate) fn tidy(&self, is_named: impl Fn(&str) -> bool) {
        self.lock()
            .retain(|name, held| held.is_wanted || is_named(name));
    }

    /// Gives the driver what the unit is to have.
    ///
    /// # Errors
    /// `secret-missing`, `secrets-unsupported`.
    pub(crate) fn give(
        &self,
        runtime: &dyn Runtime,
        (unit, spec): (UnitId, &WorkloadSpec),
    ) -> Result<(), RuntimeError> {
        if spec.secrets.is_empty() {
            return Ok(());
        }
        let secrets = runtime
            .secrets()
            .ok_or_else(|| RuntimeError::Unsatisfiable {
                code: FailureCode::SecretsUnsupported,
                message: format!("a {} is given no secrets on this node", runtime.kind()),
            })?;
        let given = {
            let held = self.lock();
            gather(spec, |name| Some(held.get(name)?.value.clone()))?
        };
        secrets.give(unit, given);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_while_it_is_wanted_or_named_by_what_is_followed() {
        let vault = Vault::default();
        let has = |name: &str| vault.lock().contains_key(name);
        for name in ["wanted", "named", "gone"] {
            vault.put(name.to_owned(), Clear::new(b"canary".to_vec()));
        }
        vault.begin();
        vault.put("wanted".to_owned(), Clear::new(b"canary".to_vec()));
        vault.tidy(|name| name == "named");
        assert!(has("wanted") && has("named") && !has("gone"));
        vault.forget("wanted");
        vault.tidy(|_| false);
        assert!(!has("wanted") && !has("named"));
    }
}
