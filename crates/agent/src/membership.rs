//! Membership: the node's key, its certificate, and whom it believes.
//!
//! ```text
//!   stranger ──Join, with a token──► waiting ──Renew──► member ──┐
//!       │                              (asks again)       ▲      │ Renew, at a random moment between 50 and 80 %
//!       ├────────────Join──────────────────────────────────┤◄─────┘ of the certificate's life, after its end, and when
//!       └─Renew, if the key is not new─────────────────────┘        the fleet's authority has a new key
//! ```
//!
//! ```text
//! <data>/agent/key.pem           the key (secret); made here, and never sent
//! <data>/agent/certificate.pem   the certificate for it, and those above
//! <data>/agent/ca.pem            whom the node believes
//! <data>/agent/former-prints     whom it believed before, as the same fleet's member
//! ```
//!
//! Renewing touches no connection: what is shown changes for the next one. What can fail: a file, at the start; later
//! the control plane does not answer or says no, and the old certificate goes on.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostler_kit::files::{Readers, replace};
use hostler_kit::trust::{
    Anchors, CertificateDer, ClientTls, Credentials, Invitation, Print, TrustError, Validity,
    certificates,
};
use hostler_kit::{Clock, Entropy, Tasks};
use hostler_model::{Code, NodeId};
use hostler_wire::session::v1::session_client::SessionClient;
use hostler_wire::session::v1::{JoinRequest, Member, Refused, RenewRequest, membership};
use tokio::sync::{Mutex as Turns, Notify, watch};

use crate::dial::{Dial, Server};
use crate::uplink::channel::{SignsOfLife, connect, failure};

/// How long the other side may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked whether it is time to renew. Clocks jump and machines sleep, so no longer timer is set.
const LOOK: Duration = Duration::from_secs(30);
/// Nodes that learn at one moment that they are to renew do so within this.
const SPREAD: Duration = Duration::from_secs(2);
/// The file of the key.
const KEY: &str = "key.pem";
/// The files of the certificate, and of whom the node believes.
const CERTIFICATE: &str = "certificate.pem";
const ROOTS: &str = "ca.pem";
/// The file of authorities that the fleet has let go, by their prints.
const FORMER: &str = "former-prints";
/// When to renew, in thousandths of the certificate's life.
const RENEWED: std::ops::Range<u64> = 500..800;

/// The node's membership in its fleet. One per agent.
pub(crate) struct Membership {
    dir: PathBuf,
    key: Credentials,
    /// Believes the fleet's authority and shows the certificate.
    tls: ClientTls,
    /// Believes the same and shows nothing: for whoever has no certificate, or one that has ended.
    bare: ClientTls,
    invitation: Option<Invitation>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    standing: Mutex<Standing>,
    /// The key is older than this agent, so the fleet may know it.
    may_be_known: AtomicBool,
    /// It leaves the fleet that it was a member of.
    begins_anew: AtomicBool,
    /// The newest authority that is believed, by the print of its certificate.
    believes: watch::Sender<Option<Print>>,
    /// The fleet's authority has a new key.
    hurry: Notify,
    /// One call at a time.
    turn: Turns<()>,
}

/// How the node stands with its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Stranger,
    /// It has joined, and no certificate was given out yet.
    Waiting,
    Member {
        validity: Validity,
        renew_at: Duration,
    },
}

/// Why there is no certificate.
#[derive(Debug)]
pub(crate) enum NoMembership {
    /// Nothing was answered; to be tried again.
    Silent(String),
    /// The other side said no, or a person has to act here.
    Refused(Refused),
}

/// What is told of a machine that joins.
pub(crate) struct About<'a> {
    pub(crate) identity: &'a str,
    pub(crate) name: &'a str,
    pub(crate) labels: &'a std::collections::BTreeMap<String, String>,
    pub(crate) copied_from: Option<NodeId>,
}

/// The way to the control plane.
pub(crate) type Way<'a> = (&'a Server, &'a Arc<dyn Dial>);

impl Membership {
    /// Reads the key and the certificate, or makes a key.
    ///
    /// # Errors
    /// A file cannot be read, understood or written.
    pub(crate) fn open(
        data_dir: &Path,
        (invitation, anchors): (Option<Invitation>, Option<Anchors>),
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<Self, TrustError> {
        let dir = data_dir.join("agent");
        let has_key = dir.join(KEY).exists();
        let key = key(data_dir)?;
        let (chain_path, roots_path) = (dir.join(CERTIFICATE), dir.join(ROOTS));
        let is_other = is_of_another(&dir, &roots_path, invitation.as_ref());
        let knows_fleet = roots_path.exists() && !is_other;
        let is_member = chain_path.exists() && knows_fleet;
        let chain = is_member
            .then(|| certificates_in(&chain_path))
            .transpose()?;
        let believed = if knows_fleet {
            Anchors::from_file(&roots_path)?
        } else {
            let pinned = || invitation.as_ref().map(|it| Anchors::Pinned(it.authority));
            anchors.or_else(pinned).unwrap_or(Anchors::Machine)
        };
        let newest = match &believed {
            Anchors::Roots(roots) => roots.first().map(|root| Print::of(root)),
            Anchors::Called(_) | Anchors::Pinned(_) | Anchors::Machine => None,
        };
        let shown = chain
            .clone()
            .map(|chain| key.certified(chain))
            .transpose()?;
        let (tls, bare) = (
            ClientTls::new(&believed, shown)?,
            ClientTls::new(&believed, None)?,
        );
        let validity = chain.as_ref().and_then(|chain| chain.first());
        let validity = validity.map(Validity::of).transpose()?;
        let membership = Self {
            dir,
            key,
            tls,
            bare,
            invitation,
            clock,
            entropy,
            standing: Mutex::new(Standing::Stranger),
            may_be_known: AtomicBool::new(has_key && (knows_fleet || !roots_path.exists())),
            begins_anew: AtomicBool::new(roots_path.exists() && is_other),
            believes: watch::channel(newest.filter(|_| knows_fleet)).0,
            hurry: Notify::new(),
            turn: Turns::new(()),
        };
        if let Some(validity) = validity {
            membership.stand(membership.member(validity));
        }
        Ok(membership)
    }

    /// What connections of this node are made with.
    pub(crate) const fn tls(&self) -> &ClientTls {
        &self.tls
    }

    /// Makes sure that there is a certificate that is good now: joins, or renews.
    pub(crate) async fn ensure(&self, way: Way<'_>, about: &About<'_>) -> Result<(), NoMembership> {
        let _turn = self.turn.lock().await;
        match self.standing() {
            Standing::Member { validity, .. } if self.now() < validity.not_after => Ok(()),
            Standing::Member { .. } | Standing::Waiting => self.renew(way).await,
            Standing::Stranger => {
                if self.may_be_known.load(Ordering::Acquire) {
                    match self.renew(way).await {
                        Err(NoMembership::Refused(refused))
                            if refused.code == Code::NodeKeyUnknown.as_str() =>
                        {
                            self.may_be_known.store(false, Ordering::Release);
                        }
                        renewed => return renewed,
                    }
                }
                self.join(way, about).await
            }
        }
    }

    /// The newest authority that the node believes; always the latest.
    pub(crate) fn believes(&self) -> watch::Receiver<Option<Print>> {
        self.believes.subscribe()
    }

    /// The fleet's authority has a new key: the node is to learn it soon.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Asks for a new certificate although the old one seems good: the other side does not take it.
    pub(crate) async fn again(&self, way: Way<'_>) -> Result<(), NoMembership> {
        let _turn = self.turn.lock().await;
        match self.standing() {
            Standing::Member { .. } => self.renew(way).await,
            Standing::Stranger | Standing::Waiting => Ok(()),
        }
    }

    /// The fleet does not know the key any more: a machine that has a token joins anew.
    pub(crate) fn lapse(&self) {
        self.may_be_known.store(false, Ordering::Release);
        if self.invitation.is_some() {
            self.stand(Standing::Stranger);
        }
    }

    /// Renews in time until the tasks stop.
    pub(crate) fn keep(self: &Arc<Self>, (server, dial): (Server, Arc<dyn Dial>), tasks: &Tasks) {
        let membership = Arc::clone(self);
        tasks.spawn_until_stop("membership", async move {
            let mut is_wanted = false;
            loop {
                // Cancel-safe: both only wait.
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = membership.hurry.notified(), if !is_wanted => {
                        is_wanted = true;
                        tokio::time::sleep(membership.some_of(SPREAD)).await;
                    }
                }
                if !is_wanted && !membership.is_due() {
                    continue;
                }
                let _turn = membership.turn.lock().await;
                match membership.renew((&server, &dial)).await {
                    Ok(()) => {
                        is_wanted = false;
                        tracing::info!("the node's certificate was renewed");
                    }
                    Err(error) => tracing::warn!(%error, "the node's certificate was not renewed; trying again"),
                }
            }
        });
    }

    fn is_due(&self) -> bool {
        matches!(self.standing(), Standing::Member { renew_at, .. } if renew_at <= self.now())
    }

    async fn join(&self, (server, dial): Way<'_>, about: &About<'_>) -> Result<(), NoMembership> {
        let Some(invitation) = &self.invitation else {
            return Err(NoMembership::Refused(Refused {
                code: "unauthenticated".to_owned(),
                sentence: "this machine is no member of the fleet, and has no token to join with"
                    .to_owned(),
                advice: "set HOSTLER_JOIN_TOKEN, or name a file with `--token-file`; `hostler token create` makes one".to_owned(),
            }));
        };
        let request = self.request()?;
        let asked = JoinRequest {
            token: invitation.reveal(),
            request,
            identity: about.identity.to_owned(),
            name: about.name.to_owned(),
            labels: about.labels.clone().into_iter().collect(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            copied_from: about
                .copied_from
                .map_or_else(String::new, |id| id.to_string()),
        };
        let mut client = self.client((server, dial)).await?;
        let answer = tokio::time::timeout(PATIENCE, client.join(asked)).await;
        self.take(answer.map_err(|_| no_answer())?)
    }

    async fn renew(&self, way: Way<'_>) -> Result<(), NoMembership> {
        let request = self.request()?;
        let mut client = self.client(way).await?;
        let answer = tokio::time::timeout(PATIENCE, client.renew(RenewRequest { request })).await;
        self.take(answer.map_err(|_| no_answer())?)
    }

    fn request(&self) -> Result<Vec<u8>, NoMembership> {
        let request = self.key.request();
        request
            .map(|request| request.0)
            .map_err(|error| NoMembership::Silent(error.to_string()))
    }

    async fn client(
        &self,
        (server, dial): Way<'_>,
    ) -> Result<SessionClient<tonic::transport::Channel>, NoMembership> {
        let server = server.clone().with_tls(self.bare.clone());
        let channel = connect(&server, dial, SignsOfLife::Beats).await;
        channel
            .map(SessionClient::new)
            .map_err(NoMembership::Silent)
    }

    fn take(
        &self,
        answer: Result<tonic::Response<hostler_wire::session::v1::Membership>, tonic::Status>,
    ) -> Result<(), NoMembership> {
        let answer = answer.map_err(|status| NoMembership::Silent(failure(&status)))?;
        match answer.into_inner().outcome {
            Some(membership::Outcome::Member(member)) => self
                .become_member(&member)
                .map_err(|error| NoMembership::Silent(error.to_string())),
            Some(membership::Outcome::Pending(_)) => {
                self.stand(Standing::Waiting);
                Err(NoMembership::Refused(Refused {
                    code: "node-pending".to_owned(),
                    sentence: "this machine waits to be let in".to_owned(),
                    advice: "an admin lets it in with `hostler node approve`".to_owned(),
                }))
            }
            Some(membership::Outcome::Refused(refused)) => Err(NoMembership::Refused(refused)),
            None => Err(NoMembership::Silent(
                "the answer is not understood".to_owned(),
            )),
        }
    }

    /// The roots are written first: with them alone the node can still ask for a certificate.
    fn become_member(&self, member: &Member) -> Result<(), TrustError> {
        let chain = certificates(member.certificates.as_bytes())?;
        let anchors = Anchors::from_pem(&member.roots)?;
        let shown = self.key.certified(chain.clone())?;
        let validity = chain.first().map(Validity::of).transpose()?;
        let write = |name: &str, text: &str| {
            let path = self.dir.join(name);
            let written = replace(&path, text.as_bytes(), Readers::Owner);
            written.map_err(|source| TrustError::Write { path, source })
        };
        if let Some(prints) = self.former_after(&anchors) {
            write(FORMER, &prints)?;
        }
        write(ROOTS, &member.roots)?;
        write(CERTIFICATE, &member.certificates)?;
        self.begins_anew.store(false, Ordering::Release);
        self.tls.replace(&anchors, Some(shown))?;
        self.bare.replace(&anchors, None)?;
        if let Some(validity) = validity {
            self.stand(self.member(validity));
        }
        if let Anchors::Roots(roots) = &anchors {
            let newest = roots.first().map(|root| Print::of(root));
            self.believes.send_replace(newest);
        }
        Ok(())
    }

    /// A token of an authority that the fleet has let go must not look like one of another fleet. None if nothing
    /// changes.
    fn former_after(&self, next: &Anchors) -> Option<String> {
        let Anchors::Roots(next) = next else {
            return None;
        };
        let known = former(&self.dir);
        let mut prints = known.clone();
        if self.begins_anew.load(Ordering::Acquire) {
            prints.clear();
        } else {
            let before = certificates_in(&self.dir.join(ROOTS)).unwrap_or_default();
            prints.extend(before.iter().map(|root| Print::of(root)));
        }
        for root in next {
            prints.remove(&Print::of(root));
        }
        let lines = prints.iter().map(|print| format!("{print}\n"));
        (prints != known).then(|| lines.collect())
    }

    fn some_of(&self, span: Duration) -> Duration {
        span / 1_000 * u32::try_from(self.entropy.next_u64() % 1_000).unwrap_or(0)
    }

    fn member(&self, validity: Validity) -> Standing {
        let share = RENEWED.start + self.entropy.next_u64() % (RENEWED.end - RENEWED.start);
        Standing::Member {
            validity,
            renew_at: validity.at_share(u32::try_from(share).unwrap_or(500)),
        }
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.clock.wall_millis())
    }

    fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stand(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

impl std::fmt::Display for NoMembership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent(problem) => f.write_str(problem),
            Self::Refused(refused) => write!(f, "{} ({})", refused.sentence, refused.code),
        }
    }
}

/// The node's key, made if there is none.
///
/// # Errors
/// The file cannot be read, understood or written.
pub(crate) fn key(data_dir: &Path) -> Result<Credentials, TrustError> {
    Credentials::open(&data_dir.join("agent").join(KEY))
}

/// Whether the machine has been let into the fleet that the token is of.
pub(crate) fn is_member(dir: &Path, invitation: &Invitation) -> bool {
    let has = |name: &str| dir.join(name).exists();
    let roots = dir.join(ROOTS);
    has(KEY) && has(CERTIFICATE) && has(ROOTS) && !is_of_another(dir, &roots, Some(invitation))
}

/// A machine that is to join anew believes whom its disk believed, for the fleet may have let go the authority that the
/// token is of.
pub(crate) fn hand_down(from: &Path, to: &Path) -> io::Result<()> {
    if to.join(ROOTS).exists() {
        return Ok(());
    }
    // The roots last: where they are, the rest is.
    for name in [FORMER, ROOTS] {
        match std::fs::read(from.join(name)) {
            Ok(text) => replace(&to.join(name), &text, Readers::Owner)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the token is of an authority that the node does not know: a person wants it to join anew.
fn is_of_another(dir: &Path, roots: &Path, invitation: Option<&Invitation>) -> bool {
    let Some(invitation) = invitation else {
        return false;
    };
    let known = certificates_in(roots).unwrap_or_default();
    let mut known = known.iter().map(|root| Print::of(root));
    !known.any(|print| print == invitation.authority)
        && !former(dir).contains(&invitation.authority)
}

/// The authorities that the fleet has let go.
fn former(dir: &Path) -> BTreeSet<Print> {
    let text = std::fs::read_to_string(dir.join(FORMER)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let text = std::fs::read(path).map_err(|source| TrustError::Read {
        path: path.to_owned(),
        source,
    })?;
    certificates(&text)
}

fn no_answer() -> NoMembership {
    NoMembership::Silent(format!("no answer within {} s", PATIENCE.as_secs()))
}

#[cfg(test)]
mod tests {
    use hostler_kit::trust::{Authority, Secret};
    use hostler_kit::{SeededEntropy, SystemClock};

    use super::*;

    #[test]
    fn with_a_token_of_an_authority_that_was_let_go_whom_the_disk_believed_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, joining) = (dir.path().join("agent"), dir.path().join("joining"));
        for path in [&disk, &joining.join("agent")] {
            std::fs::create_dir_all(path).unwrap();
        }
        let now = Duration::from_secs(1_700_000_000);
        let former = Authority::open(&dir.path().join("authority.pem"), now).unwrap();
        let newest = former.rotated(now).unwrap().retired().unwrap();
        std::fs::write(disk.join(ROOTS), newest.roots_pem()).unwrap();
        std::fs::write(disk.join(FORMER), format!("{}\n", former.print())).unwrap();
        let token = Invitation {
            id: "one".to_owned(),
            secret: Secret::given("secret"),
            authority: former.print(),
        };
        let believed = || {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
            let told = (Some(token.clone()), None);
            let membership = Membership::open(&joining, told, (clock, entropy)).unwrap();
            *membership.believes().borrow()
        };
        assert_eq!(believed(), None, "the server of the token, and no other");
        hand_down(&disk, &joining.join("agent")).unwrap();
        assert_eq!(believed(), Some(newest.print()));
        // What it has learnt since is not overwritten.
        let next = newest.rotated(now).unwrap();
        std::fs::write(joining.join("agent").join(ROOTS), next.roots_pem()).unwrap();
        hand_down(&disk, &joining.join("agent")).unwrap();
        assert_eq!(believed(), Some(next.print()));
    }
}
