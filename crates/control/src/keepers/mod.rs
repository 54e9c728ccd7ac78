//! Keepers: background reconcilers. They take no input: woken by a signal or a period, they read the view,
//! compute, and submit verbs. First run, restart and failure are the same path, and the next run is the
//! retry: none of them loops on an error.

mod cron;
mod drain;
mod liveness;
mod placement;
mod retention;
mod rollout;
mod secrets;

use hostler_fleet::{Reply, Verb};
use hostler_model::{Actor, Code, Refusal};

use crate::Control;

pub(crate) fn start(control: &Control) {
    let shared = &control.shared;
    shared.spawn("liveness", liveness::judge(control.clone()));
    shared.spawn(
        "broken connections",
        liveness::suspect_broken(control.clone()),
    );
    shared.spawn("placement", placement::run(control.clone()));
    shared.spawn("cron", cron::run(control.clone()));
    shared.spawn("drain", drain::run(control.clone()));
    shared.spawn("rollout", rollout::run(control.clone()));
    shared.spawn("secrets", secrets::run(control.clone()));
    shared.spawn("retention", retention::run(control.clone()));
}

/// Submits for a keeper. A refusal is no error of the keeper: the fleet has moved on, or the store is away.
async fn submit(control: &Control, keeper: &str, verb: Verb) -> Option<Reply> {
    match control.submit(Actor::Keeper(keeper.to_owned()), verb).await {
        Ok(reply) => Some(reply),
        Err(refusal) => {
            log(keeper, &refusal);
            None
        }
    }
}

fn log(keeper: &str, refusal: &Refusal) {
    match refusal.code {
        Code::Internal | Code::BodyTooLarge => tracing::error!(keeper, %refusal, "refused"),
        _ => tracing::debug!(keeper, code = %refusal.code, %refusal, "refused"),
    }
}
