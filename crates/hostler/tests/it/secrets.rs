//! Secrets in the whole program: only the copy sees the value, and a change of keys survives `kill -9`.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::fleet::Fleet;
use crate::program::eventually;

const CANARY: &str = "canary-e8b7d1f034";
const SECRETS: usize = 60;

/// Gives a secret its value from a file, which is gone afterwards.
fn set(fleet: &Fleet, name: &str, value: &str) {
    let path = fleet.path().join("value");
    std::fs::write(&path, value).unwrap();
    let file = path.to_str().unwrap().to_owned();
    fleet
        .run(&["secret", "set", name, "--from-file", &file])
        .with_code(0);
    std::fs::remove_file(path).unwrap();
}

/// Files below the directory that hold the words.
fn holding(dir: &Path, words: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let Ok(kind) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if kind.is_dir() {
            found.extend(holding(&path, words));
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(words.len()).any(|it| it == words.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_value_is_seen_by_its_copy_and_is_nowhere_else() {
    let mut fleet = Fleet::start();
    fleet.add_spare();
    set(&fleet, "db", CANARY);
    let spec = "name: web\n\
        process: { command: [sh, -c, 'echo ${#DB} letters; sleep inf'] }\n\
        secrets: [{ name: db, env: DB }]\n\
        placement: { constraints: [node.name == box] }\n";
    std::fs::write(fleet.path().join("web.yaml"), spec).unwrap();
    fleet.run(&["apply", "-f", "web.yaml"]).with_code(0);
    let told = format!("{} letters", CANARY.len());
    eventually("the copy has it", || {
        fleet.run(&["logs", "web"]).stdout.contains(&told)
    });

    // What runs goes on without its agent.
    fleet.kill_agent();
    fleet.start_agent();
    fleet.wait_ready();
    for words in [
        &["ps", "-o", "yaml"][..],
        &["ps", "web", "-o", "yaml"],
        &["show", "web", "-o", "yaml"],
        &["history", "web", "-o", "yaml"],
        &["plan", "-f", "web.yaml", "-o", "yaml"],
        &["events", "-o", "yaml"],
        &["secret", "ls", "-o", "yaml"],
        &["logs", "web"],
        &["why", "web"],
    ] {
        let ended = fleet.run(words);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!said.contains(CANARY), "{words:?}: {said}");
    }
    assert_eq!(holding(fleet.path(), CANARY), Vec::<PathBuf>::new());
    for running in [&fleet.server, &fleet.agent].into_iter().flatten() {
        assert!(!running.said().contains(CANARY), "{}", running.said());
    }
    fleet.run(&["rm", "-y", "web"]).with_code(0);
    fleet.run(&["secret", "rm", "-y", "db"]).with_code(0);
}

#[test]
fn a_change_of_keys_survives_kill_9_at_any_moment() {
    let mut fleet = Fleet::without_agent("/nonexistent/docker.sock");
    for number in 0..SECRETS {
        set(&fleet, &format!("s{number}"), &format!("{CANARY} {number}"));
    }
    for moment in [2, 10, 25, 60] {
        std::thread::scope(|scope| {
            let turning = scope.spawn(|| fleet.run(&["secret", "rekey"]));
            sleep(Duration::from_millis(moment * 5));
            kill_now(&fleet);
            turning.join().unwrap();
        });
        fleet.kill_server();
        fleet.start_server();
        let path = fleet.server_dir().join("secrets.key");
        eventually("there is one key, and every secret is under it", || {
            let text = std::fs::read_to_string(&path).unwrap();
            let keys: Vec<&str> = text.lines().filter(|it| it.starts_with("key ")).collect();
            let listed = fleet
                .run(&["secret", "ls", "-o", "json"])
                .with_code(0)
                .json();
            let listed = listed.as_array().unwrap();
            assert_eq!(listed.len(), SECRETS);
            let is_under = |key: &str| listed.iter().all(|it| it["key"] == key);
            let id = keys[0].split(' ').nth(1).unwrap();
            keys.len() == 1 && is_under(id)
        });
    }
    // Each is opened once more for it.
    fleet.run(&["secret", "rekey"]).with_code(0);
    assert_eq!(holding(&fleet.server_dir(), CANARY), Vec::<PathBuf>::new());
}

fn kill_now(fleet: &Fleet) {
    let server = fleet.server.as_ref().unwrap();
    crate::program::signal(server.pid(), rustix::process::Signal::KILL);
}
