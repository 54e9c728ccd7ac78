//! Retention: what is forgotten, by count and not by age, so that no rule depends on the wall clock.

use hostler_model::{AliasOwner, NodeId, PoolId, WorkloadId};

use super::Draft;
use crate::state::KEPT_REVISIONS;
use crate::{Change, Reply, State};

/// Answered commands that are kept, over the whole fleet.
const KEPT_COMMANDS: usize = 1000;
/// Nodes that are gone and whose record is kept as history.
const KEPT_GONE_NODES: usize = 256;
/// Switches that are kept, over the whole fleet; what they saved is counted with their accounts.
const KEPT_SWITCHES: usize = 5_000;
/// Pools that are kept, with their quotes.
const KEPT_POOLS: usize = 512;

impl Draft<'_> {
    /// Forgets answered commands, old revisions that no copy runs, nodes that have gone long ago with their
    /// identities and rentals, old switches, and pools that no agent reports; the oldest of each first.
    pub(super) fn prune(&mut self, limit: usize) -> Reply {
        let state = self.state;
        let mut count = 0;
        let old_commands = state.answered().len().saturating_sub(KEPT_COMMANDS);
        let commands = state
            .answered()
            .iter()
            .take(old_commands)
            .map(|id| vec![Change::RemoveCommand(*id)]);
        let revisions = state
            .wordy()
            .flat_map(|workload| old_revisions(state, workload));
        let revisions = revisions.map(|change| vec![change]);
        let old_nodes = state.gone().len().saturating_sub(KEPT_GONE_NODES);
        let nodes = state.gone().iter().take(old_nodes);
        let nodes = nodes
            .filter(|(_, node)| state.assignments_on(*node).next().is_none())
            .map(|(_, node)| forget_node(state, *node));
        let old_switches = state.switches().len().saturating_sub(KEPT_SWITCHES);
        let switches = state.switches().take(old_switches);
        let switches = switches.map(|switch| vec![Change::RemoveSwitch(switch.id)]);
        let old_pools = state.pools_seen().len().saturating_sub(KEPT_POOLS);
        let pools = state.pools_seen().iter().take(old_pools);
        let pools = pools.flat_map(|(_, pool)| forget_pool(state, pool));
        let mut forgotten = commands
            .chain(revisions)
            .chain(nodes)
            .chain(switches)
            .chain(pools);
        for changes in forgotten.by_ref().take(limit) {
            self.changes.extend(changes);
            count += 1;
        }
        Reply::Touched {
            count,
            more: count == limit && forgotten.next().is_some(),
        }
    }
}

fn old_revisions(state: &State, workload: WorkloadId) -> impl Iterator<Item = Change> + '_ {
    let kept_from = state.history(workload).rev().take(KEPT_REVISIONS).last();
    let kept_from = kept_from.map_or(0, |revision| revision.number);
    let record = state.workload(workload);
    let base = record.and_then(|record| record.rollout.as_ref());
    let base = base.map(|rollout| rollout.base.revision);
    let is_run = move |number: u64| {
        let copies = state.copies(workload);
        base == Some(number) || copies.is_some_and(|copies| copies.revisions.contains_key(&number))
    };
    let numbers = state.history(workload).map(|revision| revision.number);
    numbers
        .filter(move |number| *number < kept_from && !is_run(*number))
        .map(move |number| Change::RemoveRevision(workload, number))
}

fn forget_node(state: &State, node: NodeId) -> Vec<Change> {
    let commands = state
        .commands_of(node)
        .map(|command| Change::RemoveCommand(command.id));
    let aliases = state
        .aliases_of(AliasOwner::Node(node))
        .map(|alias| Change::RemoveAlias(alias.key.clone()));
    let rental = state.rental(node).map(|_| Change::RemoveRental(node));
    let record = std::iter::once(Change::RemoveNode(node));
    commands
        .chain(aliases)
        .chain(rental)
        .chain(record)
        .collect()
}

/// Its quotes one by one, for a pool has more of them than one commit should take, then the pool.
fn forget_pool<'a>(state: &'a State, pool: &'a PoolId) -> impl Iterator<Item = Vec<Change>> + 'a {
    let quotes = state.quotes(pool);
    let quotes = quotes.map(|quote| Change::RemoveQuote(quote.pool.clone(), quote.slot()));
    let record = std::iter::once(Change::RemovePool(pool.clone()));
    quotes.chain(record).map(|change| vec![change])
}
