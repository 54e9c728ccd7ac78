//! What a user does on an ordinary day, through a server and an agent that are separate processes.

use rustix::process::Signal;

use crate::fleet::Fleet;
use crate::program::{eventually, is_alive, signal};

#[test]
fn a_process_runs_logs_stops_starts_and_goes() {
    let fleet = Fleet::start();
    let ran = fleet.run_sleeper("sleeper", &[]).with_code(0);
    assert!(
        ran.stdout.contains("sleeper created, revision 1"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stderr.contains("sleeper: running on box"),
        "{}",
        ran.stderr
    );
    let listed = fleet.run(&["ps"]).with_code(0).stdout;
    assert!(
        listed.contains("sleeper") && listed.contains("1/1"),
        "{listed}"
    );
    eventually("the line is logged", || {
        fleet.run(&["logs", "sleeper"]).stdout == "started\n"
    });
    let pid = fleet.starts("sleeper")[0];

    fleet.run(&["stop", "sleeper"]).with_code(0);
    assert!(!is_alive(pid));
    assert_eq!(
        fleet.run(&["ps", "-o", "json"]).json()[0]["status"],
        "stopped"
    );
    fleet.run(&["start", "sleeper"]).with_code(0);
    eventually("it is started anew", || fleet.starts("sleeper").len() == 2);

    fleet.run(&["rm", "-y", "sleeper"]).with_code(0);
    assert!(!fleet.starts("sleeper").into_iter().any(is_alive));
    fleet.run(&["show", "sleeper"]).with_code(1);
    assert_eq!(fleet.run(&["ps", "-o", "name"]).with_code(0).stdout, "");
}

#[test]
fn a_process_that_dies_is_started_again_and_its_former_log_is_kept() {
    let fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    signal(fleet.starts("sleeper")[0], Signal::KILL);
    eventually("it is started again", || fleet.starts("sleeper").len() == 2);
    eventually("the second run is told", || {
        fleet.copies("sleeper")[0]["runs"] == 2
    });
    eventually("the former log can be read", || {
        fleet.run(&["logs", "--previous", "sleeper"]).stdout == "started\n"
    });
}

#[test]
fn work_that_ends_is_told_with_its_exit_and_can_be_removed() {
    let fleet = Fleet::start();
    fleet
        .run(&[
            "run",
            "well",
            "--restart",
            "no",
            "--",
            "sh",
            "-c",
            "echo done",
        ])
        .with_code(0);
    let badly = [
        "run",
        "badly",
        "--restart",
        "no",
        "-d",
        "--",
        "sh",
        "-c",
        "exit 3",
    ];
    fleet.run(&badly).with_code(0);
    for (name, status, exit) in [
        ("well", "finished", "exit code 0"),
        ("badly", "failed", "exit code 3"),
    ] {
        eventually("it is told", || {
            fleet.run(&["show", name, "-o", "json"]).json()["status"] == status
        });
        assert_eq!(fleet.copies(name)[0]["outcome"]["exit"], exit);
    }
    assert_eq!(
        fleet.run(&["logs", "well"]).with_code(0).stdout,
        "done\n",
        "its log is kept"
    );
    let started = fleet.run(&["start", "badly"]).with_code(1);
    assert!(started.stderr.contains("exit code 3"), "{}", started.stderr);
    fleet.run(&["rm", "-y", "well", "badly"]).with_code(0);
    assert_eq!(fleet.run(&["ps", "-o", "name"]).with_code(0).stdout, "");
}

#[test]
fn what_crashes_again_and_again_is_told_with_its_exit_and_where_to_look() {
    let fleet = Fleet::start();
    let crashing = ["run", "loop", "-d", "--", "sh", "-c", "echo why; exit 3"];
    fleet.run(&crashing).with_code(0);
    eventually("the loop is told", || {
        let why = fleet.run(&["why", "loop"]).with_code(0).stdout;
        why.contains("exit code 3 [crash-loop] (started ")
            && why.contains("try: `hostler logs --previous loop` shows")
    });
    eventually("the table shows restarts and exit", || {
        let wide = fleet.run(&["ps", "-o", "wide"]).with_code(0).stdout;
        let copies = fleet.run(&["ps", "loop"]).with_code(0).stdout;
        wide.contains("exit code 3")
            && copies.contains("crash-looping")
            && copies.contains("exit code 3")
    });
    let previous = fleet.run(&["logs", "--previous", "loop"]).with_code(0);
    assert_eq!(previous.stdout, "why\n");
    fleet.run(&["rm", "-y", "loop"]).with_code(0);
}

#[test]
fn a_removed_node_is_listed_only_on_request() {
    let mut fleet = Fleet::start();
    fleet.kill_agent();
    fleet.run(&["node", "rm", "--yes", "box"]).with_code(0);
    let listed = |flags: &[&str]| {
        let words = [&["node", "ls", "-o", "name"], flags].concat();
        fleet.run(&words).with_code(0).stdout
    };
    assert_eq!(
        (listed(&[]).as_str(), listed(&["--all"]).as_str()),
        ("", "box\n")
    );
}

#[test]
fn a_command_that_cannot_be_run_is_told_and_tried_again() {
    let fleet = Fleet::start();
    let words = ["run", "typo", "--wait-timeout", "2s"];
    let words = [&words[..], &["--", "/no/such/program"]].concat();
    // While it is tried, for the first time and again, it is starting.
    eventually("the wait ends with what is wrong", || {
        let ran = fleet.run(&words).with_code(5);
        ran.stderr.contains("/no/such/program")
    });
    eventually("it is told with its code", || {
        fleet.copies("typo")[0]["state"]["code"] == "command-not-runnable"
    });
    fleet.run(&["rm", "-y", "typo"]).with_code(0);
}

#[test]
fn a_restart_gives_every_copy_a_new_process_on_the_same_node() {
    let fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &["--count", "2"]).with_code(0);
    let before = fleet.starts("sleeper");
    fleet.run(&["restart", "sleeper"]).with_code(0);
    assert!(!before.into_iter().any(is_alive));
    eventually("two new ones run", || {
        let starts = fleet.starts("sleeper").into_iter();
        starts.filter(|pid| is_alive(*pid)).count() == 2
    });
}

#[test]
fn following_a_log_shows_what_is_still_to_be_written() {
    let fleet = Fleet::start();
    let script = "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.2; done";
    fleet
        .run(&["run", "ticker", "--", "sh", "-c", script])
        .with_code(0);
    let mut command = crate::program::hostler(fleet.path());
    command
        .env("HOSTLER_ADDR", fleet.addr())
        .args(["logs", "-f", "ticker"]);
    let mut follower = crate::program::Running::start(&mut command);
    follower.line("tick 1");
    follower.line("tick 9");
    fleet.run(&["rm", "-y", "ticker"]).with_code(0);
    assert_eq!(follower.code(), Some(0), "nothing more will come");
}

#[test]
fn a_line_longer_than_a_record_is_one_line_whichever_way_it_is_read() {
    let fleet = Fleet::start();
    let script = "echo first; head -c 50000 /dev/zero | tr '\\0' x; echo; \
                  printf '€%.0s' $(seq 20000); echo; echo last";
    let words = ["run", "long", "--restart", "no", "--", "sh", "-c", script];
    fleet.run(&words).with_code(0);
    let long = "x".repeat(50_000);
    let wide = "€".repeat(20_000);
    let all = format!("first\n{long}\n{wide}\nlast\n");
    eventually("everything is logged", || {
        fleet.run(&["logs", "long"]).stdout.ends_with("last\n")
    });
    for (flags, expected) in [
        (&[][..], all.as_str()),
        (&["--tail", "3"], &all["first\n".len()..]),
    ] {
        let words = [&["logs", "long"], flags].concat();
        let read = fleet.run(&words).with_code(0).stdout;
        assert!(read == expected, "{flags:?}: {} bytes", read.len());
    }
    let mut command = crate::program::hostler(fleet.path());
    command
        .env("HOSTLER_ADDR", fleet.addr())
        .args(["logs", "-f", "long"]);
    let mut follower = crate::program::Running::start(&mut command);
    follower.line("last");
    assert!(follower.said() + "\n" == all);
    let stamped = fleet.run(&["logs", "-t", "long"]).with_code(0).stdout;
    assert_eq!(stamped.matches("Z ").count(), 4, "one moment a line");
    let records = fleet.run(&["logs", "-o", "json", "long"]).with_code(0);
    assert!(
        records.stdout.lines().count() > 4,
        "records are as they are"
    );
}

#[test]
fn two_appliers_that_race_for_the_last_slot_end_with_one_placed_and_one_pending_with_reasons() {
    let fleet = Fleet::start();
    let capacity = fleet.node().unwrap()["capacity"]["memory_bytes"]
        .as_u64()
        .unwrap();
    let memory = (capacity / 10 * 6).to_string();
    let flags = ["--memory", &memory, "-d"];
    std::thread::scope(|scope| {
        for name in ["first", "second"] {
            let (fleet, flags) = (&fleet, &flags);
            scope.spawn(move || fleet.run_sleeper(name, flags).with_code(0));
        }
    });
    let started = || fleet.starts("first").len() + fleet.starts("second").len();
    eventually("one of them runs", || started() == 1);
    let (placed, pending) = if fleet.starts("first").len() == 1 {
        ("first", "second")
    } else {
        ("second", "first")
    };
    // Once more, and nothing changes: now each is waited for, however long the first took to start.
    let flags = ["--memory", &memory, "--wait-timeout"];
    fleet
        .run_sleeper(placed, &[&flags[..], &["60s"]].concat())
        .with_code(0);
    let pending = fleet
        .run_sleeper(pending, &[&flags[..], &["1s"]].concat())
        .with_code(5);
    assert!(pending.stderr.contains("memory"), "{}", pending.stderr);
    assert!(pending.stderr.contains("box"), "{}", pending.stderr);
    assert_eq!(started(), 1);
}

#[test]
fn a_drain_waits_until_the_processes_are_gone_and_says_what_blocks_it() {
    let fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    let blocked = fleet
        .run(&["node", "drain", "box", "--wait-timeout", "2s"])
        .with_code(5);
    assert!(blocked.stderr.contains("sleeper.0"), "{}", blocked.stderr);
    assert!(
        is_alive(fleet.starts("sleeper")[0]),
        "there is no other place, so it stays"
    );
    fleet.run(&["rm", "-y", "sleeper"]).with_code(0);
    fleet.run(&["node", "drain", "box"]).with_code(0);
    assert_eq!(fleet.node().unwrap()["state"], "drained");
    fleet.run(&["node", "undrain", "box"]).with_code(0);
    fleet.wait_ready();
}

#[test]
fn labels_and_constraints_decide_where_copies_go() {
    let fleet = Fleet::start();
    let waiting = fleet.run_sleeper(
        "picky",
        &["--constraint", "zone == eu-1", "--wait-timeout", "1s"],
    );
    assert!(waiting.with_code(5).stderr.contains("zone"));
    let why = fleet.run(&["why", "picky"]).with_code(0).stdout;
    assert!(why.contains("zone == eu-1"), "{why}");
    fleet
        .run(&["node", "label", "box", "zone=eu-1"])
        .with_code(0);
    eventually("it runs once a node fits", || {
        fleet.starts("picky").len() == 1
    });
}

#[test]
fn events_tell_what_happened_and_who_did_it() {
    let fleet = Fleet::start();
    fleet.run_sleeper("sleeper", &[]).with_code(0);
    let events = fleet.run(&["events", "-o", "json"]).with_code(0).stdout;
    let events: Vec<serde_json::Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers: Vec<u64> = events
        .iter()
        .map(|event| event["sequence"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "{numbers:?}"
    );
    assert!(
        events
            .iter()
            .any(|event| event["message"].as_str().unwrap().contains("sleeper"))
    );
    assert_eq!(
        fleet
            .run(&["events", "--tail", "1"])
            .with_code(0)
            .stdout
            .lines()
            .count(),
        1
    );
}
