//! What a stream lasts by: whoever opened it has to be let in for as long as it lasts.
//!
//! A stream waits for the one signal that says that a token or a node may have gone, and then looks at the committed
//! view; for a token that ends by itself it waits for that moment, too. What a browser opened ends with its session as
//! well. Where there is no login nothing ends. Owns nothing; nothing can fail.

use std::future;
use std::time::Duration;

use futures::Stream;
use futures::stream::BoxStream;
use hostler_control::{Control, until};
use hostler_kit::trust::Secret;
use hostler_model::{Code, Refusal, Timestamp, TokenId};
use tokio::sync::watch;

use super::{Access, good, worthless};

/// The server's clock may jump over the end of a token: it is looked at this often where there is one.
const LOOK: Duration = Duration::from_secs(60);

/// What somebody was let in by.
#[derive(Clone)]
pub(crate) struct Warrant {
    control: Control,
    token: Option<TokenId>,
    /// The session of a browser, by its cookie.
    session: Option<(Access, Secret)>,
}

impl Warrant {
    pub(super) fn new(
        control: &Control,
        token: Option<TokenId>,
        session: Option<(Access, Secret)>,
    ) -> Self {
        Self {
            control: control.clone(),
            token,
            session,
        }
    }

    /// Completes once who was let in would not be any more, with what they would be told.
    pub(crate) async fn over(self) -> Refusal {
        let Some(token) = self.token else {
            return future::pending().await;
        };
        let mut departures = self.control.watch_departures();
        let session = self.session.as_ref();
        let mut ends = session.map(|(access, _)| access.0.sessions.watch());
        loop {
            // Before the look, so that what changes after it is noticed.
            departures.borrow_and_update();
            if let Some(ends) = &mut ends {
                ends.borrow_and_update();
            }
            let left = match self.left(token) {
                Ok(left) => left,
                Err(refusal) => return refusal,
            };
            // All only wait.
            tokio::select! {
                changed = departures.changed() => if changed.is_err() {
                    return future::pending().await;
                },
                () = ended(&mut ends) => {}
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

    /// How long it is still good, if it is: none for what has no end.
    fn left(&self, token: TokenId) -> Result<Option<Duration>, Refusal> {
        let view = self.control.view();
        let token = good(&self.control, view.token(token)).ok_or_else(worthless)?;
        let now = Timestamp::from_millis(self.control.clock().wall_millis());
        let of_token = token.expires_at.map(|end| end.since(now));
        let of_session = match &self.session {
            Some((access, cookie)) => {
                let found = access.0.sessions.find(cookie);
                Some(found.ok_or_else(logged_out)?.1)
            }
            None => None,
        };
        Ok(of_token.into_iter().chain(of_session).min())
    }
}

/// Some session has ended, or begun.
async fn ended(ends: &mut Option<watch::Receiver<()>>) {
    let changed = match ends {
        Some(ends) => ends.changed().await,
        None => return future::pending().await,
    };
    if changed.is_err() {
        future::pending::<()>().await;
    }
}

fn logged_out() -> Refusal {
    let sentence = "the session that this was opened with has ended";
    Refusal::new(Code::Unauthenticated, sentence, "log in again")
}

async fn expiry(left: Option<Duration>) {
    match left {
        // Clocks count in milliseconds.
        Some(left) => tokio::time::sleep(left.min(LOOK) + Duration::from_millis(1)).await,
        None => future::pending().await,
    }
}
