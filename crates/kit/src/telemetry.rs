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
    let filter = read(filter).unwrap_or_else(|| quieted(EnvFilter::new("info")));
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
    match (CHANGE.get(), read(filter)) {
        (Some(change), Some(filter)) => change(filter),
        _ => false,
    }
}

/// What is logged by; none if the text is no filter.
fn read(filter: &str) -> Option<EnvFilter> {
    EnvFilter::try_new(filter).ok().map(quieted)
}

/// The engine's client prints whole requests when it is asked to, and those may hold secrets: it is never asked.
fn quieted(filter: EnvFilter) -> EnvFilter {
    match "bollard::docker=info".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
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
    fn requests_to_the_engine_are_not_logged_however_loud_the_log_is() {
        for filter in ["trace", "bollard=trace", "bollard::docker=trace,info"] {
            let written = Written::default();
            let writer = written.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(quieted(EnvFilter::new(filter)))
                .with_writer(move || writer.clone())
                .finish();
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
