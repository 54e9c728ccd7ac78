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
        let text = line.flat();
        match line.level {
            Level::Debug => tracing::debug!("{text}"),
            Level::Info => tracing::info!("{text}"),
            Level::Warn => tracing::warn!("{text}"),
            Level::Error => tracing::error!("{text}"),
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

    /// The text with its fields behind it: `registered node=a`.
    fn flat(&self) -> String {
        let mut flat = self.text.clone();
        for (key, value) in &self.fields {
            flat.push_str(&format!(" {key}={value}"));
        }
        flat
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_behind_the_text() {
        let line = Line::new(Level::Info, "registered")
            .with("node", "a")
            .with("lease", 3);
        assert_eq!(line.flat(), "registered node=a lease=3");
    }
}
