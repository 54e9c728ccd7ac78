//! The whole program, as a user starts it: real processes, real sockets, a data directory of its own for
//! each test. Every process that a test starts, and every unit that those started, ends with the test.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod adopt;
mod audit;
mod backup;
mod board;
mod browser;
mod canaries;
mod chromium;
mod churn;
mod clocks;
mod clones;
mod crash;
mod doctor;
mod end_to_end;
mod errands;
mod every_kind;
mod fleet;
mod foreign;
mod guarded;
mod guide;
mod install;
mod install_spot;
mod machine;
mod miaas_agent;
mod mixed_fleet;
mod needs_docker;
mod network;
mod node_agent;
mod notify;
mod packages;
mod persys;
mod persys_tls;
mod program;
mod projects;
mod refusals;
mod reload;
mod restart;
mod rotation;
mod secrets;
mod skew;
mod slice;
mod spot_agent;
mod spot_nodes;
mod spot_uplink;
mod starts;
mod stored;
mod systemd;
mod trust;
mod up;
mod volumes;
