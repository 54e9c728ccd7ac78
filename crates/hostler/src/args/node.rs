//! `node`: look after nodes.

use clap::{Args, Subcommand};

use super::{ClientArgs, ImportOutput, OutputArgs, WaitArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    Ls(NodeLsArgs),
    /// Show one node
    Show(NodeTargetArgs),
    /// Set or remove labels
    Label(LabelArgs),
    /// Place nothing new on a node
    Cordon(NodeTargetArgs),
    /// Let copies come again
    Uncordon(NodeTargetArgs),
    /// Place nothing new on a node and move its copies away
    Drain(DrainArgs),
    /// End a drain and let copies come again
    Undrain(NodeTargetArgs),
    /// Remove a node from the fleet
    Rm(NodeRmArgs),
    /// Let a machine in that has asked to join
    Approve(NodeTargetArgs),
    /// Let a node that holds our orders back carry them out
    Accept(NodeTargetArgs),
    /// Delete what nothing on a node needs: images, ended copies, data of deleted workloads
    Gc(NodeGcArgs),
    /// Show which containers of a node could become workloads, or take them over as they run
    Adopt(AdoptArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NodeLsArgs {
    /// Also nodes that were removed
    #[arg(short, long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NodeTargetArgs {
    /// Name, id, or the beginning of an id
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LabelArgs {
    /// Name, id, or the beginning of an id
    pub(crate) node: String,
    /// `key=value` sets, `key-` removes
    #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
    pub(crate) labels: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Name, id, or the beginning of an id
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NodeGcArgs {
    /// Name, id, or the beginning of an id
    pub(crate) node: String,
    /// Only say what would go, and why the rest stays
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also data that no copy on this node uses although its workload lives on
    #[arg(long)]
    pub(crate) data: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NodeRmArgs {
    /// Name, id, or the beginning of an id
    pub(crate) node: String,
    /// Give its copies up as well
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// Name, id, or the beginning of an id
    pub(crate) node: String,
    /// Which containers, by the engine's names for them [default: all]
    pub(crate) containers: Vec<String>,
    /// Take over all of them
    #[arg(long, conflicts_with = "containers", requires = "apply")]
    pub(crate) all: bool,
    /// Take them over
    #[arg(long)]
    pub(crate) apply: bool,
    /// How the specs are shown
    #[arg(short, long, default_value = "yaml")]
    pub(crate) output: ImportOutput,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
