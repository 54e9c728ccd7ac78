//! Managed volumes through server and agent: what a copy writes outlives everything but the copy.

use crate::fleet::Fleet;
use crate::program::eventually;

/// A process that counts its starts in its volume.
fn spec(fleet: &Fleet, say: &str, more: &str) -> String {
    let target = fleet.path().join("target").display().to_string();
    let script = format!("cd {target}; echo {say} >>starts; cat starts; exec sleep 100000");
    let text = format!(
        "name: db\nprocess:\n  command: [sh, -c, '{script}']\n  volumes: [{{name: data, target: {target}{more}}}]\n"
    );
    let path = fleet.path().join("db.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn starts(fleet: &Fleet) -> String {
    let path = fleet.agent_dir().join("volumes/local/data/starts");
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
#[ignore = "needs root"]
fn data_outlives_updates_stops_and_crashes_of_the_agent_and_goes_with_the_copy() {
    let mut fleet = Fleet::start();
    let file = spec(&fleet, "one", ", size: 16MiB");
    fleet.run(&["apply", "-f", &file]).with_code(0);
    eventually("it has written", || starts(&fleet) == "one\n");

    let file = spec(&fleet, "two", ", size: 16MiB");
    fleet.run(&["apply", "-f", &file]).with_code(0);
    eventually("its update finds the data", || {
        starts(&fleet) == "one\ntwo\n"
    });

    fleet.kill_agent();
    fleet.start_agent();
    fleet.wait_ready();
    fleet.run(&["stop", "db"]).with_code(0);
    eventually("nothing is mounted while nothing runs", || {
        starts(&fleet).is_empty()
    });
    fleet.run(&["start", "db"]).with_code(0);
    eventually("it finds the data again", || {
        starts(&fleet) == "one\ntwo\ntwo\n"
    });

    fleet.run(&["rm", "-y", "db"]).with_code(0);
    eventually("the data is gone", || {
        let local = fleet.agent_dir().join("volumes/local");
        std::fs::read_dir(local).unwrap().count() == 0
    });
}

#[test]
fn a_volume_whose_storage_no_node_has_is_told_with_the_reason() {
    let fleet = Fleet::start();
    let shown = fleet.run(&["node", "show", "box"]).with_code(0).stdout;
    assert!(shown.contains("volumes    local\n"), "{shown}");
    let file = spec(&fleet, "one", ", driver: nfs");
    fleet.run(&["apply", "-d", "-f", &file]).with_code(0);
    eventually("the reason is told", || {
        let why = fleet.run(&["why", "db"]).with_code(0).stdout;
        why.contains("has no storage driver nfs: no server and export are named")
    });
}
