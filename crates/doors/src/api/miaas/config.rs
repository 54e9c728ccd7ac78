//! How MIaaS's routes behave. Plain data.

use std::time::Duration;

/// How MIaaS's routes behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub dialect: Dialect,
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
            ttl: Duration::from_secs(24 * 3600),
            pages_deploy: false,
        }
    }
}
