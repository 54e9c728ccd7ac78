//! Reading bodies as leniently as MIaaS reads them: `"8"` and `8.0` are whole numbers, unknown keys are dropped.
//! What does not fit is gathered, and refused whole in MIaaS's words.

use axum::extract::Request;
use hostler_wire::api;
use serde_json::{Map, Value, json};

use super::{Heartbeat, No, Registration};
use crate::api::take::read;

/// Most bytes of a body; agents send some hundred.
const BODY_BYTES: usize = 64 << 10;
/// Most bytes of a name; it becomes part of a key of the store.
const NAME_BYTES: usize = 128;

/// A body being read with MIaaS's leniency; what does not fit is gathered.
#[derive(Debug)]
pub(super) struct Findings {
    body: Map<String, Value>,
    found: Vec<Value>,
}

impl Findings {
    pub(super) async fn read(request: Request) -> Result<Self, No> {
        let bytes = read(request, BODY_BYTES).await.map_err(No::Failure)?;
        let one = |kind: &str, at: Value, message: &str| {
            No::Findings(vec![
                json!({"type": kind, "loc": ["body", at], "msg": message, "input": null}),
            ])
        };
        if bytes.is_empty() {
            let missing =
                json!({"type": "missing", "loc": ["body"], "msg": "Field required", "input": null});
            return Err(No::Findings(vec![missing]));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(body)) => Ok(Self {
                body,
                found: Vec::new(),
            }),
            Ok(_) => {
                let message = "Input should be a valid dictionary or object to extract fields from";
                let loc = json!({"type": "model_attributes_type", "loc": ["body"], "msg": message, "input": null});
                Err(No::Findings(vec![loc]))
            }
            Err(error) => {
                let message = format!("JSON decode error: {error}");
                Err(one("json_invalid", error.column().into(), &message))
            }
        }
    }

    pub(super) fn registration(mut self) -> Result<Registration, No> {
        let name = self.text(&["name"]);
        let ip = self.text(&["ip"]);
        if name.len() > NAME_BYTES {
            self.find(
                "string_too_long",
                &["name"],
                &format!("at most {NAME_BYTES} bytes"),
            );
        }
        let capabilities = self.capabilities();
        self.close(Registration {
            name,
            ip,
            capabilities,
        })
    }

    fn capabilities(&mut self) -> api::Capabilities {
        let at = "capabilities";
        if self.body.get(at).is_some_and(|it| !it.is_object()) {
            self.find(
                "model_attributes_type",
                &[at],
                "Input should be a valid dictionary",
            );
            return api::Capabilities::default();
        }
        if !self.body.contains_key(at) {
            self.find("missing", &[at], "Field required");
            return api::Capabilities::default();
        }
        api::Capabilities {
            os: self.text(&[at, "os"]),
            cpu_count: self.number(&[at, "cpu_count"], None),
            mem_mb: self.number(&[at, "mem_mb"], None),
            disk_mb: self
                .present(&[at, "disk_mb"])
                .then(|| self.number(&[at, "disk_mb"], None)),
            gpus: self.objects(&[at, "gpus"]),
            docker: self.object(&[at, "docker"]),
            k8s: self.object(&[at, "k8s"]),
        }
    }

    pub(super) fn heartbeat(mut self) -> Result<Heartbeat, No> {
        let beat = Heartbeat {
            cpu_usage: self.float(&["cpu_usage"]),
            mem_usage: self.float(&["mem_usage"]),
            disk_free_mb: self.number(&["disk_free_mb"], Some(0)),
            running_containers: self.words(&["running_containers"]),
        };
        self.close(beat)
    }

    fn close<T>(self, read: T) -> Result<T, No> {
        if self.found.is_empty() {
            Ok(read)
        } else {
            Err(No::Findings(self.found))
        }
    }

    fn get(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(self.body.get(*first)?, |value, key| value.get(*key))
    }

    fn present(&self, path: &[&str]) -> bool {
        self.get(path).is_some_and(|value| !value.is_null())
    }

    fn find(&mut self, kind: &str, path: &[&str], message: &str) {
        let input = self.get(path).cloned().unwrap_or_default();
        let loc: Vec<&str> = std::iter::once("body")
            .chain(path.iter().copied())
            .collect();
        self.found
            .push(json!({"type": kind, "loc": loc, "msg": message, "input": input}));
    }

    fn text(&mut self, path: &[&str]) -> String {
        match self.get(path) {
            Some(Value::String(text)) => text.clone(),
            Some(_) => {
                self.find("string_type", path, "Input should be a valid string");
                String::new()
            }
            None => {
                self.find("missing", path, "Field required");
                String::new()
            }
        }
    }

    /// A whole number, also as text (`"8"`) or as a float without fraction (`8.0`).
    fn number<T: TryFrom<i64> + Default>(&mut self, path: &[&str], default: Option<T>) -> T {
        let Some(value) = self.get(path) else {
            return default.unwrap_or_else(|| {
                self.find("missing", path, "Field required");
                T::default()
            });
        };
        let whole = match value {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => {
                let text = text.trim();
                text.parse()
                    .ok()
                    .or_else(|| text.parse().ok().and_then(whole))
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        whole
            .and_then(|number| T::try_from(number).ok())
            .unwrap_or_else(|| {
                self.find("int_parsing", path, "Input should be a valid integer");
                T::default()
            })
    }

    fn float(&mut self, path: &[&str]) -> f64 {
        let Some(value) = self.get(path) else {
            return 0.0;
        };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        // JSON has no word for what is not finite, so it could not be shown again.
        number
            .filter(|number| number.is_finite())
            .unwrap_or_else(|| {
                self.find("float_parsing", path, "Input should be a valid number");
                0.0
            })
    }

    fn words(&mut self, path: &[&str]) -> Vec<String> {
        let word = |value: &Value| value.as_str().map(str::to_owned);
        self.list(
            path,
            word,
            "string_type",
            "Input should be a valid list of strings",
        )
    }

    fn objects(&mut self, path: &[&str]) -> Vec<Value> {
        let object = |value: &Value| value.is_object().then(|| value.clone());
        self.list(
            path,
            object,
            "dict_type",
            "Input should be a valid list of dictionaries",
        )
    }

    fn list<T>(
        &mut self,
        path: &[&str],
        entry: impl Fn(&Value) -> Option<T>,
        kind: &str,
        message: &str,
    ) -> Vec<T> {
        let Some(value) = self.get(path) else {
            return Vec::new();
        };
        let read = value
            .as_array()
            .and_then(|list| list.iter().map(entry).collect());
        read.unwrap_or_else(|| {
            self.find(kind, path, message);
            Vec::new()
        })
    }

    fn object(&mut self, path: &[&str]) -> Option<Value> {
        let value = self.get(path).filter(|value| !value.is_null())?;
        if value.is_object() {
            return Some(value.clone());
        }
        self.find("dict_type", path, "Input should be a valid dictionary");
        None
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the value is whole and within the range"
)]
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(body: Value) -> Findings {
        let Value::Object(body) = body else {
            panic!("the test gives an object")
        };
        Findings {
            body,
            found: Vec::new(),
        }
    }

    fn kinds(no: No) -> Vec<String> {
        let No::Findings(found) = no else {
            panic!("{no:?}")
        };
        found
            .iter()
            .map(|it| it["type"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn whole_numbers_are_taken_in_every_form_that_miaas_takes() {
        for (value, expected) in [
            (json!(8), 8),
            (json!("8"), 8),
            (json!(8.0), 8),
            (json!(" 8 "), 8),
        ] {
            let body = json!({"name": "a", "ip": "b", "capabilities":
                {"os": "linux", "cpu_count": value, "mem_mb": 1}});
            assert_eq!(
                findings(body)
                    .registration()
                    .unwrap()
                    .capabilities
                    .cpu_count,
                expected
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_listed_whole() {
        let body =
            json!({"ip": 1, "capabilities": {"os": "linux", "cpu_count": 1.5, "mem_mb": true}});
        let found = kinds(findings(body).registration().unwrap_err());
        assert_eq!(
            found,
            ["missing", "string_type", "int_parsing", "int_parsing"]
        );
        let body = json!({"cpu_usage": "x", "running_containers": [1]});
        let found = kinds(findings(body).heartbeat().unwrap_err());
        assert_eq!(found, ["float_parsing", "string_type"]);
    }

    #[test]
    fn an_empty_beat_is_a_beat() {
        let beat = findings(json!({})).heartbeat().unwrap();
        assert_eq!((beat.disk_free_mb, beat.running_containers.len()), (0, 0));
    }
}
