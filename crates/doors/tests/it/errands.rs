//! Errands inside copies: by our own client over sockets and plain requests, done by a node that says exactly what each
//! test wants.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hostler_wire::api::{ErrandExit, ErrandWord, ExecQuery, FilesQuery, ForwardQuery, output};
use hostler_wire::client::{Client, ClientError, ErrandMessage};
use hostler_wire::session::v1::{self, bulk_frame, errand, open, server_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::Error;
use tonic::Streaming;

use crate::server::{DEADLINE, Server};
use crate::session::Node;
use crate::sockets::request;
use crate::transfers::{frame, with_a_copy};

/// The node's side of an errand under way.
struct Errand {
    says: mpsc::Sender<v1::BulkFrame>,
    hears: Streaming<v1::BulkFrame>,
}

impl Errand {
    async fn say(&self, what: bulk_frame::Frame) {
        self.says.send(frame(what)).await.expect("it is taken");
    }

    async fn begin(&self) {
        self.say(bulk_frame::Frame::Begun(v1::Begun {})).await;
    }

    /// Says how it ended, and waits until that was heard.
    async fn end(mut self, code: &str) {
        let (code, message) = (code.to_owned(), "as it is".to_owned());
        self.say(bulk_frame::Frame::End(v1::End { code, message }))
            .await;
        let (nobody, _) = mpsc::channel(1);
        self.says = nobody;
        while self.hear().await.is_some() {}
    }

    /// The next word; none once whoever asked has gone.
    async fn hear(&mut self) -> Option<bulk_frame::Frame> {
        let heard = tokio::time::timeout(DEADLINE, self.hears.message()).await;
        heard
            .expect("in time")
            .ok()
            .flatten()
            .and_then(|it| it.frame)
    }
}

/// Waits until an errand is asked for and opens its stream.
async fn asked(node: &mut Node) -> (Errand, v1::Errand) {
    let server_message::Message::Open(open) = node.hear().await else {
        panic!("an open")
    };
    let Some(open::Request::Errand(asked)) = open.request else {
        panic!("an errand")
    };
    let (says, frames) = mpsc::channel(8);
    says.send(frame(bulk_frame::Frame::Ticket(open.ticket)))
        .await
        .expect("there is room");
    let hears = node.client.bulk(ReceiverStream::new(frames)).await;
    let hears = hears.expect("a transfer").into_inner();
    (Errand { says, hears }, asked)
}

async fn copy(server: &Server) -> (Client, String) {
    let copies = server.get("/api/v1/assignments").await.json();
    let id = copies[0]["id"].as_str().expect("an id").to_owned();
    let client = Client::new(&server.url(""), None).expect("a client");
    (client, id)
}

/// A server, a node with one running copy, a client, and the copy's id.
async fn scene() -> (Server, Node, Client, String) {
    let server = Server::start().await;
    let (node, _) = with_a_copy(&server).await;
    let (client, id) = copy(&server).await;
    (server, node, client, id)
}

fn exec(words: &[&str]) -> ExecQuery {
    ExecQuery {
        command: words.iter().map(|&word| word.to_owned()).collect(),
        ..ExecQuery::default()
    }
}

fn code_of<T>(result: Result<T, ClientError>) -> String {
    let error = result.err().expect("it fails");
    error.code().unwrap_or_else(|| panic!("{error}")).to_owned()
}

fn marked(mark: u8, text: &str) -> Option<ErrandMessage> {
    let bytes = [&[mark], text.as_bytes()].concat();
    Some(ErrandMessage::Bytes(bytes.into()))
}

#[tokio::test]
async fn a_command_is_asked_for_in_full_and_talks_both_ways_until_it_ends() {
    let server = Server::start().await;
    let (mut node, item) = with_a_copy(&server).await;
    let (client, id) = copy(&server).await;
    let query = ExecQuery {
        input: true,
        terminal: true,
        rows: Some(24),
        columns: Some(80),
        user: Some("1000".to_owned()),
        env: vec!["A=b=c".to_owned()],
        directory: Some("/srv".to_owned()),
        part: Some("db".to_owned()),
        ..exec(&["sh", "-c", "x & y"])
    };
    let asking = client.exec(&id, &query);
    let answering = async {
        let (errand, asked) = asked(&mut node).await;
        errand.begin().await;
        (errand, asked)
    };
    let (socket, (mut errand, asked)) = tokio::join!(asking, answering);
    assert_eq!((&asked.unit, asked.part.as_str()), (&item.unit, "db"));
    let command = v1::ExecCommand {
        words: query.command.clone(),
        input: true,
        terminal: Some(v1::TerminalSize {
            rows: 24,
            columns: 80,
        }),
        user: "1000".to_owned(),
        env: [("A".to_owned(), "b=c".to_owned())].into(),
        directory: "/srv".to_owned(),
    };
    assert_eq!(asked.errand, Some(errand::Errand::Exec(command)));
    let (mut says, mut hears) = socket.expect("it begins");
    says.bytes(Bytes::from_static(b"typed"))
        .await
        .expect("said");
    let size = ErrandWord::Resize {
        rows: 2,
        columns: 3,
    };
    says.word(&size).await.expect("said");
    says.word(&ErrandWord::EndOfBytes).await.expect("said");
    for expected in [
        bulk_frame::Frame::Bytes(b"typed".to_vec()),
        bulk_frame::Frame::Resize(v1::TerminalSize {
            rows: 2,
            columns: 3,
        }),
        bulk_frame::Frame::EndOfBytes(v1::EndOfBytes {}),
    ] {
        assert_eq!(errand.hear().await, Some(expected));
    }
    errand.say(bulk_frame::Frame::Bytes(b"out".to_vec())).await;
    errand
        .say(bulk_frame::Frame::ErrorBytes(b"err".to_vec()))
        .await;
    let exit = Some(v1::exit::Exit::Code(3));
    errand
        .say(bulk_frame::Frame::Exited(v1::Exit { exit }))
        .await;
    errand.end("").await;
    assert_eq!(
        hears.next().await.expect("told"),
        marked(output::STDOUT, "out")
    );
    assert_eq!(
        hears.next().await.expect("told"),
        marked(output::STDERR, "err")
    );
    let exit = ErrandExit {
        code: Some(3),
        signal: None,
    };
    let exit = ErrandMessage::Word(ErrandWord::Exit(exit));
    assert_eq!(hears.next().await.expect("told"), Some(exit));
    assert_eq!(hears.next().await.expect("told"), None);
    server.shut_down().await;
}

#[tokio::test]
async fn what_a_node_refuses_is_a_status_before_it_begins_and_the_last_word_later() {
    let (server, mut node, client, id) = scene().await;
    for code in ["exec-unsupported", "refused-by-node", "unit-not-running"] {
        let query = exec(&["true"]);
        let asking = client.exec(&id, &query);
        let refusing = async {
            let (errand, _) = asked(&mut node).await;
            errand.end(code).await;
        };
        let (asked, ()) = tokio::join!(asking, refusing);
        assert_eq!(code_of(asked), code);
    }
    let query = exec(&["true"]);
    let asking = client.exec(&id, &query);
    let failing = async {
        let (errand, _) = asked(&mut node).await;
        errand.begin().await;
        errand.end("copy-failed").await;
    };
    let (socket, ()) = tokio::join!(asking, failing);
    let (_says, mut hears) = socket.expect("it begins");
    assert_eq!(code_of(hears.next().await), "copy-failed");
    server.shut_down().await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_ends_the_errand_with_a_typed_word() {
    let (server, mut node, client, id) = scene().await;
    let query = exec(&["true"]);
    let asking = client.exec(&id, &query);
    let breaking = async {
        let (errand, _) = asked(&mut node).await;
        errand.begin().await;
        errand
    };
    let (socket, errand) = tokio::join!(asking, breaking);
    let (_says, mut hears) = socket.expect("it begins");
    drop(errand);
    assert_eq!(code_of(hears.next().await), "node-unreachable");
    drop(node);
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_errand() {
    let (server, mut node, client, id) = scene().await;
    let query = ForwardQuery {
        port: 81,
        part: None,
    };
    let asking = client.forward(&id, &query);
    let answering = async {
        let (errand, asked) = asked(&mut node).await;
        assert_eq!(asked.errand, Some(errand::Errand::Forward(81)));
        errand.begin().await;
        errand
    };
    let (socket, mut errand) = tokio::join!(asking, answering);
    let (mut says, hears) = socket.expect("it begins");
    says.bytes(Bytes::from_static(b"x")).await.expect("said");
    assert_eq!(
        errand.hear().await,
        Some(bulk_frame::Frame::Bytes(b"x".to_vec()))
    );
    drop((says, hears));
    assert_eq!(errand.hear().await, None);
    server.shut_down().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_nothing_is_asked_of_the_node() {
    let (server, _node, client, id) = scene().await;
    for (query, code) in [
        (ExecQuery::default(), "bad-request"),
        (exec(&[""]), "bad-request"),
        (exec(&["a\0"]), "bad-request"),
        (
            ExecQuery {
                env: vec!["A".to_owned()],
                ..exec(&["true"])
            },
            "bad-request",
        ),
    ] {
        assert_eq!(code_of(client.exec(&id, &query).await), code, "{query:?}");
    }
    let nobody = client.exec("0000", &exec(&["true"])).await;
    assert_eq!(code_of(nobody), "assignment-not-found");
    let path = format!("/api/v1/assignments/{id}");
    let plain = server.get(&format!("{path}/exec?command=true")).await;
    plain.is_problem(400, "bad-request");
    let unknown = server.get(&format!("{path}/exec?command=true&tty=1")).await;
    unknown.is_problem(400, "bad-request");
    for bad in ["", "?port=0", "?port=70000", "?port=x"] {
        server
            .get(&format!("{path}/forward{bad}"))
            .await
            .is_problem(400, "bad-request");
    }
    for bad in ["", "?path="] {
        server
            .get(&format!("{path}/files{bad}"))
            .await
            .is_problem(400, "bad-request");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_page_of_another_site_opens_no_errand() {
    let (server, _node, _, id) = scene().await;
    for what in ["exec?command=true", "forward?port=1"] {
        let path = format!("/api/v1/assignments/{id}/{what}");
        let request = request(&server, &path, Some("http://evil.example"));
        match tokio_tungstenite::connect_async(request).await {
            Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), 403),
            other => panic!("{path} opened, or broke: {other:?}"),
        }
    }
    let put = reqwest::Method::PUT;
    let path = format!("/api/v1/assignments/{id}/files?path=/");
    let headers = [("origin", "http://evil.example")];
    server
        .send(put, &path, &headers, "")
        .await
        .is_problem(403, "forbidden");
    server.shut_down().await;
}

#[tokio::test]
async fn files_are_read_in_pieces_and_a_copy_that_fails_half_way_breaks_off() {
    let (server, mut node, client, id) = scene().await;
    let query = FilesQuery {
        path: "/srv".to_owned(),
        part: None,
    };
    for is_whole in [true, false] {
        let asking = client.read_files(&id, &query);
        let answering = async {
            let (errand, asked) = asked(&mut node).await;
            assert_eq!(
                asked.errand,
                Some(errand::Errand::ReadFiles("/srv".to_owned()))
            );
            errand.begin().await;
            for piece in ["one", "two"] {
                errand.say(bulk_frame::Frame::Bytes(piece.into())).await;
            }
            errand.end(if is_whole { "" } else { "copy-failed" }).await;
        };
        let (pieces, ()) = tokio::join!(asking, answering);
        // It may break off before the first of it was sent.
        let pieces: Result<Vec<Bytes>, _> = match pieces {
            Ok(pieces) => pieces.try_collect().await,
            Err(error) => Err(error),
        };
        match pieces {
            Ok(pieces) => assert_eq!((is_whole, pieces.concat()), (true, b"onetwo".to_vec())),
            Err(error) => assert!(!is_whole, "{error}"),
        }
    }
    let asking = client.read_files(&id, &query);
    let failing = async {
        let (errand, _) = asked(&mut node).await;
        errand.begin().await;
        errand.end("copy-failed").await;
    };
    let (pieces, ()) = tokio::join!(asking, failing);
    assert_eq!(code_of(pieces), "copy-failed");
    server.shut_down().await;
}

#[tokio::test]
async fn files_are_written_and_the_answer_is_the_nodes() {
    let (server, mut node, client, id) = scene().await;
    let query = FilesQuery {
        path: "/srv".to_owned(),
        part: None,
    };
    let whole = vec![7; 300_000];
    for code in ["", "copy-failed"] {
        let pieces = [Ok::<_, io::Error>(Bytes::from(whole.clone()))];
        let writing = client.write_files(&id, &query, stream::iter(pieces));
        let answering = async {
            let (mut errand, asked) = asked(&mut node).await;
            assert_eq!(
                asked.errand,
                Some(errand::Errand::WriteFiles("/srv".to_owned()))
            );
            errand.begin().await;
            let mut got = Vec::new();
            loop {
                match errand.hear().await {
                    Some(bulk_frame::Frame::Bytes(bytes)) => got.extend(bytes),
                    Some(bulk_frame::Frame::EndOfBytes(_)) => break,
                    other => panic!("{other:?}"),
                }
            }
            errand.end(code).await;
            got
        };
        let (written, got) = tokio::join!(writing, answering);
        assert!(got == whole, "{} bytes", got.len());
        match written {
            Ok(()) => assert_eq!(code, ""),
            Err(error) => assert_eq!(error.code(), Some(code)),
        }
    }
    // A refusal before the end reaches a client that is still sending.
    let endless = stream::repeat_with(|| Ok(Bytes::from(vec![7; 100_000]))).take(200);
    let writing = client.write_files(&id, &query, endless);
    let refusing = async {
        let (errand, _) = asked(&mut node).await;
        errand.begin().await;
        errand.end("file-not-found").await;
    };
    let (written, ()) = tokio::join!(writing, refusing);
    assert_eq!(code_of(written), "file-not-found");
    server.shut_down().await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_up_its_own_errand_and_no_other() {
    let (server, mut node, client, id) = scene().await;
    let query = exec(&["yes"]);
    let mut stuck = Vec::new();
    // More of them than the windows of a connection had room for if they were one.
    for _ in 0..24 {
        let answering = async {
            let (errand, _) = asked(&mut node).await;
            errand.begin().await;
            errand
        };
        let (socket, errand) = tokio::join!(client.exec(&id, &query), answering);
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&sent);
        server.tasks.spawn("flood", async move {
            let Errand {
                says,
                hears: _hears,
            } = errand;
            loop {
                let piece = frame(bulk_frame::Frame::Bytes(vec![7; 16 * 1024]));
                if says.send(piece).await.is_err() {
                    return;
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        stuck.push((socket.expect("it begins"), sent));
    }
    // Each is stuck once what it has sent does not grow any more, which it does far below what it would send.
    let count = |stuck: &[(_, Arc<AtomicUsize>)]| -> usize {
        stuck.iter().map(|it| it.1.load(Ordering::Relaxed)).sum()
    };
    let mut last = usize::MAX;
    while count(&stuck) != last {
        last = count(&stuck);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(
        last < 24 * 2_000,
        "what nobody reads is not held: {last} pieces"
    );
    // Beats are answered, and another errand goes all the way.
    for sequence in 1..=3 {
        node.beat(sequence, 0).await;
        loop {
            match node.hear().await {
                server_message::Message::BeatAck(ack) if ack.sequence == sequence => break,
                server_message::Message::BeatAck(_) | server_message::Message::Resend(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let answering = async {
        let (errand, _) = asked(&mut node).await;
        errand.begin().await;
        errand.say(bulk_frame::Frame::Bytes(b"here".to_vec())).await;
        errand
    };
    let (socket, _errand) = tokio::join!(client.exec(&id, &query), answering);
    let (_says, mut hears) = socket.expect("it begins");
    assert_eq!(
        hears.next().await.expect("told"),
        marked(output::STDOUT, "here")
    );
    drop(stuck);
    server.shut_down().await;
}
