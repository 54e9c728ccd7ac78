//! Containers that somebody else made, taken over as they run: on a real engine, through restarts of the agent, a new
//! generation and a removal.

use hostler_model::UnitId;
use hostler_model::spec::{RestartPolicy, WorkloadSpec};
use hostler_runtime::{Adoptable, Data, FoundState, Runtime, Unit, contract};

use crate::container::{Yard, busybox};
use crate::{is_running, lines, quiet, started, until};

const SCRIPT: &str = "echo begun; trap 'echo told; exit 0' TERM; while :; do sleep 0.1; done";

/// A container of somebody else's, which is gone when the test is over.
struct Stranger<'y> {
    yard: &'y Yard,
    name: String,
}

impl<'y> Stranger<'y> {
    fn run(yard: &'y Yard, flags: &[&str]) -> Self {
        let name = format!("stranger-{}", contract::unit(busybox("")).id.assignment);
        let words = ["run", "-d", "--name", &name, "--restart", "always"];
        let image = ["busybox:local", "sh", "-c", SCRIPT];
        yard.docker(&[&words[..], flags, &image].concat());
        Self { yard, name }
    }

    fn inspect(&self, format: &str) -> String {
        let said = self
            .yard
            .docker(&["inspect", "--format", format, &self.name]);
        said.trim().to_owned()
    }

    /// What would be another if it had been started anew, or made anew.
    fn life(&self) -> String {
        self.inspect("{{.Id}} {{.State.Pid}} {{.State.StartedAt}}")
    }

    fn spec(&self) -> WorkloadSpec {
        let mut spec = busybox(SCRIPT);
        spec.container.as_mut().unwrap().adopt = Some(self.name.clone());
        spec.stop.grace_ms = 5000;
        spec
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        self.yard.docker(&["rm", "-f", "-v", &self.name]);
    }
}

fn next_generation(unit: &Unit) -> Unit {
    let id = UnitId {
        generation: unit.id.generation + 1,
        ..unit.id
    };
    Unit { id, ..unit.clone() }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_adopted_container_runs_on_is_found_by_the_next_agent_and_replaced_by_the_next_generation()
 {
    let yard = Yard::new();
    let stranger = Stranger::run(&yard, &[]);
    let life = stranger.life();
    let driver = yard.driver();
    let unit = contract::unit(stranger.spec());
    driver.prepare(&unit, &quiet).await.unwrap();
    driver.prepare(&unit, &quiet).await.unwrap();
    assert_eq!(stranger.life(), life, "it was not touched");
    let policy = "{{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(
        stranger.inspect(policy),
        "no",
        "the engine revives it no more"
    );

    // Another agent on the same directory.
    let driver = yard.driver();
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert_eq!((found.workload, found.runs), (unit.workload, 1));
    assert!(matches!(found.state, FoundState::Running { .. }));
    driver.start(unit.id).await.unwrap();
    assert_eq!(stranger.life(), life, "a start leaves alone what runs");
    assert_eq!(lines(&driver, unit.id, 1).await, ["begun"]);
    let measured = driver.stats().unwrap().measure(unit.id).await.unwrap();
    assert!(measured.memory > 0);

    // What ends by itself is noticed, and is the same container when it is started again.
    yard.docker(&["kill", &stranger.name]);
    until("its end is seen", async || {
        !is_running(&driver, unit.id).await
    })
    .await;
    driver.start(unit.id).await.unwrap();
    assert_eq!(stranger.life().split(' ').next(), life.split(' ').next());
    assert_eq!(contract::find(&driver, unit.id).await.unwrap().runs, 2);

    let next = next_generation(&unit);
    driver.prepare(&next, &quiet).await.unwrap();
    driver.remove(unit.id, Data::Keep).await.unwrap();
    driver.start(next.id).await.unwrap();
    assert_eq!(stranger.life(), "", "the adopted one is gone");
    let listed = yard.docker(&["ps", "-q", "--filter", &yard.filter()]);
    assert_eq!(
        listed.lines().count(),
        1,
        "one of our own runs in its place"
    );

    // Nor does a generation after that look for it again, also under another agent.
    let driver = yard.driver();
    driver.remove(next.id, Data::Keep).await.unwrap();
    let last = next_generation(&next);
    driver.prepare(&last, &quiet).await.unwrap();
    driver.remove(last.id, Data::Delete).await.unwrap();
    assert!(driver.observe().await.unwrap().is_empty());
    assert_eq!(yard.records(), 0, "with the data goes the memory");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_removed_copy_takes_its_adopted_container_along_and_leaves_its_volume() {
    let yard = Yard::new();
    let stranger = Stranger::run(&yard, &["-v", "/data"]);
    let volume = stranger.inspect("{{(index .Mounts 0).Name}}");
    let driver = yard.driver();
    let unit = contract::unit(stranger.spec());
    driver.prepare(&unit, &quiet).await.unwrap();
    driver.remove(unit.id, Data::Delete).await.unwrap();
    assert_eq!(stranger.life(), "");
    let left = yard.docker(&["volume", "ls", "-q", "--filter", &format!("name={volume}")]);
    assert_eq!(left.trim(), volume);
    yard.docker(&["volume", "rm", &volume]);
    assert!(yard.driver().observe().await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_is_not_there_does_not_run_or_belongs_to_a_fleet_is_not_adopted() {
    let (yard, theirs) = (Yard::new(), Yard::new());
    let driver = yard.driver();
    let refused = async |name: &str| {
        let mut spec = busybox(SCRIPT);
        spec.container.as_mut().unwrap().adopt = Some(name.to_owned());
        let unit = contract::unit(spec);
        let refused = driver.prepare(&unit, &quiet).await.unwrap_err();
        assert!(refused.to_string().contains(name), "{refused}");
        assert!(
            contract::find(&driver, unit.id).await.is_none(),
            "nothing is left behind"
        );
        refused.code()
    };
    assert_eq!(refused("stranger-of-nobody").await, "adopt-not-found");
    let stranger = Stranger::run(&yard, &[]);
    let id = stranger.inspect("{{.Id}}");
    assert_eq!(refused(&id).await, "adopt-not-found");
    assert_eq!(refused(&id[..12]).await, "adopt-not-found");
    yard.docker(&["stop", "-t", "1", &stranger.name]);
    assert_eq!(refused(&stranger.name).await, "adopt-not-running");

    let other = theirs.driver();
    let unit = started(&other, busybox("sleep 1000")).await;
    let name = theirs.inspect("{{.Name}}");
    assert_eq!(refused(name.trim_start_matches('/')).await, "adopt-managed");
    assert!(is_running(&other, unit.id).await);

    yard.docker(&["start", &stranger.name]);
    let unit = contract::unit(stranger.spec());
    driver.prepare(&unit, &quiet).await.unwrap();
    assert_eq!(refused(&stranger.name).await, "adopt-managed");
    driver.remove(unit.id, Data::Delete).await.unwrap();
}

#[tokio::test]
#[ignore = "needs docker"]
async fn of_two_workloads_that_want_the_same_container_one_gets_it() {
    let yard = Yard::new();
    let stranger = Stranger::run(&yard, &[]);
    let driver = yard.driver();
    let units = [stranger.spec(), stranger.spec()].map(contract::unit);
    let (one, two) = tokio::join!(
        driver.prepare(&units[0], &quiet),
        driver.prepare(&units[1], &quiet)
    );
    let refused: Vec<_> = [one, two].into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].code(), "adopt-managed");
    for unit in units {
        driver.remove(unit.id, Data::Delete).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_adoption_goes_on_when_nobody_waits_for_it_any_more() {
    let yard = Yard::new();
    let stranger = Stranger::run(&yard, &[]);
    let driver = yard.driver();
    let unit = contract::unit(stranger.spec());
    assert!(futures::poll!(driver.prepare(&unit, &quiet)).is_pending());
    until("it is a unit", async || is_running(&driver, unit.id).await).await;
    driver.remove(unit.id, Data::Delete).await.unwrap();
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_stranger_is_listed_with_what_differs_from_its_image() {
    let yard = Yard::new();
    let driver = yard.driver();
    let ours = started(&driver, busybox("sleep 1000")).await;
    let flags = [
        "-e",
        "GREETING=hello",
        "-m",
        "64m",
        "-v",
        "/etc/hostname:/name:ro",
        "-v",
        "/data",
    ];
    let more = [
        "-l",
        "team=a",
        "--health-cmd",
        "true",
        "--cap-add",
        "NET_ADMIN",
        "-u",
        "1000",
    ];
    let stranger = Stranger::run(&yard, &[&flags[..], &more].concat());
    let volume =
        stranger.inspect("{{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}}{{end}}{{end}}");
    let listed: Vec<Adoptable> = driver.adoption().unwrap().adoptable().await.unwrap();
    let of_ours = ours.id.assignment.short();
    assert!(
        listed.iter().all(|it| !it.name.contains(&of_ours)),
        "none of ours"
    );
    let found = listed
        .into_iter()
        .find(|it| it.name == stranger.name)
        .unwrap();
    found.spec.check().unwrap();
    assert_eq!(
        found.spec.env,
        [("GREETING".to_owned(), "hello".to_owned())].into()
    );
    assert_eq!(found.spec.limits.memory.map(|it| it.0), Some(64 << 20));
    assert_eq!(found.spec.restart.policy, RestartPolicy::Always);
    assert!(found.spec.health.as_ref().is_some_and(|it| it.native));
    let container = found.spec.container.as_ref().unwrap();
    assert_eq!(container.adopt.as_ref(), Some(&stranger.name));
    assert_eq!(container.command, ["sh", "-c", SCRIPT]);
    assert_eq!(
        (container.image.as_str(), container.user.as_deref()),
        ("busybox:local", Some("1000"))
    );
    assert_eq!(
        container.labels,
        [("team".to_owned(), "a".to_owned())].into()
    );
    assert_eq!(container.capabilities.add, ["NET_ADMIN"]);
    let mounts: Vec<_> = container
        .mounts
        .iter()
        .map(|it| (it.source.as_str(), it.read_only))
        .collect();
    assert_eq!(mounts, [(volume.as_str(), false), ("/etc/hostname", true)]);
    let of_data = found.notes.iter().find(|note| note.contains("/data"));
    assert_eq!(of_data, None, "it is carried over");
    assert!(!found.shares_node, "{:?}", found.notes);
    driver.remove(ours.id, Data::Delete).await.unwrap();
}
