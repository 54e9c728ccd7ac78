//! The doors: inbound adapters, one folder per wire contract, and the listener under them.
//!
//! A door decodes, authenticates, makes one `Control` call and encodes; no business rule lives here. The
//! doors own no state but that of their connections. What can fail is answered in the contract's own
//! words, from the domain's refusals.

pub mod listener;
