//! A server on a loopback port: one prepared answer per connection, in order; it keeps the requests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

pub(crate) struct Canned {
    pub(crate) addr: String,
    thread: JoinHandle<Vec<String>>,
}

impl Canned {
    /// Serves the answers, then stops.
    pub(crate) fn serve(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address").to_string();
        let thread = std::thread::spawn(move || {
            let answer = |text: String| {
                let (mut connection, _) = listener.accept().expect("a connection");
                let request = read_request(&connection);
                connection
                    .write_all(text.as_bytes())
                    .expect("the client reads");
                request
            };
            answers.into_iter().map(answer).collect()
        });
        Self { addr, thread }
    }

    /// The requests, head and body, after all answers are given.
    pub(crate) fn requests(self) -> Vec<String> {
        self.thread.join().expect("the server ends well")
    }
}

/// An answer of this status, content type and body.
pub(crate) fn answer(status: &str, kind: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
         content-length: {length}\r\n{more}\r\n{body}"
    )
}

/// A JSON answer with status 200.
pub(crate) fn json(body: &str) -> String {
    answer("200 OK", "application/json", "", body)
}

fn read_request(connection: &TcpStream) -> String {
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).expect("a line of the head");
    }
    let length = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    head + &String::from_utf8_lossy(&body)
}
