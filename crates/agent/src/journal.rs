//! The journal: what the agent of a foreign contract says in that contract's own words, because people and programs
//! look for them. Our own log goes its own way, beside it.
//!
//! The agent writes lines; whoever composes the program decides where they go and how they look. Nothing here fails.

use std::fmt;
use std::sync::Arc;

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub level: Level,
    pub text: String,
    /// More about it, by key, for forms that have room for it.
    pub fields: Vec<(&'static str, String)>,
}

/// Where lines go.
pub trait Journal: fmt::Debug + Send + Sync + 'static {
    fn write(&self, line: &Line);
}

/// To our own log.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToLog;

impl Journal for ToLog {
    fn write(&self, line: &Line) {
        let Line {
            level,
            text,
            fields,
        } = line;
        match level {
            Level::Debug => tracing::debug!(?fields, "{text}"),
            Level::Info => tracing::info!(?fields, "{text}"),
            Level::Warn => tracing::warn!(?fields, "{text}"),
            Level::Error => tracing::error!(?fields, "{text}"),
        }
    }
}

impl Line {
    /// A line without fields.
    pub fn new(level: Level, text: impl Into<String>) -> Self {
        Self {
            level,
            text: text.into(),
            fields: Vec::new(),
        }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.fields.push((key, value.to_string()));
        self
    }
}

/// The short way to write lines, for uplinks.
#[derive(Debug, Clone)]
pub(crate) struct Pen(pub(crate) Arc<dyn Journal>);

impl Pen {
    pub(crate) fn write(&self, line: Line) {
        self.0.write(&line);
    }

    pub(crate) fn debug(&self, text: impl Into<String>) {
        self.write(Line::new(Level::Debug, text));
    }

    pub(crate) fn info(&self, text: impl Into<String>) {
        self.write(Line::new(Level::Info, text));
    }

    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.write(Line::new(Level::Warn, text));
    }

    pub(crate) fn error(&self, text: impl Into<String>) {
        self.write(Line::new(Level::Error, text));
    }
}
