//! Streams of server-sent events: what happens in the fleet, and logs.

use eventsource_stream::{Event as Frame, Eventsource as _};
use futures::stream::{BoxStream, StreamExt as _};
use http::header;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;

use super::{Client, ClientError};
use crate::api::{Event, EventGap, EventQuery, LogLine, LogQuery, Problem, media, stream};

/// Items until the server says that nothing follows. A stream that ends in any other way gives an error as
/// its last item.
pub type Stream<T> = BoxStream<'static, Result<T, ClientError>>;

/// An item of the event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    Event(Event),
    /// Events between the asked one and the next item are forgotten.
    Gap(EventGap),
}

impl Client {
    /// The events that are kept, oldest first.
    pub async fn events(&self, after: Option<u64>) -> Result<Vec<Event>, ClientError> {
        let query = EventQuery {
            follow: false,
            after,
        };
        self.list(self.get(&["api", "v1", "events"]).query(&query))
            .await
    }

    /// The events after one, or all that are kept, and then what happens. To go on after an error, ask again
    /// with the sequence number of the last event.
    pub async fn follow_events(
        &self,
        after: Option<u64>,
    ) -> Result<Stream<Happening>, ClientError> {
        let query = EventQuery {
            follow: true,
            after,
        };
        let request = self.get(&["api", "v1", "events"]).query(&query);
        self.stream(request, |frame| match frame.event.as_str() {
            stream::EVENT => Some(parsed(frame).map(Happening::Event)),
            stream::GAP => Some(parsed(frame).map(Happening::Gap)),
            _ => None,
        })
        .await
    }

    /// The output of a workload's copies.
    pub async fn logs(
        &self,
        workload: &str,
        query: &LogQuery,
    ) -> Result<Stream<LogLine>, ClientError> {
        let path = ["api", "v1", "workloads", workload, "logs"];
        self.log_stream(self.get(&path).query(query)).await
    }

    /// The output of one copy.
    pub async fn assignment_logs(
        &self,
        assignment: &str,
        query: &LogQuery,
    ) -> Result<Stream<LogLine>, ClientError> {
        let path = ["api", "v1", "assignments", assignment, "logs"];
        self.log_stream(self.get(&path).query(query)).await
    }

    async fn log_stream(&self, request: RequestBuilder) -> Result<Stream<LogLine>, ClientError> {
        self.stream(request, |frame| {
            (frame.event == stream::LINE).then(|| parsed(frame))
        })
        .await
    }

    /// Opens a stream; `read` makes an item of a frame, or passes over one it does not know.
    async fn stream<T: Send + 'static>(
        &self,
        request: RequestBuilder,
        read: fn(&Frame) -> Option<Result<T, String>>,
    ) -> Result<Stream<T>, ClientError> {
        let request = request.header(header::ACCEPT, media::EVENT_STREAM);
        let response = self.send(request).await?;
        let response = self.accepted(response).await?;
        let frames = response.bytes_stream().eventsource().boxed();
        let items =
            futures::stream::unfold(Some((frames, self.clone())), move |state| async move {
                let (mut frames, client) = state?;
                loop {
                    let item = match frames.next().await {
                        Some(Ok(frame)) => match client.ending(&frame) {
                            Some(ending) => return ending.map(|error| (Err(error), None)),
                            None => read(&frame),
                        },
                        Some(Err(_)) | None => return Some((Err(client.interrupted()), None)),
                    };
                    match item {
                        Some(Ok(item)) => return Some((Ok(item), Some((frames, client)))),
                        Some(Err(problem)) => return Some((Err(client.protocol(problem)), None)),
                        None => {}
                    }
                }
            });
        Ok(items.boxed())
    }

    /// Whether a frame ends the stream: well (`Some(None)`), or with an error.
    fn ending(&self, frame: &Frame) -> Option<Option<ClientError>> {
        match frame.event.as_str() {
            stream::END => Some(None),
            stream::PROBLEM => Some(Some(match parsed::<Problem>(frame) {
                Ok(problem) => ClientError::Refused(Box::new(problem)),
                Err(problem) => self.protocol(problem),
            })),
            _ => None,
        }
    }

    pub(super) fn interrupted(&self) -> ClientError {
        ClientError::Interrupted {
            addr: self.addr().to_owned(),
        }
    }
}

fn parsed<T: DeserializeOwned>(frame: &Frame) -> Result<T, String> {
    serde_json::from_str(&frame.data).map_err(|error| format!("event `{}`: {error}", frame.event))
}
