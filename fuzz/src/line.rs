//! A listener with TLS on connections in memory, and who speaks to it in bytes.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostler_doors::{Accept, Caps, Crowd, serve};
use hostler_kit::trust::{Anchors, Authority, Believed, ClientTls, Credentials, ServerTls};
use hostler_kit::{Clock as _, SystemClock, Tasks};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::{PATIENCE, input, runtime};

/// Between two pieces of an input.
const PAUSE: Duration = Duration::from_secs(1);
const BETWEEN: usize = 256 << 10;

struct Line {
    runtime: Runtime,
    dial: mpsc::UnboundedSender<DuplexStream>,
    client: ClientTls,
    crowd: Crowd,
    /// The certificates' files.
    _home: tempfile::TempDir,
}

struct Wire {
    coming: mpsc::UnboundedReceiver<DuplexStream>,
    tls: ServerTls,
    crowd: Crowd,
}

impl Accept for Wire {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.coming.recv().await {
            Some(stream) => Ok((stream, ([192, 0, 2, 1], 1).into())),
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

/// Says the input to a listener with TLS. Its first line says how: `bare` before any handshake, `one` and `two` behind
/// one, as HTTP/1.1 and HTTP/2. Pieces are parted by lines `--`, with a second between them; one may be in base64.
pub fn speak_to_listener(input: &[u8]) {
    thread_local!(static LINE: RefCell<Option<Line>> = const { RefCell::new(None) });
    let (how, bytes) = input::split(input, b"\n");
    let bytes = bytes.unwrap_or_default();
    LINE.with_borrow_mut(|line| line.get_or_insert_with(open).speak(how, bytes));
}

fn open() -> Line {
    let runtime = runtime();
    let home = tempfile::tempdir().expect("a directory");
    let now = Duration::from_millis(SystemClock::new().wall_millis());
    let authority = Authority::open(&home.path().join("authority.pem"), now).expect("an authority");
    let key = Credentials::open(&home.path().join("server.key")).expect("a key");
    let shown = authority
        .certify_server(&key, &[], now)
        .expect("a certificate");
    let tls = ServerTls::of(&authority, shown, Believed::Offered).expect("TLS");
    let anchors = Anchors::Roots(authority.roots().to_vec());
    let client = ClientTls::new(&anchors, None).expect("TLS");
    let (dial, coming) = mpsc::unbounded_channel();
    let crowd = Crowd::new(Caps::default());
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/", post(|body: String| async { body }));
    let wire = Wire {
        coming,
        tls,
        crowd: crowd.clone(),
    };
    runtime.block_on(async {
        let tasks = Tasks::new();
        tasks.spawn("listener", serve(wire, router, tasks.clone()));
    });
    Line {
        runtime,
        dial,
        client,
        crowd,
        _home: home,
    }
}

impl Line {
    fn speak(&self, how: &[u8], bytes: &[u8]) {
        self.runtime.block_on(async {
            let (near, far) = duplex(BETWEEN);
            self.dial.send(far).expect("it listens");
            let protocol: &[u8] = match how {
                b"one" => b"http/1.1",
                b"two" => b"h2",
                _ => b"",
            };
            if protocol.is_empty() {
                talk(near, bytes).await;
            } else {
                let shaken = self.client.connect("localhost", near, &[protocol]).await;
                talk(shaken.expect("a handshake"), bytes).await;
            }
            let empty = async {
                while self.crowd.counts().strangers > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
            };
            let ended = tokio::time::timeout(PATIENCE, empty).await;
            ended.expect("the connection ends and its place is free");
        });
    }
}

/// Says it all and reads what comes, until the other side is gone or nothing comes any more.
async fn talk(stream: impl tokio::io::AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    let (mut reads, mut writes) = tokio::io::split(stream);
    let says = async {
        for piece in input::pieces(bytes, b"\n--\n") {
            let decoded = STANDARD.decode(piece.trim_ascii());
            let piece = decoded.unwrap_or_else(|_| piece.to_vec());
            if writes.write_all(&piece).await.is_err() || writes.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let hears = async {
        let mut some = vec![0; 16 << 10];
        while let Ok(Ok(1..)) = tokio::time::timeout(PATIENCE, reads.read(&mut some)).await {}
    };
    tokio::select! {
        () = hears => {}
        () = async { says.await; tokio::time::sleep(PAUSE).await } => {}
    }
}
