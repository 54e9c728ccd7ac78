//! Machines become members of the fleet, and members renew.
//!
//! ```text
//!   Join:  token, request ──► the key signed it? ──► verb Join ──► waits for approval: Pending
//!                                                                └► certificate
//!   Renew: request ─────────► the key signed it, and is a node's? ──► the same
//! ```
//!
//! A request for a certificate is signed with the key that it is about, and what comes back is of use to nobody else: so
//! one that is overheard or sent again gives nothing away. Failures are limited in rate by address.

use hostler_control::fleet::{Introduction, Joining, NodeAnnouncement, Reply, State, Verb};
use hostler_control::{Control, Trust};
use hostler_kit::trust::Invitation;
use hostler_model::{Actor, Admission, Code, Contract, NodeFacts, NodeId, Refusal, Resources};
use hostler_wire::session::v1::{
    JoinRequest, Member, Membership, Pending, RenewRequest, membership,
};

use super::convert;
use crate::access::Who;
use crate::audit::By;
use crate::{Access, Peer};

/// Lets machines in and members renew.
pub(super) struct Members<'a> {
    pub(super) control: &'a Control,
    pub(super) access: &'a Access,
    pub(super) peer: Option<&'a Peer>,
}

impl Members<'_> {
    pub(super) async fn join(&self, asked: JoinRequest) -> Membership {
        let name = asked.name.clone();
        let joined = async {
            let trust = self.trust()?;
            let request = asked.request.clone();
            // A machine that did not hear the answer asks again, when its token may be forgotten.
            if let Ok(id) = Trust::key_of(&request).and_then(|key| self.access.node(key)) {
                return self.outcome(trust, &request, id);
            }
            let joining = joining(self.control, asked)?;
            let (actor, name) = (
                Actor::Node(joining.hello.name.clone()),
                joining.hello.name.clone(),
            );
            let verb = Verb::Join(Box::new(joining));
            match self.control.submit(actor, verb).await? {
                Reply::Node { id, .. } => {
                    tracing::info!(node = %id, name, "a machine joined");
                    self.outcome(trust, &request, id)
                }
                other => Err(super::stream::unexpected(&other)),
            }
        };
        self.answer(("Join", &name), joined.await).await
    }

    pub(super) async fn renew(&self, asked: &RenewRequest) -> Membership {
        self.answer(("Renew", ""), self.renewed(asked)).await
    }

    fn renewed(&self, asked: &RenewRequest) -> Result<membership::Outcome, Refusal> {
        let trust = self.trust()?;
        let key = Trust::key_of(&asked.request)?;
        let id = self.access.node(key)?;
        self.outcome(trust, &asked.request, id)
    }

    /// A certificate, unless the node waits to be let in.
    fn outcome(
        &self,
        trust: &Trust,
        request: &[u8],
        id: NodeId,
    ) -> Result<membership::Outcome, Refusal> {
        let view = self.control.view();
        let is_pending = view
            .node(id)
            .is_some_and(|node| node.admission == Admission::Pending);
        drop(view);
        let node_id = id.to_string();
        if is_pending {
            return Ok(membership::Outcome::Pending(Pending { node_id }));
        }
        let issued = trust.sign_node(request, id)?;
        tracing::info!(node = %id, "a certificate was issued");
        Ok(membership::Outcome::Member(Member {
            node_id,
            certificates: issued.pem(),
            roots: trust.bundle(),
        }))
    }

    /// Writes down how it ended, and says it.
    async fn answer(
        &self,
        (call, name): (&'static str, &str),
        outcome: Result<membership::Outcome, Refusal>,
    ) -> Membership {
        use membership::Outcome;
        let outcome = outcome.map_err(|refusal| {
            self.access.tell_refusal(self.peer, "membership", &refusal);
            match refusal.code {
                Code::JoinTokenInvalid | Code::NodeKeyUnknown | Code::BadRequest => {
                    self.access.failed(self.peer, refusal)
                }
                _ => refusal,
            }
        });
        let node = match &outcome {
            Ok(Outcome::Member(Member { node_id, .. }) | Outcome::Pending(Pending { node_id })) => {
                node_id.parse().ok()
            }
            Ok(Outcome::Refused(_)) | Err(_) => None,
        };
        let by = node.map_or_else(|| By::nobody(None), |id| self.access.by(&Who::Node(id)));
        let audit = self.access.audit();
        let refusal = outcome.as_ref().err();
        audit.machine((&by, self.peer), call, (name, refusal)).await;
        let outcome =
            outcome.unwrap_or_else(|refusal| Outcome::Refused(convert::refused_message(refusal)));
        Membership {
            outcome: Some(outcome),
        }
    }

    fn trust(&self) -> Result<&Trust, Refusal> {
        self.access.trust().ok_or_else(|| {
            let sentence = "this server runs without login and knows its nodes by no key";
            let advice = "name the server with http:// and leave the token out";
            Refusal::new(Code::BadRequest, sentence, advice)
        })
    }
}

/// The token is looked at before the signature, which costs more.
fn joining(control: &Control, asked: JoinRequest) -> Result<Joining, Refusal> {
    let invalid = || {
        let advice = "make one with `hostler token create`, and copy all of it";
        Refusal::new(Code::JoinTokenInvalid, "this is no join token", advice)
    };
    let token = Invitation::parse(&asked.token).ok_or_else(invalid)?;
    let id = token.id.parse().map_err(|_| invalid())?;
    let hash = token.secret.hash();
    let is_known = |view: &State| view.join_token(id).is_some_and(|known| known.hash == hash);
    if !is_known(&control.view()) {
        return Err(invalid());
    }
    let key = Trust::key_of(&asked.request)?.to_string();
    let identity = convert::identity(asked.identity)?;
    let hello = NodeAnnouncement {
        key: None,
        introduction: Introduction {
            copied_from: asked.copied_from.parse().ok(),
            ..Introduction::default()
        },
        identity,
        contract: Contract::Session,
        name: asked.name,
        facts: NodeFacts {
            agent_version: asked.agent_version,
            ..NodeFacts::default()
        },
        capacity: Resources::ZERO,
        labels: asked.labels.into_iter().collect(),
        instance: None,
    };
    Ok(Joining {
        token: id,
        hash,
        key,
        hello,
    })
}
