//! Reading bodies as leniently as MIaaS reads them: `"8"` and `8.0` are whole numbers, unknown keys are dropped.
//! What does not fit is gathered, and refused whole in MIaaS's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::Request;
use hostler_wire::api;
use serde_json::{Map, Value, json};

use super::deployments::Deployment;
use super::{Heartbeat, No, Registration};
use crate::api::take::read;

/// Most bytes of what an agent says; it sends some hundred.
pub(super) const WORD_BYTES: usize = 64 << 10;
/// Most bytes of a deployment: a compose file and its variables.
pub(super) const DEPLOYMENT_BYTES: usize = 256 << 10;
/// Most bytes of an input that is shown to who sent it.
const SHOWN_BYTES: usize = 1 << 10;
/// Most findings that are told of one body.
const MOST_FINDINGS: usize = 100;
/// Most bytes of a name or an id; it becomes part of a key of the store.
const NAME_BYTES: usize = 128;

/// A body that is JSON, or none at all.
#[derive(Debug)]
pub(super) struct Sent {
    text: Vec<u8>,
    value: Option<Value>,
}

/// A body being read with MIaaS's leniency; what does not fit is gathered.
#[derive(Debug)]
pub(super) struct Findings {
    text: Vec<u8>,
    body: Map<String, Value>,
    found: Vec<Value>,
}

impl Sent {
    /// The body, which must be an object.
    pub(super) fn object(self) -> Result<Findings, No> {
        let (kind, message) = match self.value {
            Some(Value::Object(body)) => {
                return Ok(Findings {
                    text: self.text,
                    body,
                    found: Vec::new(),
                });
            }
            Some(_) => (
                "model_attributes_type",
                "Input should be a valid dictionary or object to extract fields from",
            ),
            None => ("missing", "Field required"),
        };
        let input = shown(self.value.as_ref());
        let finding = json!({"type": kind, "loc": ["body"], "msg": message, "input": input});
        Err(No::Findings(vec![finding]))
    }
}

impl Findings {
    /// Reads the body; what is no JSON is refused before anything else.
    pub(super) async fn read(request: Request, most: usize) -> Result<Sent, No> {
        let text = read(request, most).await.map_err(No::Failure)?;
        if text.is_empty() {
            return Ok(Sent { text, value: None });
        }
        let value = serde_json::from_slice(&text).map_err(|error| {
            let context = json!({"error": error.to_string()});
            No::Findings(vec![
                json!({"type": "json_invalid", "loc": ["body", error.column()],
                "msg": "JSON decode error", "input": {}, "ctx": context}),
            ])
        })?;
        Ok(Sent {
            text,
            value: Some(value),
        })
    }

    /// The body as it came.
    pub(super) fn take_text(&mut self) -> Arc<[u8]> {
        std::mem::take(&mut self.text).into()
    }

    pub(super) fn registration(mut self) -> Result<Registration, No> {
        let name = self.short(&["name"]);
        let ip = self.text(&["ip"]);
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

    pub(super) fn deployment(mut self) -> Result<Deployment, No> {
        let deployment = Deployment {
            deployment_id: self.short(&["deployment_id"]),
            template_id: self.text(&["template_id"]),
            rendered_compose: self.text(&["rendered_compose"]),
            env: self.variables(&["env"]),
            action: self.text(&["action"]),
        };
        self.close(deployment)
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
        // What is missing is missed in whatever should hold it.
        let input = match (kind, path) {
            ("missing", [holder @ .., _]) if !holder.is_empty() => shown(self.get(holder)),
            ("missing", _) => shown(Some(&Value::Object(self.body.clone()))),
            _ => shown(self.get(path)),
        };
        let loc = loc(path);
        self.tell(json!({"type": kind, "loc": loc, "msg": message, "input": input}));
    }

    fn tell(&mut self, finding: Value) {
        if self.found.len() < MOST_FINDINGS {
            self.found.push(finding);
        }
    }

    /// A text that is not too long for a key.
    fn short(&mut self, path: &[&str]) -> String {
        let text = self.text(path);
        if text.len() > NAME_BYTES {
            let message = format!("String should have at most {NAME_BYTES} bytes");
            self.find("string_too_long", path, &message);
        }
        text
    }

    /// Texts by key; each value that is none is a finding of its own.
    fn variables(&mut self, path: &[&str]) -> BTreeMap<String, String> {
        let values = match self.get(path) {
            None => return BTreeMap::new(),
            Some(Value::Object(values)) => values.clone(),
            Some(_) => {
                self.find("dict_type", path, "Input should be a valid dictionary");
                return BTreeMap::new();
            }
        };
        let mut variables = BTreeMap::new();
        for (key, value) in values {
            if let Value::String(text) = value {
                variables.insert(key, text);
            } else {
                let path: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
                self.find("string_type", &path, "Input should be a valid string");
            }
        }
        variables
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

    /// A whole number, also as text (`"8"`), as a float without fraction (`8.0`), or as truth (1 or 0).
    fn number<T: TryFrom<i64> + Default>(&mut self, path: &[&str], default: Option<T>) -> T {
        let Some(value) = self.get(path) else {
            return default.unwrap_or_else(|| {
                self.find("missing", path, "Field required");
                T::default()
            });
        };
        let (whole, kind, message) = match value {
            Value::Number(number) => (
                number.as_i64().or_else(|| number.as_f64().and_then(whole)),
                "int_from_float",
                "Input should be a valid integer, got a number with a fractional part",
            ),
            Value::String(text) => {
                let text = text.trim();
                let float = || text.parse().ok().and_then(whole);
                (
                    text.parse().ok().or_else(float),
                    "int_parsing",
                    "Input should be a valid integer, unable to parse string as an integer",
                )
            }
            Value::Bool(truth) => (Some(i64::from(*truth)), "", ""),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                (None, "int_type", "Input should be a valid integer")
            }
        };
        let Some(whole) = whole else {
            self.find(kind, path, message);
            return T::default();
        };
        T::try_from(whole).unwrap_or_else(|_| {
            self.find(
                "int_out_of_range",
                path,
                "Input should be an integer that fits",
            );
            T::default()
        })
    }

    fn float(&mut self, path: &[&str]) -> f64 {
        let Some(value) = self.get(path) else {
            return 0.0;
        };
        let (number, kind, message) = match value {
            Value::Number(number) => (number.as_f64(), "", ""),
            Value::String(text) => (
                text.trim().parse().ok(),
                "float_parsing",
                "Input should be a valid number, unable to parse string as a number",
            ),
            Value::Bool(truth) => (Some(f64::from(u8::from(*truth))), "", ""),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                (None, "float_type", "Input should be a valid number")
            }
        };
        match number {
            Some(number) if number.is_finite() => return number,
            // JSON has no word for what is not finite, so it could not be shown again.
            Some(_) => self.find("finite_number", path, "Input should be a finite number"),
            None => self.find(kind, path, message),
        }
        0.0
    }

    fn words(&mut self, path: &[&str]) -> Vec<String> {
        let word = |value: &Value| value.as_str().map(str::to_owned);
        self.list(path, word, "string_type", "Input should be a valid string")
    }

    fn objects(&mut self, path: &[&str]) -> Vec<Value> {
        let object = |value: &Value| value.is_object().then(|| value.clone());
        let message = "Input should be a valid dictionary";
        self.list(path, object, "dict_type", message)
    }

    /// A list; each entry that does not fit is a finding of its own.
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
        let Value::Array(values) = value else {
            self.find("list_type", path, "Input should be a valid list");
            return Vec::new();
        };
        let mut read = Vec::with_capacity(values.len());
        let mut wrong = Vec::new();
        for (index, value) in values.iter().enumerate() {
            match entry(value) {
                Some(entry) => read.push(entry),
                None if wrong.len() < MOST_FINDINGS => wrong.push((index, shown(Some(value)))),
                None => {}
            }
        }
        for (index, input) in wrong {
            let mut loc = loc(path);
            loc.push(index.into());
            self.tell(json!({"type": kind, "loc": loc, "msg": message, "input": input}));
        }
        read
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

/// Where a key stands.
fn loc(path: &[&str]) -> Vec<Value> {
    std::iter::once("body")
        .chain(path.iter().copied())
        .map(Value::from)
        .collect()
}

/// An input as it is shown to who sent it, unless that would be a long answer to a short mistake.
fn shown(input: Option<&Value>) -> Value {
    let is_short = |input: &&Value| input.to_string().len() <= SHOWN_BYTES;
    input.filter(is_short).cloned().unwrap_or_default()
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
            text: Vec::new(),
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
            (json!("8.0"), 8),
            (json!(true), 1),
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
        let body = json!({"ip": 1, "capabilities": {"os": "linux", "cpu_count": 1.5, "mem_mb": null, "disk_mb": "x"}});
        let found = kinds(findings(body).registration().unwrap_err());
        let expected = [
            "missing",
            "string_type",
            "int_from_float",
            "int_type",
            "int_parsing",
        ];
        assert_eq!(found, expected);
        let body = json!({"cpu_usage": "x", "mem_usage": [], "running_containers": {}});
        let found = kinds(findings(body).heartbeat().unwrap_err());
        assert_eq!(found, ["float_parsing", "float_type", "list_type"]);
        let body = json!({"cpu_usage": "nan", "disk_free_mb": -1});
        let found = kinds(findings(body).heartbeat().unwrap_err());
        assert_eq!(found, ["finite_number"]);
    }

    #[test]
    fn each_entry_of_a_list_that_does_not_fit_is_named_by_its_place() {
        let body = json!({"running_containers": [1, "db", null]});
        let No::Findings(found) = findings(body).heartbeat().unwrap_err() else {
            panic!("findings")
        };
        let finding = |index: usize, input: Value| {
            json!({"type": "string_type", "loc": ["body", "running_containers", index],
                "msg": "Input should be a valid string", "input": input})
        };
        assert_eq!(found, [finding(0, json!(1)), finding(2, Value::Null)]);
    }

    #[test]
    fn a_body_full_of_mistakes_gets_no_endless_answer() {
        let many: Map<String, Value> = (0..5_000).map(|key| (key.to_string(), json!(1))).collect();
        let body = json!({"running_containers": vec![1; 20_000]});
        let listed = kinds(findings(body).heartbeat().unwrap_err());
        let body = json!({"deployment_id": "a", "template_id": "t", "rendered_compose": "",
            "action": "apply", "env": many});
        let named = kinds(findings(body).deployment().unwrap_err());
        assert_eq!((listed.len(), named.len()), (MOST_FINDINGS, MOST_FINDINGS));
    }

    #[test]
    fn an_empty_beat_is_a_beat() {
        let beat = findings(json!({})).heartbeat().unwrap();
        assert_eq!((beat.disk_free_mb, beat.running_containers.len()), (0, 0));
    }

    #[test]
    fn variables_are_texts_and_each_other_one_is_named() {
        let body = json!({"deployment_id": "a", "template_id": "t", "rendered_compose": "",
            "action": "apply", "unknown": 1, "env": {"A": "1", "B": 2, "C": null}});
        let No::Findings(found) = findings(body.clone()).deployment().unwrap_err() else {
            panic!("findings")
        };
        let places: Vec<&Value> = found.iter().map(|it| &it["loc"]).collect();
        assert_eq!(
            places,
            [&json!(["body", "env", "B"]), &json!(["body", "env", "C"])]
        );
        let mut good = body;
        good["env"] = json!({"A": "1"});
        assert_eq!(findings(good.clone()).deployment().unwrap().env["A"], "1");
        good["env"] = json!([]);
        assert_eq!(
            kinds(findings(good.clone()).deployment().unwrap_err()),
            ["dict_type"]
        );
        good["deployment_id"] = "x".repeat(129).into();
        good["env"] = json!({});
        assert_eq!(
            kinds(findings(good).deployment().unwrap_err()),
            ["string_too_long"]
        );
    }

    #[test]
    fn what_is_missing_is_shown_with_what_lacks_it() {
        let No::Findings(found) = findings(json!({"name": "a"})).registration().unwrap_err() else {
            panic!("findings")
        };
        assert_eq!(
            found[0],
            json!({"type": "missing", "loc": ["body", "ip"],
            "msg": "Field required", "input": {"name": "a"}})
        );
    }

    #[test]
    fn a_long_input_is_not_sent_back() {
        let long = "x".repeat(SHOWN_BYTES);
        let body = json!({"name": "a", "ip": "b", "capabilities": long});
        let No::Findings(found) = findings(body).registration().unwrap_err() else {
            panic!("findings")
        };
        assert_eq!(found[0]["input"], Value::Null);
    }
}
