//! Members of an authority that somebody else keeps, with all they have in files.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

use super::*;

/// An authority, and where its members' files are.
struct Abroad {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Abroad {
    fn found() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        Self {
            dir: tempfile::tempdir().unwrap(),
            issuer: Issuer::new(params, key),
            root,
        }
    }

    fn member(&self, name: &str, sans: &[&str]) -> MemberFiles {
        self.member_from(name, sans, 2020)
    }

    fn member_from(&self, name: &str, sans: &[&str], year: i32) -> MemberFiles {
        let path = |end: &str| self.dir.path().join(format!("{name}{end}"));
        let files = MemberFiles {
            certificate: path(".pem"),
            key: path("-key.pem"),
            authority: path("-ca.pem"),
        };
        let sans: Vec<String> = sans.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(sans).unwrap();
        params.not_before = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::write(&files.authority, &self.root).unwrap();
        files
    }
}

/// Puts the files of one member in the place of another's.
fn put(from: &MemberFiles, to: &MemberFiles) {
    for (from, to) in [
        (&from.key, &to.key),
        (&from.authority, &to.authority),
        (&from.certificate, &to.certificate),
    ] {
        std::fs::copy(from, to).unwrap();
    }
}

/// They look at their files with each handshake.
fn both(files: &MemberFiles) -> (ServerTls, ClientTls) {
    both_seen(files, Duration::ZERO)
}

fn both_seen(files: &MemberFiles, every: Duration) -> (ServerTls, ClientTls) {
    let server = ServerTls::of_files_seen(files.clone(), every).unwrap();
    (
        server,
        ClientTls::of_files_seen(files.clone(), every).unwrap(),
    )
}

#[tokio::test]
async fn members_of_one_authority_meet_under_the_name_that_is_called_and_no_other() {
    let abroad = Abroad::found();
    let (server, _) = both(&abroad.member("scheduler", &["scheduler.example", "10.0.0.7"]));
    let (_, client) = both(&abroad.member("agent", &["agent.example"]));
    for host in ["10.0.0.7", "scheduler.example"] {
        assert!(meet(&server, &client, host).await.unwrap().is_some());
    }
    assert!(meet(&server, &client, "10.0.0.8").await.is_err());
    // What is said of servers of a fleet of ours counts for nothing here.
    let (posing, _) = both(&abroad.member("posing", &[SERVER_NAME]));
    assert!(meet(&posing, &client, "10.0.0.7").await.is_err());
}

#[tokio::test]
async fn who_shows_no_certificate_of_the_authority_is_refused() {
    let (abroad, other) = (Abroad::found(), Abroad::found());
    let files = abroad.member("scheduler", &["10.0.0.7"]);
    let (server, _) = both(&files);
    let roots = certificates(abroad.root.as_bytes()).unwrap();
    let called = Anchors::Called(roots);
    assert!(meet(&server, &stranger(&called), "10.0.0.7").await.is_err());
    let theirs = other.member("agent", &["10.0.0.7"]);
    let (their_server, _) = both(&theirs);
    let shown = from(&theirs);
    let client = ClientTls::new(&called, Some(shown)).unwrap();
    assert!(meet(&server, &client, "10.0.0.7").await.is_err());
    let (_, ours) = both(&files);
    assert!(meet(&their_server, &ours, "10.0.0.7").await.is_err());
    let early = abroad.member_from("early", &["10.0.0.7"], 4000);
    let (_, early) = both(&early);
    assert!(meet(&server, &early, "10.0.0.7").await.is_err());
    assert!(meet(&server, &ours, "10.0.0.7").await.is_ok());
}

fn from(files: &MemberFiles) -> Arc<rustls::sign::CertifiedKey> {
    static_chain(&files.certificate, &files.key).unwrap().0
}

#[tokio::test]
async fn files_that_change_are_read_again_and_broken_ones_change_nothing() {
    let (abroad, next) = (Abroad::found(), Abroad::found());
    let (at, of) = (["10.0.0.7"], ["agent.example"]);
    let (files, other_files) = (abroad.member("scheduler", &at), abroad.member("agent", &of));
    let ((server, _), (_, client)) = (both(&files), both(&other_files));
    assert!(meet(&server, &client, at[0]).await.is_ok());

    std::fs::write(&files.certificate, "half of it").unwrap();
    assert!(meet(&server, &client, at[0]).await.is_ok());
    std::fs::remove_file(&files.key).unwrap();
    assert!(meet(&server, &client, at[0]).await.is_ok());

    put(&next.member("scheduler", &at), &files);
    assert!(meet(&server, &client, at[0]).await.is_err());
    put(&next.member("agent", &of), &other_files);
    assert!(meet(&server, &client, at[0]).await.is_ok());
}

#[tokio::test]
async fn files_are_not_looked_at_with_each_handshake() {
    let (abroad, next) = (Abroad::found(), Abroad::found());
    let at = ["10.0.0.7"];
    let files = abroad.member("scheduler", &at);
    let (server, client) = both_seen(&files, DAY);
    put(&next.member("scheduler", &at), &files);
    let (_, new) = both(&files);
    assert!(meet(&server, &client, at[0]).await.is_ok());
    assert!(meet(&server, &new, at[0]).await.is_err());
}

#[test]
fn what_is_wrong_with_a_file_names_it() {
    let abroad = Abroad::found();
    let files = abroad.member("agent", &["agent.example"]);
    let other = abroad.member("other", &["agent.example"]);
    let told = |files: MemberFiles| ServerTls::of_files(files).err().unwrap().to_string();
    for (wrong, name) in [
        (
            MemberFiles {
                key: "/no/key".into(),
                ..files.clone()
            },
            "/no/key",
        ),
        (
            MemberFiles {
                authority: files.key.clone(),
                ..files.clone()
            },
            "agent-key.pem",
        ),
        (
            MemberFiles {
                key: other.key,
                ..files.clone()
            },
            "agent.pem",
        ),
    ] {
        let text = told(wrong);
        assert!(text.contains(name), "{text}");
    }
    assert!(files.validity().unwrap().not_after > now());
}
