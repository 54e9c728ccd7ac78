//! Liveness: judges every lease, a few times a second, and tells the fleet what it believes.
//!
//! The judge measures how late it is itself: a server that was paused must not take its own absence for
//! that of the nodes. Broken connections are suspected at once, beside the judge. Singletons on lost nodes
//! are fenced once nobody can doubt that they have stopped by themselves; after a restart that span begins
//! anew, because nobody here knows when the node was last heard.
//!
//! What nodes say in their beats that they are short of is told the fleet here, too: only when it differs from the
//! record, so that beats take no loop, and again after a restart, because it is compared and not remembered.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hostler_fleet::{State, Verb, Verdict};
use hostler_model::spec::DisconnectPolicy;
use hostler_model::{Assignment, Liveness, Node, NodeId};

use super::submit;
use crate::Control;
use crate::shared::Shared;

const TICK: Duration = Duration::from_millis(200);
/// Fences are looked at once in so many ticks: singletons wait for seconds at least.
const FENCE_EVERY: u32 = 5;

/// Judges until the server ends.
pub(super) async fn judge(control: Control) {
    let shared = Arc::clone(&control.shared);
    let mut round = 0_u32;
    loop {
        let expected = shared.parts.clock.uptime() + TICK;
        tokio::time::sleep(TICK).await;
        let now = shared.parts.clock.uptime();
        let late = now.saturating_sub(expected);
        let paused = if late > TICK { late } else { Duration::ZERO };
        let mut verbs = judgements(&shared, now, paused);
        round = round.wrapping_add(1);
        if round.is_multiple_of(FENCE_EVERY) {
            verbs.extend(fences(&shared, now));
        }
        submit_all(&control, verbs).await;
    }
}

/// Suspects nodes whose connection broke, as soon as it does.
pub(super) async fn suspect_broken(control: Control) {
    let shared = Arc::clone(&control.shared);
    loop {
        shared.signals.broke.notified().await;
        let broken = {
            let mut broken = shared
                .signals
                .broken
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *broken)
        };
        let verbs = suspicions(&shared, &broken);
        submit_all(&control, verbs).await;
    }
}

async fn submit_all(control: &Control, verbs: Vec<Verb>) {
    let submitted = verbs
        .into_iter()
        .map(|verb| submit(control, "liveness", verb));
    let mut submitted: FuturesUnordered<_> = submitted.collect();
    while submitted.next().await.is_some() {}
}

fn suspicions(shared: &Shared, broken: &BTreeSet<NodeId>) -> Vec<Verb> {
    let now = shared.parts.clock.uptime();
    let is_still_broken = |node: &NodeId| {
        let entry = shared.live.get(*node)?;
        let mut pulse = entry.lock();
        if pulse.session().is_some() {
            return None;
        }
        pulse.doubt(now);
        Some(*node)
    };
    let reason = || "the connection broke".to_owned();
    let nodes = broken.iter().filter_map(is_still_broken);
    nodes
        .map(|node| Verb::Suspect {
            node,
            reason: reason(),
        })
        .collect()
}

fn judgements(shared: &Shared, now: Duration, paused: Duration) -> Vec<Verb> {
    let view = shared.view();
    let present = view.nodes().filter(|node| !node.is_gone());
    present
        .flat_map(|node| {
            let judged = judgement(shared, node, (now, paused));
            judged.into_iter().chain(pressed(shared, node))
        })
        .collect()
}

/// What to tell the fleet about the node, if its record says otherwise.
fn judgement(shared: &Shared, node: &Node, (now, paused): (Duration, Duration)) -> Option<Verb> {
    let entry = shared.awaited(node, now);
    let mut pulse = entry.lock();
    let verdict = pulse.judge(now, paused);
    let id = node.id;
    match (verdict, node.liveness) {
        (Verdict::Silent, Liveness::Alive | Liveness::Suspect | Liveness::Joining) => {
            pulse.doubt(now);
            Some(Verb::Silent { node: id })
        }
        (Verdict::Suspect, Liveness::Alive) => {
            pulse.doubt(now);
            let silence = pulse.silence(now);
            let reason = format!("no beat for {:.1} s", silence.as_secs_f64());
            Some(Verb::Suspect { node: id, reason })
        }
        (Verdict::Alive, Liveness::Suspect | Liveness::Lost { .. }) if pulse.is_heard_again() => {
            Some(Verb::Returned { node: id })
        }
        _ => None,
    }
}

/// What the node is short of, if its last beat to this server says otherwise than its record.
fn pressed(shared: &Shared, node: &Node) -> Option<Verb> {
    let entry = shared.live.get(node.id)?;
    let pulse = entry.lock();
    let pressure = pulse.pressure()?;
    (*pressure != node.pressure).then(|| Verb::Pressed {
        node: node.id,
        pressure: pressure.clone(),
    })
}

fn fences(shared: &Shared, now: Duration) -> Vec<Verb> {
    let view = shared.view();
    let lost = view
        .nodes()
        .filter(|node| !node.is_gone() && matches!(node.liveness, Liveness::Lost { .. }));
    lost.filter_map(|node| fence(shared, &view, node.id, now))
        .collect()
}

fn fence(shared: &Shared, view: &State, node: NodeId, now: Duration) -> Option<Verb> {
    let silence = shared.live.get(node)?.lock().silence(now);
    let is_due = |copy: &Assignment| {
        let margin = shared.config.singleton_margin;
        stop_after(view, copy).is_some_and(|stop_after| silence >= stop_after + margin)
    };
    let copies = view.assignments_on(node);
    let due = copies.filter(|copy| !copy.fenced && !copy.is_finished() && is_due(copy));
    let assignments: Vec<_> = due.map(|copy| copy.id).collect();
    (!assignments.is_empty()).then_some(Verb::Fence { node, assignments })
}

/// When a singleton that is cut off stops by itself; none for copies that go on.
fn stop_after(view: &State, copy: &Assignment) -> Option<Duration> {
    let disconnect = &view.intent_item(copy)?.spec.disconnect;
    let is_singleton = disconnect.policy == DisconnectPolicy::Singleton;
    is_singleton.then(|| Duration::from_millis(disconnect.stop_after_ms))
}
