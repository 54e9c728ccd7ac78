//! Clocks that differ and clocks that jump. What a program takes for the time of day is moved below it, as an operator or a
//! broken time server does; spans go on as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::foreign::called;
use crate::guarded::Guarded;
use crate::program::{Ended, Running, eventually, is_alive};

/// A clock beside the real one, of everything that is started with it.
struct Clock(PathBuf);

impl Clock {
    fn at(dir: &Path, name: &str, offset: &str) -> Self {
        let clock = Self(dir.join(name));
        clock.set(offset);
        clock
    }

    /// Such as `+40d` or `-600s`; from now on.
    fn set(&self, offset: &str) {
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, format!("{offset}\n")).unwrap();
        std::fs::rename(fresh, &self.0).unwrap();
    }

    fn environment(&self) -> Vec<(String, String)> {
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            of("LD_PRELOAD", &library()),
            of("FAKETIME_TIMESTAMP_FILE", &self.0.to_string_lossy()),
            of("FAKETIME_NO_CACHE", "1"),
            of("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            of("DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}

/// What the program `faketime` puts below others.
fn library() -> String {
    let mut command = Command::new("faketime");
    command.args(["-f", "+0s", "sh", "-c", "echo $LD_PRELOAD"]);
    let told: Ended = command.output().unwrap().into();
    told.with_code(0).stdout.trim().to_owned()
}

fn start_agent(fleet: &mut Guarded, (name, token): (&str, Option<&str>), clock: &Clock) {
    let mut command = fleet.agent_command(name, token);
    command.envs(clock.environment());
    let agent = Running::start(&mut command);
    fleet.agents.push(agent);
}

/// Nothing was said against a node, and everybody is in the session that they began with.
fn assert_calm(fleet: &Guarded) {
    assert_eq!(fleet.against_nodes(), Vec::<String>::new());
    for agent in &fleet.agents {
        let said = agent.said();
        assert_eq!(said.matches("joined the fleet").count(), 1, "{said}");
    }
}

/// Each node beats on.
fn wait_for_beats(fleet: &Guarded) {
    let before = fleet.beats().accepted;
    let enough = before + 5 * u64::try_from(fleet.agents.len()).unwrap();
    eventually("beats go on", || fleet.beats().accepted >= enough);
    assert_eq!(fleet.beats().stale, 0);
}

#[test]
#[ignore = "needs faketime"]
fn nodes_whose_clocks_are_ten_minutes_off_join_work_and_come_back() {
    let mut fleet = Guarded::start();
    let dir = fleet.path().to_owned();
    let clocks = [("ahead", "+600s"), ("behind", "-600s")];
    let clocks =
        clocks.map(|(name, offset)| (name, Clock::at(&dir, &format!("{name}.time"), offset)));
    // For the clock of the one that is ahead this token's time is over. The server's counts.
    let token = fleet.token(&["--ttl", "5m"]);
    for (name, clock) in &clocks {
        start_agent(&mut fleet, (name, Some(&token)), clock);
        fleet.wait_for(name, "ready");
        fleet.run_marked(
            name,
            &format!("placement: {{ constraints: [node.name == {name}] }}"),
        );
        eventually("it works", || fleet.starts(name).len() == 1);
    }
    wait_for_beats(&fleet);
    assert_calm(&fleet);
    // Each shows its certificate to a server that has just begun, and believes what that shows.
    fleet.server.take().unwrap().kill();
    fleet.start_server();
    fleet.agents.clear();
    for (name, clock) in &clocks {
        start_agent(&mut fleet, (name, None), clock);
        fleet.agents.last_mut().unwrap().line("joined the fleet");
        fleet.wait_for(name, "ready");
        assert_eq!(fleet.starts(name).len(), 1);
    }
    let happened = fleet.happened();
    assert!(
        !happened.iter().any(|kind| kind == "node-lost"),
        "{happened:?}"
    );
}

#[test]
#[ignore = "needs faketime"]
fn a_jump_of_the_servers_clock_loses_no_node_locks_none_out_and_counts_for_tokens() {
    let home = tempfile::tempdir().unwrap();
    let clock = Clock::at(home.path(), "server.time", "+0s");
    let mut fleet = Guarded::start_in(clock.environment());
    let token = fleet.join_token.clone();
    for name in ["one", "two"] {
        fleet.start_agent(name, Some(&token));
        fleet.wait_for(name, "ready");
    }
    fleet.run_marked("sleeper", "count: 2");
    eventually("they work", || fleet.starts("sleeper").len() == 2);
    let pids = fleet.starts("sleeper");
    let short = fleet.token(&["--ttl", "30m"]);
    let person = [
        "token", "issue", "guest", "--role", "viewer", "--ttl", "30m",
    ];
    let person = fleet.admin(&person).with_code(0).stdout.trim().to_owned();
    // Forward by hours, by more than a node's certificate lives, by more than the server's; and back behind the start.
    for offset in ["+2h", "+40d", "+100d", "-2d"] {
        clock.set(offset);
        wait_for_beats(&fleet);
        assert_calm(&fleet);
        let written = fleet.admin(&["node", "label", "one", &format!("at={}", &offset[1..])]);
        drop(written.with_code(0));
        // Whoever begins a connection now has to be believed, and to believe.
        let past = matches!(offset, "+2h" | "+40d" | "+100d");
        let code = if past { 1 } else { 0 };
        drop(fleet.bearer(&person, &["node", "ls"]).with_code(code));
        fleet.start_agent("late", Some(&short));
        let said = if past {
            "(join-token-spent)"
        } else {
            "joined the fleet"
        };
        let mut late = fleet.agents.pop().unwrap();
        late.line(said);
        assert_eq!(late.terminate(), Some(0));
        if !past {
            let words = ["node", "rm", "--yes", "--force", "late"];
            fleet.admin(&words).with_code(0);
        }
    }
    // The same with new sessions of all: the node's certificates have ended for the server, or have not begun.
    for offset in ["+40d", "-3d"] {
        clock.set(offset);
        for name in ["one", "two"] {
            assert_eq!(fleet.agents.remove(0).terminate(), Some(0));
            fleet.start_agent(name, None);
            fleet.agents.last_mut().unwrap().line("joined the fleet");
            fleet.wait_for(name, "ready");
        }
        wait_for_beats(&fleet);
        assert_eq!(fleet.starts("sleeper"), pids);
    }
    // And a server that begins so.
    for offset in ["+70d", "-1d"] {
        clock.set(offset);
        assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
        fleet.start_server();
        for name in ["one", "two"] {
            fleet.wait_for(name, "ready");
        }
        wait_for_beats(&fleet);
    }
    assert_eq!(fleet.starts("sleeper"), pids);
    assert!(pids.into_iter().all(is_alive));
    let happened = fleet.happened();
    assert!(
        !happened.iter().any(|kind| kind == "node-lost"),
        "{happened:?}"
    );
}

/// An agent of MIaaS, whose token is good for a day of the server's.
fn start_miaas_agent(fleet: &mut Guarded) -> String {
    let mut command = called("miaas-agent", &fleet.path().join("miaas"));
    command
        .env("CONTROL_PLANE_URL", fleet.url())
        .env("HOSTLER_CA", fleet.server_dir().join("trust/ca.pem"))
        .env("HEARTBEAT_INTERVAL", "1");
    let mut agent = Running::start(&mut command);
    let line = agent.line("Registered successfully. Node ID: ");
    fleet.agents.push(agent);
    line.rsplit(' ').next().unwrap().to_owned()
}

/// How often it has registered.
fn registrations(fleet: &Guarded) -> usize {
    let lines = fleet.agents[0].data();
    let registered = lines.iter().filter(|it| it.contains("Registered success"));
    registered.count()
}

#[test]
#[ignore = "needs faketime"]
fn a_jump_of_the_servers_clock_locks_no_node_of_miaas_out_and_makes_it_no_other_node() {
    let home = tempfile::tempdir().unwrap();
    let clock = Clock::at(home.path(), "server.time", "+0s");
    let mut environment = clock.environment();
    environment.push(("HOSTLER_MIAAS_DIALECT".to_owned(), "later".to_owned()));
    let words = ["--compat", "miaas", "--compat-auth", "miaas=contract"];
    let mut fleet = Guarded::begin(environment, &words);
    std::fs::create_dir(fleet.path().join("miaas")).unwrap();
    let id = start_miaas_agent(&mut fleet);
    let name = fleet.nodes()[0].0.clone();
    // The token lives for a day: only what is past that makes the node register, once. Back in time it is good for longer.
    for (offset, registered) in [
        ("+600s", 1),
        ("-600s", 1),
        ("+2h", 1),
        ("+40d", 2),
        ("+0s", 2),
        ("-2d", 2),
    ] {
        clock.set(offset);
        wait_for_beats(&fleet);
        eventually("it is registered", || registrations(&fleet) == registered);
        fleet.wait_for(&name, "ready");
    }
    // A token of two days ago, once the clock is right again; and servers that begin in another time.
    assert_eq!(fleet.agents.remove(0).terminate(), Some(0));
    assert_eq!(start_miaas_agent(&mut fleet), id);
    clock.set("+0s");
    wait_for_beats(&fleet);
    assert_eq!(registrations(&fleet), 2);
    for offset in ["+40d", "-2d"] {
        clock.set(offset);
        assert_eq!(fleet.server.as_mut().unwrap().terminate(), Some(0));
        fleet.start_server();
        wait_for_beats(&fleet);
        fleet.wait_for(&name, "ready");
    }
    assert_eq!(fleet.node(&name)["id"], id.as_str());
    assert_eq!(fleet.nodes().len(), 1);
    let happened = fleet.happened();
    assert!(!happened.iter().any(|it| it == "node-lost"), "{happened:?}");
}
