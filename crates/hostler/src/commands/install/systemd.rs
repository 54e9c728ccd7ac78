//! The words that are said to systemd.

use std::time::Duration;

use super::place::{Ended, Place};
use crate::failure::Failure;

/// How long a service has to show that it stays.
const PROBATION: Duration = Duration::from_secs(3);

pub(super) struct Systemd<'a>(pub(super) &'a Place);

impl Systemd<'_> {
    /// It reads the units anew.
    pub(super) async fn reload(&self) -> Result<(), Failure> {
        self.must(&["daemon-reload"]).await
    }

    pub(super) async fn enable(&self, service: &str) -> Result<(), Failure> {
        self.must(&["enable", service]).await
    }

    /// A service that runs is started anew. A bad end is no failure here: `stays` says what became of it.
    pub(super) async fn start(&self, verb: &str, service: &str) -> Result<Ended, Failure> {
        self.say(&[verb, service]).await
    }

    pub(super) async fn is_active(&self, service: &str) -> Result<bool, Failure> {
        Ok(self.say(&["is-active", "--quiet", service]).await?.is_good)
    }

    /// The process of a service that runs.
    pub(super) async fn main_pid(&self, service: &str) -> Result<Option<u32>, Failure> {
        let words = ["show", "--property=MainPID", "--value", service];
        let told = self.say(&words).await?.stdout;
        Ok(told.parse().ok().filter(|pid| *pid > 0))
    }

    /// Whether it is active three seconds later.
    pub(super) async fn stays(&self, service: &str) -> Result<bool, Failure> {
        tokio::time::sleep(PROBATION).await;
        self.is_active(service).await
    }

    /// Stops and forgets it, as far as that goes.
    pub(super) async fn dismiss(&self, service: &str) -> Result<(), Failure> {
        for verb in ["stop", "disable"] {
            self.say(&[verb, service]).await?;
        }
        Ok(())
    }

    async fn must(&self, words: &[&str]) -> Result<(), Failure> {
        let ended = self.say(words).await?;
        if ended.is_good {
            return Ok(());
        }
        Err(Failure::failed(
            format!("systemctl {}: {}", words.join(" "), ended.stderr),
            "put that right, then install again: nothing that is done is done twice",
        ))
    }

    async fn say(&self, words: &[&str]) -> Result<Ended, Failure> {
        self.0.tool("systemctl", words).await
    }
}
