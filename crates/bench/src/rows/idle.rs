//! C3: the server's memory per connection of HTTP/2 that has shaken hands and is idle, in plain text and with TLS.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::try_join_all;
use hostler_kit::trust::{Anchors, Authority, ClientTls};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::client_runtime;
use crate::bench::Bench;
use crate::cores::{self, Core};
use crate::meter;
use crate::plane::Server;
use crate::report::{Bound, Line, Nature, figure};

/// Begins HTTP/2: the words, and settings that set nothing.
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Until allocations have settled; the server asks whether they live only after ten.
const SETTLING: Duration = Duration::from_secs(3);
/// As many are opened at a time, which the kernel's queue holds.
const AT_ONCE: usize = 50;

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    let count = bench.sized(200, 2_000);
    let plain = held(&Server::start(bench)?, count, None)?;
    let server = Server::start_secured(bench)?;
    let authority = Authority::load(&server.data.join("trust/authority.pem"))?;
    let anchors = Anchors::Roots(authority.roots().to_vec());
    let secured = held(&server, count, Some(&ClientTls::new(&anchors, None)?))?;
    let line = |how: &str, value, limit| {
        let what = format!("server RSS per idle connection, {count} of them, {how}");
        Line::new("C3", what, Nature::Memory, figure(value, "KiB"), limit)
    };
    Ok(vec![
        line("plain text", plain, Bound::AtMost(20.0)),
        // The target names no limit for TLS; this one is to notice a leap.
        line("TLS", secured, Bound::AtMost(80.0)),
    ])
}

/// KiB for each connection while all of them are held.
fn held(server: &Server, count: usize, tls: Option<&ClientTls>) -> Result<f64> {
    let (_, addr) = server
        .url
        .split_once("://")
        .context("the server's address")?;
    let id = server.process.id();
    let measured = || {
        client_runtime()?.block_on(async {
            // What the first connections bring is not theirs alone.
            drop(open(addr, AT_ONCE, tls).await?);
            sleep(SETTLING).await;
            let before = meter::rss_mib(id)?;
            let mut connections = open(addr, count, tls).await?;
            sleep(SETTLING).await;
            let after = meter::rss_mib(id)?;
            all_open(&mut connections)?;
            Ok((after - before) * 1024.0 / count as f64)
        })
    };
    cores::on(Core::Client, measured)
}

/// A connection that the server has closed meanwhile would not have been measured.
fn all_open(connections: &mut [Box<dyn Stream>]) -> Result<()> {
    for stream in connections {
        while let Some(read) = stream.read(&mut [0; 256]).now_or_never() {
            ensure!(
                read? > 0,
                "opening them took so long that the server closed the first"
            );
        }
    }
    Ok(())
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn open(addr: &str, count: usize, tls: Option<&ClientTls>) -> Result<Vec<Box<dyn Stream>>> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = AT_ONCE.min(count - all.len());
        all.extend(try_join_all((0..some).map(|_| one(addr, tls))).await?);
    }
    Ok(all)
}

/// One that has begun, and read what the server begins with.
async fn one(addr: &str, tls: Option<&ClientTls>) -> Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(addr).await?;
    let mut stream: Box<dyn Stream> = match tls {
        Some(tls) => Box::new(tls.connect("127.0.0.1", stream, &[b"h2"]).await?),
        None => Box::new(stream),
    };
    stream.write_all(BEGINNING).await?;
    stream.flush().await?;
    let read = stream.read(&mut [0; 256]).await?;
    ensure!(read > 0, "the server closed a connection");
    Ok(stream)
}
