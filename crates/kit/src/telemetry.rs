//! Logs: one subscriber for the process, to stderr, so that stdout stays for data.

use std::io::IsTerminal as _;

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

/// Puts another filter in the place of the subscriber's.
type Change = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static CHANGE: OnceLock<Change> = OnceLock::new();

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
            let builder = builder.with_ansi(colour).with_target(false);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let change: Change = Box::new(move |filter| handle.reload(filter).is_ok());
            builder.try_init().map(|()| change)
        }
        Format::Json => {
            let builder = builder.json().flatten_event(true);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let change: Change = Box::new(move |filter| handle.reload(filter).is_ok());
            builder.try_init().map(|()| change)
        }
    };
    match installed {
        // The process has one subscriber, so there is one way to change it.
        Ok(change) => drop(CHANGE.set(change)),
        Err(_) => tracing::debug!("a subscriber is installed already"),
    }
}

/// Whether text is a filter in `tracing`'s directive language.
#[must_use]
pub fn is_filter(filter: &str) -> bool {
    EnvFilter::try_new(filter).is_ok()
}

/// Logs by another filter from now on, and says whether it does: not if the text is no filter, nor where
/// [`install`] has installed nothing.
pub fn change_filter(filter: &str) -> bool {
    match (CHANGE.get(), EnvFilter::try_new(filter)) {
        (Some(change), Ok(filter)) => change(filter),
        _ => false,
    }
}
