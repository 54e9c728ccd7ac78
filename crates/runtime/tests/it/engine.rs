//! An engine that is a double: it speaks the part of the Docker API that making a container takes, keeps
//! images and containers, and can be told to stall. What is said to it is in order; nothing ends by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How pulls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulling {
    /// The image comes.
    Works,
    /// Not a word comes.
    Silent,
    /// It begins, and then nothing more comes.
    Stalls,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) images: Vec<String>,
    /// The bodies of the requests that made them, by id.
    pub(crate) containers: BTreeMap<String, Value>,
    pub(crate) pulls_under_way: usize,
    pub(crate) creations_under_way: usize,
}

pub(crate) struct FakeEngine {
    pub(crate) address: String,
    state: Mutex<State>,
    pulling: watch::Sender<Pulling>,
    /// Whether creations are carried out, or wait.
    is_open: watch::Sender<bool>,
}

impl FakeEngine {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let engine = Arc::new(Self {
            address: format!("tcp://{}", listener.local_addr().unwrap()),
            state: Mutex::default(),
            pulling: watch::Sender::new(Pulling::Works),
            is_open: watch::Sender::new(true),
        });
        let serving = Arc::clone(&engine);
        hostler_kit::Tasks::new().spawn("fake engine", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let engine = Arc::clone(&serving);
                hostler_kit::Tasks::new().spawn("request", async move {
                    // A client that went away wants no answer.
                    let _ = engine.serve(stream).await;
                });
            }
        });
        engine
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set_pulling(&self, pulling: Pulling) {
        self.pulling.send_replace(pulling);
    }

    pub(crate) fn set_open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let (method, target, body) = request(&mut stream).await?;
        let target = target.trim_start_matches('/');
        // The first request has no version yet.
        let (version, rest) = target.split_once('/').unwrap_or(("", target));
        let target = if version.starts_with("v1.") {
            rest
        } else {
            target
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<&str> = path.split('/').collect();
        match (method.as_str(), parts.as_slice()) {
            ("GET", ["version"]) => answer(&mut stream, 200, &json!({"Version": "double"})).await,
            ("GET", ["images", image @ .., "json"]) => {
                let image = image.join("/").replace("%3A", ":");
                let status = if self.state().images.contains(&image) {
                    200
                } else {
                    404
                };
                answer(&mut stream, status, &json!({"message": "no such image"})).await
            }
            ("POST", ["images", "create"]) => self.pull(&mut stream, query).await,
            ("GET", ["containers", "json"]) => {
                let found: Vec<Value> = self.state().containers.iter().map(summary).collect();
                answer(&mut stream, 200, &json!(found)).await
            }
            ("POST", ["containers", "create"]) => self.create(&mut stream, &body).await,
            ("GET", ["containers", id, "json"]) => {
                let found = self.state().containers.get(*id).cloned();
                let (status, body) = match found {
                    Some(made) => (200, inspection(id, &made)),
                    None => (404, json!({"message": "no such container"})),
                };
                answer(&mut stream, status, &body).await
            }
            ("DELETE", ["containers", id]) => {
                self.state().containers.remove(*id);
                answer(&mut stream, 200, &Value::Null).await
            }
            _ => {
                answer(
                    &mut stream,
                    501,
                    &json!({"message": format!("the double knows no {method} {target}")}),
                )
                .await
            }
        }
    }

    async fn pull(&self, stream: &mut TcpStream, query: &str) -> std::io::Result<()> {
        self.state().pulls_under_way += 1;
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n";
        let begun = json!({"status": "Downloading", "id": "layer",
            "progressDetail": {"current": 1, "total": 4}});
        let pulling = *self.pulling.borrow();
        if pulling != Pulling::Silent {
            stream
                .write_all(format!("{head}{begun}\r\n").as_bytes())
                .await?;
        }
        if pulling != Pulling::Works {
            // Until the client has had enough.
            let _ = stream.read(&mut [0]).await;
        } else if let Some(image) = query
            .split('&')
            .find_map(|it| it.strip_prefix("fromImage="))
        {
            self.state()
                .images
                .push(image.replace("%3A", ":").replace("%2F", "/"));
        }
        self.state().pulls_under_way -= 1;
        Ok(())
    }

    /// Carried out even if the client has gone, as by the real one.
    async fn create(&self, stream: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
        self.state().creations_under_way += 1;
        let _ = self.is_open.subscribe().wait_for(|is_open| *is_open).await;
        let id = {
            let mut state = self.state();
            state.creations_under_way -= 1;
            let id = format!("c{}", state.containers.len());
            let body = serde_json::from_slice(body)?;
            state.containers.insert(id.clone(), body);
            id
        };
        answer(stream, 201, &json!({"Id": id, "Warnings": []})).await
    }
}

fn summary((id, made): (&String, &Value)) -> Value {
    json!({"Id": id, "Labels": made["Labels"], "State": "created"})
}

fn inspection(id: &str, made: &Value) -> Value {
    json!({"Id": id, "Config": {"Labels": made["Labels"]}, "State": {"Status": "created",
        "StartedAt": "0001-01-01T00:00:00Z"}})
}

async fn request(stream: &mut TcpStream) -> std::io::Result<(String, String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let (head, mut body) = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let first = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|it| it.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |it| it.trim().parse().unwrap());
            bytes.drain(..end + 4);
            break ((first, length), bytes);
        }
    };
    let (head, length) = head;
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut words = head.split(' ').map(str::to_owned);
    let word = words.next().unwrap_or_default();
    Ok((word, words.next().unwrap_or_default(), body))
}

async fn answer(stream: &mut TcpStream, status: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await
}
