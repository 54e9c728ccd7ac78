//! Secrets: values that only the copies that name them may see. What lies here is sealed; who seals and opens is no
//! business of the domain.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Longest name of a secret.
const LONGEST_NAME: usize = 128;

/// One secret, as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub name: String,
    /// Counts up with each new value.
    pub version: u64,
    /// When this version was given.
    pub created_at: Timestamp,
    pub sealed: Sealed,
}

/// A value that nobody can read without its key. The text is not interpreted here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Which key opens it.
    pub key: String,
    /// Nonce and ciphertext, in base64.
    pub text: String,
}

impl Secret {
    /// Letters, digits, `-`, `_` and `.`, a letter or digit first: what compose, Nomad and Kubernetes call theirs.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=LONGEST_NAME).contains(&text.len())
            && text.bytes().all(is_inner)
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
    }

    /// What a sealed value belongs to: it opens as nothing else, so that nobody can swap records in the store.
    #[must_use]
    pub fn context(name: &str, version: u64) -> String {
        format!("hostler secret {name} version {version}")
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_other_systems_take_and_no_path() {
        for name in ["db", "db_password", "tls.key", "DB-1", "0"] {
            assert!(Secret::is_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "-x",
            "_x",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"x".repeat(129),
        ] {
            assert!(!Secret::is_name(name), "{name}");
        }
    }

    #[test]
    fn contexts_of_two_secrets_never_meet() {
        assert_ne!(Secret::context("a", 11), Secret::context("a1", 1));
        assert_ne!(Secret::context("a", 1), Secret::context("a", 2));
    }
}
