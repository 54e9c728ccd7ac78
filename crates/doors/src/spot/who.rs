//! Who asks, and about whom: the client of a token, an agent by its id, and whether the one owns the other.
//!
//! On a server with login every request passes [`admit`]: what its route needs is in `access/foreign.rs`, and whoever's
//! token is good for one client alone gets no further than what is that client's.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::RequestExt as _;
use axum::extract::{FromRequestParts, MatchedPath, Query, RawPathParams, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hostler_control::fleet::{RentedVerb, Reply, State, Verb};
use hostler_model::{
    Account, AccountId, AccountStatus, Actor, Code, Contract, Node, NodeId, Refusal, Rental,
};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};

use super::Spot;
use super::answer::No;
use super::body::Fields;
use super::instances::Span;
use crate::access::{Knock, Need, Shown, Who};

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

/// Whoever asks, as [`admit`] has found.
#[derive(Debug, Clone)]
pub(super) struct Asker(pub Who);

impl Asker {
    /// As whom they act.
    pub(super) fn actor(&self) -> Actor {
        self.0.actor()
    }
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let who = parts.extensions.get::<Who>().cloned();
        Ok(Self(who.unwrap_or(Who::Nobody)))
    }
}

/// The client whose token a body has. Only who reads the body knows it, and the audit is to.
#[derive(Debug, Clone, Default)]
pub(super) struct InBody(Arc<OnceLock<AccountId>>);

/// For whom a token is good.
pub(super) enum Holder {
    /// Somebody of the fleet: for every client.
    All,
    One(Arc<Account>),
}

impl Holder {
    pub(super) fn owns(&self, agent: &Agent) -> bool {
        match self {
            Self::All => true,
            Self::One(account) => agent.rental.account == account.id,
        }
    }
}

/// Lets through whoever may ask this.
pub(super) async fn admit(
    axum::extract::State(spot): axum::extract::State<Spot>,
    mut request: Request,
    next: Next,
) -> Response {
    match spot.admitted(&mut request).await {
        Ok(who) => {
            let in_body = InBody::default();
            request.extensions_mut().insert(in_body.clone());
            request.extensions_mut().insert(who.clone());
            let mut response = next.run(request).await;
            let who = in_body.0.get().map_or(who, |client| Who::Account(*client));
            spot.access.tell_by(&who, &mut response);
            response
        }
        Err(no) => no.into_response(),
    }
}

impl Spot {
    async fn admitted(&self, request: &mut Request) -> Result<Who, No> {
        if !self.access.is_guarded() {
            return Ok(Who::Anybody);
        }
        // What no route has tells nothing.
        let Some(route) = request.extensions().get::<MatchedPath>().cloned() else {
            return Ok(Who::Nobody);
        };
        let knock = Knock {
            method: request.method(),
            route: route.as_str(),
            headers: request.headers(),
            peer: request.extensions().get(),
        };
        let has_shown = bearer(knock.headers).is_some();
        let own = |headers: &HeaderMap| self.shown(headers);
        let admitted = self.access.admit_to(Contract::Spot, knock, own);
        let (who, need) = admitted.map_err(|refusal| refused(refusal, has_shown))?;
        match (need, who.account()) {
            (Need::Own(_), Some(account)) => {
                self.active(account)?;
                self.belongs(account, route.as_str(), request).await?;
                Ok(who)
            }
            // Where everybody sees everything, nobody sees less.
            (Need::Nothing | Need::Open, Some(_)) => Ok(Who::Nobody),
            _ => Ok(who),
        }
    }

    /// What the client token in a request's header came to.
    fn shown(&self, headers: &HeaderMap) -> Shown {
        let Some(token) = bearer(headers) else {
            return Shown::Nothing;
        };
        let view = self.control.view();
        view.account_by_token(token)
            .map_or(Shown::Worthless, |it| Shown::Known(Who::Account(it.id)))
    }

    fn active(&self, account: AccountId) -> Result<Arc<Account>, No> {
        let account = self.control.view().account(account).cloned();
        let account =
            account.ok_or_else(|| No::new(StatusCode::UNAUTHORIZED, "Invalid client token"))?;
        if account.status != AccountStatus::Active {
            return Err(No::new(
                StatusCode::FORBIDDEN,
                "Client account is not active",
            ));
        }
        Ok(account)
    }

    /// Whether what a request is about is that client's. Lists of all clients are cut to it by their handlers.
    async fn belongs(
        &self,
        client: AccountId,
        route: &str,
        request: &mut Request,
    ) -> Result<(), No> {
        let params = request.extract_parts::<RawPathParams>().await;
        let params = params.map_err(|error| No::bad(error.body_text()))?;
        let named = |key: &str| params.iter().find(|(name, _)| *name == key);
        if let Some((_, named)) = named("client")
            && named.parse().ok() != Some(client)
        {
            let sentence = "The token is another client's";
            return Err(No::new(StatusCode::FORBIDDEN, sentence));
        }
        let is_own = |agent: &Agent| agent.rental.account == client;
        let id = named("id").map(|(_, id)| id);
        if let Some(machine) = id.filter(|_| route.starts_with("/api/client/instances/")) {
            let agent = self.agent_on(machine)?;
            return is_own(&agent)
                .then_some(())
                .ok_or_else(|| No::not_found("Instance not found"));
        }
        let is_notice = route.starts_with("/api/notifications");
        let asked = Query::<Span>::try_from_uri(request.uri());
        let asked = asked.map(|query| query.0).unwrap_or_default();
        let of_query = Some(asked.agent_id.as_str())
            .filter(|id| route == "/api/client/pricing-history" && !id.is_empty());
        match id.filter(|_| !is_notice).or(of_query) {
            Some(agent) if !is_own(&self.agent(agent)?) => Err(No::no_agent()),
            _ => Ok(()),
        }
    }

    /// For whom the token is good that the request carries, in its header or else, as a client's own, in its body.
    pub(super) fn holder(&self, headers: &HeaderMap, body: &Fields) -> Result<Holder, No> {
        let refused = |error| No::new(StatusCode::UNAUTHORIZED, error);
        if let Some(who) = self.access.known(headers) {
            return match who.account() {
                Some(account) => self.active(account).map(Holder::One),
                None => Ok(Holder::All),
            };
        }
        let shown = bearer(headers);
        let given = shown
            .map(str::to_owned)
            .or_else(|| body.word("client_token").ok().flatten());
        let token = given.ok_or_else(|| refused("Missing client token"))?;
        let account = self.control.view().account_by_token(&token).map(|it| it.id);
        let account = account.ok_or_else(|| refused("Invalid client token"))?;
        if shown.is_none() {
            // Whoever asks may read the body once more; it has the same token.
            let _ = body.client.0.set(account);
        }
        self.active(account).map(Holder::One)
    }

    /// The client whose token the request carries.
    pub(super) fn client(&self, headers: &HeaderMap, body: &Fields) -> Result<Arc<Account>, No> {
        match self.holder(headers, body)? {
            Holder::One(account) => Ok(account),
            Holder::All => {
                let sentence = "This needs a token that is one client's";
                Err(No::new(StatusCode::FORBIDDEN, sentence))
            }
        }
    }

    /// The agent, which must be the client's own and not be deleted.
    pub(super) fn own(&self, headers: &HeaderMap, body: &Fields, id: &str) -> Result<Agent, No> {
        let holder = self.holder(headers, body)?;
        let agent = self.agent(id)?;
        holder
            .owns(&agent)
            .then_some(agent)
            .ok_or_else(No::no_agent)
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

/// Who may not come in, in the contract's words.
fn refused(refusal: Refusal, has_shown: bool) -> No {
    let (status, error) = match refusal.code {
        Code::Unauthenticated if has_shown => {
            (StatusCode::UNAUTHORIZED, "Invalid client token".to_owned())
        }
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "Missing client token".to_owned()),
        Code::NodeKeyUnknown => (StatusCode::UNAUTHORIZED, refusal.sentence),
        Code::TooManyAttempts => (StatusCode::TOO_MANY_REQUESTS, refusal.sentence),
        _ => (StatusCode::FORBIDDEN, refusal.sentence),
    };
    No::new(status, error)
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
