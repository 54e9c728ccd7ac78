//! Compose projects end to end: our own spec and MIaaS's deployments, by server, agent, `docker-compose` and a real
//! engine. The engine's socket comes in `HOSTLER_TEST_DOCKER`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::needs_docker::{docker, page, socket};
use crate::program::{eventually, free_port};

const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// A fleet whose projects are gone when the test is over, whatever it did.
struct Yard {
    fleet: Fleet,
}

impl Yard {
    fn start() -> Self {
        let fleet = Fleet::start_with(&socket());
        fleet.wait_runs("box", "compose");
        Self { fleet }
    }

    fn containers(&self, workload: &str) -> Vec<String> {
        let shown = self
            .fleet
            .run(&["show", workload, "-o", "json"])
            .with_code(0)
            .json();
        let id = shown["id"].as_str().unwrap().to_owned();
        let filter = format!("label=hostler.compose.workload={id}");
        let listed = docker(&["ps", "-aq", "--no-trunc", "--filter", &filter]);
        listed.lines().map(str::to_owned).collect()
    }

    /// The body of the answer.
    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let addr = self.fleet.addr().replace("http://", "");
        let mut stream = TcpStream::connect(&addr).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {addr}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        body.unwrap_or_default()
    }

    fn parts(&self, workload: &str) -> Value {
        let copies = self.fleet.copies(workload);
        copies
            .first()
            .map_or(Value::Null, |copy| copy["parts"].clone())
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.fleet.remove_all();
    }
}

#[test]
#[ignore = "needs compose"]
fn a_compose_project_is_applied_shown_by_service_followed_and_removed() {
    let mut yard = Yard::start();
    let text = format!(
        "services:\n  db: {{image: 'busybox:local', command: [sh, -c, \"{IDLE}\"]}}\n  \
         web: {{image: 'busybox:local', command: [sh, -c, \"echo hello $GREETING; {IDLE}\"], depends_on: [db]}}\n"
    );
    let file = yard.fleet.path().join("shop.yaml");
    let spec = json!({"name": "shop", "compose": {"file": text}, "env": {"GREETING": "world"},
        "stop": {"grace_ms": 1000}});
    std::fs::write(&file, spec.to_string()).unwrap();
    // The old compose program takes its time on a busy machine.
    let words = ["apply", "--wait-timeout", "5m", "-f"];
    yard.fleet
        .run(&[&words[..], &[file.to_str().unwrap()]].concat())
        .with_code(0);
    let both = json!([{"name": "db", "state": "running"}, {"name": "web", "state": "running"}]);
    eventually("both services are shown", || yard.parts("shop") == both);
    let shown = yard.fleet.run(&["ps", "shop"]).with_code(0).stdout;
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!((rows[2][0], rows[2][3]), ("db", "running"), "{shown}");
    assert_eq!((rows[3][0], rows[3][3]), ("web", "running"), "{shown}");
    eventually("the log names the service", || {
        yard.fleet.run(&["logs", "shop"]).stdout == "web | hello world\n"
    });
    // Its containers go on without the agent, and the next one knows them.
    let mut before = yard.containers("shop");
    yard.fleet.kill_agent();
    docker(&["kill", &before[0]]);
    yard.fleet.start_agent();
    eventually("what ended is started again", || {
        let copies = yard.fleet.copies("shop");
        copies[0]["state"]["word"] == "running" && copies[0]["runs"] == 2
    });
    let mut after = yard.containers("shop");
    before.sort();
    after.sort();
    assert_eq!(after, before, "no container was made anew");
    let ids = before.join(" ");
    yard.fleet
        .run(&["rm", "-y", "--wait-timeout", "5m", "shop"])
        .with_code(0);
    let left = docker(&["ps", "-aq", "--no-trunc"]);
    assert!(left.lines().all(|id| !ids.contains(id)), "{left}");
}

#[test]
#[ignore = "needs compose"]
fn a_deployment_of_miaas_runs_tells_why_it_fails_and_goes() {
    let yard = Yard::start();
    let compose = format!(
        "services:\n  db: {{image: 'busybox:local', command: [sh, -c, \"echo $DB_USER; {IDLE}\"], network_mode: none}}\n"
    );
    let deploy = |id: &str, compose: &str| {
        let body = json!({"deployment_id": id, "template_id": "t", "rendered_compose": compose,
            "env": {"DB_USER": "anna"}, "action": "apply"});
        yard.request("POST", "/api/v1/deployments", &body.to_string())
    };
    let standing = |id: &str| -> Value {
        let answer = yard.request("GET", &format!("/api/v1/deployments/{id}"), "");
        serde_json::from_str(&answer).unwrap_or_default()
    };
    deploy("db-1", &compose);
    eventually("it runs", || standing("db-1")["status"] == "running");
    eventually("its variables are filled in", || {
        yard.fleet.run(&["logs", "db-1"]).stdout == "db | anna\n"
    });
    deploy("bad", "services: {web: {imag: x}}");
    eventually("it says what is wrong", || {
        let message = standing("bad")["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        message.contains("(fails: ") && message.contains("imag")
    });
    deploy(
        "dying",
        "services: {web: {image: 'busybox:local', command: [sh, -c, 'exit 3'], network_mode: none}}",
    );
    eventually("it names the service", || {
        let message = standing("dying")["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        message.contains("web: exit code 3")
    });
    let containers = yard.containers("db-1");
    assert_eq!(containers.len(), 1);
    yard.request("DELETE", "/api/v1/deployments/db-1", "");
    eventually("it is gone", || standing("db-1")["deployment_id"].is_null());
    let left = docker(&["ps", "-aq", "--no-trunc"]);
    assert!(!left.contains(&containers[0]));
}

#[test]
#[ignore = "needs compose"]
fn the_services_of_a_compose_file_are_imported_as_containers_and_run() {
    let yard = Yard::start();
    let port = free_port();
    let text = format!(
        "services:\n  web:\n    image: ${{IMAGE}}\n    command: [sh, -c, 'echo $$GREETING > /tmp/index.html; exec httpd -f -p 80 -h /tmp']\n    \
         environment: {{ GREETING: \"$GREETING\" }}\n    ports: [\"{port}:80\"]\n    restart: always\n    stop_grace_period: 500ms\n    \
         healthcheck: {{ test: [CMD, test, -s, /tmp/index.html], interval: 200ms }}\n  \
         built: {{ build: . }}\n"
    );
    let path = |name: &str| yard.fleet.path().join(name);
    std::fs::write(path("compose.yaml"), text).unwrap();
    std::fs::write(path("of.env"), "IMAGE=busybox:local\nGREETING=imported\n").unwrap();
    let line = [
        "import",
        "compose.yaml",
        "--as",
        "containers",
        "--name",
        "shop",
    ];
    let done = yard
        .fleet
        .run(&[&line[..], &["--env-file", "of.env", "--apply"]].concat());
    let done = done.with_code(0);
    assert_eq!(done.stdout, "shop-web created, revision 1\n");
    assert!(
        done.stderr.contains("note: `built` is left out"),
        "{}",
        done.stderr
    );
    assert_eq!(
        yard.fleet.copies("shop-web")[0]["state"]["health"],
        "healthy"
    );
    eventually("it serves", || page(port).contains("imported"));

    std::fs::write(path("built.yaml"), "services: { built: { build: . } }\n").unwrap();
    let refused = yard
        .fleet
        .run(&["import", "built.yaml", "--as", "containers"]);
    assert!(
        refused
            .with_code(1)
            .stderr
            .contains("nothing of the file can run")
    );
    std::fs::write(path("wrong.yaml"), "services: { web: { imag: a } }\n").unwrap();
    let refused = yard
        .fleet
        .run(&["import", "wrong.yaml", "--as", "containers"]);
    let refused = refused.with_code(1).stderr;
    assert!(
        refused.contains("imag") && refused.contains("code: compose-invalid"),
        "{refused}"
    );
}
