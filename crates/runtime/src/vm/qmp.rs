//! QEMU's monitor: lines of JSON over a unix socket, one order per connection, because QEMU hears one client at a
//! time and nobody may keep it from the others.
//!
//! Owns nothing that outlives a call. What fails: no socket (the machine is not up yet, or gone), a machine that
//! does not answer in time, an order that it refuses.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// QEMU answers at once unless the machine is overloaded.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest line that is read.
const MAX_LINE: u64 = 1 << 20;

/// How a machine is, in QEMU's own word and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    Running,
    /// It stands still until it is resumed.
    Paused,
    /// The guest has ended; QEMU is about to.
    Shutdown,
    /// The guest's kernel gave up.
    Panicked,
    /// Being started, saved or debugged.
    Other,
}

impl Power {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Shutdown => "shutdown",
            Self::Panicked => "crashed",
            Self::Other => "nostate",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "running" => Self::Running,
            "paused" | "suspended" | "prelaunch" | "io-error" => Self::Paused,
            "shutdown" => Self::Shutdown,
            "guest-panicked" => Self::Panicked,
            _ => Self::Other,
        }
    }
}

/// What a machine is told. Orders that ask for nothing are answered with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Presses the power button.
    PowerDown,
    /// Holds the processors, and writes what is in flight to the disks.
    Pause,
    Resume,
}

impl Order {
    const fn word(self) -> &'static str {
        match self {
            Self::PowerDown => "system_powerdown",
            Self::Pause => "stop",
            Self::Resume => "cont",
        }
    }
}

/// Gives the orders one after the other.
pub(super) async fn tell(socket: &Path, orders: &[Order]) -> io::Result<()> {
    in_time(async {
        let mut monitor = Monitor::open(socket).await?;
        for order in orders {
            monitor.ask(order.word()).await?;
        }
        Ok(())
    })
    .await
}

/// Asks how the machine is. Its first answer says that it is up.
pub(super) async fn power(socket: &Path) -> io::Result<Power> {
    in_time(async {
        let mut monitor = Monitor::open(socket).await?;
        let answer = monitor.ask("query-status").await?;
        Ok(Power::of(answer["status"].as_str().unwrap_or_default()))
    })
    .await
}

async fn in_time<T>(talking: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, talking)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    async fn open(socket: &Path) -> io::Result<Self> {
        let mut monitor = Self {
            stream: BufReader::new(connect(socket).await?),
        };
        let greeting = monitor.line().await?;
        if greeting.get("QMP").is_none() {
            return Err(io::Error::other("no monitor of QEMU answers"));
        }
        monitor.ask("qmp_capabilities").await?;
        Ok(monitor)
    }

    /// Gives one order and waits for its answer; events that come in between are somebody else's.
    async fn ask(&mut self, word: &str) -> io::Result<Value> {
        let mut line = json!({ "execute": word }).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).await?;
        loop {
            let answer = self.line().await?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                let why = error["desc"].as_str().unwrap_or("no reason is given");
                return Err(io::Error::other(format!("QEMU refuses `{word}`: {why}")));
            }
        }
    }

    async fn line(&mut self) -> io::Result<Value> {
        use tokio::io::AsyncReadExt as _;
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(MAX_LINE);
        bounded.read_until(b'\n', &mut line).await?;
        if line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

/// A socket's path may be too long for its address, so it is reached through a handle on its directory.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let handle = rustix::fs::open(dir, flags, rustix::fs::Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(handle.as_raw_fd().to_string());
    UnixStream::connect(short.join(name)).await
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use hostler_kit::Tasks;
    use tokio::net::UnixListener;

    use super::*;

    /// A monitor that follows a script: what it says at first, and what it answers to each line, in order.
    struct Script {
        dir: tempfile::TempDir,
        heard: tokio::sync::mpsc::UnboundedReceiver<String>,
    }

    impl Script {
        fn new(greeting: &'static str, answers: &'static [&'static str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let deep = dir.path().join("x".repeat(120));
            std::fs::create_dir(&deep).unwrap();
            // The listener's address has to be short, too.
            let short = dir.path().join("s");
            let listener = UnixListener::bind(&short).unwrap();
            std::fs::rename(&short, deep.join("qmp.sock")).unwrap();
            let (sender, heard) = tokio::sync::mpsc::unbounded_channel();
            Tasks::new().spawn("script", async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                stream.write_all(greeting.as_bytes()).await.unwrap();
                for answer in answers {
                    let mut line = String::new();
                    stream.read_line(&mut line).await.unwrap();
                    sender.send(line.trim().to_owned()).unwrap();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
            Self { dir, heard }
        }

        fn socket(&self) -> PathBuf {
            self.dir.path().join("x".repeat(120)).join("qmp.sock")
        }

        fn heard(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
        }
    }

    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";
    const DONE: &str = "{\"return\": {}}\n";

    #[tokio::test]
    async fn orders_are_given_in_order_and_events_between_are_passed_over() {
        let mut script = Script::new(
            GREETING,
            &[
                DONE,
                "{\"event\": \"STOP\", \"timestamp\": {}}\n{\"return\": {}}\n",
                DONE,
            ],
        );
        tell(&script.socket(), &[Order::Pause, Order::PowerDown])
            .await
            .unwrap();
        assert_eq!(
            script.heard(),
            [
                "{\"execute\":\"qmp_capabilities\"}",
                "{\"execute\":\"stop\"}",
                "{\"execute\":\"system_powerdown\"}"
            ]
        );
    }

    #[tokio::test]
    async fn the_state_is_told_in_our_words() {
        for (word, power) in [
            ("running", Power::Running),
            ("paused", Power::Paused),
            ("guest-panicked", Power::Panicked),
            ("shutdown", Power::Shutdown),
            ("inmigrate", Power::Other),
        ] {
            assert_eq!(Power::of(word), power, "{word}");
        }
        let script = Script::new(
            GREETING,
            &[
                DONE,
                "{\"return\": {\"status\": \"guest-panicked\", \"running\": false}}\n",
            ],
        );
        assert_eq!(power(&script.socket()).await.unwrap(), Power::Panicked);
    }

    #[tokio::test]
    async fn refusals_strangers_and_silence_are_errors() {
        let refusing = Script::new(
            GREETING,
            &[
                DONE,
                "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\n",
            ],
        );
        let error = tell(&refusing.socket(), &[Order::Resume])
            .await
            .unwrap_err();
        assert!(error.to_string().contains("`cont`: not now"), "{error}");

        let stranger = Script::new("{\"hello\": 1}\n", &[]);
        let error = power(&stranger.socket()).await.unwrap_err();
        assert!(error.to_string().contains("no monitor"), "{error}");

        let torn = Script::new("{\"QMP\":", &[]);
        let error = power(&torn.socket()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

        let dir = tempfile::tempdir().unwrap();
        let error = power(&dir.path().join("qmp.sock")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
