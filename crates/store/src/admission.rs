//! What every engine checks before the first write of a commit: sizes, duplicates and guards.
//!
//! Pure; the engine lends its own way to look a key up. A refusal found here leaves nothing to undo.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::leases::Leases;
use crate::{CommitError, Guard, KEY_BYTES, Limits, Revision, Write};

/// Refuses writes that are too many, too large, or not one per key.
pub(crate) fn check_writes(limits: Limits, writes: &[Write]) -> Result<(), CommitError> {
    let long_key = writes.iter().any(|write| write.key().len() > KEY_BYTES);
    let bytes: usize = writes.iter().map(Write::size).sum();
    if long_key || writes.len() > limits.writes || bytes > limits.bytes {
        return Err(CommitError::TooLarge);
    }
    let mut seen = BTreeSet::new();
    for write in writes {
        if !seen.insert(write.key()) {
            return Err(CommitError::DuplicateKey {
                key: write.key().to_owned(),
            });
        }
    }
    Ok(())
}

/// The first guard that does not hold, leader guards before all others: a lost leader must step down,
/// whatever else is wrong.
pub(crate) fn check_guards<E>(
    guards: &[Guard],
    leases: &Leases,
    now: Duration,
    mut written_at: impl FnMut(&str) -> Result<Option<Revision>, E>,
) -> Result<Result<(), CommitError>, E> {
    for guard in guards {
        if let Guard::Leader { token } = guard
            && !leases.holds(token, now)
        {
            return Ok(Err(CommitError::LeaderLost));
        }
    }
    for (index, guard) in guards.iter().enumerate() {
        let holds = match guard {
            Guard::Unchanged { key, revision } => written_at(key)? == Some(*revision),
            Guard::Absent { key } => written_at(key)?.is_none(),
            Guard::Leader { .. } => true,
        };
        if !holds {
            return Ok(Err(CommitError::GuardFailed { index }));
        }
    }
    Ok(Ok(()))
}

impl Write {
    /// The key that is written.
    #[must_use]
    pub const fn key(&self) -> &crate::Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// The bytes that count against [`Limits::bytes`].
    #[must_use]
    pub const fn size(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }
}
