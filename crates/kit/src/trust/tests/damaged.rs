//! What anybody may send before it is known who they are, damaged: it is read or refused, and nothing else happens.
//! The inputs are drawn from a seed, so that a failure comes again.

use super::*;
use crate::{Entropy as _, SeededEntropy};

const ROUNDS: u32 = 2_000;

/// The bytes with a few of them changed, cut out, doubled, or cut off.
fn damaged(bytes: &[u8], entropy: &SeededEntropy) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let below = |count: usize| usize::try_from(entropy.next_u64() >> 32).unwrap() % count.max(1);
    for _ in 0..=below(4) {
        let at = below(bytes.len());
        match below(5) {
            _ if bytes.is_empty() => break,
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at] = [0, 0xff, 0x7f, 0x80][below(4)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + below(16)).min(bytes.len()))),
            _ => {
                let piece = bytes[at..(at + below(64)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

#[test]
fn a_damaged_request_is_never_taken_for_another_key() {
    let fleet = Fleet::found();
    let (key, _) = fleet.node("box", now());
    let request = key.request().unwrap().0;
    let entropy = SeededEntropy::new(1);
    let mut refused = 0;
    for round in 0..ROUNDS {
        let sent = damaged(&request, &entropy);
        match Authority::print_of_request(&sent) {
            // Its signature holds, so it is this key, whatever else was changed.
            Ok(print) => assert_eq!(print, key.print(), "round {round}: {sent:02x?}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > ROUNDS * 3 / 4, "{refused}");
}

#[test]
fn damaged_certificates_are_read_or_refused() {
    let fleet = Fleet::found();
    let (key, _) = fleet.node("box", now());
    let request = key.request().unwrap().0;
    let issued = fleet.authority.sign_node(&request, "box", now()).unwrap();
    let text = issued.pem();
    let entropy = SeededEntropy::new(2);
    for _ in 0..ROUNDS {
        let Ok(chain) = certificates(&damaged(text.as_bytes(), &entropy)) else {
            continue;
        };
        for certificate in &chain {
            // Either is fine; neither may panic.
            let _ = (Validity::of(certificate), Print::of_key_in(certificate));
        }
        let _ = (
            ClientTls::new(&Anchors::Roots(chain.clone()), None),
            key.certified(chain),
        );
    }
    let der = issued.chain[0].to_vec();
    for _ in 0..ROUNDS {
        let certificate = CertificateDer::from(damaged(&der, &entropy));
        let _ = (Validity::of(&certificate), Print::of_key_in(&certificate));
    }
}

#[test]
fn a_damaged_token_is_none_or_says_what_it_reveals() {
    let fleet = Fleet::found();
    let secret = || secret(&SeededEntropy::new(3));
    let invitation = Invitation {
        id: "01".to_owned(),
        secret: secret(),
        authority: fleet.authority.print(),
    };
    let bearer = Bearer {
        id: "01".to_owned(),
        secret: secret(),
    };
    let entropy = SeededEntropy::new(4);
    for whole in [invitation.reveal(), bearer.reveal()] {
        for _ in 0..ROUNDS {
            let bytes = damaged(whole.as_bytes(), &entropy);
            let text = String::from_utf8_lossy(&bytes);
            if let Some(read) = Invitation::parse(&text) {
                assert_eq!(Invitation::parse(&read.reveal()), Some(read), "{text}");
            }
            if let Some(read) = Bearer::parse(&text) {
                assert_eq!(read.reveal(), text);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_first_words_of_tls_end_the_handshake() {
    let fleet = Fleet::found();
    let (_, client) = fleet.node("box", now());
    let config = Arc::new(client.config());
    let name = "box".try_into().unwrap();
    let mut hello = Vec::new();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    client.write_tls(&mut hello).unwrap();
    let entropy = SeededEntropy::new(5);
    for round in 0..ROUNDS {
        let (mut near, far) = duplex(64 << 10);
        near.write_all(&damaged(&hello, &entropy)).await.unwrap();
        near.shutdown().await.unwrap();
        // Nothing comes behind it, so no handshake is ever done.
        let met = tokio::time::timeout(DAY, fleet.tls.accept(far)).await;
        assert!(met.expect("it ends").is_err(), "round {round}");
    }
}
