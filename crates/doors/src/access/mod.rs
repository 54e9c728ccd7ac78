//! Who asks, and what they may do: the same answer for every door.
//!
//! ```text
//!   a token in `Authorization: Bearer …`   ──► a person or program with a role
//!   the key in a client's certificate      ──► a node
//!   the cookie of a session                ──► the person whose token began it; on our own routes alone
//!   the credential of another contract     ──► whoever that contract knows by it, at its own routes alone
//!   nothing                                ──► nobody; where there is no login, anybody
//! ```
//!
//! A server without login (`up`, `server --insecure`) knows nobody and lets everybody do everything. Tokens and keys
//! are looked up in the committed view, so what was revoked or removed is refused with the next request. It owns the
//! count of failed attempts and the sessions of browsers; what can fail is a refusal.

mod attempts;
mod cookie;
mod foreign;
mod need;
mod sessions;
mod warrant;

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use hostler_control::{Control, Trust};
use hostler_kit::Entropy;
use hostler_kit::trust::{Bearer, Print, Secret, secret};
use hostler_model::{
    AccessRole, AccountId, Actor, ApiToken, Code, Contract, NodeId, Refusal, Timestamp, TokenId,
    key_alias,
};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};

use self::attempts::{Attempts, FAILURES, LINES};
pub(crate) use self::cookie::{Cookie, FORM_LIFE, is_proof, proof};
use self::foreign::Beside;
pub(crate) use self::foreign::Chosen;
pub use self::foreign::{Auth, Opened, OwnPort};
use self::need::need;
pub(crate) use self::need::{Need, acts, takes_cookie};
use self::sessions::Sessions;
pub(crate) use self::warrant::Warrant;
use crate::audit::{Audit, By};
use crate::{Peer, spot};

/// The login of one control plane. Clones are one.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    control: Control,
    /// None: there is no login.
    trust: Option<Trust>,
    /// Of other contracts; without login all are open.
    opened: Opened,
    attempts: Attempts,
    lines: Attempts,
    audit: Audit,
    sessions: Sessions,
}

/// What a browser shows instead of a token, as long as the token is good.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) who: Who,
    pub(crate) left: Duration,
    cookie: Secret,
}

/// A request, as far as it says who sends it and what for.
#[derive(Clone, Copy)]
pub(crate) struct Knock<'a> {
    pub method: &'a Method,
    /// As the router knows it.
    pub route: &'a str,
    pub headers: &'a HeaderMap,
    pub peer: Option<&'a Peer>,
}

/// Who asks, and what for.
pub(crate) struct Asked {
    pub(crate) who: Who,
    need: Need,
    /// It belongs to a door that is shut.
    is_shut: bool,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// There is no login.
    Anybody,
    /// Nothing was shown.
    Nobody,
    /// The bearer of a token.
    Person {
        name: Arc<str>,
        token: TokenId,
        role: AccessRole,
        /// Good for this account of the spot contract alone.
        account: Option<AccountId>,
    },
    /// The holder of a node's key.
    Node(NodeId),
    /// The holder of the client token of a spot account.
    Account(AccountId),
    /// Who knows the key that a contract's programs share.
    Program(Contract),
}

impl Access {
    /// No login: everybody may do everything.
    #[must_use]
    pub fn open(control: &Control) -> Self {
        Self::new(control, None, Opened::default(), Audit::none())
    }

    /// Nobody may do anything that they have no token or key for.
    #[must_use]
    pub fn guarded(control: &Control, trust: &Trust) -> Self {
        Self::guarded_with(control, trust, Opened::default())
    }

    /// The same, with doors of other contracts opened.
    #[must_use]
    pub fn guarded_with(control: &Control, trust: &Trust, opened: Opened) -> Self {
        Self::new(control, Some(trust.clone()), opened, Audit::none())
    }

    /// The same, with who did what written down.
    #[must_use]
    pub fn audited(&self, audit: Audit) -> Self {
        let Inner {
            control,
            trust,
            opened,
            ..
        } = &*self.0;
        Self::new(control, trust.clone(), opened.clone(), audit)
    }

    fn new(control: &Control, trust: Option<Trust>, opened: Opened, audit: Audit) -> Self {
        let attempts = |rate| Attempts::new(rate, Arc::clone(control.clock()));
        Self(Arc::new(Inner {
            control: control.clone(),
            trust,
            opened,
            attempts: attempts(FAILURES),
            lines: attempts(LINES),
            audit,
            sessions: Sessions::new(Arc::clone(control.clock())),
        }))
    }

    /// Whether the routes of another contract are served.
    pub(crate) fn opens(&self, contract: Contract) -> bool {
        !self.is_guarded() || self.0.opened.has(contract)
    }

    /// The doors that were opened by name.
    pub(crate) fn opened(&self) -> &Opened {
        &self.0.opened
    }

    /// The identity of the fleet, where there is login.
    pub(crate) fn trust(&self) -> Option<&Trust> {
        self.0.trust.as_ref()
    }

    /// Whether there is login at all.
    pub(crate) fn is_guarded(&self) -> bool {
        self.0.trust.is_some()
    }

    /// Where it is written down who did what.
    pub(crate) fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// Who that is, as the audit has it.
    pub(crate) fn by(&self, who: &Who) -> By {
        match who {
            Who::Anybody => By::anonymous(),
            Who::Nobody => By::nobody(None),
            Who::Person { name, token, .. } => By::known("person", name, token),
            Who::Node(id) => {
                let name = self
                    .0
                    .control
                    .view()
                    .node(*id)
                    .map(|node| node.name.clone());
                By::known("node", &name.unwrap_or_default(), id)
            }
            Who::Account(id) => {
                let view = self.0.control.view();
                let name = view.account(*id).map(|account| account.name.clone());
                By::known("client", &name.unwrap_or_default(), id)
            }
            Who::Program(contract) => By::known("program", contract.as_str(), &""),
        }
    }

    /// What a thing is called that a path names by its id: a node, a workload, a token, or the workload of a copy.
    pub(crate) fn name_of(&self, route: &str, named: &str) -> Option<String> {
        let id = named.split('/').next().filter(|id| !id.is_empty())?;
        let is_below = |folders: &[&str]| folders.iter().any(|folder| route.starts_with(folder));
        let view = self.0.control.view();
        let name = if is_below(&["/api/v1/workloads/{id}", "/api/v1/jobs/{id}"]) {
            &view.find_workload(id).ok()?.name
        } else if is_below(&["/api/v1/nodes/{id}", "/api/agents/{id}"]) {
            &view.find_node(id).ok()?.name
        } else if is_below(&["/api/v1/tokens/{id}"]) {
            &view.token(id.parse().ok()?)?.name
        } else if is_below(&["/api/v1/assignments/{id}"]) {
            let workload = view.find_assignment(id).ok()?.workload;
            &view.workload(workload)?.name
        } else {
            return None;
        };
        (name != id).then(|| name.clone())
    }

    /// Who that is whose token or key is worth nothing, as the audit has it: the id that a token names is no secret.
    pub(crate) fn by_shown(&self, headers: &HeaderMap) -> By {
        if !self.is_guarded() {
            return By::anonymous();
        }
        let shown = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
        shown
            .and_then(bearer)
            .map_or_else(|| By::nobody(None), stranger)
    }

    /// The same at another contract's door, which knows clients by tokens of its own.
    pub(crate) fn by_client(&self, headers: &HeaderMap, peer: Option<&Peer>) -> By {
        if let Some(who) = self.known(headers) {
            return self.by(&who);
        }
        let view = self.0.control.view();
        let client = spot::bearer(headers).and_then(|token| view.account_by_token(token));
        let client = client.map(|it| By::known("client", &it.name, &it.id));
        drop(view);
        let key = peer.and_then(|peer| peer.key).filter(|_| self.is_guarded());
        let node = || key.and_then(|key| self.node(key).ok());
        client
            .or_else(|| node().map(|id| self.by(&Who::Node(id))))
            .unwrap_or_else(|| self.by_shown(headers))
    }

    /// Tells the audit who it was that another contract's door has let in, unless that has been told.
    pub(crate) fn tell_by(&self, who: &Who, response: &mut Response) {
        let told = response.extensions_mut();
        // What somebody shows where nobody is asked still names them.
        if !matches!(who, Who::Anybody | Who::Nobody) && told.get::<By>().is_none() {
            told.insert(self.by(who));
        }
    }

    /// What somebody holds who was let in.
    pub(crate) fn warrant(&self, who: &Who) -> Warrant {
        self.warrant_in(who, None)
    }

    /// The same of somebody who may be known by the session of a browser.
    pub(crate) fn warrant_in(&self, who: &Who, session: Option<&Session>) -> Warrant {
        let token = match who {
            Who::Person { token, .. } => Some(*token),
            _ => None,
        };
        let session = session.map(|session| (self.clone(), session.cookie.clone()));
        Warrant::new(&self.0.control, token, session)
    }

    /// Who sends this.
    ///
    /// # Errors
    /// `unauthenticated` for a token or key that is worth nothing, `too-many-attempts` after many of them.
    pub(crate) fn who(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Who, Refusal> {
        if !self.is_guarded() {
            return Ok(Who::Anybody);
        }
        if let Some(shown) = headers.get(AUTHORIZATION) {
            let text = shown.to_str().unwrap_or_default();
            let known = bearer(text).and_then(|text| self.person(text));
            return match known {
                Some(person) => Ok(person),
                None => Err(self.failed(peer, worthless())),
            };
        }
        match peer.and_then(|peer| peer.key) {
            Some(key) => self.node(key).map(Who::Node),
            None => Ok(Who::Nobody),
        }
    }

    /// Who asks for a route of the API, and what they need there. Whoever shows nothing may be known by the session of
    /// a browser.
    ///
    /// # Errors
    /// As [`Self::who`].
    pub(crate) fn ask(
        &self,
        knock: Knock<'_>,
        session: Option<&Session>,
    ) -> Result<Asked, Refusal> {
        let opened = &self.0.opened;
        let beside = self
            .is_guarded()
            .then(|| opened.need_beside(knock.method, knock.route));
        let need = match beside.flatten() {
            Some(Beside::Open(need @ (Need::Open | Need::Judged(_)))) => {
                // What is shown there may be MIaaS's own.
                let who = self.known(knock.headers);
                return Ok(Asked {
                    who: who.unwrap_or(Who::Nobody),
                    need,
                    is_shut: false,
                });
            }
            Some(Beside::Open(need)) => need,
            Some(Beside::Shut) | None => need(knock.method, knock.route),
        };
        let who = match (self.who(knock.headers, knock.peer)?, session) {
            (Who::Nobody, Some(session)) => session.who.clone(),
            (who, _) => who,
        };
        Ok(Asked {
            who,
            need,
            is_shut: beside.flatten() == Some(Beside::Shut),
        })
    }

    /// Who asks for a route of another contract, if they may. `own` reads the contract's credential.
    ///
    /// # Errors
    /// As [`Self::who`] and [`Who::check`], for the contract to say in its words.
    pub(crate) fn admit_to(
        &self,
        contract: Contract,
        knock: Knock<'_>,
        own: impl FnOnce(&HeaderMap) -> Shown,
    ) -> Result<(Who, Need), Refusal> {
        if !self.is_guarded() {
            return Ok((Who::Anybody, Need::Nothing));
        }
        let opened = &self.0.opened;
        let need = opened.need(contract, knock.method, knock.route);
        let need = need.ok_or_else(|| shut(contract))?;
        let known = self.known(knock.headers);
        let shown = known.map_or_else(|| own(knock.headers), Shown::Known);
        let is_open = matches!(need, Need::Nothing | Need::Open | Need::Judged(_));
        let who = match shown {
            Shown::Known(who) => who,
            Shown::Worthless if !is_open => {
                let refusal = unauthenticated("what was shown is worth nothing here");
                return Err(self.failed(knock.peer, refusal));
            }
            Shown::Nothing | Shown::Worthless => {
                let key = knock.peer.and_then(|peer| peer.key).filter(|_| !is_open);
                let node = key.map(|key| self.node(key)).transpose()?;
                node.map_or(Who::Nobody, Who::Node)
            }
        };
        // A token for one spot account says nothing elsewhere.
        let is_strange = contract != Contract::Spot && who.account().is_some();
        match need {
            Need::Own(role) if is_strange => who.check(Need::Role(role))?,
            Need::Judged(_) if is_strange => return Ok((Who::Nobody, need)),
            _ => who.check(need)?,
        }
        Ok((who, need))
    }

    /// The bearer of a token in the headers, if it is one that is good now.
    pub(crate) fn known(&self, headers: &HeaderMap) -> Option<Who> {
        if !self.is_guarded() {
            return None;
        }
        let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
        self.person(bearer(text)?)
    }

    /// The bearer of that token, if it is good now.
    pub(crate) fn person(&self, text: &str) -> Option<Who> {
        self.shown(text).map(|token| Who::bearer_of(&token))
    }

    fn shown(&self, text: &str) -> Option<Arc<ApiToken>> {
        let shown = Bearer::parse(text)?;
        let token = self.good(shown.id.parse().ok()?)?;
        // Hashes are compared: how long that takes tells nothing about the secret.
        (token.hash == shown.secret.hash()).then_some(token)
    }

    fn good(&self, id: TokenId) -> Option<Arc<ApiToken>> {
        let view = self.0.control.view();
        good(&self.0.control, view.token(id)).cloned()
    }

    /// The session whose cookie is sent, as long as its token is good.
    pub(crate) fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let cookie = Cookie::Session.read(headers)?;
        let (token, left) = self.0.sessions.find(&cookie)?;
        let who = Who::bearer_of(&*self.good(token)?);
        Some(Session { who, left, cookie })
    }

    /// Begins a session for the bearer of that token. Its cookie is new, whatever was sent.
    ///
    /// # Errors
    /// `unauthenticated`, `too-many-attempts`, `forbidden` for a token that is good for no route of ours.
    pub(crate) fn begin_session(
        &self,
        token: &str,
        entropy: &dyn Entropy,
        peer: Option<&Peer>,
    ) -> Result<Session, Refusal> {
        let token = self
            .shown(token)
            .ok_or_else(|| self.failed(peer, mistyped()))?;
        let who = Who::bearer_of(&token);
        who.check(Need::Role(AccessRole::Viewer))?;
        let cookie = secret(entropy);
        self.0.sessions.begin(&cookie, token.id);
        let left = sessions::LIFE;
        Ok(Session { who, left, cookie })
    }

    /// Ends the session whose cookie is sent, if there is one.
    pub(crate) fn end_session(&self, headers: &HeaderMap) {
        if let Some(cookie) = Cookie::Session.read(headers) {
            self.0.sessions.end(&cookie);
        }
    }

    /// The node that has that key.
    ///
    /// # Errors
    /// `node-key-unknown`, `node-gone`.
    pub(crate) fn node(&self, key: Print) -> Result<NodeId, Refusal> {
        let view = self.0.control.view();
        let node = view.node_by_alias(&key_alias(&key.to_string()));
        let node = node.ok_or_else(|| {
            let sentence = "no node of this fleet has this key";
            let advice = "join with a token from `hostler token create`";
            Refusal::new(Code::NodeKeyUnknown, sentence, advice)
        })?;
        if node.is_gone() {
            let sentence = format!("node {} was removed from the fleet", node.name);
            let advice = "give the agent an empty data directory and a token to join again";
            return Err(Refusal::new(Code::NodeGone, sentence, advice));
        }
        Ok(node.id)
    }

    /// Tells the log that a machine was refused: a line for each address and minute, so that nobody floods it. The audit
    /// has each.
    pub(crate) fn tell_refusal(&self, peer: Option<&Peer>, what: &str, refusal: &Refusal) {
        let peer = peer.map(|peer| peer.addr);
        let Refusal { code, sentence, .. } = refusal;
        if peer.is_none_or(|peer| self.0.lines.count(peer.ip())) {
            let peer = peer.map(tracing::field::display);
            tracing::info!(%code, peer, sentence, "{what} refused; more within a minute is in the audit alone");
        } else {
            tracing::debug!(%code, sentence, "{what} refused");
        }
    }

    /// Counts a refusal of what was shown; after many from one address they are refused as such.
    pub(crate) fn failed(&self, peer: Option<&Peer>, refusal: Refusal) -> Refusal {
        let addr = peer.map(|peer| peer.addr.ip());
        if addr.is_none_or(|addr| self.0.attempts.count(addr)) {
            return refusal;
        }
        too_many()
    }
}

impl Session {
    /// What a request that changes something must carry beside the cookie. A page of another site cannot know it.
    pub(crate) fn proof(&self) -> String {
        cookie::proof(&self.cookie)
    }

    /// Whether it carries that.
    pub(crate) fn is_proof(&self, shown: &str) -> bool {
        cookie::is_proof(&self.cookie, shown)
    }

    /// The cookie as it is set. It is a secret.
    pub(crate) fn set(&self) -> String {
        Cookie::Session.set(&self.cookie, self.left)
    }
}

impl Asked {
    /// Whether they may.
    ///
    /// # Errors
    /// As [`Who::check`]; `route-not-found` for what belongs to a door that is shut.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.who.check(self.need)?;
        match self.is_shut {
            true => Err(shut(Contract::Miaas)),
            false => Ok(()),
        }
    }
}

impl Who {
    fn bearer_of(token: &ApiToken) -> Self {
        Self::Person {
            name: token.name.as_str().into(),
            token: token.id,
            role: token.role,
            account: token.account,
        }
    }

    /// Whether they may do that.
    ///
    /// # Errors
    /// `unauthenticated` for nobody, `forbidden` for those who may not.
    pub(crate) fn check(&self, need: Need) -> Result<(), Refusal> {
        let (needed, is_own) = match need {
            Need::Nothing | Need::Open => return Ok(()),
            Need::Judged(_) if !matches!(self, Self::Person { .. }) => return Ok(()),
            Need::Judged(role) | Need::Own(role) => (role, true),
            Need::Role(role) => (role, false),
        };
        match self {
            Self::Anybody => Ok(()),
            Self::Nobody => Err(unauthenticated("this needs a token, and none was shown")),
            Self::Account(_) | Self::Program(_) if is_own => Ok(()),
            Self::Person { role, account, .. }
                if *role >= needed && (is_own || account.is_none()) =>
            {
                Ok(())
            }
            Self::Person {
                name,
                role,
                account,
                ..
            } => {
                let sentence = match account {
                    Some(_) if !is_own => {
                        format!("the token of {name} is good for one spot account alone")
                    }
                    _ => format!("{name} is {role}, and this needs {needed}"),
                };
                let advice = "ask an admin for a token with that role";
                Err(Refusal::new(Code::Forbidden, sentence, advice))
            }
            Self::Node(_) => {
                let sentence = "a node may say what concerns itself, and nothing else";
                let advice = "show a token of a person or program";
                Err(Refusal::new(Code::Forbidden, sentence, advice))
            }
            Self::Account(_) | Self::Program(_) => {
                let sentence = "what was shown is good for what is its holder's alone";
                let advice = "show a token of a person or program";
                Err(Refusal::new(Code::Forbidden, sentence, advice))
            }
        }
    }

    /// The account that this is about alone; none: all of them.
    pub(crate) fn account(&self) -> Option<AccountId> {
        match self {
            Self::Person { account, .. } => *account,
            Self::Account(account) => Some(*account),
            Self::Anybody | Self::Nobody | Self::Node(_) | Self::Program(_) => None,
        }
    }

    /// A person or program whose token is good for all, with at least this role.
    pub(crate) fn is(&self, needed: AccessRole) -> bool {
        matches!(self, Self::Person { role, account: None, .. } if *role >= needed)
    }

    /// As whom they act.
    pub(crate) fn actor(&self) -> Actor {
        Actor::User(match self {
            Self::Person { name, .. } => name.to_string(),
            Self::Node(id) => id.to_string(),
            Self::Account(account) => format!("account/{account}"),
            Self::Program(contract) => contract.as_str().to_owned(),
            Self::Anybody | Self::Nobody => "anonymous".to_owned(),
        })
    }
}

/// The token, unless its time is over.
fn good<'a>(control: &Control, token: Option<&'a Arc<ApiToken>>) -> Option<&'a Arc<ApiToken>> {
    let now = Timestamp::from_millis(control.clock().wall_millis());
    token.filter(|token| !token.is_expired(now))
}

/// Somebody who showed that token, which is worth nothing here.
pub(crate) fn stranger(token: &str) -> By {
    By::nobody(Bearer::parse(token).and_then(|shown| shown.id.parse().ok()))
}

fn worthless() -> Refusal {
    unauthenticated("the token is worth nothing here: it was revoked, is over, or is another's")
}

/// The same to a person at the form.
fn mistyped() -> Refusal {
    let advice = "copy all of it, or ask an admin for another one";
    Refusal::new(Code::Unauthenticated, worthless().sentence, advice)
}

/// What a contract's credential in a request came to.
pub(crate) enum Shown {
    Known(Who),
    Nothing,
    /// Something that nobody here is known by.
    Worthless,
}

fn shut(contract: Contract) -> Refusal {
    let word = contract.as_str();
    let advice = format!("start the server with `--compat {word}`, if that door is to be open");
    let sentence = format!("the door of {word} is shut on this server");
    Refusal::new(Code::RouteNotFound, sentence, advice)
}

fn too_many() -> Refusal {
    let sentence = "too many attempts came from this address";
    let advice = "wait a minute, and check the token";
    Refusal::new(Code::TooManyAttempts, sentence, advice)
}

fn bearer(text: &str) -> Option<&str> {
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthenticated(sentence: &str) -> Refusal {
    let advice = "set HOSTLER_TOKEN, or send `Authorization: Bearer TOKEN`; an admin makes tokens \
                  with `hostler token issue`";
    Refusal::new(Code::Unauthenticated, sentence, advice)
}
