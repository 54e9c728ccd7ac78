use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;
use crate::{Clock as _, SystemClock};

mod damaged;
mod kept;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TWO: &[&[u8]] = &[b"h2"];

/// rustls judges by the machine's clock, so certificates are made around it.
fn now() -> Duration {
    Duration::from_millis(SystemClock::new().wall_millis())
}

struct Fleet {
    dir: tempfile::TempDir,
    authority: Authority,
    tls: ServerTls,
}

impl Fleet {
    fn found() -> Self {
        Self::found_at(now())
    }

    fn found_at(now: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(&dir.path().join("authority.pem"), now).unwrap();
        let shown = server_of(&authority, dir.path(), now);
        let tls = ServerTls::of(&authority, shown, Believed::Offered).unwrap();
        Self {
            dir,
            authority,
            tls,
        }
    }

    fn node(&self, name: &str, now: Duration) -> (Credentials, ClientTls) {
        let path = self.dir.path().join(format!("{name}.key"));
        let key = Credentials::open(&path).unwrap();
        let issued = self
            .authority
            .sign_node(&key.request().unwrap().0, name, now);
        let shown = key.certified(issued.unwrap().chain).unwrap();
        let anchors = Anchors::Roots(self.authority.roots().to_vec());
        (key, ClientTls::new(&anchors, Some(shown)).unwrap())
    }
}

fn server_of(authority: &Authority, dir: &Path, now: Duration) -> Arc<rustls::sign::CertifiedKey> {
    let key = Credentials::open(&dir.join("server.key")).unwrap();
    let names = ["10.0.0.7".to_owned(), "no name".to_owned()];
    authority.certify_server(&key, &names, now).unwrap()
}

/// Shakes hands and sends a word each way; answers with what the server knows of the client.
async fn meet(server: &ServerTls, client: &ClientTls, host: &str) -> io::Result<Option<Print>> {
    meet_over(server, (client, host), TWO).await
}

async fn meet_over(
    server: &ServerTls,
    (client, host): (&ClientTls, &str),
    alpn: &[&[u8]],
) -> io::Result<Option<Print>> {
    let (near, far) = duplex(64 << 10);
    let serving = async {
        let mut met = server.accept(far).await?;
        let mut word = [0; 4];
        met.stream.read_exact(&mut word).await?;
        met.stream.write_all(&word).await?;
        met.stream.flush().await?;
        Ok::<_, io::Error>(met.key)
    };
    let calling = async {
        let mut stream = client.connect(host, near, alpn).await?;
        stream.write_all(b"word").await?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await?;
        Ok::<_, io::Error>(())
    };
    let (served, called) = tokio::join!(serving, calling);
    called.and(served)
}

fn stranger(anchors: &Anchors) -> ClientTls {
    ClientTls::new(anchors, None).unwrap()
}

#[tokio::test]
async fn a_member_is_known_by_its_key_wherever_the_server_listens() {
    let fleet = Fleet::found();
    let (key, client) = fleet.node("box", now());
    for host in ["10.0.0.7", "192.0.2.1", "some.name", "[::1]"] {
        let known = meet(&fleet.tls, &client, host).await.unwrap();
        assert_eq!(known, Some(key.print()), "{host}");
    }
}

#[tokio::test]
async fn browsers_are_not_asked_for_a_certificate() {
    let fleet = Fleet::found();
    let (_, client) = fleet.node("box", now());
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    let known = meet_over(&fleet.tls, (&client, "box"), both).await.unwrap();
    assert_eq!(known, None);
}

#[tokio::test]
async fn a_first_contact_believes_the_pinned_print_and_no_other() {
    let (fleet, other) = (Fleet::found(), Fleet::found());
    let pinned = stranger(&Anchors::Pinned(fleet.authority.print()));
    assert_eq!(meet(&fleet.tls, &pinned, "anywhere").await.unwrap(), None);
    assert!(meet(&other.tls, &pinned, "anywhere").await.is_err());
    // Showing the pinned certificate is not enough: one must be signed by it.
    let liar = Credentials::open(&other.dir.path().join("liar.key")).unwrap();
    let mut chain = other
        .authority
        .sign_server(liar.public(), &[], now())
        .unwrap()
        .chain;
    chain.extend(fleet.authority.roots().iter().cloned());
    let shown = liar.certified(chain).unwrap();
    let lying = ServerTls::of(&other.authority, shown, Believed::Offered).unwrap();
    assert!(meet(&lying, &pinned, "anywhere").await.is_err());
}

#[tokio::test]
async fn members_of_another_fleet_are_strangers_both_ways() {
    let (fleet, other) = (Fleet::found(), Fleet::found());
    let (_, client) = other.node("box", now());
    assert!(meet(&fleet.tls, &client, "box").await.is_err());
    // Also one that believes us, but shows a certificate of theirs.
    let key = Credentials::open(&other.dir.path().join("box.key")).unwrap();
    let theirs = other
        .authority
        .sign_node(&key.request().unwrap().0, "box", now());
    let shown = key.certified(theirs.unwrap().chain).unwrap();
    let anchors = Anchors::Roots(fleet.authority.roots().to_vec());
    let client = ClientTls::new(&anchors, Some(shown)).unwrap();
    assert!(meet(&fleet.tls, &client, "box").await.is_err());
}

/// A certificate that somebody else made for this name, with the one that signed it.
fn of_somebody_else(name: &str) -> (Arc<CertifiedKey>, CertificateDer<'static>) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let above = rcgen::KeyPair::generate().unwrap();
    let root = params.self_signed(&above).unwrap().der().clone();
    let issuer = rcgen::Issuer::new(params, above);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let shown = CertifiedKey::from_der(vec![certificate, root.clone()], key, &provider());
    (Arc::new(shown.unwrap()), root)
}

/// Shakes hands as a program that is none of ours, and answers with the certificate that it was shown.
async fn shown_to_curl(
    server: &ServerTls,
    root: &CertificateDer<'static>,
    host: &'static str,
) -> io::Result<CertificateDer<'static>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let (near, far) = duplex(64 << 10);
    let name = rustls::pki_types::ServerName::try_from(host).unwrap();
    let (served, called) = tokio::join!(server.accept(far), connector.connect(name, near));
    served?;
    let called = called?;
    let chain = called.get_ref().1.peer_certificates().unwrap();
    Ok(chain[0].clone().into_owned())
}

#[tokio::test]
async fn members_are_shown_the_fleets_certificate_and_others_that_of_somebody_else() {
    let fleet = Fleet::found();
    let (key, client) = fleet.node("box", now());
    let pinned = stranger(&Anchors::Pinned(fleet.authority.print()));
    for _ in 0..2 {
        // Another authority each time: that of the members stays, so they do not notice.
        let (to_others, root) = of_somebody_else("fleet.example");
        let to_members = server_of(&fleet.authority, fleet.dir.path(), now());
        let shown = Shown {
            to_members,
            to_others: Some(Arc::clone(&to_others)),
        };
        fleet.tls.replace(shown, fleet.authority.roots()).unwrap();
        for host in ["fleet.example", "192.0.2.1", "unheard.of"] {
            let known = meet(&fleet.tls, &client, host).await.unwrap();
            assert_eq!(known, Some(key.print()), "{host}");
            assert_eq!(meet(&fleet.tls, &pinned, host).await.unwrap(), None);
        }
        let shown = shown_to_curl(&fleet.tls, &root, "fleet.example").await;
        assert_eq!(shown.unwrap(), to_others.cert[0]);
        // Ours believes it, too, where it is told to; by the name that it was made for alone.
        let told = stranger(&Anchors::Roots(vec![root.clone()]));
        assert!(meet(&fleet.tls, &told, "fleet.example").await.is_ok());
        assert!(meet(&fleet.tls, &told, "unheard.of").await.is_err());
        // Whoever believes both is shown that of the fleet.
        let both = [fleet.authority.roots(), &[root]].concat();
        let both = stranger(&Anchors::Roots(both));
        assert!(meet(&fleet.tls, &both, "unheard.of").await.is_ok());
    }
    // Who pins another authority is not shown ours.
    let other = stranger(&Anchors::Pinned(Fleet::found().authority.print()));
    assert!(meet(&fleet.tls, &other, "fleet.example").await.is_err());
}

#[tokio::test]
async fn whoever_knows_the_fleet_from_before_a_rotation_is_shown_its_certificate() {
    let mut fleet = Fleet::found();
    let pinned = stranger(&Anchors::Pinned(fleet.authority.print()));
    let (_, member) = fleet.node("box", now());
    fleet.authority = fleet.authority.rotated(now() + DAY).unwrap();
    let shown = Shown {
        to_members: server_of(&fleet.authority, fleet.dir.path(), now()),
        to_others: Some(of_somebody_else("fleet.example").0),
    };
    fleet.tls.replace(shown, fleet.authority.roots()).unwrap();
    for known in [&pinned, &member] {
        assert!(meet(&fleet.tls, known, "unheard.of").await.is_ok());
    }
}

/// A node may not pass itself off as the server: its certificate is no server's.
#[tokio::test]
async fn a_node_is_not_taken_for_the_server() {
    let fleet = Fleet::found();
    let (key, client) = fleet.node("box", now());
    let issued = fleet
        .authority
        .sign_node(&key.request().unwrap().0, "box", now());
    let shown = key.certified(issued.unwrap().chain).unwrap();
    let posing = ServerTls::of(&fleet.authority, shown, Believed::Offered).unwrap();
    assert!(
        meet(&posing, &client, "box.node.hostler.internal")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn after_a_rotation_old_and_new_members_believe_the_server_and_are_believed() {
    let mut fleet = Fleet::found();
    let pinned = stranger(&Anchors::Pinned(fleet.authority.print()));
    let (old_key, old) = fleet.node("old", now());
    for step in 1..=3 {
        fleet.authority = fleet.authority.rotated(now() + DAY * step).unwrap();
        fleet.authority.save().unwrap();
        // What was written is what was made.
        let read = Authority::load(&fleet.dir.path().join("authority.pem")).unwrap();
        assert_eq!(read.roots(), fleet.authority.roots());
        let shown = server_of(&read, fleet.dir.path(), now());
        fleet.tls.replace(shown, read.roots()).unwrap();
        let known = meet(&fleet.tls, &old, "box").await.unwrap();
        assert_eq!(known, Some(old_key.print()), "rotation {step}");
        let (key, new) = fleet.node(&format!("new{step}"), now());
        assert_eq!(
            meet(&fleet.tls, &new, "box").await.unwrap(),
            Some(key.print())
        );
        meet(&fleet.tls, &pinned, "box").await.unwrap();
    }
    let retired = fleet.authority.retired().unwrap();
    assert_eq!(retired.roots().len(), 1);
    let path = fleet.dir.path().join("authority.pem");
    assert_eq!(Authority::load(&path).unwrap().roots().len(), 4);
    retired.save().unwrap();
    assert_eq!(Authority::load(&path).unwrap().roots(), retired.roots());
    let shown = server_of(&retired, fleet.dir.path(), now());
    fleet.tls.replace(shown, retired.roots()).unwrap();
    assert!(meet(&fleet.tls, &old, "box").await.is_err());
    let (_, new) = fleet.node("new3", now());
    assert!(meet(&fleet.tls, &new, "box").await.is_ok());
}

#[tokio::test]
async fn clocks_that_differ_lock_nobody_out_and_an_ended_certificate_is_refused() {
    // The server's clock is an hour ahead, or ten minutes, or behind; it was ahead by a year when it signed.
    for skew in [
        Duration::from_secs(600),
        Duration::from_secs(3600),
        DAY * 365,
    ] {
        let fleet = Fleet::found_at(now() + skew);
        let (key, client) = fleet.node("box", now() + skew);
        assert_eq!(
            meet(&fleet.tls, &client, "box").await.unwrap(),
            Some(key.print())
        );
    }
    let fleet = Fleet::found_at(now() - Duration::from_secs(600));
    let (_, client) = fleet.node("box", now() - Duration::from_secs(600));
    assert!(meet(&fleet.tls, &client, "box").await.is_ok());
    let (_, ended) = fleet.node("ended", now() - NODE_LIFE - DAY);
    assert!(meet(&fleet.tls, &ended, "box").await.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_keeps_the_key_and_is_shown_from_the_next_connection_on() {
    let fleet = Fleet::found();
    let (key, client) = fleet.node("box", now() - NODE_LIFE - DAY);
    assert!(meet(&fleet.tls, &client, "box").await.is_err());
    let again = fleet
        .authority
        .sign_node(&key.request().unwrap().0, "box", now());
    let shown = key.certified(again.unwrap().chain).unwrap();
    let anchors = Anchors::from_pem(&fleet.authority.roots_pem()).unwrap();
    client.replace(&anchors, Some(shown)).unwrap();
    assert_eq!(
        meet(&fleet.tls, &client, "box").await.unwrap(),
        Some(key.print())
    );
}

#[test]
fn keys_and_authorities_are_kept_for_their_owner_alone_and_found_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let fleet = Fleet::found();
    let (path, key_path) = (
        fleet.dir.path().join("authority.pem"),
        fleet.dir.path().join("server.key"),
    );
    for path in [&path, &key_path] {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    let again = Authority::open(&path, now() + DAY).unwrap();
    assert_eq!(again.print(), fleet.authority.print());
    let key = Credentials::open(&key_path).unwrap();
    assert_eq!(Credentials::open(&key_path).unwrap().print(), key.print());
    let print: Print = key.print().to_string().parse().unwrap();
    assert_eq!(print, key.print());
    assert!("xy".parse::<Print>().is_err());
}

#[test]
fn a_file_that_is_no_authority_is_refused_and_left_as_it_is() {
    let fleet = Fleet::found();
    let path = fleet.dir.path().join("authority.pem");
    let good = std::fs::read_to_string(&path).unwrap();
    let (key, certificate) = good.split_at(good.find("-----BEGIN CERT").unwrap());
    let other = std::fs::read_to_string(fleet.dir.path().join("server.key")).unwrap();
    for bad in [
        String::new(),
        "nonsense".to_owned(),
        key.to_owned(),
        certificate.to_owned(),
        format!("{other}{certificate}"),
        good[..good.len() - 40].to_owned(),
    ] {
        std::fs::write(&path, &bad).unwrap();
        assert!(Authority::open(&path, now()).is_err(), "{bad}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
}

#[test]
fn a_request_that_is_not_signed_with_its_key_is_refused() {
    let fleet = Fleet::found();
    let key = Credentials::open(&fleet.dir.path().join("box.key")).unwrap();
    let request = key.request().unwrap().0;
    assert_eq!(Authority::print_of_request(&request).unwrap(), key.print());
    for at in [0, request.len() / 2, request.len() - 1] {
        let mut bad = request.clone();
        bad[at] ^= 1;
        assert!(
            fleet.authority.sign_node(&bad, "box", now()).is_err(),
            "{at}"
        );
    }
    assert!(fleet.authority.sign_node(&[], "box", now()).is_err());
}

#[test]
fn a_certificate_tells_how_long_it_is_good() {
    let fleet = Fleet::found();
    let key = Credentials::open(&fleet.dir.path().join("box.key")).unwrap();
    let issued = fleet
        .authority
        .sign_node(&key.request().unwrap().0, "box", now())
        .unwrap();
    let validity = Validity::of(&issued.chain[0]).unwrap();
    assert_eq!(
        (validity.not_before, validity.not_after),
        (issued.not_before, issued.not_after)
    );
    let (half, late) = (validity.at_share(500), validity.at_share(800));
    assert!(now() + DAY * 14 < half && half < late && late < validity.not_after);
}

#[test]
fn secrets_differ_and_show_nothing_in_debug_prints() {
    let entropy = crate::SeededEntropy::new(7);
    let (one, two) = (secret(&entropy), secret(&entropy));
    assert_ne!(one.reveal(), two.reveal());
    assert_eq!(one.reveal().len(), 40);
    assert!(!format!("{one:?}").contains(one.reveal()));
    assert_eq!(Secret::given(one.reveal()).hash(), one.hash());
    assert_eq!(one.hash().len(), 64);
}

#[test]
fn tokens_are_taken_out_of_what_is_logged() {
    let join = "/x/hostler-join_0198_abc_00ff?a";
    assert_eq!(veiled(join), "/x/hostler_…?a");
    assert_eq!(
        veiled("`hostler_0197_abc` and hostler_b_c"),
        "`hostler_…` and hostler_…"
    );
    assert_eq!(veiled("/api/v1/nodes/hostler"), "/api/v1/nodes/hostler");
}

#[test]
fn tokens_are_read_as_they_were_written_and_nothing_else_is() {
    let entropy = crate::SeededEntropy::new(7);
    let bearer = Bearer {
        id: "0197".to_owned(),
        secret: secret(&entropy),
    };
    assert_eq!(Bearer::parse(&bearer.reveal()), Some(bearer.clone()));
    let invitation = Invitation {
        id: "0198".to_owned(),
        secret: secret(&entropy),
        authority: Print::of(b"a certificate"),
    };
    let text = format!("{}\n", invitation.reveal());
    assert_eq!(Invitation::parse(&text), Some(invitation));
    for bad in [
        "",
        "hostler",
        "hostler_a",
        "hostler_a_",
        "hostler_a_b_c",
        "other_a_b",
    ] {
        assert_eq!(Bearer::parse(bad), None, "{bad}");
    }
    assert_eq!(Invitation::parse(&bearer.reveal()), None);
    assert_eq!(Invitation::parse(&text[..text.len() - 3]), None);
}
