//! Everything that is secret is replaced while a fleet works: keys of the authority, certificates, tokens, the key of the
//! secrets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::guarded::Guarded;
use crate::program::{Ended, eventually, is_alive};

const NODES: [&str; 3] = ["one", "two", "three"];

/// The nodes that have not said that they believe the newest key.
fn behind(fleet: &Guarded) -> Vec<String> {
    let words = ["authority", "show", "--output", "json"];
    let shown = fleet.admin(&words).with_code(0).json();
    let names = shown["behind"].as_array().unwrap().iter();
    names
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

fn set_secret(fleet: &Guarded, value: &str) {
    let path = fleet.path().join("value");
    std::fs::write(&path, value).unwrap();
    let words = ["secret", "set", "db", "--from-file", path.to_str().unwrap()];
    fleet.admin(&words).with_code(0);
}

fn certificate(fleet: &Guarded, node: &str) -> String {
    let path = fleet.path().join(node).join("agent/certificate.pem");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn keys_certificates_and_tokens_are_replaced_while_beats_flow_and_nobody_notices() {
    let mut fleet = Guarded::start();
    let token = fleet.join_token.clone();
    for name in NODES {
        fleet.start_agent(name, Some(&token));
    }
    for name in NODES {
        fleet.wait_for(name, "ready");
    }
    set_secret(&fleet, "a value");
    let more = "count: 3\nsecrets: [{ name: db, env: DB }]";
    fleet.run_marked("sleeper", more);
    eventually("all run", || fleet.starts("sleeper").len() == 3);
    let pids = fleet.starts("sleeper");
    let certificates = NODES.map(|name| certificate(&fleet, name));
    let beats = fleet.beats();

    let (is_over, failures) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let writes = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write(&fleet, &is_over, &failures));
        let replaced =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| replace_all(&fleet)));
        is_over.store(true, Ordering::Release);
        let writes = writing.join().unwrap();
        replaced.unwrap();
        writes
    });
    assert!(writes > 0);
    assert_eq!(*failures.lock().unwrap(), Vec::<String>::new());

    for (name, before) in NODES.iter().zip(&certificates) {
        assert_ne!(certificate(&fleet, name), *before, "{name} has another");
    }
    let now = fleet.beats();
    assert!(now.accepted > beats.accepted);
    assert_eq!(now.stale, 0, "no beat was turned away");
    for agent in &fleet.agents {
        let said = agent.said();
        assert_eq!(said.matches("joined the fleet").count(), 1, "{said}");
    }
    assert_eq!(fleet.against_nodes(), Vec::<String>::new());
    let happened = fleet.happened();
    assert!(
        !happened.iter().any(|kind| kind == "copies-replaced"),
        "{happened:?}"
    );
    assert_eq!(fleet.starts("sleeper"), pids, "nothing was started anew");
    assert!(pids.into_iter().all(is_alive), "and nothing stopped");
    // What comes later has the secret, and joins with a token of the newest key alone.
    fleet.run_marked("later", "secrets: [{ name: db, env: DB }]");
    eventually("it runs", || fleet.starts("later").len() == 1);
    let newest = fleet.token(&[]);
    fleet.start_agent("four", Some(&newest));
    fleet.wait_for("four", "ready");
}

/// Changes something again and again, as people do meanwhile; answers how often.
fn write(fleet: &Guarded, is_over: &AtomicBool, failures: &Mutex<Vec<String>>) -> u32 {
    let mut count = 0;
    while !is_over.load(Ordering::Acquire) {
        count += 1;
        let label = format!("write={count}");
        let ended = fleet.admin(&["node", "label", "one", &label]);
        if ended.code != Some(0) {
            failures.lock().unwrap().push(ended.stderr);
        }
        // Not to fill the log of events, of which the test reads all.
        std::thread::sleep(Duration::from_millis(200));
    }
    count
}

fn replace_all(fleet: &Guarded) {
    for _ in 0..2 {
        fleet.admin(&["authority", "rotate"]).with_code(0);
        eventually("all know the new key", || behind(fleet).is_empty());
        fleet.admin(&["authority", "retire"]).with_code(0);
    }
    fleet.admin(&["secret", "rekey"]).with_code(0);
    let issue = |name: &str| {
        let words = ["token", "issue", name, "--role", "operator"];
        fleet.admin(&words).with_code(0).stdout.trim().to_owned()
    };
    let (old, new) = (issue("old"), issue("new"));
    fleet.bearer(&old, &["node", "ls"]).with_code(0);
    fleet.admin(&["token", "rm", "old"]).with_code(0);
    fleet.bearer(&old, &["node", "ls"]).with_code(1);
    fleet.bearer(&new, &["node", "ls"]).with_code(0);
    let joins = fleet.admin(&["token", "ls", "--output", "name"]).stdout;
    assert!(joins.contains("new"), "{joins}");
    set_secret(fleet, "another value");
    fleet.admin(&["secret", "rekey"]).with_code(0);
}

#[test]
fn a_disk_that_moved_with_a_token_of_an_authority_that_was_let_go_goes_on_as_the_node() {
    let mut fleet = Guarded::start();
    let spent = fleet.token(&["--uses", "1"]);
    fleet.start_agent_on("one", "box", Some(&spent));
    fleet.wait_for("box", "ready");
    let id = fleet.node("box")["id"].clone();
    fleet.admin(&["authority", "rotate"]).with_code(0);
    eventually("the node knows the new one", || behind(&fleet).is_empty());
    fleet.admin(&["authority", "retire"]).with_code(0);
    fleet.agents.remove(0).kill();
    fleet.copy_disk("box", "moved");
    fleet.start_agent_on("two", "moved", Some(&spent));
    let line = fleet.agents[0].line("the token was refused");
    assert!(line.contains("join-token-spent"), "{line}");
    fleet.agents[0].line("the node goes on, on another machine than before");
    fleet.wait_for("box", "ready");
    assert_eq!(fleet.node("box")["id"], id);
}

#[test]
fn former_keys_are_let_go_only_when_no_node_needs_them() {
    let mut fleet = Guarded::start();
    let old_token = fleet.join_token.clone();
    for name in ["box", "off"] {
        fleet.start_agent(name, Some(&old_token));
        fleet.wait_for(name, "ready");
    }
    let ids = ["box", "off"].map(|name| fleet.node(name)["id"].clone());
    assert_eq!(fleet.agents[1].terminate(), Some(0));
    fleet.admin(&["authority", "retire"]).with_code(0);
    fleet.admin(&["authority", "rotate"]).with_code(0);
    eventually("the one that is there knows it", || {
        behind(&fleet) == ["off"]
    });
    let refused: Ended = fleet.admin(&["authority", "retire"]).with_code(1);
    assert!(
        refused.stderr.contains("authority-in-use"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("off"), "{}", refused.stderr);
    // One that was off learns it when it comes.
    fleet.agents.truncate(1);
    fleet.start_agent("off", None);
    eventually("all know it", || behind(&fleet).is_empty());
    fleet.admin(&["authority", "retire"]).with_code(0);
    assert!(fleet.happened().contains(&"authority-retired".to_owned()));
    // All of them come back, over a restart of everything, and what believed only the old key does not.
    fleet.server.take().unwrap().kill();
    fleet.start_server();
    fleet.agents.clear();
    for (name, token) in [("box", Some(&old_token)), ("off", None)] {
        // One that is still started with the token that it joined with knows that it is its own fleet's.
        fleet.start_agent(name, token.map(String::as_str));
        fleet.wait_for(name, "ready");
    }
    fleet.start_agent("late", Some(&old_token));
    fleet.agents[2].line("connecting: ");
    // By force one is shut out. A token brings it back as the node that it was.
    fleet.agents.truncate(1);
    fleet.admin(&["authority", "rotate"]).with_code(0);
    eventually("the one that is there knows it", || {
        behind(&fleet) == ["off"]
    });
    fleet
        .admin(&["authority", "retire", "--force"])
        .with_code(0);
    fleet.start_agent("off", None);
    fleet.agents[1].line("connecting: ");
    fleet.agents.truncate(1);
    let token = fleet.token(&["--uses", "1"]);
    fleet.start_agent("off", Some(&token));
    fleet.agents[1].line("joined the fleet");
    fleet.wait_for("off", "ready");
    for (name, id) in ["box", "off"].iter().zip(ids) {
        assert_eq!(fleet.node(name)["id"], id);
    }
}
