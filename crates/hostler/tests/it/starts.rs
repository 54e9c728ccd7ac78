//! Starts that cannot be: one clear sentence and a documented exit code each.

use std::net::TcpListener;
use std::path::Path;

use crate::fleet::Fleet;
use crate::foreign::get;
use crate::program::{Ended, Running, eventually, free_port, hostler};

fn up(home: &Path, words: &[&str]) -> Ended {
    let sockets = ["--docker-socket", "/nonexistent/docker.sock"];
    // Root's usual directory is the machine's, and that of every test beside this one.
    hostler(home)
        .env("HOSTLER_DATA_DIR", home.join("data"))
        .arg("up")
        .args(words)
        .args(sockets)
        .output()
        .unwrap()
        .into()
}

/// One error, in one sentence, and its advice.
#[track_caller]
fn is_clear(ended: Ended, code: i32, part: &str) {
    let ended = ended.with_code(code);
    assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    assert!(ended.stderr.contains(part), "{}", ended.stderr);
    assert!(ended.stderr.lines().count() <= 2, "{}", ended.stderr);
}

#[test]
fn a_taken_port_ends_with_code_10() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    is_clear(
        up(home.path(), &["--listen", &addr.to_string()]),
        10,
        &addr.port().to_string(),
    );
}

#[test]
fn a_taken_port_of_another_system_names_both_that_want_it() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let words = [
        "--listen",
        "127.0.0.1:0",
        "--compat",
        &format!("orchion={addr}"),
    ];
    let part = "wanted for orchion, is taken by another program: a Persys agent uses it too";
    is_clear(up(home.path(), &words), 10, part);
}

#[test]
fn ports_of_other_systems_are_opened_by_name_only_and_refused_clearly() {
    let home = tempfile::tempdir().unwrap();
    let words = ["--listen", "127.0.0.1:0", "--compat"];
    let with = |word| [&words[..], &[word]].concat();
    is_clear(up(home.path(), &with("nomad")), 2, "no contract whose port");
    let missing = "Persys's port speaks TLS, and /etc/persys/certs/persys";
    is_clear(up(home.path(), &with("persys")), 2, missing);
    let open = [&with("persys=0.0.0.0:0")[..], &["-insecure"]].concat();
    is_clear(up(home.path(), &open), 2, "no login");
    is_clear(up(home.path(), &with("spot=0.0.0.0:0")), 2, "no login");
}

#[test]
fn a_data_directory_that_cannot_be_one_ends_with_code_11() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let data = file.join("data");
    let words = [
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    is_clear(
        up(home.path(), &words),
        11,
        "cannot write to the data directory",
    );
}

#[test]
fn data_of_a_newer_program_ends_with_code_12_and_is_left_as_it_is() {
    /// Where SQLite keeps the version that a program gives its file: four bytes, big-endian.
    const USER_VERSION: std::ops::Range<usize> = 60..64;
    let mut fleet = Fleet::without_agent("/nonexistent/docker.sock");
    assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
    let database = fleet.server_dir().join("hostler.db");
    let mut bytes = std::fs::read(&database).unwrap();
    bytes[USER_VERSION].copy_from_slice(&9_999_u32.to_be_bytes());
    std::fs::write(&database, &bytes).unwrap();
    let directory = fleet.server_dir();
    let words = [
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        directory.to_str().unwrap(),
    ];
    is_clear(up(fleet.path(), &words), 12, "9999");
    assert_eq!(std::fs::read(&database).unwrap(), bytes);
}

#[test]
fn a_second_server_on_one_data_directory_ends_with_code_13() {
    let fleet = Fleet::without_agent("/nonexistent/docker.sock");
    let directory = fleet.server_dir();
    let words = [
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        directory.to_str().unwrap(),
    ];
    is_clear(up(fleet.path(), &words), 13, "uses the data directory");
}

#[test]
fn a_second_agent_on_one_data_directory_ends_with_code_13_and_disturbs_nothing() {
    let fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    let second: Ended = fleet.agent_command().output().unwrap().into();
    is_clear(second, 13, &fleet.agent.as_ref().unwrap().pid().to_string());
    assert!(
        fleet
            .starts("sleeper")
            .into_iter()
            .all(crate::program::is_alive)
    );
}

#[test]
fn what_has_no_login_and_listens_beyond_loopback_ends_with_code_2() {
    let home = tempfile::tempdir().unwrap();
    is_clear(up(home.path(), &["--listen", "0.0.0.0:0"]), 2, "no login");
    let words = ["agent", "--listen", "0.0.0.0:0"];
    let refused: Ended = hostler(home.path()).args(words).output().unwrap().into();
    is_clear(refused, 2, "no login");
}

#[test]
fn a_name_that_no_node_can_have_ends_with_code_2() {
    let home = tempfile::tempdir().unwrap();
    is_clear(
        up(home.path(), &["--name", "my box"]),
        2,
        "`my box` is no name",
    );
    let mut command = hostler(home.path());
    let refused: Ended = command
        .args(["agent", "--name", ""])
        .output()
        .unwrap()
        .into();
    is_clear(refused, 2, "is no name");
}

#[test]
fn up_listens_beyond_loopback_once_it_is_allowed() {
    let home = tempfile::tempdir().unwrap();
    let mut command = hostler(home.path());
    // 127.0.0.1 with the flag: a test opens no port to other machines.
    command.args(["up", "--insecure", "--listen", "127.0.0.1:0"]);
    command.args(["--docker-socket", "/nonexistent/docker.sock", "--data-dir"]);
    let mut up = Running::start(command.arg(home.path().join("data")));
    up.line("listening on http://127.0.0.1:");
    assert_eq!(up.terminate(), Some(0));
}

#[test]
fn an_agent_tells_about_itself_where_it_is_told_to_listen() {
    let mut fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    fleet.kill_agent();
    let mut command = fleet.agent_command();
    let mut agent = Running::start(command.args(["--listen", "127.0.0.1:0"]));
    let line = agent.line("listening on http://");
    let host = line.rsplit("http://").next().unwrap().to_owned();
    let asks = |path: &str, part: &str| get(&host, path).contains(part);
    eventually("it has joined", || asks("/readyz", "200 OK"));
    assert!(asks("/healthz", "{\"status\":\"ok\"}"));
    assert!(asks("/version", env!("CARGO_PKG_VERSION")));
    assert!(asks("/nowhere", "404 Not Found"));
    eventually("it counts its unit", || {
        asks("/metrics", "\nhostler_agent_units{state=\"running\"} 1\n")
    });
    assert!(asks("/metrics", "\nhostler_agent_joined 1\n"));
    fleet.kill_server();
    eventually("it says that it is cut off", || asks("/readyz", "503 "));
    assert!(asks("/readyz", "connecting"), "{}", get(&host, "/readyz"));
    assert!(asks("/healthz", "200 OK"), "it lives all the same");
    assert!(asks("/metrics", "\nhostler_agent_joined 0\n"));
}

#[test]
fn an_unknown_key_of_the_configuration_ends_with_code_2_and_its_line() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("server.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\nport = 80\n").unwrap();
    let mut command = hostler(home.path());
    let refused: Ended = command
        .arg("server")
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap()
        .into();
    is_clear(refused, 2, "server.toml:2:1");
}

#[test]
fn a_server_is_configured_by_its_file() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("server.toml");
    let data = home.path().join("data");
    std::fs::write(
        &file,
        format!("listen = \"127.0.0.1:0\"\ninsecure = true\ndata_dir = {data:?}\n"),
    )
    .unwrap();
    let mut command = hostler(home.path());
    let mut server = Running::start(command.arg("server").arg("--config").arg(&file));
    server.line("listening on http://127.0.0.1:");
    assert_eq!(server.terminate(), Some(0));
    assert!(data.join("hostler.db").exists());
}

#[test]
fn no_server_at_the_address_ends_with_code_4() {
    let home = tempfile::tempdir().unwrap();
    let nowhere = home.path().join("nowhere");
    let mut command = hostler(home.path());
    command.args(["ps", "--addr", &format!("127.0.0.1:{}", free_port())]);
    is_clear(command.output().unwrap().into(), 4, "no server answers");
    // A small machine knows no authorities, which plain text does not need.
    command.envs([("SSL_CERT_FILE", &nowhere), ("SSL_CERT_DIR", &nowhere)]);
    is_clear(command.output().unwrap().into(), 4, "no server answers");
}
