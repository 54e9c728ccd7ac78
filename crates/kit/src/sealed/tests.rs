use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::{SeededEntropy, SystemEntropy};

fn clear(text: &str) -> Clear {
    Clear::new(text.as_bytes().to_vec())
}

fn lock(passphrase: &str) -> Lock {
    Lock {
        passphrase: clear(passphrase),
        iterations: 10,
    }
}

#[test]
fn what_is_sealed_opens_as_what_it_is_and_as_nothing_else() {
    let (ring, entropy) = (Keyring::in_memory(&SystemEntropy), SystemEntropy);
    let (key, text) = ring.seal("db 1", &clear("canary"), &entropy).unwrap();
    assert_eq!(
        ring.open_sealed(&key, "db 1", &text).unwrap(),
        clear("canary")
    );
    assert_eq!(
        ring.open_sealed(&key, "db 2", &text),
        Err(OpenError::Tampered)
    );
    assert_eq!(ring.open_sealed("x", "db 1", &text), Err(OpenError::NoKey));
    let mut bytes = STANDARD.decode(&text).unwrap();
    for at in 0..bytes.len() {
        bytes[at] ^= 1;
        let changed = STANDARD.encode(&bytes);
        let opened = ring.open_sealed(&key, "db 1", &changed);
        assert_eq!(opened, Err(OpenError::Tampered), "{at}");
        bytes[at] ^= 1;
    }
    for text in ["", "AAAA", "no base64"] {
        assert!(ring.open_sealed(&key, "db 1", text).is_err(), "{text}");
    }
}

#[test]
fn the_same_value_is_never_sealed_alike() {
    let ring = Keyring::in_memory(&SystemEntropy);
    let seal = || ring.seal("db 1", &clear("canary"), &SystemEntropy).unwrap();
    assert_ne!(seal(), seal());
}

#[test]
fn a_clear_value_and_its_keys_are_not_printed() {
    let ring = Keyring::in_memory(&SeededEntropy::new(1));
    let shown = format!("{:?} {ring:?} {:?}", clear("canary"), lock("canary"));
    assert!(
        !shown.contains("canary") && !shown.contains("[99"),
        "{shown}"
    );
    let key = STANDARD.encode(ring.keys()[0].bytes.reveal());
    assert!(!shown.contains(&key), "{shown}");
}

#[test]
fn keys_are_made_once_and_read_by_their_owner_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("secrets.key");
    let ring = Keyring::open(&path, None, &SystemEntropy).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (key, text) = ring.seal("db 1", &clear("canary"), &SystemEntropy).unwrap();
    let again = Keyring::open(&path, None, &SystemEntropy).unwrap();
    assert_eq!(again.primary(), key);
    assert_eq!(
        again.open_sealed(&key, "db 1", &text).unwrap(),
        clear("canary")
    );

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Keyring::open(&path, None, &SystemEntropy).unwrap_err();
    assert!(matches!(refused, KeyringError::Open(_)), "{refused}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "something else").unwrap();
    let refused = Keyring::open(&path, None, &SystemEntropy).unwrap_err();
    assert!(matches!(refused, KeyringError::Unreadable(_)), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "something else");
}

#[test]
fn a_passphrase_locks_the_file_and_is_asked_for_from_then_on() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("secrets.key");
    let open = Keyring::open(&path, None, &SystemEntropy).unwrap();
    let bytes = STANDARD.encode(open.keys()[0].bytes.reveal());
    assert!(fs::read_to_string(&path).unwrap().contains(&bytes));
    let locked = Keyring::open(&path, Some(lock("horse")), &SystemEntropy).unwrap();
    assert_eq!(locked.primary(), open.primary());
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&bytes) && !text.contains("horse"), "{text}");

    let without = Keyring::open(&path, None, &SystemEntropy).unwrap_err();
    assert!(matches!(without, KeyringError::Locked(_)), "{without}");
    let wrong = Keyring::open(&path, Some(lock("donkey")), &SystemEntropy).unwrap_err();
    assert!(matches!(wrong, KeyringError::WrongPassphrase(_)), "{wrong}");
    let again = Keyring::open(&path, Some(lock("horse")), &SystemEntropy).unwrap();
    assert_eq!(again.primary(), open.primary());
}

#[test]
fn a_turn_has_both_keys_on_disk_until_nothing_needs_the_old_one() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("secrets.key");
    for lock in [None, Some(lock("horse"))] {
        let ring = Keyring::open(&path, lock.clone(), &SystemEntropy).unwrap();
        let (old, text) = ring.seal("db 1", &clear("canary"), &SystemEntropy).unwrap();
        ring.begin_turn(&SystemEntropy).unwrap();
        assert!(ring.is_turning() && ring.primary() != old);
        // As after a kill.
        let again = Keyring::open(&path, lock.clone(), &SystemEntropy).unwrap();
        assert_eq!(again.primary(), ring.primary());
        assert_eq!(
            again.open_sealed(&old, "db 1", &text).unwrap(),
            clear("canary")
        );
        again.end_turn(|key| key == old, &SystemEntropy).unwrap();
        assert!(again.is_turning(), "it is still needed");
        again.end_turn(|_| false, &SystemEntropy).unwrap();
        let last = Keyring::open(&path, lock, &SystemEntropy).unwrap();
        assert!(!last.is_turning());
        assert_eq!(last.open_sealed(&old, "db 1", &text), Err(OpenError::NoKey));
    }
}

#[test]
fn a_damaged_seal_opens_as_nothing_else() {
    let (ring, entropy) = (Keyring::in_memory(&SystemEntropy), SeededEntropy::new(6));
    let (key, text) = ring.seal("db 1", &clear("canary"), &SystemEntropy).unwrap();
    for round in 0..2_000 {
        let mut sent = text.clone().into_bytes();
        let at = usize::try_from(entropy.next_u64() >> 32).unwrap() % sent.len();
        match round % 3 {
            0 => sent[at] = b"Aa0+/= \n"[round % 8],
            1 => sent.truncate(at),
            _ => sent.insert(at, b'A'),
        }
        let sent = String::from_utf8(sent).unwrap();
        match ring.open_sealed(&key, "db 1", &sent) {
            Ok(opened) => assert!(sent == text && opened == clear("canary"), "{sent}"),
            Err(error) => assert_eq!(error, OpenError::Tampered),
        }
    }
}
