//! Finding records by what people type: a name, an id, the beginning of an id, or its last eight digits.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use hostler_model::{Assignment, AssignmentId, Code, Node, NodeId, Refusal, Workload, WorkloadId};

use super::State;

/// Shorter beginnings fit too much to be meant.
const SHORTEST_PREFIX: usize = 4;
/// How many candidates an ambiguous answer names.
const NAMED_CANDIDATES: usize = 5;

/// What is looked for, for the refusal's words.
struct Noun {
    word: &'static str,
    missing: Code,
    advice: &'static str,
}

impl State {
    /// A node by name, id, beginning or last eight digits of its id. A node that is gone is found by id.
    ///
    /// # Errors
    /// `node-not-found` or `ambiguous`.
    pub fn find_node(&self, text: &str) -> Result<&Arc<Node>, Refusal> {
        const NOUN: Noun = Noun {
            word: "node",
            missing: Code::NodeNotFound,
            advice: "list the nodes with `hostler node ls`",
        };
        if let Some(node) = self.node_by_name(text) {
            return Ok(node);
        }
        let found = by_id(text, |range: (NodeId, NodeId)| {
            self.nodes.range(range.0..=range.1).map(|(id, _)| *id)
        });
        let short = || {
            self.nodes
                .keys()
                .copied()
                .filter(|id| ends(id.as_bytes(), text))
        };
        let id = only(found, short, text, &NOUN)?;
        self.nodes.get(&id).ok_or_else(|| missing(text, &NOUN))
    }

    /// A workload by name, id, beginning or last eight digits of its id.
    ///
    /// # Errors
    /// `workload-not-found` or `ambiguous`.
    pub fn find_workload(&self, text: &str) -> Result<&Arc<Workload>, Refusal> {
        const NOUN: Noun = Noun {
            word: "workload",
            missing: Code::WorkloadNotFound,
            advice: "list the workloads with `hostler ps`",
        };
        if let Some(workload) = self.workload_by_name(text) {
            return Ok(workload);
        }
        let found = by_id(text, |range: (WorkloadId, WorkloadId)| {
            self.workloads.range(range.0..=range.1).map(|(id, _)| *id)
        });
        let short = || {
            self.workloads
                .keys()
                .copied()
                .filter(|id| ends(id.as_bytes(), text))
        };
        let id = only(found, short, text, &NOUN)?;
        self.workloads.get(&id).ok_or_else(|| missing(text, &NOUN))
    }

    /// An assignment by id, beginning or last eight digits of its id.
    ///
    /// # Errors
    /// `assignment-not-found` or `ambiguous`.
    pub fn find_assignment(&self, text: &str) -> Result<&Arc<Assignment>, Refusal> {
        const NOUN: Noun = Noun {
            word: "copy",
            missing: Code::AssignmentNotFound,
            advice: "list the copies of a workload with `hostler show <workload>`",
        };
        let found = by_id(text, |range: (AssignmentId, AssignmentId)| {
            self.assignments.range(range.0..=range.1).map(|(id, _)| *id)
        });
        let short = || {
            self.assignments
                .keys()
                .copied()
                .filter(|id| ends(id.as_bytes(), text))
        };
        let id = only(found, short, text, &NOUN)?;
        self.assignments
            .get(&id)
            .ok_or_else(|| missing(text, &NOUN))
    }
}

/// The ids that begin as the text does; a few suffice to know that it is ambiguous.
fn by_id<I, F, R>(text: &str, range: F) -> Vec<I>
where
    I: FromStr,
    F: FnOnce((I, I)) -> R,
    R: Iterator<Item = I>,
{
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let is_prefix = (SHORTEST_PREFIX..=32).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_prefix {
        return Vec::new();
    }
    let least = format!("{digits:0<32}").parse();
    let most = format!("{digits:f<32}").parse();
    match (least, most) {
        (Ok(least), Ok(most)) => range((least, most)).take(NAMED_CANDIDATES).collect(),
        _ => Vec::new(),
    }
}

/// Whether the id's last eight digits are the text.
fn ends(id: &[u8; 16], text: &str) -> bool {
    u32::from_str_radix(text, 16)
        .is_ok_and(|tail| text.len() == 8 && id[12..] == tail.to_be_bytes())
}

fn only<I: Display + Copy, S: Iterator<Item = I>>(
    begins: Vec<I>,
    ends: impl FnOnce() -> S,
    text: &str,
    noun: &Noun,
) -> Result<I, Refusal> {
    let mut found = begins;
    if text.len() == 8 {
        found.extend(ends().take(NAMED_CANDIDATES));
    }
    match found.as_slice() {
        [] => Err(missing(text, noun)),
        [id] => Ok(*id),
        several => {
            let sentence = format!("`{text}` fits more than one {}", noun.word);
            let details = several.iter().map(ToString::to_string).collect();
            Err(Refusal::new(
                Code::Ambiguous,
                sentence,
                "give more digits of the id, or its last eight",
            )
            .with_details(details))
        }
    }
}

fn missing(text: &str, noun: &Noun) -> Refusal {
    let sentence = format!("no {} is called `{text}`", noun.word);
    Refusal::new(noun.missing, sentence, noun.advice)
}
