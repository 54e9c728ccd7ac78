//! What the node's owner lets run, whatever the control plane wants.

use std::time::Duration;

use hostler_agent::GuardFile;
use hostler_model::spec::WorkloadSpec;
use hostler_runtime::Adoptable;

use crate::control::unit;
use crate::node::{World, serve};

fn container(privileged: bool) -> WorkloadSpec {
    let mut spec = WorkloadSpec::of_container("web", "web:1", vec!["serve".to_owned()]);
    spec.container.as_mut().unwrap().privileged = privileged;
    spec
}

#[tokio::test(start_paused = true)]
async fn the_nodes_owner_has_the_last_word_and_what_runs_goes_on() {
    let world = World::new();
    let path = world.dir.path().join("guard.toml");
    std::fs::write(&path, "kinds = ['process']\n").unwrap();
    let guard = GuardFile::Named(path.clone());
    let _agent = world
        .try_start(|config| config.guard = guard)
        .await
        .unwrap();
    world.control.run(unit(1, 1), &serve("allowed"));
    world.control.run(unit(2, 1), &container(true));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.until_shown(unit(2, 1), "failed").await;
    let (code, message) = world.control.state().failure(unit(2, 1)).unwrap();
    assert_eq!(code, "refused-by-node");
    assert!(message.contains("rule `kinds`"), "{message}");

    // The next try meets the next rules.
    std::fs::write(&path, "privileged = true\n").unwrap();
    world.control.until_shown(unit(2, 1), "running").await;

    // Rules that would not let what runs stop nothing, and a broken file lets nothing new run.
    std::fs::write(&path, "kinds = []\nprivileged = 7\n").unwrap();
    world.control.run(unit(3, 1), &serve("new"));
    world.control.until_shown(unit(3, 1), "failed").await;
    let (code, message) = world.control.state().failure(unit(3, 1)).unwrap();
    assert_eq!(code, "refused-by-node");
    assert!(message.contains("nothing new runs here"), "{message}");
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.machine.running(), [unit(1, 1), unit(2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_a_spec_takes_over_is_judged_by_what_it_is() {
    let taking = |name: &str, privileged: bool| {
        let mut spec = container(privileged);
        spec.container.as_mut().unwrap().adopt = Some(name.to_owned());
        spec
    };
    let stranger = |name: &str, privileged: bool, shares_node: bool| Adoptable {
        name: name.to_owned(),
        spec: taking(name, privileged),
        notes: Vec::new(),
        shares_node,
    };
    let world = World::new();
    world.machine.set_strangers(vec![
        stranger("plain", false, false),
        stranger("privileged", true, false),
        stranger("of-the-node", false, true),
    ]);
    let path = world.dir.path().join("guard.toml");
    std::fs::write(&path, "adopt = true\n").unwrap();
    let guard = GuardFile::Named(path);
    let _agent = world
        .try_start(|config| config.guard = guard)
        .await
        .unwrap();
    for (number, name) in [(1, "plain"), (2, "privileged"), (3, "of-the-node")] {
        world.control.run(unit(number, 1), &taking(name, false));
    }
    world.control.until_shown(unit(1, 1), "running").await;
    for number in [2, 3] {
        world.control.until_shown(unit(number, 1), "failed").await;
        let (code, message) = world.control.state().failure(unit(number, 1)).unwrap();
        assert_eq!(code, "refused-by-node");
        assert!(message.contains("rule `privileged`"), "{message}");
    }
    assert_eq!(world.machine.running(), [unit(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_guard_file_everything_but_privileges_is_let() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &container(false));
    world.control.run(unit(2, 1), &container(true));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.until_shown(unit(2, 1), "failed").await;
    let (code, _) = world.control.state().failure(unit(2, 1)).unwrap();
    assert_eq!(code, "refused-by-node");
}
