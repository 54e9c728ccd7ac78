//! Secrets are in the places that have to hold them, and nowhere else: a whole life of a fleet at the loudest log, and
//! then everything that was said, shown and written is searched.

use std::path::{Path, PathBuf};
use std::process::Command;

use hostler_kit::trust::Anchors;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{
    Ended, Running, client, end_units, eventually, hostler, processes, runtime, told,
};

/// Planted by the test. Those that the program draws itself are added when they are there.
const PASSPHRASE: &str = "canary-passphrase-5b1e0d";
const VALUE: &str = "canary-value-91c2aa";
const JWT_SECRET: &str = "canary-jwt-77d01f";
const API_KEY: &str = "canary-orchion-3f60bc";
const PASSWORD: &str = "canary-registry-c4a5e2";
const GUESS: &str = "canaryguess8d13fe";

/// The life of one server with its agents.
struct Life {
    directory: TempDir,
    url: String,
    server: Running,
    agents: Vec<Running>,
    canaries: Vec<(&'static str, String)>,
    /// What was said to whom.
    heard: Vec<(String, String)>,
}

impl Life {
    /// At the loudest log; `words` are the server's.
    fn begin(words: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = loud(directory.path());
        command.args(["server", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(directory.path().join("server")).args(words);
        command
            .env("HOSTLER_SECRETS_PASSPHRASE", PASSPHRASE)
            .env("JWT_SECRET", JWT_SECRET)
            .env("HOSTLER_ORCHION_API_KEY", API_KEY);
        let mut server = Running::start(&mut command);
        let line = server.line("listening on http");
        let url = line.rsplit(' ').next().unwrap().to_owned();
        let planted = [
            ("passphrase", PASSPHRASE),
            ("value", VALUE),
            ("jwt secret", JWT_SECRET),
            ("api key", API_KEY),
            ("password", PASSWORD),
            ("guess", GUESS),
        ];
        Self {
            directory,
            url,
            server,
            agents: Vec::new(),
            canaries: planted.map(|(name, text)| (name, text.to_owned())).into(),
            heard: Vec::new(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn dir(&self) -> PathBuf {
        self.path().join("server")
    }

    fn plant(&mut self, name: &'static str, text: &str) {
        assert!(text.len() > 15, "{name} is no secret: {text}");
        self.canaries.push((name, text.to_owned()));
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// As the admin on the server's machine; what is told is kept to be searched.
    fn admin(&mut self, words: &[&str]) -> Ended {
        let ended = self.quietly(words);
        self.hear(&words.join(" "), &ended);
        ended
    }

    /// The same for what shows a secret because it is asked to.
    fn quietly(&self, words: &[&str]) -> Ended {
        let mut command = loud(self.path());
        command.env("HOSTLER_DATA_DIR", self.dir()).args(words);
        command.output().unwrap().into()
    }

    /// As the bearer of a token.
    fn bearer(&mut self, token: &str, words: &[&str]) -> Ended {
        let mut command = loud(self.path());
        command
            .env("HOSTLER_TOKEN", token)
            .env("HOSTLER_ADDR", &self.url)
            .env("HOSTLER_CA", self.dir().join("trust/ca.pem"))
            .args(words);
        let ended: Ended = command.output().unwrap().into();
        self.hear(&format!("as a bearer: {}", words.join(" ")), &ended);
        ended
    }

    fn hear(&mut self, what: &str, ended: &Ended) {
        let told = format!("{}{}", ended.stdout, ended.stderr);
        // What is typed may hold a token, and is no finding.
        let what: String = what.chars().take(40).collect();
        self.heard.push((what, told));
    }

    fn start_agent(&mut self, name: &str, token: &str) -> usize {
        let mut command = loud(self.path());
        command.args(["agent", "--name", name, "--server", &self.url]);
        command.args(["--docker-socket", "/nonexistent/docker.sock", "--data-dir"]);
        command.arg(self.path().join(name));
        command.env("HOSTLER_JOIN_TOKEN", token);
        self.agents.push(Running::start(&mut command));
        self.agents.len() - 1
    }

    /// Nothing of it in the lists of processes, which everybody on the machine can read.
    fn look_at_processes(&self) {
        let lines = processes(|_| true).into_iter().map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).into_owned()
        });
        // Of other tests as well: theirs hold other canaries.
        lines.for_each(|line| self.search("a list of processes", &line));
    }

    #[track_caller]
    fn search(&self, place: &str, text: &str) {
        for (name, canary) in &self.canaries {
            assert!(
                !text.contains(canary),
                "the {name} is in {place}: {}",
                around(text, canary)
            );
        }
    }

    /// Everything that was said, and every file; the files that have to hold something are named with it.
    fn search_all(&self, holders: &[(&str, &str)]) {
        for (what, told) in &self.heard {
            self.search(&format!("what `{what}` said"), told);
        }
        self.search("the server's log", &self.server.said());
        for agent in &self.agents {
            self.search("an agent's log", &agent.said());
        }
        let mut held = std::collections::BTreeSet::new();
        for path in files(self.path()) {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let place = path.strip_prefix(self.path()).unwrap().to_string_lossy();
            for (name, canary) in &self.canaries {
                if !text.contains(canary.as_str()) {
                    continue;
                }
                let may = holders.contains(&(*name, place.as_ref()));
                assert!(may, "the {name} is in {place}: {}", around(&text, canary));
                held.insert((*name, place.clone().into_owned()));
            }
        }
        // The search finds what is there.
        for (name, place) in holders {
            assert!(
                held.contains(&(*name, (*place).to_owned())),
                "{name} {place}"
            );
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.agents.clear();
        end_units(self.path());
    }
}

fn loud(home: &Path) -> Command {
    let mut command = hostler(home);
    command.env("HOSTLER_LOG_LEVEL", "trace");
    command
}

/// What stands before a finding, which is enough to find its place.
fn around(text: &str, canary: &str) -> String {
    let before = text.split(canary).next().unwrap_or_default();
    let skipped = before.chars().count().saturating_sub(300);
    before.chars().skip(skipped).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match std::fs::symlink_metadata(&path) {
            Ok(about) if about.is_dir() => found.extend(files(&path)),
            Ok(about) if about.is_file() => found.push(path),
            _ => {}
        }
    }
    found
}

/// What is secret of a token's text.
fn secret_of(token: &str) -> String {
    token.trim().split('_').nth(2).unwrap().to_owned()
}

/// A line from the midst of a private key's file.
fn line_of_key(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let (_, key) = text.split_once("PRIVATE KEY-----\n").unwrap();
    key.lines().next().unwrap().to_owned()
}

/// Every route that is only read, as everybody may find them described; with names that are there.
async fn read_all(life: &Life, (token, copy): (&str, &str)) -> Vec<(String, String)> {
    let anchors = match life.url.starts_with("https") {
        true => Anchors::from_file(&life.dir().join("trust/ca.pem")).unwrap(),
        false => Anchors::Machine,
    };
    let client = client(&anchors);
    let get = async |path: &str| {
        let request = client.get(format!("{}{path}", life.url));
        let answer = request.bearer_auth(token).send().await.unwrap();
        String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned()
    };
    let described: Value = serde_json::from_str(&get("/openapi.json").await).unwrap();
    let mut answers = Vec::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        if methods.get("get").is_none() {
            continue;
        }
        let id = match path.split('/').nth(3) {
            Some("nodes") => "one",
            Some("workloads") => "shop",
            Some("assignments") => copy,
            _ => "nothing",
        };
        let filled = path.replace("{id}", id).replace("{name}", "db");
        answers.push((
            path.clone(),
            get(&filled.replace("{code}", "node-gone")).await,
        ));
    }
    assert!(answers.len() > 25, "{}", answers.len());
    answers
}

#[test]
fn a_fleet_with_login_keeps_its_secrets_through_a_whole_life() {
    let mut life = Life::begin(&[]);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let admin = read(&life.dir().join("admin.toml"));
    let admin = admin
        .split('"')
        .find(|it| it.starts_with("hostler_"))
        .unwrap()
        .to_owned();
    let join = read(&life.dir().join("join-token"));
    life.plant("admin token", &secret_of(&admin));
    life.plant("join token", &secret_of(&join));
    life.plant(
        "authority's key",
        &line_of_key(&life.dir().join("trust/authority.pem")),
    );

    // Machines come in, or do not.
    let password = life.file("password", PASSWORD);
    let registries = format!(
        "[container.registries.\"127.0.0.1:9\"]\nusername = \"ada\"\npassword_file = \"{password}\"\n"
    );
    let config = life.path().join(".config/hostler");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("agent.toml"), registries).unwrap();
    let one = life.start_agent("one", &join);
    eventually("the node is ready", || {
        life.quietly(&["node", "ls"]).stdout.contains("ready")
    });
    life.plant(
        "node's key",
        &line_of_key(&life.path().join("one/agent/key.pem")),
    );
    let guess = join.replace(&secret_of(&join), GUESS);
    let stranger = life.start_agent("stranger", &guess);
    life.agents[stranger].line("(join-token-invalid)");

    // People come in, or do not.
    let issued = life
        .quietly(&["token", "issue", "anna"])
        .with_code(0)
        .stdout;
    let anna = issued.trim().to_owned();
    life.plant("person's token", &secret_of(&anna));
    let second = life
        .quietly(&["token", "create", "-o", "json"])
        .with_code(0)
        .json();
    let second = second["token"].as_str().unwrap().to_owned();
    life.plant("second join token", &secret_of(&second));
    let guess = anna.replace(&secret_of(&anna), GUESS);
    life.bearer(&guess, &["node", "ls"]).with_code(1);
    life.bearer(&anna, &["node", "ls"]).with_code(0);
    life.bearer(&anna, &["token", "ls"]).with_code(1);
    let print = life.quietly(&["authority", "show", "-o", "name"]).stdout;
    let home = life.path().join("ada");
    std::fs::create_dir_all(&home).unwrap();
    let mut command = loud(&home);
    command.args(["login", &life.url, "--print", print.trim()]);
    let ended = told(&mut command, &anna).with_code(0);
    life.hear("login", &ended);
    assert!(read(&home.join(".config/hostler/login.toml")).contains(&anna));
    let ended = Ended::from(loud(&home).arg("logout").output().unwrap()).with_code(0);
    life.hear("logout", &ended);

    // Work that is given a secret.
    let value = life.file("value", VALUE);
    life.admin(&["secret", "set", "db", "--from-file", &value])
        .with_code(0);
    std::fs::remove_file(value).unwrap();
    let spec = "name: shop\n\
        process: { command: [sh, -c, 'echo ${#DB} letters; sleep inf'] }\n\
        secrets: [{ name: db, env: DB }]\n";
    let spec = life.file("shop.yaml", spec);
    life.admin(&["apply", "-f", &spec]).with_code(0);
    let told = format!("{} letters", VALUE.len());
    eventually("the copy has it", || {
        life.quietly(&["logs", "shop"]).stdout.contains(&told)
    });
    life.look_at_processes();

    // Everything is looked at, and things go wrong: what people paste at the wrong place is no better known for it.
    for words in [
        &["ps", "-o", "yaml"][..],
        &["show", "shop", "-o", "yaml"],
        &["node", "show", "one", "-o", "yaml"],
        &["history", "shop", "-o", "yaml"],
        &["logs", "shop"],
        &["events", "-o", "yaml"],
        &["token", "ls", "-o", "yaml"],
        &["secret", "ls", "-o", "yaml"],
        &["why", "shop"],
        &["doctor"],
    ] {
        life.admin(words);
    }
    let broken = life.file("broken.yaml", "name: broken\nprocess: { command: 7 }\n");
    life.admin(&["apply", "-f", &broken]);
    life.admin(&["secret", "rm", "-y", "db"]).with_code(1);
    life.admin(&["secret", "rekey"]).with_code(0);
    life.quietly(&["token", "rm", &anna]);
    life.quietly(&["show", &anna]);
    life.admin(&["token", "rm", "anna"]).with_code(0);
    let archive = life.path().join("fleet.tar").to_str().unwrap().to_owned();
    life.admin(&["backup", &archive]).with_code(0);
    let copies = life.quietly(&["ps", "shop", "-o", "json"]).json();
    let copy = copies["copies"][0]["id"]
        .as_str()
        .unwrap_or("nothing")
        .to_owned();
    let answers = runtime().block_on(read_all(&life, (&admin, &copy)));
    life.heard.extend(answers);
    life.look_at_processes();

    assert!(
        life.server.said().contains("TRACE"),
        "the log is the loudest"
    );
    let audit = read(&life.dir().join("audit/requests-00000001.jsonl"));
    assert!(audit.contains("\"/api/v1/secrets/{name}\""), "{audit}");
    assert!(audit.contains("hostler_…"), "{audit}");
    life.search_all(&[
        ("admin token", "server/admin.toml"),
        ("join token", "server/join-token"),
        ("authority's key", "server/trust/authority.pem"),
        ("node's key", "one/agent/key.pem"),
        ("password", "password"),
    ]);
    // The agent was told, and held it in memory alone.
    assert!(life.agents[one].said().contains("TRACE"));
    life.admin(&["rm", "-y", "shop"]).with_code(0);
}

#[test]
fn other_contracts_secrets_are_not_told_either() {
    let compat = ["--insecure", "--compat", "orchion=127.0.0.1:0"];
    let mut life = Life::begin(&compat);
    let line = life.server.line("for orchion");
    let orchion = line
        .split(' ')
        .find(|it| it.starts_with("http"))
        .unwrap()
        .to_owned();
    let url = life.url.clone();
    let (client_token, node_token) = runtime().block_on(async {
        let client = client(&Anchors::Machine);
        let send = async |url: String, token: &str, body: Value| -> Value {
            let request = client.post(url).bearer_auth(token);
            let request = request.header("content-type", "application/json");
            let answer = request.body(body.to_string()).send().await.unwrap();
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default()
        };
        let body = serde_json::json!({"name": "acme", "email": "acme@example.com"});
        let made = send(format!("{url}/api/admin/clients/create"), "", body).await;
        let token = made["client"]["token"].as_str().unwrap().to_owned();
        let agent = serde_json::json!({"logical_agent_id": "a", "instance_id": "i-1",
            "instance_type": "t3.medium", "region": "r", "az": "ra", "mode": "spot",
            "hostname": "h", "private_ip": "10.0.0.1", "agent_version": "2.0.0"});
        send(format!("{url}/api/agents/register"), &token, agent.clone()).await;
        send(format!("{url}/api/agents/register"), GUESS, agent).await;
        let node = serde_json::json!({"name": "m", "ip": "10.0.0.2", "capabilities": {
            "os": "linux", "cpu_count": 1, "mem_mb": 1000, "disk_mb": 1000, "gpus": []}});
        let node = send(format!("{url}/api/v1/nodes/register"), "", node).await;
        let node = node["node_token"].as_str().unwrap_or_default().to_owned();
        let chat = serde_json::json!({"model": "m", "messages": []});
        for key in [API_KEY, GUESS] {
            send(format!("{orchion}/v1/chat/completions"), key, chat.clone()).await;
        }
        (token, node)
    });
    life.plant("client's token", &client_token);
    life.plant("node's token", node_token.rsplit('.').next().unwrap());
    let addr = life.url.clone();
    for words in [
        &["events", "-o", "yaml", "--addr", &addr][..],
        &["node", "ls", "-o", "yaml", "--addr", &addr],
        &["doctor", "--addr", &addr],
    ] {
        life.admin(words);
    }
    // The contract shows a client's token again, so the store holds it as it is, and a backup with it; nothing else.
    for (path, told) in runtime().block_on(read_all(&life, ("", "nothing"))) {
        let told = match path.as_str() {
            "/api/v1/backup" => told.replace(&client_token, ""),
            _ => told,
        };
        life.heard.push((path, told));
    }
    life.look_at_processes();
    let store = files(&life.dir()).into_iter().filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("hostler.db")
    });
    for path in store {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        life.search("the store", &text.replace(&client_token, ""));
        std::fs::remove_file(path).unwrap();
    }
    life.search_all(&[]);
}
