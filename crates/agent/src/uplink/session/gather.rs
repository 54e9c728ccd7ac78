//! Puts the intent together from its messages. A full set counts only once it is complete.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostler_model::spec::WorkloadSpec;
use hostler_model::{AssignmentId, WorkloadId};
use hostler_wire::session::v1;

use super::convert::{self, Nonsense};
use crate::reconcile::Wanted;

/// What a message completed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gathered {
    /// A part of a set that goes on.
    Nothing,
    Full {
        version: u64,
        items: Vec<Wanted>,
    },
    Increment {
        version: u64,
        items: Vec<Wanted>,
        removed: Vec<AssignmentId>,
    },
}

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Gather {
    specs: BTreeMap<(WorkloadId, u64), Spec>,
    /// The parts of a full set that is not complete.
    parts: Vec<Wanted>,
}

#[derive(Debug)]
enum Spec {
    Read(Arc<WorkloadSpec>),
    /// It is of a form that this agent does not know.
    Unreadable(String),
}

impl Gather {
    /// Takes a message in.
    pub(super) fn take(&mut self, intent: v1::Intent) -> Result<Gathered, Nonsense> {
        for spec in intent.specs {
            let key = convert::spec_key(&spec.workload, spec.revision)?;
            let read = match convert::spec(&spec.json) {
                Ok(read) => Spec::Read(Arc::new(read)),
                Err(problem) => Spec::Unreadable(problem),
            };
            self.specs.insert(key, read);
        }
        let mut items = Vec::with_capacity(intent.items.len());
        for item in intent.items {
            items.push(self.item(item)?);
        }
        let version = intent.version;
        if !intent.full {
            let removed = intent.removed_assignments.iter().map(|id| id.parse());
            let removed: Result<_, _> = removed.collect();
            let removed = removed
                .map_err(|error: hostler_model::ParseIdError| Nonsense(error.to_string()))?;
            return Ok(Gathered::Increment {
                version,
                items,
                removed,
            });
        }
        self.parts.append(&mut items);
        if !intent.last {
            return Ok(Gathered::Nothing);
        }
        Ok(Gathered::Full {
            version,
            items: std::mem::take(&mut self.parts),
        })
    }

    /// An item with a spec that cannot be read is wanted all the same: it is no omission.
    fn item(&self, item: v1::IntentItem) -> Result<Wanted, Nonsense> {
        let key = convert::spec_key(&item.workload, item.revision)?;
        match self.specs.get(&key) {
            Some(Spec::Read(spec)) => {
                convert::item(item, Arc::clone(spec)).map(|item| Wanted::Item(Box::new(item)))
            }
            Some(Spec::Unreadable(problem)) => {
                let unit = convert::read_unit_id(item.unit)?;
                tracing::error!(
                    %unit, workload = item.workload_name, problem,
                    "cannot read the spec; is the agent older than the control plane?"
                );
                Ok(Wanted::Unreadable {
                    unit,
                    intent: convert::intent(&item.stop_cause),
                })
            }
            None => Err(Nonsense(format!(
                "an item refers to revision {} of workload {}, whose spec was never sent",
                item.revision, item.workload
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use hostler_model::{Intent, Timestamp, UnitId};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn workload() -> String {
        WorkloadId::mint(NOW, 1).to_string()
    }

    fn spec(json: &[u8]) -> v1::Spec {
        v1::Spec {
            workload: workload(),
            revision: 1,
            json: json.to_vec(),
        }
    }

    fn good_spec() -> v1::Spec {
        let spec_of = WorkloadSpec::of_process("web", vec!["sleep".into()]);
        spec(&serde_json::to_vec(&spec_of).unwrap())
    }

    fn item(n: u128) -> v1::IntentItem {
        let assignment = AssignmentId::mint(NOW, n).to_string();
        v1::IntentItem {
            unit: Some(v1::UnitId {
                assignment,
                generation: 1,
            }),
            workload: workload(),
            workload_name: "web".into(),
            slot: 0,
            revision: 1,
            stop_cause: String::new(),
            finished: false,
        }
    }

    fn full(specs: Vec<v1::Spec>, items: Vec<v1::IntentItem>, last: bool) -> v1::Intent {
        v1::Intent {
            version: 1,
            full: true,
            last,
            specs,
            items,
            ..v1::Intent::default()
        }
    }

    #[test]
    fn a_full_set_counts_only_once_it_is_complete() {
        let mut gather = Gather::default();
        let first = gather
            .take(full(vec![good_spec()], vec![item(1)], false))
            .unwrap();
        assert_eq!(first, Gathered::Nothing);
        let Gathered::Full { items, .. } =
            gather.take(full(Vec::new(), vec![item(2)], true)).unwrap()
        else {
            panic!("not complete")
        };
        assert_eq!(items.len(), 2);
        let empty = gather.take(full(Vec::new(), Vec::new(), true)).unwrap();
        assert_eq!(
            empty,
            Gathered::Full {
                version: 1,
                items: Vec::new()
            }
        );
    }

    #[test]
    fn a_spec_that_cannot_be_read_is_no_omission() {
        let mut gather = Gather::default();
        let strange = spec(b"{\"name\":\"web\",\"teleport\":{}}");
        let gathered = gather
            .take(full(vec![strange], vec![item(1)], true))
            .unwrap();
        let unit = UnitId {
            assignment: AssignmentId::mint(NOW, 1),
            generation: 1,
        };
        let items = vec![Wanted::Unreadable {
            unit,
            intent: Intent::Run,
        }];
        assert_eq!(gathered, Gathered::Full { version: 1, items });
    }

    #[test]
    fn an_item_without_its_spec_is_nonsense() {
        let refused = Gather::default().take(full(Vec::new(), vec![item(1)], true));
        assert!(refused.unwrap_err().0.contains("never sent"));
    }
}
