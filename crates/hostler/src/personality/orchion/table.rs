//! The flags of `node-agent`.

use super::super::flags::{Flag, Kind};

pub(super) const USUAL_SERVER: &str = "localhost:50051";
const PORT: Kind = Kind::Number(1, 65_535);

const fn flag(name: &'static str, kind: Kind, usual: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        kind,
        usual,
        help,
    }
}

/// In the order of the alphabet, as Go lists them.
pub(super) const FLAGS: [Flag; 20] = [
    flag(
        "agent-host",
        Kind::Text,
        "",
        "Address that the agent's own service listens on; every one if left out",
    ),
    flag(
        "agent-port",
        Kind::Number(0, 65_535),
        "50052",
        "Port of the agent's own service",
    ),
    flag(
        "capability-interval",
        Kind::Span,
        "10s",
        "How often capabilities are sent",
    ),
    flag(
        "config",
        Kind::Text,
        "",
        "File in YAML or JSON whose keys are the names of these flags",
    ),
    flag(
        "data-dir",
        Kind::Text,
        "",
        "Where the agent keeps its files; variable HOSTLER_DATA_DIR",
    ),
    flag(
        "enable-ollama",
        Kind::Switch,
        "",
        "Run an Ollama engine (not yet)",
    ),
    flag(
        "enable-vllm",
        Kind::Switch,
        "",
        "Run a vLLM engine (not yet)",
    ),
    flag(
        "health-listen",
        Kind::Text,
        "",
        "Where the agent answers /healthz, /readyz and /metrics; variable HOSTLER_AGENT_LISTEN",
    ),
    flag(
        "heartbeat-interval",
        Kind::Span,
        "5s",
        "How often a heartbeat is sent",
    ),
    flag(
        "hostname",
        Kind::Text,
        "",
        "Host name to register under; the machine's own if left out",
    ),
    flag(
        "node-id",
        Kind::Text,
        "",
        "Id to register under; made up once and kept if left out",
    ),
    flag(
        "ollama-gpus",
        Kind::Gpus,
        "all",
        "GPUs of the Ollama engine: all, 0, or 0,1 (not yet)",
    ),
    flag(
        "ollama-model",
        Kind::Text,
        "llama2",
        "Model of the Ollama engine (not yet)",
    ),
    flag(
        "ollama-port",
        PORT,
        "11434",
        "Port of the Ollama engine (not yet)",
    ),
    flag(
        "orchestrator",
        Kind::Text,
        USUAL_SERVER,
        "Address of the orchestrator",
    ),
    flag(
        "vllm-gpus",
        Kind::Gpus,
        "all",
        "GPUs of the vLLM engine: all, 0, or 0,1 (not yet)",
    ),
    flag(
        "vllm-max-model-len",
        Kind::Number(0, u32::MAX),
        "4096",
        "Longest context of the vLLM engine (not yet)",
    ),
    flag(
        "vllm-model",
        Kind::Text,
        "mistralai/Mistral-7B-Instruct-v0.1",
        "Model of the vLLM engine (not yet)",
    ),
    flag(
        "vllm-port",
        PORT,
        "8000",
        "Port of the vLLM engine (not yet)",
    ),
    flag(
        "vllm-tensor-parallel",
        Kind::Number(1, 1024),
        "1",
        "GPUs that share one model in the vLLM engine (not yet)",
    ),
];
