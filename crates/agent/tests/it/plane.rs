//! A foreign control plane with a state of its own, speaking HTTP as text on the simulated network, and the lines
//! that an agent writes for people.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hostler_agent::{Journal, Line};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use crate::node::World;

/// In simulated time; reached only by what never comes true.
const PATIENCE: Duration = Duration::from_secs(3600);

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method and path.
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
    /// Since the double came up first.
    pub(crate) at: Duration,
}

/// What a double does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Json(u16, Value),
    /// Whatever stands in it, byte by byte.
    Raw(String),
    Silence,
    HangUp,
}

/// The double. Its rule answers each request from the state.
pub(crate) struct Plane<S> {
    state: Mutex<S>,
    asked: Mutex<Vec<Asked>>,
    changed: watch::Sender<()>,
    rule: fn(&mut S, &Asked) -> Answer,
    begun: Instant,
}

/// Lines that an agent wrote.
#[derive(Debug)]
pub(crate) struct Lines {
    lines: Mutex<Vec<Line>>,
    changed: watch::Sender<()>,
}

impl<S: Send + 'static> Plane<S> {
    /// Takes over as what answers on the network of the world.
    pub(crate) fn start(world: &World, state: S, rule: fn(&mut S, &Asked) -> Answer) -> Arc<Self> {
        let plane = Arc::new(Self {
            state: Mutex::new(state),
            asked: Mutex::default(),
            changed: watch::Sender::new(()),
            rule,
            begun: Instant::now(),
        });
        let mut incoming = world.network.listen();
        let (serving, tasks) = (Arc::clone(&plane), world.tasks.clone());
        world.tasks.spawn_until_stop("plane", async move {
            while let Some(Ok(stream)) = incoming.next().await {
                let serving = Arc::clone(&serving);
                tasks.spawn_until_stop("call", async move { serving.serve(stream).await });
            }
        });
        plane
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap()
    }

    /// Everything that was asked whose method and path begin so.
    pub(crate) fn asked(&self, line: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        let is_meant = |asked: &&Asked| asked.line.starts_with(line);
        asked.iter().filter(is_meant).cloned().collect()
    }

    /// Waits until something was asked so often.
    pub(crate) async fn until_asked(&self, line: &str, times: usize) -> Vec<Asked> {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while self.asked(line).len() < times {
                let _ = changed.changed().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        let all = self.asked("");
        assert!(
            waited.is_ok(),
            "`{line}` was not asked {times} times: {all:#?}"
        );
        self.asked(line)
    }

    async fn serve(&self, mut stream: DuplexStream) {
        let Some(mut asked) = read(&mut stream).await else {
            return;
        };
        asked.at = self.begun.elapsed();
        let answer = (self.rule)(&mut self.state(), &asked);
        self.asked.lock().unwrap().push(asked);
        self.changed.send_replace(());
        let text = match answer {
            Answer::Json(status, body) => {
                let body = body.to_string();
                let length = body.len();
                format!(
                    "HTTP/1.1 {status} Some\r\ncontent-type: application/json\r\n\
                     content-length: {length}\r\nconnection: close\r\n\r\n{body}"
                )
            }
            Answer::Raw(text) => text,
            Answer::Silence => std::future::pending().await,
            Answer::HangUp => return,
        };
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

async fn read(stream: &mut DuplexStream) -> Option<Asked> {
    let mut text = Vec::new();
    let (head, length) = loop {
        let mut more = [0; 4096];
        let count = stream
            .read(&mut more)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        text.extend_from_slice(&more[..count]);
        let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(text[..end].to_vec()).unwrap();
        let headers = headers(&head);
        let length = headers.get("content-length");
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if text.len() >= end + 4 + length {
            break (head, length);
        }
    };
    let body = &text[text.len() - length..];
    let words: Vec<&str> = head.lines().next()?.split(' ').collect();
    Some(Asked {
        line: format!("{} {}", words[0], words[1]),
        headers: headers(&head),
        body: serde_json::from_slice(body).unwrap_or_default(),
        at: Duration::ZERO,
    })
}

fn headers(head: &str) -> BTreeMap<String, String> {
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    };
    head.lines().skip(1).filter_map(header).collect()
}

impl Lines {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            lines: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    pub(crate) fn all(&self) -> Vec<Line> {
        self.lines.lock().unwrap().clone()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.all().into_iter().map(|line| line.text).collect()
    }

    /// How many lines begin so.
    pub(crate) fn count(&self, start: &str) -> usize {
        let texts = self.texts();
        texts.iter().filter(|text| text.starts_with(start)).count()
    }

    /// Waits until so many lines begin so, and gives the last.
    pub(crate) async fn until(&self, start: &str, times: usize) -> Line {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while self.count(start) < times {
                let _ = changed.changed().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(
            waited.is_ok(),
            "never {times} lines `{start}`: {:#?}",
            self.texts()
        );
        let mut lines = self.all();
        lines.retain(|line| line.text.starts_with(start));
        lines.swap_remove(times - 1)
    }
}

impl Journal for Lines {
    fn write(&self, line: &Line) {
        self.lines.lock().unwrap().push(line.clone());
        self.changed.send_replace(());
    }
}
