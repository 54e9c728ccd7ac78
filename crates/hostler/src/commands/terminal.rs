//! This program's own terminal, handed over to a command elsewhere: every key goes there, and what is shown is shown
//! as it comes. It is as it was before when this is dropped, however the program comes to that.

use std::io::{self, Read as _};

use bytes::Bytes;
use rustix::termios::{OptionalActions, Termios};
use tokio::sync::mpsc;

use crate::failure::Failure;

/// Bytes of input that are taken at once.
const PIECE: usize = 16 * 1024;

/// The terminal on stdin while it is handed over.
pub(crate) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Hands it over.
    pub(crate) fn hand_over() -> Result<Self, Failure> {
        let failed = |error: rustix::io::Errno| {
            Failure::failed(
                format!("cannot hand this terminal over: {error}"),
                "leave --tty out",
            )
        };
        let before = rustix::termios::tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        set(&raw).map_err(failed)?;
        Ok(Self { before })
    }

    /// Rows and columns, if the terminal knows.
    pub(crate) fn size() -> Option<(u16, u16)> {
        let size = rustix::termios::tcgetwinsize(io::stdin()).ok()?;
        (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let _ = set(&self.before);
    }
}

fn set(termios: &Termios) -> rustix::io::Result<()> {
    rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, termios)
}

/// What comes on stdin, to its end. Read by a thread of its own, which nobody waits for: there is no other way to
/// leave a read that may never answer.
pub(crate) fn input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut piece) {
            let bytes = piece.get(..count).unwrap_or_default();
            if sender.blocking_send(Bytes::copy_from_slice(bytes)).is_err() {
                return;
            }
        }
    });
    receiver
}
