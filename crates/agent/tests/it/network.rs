//! A network of one cable: the agent dials, the double of the control plane answers, and a test may cut the
//! cable or let it swallow everything.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hostler_agent::{ByteStream, Dial};
use hostler_kit::Tasks;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// What happens to whoever dials, and to what is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Connections end, and new ones are refused.
    Cut,
    /// Nothing ends, and nothing arrives.
    Silent,
}

/// The one cable.
pub(crate) struct Network {
    weather: tokio::sync::watch::Sender<Weather>,
    server: Mutex<Option<mpsc::UnboundedSender<DuplexStream>>>,
    tasks: Tasks,
    dials: std::sync::atomic::AtomicUsize,
    /// Whom the last dial was for.
    dialled: Mutex<String>,
}

impl Network {
    pub(crate) fn new(tasks: &Tasks) -> Arc<Self> {
        Arc::new(Self {
            weather: tokio::sync::watch::Sender::new(Weather::Fair),
            server: Mutex::new(None),
            tasks: tasks.clone(),
            dials: std::sync::atomic::AtomicUsize::new(0),
            dialled: Mutex::default(),
        })
    }

    /// Takes over as the server: whoever dials from now on comes here.
    pub(crate) fn listen(
        &self,
    ) -> impl tokio_stream::Stream<Item = io::Result<DuplexStream>> + use<> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.server.lock().unwrap() = Some(sender);
        UnboundedReceiverStream::new(receiver).map(Ok)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Whom the last dial was for.
    pub(crate) fn dialled(&self) -> String {
        self.dialled.lock().unwrap().clone()
    }

    /// How often somebody dialled.
    pub(crate) fn dials(&self) -> usize {
        self.dials.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[async_trait]
impl Dial for Network {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>> {
        self.dials
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        *self.dialled.lock().unwrap() = format!("{host}:{port}");
        tokio::time::sleep(Duration::from_millis(1)).await;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let weather = *self.weather.borrow();
        match weather {
            Weather::Fair => {}
            Weather::Cut => return Err(refused()),
            Weather::Silent => std::future::pending().await,
        }
        let (near, mut left) = tokio::io::duplex(64 * 1024);
        let (mut right, far) = tokio::io::duplex(64 * 1024);
        let server = self.server.lock().unwrap().clone();
        server
            .and_then(|server| server.send(far).ok())
            .ok_or_else(refused)?;
        let mut weather = self.weather.subscribe();
        self.tasks.spawn_until_stop("cable", async move {
            loop {
                let now = *weather.borrow_and_update();
                match now {
                    Weather::Cut => return,
                    Weather::Silent => {
                        let _ = weather.changed().await;
                    }
                    // What was read and not yet written is lost when the weather turns; the streams above
                    // then break, as they would.
                    Weather::Fair => tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut left, &mut right) => return,
                        _ = weather.changed() => {}
                    },
                }
            }
        });
        Ok(Box::new(near))
    }
}
