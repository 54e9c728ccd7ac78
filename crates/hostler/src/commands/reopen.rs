//! Opening a broken stream again: told once per outage, with growing pauses.

use std::time::Duration;

use hostler_kit::{Backoff, SystemEntropy};

use crate::printer::Printer;

/// Between two tries.
const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(5);

/// How it stands with a stream that is to last.
pub(crate) struct Reopening {
    backoff: Backoff,
    is_told: bool,
}

impl Reopening {
    pub(crate) const fn new() -> Self {
        Self {
            backoff: Backoff::new(FIRST, MOST),
            is_told: false,
        }
    }

    /// The stream stands.
    pub(crate) const fn opened(&mut self) {
        self.backoff.reset();
        self.is_told = false;
    }

    /// The stream broke off, or could not be opened: waits before the next try.
    pub(crate) async fn broken(&mut self, printer: &Printer) {
        if !self.is_told {
            printer.talk("-- the stream broke off, opening it again");
            self.is_told = true;
        }
        tokio::time::sleep(self.backoff.next(&SystemEntropy)).await;
    }
}
