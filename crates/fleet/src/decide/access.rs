//! Who may come in: tokens, machines that join, and the approval of those that wait.
//!
//! ```text
//!   (unknown) ──join──► Pending ──approve──► Open     only if the token asks for approval,
//!        └────────────join───────────────────►        else at once
//! ```
//!
//! A node's key is an alias of it: whose key it is stays known after the node was removed, so that its machine is told.
//! A node that ran without login tells its key then already. One that did not gets a key only by a token that names
//! it: its identity was sent in plain text, and who repeats that is not proved to be it.

use std::sync::Arc;

use hostler_model::{
    Admission, Alias, AliasKey, AliasOwner, ApiToken, Code, EventKind, JoinToken, KEY_SCOPE, Node,
    NodeId, Refusal, Subject, key_alias,
};

use super::{Draft, about_node, gone};
use crate::{AccessVerb, Change, Expect, JoinTokenOrder, Joining, Reply, TokenOrder};

/// Longest name of a token.
const LONGEST_NAME: usize = 64;
/// Most tokens of each kind; more are a mistake of a script.
const MOST_TOKENS: usize = 10_000;

impl Draft<'_> {
    pub(super) fn access(&mut self, verb: &AccessVerb) -> Result<Reply, Refusal> {
        match verb {
            AccessVerb::Issue(order) => self.issue_token(order),
            AccessVerb::Revoke { token } => {
                let known = self.state.token(*token).ok_or_else(no_token)?;
                self.changes.push(Change::RemoveToken(*token));
                let message = format!("the token {} was revoked", known.name);
                self.event(EventKind::TokenRevoked, Subject::default(), message);
                Ok(Reply::Done)
            }
            AccessVerb::Invite(order) => self.invite(order),
            AccessVerb::RevokeJoin { token } => {
                self.state.join_token(*token).ok_or_else(no_token)?;
                self.changes.push(Change::RemoveJoinToken(*token));
                let message = format!("the join token {} was revoked", token.short());
                self.event(EventKind::TokenRevoked, Subject::default(), message);
                Ok(Reply::Done)
            }
            AccessVerb::Approve { node } => self.approve(*node),
            AccessVerb::AuthorityRotated { print } => {
                let message = format!("the fleet's authority has a new key, {print}");
                self.event(EventKind::AuthorityRotated, Subject::default(), message);
                Ok(Reply::Done)
            }
            AccessVerb::AuthorityRetired => {
                let message = "the former keys of the fleet's authority are believed no more";
                let kind = EventKind::AuthorityRetired;
                self.event(kind, Subject::default(), message.to_owned());
                Ok(Reply::Done)
            }
            AccessVerb::Believes { node, print } => {
                let node = self.present_node(*node)?;
                if node.believes.as_ref() != Some(print) {
                    self.put_node(Node {
                        believes: Some(print.clone()),
                        ..Node::clone(node)
                    });
                }
                Ok(Reply::Done)
            }
            AccessVerb::Doubled { node } => {
                let name = &self.present_node(*node)?.name;
                let message = format!(
                    "a machine that was copied while it ran asked to be node {name} beside it, and was refused"
                );
                self.warning(EventKind::NodeDoubled, about_node(*node), message);
                Ok(Reply::Done)
            }
        }
    }

    fn issue_token(&mut self, order: &TokenOrder) -> Result<Reply, Refusal> {
        let name = &order.name;
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_word) {
            let sentence = format!("`{}` is no name for a token", name.escape_debug());
            let advice = "use 1 to 64 letters, digits, `-`, `_`, `.` or `@`";
            return Err(Refusal::new(Code::NameInvalid, sentence, advice));
        }
        if self.state.tokens().any(|token| token.name == *name) {
            let sentence = format!("another token is called `{name}`");
            let advice = "choose another name, or revoke that one with `hostler token rm`";
            return Err(Refusal::new(Code::TokenNameTaken, sentence, advice));
        }
        if let Some(account) = order.account {
            self.account(account)?;
        }
        check_room(self.state.tokens().len())?;
        self.changes.push(Change::PutToken(Arc::new(ApiToken {
            id: order.id,
            name: name.clone(),
            role: order.role,
            account: order.account,
            hash: order.hash.clone(),
            created_at: self.now,
            created_by: self.actor.to_string(),
            expires_at: order.expires_at,
        })));
        let message = format!(
            "a token for {name} was issued, with the role {}",
            order.role
        );
        self.event(EventKind::TokenIssued, Subject::default(), message);
        Ok(Reply::Done)
    }

    fn invite(&mut self, order: &JoinTokenOrder) -> Result<Reply, Refusal> {
        super::operators::check_labels(order.labels.iter().map(|(key, value)| (key, Some(value))))?;
        if let Some(node) = order.replaces {
            let node = self.present_node(node)?;
            if order.needs_approval {
                let sentence = format!(
                    "the place of {} is given at once, without approval",
                    node.name
                );
                let advice =
                    "leave --approve out: the token itself is the decision; make it for one use";
                return Err(Refusal::new(Code::BadRequest, sentence, advice));
            }
        }
        let spent = self.state.join_tokens().filter(|it| it.is_spent(self.now));
        let spent: Vec<_> = spent.map(|it| Change::RemoveJoinToken(it.id)).collect();
        check_room(self.state.join_tokens().len() - spent.len())?;
        self.changes.extend(spent);
        self.changes.push(Change::PutJoinToken(Arc::new(JoinToken {
            id: order.id,
            hash: order.hash.clone(),
            labels: order.labels.clone(),
            uses_left: order.uses,
            replaces: order.replaces,
            needs_approval: order.needs_approval,
            created_at: self.now,
            created_by: self.actor.to_string(),
            expires_at: order.expires_at,
        })));
        let message = format!("a join token was issued, {}", order.id.short());
        self.event(EventKind::TokenIssued, Subject::default(), message);
        Ok(Reply::Done)
    }

    /// A machine that asks again, because it did not hear the answer, uses nothing up.
    pub(super) fn join_with_token(&mut self, joining: &Joining) -> Result<Reply, Refusal> {
        let key = key_alias(&joining.key);
        if let Some(node) = self.state.node_by_alias(&key) {
            return if node.is_gone() {
                Err(gone(node))
            } else {
                Ok(reply(node))
            };
        }
        let token = self.usable(joining)?;
        let reply = match self.state.node_by_alias(&joining.hello.identity) {
            Some(node) if node.is_gone() => return Err(gone(node)),
            Some(node) => {
                self.refuse_second_key(node)?;
                if token.replaces != Some(node.id) {
                    return Err(unproven(node));
                }
                self.tell_of_key(node);
                reply(node)
            }
            None => self.join_anew(joining, &token)?,
        };
        let Reply::Node { id, .. } = reply else {
            return Ok(reply);
        };
        self.put_alias(key, id);
        if let Some(left) = token.uses_left {
            self.changes.push(Change::PutJoinToken(Arc::new(JoinToken {
                uses_left: Some(left.saturating_sub(1)),
                ..JoinToken::clone(&token)
            })));
        }
        Ok(reply)
    }

    fn usable(&self, joining: &Joining) -> Result<Arc<JoinToken>, Refusal> {
        let token = self.state.join_token(joining.token);
        let Some(token) = token.filter(|token| token.hash == joining.hash) else {
            let sentence = "this fleet has no such join token";
            let advice = "make one with `hostler token create`, and copy all of it";
            return Err(Refusal::new(Code::JoinTokenInvalid, sentence, advice));
        };
        if token.is_spent(self.now) {
            let sentence = "the join token's time is over, or it was used as often as it may be";
            let advice = "make a new one with `hostler token create`";
            return Err(Refusal::new(Code::JoinTokenSpent, sentence, advice));
        }
        Ok(Arc::clone(token))
    }

    fn join_anew(&mut self, joining: &Joining, token: &JoinToken) -> Result<Reply, Refusal> {
        let mut hello = joining.hello.clone();
        if let Some(old) = token.replaces.map(|id| self.node(id)).transpose()? {
            if !old.is_gone() {
                self.remove_node(old.id, true, Expect::Any)?;
            }
            hello.name.clone_from(&old.name);
            hello.labels.extend(old.labels.clone());
        }
        hello.labels.extend(token.labels.clone());
        let admission = if token.needs_approval {
            Admission::Pending
        } else {
            Admission::Open
        };
        let replaced = token.replaces;
        Ok(self.join(&hello, admission, replaced))
    }

    fn has_key(&self, node: &Node) -> bool {
        let mut aliases = self.state.aliases_of(AliasOwner::Node(node.id));
        aliases.any(|alias| alias.key.scope == KEY_SCOPE)
    }

    fn tell_of_key(&mut self, node: &Node) {
        let message = format!("node {} has a key now", node.name);
        self.event(EventKind::NodeKeyBound, about_node(node.id), message);
    }

    /// Where there is no login: the first key that a node tells is its own. What another node has is none of its.
    pub(super) fn learn_key(&mut self, node: &Node, key: Option<&AliasKey>) {
        let Some(key) = key.filter(|key| key.scope == KEY_SCOPE) else {
            return;
        };
        if self.state.node_by_alias(key).is_none() && !self.has_key(node) {
            self.put_alias(key.clone(), node.id);
            self.tell_of_key(node);
        }
    }

    /// The identity is another machine's: this one is a copy of its disk, or has lost the key.
    fn refuse_second_key(&self, node: &Node) -> Result<(), Refusal> {
        if !self.has_key(node) {
            return Ok(());
        }
        let sentence = format!("the identity of {} belongs to another key", node.name);
        let advice = "join as a new node, with an empty data directory; a token from \
                      `hostler token create --replace NODE` lets it take the node's place";
        Err(Refusal::new(Code::NodeIdentityInUse, sentence, advice))
    }

    /// Whose session it is, by its key. The identity of the hello must be the same node's, or nobody's yet.
    pub(super) fn announced_by_key(
        &mut self,
        key: &AliasKey,
        identity: &AliasKey,
    ) -> Result<Arc<Node>, Refusal> {
        let node = self.state.node_by_alias(key).ok_or_else(|| {
            let sentence = "no node of this fleet has this key";
            let advice = "join with a token from `hostler token create`";
            Refusal::new(Code::NodeKeyUnknown, sentence, advice)
        })?;
        if node.is_gone() {
            return Err(gone(node));
        }
        if node.admission == Admission::Pending {
            return Err(pending(node));
        }
        match self.state.node_by_alias(identity) {
            Some(named) if named.id == node.id => {}
            Some(named) => {
                let sentence = format!("{} says that it is {}", node.name, named.name);
                let advice = "give the agent a data directory of its own";
                return Err(Refusal::new(Code::Forbidden, sentence, advice));
            }
            None if self.has_identity(node) => {
                let sentence = format!("{} says that it is somebody else now", node.name);
                let advice = "give the agent its data directory back, or an empty one and a token";
                return Err(Refusal::new(Code::Forbidden, sentence, advice));
            }
            None => self.put_alias(identity.clone(), node.id),
        }
        Ok(Arc::clone(node))
    }

    /// Whether an agent has said already what it is called. A node has one such name, so that none fills the store.
    fn has_identity(&self, node: &Node) -> bool {
        let mut aliases = self.state.aliases_of(AliasOwner::Node(node.id));
        aliases.any(|alias| alias.key.scope != KEY_SCOPE)
    }

    fn approve(&mut self, id: NodeId) -> Result<Reply, Refusal> {
        let node = self.present_node(id)?;
        if node.admission != Admission::Pending {
            return Ok(reply(node));
        }
        let message = format!("node {} was let in", node.name);
        let node = Node {
            admission: Admission::Open,
            ..Node::clone(node)
        };
        Ok(self.revise(node, EventKind::NodeApproved, message))
    }

    pub(super) fn put_alias(&mut self, key: AliasKey, node: NodeId) {
        self.changes.push(Change::PutAlias(Arc::new(Alias {
            key,
            owner: AliasOwner::Node(node),
            created_at: self.now,
        })));
    }
}

pub(super) fn pending(node: &Node) -> Refusal {
    let sentence = format!("node {} waits to be let in", node.name);
    let advice = format!("let it in with `hostler node approve {}`", node.name);
    Refusal::new(Code::NodePending, sentence, advice)
}

fn unproven(node: &Node) -> Refusal {
    let name = &node.name;
    let sentence =
        format!("{name} has told no key by which this machine could prove to be that node");
    let advice = format!(
        "make a token for that node alone, with `hostler token create --replace {name} --uses 1`; \
         it stays the node that it is, with all that it runs"
    );
    Refusal::new(Code::NodeUnproven, sentence, advice)
}

fn reply(node: &Node) -> Reply {
    Reply::Node {
        id: node.id,
        revision: node.revision,
    }
}

fn no_token() -> Refusal {
    let advice = "list the tokens with `hostler token ls`";
    Refusal::new(Code::TokenNotFound, "there is no such token", advice)
}

fn check_room(count: usize) -> Result<(), Refusal> {
    if count < MOST_TOKENS {
        return Ok(());
    }
    let sentence = format!("there are {count} tokens already");
    let advice = "revoke those that nobody uses, with `hostler token rm`";
    Err(Refusal::new(Code::Overloaded, sentence, advice))
}
