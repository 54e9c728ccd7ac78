//! Errands inside copies: commands and connections over sockets, and files. A socket has two halves, so that what is
//! said never waits for what is told.

use std::io;

use bytes::Bytes;
use futures::stream::{BoxStream, SplitSink, SplitStream};
use futures::{SinkExt as _, Stream, StreamExt as _};
use http::{StatusCode, header};
use reqwest::{Body, Method, RequestBuilder, Response, Upgraded};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Client, ClientError, SILENCE_TIMEOUT, http_client};
use crate::api::{ErrandWord, ExecQuery, FilesQuery, ForwardQuery, media};

type Socket = WebSocketStream<Upgraded>;

/// What a client says.
pub struct ErrandSender {
    sink: SplitSink<Socket, Message>,
    client: Client,
}

/// What it is told.
pub struct ErrandReceiver {
    stream: SplitStream<Socket>,
    client: Client,
}

/// One message of a server.
#[derive(Debug, Clone, PartialEq)]
pub enum ErrandMessage {
    Bytes(Bytes),
    Word(ErrandWord),
}

/// The largest message that a server takes.
pub const MOST_BYTES: usize = 32 * 1024;

impl Client {
    /// Begins a command inside a copy.
    pub async fn exec(
        &self,
        assignment: &str,
        query: &ExecQuery,
    ) -> Result<(ErrandSender, ErrandReceiver), ClientError> {
        let request = self.get(&["api", "v1", "assignments", assignment, "exec"]);
        self.socket(request.query(&query.pairs())).await
    }

    /// Connects to a port of a copy.
    pub async fn forward(
        &self,
        assignment: &str,
        query: &ForwardQuery,
    ) -> Result<(ErrandSender, ErrandReceiver), ClientError> {
        let request = self.get(&["api", "v1", "assignments", assignment, "forward"]);
        self.socket(request.query(query)).await
    }

    /// A file or directory of a copy, as a tar stream. An error is its last item, and then it is no whole archive.
    pub async fn read_files(
        &self,
        assignment: &str,
        query: &FilesQuery,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        let path = ["api", "v1", "assignments", assignment, "files"];
        let response = self.send(self.get(&path).query(query)).await?;
        let response = self.accepted(response).await?;
        let client = self.clone();
        let pieces = response.bytes_stream();
        Ok(pieces
            .map(move |piece| piece.map_err(|_| client.interrupted()))
            .boxed())
    }

    /// Unpacks a tar stream into a directory of a copy.
    pub async fn write_files(
        &self,
        assignment: &str,
        query: &FilesQuery,
        archive: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static,
    ) -> Result<(), ClientError> {
        // There is no answer before the last byte was sent, however long that takes.
        let patient = Self {
            http: http_client(None, self.tls.clone()).map_err(|problem| self.protocol(problem))?,
            ..self.clone()
        };
        let path = ["api", "v1", "assignments", assignment, "files"];
        let request = patient
            .request(Method::PUT, &path)
            .query(query)
            .header(header::CONTENT_TYPE, media::TAR)
            .body(Body::wrap_stream(archive));
        let response = patient.send(request).await?;
        self.accepted(response).await.map(drop)
    }

    async fn socket(
        &self,
        request: RequestBuilder,
    ) -> Result<(ErrandSender, ErrandReceiver), ClientError> {
        let key = generate_key();
        let request = request
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key);
        let response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.accepted(response).await?;
            return Err(self.protocol("it opened no socket".to_owned()));
        }
        if !accepts(&response, &key) {
            return Err(self.protocol("it took another socket's key".to_owned()));
        }
        let upgraded = response.upgrade().await;
        let upgraded = upgraded.map_err(|_| self.interrupted())?;
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
        let (sink, stream) = socket.split();
        let sender = ErrandSender {
            sink,
            client: self.clone(),
        };
        let receiver = ErrandReceiver {
            stream,
            client: self.clone(),
        };
        Ok((sender, receiver))
    }
}

fn accepts(response: &Response, key: &str) -> bool {
    let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    accepted.is_some_and(|it| it.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes())
}

impl ErrandSender {
    /// Says bytes; waits while the other side takes none.
    pub async fn bytes(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        for piece in bytes.chunks(MOST_BYTES) {
            self.say(Message::Binary(bytes.slice_ref(piece))).await?;
        }
        Ok(())
    }

    /// Says a word.
    pub async fn word(&mut self, word: &ErrandWord) -> Result<(), ClientError> {
        let text = serde_json::to_string(word);
        let text = text.map_err(|error| self.client.protocol(error.to_string()))?;
        self.say(Message::Text(text.into())).await
    }

    async fn say(&mut self, message: Message) -> Result<(), ClientError> {
        let said = self.sink.send(message).await;
        said.map_err(|_| self.client.interrupted())
    }
}

impl ErrandReceiver {
    /// The next message; none when the errand has ended. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<ErrandMessage>, ClientError> {
        loop {
            let heard = tokio::time::timeout(SILENCE_TIMEOUT, self.stream.next()).await;
            match heard {
                Ok(Some(Ok(Message::Binary(bytes)))) => {
                    return Ok(Some(ErrandMessage::Bytes(bytes)));
                }
                Ok(Some(Ok(Message::Text(text)))) => match serde_json::from_str(&text) {
                    Ok(ErrandWord::Problem(problem)) => {
                        return Err(ClientError::Refused(Box::new(problem)));
                    }
                    Ok(word) => return Ok(Some(ErrandMessage::Word(word))),
                    // What a newer server adds is not for this client.
                    Err(_) => {}
                },
                Ok(Some(Ok(Message::Close(Some(close))))) if close.code == CloseCode::Normal => {
                    return Ok(None);
                }
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => {
                    return Err(self.client.interrupted());
                }
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
            }
        }
    }
}
