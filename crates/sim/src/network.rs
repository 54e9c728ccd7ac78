//! The simulated network behind the seams of both sides: the agent's [`Dial`] and the listener's [`Accept`].
//! Owns nothing but the listening socket. What fails is what turmoil makes fail.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use hostler_agent::{ByteStream, Dial};
use hostler_doors::Accept;
use turmoil::net::{TcpListener, TcpStream};

/// The way out of a simulated host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SimDial;

/// The way into one.
pub(crate) struct SimAccept(pub(crate) TcpListener);

#[async_trait]
impl Dial for SimDial {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>> {
        let stream = TcpStream::connect((host, port)).await?;
        Ok(Box::new(stream))
    }
}

impl Accept for SimAccept {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}
