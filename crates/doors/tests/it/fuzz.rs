//! Whatever is sent to a route that writes is answered, and never by a fault of ours.

use std::sync::Arc;

use hostler_control::ControlConfig;
use hostler_doors::Dialect;
use hostler_wire::orchion::v1;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use prost::Message as _;
use reqwest::Method;
use tower::ServiceExt as _;

use crate::server::{Server, store};

const ROUTES: [(&str, &str); 10] = [
    ("POST", "/api/v1/workloads"),
    ("POST", "/api/v1/workloads/plan"),
    ("POST", "/api/v1/nodes/register"),
    ("POST", "/api/v1/nodes/box/heartbeat"),
    ("POST", "/api/v1/deployments"),
    ("PATCH", "/api/v1/nodes/box/labels"),
    ("POST", "/api/v1/nodes/box/cordon"),
    ("DELETE", "/api/v1/nodes/nobody"),
    ("POST", "/api/v1/workloads/web/stop"),
    ("GET", "/api/v1/events"),
];

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "\"[a-z]{0,8}\"".prop_map(|text| text),
    ];
    let key = prop_oneof![
        Just("name"),
        Just("ip"),
        Just("capabilities"),
        Just("count"),
        Just("process"),
        Just("command"),
        Just("container"),
        Just("image"),
        Just("cpu_usage"),
        Just("env"),
        Just("os"),
        Just("cpu_count"),
        Just("mem_mb"),
        Just("gpus"),
        Just("running_containers"),
        Just("deployment_id"),
        Just("template_id"),
        Just("rendered_compose"),
        Just("action"),
        Just("model"),
        Just("messages"),
        Just("input"),
    ];
    leaf.prop_recursive(4, 24, 6, move |inner| {
        let object = proptest::collection::vec((key.clone(), inner.clone()), 0..6);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            object.prop_map(|pairs| {
                let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
                format!("{{{}}}", pairs.join(","))
            }),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        json().prop_map(String::into_bytes),
        "[ -~\n]{0,200}".prop_map(String::into_bytes),
    ]
}

#[test]
fn no_body_query_or_header_makes_the_server_fail() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let server = Arc::new(runtime.block_on(Server::start()));
    let _node = runtime.block_on(server.node("box"));
    runtime.block_on(server.apply("web", 1));
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(512)
    };
    let input = (0..ROUTES.len(), body(), "[a-z_=&%0-9]{0,20}", "[ -~]{0,20}");
    let tried = TestRunner::new(config).run(&input, |(route, body, query, header)| {
        let (method, path) = ROUTES[route];
        let method: Method = method.parse().expect("a method");
        let path = format!("{path}?{query}");
        let headers = [
            ("if-match", header.as_str()),
            ("x-request-id", header.as_str()),
        ];
        let answer = runtime.block_on(server.send(method, &path, &headers, body));
        prop_assert!(
            answer.status.as_u16() < 500,
            "{} {}",
            answer.status,
            answer.text
        );
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async {
        assert_eq!(server.get("/healthz").await.status.as_u16(), 200);
        Arc::into_inner(server)
            .expect("the only holder")
            .shut_down()
            .await;
    });
}

/// Methods of Orchion's services that take a message and answer.
const METHODS: [&str; 8] = [
    "Orchestrator/RegisterNode",
    "Orchestrator/UpdateNode",
    "Orchestrator/Heartbeat",
    "Orchestrator/ListNodes",
    "Orchestrator/SubmitJob",
    "Orchestrator/GetJobStatus",
    "OrchionLLM/ChatCompletion",
    "OrchionLLM/Embeddings",
];

/// A message as gRPC frames it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len())
        .expect("it is short")
        .to_be_bytes();
    [&[0], length.as_slice(), message].concat()
}

fn registration() -> impl Strategy<Value = Vec<u8>> {
    let text = || "[ -~é]{0,24}";
    (text(), text(), text(), text(), any::<i64>()).prop_map(
        |(id, hostname, cpu, memory, last_seen_unix)| {
            let capabilities = v1::Capabilities {
                os: hostname.clone(),
                cpu,
                memory,
                ..v1::Capabilities::default()
            };
            let node = v1::Node {
                agent_address: hostname.clone(),
                id,
                hostname,
                capabilities: Some(capabilities),
                last_seen_unix,
            };
            v1::RegisterNodeRequest { node: Some(node) }.encode_to_vec()
        },
    )
}

#[test]
fn no_message_makes_the_door_of_orchion_fail() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let router = std::cell::RefCell::new(None);
    let server = runtime.block_on(Server::of(ControlConfig::default(), &store(), |parts| {
        router.replace(Some(parts.router(Dialect::Orchion)));
        parts.router(Dialect::Orchion)
    }));
    let router = router.into_inner().expect("it was made");
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(512)
    };
    let message = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        registration(),
    ];
    let frame = prop_oneof![
        message.prop_map(|message| framed(&message)),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    let input = (0..METHODS.len(), frame, body(), any::<bool>());
    let tried = TestRunner::new(config).run(&input, |(method, frame, body, is_chat)| {
        let call = http::Request::post(format!("/orchion.v1.{}", METHODS[method]))
            .header("content-type", "application/grpc")
            .body(axum::body::Body::from(frame))
            .expect("a request");
        let answer = runtime
            .block_on(router.clone().oneshot(call))
            .expect("an answer");
        prop_assert_eq!(answer.status().as_u16(), 200);
        // A frame that is none, or holds no message, is for tonic to refuse; a panic of ours would be none of these.
        let code = answer
            .headers()
            .get("grpc-status")
            .and_then(|it| it.to_str().ok());
        prop_assert!(
            code.is_none_or(|code| ["0", "3", "5", "9", "11", "12", "13"].contains(&code)),
            "{code:?}"
        );
        let path = if is_chat {
            "/v1/chat/completions"
        } else {
            "/v1/embeddings"
        };
        let post = http::Request::post(path)
            .body(axum::body::Body::from(body))
            .expect("a request");
        let answer = runtime
            .block_on(router.clone().oneshot(post))
            .expect("an answer");
        prop_assert!(
            [200, 400, 500].contains(&answer.status().as_u16()),
            "{}",
            answer.status()
        );
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async {
        assert_eq!(server.get("/api/nodes").await.status.as_u16(), 200);
        server.shut_down().await;
    });
}
