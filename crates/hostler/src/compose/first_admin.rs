//! The first admin of a fleet: made when there is no token at all, kept in a file for the owner of the data directory,
//! and shown once.

use std::path::{Path, PathBuf};

use hostler_control::fleet::{AccessVerb, JoinTokenOrder, TokenOrder, Verb};
use hostler_control::{Control, Trust};
use hostler_kit::Entropy;
use hostler_kit::trust::{Bearer, Invitation, secret};
use hostler_model::{AccessRole, Actor, JoinTokenId, Refusal, Timestamp, TokenId};

use crate::failure::Failure;
use crate::settings::Login;

/// What the admin is called.
const NAME: &str = "admin";
/// How long the first join token is good.
const JOIN_SPAN: u64 = 60 * 60 * 1_000;

/// What is told once.
pub(crate) struct FirstAdmin {
    pub(crate) path: PathBuf,
    /// What is typed on a machine that is to join.
    pub(crate) join: String,
}

/// Makes the first admin, unless there is a token already; `resets` makes it anew. `local` is the server's address on
/// this machine.
pub(crate) async fn first_admin(
    (control, trust): (&Control, &Trust),
    entropy: &dyn Entropy,
    (data_dir, local, resets): (&Path, &str, bool),
) -> Result<Option<FirstAdmin>, Failure> {
    if control.view().tokens().len() > 0 && !resets {
        return Ok(None);
    }
    let old = control
        .view()
        .tokens()
        .find(|token| token.name == NAME)
        .map(|token| token.id);
    if let Some(token) = old {
        submit(control, AccessVerb::Revoke { token }).await?;
    }
    let now = Timestamp::from_millis(control.clock().wall_millis());
    let id = TokenId::mint(now, entropy.next_u128());
    let bearer = Bearer {
        id: id.to_string(),
        secret: secret(entropy),
    };
    let login = Login {
        addr: local.to_owned(),
        token: bearer.reveal(),
        ca: Some(trust.bundle()),
    };
    // Written first: a token that nobody has is worse than one that is worth nothing, which the next start replaces.
    let path = Login::admin_path(data_dir);
    login.write(&path)?;
    let order = TokenOrder {
        id,
        name: NAME.to_owned(),
        role: AccessRole::Admin,
        account: None,
        hash: bearer.secret.hash(),
        expires_at: None,
    };
    submit(control, AccessVerb::Issue(order)).await?;
    let join = invite((control, trust), entropy, (now, local)).await?;
    Ok(Some(FirstAdmin { path, join }))
}

async fn invite(
    (control, trust): (&Control, &Trust),
    entropy: &dyn Entropy,
    (now, local): (Timestamp, &str),
) -> Result<String, Refusal> {
    let id = JoinTokenId::mint(now, entropy.next_u128());
    let invitation = Invitation {
        id: id.to_string(),
        secret: secret(entropy),
        authority: trust.print(),
    };
    let order = JoinTokenOrder {
        id,
        hash: invitation.secret.hash(),
        labels: std::collections::BTreeMap::new(),
        uses: None,
        replaces: None,
        needs_approval: false,
        expires_at: Timestamp::from_millis(now.as_millis() + JOIN_SPAN),
    };
    submit(control, AccessVerb::Invite(order)).await?;
    let server = trust.urls().first().map_or(local, String::as_str);
    Ok(format!(
        "HOSTLER_JOIN_TOKEN={} hostler agent --server {server}",
        invitation.reveal()
    ))
}

async fn submit(control: &Control, verb: AccessVerb) -> Result<(), Refusal> {
    let actor = Actor::Keeper("first start".to_owned());
    control
        .submit(actor, Verb::Access(Box::new(verb)))
        .await
        .map(drop)
}
