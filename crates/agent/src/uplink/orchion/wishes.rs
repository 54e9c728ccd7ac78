//! What a node of Orchion is asked for and cannot do yet: model engines, limits and jobs. Plain data, kept for whoever
//! will do it.

use std::time::Duration;

use hostler_model::{Bytes, MilliCpu};

/// Model engines that are wished for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Engines {
    pub vllm: Option<Vllm>,
    pub ollama: Option<Ollama>,
}

/// A vLLM engine that is wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vllm {
    pub model: String,
    pub port: u16,
    pub gpus: Gpus,
    pub tensor_parallel: u32,
    pub max_model_len: u32,
}

/// An Ollama engine that is wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ollama {
    pub model: String,
    pub port: u16,
    pub gpus: Gpus,
}

/// Which GPUs an engine may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpus {
    All,
    These(Vec<u32>),
}

/// What jobs may use together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu: Option<MilliCpu>,
    pub memory: Option<Bytes>,
}

/// How jobs are run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Jobs {
    pub max_concurrent: Option<u32>,
    pub timeout: Option<Duration>,
}

impl Limits {
    /// Each that was set, as a file names it, with its value.
    #[must_use]
    pub fn told(&self) -> Vec<(String, String)> {
        let cpu = self.cpu.map(|cpu| ("cpu", cpu.to_string()));
        let memory = self.memory.map(|memory| ("memory", memory.to_string()));
        named("resource_limits", [cpu, memory])
    }
}

impl Jobs {
    /// Each that was set, as a file names it, with its value.
    #[must_use]
    pub fn told(&self) -> Vec<(String, String)> {
        let count = self
            .max_concurrent
            .map(|count| ("max_concurrent", count.to_string()));
        let timeout = self.timeout.map(|span| ("timeout", format!("{span:?}")));
        named("jobs", [count, timeout])
    }
}

fn named(section: &str, set: [Option<(&str, String)>; 2]) -> Vec<(String, String)> {
    let named = |(key, value): (&str, String)| (format!("{section}.{key}"), value);
    set.into_iter().flatten().map(named).collect()
}
