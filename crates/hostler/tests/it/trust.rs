//! A server with login and machines that join it, as separate processes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hostler_wire::session::v1::session_client::SessionClient;
use hostler_wire::session::v1::{Hello, Observed, ServerMessage, Versions};
use hostler_wire::session::v1::{NodeMessage, node_message, server_message};
use serde_json::Value;
use tokio_stream::wrappers::ReceiverStream;

use crate::guarded::Guarded;
use crate::program::{Ended, Running, eventually, free_port, hostler, plain, runtime, told};

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
fn doors_of_other_systems_are_opened_by_name_and_doctor_says_what_that_relaxes() {
    let mut fleet = Guarded::with(&[
        "--compat",
        "miaas,spot=127.0.0.1:0",
        "--compat-auth",
        "spot=contract",
        "--compat-tls",
        "spot=sniff",
    ]);
    let server = fleet.server.as_mut().unwrap();
    server.line("a door is open to whoever shows a token");
    server.line("a door is open to whoever its contract lets in");
    let line = server.line("listening on https and http://");
    let spot = line.rsplit("http://").next().unwrap();
    let spot = spot.split_once(' ').unwrap().0.to_owned();
    let listed = plain(&spot, "GET /api/agents", ("", ""));
    assert!(listed.starts_with("HTTP/1.1 200"), "{listed}");
    let costly = plain(&spot, "POST /api/agents/x/replicas", ("", "{}"));
    assert!(costly.starts_with("HTTP/1.1 401"), "{costly}");
    assert!(costly.contains("Missing client token"), "{costly}");

    let socket = "/nonexistent/docker.sock";
    let words = ["doctor", "-o", "json", "--docker-socket", socket];
    let findings = fleet.admin(&words).json();
    let findings = findings.as_array().unwrap();
    let says = |about: &str, part: &str| {
        let text = |it: &Value, key: &str| it[key].as_str().unwrap_or_default().to_owned();
        let mut found = findings.iter();
        found.any(|it| text(it, "about").ends_with(about) && text(it, "sentence").contains(part))
    };
    assert!(
        says("door spot", "without a token: GET /api/agents"),
        "{findings:?}"
    );
    assert!(says("door spot", "takes plain text"), "{findings:?}");
    assert!(says("door miaas", "POST /api/v1/nodes/{id}/heartbeat"));
    assert!(!says("door miaas", "without a token"), "{findings:?}");

    let keys = fleet.server_dir().join("trust/miaas.key");
    let mode = std::fs::metadata(&keys).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let rotate = ["miaas", "rotate-key", "-o", "json"];
    assert_eq!(fleet.admin(&rotate).json()["former"], 1);
    fleet.server.take().unwrap().kill();
    fleet.start_server();
    assert_eq!(fleet.admin(&rotate).json()["former"], 2, "they are kept");
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
    let refused = refused.with_code(4);
    let said = &refused.stderr;
    assert!(
        said.contains("is not believed") && said.contains("--print"),
        "{said}"
    );
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
    fleet.agents[1].line("is not believed: neither a token");
    // And without one there is no way in.
    fleet.start_agent("bare", None);
    fleet.agents[2].line("(unauthenticated)");
    // An agent that speaks plain text is told what is spoken here.
    let mut command = hostler(fleet.path());
    command.args(["agent", "--docker-socket", "/nonexistent/docker.sock"]);
    command.args([
        "--server",
        &format!("http://{}", fleet.listen),
        "--data-dir",
    ]);
    let mut unsecured = Running::start(command.arg(fleet.path().join("unsecured")));
    unsecured.line("this port speaks TLS: write https://");
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
    let listen = format!("127.0.0.1:{}", free_port());
    command.args(["server", "--insecure", "--listen", &listen, "--data-dir"]);
    let mut server = Running::start(command.arg(&data));
    server.line("listening on http://");
    let mut fleet = Guarded {
        directory,
        listen,
        server: Some(server),
        agents: Vec::new(),
        join_token: String::new(),
        environment: Vec::new(),
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
fn a_certificate_that_is_lost_needs_no_token() {
    let mut fleet = Guarded::start();
    let token = fleet.join_token.clone();
    fleet.start_agent("box", Some(&token));
    fleet.wait_for("box", "ready");
    let before = fleet.node("box")["id"].clone();
    fleet.agents.clear();
    let certificate = fleet.path().join("box/agent/certificate.pem");
    std::fs::remove_file(&certificate).unwrap();
    fleet.start_agent("box", None);
    fleet.agents[0].line("joined the fleet");
    fleet.wait_for("box", "ready");
    assert!(certificate.exists());
    assert_eq!(fleet.node("box")["id"], before);
    // One that has lost whom it believed, too, needs that of a token and nothing else of it: its key is known.
    fleet.agents.clear();
    std::fs::remove_file(&certificate).unwrap();
    std::fs::remove_file(fleet.path().join("box/agent/ca.pem")).unwrap();
    let spent = fleet.token(&["--uses", "1"]);
    fleet.start_agent("other", Some(&spent));
    fleet.wait_for("other", "ready");
    fleet.start_agent("box", Some(&spent));
    fleet.wait_for("box", "ready");
    assert_eq!(fleet.node("box")["id"], before);
}

#[test]
fn refused_machines_are_one_line_of_the_log_for_each_address_and_each_a_line_of_the_audit() {
    let mut fleet = Guarded::start();
    let spent = fleet.token(&["--uses", "1"]);
    fleet.start_agent("box", Some(&spent));
    fleet.wait_for("box", "ready");
    for name in ["one", "two", "three"] {
        fleet.start_agent(name, Some(&spent));
        let agent = fleet.agents.last_mut().unwrap();
        agent.line("(join-token-spent)");
    }
    let server = fleet.server.as_mut().unwrap();
    server.line("membership refused");
    let said = server.said();
    assert_eq!(said.matches("membership refused").count(), 1, "{said}");
    let audited = || {
        let files = std::fs::read_dir(fleet.server_dir().join("audit")).unwrap();
        let text = files.map(|it| std::fs::read_to_string(it.unwrap().path()).unwrap_or_default());
        let text: String = text.collect();
        text.matches("join-token-spent").count()
    };
    eventually("the audit has each", || audited() >= 3);
}

/// Says hello once as an agent did that knew no keys, over plain text.
async fn once_said_hello(listen: &str, identity: &str) {
    let mut client = SessionClient::connect(format!("http://{listen}"))
        .await
        .unwrap();
    let hello = Hello {
        versions: Some(Versions::ours()),
        agent_version: "0.1.0".to_owned(),
        identity: identity.to_owned(),
        name: "box".to_owned(),
        ..Hello::default()
    };
    let nothing = Observed {
        full: true,
        last: true,
        ..Observed::default()
    };
    let (says, said) = tokio::sync::mpsc::channel(2);
    for message in [
        node_message::Message::Hello(hello),
        node_message::Message::Observed(nothing),
    ] {
        let message = Some(message);
        says.send(NodeMessage { message }).await.unwrap();
    }
    let answer = client.control(ReceiverStream::new(said)).await.unwrap();
    let first: ServerMessage = answer.into_inner().message().await.unwrap().unwrap();
    assert!(matches!(
        first.message,
        Some(server_message::Message::Welcome(_))
    ));
}

#[test]
fn a_node_that_has_told_no_key_is_claimed_only_with_a_token_that_names_it() {
    const OVERHEARD: &str = "an-identity-that-was-overheard";
    let directory = tempfile::tempdir().unwrap();
    let mut command = hostler(directory.path());
    let listen = format!("127.0.0.1:{}", free_port());
    command.args(["server", "--insecure", "--listen", &listen]);
    let data = directory.path().join("server");
    let mut server = Running::start(command.arg("--data-dir").arg(data));
    server.line("listening on http://");
    runtime().block_on(once_said_hello(&listen, OVERHEARD));
    assert_eq!(server.terminate(), Some(0));
    let mut fleet = Guarded {
        directory,
        listen,
        server: None,
        agents: Vec::new(),
        join_token: String::new(),
        environment: Vec::new(),
        words: Vec::new(),
    };
    fleet.start_server();
    let before = fleet.node("box")["id"].clone();
    let says_it_is_box = |name: &str| {
        let dir = fleet.path().join(name).join("agent");
        std::fs::create_dir_all(&dir).unwrap();
        let identity = format!("{{\"identity\": \"{OVERHEARD}\", \"name\": \"box\"}}");
        std::fs::write(dir.join("identity.json"), identity).unwrap();
    };
    says_it_is_box("thief");
    says_it_is_box("box");
    let (any, own) = (fleet.token(&[]), fleet.token(&["--replace", "box"]));
    fleet.start_agent("thief", Some(&any));
    let said = fleet.agents[0].line("(node-unproven)");
    assert!(said.contains("node-unproven"), "{said}");
    fleet.agents[0].line("hostler token create --replace box");
    fleet.start_agent("box", Some(&own));
    fleet.wait_for("box", "ready");
    assert_eq!(fleet.node("box")["id"], before);
    assert_eq!(fleet.nodes().len(), 1);
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
        told(&mut command, token)
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
