//! Disks that were copied or have moved: agents on machines that differ, with what lay on one disk.

use crate::guarded::Guarded;
use std::process::Command;

use crate::program::{Running, against_nodes, end_units, eventually, is_alive};

/// A node `box` on a machine of its own, with something that runs there.
fn one_node() -> Guarded {
    let mut fleet = Guarded::start();
    let token = fleet.join_token.clone();
    fleet.start_agent_on("one", "box", Some(&token));
    fleet.wait_for("box", "ready");
    fleet.run_marked("sleeper", "");
    eventually("it runs", || fleet.starts("sleeper").len() == 1);
    fleet
}

/// The copy's agent, under another boot of the kernel than that of this machine.
fn start_agent_on_another_boot(fleet: &mut Guarded, machine: &str, name: &str) {
    const SCRIPT: &str = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id; exec \"$@\"";
    let boot = fleet.path().join(format!("boot-of-{machine}"));
    std::fs::write(&boot, format!("boot-of-{machine}\n")).unwrap();
    let agent = fleet.agent_command(name, None);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", SCRIPT]).arg(boot);
    command.arg(agent.get_program()).args(agent.get_args());
    command.env_clear().env("HOSTLER_MACHINE_ID", machine);
    let set = agent.get_envs();
    command.envs(set.filter_map(|(name, value)| Some((name, value?))));
    fleet.agents.push(Running::start(&mut command));
}

/// The original's session was never broken, nothing was said against it, and what it runs was left alone.
fn assert_undisturbed(fleet: &Guarded, pids: &[u32]) {
    let said = fleet.agents[0].said();
    assert_eq!(said.matches("joined the fleet").count(), 1, "{said}");
    assert_eq!(fleet.starts("sleeper"), pids);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let told = fleet.admin(&["events", "--output", "json"]).with_code(0);
    for word in ["is lost", "has rebooted", "was removed"] {
        let against = format!("node box {word}");
        assert!(!told.stdout.contains(&against), "{}", told.stdout);
    }
    let against = against_nodes(&told.stdout);
    let mut against = against.iter().filter(|it| it.contains("node box "));
    assert_eq!(against.next(), None);
}

#[test]
fn a_copied_disk_joins_as_a_new_node_says_so_and_leaves_the_original_alone() {
    let mut fleet = one_node();
    let pids = fleet.starts("sleeper");
    let original = fleet.node("box")["id"].as_str().unwrap().to_owned();
    fleet.copy_disk("box", "copy");
    let token = fleet.join_token.clone();
    fleet.start_agent_on("two", "copy", Some(&token));
    fleet.agents[1].line("this disk is a copy of another machine's");
    fleet.wait_for("copy", "ready");
    let copy = fleet.node("copy");
    assert_ne!(copy["id"].as_str().unwrap(), original);
    assert_eq!(copy["labels"]["copied-from"], "box");
    assert!(fleet.happened().contains(&"node-cloned".to_owned()));
    // What came with the copy lies there, and is used by nobody.
    let aside = fleet.path().join(format!("copy/copied-from-{original}"));
    for name in ["agent/identity.json", "agent/key.pem", "units"] {
        assert!(aside.join(name).exists(), "{name}");
    }
    // The new node is one like any other, also after a restart.
    fleet.run_marked("other", "placement: { constraints: [node.name == copy] }");
    eventually("the copy runs it", || fleet.starts("other").len() == 1);
    assert_eq!(fleet.agents[1].terminate(), Some(0));
    fleet.agents.truncate(1);
    fleet.start_agent_on("two", "copy", None);
    fleet.agents[1].line("joined the fleet");
    fleet.wait_for("copy", "ready");
    assert_eq!(fleet.node("copy")["id"], copy["id"]);
    assert_eq!(fleet.starts("other").len(), 1);
    assert_undisturbed(&fleet, &pids);
    assert_eq!(fleet.nodes().len(), 2);
}

#[test]
fn a_copy_without_a_token_waits_and_goes_on_as_the_node_only_once_the_original_is_gone() {
    let mut fleet = one_node();
    let pids = fleet.starts("sleeper");
    let original = fleet.node("box")["id"].clone();
    fleet.copy_disk("box", "copy");
    fleet.start_agent_on("two", "copy", None);
    fleet.agents[1].line("this disk was made on another machine");
    fleet.agents[1].line("(node-identity-in-use)");
    fleet.agents[1].line("with a token from");
    assert_undisturbed(&fleet, &pids);
    // The machine dies with all that it runs; its disk lives on in the other.
    fleet.agents.remove(0).kill();
    end_units(&fleet.path().join("box"));
    // It keeps the name that the fleet knows it by.
    fleet.agents[0].line("the node goes on, on another machine than before");
    fleet.wait_for("box", "ready");
    assert_eq!(fleet.node("box")["id"], original);
    eventually("its work is begun again", || {
        fleet.starts("sleeper").len() == 2
    });
    // From then on it is at home there.
    fleet.agents.clear();
    fleet.start_agent_on("two", "copy", None);
    fleet.agents[0].line("joined the fleet");
    assert!(!fleet.agents[0].said().contains("another machine"));
    assert_eq!(fleet.starts("sleeper").len(), 2);
    assert_eq!(fleet.nodes().len(), 1);
}

#[test]
#[ignore = "needs root"]
fn after_a_restart_of_the_server_a_copy_that_comes_first_waits_and_the_original_goes_on() {
    let mut fleet = one_node();
    let pids = fleet.starts("sleeper");
    let original = fleet.node("box")["id"].clone();
    fleet.copy_disk("box", "copy");
    fleet.server.take().unwrap().kill();
    assert_eq!(fleet.agents.remove(0).terminate(), Some(0));
    fleet.start_server();
    start_agent_on_another_boot(&mut fleet, "two", "copy");
    fleet.agents[0].line("(node-identity-in-use)");
    fleet.start_agent_on("one", "box", None);
    fleet.agents[1].line("joined the fleet");
    fleet.wait_for("box", "ready");
    assert_eq!(fleet.node("box")["id"], original);
    assert_eq!(fleet.starts("sleeper"), pids);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let said = fleet.agents[0].said();
    assert!(!said.contains("the node goes on"), "{said}");
    // Its place is free once it is gone for good.
    fleet.agents.remove(1).kill();
    end_units(&fleet.path().join("box"));
    fleet.agents[0].line("the node goes on, on another machine than before");
    assert_eq!(fleet.nodes().len(), 1);
}

#[test]
fn a_disk_that_moved_with_a_token_that_is_spent_goes_on_as_the_node_and_says_so() {
    let mut fleet = Guarded::start();
    let spent = fleet.token(&["--uses", "1"]);
    fleet.start_agent_on("one", "box", Some(&spent));
    fleet.wait_for("box", "ready");
    let node = fleet.node("box")["id"].clone();
    fleet.run_marked("sleeper", "");
    eventually("it runs", || fleet.starts("sleeper").len() == 1);
    fleet.agents.remove(0).kill();
    end_units(&fleet.path().join("box"));
    fleet.copy_disk("box", "moved");
    fleet.start_agent_on("two", "moved", Some(&spent));
    let line = fleet.agents[0].line("the token was refused");
    assert!(line.contains("join-token-spent"), "{line}");
    fleet.agents[0].line("the node goes on, on another machine than before");
    fleet.wait_for("box", "ready");
    assert_eq!(fleet.node("box")["id"], node);
    eventually("its work is begun again", || {
        fleet.starts("sleeper").len() == 2
    });
    assert_eq!(fleet.nodes().len(), 1);
    let kept = std::fs::read_dir(fleet.path().join("moved")).unwrap();
    for entry in kept {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name != "joining" && !name.starts_with("copied-from"),
            "{name}"
        );
    }
}

#[test]
fn what_a_copied_disk_brought_is_set_aside_only_once_its_token_was_taken() {
    let mut fleet = one_node();
    let pids = fleet.starts("sleeper");
    let original = fleet.node("box")["id"].as_str().unwrap().to_owned();
    fleet.copy_disk("box", "copy");
    fleet.server.take().unwrap().kill();
    let token = fleet.join_token.clone();
    fleet.start_agent_on("two", "copy", Some(&token));
    fleet.agents[1].line("there is no answer to that yet");
    assert_eq!(fleet.agents.remove(1).terminate(), Some(0));
    let aside = fleet.path().join(format!("copy/copied-from-{original}"));
    assert!(!aside.exists() && fleet.path().join("copy/agent/identity.json").exists());
    fleet.start_agent_on("two", "copy", Some(&token));
    fleet.agents[1].line("there is no answer to that yet");
    fleet.start_server();
    fleet.agents[1].line("this disk is a copy of another machine's");
    fleet.wait_for("copy", "ready");
    assert!(aside.join("agent/identity.json").exists());
    assert!(!fleet.path().join("copy/joining").exists());
    assert_ne!(fleet.node("copy")["id"].as_str().unwrap(), original);
    fleet.wait_for("box", "ready");
    assert_eq!(fleet.starts("sleeper"), pids);
    assert_eq!(fleet.nodes().len(), 2);
}

#[test]
fn a_machine_whose_own_node_was_removed_does_not_go_on_as_the_original() {
    let mut fleet = one_node();
    let token = fleet.join_token.clone();
    fleet.copy_disk("box", "copy");
    fleet.start_agent_on("two", "copy", Some(&token));
    fleet.wait_for("copy", "ready");
    fleet.agents.remove(1).kill();
    let remove = ["node", "rm", "--yes", "--force", "copy"];
    fleet.admin(&remove).with_code(0);
    fleet.agents.remove(0).kill();
    end_units(&fleet.path().join("box"));
    // As if it had not heard that it was let in: the key is there, and no certificate.
    fleet.copy_disk("box", "again");
    let joining = fleet.path().join("again/joining");
    std::fs::create_dir(&joining).unwrap();
    let made = joining.join("agent");
    std::fs::rename(fleet.path().join("copy/agent"), &made).unwrap();
    std::fs::remove_file(made.join("certificate.pem")).unwrap();
    fleet.start_agent_on("two", "again", Some(&token));
    let line = fleet.agents[0].line("not let in as a node of its own");
    assert!(line.contains("node-gone"), "{line}");
    let advised = joining.display().to_string();
    assert!(line.contains(&advised), "{line}");
    assert!(made.join("key.pem").exists(), "it stays as it is");
    assert!(fleet.path().join("again/agent/identity.json").exists());
    assert_eq!(fleet.starts("sleeper").len(), 1, "nothing is started");
}
