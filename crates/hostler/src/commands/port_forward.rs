//! `port-forward`: ports of a copy on this machine, for as long as the command runs. Each connection is a tunnel of
//! its own, to the copy that runs when it begins; one that fails is told and ends none of the others.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hostler_wire::api::{ErrandWord, ForwardQuery};
use hostler_wire::client::{ErrandMessage, ErrandReceiver, ErrandSender};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::{Remote, copy};
use crate::args::PortForwardArgs;
use crate::failure::Failure;
use crate::status::ExitStatus;

/// Connections at once; more wait to be taken.
const MOST_CONNECTIONS: usize = 128;
/// Bytes that are taken at once.
const PIECE: usize = 16 * 1024;

pub(crate) async fn port_forward(
    remote: &Remote<'_>,
    args: PortForwardArgs,
) -> Result<ExitStatus, Failure> {
    // Whoever does not exist is told at once, not at the first connection.
    copy::pick(remote, &args.workload, args.copy.slot).await?;
    let mut listeners = Vec::new();
    for &(local, port) in &args.ports {
        let listener = listen(args.bind, local).await?;
        if let Ok(address) = listener.local_addr() {
            let workload = &args.workload;
            remote
                .printer
                .talk(&format!("{address} is port {port} of {workload}"));
        }
        listeners.push((listener, port));
    }
    let (remote, args) = (&remote, &args);
    let mut connections = FuturesUnordered::new();
    loop {
        let has_room = connections.len() < MOST_CONNECTIONS;
        // A connection that was not taken waits in its listener.
        tokio::select! {
            (connection, port) = accept(&listeners), if has_room => connections.push(async move {
                if let Err(failure) = serve(remote, args, connection, port).await {
                    remote.printer.failure(&failure);
                }
            }),
            Some(()) = connections.next() => {}
        }
    }
}

async fn listen(address: IpAddr, port: u16) -> Result<TcpListener, Failure> {
    let address = SocketAddr::new(address, port);
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(
            ExitStatus::PortTaken,
            format!("cannot listen on {address}: {error}"),
            "choose another port of this machine, as in 8080:80",
        )
    })
}

async fn accept(listeners: &[(TcpListener, u16)]) -> (TcpStream, u16) {
    let mut accepting: FuturesUnordered<_> = listeners
        .iter()
        .map(async |(listener, port)| {
            loop {
                match listener.accept().await {
                    Ok((connection, _)) => return (connection, *port),
                    // Too many files are open; some will be closed.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                }
            }
        })
        .collect();
    match accepting.next().await {
        Some(accepted) => accepted,
        None => std::future::pending().await,
    }
}

async fn serve(
    remote: &Remote<'_>,
    args: &PortForwardArgs,
    connection: TcpStream,
    port: u16,
) -> Result<(), Failure> {
    let copy = copy::pick(remote, &args.workload, args.copy.slot).await?;
    let query = ForwardQuery {
        port,
        part: args.copy.part.clone(),
    };
    let (sender, receiver) = remote.client.forward(&copy.id, &query).await?;
    let (read, write) = connection.into_split();
    // What is said ends when the other side is told that no more comes; what is heard ends with the tunnel.
    tokio::select! {
        biased;
        ended = hear(receiver, write) => ended,
        never = say(read, sender) => match never {},
    }
}

/// Hands on what the connection sends.
async fn say(mut read: OwnedReadHalf, mut sender: ErrandSender) -> std::convert::Infallible {
    let mut piece = vec![0; PIECE];
    loop {
        match read.read(&mut piece).await {
            Ok(count @ 1..) => {
                let bytes = Bytes::copy_from_slice(piece.get(..count).unwrap_or_default());
                if sender.bytes(bytes).await.is_err() {
                    break;
                }
            }
            Ok(0) | Err(_) => {
                let _ = sender.word(&ErrandWord::EndOfBytes).await;
                break;
            }
        }
    }
    // How the tunnel ended is told to who hears.
    std::future::pending().await
}

/// Hands on what the copy sends.
async fn hear(mut receiver: ErrandReceiver, mut write: OwnedWriteHalf) -> Result<(), Failure> {
    while let Some(message) = receiver.next().await? {
        match message {
            // Whoever connected has gone; the tunnel goes with this.
            ErrandMessage::Bytes(bytes) if write.write_all(&bytes).await.is_err() => return Ok(()),
            ErrandMessage::Word(ErrandWord::EndOfBytes) if write.shutdown().await.is_err() => {
                return Ok(());
            }
            ErrandMessage::Bytes(_) | ErrandMessage::Word(_) => {}
        }
    }
    Ok(())
}
