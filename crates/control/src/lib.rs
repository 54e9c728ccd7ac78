//! The shell around the pure core. Every mutation of the fleet goes through [`Control::submit`], from
//! whichever door or keeper it comes, and takes the same way:
//!
//! ```text
//! door / keeper ──Verb──► owner task ──► fleet::decide(&head, …) ──► Changes | Refusal
//!                                              │ head.apply; joins the batch being gathered
//!                                        Store::commit(batch, leader token)     one in flight, the next gathers
//!                                              │
//!                    view.apply(batch) ◄───────┘  then callers are answered
//!                         ├──► links (nodes' intent and commands)
//!                         ├──► keepers (placement, liveness, drain, retention)
//!                         └──► watchers (events, changes)
//! ```
//!
//! - `owner` alone holds `head` and decides; `commit` makes a batch durable; `view` is what all others
//!   read. `docs/decisions/0007-one-loop.md` says what happens when a commit fails.
//! - `live` holds what is never persisted: leases, usage, what nodes observe.
//! - `link` is how a node is reached; the doors implement it.
//!
//! What can fail: starting ([`StartError`]); a verb, with a typed [`hostler_model::Refusal`]. A server that
//! loses the leader lease ends its loop and refuses everything with `not-leader`; it never takes it back.

mod attachment;
mod batch;
mod black_box;
mod commit;
mod config;
mod control;
mod events;
mod keepers;
mod leader;
mod link;
mod live;
mod load;
mod logs;
mod metrics;
mod owner;
mod reach;
mod records;
mod refusals;
mod secrets;
mod shared;
mod spacing;
mod syncs;
mod trust;
mod tunnel;
mod until;

#[cfg(feature = "fake")]
pub mod fake;

pub use attachment::{Attachment, BeatVerdict, Judged, Marks};
pub use config::{Check, ControlConfig, Parts, Readiness, StartError};
pub use control::{Control, Run};
pub use link::{Link, LogRecord, LogRequest, LogStream};
pub use live::LiveNode;
pub use metrics::{Histogram, MetricsSnapshot, VerbCount, WorkloadUsage};
pub use secrets::{Given, Resealing};
pub use syncs::SyncBeat;
pub use trust::{Trust, TrustConfig};
pub use tunnel::{Said, Told, Tunnel, Tunnels};
pub use until::until;

/// The pure core, for the doors: they import no other room for its words.
pub use hostler_fleet as fleet;
