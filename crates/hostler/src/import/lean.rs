//! A spec as a person would write it: the name first, and nothing that goes without saying.

use hostler_model::spec::{HealthSpec, WorkloadSpec};
use serde_json::{Map, Value};

/// The spec as YAML.
///
/// # Errors
/// It cannot be written as text.
pub(crate) fn yaml(spec: &WorkloadSpec) -> Result<String, serde_saphyr::ser_error::Error> {
    let mut text = serde_saphyr::to_string(&Map::from_iter([(
        "name".to_owned(),
        spec.name.clone().into(),
    )]))?;
    text.push_str(&serde_saphyr::to_string(&lean(spec))?);
    Ok(text)
}

fn lean(spec: &WorkloadSpec) -> Value {
    let bare = match &spec.container {
        Some(_) => WorkloadSpec::of_container(&spec.name, "", Vec::new()),
        None => WorkloadSpec::bare(&spec.name),
    };
    let usual = WorkloadSpec {
        health: spec.health.as_ref().map(|_| HealthSpec::default()),
        ..bare
    };
    let of = |spec: &WorkloadSpec| serde_json::to_value(spec).unwrap_or_default();
    let mut value = of(spec);
    strip(&mut value, &of(&usual));
    value
}

/// Takes out what is as usual.
fn strip(value: &mut Value, usual: &Value) {
    let (Value::Object(keys), Value::Object(usual)) = (value, usual) else {
        return;
    };
    keys.retain(|key, value| usual.get(key) != Some(value));
    for (key, value) in keys {
        if let Some(usual) = usual.get(key) {
            strip(value, usual);
        }
    }
}
