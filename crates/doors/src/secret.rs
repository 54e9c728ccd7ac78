//! Secrets of the contracts: keyed hashes, and comparisons whose time tells nothing about what is compared.
//! Owns nothing; nothing can fail, for a key may have any length.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The keyed hash (HMAC-SHA256) of a text.
pub(crate) fn hash(key: &[u8], text: &[u8]) -> Vec<u8> {
    begun(key, text).map_or_else(Vec::new, |mac| mac.finalize().into_bytes().to_vec())
}

/// Whether that is the keyed hash of the text.
pub(crate) fn is_hash(key: &[u8], text: &[u8], given: &[u8]) -> bool {
    begun(key, text).is_some_and(|mac| mac.verify_slice(given).is_ok())
}

/// Whether somebody knows the secret. Hashes are compared, so that not even its length shows.
pub(crate) fn is_same(secret: &[u8], given: &[u8]) -> bool {
    is_hash(secret, secret, &hash(secret, given))
}

fn begun(key: &[u8], text: &[u8]) -> Option<Hmac<Sha256>> {
    let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    Some(mac.chain_update(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case 2 of RFC 4231.
    #[test]
    fn the_hash_is_that_of_the_standard() {
        let hashed = hash(b"Jefe", b"what do ya want for nothing?");
        let hex: String = hashed.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex, expected);
        assert!(is_hash(b"Jefe", b"what do ya want for nothing?", &hashed));
        assert!(!is_hash(b"Jefe", b"what do ya want for nothing", &hashed));
        assert!(!is_hash(
            b"Jefe",
            b"what do ya want for nothing?",
            &hashed[1..]
        ));
    }

    #[test]
    fn only_the_same_secret_is_the_same() {
        assert!(is_same(b"key", b"key") && is_same(b"", b""));
        for other in ["", "ke", "keys", "Key"] {
            assert!(!is_same(b"key", other.as_bytes()), "{other}");
        }
    }
}
