//! One request and its answer: addresses, headers, refusals, pages.

use std::error::Error;
use std::io;

use http::header;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use rustls::CertificateError;
use serde::de::DeserializeOwned;

use super::{CALL_TIMEOUT, Client, ClientError, Expect};
use crate::api::{Problem, media};

/// How much of an answer that is none of ours is shown.
const SHOWN_CHARS: usize = 200;

impl Client {
    pub(super) fn get(&self, path: &[&str]) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A request for a path, segment by segment; each is escaped, so that a name cannot become a path.
    pub(super) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        self.request_url(method, url)
    }

    fn request_url(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// One bounded call whose answer is JSON.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = self.send_bounded(request).await?;
        self.body(self.accepted(response).await?).await
    }

    /// The same where an answer is an answer whatever its status.
    pub(super) async fn call_whatever_status<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = self.send_bounded(request).await?;
        self.body(response).await
    }

    /// Every page of a list.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut request = request;
        loop {
            let response = self.send_bounded(request).await?;
            let response = self.accepted(response).await?;
            let here = response.url().clone();
            let next = next_page(&response);
            items.extend(self.body::<Vec<T>>(response).await?);
            match next {
                Some(next) if next == here => {
                    return Err(self.protocol("a page of a list leads to itself".into()));
                }
                Some(next) => request = self.request_url(Method::GET, next),
                None => return Ok(items),
            }
        }
    }

    async fn send_bounded(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let request = request.header(header::ACCEPT, media::JSON);
        self.send(request.timeout(CALL_TIMEOUT)).await
    }

    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request
            .send()
            .await
            .map_err(|source| self.unreachable(source))
    }

    /// The response, unless it is a refusal.
    pub(super) async fn accepted(&self, response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response
            .text()
            .await
            .map_err(|source| self.unreachable(source))?;
        Err(self.refused(status, &text))
    }

    pub(super) fn protocol(&self, problem: String) -> ClientError {
        ClientError::Protocol {
            addr: self.addr().to_owned(),
            problem,
        }
    }

    async fn body<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let path = response.url().path().to_owned();
        let bytes = response
            .bytes()
            .await
            .map_err(|source| self.unreachable(source))?;
        serde_json::from_slice(&bytes).map_err(|error| self.protocol(format!("{path}: {error}")))
    }

    fn refused(&self, status: StatusCode, text: &str) -> ClientError {
        match serde_json::from_str::<Problem>(text) {
            Ok(mut problem) if !problem.code.is_empty() => {
                problem.status = status.as_u16();
                ClientError::Refused(Box::new(problem))
            }
            _ => {
                let shown: String = text.trim().chars().take(SHOWN_CHARS).collect();
                self.protocol(format!("status {status}, {shown:?}"))
            }
        }
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        let addr = self.addr().to_owned();
        match disbelief(&source) {
            Some(problem) => ClientError::Unbelieved { addr, problem },
            None => ClientError::Unreachable {
                addr,
                source: source.without_url(),
            },
        }
    }
}

/// Why the other side's certificate was not believed, if that is what went wrong.
fn disbelief(error: &reqwest::Error) -> Option<String> {
    let first: &(dyn Error + 'static) = error;
    let mut causes = std::iter::successors(Some(first), |&cause| cause.source());
    causes.find_map(|cause| {
        // An error of a stream gives the cause of what it wraps for its own, and may be wrapped in another.
        let mut inner = cause;
        while let Some(wrapped) = inner.downcast_ref().and_then(io::Error::get_ref) {
            inner = wrapped;
        }
        match inner.downcast_ref()? {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                Some("nothing here names its authority".to_owned())
            }
            rustls::Error::InvalidCertificate(other) => Some(other.to_string()),
            _ => None,
        }
    })
}

/// Adds what the caller has seen.
pub(super) fn expecting(request: RequestBuilder, expect: Expect) -> RequestBuilder {
    match expect {
        Expect::Any => request,
        Expect::Absent => request.header(header::IF_NONE_MATCH, "*"),
        Expect::Revision(revision) => request.header(header::IF_MATCH, format!("\"{revision}\"")),
    }
}

/// Where the `Link` header says that the list goes on. Only the path and query count: pages come from the
/// address that was asked, whatever a proxy wrote, so that the token goes nowhere else.
fn next_page(response: &Response) -> Option<Url> {
    let links = response.headers().get_all(header::LINK);
    let target = links
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|link| {
            let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
            rest.split(';')
                .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"))
                .then_some(target)
        })?;
    let target = response.url().join(target).ok()?;
    let mut next = response.url().clone();
    next.set_path(target.path());
    next.set_query(target.query());
    Some(next)
}
