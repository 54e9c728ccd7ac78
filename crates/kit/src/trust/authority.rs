//! The fleet's authority: the key that makes its certificates believed.
//!
//! One file, 0600, replaced as a whole: the private key, the certificate that is signed with it, the former ones
//! that are still believed, and for each rotation the new certificate as the old key signs it, so that whoever
//! knows only the old one believes what the new one signs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use super::credentials::pem_of;
use super::{Print, SERVER_NAME, TrustError, moment, read};
use crate::files::{Readers, replace};

/// How long a node's certificate is good.
pub const NODE_LIFE: Duration = days(30);
/// A server makes itself a new one long before.
const SERVER_LIFE: Duration = days(90);
const AUTHORITY_LIFE: Duration = days(3650);
/// Certificates are good from a while before they are made: clocks differ.
const BACKDATED: Duration = Duration::from_secs(24 * 60 * 60);

/// The fleet's authority. Whoever holds it can make members of the fleet.
pub struct Authority {
    path: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// The certificates that are believed; the first is of the key that signs.
    roots: Vec<CertificateDer<'static>>,
    /// The first root as the second signs it, the second as the third does, and so on.
    crossed: Vec<CertificateDer<'static>>,
}

/// A certificate with those above it, the member's own first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    /// Since the Unix epoch.
    pub not_before: Duration,
    pub not_after: Duration,
}

impl Authority {
    /// Reads the authority from its file, or makes one there if there is none.
    ///
    /// # Errors
    /// The file cannot be read, understood or written.
    pub fn open(path: &Path, now: Duration) -> Result<Self, TrustError> {
        match std::fs::exists(path) {
            Ok(false) => Self::found(path, now),
            Ok(true) => Self::load(path),
            Err(source) => Err(TrustError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn found(path: &Path, now: Duration) -> Result<Self, TrustError> {
        let (issuer, root) = fresh(now)?;
        let authority = Self {
            path: path.to_owned(),
            issuer,
            roots: vec![root],
            crossed: Vec::new(),
        };
        authority.save()?;
        Ok(authority)
    }

    /// Reads an authority that a person made or that was made here: a PEM file with a private key and certificates,
    /// that of the key first.
    ///
    /// # Errors
    /// The file cannot be read or understood, or its first certificate is not that of the key or not an authority's.
    pub fn load(path: &Path) -> Result<Self, TrustError> {
        Self::of(path, &read(path)?)
    }

    fn of(path: &Path, text: &[u8]) -> Result<Self, TrustError> {
        let wrong = |problem: &str| TrustError::content(path, problem);
        let key = std::str::from_utf8(text)
            .ok()
            .and_then(|text| KeyPair::from_pem(text).ok())
            .ok_or_else(|| wrong("it holds no private key in PKCS #8"))?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let all = all.map_err(|error| wrong(&error.to_string()))?;
        let first = all
            .first()
            .ok_or_else(|| wrong("it holds no certificate"))?;
        if Print::of_key_in(first)? != Print::of(&key.subject_public_key_info()) {
            return Err(wrong("its first certificate is not that of its key"));
        }
        if !is_authority(first)? {
            return Err(wrong("its first certificate is not one of an authority"));
        }
        let issuer = Issuer::from_ca_cert_der(first, key)?;
        let (mut roots, mut crossed) = (Vec::new(), Vec::new());
        for certificate in all {
            // What a person brings may itself be signed by somebody else's authority.
            if roots.is_empty() || is_self_signed(&certificate)? {
                roots.push(certificate);
            } else {
                crossed.push(certificate);
            }
        }
        Ok(Self {
            path: path.to_owned(),
            issuer,
            roots,
            crossed,
        })
    }

    /// The certificates that members believe.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The certificates that members believe, as text.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        pem_of(&self.roots)
    }

    /// What a join token pins: the certificate that signs now.
    #[must_use]
    pub fn print(&self) -> Print {
        self.roots
            .first()
            .map_or_else(|| Print::of(&[]), |root| Print::of(root))
    }

    /// Signs what the server shows. It is good under [`SERVER_NAME`] and these names and addresses; what cannot
    /// stand in a certificate is left out.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn sign_server(
        &self,
        key: &impl PublicKeyData,
        names: &[String],
        now: Duration,
    ) -> Result<Issued, TrustError> {
        let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
        for name in names {
            if let Ok(named) = CertificateParams::new(vec![name.clone()]) {
                params.subject_alt_names.extend(named.subject_alt_names);
            }
        }
        params.distinguished_name = called(SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, key, (now, SERVER_LIFE))
    }

    /// Signs the key of whoever proves by the request to hold it. Of the request nothing but the key is taken.
    ///
    /// # Errors
    /// The request cannot be read, or is not signed with its key.
    pub fn sign_node(
        &self,
        request: &[u8],
        name: &str,
        now: Duration,
    ) -> Result<Issued, TrustError> {
        let key = requested(request)?.public_key;
        let mut params = CertificateParams::new(vec![format!("{name}.node.hostler.internal")])?;
        params.distinguished_name = called(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &key, (now, NODE_LIFE))
    }

    /// Whose key a request is about, if it is signed with it.
    ///
    /// # Errors
    /// As for [`Authority::sign_node`].
    pub fn print_of_request(request: &[u8]) -> Result<Print, TrustError> {
        let key = requested(request)?.public_key;
        Ok(Print::of(&key.subject_public_key_info()))
    }

    /// Makes a new key. The former certificates stay believed, and the former key vouches for the new one. The file is
    /// as it was until [`Authority::save`].
    ///
    /// # Errors
    /// The new one cannot be made.
    pub fn rotated(&self, now: Duration) -> Result<Self, TrustError> {
        let (issuer, root) = fresh(now)?;
        let mut params = of_authority(now);
        params.distinguished_name = name_in(&root)?;
        let crossed = params.signed_by(issuer.key(), &self.issuer)?.der().clone();
        let mut next = Self {
            path: self.path.clone(),
            issuer,
            roots: vec![root],
            crossed: vec![crossed],
        };
        next.roots.extend(self.roots.iter().cloned());
        next.crossed.extend(self.crossed.iter().cloned());
        Ok(next)
    }

    /// No longer believes the former certificates: who has not renewed since the rotation must join anew. The file is
    /// as it was until [`Authority::save`].
    ///
    /// # Errors
    /// What is left cannot be understood, which is a bug.
    pub fn retired(&self) -> Result<Self, TrustError> {
        let key = self.issuer.key().serialize_pem();
        let root: Vec<_> = self.roots.iter().take(1).cloned().collect();
        Self::of(&self.path, (key + &pem_of(&root)).as_bytes())
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// It cannot be written; then it is as it was.
    pub fn save(&self) -> Result<(), TrustError> {
        let mut text = self.issuer.key().serialize_pem();
        text.push_str(&pem_of(&self.roots));
        text.push_str(&pem_of(&self.crossed));
        let written = replace(&self.path, text.as_bytes(), Readers::Owner);
        written.map_err(|source| TrustError::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        (now, life): (Duration, Duration),
    ) -> Result<Issued, TrustError> {
        let (not_before, not_after) = (now.saturating_sub(BACKDATED), now + life);
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = moment(epoch, not_before);
        params.not_after = moment(epoch, not_after);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?;
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.crossed.iter().cloned());
        Ok(Issued {
            chain,
            not_before: Duration::from_secs(not_before.as_secs()),
            not_after: Duration::from_secs(not_after.as_secs()),
        })
    }
}

impl Issued {
    /// The chain as text.
    #[must_use]
    pub fn pem(&self) -> String {
        pem_of(&self.chain)
    }
}

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 60 * 60)
}

fn fresh(now: Duration) -> Result<(Issuer<'static, KeyPair>, CertificateDer<'static>), TrustError> {
    let key = KeyPair::generate()?;
    let params = of_authority(now);
    let root = params.self_signed(&key)?.der().clone();
    Ok((Issuer::new(params, key), root))
}

/// Two authorities of one fleet have different names, by the moment at which they were made.
fn of_authority(now: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = called(&format!("Hostler authority {}", now.as_millis()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = moment(epoch, now.saturating_sub(BACKDATED));
    params.not_after = moment(epoch, now + AUTHORITY_LIFE);
    params
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::OrganizationName, "Hostler");
    called.push(DnType::CommonName, name);
    called
}

fn name_in(certificate: &CertificateDer<'_>) -> Result<DistinguishedName, TrustError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| TrustError::unreadable("a certificate"))?;
    let name = parsed.subject().iter_common_name().next();
    let name = name.and_then(|name| name.as_str().ok()).unwrap_or_default();
    Ok(called(name))
}

fn is_self_signed(certificate: &CertificateDer<'_>) -> Result<bool, TrustError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| TrustError::unreadable("a certificate"))?;
    Ok(parsed.subject() == parsed.issuer())
}

fn is_authority(certificate: &CertificateDer<'_>) -> Result<bool, TrustError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| TrustError::unreadable("a certificate"))?;
    Ok(parsed.is_ca())
}

fn requested(request: &[u8]) -> Result<CertificateSigningRequestParams, TrustError> {
    let request = CertificateSigningRequestDer::from(request);
    CertificateSigningRequestParams::from_der(&request)
        .map_err(|_| TrustError::unreadable("a signed request for a certificate"))
}
