//! Prints: how keys and certificates are named.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use rustls::DistinguishedName;
use rustls::pki_types::CertificateDer;

use super::TrustError;

/// The SHA-256 of a public key (its `SubjectPublicKeyInfo`) or of a certificate. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Print([u8; 32]);

impl Print {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut print = [0; 32];
        print.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(print)
    }

    /// Of the public key in a certificate. It stays when the certificate is renewed.
    ///
    /// # Errors
    /// The bytes are no certificate.
    pub fn of_key_in(certificate: &CertificateDer<'_>) -> Result<Self, TrustError> {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        let (_, certificate) = parsed.map_err(|_| TrustError::unreadable("a certificate"))?;
        Ok(Self::of(certificate.public_key().raw))
    }
}

impl Print {
    /// As a hello names an authority of which nothing but its print is known: a name that holds nothing but it.
    pub(super) fn as_hint(&self) -> DistinguishedName {
        // SET { SEQUENCE { the id of a common name, a text of 64 bytes } }
        let mut name = b"\x31\x49\x30\x47\x06\x03\x55\x04\x03\x0c\x40".to_vec();
        name.extend(self.to_string().into_bytes());
        DistinguishedName::in_sequence(&name)
    }
}

impl fmt::Display for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Print({self})")
    }
}

impl FromStr for Print {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let wrong = || TrustError::unreadable("a print of 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut print = [0; 32];
        for (byte, at) in print.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(print))
    }
}
