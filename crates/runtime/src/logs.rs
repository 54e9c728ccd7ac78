//! Log lines and what one can ask of them. Drivers that keep their own files write one line per record:
//!
//! ```text
//! 2026-01-31T08:00:00.123Z stdout F the text of the line
//! 2026-01-31T08:00:00.124Z stderr P the first part of a line longer than MAX_LINE
//! ```
//!
//! This is the form that container log readers know (CRI): time, stream, full or partial, text.

use hostler_model::Timestamp;

/// The longest text of one record; longer lines are split into partial ones.
pub const MAX_LINE: usize = 16 * 1024;

/// One line of a unit's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub at: Timestamp,
    pub stream: Stream,
    /// Without the line break. Bytes that are no UTF-8 are shown as replacement characters.
    pub text: String,
    /// More of the same line follows.
    pub is_partial: bool,
    /// Which run wrote it, from 1.
    pub run: u32,
}

/// Where a line came from. `Notice` lines are Hostler's own, such as a gap that is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
    Notice,
}

/// Which run's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Run {
    #[default]
    Latest,
    /// The run before the latest.
    Previous,
}

/// What to read of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    pub run: Run,
    /// Only the last so many lines; none means all that is kept.
    pub tail: Option<usize>,
    /// Only lines at or after this moment.
    pub since: Option<Timestamp>,
    /// Go on with what is still to be written, across restarts of the unit, until it is removed.
    pub follow: bool,
}
