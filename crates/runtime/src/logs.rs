//! Log lines and what one can ask of them. Drivers that keep their own files write one line per record:
//!
//! ```text
//! 2026-01-31T08:00:00.123Z stdout F the text of the line
//! 2026-01-31T08:00:00.124Z stderr P the first part of a line longer than MAX_LINE
//! ```
//!
//! This is the form that container log readers know (CRI): time, stream, full or partial, text.

use hostler_model::Timestamp;

pub use hostler_shim::line::{MAX_LINE, Stream};

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

impl LogLine {
    /// Reads a record, without its line break; none if it is torn.
    #[must_use]
    pub fn parse(record: &[u8], run: u32) -> Option<Self> {
        let record = String::from_utf8_lossy(record);
        let mut parts = record.splitn(4, ' ');
        let at = Timestamp::parse(parts.next()?)?;
        let stream = Stream::parse(parts.next()?)?;
        let is_partial = match parts.next()? {
            "F" => false,
            "P" => true,
            _ => return None,
        };
        Some(Self {
            at,
            stream,
            text: parts.next()?.to_owned(),
            is_partial,
            run,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_whole_and_torn_ones_are_none() {
        let line = LogLine::parse(b"2026-01-31T08:00:00.123Z stderr P two  words ", 4).unwrap();
        assert_eq!(
            (line.text.as_str(), line.stream),
            ("two  words ", Stream::Stderr)
        );
        assert!(line.is_partial && line.run == 4);
        assert_eq!(line.at.to_string(), "2026-01-31T08:00:00.123Z");
        let empty = LogLine::parse(b"2026-01-31T08:00:00.123Z stdout F ", 1).unwrap();
        assert_eq!(empty.text, "");
        for torn in [
            "",
            "2026-01-31T08:00:00.123Z stdout F",
            "00:00.123Z stdout F text",
        ] {
            assert_eq!(LogLine::parse(torn.as_bytes(), 1), None, "{torn}");
        }
    }
}
