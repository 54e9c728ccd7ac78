//! The `model` section: a model server.

use serde::{Deserialize, Serialize};

/// A model server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The model's name, as its engine knows it.
    pub name: String,
    /// `vllm`, `ollama` or `llama-cpp`.
    pub engine: String,
}
