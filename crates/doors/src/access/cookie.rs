//! The cookies of the login, and the proof that goes with each. Owns nothing.
//!
//! Both are sent back to this server alone, over TLS alone, for requests of its own pages alone, and are shown to no
//! script: a browser refuses a name that begins with `__Host-` without the rest. The proof is made of the cookie, so
//! that nothing of it has to be kept; whoever knows the proof does not know the cookie.

use std::time::Duration;

use hostler_kit::trust::Secret;
use http::{HeaderMap, header};

/// Longest value that is looked at.
const MOST_BYTES: usize = 128;

/// How long a form may be open before it is sent.
pub(crate) const FORM_LIFE: Duration = Duration::from_secs(60 * 60);

/// What a cookie is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cookie {
    /// It stands for a token.
    Session,
    /// It ties a login to the page that it was typed into.
    Form,
}

impl Cookie {
    const fn name(self) -> &'static str {
        match self {
            Self::Session => "__Host-hostler",
            Self::Form => "__Host-hostler-form",
        }
    }

    /// The value that is sent, if there is exactly one.
    pub(crate) fn read(self, headers: &HeaderMap) -> Option<Secret> {
        let sent = headers.get_all(header::COOKIE).iter();
        let pairs = sent
            .filter_map(|it| it.to_str().ok())
            .flat_map(|it| it.split(';'));
        let mut values = pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.name())
            .map(|(_, value)| value);
        let value = values.next().filter(|_| values.next().is_none())?;
        let is_one = (1..=MOST_BYTES).contains(&value.len());
        is_one.then(|| Secret::given(value))
    }

    /// How it is set for so long; for no time at all, it is forgotten.
    pub(crate) fn set(self, value: &Secret, life: Duration) -> String {
        let (name, value, seconds) = (self.name(), value.reveal(), life.as_secs());
        format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}")
    }

    /// How it is forgotten.
    pub(crate) fn forget(self) -> String {
        self.set(&Secret::given(""), Duration::ZERO)
    }
}

/// What goes with the cookie where a request changes something.
pub(crate) fn proof(cookie: &Secret) -> String {
    Secret::given(format!("a page of our own: {}", cookie.reveal())).hash()
}

/// Whether it is that. Hashes are compared: how long that takes tells nothing.
pub(crate) fn is_proof(cookie: &Secret, shown: &str) -> bool {
    Secret::given(proof(cookie)).hash() == Secret::given(shown).hash()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sent: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for sent in sent {
            headers.append(header::COOKIE, sent.parse().unwrap());
        }
        Cookie::Session
            .read(&headers)
            .map(|it| it.reveal().to_owned())
    }

    #[test]
    fn a_cookie_is_read_by_its_whole_name_and_never_guessed() {
        let one = Some("abc".to_owned());
        assert_eq!(read(&["__Host-hostler=abc"]), one);
        assert_eq!(read(&["a=b; __Host-hostler=abc; c"]), one);
        assert_eq!(read(&["a=b", "__Host-hostler=abc"]), one);
        for none in [
            &[][..],
            &["hostler=abc"],
            &["__Host-hostler-form=abc"],
            &["__Host-hostler="],
            &["__Host-hostler=abc; __Host-hostler=def"],
            &["__Host-hostler=abc", "__Host-hostler=abc"],
        ] {
            assert_eq!(read(none), None, "{none:?}");
        }
        let long = format!("__Host-hostler={}", "x".repeat(MOST_BYTES + 1));
        assert_eq!(read(&[&long]), None);
    }

    #[test]
    fn a_proof_is_of_one_cookie_and_does_not_hold_it() {
        let (one, other) = (Secret::given("one"), Secret::given("other"));
        assert!(is_proof(&one, &proof(&one)));
        assert!(!is_proof(&one, &proof(&other)) && !is_proof(&one, ""));
        assert_ne!(proof(&one), one.hash());
    }
}
