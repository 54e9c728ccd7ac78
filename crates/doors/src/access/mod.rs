//! Who asks, and what they may do: the same answer for every door.
//!
//! ```text
//!   a token in `Authorization: Bearer …`   ──► a person or program with a role
//!   the key in a client's certificate      ──► a node
//!   the cookie of a session                ──► the person whose token began it; on our own routes alone
//!   nothing                                ──► nobody; where there is no login, anybody
//! ```
//!
//! A server without login (`up`, `server --insecure`) knows nobody and lets everybody do everything. Tokens and keys
//! are looked up in the committed view, so what was revoked or removed is refused with the next request. It owns the
//! count of failed attempts and the sessions of browsers; what can fail is a refusal.

mod attempts;
mod cookie;
mod need;
mod sessions;
mod warrant;

use std::sync::Arc;
use std::time::Duration;

use hostler_control::{Control, Trust};
use hostler_kit::Entropy;
use hostler_kit::trust::{Bearer, Print, Secret, secret};
use hostler_model::{
    AccessRole, AccountId, Actor, ApiToken, Code, NodeId, Refusal, Timestamp, TokenId, key_alias,
};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use self::attempts::Attempts;
pub(crate) use self::cookie::{Cookie, FORM_LIFE, is_proof, proof};
pub(crate) use self::need::{Need, acts, need, takes_cookie};
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
    attempts: Attempts,
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
}

impl Access {
    /// No login: everybody may do everything.
    #[must_use]
    pub fn open(control: &Control) -> Self {
        Self::new(control, None, Audit::none())
    }

    /// Nobody may do anything that they have no token or key for.
    #[must_use]
    pub fn guarded(control: &Control, trust: &Trust) -> Self {
        Self::new(control, Some(trust.clone()), Audit::none())
    }

    /// The same, with who did what written down.
    #[must_use]
    pub fn audited(&self, audit: Audit) -> Self {
        Self::new(&self.0.control, self.0.trust.clone(), audit)
    }

    fn new(control: &Control, trust: Option<Trust>, audit: Audit) -> Self {
        let attempts = Attempts::new(Arc::clone(control.clock()));
        Self(Arc::new(Inner {
            control: control.clone(),
            trust,
            attempts,
            audit,
            sessions: Sessions::new(Arc::clone(control.clock())),
        }))
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
        }
    }

    /// The same for somebody whose token or key is worth nothing: the id that a token names is no secret.
    pub(crate) fn by_shown(&self, headers: &HeaderMap) -> By {
        if !self.is_guarded() {
            return By::anonymous();
        }
        let shown = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
        let shown = shown.and_then(bearer).and_then(Bearer::parse);
        By::nobody(shown.and_then(|shown| shown.id.parse().ok()))
    }

    /// The same at another contract's door, which knows clients by tokens of its own.
    pub(crate) fn by_client(&self, headers: &HeaderMap) -> By {
        let view = self.0.control.view();
        let client = spot::bearer(headers).and_then(|token| view.account_by_token(token));
        client.map_or_else(By::anonymous, |it| By::known("client", &it.name, &it.id))
    }

    /// What somebody holds who was let in.
    pub(crate) fn warrant(&self, who: &Who) -> Warrant {
        let token = match who {
            Who::Person { token, .. } => Some(*token),
            Who::Anybody | Who::Nobody | Who::Node(_) => None,
        };
        Warrant::new(&self.0.control, token)
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
            .ok_or_else(|| self.failed(peer, worthless()))?;
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
        let needed = match need {
            Need::Nothing => return Ok(()),
            Need::Role(role) => role,
        };
        match self {
            Self::Anybody => Ok(()),
            Self::Nobody => Err(unauthenticated("this needs a token, and none was shown")),
            Self::Person {
                role,
                account: None,
                ..
            } if *role >= needed => Ok(()),
            Self::Person {
                name,
                role,
                account,
                ..
            } => {
                let sentence = match account {
                    Some(_) => format!("the token of {name} is good for one spot account alone"),
                    None => format!("{name} is {role}, and this needs {needed}"),
                };
                let advice = "ask an admin for a token with that role";
                Err(Refusal::new(Code::Forbidden, sentence, advice))
            }
            Self::Node(_) => {
                let sentence = "a node may say what concerns itself, and nothing else";
                let advice = "show a token of a person or program";
                Err(Refusal::new(Code::Forbidden, sentence, advice))
            }
        }
    }

    /// As whom they act.
    pub(crate) fn actor(&self) -> Actor {
        Actor::User(match self {
            Self::Person { name, .. } => name.to_string(),
            Self::Node(id) => id.to_string(),
            Self::Anybody | Self::Nobody => "anonymous".to_owned(),
        })
    }
}

/// The token, unless its time is over.
fn good<'a>(control: &Control, token: Option<&'a Arc<ApiToken>>) -> Option<&'a Arc<ApiToken>> {
    let now = Timestamp::from_millis(control.clock().wall_millis());
    token.filter(|token| !token.is_expired(now))
}

fn worthless() -> Refusal {
    unauthenticated("the token is worth nothing here: it was revoked, is over, or is another's")
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
                  with `hostler token create`";
    Refusal::new(Code::Unauthenticated, sentence, advice)
}
