//! What the control plane wants of the node in a session: intent, commands, transfers. Each is handed on, and what comes
//! of it is sent when it is there.

use std::sync::Arc;

use hostler_kit::sealed::Clear;
use hostler_model::UnitId;
use hostler_runtime::Runtime;
use hostler_wire::session::v1;
use hostler_wire::session::v1::node_message::Message as Out;
use tokio::sync::oneshot;

use super::{Ended, Session};
use crate::reconcile::Input;
use crate::uplink::session::bulk::Job;
use crate::uplink::session::convert;
use crate::uplink::session::errands::Asked;
use crate::uplink::session::gather::Gathered;

impl Session<'_> {
    pub(super) async fn take_intent(&mut self, intent: v1::Intent) -> Result<(), Ended> {
        let revision = intent.store_revision;
        let gathered = self.gather.take(intent);
        let gathered = gathered.map_err(|error| Ended::Lost(error.to_string()))?;
        let (done, on_disk) = oneshot::channel();
        let (version, input) = match gathered {
            Gathered::Nothing => return Ok(()),
            Gathered::Full { version, items } => (
                version,
                Input::Full {
                    from: self.speaker,
                    revision,
                    items,
                    done,
                },
            ),
            Gathered::Increment {
                version,
                items,
                removed,
            } => (
                version,
                Input::Increment {
                    revision,
                    items,
                    removed,
                    done,
                },
            ),
        };
        self.has_intent |= matches!(input, Input::Full { .. });
        self.hand_over(input).await?;
        self.answers.push(Box::pin(async move {
            // Without an answer it was not written: the reconciler has gone.
            on_disk
                .await
                .ok()
                .map(|()| Out::Applied(v1::Applied { version }))
        }));
        Ok(())
    }

    /// In the vault before the intent that names them is read.
    pub(super) async fn take_secrets(&mut self, secrets: v1::Secrets) -> Result<(), Ended> {
        let vault = &self.uplink.handle.vault;
        for secret in secrets.values {
            vault.put(secret.name, Clear::new(secret.value));
        }
        for name in secrets.forgotten {
            vault.forget(&name);
        }
        self.hand_over(Input::Secrets).await
    }

    pub(super) async fn take_command(&mut self, command: v1::Command) -> Result<(), Ended> {
        let v1::Command { id: name, json } = command;
        let (id, command) = match (name.parse(), serde_json::from_slice(&json)) {
            (Ok(id), Ok(command)) => (id, command),
            _ => {
                let message = "this agent does not know the command".to_owned();
                let answer = v1::Acknowledge {
                    command: name,
                    done: false,
                    message,
                };
                return self.send(Out::Acknowledge(answer)).await;
            }
        };
        let (done, result) = oneshot::channel();
        self.hand_over(Input::Command { id, command, done }).await?;
        self.answers.push(Box::pin(async move {
            let (done, message) = match result.await.ok()? {
                Ok(result) => (true, result),
                Err(error) => (false, error),
            };
            Some(Out::Acknowledge(v1::Acknowledge {
                command: name,
                done,
                message,
            }))
        }));
        Ok(())
    }

    pub(super) fn open(&self, open: v1::Open) {
        let job = match open.request {
            Some(v1::open::Request::Logs(request)) => Job::Logs {
                source: self.source(request.unit.clone()),
                query: convert::log_query(&request),
            },
            Some(v1::open::Request::Errand(request)) => {
                let place = self.source(request.unit.clone());
                let Some(errand) = convert::errand(request) else {
                    tracing::warn!("asked for an errand that this agent does not know");
                    return;
                };
                Job::Errand(Box::new(Asked {
                    place,
                    errand,
                    guardian: Arc::clone(&self.uplink.handle.guardian),
                }))
            }
            None => {
                tracing::warn!("asked for a transfer that this agent does not know");
                return;
            }
        };
        self.uplink.bulk.open(open.ticket, job);
    }

    /// A unit that is here, and its driver.
    fn source(&self, unit: Option<v1::UnitId>) -> Option<(UnitId, Arc<dyn Runtime>)> {
        let unit = convert::read_unit_id(unit).ok()?;
        let kind = self.uplink.handle.picture.borrow().units.get(&unit)?.kind;
        let runtime = self.uplink.handle.runtimes.get(&kind)?;
        Some((unit, Arc::clone(runtime)))
    }
}
