//! The listener on raw sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hostler_doors::{Accept, BindError, Bound, Caps, Listener, serve, serve_through};
use hostler_kit::trust::{Anchors, Authority, Believed, ClientTls, Credentials, ServerTls};
use hostler_kit::{Clock as _, SystemClock, Tasks};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::server::{DEADLINE, Server};

#[tokio::test]
async fn a_taken_port_is_one_clear_sentence() {
    let bound = Listener::plain(([127, 0, 0, 1], 0).into())
        .bind()
        .await
        .unwrap();
    let error = Listener::plain(bound.addr()).bind().await.unwrap_err();
    assert!(matches!(error, BindError::PortTaken { .. }));
    let sentence = error.to_string();
    assert!(
        sentence.contains(&format!("port {}", bound.addr().port())),
        "{sentence}"
    );
    let error = Listener::plain(([192, 0, 2, 1], 0).into())
        .bind()
        .await
        .unwrap_err();
    assert!(matches!(error, BindError::NoSuchAddress { .. }), "{error}");
}

#[tokio::test]
async fn both_http_versions_share_the_port() {
    let server = Server::start().await;
    let one = server.get("/healthz").await;
    assert_eq!(one.json()["status"], "ok");
    let stream = TokioIo::new(TcpStream::connect(server.addr).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await.unwrap();
    server
        .tasks
        .spawn("client", async move { connection.await.unwrap() });
    let request = http::Request::get(server.url("/healthz"))
        .body(String::new())
        .unwrap();
    let two = sender.send_request(request).await.unwrap();
    assert_eq!(
        (two.version(), two.status().as_u16()),
        (http::Version::HTTP_2, 200)
    );
    drop((sender, two));
    server.shut_down().await;
}

#[tokio::test]
async fn a_head_that_is_no_http_or_too_large_is_refused() {
    let server = Server::start().await;
    let large = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "x".repeat(64 << 10)
    );
    for (text, status) in [("\u{1}\u{2}\u{3}\r\n\r\n", "400"), (large.as_str(), "431")] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer))
            .await
            .unwrap();
        // A server that closes with unread bytes may take the answer back.
        if read.is_ok() {
            assert_eq!(&answer[9..], status.as_bytes());
        }
    }
    assert_eq!(server.get("/healthz").await.status.as_u16(), 200);
    server.shut_down().await;
}

#[tokio::test]
async fn idle_and_half_open_connections_do_not_hold_the_end_up() {
    let server = Server::start().await;
    let _silent = TcpStream::connect(server.addr).await.unwrap();
    let mut half = TcpStream::connect(server.addr).await.unwrap();
    half.write_all(b"GET /healthz HTT").await.unwrap();
    server.get("/healthz").await;
    server.shut_down().await;
}

#[tokio::test]
async fn more_connections_than_allowed_wait_their_turn() {
    use hostler_doors::serve;
    use hostler_kit::Tasks;

    let tasks = Tasks::new();
    let listener = Listener {
        caps: Caps {
            connections: 1,
            ..Caps::default()
        },
        ..Listener::plain(([127, 0, 0, 1], 0).into())
    };
    let bound = listener.bind().await.unwrap();
    let addr = bound.addr();
    let router = axum::Router::new().route("/", axum::routing::get(|| async { "here" }));
    tasks.spawn("listener", serve(bound, router, tasks.clone()));
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let first = TcpStream::connect(addr).await.unwrap();
    let mut second = TcpStream::connect(addr).await.unwrap();
    second.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let waited = tokio::time::timeout(Duration::from_millis(50), second.read_to_end(&mut answer));
    assert!(waited.await.is_err() && answer.is_empty());
    drop(first);
    tokio::time::timeout(DEADLINE, second.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.ends_with(b"here"));
    assert_eq!(tasks.shut_down(DEADLINE).await, Ok(()));
}

#[tokio::test]
async fn a_closed_doorway_answers_what_was_asked_and_takes_nothing_new() {
    let kept = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = Bound::passed(kept.try_clone().unwrap()).unwrap();
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (ask, going) = (Arc::clone(&asked), Arc::clone(&go));
    let slow = async move || {
        ask.notify_one();
        going.notified().await;
        "answered"
    };
    let router = Router::new().route("/", get(slow));
    let (tasks, doorway) = (Tasks::new(), Tasks::new());
    let families = (tasks.clone(), doorway.clone());
    let addr = bound.addr();
    tasks.spawn("listener", serve_through(bound, router, families));
    let mut early = TcpStream::connect(addr).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    early.write_all(request).await.unwrap();
    asked.notified().await;

    let closing = doorway.clone();
    let closed = async move { closing.shut_down(DEADLINE).await };
    let answering = async {
        while !doorway.is_stopping() {
            tokio::task::yield_now().await;
        }
        // The socket is kept, so this one waits in its queue for a server to come.
        let mut late = TcpStream::connect(addr).await.unwrap();
        late.write_all(request).await.unwrap();
        go.notify_one();
        let mut answer = String::new();
        early.read_to_string(&mut answer).await.unwrap();
        (answer, late)
    };
    let (closed, (answer, late)) = tokio::join!(closed, answering);
    assert_eq!(closed, Ok(()));
    assert!(answer.ends_with("answered"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(tasks.shut_down(DEADLINE).await, Ok(()));
    kept.set_nonblocking(true).unwrap();
    assert!(kept.accept().is_ok(), "it is still in the queue");
    drop(late);
}

#[tokio::test]
async fn a_port_that_sniffs_takes_tls_and_plain_text() {
    let home = tempfile::tempdir().unwrap();
    let now = Duration::from_millis(SystemClock::new().wall_millis());
    let authority = Authority::open(&home.path().join("authority.pem"), now).unwrap();
    let key = Credentials::open(&home.path().join("server.key")).unwrap();
    let shown = authority.certify_server(&key, &[], now).unwrap();
    let tls = ServerTls::of(&authority, shown, Believed::Offered).unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for sniffs in [true, false] {
        let bound = Listener::plain(([127, 0, 0, 1], 0).into());
        let bound = bound.bind().await.unwrap();
        let addr = bound.addr();
        let bound = if sniffs {
            bound.sniffing(&tls)
        } else {
            bound.secured(&tls)
        };
        let router = Router::new().route("/", get(|| async { "answered" }));
        let tasks = Tasks::new();
        tasks.spawn("listener", serve(bound, router, tasks.clone()));
        let anchors = Anchors::Roots(authority.roots().to_vec());
        let client = ClientTls::new(&anchors, None).unwrap();
        let secured = TcpStream::connect(addr).await.unwrap();
        let secured = client.connect("127.0.0.1", secured, &[b"http/1.1"]);
        let mut secured = secured.await.unwrap();
        secured.write_all(request).await.unwrap();
        let mut answer = String::new();
        secured.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("answered"), "{answer}");
        let mut plain = TcpStream::connect(addr).await.unwrap();
        plain.write_all(request).await.unwrap();
        let mut answer = String::new();
        plain.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.ends_with("answered"), sniffs, "{answer}");
        assert_eq!(tasks.shut_down(DEADLINE).await, Ok(()));
    }
}

/// Gives one connection, and says so.
struct Once {
    stream: Option<DuplexStream>,
    tls: ServerTls,
    given: Arc<Notify>,
}

impl Accept for Once {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.stream.take() {
            Some(stream) => {
                self.given.notify_one();
                Ok((stream, ([127, 0, 0, 1], 1).into()))
            }
            None => std::future::pending().await,
        }
    }

    fn tls(&self) -> Option<ServerTls> {
        Some(self.tls.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn who_came_just_before_the_doorway_closed_may_still_shake_hands_and_ask() {
    let home = tempfile::tempdir().unwrap();
    // Certificates are judged by the machine's clock.
    let now = Duration::from_millis(SystemClock::new().wall_millis());
    let authority = Authority::open(&home.path().join("authority.pem"), now).unwrap();
    let key = Credentials::open(&home.path().join("server.key")).unwrap();
    let shown = authority.certify_server(&key, &[], now).unwrap();
    let (near, far) = duplex(64 << 10);
    let given = Arc::new(Notify::new());
    let once = Once {
        stream: Some(far),
        tls: ServerTls::of(&authority, shown, Believed::Offered).unwrap(),
        given: Arc::clone(&given),
    };
    let (tasks, doorway) = (Tasks::new(), Tasks::new());
    let families = (tasks.clone(), doorway.clone());
    let router = Router::new().route("/", get(|| async { "answered" }));
    tasks.spawn("listener", serve_through(once, router, families));
    given.notified().await;
    doorway.stop();

    let anchors = Anchors::Roots(authority.roots().to_vec());
    let client = ClientTls::new(&anchors, None).unwrap();
    let mut stream = client
        .connect("127.0.0.1", near, &[b"http/1.1"])
        .await
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("answered"), "{answer}");
    assert_eq!(doorway.shut_down(DEADLINE).await, Ok(()));
    assert_eq!(tasks.shut_down(DEADLINE).await, Ok(()));
}
