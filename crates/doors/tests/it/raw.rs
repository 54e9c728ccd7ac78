//! HTTP as text over a socket, so that a conversation is what its documents show, and nothing is made nicer by a
//! client.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::DEADLINE;

/// What came back, with the names of headers in lower case.
#[derive(Debug)]
pub(crate) struct Said {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// Says a request to that address. The text is its first line, its headers, and behind an empty line its body; what
/// every request needs is added.
pub(crate) async fn say(addr: &str, text: &str) -> Said {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let head = head.trim().replace('\n', "\r\n");
    let length = match body {
        "" => String::new(),
        body => format!("content-length: {}\r\n", body.len()),
    };
    let begun = first_line(&head);
    let request = format!("{begun}host: {addr}\r\nconnection: close\r\n{length}\r\n{body}");
    let answer = tokio::time::timeout(DEADLINE, async {
        let mut stream = TcpStream::connect(addr).await.expect("it listens");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("it answers");
        answer
    });
    let answer = answer.await.expect("it answers in time");
    read(&String::from_utf8(answer).expect("text"))
}

/// The request line with the version, and the headers behind it.
fn first_line(head: &str) -> String {
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    match headers {
        "" => format!("{line} HTTP/1.1\r\n"),
        headers => format!("{line} HTTP/1.1\r\n{headers}\r\n"),
    }
}

fn read(answer: &str) -> Said {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<_, _> = headers
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let is_chunked = headers
        .get("transfer-encoding")
        .is_some_and(|it| it == "chunked");
    Said {
        status: status.and_then(|it| it.parse().ok()).expect("a status"),
        body: if is_chunked {
            joined(body)
        } else {
            body.to_owned()
        },
        headers,
    }
}

fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        body.push_str(&rest[..size]);
        chunks = rest[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    body
}

impl Said {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Asserts the status, and gives the body on.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Asserts that the body has those keys.
    #[track_caller]
    pub(crate) fn has(&self, keys: &[&str]) -> Value {
        let json = self.json();
        for key in keys {
            assert!(json.get(key).is_some(), "{key} in {json}");
        }
        json
    }
}
