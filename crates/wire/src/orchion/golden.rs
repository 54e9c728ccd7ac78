//! Golden bytes of every message of `orchion.v1`, from the contract's tables of numbers and types, read and
//! written. Every field is set once; peers of any age send these bytes.

use std::collections::BTreeMap;

use crate::golden::golden;
use crate::orchion::v1::*;

#[expect(deprecated, reason = "old agents still send the field")]
#[test]
fn capabilities_to_register_node_response_have_their_bytes() {
    golden(
        &Capabilities {
            cpu: "b".into(),
            memory: "c".into(),
            os: "d".into(),
            gpu_type: "e".into(),
            gpu_vram_total: "f".into(),
            gpu_vram_available: "g".into(),
            power_usage: "h".into(),
            gpu_vram_used: "i".into(),
            gpu_temperature: "j".into(),
            gpu_power_usage: "k".into(),
        },
        b"\x0a\x01b\x12\x01c\x1a\x01d\x22\x01e*\x01f2\x01g:\x01hB\x01iJ\x01jR\x01k",
    );
    golden(
        &Node {
            id: "b".into(),
            hostname: "c".into(),
            capabilities: Some(Capabilities {
                cpu: "c".into(),
                ..Capabilities::default()
            }),
            last_seen_unix: 304,
            agent_address: "f".into(),
        },
        b"\x0a\x01b\x12\x01c\x1a\x03\x0a\x01c\x20\xb0\x02*\x01f",
    );
    golden(
        &RegisterNodeRequest {
            node: Some(Node {
                id: "c".into(),
                ..Node::default()
            }),
        },
        b"\x0a\x03\x0a\x01c",
    );
    golden(&RegisterNodeResponse {}, b"");
}

#[test]
fn heartbeat_request_to_update_node_response_have_their_bytes() {
    golden(
        &HeartbeatRequest {
            node_id: "b".into(),
        },
        b"\x0a\x01b",
    );
    golden(&HeartbeatResponse {}, b"");
    golden(
        &UpdateNodeRequest {
            node_id: "b".into(),
            capabilities: Some(Capabilities {
                cpu: "c".into(),
                ..Capabilities::default()
            }),
        },
        b"\x0a\x01b\x12\x03\x0a\x01c",
    );
    golden(&UpdateNodeResponse {}, b"");
}

#[test]
fn list_nodes_request_to_stream_logs_request_have_their_bytes() {
    golden(&ListNodesRequest {}, b"");
    golden(
        &ListNodesResponse {
            nodes: vec![
                Node {
                    id: "c".into(),
                    ..Node::default()
                },
                Node::default(),
            ],
        },
        b"\x0a\x03\x0a\x01c\x0a\x00",
    );
    golden(
        &LogEntry {
            id: "b".into(),
            timestamp: 302,
            level: LogLevel::Error as i32,
            source: "e".into(),
            message: "f".into(),
            fields: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
        },
        b"\x0a\x01b\x10\xae\x02\x18\x04\x22\x01e*\x01f2\x06\x0a\x01a\x12\x01b2\x06\x0a\x01k\
          \x12\x01v",
    );
    golden(&StreamLogsRequest {}, b"");
}

#[test]
fn stream_logs_response_to_chat_choice_have_their_bytes() {
    golden(
        &StreamLogsResponse {
            entry: Some(LogEntry {
                id: "c".into(),
                ..LogEntry::default()
            }),
        },
        b"\x0a\x03\x0a\x01c",
    );
    golden(
        &ChatMessage {
            role: "b".into(),
            content: "c".into(),
        },
        b"\x0a\x01b\x12\x01c",
    );
    golden(
        &ChatCompletionRequest {
            model: "b".into(),
            messages: vec![
                ChatMessage {
                    role: "c".into(),
                    ..ChatMessage::default()
                },
                ChatMessage::default(),
            ],
            temperature: 3.5,
            stream: true,
            max_tokens: 205,
        },
        b"\x0a\x01b\x12\x03\x0a\x01c\x12\x00\x1d\x00\x00`@\x20\x01(\xcd\x01",
    );
    golden(
        &ChatChoice {
            index: 201,
            message: Some(ChatMessage {
                role: "c".into(),
                ..ChatMessage::default()
            }),
            finish_reason: "d".into(),
        },
        b"\x08\xc9\x01\x12\x03\x0a\x01c\x1a\x01d",
    );
}

#[test]
fn chat_completion_response_to_embedding_response_have_their_bytes() {
    golden(
        &ChatCompletionResponse {
            id: "b".into(),
            model: "c".into(),
            choices: vec![
                ChatChoice {
                    index: 1,
                    ..ChatChoice::default()
                },
                ChatChoice::default(),
            ],
            created: 304,
            object: "f".into(),
        },
        b"\x0a\x01b\x12\x01c\x1a\x02\x08\x01\x1a\x00\x20\xb0\x02*\x01f",
    );
    golden(
        &EmbeddingRequest {
            model: "b".into(),
            input: vec!["c".into(), "d".into()],
        },
        b"\x0a\x01b\x12\x01c\x12\x01d",
    );
    golden(
        &Embedding {
            embedding: vec![0.5, -1.0],
            index: 202,
        },
        b"\x0a\x08\x00\x00\x00?\x00\x00\x80\xbf\x10\xca\x01",
    );
    golden(
        &EmbeddingResponse {
            model: "b".into(),
            data: vec![
                Embedding {
                    index: 2,
                    ..Embedding::default()
                },
                Embedding::default(),
            ],
            object: "d".into(),
            usage_prompt_tokens: 204,
        },
        b"\x0a\x01b\x12\x02\x10\x02\x12\x00\x1a\x01d\x20\xcc\x01",
    );
}

#[test]
fn submit_job_request_to_get_job_status_response_have_their_bytes() {
    golden(
        &SubmitJobRequest {
            job_id: "b".into(),
            job_type: JobType::ChatCompletion as i32,
            payload: vec![3, 255],
        },
        b"\x0a\x01b\x10\x01\x1a\x02\x03\xff",
    );
    golden(
        &SubmitJobResponse {
            job_id: "b".into(),
            status: JobStatus::Running as i32,
        },
        b"\x0a\x01b\x10\x03",
    );
    golden(&GetJobStatusRequest { job_id: "b".into() }, b"\x0a\x01b");
    golden(
        &GetJobStatusResponse {
            job_id: "b".into(),
            status: JobStatus::Running as i32,
            assigned_node: "d".into(),
            error_message: "e".into(),
            result: vec![5, 255],
        },
        b"\x0a\x01b\x10\x03\x1a\x01d\x22\x01e*\x02\x05\xff",
    );
}

#[test]
fn every_enum_has_its_numbers_and_names() {
    assert_eq!(
        LogLevel::from_str_name("LOG_LEVEL_UNSPECIFIED").map(|it| it as i32),
        Some(0)
    );
    assert_eq!(
        LogLevel::from_str_name("LOG_LEVEL_DEBUG").map(|it| it as i32),
        Some(1)
    );
    assert_eq!(
        LogLevel::from_str_name("LOG_LEVEL_INFO").map(|it| it as i32),
        Some(2)
    );
    assert_eq!(
        LogLevel::from_str_name("LOG_LEVEL_WARN").map(|it| it as i32),
        Some(3)
    );
    assert_eq!(
        LogLevel::from_str_name("LOG_LEVEL_ERROR").map(|it| it as i32),
        Some(4)
    );
    assert_eq!(
        JobType::from_str_name("JOB_TYPE_UNSPECIFIED").map(|it| it as i32),
        Some(0)
    );
    assert_eq!(
        JobType::from_str_name("JOB_TYPE_CHAT_COMPLETION").map(|it| it as i32),
        Some(1)
    );
    assert_eq!(
        JobType::from_str_name("JOB_TYPE_EMBEDDINGS").map(|it| it as i32),
        Some(2)
    );
    assert_eq!(
        JobStatus::from_str_name("JOB_STATUS_UNSPECIFIED").map(|it| it as i32),
        Some(0)
    );
    assert_eq!(
        JobStatus::from_str_name("JOB_STATUS_PENDING").map(|it| it as i32),
        Some(1)
    );
    assert_eq!(
        JobStatus::from_str_name("JOB_STATUS_ASSIGNED").map(|it| it as i32),
        Some(2)
    );
    assert_eq!(
        JobStatus::from_str_name("JOB_STATUS_RUNNING").map(|it| it as i32),
        Some(3)
    );
    assert_eq!(
        JobStatus::from_str_name("JOB_STATUS_COMPLETED").map(|it| it as i32),
        Some(4)
    );
    assert_eq!(
        JobStatus::from_str_name("JOB_STATUS_FAILED").map(|it| it as i32),
        Some(5)
    );
}

#[test]
fn every_call_has_its_path() {
    let generated = include_str!("../gen/orchion.v1.rs");
    let calls = [
        "/orchion.v1.Orchestrator/RegisterNode",
        "/orchion.v1.Orchestrator/UpdateNode",
        "/orchion.v1.Orchestrator/Heartbeat",
        "/orchion.v1.Orchestrator/ListNodes",
        "/orchion.v1.Orchestrator/SubmitJob",
        "/orchion.v1.Orchestrator/GetJobStatus",
        "/orchion.v1.OrchionLLM/ChatCompletion",
        "/orchion.v1.OrchionLLM/Embeddings",
        "/orchion.v1.NodeAgent/ChatCompletion",
        "/orchion.v1.NodeAgent/Embeddings",
        "/orchion.v1.LogStreamer/StreamLogs",
    ];
    for call in calls {
        // Once where it is served, once where it is called.
        assert_eq!(
            generated.matches(&format!("\"{call}\"")).count(),
            2,
            "{call}"
        );
    }
}
