//! How MIaaS's routes behave. Plain data.

use std::sync::Arc;
use std::time::Duration;

/// The secret that MIaaS signs with unless told otherwise. It is public, so tokens prove nothing under it.
pub(super) const DEFAULT_SECRET: &str = "development-secret-change-in-production";

/// How MIaaS's routes behave. The secret is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    pub dialect: Dialect,
    /// Signs the tokens of nodes.
    pub jwt_secret: Arc<str>,
    /// How long a token is good for.
    pub ttl: Duration,
    /// Whether pages of any origin may create and delete deployments, as MIaaS has it. Without a login
    /// whatever page a person has open could then run what it likes.
    pub pages_deploy: bool,
}

/// Which of MIaaS's two dialects is spoken; their requests are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// The first one: registration answers 200, a heartbeat needs no authorization.
    #[default]
    Seed,
    /// The later one: registration answers 201, a heartbeat needs the node's token.
    Later,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dialect: Dialect::default(),
            jwt_secret: DEFAULT_SECRET.into(),
            ttl: Duration::from_secs(24 * 3600),
            pages_deploy: false,
        }
    }
}

impl Config {
    /// Whether anybody could sign as this server does.
    pub(super) fn has_public_secret(&self) -> bool {
        *self.jwt_secret == *DEFAULT_SECRET || self.jwt_secret.is_empty()
    }
}
