//! Who asks, and about whom: the client of a token, an agent by its id, and whether the one owns the other.

use std::sync::Arc;

use hostler_control::fleet::{RentedVerb, Reply, State, Verb};
use hostler_model::{Account, AccountId, AccountStatus, Actor, Node, NodeId, Refusal, Rental};
use http::{HeaderMap, StatusCode, header};

use super::Spot;
use super::answer::No;
use super::body::Fields;

/// An agent: a node on a rented machine.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    pub node: Arc<Node>,
    pub rental: Arc<Rental>,
}

impl Agent {
    pub(super) fn id(&self) -> NodeId {
        self.node.id
    }

    pub(super) fn actor(&self) -> Actor {
        Actor::Node(self.node.name.clone())
    }
}

/// Somebody at the dashboard, without a name.
pub(super) fn person() -> Actor {
    Actor::User("anonymous".to_owned())
}

impl Spot {
    /// The client whose token the request carries, in its header or else in its body.
    pub(super) fn client(&self, headers: &HeaderMap, body: &Fields) -> Result<Arc<Account>, No> {
        let refused = |error| No::new(StatusCode::UNAUTHORIZED, error);
        let given = bearer(headers)
            .map(str::to_owned)
            .or_else(|| body.word("client_token").ok().flatten());
        let token = given.ok_or_else(|| refused("Missing client token"))?;
        let view = self.control.view();
        let account = view.account_by_token(&token).cloned();
        let account = account.ok_or_else(|| refused("Invalid client token"))?;
        if account.status != AccountStatus::Active {
            return Err(No::new(
                StatusCode::FORBIDDEN,
                "Client account is not active",
            ));
        }
        Ok(account)
    }

    /// The agent, which must be the client's own and not be deleted.
    pub(super) fn own(&self, headers: &HeaderMap, body: &Fields, id: &str) -> Result<Agent, No> {
        let account = self.client(headers, body)?;
        let agent = self.agent(id)?;
        if agent.rental.account == account.id {
            Ok(agent)
        } else {
            Err(No::no_agent())
        }
    }

    /// The agent, for routes that ask for no token: one that is given all the same must be its client's.
    pub(super) fn agent_for(&self, headers: &HeaderMap, id: &str) -> Result<Agent, No> {
        if bearer(headers).is_some() {
            return self.own(headers, &Fields::default(), id);
        }
        self.agent(id)
    }

    /// The agent, unless it is deleted.
    pub(super) fn agent(&self, id: &str) -> Result<Agent, No> {
        let agent = self.agent_ever(id)?;
        if agent.node.is_gone() {
            return Err(No::no_agent());
        }
        Ok(agent)
    }

    /// Submits for somebody what is asked of an agent's node.
    pub(super) async fn rented(
        &self,
        actor: Actor,
        agent: &Agent,
        verb: RentedVerb,
    ) -> Result<Reply, Refusal> {
        let verb = Verb::Rented {
            node: agent.id(),
            verb: Box::new(verb),
        };
        self.control.submit(actor, verb).await
    }

    /// The agent, also if it is deleted.
    fn agent_ever(&self, id: &str) -> Result<Agent, No> {
        let id: NodeId = id.parse().map_err(|_| No::no_agent())?;
        let view = self.control.view();
        let node = view.node(id).cloned();
        let rental = view.rental(id).cloned();
        let (node, rental) = node.zip(rental).ok_or_else(No::no_agent)?;
        Ok(Agent { node, rental })
    }

    /// The agent that is or was on that machine, the one that is on it before others.
    pub(super) fn agent_on(&self, machine: &str) -> Result<Agent, No> {
        let view = self.control.view();
        let present = |agent: &Agent| !agent.node.is_gone();
        let found = agents(&view, view.rentals_with(machine)).filter(present);
        let mut found: Vec<Agent> = found.collect();
        let is_on = |agent: &Agent| agent.rental.primary().is_some_and(|it| it.id == machine);
        found.sort_by_key(|agent| !is_on(agent));
        let first = found.into_iter().next();
        first.ok_or_else(|| No::not_found("Instance not found"))
    }

    /// The client of that id.
    pub(super) fn client_of(&self, id: &str) -> Result<Arc<Account>, No> {
        let id: AccountId = id.parse().map_err(|_| No::no_client())?;
        let account = self.control.view().account(id).cloned();
        account.ok_or_else(No::no_client)
    }

    /// The agents of a client, deleted ones too, the oldest first.
    pub(super) fn agents_of(&self, client: AccountId) -> Vec<Agent> {
        let view = self.control.view();
        agents(&view, view.rentals_of(client)).collect()
    }

    /// The agents of all clients, deleted ones too, the oldest first.
    pub(super) fn agents_ever(&self) -> Vec<Agent> {
        let view = self.control.view();
        agents(&view, view.rentals()).collect()
    }
}

/// The agents of these rentals.
fn agents<'a>(
    view: &'a State,
    rentals: impl Iterator<Item = &'a Arc<Rental>>,
) -> impl Iterator<Item = Agent> {
    rentals.filter_map(|rental| {
        Some(Agent {
            node: Arc::clone(view.node(rental.node)?),
            rental: Arc::clone(rental),
        })
    })
}

/// The token of the header; none if it is empty.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        Some(_) => value,
        None if value.eq_ignore_ascii_case("bearer") => "",
        None => value,
    };
    (!token.is_empty()).then_some(token)
}
