//! Versions next to each other: the program before this one, in `HOSTLER_PREVIOUS`, as agent and as server. An upgrade
//! goes through both: the server first, then its agents.

use std::path::PathBuf;

use crate::fleet::Fleet;
use crate::program::{eventually, is_alive};

fn previous() -> PathBuf {
    let path = std::env::var_os("HOSTLER_PREVIOUS");
    path.expect("HOSTLER_PREVIOUS names the program of the version before")
        .into()
}

#[test]
#[ignore = "needs previous"]
fn a_fleet_is_upgraded_from_the_version_before_without_a_restart_of_what_runs() {
    let previous = previous();
    let mut fleet = Fleet::of_program(&previous);
    fleet.start_agent();
    fleet.wait_ready();
    fleet.run_sleeper("sleeper", &["--count", "2"]).with_code(0);
    let mut pids = fleet.starts("sleeper");
    pids.sort_unstable();

    // The newer server first: it reads what the older one wrote, and keeps its agent.
    assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
    fleet.use_program(None);
    fleet.start_server();
    assert_follows(&fleet, &pids);
    fleet.run_sleeper("later", &[]).with_code(0);

    // Then the agent: it adopts what the older one runs.
    fleet.kill_agent();
    fleet.start_agent();
    assert_follows(&fleet, &pids);

    // And back, as long as the store's form is the same: the older server takes the newer agent.
    assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
    fleet.use_program(Some(&previous));
    fleet.start_server();
    assert_follows(&fleet, &pids);
    fleet.run(&["rm", "-y", "sleeper"]).with_code(0);
    eventually("the older server's word counts", || {
        !pids.iter().any(|pid| is_alive(*pid))
    });
}

/// The node is connected, and the same processes run as copies that are known to run.
fn assert_follows(fleet: &Fleet, pids: &[u32]) {
    eventually("the node is connected", || {
        let node = fleet.node().unwrap_or_default();
        node["state"] == "ready" && node["lease"]["age_ms"].is_u64() && node["held_back"].is_null()
    });
    eventually("all copies are seen running", || {
        let copies = fleet.copies("sleeper");
        let runs = |copy: &serde_json::Value| copy["state"]["word"] == "running";
        copies.len() == pids.len() && copies.iter().all(runs)
    });
    let mut now = fleet.starts("sleeper");
    now.sort_unstable();
    assert_eq!(now, pids, "nothing was started anew");
    assert!(pids.iter().all(|pid| is_alive(*pid)));
}

#[test]
#[ignore = "needs previous"]
fn agents_of_both_versions_are_in_one_fleet_and_shown_with_their_version() {
    let mut fleet = Fleet::start();
    fleet.use_program(Some(&previous()));
    fleet.add_node("older");
    fleet.use_program(None);
    let listed = fleet.run(&["node", "ls"]).with_code(0).stdout;
    let head = listed.lines().next().unwrap_or_default();
    assert!(head.contains("VERSION"), "{listed}");
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let doctor = fleet.run(&["doctor", "-o", "json"]).json();
    let findings = doctor.as_array().unwrap();
    let is_ill = |it: &&serde_json::Value| {
        it["gravity"] == "problem"
            && it["about"]
                .as_str()
                .is_some_and(|about| about.starts_with("node"))
    };
    assert_eq!(findings.iter().find(is_ill), None, "{doctor}");
}
