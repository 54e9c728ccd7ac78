//! What differs between two specs, key by key.

use std::collections::BTreeSet;

use hostler_model::spec::WorkloadSpec;
use hostler_wire::api;
use serde_json::Value;

/// The keys of the spec that differ, in their order.
pub(in crate::api) fn difference(
    old: &WorkloadSpec,
    new: &WorkloadSpec,
) -> Vec<api::PlannedChange> {
    let mut changes = Vec::new();
    let [old, new] = [old, new].map(|spec| serde_json::to_value(spec).unwrap_or_default());
    compare(String::new(), old, new, &mut changes);
    changes
}

fn compare(path: String, from: Value, to: Value, changes: &mut Vec<api::PlannedChange>) {
    match (from, to) {
        (Value::Object(mut from), Value::Object(mut to)) => {
            let keys: BTreeSet<String> = from.keys().chain(to.keys()).cloned().collect();
            for key in keys {
                let dot = if path.is_empty() { "" } else { "." };
                let [from, to] =
                    [&mut from, &mut to].map(|side| side.remove(&key).unwrap_or_default());
                compare(format!("{path}{dot}{key}"), from, to, changes);
            }
        }
        (from, to) if from != to => changes.push(api::PlannedChange { path, from, to }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_names_each_key_with_both_values() {
        let old = WorkloadSpec::of_container("web", "a:1", vec![]);
        let mut new = WorkloadSpec::of_container("web", "a:2", vec![]);
        new.count = 3;
        new.env.insert("A".to_owned(), "b".to_owned());
        let changes = difference(&old, &new);
        let paths: Vec<_> = changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["container.image", "count", "env"]);
        assert_eq!(
            (&changes[1].from, &changes[1].to),
            (&Value::from(1), &Value::from(3))
        );
        assert!(difference(&old, &old).is_empty());
    }
}
