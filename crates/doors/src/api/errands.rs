//! Errands inside copies: commands and connections over WebSockets, files as the bodies of plain requests.
//!
//! What a copy or its node refuses is a status as long as nothing has begun. Later it is the last word of a socket; a
//! body that was read so far breaks off, which no reader takes for its end.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hostler_control::{Said, Told, Tunnel};
use hostler_model::{Code, Errand, ExecCommand, Refusal, Task, TerminalSize};
use hostler_wire::api::{self, media};
use http::{StatusCode, header};
use tokio::sync::mpsc::{self, error::SendTimeoutError};

use super::Api;
use super::refuse::Failure;
use super::socket::Socket;
use super::take::{Query, Stay, Target};
use super::tunnel::Form;
use crate::access::Warrant;

/// A terminal of which nobody said how large it is.
const USUAL_SIZE: TerminalSize = TerminalSize {
    rows: 24,
    columns: 80,
};
/// How long a client may send nothing of files, or a node take nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the rest of files is read that nobody wants any more.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs a command inside a copy, over a WebSocket: binary messages are its input and output, and text messages are words
/// such as `ErrandWord`.
#[utoipa::path(get, path = "/api/v1/assignments/{id}/exec", tag = "errands",
    params(("id" = String, Path, description = "Id or part of an id"), api::ExecQuery),
    responses((status = 101, body = api::ErrandWord), (status = "default", body = api::Problem)))]
pub(super) async fn exec(
    State(api): State<Api>,
    (Target(target), Stay(stay)): (Target, Stay),
    Query(pairs): Query<Vec<(String, String)>>,
    socket: Option<Socket>,
) -> Result<Response, Failure> {
    let query = api::ExecQuery::read(pairs);
    let query = query.map_err(|sentence| Failure::bad(format!("the query: {sentence}")))?;
    let errand = Errand {
        part: query.part.clone(),
        task: Task::Exec(command(query)?),
    };
    on_socket((&api, stay), &target, errand, (socket, Form::Streams)).await
}

/// Connects to a port of a copy, over a WebSocket whose binary messages are the bytes of the connection.
#[utoipa::path(get, path = "/api/v1/assignments/{id}/forward", tag = "errands",
    params(("id" = String, Path, description = "Id or part of an id"), api::ForwardQuery),
    responses((status = 101, body = api::ErrandWord), (status = "default", body = api::Problem)))]
pub(super) async fn forward(
    State(api): State<Api>,
    (Target(target), Stay(stay)): (Target, Stay),
    Query(query): Query<api::ForwardQuery>,
    socket: Option<Socket>,
) -> Result<Response, Failure> {
    if query.port == 0 {
        return Err(Failure::bad("port: nothing listens on port 0"));
    }
    let errand = Errand {
        part: query.part,
        task: Task::Forward { port: query.port },
    };
    on_socket((&api, stay), &target, errand, (socket, Form::Plain)).await
}

/// A file or directory of a copy, as a tar stream.
#[utoipa::path(get, path = "/api/v1/assignments/{id}/files", tag = "errands",
    params(("id" = String, Path, description = "Id or part of an id"), api::FilesQuery),
    responses((status = 200, body = String, content_type = "application/x-tar"),
        (status = "default", body = api::Problem)))]
pub(super) async fn read_files(
    State(api): State<Api>,
    (Target(target), Stay(stay)): (Target, Stay),
    Query(query): Query<api::FilesQuery>,
) -> Result<Response, Failure> {
    let permit = api.sockets.take()?;
    let path = checked(query.path)?;
    let errand = Errand {
        part: query.part,
        task: Task::ReadFiles { path },
    };
    let Tunnel { said, mut told } = begin(&api, &target, errand).await?;
    // What goes wrong at once is still a refusal.
    let first = told.try_next().await?;
    let told = stream::iter(first.map(Ok)).chain(told).boxed();
    // Both ends of the tunnel live as long as the body is read.
    let held = (said, permit, api.control.tasks().clone());
    let pieces = stream::try_unfold((told, held), async |(mut told, held)| {
        let next = tokio::select! {
            next = told.next() => next.transpose()?,
            () = held.2.stopping() => return Err(stopping()),
        };
        Ok(match next {
            Some(Told::Bytes(bytes)) => Some((bytes, (told, held))),
            Some(_) => Some((Bytes::new(), (told, held))),
            None => None,
        })
    });
    let pieces = stay.limit(pieces, Err);
    let body = Body::from_stream(pieces.inspect_err(|refusal: &Refusal| {
        tracing::debug!(code = %refusal.code, sentence = refusal.sentence, "files broke off");
    }));
    Ok(([(header::CONTENT_TYPE, media::TAR)], body).into_response())
}

/// Unpacks a tar stream into a directory of a copy.
#[utoipa::path(put, path = "/api/v1/assignments/{id}/files", tag = "errands",
    params(("id" = String, Path, description = "Id or part of an id"), api::FilesQuery),
    request_body(content = String, content_type = "application/x-tar"),
    responses((status = 204), (status = "default", body = api::Problem)))]
pub(super) async fn write_files(
    State(api): State<Api>,
    (Target(target), Stay(stay)): (Target, Stay),
    Query(query): Query<api::FilesQuery>,
    request: Request,
) -> Result<Response, Failure> {
    let _permit = api.sockets.take()?;
    let path = checked(query.path)?;
    let errand = Errand {
        part: query.part,
        task: Task::WriteFiles { path },
    };
    let Tunnel { said, mut told } = begin(&api, &target, errand).await?;
    let mut body = request.into_body().into_data_stream();
    let sending = async {
        match send(&mut body, &said).await {
            // Only the node says how it went.
            Ok(()) => std::future::pending().await,
            Err(failure) => failure,
        }
    };
    let ended = async {
        while told.try_next().await?.is_some() {}
        Ok::<(), Refusal>(())
    };
    let tasks = api.control.tasks();
    // The node's word counts more than a body that nobody takes any more.
    let ended = tokio::select! {
        biased;
        ended = ended => ended.map_err(Failure),
        failure = sending => Err(failure),
        () = tasks.stopping() => Err(Failure(stopping())),
        refusal = stay.over() => Err(Failure(refusal)),
    };
    // A client that is still sending would lose the answer with its connection.
    let _ = tokio::time::timeout(DRAIN, async {
        while let Some(Ok(_)) = body.next().await {}
    })
    .await;
    ended.map(|()| StatusCode::NO_CONTENT.into_response())
}

/// Hands a body on, and its end.
async fn send(body: &mut BodyDataStream, said: &mpsc::Sender<Said>) -> Result<(), Failure> {
    let late = |_| Failure::bad(format!("nothing came for {} s", PATIENCE.as_secs()));
    while let Some(bytes) = tokio::time::timeout(PATIENCE, body.next())
        .await
        .map_err(late)?
    {
        let mut bytes = bytes.map_err(|_| Failure::bad("the body broke off"))?;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(Tunnel::PIECE));
            say(said, Said::Bytes(piece)).await?;
        }
    }
    say(said, Said::EndOfBytes).await
}

async fn say(said: &mpsc::Sender<Said>, word: Said) -> Result<(), Failure> {
    match said.send_timeout(word, PATIENCE).await {
        Ok(()) => Ok(()),
        // The errand is over; how it ended is being told.
        Err(SendTimeoutError::Closed(_)) => std::future::pending().await,
        Err(SendTimeoutError::Timeout(_)) => Err(takes_nothing()),
    }
}

async fn on_socket(
    (api, stay): (&Api, Warrant),
    target: &str,
    errand: Errand,
    (socket, form): (Option<Socket>, Form),
) -> Result<Response, Failure> {
    let socket = socket
        .ok_or_else(|| Failure::bad("this route is a WebSocket: ask with `Upgrade: websocket`"))?;
    // Room is taken before anything is begun for it.
    let socket = socket.enter_talking(&api.sockets)?;
    let tunnel = begin(api, target, errand).await?;
    Ok(socket.carry(tunnel, (form, stay), &api.control))
}

async fn begin(api: &Api, target: &str, errand: Errand) -> Result<Tunnel, Failure> {
    let copy = api.control.view().find_assignment(target)?.id;
    Ok(api.control.errand(copy, errand).await?)
}

fn command(query: api::ExecQuery) -> Result<ExecCommand, Failure> {
    let env = query.env.iter().map(|pair| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::bad(format!("env: `{pair}` is no `KEY=VALUE`"))),
    });
    let env: BTreeMap<String, String> = env.collect::<Result<_, Failure>>()?;
    if query.command.first().is_none_or(String::is_empty) {
        return Err(Failure::bad("command: nothing is to be run"));
    }
    let texts = query
        .command
        .iter()
        .chain(&query.env)
        .chain(&query.directory);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(Failure::bad("the query: no word may hold a zero byte"));
    }
    Ok(ExecCommand {
        words: query.command,
        input: query.input,
        terminal: query.terminal.then(|| TerminalSize {
            rows: query.rows.unwrap_or(USUAL_SIZE.rows),
            columns: query.columns.unwrap_or(USUAL_SIZE.columns),
        }),
        user: query.user,
        env,
        directory: query.directory,
    })
}

fn checked(path: String) -> Result<String, Failure> {
    if path.is_empty() || path.contains('\0') {
        return Err(Failure::bad("path: it names no file that could exist"));
    }
    Ok(path)
}

fn takes_nothing() -> Failure {
    Failure(Refusal::new(
        Code::NodeUnreachable,
        "the node takes no more of the files",
        "look what has arrived, and copy again",
    ))
}

fn stopping() -> Refusal {
    Refusal::new(
        Code::Overloaded,
        "the server is stopping",
        "look what has arrived, and copy again when it is back",
    )
}
