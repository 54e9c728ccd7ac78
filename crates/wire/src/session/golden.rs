//! Golden bytes of every message of the session contract, written by hand from the protobuf encoding rules,
//! read and written. They change only by addition: old agents and old control planes send these bytes.

use std::collections::BTreeMap;

use prost::Message as _;

use super::v1::*;
use crate::golden::golden;

fn unit() -> Option<UnitId> {
    Some(UnitId {
        assignment: "a".into(),
        generation: 7,
    })
}

fn exit(exit: exit::Exit) -> Option<Exit> {
    Some(Exit { exit: Some(exit) })
}

#[test]
fn versions_and_resume_have_their_bytes() {
    golden(
        &Versions {
            lowest: 1,
            highest: 3,
        },
        b"\x08\x01\x10\x03",
    );
    golden(
        &Resume {
            fleet_id: "f".into(),
            node_id: "n".into(),
            store_epoch: "e".into(),
        },
        b"\x0a\x01f\x12\x01n\x1a\x01e",
    );
}

#[test]
fn facts_have_their_bytes() {
    let disk = Disk {
        mount: "/".into(),
        total_bytes: 300,
        free_bytes: 7,
    };
    golden(&disk, b"\x0a\x01/\x10\xac\x02\x18\x07");
    let runtime = RuntimeFact {
        kind: "process".into(),
        available: true,
        version: "1".into(),
        note: "n".into(),
    };
    golden(&runtime, b"\x0a\x07process\x10\x01\x1a\x011\x22\x01n");
    let resources = Resources {
        milli_cpu: 2000,
        memory_bytes: 1 << 20,
        disk_bytes: 0,
    };
    golden(&resources, b"\x08\xd0\x0f\x10\x80\x80\x40");
    let facts = Facts {
        hostname: "h".into(),
        os: "linux".into(),
        arch: "arm".into(),
        kernel: "6".into(),
        cpu_count: 4,
        memory_bytes: 1,
        disks: vec![Disk {
            mount: "/".into(),
            total_bytes: 1,
            free_bytes: 0,
        }],
        addresses: vec!["::1".into(), "a".into()],
        boot_id: "b".into(),
        runtimes: vec![RuntimeFact {
            kind: "vm".into(),
            ..RuntimeFact::default()
        }],
        storage: vec![StorageFact {
            driver: "nfs".into(),
            available: true,
            note: "n".into(),
        }],
    };
    golden(
        &facts,
        b"\x0a\x01h\x12\x05linux\x1a\x03arm\x22\x016\x28\x04\x30\x01\
          \x3a\x05\x0a\x01/\x10\x01\x42\x03::1\x42\x01a\x4a\x01b\x52\x04\x0a\x02vm\
          \x5a\x0a\x0a\x03nfs\x10\x01\x1a\x01n",
    );
}

#[test]
fn hello_has_its_bytes() {
    let hello = Hello {
        versions: Some(Versions {
            lowest: 1,
            highest: 1,
        }),
        agent_version: "0.1.0".into(),
        identity: "k".into(),
        name: "n".into(),
        facts: Some(Facts {
            hostname: "h".into(),
            ..Facts::default()
        }),
        capacity: Some(Resources {
            milli_cpu: 1,
            ..Resources::default()
        }),
        labels: BTreeMap::from([("c".into(), "d".into()), ("a".into(), "b".into())]),
        resume: Some(Resume {
            fleet_id: "f".into(),
            ..Resume::default()
        }),
        time_ms: 300,
        machine: "m".into(),
        copied_from: "c".into(),
        key: "y".into(),
        believes: "b".into(),
    };
    golden(
        &hello,
        b"\x0a\x04\x08\x01\x10\x01\x12\x050.1.0\x1a\x01k\x22\x01n\x2a\x03\x0a\x01h\x32\x02\x08\x01\
          \x3a\x06\x0a\x01a\x12\x01b\x3a\x06\x0a\x01c\x12\x01d\x42\x03\x0a\x01f\xf0\x01\xac\x02\
          \xc2\x02\x01m\xca\x02\x01c\xd2\x02\x01y\xda\x02\x01b",
    );
}

#[test]
fn welcome_and_refused_have_their_bytes() {
    let welcome = Welcome {
        version: 1,
        fleet_id: "f".into(),
        store_epoch: "e".into(),
        node_id: "n".into(),
        beat_interval_ms: 1000,
        lease_ms: 5000,
        server_time_ms: 1,
        store_revision: 300,
        server_run: u64::MAX,
        takes_facts: true,
    };
    let older = b"\x08\x01\x12\x01f\x1a\x01e\x22\x01n\x28\xe8\x07\x30\x88\x27\x38\x01";
    let newer = b"\x40\xac\x02\x48\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xa0\x01\x01";
    golden(&welcome, &[&older[..], newer].concat());
    // What a control plane says that knows nothing of revisions, and takes facts in the hello only.
    let silent = Welcome {
        store_revision: 0,
        server_run: 0,
        takes_facts: false,
        ..welcome
    };
    golden(&silent, older);
    let refused = Refused {
        code: "c".into(),
        sentence: "s".into(),
        advice: "a".into(),
    };
    golden(&refused, b"\x0a\x01c\x12\x01s\x1a\x01a");
}

#[test]
fn beats_have_their_bytes() {
    let usage = Usage {
        cpu_percent: 1.5,
        memory_percent: 50.0,
        memory_used_bytes: 1,
        disk_free_bytes: 2,
        running_containers: vec!["x".into(), "y".into()],
        units: Vec::new(),
        pressure: None,
    };
    golden(
        &usage,
        b"\x0d\x00\x00\xc0\x3f\x15\x00\x00\x48\x42\x18\x01\x20\x02\x2a\x01x\x2a\x01y",
    );
    let beat = Beat {
        sequence: 1,
        usage: Some(Usage {
            cpu_percent: 1.5,
            ..Usage::default()
        }),
        observed_digest: u64::MAX,
    };
    golden(
        &beat,
        b"\x08\x01\x12\x05\x0d\x00\x00\xc0\x3f\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    );
    let measured = UnitUsage {
        unit: None,
        cpu_nanos: 1,
        milli_cpu: 2,
        memory_bytes: 3,
        read_bytes: Some(0),
        written_bytes: None,
        received_bytes: Some(4),
        sent_bytes: Some(5),
    };
    let usage = Usage {
        units: vec![measured],
        ..Usage::default()
    };
    golden(
        &usage,
        b"\x32\x0c\x10\x01\x18\x02\x20\x03\x28\x00\x38\x04\x40\x05",
    );
    let pressed = Usage {
        pressure: Some(Pressure {
            short_of: vec!["disk".into()],
        }),
        ..Usage::default()
    };
    golden(&pressed, b"\x3a\x06\x0a\x04disk");
    golden(&BeatAck { sequence: 5 }, b"\x08\x05");
    golden(&Resend {}, b"");
}

#[test]
fn observed_has_its_bytes() {
    let running = UnitState {
        state: Some(unit_state::State::Running(unit_state::Running {
            since_ms: 5,
        })),
    };
    let observed = Observed {
        full: true,
        last: true,
        units: vec![ObservedUnit {
            unit: unit(),
            workload: "w".into(),
            kind: "process".into(),
            state: Some(running),
            runs: 2,
            parts: Vec::new(),
            health: None,
            crash_loop: None,
        }],
    };
    golden(&unit().expect("it is one"), b"\x0a\x01a\x10\x07");
    golden(
        &observed,
        b"\x08\x01\x10\x01\x1a\x1b\x0a\x05\x0a\x01a\x10\x07\x12\x01w\x1a\x07process\
          \x22\x04\x1a\x02\x08\x05\x28\x02",
    );
}

#[test]
fn a_part_has_its_bytes() {
    let part = Part {
        name: "db".into(),
        state: "exited".into(),
        exit: Some(Exit {
            exit: Some(exit::Exit::Code(3)),
        }),
    };
    golden(&part, b"\x0a\x02db\x12\x06exited\x1a\x02\x08\x03");
    let unit = ObservedUnit {
        parts: vec![part],
        ..ObservedUnit::default()
    };
    golden(&unit, b"\x32\x10\x0a\x02db\x12\x06exited\x1a\x02\x08\x03");
}

#[test]
fn every_unit_state_has_its_bytes() {
    use unit_state::{
        Failed, Finished, Gone, Preparing, Running, Starting, State, Stopping, Waiting,
    };
    let states: [(State, &[u8]); 8] = [
        (
            State::Preparing(Preparing { detail: "d".into() }),
            b"\x0a\x03\x0a\x01d",
        ),
        (State::Starting(Starting {}), b"\x12\x00"),
        (State::Running(Running { since_ms: 5 }), b"\x1a\x02\x08\x05"),
        (
            State::Waiting(Waiting {
                exit: exit(exit::Exit::Code(0)),
                retry_at_ms: 9,
            }),
            b"\x22\x06\x0a\x02\x08\x00\x10\x09",
        ),
        (
            State::Failed(Failed {
                code: "c".into(),
                message: "m".into(),
                retry_at_ms: 9,
            }),
            b"\x2a\x08\x0a\x01c\x12\x01m\x18\x09",
        ),
        (State::Stopping(Stopping {}), b"\x32\x00"),
        (
            State::Finished(Finished {
                exit: exit(exit::Exit::Code(7)),
                at_ms: 9,
            }),
            b"\x3a\x06\x0a\x02\x08\x07\x10\x09",
        ),
        (State::Gone(Gone {}), b"\x42\x00"),
    ];
    for (state, bytes) in states {
        golden(&UnitState { state: Some(state) }, bytes);
    }
}

#[test]
fn every_exit_has_its_bytes() {
    let exits: [(exit::Exit, &[u8]); 6] = [
        (
            exit::Exit::Code(-1),
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ),
        (exit::Exit::Signal(9), b"\x10\x09"),
        (exit::Exit::OutOfMemory(true), b"\x18\x01"),
        (exit::Exit::Unknown(true), b"\x20\x01"),
        (exit::Exit::TimedOut(true), b"\x28\x01"),
        (exit::Exit::Unhealthy(true), b"\x30\x01"),
    ];
    for (exit, bytes) in exits {
        golden(&Exit { exit: Some(exit) }, bytes);
    }
}

#[test]
fn intent_has_its_bytes() {
    let intent = Intent {
        version: 2,
        full: true,
        last: true,
        specs: vec![Spec {
            workload: "w".into(),
            revision: 3,
            json: b"{}".to_vec(),
        }],
        items: vec![IntentItem {
            unit: unit(),
            workload: "w".into(),
            workload_name: "web".into(),
            slot: 2,
            revision: 3,
            stop_cause: "deleted".into(),
            finished: true,
        }],
        removed_assignments: vec!["x".into()],
        store_revision: 300,
    };
    golden(
        &intent,
        b"\x08\x02\x10\x01\x18\x01\x22\x09\x0a\x01w\x10\x03\x1a\x02{}\
          \x2a\x1e\x0a\x05\x0a\x01a\x10\x07\x12\x01w\x1a\x03web\x20\x02\x28\x03\x32\x07deleted\x38\x01\
          \x32\x01x\x38\xac\x02",
    );
    golden(&Applied { version: 2 }, b"\x08\x02");
    golden(
        &Held {
            reason: "r".into(),
            would_stop: 5,
        },
        b"\x0a\x01r\x10\x05",
    );
}

#[test]
fn commands_have_their_bytes() {
    golden(
        &Command {
            id: "c".into(),
            json: b"{}".to_vec(),
        },
        b"\x0a\x01c\x12\x02{}",
    );
    let acknowledge = Acknowledge {
        command: "c".into(),
        done: true,
        message: "m".into(),
    };
    golden(&acknowledge, b"\x0a\x01c\x10\x01\x1a\x01m");
}

#[test]
fn bulk_transfers_have_their_bytes() {
    let request = LogRequest {
        unit: unit(),
        previous: true,
        tail: 10,
        has_tail: true,
        since_ms: 5,
        follow: true,
    };
    let open = Open {
        ticket: "t".into(),
        request: Some(open::Request::Logs(request)),
    };
    golden(
        &open,
        b"\x0a\x01t\x12\x11\x0a\x05\x0a\x01a\x10\x07\x10\x01\x18\x0a\x20\x01\x28\x05\x30\x01",
    );
    let line = LogLine {
        at_ms: 5,
        stream: "stdout".into(),
        text: "x".into(),
        partial: true,
        run: 2,
    };
    let end = End {
        code: "c".into(),
        message: "m".into(),
    };
    let frames: [(bulk_frame::Frame, &[u8]); 3] = [
        (bulk_frame::Frame::Ticket("t".into()), b"\x0a\x01t"),
        (
            bulk_frame::Frame::LogLines(LogLines { lines: vec![line] }),
            b"\x12\x13\x0a\x11\x08\x05\x12\x06stdout\x1a\x01x\x20\x01\x28\x02",
        ),
        (bulk_frame::Frame::End(end), b"\x1a\x06\x0a\x01c\x12\x01m"),
    ];
    for (frame, bytes) in frames {
        golden(&BulkFrame { frame: Some(frame) }, bytes);
    }
}

#[test]
fn errands_have_their_bytes() {
    let size = TerminalSize {
        rows: 2,
        columns: 3,
    };
    let command = ExecCommand {
        words: vec!["a".into(), "b".into()],
        input: true,
        terminal: Some(size),
        user: "u".into(),
        env: [("k".into(), "v".into())].into(),
        directory: "d".into(),
    };
    golden(
        &command,
        b"\x0a\x01a\x0a\x01b\x10\x01\x1a\x04\x08\x02\x10\x03\x22\x01u\x2a\x06\x0a\x01k\x12\x01v\x32\x01d",
    );
    let tasks: [(errand::Errand, &[u8]); 4] = [
        (errand::Errand::Exec(ExecCommand::default()), b"\x1a\x00"),
        (errand::Errand::Forward(80), b"\x20\x50"),
        (errand::Errand::ReadFiles("r".into()), b"\x2a\x01r"),
        (errand::Errand::WriteFiles("w".into()), b"\x32\x01w"),
    ];
    for (task, bytes) in tasks {
        let errand = Errand {
            unit: unit(),
            part: "p".into(),
            errand: Some(task),
        };
        let expected = [b"\x0a\x05\x0a\x01a\x10\x07\x12\x01p", bytes].concat();
        golden(&errand, &expected);
    }
    let open = Open {
        ticket: "t".into(),
        request: Some(open::Request::Errand(Errand::default())),
    };
    golden(&open, b"\x0a\x01t\x1a\x00");
    let frames: [(bulk_frame::Frame, &[u8]); 6] = [
        (bulk_frame::Frame::Begun(Begun {}), b"\x22\x00"),
        (bulk_frame::Frame::Bytes(b"o".to_vec()), b"\x2a\x01o"),
        (bulk_frame::Frame::ErrorBytes(b"e".to_vec()), b"\x32\x01e"),
        (bulk_frame::Frame::EndOfBytes(EndOfBytes {}), b"\x3a\x00"),
        (bulk_frame::Frame::Resize(size), b"\x42\x04\x08\x02\x10\x03"),
        (
            bulk_frame::Frame::Exited(Exit {
                exit: Some(exit::Exit::Code(3)),
            }),
            b"\x4a\x02\x08\x03",
        ),
    ];
    for (frame, bytes) in frames {
        golden(&BulkFrame { frame: Some(frame) }, bytes);
    }
}

#[test]
fn every_message_of_the_streams_has_its_tag() {
    use node_message::Message as Node;
    use server_message::Message as Server;
    let from_node: [(Node, &[u8]); 9] = [
        (Node::Hello(Hello::default()), b"\x0a\x00"),
        (Node::Observed(Observed::default()), b"\x12\x00"),
        (
            Node::Beat(Beat {
                sequence: 1,
                ..Beat::default()
            }),
            b"\x1a\x02\x08\x01",
        ),
        (Node::Acknowledge(Acknowledge::default()), b"\x22\x00"),
        (Node::Held(Held::default()), b"\x2a\x00"),
        (Node::Applied(Applied { version: 2 }), b"\x32\x02\x08\x02"),
        (Node::Facts(Facts::default()), b"\x52\x00"),
        (
            Node::Believes(Believes {
                authority: "a".into(),
            }),
            b"\xc2\x01\x03\x0a\x01a",
        ),
        (Node::Leave(Leave {}), b"\xca\x01\x00"),
    ];
    for (message, bytes) in from_node {
        golden(
            &NodeMessage {
                message: Some(message),
            },
            bytes,
        );
    }
    let from_server: [(Server, &[u8]); 9] = [
        (Server::Welcome(Welcome::default()), b"\x0a\x00"),
        (Server::Refused(Refused::default()), b"\x12\x00"),
        (Server::Intent(Intent::default()), b"\x1a\x00"),
        (Server::Command(Command::default()), b"\x22\x00"),
        (Server::Open(Open::default()), b"\x2a\x00"),
        (
            Server::BeatAck(BeatAck { sequence: 1 }),
            b"\x32\x02\x08\x01",
        ),
        (Server::Resend(Resend {}), b"\x3a\x00"),
        (Server::Secrets(Secrets::default()), b"\x8a\x01\x00"),
        (Server::RenewNow(RenewNow {}), b"\xc2\x01\x00"),
    ];
    for (message, bytes) in from_server {
        golden(
            &ServerMessage {
                message: Some(message),
            },
            bytes,
        );
    }
}

#[test]
fn secrets_have_their_bytes_and_print_no_value() {
    let value = SecretValue {
        name: "a".into(),
        version: 7,
        value: b"v".into(),
    };
    golden(&value, b"\x0a\x01a\x10\x07\x1a\x01v");
    let secrets = Secrets {
        values: vec![value],
        forgotten: vec!["b".into()],
    };
    golden(&secrets, b"\x0a\x08\x0a\x01a\x10\x07\x1a\x01v\x12\x01b");
    assert!(!format!("{secrets:?}").contains("118"));
}

#[test]
fn unknown_fields_are_ignored() {
    let bytes = b"\x08\x01\xfa\x06\x03new";
    assert_eq!(
        Beat::decode(bytes.as_slice()).map(|beat| beat.sequence),
        Ok(1)
    );
}
