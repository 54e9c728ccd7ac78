//! The identity of the fleet: its authority, what the server shows, and the certificates of nodes.
//!
//! ```text
//! <data>/trust/authority.pem   the authority's key and certificates (secret)
//! <data>/trust/server.key      the server's key (secret)
//! <data>/trust/ca.pem          the certificates that members believe, for people to carry along
//! ```
//!
//! Certificates of the server are made anew at each start and long before they end, and are not kept. Members are shown
//! those, also where others are shown one that somebody else made. Files that somebody else made (an authority, a
//! server certificate) are read again when they change; if they cannot be used then, what was read before goes on, and
//! the log says so.
//!
//! A replica that is to serve the same fleet needs the same authority file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use hostler_fleet::{AccessVerb, Verb};
use hostler_kit::files::{Readers, replace};
use hostler_kit::trust::{
    Anchors, Authority, Believed, Credentials, Issued, Print, ServerTls, Shown, TrustError,
    Validity, static_chain,
};
use hostler_kit::{Clock, Tasks};
use hostler_model::{Actor, AliasOwner, Code, KEY_SCOPE, NodeId, Refusal};
use tokio::sync::watch;

use crate::Control;

/// How often files and certificates are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// Certificates of authorities that are believed. A chain of more crossings than this is believed by nobody.
const MOST_ROOTS: usize = 6;
/// At this share of its life, in thousandths, a server's certificate is made anew.
const RENEWED_AT: u32 = 667;

/// Where the fleet's identity comes from.
#[derive(Debug, Clone, Default)]
pub struct TrustConfig {
    /// The folder `trust` of the data directory.
    pub dir: PathBuf,
    /// Names and addresses of this server, for those who are no members of the fleet.
    pub names: Vec<String>,
    /// Where this server may be reached, the best guess first; for people.
    pub urls: Vec<String>,
    /// An authority that somebody else made; it is never written to.
    pub authority: Option<PathBuf>,
    /// A certificate and its key that somebody else made, to be shown to those who are no members of the fleet.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The identity of the fleet. Clones are one.
#[derive(Clone)]
pub struct Trust(Arc<Inner>);

struct Inner {
    config: TrustConfig,
    clock: Arc<dyn Clock>,
    key: Credentials,
    tls: ServerTls,
    now: RwLock<Arc<Now>>,
    /// The authority that signs now, by the print of its certificate.
    signing: watch::Sender<Print>,
    /// Rotations one after the other.
    changing: Mutex<()>,
}

/// What is shown and believed at the moment.
struct Now {
    authority: Authority,
    /// Of the server's certificate by the authority.
    validity: Validity,
    /// Who believes this believes the server, as text: the authority's certificates, and what stands above the one that
    /// somebody else made.
    bundle: String,
    /// When the files that somebody else made were changed last.
    stamps: Vec<Option<SystemTime>>,
}

impl Trust {
    /// Reads the fleet's identity, or makes it.
    ///
    /// # Errors
    /// A file cannot be read, understood or written.
    pub fn open(config: TrustConfig, clock: Arc<dyn Clock>) -> Result<Self, TrustError> {
        std::fs::create_dir_all(&config.dir).map_err(|source| TrustError::Write {
            path: config.dir.clone(),
            source,
        })?;
        let key = Credentials::open(&config.dir.join("server.key"))?;
        let authority = Authority::open(&config.authority_path(), wall(&clock))?;
        let (now, shown) = Now::of(authority, (&config, &key), wall(&clock))?;
        let tls = ServerTls::of(&now.authority, shown, Believed::Offered)?;
        let (signing, _) = watch::channel(now.authority.print());
        let trust = Self(Arc::new(Inner {
            config,
            clock,
            key,
            tls,
            now: RwLock::new(Arc::new(now)),
            signing,
            changing: Mutex::new(()),
        }));
        trust.publish()?;
        Ok(trust)
    }

    /// TLS of the listeners.
    #[must_use]
    pub fn tls(&self) -> &ServerTls {
        &self.0.tls
    }

    /// What a join token carries: by it a machine knows this server at the first contact.
    #[must_use]
    pub fn print(&self) -> Print {
        self.now().authority.print()
    }

    /// The authority that signs now, by the print of its certificate; always the latest.
    #[must_use]
    pub fn signing(&self) -> watch::Receiver<Print> {
        self.0.signing.subscribe()
    }

    /// The nodes that have not said that they believe the authority that signs now.
    #[must_use]
    pub fn behind(&self, control: &Control) -> Vec<String> {
        behind(control, self.print())
    }

    /// The certificates that members believe, as text.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.now().bundle.clone()
    }

    /// The same, to call this server from here.
    ///
    /// # Errors
    /// The text cannot be read back, which is a bug.
    pub fn anchors(&self) -> Result<Anchors, TrustError> {
        Anchors::from_pem(&self.now().bundle)
    }

    /// Where this server may be reached, the best guess first.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.0.config.urls
    }

    /// Whose key a request for a certificate is about, if it is signed with it.
    ///
    /// # Errors
    /// `bad-request` if it is no such request.
    pub fn key_of(request: &[u8]) -> Result<Print, Refusal> {
        Authority::print_of_request(request).map_err(bad_request)
    }

    /// A certificate for the node whose key signed the request.
    ///
    /// # Errors
    /// `bad-request` if it is no such request.
    pub fn sign_node(&self, request: &[u8], node: NodeId) -> Result<Issued, Refusal> {
        let now = wall(&self.0.clock);
        let issued = self
            .now()
            .authority
            .sign_node(request, &node.to_string(), now);
        issued.map_err(bad_request)
    }

    /// Gives the authority a new key. Members believe both, and learn the new one when they renew.
    ///
    /// # Errors
    /// The authority is somebody else's, or cannot be written; then nothing changes. The event that tells of it
    /// may be refused afterwards.
    pub async fn rotate(&self, control: &Control, actor: Actor) -> Result<Print, Refusal> {
        self.refuse_where_foreign()?;
        let now = self.now();
        if now.authority.roots().len() >= MOST_ROOTS {
            let sentence =
                "the authority has had a new key too often since its old ones were let go";
            let advice = "let them go with `hostler authority retire`; nothing was changed";
            return Err(Refusal::new(Code::Overloaded, sentence, advice));
        }
        let judged = now.authority.print();
        self.change(judged, Authority::rotated).await?;
        let print = self.print();
        let told = AccessVerb::AuthorityRotated {
            print: print.to_string(),
        };
        control.submit(actor, Verb::Access(Box::new(told))).await?;
        Ok(print)
    }

    /// Believes the authority's former keys no more. Who knows only those is shut out: nodes that did not renew since,
    /// join tokens and logins from before.
    ///
    /// # Errors
    /// `authority-in-use` while there are such nodes, unless it is forced; `overloaded` if the authority has got a new
    /// key meanwhile; else as for [`Trust::rotate`].
    pub async fn retire(
        &self,
        control: &Control,
        (actor, is_forced): (Actor, bool),
    ) -> Result<(), Refusal> {
        self.refuse_where_foreign()?;
        let now = self.now();
        if now.authority.roots().len() < 2 {
            return Ok(());
        }
        let judged = now.authority.print();
        let behind = behind(control, judged);
        if !behind.is_empty() && !is_forced {
            return Err(in_use(behind));
        }
        self.change(judged, |authority, _| authority.retired())
            .await?;
        let told = Verb::Access(Box::new(AccessVerb::AuthorityRetired));
        control.submit(actor, told).await.map(|_| ())
    }

    fn refuse_where_foreign(&self) -> Result<(), Refusal> {
        if self.0.config.authority.is_none() {
            return Ok(());
        }
        let sentence = "this fleet's authority is in a file that somebody else keeps";
        let advice = "add the new authority's certificate to that file; once every node has renewed, after thirty \
                      days, put the new one first, with its key; take the old one out likewise";
        Err(Refusal::new(Code::Forbidden, sentence, advice))
    }

    /// The next authority, made of the one that is, is used from now on. Nothing changes if that is not the one that
    /// was judged.
    async fn change(
        &self,
        judged: Print,
        next: impl FnOnce(&Authority, Duration) -> Result<Authority, TrustError> + Send + 'static,
    ) -> Result<(), Refusal> {
        let trust = self.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let _one = trust
                .0
                .changing
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let now = trust.now();
            if now.authority.print() != judged {
                return Err(changed_meanwhile());
            }
            let next = next(&now.authority, wall(&trust.0.clock)).map_err(unwritten)?;
            // What it is shown with is made first: a file that says more than is in use would lock nodes out.
            let shown = trust.shown_by(next).map_err(unwritten)?;
            shown.0.authority.save().map_err(unwritten)?;
            trust.show(shown).map_err(unwritten)?;
            // It is in use: that the copy for people could not be written is no reason to try again.
            if let Err(error) = trust.publish() {
                tracing::warn!(%error, "the authority's certificates could not be written for people");
            }
            Ok(())
        });
        changed.await.map_err(unwritten)?
    }

    /// Looks after what the server shows until the family stops.
    pub fn keep(&self, tasks: &Tasks) {
        let (trust, stopping) = (self.clone(), tasks.clone());
        tasks.spawn("trust", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stopping.stopping() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
                let trust = trust.clone();
                let looked = tokio::task::spawn_blocking(move || trust.look()).await;
                if let Ok(Err(error)) = looked {
                    tracing::error!(%error, "the server's certificate could not be renewed; the old one goes on");
                }
            }
        });
    }

    /// Takes over files that have changed, and makes the server a new certificate in time.
    ///
    /// # Errors
    /// A file cannot be used; then all stays as it was.
    pub fn look(&self) -> Result<(), TrustError> {
        let _one = self
            .0
            .changing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        // One that begins in the future was made while the clock was ahead, and is believed all the same.
        let is_due = wall(&self.0.clock) > now.validity.at_share(RENEWED_AT);
        if now.stamps == self.0.config.stamps() && !is_due {
            return Ok(());
        }
        let authority = Authority::load(&self.0.config.authority_path())?;
        self.show(self.shown_by(authority)?)?;
        tracing::info!("the server shows a new certificate");
        self.publish()
    }

    fn shown_by(&self, authority: Authority) -> Result<(Now, Shown), TrustError> {
        let of = (&self.0.config, &self.0.key);
        Now::of(authority, of, wall(&self.0.clock))
    }

    fn show(&self, (now, shown): (Now, Shown)) -> Result<(), TrustError> {
        self.0.tls.replace(shown, now.authority.roots())?;
        let print = now.authority.print();
        let mut held = self.0.now.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(now);
        drop(held);
        self.0.signing.send_if_modified(|signing| {
            let is_new = *signing != print;
            *signing = print;
            is_new
        });
        Ok(())
    }

    /// Writes what members believe to a file for people.
    fn publish(&self) -> Result<(), TrustError> {
        let path = self.0.config.dir.join("ca.pem");
        let written = replace(&path, self.now().bundle.as_bytes(), Readers::All);
        written.map_err(|source| TrustError::Write { path, source })
    }

    fn now(&self) -> Arc<Now> {
        Arc::clone(&self.0.now.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Now {
    fn of(
        authority: Authority,
        (config, key): (&TrustConfig, &Credentials),
        now: Duration,
    ) -> Result<(Self, Shown), TrustError> {
        let stamps = config.stamps();
        let mut bundle = authority.roots_pem();
        let mut shown = Shown::from(authority.certify_server(key, &config.names, now)?);
        if let Some((certificate, key)) = &config.certificate {
            let (to_others, above) = static_chain(certificate, key)?;
            bundle.push_str(&above);
            shown.to_others = Some(to_others);
        }
        let first = shown.to_members.cert.first();
        let validity = first.map(Validity::of).transpose()?.unwrap_or(Validity {
            not_before: now,
            not_after: now,
        });
        let now = Self {
            authority,
            validity,
            bundle,
            stamps,
        };
        Ok((now, shown))
    }
}

impl TrustConfig {
    fn authority_path(&self) -> PathBuf {
        let own = || self.dir.join("authority.pem");
        self.authority.clone().unwrap_or_else(own)
    }

    /// When the files that somebody else made were changed last; none for those that cannot be seen.
    fn stamps(&self) -> Vec<Option<SystemTime>> {
        let changed = |path: &Path| std::fs::metadata(path).and_then(|it| it.modified()).ok();
        let (certificate, key) = self.certificate.clone().unzip();
        let all = [self.authority.clone(), certificate, key];
        all.iter().flatten().map(|path| changed(path)).collect()
    }
}

/// The nodes that have not said that they believe that authority.
fn behind(control: &Control, print: Print) -> Vec<String> {
    let print = print.to_string();
    let view = control.view();
    let has_key = |node: NodeId| {
        let mut aliases = view.aliases_of(AliasOwner::Node(node));
        aliases.any(|alias| alias.key.scope == KEY_SCOPE)
    };
    let nodes = view.nodes().filter(|node| !node.is_gone());
    let behind = nodes.filter(|it| it.believes.as_ref() != Some(&print) && has_key(it.id));
    behind.map(|node| node.name.clone()).collect()
}

fn wall(clock: &Arc<dyn Clock>) -> Duration {
    Duration::from_millis(clock.wall_millis())
}

fn bad_request(error: TrustError) -> Refusal {
    let advice = "send a PKCS #10 request that is signed with its key, in DER as base64";
    Refusal::new(Code::BadRequest, error.to_string(), advice)
}

/// The first few by name.
fn in_use(behind: Vec<String>) -> Refusal {
    const NAMED: usize = 5;
    let count = behind.len();
    let mut names = behind
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if count > NAMED {
        names.push_str(", …");
    }
    let nodes = if count == 1 { "node has" } else { "nodes have" };
    let sentence =
        format!("{count} {nodes} not said that they believe the authority's newest key: {names}");
    let advice = "nodes that are connected learn it within a minute; start the others, or remove them; `--force` shuts \
                  them out until they get a token";
    Refusal {
        details: behind,
        ..Refusal::new(Code::AuthorityInUse, sentence, advice)
    }
}

fn changed_meanwhile() -> Refusal {
    let sentence = "the authority has got a new key meanwhile";
    Refusal::new(Code::Overloaded, sentence, "ask again; nothing was changed")
}

fn unwritten(error: impl std::fmt::Display) -> Refusal {
    let sentence = format!("the authority could not be written: {error}");
    let advice = "look for a full or failing disk; what was goes on";
    Refusal::new(Code::StoreUnavailable, sentence, advice)
}

#[cfg(test)]
mod tests {
    use hostler_kit::SystemClock;

    use super::*;

    /// A server with a certificate that somebody else made.
    fn open(dir: &Path) -> (Trust, PathBuf) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let other = Authority::open(&dir.join("other.pem"), wall(&clock)).unwrap();
        let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
        let credentials = Credentials::open(&key).unwrap();
        let request = credentials.request().unwrap();
        let issued = other.sign_node(&request.0, "fleet", wall(&clock)).unwrap();
        std::fs::write(&certificate, issued.pem()).unwrap();
        let config = TrustConfig {
            dir: dir.join("trust"),
            certificate: Some((certificate.clone(), key)),
            ..TrustConfig::default()
        };
        (Trust::open(config, clock).unwrap(), certificate)
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_shown_is_not_written_either() {
        let dir = tempfile::tempdir().unwrap();
        let (trust, certificate) = open(dir.path());
        let path = dir.path().join("trust/authority.pem");
        let (before, print) = (std::fs::read(&path).unwrap(), trust.print());
        let whole = std::fs::read(&certificate).unwrap();
        std::fs::write(&certificate, "half of it").unwrap();
        let refused = trust.change(print, Authority::rotated).await.unwrap_err();
        assert_eq!(refused.code, Code::StoreUnavailable);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(trust.print(), print);
        std::fs::write(&certificate, whole).unwrap();
        // Authorities are named by the millisecond.
        tokio::time::sleep(Duration::from_millis(5)).await;
        trust.change(print, Authority::rotated).await.unwrap();
        assert_ne!(trust.print(), print);
        let written = Authority::load(&path).unwrap();
        assert_eq!(written.roots(), trust.now().authority.roots());
    }

    #[tokio::test]
    async fn what_was_judged_of_another_key_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (trust, _) = open(dir.path());
        let judged = trust.print();
        trust.change(judged, Authority::rotated).await.unwrap();
        let retired = trust.change(judged, |authority, _| authority.retired());
        assert_eq!(retired.await.unwrap_err().code, Code::Overloaded);
        assert_eq!(trust.now().authority.roots().len(), 2);
        let retired = trust.change(trust.print(), |authority, _| authority.retired());
        retired.await.unwrap();
        assert_eq!(trust.now().authority.roots().len(), 1);
    }
}
