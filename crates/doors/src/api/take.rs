//! What handlers take from a request: names, queries, bodies, conditions and the caller. Each refuses what
//! it cannot read with a sentence that says where.

use std::convert::Infallible;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use hostler_control::fleet::Expect;
use hostler_kit::sealed::Clear;
use hostler_model::spec::MAX_SPEC_BYTES;
use hostler_model::{Actor, Code, Refusal};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::Api;
use super::refuse::Failure;
use crate::access::{Session, Warrant, Who};

/// Most bytes of a body that is no spec.
const BODY_BYTES: usize = 64 << 10;

/// Who asks, as the gate has found. Without login everybody is `anonymous`; a token that is sent all the same is not
/// read.
pub(super) struct Caller(pub Actor);

/// The same, with what they may do.
pub(super) struct Asker(pub Who);

/// What a stream lasts by: who asks has to be let in for as long.
pub(super) struct Stay(pub Warrant);

/// The thing that a path names.
pub(super) struct Target(pub String);

/// The query, with types.
pub(super) struct Query<T>(pub T);

/// The text of one or more specs.
pub(super) struct SpecText(pub String);

/// A secret's value: the body, byte for byte.
pub(super) struct Value(pub Clear);

/// A small JSON body.
pub(super) struct Body<T>(pub T);

/// Which revision the caller has seen.
pub(super) struct Condition(pub Expect);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let who = parts.extensions.get().unwrap_or(&Who::Nobody);
        Ok(Self(who.actor()))
    }
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let who = parts.extensions.get::<Who>().cloned();
        Ok(Self(who.unwrap_or(Who::Nobody)))
    }
}

impl FromRequestParts<Api> for Stay {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        let who = parts.extensions.get().unwrap_or(&Who::Nobody);
        let session = parts.extensions.get::<Session>();
        Ok(Self(api.access.warrant_in(who, session)))
    }
}

impl<S: Sync + Send> FromRequestParts<S> for Target {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let refused = |_: PathRejection| Failure::bad("the path names no thing that could exist");
        let path = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(refused)?;
        Ok(Self(path.0))
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        let query = query.map_err(|error| Failure::bad(format!("the query: {}", cause(&error))))?;
        Ok(Self(query.0))
    }
}

impl<S: Sync> FromRequestParts<S> for Condition {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        condition(&parts.headers).map(Self)
    }
}

impl<S: Sync> FromRequest<S> for SpecText {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = read(request, MAX_SPEC_BYTES).await?;
        let text = String::from_utf8(bytes);
        text.map(Self).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Failure::bad(format!("the body is no UTF-8 text from byte {at} on"))
        })
    }
}

impl<S: Sync> FromRequest<S> for Value {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        // How much of it is a secret is the control plane's to say.
        read(request, BODY_BYTES).await.map(Clear::new).map(Self)
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = read(request, BODY_BYTES).await?;
        let read = serde_json::from_slice(&bytes);
        // The error ends with line and column.
        read.map(Self)
            .map_err(|error| Failure::bad(format!("the body is not as expected: {error}")))
    }
}

/// Reads a whole body, up to so many bytes.
pub(super) async fn read(request: Request, most: usize) -> Result<Vec<u8>, Failure> {
    let limited = Limited::new(request.into_body(), most);
    match limited.collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => {
            let sentence = format!("the body is larger than {most} bytes");
            Err(Failure(Refusal::new(
                Code::BodyTooLarge,
                sentence,
                "send less at a time",
            )))
        }
        Err(_) => Err(Failure::bad("the body broke off")),
    }
}

fn condition(headers: &HeaderMap) -> Result<Expect, Failure> {
    let text = |name| match headers.get(name) {
        None => Ok(None),
        Some(value) => {
            let text = value.to_str().map(|text| Some(text.trim()));
            text.map_err(|_| Failure::bad("the condition is no plain text"))
        }
    };
    let absent = || Failure::bad("If-None-Match takes only `*` here");
    match (text(header::IF_MATCH)?, text(header::IF_NONE_MATCH)?) {
        (None, None) | (Some("*"), None) => Ok(Expect::Any),
        (None, Some("*")) => Ok(Expect::Absent),
        (None, Some(_)) => Err(absent()),
        (Some(_), Some(_)) => Err(Failure::bad(
            "If-Match and If-None-Match exclude each other",
        )),
        (Some(tag), None) => {
            let number = tag
                .strip_prefix("W/")
                .unwrap_or(tag)
                .trim_matches('"')
                .parse();
            let refused =
                |_| Failure::bad(format!("If-Match: `{tag}` is no revision; write \"3\""));
            number.map(Expect::Revision).map_err(refused)
        }
    }
}

/// The innermost cause: it names the field.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(name: header::HeaderName, value: &str) -> Result<Expect, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        condition(&headers).map_err(|failure| failure.0.code)
    }

    #[test]
    fn conditions_are_read_as_revisions() {
        assert_eq!(expect(header::IF_MATCH, "\"3\""), Ok(Expect::Revision(3)));
        assert_eq!(expect(header::IF_MATCH, "W/\"3\""), Ok(Expect::Revision(3)));
        assert_eq!(expect(header::IF_MATCH, "*"), Ok(Expect::Any));
        assert_eq!(expect(header::IF_NONE_MATCH, "*"), Ok(Expect::Absent));
        assert_eq!(expect(header::IF_MATCH, "\"x\""), Err(Code::BadRequest));
        assert_eq!(
            expect(header::IF_NONE_MATCH, "\"3\""),
            Err(Code::BadRequest)
        );
    }
}
