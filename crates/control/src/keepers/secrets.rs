//! Secrets: goes on with a turn of keys that an earlier run of the server, or a refusal, has left half done.

use std::time::Duration;

use hostler_model::Actor;

use crate::Control;

const PERIOD: Duration = Duration::from_secs(60);

pub(super) async fn run(control: Control) {
    loop {
        if control.is_resealing() {
            let actor = Actor::Keeper("secrets".to_owned());
            match control.reseal(actor).await {
                Ok(done) if done.unopened == 0 => {
                    tracing::info!(count = done.count, "secrets are resealed")
                }
                // Said again every minute: it waits for a person.
                Ok(done) => tracing::warn!(
                    count = done.unopened,
                    "secrets are sealed with a key that is not here"
                ),
                Err(refusal) => {
                    tracing::warn!(code = %refusal.code, %refusal, "secrets are not resealed")
                }
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}
