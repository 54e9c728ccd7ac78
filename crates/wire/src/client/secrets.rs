//! Calls about secrets. None gives a value back.

use reqwest::Method;

use super::call::expecting;
use super::{Client, ClientError, Expect};
use crate::api::{Rekeyed, Secret, SecretQuery, SecretSet};

impl Client {
    /// All secrets, without their values.
    pub async fn secrets(&self) -> Result<Vec<Secret>, ClientError> {
        self.list(self.get(&["api", "v1", "secrets"])).await
    }

    /// Gives a secret its value, byte for byte.
    pub async fn set_secret(
        &self,
        name: &str,
        value: Vec<u8>,
        query: SecretQuery,
        expect: Expect,
    ) -> Result<SecretSet, ClientError> {
        let request = self.request(Method::PUT, &["api", "v1", "secrets", name]);
        let request = expecting(request, expect).query(&query);
        self.call(request.body(value)).await
    }

    /// Forgets a secret that no workload names.
    pub async fn remove_secret(&self, name: &str, expect: Expect) -> Result<Secret, ClientError> {
        let request = self.request(Method::DELETE, &["api", "v1", "secrets", name]);
        self.call(expecting(request, expect)).await
    }

    /// Seals every secret with a new key.
    pub async fn rekey_secrets(&self) -> Result<Rekeyed, ClientError> {
        self.call(self.request(Method::POST, &["api", "v1", "rekey-secrets"]))
            .await
    }
}
