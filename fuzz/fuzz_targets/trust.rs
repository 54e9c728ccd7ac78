//! What is read before it is known who sent it: requests for certificates, certificates, tokens, sealed values. The
//! first line says which; what is bytes stands in base64.
#![no_main]

use std::cell::LazyCell;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostler_kit::sealed::{Clear, Keyring};
use hostler_kit::trust::{
    Anchors, Authority, Bearer, CertificateDer, ClientTls, Invitation, Print, Validity,
    certificates,
};
use hostler_kit::{Clock as _, SeededEntropy, SystemClock};
use libfuzzer_sys::fuzz_target;

thread_local!(static AUTHORITY: LazyCell<Authority> = LazyCell::new(authority));

fuzz_target!(|text: &str| {
    let (kind, rest) = text.split_once('\n').unwrap_or((text, ""));
    let bytes = || STANDARD.decode(rest.trim()).unwrap_or_else(|_| rest.into());
    match kind {
        "request" => request(&bytes()),
        "certificate" => certificate(&CertificateDer::from(bytes())),
        "pem" => chain(rest.as_bytes()),
        "sealed" => sealed(rest),
        _ => token(rest),
    }
});

fn authority() -> Authority {
    let home = tempfile::tempdir().expect("a directory");
    Authority::open(&home.path().join("authority.pem"), now()).expect("an authority")
}

fn now() -> Duration {
    Duration::from_millis(SystemClock::new().wall_millis())
}

/// What is signed is the key that the request proves, and nothing else.
fn request(bytes: &[u8]) {
    let Ok(print) = Authority::print_of_request(bytes) else {
        return;
    };
    let issued = AUTHORITY.with(|it| it.sign_node(bytes, "box", now()));
    let issued = issued.expect("who proves a key gets a certificate");
    assert_eq!(Print::of_key_in(&issued.chain[0]).ok(), Some(print));
}

fn certificate(certificate: &CertificateDer<'static>) {
    let known = Print::of_key_in(certificate).is_ok();
    assert_eq!(known, Validity::of(certificate).is_ok());
}

fn chain(text: &[u8]) {
    let Ok(chain) = certificates(text) else {
        return;
    };
    assert!(!chain.is_empty());
    chain.iter().for_each(certificate);
    // Refused or not; it may not panic.
    let _ = ClientTls::new(&Anchors::Roots(chain), None);
}

fn token(text: &str) {
    if let Some(read) = Invitation::parse(text) {
        assert_eq!(Invitation::parse(&read.reveal()), Some(read));
    }
    if let Some(read) = Bearer::parse(text) {
        assert_eq!(read.reveal(), text);
    }
}

/// Opened is only what was sealed.
fn sealed(text: &str) {
    let entropy = SeededEntropy::new(1);
    let ring = Keyring::in_memory(&entropy);
    let clear = Clear::new(b"canary".to_vec());
    let (key, right) = ring.seal("db", &clear, &entropy).expect("it is sealed");
    let opened = ring.open_sealed(&key, "db", text);
    assert!(opened.is_err() || text == right);
}
