//! The first admin of a fleet: made when there is no token at all, and kept in a file for the owner of the data
//! directory, as is the first token to join with. That one is shown to a person at a terminal; what a program shows
//! goes to journals that others read, and there stands only where the token is.

use std::path::{Path, PathBuf};

use hostler_control::fleet::{AccessVerb, JoinTokenOrder, TokenOrder, Verb};
use hostler_control::{Control, Trust};
use hostler_kit::files::{Readers, replace};
use hostler_kit::trust::{Bearer, Invitation, secret};
use hostler_kit::{Entropy, Tasks};
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
    pub(crate) join: FirstJoin,
}

/// How machines join at first.
pub(crate) struct FirstJoin {
    path: PathBuf,
    token: String,
    server: String,
}

impl FirstJoin {
    /// What is typed on a machine that is to join. Only a person who watches is shown the token.
    pub(crate) fn line(&self, is_watched: bool) -> String {
        let Self {
            path,
            token,
            server,
        } = self;
        if is_watched {
            return format!("HOSTLER_JOIN_TOKEN={token} hostler agent --server {server}");
        }
        format!(
            "hostler agent --server {server} --token-file FILE\n\
             FILE holds what is in {} of this machine",
            path.display()
        )
    }
}

/// The file of the first join token in the data directory.
const JOIN_TOKEN: &str = "join-token";

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
    let join = invite((control, trust), entropy, (now, data_dir, local)).await?;
    Ok(Some(FirstAdmin { path, join }))
}

/// Lets the admin's login believe what members believe, whenever that is new, until the tasks stop.
pub(crate) fn keep(trust: &Trust, data_dir: &Path, tasks: &Tasks) {
    let (trust, path) = (trust.clone(), Login::admin_path(data_dir));
    tasks.spawn_until_stop("admin's login", async move {
        let mut signing = trust.signing();
        loop {
            if let Err(failure) = Login::renew(&path, &trust.bundle()) {
                tracing::warn!(
                    sentence = failure.sentence,
                    "the admin's login knows not the newest authority"
                );
            }
            // Cancel-safe: it only waits.
            if signing.changed().await.is_err() {
                return;
            }
        }
    });
}

async fn invite(
    (control, trust): (&Control, &Trust),
    entropy: &dyn Entropy,
    (now, data_dir, local): (Timestamp, &Path, &str),
) -> Result<FirstJoin, Failure> {
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
    let (path, token) = (data_dir.join(JOIN_TOKEN), invitation.reveal());
    replace(&path, token.as_bytes(), Readers::Owner).map_err(|error| {
        let sentence = format!("cannot write {}: {error}", path.display());
        Failure::failed(sentence, "look for a full disk, or missing rights")
    })?;
    let server = trust.urls().first().map_or(local, String::as_str);
    Ok(FirstJoin {
        path,
        token,
        server: server.to_owned(),
    })
}

async fn submit(control: &Control, verb: AccessVerb) -> Result<(), Refusal> {
    let actor = Actor::Keeper("first start".to_owned());
    control
        .submit(actor, Verb::Access(Box::new(verb)))
        .await
        .map(drop)
}
