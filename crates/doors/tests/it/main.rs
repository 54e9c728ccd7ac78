//! The doors over real sockets on loopback: a real control plane over a store in memory, fake nodes, real
//! clients. Nothing here measures time; waits are for conditions, with generous deadlines.

mod client;
mod deployments;
mod foreign;
mod fuzz;
mod listener;
mod logs;
mod miaas;
mod miaas_later;
mod nodes;
mod orchion;
mod orchion_gateway;
mod outside;
mod persys_drive;
mod persys_figures;
mod persys_leases;
mod persys_stream;
mod persys_talk;
mod persys_world;
mod raw;
mod routes;
mod server;
mod session;
mod sockets;
mod spot;
mod spot_agents;
mod spot_conversation;
mod spot_dashboard;
mod spot_fuzz;
mod spot_replicas;
mod spot_reports;
mod spot_restart;
mod standing;
mod streams;
mod transfers;
mod workloads;
