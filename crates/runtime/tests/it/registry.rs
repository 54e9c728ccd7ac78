//! Images from a real registry on loopback, with and without a login, over a connection that breaks, and by digest.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hostler_kit::{SystemClock, Tasks};
use hostler_model::spec::{PullPolicy, WorkloadSpec};
use hostler_runtime::container::{
    ContainerConfig, ContainerRuntime, Login, Registries, Registry as Known,
};
use hostler_runtime::{Data, Discarded, LeftoverKind, Runtime as _, RuntimeError, contract};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::container::engine;
use crate::{quiet, until};

const USER: &str = "ann";
/// Its login holds a digit that tells the two alphabets of base 64 apart.
const PASSWORD: &str = "o?>~o?>~o?>~secret";
/// Of that password, as `htpasswd -B` writes it.
const HTPASSWD: &str = "ann:$2y$05$rU4XYTZQCw3PQfHPkZEUSepLuJ8JFDc8wsHHmK.gryyoUVQlo.jEO";

/// A registry of the test's own.
struct Registry {
    process: Child,
    address: String,
    dir: tempfile::TempDir,
    has_login: bool,
}

impl Registry {
    fn start(has_login: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:0\"}}\n",
            at("data")
        );
        if has_login {
            std::fs::write(at("htpasswd"), format!("{HTPASSWD}\n")).unwrap();
            config += &format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                at("htpasswd")
            );
        }
        std::fs::write(at("config.yml"), config).unwrap();
        let mut process = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let said = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(['"', ' ']).next()?.to_owned())
        });
        // What it writes later has to go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            address: said.expect("it says where it listens"),
            dir,
            has_login,
        }
    }

    /// Puts a small image there; answers its digest.
    fn push(&self, name: &str) -> String {
        let image = format!("{}/{name}", self.address);
        docker(&["tag", "busybox:local", &image], None);
        let pushed = docker(&["push", &image], Some(&self.docker_config()));
        docker(&["rmi", "--no-prune", &image], None);
        let (_, digest) = pushed.split_once("digest: ").expect(&pushed);
        digest.split_whitespace().next().unwrap().to_owned()
    }

    /// The same with a layer of this test's own, which the engine has not any more.
    fn push_large(&self, name: &str) {
        let image = format!("{}/{name}", self.address);
        let script = "head -c 3000000 /dev/urandom > /noise";
        let run = [
            "run",
            "-d",
            "--network",
            "none",
            "busybox:local",
            "sh",
            "-c",
            script,
        ];
        let container = docker(&run, None);
        let container = container.trim();
        docker(&["wait", container], None);
        docker(&["commit", container, &image], None);
        docker(&["rm", container], None);
        docker(&["push", &image], Some(&self.docker_config()));
        docker(&["rmi", &image], None);
    }

    /// A configuration of Docker's with the right login.
    fn docker_config(&self) -> String {
        let folder = self.dir.path().join("docker");
        std::fs::create_dir_all(&folder).unwrap();
        let login = if self.has_login {
            format!(
                r#""{}": {{"username": "{USER}", "password": "{PASSWORD}"}}"#,
                self.address
            )
        } else {
            String::new()
        };
        std::fs::write(
            folder.join("config.json"),
            format!(r#"{{"auths": {{{login}}}}}"#),
        )
        .unwrap();
        folder.display().to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn docker(words: &[&str], config: Option<&str>) -> String {
    let mut command = Command::new("docker");
    if let Some(config) = config {
        command.args(["--config", config]);
    }
    let output = command
        .args(["-H", &engine()])
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{words:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A driver that takes images away again when the test is over.
struct Yard {
    driver: ContainerRuntime,
    images: Mutex<Vec<String>>,
    _dir: tempfile::TempDir,
}

impl Yard {
    fn new(registries: Registries) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let driver = ContainerRuntime::new(ContainerConfig {
            engine: engine(),
            dir: dir.path().to_owned(),
            owner: dir.path().display().to_string(),
            registries,
            clock: Arc::new(SystemClock::new()),
            tasks: Tasks::new(),
        });
        Self {
            driver,
            images: Mutex::default(),
            _dir: dir,
        }
    }

    /// Prepares, starts and removes a copy of the image.
    async fn run(&self, image: &str) -> Result<(), RuntimeError> {
        self.images.lock().unwrap().push(image.to_owned());
        let unit = contract::unit(spec(image));
        let prepared = self.driver.prepare(&unit, &quiet).await;
        let started = match prepared {
            Ok(()) => self.driver.start(unit.id).await,
            Err(error) => Err(error),
        };
        let listed = docker(
            &[
                "ps",
                "-aq",
                "--filter",
                &format!("label=hostler.unit={}", unit.id),
            ],
            None,
        );
        assert_eq!(
            listed.is_empty(),
            started.is_err(),
            "what is not started left nothing"
        );
        self.driver.remove(unit.id, Data::Delete).await?;
        started
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for image in self.images.lock().unwrap().drain(..) {
            let _ = Command::new("docker")
                .args(["-H", &engine(), "rmi", "-f", &image])
                .output();
        }
    }
}

fn spec(image: &str) -> WorkloadSpec {
    let command = ["sleep", "1000"].map(str::to_owned).to_vec();
    let mut spec = WorkloadSpec::of_container("test", image, command);
    let container = spec.container.as_mut().unwrap();
    container.pull = PullPolicy::Missing;
    container.network = Some("none".to_owned());
    spec
}

fn login(registry: &str, password_file: &Path) -> Registries {
    let login = Login {
        username: USER.to_owned(),
        password_file: password_file.to_owned(),
    };
    let known = Known {
        login: Some(login),
        mirrors: Vec::new(),
    };
    Registries {
        known: BTreeMap::from([(registry.to_owned(), known)]),
        docker_config: None,
    }
}

#[tokio::test]
#[ignore = "needs docker-registry"]
async fn an_image_of_a_registry_runs_and_one_that_it_has_not_is_told_apart_from_a_registry_that_is_down()
 {
    let mut registry = Registry::start(false);
    registry.push("web:1");
    let yard = Yard::new(Registries::default());
    let image = |name: &str| format!("{}/{name}", registry.address);
    let (web, tag, name) = (image("web:1"), image("web:2"), image("nothing:1"));
    yard.run(&web).await.unwrap();
    for missing in [&tag, &name] {
        let error = yard.run(missing).await.unwrap_err();
        assert_eq!(error.code(), "image-not-found", "{error}");
    }
    registry.process.kill().unwrap();
    registry.process.wait().unwrap();
    let error = yard.run(&tag).await.unwrap_err();
    assert_eq!(error.code(), "image-unavailable", "{error}");
    yard.run(&web).await.expect("it is here already");
}

#[tokio::test]
#[ignore = "needs docker-registry"]
async fn only_images_that_were_pulled_and_that_nothing_uses_are_told_and_go() {
    let registry = Registry::start(false);
    for name in ["ours:1", "named:1", "used:1", "theirs:1", "shared:1"] {
        registry.push_large(name);
    }
    let image = |name: &str| format!("{}/{name}", registry.address);
    let (yard, other) = (
        Yard::new(Registries::default()),
        Yard::new(Registries::default()),
    );
    docker(&["pull", &image("theirs:1")], None);
    // Here before, by another name. Of what other tests run as well a container might be made at any moment.
    let before = image("before:1");
    docker(&["pull", &image("shared:1")], None);
    docker(&["tag", &image("shared:1"), &before], None);
    docker(&["rmi", &image("shared:1")], None);
    for name in ["ours:1", "named:1", "used:1", "theirs:1", "shared:1"] {
        yard.run(&image(name)).await.unwrap();
    }
    let alias = image("alias:1");
    docker(&["tag", &image("named:1"), &alias], None);
    let create = ["create", "--network", "none", &image("used:1"), "true"];
    let foreign = docker(&create, None).trim().to_owned();
    let told = async |yard: &Yard| {
        let leftovers = yard.driver.leftovers().unwrap().leftovers().await.unwrap();
        let told = leftovers.into_iter().map(|it| (it.name, it.needed));
        told.collect::<BTreeMap<String, Option<String>>>()
    };
    assert_eq!(told(&other).await.len(), 0, "another agent pulled nothing");
    let ours = told(&yard).await;
    let need = |name: &str| ours[&image(name)].clone().unwrap_or_default();
    assert_eq!(ours.len(), 4, "not what was here before: {ours:?}");
    assert_eq!(need("ours:1"), "");
    assert_eq!(need("named:1"), format!("somebody has named it {alias}"));
    assert_eq!(need("used:1"), "a container is made of it");
    assert!(need("shared:1").contains(&before), "{ours:?}");
    let discard = async |yard: &Yard, name: &str| {
        let leftovers = yard.driver.leftovers().unwrap();
        let image = image(name);
        leftovers
            .discard(LeftoverKind::Image, &image)
            .await
            .unwrap()
    };
    for name in ["named:1", "used:1", "shared:1"] {
        assert!(
            matches!(discard(&yard, name).await, Discarded::Stays(_)),
            "{name}"
        );
    }
    for name in ["ours:1", "theirs:1"] {
        assert_eq!(discard(&yard, name).await, Discarded::Gone, "{name}");
    }
    let has = async |name: &str| yard.driver.has_image(&image(name)).await.unwrap();
    assert!(!has("ours:1").await, "it is gone");
    for name in ["named:1", "used:1", "theirs:1", "shared:1"] {
        assert!(has(name).await, "{name}");
    }
    docker(&["rm", &foreign], None);
    docker(&["rmi", &alias, &before], None);
    yard.run(&image("ours:1"))
        .await
        .expect("it is pulled again");
}

#[tokio::test]
#[ignore = "needs docker-registry"]
async fn a_registry_with_a_login_gives_images_to_who_has_it_and_no_error_tells_the_password() {
    let registry = Registry::start(true);
    registry.push("web:1");
    let image = format!("{}/web:1", registry.address);
    let password = registry.dir.path().join("password");
    let known = login(&registry.address, &password);
    assert!(!format!("{known:?}").contains("secret"));

    for (case, registries, text) in [
        ("nobody", Registries::default(), "unused"),
        ("a wrong password", known.clone(), "wrong-secret\n"),
    ] {
        std::fs::write(&password, text).unwrap();
        let error = Yard::new(registries).run(&image).await.unwrap_err();
        assert_eq!(error.code(), "registry-unauthorized", "{case}: {error}");
        assert!(
            !format!("{error} {error:?}").contains("secret"),
            "{case}: {error}"
        );
    }
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    Yard::new(known)
        .run(&image)
        .await
        .expect("the right password");

    let docker_config = Path::new(&registry.docker_config()).join("config.json");
    let of_docker = Registries {
        docker_config: Some(docker_config),
        ..Registries::default()
    };
    Yard::new(of_docker)
        .run(&image)
        .await
        .expect("the login of Docker's own file");
}

#[tokio::test]
#[ignore = "needs docker-registry"]
async fn a_mirror_is_asked_first_and_its_registry_where_it_has_not_the_image() {
    let (mirror, origin) = (Registry::start(false), Registry::start(false));
    mirror.push("web:1");
    let pin = mirror.push("pinned:1");
    origin.push("web:2");
    // The registry itself has no `web:1`: only the mirror can have given it.
    let known = Known {
        login: None,
        mirrors: vec!["127.0.0.1:1".to_owned(), mirror.address.clone()],
    };
    let yard = Yard::new(Registries {
        known: BTreeMap::from([(origin.address.clone(), known)]),
        docker_config: None,
    });
    let image = |name: &str| format!("{}/{name}", origin.address);
    yard.run(&image("web:1")).await.unwrap();
    let listed = docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"], None);
    assert!(
        listed.contains(&image("web:1")),
        "it bears its own name: {listed}"
    );
    assert!(
        !listed.contains(&format!("{}/web:1", mirror.address)),
        "{listed}"
    );
    yard.run(&image("web:2")).await.unwrap();
    let error = yard.run(&image("web:3")).await.unwrap_err();
    assert_eq!(error.code(), "image-not-found", "{error}");
    yard.run(&image(&format!("pinned@{pin}"))).await.unwrap();
    yard.images
        .lock()
        .unwrap()
        .push(format!("{}/pinned@{pin}", mirror.address));
}

/// A registry that answers with another manifest than was asked for.
async fn lying_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    Tasks::new().spawn("registry", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            Tasks::new().spawn("request", async move {
                let mut head = [0; 4096];
                while let Ok(length) = stream.read(&mut head).await {
                    let head = &head[..length];
                    if !head.starts_with(b"GET ") && !head.starts_with(b"HEAD ") {
                        // Not over TLS.
                        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                        return;
                    }
                    let is_manifest = String::from_utf8_lossy(head).contains("/manifests/");
                    let kind = "application/vnd.docker.distribution.manifest.v2+json";
                    let body = if is_manifest {
                        format!(
                            r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:{0}"}},"layers":[]}}"#,
                            "1".repeat(64)
                        )
                    } else {
                        "{}".to_owned()
                    };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let body = if head.starts_with(b"HEAD ") { String::new() } else { body };
                    let _ = stream.write_all((answer + &body).as_bytes()).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
#[ignore = "needs docker-registry"]
async fn an_image_that_is_pinned_by_digest_is_that_image_or_none() {
    let registry = Registry::start(false);
    let digest = registry.push("web:1");
    let yard = Yard::new(Registries::default());
    yard.run(&format!("{}/web@{digest}", registry.address))
        .await
        .unwrap();
    let other = format!("sha256:{}", "0".repeat(64));
    let error = yard
        .run(&format!("{}/web@{other}", registry.address))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "image-not-found", "{error}");
    let liar = lying_registry().await;
    let error = yard.run(&format!("{liar}/web@{other}")).await.unwrap_err();
    assert_eq!(error.code(), "image-digest-mismatch", "{error}");
}

/// Passes everything on, and breaks so many connections in the middle of a layer.
struct Breaking {
    address: String,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    to_break: AtomicUsize,
    broken: AtomicUsize,
    /// Requests for a part of a layer.
    resumed: AtomicUsize,
}

/// Bytes of a layer that come before a break.
const BEFORE: usize = 200_000;

impl Breaking {
    async fn before(registry: &str, breaks: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let counts = Arc::new(Counts::default());
        counts.to_break.store(breaks, Ordering::Relaxed);
        let (registry, shared) = (registry.to_owned(), Arc::clone(&counts));
        Tasks::new().spawn("breaking", async move {
            while let Ok((client, _)) = listener.accept().await {
                let (registry, counts) = (registry.clone(), Arc::clone(&shared));
                Tasks::new().spawn("connection", async move {
                    let server = TcpStream::connect(&registry).await.unwrap();
                    pass_on(client, server, &counts).await;
                });
            }
        });
        Self { address, counts }
    }
}

async fn pass_on(client: TcpStream, server: TcpStream, counts: &Counts) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut asked, mut given) = (vec![0; 65536], vec![0; 65536]);
    let mut left = usize::MAX;
    loop {
        tokio::select! {
            read = from_client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let text = String::from_utf8_lossy(&asked[..length]).to_ascii_lowercase();
                if text.contains("/blobs/") {
                    left = BEFORE;
                }
                if text.contains("range: bytes=") {
                    counts.resumed.fetch_add(1, Ordering::Relaxed);
                }
                if to_server.write_all(&asked[..length]).await.is_err() {
                    return;
                }
            }
            read = from_server.read(&mut given) => {
                let Ok(length @ 1..) = read else { return };
                if length > left && counts.broken.load(Ordering::Relaxed) < counts.to_break.load(Ordering::Relaxed) {
                    counts.broken.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                left = left.saturating_sub(length);
                if to_client.write_all(&given[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs docker-registry"]
async fn a_pull_whose_connection_breaks_is_taken_up_where_it_broke() {
    let registry = Registry::start(false);
    registry.push_large("web:1");
    let breaking = Breaking::before(&registry.address, 1).await;
    let yard = Yard::new(Registries::default());
    yard.run(&format!("{}/web:1", breaking.address))
        .await
        .unwrap();
    assert_eq!(breaking.counts.broken.load(Ordering::Relaxed), 1);
    assert!(
        breaking.counts.resumed.load(Ordering::Relaxed) > 0,
        "only the rest came again"
    );
}

#[tokio::test]
#[ignore = "needs docker-registry"]
async fn a_pull_that_was_given_up_leaves_no_image_and_goes_well_the_next_time() {
    let registry = Registry::start(false);
    registry.push_large("web:1");
    let breaking = Breaking::before(&registry.address, usize::MAX).await;
    let yard = Yard::new(Registries::default());
    let image = format!("{}/web:1", breaking.address);
    let unit = contract::unit(spec(&image));
    tokio::select! {
        prepared = yard.driver.prepare(&unit, &quiet) => panic!("it cannot end: {prepared:?}"),
        () = until("a connection breaks", async || breaking.counts.broken.load(Ordering::Relaxed) > 0) => {}
    }
    yard.driver.remove(unit.id, Data::Delete).await.unwrap();
    assert!(!yard.driver.has_image(&image).await.unwrap());
    breaking.counts.to_break.store(0, Ordering::Relaxed);
    yard.run(&image).await.unwrap();
}
