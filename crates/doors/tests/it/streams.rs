//! Event streams: resuming, gaps, and the end with the server.

use std::pin::Pin;

use eventsource_stream::{Event, Eventsource as _};
use futures::{Stream, StreamExt as _};
use hostler_control::ControlConfig;
use reqwest::Method;
use serde_json::Value;

use crate::server::{DEADLINE, Server};

pub(crate) struct Sse(Pin<Box<dyn Stream<Item = Event>>>);

impl Sse {
    pub(crate) async fn open(server: &Server, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = server.request(Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let events = response.bytes_stream().eventsource();
        Self(Box::pin(events.filter_map(async |event| event.ok())))
    }

    /// The next event, or none at the stream's end.
    pub(crate) async fn next(&mut self) -> Option<(Event, Value)> {
        let next = tokio::time::timeout(DEADLINE, self.0.next()).await;
        let event = next.expect("something comes")?;
        let body = serde_json::from_str(&event.data).expect("JSON");
        Some((event, body))
    }
}

#[tokio::test]
async fn events_are_listed_the_oldest_first() {
    let server = Server::start().await;
    server.apply("web", 0).await;
    let list = server.get("/api/v1/events").await.json();
    let list = list.as_array().unwrap();
    assert!(
        list.windows(2)
            .all(|pair| pair[0]["sequence"].as_u64() < pair[1]["sequence"].as_u64())
    );
    assert_eq!(list.last().unwrap()["kind"], "workload-applied");
    let first = list[0]["sequence"].as_u64().unwrap();
    let rest = server
        .get(&format!("/api/v1/events?after={first}&limit=1"))
        .await;
    assert_eq!(rest.json().as_array().unwrap().len(), 1);
    server.shut_down().await;
}

#[tokio::test]
async fn a_stream_resumes_where_it_stopped() {
    let server = Server::start().await;
    server.apply("one", 0).await;
    let newest = server
        .get("/api/v1/events")
        .await
        .json()
        .as_array()
        .unwrap()
        .len();
    let accept = ("accept", "text/event-stream");
    let mut stream = Sse::open(&server, "/api/v1/events", &[accept]).await;
    for _ in 0..newest {
        assert_eq!(stream.next().await.unwrap().0.event, "event");
    }
    server.apply("two", 0).await;
    let (event, body) = stream.next().await.unwrap();
    assert_eq!(event.event, "event");
    assert_eq!(body["sequence"].as_u64().unwrap().to_string(), event.id);
    assert!(body["message"].as_str().unwrap().contains("two"), "{body}");
    drop(stream);
    server.apply("three", 0).await;
    let resume = ("last-event-id", event.id.as_str());
    let mut stream = Sse::open(&server, "/api/v1/events", &[accept, resume]).await;
    let (_, body) = stream.next().await.unwrap();
    assert!(
        body["message"].as_str().unwrap().contains("three"),
        "{body}"
    );
    let mut all = Sse::open(&server, "/api/v1/events?follow=true&after=0", &[]).await;
    for _ in 0..newest {
        assert_eq!(all.next().await.unwrap().0.event, "event");
    }
    let odd = [accept, ("last-event-id", "x")];
    let broken = server.send(Method::GET, "/api/v1/events", &odd, "");
    broken.await.is_problem(400, "bad-request");
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_forgotten_is_told_as_a_gap() {
    let server = Server::with(ControlConfig {
        event_capacity: 4,
        ..ControlConfig::default()
    })
    .await;
    for number in 0..10 {
        server.apply(&format!("web-{number}"), 0).await;
    }
    let mut stream = Sse::open(&server, "/api/v1/events?follow=true&after=1", &[]).await;
    let (gap, body) = stream.next().await.unwrap();
    assert_eq!(gap.event, "gap");
    let (event, next) = stream.next().await.unwrap();
    assert_eq!(
        (event.event.as_str(), &next["sequence"]),
        ("event", &body["oldest"])
    );
    // A place that this fleet has never reached belongs to another one.
    let mut stream = Sse::open(&server, "/api/v1/events?follow=true&after=9999", &[]).await;
    assert_eq!(stream.next().await.unwrap().0.event, "gap");
    assert_eq!(stream.next().await.unwrap().1["sequence"], body["oldest"]);
    server.shut_down().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_server() {
    let server = Server::start().await;
    let mut stream = Sse::open(&server, "/api/v1/events?follow=true", &[]).await;
    server.shut_down().await;
    while stream.next().await.is_some() {}
}
