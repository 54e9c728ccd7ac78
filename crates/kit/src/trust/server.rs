//! What a listener shows, and whom it believes. Both can be replaced while it serves.
//!
//! A client is asked for a certificate only if it speaks nothing but HTTP/2: those are programs of the fleet, while a
//! browser would ask its user. What a certificate is worth is decided by the key in it ([`Secured::key`]).
//!
//! A server that has two certificates tells by the hello which one to show:
//!
//! ```text
//!   the hello names an authority of the fleet, or its print ──► one of the fleet's authority
//!   it names none, or others (browsers, curl, other programs) ──► the one that somebody else made
//! ```
//!
//! Naming authorities is a part of TLS 1.3 (`certificate_authorities`), which our own clients do.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::kept::{Kept, LOOK};
use super::{Authority, Credentials, MemberFiles, Print, TrustError, provider};

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Whose certificates are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Believed {
    /// Whoever shows one must be of the authority; nobody has to show one.
    Offered,
    /// Everybody has to show one of the authority, which is somebody else's.
    Required,
}

/// TLS of a listener. Clones are one.
#[derive(Clone)]
pub struct ServerTls {
    state: Arc<State>,
    /// For those who speak HTTP/2 alone, or for everybody where certificates are required.
    asking: Arc<ServerConfig>,
    plain: Arc<ServerConfig>,
    /// Where all of it is read again.
    kept: Option<Arc<Kept>>,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Secured<S> {
    /// In a box, because it is large and is passed on and on.
    pub stream: Box<TlsStream<S>>,
    /// The key that the other side has proved to hold, in a certificate that is believed.
    pub key: Option<Print>,
}

/// What a server shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// To members of the fleet, and to everybody where there is no other.
    pub to_members: Arc<CertifiedKey>,
    /// To all others.
    pub to_others: Option<Arc<CertifiedKey>>,
}

struct State {
    shown: RwLock<Arc<Shown>>,
    /// How hellos of members name whom they believe.
    hints: RwLock<Arc<Vec<DistinguishedName>>>,
    believed: RwLock<Arc<dyn ClientCertVerifier>>,
    is_required: bool,
}

impl ServerTls {
    /// Shows a certificate of the authority, and believes its members.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn of(
        authority: &Authority,
        shown: impl Into<Shown>,
        believed: Believed,
    ) -> Result<Self, TrustError> {
        Self::new(shown.into(), authority.roots(), believed)
    }

    /// Shows the certificate in the files, and talks to nobody who shows none of their authority. The files are read
    /// again when they change.
    ///
    /// # Errors
    /// A file cannot be read or understood, or they do not belong together.
    pub fn of_files(files: MemberFiles) -> Result<Self, TrustError> {
        Self::of_files_seen(files, LOOK)
    }

    /// The same with files that are looked at that often.
    pub(super) fn of_files_seen(files: MemberFiles, every: Duration) -> Result<Self, TrustError> {
        let (kept, (shown, roots)) = Kept::open(files, every)?;
        let tls = Self::new(shown.into(), &roots, Believed::Required)?;
        let kept = Some(Arc::new(kept));
        Ok(Self { kept, ..tls })
    }

    fn new(
        shown: Shown,
        roots: &[CertificateDer<'static>],
        believed: Believed,
    ) -> Result<Self, TrustError> {
        let is_required = believed == Believed::Required;
        let state = Arc::new(State {
            shown: RwLock::new(Arc::new(shown)),
            hints: RwLock::new(Arc::new(hints(roots)?)),
            believed: RwLock::new(verifier(roots, is_required)?),
            is_required,
        });
        let begun = || {
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()
        };
        let resolver = || Arc::clone(&state) as Arc<dyn ResolvesServerCert>;
        let asks = Arc::clone(&state) as Arc<dyn ClientCertVerifier>;
        let mut asking = begun()?
            .with_client_cert_verifier(asks)
            .with_cert_resolver(resolver());
        let mut plain = begun()?
            .with_no_client_auth()
            .with_cert_resolver(resolver());
        for config in [&mut asking, &mut plain] {
            config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
            // A session taken up again would be believed for what was believed when it began.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let (asking, plain) = (Arc::new(asking), Arc::new(plain));
        Ok(Self {
            state,
            asking,
            plain,
            kept: None,
        })
    }

    /// From the next connection on, shows this and believes those. Connections that stand are not touched.
    ///
    /// # Errors
    /// The certificates cannot be used; then all stays as it was.
    pub fn replace(
        &self,
        shown: impl Into<Shown>,
        roots: &[CertificateDer<'static>],
    ) -> Result<(), TrustError> {
        let believed = verifier(roots, self.state.is_required)?;
        let hints = hints(roots)?;
        *write(&self.state.believed) = believed;
        *write(&self.state.hints) = Arc::new(hints);
        *write(&self.state.shown) = Arc::new(shown.into());
        Ok(())
    }

    /// Shakes hands. The caller bounds the time.
    ///
    /// # Errors
    /// The other side speaks no TLS, believes us not, or shows what we do not believe.
    pub async fn accept<S>(&self, stream: S) -> io::Result<Secured<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(kept) = &self.kept {
            kept.look(|(shown, roots)| self.replace(shown, &roots));
        }
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let is_program = speaks_two_alone(&begun.client_hello());
        let config = if self.state.is_required || is_program {
            &self.asking
        } else {
            &self.plain
        };
        let stream = begun.into_stream(Arc::clone(config)).await?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates().and_then(<[_]>::first);
        let key = shown
            .map(Print::of_key_in)
            .transpose()
            .map_err(io::Error::other)?;
        let stream = Box::new(stream);
        Ok(Secured { stream, key })
    }
}

impl<S> Secured<S> {
    /// Whether both sides have agreed on HTTP/2; none if the other side named no protocol.
    #[must_use]
    pub fn is_two(&self) -> Option<bool> {
        let (_, session) = self.stream.get_ref();
        session.alpn_protocol().map(|protocol| protocol == HTTP_2)
    }
}

impl Authority {
    /// What the server shows: the key with a fresh certificate, and all that is believed above it, so that whoever has
    /// only the print of a certificate finds it there.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn certify_server(
        &self,
        key: &Credentials,
        names: &[String],
        now: std::time::Duration,
    ) -> Result<Arc<CertifiedKey>, TrustError> {
        let mut chain = self.sign_server(key.public(), names, now)?.chain;
        chain.extend(self.roots().iter().cloned());
        key.certified(chain)
    }
}

fn speaks_two_alone(hello: &ClientHello<'_>) -> bool {
    hello
        .alpn()
        .is_some_and(|mut protocols| protocols.next() == Some(HTTP_2) && protocols.next().is_none())
}

impl From<Arc<CertifiedKey>> for Shown {
    fn from(to_members: Arc<CertifiedKey>) -> Self {
        Self {
            to_members,
            to_others: None,
        }
    }
}

fn hints(roots: &[CertificateDer<'static>]) -> Result<Vec<DistinguishedName>, TrustError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    let mut hints = store.subjects();
    hints.extend(roots.iter().map(|root| Print::of(root).as_hint()));
    Ok(hints)
}

fn verifier(
    roots: &[CertificateDer<'static>],
    is_required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, TrustError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider());
    let builder = if is_required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder
        .build()
        .map_err(|error| TrustError::Setup(error.to_string()))
}

impl State {
    fn believed(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.believed.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

impl ResolvesServerCert for State {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner));
        let hints = Arc::clone(&self.hints.read().unwrap_or_else(PoisonError::into_inner));
        let mut named = hello.certificate_authorities().into_iter().flatten();
        let is_ours = |name: &DistinguishedName| {
            let name: &[u8] = name.as_ref();
            hints.iter().any(|hint| hint.as_ref() == name)
        };
        let is_member = named.any(is_ours);
        let others = shown.to_others.as_ref().filter(|_| !is_member);
        Some(Arc::clone(others.unwrap_or(&shown.to_members)))
    }
}

impl ClientCertVerifier for State {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Members have one certificate and need no hint.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    /// A certificate that begins in the future was made while our clock was ahead: it is ours all the same. Of another's
    /// authority nothing is known that would excuse it.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let believed = self.believed();
        let verify = |now| believed.verify_client_cert(end_entity, intermediates, now);
        match verify(now) {
            Err(error) if !self.is_required => verify(begun_by(error)?),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.believed().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.believed().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.believed().supported_verify_schemes()
    }
}

/// When a certificate begins that was refused for not having begun; any other error stays one.
pub(super) fn begun_by(error: Error) -> Result<UnixTime, Error> {
    match error {
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            Ok(not_before)
        }
        other => Err(other),
    }
}

fn write<T: ?Sized>(lock: &RwLock<Arc<T>>) -> std::sync::RwLockWriteGuard<'_, Arc<T>> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
