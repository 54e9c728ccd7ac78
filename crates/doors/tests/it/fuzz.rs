//! Whatever is sent to a route that writes is answered, and never by a fault of ours.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;

use crate::server::Server;

const ROUTES: [(&str, &str); 9] = [
    ("POST", "/api/v1/workloads"),
    ("POST", "/api/v1/workloads/plan"),
    ("POST", "/api/v1/nodes/register"),
    ("POST", "/api/v1/nodes/box/heartbeat"),
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
