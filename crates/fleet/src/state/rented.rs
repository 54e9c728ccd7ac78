//! Accounts, rentals, pools and switches: the records and their indexes. Part of [`super::State`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hostler_model::{
    Account, AccountId, NodeId, Pool, PoolId, Quote, Rental, Switch, SwitchId, Timestamp,
};

use super::State;

/// The records that only rented machines have.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rented {
    accounts: BTreeMap<AccountId, Arc<Account>>,
    rentals: BTreeMap<NodeId, Arc<Rental>>,
    pools: BTreeMap<PoolId, Arc<Pool>>,
    /// By pool and place in its ring.
    quotes: BTreeMap<(PoolId, u64), Arc<Quote>>,
    switches: BTreeMap<SwitchId, Arc<Switch>>,

    account_nodes: BTreeSet<(AccountId, NodeId)>,
    machine_nodes: BTreeSet<(String, NodeId)>,
    node_switches: BTreeSet<(NodeId, SwitchId)>,
    pools_seen: BTreeSet<(Timestamp, PoolId)>,
}

impl State {
    #[must_use]
    pub fn account(&self, id: AccountId) -> Option<&Arc<Account>> {
        self.rented.accounts.get(&id)
    }

    /// Every account, the oldest first.
    pub fn accounts(&self) -> impl ExactSizeIterator<Item = &Arc<Account>> {
        self.rented.accounts.values()
    }

    /// The account of that token. Every account is looked at, whichever it is.
    #[must_use]
    pub fn account_by_token(&self, token: &str) -> Option<&Arc<Account>> {
        let accounts = self.rented.accounts.values();
        accounts.fold(None, |found, account| {
            if account.token.is(token) {
                Some(account)
            } else {
                found
            }
        })
    }

    #[must_use]
    pub fn rental(&self, node: NodeId) -> Option<&Arc<Rental>> {
        self.rented.rentals.get(&node)
    }

    /// Every rental, also of nodes that are gone, the oldest first.
    pub fn rentals(&self) -> impl ExactSizeIterator<Item = &Arc<Rental>> {
        self.rented.rentals.values()
    }

    /// The rentals of an account, also of nodes that are gone, the oldest first.
    pub fn rentals_of(&self, account: AccountId) -> impl Iterator<Item = &Arc<Rental>> {
        let nodes = (account, NodeId::LEAST)..=(account, NodeId::MOST);
        let nodes = self.rented.account_nodes.range(nodes);
        nodes.filter_map(|(_, node)| self.rented.rentals.get(node))
    }

    /// The rentals that know the machine; several only if agents tell the same id.
    pub fn rentals_with(&self, machine: &str) -> impl Iterator<Item = &Arc<Rental>> {
        let nodes = (machine.to_owned(), NodeId::LEAST)..=(machine.to_owned(), NodeId::MOST);
        let nodes = self.rented.machine_nodes.range(nodes);
        nodes.filter_map(|(_, node)| self.rented.rentals.get(node))
    }

    #[must_use]
    pub fn pool(&self, id: &PoolId) -> Option<&Arc<Pool>> {
        self.rented.pools.get(id)
    }

    pub fn pools(&self) -> impl ExactSizeIterator<Item = &Arc<Pool>> {
        self.rented.pools.values()
    }

    /// The pools of a kind of machine in a region, by name.
    pub fn pools_of(&self, instance_type: &str, region: &str) -> impl Iterator<Item = &Arc<Pool>> {
        let is_of =
            move |pool: &&Arc<Pool>| pool.instance_type == instance_type && pool.region == region;
        self.rented.pools.values().filter(is_of)
    }

    /// The kept quotes of a pool, in no order.
    pub fn quotes(&self, pool: &PoolId) -> impl Iterator<Item = &Arc<Quote>> {
        let all = (pool.clone(), 0)..=(pool.clone(), u64::MAX);
        self.rented.quotes.range(all).map(|(_, quote)| quote)
    }

    /// The quote that lies in that place of a pool's ring.
    #[must_use]
    pub(crate) fn quote_at(&self, pool: &PoolId, slot: u64) -> Option<&Arc<Quote>> {
        self.rented.quotes.get(&(pool.clone(), slot))
    }

    /// Every kept switch, the oldest first.
    pub fn switches(&self) -> impl DoubleEndedIterator<Item = &Arc<Switch>> + ExactSizeIterator {
        self.rented.switches.values()
    }

    /// The kept switches of a node, the oldest first.
    pub fn switches_of(&self, node: NodeId) -> impl DoubleEndedIterator<Item = &Arc<Switch>> {
        let ids = (node, SwitchId::LEAST)..=(node, SwitchId::MOST);
        let ids = self.rented.node_switches.range(ids);
        ids.filter_map(|(_, id)| self.rented.switches.get(id))
    }

    /// Pools by when they were last seen, the longest ago first.
    pub(crate) const fn pools_seen(&self) -> &BTreeSet<(Timestamp, PoolId)> {
        &self.rented.pools_seen
    }
}

impl Rented {
    pub(super) fn put_account(&mut self, account: &Arc<Account>) {
        self.accounts.insert(account.id, Arc::clone(account));
    }

    pub(super) fn remove_account(&mut self, id: AccountId) {
        self.accounts.remove(&id);
    }

    pub(super) fn put_rental(&mut self, rental: &Arc<Rental>) {
        self.remove_rental(rental.node);
        self.account_nodes.insert((rental.account, rental.node));
        for machine in &rental.machines {
            self.machine_nodes.insert((machine.id.clone(), rental.node));
        }
        self.rentals.insert(rental.node, Arc::clone(rental));
    }

    pub(super) fn remove_rental(&mut self, node: NodeId) {
        let Some(old) = self.rentals.remove(&node) else {
            return;
        };
        self.account_nodes.remove(&(old.account, node));
        for machine in &old.machines {
            self.machine_nodes.remove(&(machine.id.clone(), node));
        }
    }

    pub(super) fn put_pool(&mut self, pool: &Arc<Pool>) {
        self.remove_pool(&pool.id);
        self.pools_seen.insert((pool.seen_at, pool.id.clone()));
        self.pools.insert(pool.id.clone(), Arc::clone(pool));
    }

    pub(super) fn remove_pool(&mut self, id: &PoolId) {
        if let Some(old) = self.pools.remove(id) {
            self.pools_seen.remove(&(old.seen_at, id.clone()));
        }
    }

    pub(super) fn put_quote(&mut self, quote: &Arc<Quote>) {
        let place = (quote.pool.clone(), quote.slot());
        self.quotes.insert(place, Arc::clone(quote));
    }

    pub(super) fn remove_quote(&mut self, pool: &PoolId, slot: u64) {
        self.quotes.remove(&(pool.clone(), slot));
    }

    pub(super) fn put_switch(&mut self, switch: &Arc<Switch>) {
        self.remove_switch(switch.id);
        self.node_switches.insert((switch.node, switch.id));
        self.switches.insert(switch.id, Arc::clone(switch));
    }

    pub(super) fn remove_switch(&mut self, id: SwitchId) {
        if let Some(old) = self.switches.remove(&id) {
            self.node_switches.remove(&(old.node, id));
        }
    }
}
