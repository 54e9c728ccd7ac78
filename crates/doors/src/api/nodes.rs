//! Nodes: list, show, label, cordon, drain, remove, and the commands to them.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hostler_control::fleet::{Reply, Verb};
use hostler_model::{Actor, Code, CommandKind, NodeId, Refusal};
use hostler_wire::api;
use http::{StatusCode, Uri, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::page::PageQuery;
use super::refuse::Failure;
use super::take::{Body, Caller, Condition, Query, Target};
use super::{Api, convert};

/// How to remove a node.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct RemoveQuery {
    /// Give up its copies as well.
    force: bool,
}

impl Api {
    pub(super) fn node_id(&self, text: &str) -> Result<NodeId, Refusal> {
        self.control.view().find_node(text).map(|node| node.id)
    }

    /// The node as it is now, with its revision as the tag.
    fn shown_node(&self, status: StatusCode, id: NodeId) -> Result<Response, Failure> {
        let view = self.control.view();
        let node = view.node(id).ok_or_else(gone_meanwhile)?;
        let tag = [(header::ETAG, format!("\"{}\"", node.revision))];
        let shown = convert::node(&self.control, &view, node);
        drop(view);
        Ok((status, tag, Json(shown)).into_response())
    }

    pub(super) async fn change_node(
        &self,
        (caller, target, status): (Actor, &str, StatusCode),
        verb: impl FnOnce(NodeId) -> Verb,
    ) -> Result<Response, Failure> {
        let id = self.node_id(target)?;
        self.control.submit(caller, verb(id)).await?;
        self.shown_node(status, id)
    }

    async fn issue(
        &self,
        caller: Actor,
        target: &str,
        kind: CommandKind,
    ) -> Result<Response, Failure> {
        let node = self.node_id(target)?;
        match self
            .control
            .submit(caller, Verb::Issue { node, kind })
            .await?
        {
            Reply::Command { id } => {
                let view = self.control.view();
                let shown = view.command(id).map(|command| convert::command(command));
                drop(view);
                let shown = shown.ok_or_else(gone_meanwhile)?;
                Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// Every node, also those that are gone: their history stays. `gone=false` leaves them out.
///
/// Without `limit` and `after` the list comes whole.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", params(api::NodeFilter, PageQuery),
    responses((status = 200, body = Vec<api::Node>)))]
pub(super) async fn list(
    State(api): State<Api>,
    uri: Uri,
    Query(filter): Query<api::NodeFilter>,
    Query(page): Query<PageQuery>,
) -> Result<Response, Failure> {
    let read = |page: &PageQuery| {
        let view = api.control.view();
        let nodes = view.nodes();
        let nodes = nodes.filter(|node| filter.gone.is_none_or(|gone| node.is_gone() == gone));
        let page = page.cut(nodes, |node| node.id)?;
        Ok(page.map(|node| convert::node(&api.control, &view, node)))
    };
    Ok(page.page_or_all(read).await?.answer(&uri))
}

/// One node.
#[utoipa::path(get, path = "/api/v1/nodes/{id}", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name")),
    responses((status = 200, body = api::Node), (status = "default", body = api::Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    Target(target): Target,
) -> Result<Response, Failure> {
    let id = api.node_id(&target).map_err(in_miaas_words)?;
    api.shown_node(StatusCode::OK, id)
}

/// The route is MIaaS's, too, so an unknown node is told of in its words; ours stand in the advice.
fn in_miaas_words(refusal: Refusal) -> Refusal {
    match refusal.code {
        Code::NodeNotFound => Refusal {
            advice: format!("{}: {}", refusal.sentence, refusal.advice),
            sentence: "Node not found".to_owned(),
            ..refusal
        },
        _ => refusal,
    }
}

/// Sets labels, and removes those with null.
#[utoipa::path(patch, path = "/api/v1/nodes/{id}/labels", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    request_body = api::LabelPatch,
    responses((status = 200, body = api::Node), (status = "default", body = api::Problem)))]
pub(super) async fn label(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
    Body(api::LabelPatch(labels)): Body<api::LabelPatch>,
) -> Result<Response, Failure> {
    let verb = |node| Verb::Label {
        node,
        labels,
        expect,
    };
    api.change_node((caller, &target, StatusCode::OK), verb)
        .await
}

/// Places nothing more on the node.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/cordon", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 200, body = api::Node), (status = "default", body = api::Problem)))]
pub(super) async fn cordon(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let verb = |node| Verb::Cordon { node, expect };
    api.change_node((caller, &target, StatusCode::OK), verb)
        .await
}

/// Places copies on the node again.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/uncordon", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 200, body = api::Node), (status = "default", body = api::Problem)))]
pub(super) async fn uncordon(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let verb = |node| Verb::Uncordon { node, expect };
    api.change_node((caller, &target, StatusCode::OK), verb)
        .await
}

/// Moves the node's copies away; done when `state` is `drained`.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/drain", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 202, body = api::Node), (status = "default", body = api::Problem)))]
pub(super) async fn drain(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let verb = |node| Verb::Drain { node, expect };
    api.change_node((caller, &target, StatusCode::ACCEPTED), verb)
        .await
}

/// Takes a drain back.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/undrain", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 200, body = api::Node), (status = "default", body = api::Problem)))]
pub(super) async fn undrain(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let verb = |node| Verb::Undrain { node, expect };
    api.change_node((caller, &target, StatusCode::OK), verb)
        .await
}

/// Tells the node to follow our intent although its guard holds it back.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/accept", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name")),
    responses((status = 202, body = api::Command), (status = "default", body = api::Problem)))]
pub(super) async fn accept(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
) -> Result<Response, Failure> {
    let epoch = api.control.store_epoch();
    api.issue(caller, &target, CommandKind::AcceptIntent { epoch })
        .await
}

/// Tells the node to delete what finished units have left.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/cleanup", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name")),
    responses((status = 202, body = api::Command), (status = "default", body = api::Problem)))]
pub(super) async fn cleanup(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
) -> Result<Response, Failure> {
    api.issue(caller, &target, CommandKind::Cleanup).await
}

/// Tells the node to delete what nothing on it needs, by age and use; its answer says what went and why the rest stays.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/gc", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name"), api::GcWish),
    responses((status = 202, body = api::Command), (status = "default", body = api::Problem)))]
pub(super) async fn gc(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Query(wish): Query<api::GcWish>,
) -> Result<Response, Failure> {
    let kind = CommandKind::Collect {
        dry_run: wish.dry_run,
        data: wish.data,
    };
    api.issue(caller, &target, kind).await
}

/// Asks the node which containers it could adopt, with the spec that each would become. The answer is that of the
/// command: JSON with `found` and `left_off`.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/adoptable", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name")),
    request_body = api::AdoptableQuery,
    responses((status = 202, body = api::Command), (status = "default", body = api::Problem)))]
pub(super) async fn adoptable(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Body(query): Body<api::AdoptableQuery>,
) -> Result<Response, Failure> {
    let api::AdoptableQuery { names } = query;
    api.issue(caller, &target, CommandKind::ListAdoptable { names })
        .await
}

/// The commands to the node, the newest last.
#[utoipa::path(get, path = "/api/v1/nodes/{id}/commands", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name"), PageQuery),
    responses((status = 200, body = Vec<api::Command>), (status = "default", body = api::Problem)))]
pub(super) async fn commands(
    State(api): State<Api>,
    uri: Uri,
    Target(target): Target,
    Query(page): Query<PageQuery>,
) -> Result<Response, Failure> {
    let view = api.control.view();
    let node = view.find_node(&target)?.id;
    let mut commands: Vec<_> = view.commands_of(node).collect();
    commands.sort_by_key(|command| command.id);
    let page = page.cut(commands, |command| command.id)?;
    Ok(page.map(|command| convert::command(command)).answer(&uri))
}

/// Removes a node; its record stays as history.
#[utoipa::path(delete, path = "/api/v1/nodes/{id}", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name"), RemoveQuery,
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 200, body = api::Node), (status = "default", body = api::Problem)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Query(query): Query<RemoveQuery>,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let verb = |node| Verb::RemoveNode {
        node,
        force: query.force,
        expect,
    };
    api.change_node((caller, &target, StatusCode::OK), verb)
        .await
}

/// What was just changed is not there: somebody else removed it in between.
pub(super) fn gone_meanwhile() -> Failure {
    let sentence = "it was changed, and removed by somebody else at once";
    Failure(Refusal::new(
        Code::RevisionConflict,
        sentence,
        "list what is there now",
    ))
}

/// The domain answered a verb with a reply that belongs to another one.
pub(super) fn unexpected(reply: &Reply) -> Failure {
    tracing::error!(?reply, "a verb was answered with something else");
    let advice = "look for the request id in the server's log, and report it";
    Failure(Refusal::new(
        Code::Internal,
        "the server has a bug here",
        advice,
    ))
}
