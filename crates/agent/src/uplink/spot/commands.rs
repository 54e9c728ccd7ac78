//! Commands of the spot contract: polled, carried out, answered. A command stays pending at the server until it is
//! answered, so whatever fails on the way is simply met again at the next poll. What was carried out is not carried
//! out again then: its answer is kept as long as the server asks for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Member, ticks};
use crate::uplink::http::{CallError, segment, text};

/// How long an instance goes on before it is ended, unless a command says otherwise.
const TERMINATE_WAIT: u64 = 300;

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) id: String,
    pub(super) order: Order,
}

/// One kind of command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    ToSpot {
        pool: Option<String>,
    },
    ToOnDemand,
    Terminate {
        wait_seconds: u64,
    },
    /// Of later servers: make or end a copy.
    Replica {
        kind: String,
    },
    Unknown {
        kind: String,
    },
}

impl Member<'_> {
    pub(super) async fn poll_commands(&self) {
        let mut ticks = ticks(self.uplink.spot.timers.commands);
        let mut answers = BTreeMap::new();
        loop {
            ticks.tick().await;
            if let Err(error) = self.take_commands(&mut answers).await {
                let pen = &self.uplink.pen;
                pen.error(format!("Command polling failed: {error}"));
            }
        }
    }

    /// Answers all, for an answer that the server does not take holds up no other. Without a server it is over at once.
    async fn take_commands(&self, answers: &mut BTreeMap<String, Value>) -> Result<(), CallError> {
        let commands = read(&self.ask("pending-commands").await?)?;
        let asked: BTreeSet<&str> = commands.iter().map(|it| it.id.as_str()).collect();
        answers.retain(|id, _| asked.contains(id.as_str()));
        let mut told = Ok(());
        for command in &commands {
            let answer = answers.entry(command.id.clone());
            let answer = answer.or_insert_with(|| self.execute(command));
            let path = format!("commands/{}/executed", segment(&command.id));
            match self.tell(&path, answer).await {
                Err(error @ CallError::Silent(_)) => return Err(error),
                Err(error) => told = Err(error),
                Ok(()) => {}
            }
        }
        told
    }

    fn execute(&self, command: &Command) -> Value {
        let Command { id, order } = command;
        let pen = &self.uplink.pen;
        pen.info(format!("Executing command {id}: {}", order.word()));
        let (success, message) = match order.carry_out() {
            Ok(done) => (true, format!("Command executed successfully: {done}")),
            Err(reason) => {
                pen.error(format!("Command execution failed: {reason}"));
                (false, format!("Command failed: {reason}"))
            }
        };
        json!({"success": success, "message": message})
    }
}

impl Order {
    fn of(item: &Value) -> Self {
        let kind = text(item.get("command_type")).unwrap_or_default();
        if matches!(kind.as_str(), "create_replica" | "terminate_replica") {
            return Self::Replica { kind };
        }
        match text(item.get("target_mode")).as_deref() {
            Some("spot") => Self::ToSpot {
                pool: text(item.get("target_pool_id")),
            },
            Some("ondemand") => Self::ToOnDemand,
            Some("terminate") => Self::Terminate {
                wait_seconds: wait(item.get("terminate_wait_seconds")),
            },
            other => Self::Unknown {
                kind: other.unwrap_or("unknown").to_owned(),
            },
        }
    }

    /// The word for the log.
    fn word(&self) -> &str {
        match self {
            Self::ToSpot { .. } => "spot",
            Self::ToOnDemand => "ondemand",
            Self::Terminate { .. } => "terminate",
            Self::Replica { kind } | Self::Unknown { kind } => kind,
        }
    }

    /// What came of it, or why nothing did.
    fn carry_out(&self) -> Result<String, String> {
        let needs_engine = |what: &str| {
            Err(format!(
                "{what} needs the spot engine, which this version of the agent does not have"
            ))
        };
        match self {
            Self::ToSpot { pool: None } => Err("target_pool_id is missing".to_owned()),
            Self::ToSpot { pool: Some(pool) } => needs_engine(&format!("switching to pool {pool}")),
            Self::ToOnDemand => needs_engine("switching to on-demand"),
            // Nought means that the instance is to be kept.
            Self::Terminate { wait_seconds: 0 } => Ok("the instance is kept".to_owned()),
            Self::Terminate { wait_seconds } => {
                needs_engine(&format!("ending the instance after {wait_seconds} s"))
            }
            Self::Replica { kind } => needs_engine(&format!("the command {kind}")),
            Self::Unknown { kind } => Err(format!("Unknown command type: {kind}")),
        }
    }
}

/// A bare list, or one that a later server has wrapped. What has no id cannot be answered and is left out.
fn read(answer: &Value) -> Result<Vec<Command>, CallError> {
    let wrapped = || {
        let keys = ["commands", "pending_commands", "data"];
        keys.iter().find_map(|key| answer.get(key)?.as_array())
    };
    let items = answer.as_array().or_else(wrapped);
    let items =
        items.ok_or_else(|| CallError::Unreadable("it is no list of commands".to_owned()))?;
    let command = |item: &Value| {
        Some(Command {
            id: text(item.get("id"))?,
            order: Order::of(item),
        })
    };
    Ok(items.iter().filter_map(command).collect())
}

/// Absent and null mean the usual wait.
fn wait(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::String(text)) => text.trim().parse().unwrap_or(TERMINATE_WAIT),
        Some(value) => value.as_u64().unwrap_or(TERMINATE_WAIT),
        None => TERMINATE_WAIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(item: Value) -> Order {
        Order::of(&item)
    }

    #[test]
    fn the_target_mode_says_what_is_asked_for() {
        let terminate = |wait_seconds| Order::Terminate { wait_seconds };
        assert_eq!(order(json!({"target_mode": "terminate"})), terminate(300));
        let null = json!({"target_mode": "terminate", "terminate_wait_seconds": null});
        assert_eq!(order(null), terminate(300));
        let nought = json!({"target_mode": "terminate", "terminate_wait_seconds": 0});
        assert_eq!(order(nought), terminate(0));
        let written = json!({"target_mode": "terminate", "terminate_wait_seconds": "60"});
        assert_eq!(order(written), terminate(60));
        assert_eq!(order(json!({"target_mode": "ondemand"})), Order::ToOnDemand);
        let later = json!({"command_type": "create_replica", "target_mode": "spot"});
        assert_eq!(order(later).word(), "create_replica");
        assert_eq!(order(json!({})).word(), "unknown");
    }

    #[test]
    fn what_cannot_be_done_says_why_and_a_wait_of_nought_keeps_the_instance() {
        let done = |item| order(item).carry_out();
        let refused = done(json!({"target_mode": "spot", "target_pool_id": "t3.a"})).unwrap_err();
        assert!(
            refused.contains("pool t3.a needs the spot engine"),
            "{refused}"
        );
        assert_eq!(
            done(json!({"target_mode": "spot"})).unwrap_err(),
            "target_pool_id is missing"
        );
        assert_eq!(
            done(json!({"target_mode": "dance"})).unwrap_err(),
            "Unknown command type: dance"
        );
        let kept = done(json!({"target_mode": "terminate", "terminate_wait_seconds": 0}));
        assert_eq!(kept.unwrap(), "the instance is kept");
    }

    #[test]
    fn a_list_may_be_wrapped_and_an_id_may_be_a_number() {
        let item = json!({"id": 7, "target_mode": "ondemand"});
        for answer in [
            json!([item]),
            json!({"commands": [item]}),
            json!({"pending_commands": [item]}),
            json!({"data": [item, {"target_mode": "spot"}]}),
        ] {
            let commands = read(&answer).unwrap();
            assert_eq!(commands.len(), 1, "{answer}");
            assert_eq!(commands[0].id, "7");
        }
        assert!(read(&json!({"error": "no"})).is_err());
    }
}
