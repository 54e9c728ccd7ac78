//! The listener: an accept loop of our own, so that windows, time-outs and limits are set in one place.
//!
//! Each connection speaks HTTP/1.1 or HTTP/2 (prior knowledge), told apart by its first bytes. The loop
//! owns its connections: they are tasks of the family it is given, are asked to finish when the family
//! stops, and are dropped when the grace is over. A connection over the cap waits in the kernel's queue, and one address
//! may not have all of them; see `crowd`.
//!
//! A server that ends well closes its doorway first ([`serve_through`]): nothing new is taken, what was asked is
//! answered, and only then the family stops.
//!
//! What can fail: the port is taken or not allowed, which is a [`BindError`] with one clear sentence. A
//! connection that fails ends alone; an accept that fails (too many open files) is tried again.

mod crowd;
mod patient;
mod sniff;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use hostler_kit::trust::{Print, Secured, ServerTls};
use hostler_kit::{Hold, Tasks};
use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use self::crowd::Guest;
pub(crate) use self::crowd::network;
pub use self::crowd::{Caps, Crowd, CrowdCounts};
use self::patient::Patient;
use self::sniff::{Protocol, Rewound, sniff};

/// How long a client may take to send the head of a request, or nothing at all between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of a request's head; also the read buffer of an HTTP/1.1 connection.
const HEAD_BYTES: u32 = 32 << 10;
/// A peer that does not answer an HTTP/2 ping in time is gone.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What one HTTP/2 stream, and one connection, may send ahead of our reading.
const STREAM_WINDOW: u32 = 128 << 10;
/// A node's transfers share a connection, and none is to hold up the others when its reader is slow.
const CONNECTION_WINDOW: u32 = 80 * STREAM_WINDOW;
/// What one HTTP/2 stream may hold that the peer has not read.
const SEND_BUFFER: usize = 64 << 10;
const STREAMS_PER_CONNECTION: u32 = 128;
/// Streams that the peer opened and took back before they were looked at, and errors of the peer that we answered by
/// ending a stream; after as many it is told to calm down, and the connection ends.
const TAKEN_BACK: usize = 20;
const ENDED_FOR_ERRORS: usize = 256;
/// How long open requests may take to finish once the family stops.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// To whoever speaks plain HTTP where there is TLS.
const PLAIN: &str = "this port speaks TLS: write https:// instead of http://\n";
/// What such a client may have under way, beyond what it began with.
const UNDER_WAY: u64 = 64 << 10;
/// How long a connection that was just taken may say nothing once the doorway is closed.
const LAST_CALL: Duration = Duration::from_millis(200);
/// How long the loop rests after an accept that failed.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Where to listen and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Port 0 takes a free one.
    pub addr: SocketAddr,
    /// Most connections at a time.
    pub caps: Caps,
}

/// A listener that has its port.
pub struct Bound {
    inner: TcpListener,
    addr: SocketAddr,
    tls: Option<ServerTls>,
    takes_plain: bool,
    crowd: Crowd,
}

/// Why a listener could not have its port.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "port {} of {} is taken by another program: stop it or choose another with --listen",
        addr.port(),
        addr.ip()
    )]
    PortTaken { addr: SocketAddr },
    #[error(
        "port {} needs rights that this user lacks: choose one above 1023 with --listen",
        addr.port()
    )]
    NotAllowed { addr: SocketAddr },
    #[error("{} is no address of this machine: choose another with --listen", addr.ip())]
    NoSuchAddress { addr: SocketAddr },
    #[error("cannot listen on {addr}: {source}")]
    Other { addr: SocketAddr, source: io::Error },
}

/// Where connections come from: a socket, or a simulation.
pub trait Accept: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and who is at its other end.
    ///
    /// # Errors
    /// What the source says; the loop rests and asks again.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Where connections are counted, and how many may be.
    fn crowd(&self) -> Crowd {
        Crowd::new(Caps::default())
    }

    /// What is spoken below HTTP; none: plain text.
    fn tls(&self) -> Option<ServerTls> {
        None
    }

    /// Whether plain text is taken beside TLS.
    fn takes_plain(&self) -> bool {
        false
    }
}

/// Who is at the other end of the connection, as an extension of each request.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub addr: SocketAddr,
    /// The key that it has proved to hold, in a certificate that is believed.
    pub key: Option<Print>,
}

impl Listener {
    /// A plaintext listener on that address.
    #[must_use]
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            caps: Caps::default(),
        }
    }

    /// Takes the port.
    ///
    /// # Errors
    /// As [`BindError`] says.
    pub async fn bind(self) -> Result<Bound, BindError> {
        let addr = self.addr;
        let refused = |source| BindError::new(addr, source);
        let inner = TcpListener::bind(addr).await.map_err(refused)?;
        let addr = inner.local_addr().map_err(refused)?;
        Ok(Bound {
            inner,
            addr,
            tls: None,
            takes_plain: false,
            crowd: Crowd::new(self.caps),
        })
    }
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bound({})", self.addr)
    }
}

impl BindError {
    fn new(addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::PortTaken { addr },
            io::ErrorKind::PermissionDenied => Self::NotAllowed { addr },
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress { addr },
            _ => Self::Other { addr, source },
        }
    }
}

impl Bound {
    /// The same, speaking TLS alone.
    #[must_use]
    pub fn secured(mut self, tls: &ServerTls) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    /// The same, speaking TLS and plain text, told apart by the first byte of a connection.
    #[must_use]
    pub fn sniffing(mut self, tls: &ServerTls) -> Self {
        self.takes_plain = true;
        self.secured(tls)
    }

    /// The same with other caps. To be said before it serves.
    #[must_use]
    pub fn capped(mut self, caps: Caps) -> Self {
        self.crowd = Crowd::new(caps);
        self
    }

    /// Its connections.
    #[must_use]
    pub const fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// A listener whose port somebody else took and passed on, such as a service manager that keeps it over restarts.
    ///
    /// # Errors
    /// The socket is none that listens.
    pub fn passed(inner: std::net::TcpListener) -> io::Result<Self> {
        inner.set_nonblocking(true)?;
        let addr = inner.local_addr()?;
        Ok(Self {
            inner: TcpListener::from_std(inner)?,
            addr,
            tls: None,
            takes_plain: false,
            crowd: Crowd::new(Caps::default()),
        })
    }

    /// The address with the port that was given.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Accept for Bound {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.inner.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, peer))
    }

    fn crowd(&self) -> Crowd {
        self.crowd.clone()
    }

    fn tls(&self) -> Option<ServerTls> {
        self.tls.clone()
    }

    fn takes_plain(&self) -> bool {
        self.takes_plain
    }
}

/// Serves the router until the family stops. Connections are tasks of the family: wait for it to see them
/// end.
pub async fn serve<A: Accept>(source: A, router: Router, tasks: Tasks) {
    let doorway = tasks.child();
    serve_through(source, router, (tasks, doorway)).await;
}

/// The same until the doorway is closed: then nothing new is taken, connections finish what they were asked, and the
/// doorway's end is waited for by whoever closed it. Streams go on until the family stops.
pub async fn serve_through<A: Accept>(
    mut source: A,
    router: Router,
    (tasks, doorway): (Tasks, Tasks),
) {
    let crowd = source.crowd();
    let permits = Arc::new(Semaphore::new(crowd.caps().connections));
    let protocols = Arc::new(Protocols::new(&tasks, (source.tls(), source.takes_plain())));
    loop {
        // Cancel-safe: a permit or a connection that was not yet given is not lost.
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (source.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            biased;
            () = tasks.stopping() => return,
            () = doorway.stopping() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Dropped, it is closed.
                let Some(guest) = crowd.arrive(peer) else {
                    continue;
                };
                let families = (tasks.clone(), doorway.clone());
                let who = (peer, guest);
                let protocols = Arc::clone(&protocols);
                let connection = protocols.serve(stream, who, router.clone(), families);
                tasks.spawn("connection", connection.map(move |()| drop(permit)));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// The two protocols with their limits.
struct Protocols {
    tls: Option<ServerTls>,
    takes_plain: bool,
    one: http1::Builder,
    two: http2::Builder<InFamily>,
}

/// Runs hyper's own tasks in the family.
#[derive(Debug, Clone)]
struct InFamily(Tasks);

impl<F> Executor<F> for InFamily
where
    F: Future + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn("stream", async move {
            task.await;
        });
    }
}

impl Protocols {
    fn new(tasks: &Tasks, (tls, takes_plain): (Option<ServerTls>, bool)) -> Self {
        let mut one = http1::Builder::new();
        one.timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES as usize);
        let mut two = http2::Builder::new(InFamily(tasks.clone()));
        two.timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .max_header_list_size(HEAD_BYTES)
            .max_pending_accept_reset_streams(TAKEN_BACK)
            .max_local_error_reset_streams(ENDED_FOR_ERRORS);
        Self {
            tls,
            takes_plain,
            one,
            two,
        }
    }

    /// Speaks on one connection until it ends, or the family stops and the grace is over. Each step is in a box of its
    /// own, which goes when it is done: of the many that are idle, each holds what the last step needs.
    async fn serve<S>(
        self: Arc<Self>,
        stream: S,
        (addr, mut guest): (SocketAddr, Guest),
        router: Router,
        families: (Tasks, Tasks),
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // What was taken just before the doorway closed is asked for its request, and answered.
        let arriving = families.1.hold();
        let Some(tls) = &self.tls else {
            let peer = Peer { addr, key: None };
            return Box::pin(self.speak(stream, peer, (router, families), arriving)).await;
        };
        let securing = Box::pin(secure(tls, stream, self.takes_plain));
        let secured = tokio::select! {
            biased;
            () = families.0.stopping() => return,
            () = last_call(&families.1) => return,
            secured = tokio::time::timeout(HEAD_TIMEOUT, securing) => secured,
        };
        match secured {
            Ok(Ok(Spoken::Secured(Secured { stream, key }))) => {
                if !guest.settle(key) {
                    return;
                }
                let peer = Peer { addr, key };
                Box::pin(self.speak(stream, peer, (router, families), arriving)).await;
            }
            Ok(Ok(Spoken::Plain(stream))) => {
                if !guest.settle(None) {
                    return;
                }
                let peer = Peer { addr, key: None };
                Box::pin(self.speak(stream, peer, (router, families), arriving)).await;
            }
            Ok(Err(error)) => tracing::debug!(%addr, %error, "no TLS came to stand"),
            Err(_) => tracing::debug!(%addr, "no TLS came to stand in time"),
        }
    }

    async fn speak<S>(
        self: Arc<Self>,
        mut stream: S,
        peer: Peer,
        (router, (tasks, doorway)): (Router, (Tasks, Tasks)),
        arriving: Hold,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let addr = peer.addr;
        let sniffed = tokio::select! {
            biased;
            () = tasks.stopping() => return,
            () = last_call(&doorway) => return,
            sniffed = tokio::time::timeout(HEAD_TIMEOUT, sniff(&mut stream)) => sniffed,
        };
        let Ok(Ok((protocol, first))) = sniffed else {
            return tracing::debug!(%addr, "a connection said nothing");
        };
        let service = router.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.map(Body::new)
        });
        let service = service.map_future({
            let doorway = doorway.clone();
            // Until the head of its answer is there, a request is open; what lasts longer is a stream.
            move |answer| {
                let held = doorway.hold();
                async move {
                    let answer = answer.await;
                    drop(held);
                    answer
                }
            }
        });
        let service = TowerToHyperService::new(service);
        let io = TokioIo::new(Rewound::new(first, Patient::new(stream)));
        let ended = match protocol {
            Protocol::One => {
                let connection = self.one.serve_connection(io, service);
                let mut connection = Box::pin(connection.with_upgrades());
                if begins(connection.as_mut(), arriving).await {
                    return;
                }
                until_drained(
                    connection.as_mut(),
                    |it| it.graceful_shutdown(),
                    (&tasks, &doorway),
                )
                .await
            }
            Protocol::Two => {
                let mut connection = Box::pin(self.two.serve_connection(io, service));
                if begins(connection.as_mut(), arriving).await {
                    return;
                }
                until_drained(
                    connection.as_mut(),
                    |it| it.graceful_shutdown(),
                    (&tasks, &doorway),
                )
                .await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%addr, %error, "a connection broke");
        }
    }
}

/// Until the doorway is closed and the wait after that is over.
async fn last_call(doorway: &Tasks) {
    doorway.stopping().await;
    tokio::time::sleep(LAST_CALL).await;
}

/// What a connection speaks below HTTP.
enum Spoken<S> {
    Secured(Secured<S>),
    Plain(S),
}

/// Shakes hands. Whoever speaks plain HTTP instead is told what this port speaks, unless it takes both.
async fn secure<S>(
    tls: &ServerTls,
    mut stream: S,
    takes_plain: bool,
) -> io::Result<Spoken<Rewound<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = sniff::first(&mut stream).await?;
    if first.first() != Some(&sniff::HANDSHAKE) {
        if takes_plain {
            return Ok(Spoken::Plain(Rewound::new(first, stream)));
        }
        stream.write_all(&sniff::refusal(&first, PLAIN)).await?;
        stream.shutdown().await?;
        // What is closed with bytes unread is reset, and the client may never see the words.
        let mut rest = stream.take(UNDER_WAY);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        return Err(io::Error::other("the client spoke plain text"));
    }
    let secured = tls.accept(Rewound::new(first, stream)).await?;
    Ok(Spoken::Secured(secured))
}

/// Reads what is there, so that a request that has arrived counts as open; answers whether that was all.
async fn begins<C: Future>(connection: Pin<&mut C>, arriving: Hold) -> bool {
    let begun = futures::poll!(connection);
    drop(arriving);
    begun.is_ready()
}

/// Drives a connection to its end; once the doorway is closed, asks it to finish, and once the family stops, gives it
/// the grace.
async fn until_drained<C, F>(
    mut connection: Pin<&mut C>,
    finish: F,
    (tasks, doorway): (&Tasks, &Tasks),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
    F: FnOnce(Pin<&mut C>),
{
    // Cancel-safe: the connection is only borrowed.
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        () = tasks.stopping() => finish(connection.as_mut()),
        () = doorway.stopping() => finish(connection.as_mut()),
    }
    // Cancel-safe: as above.
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        () = tasks.stopping() => {}
    }
    tokio::time::timeout(DRAIN_GRACE, connection)
        .await
        .unwrap_or(Ok(()))
}
