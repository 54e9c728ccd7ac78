//! Agents of the spot manager at a server of ours: shown by the command line, and kept when the server is killed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::fleet::Fleet;

/// Sends a request as text and reads the whole answer.
pub(crate) fn ask(fleet: &Fleet, request: &str, token: &str, body: &Value) -> Value {
    let addr = fleet.addr();
    let host = addr.strip_prefix("http://").unwrap();
    let body = body.to_string();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 20"), "{answer}");
    serde_json::from_str(body).unwrap()
}

#[test]
fn a_spot_agent_is_shown_with_its_machine_and_outlives_a_killed_server() {
    let mut fleet = Fleet::without_agent("/nonexistent/docker.sock");
    let created = ask(
        &fleet,
        "POST /api/admin/clients/create",
        "",
        &json!({"name": "acme"}),
    );
    let token = created["client"]["token"].as_str().unwrap().to_owned();
    let registration = json!({
        "logical_agent_id": "agent-rented-1", "instance_id": "i-0123", "instance_type": "t3.medium",
        "region": "ap-south-1", "az": "ap-south-1a", "ami_id": "ami-1", "mode": "spot",
        "hostname": "rented", "private_ip": "10.0.0.1", "public_ip": "", "agent_version": "2.0.0",
    });
    let register = "POST /api/agents/register";
    let id = ask(&fleet, register, &token, &registration)["agent_id"].clone();
    let id = id.as_str().unwrap();
    let issue = format!("POST /api/agents/{id}/issue-switch-command");
    let order = ask(&fleet, &issue, &token, &json!({"target_mode": "ondemand"}));

    let shown = fleet.run(&["node", "show", "rented"]).with_code(0).stdout;
    assert!(
        shown.contains("instance   aws i-0123 t3.medium ap-south-1a spot"),
        "{shown}"
    );
    let listed = fleet.run(&["node", "ls", "-o", "wide"]).with_code(0).stdout;
    assert!(
        listed.contains("INSTANCE") && listed.contains("aws i-0123 t3.medium ap-south-1a spot"),
        "{listed}"
    );

    fleet.kill_server();
    fleet.start_server();
    let pending = format!("GET /api/agents/{id}/pending-commands");
    let waiting = ask(&fleet, &pending, &token, &Value::Null);
    assert_eq!(waiting[0]["id"], order["command_id"]);
    assert_eq!(ask(&fleet, register, &token, &registration)["agent_id"], id);
    fleet.run(&["node", "rm", "--yes", "rented"]).with_code(0);
    let rest = ask(&fleet, register, &token, &registration);
    assert_eq!(
        (&rest["agent_id"], &rest["config"]["enabled"]),
        (&json!(id), &json!(false))
    );
}
