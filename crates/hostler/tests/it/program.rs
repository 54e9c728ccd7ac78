//! The program as a child: started with arguments, ended with the value, and its lines kept.

use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use hostler_kit::trust::{Anchors, ClientTls};
use rustix::process::{Pid, Signal};
use tokio::runtime::Runtime;

/// Generous: a busy machine is no failure.
const LOOKS: u32 = 3_600;
const LOOK: Duration = Duration::from_millis(50);
/// How often a program that has ended is looked at for its last words.
const LAST_LOOKS: u32 = 200;
/// Ports that the kernel gives nobody who asks for any.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A long-running child; killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Those of stdout alone.
    data: Arc<Mutex<Vec<String>>>,
    /// They read both streams, and may be behind what the child does.
    readers: [JoinHandle<()>; 2],
}

/// Raises the flag when it goes, also with a test that fails: nobody who waits for that is left behind.
pub(crate) struct Raises<'a>(pub(crate) &'a AtomicBool);

/// The program with a clean environment, so that nothing of the machine's own configuration counts.
pub(crate) fn hostler(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
    command
        .env_clear()
        .env("HOME", home)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command
}

/// Waits until it is so; the text says what was awaited.
pub(crate) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    assert!(comes(is_so), "never came: {what}");
}

/// Waits until it is so, and tells whether it came to that.
pub(crate) fn comes(is_so: impl FnMut() -> bool) -> bool {
    comes_within(LOOKS, is_so)
}

fn comes_within(looks: u32, mut is_so: impl FnMut() -> bool) -> bool {
    (0..looks).any(|_| {
        let is_so = is_so();
        if !is_so {
            sleep(LOOK);
        }
        is_so
    })
}

/// A port of loopback that nobody has now. It is none of those that the kernel gives to whoever asks for any, so that
/// nobody is given it before it is used, or while a server that had it is away; and tests side by side begin elsewhere.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let room = u32::from(PORTS.end - PORTS.start);
    loop {
        let taken = u32::from(TAKEN.fetch_add(1, Ordering::Relaxed));
        let place = std::process::id().wrapping_mul(16).wrapping_add(taken) % room;
        let port = PORTS.start + u16::try_from(place).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// What was said against nodes, of the events as JSON: that one is lost, or is suspect. That beats were late for some
/// seconds is left out: so they are on a busy machine, whatever the program does.
pub(crate) fn against_nodes(events: &str) -> Vec<String> {
    let is_against = |line: &&str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let message = event["message"].as_str().unwrap_or_default();
        match event["kind"].as_str() {
            Some("node-lost") => true,
            Some("node-suspect") => seconds_without_a_beat(message).is_none_or(|it| it > 30.0),
            _ => false,
        }
    };
    events
        .lines()
        .filter(is_against)
        .map(str::to_owned)
        .collect()
}

fn seconds_without_a_beat(message: &str) -> Option<f64> {
    let (_, span) = message.split_once("no beat for ")?;
    span.split(' ').next()?.parse().ok()
}

/// One request over plain HTTP: status line, headers and body as they came.
pub(crate) fn plain(addr: &str, request: &str, (headers, body): (&str, &str)) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n{headers}content-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What a test waits with for what is not done at once.
pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// A client of servers that those vouch for, and of plain HTTP.
pub(crate) fn client(anchors: &Anchors) -> reqwest::Client {
    let tls = ClientTls::new(anchors, None).unwrap().config();
    let builder = reqwest::Client::builder().no_proxy();
    builder.tls_backend_preconfigured(tls).build().unwrap()
}

/// Gives a command that on its standard input, to its end.
pub(crate) fn told(command: &mut Command, text: &str) -> Ended {
    use std::io::Write as _;
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    child.wait_with_output().unwrap().into()
}

/// Sends a signal to a process that this test, or what it started, has started.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // One that has ended already is fine.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Whether the process lives; a zombie does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Ends the units below the directory: the processes of each shim that was started with a path in it.
pub(crate) fn end_units(directory: &Path) {
    let shims = processes(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let is_ours = |word: &&[u8]| word.starts_with(directory.as_os_str().as_encoded_bytes());
        words.get(1) == Some(&&b"shim"[..]) && words.iter().any(is_ours)
    });
    for shim in shims {
        let units = processes(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat
                .rsplit(") ")
                .next()
                .and_then(|rest| rest.split(' ').nth(1));
            parent.and_then(|parent| parent.parse().ok()) == Some(shim)
        });
        units
            .into_iter()
            .for_each(|unit| signal(unit, Signal::KILL));
        eventually("a shim without a unit ends", || !is_alive(shim));
    }
}

/// The processes of this machine that are meant.
pub(crate) fn processes(is_meant: impl Fn(u32) -> bool) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pid =
        |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    entries
        .filter_map(pid)
        .filter(|pid| is_meant(*pid))
        .collect()
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// The same, if it ended with that code.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Its data as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl Running {
    /// Starts it and keeps what it says on both streams.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let data = Arc::new(Mutex::new(Vec::new()));
        let readers = [
            keep(child.stdout.take().unwrap(), &[&lines, &data]),
            keep(child.stderr.take().unwrap(), &[&lines]),
        ];
        Self {
            child,
            lines,
            data,
            readers,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout, line by line.
    pub(crate) fn data(&self) -> Vec<String> {
        self.data.lock().unwrap().clone()
    }

    /// Everything it has said.
    pub(crate) fn said(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The first line with this in it, once it is there.
    pub(crate) fn line(&mut self, part: &str) -> String {
        for _ in 0..LOOKS {
            // Looked at first: what it said last counts as well.
            let has_ended = self.child.try_wait().unwrap().is_some() && self.is_heard();
            let found = self
                .lines
                .lock()
                .unwrap()
                .iter()
                .find(|line| line.contains(part))
                .cloned();
            if let Some(line) = found {
                return line;
            }
            assert!(!has_ended, "it ended without `{part}`:\n{}", self.said());
            sleep(LOOK);
        }
        panic!("it never said `{part}`:\n{}", self.said());
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and gives its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        signal(self.pid(), Signal::TERM);
        self.code()
    }

    /// Its exit code, once it has ended.
    pub(crate) fn code(&mut self) -> Option<i32> {
        eventually("the program ends", || {
            self.child.try_wait().unwrap().is_some()
        });
        // Somebody whom it has started may hold its streams open.
        comes_within(LAST_LOOKS, || self.is_heard());
        self.child.wait().unwrap().code()
    }

    /// Whether everything is read.
    fn is_heard(&self) -> bool {
        self.readers.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for Raises<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep(stream: impl Read + Send + 'static, places: &[&Arc<Mutex<Vec<String>>>]) -> JoinHandle<()> {
    let places: Vec<_> = places.iter().map(|place| Arc::clone(place)).collect();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            places
                .iter()
                .for_each(|place| place.lock().unwrap().push(line.clone()));
        }
    })
}
