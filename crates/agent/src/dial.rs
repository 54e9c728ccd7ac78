//! The way out: opens byte streams to the control plane. A seam, so that simulations bring their own network.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use hostler_kit::trust::ClientTls;
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
    /// What stands before every path; empty but for a control plane behind a shared front.
    pub(crate) prefix: String,
    pub(crate) transport: Transport,
}

/// What is spoken below the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    /// TLS; nobody is believed until it is said whom.
    Tls(Option<ClientTls>),
}

/// The protocols that are offered below TLS.
pub(crate) const HTTP_1: &[&[u8]] = &[b"http/1.1"];
pub(crate) const HTTP_2: &[&[u8]] = &[b"h2"];

impl Server {
    /// Reads `http://host:port`.
    pub(crate) fn parse(server: &str) -> Result<Self, StartError> {
        let read = Self::read(server)?;
        match read {
            (server, true) if server.prefix.is_empty() => Ok(server),
            (_, false) => Err(refused(server, "it names no port")),
            (_, true) => Err(refused(server, "it has a path")),
        }
    }

    /// Reads a base URL as contracts over plain HTTP write it: the port may be left out, and there may be a path.
    pub(crate) fn parse_base(server: &str) -> Result<Self, StartError> {
        Self::read(server).map(|(server, _)| server)
    }

    /// Answers also whether a port was named.
    fn read(server: &str) -> Result<(Self, bool), StartError> {
        let refused = |reason: &str| refused(server, reason);
        let uri: http::Uri = server.parse().map_err(|_| refused("it is no URL"))?;
        let (transport, usual_port) = match uri.scheme_str() {
            Some("http") => (Transport::Plain, 80),
            Some("https") => (Transport::Tls(None), 443),
            _ => return Err(refused("the scheme is neither http nor https")),
        };
        if uri.query().is_some() {
            return Err(refused("it has a query"));
        }
        if uri
            .authority()
            .is_some_and(|whole| whole.as_str().contains('@'))
        {
            return Err(refused("it carries a login"));
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| refused("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16();
        let read = Self {
            host: host.to_owned(),
            port: port.unwrap_or(usual_port),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            transport,
        };
        Ok((read, port.is_some()))
    }

    /// Host and port; brackets around an IPv6 address.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether TLS is spoken.
    pub(crate) const fn is_secure(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// The same, believing and showing this where TLS is spoken.
    pub(crate) fn with_tls(mut self, tls: ClientTls) -> Self {
        if self.is_secure() {
            self.transport = Transport::Tls(Some(tls));
        }
        self
    }

    /// Opens a connection for one of these protocols. The caller bounds the time.
    pub(crate) async fn open(
        &self,
        dial: &Arc<dyn Dial>,
        protocols: &[&[u8]],
    ) -> io::Result<Box<dyn ByteStream>> {
        let stream = dial.dial(&self.host, self.port).await?;
        match &self.transport {
            Transport::Plain => Ok(stream),
            Transport::Tls(None) => Err(io::Error::other("nothing says whom to believe there")),
            Transport::Tls(Some(tls)) => {
                let secured = tls.connect(&self.host, stream, protocols).await?;
                Ok(Box::new(secured))
            }
        }
    }

    /// The origin for requests.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.is_secure() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// What a person would type before a path.
    pub(crate) fn base(&self) -> String {
        format!("{}{}", self.origin(), self.prefix)
    }
}

fn refused(server: &str, reason: &str) -> StartError {
    StartError::Server {
        server: server.to_owned(),
        reason: reason.to_owned(),
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
            "http://a:1/b",
            "ftp://a:1",
        ] {
            let refused = Server::parse(text).unwrap_err().to_string();
            assert!(refused.contains("http://host:port"), "{text}: {refused}");
        }
    }

    #[test]
    fn a_base_may_leave_the_port_out_and_have_a_path() {
        for (text, base) in [
            ("http://plane", "http://plane:80"),
            ("http://plane:8080/", "http://plane:8080"),
            ("http://plane/miaas/", "http://plane:80/miaas"),
            ("http://[::1]:9/a/b", "http://[::1]:9/a/b"),
            ("https://plane", "https://plane:443"),
        ] {
            assert_eq!(Server::parse_base(text).unwrap().base(), base, "{text}");
        }
        for (text, reason) in [
            ("http://ada:secret@plane", "it carries a login"),
            ("http://plane?x", "it has a query"),
            ("plane:80", "the scheme is neither http nor https"),
        ] {
            let refused = Server::parse_base(text).unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
