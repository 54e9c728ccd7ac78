//! Logs: one subscriber for the process, to stderr, so that stdout stays for data.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the process's subscriber. `filter` is in `tracing`'s directive language, such as `info` or
/// `hostler=debug,warn`; text that is none falls back to `info`. A second call does nothing.
pub fn install(filter: &str, format: Format) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match format {
        Format::Text => {
            let colour = std::io::stderr().is_terminal();
            builder.with_ansi(colour).with_target(false).try_init()
        }
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("a subscriber is installed already");
    }
}
