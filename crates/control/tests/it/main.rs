//! Tests of the whole control plane over stores that can fail, in simulated time.

mod liveness;
mod logs;
mod loop_story;
mod pipeline;
mod restart;
mod serial;
mod world;
