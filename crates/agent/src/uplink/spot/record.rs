//! The agent's id and its state, in the files that the spot contract names.
//!
//! ```text
//! <root>/agent_id.txt           who the agent is, for itself and for the uninstaller
//! <root>/data/agent_state.json  ten keys for people who look what the agent thinks
//! ```
//!
//! Each file is replaced as a whole. The id file is what counts; the state file is read at a start only for what it
//! remembers of earlier times. A disk that takes nothing is told and stops nothing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hostler_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Spot;
use crate::config::LedgerIo;
use crate::ledger::files;

/// What the server decides about the agent, as far as the state file shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    auto_switch_enabled: bool,
    manual_replica_enabled: bool,
}

/// The file's ten keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    agent_id: Option<String>,
    logical_agent_id: String,
    instance_id: String,
    current_mode: String,
    server_url: String,
    last_heartbeat: Option<String>,
    last_pricing_report: Option<String>,
    replica_mode: String,
    auto_switch_enabled: bool,
    manual_replica_enabled: bool,
}

/// Both files.
pub(super) struct Record {
    root: PathBuf,
    io: LedgerIo,
    state: Mutex<State>,
    /// Held while a file is written, so that an older state never replaces a newer one.
    writing: tokio::sync::Mutex<()>,
}

impl Default for Settings {
    /// As the server has them for a new agent.
    fn default() -> Self {
        Self {
            auto_switch_enabled: true,
            manual_replica_enabled: false,
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            auto_switch_enabled,
            manual_replica_enabled,
        } = self;
        write!(
            f,
            "auto_switch_enabled={auto_switch_enabled}, manual_replica_enabled={manual_replica_enabled}"
        )
    }
}

impl Settings {
    /// What an answer says; a key that it lacks stays as it was.
    pub(super) fn changed_by(self, answer: Option<&Value>) -> Self {
        let said = |key: &str, before: bool| {
            let value = answer.and_then(|answer| answer.get(key));
            value.and_then(Value::as_bool).unwrap_or(before)
        };
        Self {
            auto_switch_enabled: said("auto_switch_enabled", self.auto_switch_enabled),
            manual_replica_enabled: said("manual_replica_enabled", self.manual_replica_enabled),
        }
    }
}

impl Record {
    /// Reads what an earlier agent left; what the configuration says of now counts more.
    pub(super) fn open(spot: &Spot, server_url: String, io: LedgerIo) -> Self {
        let before: Option<State> = files::read(&state_path(&spot.root)).unwrap_or(None);
        let usual = Settings::default();
        let state = State {
            agent_id: read_id(&spot.root),
            logical_agent_id: spot.logical_agent_id.clone(),
            instance_id: spot.instance.id.clone(),
            current_mode: spot.instance.mode.clone(),
            server_url,
            last_heartbeat: before
                .as_ref()
                .and_then(|before| before.last_heartbeat.clone()),
            last_pricing_report: before
                .as_ref()
                .and_then(|before| before.last_pricing_report.clone()),
            replica_mode: if spot.replica.is_some() {
                "manual"
            } else {
                "none"
            }
            .to_owned(),
            auto_switch_enabled: before.as_ref().map_or(usual.auto_switch_enabled, |before| {
                before.auto_switch_enabled
            }),
            manual_replica_enabled: before
                .as_ref()
                .map_or(usual.manual_replica_enabled, |before| {
                    before.manual_replica_enabled
                }),
        };
        Self {
            root: spot.root.clone(),
            io,
            state: Mutex::new(state),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    /// Who the agent is, once it is registered.
    pub(super) fn id(&self) -> Option<String> {
        self.state().agent_id.clone()
    }

    pub(super) fn settings(&self) -> Settings {
        let state = self.state();
        Settings {
            auto_switch_enabled: state.auto_switch_enabled,
            manual_replica_enabled: state.manual_replica_enabled,
        }
    }

    pub(super) async fn registered(&self, id: &str, settings: Settings) -> Result<(), String> {
        {
            let mut state = self.state();
            state.agent_id = Some(id.to_owned());
            set(&mut state, settings);
        }
        let (path, text) = (id_path(&self.root), format!("{id}\n"));
        let root = self.root.clone();
        let write = move || {
            files::make_dir(&root)?;
            files::write_text(&path, &text)?;
            files::sync_dir(&root)
        };
        let id_written = self.write(write).await;
        // The one does not depend on the other.
        let state_written = self.save().await;
        id_written.and(state_written)
    }

    pub(super) async fn configured(&self, settings: Settings) -> Result<(), String> {
        set(&mut self.state(), settings);
        self.save().await
    }

    pub(super) async fn beaten(&self, now: Timestamp) -> Result<(), String> {
        self.state().last_heartbeat = Some(naive(now));
        self.save().await
    }

    pub(super) async fn priced(&self, now: Timestamp) -> Result<(), String> {
        self.state().last_pricing_report = Some(naive(now));
        self.save().await
    }

    async fn save(&self) -> Result<(), String> {
        let _writing = self.writing.lock().await;
        let (path, state) = (state_path(&self.root), self.state().clone());
        let dir = self.root.join("data");
        let write = move || {
            files::make_dir(&dir)?;
            files::write(&path, &state)
        };
        self.write(write).await
    }

    async fn write(
        &self,
        write: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<(), String> {
        let written = match self.io {
            LedgerIo::Inline => write(),
            LedgerIo::Threads => match tokio::task::spawn_blocking(write).await {
                Ok(written) => written,
                Err(error) => Err(io::Error::other(error)),
            },
        };
        written.map_err(|error| format!("{}: {error}", self.root.display()))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id that an earlier agent, or an installer, wrote down.
pub(super) fn read_id(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(id_path(root)).ok()?;
    let id = text.trim();
    (!id.is_empty() && id != "null").then(|| id.to_owned())
}

fn set(state: &mut State, settings: Settings) {
    state.auto_switch_enabled = settings.auto_switch_enabled;
    state.manual_replica_enabled = settings.manual_replica_enabled;
}

fn id_path(root: &Path) -> PathBuf {
    root.join("agent_id.txt")
}

fn state_path(root: &Path) -> PathBuf {
    root.join("data").join("agent_state.json")
}

/// UTC to the second, without a zone, as the contract writes moments.
pub(super) fn naive(moment: Timestamp) -> String {
    let text = moment.to_string();
    text.get(..19).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_without_a_zone() {
        assert_eq!(
            naive(Timestamp::from_millis(1_735_689_600_250)),
            "2025-01-01T00:00:00"
        );
    }

    #[test]
    fn settings_change_only_by_what_an_answer_says() {
        let usual = Settings::default();
        let off = serde_json::json!({"auto_switch_enabled": false, "manual_replica_enabled": null});
        let changed = usual.changed_by(Some(&off));
        assert_eq!(
            (changed.auto_switch_enabled, changed.manual_replica_enabled),
            (false, false)
        );
        assert_eq!(changed.changed_by(None), changed);
    }
}
