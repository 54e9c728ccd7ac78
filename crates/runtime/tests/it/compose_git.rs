//! Projects out of repositories: a local bare one, and one behind a server that asks for a token. The engine is real.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use hostler_model::spec::{ComposeSpec, GitSource, WorkloadSpec};
use hostler_runtime::compose::Programs;
use hostler_runtime::{LogQuery, Runtime as _, contract};

use crate::compose::{Yard, refused, started};
use crate::quiet;

const TOKEN: &str = "t0p-s3cret";

/// A bare repository with two branches, a tag and three commits.
struct Origin {
    dir: tempfile::TempDir,
    /// Oldest first.
    commits: Vec<String>,
}

impl Origin {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut origin = Self {
            dir,
            commits: Vec::new(),
        };
        git(origin.dir.path(), &["init", "-q", "-b", "main", "work"]);
        origin.commit("compose.yaml", &project("first"));
        git(&origin.work(), &["tag", "v1"]);
        origin.commit("compose.yaml", &project("${WORD}"));
        origin.commit(".env", "WORD=second\n");
        git(&origin.work(), &["checkout", "-q", "-b", "deep"]);
        std::fs::create_dir(origin.work().join("stack")).unwrap();
        let built = "services: {web: {build: ., network_mode: none}}\n";
        std::fs::write(
            origin.work().join("stack/Dockerfile"),
            "FROM busybox:local\nCOPY word /word\nCMD cat /word\n",
        )
        .unwrap();
        std::fs::write(origin.work().join("stack/word"), "built\n").unwrap();
        origin.commit("stack/app.yml", built);
        git(
            origin.dir.path(),
            &["clone", "-q", "--bare", "work", "origin.git"],
        );
        origin
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn bare(&self) -> String {
        self.dir.path().join("origin.git").display().to_string()
    }

    fn commit(&mut self, name: &str, text: &str) {
        std::fs::write(self.work().join(name), text).unwrap();
        git(&self.work(), &["add", "-A"]);
        git(&self.work(), &["commit", "-q", "-m", name]);
        self.commits.push(git(&self.work(), &["rev-parse", "HEAD"]));
    }
}

fn git(dir: &Path, words: &[&str]) -> String {
    let identity = ["-c", "user.name=Anna", "-c", "user.email=anna@example.org"];
    let output = Command::new("git")
        .args(identity)
        .args(words)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn project(word: &str) -> String {
    format!(
        "services: {{web: {{image: 'busybox:local', command: [echo, '{word}'], network_mode: none}}}}\n"
    )
}

fn of(repo: &str, reference: Option<&str>, path: Option<&str>) -> WorkloadSpec {
    let mut spec = WorkloadSpec::bare("test");
    spec.compose = Some(ComposeSpec {
        git: Some(GitSource {
            repo: repo.to_owned(),
            reference: reference.map(str::to_owned),
            path: path.map(str::to_owned),
            token_file: None,
        }),
        ..ComposeSpec::default()
    });
    spec
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_project_comes_from_a_branch_a_tag_or_a_commit_of_a_repository() {
    let (origin, yard) = (Origin::new(), Yard::new());
    let driver = yard.driver();
    let repo = format!("file://{}", origin.bare());
    let first = origin.commits[0].clone();
    for (reference, expected) in [
        (None, "second"),
        (Some("main"), "second"),
        (Some("v1"), "first"),
        (Some(first.as_str()), "first"),
    ] {
        let unit = started(&driver, of(&repo, reference, None)).await;
        let said = contract::texts(&driver, unit.id, &LogQuery::default(), 1).await;
        assert_eq!(said, [format!("web | {expected}")], "{reference:?}");
        let checkout = yard
            .dir
            .path()
            .join(unit.id.assignment.to_string())
            .join("1/checkout");
        let commits = git(&checkout, &["rev-list", "--count", "HEAD"]);
        assert_eq!(commits, "1", "only what was asked for");
    }
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_file_deep_in_a_repository_is_built_beside_its_own_context() {
    let (origin, yard) = (Origin::new(), Yard::new());
    let driver = yard.driver();
    let spec = of(&origin.bare(), Some("deep"), Some("stack/app.yml"));
    let told = Arc::new(Mutex::new(Vec::new()));
    let unit = contract::unit(spec);
    let listening = Arc::clone(&told);
    let listen = move |words: String| listening.lock().unwrap().push(words);
    driver.prepare(&unit, &listen).await.unwrap();
    driver.start(unit.id).await.unwrap();
    let said = contract::texts(&driver, unit.id, &LogQuery::default(), 1).await;
    assert_eq!(said, ["web | built"]);
    let told = told.lock().unwrap().join("\n");
    for step in ["fetching", "reading the compose file", "building web"] {
        assert!(told.contains(step), "{told}");
    }
}

#[tokio::test]
#[ignore = "needs compose"]
async fn what_git_cannot_give_has_its_code_and_leaves_nothing_behind() {
    let (origin, yard) = (Origin::new(), Yard::new());
    let driver = yard.driver();
    let bare = origin.bare();
    let gone = format!("{bare}.gone");
    let unknown = "0123456789012345678901234567890123456789";
    for (spec, code) in [
        (of(&gone, None, None), "git-unreachable"),
        (of("http://127.0.0.1:1/r", None, None), "git-unreachable"),
        (of(&bare, Some("no-such"), None), "git-ref-not-found"),
        (of(&bare, Some(unknown), None), "git-ref-not-found"),
        (
            of(&bare, None, Some("no/such.yaml")),
            "compose-file-missing",
        ),
    ] {
        let error = refused(&driver, spec).await;
        assert_eq!(error.code(), code, "{error}");
    }
    assert_eq!(yard.left(), Vec::<PathBuf>::new());
    let none = Yard::with(Programs {
        git: "/no/git".into(),
        ..yard.programs.clone()
    });
    let error = refused(&none.driver(), of(&bare, None, None)).await;
    assert_eq!(error.code(), "git-missing", "{error}");
}

/// Serves the repository to whoever knows the token, through git's own program for web servers.
struct Host {
    port: u16,
    /// The `Authorization` of each request.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Host {
    fn start(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &root, &seen);
            }
        });
        Self { port, asked }
    }

    fn repo(&self) -> String {
        format!("http://127.0.0.1:{}/origin.git", self.port)
    }
}

fn serve(stream: TcpStream, root: &Path, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let Some((method, target)) = lines.first().and_then(|line| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    }) else {
        return;
    };
    let head = |name: &str| {
        let found = lines.iter().filter_map(|line| line.split_once(": "));
        let mut found = found.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found
            .next()
            .map(|(_, value)| value.to_owned())
            .unwrap_or_default()
    };
    let mut body = vec![0; head("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    asked.lock().unwrap().push(head("authorization"));
    let mut stream = reader.into_inner();
    // `x-access-token` and the token, as HTTP wants it.
    if head("authorization") != "Basic eC1hY2Nlc3MtdG9rZW46dDBwLXMzY3JldA==" {
        let refusal = "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\n\
                       Connection: close\r\n\r\n";
        let _ = stream.write_all(refusal.as_bytes());
        return;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", head("content-type"))
        .env("HTTP_CONTENT_ENCODING", head("content-encoding"))
        .env("GIT_PROTOCOL", head("git-protocol"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("REMOTE_USER", "anna")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    backend.stdin.take().unwrap().write_all(&body).unwrap();
    let answer = backend.wait_with_output().unwrap().stdout;
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n");
    let _ = stream.write_all(&answer);
}

#[tokio::test]
#[ignore = "needs compose"]
async fn a_token_stays_in_its_file_and_in_no_word_that_anybody_sees() {
    let (origin, yard) = (Origin::new(), Yard::new());
    let host = Host::start(origin.dir.path().to_owned());
    let driver = yard.driver();
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("token");
    let with = |file: &Path| {
        let mut spec = of(&host.repo(), Some("main"), None);
        let git = spec.compose.as_mut().unwrap().git.as_mut().unwrap();
        git.token_file = Some(file.display().to_string());
        spec
    };
    let error = refused(&driver, of(&host.repo(), Some("main"), None)).await;
    assert_eq!(error.code(), "git-unauthorized", "{error}");
    let error = refused(&driver, with(&file)).await;
    assert_eq!(error.code(), "git-token-unreadable", "{error}");
    std::fs::write(&file, "wr0ng-t0ken\n").unwrap();
    let error = refused(&driver, with(&file)).await;
    assert_eq!(error.code(), "git-unauthorized", "{error}");
    assert!(!error.to_string().contains("wr0ng"), "{error}");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let unit = started(&driver, with(&file)).await;
    let said = contract::texts(&driver, unit.id, &LogQuery::default(), 1).await;
    assert_eq!(said, ["web | second"]);
    assert!(host.asked.lock().unwrap().len() > 2);
    let mut files = vec![yard.dir.path().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|it| it.unwrap().path()),
            );
        } else {
            let text = std::fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&text);
            assert!(!text.contains(TOKEN), "{} holds the token", path.display());
        }
    }
    driver.prepare(&unit, &quiet).await.unwrap();
}
