//! SIGHUP: the configuration is read again while server and agent run.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::fleet::Fleet;
use crate::program::{Running, eventually, hostler, plain, signal};

#[test]
fn a_server_follows_its_file_where_it_can_and_names_what_waits() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("server.toml");
    let data = home.path().join("data");
    let write = |more: &str| {
        let listen = "listen = '127.0.0.1:0'\ninsecure = true\n";
        std::fs::write(&file, format!("{listen}data_dir = {data:?}\n{more}")).unwrap();
    };
    write("log_level = 'warn'\n");
    let mut command = hostler(home.path());
    command.args(["server", "--config"]).arg(&file);
    let mut server = Running::start(&mut command);
    server.line("listening on http://");

    write("log_level = 'info'\n");
    signal(server.pid(), Signal::HUP);
    let line = server.line("the configuration was read again");
    assert!(line.contains("log_level"), "{line}");

    write("log_level = 'info'\ncompat = ['spot=127.0.0.1:0']\n");
    signal(server.pid(), Signal::HUP);
    let line = server.line("at the next start only");
    assert!(
        line.contains("compat") && !line.contains("listen"),
        "{line}"
    );

    write("log_level = 'info'\nsecrets_key = '/nonexistent/secrets.key'\n");
    signal(server.pid(), Signal::HUP);
    server.line("secrets_key");

    write("log_level = 'info'\nno_such_key = 1\n");
    signal(server.pid(), Signal::HUP);
    let line = server.line("nothing is changed");
    assert!(line.contains("no_such_key"), "{line}");
    write("log_level = 'hostler=loud=very'\n");
    signal(server.pid(), Signal::HUP);
    server.line("is no log level");
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn another_secret_of_miaas_tokens_signs_at_once_and_the_former_is_believed() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("server.toml");
    let data = home.path().join("data");
    let write = |secret: &str| {
        let text = format!(
            "listen = '127.0.0.1:0'\ninsecure = true\ndata_dir = {data:?}\n\
             [miaas]\ndialect = 'later'\njwt_secret = '{secret}'\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    write("first");
    let mut command = hostler(home.path());
    command.args(["server", "--config"]).arg(&file);
    let mut server = Running::start(&mut command);
    let line = server.line("listening on http://");
    let addr = line.rsplit("http://").next().unwrap().to_owned();
    let register = || -> (String, String) {
        let body =
            r#"{"name":"box","ip":"","capabilities":{"os":"linux","cpu_count":1,"mem_mb":1}}"#;
        let answer = plain(&addr, "POST /api/v1/nodes/register", ("", body));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        (text("node_id"), text("node_token"))
    };
    let beats = |id: &str, token: &str| {
        let body = r#"{"cpu_usage":1,"mem_usage":1,"disk_free_mb":1,"running_containers":[]}"#;
        let shown = format!("authorization: Bearer {token}\r\n");
        let path = format!("POST /api/v1/nodes/{id}/heartbeat");
        plain(&addr, &path, (&shown, body)).starts_with("HTTP/1.1 200")
    };
    let (id, token) = register();
    assert!(beats(&id, &token));
    write("second");
    signal(server.pid(), Signal::HUP);
    let line = server.line("the configuration was read again");
    assert!(line.contains("miaas.jwt_secret"), "{line}");
    assert!(beats(&id, &token), "no beat is dropped");
    let (same, fresh) = register();
    assert_eq!(same, id);
    assert!(beats(&id, &fresh) && fresh != token);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn an_agent_follows_its_file_without_touching_what_runs() {
    let mut fleet = Fleet::without_agent("/nonexistent/docker.sock");
    let file = fleet.path().join("agent.toml");
    write(&file, &fleet.agent_dir(), "[reserve]\nmemory = '64Mi'\n");
    let mut command = hostler(fleet.path());
    command.args(["agent", "--name", "box", "--server", &fleet.addr()]);
    command.args(["--docker-socket", "/nonexistent/docker.sock", "--config"]);
    command.arg(&file);
    fleet.agent = Some(Running::start(&mut command));
    fleet.wait_ready();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    let capacity = |fleet: &Fleet| {
        let node = fleet.node().unwrap();
        node["capacity"]["memory_bytes"].as_u64().unwrap()
    };
    let before = capacity(&fleet);

    let more =
        "[reserve]\nmemory = '128Mi'\n[pressure]\ndisk = 1\n[container.registries.'h:5000']\n";
    write(&file, &fleet.agent_dir(), more);
    let pid = fleet.agent.as_ref().unwrap().pid();
    signal(pid, Signal::HUP);
    let line = fleet
        .agent
        .as_mut()
        .unwrap()
        .line("the configuration was read again");
    for key in ["reserve", "gc or pressure", "container.registries"] {
        assert!(line.contains(key), "{line}");
    }
    eventually("the fleet places by what is left", || {
        capacity(&fleet) == before - (64 << 20)
    });
    eventually("one hundredth of a disk is in use", || {
        let node = fleet.node().unwrap();
        node["pressure"]
            .as_array()
            .is_some_and(|it| it.iter().any(|it| it == "disk"))
    });

    write(&file, &fleet.agent_dir(), "[reserve]\nmemory = 'much'\n");
    signal(pid, Signal::HUP);
    fleet.agent.as_mut().unwrap().line("nothing is changed");
    write(
        &file,
        &fleet.agent_dir(),
        "name = 'other'\n[labels]\na = 'b'\n",
    );
    signal(pid, Signal::HUP);
    fleet.agent.as_mut().unwrap().line("node label");
    let starts = fleet.starts("sleeper");
    assert_eq!(starts.len(), 1, "nothing was started anew");
    assert!(crate::program::is_alive(starts[0]));
}

fn write(file: &PathBuf, data: &Path, more: &str) {
    std::fs::write(file, format!("data_dir = {data:?}\n{more}")).unwrap();
}
