//! What a member of the fleet shows: its key, made where it is used and never sent, and the certificate for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{Print, TrustError, provider, read};
use crate::files::{Readers, replace};

/// A private key. Shown as its print.
pub struct Credentials {
    key: KeyPair,
}

/// A request for a certificate, signed with the key that it is about (PKCS #10, DER).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request(pub Vec<u8>);

/// From when until when a certificate is good, since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Duration,
    pub not_after: Duration,
}

impl Credentials {
    /// Reads the key from its file, or makes one there (0600) if there is none.
    ///
    /// # Errors
    /// The file cannot be read, understood or written.
    pub fn open(path: &Path) -> Result<Self, TrustError> {
        match std::fs::exists(path) {
            Ok(true) => Self::load(path),
            Ok(false) => {
                let key = KeyPair::generate()?;
                replace(path, key.serialize_pem().as_bytes(), Readers::Owner).map_err(
                    |source| TrustError::Write {
                        path: path.to_owned(),
                        source,
                    },
                )?;
                Ok(Self { key })
            }
            Err(source) => Err(TrustError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn load(path: &Path) -> Result<Self, TrustError> {
        let text = read(path)?;
        let key = std::str::from_utf8(&text).ok();
        let key = key.and_then(|text| KeyPair::from_pem(text).ok());
        let key =
            key.ok_or_else(|| TrustError::content(path, "it holds no private key in PKCS #8"))?;
        Ok(Self { key })
    }

    /// The name of the key.
    #[must_use]
    pub fn print(&self) -> Print {
        Print::of(&self.key.subject_public_key_info())
    }

    /// Asks for a certificate, and proves to hold the key.
    ///
    /// # Errors
    /// The request cannot be made.
    pub fn request(&self) -> Result<Request, TrustError> {
        let request = CertificateParams::default().serialize_request(&self.key)?;
        Ok(Request(request.der().to_vec()))
    }

    /// The public half, to be signed.
    pub(super) const fn public(&self) -> &KeyPair {
        &self.key
    }

    /// The key with a chain of certificates for it.
    ///
    /// # Errors
    /// The chain's first certificate is not that of the key.
    pub fn certified(
        &self,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Arc<CertifiedKey>, TrustError> {
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        certified(chain, key)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.print())
    }
}

impl Validity {
    /// Of a certificate.
    ///
    /// # Errors
    /// The bytes are no certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, TrustError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| TrustError::unreadable("a certificate"))?;
        let seconds = |moment: i64| Duration::from_secs(u64::try_from(moment).unwrap_or(0));
        Ok(Self {
            not_before: seconds(parsed.validity().not_before.timestamp()),
            not_after: seconds(parsed.validity().not_after.timestamp()),
        })
    }

    /// The moment at that share of its life, in thousandths.
    #[must_use]
    pub fn at_share(&self, thousandths: u32) -> Duration {
        self.not_before + (self.not_after.saturating_sub(self.not_before)) / 1_000 * thousandths
    }
}

/// A key with its chain, from two files or one: static certificates that somebody else made.
///
/// # Errors
/// A file cannot be read or understood, or the first certificate is not that of the key.
pub(super) fn from_files(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TrustError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
    let chain = chain.map_err(|error| TrustError::content(certificate, error))?;
    if chain.is_empty() {
        return Err(TrustError::content(certificate, "it holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| TrustError::content(key, "it holds no private key"))?;
    certified(chain, private).map_err(|error| TrustError::content(certificate, error))
}

/// A static certificate with its key, and the certificate at the top of its chain, as text.
///
/// # Errors
/// A file cannot be read or understood, or they do not fit together.
pub fn static_chain(
    certificate: &Path,
    key: &Path,
) -> Result<(Arc<CertifiedKey>, String), TrustError> {
    let shown = from_files(certificate, key)?;
    let top = shown.cert.last();
    let top = top.ok_or_else(|| TrustError::content(certificate, "it holds no certificate"))?;
    let above = pem_of(std::slice::from_ref(top));
    Ok((shown, above))
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, TrustError> {
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))
}

/// Certificates from text.
///
/// # Errors
/// It holds none, or one that is broken.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(TrustError::unreadable("a certificate in PEM")),
    }
}

/// Certificates as text.
pub(super) fn pem_of(certificates: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let base64 = STANDARD.encode(certificate);
        for line in base64.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
