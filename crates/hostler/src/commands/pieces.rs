//! A line that is longer than a record comes in pieces; here it becomes one line again, per copy and stream.
//!
//! What is held back is bounded: a line that is too long for that is written as it comes, and whatever is
//! shown in between ends it. Pieces of one run are never joined with those of the next, nor across a gap.

use std::collections::BTreeMap;

use hostler_wire::api::{LogLine, LogStream};

/// Most bytes held back, over all copies.
const MOST: usize = 4 << 20;

/// Lines whose end has not come.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    begun: BTreeMap<Key, String>,
    held: usize,
    /// The line whose beginning was written because it is too long to be held back.
    open: Option<Key>,
}

/// Whose line it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    copy: String,
    is_error: bool,
    run: u32,
}

impl Pieces {
    /// What is to be written now that this has come; `head` stands once before each line.
    pub(super) fn take(&mut self, line: &LogLine, head: impl FnOnce() -> String) -> String {
        let key = Key {
            copy: line.copy.clone(),
            is_error: line.stream == LogStream::Stderr,
            run: line.run,
        };
        let former = self
            .end(|it| (&it.copy, it.is_error) == (&key.copy, key.is_error) && it.run != key.run);
        let is_open = self.open.as_ref() == Some(&key);
        let begun = self.begun.remove(&key);
        self.held -= begun.as_ref().map_or(0, String::len);
        let mut text = begun.unwrap_or_else(|| if is_open { String::new() } else { head() });
        text.push_str(&line.text);
        if line.partial && !is_open && self.held + text.len() <= MOST {
            self.held += text.len();
            self.begun.insert(key, text);
            return former;
        }
        let mut shown = former;
        if !is_open {
            shown.push_str(self.close());
        }
        shown.push_str(&text);
        if line.partial {
            self.open = Some(key);
        } else {
            self.open = None;
            shown.push('\n');
        }
        shown
    }

    /// What is to be written before a copy's notice: after a gap, what comes belongs to another line.
    pub(super) fn before_notice(&mut self, copy: &str) -> String {
        let mut shown = self.close().to_owned();
        shown.push_str(&self.end(|it| it.copy == copy));
        shown
    }

    /// What is to be written when nothing more comes.
    pub(super) fn rest(&mut self) -> String {
        let mut shown = self.close().to_owned();
        shown.push_str(&self.end(|_| true));
        shown
    }

    /// Ends those lines where they are.
    fn end(&mut self, is_meant: impl Fn(&Key) -> bool) -> String {
        let mut ended = String::new();
        if self.begun.keys().any(&is_meant) {
            ended.push_str(self.close());
            for (_, text) in self.begun.extract_if(.., |key, _| is_meant(key)) {
                self.held -= text.len();
                ended.push_str(&text);
                ended.push('\n');
            }
        }
        ended
    }

    /// Ends the line that is on the screen.
    fn close(&mut self) -> &'static str {
        if self.open.take().is_some() { "\n" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(copy: &str, text: &str) -> LogLine {
        LogLine {
            at: String::new(),
            stream: LogStream::Stdout,
            text: text.to_owned(),
            partial: true,
            run: 1,
            slot: 0,
            copy: copy.to_owned(),
        }
    }

    fn last(copy: &str, text: &str) -> LogLine {
        LogLine {
            partial: false,
            ..piece(copy, text)
        }
    }

    fn take(pieces: &mut Pieces, line: &LogLine) -> String {
        pieces.take(line, || format!("{} | ", line.copy))
    }

    #[test]
    fn pieces_of_copies_and_streams_that_interleave_become_lines_with_one_head_each() {
        let mut pieces = Pieces::default();
        let error = LogLine {
            stream: LogStream::Stderr,
            ..last("a", "oops")
        };
        assert_eq!(take(&mut pieces, &piece("a", "1")), "");
        assert_eq!(take(&mut pieces, &piece("b", "x")), "");
        assert_eq!(take(&mut pieces, &error), "a | oops\n");
        assert_eq!(take(&mut pieces, &piece("a", "2")), "");
        assert_eq!(take(&mut pieces, &last("b", "y")), "b | xy\n");
        assert_eq!(take(&mut pieces, &last("a", "3")), "a | 123\n");
        assert_eq!((pieces.held, pieces.rest().as_str()), (0, ""));
    }

    #[test]
    fn a_line_too_long_to_be_held_is_written_as_it_comes() {
        let mut pieces = Pieces::default();
        let half = "x".repeat(MOST / 2);
        assert_eq!(take(&mut pieces, &piece("a", &half)), "");
        let written = take(&mut pieces, &piece("a", &half));
        assert_eq!(written, format!("a | {half}{half}"));
        assert_eq!(pieces.held, 0);
        assert_eq!(take(&mut pieces, &piece("a", "more")), "more");
        assert_eq!(take(&mut pieces, &last("a", "end")), "end\n");
        assert_eq!(take(&mut pieces, &last("a", "next")), "a | next\n");
    }

    #[test]
    fn what_comes_in_between_ends_a_line_that_is_on_the_screen() {
        let mut pieces = Pieces::default();
        let whole = "x".repeat(MOST);
        assert!(take(&mut pieces, &piece("a", &whole)).ends_with('x'));
        assert_eq!(take(&mut pieces, &last("b", "y")), "\nb | y\n");
        assert_eq!(take(&mut pieces, &last("a", "z")), "a | z\n");
    }

    #[test]
    fn pieces_are_not_joined_with_another_run_nor_across_a_gap() {
        let mut pieces = Pieces::default();
        take(&mut pieces, &piece("a", "torn"));
        let next = LogLine {
            run: 2,
            ..last("a", "first")
        };
        assert_eq!(take(&mut pieces, &next), "a | torn\na | first\n");
        take(&mut pieces, &piece("a", "cut"));
        take(&mut pieces, &piece("b", "other"));
        assert_eq!(pieces.before_notice("a"), "a | cut\n");
        assert_eq!(pieces.rest(), "b | other\n");
        assert_eq!(pieces.held, 0);
    }
}
