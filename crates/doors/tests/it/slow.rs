//! Clients that are slow, silent or greedy, over TLS: each is bounded, and another one is served meanwhile. They are
//! real clients on streams in memory, so that time passes at once when nobody has anything to do.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hostler_control::ControlConfig;
use hostler_doors::{Accept, Caps, Crowd, Dialect, serve};
use hostler_kit::trust::{Anchors, Authority, Believed, ClientTls, Credentials, ServerTls};
use hostler_kit::{Clock as _, SystemClock, Tasks};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex,
};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::server::{Server, store};

/// What lies between the two sides of a connection.
const BETWEEN: usize = 64 << 10;
/// In time that passes at once: longer than any limit.
const AGES: Duration = Duration::from_secs(3600);
/// Passes when everybody has done what they can.
const SOON: Duration = Duration::from_secs(1);
const LARGE: usize = 4 << 20;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Takes its connections from a channel.
struct Wire {
    coming: mpsc::UnboundedReceiver<(DuplexStream, SocketAddr)>,
    tls: ServerTls,
    crowd: Crowd,
}

impl Accept for Wire {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.coming.recv().await {
            Some(coming) => Ok(coming),
            None => std::future::pending().await,
        }
    }

    fn tls(&self) -> Option<ServerTls> {
        Some(self.tls.clone())
    }

    fn crowd(&self) -> Crowd {
        self.crowd.clone()
    }
}

/// A listener with TLS, and clients for it.
struct World {
    dial: mpsc::UnboundedSender<(DuplexStream, SocketAddr)>,
    client: ClientTls,
    crowd: Crowd,
    tasks: Tasks,
    authority: Authority,
    home: TempDir,
}

impl World {
    fn new(caps: Caps, router: Router) -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open(&home.path().join("authority.pem"), now()).unwrap();
        let key = Credentials::open(&home.path().join("server.key")).unwrap();
        let shown = authority.certify_server(&key, &[], now()).unwrap();
        let tls = ServerTls::of(&authority, shown, Believed::Offered).unwrap();
        let anchors = Anchors::Roots(authority.roots().to_vec());
        let client = ClientTls::new(&anchors, None).unwrap();
        let (dial, coming) = mpsc::unbounded_channel();
        let (crowd, tasks) = (Crowd::new(caps), Tasks::new());
        let wire = Wire {
            coming,
            tls,
            crowd: crowd.clone(),
        };
        tasks.spawn("listener", serve(wire, router, tasks.clone()));
        Self {
            dial,
            client,
            crowd,
            tasks,
            authority,
            home,
        }
    }

    fn plain() -> Self {
        let large = || async { vec![b'x'; LARGE] };
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/large", get(large));
        Self::new(Caps::default(), router)
    }

    /// A connection from that address, before TLS.
    fn bare(&self, host: u8) -> DuplexStream {
        let (near, far) = duplex(BETWEEN);
        self.dial.send((far, ([10, 0, 0, host], 1).into())).unwrap();
        near
    }

    /// One with TLS.
    async fn secured(
        &self,
        host: u8,
        speaks: &'static [u8],
    ) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<> {
        let bare = self.bare(host);
        let stream = self.client.connect("127.0.0.1", bare, &[speaks]).await;
        stream.unwrap()
    }

    /// Somebody else asks, and is answered.
    async fn is_served(&self) {
        let mut stream = self.secured(200, b"http/1.1").await;
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }

    /// The key of a node with its certificate.
    fn member(&self, name: &str) -> ClientTls {
        let key = Credentials::open(&self.home.path().join(name)).unwrap();
        let asked = key.request().unwrap();
        let issued = self.authority.sign_node(&asked.0, name, now()).unwrap();
        let shown = key.certified(issued.chain).unwrap();
        let anchors = Anchors::Roots(self.authority.roots().to_vec());
        ClientTls::new(&anchors, Some(shown)).unwrap()
    }

    /// Nobody is left, and the listener ends.
    async fn empties(self) {
        let empty = async {
            while self.crowd.counts().strangers > 0 {
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(AGES, empty).await.expect("all places are free");
        self.tasks.shut_down(AGES).await.unwrap();
    }
}

/// Certificates are judged by the machine's clock.
fn now() -> Duration {
    Duration::from_millis(SystemClock::new().wall_millis())
}

/// Reads until the other side is gone; what came.
async fn until_gone(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let read = timeout(AGES, stream.read_to_end(&mut all));
    // How it ends does not matter: TLS calls an end without farewell an error.
    let _ = read.await.expect("the connection ends");
    all
}

/// Sends one byte a second until the other side is gone; answers how many it took.
async fn drip(stream: &mut (impl AsyncWrite + Unpin), bytes: impl Iterator<Item = u8>) -> usize {
    let mut taken = 0;
    for byte in bytes {
        sleep(Duration::from_secs(1)).await;
        if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
            break;
        }
        taken += 1;
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn who_connects_and_says_nothing_is_sent_away() {
    let world = World::plain();
    let mut silent = world.bare(1);
    world.is_served().await;
    assert!(until_gone(&mut silent).await.is_empty());
    // After the handshake, too, and after the first words of HTTP/2, with no settings behind them.
    let mut silent = world.secured(1, b"http/1.1").await;
    world.is_served().await;
    until_gone(&mut silent).await;
    let mut silent = world.secured(1, b"h2").await;
    silent.write_all(PREFACE).await.unwrap();
    world.is_served().await;
    until_gone(&mut silent).await;
    world.empties().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_or_a_head_byte_by_byte_is_cut_off() {
    let world = World::plain();
    let name = "127.0.0.1".try_into().unwrap();
    let config = Arc::new(world.client.config());
    let mut hello = Vec::new();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    client.write_tls(&mut hello).unwrap();
    let mut slow = world.bare(1);
    let taken = drip(&mut slow, hello.iter().copied()).await;
    assert!(taken < 60 && taken < hello.len(), "{taken}");
    world.is_served().await;

    let mut slow = world.secured(1, b"http/1.1").await;
    let head = b"GET / HTTP/1.1\r\nx: ".iter().copied();
    let taken = drip(&mut slow, head.chain(std::iter::repeat_n(b'x', 3000))).await;
    assert!(taken < 60, "{taken}");
    world.is_served().await;

    // The frame of a head of HTTP/2, whose end does not come; no answer to a ping can stand inside it.
    let mut slow = world.secured(1, b"h2").await;
    slow.write_all(PREFACE).await.unwrap();
    slow.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let head = frame(1, 5, 1, &[0x82; 3000]);
    let taken = drip(&mut slow, head.into_iter()).await;
    assert!(taken < 120, "{taken}");
    world.is_served().await;
    world.empties().await;
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_their_answer_is_cut_off() {
    let world = World::plain();
    let mut slow = world.secured(1, b"http/1.1").await;
    let request = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n";
    slow.write_all(request).await.unwrap();
    world.is_served().await;
    sleep(AGES / 2).await;
    let got = until_gone(&mut slow).await;
    assert!(got.starts_with(b"HTTP/1.1 200") && got.len() < LARGE);
    world.empties().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_who_takes_something_gets_it_all() {
    let world = World::plain();
    let mut slow = world.secured(1, b"http/1.1").await;
    let request = b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    slow.write_all(request).await.unwrap();
    let (mut got, mut piece) = (0, vec![0; BETWEEN]);
    loop {
        sleep(Duration::from_secs(100)).await;
        match slow.read(&mut piece).await {
            Ok(count) if count > 0 => got += count,
            _ => break,
        }
    }
    assert!(got > LARGE, "{got}");
    world.empties().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_too_slowly_is_refused() {
    let mut router = None;
    let server = Server::of(ControlConfig::default(), &store(), |parts| {
        router = Some(parts.router(Dialect::Hostler));
        Router::new()
    })
    .await;
    let world = World::new(Caps::default(), router.unwrap());
    let mut slow = world.secured(1, b"http/1.1").await;
    let head = b"POST /api/v1/workloads HTTP/1.1\r\nhost: x\r\ncontent-length: 3000\r\n\r\n";
    slow.write_all(head).await.unwrap();
    let (mut reads, mut writes) = tokio::io::split(slow);
    let (answer, taken) = tokio::join!(
        until_gone(&mut reads),
        drip(&mut writes, std::iter::repeat_n(b'x', 3000))
    );
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("overloaded") && taken < 3000, "{answer}");

    // The calls that need no identity have no stream whose time could not be limited.
    for call in ["Join", "Renew"] {
        let slow = TokioIo::new(world.secured(1, b"h2").await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), slow)
                .await
                .unwrap();
        world.tasks.spawn("client", async move {
            // It ends with its last user.
            let _ = connection.await;
        });
        let uri = format!("https://x/hostler.session.v1.Session/{call}");
        let ask = |body: axum::body::Body| {
            let request = http::Request::post(&uri).header("content-type", "application/grpc");
            request.body(body).unwrap()
        };
        let never =
            axum::body::Body::from_stream(futures::stream::pending::<io::Result<Vec<u8>>>());
        let answer = sender.send_request(ask(never)).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "4", "{call}");
        let large = ask(vec![0; 100 << 10].into());
        let answer = sender.send_request(large).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "8", "{call}");
    }
    world.empties().await;
    server.tasks.stop();
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_opened_and_taken_back_end_the_connection() {
    let world = World::plain();
    let mut bytes = [PREFACE, &frame(4, 0, 0, &[])].concat();
    for stream in 0..5_000 {
        bytes.extend(ask(stream * 2 + 1, b"/large"));
        bytes.extend(frame(3, 0, stream * 2 + 1, &8_u32.to_be_bytes()));
    }
    let (mut reads, mut writes) = tokio::io::split(world.secured(1, b"h2").await);
    let ((), said) = tokio::join!(
        async {
            // It is cut off in between.
            let _ = writes.write_all(&bytes).await;
            world.is_served().await;
        },
        until_gone(&mut reads)
    );
    let calm = frames(&said).into_iter().find(|(kind, _, _)| *kind == 7);
    let (_, _, why) = calm.expect("it is told why");
    assert_eq!(why[4..8], 11_u32.to_be_bytes(), "to calm down");
    world.empties().await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_takes_are_few_on_one_connection() {
    const ASKED: u32 = 200;
    let world = World::plain();
    // No window: not one byte of an answer may be sent.
    let no_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let mut stream = world.secured(1, b"h2").await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&no_window).await.unwrap();
    for number in 0..ASKED {
        let asked = ask(number * 2 + 1, b"/");
        stream.write_all(&asked).await.unwrap();
    }
    stream.flush().await.unwrap();
    world.is_served().await;
    // It answers no ping either, so that it is gone in the end.
    let said = until_gone(&mut stream).await;
    let said = frames(&said);
    let of = |kind: u8| said.iter().filter(|it| it.0 == kind).count();
    let refused = said
        .iter()
        .filter(|it| it.0 == 3 && it.2 == 7_u32.to_be_bytes());
    assert_eq!((of(0), refused.count()), (0, ASKED as usize - 128));
    world.empties().await;
}

#[tokio::test(start_paused = true)]
async fn many_strangers_keep_no_member_out() {
    let router = Router::new().route("/", get(|| async { "here" }));
    let caps = Caps {
        connections: 40,
        per_address: 10,
    };
    let world = World::new(caps, router);
    let mut held = Vec::new();
    // A node that was there before them.
    let before = world.member("before");
    let mut before = before
        .connect("127.0.0.1", world.bare(1), &[b"h2"])
        .await
        .unwrap();
    sleep(SOON).await;
    // From one address come as many as may. The handshake of the eleventh fails.
    for _ in 0..10 {
        held.push(world.secured(1, b"h2").await);
    }
    let refused = world.client.connect("127.0.0.1", world.bare(1), &[b"h2"]);
    assert!(refused.await.is_err());
    // A node behind that address waits for a stranger to go, and one from elsewhere comes in.
    let member = world.member("box");
    let behind = member.connect("127.0.0.1", world.bare(1), &[b"h2"]);
    assert!(behind.await.is_err());
    for number in 10..30 {
        held.push(world.secured(2 + number / 10, b"h2").await);
    }
    sleep(SOON).await;
    let mut late = world.secured(9, b"h2").await;
    assert!(until_gone(&mut late).await.is_empty());
    let (elsewhere, between) = (world.bare(9), TokioExecutor::new());
    let node = member
        .connect("127.0.0.1", elsewhere, &[b"h2"])
        .await
        .unwrap();
    let shaken = hyper::client::conn::http2::handshake(between, TokioIo::new(node));
    let (mut sender, connection) = shaken.await.unwrap();
    world.tasks.spawn("client", async move {
        // It ends with its last user.
        let _ = connection.await;
    });
    let request = http::Request::get("https://x/")
        .body(String::new())
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    before.write_all(PREFACE).await.unwrap();
    let counts = world.crowd.counts();
    assert_eq!((counts.members, counts.strangers), (2, 30));
    assert_eq!((counts.refused_of_address, counts.refused_crowded), (2, 1));
    drop((held, sender, before));
    world.empties().await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request of HTTP/2 without a body.
fn ask(stream: u32, path: &[u8]) -> Vec<u8> {
    // GET and https, as the table of every connection has them; then the path and the host as they are.
    let mut head = vec![0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
    head.extend(path);
    head.extend([0x01, 1, b'x']);
    frame(1, 5, stream, &head)
}

/// The frames in those bytes: kind, stream, payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, _, s, t, u, v, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(payload) = rest.get(..length) else {
            break;
        };
        let stream = u32::from_be_bytes([*s, *t, *u, *v]);
        frames.push((*kind, stream, payload.to_vec()));
        bytes = &rest[length..];
    }
    frames
}
