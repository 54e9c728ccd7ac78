//! The compose driver on a real engine, with `docker-compose` 1.29 and, in its own lane, with `docker compose`.
//! `HOSTLER_TEST_DOCKER` says where the engine listens; the image `busybox:local` has to be there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_kit::{SystemClock, Tasks};
use hostler_model::spec::{ComposeSpec, Kind, RestartPolicy, WorkloadSpec};
use hostler_model::{Exit, FailureCode, RuntimeFact, UnitId};
use hostler_runtime::compose::{ComposeConfig, ComposeRuntime, Programs};
use hostler_runtime::contract::{self, Behaviour};
use hostler_runtime::{
    Asks, Data, Discarded, Found, FoundState, Judge, LeftoverKind, LogLine, LogQuery, Progress,
    Run, Runtime, RuntimeError, Unit,
};

use crate::container::engine;
use crate::{free_port, is_running, quiet, until};

/// An owner of its own on the engine; what is left of its projects is removed when the test is over.
pub(crate) struct Yard {
    pub(crate) dir: tempfile::TempDir,
    owner: String,
    pub(crate) programs: Programs,
    pub(crate) engine: String,
}

impl Yard {
    /// By the old program.
    pub(crate) fn new() -> Self {
        Self::with(old_program())
    }

    pub(crate) fn with(programs: Programs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let owner = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        Self {
            dir,
            owner,
            programs,
            engine: engine(),
        }
    }

    pub(crate) fn driver(&self) -> ComposeRuntime {
        let (dir, owner) = (self.dir.path().to_owned(), self.owner.clone());
        driver(&self.engine, dir, owner, self.programs.clone())
    }

    fn filter(&self) -> String {
        format!("label=hostler.compose.owner={}", self.owner)
    }

    /// The engine's ids of our containers, of one service if it is named.
    pub(crate) fn containers(&self, service: Option<&str>) -> Vec<String> {
        let ours = self.filter();
        let mut words = vec!["ps", "-aq", "--no-trunc", "--filter", &ours];
        let of_service = service.map(|it| format!("label=com.docker.compose.service={it}"));
        if let Some(filter) = &of_service {
            words.extend(["--filter", filter]);
        }
        docker(&words).lines().map(str::to_owned).collect()
    }

    pub(crate) fn inspect(&self, service: &str, format: &str) -> String {
        let found = self.containers(Some(service));
        docker(&["inspect", "--format", format, &found[0]])
            .trim()
            .to_owned()
    }

    /// The networks of our projects.
    pub(crate) fn networks(&self) -> String {
        self.made("network")
    }

    /// What of that kind the engine has under the names of our projects.
    fn made(&self, kind: &str) -> String {
        let letters = self.owner.chars().filter(char::is_ascii_alphanumeric);
        let letters: String = letters.take(8).collect();
        let filter = format!("name=hostler-{}-", letters.to_ascii_lowercase());
        docker(&[kind, "ls", "-q", "--filter", &filter])
    }

    /// Files and directories of the driver, but for its records of what may be there.
    pub(crate) fn left(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let entries = entries.map(|entry| entry.unwrap().path());
        let records = ["starts", "whose", "images"];
        entries
            .filter(|path| !records.iter().any(|record| path.ends_with(record)))
            .collect()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for container in self.containers(None) {
            docker(&["rm", "-f", "-v", &container]);
        }
        for kind in ["network", "volume"] {
            for name in self.made(kind).lines() {
                docker(&[kind, "rm", name]);
            }
        }
    }
}

/// The old program alone.
pub(crate) fn old_program() -> Programs {
    Programs {
        docker: "/no/such/docker".into(),
        ..Programs::default()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the programs of a test are those that the person who runs it has"
)]
pub(crate) fn environment() -> Vec<(String, String)> {
    ["PATH", "HOME", "DOCKER_CONFIG"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect()
}

pub(crate) fn driver(
    engine: &str,
    dir: PathBuf,
    owner: String,
    programs: Programs,
) -> ComposeRuntime {
    ComposeRuntime::new(ComposeConfig {
        engine: engine.to_owned(),
        dir,
        owner,
        programs,
        environment: environment(),
        clock: Arc::new(SystemClock::new()),
        tasks: Tasks::new(),
    })
}

pub(crate) fn docker(words: &[&str]) -> String {
    let output = Command::new("docker")
        .arg("-H")
        .arg(engine())
        .args(words)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn project(text: &str) -> WorkloadSpec {
    let mut spec = WorkloadSpec::bare("test");
    spec.compose = Some(ComposeSpec::of_text(text));
    spec.stop.grace_ms = 2000;
    spec
}

/// A service that runs a script, as one line of a compose file.
pub(crate) fn service(name: &str, script: &str, more: &str) -> String {
    let script = serde_json::to_string(&script.replace('$', "$$")).unwrap();
    format!(
        "  {name}: {{image: 'busybox:local', command: [sh, -c, {script}], network_mode: none{more}}}\n"
    )
}

pub(crate) fn services(services: &[String]) -> WorkloadSpec {
    project(&format!("services:\n{}", services.concat()))
}

/// Services that obey are not killed, however busy the machine is.
pub(crate) fn patient(mut spec: WorkloadSpec) -> WorkloadSpec {
    spec.stop.grace_ms = 60_000;
    spec
}

pub(crate) const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";

pub(crate) async fn prepared(driver: &ComposeRuntime, spec: WorkloadSpec) -> Unit {
    let unit = contract::unit(spec);
    driver.prepare(&unit, &quiet).await.unwrap();
    unit
}

pub(crate) async fn started(driver: &ComposeRuntime, spec: WorkloadSpec) -> Unit {
    let unit = prepared(driver, spec).await;
    driver.start(unit.id).await.unwrap();
    unit
}

pub(crate) async fn parts(driver: &ComposeRuntime, id: UnitId) -> Vec<String> {
    driver.observe().await.unwrap();
    driver.parts(id).iter().map(ToString::to_string).collect()
}

pub(crate) async fn refused(driver: &ComposeRuntime, spec: WorkloadSpec) -> RuntimeError {
    driver
        .prepare(&contract::unit(spec), &quiet)
        .await
        .unwrap_err()
}

/// The driver without the service's name before each line, which the suite does not know.
struct Plain(ComposeRuntime);

#[async_trait]
impl Runtime for Plain {
    fn kind(&self) -> Kind {
        self.0.kind()
    }

    async fn probe(&self) -> RuntimeFact {
        self.0.probe().await
    }

    async fn prepare(&self, unit: &Unit, progress: Progress<'_>) -> Result<(), RuntimeError> {
        self.0.prepare(unit, progress).await
    }

    async fn start(&self, id: UnitId) -> Result<(), RuntimeError> {
        self.0.start(id).await
    }

    async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        self.0.stop(id).await
    }

    async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        self.0.remove(id, data).await
    }

    async fn observe(&self) -> Result<Vec<Found>, RuntimeError> {
        self.0.observe().await
    }

    async fn changed(&self) {
        self.0.changed().await;
    }

    async fn logs(
        &self,
        id: UnitId,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        let lines = self.0.logs(id, query).await?;
        let plain = |line: Result<LogLine, RuntimeError>| {
            line.map(|line| LogLine {
                text: line
                    .text
                    .strip_prefix("main | ")
                    .expect("the name")
                    .to_owned(),
                ..line
            })
        };
        Ok(lines.map(plain).boxed())
    }
}

async fn keeps_the_contract(yard: &Yard) {
    let (dir, owner, programs) = (
        yard.dir.path().to_owned(),
        yard.owner.clone(),
        yard.programs.clone(),
    );
    contract::run(&contract::Subject {
        remake: Box::new(move || {
            let driver = driver(&engine(), dir.clone(), owner.clone(), programs.clone());
            Arc::new(Plain(driver))
        }),
        spec: Box::new(|behaviour: &Behaviour| {
            services(&[service("main", &contract::script(behaviour), "")])
        }),
    })
    .await;
    assert_eq!(yard.left(), Vec::<PathBuf>::new(), "nothing is left of it");
    assert_eq!(yard.containers(None), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs compose"]
async fn the_compose_driver_keeps_the_contract_with_the_old_program() {
    keeps_the_contract(&Yard::new()).await;
}

#[tokio::test]
#[ignore = "needs compose-v2"]
async fn the_compose_driver_keeps_the_contract_with_the_new_program() {
    keeps_the_contract(&Yard::with(Programs::default())).await;
}

#[tokio::test]
#[ignore = "needs compose"]
async fn services_are_started_in_order_never_restarted_by_the_engine_and_stopped_backwards() {
    let yard = Yard::new();
    let driver = yard.driver();
    let late = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let spec = services(&[
        service("db", late, ", restart: always"),
        service(
            "web",
            late,
            ", depends_on: [db], deploy: {restart_policy: {condition: any}}",
        ),
    ]);
    let unit = started(&driver, patient(spec)).await;
    assert_eq!(
        parts(&driver, unit.id).await,
        ["db: running", "web: running"]
    );
    for service in ["db", "web"] {
        let policy = yard.inspect(service, "{{.HostConfig.RestartPolicy.Name}}");
        assert!(["no", ""].contains(&policy.as_str()), "{service}: {policy}");
        assert_eq!(
            yard.inspect(service, "{{.HostConfig.LogConfig.Config}}"),
            "map[max-file:4 max-size:8m]"
        );
    }
    // Fractions of a second have no zeros at their end.
    let begun = ["db", "web"].map(|service| yard.inspect(service, "{{.State.StartedAt}}"));
    let [db, web] = begun.each_ref().map(|at| at.trim_end_matches('Z'));
    assert!(db < web, "started in order: {begun:?}");
    contract::texts(&driver, unit.id, &LogQuery::default(), 2).await;
    assert_eq!(driver.stop(unit.id).await.unwrap(), Exit::Code(0));
    let mut said = contract::texts(&driver, unit.id, &LogQuery::default(), 4).await;
    // Which of the two gets a word out first is the machine's affair.
    said[..2].sort();
    assert_eq!(
        said,
        ["db | up", "web | up", "web | bye", "db | bye"],
        "merged by time"
    );
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_failed_service_is_named_and_only_what_ended_is_started_again() {
    let yard = Yard::new();
    let driver = yard.driver();
    let once = "test -e /kept/done || { touch /kept/done; sleep 0.3; exit 4; }; while :; do sleep 0.05; done";
    let mut spec = services(&[
        service("job", "exit 0", ""),
        service("db", IDLE, ""),
        service("web", once, ", volumes: ['kept:/kept']"),
    ]);
    spec.compose
        .as_mut()
        .unwrap()
        .file
        .push_str("volumes: {kept: {}}\n");
    let unit = started(&driver, spec).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(4));
    let shown = parts(&driver, unit.id).await;
    assert_eq!(
        shown,
        ["db: running", "job: exit code 0", "web: exit code 4"]
    );
    let db = yard.inspect("db", "{{.State.StartedAt}}");
    driver.start(unit.id).await.unwrap();
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert!(
        matches!(found.state, FoundState::Running { .. }),
        "{found:?}"
    );
    assert_eq!(found.runs, 2);
    assert_eq!(
        yard.inspect("db", "{{.State.StartedAt}}"),
        db,
        "it was left alone"
    );
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_project_that_nothing_restarts_ends_whole_when_a_service_fails() {
    let yard = Yard::new();
    let driver = yard.driver();
    let mut spec = services(&[
        service("db", IDLE, ""),
        service("web", "sleep 0.3; exit 4", ""),
    ]);
    spec.restart.policy = RestartPolicy::No;
    let unit = started(&driver, patient(spec)).await;
    until("the other is ended too", async || {
        parts(&driver, unit.id).await == ["db: exit code 0", "web: exit code 4"]
    })
    .await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(4));
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_start_that_fails_names_the_services_and_leaves_nothing_running() {
    let yard = Yard::new();
    let driver = yard.driver();
    let port = free_port();
    let taken = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    let text = format!(
        "services:\n{}  web: {{image: 'busybox:local', command: sleep 1000, ports: ['{port}:80']}}\n  \
         bad: {{image: 'busybox:local', command: no-such-program, network_mode: none}}\n",
        service("db", IDLE, "")
    );
    let unit = prepared(&driver, project(&text)).await;
    let error = driver.start(unit.id).await.unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("service bad: cannot run `no-such-program`"),
        "{told}"
    );
    assert!(
        told.contains(&format!("service web: port {port} is in use")),
        "{told}"
    );
    let only = text
        .lines()
        .filter(|line| !line.contains("bad:"))
        .collect::<Vec<_>>()
        .join("\n");
    let second = prepared(&driver, project(&only)).await;
    let error = driver.start(second.id).await.unwrap_err();
    assert_eq!(error.code(), "port-in-use", "{error}");
    for id in [unit.id, second.id] {
        let found = contract::find(&driver, id).await.unwrap();
        assert!(
            !parts(&driver, id)
                .await
                .iter()
                .any(|part| part.contains("running"))
        );
        assert_ne!(found.runs, 2);
    }
    drop(taken);
    driver.start(second.id).await.unwrap();
    assert!(is_running(&driver, second.id).await);
}

#[tokio::test]
#[ignore = "needs compose"]
async fn variables_come_from_the_workload_and_nothing_of_the_agent_is_seen() {
    let yard = Yard::new();
    let driver = yard.driver();
    let mut spec = project(
        "services:\n  web: {image: 'busybox:local', network_mode: none, \
         command: ['echo', '${GREETING} ${HOSTLER_SLOT} <${CARGO_MANIFEST_DIR}>']}\n",
    );
    let odd = "it's \"$HOME\" \\ fine";
    spec.env.insert("GREETING".to_owned(), odd.to_owned());
    let unit = started(&driver, spec).await;
    let said = contract::texts(&driver, unit.id, &LogQuery::default(), 1).await;
    assert_eq!(said, [format!("web | {odd} 0 <>")]);
}

#[tokio::test]
#[ignore = "needs compose"]
async fn the_next_generation_finds_the_volumes_and_a_deletion_removes_them() {
    let yard = Yard::new();
    let driver = yard.driver();
    let script = "echo x >> /data/lines; echo x >> /here/lines; wc -l < /data/lines; wc -l < /here/lines; exit 0";
    let text = |more: &str| {
        let mounts = ", volumes: ['data:/data', './here:/here']";
        format!(
            "services:\n{}{more}volumes: {{data: {{}}}}\n",
            service("web", script, mounts)
        )
    };
    let mut unit = contract::unit(project(&text("")));
    for (generation, expected) in [(1, "1"), (2, "2")] {
        unit.id.generation = generation;
        driver.prepare(&unit, &quiet).await.unwrap();
        if generation == 2 {
            // As a plan does: the new one is ready before the old one goes.
            let old = UnitId {
                generation: 1,
                ..unit.id
            };
            let error = driver.start(unit.id).await.unwrap_err();
            assert_eq!(error.code(), "compose-project-busy", "{error}");
            driver.remove(old, Data::Keep).await.unwrap();
            assert_eq!(contract::find(&driver, old).await, None);
        }
        driver.start(unit.id).await.unwrap();
        let said = contract::texts(&driver, unit.id, &LogQuery::default(), 2).await;
        let line = format!("web | {expected}");
        assert_eq!(said, [line.clone(), line]);
    }
    driver.remove(unit.id, Data::Delete).await.unwrap();
    let name = format!("name={}", unit.id.assignment);
    assert_eq!(docker(&["volume", "ls", "-q", "--filter", &name]), "");
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &name]), "");
    assert_eq!(yard.left(), Vec::<PathBuf>::new());
}

/// Lets nothing that sees a path of the node, and writes down what was asked for.
struct Strict(Mutex<Vec<Asks>>);

#[async_trait]
impl Judge for Strict {
    async fn judge(&self, asks: Vec<Asks>) -> Result<(), RuntimeError> {
        let is_open = asks.iter().any(|asks| !asks.mounts.is_empty());
        *self.0.lock().unwrap() = asks;
        let refused = || RuntimeError::Unsatisfiable {
            code: FailureCode::RefusedByNode,
            message: "no mounts".to_owned(),
        };
        if is_open { Err(refused()) } else { Ok(()) }
    }
}

#[tokio::test]
#[ignore = "needs compose"]
async fn what_a_project_asks_for_is_judged_before_anything_of_it_is_made() {
    let yard = Yard::new();
    let driver = yard.driver();
    let strict = Arc::new(Strict(Mutex::default()));
    let judge: Arc<dyn Judge> = Arc::clone(&strict) as _;
    driver.judged().unwrap().judge_by(judge);
    let of = |mounts: &str| services(&[service("web", IDLE, mounts)]);
    let unit = prepared(&driver, of(", user: '7', volumes: ['./here:/here']")).await;
    let asks = strict.0.lock().unwrap().clone();
    assert_eq!(asks[0].user.as_deref(), Some("7"));
    assert_eq!(asks[0].image.as_deref(), Some("busybox:local"));
    assert_eq!(asks[0].networks, ["none"]);
    assert!(asks[0].mounts.is_empty(), "its own directory is its own");
    driver.remove(unit.id, Data::Delete).await.unwrap();
    let error = refused(&driver, of(", volumes: ['/etc:/etc:ro']")).await;
    assert_eq!(error.code(), "refused-by-node");
    assert_eq!(strict.0.lock().unwrap()[0].mounts, ["/etc"]);
    let error = refused(&driver, of(", env_file: [/etc/os-release]")).await;
    assert_eq!(error.code(), "refused-by-node");
    assert_eq!(strict.0.lock().unwrap()[0].mounts, ["/etc/os-release"]);
    // A link that a copy has left in its own directory leads out of it.
    let unit = contract::unit(of(", volumes: ['./link:/x']"));
    let data = yard
        .dir
        .path()
        .join(unit.id.assignment.to_string())
        .join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::os::unix::fs::symlink("/etc", data.join("link")).unwrap();
    let error = driver.prepare(&unit, &quiet).await.unwrap_err();
    assert_eq!(error.code(), "refused-by-node");
}

#[tokio::test]
#[ignore = "needs compose"]
async fn data_of_a_project_is_kept_until_it_is_discarded() {
    let yard = Yard::new();
    let driver = yard.driver();
    let text = |mounts: &str| {
        let service = service("web", "echo x > /data/x; exec sleep 1000", mounts);
        project(&format!("services:\n{service}volumes: {{data: {{}}}}\n"))
    };
    for mounts in [", volumes: ['data:/data']", ", volumes: ['./here:/data']"] {
        contract::data_is_kept_until_it_is_discarded(&driver, text(mounts)).await;
    }
    assert_eq!(yard.left(), Vec::<PathBuf>::new());
    let whose = std::fs::read_dir(yard.dir.path().join("whose")).unwrap();
    assert_eq!(whose.count(), 0, "nobody's data is left");
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_network_that_lost_its_project_is_debris_of_its_owner_alone() {
    let (ours, theirs) = (Yard::new(), Yard::new());
    let driver = ours.driver();
    let joined =
        "services: {web: {image: 'busybox:local', command: [sleep, '1000'], stop_signal: KILL}}";
    let unit = started(&driver, project(joined)).await;
    let leftovers = driver.leftovers().unwrap();
    assert_eq!(leftovers.leftovers().await.unwrap(), []);
    for container in ours.containers(None) {
        docker(&["rm", "-f", &container]);
    }
    let files = ours.dir.path().join(unit.id.assignment.to_string());
    std::fs::remove_dir_all(files).unwrap();
    let (one, other) = (ours.driver(), theirs.driver());
    let foreign = other.leftovers().unwrap().leftovers().await.unwrap();
    assert_eq!(foreign, [], "another agent's is nobody's here");
    let told = one.leftovers().unwrap().leftovers().await.unwrap();
    let [network] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(network.kind, LeftoverKind::Debris);
    let gone = one
        .leftovers()
        .unwrap()
        .discard(network.kind, &network.name);
    assert_eq!(gone.await.unwrap(), Discarded::Gone);
    let name = format!("name={}", unit.id.assignment);
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &name]), "");
}

#[tokio::test]
#[ignore = "needs compose"]
async fn two_agents_on_one_engine_leave_each_others_projects_alone() {
    let (ours, theirs) = (Yard::new(), Yard::new());
    let driver = ours.driver();
    let unit = started(&driver, services(&[service("web", IDLE, "")])).await;
    let other = theirs.driver();
    assert!(other.observe().await.unwrap().is_empty());
    other.remove(unit.id, Data::Delete).await.unwrap();
    assert!(is_running(&driver, unit.id).await);
    let containers = crate::container::driver(engine(), theirs.dir.path().join("c"), &ours.owner);
    assert!(
        containers.observe().await.unwrap().is_empty(),
        "they are no containers of that driver"
    );
}

#[tokio::test]
#[ignore = "needs compose"]
async fn logs_are_followed_over_all_services_as_they_come_and_go() {
    let yard = Yard::new();
    let driver = yard.driver();
    let talk = "n=0; while [ $n -lt 3 ]; do echo $n; n=$((n+1)); sleep 0.2; done; test -e /x/again || { touch /x/again; exit 1; }; sleep 1000";
    let mut spec = services(&[
        service("calm", IDLE, ""),
        service("talk", talk, ", volumes: ['x:/x']"),
    ]);
    spec.compose
        .as_mut()
        .unwrap()
        .file
        .push_str("volumes: {x: {}}\n");
    let unit = started(&driver, spec).await;
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let mut lines = driver.logs(unit.id, query).await.unwrap();
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next()).await;
        let line = line
            .expect("a line comes")
            .expect("the stream goes on")
            .unwrap();
        (line.text, line.run)
    };
    for n in 0..3 {
        assert_eq!(next().await, (format!("talk | {n}"), 1));
    }
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::Code(1));
    // The other service runs on, and its silence holds nobody up.
    driver.start(unit.id).await.unwrap();
    for n in 0..3 {
        assert_eq!(next().await, (format!("talk | {n}"), 2));
    }
    let tail = LogQuery {
        tail: Some(1),
        run: Run::Previous,
        ..LogQuery::default()
    };
    assert_eq!(
        contract::texts(&driver, unit.id, &tail, 1).await,
        ["talk | 2"]
    );
    driver.remove(unit.id, Data::Delete).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(60), lines.next()).await;
    let end = end.expect("it ends");
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_project_is_measured_as_the_sum_of_its_containers() {
    let yard = Yard::new();
    let driver = yard.driver();
    let unit = started(
        &driver,
        services(&[service("a", IDLE, ""), service("b", IDLE, "")]),
    )
    .await;
    let stats = driver.stats().unwrap();
    until("both are counted", async || {
        let used = stats.measure(unit.id).await.unwrap();
        used.pids >= 2 && used.cpu_nanos > 0 && used.memory > 0
    })
    .await;
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_probe_tells_the_programs_version_or_what_is_missing() {
    let yard = Yard::new();
    let fact = yard.driver().probe().await;
    assert!(fact.available && fact.version.starts_with("1."), "{fact:?}");
    let none = Yard::with(Programs {
        docker: "/no/docker".into(),
        docker_compose: "/no/compose".into(),
        git: "/no/git".into(),
    });
    let driver = none.driver();
    let fact = driver.probe().await;
    assert!(
        !fact.available && fact.note.contains("docker-compose"),
        "{fact:?}"
    );
    let error = refused(&driver, services(&[service("a", IDLE, "")])).await;
    assert_eq!(error.code(), "compose-missing", "{error}");
    assert_eq!(none.left(), Vec::<PathBuf>::new());
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_look_for_the_program_goes_on_when_nobody_waits_for_it() {
    let tools = tempfile::tempdir().unwrap();
    let path = tools.path().join("compose");
    let script = "#!/bin/sh\necho x >> \"$0.looks\"; until [ -e \"$0.go\" ]; do sleep 0.05; done; echo 9.8.7\n";
    std::fs::write(&path, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    let yard = Yard::with(Programs {
        docker: "/no/such/docker".into(),
        docker_compose: path,
        ..Programs::default()
    });
    let driver = yard.driver();
    let looks = tools.path().join("compose.looks");
    tokio::select! {
        fact = driver.probe() => panic!("{fact:?}"),
        () = until("it is looked for", async || looks.exists()) => {}
    }
    std::fs::write(tools.path().join("compose.go"), "").unwrap();
    let fact = driver.probe().await;
    assert!(fact.available && fact.version == "9.8.7", "{fact:?}");
    assert_eq!(
        std::fs::read_to_string(&looks).unwrap(),
        "x\n",
        "looked for once"
    );
}

/// A program that notes what it is given and passes it on to the old one.
fn recorder(dir: &Path) -> PathBuf {
    let (path, record) = (dir.join("docker"), dir.join("record"));
    let script = format!(
        "#!/bin/sh\necho \"$DOCKER_HOST $*\" >> {}\n[ \"$1\" = compose ] || exit 9\nshift\nexec docker-compose \"$@\"\n",
        record.display()
    );
    std::fs::write(&path, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    path
}

#[tokio::test]
#[ignore = "needs compose"]
async fn the_engines_own_compose_is_preferred_and_told_everything_by_name() {
    let tools = tempfile::tempdir().unwrap();
    let yard = Yard::with(Programs {
        docker: recorder(tools.path()),
        docker_compose: "/no/such/compose".into(),
        ..Programs::default()
    });
    let driver = yard.driver();
    let unit = started(&driver, services(&[service("web", IDLE, "")])).await;
    assert!(is_running(&driver, unit.id).await);
    let record = std::fs::read_to_string(tools.path().join("record")).unwrap();
    let lines: Vec<&str> = record.lines().collect();
    assert_eq!(lines.len(), 3, "looked up once: {record}");
    let begin = format!("{} compose", engine());
    assert_eq!(lines[0], format!("{begin} version --short"));
    let dir = yard.dir.path().join(unit.id.assignment.to_string());
    let dir = dir.display();
    let words: BTreeSet<&str> = lines[2].split(' ').collect();
    for word in [
        format!("{dir}/data"),
        format!("{dir}/1/env"),
        format!("{dir}/1/compose.yaml"),
        format!("{dir}/1/override.yaml"),
    ] {
        assert!(words.contains(word.as_str()), "{word}: {record}");
    }
    let project = format!("-{} ", unit.id.assignment);
    assert!(
        lines[2].starts_with(&format!("{begin} --project-name hostler-")),
        "{record}"
    );
    assert!(lines[2].contains(&project), "{record}");
    assert!(
        lines[2].ends_with(" up --detach --no-recreate --quiet-pull"),
        "{record}"
    );
}
