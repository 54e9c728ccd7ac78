//! Secrets that people and programs carry: drawn here, shown once, known afterwards by their hash alone.

use std::borrow::Cow;
use std::fmt;

use ring::digest::{SHA256, digest};

use super::Print;
use crate::Entropy;

/// The text of a secret. It is shown where that is asked for by name, and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Draws a secret of 192 bits, in letters and digits of base 32 without those that look alike.
#[must_use]
pub fn secret(entropy: &dyn Entropy) -> Secret {
    const DIGITS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut text = String::with_capacity(40);
    for _ in 0..4 {
        // 50 of 64 bits, so that each digit is one of 32 alike.
        let mut bits = entropy.next_u64();
        for _ in 0..10 {
            text.push(char::from(DIGITS[(bits & 31) as usize]));
            bits >>= 5;
        }
    }
    Secret(text)
}

impl Secret {
    /// A secret that was handed in.
    #[must_use]
    pub fn given(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it. With that many random bits a plain hash is as good as a slow one.
    #[must_use]
    pub fn hash(&self) -> String {
        let hash = digest(&SHA256, self.0.as_bytes());
        hash.as_ref()
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What the bearer of a token shows: `hostler_<id>_<secret>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Under which the token's record is found.
    pub id: String,
    pub secret: Secret,
}

/// What a machine joins with: `hostler-join_<id>_<secret>_<print>`. The print is that of the authority's certificate, so
/// that the machine knows the server at its first contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    pub id: String,
    pub secret: Secret,
    pub authority: Print,
}

const BEARER: &str = "hostler";
const INVITATION: &str = "hostler-join";

/// The text without what looks like a token of ours in it: people paste them where they do not belong, and what they
/// sent is logged.
#[must_use]
pub fn veiled(text: &str) -> Cow<'_, str> {
    let begins = [BEARER, INVITATION].map(|word| format!("{word}_"));
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(at) = begins.iter().filter_map(|word| rest.find(word)).min() {
        let (before, token) = rest.split_at(at);
        let is_of_it = |digit: char| digit.is_ascii_alphanumeric() || matches!(digit, '_' | '-');
        let end = token.find(|digit| !is_of_it(digit)).unwrap_or(token.len());
        shown.push_str(before);
        shown.push_str("hostler_…");
        rest = &token[end..];
    }
    if shown.is_empty() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(shown + rest)
}

impl Bearer {
    /// Reads what was shown; none if it is no such thing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split('_');
        let (prefix, id, secret) = (words.next()?, words.next()?, words.next()?);
        (prefix == BEARER && !secret.is_empty() && words.next().is_none()).then(|| Self {
            id: id.to_owned(),
            secret: Secret::given(secret),
        })
    }

    /// The whole text. It is a secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{BEARER}_{}_{}", self.id, self.secret.reveal())
    }
}

impl Invitation {
    /// Reads a join token; none if it is no such thing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.trim().split('_');
        let (prefix, id, secret) = (words.next()?, words.next()?, words.next()?);
        let authority = words.next()?.parse().ok()?;
        (prefix == INVITATION && !secret.is_empty() && words.next().is_none()).then(|| Self {
            id: id.to_owned(),
            secret: Secret::given(secret),
            authority,
        })
    }

    /// The whole text. It is a secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!(
            "{INVITATION}_{}_{}_{}",
            self.id,
            self.secret.reveal(),
            self.authority
        )
    }
}
