//! The way out: opens byte streams to the control plane. A seam, so that simulations bring their own network.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::StartError;

/// A connected stream of bytes.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// Opens byte streams to the control plane. The caller bounds the time.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>>;
}

/// Plain TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDial;

#[async_trait]
impl Dial for TcpDial {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Where the control plane is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Server {
    /// Reads `http://host:port`.
    pub(crate) fn parse(server: &str) -> Result<Self, StartError> {
        let refused = |reason: &str| StartError::Server {
            server: server.to_owned(),
            reason: reason.to_owned(),
        };
        let uri: http::Uri = server.parse().map_err(|_| refused("it is no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(refused("the scheme is not http"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refused("it has a path"));
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| refused("it names no host"))?;
        let port = uri.port_u16().ok_or_else(|| refused("it names no port"))?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Self { host, port })
    }

    /// The origin for requests; brackets around an IPv6 address.
    pub(crate) fn origin(&self) -> String {
        if self.host.contains(':') {
            format!("http://[{}]:{}", self.host, self.port)
        } else {
            format!("http://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080),
            ("http://fleet.example:80/", "fleet.example", 80),
            ("http://[::1]:9", "::1", 9),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!((server.host.as_str(), server.port), (host, port), "{text}");
            assert_eq!(server.origin(), text.trim_end_matches('/'));
        }
        for text in [
            "",
            "fleet",
            "fleet:80",
            "http://fleet",
            "https://a:1",
            "http://a:1/b",
            "ftp://a:1",
        ] {
            let refused = Server::parse(text).unwrap_err().to_string();
            assert!(refused.contains("http://host:port"), "{text}: {refused}");
        }
    }
}
