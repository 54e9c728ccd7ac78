//! Tests of the whole control plane over stores that can fail, in simulated time.
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions, not in what they share"
)]

mod liveness;
mod logs;
mod loop_story;
mod pipeline;
mod restart;
mod rollout;
mod schedules;
mod secrets;
mod serial;
mod world;
