//! Secrets: given, taken away and resealed. Their values are sealed before they come here, and stay so.

use std::sync::Arc;

use hostler_model::spec::WorkloadSpec;
use hostler_model::{Code, EventKind, Refusal, Sealed, Secret, Subject};

use super::{Draft, check_expected};
use crate::{Change, Expect, Reply, Resealed};

/// How many workloads a refusal names.
const NAMED: usize = 5;

impl Draft<'_> {
    pub(super) fn put_secret(
        &mut self,
        name: &str,
        version: u64,
        sealed: &Sealed,
        expect: Expect,
    ) -> Result<Reply, Refusal> {
        if !Secret::is_name(name) {
            let sentence = format!("`{}` is no name of a secret", name.escape_debug());
            let advice = "use 1 to 128 letters, digits, `-`, `_` and `.`, a letter or digit first";
            return Err(Refusal::new(Code::NameInvalid, sentence, advice));
        }
        let present = self.state.secret(name).map(|secret| secret.version);
        let noun = format!("secret {name}");
        check_expected(expect, present, &noun)?;
        if version != present.unwrap_or(0) + 1 {
            let sentence = format!("{noun} was set by somebody else at the same time");
            let advice = "look at `hostler secret ls`, and set it again if it has to be yours";
            return Err(Refusal::new(Code::RevisionConflict, sentence, advice));
        }
        self.changes.push(Change::PutSecret(Arc::new(Secret {
            name: name.to_owned(),
            version,
            created_at: self.now,
            sealed: sealed.clone(),
        })));
        let message = format!("{noun} was set to version {version}");
        self.event(EventKind::SecretSet, Subject::default(), message);
        Ok(Reply::Secret { version })
    }

    pub(super) fn remove_secret(&mut self, name: &str, expect: Expect) -> Result<Reply, Refusal> {
        let secret = self.state.secret(name).ok_or_else(|| missing(&[name]))?;
        check_expected(expect, Some(secret.version), &format!("secret {name}"))?;
        let users = self.state.users_of_secret(name);
        let users: Vec<&str> = users.map(|workload| workload.name.as_str()).collect();
        if !users.is_empty() {
            let named = users.iter().take(NAMED).copied();
            let named = named.collect::<Vec<_>>().join(", ");
            let more = match users.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let sentence = format!("secret {name} is in use by {named}{more}");
            let advice = "apply those workloads without it, or remove them, then remove the secret";
            return Err(Refusal::new(Code::SecretInUse, sentence, advice));
        }
        let version = secret.version;
        self.changes.push(Change::RemoveSecret(name.to_owned()));
        let message = format!("secret {name} was removed");
        self.event(EventKind::SecretRemoved, Subject::default(), message);
        Ok(Reply::Secret { version })
    }

    /// One event when the last is done, not one a chunk.
    pub(super) fn reseal(&mut self, to: &str, secrets: &[Resealed]) -> Reply {
        let mut count = 0;
        for resealed in secrets.iter().filter(|it| it.sealed.key == to) {
            let Some(old) = self.state.secret(&resealed.name) else {
                continue;
            };
            if old.version != resealed.version || old.sealed.key != resealed.from {
                continue;
            }
            count += 1;
            self.changes.push(Change::PutSecret(Arc::new(Secret {
                sealed: resealed.sealed.clone(),
                ..Secret::clone(old)
            })));
        }
        let others = self.state.secrets().filter(|it| it.sealed.key != to);
        let more = others.count() > count;
        if count > 0 && !more {
            let message = "every secret is sealed with the new key".to_owned();
            self.event(EventKind::SecretsResealed, Subject::default(), message);
        }
        Reply::Touched { count, more }
    }

    /// What a spec names has to be there: a copy would wait for it for ever.
    pub(super) fn check_secrets(&self, spec: &WorkloadSpec) -> Result<(), Refusal> {
        let named = spec.secrets.iter().map(|secret| secret.name.as_str());
        let mut unknown: Vec<&str> = named
            .filter(|name| self.state.secret(name).is_none())
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(missing(&unknown))
    }
}

fn missing(names: &[&str]) -> Refusal {
    let sentence = format!("there is no secret `{}`", names.join("`, `"));
    let advice = "list the secrets with `hostler secret ls`, or give it a value with `hostler secret set NAME`";
    Refusal::new(Code::SecretNotFound, sentence, advice)
}
