//! The description of the API, made from the handlers. It describes the superset that this door serves.
//!
//! What is served is the committed `docs/openapi.json`; [`described`] makes it. A test compares the two, so that the
//! program carries the text alone and not what makes it, which is a megabyte.

use axum::response::{IntoResponse, Response};
use hostler_wire::api::media;
use http::header;
use utoipa::OpenApi;

use super::{
    access, assignments, audit, backup, errands, errors, events, jobs, login, logs, metrics, miaas,
    nodes, plan, secrets, server, workloads,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Hostler", description = "The REST API of the control plane"),
    paths(
        nodes::list,
        nodes::show,
        nodes::remove,
        nodes::label,
        nodes::cordon,
        nodes::uncordon,
        nodes::drain,
        nodes::undrain,
        nodes::accept,
        nodes::cleanup,
        nodes::gc,
        nodes::adoptable,
        nodes::commands,
        login::form,
        login::login,
        login::logout,
        access::whoami,
        access::tokens,
        access::issue,
        access::revoke,
        access::join_tokens,
        access::invite,
        access::uninvite,
        access::approve,
        access::authority,
        access::rotate,
        access::retire,
        access::doors,
        audit::audit,
        access::rotate_key,
        miaas::register,
        miaas::heartbeat,
        miaas::deploy,
        miaas::list_deployments,
        miaas::show_deployment,
        miaas::remove_deployment,
        workloads::apply,
        workloads::list,
        workloads::show,
        workloads::delete,
        workloads::stop,
        workloads::start,
        workloads::restart,
        workloads::promote,
        workloads::rollback,
        workloads::history,
        workloads::why,
        plan::plan,
        jobs::list,
        jobs::show,
        jobs::rerun,
        secrets::list,
        secrets::set,
        secrets::remove,
        secrets::rekey,
        assignments::list,
        assignments::show,
        events::events,
        logs::of_workload,
        logs::of_assignment,
        errands::exec,
        errands::forward,
        errands::read_files,
        errands::write_files,
        backup::backup,
        server::root,
        server::version,
        server::live,
        server::ready,
        server::health,
        metrics::metrics,
        serve,
        errors::page,
    ),
    components(schemas(hostler_wire::api::EventGap))
)]
struct Description;

/// The description as JSON.
pub const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// The description as the handlers give it, the same bytes for the same source. `cargo xtask openapi` writes it down.
#[must_use]
pub fn described() -> String {
    let description = serde_json::to_value(Description::openapi()).unwrap_or_default();
    let mut text = serde_json::to_string_pretty(&description).unwrap_or_default();
    text.push('\n');
    text
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "server",
    responses((status = 200, body = Object)))]
pub(super) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, media::JSON)], OPENAPI).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_openapi_3_1_and_what_the_handlers_say() {
        let description: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
        assert!(description["paths"]["/api/v1/nodes/{id}"]["delete"].is_object());
        assert!(
            OPENAPI == described(),
            "run `cargo xtask openapi` and commit it"
        );
    }
}
