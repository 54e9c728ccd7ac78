//! What a stream lasts by: whoever opened it has to be let in for as long as it lasts.
//!
//! A stream waits for the one signal that says that a token or a node may have gone, and then looks at the committed
//! view; for a token that ends by itself it waits for that moment, too. Where there is no login nothing ends. Owns
//! nothing; nothing can fail.

use std::future;
use std::time::Duration;

use futures::Stream;
use futures::stream::BoxStream;
use hostler_control::{Control, until};
use hostler_model::{Refusal, Timestamp, TokenId};

use super::{good, worthless};

/// The server's clock may jump over the end of a token: it is looked at this often where there is one.
const LOOK: Duration = Duration::from_secs(60);

/// What somebody was let in by.
#[derive(Clone)]
pub(crate) struct Warrant {
    control: Control,
    token: Option<TokenId>,
}

impl Warrant {
    pub(super) fn new(control: &Control, token: Option<TokenId>) -> Self {
        Self {
            control: control.clone(),
            token,
        }
    }

    /// Completes once who was let in would not be any more, with what they would be told.
    pub(crate) async fn over(self) -> Refusal {
        let Some(token) = self.token else {
            return future::pending().await;
        };
        let mut departures = self.control.watch_departures();
        loop {
            // Before the look, so that what changes after it is noticed.
            departures.borrow_and_update();
            let Some(left) = self.left(token) else {
                return worthless();
            };
            // Both only wait.
            tokio::select! {
                changed = departures.changed() => if changed.is_err() {
                    return future::pending().await;
                },
                () = expiry(left) => {}
            }
        }
    }

    /// The items of a stream for as long as it may be read; the refusal is its last word.
    pub(crate) fn limit<S>(
        self,
        told: S,
        word: impl FnOnce(Refusal) -> S::Item + Send + 'static,
    ) -> BoxStream<'static, S::Item>
    where
        S: Stream + Send + 'static,
        S::Item: Send,
    {
        until(told, async move { word(self.over().await) })
    }

    /// How long it is still good, if it is: none for one without an end.
    fn left(&self, token: TokenId) -> Option<Option<Duration>> {
        let view = self.control.view();
        let token = good(&self.control, view.token(token))?;
        let now = Timestamp::from_millis(self.control.clock().wall_millis());
        Some(token.expires_at.map(|end| end.since(now)))
    }
}

async fn expiry(left: Option<Duration>) {
    match left {
        // Clocks count in milliseconds.
        Some(left) => tokio::time::sleep(left.min(LOOK) + Duration::from_millis(1)).await,
        None => future::pending().await,
    }
}
