//! The fleet's proofs: properties over random histories, stories told as snapshots, and placement quality.

mod access;
mod foreign;
mod invariants;
mod jobs;
mod properties;
mod quality;
mod rented;
mod rented_histories;
mod rollouts;
mod secrets;
mod stories;
mod verbs;
mod volumes;
mod world;
