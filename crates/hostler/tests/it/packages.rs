//! What people get: pages, completions, the Debian package, images, the compose file and the bundle, all made of the
//! program that the tests have by `cargo xtask package`. The engine's socket comes in `HOSTLER_TEST_DOCKER`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::needs_docker::{docker, socket};
use crate::program::{Ended, eventually, free_port, hostler};

const AGENTS: [&str; 4] = ["miaas-agent", "node-agent", "persys-agent", "spot-agent"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn done(command: &mut Command) -> String {
    Ended::from(command.output().unwrap()).with_code(0).stdout
}

/// What `cargo xtask package` makes of the program, in a folder that goes with the test.
pub(crate) fn package(words: &[&str], engine: Option<&str>) -> TempDir {
    let program = Path::new(env!("CARGO_BIN_EXE_hostler"));
    package_of(program, words, engine)
}

/// What it makes of another one.
pub(crate) fn package_of(program: &Path, words: &[&str], engine: Option<&str>) -> TempDir {
    let out = tempfile::tempdir().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(root())
        .args(["run", "--quiet", "--package", "xtask", "--", "package"])
        .args(words)
        .arg("--binary")
        .arg(program)
        .arg("--out")
        .arg(out.path());
    if let Some(engine) = engine {
        cargo.env("DOCKER_HOST", engine);
    }
    done(&mut cargo);
    out
}

/// The one file of a folder with this ending.
pub(crate) fn found(folder: &Path, ending: &str) -> PathBuf {
    let mut files = names(folder);
    files.retain(|name| name.ends_with(ending));
    assert_eq!(files.len(), 1, "{files:?}");
    folder.join(&files[0])
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The program below this folder runs, and is an agent under each agent's name.
fn assert_runs(programs: &Path) {
    let version = |name: &str| {
        done(
            Command::new(programs.join(name))
                .arg("--version")
                .env_clear(),
        )
    };
    let ours = format!("hostler {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(version("hostler").trim(), ours);
    for name in AGENTS {
        let told = version(name);
        assert!(
            told.contains(name) || told.contains("hostler"),
            "{name}: {told}"
        );
        let link = std::fs::read_link(programs.join(name)).unwrap();
        assert_eq!(link, Path::new("hostler"));
    }
}

fn pages() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    done(hostler(home.path()).arg("man").arg(home.path().join("man")));
    home
}

#[test]
fn every_command_has_a_page_of_the_manual() {
    let home = pages();
    let folder = home.path().join("man");
    let listed = names(&folder);
    for page in [
        "hostler.1",
        "hostler-run.1",
        "hostler-node-drain.1",
        "hostler-server.1",
    ] {
        assert!(listed.iter().any(|name| name == page), "{page}: {listed:?}");
    }
    for hidden in ["openapi", "man", "help"] {
        assert!(!listed.contains(&format!("hostler-{hidden}.1")), "{hidden}");
    }
    for name in &listed {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let title = format!(".TH {} 1", name.trim_end_matches(".1"));
        for part in [
            title.as_str(),
            ".SH NAME",
            ".SH SYNOPSIS",
            ".SH DESCRIPTION",
        ] {
            assert!(
                text.lines().any(|line| line.starts_with(part)),
                "{name}: {part}"
            );
        }
    }
    let whole = std::fs::read_to_string(folder.join("hostler.1")).unwrap();
    for name in listed.iter().filter(|name| name.matches('-').count() == 1) {
        let page = name.trim_end_matches(".1").replace('-', "\\-");
        assert!(whole.contains(&page), "hostler.1 leads to {name}");
    }
}

#[test]
#[ignore = "needs mandoc"]
fn the_pages_of_the_manual_are_without_errors() {
    let home = pages();
    let folder = home.path().join("man");
    let pages = names(&folder);
    let mut mandoc = Command::new("mandoc");
    mandoc
        .args(["-T", "lint", "-W", "error"])
        .args(pages)
        .current_dir(&folder);
    assert_eq!(done(&mut mandoc), "");
}

#[test]
fn the_completions_are_a_script_that_bash_can_read() {
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("hostler.bash");
    let text = done(hostler(home.path()).args(["completion", "bash"]));
    std::fs::write(&script, text).unwrap();
    done(Command::new("bash").arg("-n").arg(&script));
    let ask = "source $0; COMP_WORDS=(hostler node dr); COMP_CWORD=2; COMPREPLY=(); \
        _hostler hostler dr node; echo ${COMPREPLY[*]}";
    assert_eq!(
        done(Command::new("bash").args(["-c", ask]).arg(&script)),
        "drain\n"
    );
}

#[test]
fn the_list_of_parts_names_each_crate_once_and_leads_nowhere_else() {
    let out = package(&["sbom"], None);
    let text = std::fs::read_to_string(out.path().join("hostler.cdx.json")).unwrap();
    let parts: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&parts["bomFormat"], &parts["specVersion"]),
        (&json!("CycloneDX"), &json!("1.5"))
    );
    let program = parts["metadata"]["component"]["bom-ref"].as_str().unwrap();
    let mut known = vec![program];
    for part in parts["components"].as_array().unwrap() {
        let name = part["bom-ref"].as_str().unwrap();
        assert!(!known.contains(&name), "{name} is there twice");
        let is_ours = part["name"].as_str().unwrap().starts_with("hostler-");
        let sum = part["hashes"][0]["content"].as_str().map(str::len);
        assert_eq!(sum, (!is_ours).then_some(64), "{name}");
        assert!(part["licenses"][0]["expression"].is_string(), "{name}");
        known.push(name);
    }
    for name in ["tokio", "rusqlite", "clap", "hostler-shim"] {
        let start = format!("pkg:cargo/{name}@");
        assert!(known.iter().any(|it| it.starts_with(&start)), "{name}");
    }
    for name in ["insta", "proptest", "turmoil", "xtask"] {
        let start = format!("pkg:cargo/{name}@");
        assert!(
            !known.iter().any(|it| it.starts_with(&start)),
            "{name} is for tests"
        );
    }
    let dependencies = parts["dependencies"].as_array().unwrap();
    assert_eq!(dependencies.len(), known.len());
    for row in dependencies {
        let used = row["dependsOn"].as_array().unwrap();
        for name in used.iter().chain([&row["ref"]]) {
            assert!(
                known.contains(&name.as_str().unwrap()),
                "{name} is not listed"
            );
        }
    }
}

/// The folder that the bundle in this folder is unpacked to.
pub(crate) fn unpacked(out: &Path) -> PathBuf {
    let archive = found(out, ".tar.gz");
    done(
        Command::new("tar")
            .arg("-xzf")
            .arg(&archive)
            .arg("-C")
            .arg(out),
    );
    let name = archive.file_name().unwrap().to_str().unwrap();
    out.join(name.trim_end_matches(".tar.gz"))
}

#[test]
fn a_bundle_installs_what_it_holds_and_nothing_if_a_byte_is_wrong() {
    let out = package(&["bundle", "--without", "images", "--without", "deb"], None);
    let bundle = unpacked(out.path());
    let prefix = out.path().join("usr");
    let install = |words: &[&str]| {
        let mut command = Command::new(bundle.join("install.sh"));
        let output = command.arg("--prefix").arg(&prefix).args(words).output();
        Ended::from(output.unwrap())
    };
    let page = bundle.join("man/man1/hostler.1");
    let whole = std::fs::read(&page).unwrap();
    std::fs::write(&page, [&whole[..], b"x"].concat()).unwrap();
    let refused = install(&[]).with_code(1);
    assert!(
        refused.stderr.contains("nothing was installed"),
        "{}",
        refused.stderr
    );
    assert!(!prefix.exists());
    std::fs::write(&page, whole).unwrap();
    assert!(install(&["--wat"]).with_code(2).stderr.contains("--wat"));
    let refused = install(&["--deb"]).with_code(1);
    assert!(
        refused.stderr.contains("no Debian package"),
        "{}",
        refused.stderr
    );
    assert!(!prefix.exists());
    // The second time over what the first one left.
    for _ in 0..2 {
        let ours = format!("hostler {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(install(&[]).with_code(0).stdout, ours);
    }
    assert_runs(&prefix.join("bin"));
    for file in [
        "share/man/man1/hostler-run.1",
        "share/bash-completion/completions/hostler",
        "share/zsh/site-functions/_hostler",
        "share/fish/vendor_completions.d/hostler.fish",
        "share/doc/hostler/hostler.cdx.json",
    ] {
        assert!(prefix.join(file).is_file(), "{file}");
    }
    // What is said of the compose files is said of where they lie here.
    for file in ["compose.yaml", "compose.login.yaml", "README.md"] {
        let text = std::fs::read_to_string(bundle.join(file)).unwrap();
        assert!(!text.contains("deploy/compose"), "{file}");
    }
    assert_eq!(
        names(&prefix.join("bin")).len(),
        5,
        "nothing half written is left"
    );
}

#[test]
#[ignore = "needs cargo-deb"]
fn the_debian_package_has_program_names_pages_completions_and_parts() {
    let out = package(&["deb"], None);
    let deb = found(out.path(), ".deb");
    let field = |name: &str| done(Command::new("dpkg-deb").arg("--field").arg(&deb).arg(name));
    assert_eq!(field("Package"), "hostler\n");
    assert!(field("Version").starts_with(env!("CARGO_PKG_VERSION")));
    assert!(field("Depends").contains("libc6"), "{}", field("Depends"));
    let listed = done(Command::new("dpkg-deb").arg("--contents").arg(&deb));
    for file in [
        "./usr/bin/hostler",
        "./usr/bin/miaas-agent -> hostler",
        "./usr/bin/spot-agent -> hostler",
        "./usr/share/man/man1/hostler.1",
        "./usr/share/man/man1/hostler-node-drain.1",
        "./usr/share/bash-completion/completions/hostler",
        "./usr/share/zsh/vendor-completions/_hostler",
        "./usr/share/fish/vendor_completions.d/hostler.fish",
        "./usr/share/doc/hostler/copyright",
        "./usr/share/doc/hostler/hostler.cdx.json",
    ] {
        assert!(
            listed.lines().any(|line| line.ends_with(file)),
            "{file}:\n{listed}"
        );
    }
    let is_roots = |line: &str| line.contains(" 0/0 ") || line.contains(" root/root ");
    assert!(listed.lines().all(is_roots), "{listed}");
    let place = out.path().join("extracted");
    done(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&deb)
            .arg(&place),
    );
    assert_runs(&place.join("usr/bin"));
}

/// Images that only this test has, and what was started of them; all of it goes with the test.
struct Images {
    tag: String,
    containers: Vec<String>,
}

impl Images {
    /// Those of a tag that nobody else has; they are yet to be built.
    fn named() -> Self {
        // Tests of one process build side by side.
        static NAMED: AtomicU32 = AtomicU32::new(0);
        let number = NAMED.fetch_add(1, Ordering::Relaxed);
        Self {
            tag: format!("test-{}-{number}", std::process::id()),
            containers: Vec::new(),
        }
    }

    fn build() -> Self {
        let images = Self::named();
        package(&["images", "--tag", &images.tag], Some(&socket()));
        images
    }

    fn remove(&self) {
        for image in [
            "hostler-control-plane",
            "hostler-miaas-agent",
            "hostler-node-agent",
            "hostler",
            "distribution",
        ] {
            docker(&["rmi", "--force", &self.name(image)]);
        }
    }

    fn name(&self, image: &str) -> String {
        format!("{image}:{}", self.tag)
    }

    /// Starts a container in the background and answers its id.
    fn start(&mut self, words: &[&str], image: &str, arguments: &[&str]) -> String {
        let image = self.name(image);
        let words = [&["run", "--detach"], words, &[image.as_str()], arguments].concat();
        let id = docker(&words).trim().to_owned();
        assert_eq!(id.len(), 64, "{words:?} started nothing: {id}");
        self.containers.push(id.clone());
        id
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        for container in &self.containers {
            docker(&["rm", "--force", "--volumes", container]);
        }
        self.remove();
    }
}

/// The JSON that a server of this machine answers; null if there is none.
fn ask(port: u16, method: &str, path: &str, body: &str) -> Value {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return Value::Null;
    };
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    // A proxy of the engine may close before a server is there behind it.
    let _ = stream.write_all((head + body).as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or_default()
}

/// The nodes that the control plane at this port lists, as MIaaS's curl steps ask for them.
fn nodes(port: u16) -> Value {
    ask(port, "GET", "/api/v1/nodes", "")
}

fn inspect(format: &str, what: &str) -> String {
    docker(&["inspect", "--format", format, what])
        .trim()
        .to_owned()
}

#[test]
#[ignore = "needs docker"]
fn each_part_has_an_image_that_runs_alone() {
    let mut images = Images::build();
    let whole = images.name("hostler");
    let told = docker(&["run", "--rm", &whole, "version"]);
    assert!(
        told.starts_with(&format!("client   {}", env!("CARGO_PKG_VERSION"))),
        "{told}"
    );
    let node_agent = images.name("hostler-node-agent");
    let told = docker(&["run", "--rm", &node_agent, "--version"]);
    assert!(told.starts_with("node-agent (hostler "), "{told}");
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:8080");
    let plane = images.start(&["--publish", &publish], "hostler-control-plane", &[]);
    eventually("the control plane answers", || {
        ask(port, "GET", "/health", "")["status"] == "healthy"
    });
    eventually("the engine knows that it is well", || {
        inspect("{{.State.Health.Status}}", &plane) == "healthy"
    });
    let addr = inspect("{{.NetworkSettings.IPAddress}}", &plane);
    let url = format!("CONTROL_PLANE_URL=http://{addr}:8080");
    let words = [
        "-e",
        &url,
        "-e",
        "HEARTBEAT_INTERVAL=1",
        "--hostname",
        "boxed",
    ];
    let agent = images.start(&words, "hostler-miaas-agent", &[]);
    eventually("the agent is a node that beats", || {
        nodes(port)[0]["metrics"]["mem_usage"].is_f64()
    });
    assert_eq!(nodes(port)[0]["name"], "boxed");
    assert!(docker(&["logs", &agent]).contains("Heartbeat sent: CPU "));
    let orchestrator = format!("{addr}:8080");
    let line = ["-orchestrator", orchestrator.as_str()];
    let other = images.start(&["--hostname", "carried"], "hostler-node-agent", &line);
    eventually("the other agent is one, too", || {
        let listed = nodes(port);
        let named = |it: &&Value| it["name"] == "carried" && it["status"] == "online";
        listed.as_array().into_iter().flatten().any(|it| named(&it))
    });
    for container in [&agent, &plane] {
        let user = inspect("{{.Config.User}}", container);
        assert_eq!(user, "10001:10001", "neither is root");
    }
    for container in [&agent, &other, &plane] {
        // A busy machine may take longer than the ten seconds after which the engine kills.
        docker(&["stop", "-t", "60", container]);
        assert_eq!(
            inspect("{{.State.ExitCode}}", container),
            "0",
            "it ends in order"
        );
    }
}

#[test]
#[ignore = "needs docker"]
fn a_control_plane_that_is_not_to_be_open_speaks_tls_and_asks_for_a_login() {
    let mut images = Images::build();
    let words = ["-e", "HOSTLER_INSECURE=false"];
    let plane = images.start(&words, "hostler-control-plane", &[]);
    // The health check finds the admin's login beside the data.
    eventually("it is healthy", || {
        inspect("{{.State.Health.Status}}", &plane) == "healthy"
    });
    let told = docker(&["logs", &plane]);
    assert!(told.contains("listening on https://"), "{told}");
}

#[test]
#[ignore = "needs docker and systemd"]
fn images_stand_on_a_distribution_as_well() {
    let mut images = Images::named();
    let machine = PathBuf::from(std::env::var_os("HOSTLER_TEST_MACHINE").unwrap());
    let archive = machine.join("system.tar").display().to_string();
    let base = images.name("distribution");
    docker(&["import", &archive, &base]);
    let words = ["images", "--tag", &images.tag, "--base", &base];
    package(&words, Some(&socket()));
    let look = "command -v systemctl && exec hostler version";
    let whole = images.name("hostler");
    let told = docker(&["run", "--rm", "--entrypoint", "sh", &whole, "-c", look]);
    let version = format!("client   {}", env!("CARGO_PKG_VERSION"));
    assert!(told.starts_with('/') && told.contains(&version), "{told}");
    let plane = images.start(&[], "hostler-control-plane", &[]);
    eventually("the engine knows that it is well", || {
        inspect("{{.State.Health.Status}}", &plane) == "healthy"
    });
}

#[test]
#[ignore = "needs docker and cargo-deb"]
fn the_whole_bundle_brings_the_images_to_an_engine_that_has_none() {
    let images = Images::named();
    let out = package(&["bundle", "--tag", &images.tag], Some(&socket()));
    images.remove();
    let bundle = unpacked(out.path());
    found(&bundle, ".deb");
    let prefix = out.path().join("usr");
    let mut install = Command::new(bundle.join("install.sh"));
    install.arg("--images").arg("--prefix").arg(&prefix);
    done(install.env("DOCKER_HOST", socket()));
    assert_runs(&prefix.join("bin"));
    let told = docker(&["run", "--rm", &images.name("hostler"), "version"]);
    assert!(told.starts_with("client   "), "{told}");
}

/// The project of files of `deploy` under a name of its own.
struct Project {
    images: Images,
    program: &'static [&'static str],
    files: &'static [&'static str],
    name: String,
    port: u16,
}

impl Project {
    fn up(program: &'static [&'static str], files: &'static [&'static str]) -> Self {
        let images = Images::build();
        let name = format!("hostler{}", images.tag.replace('-', ""));
        let project = Self {
            images,
            program,
            files,
            name,
            port: free_port(),
        };
        project.run(&["up", "-d"]);
        project
    }

    fn run(&self, words: &[&str]) -> String {
        done(&mut self.command(words))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program[0]);
        command
            .args(&self.program[1..])
            .args(["-p", &self.name])
            .args(words)
            .env("COMPOSE_FILE", self.files.join(":"))
            .current_dir(root().join("deploy"))
            .env("DOCKER_HOST", socket())
            .env("HOSTLER_VERSION", &self.images.tag)
            .env("HOSTLER_PUBLISH", format!("127.0.0.1:{}", self.port))
            .env("HEARTBEAT_INTERVAL", "1");
        command
    }

    /// What the engine still has of it.
    fn left(&self) -> Vec<String> {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let kinds = [
            vec!["ps", "-aq", "--filter", &filter],
            vec!["network", "ls", "-q", "--filter", &filter],
            vec!["volume", "ls", "-q", "--filter", &filter],
        ];
        kinds
            .iter()
            .flat_map(|words| docker(words).lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self
            .command(&["down", "--volumes", "--timeout", "5"])
            .output();
    }
}

#[test]
#[ignore = "needs compose"]
fn the_compose_file_brings_up_both_parts_with_the_old_program() {
    both_parts_come_up_are_read_and_go(&["docker-compose"]);
}

#[test]
#[ignore = "needs compose-v2"]
fn the_compose_file_brings_up_both_parts_with_the_new_program() {
    both_parts_come_up_are_read_and_go(&["docker", "compose"]);
}

fn both_parts_come_up_are_read_and_go(program: &'static [&'static str]) {
    let project = Project::up(program, &["compose.yaml"]);
    let port = project.port;
    eventually("the agent is a node", || {
        nodes(port)[0]["status"] == "online"
    });
    let node = nodes(port)[0].clone();
    assert_eq!(node["name"], "agent");
    eventually("its figures are there", || {
        nodes(port)[0]["metrics"]["disk_free_mb"].is_u64()
    });
    let log = project.run(&["logs", "agent"]);
    assert!(log.contains("Registered successfully. Node ID: "), "{log}");
    curl_steps_work(port);
    // What was said is kept, and the agent's container made anew is the same node.
    project.run(&["restart", "control-plane"]);
    project.run(&["up", "-d", "--force-recreate", "agent"]);
    let id = node["id"].clone();
    eventually("the same node is back", || {
        let listed = nodes(port);
        let same = listed
            .as_array()
            .into_iter()
            .flatten()
            .find(|it| it["id"] == id);
        same.is_some_and(|it| it["status"] == "online" && it["metrics"]["mem_usage"].is_f64())
    });
    let named = |listed: &Value| {
        listed
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["name"] == "agent")
            .count()
    };
    assert_eq!(named(&nodes(port)), 1);
    project.run(&["down"]);
    let volumes = project.left();
    assert_eq!(volumes.len(), 2, "only what both keep is left: {volumes:?}");
    project.run(&["down", "--volumes"]);
    assert_eq!(project.left(), [""; 0]);
}

#[test]
#[ignore = "needs compose"]
fn with_a_login_the_agent_joins_with_the_old_program() {
    the_agent_joins_with_a_token_and_stays_the_same_node(&["docker-compose"]);
}

#[test]
#[ignore = "needs compose-v2"]
fn with_a_login_the_agent_joins_with_the_new_program() {
    the_agent_joins_with_a_token_and_stays_the_same_node(&["docker", "compose"]);
}

/// The commands of the guide.
fn the_agent_joins_with_a_token_and_stays_the_same_node(program: &'static [&'static str]) {
    let project = Project::up(program, &["compose.yaml", "compose.login.yaml"]);
    let plane = |words: &[&str]| {
        project.run(&[&["exec", "-T", "control-plane", "hostler"], words].concat())
    };
    eventually("the agent waits for its token", || {
        project
            .run(&["logs", "agent"])
            .contains("no token to join with")
    });
    assert_eq!(plane(&["node", "ls", "-o", "name"]), "", "nobody is let in");
    let token = plane(&["token", "create", "--uses", "1", "--output", "name"]);
    let mut command = project.command(&["up", "-d"]);
    done(command.env("HOSTLER_JOIN_TOKEN", token.trim()));
    let node = || -> Value {
        let listed = plane(&["node", "ls", "-o", "json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        assert!(listed.as_array().is_some_and(|it| it.len() < 2), "{listed}");
        listed[0].clone()
    };
    eventually("the agent is a node", || node()["state"] == "ready");
    let id = node()["id"].clone();
    let words = ["run", "asked", "-d", "--", "/usr/bin/hostler", "--version"];
    plane(&words);
    eventually("it runs what its image has", || {
        let words = ["exec", "-T", "control-plane", "hostler", "logs", "asked"];
        let said = Ended::from(project.command(&words).output().unwrap());
        said.stdout.contains("hostler ")
    });
    // Made anew without the token.
    project.run(&["up", "-d", "--force-recreate"]);
    eventually("it is the same node", || {
        let node = node();
        node["state"] == "ready" && node["lease"]["age_ms"].is_u64()
    });
    assert_eq!(node()["id"], id);
    assert_eq!(
        ask(project.port, "GET", "/api/v1/nodes", ""),
        Value::Null,
        "nothing in plain text"
    );
}

/// Registers a node, beats for it, and asks for a deployment, as MIaaS's documents do with curl.
fn curl_steps_work(port: u16) {
    assert_eq!(ask(port, "GET", "/health", "")["status"], "healthy");
    let capabilities =
        json!({"os": "linux", "cpu_count": 4, "mem_mb": 16000, "disk_mb": 500_000, "gpus": []});
    let body = json!({"name": "by-hand", "ip": "192.0.2.10", "capabilities": capabilities});
    let registered = ask(port, "POST", "/api/v1/nodes/register", &body.to_string());
    let id = registered["node_id"]
        .as_str()
        .unwrap_or_else(|| panic!("{registered}"));
    let figures = json!({"cpu_usage": 15.5, "mem_usage": 40.25, "disk_free_mb": 1000, "running_containers": []});
    let beat = ask(
        port,
        "POST",
        &format!("/api/v1/nodes/{id}/heartbeat"),
        &figures.to_string(),
    );
    assert_eq!(beat["status"], "ok");
    let shown = ask(port, "GET", &format!("/api/v1/nodes/{id}"), "");
    assert_eq!(
        (&shown["name"], &shown["metrics"]["cpu_usage"]),
        (&json!("by-hand"), &json!(15.5))
    );
    let body = json!({"deployment_id": "d-1", "template_id": "t", "action": "apply", "env": {},
        "rendered_compose": "services: {web: {image: 'busybox:local'}}"});
    assert_eq!(
        ask(port, "POST", "/api/v1/deployments", &body.to_string())["status"],
        "accepted"
    );
    assert_eq!(
        ask(port, "GET", "/api/v1/deployments/d-1", "")["deployment_id"],
        "d-1"
    );
    assert_eq!(
        ask(port, "DELETE", "/api/v1/deployments/d-1", "")["status"],
        "deleting"
    );
}
