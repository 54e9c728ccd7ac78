//! What the libraries below Hostler cost by themselves: the least program with the same wire, served by the
//! harness in a process of its own.

mod http;
mod stream;

use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::bench::Bench;
use crate::cores::Core;
use crate::spawned::Spawned;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Baseline {
    /// A trivial axum handler: takes a body, answers a small JSON object.
    Http,
    /// A trivial tonic server of the session contract: greets, then answers every beat. Decides and keeps
    /// nothing.
    Stream,
}

/// A baseline that serves on the first core.
pub(crate) struct Served {
    pub(crate) process: Spawned,
    pub(crate) url: String,
    _dir: TempDir,
}

impl Served {
    pub(crate) fn start(bench: &Bench, which: Baseline) -> Result<Self> {
        let dir = bench.scratch()?;
        let mut command = Command::new(std::env::current_exe()?);
        let word = which.to_possible_value();
        command
            .arg("baseline")
            .args(word.as_ref().map(clap::builder::PossibleValue::get_name));
        let process = Spawned::start(command, Core::Server, dir.path())?;
        let url = process.told("listening on ")?;
        Ok(Self {
            process,
            url,
            _dir: dir,
        })
    }
}

/// Serves until the process is ended.
pub(crate) fn serve(which: Baseline) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        match which {
            Baseline::Http => http::serve(listener).await,
            Baseline::Stream => stream::serve(listener).await,
        }
    })
}
