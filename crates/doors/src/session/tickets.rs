//! Tickets: what a node shows when it opens a bulk stream, so that the stream finds who asked for it.
//!
//! A ticket is 128 random bits, good for one transfer and for as long as its asker waits: dropping the
//! [`Ticket`] forgets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hostler_control::Said;
use hostler_kit::Entropy;
use hostler_wire::session::v1::BulkFrame;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

/// All tickets that are waited for.
pub(super) struct Tickets {
    entropy: Arc<dyn Entropy>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Transfer>>>,
}

/// A bulk stream that has shown its ticket.
pub(super) struct Transfer {
    pub frames: Streaming<BulkFrame>,
    /// The answer's side. Dropping it tells the node that nobody reads any more.
    pub said: mpsc::Sender<Said>,
}

/// One ticket and the place where its transfer will arrive.
pub(super) struct Ticket {
    pub text: String,
    pub transfer: oneshot::Receiver<Transfer>,
    all: Arc<Tickets>,
}

impl Tickets {
    pub(super) fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self {
            entropy,
            waiting: Mutex::default(),
        }
    }

    /// A fresh ticket.
    pub(super) fn mint(self: &Arc<Self>) -> Ticket {
        let text = format!("{:032x}", self.entropy.next_u128());
        let (sender, transfer) = oneshot::channel();
        self.waiting().insert(text.clone(), sender);
        Ticket {
            text,
            transfer,
            all: Arc::clone(self),
        }
    }

    /// Hands the transfer to whoever waits for the ticket.
    pub(super) fn redeem(&self, ticket: &str, transfer: Transfer) -> Result<(), Status> {
        let sender = self.waiting().remove(ticket);
        sender
            .and_then(|sender| sender.send(transfer).ok())
            .ok_or_else(|| Status::not_found("nobody waits for this ticket"))
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Transfer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.all.waiting().remove(&self.text);
    }
}

#[cfg(test)]
mod tests {
    use hostler_kit::SeededEntropy;

    use super::*;

    #[test]
    fn a_ticket_that_nobody_waits_for_is_forgotten() {
        let tickets = Arc::new(Tickets::new(Arc::new(SeededEntropy::new(1))));
        let (first, second) = (tickets.mint(), tickets.mint());
        assert_ne!(first.text, second.text);
        assert_eq!(tickets.waiting().len(), 2);
        drop(first);
        assert_eq!(tickets.waiting().len(), 1);
        drop(second);
        assert!(tickets.waiting().is_empty());
    }
}
