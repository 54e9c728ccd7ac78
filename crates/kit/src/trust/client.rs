//! Whom a caller believes, and what it shows. Both can be replaced while connections stand.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::credentials::{certificates, from_files};
use super::kept::{Kept, LOOK};
use super::server::begun_by;
use super::{MemberFiles, Print, SERVER_NAME, TrustError, provider, read};

/// Whom a caller believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchors {
    /// Servers of these authorities, under [`SERVER_NAME`] or the name that was called.
    Roots(Vec<CertificateDer<'static>>),
    /// Servers of these authorities, under the name that was called and no other.
    Called(Vec<CertificateDer<'static>>),
    /// A server that shows the certificate of this print above its own. For a first contact.
    Pinned(Print),
    /// What this machine believes.
    Machine,
}

/// TLS of a caller. Clones are one.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<RwLock<Arc<ClientConfig>>>,
    /// Where all of it is read again.
    kept: Option<Arc<Kept>>,
}

/// More authorities than these are a machine's whole list, which no hello needs to carry.
const MOST_HINTS: usize = 16;

impl Anchors {
    /// Certificates of authorities from a file.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn from_file(path: &Path) -> Result<Self, TrustError> {
        let roots = certificates(&read(path)?);
        roots
            .map(Self::Roots)
            .map_err(|error| TrustError::content(path, error))
    }

    /// Certificates of authorities from text.
    ///
    /// # Errors
    /// It cannot be understood.
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        certificates(text.as_bytes()).map(Self::Roots)
    }
}

impl ClientTls {
    /// Believes those, and shows that to whoever asks.
    ///
    /// # Errors
    /// The anchors cannot be used.
    pub fn new(anchors: &Anchors, shown: Option<Arc<CertifiedKey>>) -> Result<Self, TrustError> {
        let config = config(anchors, shown)?;
        Ok(Self {
            config: Arc::new(RwLock::new(config)),
            kept: None,
        })
    }

    /// Shows the certificate in the files, and believes whoever shows one of their authority for the name that was
    /// called. The files are read again when they change.
    ///
    /// # Errors
    /// A file cannot be read or understood, or they do not belong together.
    pub fn of_files(files: MemberFiles) -> Result<Self, TrustError> {
        Self::of_files_seen(files, LOOK)
    }

    /// The same with files that are looked at that often.
    pub(super) fn of_files_seen(files: MemberFiles, every: Duration) -> Result<Self, TrustError> {
        let (kept, (shown, roots)) = Kept::open(files, every)?;
        let tls = Self::new(&Anchors::Called(roots), Some(shown))?;
        let kept = Some(Arc::new(kept));
        Ok(Self { kept, ..tls })
    }

    /// The same with a static certificate from files.
    ///
    /// # Errors
    /// The anchors or the files cannot be used.
    pub fn from_files(
        anchors: &Anchors,
        (certificate, key): (&Path, &Path),
    ) -> Result<Self, TrustError> {
        Self::new(anchors, Some(from_files(certificate, key)?))
    }

    /// From the next connection on, believes those and shows that.
    ///
    /// # Errors
    /// The anchors cannot be used; then all stays as it was.
    pub fn replace(
        &self,
        anchors: &Anchors,
        shown: Option<Arc<CertifiedKey>>,
    ) -> Result<(), TrustError> {
        let config = config(anchors, shown)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// For clients that make their connections themselves, as it is now.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        ClientConfig::clone(&self.now())
    }

    fn now(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shakes hands with a server that was called by that name or address. The caller bounds the time.
    ///
    /// # Errors
    /// The name cannot be one, the other side speaks no TLS, or is not believed, or believes us not.
    pub async fn connect<S>(
        &self,
        host: &str,
        stream: S,
        alpn: &[&[u8]],
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(kept) = &self.kept {
            kept.look(|(shown, roots)| self.replace(&Anchors::Called(roots), Some(shown)));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsConnector::from(self.now())
            .with_alpn(protocols)
            .connect(name, stream)
            .await
            .map_err(in_words)
    }
}

/// The one that people meet, when a token is of another fleet or a server was set up anew.
fn in_words(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|it| it.downcast_ref());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => io::Error::new(
            error.kind(),
            "the server's certificate is not believed: neither a token nor `--ca` names its authority",
        ),
        _ => error,
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTls")
    }
}

/// Clones are one.
impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for ClientTls {}

fn config(
    anchors: &Anchors,
    shown: Option<Arc<CertifiedKey>>,
) -> Result<Arc<ClientConfig>, TrustError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier(anchors)?)
        .with_client_cert_resolver(Arc::new(Shown(shown)));
    // Servers of ours take no session up again.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn verifier(anchors: &Anchors) -> Result<Arc<dyn ServerCertVerifier>, TrustError> {
    Ok(match anchors {
        Anchors::Roots(roots) => Arc::new(OfFleet::of(roots)?),
        Anchors::Called(roots) => OfFleet::of(roots)?.inner,
        Anchors::Pinned(print) => Arc::new(Pinned {
            print: *print,
            hints: vec![print.as_hint()],
        }),
        Anchors::Machine => match rustls_platform_verifier::Verifier::new(provider()) {
            Ok(machine) => Arc::new(machine),
            // A small system has no list of authorities. That is no reason to do nothing at all.
            Err(error) => Arc::new(Nobody {
                why: error.to_string(),
                hints: Vec::new(),
            }),
        },
    })
}

/// Believes servers of an authority that is the fleet's alone, wherever they listen.
#[derive(Debug)]
struct OfFleet {
    inner: Arc<WebPkiServerVerifier>,
    /// Tells the server whom we believe: one that has several certificates shows the right one.
    hints: Vec<DistinguishedName>,
}

impl OfFleet {
    fn of(roots: &[CertificateDer<'_>]) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone().into_owned())?;
        }
        let mut hints = store.subjects();
        if hints.len() > MOST_HINTS {
            hints.clear();
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { inner, hints })
    }

    fn verify(
        &self,
        (end_entity, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        called: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |name: &ServerName<'_>, now| {
            self.inner
                .verify_server_cert(end_entity, intermediates, name, &[], now)
        };
        let ours =
            ServerName::try_from(SERVER_NAME).map_err(|error| Error::General(error.to_string()))?;
        let under = |now| match verify(&ours, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => verify(called, now),
            verified => verified,
        };
        // One that begins in the future was made while the server's clock was ahead, or ours is behind.
        under(now).or_else(|error| under(begun_by(error)?))
    }
}

/// Believes whoever shows the pinned certificate, and is signed by it.
#[derive(Debug)]
struct Pinned {
    print: Print,
    hints: Vec<DistinguishedName>,
}

impl Pinned {
    fn verify(
        &self,
        (end_entity, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        called: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = intermediates.iter().chain([end_entity]);
        let pinned = all.into_iter().find(|shown| Print::of(shown) == self.print);
        let pinned = pinned.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let fleet = OfFleet::of(std::slice::from_ref(pinned))?;
        fleet.verify((end_entity, intermediates), called, now)
    }
}

/// Believes no server, for the machine believes none.
#[derive(Debug)]
struct Nobody {
    why: String,
    hints: Vec<DistinguishedName>,
}

/// Signatures do not depend on whom one believes; hints are each verifier's own.
macro_rules! signatures {
    () => {
        fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
            (!self.hints.is_empty()).then_some(&self.hints)
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = provider().signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            let algorithms = provider().signature_verification_algorithms;
            algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for OfFleet {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify((end_entity, intermediates), server_name, now)
    }

    signatures!();
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify((end_entity, intermediates), server_name, now)
    }

    signatures!();
}

impl ServerCertVerifier for Nobody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Err(Error::General(format!(
            "this machine knows no authority ({}): install its `ca-certificates`, or name the fleet's with a join \
             token or HOSTLER_CA",
            self.why
        )))
    }

    signatures!();
}

/// What a caller shows to whoever asks.
#[derive(Debug)]
struct Shown(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
