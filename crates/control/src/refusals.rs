//! The shell's own refusals, each in one place so that a code always comes with the same sentence.

use hostler_kit::sealed::KeyringError;
use hostler_model::{Code, NodeId, Refusal, Task};

pub(crate) fn not_leader() -> Refusal {
    let sentence = "this server does not decide now; nothing was changed";
    Refusal::new(
        Code::NotLeader,
        sentence,
        "ask the server that leads, or try again",
    )
}

pub(crate) fn stopping() -> Refusal {
    let sentence = "the server is stopping; nothing was changed";
    Refusal::new(Code::Overloaded, sentence, "try again when it is back")
}

pub(crate) fn too_busy() -> Refusal {
    let sentence = "too many requests are waiting; nothing was changed";
    Refusal::new(Code::Overloaded, sentence, "try again in a moment")
}

pub(crate) fn outcome_unknown() -> Refusal {
    let sentence = "the store did not answer in time; whether the change was made is not known";
    Refusal::new(Code::StoreUnavailable, sentence, "look before asking again")
}

pub(crate) fn store_fails(trouble: &str) -> Refusal {
    let sentence = format!("{trouble}; whether the change was made is not known");
    let advice = "see to the disk of the server's data directory, then look before asking again";
    Refusal::new(Code::StoreUnavailable, sentence, advice)
}

pub(crate) fn too_large() -> Refusal {
    let sentence = "the change is larger than the store takes at once";
    Refusal::new(
        Code::BodyTooLarge,
        sentence,
        "make it smaller, or in several steps",
    )
}

pub(crate) fn node_not_found(node: NodeId) -> Refusal {
    Refusal::new(
        Code::NodeNotFound,
        format!("there is no node {node}"),
        "list the nodes",
    )
}

pub(crate) fn node_gone(name: &str) -> Refusal {
    let sentence = format!("the node {name} was removed");
    Refusal::new(
        Code::NodeGone,
        sentence,
        "join it as a new node, with a fresh identity",
    )
}

pub(crate) fn no_secret(name: &str) -> Refusal {
    let sentence = format!("there is no secret `{name}`");
    Refusal::new(
        Code::SecretNotFound,
        sentence,
        "list the secrets with `hostler secret ls`",
    )
}

pub(crate) fn no_keys() -> Refusal {
    let sentence = "this server has no key for secrets";
    let advice = "start it with `--secrets-key FILE`";
    Refusal::new(Code::SecretsLocked, sentence, advice)
}

pub(crate) fn locked(name: &str, why: &str) -> Refusal {
    let sentence = format!("the secret {name} cannot be opened: {why}");
    let advice = "start the server with the key file that sealed it, or set it again";
    Refusal::new(Code::SecretsLocked, sentence, advice)
}

pub(crate) fn keys_unwritten(error: &KeyringError) -> Refusal {
    let cause = std::error::Error::source(error).map_or_else(String::new, |it| format!(": {it}"));
    let sentence = format!("{error}{cause}; no key was changed");
    let advice = "see to the disk of the server's key file, then try again";
    Refusal::new(Code::SecretsLocked, sentence, advice)
}

pub(crate) fn internal(sentence: &str) -> Refusal {
    let advice = "please report this; the server's log says more";
    Refusal::new(Code::Internal, sentence, advice)
}

pub(crate) fn session_replaced() -> Refusal {
    let sentence = "a newer session speaks for this node";
    Refusal::new(Code::StaleReport, sentence, "end this session")
}

pub(crate) fn unreachable(name: &str) -> Refusal {
    let sentence = format!("the node {name} cannot be reached now");
    Refusal::new(
        Code::NodeUnreachable,
        sentence,
        "try again when it is connected",
    )
}

pub(crate) fn no_such_replica(node: NodeId) -> Refusal {
    let sentence = format!("node {node} has no such replica that stands by");
    Refusal::new(Code::ReplicaNotFound, sentence, "list its replicas")
}

pub(crate) fn no_tunnels(name: &str, task: &Task) -> Refusal {
    let sentence = format!("the agent of node {name} has no way for this");
    let advice = "run Hostler's own agent there, or do it on the node itself";
    Refusal::new(task.unsupported(), sentence, advice)
}
