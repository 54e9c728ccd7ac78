//! Records of tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostler_model::{ApiToken, JoinToken, JoinTokenId, TokenId};

use super::State;

/// Tokens by id.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Access {
    pub(super) tokens: BTreeMap<TokenId, Arc<ApiToken>>,
    pub(super) join_tokens: BTreeMap<JoinTokenId, Arc<JoinToken>>,
}

impl State {
    /// The token of a person or program.
    #[must_use]
    pub fn token(&self, id: TokenId) -> Option<&Arc<ApiToken>> {
        self.access.tokens.get(&id)
    }

    /// Tokens of people and programs, the oldest first.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &Arc<ApiToken>> {
        self.access.tokens.values()
    }

    /// The token with which machines join.
    #[must_use]
    pub fn join_token(&self, id: JoinTokenId) -> Option<&Arc<JoinToken>> {
        self.access.join_tokens.get(&id)
    }

    /// Tokens with which machines join, the oldest first.
    pub fn join_tokens(&self) -> impl ExactSizeIterator<Item = &Arc<JoinToken>> {
        self.access.join_tokens.values()
    }
}
