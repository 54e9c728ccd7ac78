//! Logs: one subscriber for the process, to stderr, so that stdout stays for data.

use std::io::IsTerminal as _;

use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{fmt, reload};

/// Puts another filter in the place of the subscriber's.
type Change = Box<dyn Fn(Targets) -> bool + Send + Sync>;

static CHANGE: OnceLock<Change> = OnceLock::new();

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the process's subscriber. `filter` names levels for all and for targets, such as `info` or
/// `hostler=debug,warn`; text that is none falls back to `info` and is told. A second call does nothing.
pub fn install(filter: &str, format: Format) {
    let wanted = read(filter);
    let is_filter = wanted.is_some();
    let usual = || quieted(Targets::new().with_default(LevelFilter::INFO));
    let (wanted, handle) = reload::Layer::new(wanted.unwrap_or_else(usual));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        Format::Text => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(wanted).with(lines);
    match subscriber.try_init() {
        Ok(()) => {
            // The process has one subscriber, so there is one way to change it.
            drop(CHANGE.set(Box::new(move |filter| handle.reload(filter).is_ok())));
            if !is_filter {
                tracing::warn!(
                    filter,
                    "this names no levels by target: the log is as with `info`"
                );
            }
        }
        Err(_) => tracing::debug!("a subscriber is installed already"),
    }
}

/// Whether text is a filter.
#[must_use]
pub fn is_filter(filter: &str) -> bool {
    read(filter).is_some()
}

/// Logs by another filter from now on, and says whether it does: not if the text is no filter, nor where
/// [`install`] has installed nothing.
pub fn change_filter(filter: &str) -> bool {
    match (CHANGE.get(), read(filter)) {
        (Some(change), Some(filter)) => change(filter),
        _ => false,
    }
}

/// What is logged by; none if the text is no filter. One that names spans or fields is none: the parser would take them
/// for a part of the target, or put them beside what is [`quieted`].
fn read(filter: &str) -> Option<Targets> {
    if filter.contains('[') {
        return None;
    }
    let parts = filter.split(',').map(str::trim);
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(",").parse().ok().map(quieted)
}

/// The engine's client prints whole requests when it is asked to, and those may hold secrets: it is never asked.
fn quieted(filter: Targets) -> Targets {
    filter.with_target("bollard::docker", LevelFilter::INFO)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_filter_that_comes_later_leaves_requests_to_the_engine_out_as_well() {
        let kept = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&kept);
        let change: Change = Box::new(move |filter| {
            *told.lock().unwrap() = filter.to_string().to_lowercase();
            true
        });
        assert!(CHANGE.set(change).is_ok());
        for filter in ["trace", "bollard::docker=trace,info"] {
            assert!(change_filter(filter));
            let kept = kept.lock().unwrap();
            assert!(kept.contains("bollard::docker=info"), "{filter}: {kept}");
            assert!(!kept.contains("bollard::docker=trace"), "{filter}: {kept}");
        }
        assert!(!change_filter("hostler=loud=very"));
    }

    #[test]
    fn spans_and_fields_make_no_filter() {
        for filter in [
            "hostler[session]=debug",
            "bollard::docker[{message}]=trace",
            "info,bollard::docker[{message}]=trace",
            "[{message}]=trace",
        ] {
            assert!(!is_filter(filter), "{filter}");
            assert!(!change_filter(filter), "{filter}");
        }
        assert!(is_filter("hostler_doors::session=debug,warn"));
    }

    #[test]
    fn requests_to_the_engine_are_not_logged_however_loud_the_log_is() {
        for filter in ["trace", "bollard=trace", "bollard::docker=trace,info"] {
            let written = Written::default();
            let writer = written.clone();
            let lines = fmt::layer().with_writer(move || writer.clone());
            let subscriber = tracing_subscriber::registry()
                .with(read(filter).unwrap())
                .with(lines);
            tracing::subscriber::with_default(subscriber, || {
                tracing::debug!(target: "bollard::docker", "canary");
                tracing::info!(target: "hostler", "told");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert!(!text.contains("canary"), "{filter}: {text}");
            assert_eq!(
                text.contains("told"),
                filter != "bollard=trace",
                "{filter}: {text}"
            );
        }
    }
}
