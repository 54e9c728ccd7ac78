//! The child process that tests of durability start, kill and start again: this test binary itself.
//!
//! It commits numbered entries in several lanes at once and says on stdout what was acknowledged, one line
//! a commit. Each commit of a lane writes `lane/<l>/left`, `lane/<l>/right` and `lane/<l>/log/<n>`, so that
//! half a commit, a lost one and a wrong revision can all be told afterwards.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::{SystemClock, Tasks};
use hostler_store::contract::put;
use hostler_store::{Failpoint, Point, SqliteOptions, SqliteStore, Store, StoreError};

/// Where the child finds its orders; only the tests set it.
const ORDERS: &str = "HOSTLER_STORE_TEST_CHILD";

/// A step that the released schema does not have.
pub(crate) const NEXT_STEP: &str = "CREATE TABLE extra (n INTEGER) STRICT;";

/// What the child shall do.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    pub(crate) directory: PathBuf,
    pub(crate) lanes: usize,
    /// Commits of each lane.
    pub(crate) commits: usize,
    pub(crate) failpoint: Option<Failpoint>,
    pub(crate) migrates: bool,
}

const POINTS: [(&str, Point); 6] = [
    ("before-begin", Point::BeforeBegin),
    ("after-writes", Point::AfterWrites),
    ("before-commit", Point::BeforeCommit),
    ("after-commit-before-answer", Point::AfterCommitBeforeAnswer),
    ("during-checkpoint", Point::DuringCheckpoint),
    (
        "during-migration-after-backup",
        Point::DuringMigrationAfterBackup,
    ),
];

impl Orders {
    /// A command that runs the child; stdout is piped, stderr is dropped.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
        self.arm(&mut command);
        command
    }

    /// Gives the arguments and the orders to a command that ends up as the child.
    pub(crate) fn arm(&self, command: &mut Command) {
        let child = [
            "--exact",
            "child::commits_until_told_otherwise",
            "--ignored",
            "--nocapture",
        ];
        command.args(child).env(ORDERS, self.to_text());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
    }

    fn to_text(&self) -> String {
        let directory = self.directory.to_str().expect("temporary paths are text");
        let mut text = format!(
            "{} {} {} ",
            self.lanes,
            self.commits,
            u8::from(self.migrates)
        );
        match self.failpoint {
            Some(failpoint) => {
                let point = POINTS.iter().find(|(_, point)| *point == failpoint.at);
                let (name, _) = point.expect("every point has a name");
                write!(text, "{name} {}", failpoint.after).expect("a string takes all");
            }
            None => text.push_str("none 0"),
        }
        format!("{text} {directory}")
    }

    fn from_text(text: &str) -> Self {
        let words: Vec<&str> = text.splitn(6, ' ').collect();
        let number = |index: usize| words[index].parse::<usize>().expect("a number");
        let point = POINTS.iter().find(|(name, _)| *name == words[3]);
        let after = u32::try_from(number(4)).expect("a small number");
        Self {
            directory: PathBuf::from(words[5]),
            lanes: number(0),
            commits: number(1),
            failpoint: point.map(|(_, at)| Failpoint { at: *at, after }),
            migrates: number(2) == 1,
        }
    }

    fn options(&self) -> SqliteOptions {
        let mut options = SqliteOptions {
            failpoint: self.failpoint,
            checkpoint_after: 256 << 10,
            ..SqliteOptions::default()
        };
        if self.migrates {
            options.migrations = longer_schema();
        }
        options
    }
}

/// The released schema and one step more.
pub(crate) fn longer_schema() -> &'static [&'static str] {
    let mut steps = SqliteOptions::default().migrations.to_vec();
    steps.push(NEXT_STEP);
    steps.leak()
}

/// Opens the store as a server does.
pub(crate) fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(directory, Arc::new(SystemClock::new())).expect("the store opens")
}

/// The number that a key holds; none is 0.
pub(crate) async fn number_at(store: &dyn Store, key: &str) -> u64 {
    let Some(entry) = store.get(key).await.expect("a key can be read") else {
        return 0;
    };
    let text = std::str::from_utf8(&entry.value).expect("numbers are text");
    text.trim_end_matches('.').parse().expect("a number")
}

/// The commit of number `n` in a lane; padded, so that the log fills.
pub(crate) fn numbered(lane: usize, n: u64) -> Vec<hostler_store::Write> {
    let value = format!("{n}{}", ".".repeat(400));
    vec![
        put(&format!("lane/{lane}/left"), &value),
        put(&format!("lane/{lane}/log/{n:08}"), &value),
        put(&format!("lane/{lane}/right"), &value),
    ]
}

/// One line, one write(2).
pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("{line}\n").as_bytes())
        .expect("the parent listens");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a child process gets its orders this way"
)]
fn orders() -> Option<String> {
    std::env::var(ORDERS).ok()
}

#[test]
#[ignore = "is the child process of other tests"]
fn commits_until_told_otherwise() {
    let Some(text) = orders() else { return };
    let orders = Orders::from_text(&text);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        // Ends the line that the test harness has begun.
        say("");
        let clock = Arc::new(SystemClock::new());
        let store = SqliteStore::open_with(&orders.directory, clock, orders.options());
        let store = Arc::new(store.expect("the store opens"));
        let token = store.lease("leader", Duration::from_secs(60), None).await;
        say(&format!(
            "lease {}",
            token.expect("nobody else holds it").number
        ));
        let tasks = Tasks::new();
        for lane in 0..orders.lanes {
            tasks.spawn(
                "lane",
                commit_lane(Arc::clone(&store), lane, orders.commits),
            );
        }
        tasks
            .shut_down(Duration::from_secs(300))
            .await
            .expect("all lanes end");
    });
}

async fn commit_lane(store: Arc<SqliteStore>, lane: usize, commits: usize) {
    let start = number_at(&*store, &format!("lane/{lane}/left")).await + 1;
    for n in (start..).take(commits) {
        match store.commit(numbered(lane, n), Vec::new()).await {
            Ok(revision) => say(&format!("ack {lane} {n} {revision}")),
            Err(hostler_store::CommitError::Store(StoreError::Unavailable(_))) => return,
            Err(error) => panic!("{error}"),
        }
    }
}
