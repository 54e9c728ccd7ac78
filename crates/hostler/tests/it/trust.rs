//! A server with login and machines that join it, as separate processes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Ended, Running, end_units, eventually, hostler};

/// A server with login. The command line finds the admin's login in its data directory.
struct Guarded {
    directory: TempDir,
    listen: String,
    server: Option<Running>,
    agents: Vec<Running>,
    /// What the first start has told.
    join_token: String,
    /// What the server is told beside where to listen and where its data is.
    words: Vec<String>,
}

impl Guarded {
    fn start() -> Self {
        let mut guarded = Self {
            directory: tempfile::tempdir().unwrap(),
            listen: "127.0.0.1:0".to_owned(),
            server: None,
            agents: Vec::new(),
            join_token: String::new(),
            words: Vec::new(),
        };
        guarded.start_server();
        guarded.join_token = guarded.first_join_token();
        guarded
    }

    /// What was told is how machines join, and where the token is: a log is read by many.
    fn first_join_token(&mut self) -> String {
        let server = self.server.as_mut().unwrap();
        let line = server.line("--token-file FILE");
        assert!(
            line.starts_with("hostler agent --server https://"),
            "{line}"
        );
        let path = self.server_dir().join("join-token");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let token = std::fs::read_to_string(path).unwrap();
        let server = self.server.as_mut().unwrap();
        server.line("join-token of this machine");
        assert!(!server.said().contains(&token), "{}", server.said());
        token
    }

    fn start_server(&mut self) {
        let mut command = hostler(self.path());
        command.args(["server", "--listen", &self.listen, "--data-dir"]);
        command.arg(self.server_dir()).args(&self.words);
        let mut server = Running::start(&mut command);
        let line = server.line("listening on https://");
        self.listen = line.rsplit("https://").next().unwrap().to_owned();
        self.server = Some(server);
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn server_dir(&self) -> PathBuf {
        self.path().join("server")
    }

    fn url(&self) -> String {
        format!("https://{}", self.listen)
    }

    fn agent_command(&self, name: &str, token: Option<&str>) -> Command {
        let mut command = hostler(self.path());
        command.args(["agent", "--name", name, "--server", &self.url()]);
        command.args(["--docker-socket", "/nonexistent/docker.sock", "--data-dir"]);
        command.arg(self.path().join(name));
        if let Some(token) = token {
            command.env("HOSTLER_JOIN_TOKEN", token);
        }
        command
    }

    fn start_agent(&mut self, name: &str, token: Option<&str>) {
        let agent = Running::start(&mut self.agent_command(name, token));
        self.agents.push(agent);
    }

    /// As the admin, whose login the server has written.
    fn admin(&self, words: &[&str]) -> Ended {
        let mut command = hostler(self.path());
        command.env("HOSTLER_DATA_DIR", self.server_dir());
        command.args(words).output().unwrap().into()
    }

    /// As the bearer of a token.
    fn bearer(&self, token: &str, words: &[&str]) -> Ended {
        let mut command = hostler(self.path());
        command
            .env("HOSTLER_TOKEN", token)
            .env("HOSTLER_ADDR", self.url());
        command.env("HOSTLER_CA", self.server_dir().join("trust/ca.pem"));
        command.args(words).output().unwrap().into()
    }

    fn nodes(&self) -> Vec<(String, String)> {
        let listed = self.admin(&["node", "ls", "--output", "json"]);
        let nodes: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap_or_default();
        let text = |node: &Value, key: &str| node[key].as_str().unwrap_or_default().to_owned();
        nodes
            .iter()
            .map(|node| (text(node, "name"), text(node, "state")))
            .collect()
    }

    fn wait_for(&self, name: &str, state: &str) {
        let awaited = (name.to_owned(), state.to_owned());
        eventually(&format!("{name} is {state}"), || {
            self.nodes().contains(&awaited)
        });
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.agents.clear();
        self.server = None;
        end_units(self.path());
    }
}

#[test]
fn from_nothing_to_a_fleet_with_login_takes_three_commands() {
    let mut fleet = Guarded::start();
    let token = fleet.join_token.clone();
    fleet.start_agent("one", Some(&token));
    fleet.start_agent("two", Some(&token));
    fleet.wait_for("one", "ready");
    fleet.wait_for("two", "ready");
    let words = ["run", "sleeper", "--count", "2", "--", "sleep", "1000"];
    fleet.admin(&words).with_code(0);
    // What was logged comes over the second connection, which is secured, too.
    let words = ["run", "talker", "--", "sh", "-c", "echo hello; sleep 1000"];
    fleet.admin(&words).with_code(0);
    eventually("the log is there", || {
        fleet.admin(&["logs", "talker"]).stdout.contains("hello")
    });
    // Everybody comes back by themselves, and needs no token any more.
    fleet.server.take().unwrap().kill();
    fleet.start_server();
    let said = fleet.server.as_ref().unwrap().said();
    assert!(!said.contains("--token-file"), "{said}");
    fleet.agents.clear();
    fleet.start_agent("one", None);
    fleet.start_agent("two", None);
    fleet.wait_for("one", "ready");
    fleet.wait_for("two", "ready");
    eventually("the work went on", || {
        let shown = fleet.admin(&["show", "sleeper", "--output", "json"]);
        shown.code == Some(0) && shown.json()["status"] == "running"
    });
}

#[test]
fn an_outsider_sees_nothing_changes_nothing_and_does_not_join() {
    let mut fleet = Guarded::start();
    let ca = fleet.server_dir().join("trust/ca.pem");
    let outsider = |words: &[&str]| -> Ended {
        let mut command = hostler(fleet.path());
        command
            .env("HOSTLER_ADDR", fleet.url())
            .env("HOSTLER_CA", &ca);
        command.args(words).output().unwrap().into()
    };
    for words in [
        &["ps"][..],
        &["node", "ls"],
        &["events"],
        &["logs", "anything"],
        &["token", "ls"],
        &["token", "create"],
        &["run", "x", "--detach", "--", "true"],
    ] {
        let refused = outsider(words).with_code(1);
        assert!(
            refused.stderr.contains("needs a token"),
            "{words:?}: {}",
            refused.stderr
        );
    }
    // Who does not know the authority does not even ask.
    let mut command = hostler(fleet.path());
    let refused: Ended = command
        .env("HOSTLER_ADDR", fleet.url())
        .arg("ps")
        .output()
        .unwrap()
        .into();
    refused.with_code(4);
    // Plain text is told what is spoken here.
    let mut command = hostler(fleet.path());
    command.env("HOSTLER_ADDR", format!("http://{}", fleet.listen));
    let refused: Ended = command.arg("ps").output().unwrap().into();
    assert!(refused.stderr.contains("https://"), "{}", refused.stderr);
    // A token with a wrong secret lets nobody in.
    let mut wrong = fleet.join_token.clone();
    let at = wrong.find('_').unwrap() + 40;
    let digit = if wrong.as_bytes()[at] == b'a' {
        "b"
    } else {
        "a"
    };
    wrong.replace_range(at..=at, digit);
    fleet.start_agent("stranger", Some(&wrong));
    fleet.agents[0].line("(join-token-invalid)");
    // Nor does one for another server's authority.
    let other = Guarded::start();
    fleet.start_agent("lost", Some(&other.join_token));
    let said = fleet.agents[1].line("connecting: ");
    assert!(said.contains("connecting"), "{said}");
    // And without one there is no way in.
    fleet.start_agent("bare", None);
    fleet.agents[2].line("(unauthenticated)");
    assert_eq!(fleet.nodes(), []);
}

#[test]
fn what_was_removed_or_revoked_is_refused_at_once() {
    let mut fleet = Guarded::start();
    let token = fleet.join_token.clone();
    fleet.start_agent("box", Some(&token));
    fleet.wait_for("box", "ready");
    fleet.admin(&["node", "rm", "--yes", "box"]).with_code(0);
    fleet.agents[0].line("(node-gone)");
    // A token of a person ends with its removal.
    let issued = fleet
        .admin(&["token", "issue", "anna", "--role", "operator"])
        .with_code(0);
    let anna = issued.stdout.trim();
    fleet.bearer(anna, &["node", "ls"]).with_code(0);
    let refused = fleet.bearer(anna, &["token", "ls"]).with_code(1);
    assert!(
        refused.stderr.contains("this needs admin"),
        "{}",
        refused.stderr
    );
    fleet.admin(&["token", "rm", "anna"]).with_code(0);
    let refused = fleet.bearer(anna, &["node", "ls"]).with_code(1);
    assert!(
        refused.stderr.contains("worth nothing"),
        "{}",
        refused.stderr
    );
}

#[test]
fn tokens_for_machines_end_and_those_that_ask_wait_to_be_let_in() {
    let mut fleet = Guarded::start();
    let create = |words: &[&str]| {
        let words = [&["token", "create", "--output", "json"][..], words].concat();
        let issued = fleet.admin(&words).with_code(0).json();
        issued["token"].as_str().unwrap().to_owned()
    };
    let once = create(&["--uses", "1", "--label", "zone=a"]);
    let ended = create(&["--ttl", "1s"]);
    let asks = create(&["--approve"]);
    fleet.start_agent("first", Some(&once));
    fleet.wait_for("first", "ready");
    let shown = fleet
        .admin(&["node", "show", "first", "--output", "json"])
        .json();
    assert_eq!(shown["labels"]["zone"], "a");
    fleet.start_agent("second", Some(&once));
    fleet.agents[1].line("(join-token-spent)");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    fleet.start_agent("third", Some(&ended));
    fleet.agents[2].line("(join-token-spent)");
    fleet.start_agent("fourth", Some(&asks));
    fleet.agents[3].line("(node-pending)");
    fleet.wait_for("fourth", "pending");
    fleet.admin(&["node", "approve", "fourth"]).with_code(0);
    fleet.wait_for("fourth", "ready");
}

#[test]
fn a_machine_that_was_set_up_anew_takes_its_old_place_by_a_persons_decision() {
    let mut fleet = Guarded::start();
    let token = fleet.join_token.clone();
    fleet.start_agent("box", Some(&token));
    fleet.wait_for("box", "ready");
    fleet
        .admin(&["node", "label", "box", "rack=7"])
        .with_code(0);
    fleet.agents.clear();
    std::fs::rename(fleet.path().join("box"), fleet.path().join("old")).unwrap();
    let words = [
        "token",
        "create",
        "--replace",
        "box",
        "--uses",
        "1",
        "--output",
        "name",
    ];
    let replace = fleet.admin(&words).with_code(0).stdout;
    let mut command = fleet.agent_command("anything", Some(replace.trim()));
    fleet.agents.push(Running::start(&mut command));
    fleet.wait_for("box", "ready");
    assert_eq!(fleet.nodes().len(), 1);
    let shown = fleet
        .admin(&["node", "show", "box", "--output", "json"])
        .json();
    assert_eq!(shown["labels"]["rack"], "7");
    // The old disk is nobody's any more.
    let old = fleet.path().join("old");
    let mut command = hostler(fleet.path());
    command
        .args(["agent", "--server", &fleet.url(), "--data-dir"])
        .arg(old);
    command.args(["--docker-socket", "/nonexistent/docker.sock"]);
    let mut old = Running::start(&mut command);
    old.line("(node-gone)");
}

#[test]
fn the_authority_gets_a_new_key_and_nobody_notices() {
    let mut fleet = Guarded::start();
    let token = fleet.join_token.clone();
    fleet.start_agent("box", Some(&token));
    fleet.wait_for("box", "ready");
    fleet
        .admin(&["run", "sleeper", "--", "sleep", "1000"])
        .with_code(0);
    let before = fleet
        .admin(&["authority", "show", "--output", "name"])
        .stdout;
    fleet.admin(&["authority", "rotate"]).with_code(0);
    let after = fleet
        .admin(&["authority", "show", "--output", "name"])
        .stdout;
    assert_ne!(before, after);
    // Old and new members go on, over a restart of all.
    let pinned_before = fleet.join_token.clone();
    fleet.start_agent("late", Some(&pinned_before));
    fleet.wait_for("late", "ready");
    fleet.server.take().unwrap().kill();
    fleet.start_server();
    fleet.agents.clear();
    fleet.start_agent("box", None);
    fleet.start_agent("late", None);
    fleet.wait_for("box", "ready");
    fleet.wait_for("late", "ready");
    let events = fleet.admin(&["events", "--output", "json"]).stdout;
    assert!(events.contains("authority-rotated"), "{events}");
    assert!(!events.contains("node-lost"), "{events}");
}

/// A certificate for this name by an authority that has nothing to do with the fleet; the files are the server's words.
fn of_somebody_else(dir: &Path, name: &str) -> Vec<String> {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let above = rcgen::KeyPair::generate().unwrap();
    let root = params.self_signed(&above).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, above);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    std::fs::create_dir_all(dir).unwrap();
    let write = |file: &str, text: String| {
        std::fs::write(dir.join(file), text).unwrap();
        dir.join(file).to_string_lossy().into_owned()
    };
    write("ca.pem", root);
    let (certificate, key) = (
        write("server.pem", certificate),
        write("key.pem", key.serialize_pem()),
    );
    vec!["--tls-cert".into(), certificate, "--tls-key".into(), key]
}

#[test]
fn a_certificate_of_somebody_else_is_for_people_and_members_do_not_notice() {
    let mut fleet = Guarded::start();
    let token = fleet.join_token.clone();
    fleet.start_agent("early", Some(&token));
    fleet.wait_for("early", "ready");
    let restart = |fleet: &mut Guarded, words: Vec<String>| {
        fleet.server.take().unwrap().kill();
        fleet.words = words;
        fleet.start_server();
    };
    // Its name is none by which anybody calls the server here.
    let named = of_somebody_else(&fleet.path().join("named"), "fleet.example");
    restart(&mut fleet, named);
    let words = ["run", "talker", "--", "sh", "-c", "echo hello; sleep 1000"];
    fleet.admin(&words).with_code(0);
    eventually("the node is spoken to", || {
        fleet.admin(&["logs", "talker"]).stdout.contains("hello")
    });
    let words = ["token", "create", "--output", "name"];
    let late = fleet.admin(&words).with_code(0).stdout;
    fleet.start_agent("late", Some(late.trim()));
    fleet.wait_for("late", "ready");
    // Another authority's; now a person can believe it who does not know the fleet's.
    let addressed = of_somebody_else(&fleet.path().join("addressed"), "127.0.0.1");
    restart(&mut fleet, addressed);
    fleet.agents.clear();
    fleet.start_agent("early", None);
    fleet.agents[0].line("joined the fleet");
    fleet.start_agent("late", None);
    fleet.agents[1].line("joined the fleet");
    let issued = ["token", "issue", "anna", "--role", "viewer"];
    let anna = fleet.admin(&issued).with_code(0).stdout;
    let believing = |ca: &Path| -> Ended {
        let mut command = hostler(fleet.path());
        command
            .env("HOSTLER_TOKEN", anna.trim())
            .env("HOSTLER_ADDR", fleet.url())
            .env("HOSTLER_CA", ca);
        command.args(["node", "ls"]).output().unwrap().into()
    };
    believing(&fleet.path().join("addressed/ca.pem")).with_code(0);
    believing(&fleet.server_dir().join("trust/ca.pem")).with_code(0);
    believing(&fleet.path().join("named/ca.pem")).with_code(4);
    let words = ["authority", "show", "--output", "name"];
    let print = fleet.admin(&words).with_code(0).stdout;
    let home = tempfile::tempdir().unwrap();
    let mut command = hostler(home.path());
    command.args(["login", &fleet.url(), "--print", print.trim()]);
    let done: Ended = command
        .env("HOSTLER_TOKEN", anna.trim())
        .output()
        .unwrap()
        .into();
    done.with_code(0);
    let mut command = hostler(home.path());
    let listed: Ended = command.args(["node", "ls"]).output().unwrap().into();
    listed.with_code(0);
}

#[test]
fn a_fleet_without_login_gets_one_and_its_nodes_stay_who_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("server");
    let mut command = hostler(directory.path());
    command.args([
        "server",
        "--insecure",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    let mut server = Running::start(command.arg(&data));
    let line = server.line("listening on http://");
    let listen = line.rsplit("http://").next().unwrap().to_owned();
    let mut fleet = Guarded {
        directory,
        listen,
        server: Some(server),
        agents: Vec::new(),
        join_token: String::new(),
        words: Vec::new(),
    };
    let plain = |fleet: &Guarded, words: &[&str]| -> Ended {
        let mut command = hostler(fleet.path());
        command.env("HOSTLER_ADDR", format!("http://{}", fleet.listen));
        command.args(words).output().unwrap().into()
    };
    let mut command = hostler(fleet.path());
    command.args(["agent", "--name", "box", "--server"]);
    command
        .arg(format!("http://{}", fleet.listen))
        .arg("--data-dir");
    command.arg(fleet.path().join("box"));
    command.args(["--docker-socket", "/nonexistent/docker.sock"]);
    fleet.agents.push(Running::start(&mut command));
    eventually("it has joined", || {
        plain(&fleet, &["node", "ls", "--output", "json"])
            .stdout
            .contains("\"ready\"")
    });
    plain(&fleet, &["run", "sleeper", "--", "sleep", "1000"]).with_code(0);
    let id = |ended: Ended| ended.json()[0]["id"].as_str().unwrap().to_owned();
    let before = id(plain(&fleet, &["node", "ls", "--output", "json"]));
    fleet.agents.clear();
    assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
    fleet.server = None;
    fleet.start_server();
    let token = fleet.first_join_token();
    fleet.start_agent("box", Some(&token));
    fleet.wait_for("box", "ready");
    assert_eq!(id(fleet.admin(&["node", "ls", "--output", "json"])), before);
    eventually("the work went on", || {
        let copies = fleet.admin(&["ps", "sleeper", "--output", "json"]).stdout;
        copies.contains("\"running\"") && copies.contains("\"runs\": 1")
    });
}

#[test]
fn a_login_is_kept_for_its_owner_and_forgotten_when_asked() {
    let fleet = Guarded::start();
    let admin = fleet.server_dir().join("admin.toml");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&admin), 0o600);
    let issued = fleet
        .admin(&["token", "issue", "eve", "--role", "viewer"])
        .with_code(0);
    let print = fleet
        .admin(&["authority", "show", "--output", "name"])
        .stdout;
    let home = tempfile::tempdir().unwrap();
    let login = |token: &str, print: &str| -> Ended {
        let mut command = hostler(home.path());
        command.args(["login", &fleet.url(), "--print", print.trim()]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        use std::io::Write as _;
        child
            .stdin
            .take()
            .unwrap()
            .write_all(token.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap().into()
    };
    login("hostler_no_such", &print).with_code(1);
    login(&issued.stdout, &"0".repeat(64)).with_code(4);
    let done = login(&issued.stdout, &print).with_code(0);
    assert!(done.stdout.contains("as eve, viewer"), "{}", done.stdout);
    assert_eq!(mode(&home.path().join(".config/hostler/login.toml")), 0o600);
    let run =
        |words: &[&str]| -> Ended { hostler(home.path()).args(words).output().unwrap().into() };
    run(&["node", "ls"]).with_code(0);
    run(&["token", "ls"]).with_code(1);
    run(&["logout"]).with_code(0);
    run(&["node", "ls"]).with_code(4);
}
