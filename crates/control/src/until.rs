//! Streams that end before their end: with a last word from elsewhere, such as that whoever reads or tells is a member
//! of the fleet no longer. Owns nothing; nothing can fail.

use std::future::Future;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream, Stream};
use hostler_model::{NodeId, Refusal};

use crate::{Control, refusals};

/// The items of a stream, until there is a last word; that is told at once, and nothing behind it.
pub fn until<S>(
    told: S,
    last_word: impl Future<Output = S::Item> + Send + 'static,
) -> BoxStream<'static, S::Item>
where
    S: Stream + Send + 'static,
    S::Item: Send,
{
    let held = Some((Box::pin(told), Box::pin(last_word)));
    stream::unfold(held, async |held| {
        let (mut told, mut last_word) = held?;
        // Cancel-safe: both are only borrowed.
        tokio::select! {
            biased;
            last = &mut last_word => Some((last, None)),
            item = told.next() => Some((item?, Some((told, last_word)))),
        }
    })
    .boxed()
}

/// What a node tells, until it is removed from the fleet.
pub(crate) fn while_member<T: Send + 'static>(
    control: &Control,
    (node, name): (NodeId, String),
    told: BoxStream<'static, Result<T, Refusal>>,
) -> BoxStream<'static, Result<T, Refusal>> {
    let control = control.clone();
    until(told, async move {
        let mut departures = control.watch_departures();
        loop {
            departures.borrow_and_update();
            if control.view().node(node).is_none_or(|it| it.is_gone()) {
                return Err(refusals::node_gone(&name));
            }
            if departures.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    })
}
