//! Who asks, and what they may do: the same answer for every door.
//!
//! ```text
//!   a token in `Authorization: Bearer …`   ──► a person or program with a role
//!   the key in a client's certificate      ──► a node
//!   nothing                                ──► nobody; where there is no login, anybody
//! ```
//!
//! A server without login (`up`, `server --insecure`) knows nobody and lets everybody do everything. Tokens and keys
//! are looked up in the committed view, so what was revoked or removed is refused with the next request. It owns the
//! count of failed attempts; what can fail is a refusal.

mod attempts;
mod need;
mod warrant;

use std::sync::Arc;

use hostler_control::{Control, Trust};
use hostler_kit::trust::{Bearer, Print};
use hostler_model::{
    AccessRole, AccountId, Actor, ApiToken, Code, NodeId, Refusal, Timestamp, TokenId, key_alias,
};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use self::attempts::Attempts;
pub(crate) use self::need::{Need, acts, need};
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
        let shown = Bearer::parse(text)?;
        let view = self.0.control.view();
        let token = good(&self.0.control, view.token(shown.id.parse().ok()?))?;
        // Hashes are compared: how long that takes tells nothing about the secret.
        (token.hash == shown.secret.hash()).then(|| Who::Person {
            name: token.name.as_str().into(),
            token: token.id,
            role: token.role,
            account: token.account,
        })
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

impl Who {
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
