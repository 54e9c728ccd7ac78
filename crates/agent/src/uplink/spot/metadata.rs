//! What a cloud instance is, by the metadata service that EC2 has on every machine: asked once, by the installer.
//!
//! The service wants a token with each question; an older one gives none and answers without. What can fail: there is no
//! such service, which is what machines outside of that cloud say within two seconds.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::Instance;
use crate::dial::{Dial, Server};
use crate::uplink::http::{Api, CallError};

/// Where the service is, on every instance.
pub const USUAL_METADATA: &str = "http://169.254.169.254";
/// It is on the machine itself, so silence is an answer.
const PATIENCE: Duration = Duration::from_secs(2);
const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_SPAN: (&str, &str) = ("x-aws-ec2-metadata-token-ttl-seconds", "60");

struct Service {
    api: Api,
    token: Option<String>,
}

/// Asks the service at that address who this machine is.
///
/// # Errors
/// Why it is not known, for a person.
pub async fn describe_self(endpoint: &str, dial: Arc<dyn Dial>) -> Result<Instance, String> {
    let server = Server::parse_base(endpoint).map_err(|error| error.to_string())?;
    let service = Service::open(Api::new(server, dial)).await?;
    let az = service.needed("placement/availability-zone").await?;
    let life_cycle = service.said("instance-life-cycle").await?;
    let is_spot = life_cycle.contains("spot");
    Ok(Instance {
        id: service.needed("instance-id").await?,
        kind: service.needed("instance-type").await?,
        region: az.trim_end_matches(char::is_alphabetic).to_owned(),
        az,
        ami_id: service.said("ami-id").await?,
        mode: if is_spot { "spot" } else { "ondemand" }.to_owned(),
        hostname: None,
        private_ip: Some(service.said("local-ipv4").await?),
        public_ip: Some(service.said("public-ipv4").await?),
    })
}

impl Service {
    async fn open(api: Api) -> Result<Self, String> {
        let asked = api.plain(Method::PUT, "/latest/api/token", Some(TOKEN_SPAN));
        let token = match within(asked).await {
            Ok(token) => Some(token.trim().to_owned()),
            Err(CallError::Refused { .. }) => None,
            Err(error) => return Err(error.to_string()),
        };
        Ok(Self { api, token })
    }

    /// What it says, or nothing where it does not know: not every machine has an address that is public.
    async fn said(&self, what: &str) -> Result<String, String> {
        let path = format!("/latest/meta-data/{what}");
        let token = self.token.as_deref().map(|token| (TOKEN, token));
        match within(self.api.plain(Method::GET, &path, token)).await {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.status().is_some_and(|it| it.as_u16() == 404) => Ok(String::new()),
            Err(error) => Err(format!("{what}: {error}")),
        }
    }

    async fn needed(&self, what: &str) -> Result<String, String> {
        let text = self.said(what).await?;
        if text.is_empty() || text.contains('\n') {
            return Err(format!("{what} is not known there"));
        }
        Ok(text)
    }
}

async fn within(
    asked: impl Future<Output = Result<String, CallError>>,
) -> Result<String, CallError> {
    let answered = tokio::time::timeout(PATIENCE, asked).await;
    answered.unwrap_or_else(|_| Err(CallError::Silent("no metadata service answers".to_owned())))
}
