//! Tells HTTP/1.1 and HTTP/2 apart by the first bytes of a connection, and gives those bytes back to
//! whoever reads next. The caller bounds the wait.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What every HTTP/2 connection with prior knowledge begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    One,
    Two,
}

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub(super) struct Rewound<S> {
    first: Bytes,
    stream: S,
}

/// The first byte of every TLS connection: its record is a handshake.
pub(super) const HANDSHAKE: u8 = 0x16;

/// Reads what comes first, whatever it is.
///
/// # Errors
/// The stream ended or broke before that.
pub(super) async fn first<S>(stream: &mut S) -> io::Result<Bytes>
where
    S: AsyncRead + Unpin,
{
    let mut first = BytesMut::with_capacity(1024);
    if stream.read_buf(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(first.freeze())
}

/// A refusal of the whole connection in the version that its first bytes begin: an answer of HTTP/1.1, or an end of HTTP/2
/// for want of security, whose clients show the words it carries.
pub(super) fn refusal(first: &[u8], words: &str) -> Vec<u8> {
    const HEAD: &str =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n";
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// Behind the length: GOAWAY, no flags, of the connection; no stream was looked at; INADEQUATE_SECURITY.
    const GOAWAY: [u8; 14] = [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc];
    const FIXED: usize = 8;
    if !first.starts_with(&PREFACE[..4]) {
        return [HEAD, words].concat().into_bytes();
    }
    let words = words.trim_end().as_bytes();
    let length = u32::try_from(FIXED + words.len())
        .unwrap_or(0)
        .to_be_bytes();
    [&SETTINGS[..], &length[1..], &GOAWAY, words].concat()
}

/// Reads until the bytes are HTTP/2's preface or cannot become it.
///
/// # Errors
/// The stream ended or broke before that.
pub(super) async fn sniff<S>(stream: &mut S) -> io::Result<(Protocol, Bytes)>
where
    S: AsyncRead + Unpin,
{
    let mut first = BytesMut::with_capacity(256);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let seen = first.len().min(PREFACE.len());
        if first[..seen] != PREFACE[..seen] {
            return Ok((Protocol::One, first.freeze()));
        }
        if seen == PREFACE.len() {
            return Ok((Protocol::Two, first.freeze()));
        }
    }
}

impl<S> Rewound<S> {
    pub(super) const fn new(first: Bytes, stream: S) -> Self {
        Self { first, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        if self.first.is_empty() {
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_preface_in_pieces_is_http_2_and_is_given_back() {
        let pieces = [&PREFACE[..1], &PREFACE[1..20], &PREFACE[20..], b"more"];
        let mut stream = stream_of(&pieces).await;
        let (protocol, first) = sniff(&mut stream).await.unwrap();
        assert_eq!(protocol, Protocol::Two);
        let mut all = Vec::new();
        Rewound::new(first, stream)
            .read_to_end(&mut all)
            .await
            .unwrap();
        assert_eq!(all, [PREFACE, b"more"].concat());
    }

    #[test]
    fn a_refusal_speaks_the_version_that_it_is_asked_in() {
        assert_eq!(
            refusal(b"GET / HTTP/1.1\r\n", "no\n"),
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nno\n"
        );
        assert_eq!(
            refusal(PREFACE, "no\n"),
            b"\0\0\0\x04\0\0\0\0\0\0\0\x0a\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cno"
        );
    }

    #[tokio::test]
    async fn anything_else_is_http_1_even_if_it_begins_alike() {
        let mut stream = stream_of(&[b"P", b"OST / HTTP/1.1\r\n"]).await;
        let (protocol, first) = sniff(&mut stream).await.unwrap();
        assert_eq!((protocol, first.first()), (Protocol::One, Some(&b'P')));
    }

    #[tokio::test]
    async fn a_connection_that_ends_at_once_is_an_error() {
        let mut stream = stream_of(&[]).await;
        assert!(sniff(&mut stream).await.is_err());
    }

    /// A stream that gives these pieces, one per read, and then ends.
    async fn stream_of(pieces: &[&[u8]]) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        use tokio::io::AsyncWriteExt as _;
        let (mut ours, theirs) = tokio::io::duplex(1024);
        for piece in pieces {
            ours.write_all(piece).await.unwrap();
        }
        theirs
    }
}
