//! Words of the log's records, which `capture` writes and the driver's journal reads.

/// The longest text of one record; longer lines are split into partial ones.
pub const MAX_LINE: usize = 16 * 1024;

/// Where a line came from. `Notice` lines are Hostler's own, such as a gap that is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
    Notice,
}

impl Stream {
    /// The word for it in records and on every wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Notice => "notice",
        }
    }

    /// Reads the word; none for any other.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Stdout, Self::Stderr, Self::Notice]
            .into_iter()
            .find(|it| it.as_str() == word)
    }
}
