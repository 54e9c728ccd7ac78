//! The client against a server that gives prepared answers and keeps what it was asked.

mod canned;
mod client;
