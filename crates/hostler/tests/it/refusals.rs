//! Bad input: typed refusals with a code, a sentence and advice; nothing half-applied.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::fleet::Fleet;

const GOOD: &str = "name: good\ncount: 0\nprocess: { command: [\"true\"] }\n";

fn fleet() -> Fleet {
    Fleet::without_agent("/nonexistent/docker.sock")
}

#[test]
fn a_mistake_in_the_second_document_applies_nothing() {
    let fleet = fleet();
    std::fs::write(
        fleet.path().join("a.yaml"),
        format!("{GOOD}---\nname: bad\nproces: {{}}\n"),
    )
    .unwrap();
    let refused = fleet.run(&["apply", "-f", "a.yaml"]).with_code(1);
    assert!(
        refused.stderr.contains("a.yaml: line 6, column 1"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("code: spec-invalid"),
        "{}",
        refused.stderr
    );
    assert_eq!(fleet.run(&["ps", "-o", "name"]).with_code(0).stdout, "");
    assert_eq!(
        post(&fleet, &format!("{GOOD}---\nname: bad\nproces: {{}}\n")),
        422
    );
    assert_eq!(fleet.run(&["ps", "-o", "name"]).with_code(0).stdout, "");
}

#[test]
fn unknown_names_are_refused_with_a_code() {
    let fleet = fleet();
    for words in [
        &["show", "ghost"][..],
        &["stop", "ghost"],
        &["logs", "ghost"],
        &["why", "ghost"],
    ] {
        let refused = fleet.run(words).with_code(1);
        assert!(
            refused.stderr.contains("code: workload-not-found"),
            "{words:?}: {}",
            refused.stderr
        );
    }
    let refused = fleet.run(&["node", "cordon", "ghost"]).with_code(1);
    assert!(
        refused.stderr.contains("code: node-not-found"),
        "{}",
        refused.stderr
    );
}

#[test]
fn an_oversize_body_and_wrong_types_change_nothing() {
    let fleet = fleet();
    let large = format!("{GOOD}# {}", "x".repeat(2 << 20));
    assert_eq!(post(&fleet, &large), 413);
    for text in [
        "",
        "[1, 2]",
        "name: 7",
        "{",
        "name: good\ncount: many\nprocess: {command: [x]}",
    ] {
        let status = post(&fleet, text);
        assert!((400..500).contains(&status), "{text}: {status}");
    }
    assert_eq!(fleet.run(&["ps", "-o", "name"]).with_code(0).stdout, "");
}

#[test]
fn a_plan_says_by_its_exit_code_whether_something_would_change() {
    let fleet = fleet();
    std::fs::write(fleet.path().join("a.yaml"), GOOD).unwrap();
    let planned = fleet.run(&["plan", "-f", "a.yaml"]).with_code(3);
    assert!(
        planned.stdout.contains("good: would be created"),
        "{}",
        planned.stdout
    );
    fleet.run(&["apply", "-f", "a.yaml"]).with_code(0);
    let planned = fleet.run(&["plan", "-f", "a.yaml"]).with_code(0);
    assert!(
        planned.stdout.contains("good: unchanged"),
        "{}",
        planned.stdout
    );
    let again = fleet.run(&["apply", "-f", "a.yaml"]).with_code(0);
    assert!(
        again.stdout.contains("good unchanged, revision 1"),
        "{}",
        again.stdout
    );
}

/// Posts a spec past the command line's own checks, and gives the status.
fn post(fleet: &Fleet, body: &str) -> u16 {
    let addr = fleet.addr();
    let host = addr.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "POST /api/v1/workloads HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/yaml\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses by the length alone may close before it has read everything.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    text.split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("no answer: {text}"))
        .parse()
        .unwrap()
}
