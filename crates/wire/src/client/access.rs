//! Calls about who may come in.

use reqwest::Method;

use super::{Client, ClientError};
use crate::api::{
    AuditPage, AuditQuery, Authority, Door, IssuedJoinToken, IssuedToken, JoinToken, MiaasKeys,
    NewJoinToken, NewToken, Node, RotateKeyQuery, Token, Whoami,
};

const TOKENS: [&str; 3] = ["api", "v1", "tokens"];
const JOIN_TOKENS: [&str; 3] = ["api", "v1", "join-tokens"];

impl Client {
    /// As whom this client asks.
    pub async fn whoami(&self) -> Result<Whoami, ClientError> {
        self.call(self.get(&["api", "v1", "whoami"])).await
    }

    /// The newest lines of the audit that are wanted, and where older ones are.
    pub async fn audit(&self, query: &AuditQuery) -> Result<AuditPage, ClientError> {
        let request = self.get(&["api", "v1", "audit"]).query(query);
        self.call(request).await
    }

    /// The tokens of people and programs, the oldest first.
    pub async fn tokens(&self) -> Result<Vec<Token>, ClientError> {
        self.list(self.get(&TOKENS)).await
    }

    /// Makes a token. Its secret is in the answer, and nowhere else.
    pub async fn issue_token(&self, new: &NewToken) -> Result<IssuedToken, ClientError> {
        self.call(self.request(Method::POST, &TOKENS).json(new))
            .await
    }

    /// A token is worth nothing any more. By id or name.
    pub async fn revoke_token(&self, token: &str) -> Result<Token, ClientError> {
        let path = [&TOKENS[..], &[token]].concat();
        self.call(self.request(Method::DELETE, &path)).await
    }

    /// The tokens with which machines join, the oldest first.
    pub async fn join_tokens(&self) -> Result<Vec<JoinToken>, ClientError> {
        self.list(self.get(&JOIN_TOKENS)).await
    }

    /// Makes a join token. Its secret is in the answer, and nowhere else.
    pub async fn issue_join_token(
        &self,
        new: &NewJoinToken,
    ) -> Result<IssuedJoinToken, ClientError> {
        self.call(self.request(Method::POST, &JOIN_TOKENS).json(new))
            .await
    }

    /// No more machines join with it. By id.
    pub async fn revoke_join_token(&self, token: &str) -> Result<JoinToken, ClientError> {
        let path = [&JOIN_TOKENS[..], &[token]].concat();
        self.call(self.request(Method::DELETE, &path)).await
    }

    /// Lets a node in that waits.
    pub async fn approve(&self, node: &str) -> Result<Node, ClientError> {
        let path = ["api", "v1", "nodes", node, "approve"];
        self.call(self.request(Method::POST, &path)).await
    }

    /// Whom the fleet's members believe.
    pub async fn authority(&self) -> Result<Authority, ClientError> {
        self.call(self.get(&["api", "v1", "authority"])).await
    }

    /// Believes the authority's former keys no more.
    pub async fn retire_authority(&self, force: bool) -> Result<Authority, ClientError> {
        let path = ["api", "v1", "authority", "retire"];
        let request = self.request(Method::POST, &path);
        self.call(request.query(&[("force", force)])).await
    }

    /// The doors of other contracts that the server opens.
    pub async fn doors(&self) -> Result<Vec<Door>, ClientError> {
        self.call(self.get(&["api", "v1", "doors"])).await
    }

    /// Another key signs the tokens of MIaaS's nodes.
    pub async fn rotate_miaas_key(&self, query: RotateKeyQuery) -> Result<MiaasKeys, ClientError> {
        let path = ["api", "v1", "miaas", "rotate-key"];
        self.call(self.request(Method::POST, &path).query(&query))
            .await
    }

    /// Gives the fleet's authority a new key.
    pub async fn rotate_authority(&self) -> Result<Authority, ClientError> {
        let path = ["api", "v1", "authority", "rotate"];
        self.call(self.request(Method::POST, &path)).await
    }
}
