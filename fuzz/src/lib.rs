//! A control plane in memory behind its doors, asked without a network.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hostler_control::{Control, ControlConfig, Parts};
use hostler_doors::Dialect;
use hostler_kit::{Clock, Entropy, SystemClock, SystemEntropy, Tasks};
use hostler_store::MemoryStore;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

/// Longest that any answer may take; what streams on is cut off.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the body of a stream is read.
const GLANCE: Duration = Duration::from_millis(20);

/// The control plane and everything it serves. One for the whole run: what one input leaves behind, the next
/// one meets.
pub struct Doors {
    runtime: Runtime,
    router: Router,
    _control: Control,
}

/// The doors of this process.
pub fn doors() -> &'static Doors {
    static DOORS: OnceLock<Doors> = OnceLock::new();
    DOORS.get_or_init(Doors::open)
}

impl Doors {
    fn open() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let parts = Parts {
            store: Arc::new(MemoryStore::new(Arc::clone(&clock))),
            clock,
            entropy: Arc::clone(&entropy),
            tasks: Tasks::new(),
        };
        let (control, router) = runtime.block_on(async {
            let control = Control::start(ControlConfig::default(), parts)
                .await
                .expect("the control plane starts");
            let doors = hostler_doors::Parts::new(&control, &entropy);
            let router = doors.router(Dialect::Hostler);
            (control, router)
        });
        Self {
            runtime,
            router,
            _control: control,
        }
    }

    /// The answer and what came of its body, with its trailers.
    pub fn ask(&self, request: Request<Body>) -> Response<Vec<u8>> {
        self.runtime.block_on(async {
            let answered = tokio::time::timeout(PATIENCE, self.router.clone().oneshot(request));
            let Ok(answer) = answered.await.expect("an answer in time");
            let (mut head, mut body) = answer.into_parts();
            let mut bytes = Vec::new();
            while let Ok(Some(Ok(frame))) = tokio::time::timeout(GLANCE, body.frame()).await {
                match frame.into_data() {
                    Ok(data) => bytes.extend_from_slice(&data),
                    Err(frame) => head.headers.extend(frame.into_trailers().unwrap_or_default()),
                }
            }
            Response::from_parts(head, bytes)
        })
    }
}
