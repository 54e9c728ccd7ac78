//! `doctor`, as somebody who has just been woken runs it.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::fleet::Fleet;
use crate::program::{Ended, hostler};

const NO_ENGINE: [&str; 2] = ["--docker-socket", "/nonexistent/docker.sock"];

fn findings(ended: &Ended) -> Vec<Value> {
    ended.json().as_array().cloned().unwrap_or_default()
}

fn find<'a>(findings: &'a [Value], part: &str) -> Option<&'a Value> {
    let says = |it: &&Value| it["sentence"].as_str().is_some_and(|it| it.contains(part));
    findings.iter().find(says)
}

#[test]
fn a_server_that_does_not_answer_is_a_finding_among_others() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let doctor = |words: &[&str]| -> Ended {
        let mut command = hostler(home.path());
        command.args([
            "doctor",
            "-o",
            "json",
            "--addr",
            "127.0.0.1:1",
            "--data-dir",
        ]);
        command.arg(&data).args(NO_ENGINE).args(words);
        command.output().unwrap().into()
    };
    let told = doctor(&[]).with_code(4);
    let found = findings(&told);
    let silent = find(&found, "no server answers").unwrap();
    assert_eq!(silent["gravity"], "problem");
    assert!(silent["advice"].as_str().unwrap().contains("hostler up"));
    assert_eq!(found[0]["gravity"], "problem", "the gravest comes first");
    assert_eq!(
        find(&found, "no container engine").unwrap()["gravity"],
        "note"
    );

    // Here there is no server to be missed.
    assert!(find(&findings(&doctor(&["--here"])), "no server answers").is_none());
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("secrets.key"), "a key").unwrap();
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(data.join("secrets.key"), open).unwrap();
    let found = findings(&doctor(&["--here"]).with_code(1));
    let key = find(&found, "others may read the key").unwrap();
    assert_eq!(
        (key["gravity"].as_str(), key["about"].as_str()),
        (Some("problem"), Some("this machine"))
    );
}

#[test]
fn a_fleet_that_is_well_has_no_problem_and_its_clocks_agree() {
    let fleet = Fleet::start();
    let told = fleet.run(&[&["doctor", "-o", "json"][..], &NO_ENGINE].concat());
    let found = findings(&told);
    let of_fleet = |it: &&Value| it["gravity"] == "problem" && it["about"] != "this machine";
    assert_eq!(found.iter().find(of_fleet), None, "{found:?}");
    // The server's clock is asked between two looks at this one. A node's greeting may be on its way for some seconds, and
    // counts as an offset.
    assert_eq!(find(&found, "its clock is"), None);
    let offset = fleet.node().unwrap()["clock_offset_ms"].as_i64();
    assert!(
        offset.is_some_and(|offset| offset.abs() < 60_000),
        "{offset:?}"
    );
    let listed = fleet.run(&["node", "ls"]).with_code(0).stdout;
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        listed.contains("VERSION") && listed.contains(version),
        "{listed}"
    );
    assert!(!listed.contains("older"), "{listed}");
}
