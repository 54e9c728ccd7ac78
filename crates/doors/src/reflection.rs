//! gRPC reflection: which services a listener has and what their messages are, for tools that are not built with them.
//!
//! Both versions of it tell the same, and tell of each other. It says nothing about the fleet, but where there is login it
//! is for those who may look: nobody else needs to know what is spoken here. Owns nothing; what can fail is a status.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use hostler_model::{AccessRole, Code, Refusal};
use tonic::Status;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_reflection::server::{Builder, Error};

use crate::access::Need;
use crate::{Access, Parts, grpc};

/// What is told of a contract.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    /// Its files, as an encoded set.
    pub(crate) descriptors: &'static [u8],
    /// Those of its services that we serve; others are its agents'.
    pub(crate) services: &'static [&'static str],
}

const OWN: [Told; 2] = [
    Told {
        descriptors: v1::FILE_DESCRIPTOR_SET,
        services: &[v1::server_reflection_server::SERVICE_NAME],
    },
    Told {
        descriptors: v1alpha::FILE_DESCRIPTOR_SET,
        services: &[v1alpha::server_reflection_server::SERVICE_NAME],
    },
];

/// The routes beside those of these contracts.
pub(crate) fn beside(parts: &Parts, contracts: &[Told]) -> Router {
    let services = services(contracts).unwrap_or_else(|error| {
        tracing::error!(%error, "the descriptors of the contracts cannot be read: nothing tells of them");
        Router::new()
    });
    services
        .route_layer(from_fn_with_state(parts.access.clone(), admit))
        .route_layer(from_fn(grpc::only_calls))
}

fn services(contracts: &[Told]) -> Result<Router, Error> {
    let told = || {
        let begun = Builder::configure().include_reflection_service(false);
        contracts.iter().chain(&OWN).fold(begun, |begun, told| {
            let begun = begun.register_encoded_file_descriptor_set(told.descriptors);
            let names = told.services.iter();
            names.fold(begun, |begun, name| begun.with_service_name(*name))
        })
    };
    Ok(Router::new()
        .route_service(
            "/grpc.reflection.v1.ServerReflection/{*method}",
            told().build_v1()?,
        )
        .route_service(
            "/grpc.reflection.v1alpha.ServerReflection/{*method}",
            told().build_v1alpha()?,
        ))
}

/// Lets those in who may look.
async fn admit(State(access): State<Access>, request: Request, next: Next) -> Response {
    let (headers, peer) = (request.headers(), request.extensions().get());
    let who = access.who(headers, peer);
    match who.and_then(|who| who.check(Need::Role(AccessRole::Viewer))) {
        Ok(()) => next.run(request).await,
        Err(refusal) => grpc::kept_out(refused(refusal)),
    }
}

fn refused(refusal: Refusal) -> Status {
    match refusal.code {
        Code::Unauthenticated => Status::unauthenticated(refusal.sentence),
        Code::TooManyAttempts => Status::resource_exhausted(refusal.sentence),
        _ => Status::permission_denied(refusal.sentence),
    }
}
