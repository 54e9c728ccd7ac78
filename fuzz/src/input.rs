//! How an input is written. Requests are separated by a line `--`:
//!
//! ```text
//! LISTENER METHOD PATH
//! header: value
//!
//! BODY
//! ```
//!
//! Of a gRPC call the first line is `LISTENER PATH`, and what follows are its messages, separated by a line `==`.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::message;

/// Puts what this run knows in the place of the words that stand for it.
pub(crate) fn fill(input: &[u8], words: &[(String, String)]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(input.len());
    let mut rest = input;
    while let [first, behind @ ..] = rest {
        let known = words
            .iter()
            .find(|(word, _)| rest.starts_with(word.as_bytes()));
        match known {
            Some((word, value)) if *first == b'{' => {
                filled.extend_from_slice(value.as_bytes());
                rest = &rest[word.len()..];
            }
            _ => {
                filled.push(*first);
                rest = behind;
            }
        }
    }
    filled
}

/// The requests of an input; what makes none is left out.
pub fn asks(input: &[u8]) -> Vec<(String, Request<Body>)> {
    pieces(input, b"\n--\n").filter_map(request).collect()
}

/// The gRPC calls of an input.
pub fn calls(input: &[u8]) -> Vec<(String, Request<Body>)> {
    pieces(input, b"\n--\n").filter_map(call).collect()
}

/// Splits at a separator, of which each may hold only a few.
pub(crate) fn pieces<'a>(input: &'a [u8], separator: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    const MOST: usize = 8;
    let mut rest = Some(input);
    std::iter::from_fn(move || {
        let whole = rest?;
        let (piece, behind) = split(whole, separator);
        rest = behind;
        Some(piece)
    })
    .take(MOST)
}

pub(crate) fn split<'a>(whole: &'a [u8], separator: &[u8]) -> (&'a [u8], Option<&'a [u8]>) {
    let at = whole
        .windows(separator.len())
        .position(|it| it == separator);
    match at {
        Some(at) => (&whole[..at], Some(&whole[at + separator.len()..])),
        None => (whole, None),
    }
}

fn request(text: &[u8]) -> Option<(String, Request<Body>)> {
    let (head, body) = split(text, b"\n\n");
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(3, |byte| *byte == b' ');
    let listener = String::from_utf8_lossy(first.next()?).into_owned();
    let method = Method::from_bytes(first.next()?).ok()?;
    let uri = Uri::try_from(first.next()?).ok()?;
    let mut request = Request::new(Body::from(body.unwrap_or_default().to_vec()));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    for line in lines {
        let (name, value) = split(line, b":");
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    Some((listener, request))
}

fn call(text: &[u8]) -> Option<(String, Request<Body>)> {
    let (first, messages) = split(text, b"\n");
    let (listener, path) = split(first, b" ");
    let mut request = Request::new(Body::from(framed(messages.unwrap_or_default())?));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::try_from(path?).ok()?;
    let headers = request.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    Some((String::from_utf8_lossy(listener).into_owned(), request))
}

/// Messages as gRPC sends them, each behind its length.
pub(crate) fn framed(messages: &[u8]) -> Option<Vec<u8>> {
    let mut framed = Vec::new();
    for message in pieces(messages, b"\n==\n") {
        let message = message::encode(message);
        framed.push(0);
        framed.extend(u32::try_from(message.len()).ok()?.to_be_bytes());
        framed.extend(message);
    }
    Some(framed)
}
