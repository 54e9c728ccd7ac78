//! Who may call what over gRPC: every method that reflection lists, tried by everybody; and what reflection lists.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use futures::StreamExt as _;
use hostler_control::ControlConfig;
use hostler_doors::Dialect;
use hostler_kit::trust::ClientTls;
use hostler_model::AccessRole;
use hostler_wire::session::v1::{
    BulkFrame, JoinRequest, Membership, RenewRequest, ServerMessage, bulk_frame, membership,
    server_message,
};
use prost::Message as _;
use prost_types::{FileDescriptorProto, MethodDescriptorProto};
use reqwest::Method;
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::access::{Guarded, hello};
use crate::server::{Server, store};

const V1: &str = "grpc.reflection.v1.ServerReflection";
const V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages as their bytes, so that any method can be called.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// Whoever calls: a connection, and a token if they have one.
struct Caller {
    channel: Channel,
    token: Option<String>,
}

impl Caller {
    /// Sends one message, and holds a stream open for more.
    async fn begin(
        &self,
        path: &str,
        message: Vec<u8>,
        is_stream: bool,
    ) -> Result<Streaming<Vec<u8>>, Status> {
        let first = futures::stream::iter([message]);
        let messages = if is_stream {
            first.chain(futures::stream::pending()).boxed()
        } else {
            first.boxed()
        };
        let mut request = Request::new(messages);
        if let Some(token) = &self.token {
            let shown = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", shown);
        }
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let path = format!("/{path}").parse().unwrap();
        let begun = tokio::time::timeout(PATIENCE, grpc.streaming(request, path, Raw));
        begun.await.unwrap().map(tonic::Response::into_inner)
    }

    /// The same, and answers with the first that comes back.
    async fn call(&self, path: &str, message: Vec<u8>, is_stream: bool) -> Result<Vec<u8>, Status> {
        let mut answers = self.begin(path, message, is_stream).await?;
        let first = tokio::time::timeout(PATIENCE, answers.message()).await;
        first
            .unwrap()?
            .ok_or_else(|| Status::unknown("nothing was answered"))
    }

    async fn ask(&self, service: &str, asked: MessageRequest) -> Result<MessageResponse, Status> {
        let message = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(asked),
        };
        let path = format!("{service}/ServerReflectionInfo");
        // The messages of both versions are the same on the wire.
        let answer = self.call(&path, message.encode_to_vec(), true).await?;
        let answer = ServerReflectionResponse::decode(answer.as_slice()).unwrap();
        Ok(answer.message_response.unwrap())
    }

    async fn services(&self, service: &str) -> Result<BTreeSet<String>, Status> {
        let listed = self.ask(service, MessageRequest::ListServices(String::new()));
        let MessageResponse::ListServicesResponse(listed) = listed.await? else {
            panic!("services are listed");
        };
        Ok(listed.service.into_iter().map(|it| it.name).collect())
    }

    /// Every method of every service that is listed, by its path.
    async fn methods(&self) -> BTreeMap<String, MethodDescriptorProto> {
        let mut methods = BTreeMap::new();
        for name in self.services(V1).await.unwrap() {
            let asked = MessageRequest::FileContainingSymbol(name.clone());
            let MessageResponse::FileDescriptorResponse(file) = self.ask(V1, asked).await.unwrap()
            else {
                panic!("{name} is described");
            };
            let file = FileDescriptorProto::decode(file.file_descriptor_proto[0].as_slice());
            let file = file.unwrap();
            let package = file.package().to_owned();
            let mut services = file.service.into_iter();
            let service = services.find(|it| format!("{package}.{}", it.name()) == name);
            for method in service.unwrap().method {
                methods.insert(format!("{name}/{}", method.name()), method);
            }
        }
        methods
    }
}

/// Who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Nobody,
    Person,
    /// The node that the hello is of.
    Node,
    /// Another one.
    OtherNode,
    RemovedNode,
}

/// What each method of a server with login says to each, as a table of its own: none, or the code of the refusal.
fn expected(path: &str, who: Is) -> Option<&'static str> {
    match (path, who) {
        ("hostler.session.v1.Session/Control", Is::Node)
        | ("hostler.session.v1.Session/Bulk", Is::Node | Is::OtherNode)
        | (
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            Is::Person,
        ) => None,
        ("hostler.session.v1.Session/Control", Is::RemovedNode) => Some("node-gone"),
        // They let in whoever has a good token or key, whatever else they show; here nobody has.
        ("hostler.session.v1.Session/Join", _) => Some("join-token-invalid"),
        ("hostler.session.v1.Session/Renew", _) => Some("bad-request"),
        ("hostler.session.v1.Session/Control" | "hostler.session.v1.Session/Bulk", Is::Person)
        | (_, Is::Nobody) => Some("unauthenticated"),
        ("hostler.session.v1.Session/Control" | "hostler.session.v1.Session/Bulk", _)
        | (
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            _,
        ) => Some("forbidden"),
        (unheard, _) => panic!("who may call {unheard}? say it here"),
    }
}

/// What is sent to that method.
fn message(path: &str) -> Vec<u8> {
    match path.rsplit('/').next().unwrap() {
        "Control" => hello("identity-of-own").encode_to_vec(),
        "Bulk" => BulkFrame {
            frame: Some(bulk_frame::Frame::Ticket("nothing".to_owned())),
        }
        .encode_to_vec(),
        "Join" => JoinRequest::default().encode_to_vec(),
        "Renew" => RenewRequest::default().encode_to_vec(),
        _ => ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        }
        .encode_to_vec(),
    }
}

/// The code of the refusal, if it is one.
fn refusal(path: &str, answer: Result<Vec<u8>, Status>) -> Option<String> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(status) if status.code() == Code::Unauthenticated => {
            return Some("unauthenticated".to_owned());
        }
        Err(status) if status.code() == Code::PermissionDenied => {
            return Some("forbidden".to_owned());
        }
        // It was let in, and what it sent led nowhere.
        Err(status) if status.code() == Code::NotFound => return None,
        Err(status) => panic!("{path}: {status}"),
    };
    match path.rsplit('/').next().unwrap() {
        "Control" => match ServerMessage::decode(answer.as_slice()).unwrap().message {
            Some(server_message::Message::Refused(refused)) => Some(refused.code),
            Some(server_message::Message::Welcome(_)) => None,
            other => panic!("{path}: {other:?}"),
        },
        "Join" | "Renew" => match Membership::decode(answer.as_slice()).unwrap().outcome {
            Some(membership::Outcome::Refused(refused)) => Some(refused.code),
            other => panic!("{path}: {other:?}"),
        },
        _ => None,
    }
}

#[tokio::test]
async fn every_method_is_shut_for_those_who_may_not_and_open_for_those_who_may() {
    let guarded = Guarded::start().await;
    let bare = ClientTls::new(&guarded.trust.anchors().unwrap(), None).unwrap();
    let caller = async |tls: &ClientTls, token: Option<String>| Caller {
        channel: guarded.channel(tls).await,
        token,
    };
    let mut callers = vec![(Is::Nobody, caller(&bare, None).await)];
    let mut operator = String::new();
    for role in AccessRole::ALL {
        let token = guarded.token(role).await;
        if role == AccessRole::Operator {
            operator = format!("Bearer {token}");
        }
        callers.push((Is::Person, caller(&bare, Some(token)).await));
    }
    for (is, name) in [
        (Is::Node, "own"),
        (Is::OtherNode, "other"),
        (Is::RemovedNode, "gone"),
    ] {
        let machine = guarded.join(name).await;
        callers.push((is, caller(&machine.tls, None).await));
    }
    let headers = [("authorization", operator.as_str())];
    let removed = guarded
        .server
        .send(Method::DELETE, "/api/v1/nodes/gone", &headers, "");
    assert!(removed.await.status.is_success());
    let viewer = &callers[1].1;
    let methods = viewer.methods().await;
    let listed: Vec<&str> = methods.keys().map(String::as_str).collect();
    assert_eq!(
        listed,
        [
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "hostler.session.v1.Session/Bulk",
            "hostler.session.v1.Session/Control",
            "hostler.session.v1.Session/Join",
            "hostler.session.v1.Session/Renew",
        ]
    );
    for (path, method) in &methods {
        for (is, caller) in &callers {
            let answer = caller.call(path, message(path), method.client_streaming());
            let refused = refusal(path, answer.await);
            assert_eq!(refused.as_deref(), expected(path, *is), "{is:?} {path}");
        }
    }
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn who_may_not_ask_what_is_listed_is_written_down_and_who_may_is_not() {
    let guarded = Guarded::start().await;
    let bare = ClientTls::new(&guarded.trust.anchors().unwrap(), None).unwrap();
    let machine = guarded.join("box").await;
    let viewer = guarded.token(AccessRole::Viewer).await;
    for (tls, token) in [(&bare, None), (&machine.tls, None), (&bare, Some(viewer))] {
        let caller = Caller {
            channel: guarded.channel(tls).await,
            token,
        };
        for version in [V1, V1ALPHA] {
            // Whether it is answered is the walk's affair.
            drop(caller.services(version).await);
        }
    }
    let told = async |series: &str| -> Vec<Value> {
        let (lines, _) = guarded.audit(series).await;
        let lines = lines.into_iter();
        let lines = lines.filter(|line| line["door"] == "reflection");
        let told = lines.map(|line| {
            let keys = ["door", "method", "route", "outcome", "code"];
            let mut told = json!({"kind": line["actor"]["kind"], "name": line["actor"]["name"]});
            for key in keys {
                told[key] = line[key].clone();
            }
            told
        });
        told.collect()
    };
    let line = |(kind, name): (&str, Option<&str>), service: &str, code: &str| {
        json!({
            "kind": kind, "name": name, "door": "reflection", "method": "ServerReflectionInfo",
            "route": format!("/{service}/{{*method}}"), "outcome": "refused", "code": code,
        })
    };
    let of = |who, code| [V1, V1ALPHA].map(|service| line(who, service, code));
    let expected = of(("nobody", None), "Unauthenticated");
    assert_eq!(told("strangers").await, expected);
    let expected = of(("node", Some("box")), "PermissionDenied");
    assert_eq!(told("requests").await, expected);
    guarded.server.shut_down().await;
}

async fn plain(server: &Server) -> Caller {
    let endpoint = Endpoint::from_shared(server.url("")).unwrap();
    Caller {
        channel: endpoint.connect().await.unwrap(),
        token: None,
    }
}

#[tokio::test]
async fn an_open_server_tells_of_all_contracts_and_persyss_port_of_its_own() {
    let server = Server::start().await;
    let caller = plain(&server).await;
    let all = [
        V1,
        V1ALPHA,
        "hostler.session.v1.Session",
        "orchion.v1.LogStreamer",
        "orchion.v1.OrchionLLM",
        "orchion.v1.Orchestrator",
        "persys.control.v1.AgentControl",
    ];
    for version in [V1, V1ALPHA] {
        let listed = caller.services(version).await.unwrap();
        assert_eq!(listed, all.map(str::to_owned).into(), "{version}");
    }
    // What is listed is there: a method that does not exist is refused as such.
    for (path, method) in caller.methods().await {
        let begun = caller.begin(&path, Vec::new(), method.client_streaming());
        let code = begun.await.err().map(|status| status.code());
        assert_ne!(code, Some(Code::Unimplemented), "{path}");
    }
    // Everything that a description needs is there, too.
    let needed = MessageRequest::FileByFilename("google/protobuf/timestamp.proto".to_owned());
    assert!(caller.ask(V1, needed).await.is_ok());
    server.shut_down().await;
    let persys = |parts: hostler_doors::Parts| parts.router(Dialect::Persys);
    let server = Server::of(ControlConfig::default(), &store(), persys).await;
    let caller = plain(&server).await;
    let own = [V1, V1ALPHA, "persys.control.v1.AgentControl"];
    let listed = caller.services(V1ALPHA).await.unwrap();
    assert_eq!(listed, own.map(str::to_owned).into());
    server.shut_down().await;
}

#[tokio::test]
async fn a_page_cannot_ask_for_what_is_listed() {
    let server = Server::start().await;
    let path = format!("/{V1}/ServerReflectionInfo");
    let headers = [("content-type", "text/plain")];
    let refused = server.send(Method::POST, &path, &headers, "").await;
    assert_eq!(refused.status.as_u16(), 415);
    server.shut_down().await;
}
