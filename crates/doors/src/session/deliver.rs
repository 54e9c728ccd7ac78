//! What a node was told on this stream, and what to tell it next: a full set first, then increments that
//! hold only what differs. Pure but for the log; owned by one conversation.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use hostler_model::{AssignmentId, Command, CommandId, Intent, IntentItem, Timestamp, WorkloadId};
use hostler_wire::session::{MAX_MESSAGE_BYTES, v1};
use prost::Message as _;

use super::convert;

/// Room in a message for what wraps it.
const PART_BYTES: usize = MAX_MESSAGE_BYTES - 512;
/// Most bytes of the key and length before a field.
const FIELD_BYTES: usize = 8;

/// The number of a secret's version, and when it was given.
pub(super) type Mark = (u64, Timestamp);

/// What the node was told of one assignment.
type Known = (u64, u64, Intent);

/// What the node was told on this stream.
#[derive(Debug, Default)]
pub(super) struct Told {
    version: u64,
    is_whole: bool,
    items: HashMap<AssignmentId, Known>,
    commands: HashSet<CommandId>,
    /// Which version of each secret, by its number and its moment: a secret may go and come again.
    secrets: BTreeMap<String, Mark>,
}

impl Told {
    /// The messages with the values that the copies of `intent` need and that the node does not have: of those copies,
    /// and of no others. `known` says which version there is, and `give` its value.
    pub(super) fn secrets(
        &mut self,
        intent: &[IntentItem],
        known: impl Fn(&str) -> Option<Mark>,
        give: impl Fn(&str) -> Option<v1::SecretValue>,
    ) -> Vec<v1::Secrets> {
        let runs = |item: &&IntentItem| item.intent == Intent::Run && !item.is_finished;
        let named = intent.iter().filter(runs);
        let named = named.flat_map(|item| &item.spec.secrets);
        let wanted: BTreeSet<&str> = named.map(|secret| secret.name.as_str()).collect();
        let told = std::mem::take(&mut self.secrets);
        let mut parts = vec![v1::Secrets::default()];
        let mut bytes = 0;
        for name in &wanted {
            let Some(mark) = known(name) else { continue };
            let before = told.get(*name).copied();
            let is_told = before == Some(mark);
            let value = if is_told { None } else { give(name) };
            // What could not be given is tried again; an older version stays told, to be forgotten one day.
            let is_known = is_told || value.is_some();
            let mark = if is_known { Some(mark) } else { before };
            if let Some(mark) = mark {
                self.secrets.insert((*name).to_owned(), mark);
            }
            let Some(value) = value else { continue };
            bytes += value.encoded_len() + FIELD_BYTES;
            if bytes > PART_BYTES {
                bytes = value.encoded_len() + FIELD_BYTES;
                parts.push(v1::Secrets::default());
            }
            if let Some(part) = parts.last_mut() {
                part.values.push(value);
            }
        }
        let forgotten = told
            .into_keys()
            .filter(|name| !wanted.contains(name.as_str()));
        for name in forgotten {
            bytes += name.len() + FIELD_BYTES;
            if bytes > PART_BYTES {
                bytes = name.len() + FIELD_BYTES;
                parts.push(v1::Secrets::default());
            }
            if let Some(part) = parts.last_mut() {
                part.forgotten.push(name);
            }
        }
        parts.retain(|part| *part != v1::Secrets::default());
        parts
    }

    /// The messages that bring the node from what it was told to `intent`: none if nothing differs.
    pub(super) fn intent(&mut self, intent: &[IntentItem]) -> Vec<v1::Intent> {
        let is_new = |item: &&IntentItem| {
            self.items
                .get(&item.unit.assignment)
                .is_none_or(|it| *it != known(item))
        };
        let news: Vec<&IntentItem> = intent.iter().filter(is_new).collect();
        let wanted: HashMap<AssignmentId, Known> = intent
            .iter()
            .map(|item| (item.unit.assignment, known(item)))
            .collect();
        let mut removed: Vec<AssignmentId> = self
            .items
            .keys()
            .filter(|id| !wanted.contains_key(id))
            .copied()
            .collect();
        removed.sort_unstable();
        self.items = wanted;
        if self.is_whole {
            return self.increments(&news, &removed);
        }
        self.is_whole = true;
        self.version += 1;
        let mut parts = Parts::default();
        news.iter().for_each(|item| parts.push(item));
        let mut parts = parts.close();
        parts.iter_mut().for_each(|part| {
            part.version = self.version;
            part.full = true;
        });
        if let Some(part) = parts.last_mut() {
            part.last = true;
        }
        parts
    }

    fn increments(&mut self, news: &[&IntentItem], removed: &[AssignmentId]) -> Vec<v1::Intent> {
        if news.is_empty() && removed.is_empty() {
            return Vec::new();
        }
        let mut parts = Parts::default();
        removed.iter().for_each(|id| parts.push_removed(*id));
        news.iter().for_each(|item| parts.push(item));
        let mut parts = parts.close();
        for part in &mut parts {
            self.version += 1;
            part.version = self.version;
            part.last = true;
        }
        parts
    }

    /// The pending commands that were not yet told on this stream.
    pub(super) fn commands(&mut self, pending: &[Command]) -> Vec<v1::Command> {
        self.commands
            .retain(|told| pending.iter().any(|command| command.id == *told));
        let news = pending
            .iter()
            .filter(|command| !self.commands.contains(&command.id));
        let news: Vec<v1::Command> = news.filter_map(command).collect();
        self.commands
            .extend(pending.iter().map(|command| command.id));
        news
    }
}

const fn known(item: &IntentItem) -> Known {
    (item.unit.generation, item.revision, item.intent)
}

fn command(command: &Command) -> Option<v1::Command> {
    let json = serde_json::to_vec(&command.kind);
    let logged = json.inspect_err(
        |error| tracing::error!(id = %command.id, %error, "a command cannot be written"),
    );
    Some(v1::Command {
        id: command.id.to_string(),
        json: logged.ok()?,
    })
}

/// A set being cut into messages. Each spec is told once per set, before the first item that needs it.
#[derive(Debug, Default)]
struct Parts {
    done: Vec<v1::Intent>,
    open: v1::Intent,
    bytes: usize,
    specs: HashSet<(WorkloadId, u64)>,
}

impl Parts {
    fn push(&mut self, item: &IntentItem) {
        let key = (item.workload, item.revision);
        let spec = (!self.specs.contains(&key)).then(|| spec(item));
        let message = convert::intent_item(item);
        let spec_bytes = spec
            .as_ref()
            .map_or(0, |spec| spec.encoded_len() + FIELD_BYTES);
        let bytes = message.encoded_len() + FIELD_BYTES + spec_bytes;
        if bytes > PART_BYTES {
            let (workload, revision) = (item.workload, item.revision);
            return tracing::error!(%workload, revision, "a spec is too large for the session");
        }
        self.make_room(bytes);
        self.specs.insert(key);
        self.open.specs.extend(spec);
        self.open.items.push(message);
    }

    fn push_removed(&mut self, id: AssignmentId) {
        let text = id.to_string();
        self.make_room(text.len() + FIELD_BYTES);
        self.open.removed_assignments.push(text);
    }

    fn make_room(&mut self, bytes: usize) {
        if self.bytes + bytes > PART_BYTES {
            self.done.push(std::mem::take(&mut self.open));
            self.bytes = 0;
        }
        self.bytes += bytes;
    }

    /// All messages; at least one.
    fn close(mut self) -> Vec<v1::Intent> {
        self.done.push(self.open);
        self.done
    }
}

fn spec(item: &IntentItem) -> v1::Spec {
    v1::Spec {
        workload: item.workload.to_string(),
        revision: item.revision,
        json: serde_json::to_vec(&*item.spec).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hostler_model::spec::SecretUse;
    use hostler_model::spec::WorkloadSpec;
    use hostler_model::{CommandKind, CommandState, NodeId, StopCause, StoreEpoch, UnitId};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn item(number: u32, spec: &Arc<WorkloadSpec>) -> IntentItem {
        IntentItem {
            unit: UnitId {
                assignment: AssignmentId::mint(NOW, u128::from(number)),
                generation: u64::from(number),
            },
            workload: WorkloadId::mint(NOW, 1),
            workload_name: "web".to_owned(),
            slot: number,
            intent: Intent::Run,
            revision: 1,
            spec: Arc::clone(spec),
            is_finished: false,
        }
    }

    fn web() -> Arc<WorkloadSpec> {
        Arc::new(WorkloadSpec::of_process("web", vec!["sleep".to_owned()]))
    }

    #[test]
    fn an_empty_set_is_told_once_and_whole() {
        let mut told = Told::default();
        let parts = told.intent(&[]);
        assert_eq!(parts.len(), 1);
        assert!(parts[0].full && parts[0].last && parts[0].version == 1);
        assert!(told.intent(&[]).is_empty());
    }

    #[test]
    fn a_large_set_goes_in_parts_below_the_limit_with_each_spec_once() {
        let spec = web();
        let items: Vec<_> = (0..2_000).map(|number| item(number, &spec)).collect();
        let parts = Told::default().intent(&items);
        assert!(parts.len() > 1);
        assert!(
            parts
                .iter()
                .all(|part| part.encoded_len() < MAX_MESSAGE_BYTES && part.full)
        );
        assert_eq!(parts.iter().filter(|part| part.last).count(), 1);
        assert!(parts.last().unwrap().last);
        assert_eq!(parts.iter().map(|part| part.specs.len()).sum::<usize>(), 1);
        assert_eq!(
            parts.iter().map(|part| part.items.len()).sum::<usize>(),
            2_000
        );
    }

    #[test]
    fn an_increment_holds_only_what_differs() {
        let spec = web();
        let mut told = Told::default();
        let mut items: Vec<_> = (0..3).map(|number| item(number, &spec)).collect();
        told.intent(&items);
        let gone = items.remove(0);
        items[0].intent = Intent::Stop {
            cause: StopCause::ScaledDown,
        };
        let parts = told.intent(&items);
        assert_eq!(parts.len(), 1);
        let part = &parts[0];
        assert_eq!((part.version, part.full, part.items.len()), (2, false, 1));
        assert_eq!(part.items[0].stop_cause, "scaled-down");
        assert_eq!(part.removed_assignments, [gone.unit.assignment.to_string()]);
        assert!(told.intent(&items).is_empty());
    }

    #[test]
    fn a_spec_beyond_a_message_is_left_out_and_the_rest_is_told() {
        let spec = web();
        let mut large = WorkloadSpec::of_process("web", vec!["x".repeat(MAX_MESSAGE_BYTES)]);
        large.name = "large".to_owned();
        let mut odd = item(1, &Arc::new(large));
        odd.workload = WorkloadId::mint(NOW, 2);
        let parts = Told::default().intent(&[odd, item(2, &spec)]);
        assert_eq!(parts.iter().map(|part| part.items.len()).sum::<usize>(), 1);
    }

    #[test]
    fn a_command_is_told_once_per_stream_until_it_is_answered() {
        let command = Command {
            id: CommandId::mint(NOW, 1),
            node: NodeId::mint(NOW, 2),
            kind: CommandKind::AcceptIntent {
                epoch: StoreEpoch::mint(NOW, 3),
            },
            created_at: NOW,
            priority: 0,
            author: String::new(),
            request: None,
            state: CommandState::Pending,
        };
        let mut told = Told::default();
        assert_eq!(told.commands(std::slice::from_ref(&command)).len(), 1);
        assert!(told.commands(std::slice::from_ref(&command)).is_empty());
        assert!(told.commands(&[]).is_empty());
        assert!(told.commands.is_empty());
    }

    fn naming(number: u32, secret: &str) -> IntentItem {
        let mut spec = WorkloadSpec::of_process("web", vec!["sleep".to_owned()]);
        spec.secrets = vec![SecretUse {
            name: secret.to_owned(),
            env: None,
            file: None,
            mode: None,
        }];
        item(number, &Arc::new(spec))
    }

    fn value(name: &str, bytes: usize) -> v1::SecretValue {
        v1::SecretValue {
            name: name.to_owned(),
            version: 1,
            value: vec![7; bytes],
        }
    }

    #[test]
    fn a_node_is_told_the_secrets_of_copies_that_are_to_run_there_once_and_of_no_others() {
        let mut told = Told::default();
        let known = |version| move |_: &str| Some((version, NOW));
        let give = |name: &str| Some(value(name, 4));
        let mut stopped = naming(2, "stopped");
        stopped.intent = Intent::Stop {
            cause: StopCause::Stopped,
        };
        let mut finished = naming(3, "finished");
        finished.is_finished = true;
        let intent = [naming(1, "db"), stopped, finished, item(4, &web())];
        let names = |parts: Vec<v1::Secrets>| {
            let values = parts.into_iter().flat_map(|part| part.values);
            values.map(|value| value.name).collect::<Vec<_>>()
        };
        assert_eq!(names(told.secrets(&intent, known(1), give)), ["db"]);
        assert!(told.secrets(&intent, known(1), give).is_empty());
        assert_eq!(names(told.secrets(&intent, known(2), give)), ["db"]);
        let parts = told.secrets(&[item(4, &web())], known(2), give);
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].forgotten, ["db"]);
        assert!(told.secrets(&[], known(2), give).is_empty());
    }

    #[test]
    fn a_secret_that_could_not_be_given_is_given_later_and_an_older_one_forgotten() {
        let mut told = Told::default();
        let intent = [naming(1, "db")];
        let known = |version| move |_: &str| Some((version, NOW));
        let give = |name: &str| Some(value(name, 4));
        assert!(told.secrets(&intent, known(1), |_| None).is_empty());
        assert_eq!(told.secrets(&intent, known(1), give).len(), 1);
        assert!(told.secrets(&intent, known(2), |_| None).is_empty());
        assert_eq!(told.secrets(&intent, known(2), give).len(), 1);
        assert!(told.secrets(&intent, known(3), |_| None).is_empty());
        let parts = told.secrets(&[], known(2), |_| None);
        assert_eq!(parts[0].forgotten, ["db"]);
    }

    #[test]
    fn many_large_secrets_go_in_parts_below_the_limit_and_are_not_printed() {
        let intent: Vec<_> = (0..5).map(|it| naming(it, &format!("s{it}"))).collect();
        let give = |name: &str| Some(value(name, 32 << 10));
        let parts = Told::default().secrets(&intent, |_| Some((1, NOW)), give);
        assert_eq!(parts.iter().map(|part| part.values.len()).sum::<usize>(), 5);
        assert!(
            parts
                .iter()
                .all(|part| part.encoded_len() < MAX_MESSAGE_BYTES)
        );
        assert!(!format!("{parts:?}").contains("7, 7"));
    }
}
