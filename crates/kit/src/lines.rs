//! Lines that are to stay: files that only grow, turned over when they are full, and bounded in number.
//!
//! ```text
//!   whoever has one ──► bounded queue ──► a thread: all that waits in one write, a sync once a second
//!                            │                 │
//!                            └── full ─────────┴── the disk takes none ──► counted, logged, and told by a line
//! ```
//!
//! A thread of its own owns the files, so that no disk holds up a task. They are `NAME-00000001.jsonl` and so on, for
//! their owner alone; names sort as they were begun. What was written survives the end of the process at once, and that
//! of the machine after a second. What can fail is the disk: then lines are lost, never in silence.

mod backwards;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::Clock;

pub use self::backwards::{Backwards, Place};

/// Lines that wait for the thread.
const QUEUE: usize = 4_096;
/// How long a full queue makes somebody wait before the line is lost.
const PATIENCE: Duration = Duration::from_millis(200);
/// Most bytes of one write, but for a line that is longer.
const BATCH_BYTES: usize = 256 << 10;
/// What was written is synced no later than this.
const SYNC: Duration = Duration::from_secs(1);

/// How a series of files is called and bounded.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// The first word of each file's name.
    pub name: &'static str,
    /// A file is turned over before it has more.
    pub bytes: u64,
    /// The oldest goes when there would be more.
    pub files: usize,
    /// The line that tells how many were lost.
    pub gap: fn(u64) -> String,
}

/// A series of files. Clones are one; the thread ends with the last.
#[derive(Clone)]
pub struct Lines {
    queue: Sender<Item>,
    room: Arc<Semaphore>,
    counts: Arc<Counts>,
}

/// What became of lines since the start.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
    /// Whether the last one was lost for want of room; logged once.
    is_full: AtomicBool,
}

enum Item {
    Line(String),
    /// Everything before is to be synced.
    Flush(oneshot::Sender<()>),
}

impl Lines {
    /// Starts the thread. The directory and the files are made when there is something to write.
    ///
    /// # Errors
    /// The machine starts no more threads.
    pub fn open(dir: &Path, series: Series, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (queue, items) = mpsc::channel();
        let room = Arc::new(Semaphore::new(QUEUE));
        let counts = Arc::new(Counts::default());
        let keeper = Keeper {
            dir: dir.to_owned(),
            series,
            clock,
            room: Arc::clone(&room),
            counts: Arc::clone(&counts),
            file: None,
            unsynced_since: None,
            told: 0,
            is_failing: false,
        };
        let thread = std::thread::Builder::new().name(format!("{} lines", series.name));
        thread.spawn(move || keeper.run(&items))?;
        Ok(Self {
            queue,
            room,
            counts,
        })
    }

    /// Queues one line; its break is added. Waits a moment if the queue is full, and then counts it as lost.
    pub async fn write(&self, line: String) {
        match tokio::time::timeout(PATIENCE, self.room.acquire()).await {
            Ok(Ok(permit)) => {
                permit.forget();
                self.send(line);
            }
            Ok(Err(_)) | Err(_) => self.lose(),
        }
    }

    /// The same without waiting.
    pub fn offer(&self, line: String) {
        match self.room.try_acquire() {
            Ok(permit) => {
                permit.forget();
                self.send(line);
            }
            Err(_) => self.lose(),
        }
    }

    /// Completes when all that was queued before is on the disk, or the disk takes nothing.
    pub async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).is_ok() {
            // The thread may have ended, and then nothing is queued any more.
            let _ = is_done.await;
        }
    }

    /// How many lines were written and how many were lost.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let counts = &self.counts;
        (
            counts.written.load(Ordering::Relaxed),
            counts.lost.load(Ordering::Relaxed),
        )
    }

    fn send(&self, line: String) {
        self.counts.is_full.store(false, Ordering::Relaxed);
        if self.queue.send(Item::Line(line)).is_err() {
            self.lose();
        }
    }

    fn lose(&self) {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        if !self.counts.is_full.swap(true, Ordering::Relaxed) {
            tracing::error!("lines that were to be kept are lost: the disk is too slow for them");
        }
    }
}

/// The thread's side.
struct Keeper {
    dir: PathBuf,
    series: Series,
    clock: Arc<dyn Clock>,
    room: Arc<Semaphore>,
    counts: Arc<Counts>,
    file: Option<Open>,
    /// When the oldest write came that is not synced.
    unsynced_since: Option<Duration>,
    /// How many lost lines were told of.
    told: u64,
    is_failing: bool,
}

/// The file that grows.
struct Open {
    file: File,
    number: u64,
    bytes: u64,
}

impl Keeper {
    fn run(mut self, items: &Receiver<Item>) {
        loop {
            let next = match self.unsynced_since {
                None => items.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => {
                    let passed = self.clock.uptime().saturating_sub(since);
                    items.recv_timeout(SYNC.saturating_sub(passed))
                }
            };
            match next {
                Ok(item) => self.take(item, items),
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
        }
    }

    /// Takes that item with what waits behind it.
    fn take(&mut self, first: Item, items: &Receiver<Item>) {
        let (mut batch, mut count, mut flushes) = (String::new(), 0, Vec::new());
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Line(line) => {
                    batch.push_str(&line);
                    batch.push('\n');
                    count += 1;
                }
                Item::Flush(done) => flushes.push(done),
            }
            let is_enough = batch.len() >= BATCH_BYTES || !flushes.is_empty();
            next = if is_enough {
                None
            } else {
                items.try_recv().ok()
            };
        }
        if count > 0 {
            self.put(&batch, count);
            self.room.add_permits(count);
        }
        let is_due = self
            .unsynced_since
            .is_some_and(|since| self.clock.uptime().saturating_sub(since) >= SYNC);
        if is_due || !flushes.is_empty() {
            self.sync();
        }
        for done in flushes {
            // Who waited may have gone.
            let _ = done.send(());
        }
    }

    fn put(&mut self, batch: &str, count: usize) {
        let lost = self.counts.lost.load(Ordering::Relaxed);
        let missing = lost - self.told;
        let gap = (missing > 0).then(|| (self.series.gap)(missing) + "\n");
        let text = gap.unwrap_or_default() + batch;
        match self.append(&text) {
            Ok(()) => {
                self.told = lost;
                let count = count as u64;
                self.counts.written.fetch_add(count, Ordering::Relaxed);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(dir = %self.dir.display(), missing, "lines are kept again");
                }
            }
            Err(error) => {
                self.counts.lost.fetch_add(count as u64, Ordering::Relaxed);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(dir = %self.dir.display(), %error, "lines that were to be kept are lost");
                }
            }
        }
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        let length = text.len() as u64;
        let most = self.series.bytes;
        let full = |open: &Open| open.bytes > 0 && open.bytes + length > most;
        let number = match &self.file {
            Some(open) if full(open) => {
                let next = open.number + 1;
                self.sync();
                self.file = None;
                Some(next)
            }
            Some(_) => None,
            None => Some(self.newest()?.unwrap_or(1)),
        };
        if let Some(number) = number {
            let mut open = self.begin(number)?;
            if full(&open) {
                open = self.begin(number + 1)?;
            }
            self.file = Some(open);
        }
        let Some(open) = &mut self.file else {
            return Ok(());
        };
        if let Err(error) = open.file.write_all(text.as_bytes()) {
            // Half a line is no line. One that stays is ended when the file is opened again.
            if let Err(error) = open.file.set_len(open.bytes)
                && !self.is_failing
            {
                tracing::warn!(dir = %self.dir.display(), %error, "half a line stays");
            }
            // What was written before is not to be lost with it.
            self.sync();
            self.file = None;
            return Err(error);
        }
        open.bytes += length;
        if self.unsynced_since.is_none() {
            self.unsynced_since = Some(self.clock.uptime());
        }
        Ok(())
    }

    /// Opens or makes the file of that number, and lets the oldest go.
    fn begin(&self, number: u64) -> io::Result<Open> {
        let mut dir = DirBuilder::new();
        dir.recursive(true).mode(0o700).create(&self.dir)?;
        let mut options = OpenOptions::new();
        options.create(true).append(true).read(true).mode(0o600);
        let mut file = options.open(self.path(number))?;
        let mut bytes = file.metadata()?.len();
        if bytes > 0 && !ends_a_line(&mut file)? {
            file.write_all(b"\n")?;
            bytes += 1;
        }
        let mut kept = self.numbers()?;
        kept.sort_unstable();
        for old in kept.iter().rev().skip(self.series.files.max(1)) {
            if let Err(error) = fs::remove_file(self.path(*old)) {
                tracing::warn!(file = %self.path(*old).display(), %error, "an old file stays");
            }
        }
        Ok(Open {
            file,
            number,
            bytes,
        })
    }

    fn newest(&self) -> io::Result<Option<u64>> {
        Ok(self.numbers()?.into_iter().max())
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        numbers(&self.dir, self.series.name)
    }

    fn path(&self, number: u64) -> PathBuf {
        path(&self.dir, self.series.name, number)
    }

    fn sync(&mut self) {
        if self.unsynced_since.take().is_none() {
            return;
        }
        if let Some(Err(error)) = self.file.as_ref().map(|open| open.file.sync_data()) {
            tracing::error!(dir = %self.dir.display(), %error, "lines may not survive the machine");
        }
    }
}

/// The numbers of a series' files, in any order.
fn numbers(dir: &Path, name: &str) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let number = |entry: io::Result<fs::DirEntry>| -> Option<u64> {
        let file = entry.ok()?.file_name();
        let rest = file.to_str()?.strip_prefix(name)?;
        let digits = rest.strip_prefix('-')?.strip_suffix(".jsonl")?;
        digits.parse().ok()
    };
    Ok(entries.filter_map(number).collect())
}

fn path(dir: &Path, name: &str, number: u64) -> PathBuf {
    dir.join(format!("{name}-{number:08}.jsonl"))
}

/// A process that was killed may have left half a line.
fn ends_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tracing::dispatcher::Dispatch;
    use tracing::subscriber::NoSubscriber;

    use super::*;
    use crate::SystemClock;

    fn open(dir: &Path, bytes: u64, files: usize) -> Lines {
        let series = Series {
            name: "x",
            bytes,
            files,
            gap: |lost| format!("lost {lost}"),
        };
        Lines::open(dir, series, Arc::new(SystemClock::new())).unwrap()
    }

    fn files(dir: &Path) -> Vec<(String, String)> {
        let mut found: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        found.sort();
        found
    }

    #[tokio::test]
    async fn files_are_turned_over_bounded_and_for_their_owner_alone() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("audit");
        let lines = open(&dir, 8, 2);
        for line in [
            "one",
            "two",
            "three",
            "four",
            "a line that is longer than a file",
        ] {
            lines.write(line.to_owned()).await;
            lines.flush().await;
        }
        let expected = [
            ("x-00000003.jsonl", "four\n"),
            ("x-00000004.jsonl", "a line that is longer than a file\n"),
        ];
        assert_eq!(files(&dir), expected.map(|(a, b)| (a.into(), b.into())));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("x-00000004.jsonl")), 0o600);
        assert_eq!(lines.counts(), (5, 0));
    }

    #[tokio::test]
    async fn a_new_start_goes_on_behind_a_line_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x-00000007.jsonl"), "whole\nha").unwrap();
        let lines = open(dir.path(), 1_000, 3);
        lines.write("new".to_owned()).await;
        lines.flush().await;
        let expected = ("x-00000007.jsonl".into(), "whole\nha\nnew\n".into());
        assert_eq!(files(dir.path()), [expected]);
    }

    #[tokio::test]
    async fn a_full_disk_loses_lines_that_are_counted_and_told_of_once_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let full = dir.path().join("x-00000001.jsonl");
        symlink("/dev/full", &full).unwrap();
        let lines = open(dir.path(), 1_000, 3);
        for line in ["one", "two"] {
            lines.write(line.to_owned()).await;
            lines.flush().await;
        }
        assert_eq!(lines.counts(), (0, 2));
        fs::remove_file(&full).unwrap();
        lines.write("three".to_owned()).await;
        lines.flush().await;
        let expected = ("x-00000001.jsonl".into(), "lost 2\nthree\n".into());
        assert_eq!(files(dir.path()), [expected]);
        assert_eq!(lines.counts(), (1, 2));
    }

    #[test]
    fn what_was_written_before_a_write_that_fails_is_synced_before_the_file_is_let_go() {
        for is_unsynced in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let said = dir.path().join("said");
            let log = Arc::new(File::create(&said).unwrap());
            let subscriber = tracing_subscriber::fmt().with_writer(log).finish();
            let subscriber = Dispatch::new(subscriber);
            // Of one alone, a thread that has none would decide for all whether a line is wanted.
            let _second = Dispatch::new(NoSubscriber::default());
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            // It takes no byte, and says so of a sync, too: that is how the test hears of one.
            let mut full = OpenOptions::new();
            let full = full.append(true).open("/dev/full").unwrap();
            let mut keeper = Keeper {
                dir: dir.path().to_owned(),
                series: Series {
                    name: "x",
                    bytes: 1_000,
                    files: 3,
                    gap: |lost| lost.to_string(),
                },
                unsynced_since: is_unsynced.then(|| clock.uptime()),
                clock,
                room: Arc::new(Semaphore::new(1)),
                counts: Arc::default(),
                file: Some(Open {
                    file: full,
                    number: 1,
                    bytes: 0,
                }),
                told: 0,
                is_failing: false,
            };
            tracing::dispatcher::with_default(&subscriber, || keeper.put("line\n", 1));
            assert!(keeper.file.is_none() && keeper.unsynced_since.is_none());
            assert_eq!(keeper.counts.lost.load(Ordering::Relaxed), 1);
            let said = fs::read_to_string(said).unwrap();
            assert!(
                said.contains("lines that were to be kept are lost"),
                "{said}"
            );
            let is_synced = said.contains("lines may not survive the machine");
            assert_eq!(is_synced, is_unsynced, "{said}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_nobody_wait_for_long() {
        let (queue, items) = mpsc::channel();
        let lines = Lines {
            queue,
            room: Arc::new(Semaphore::new(1)),
            counts: Arc::default(),
        };
        // Nobody takes anything.
        lines.write("one".to_owned()).await;
        lines.write("two".to_owned()).await;
        lines.offer("three".to_owned());
        assert_eq!(lines.counts(), (0, 2));
        assert!(matches!(items.try_recv(), Ok(Item::Line(line)) if line == "one"));
        assert!(items.try_recv().is_err());
    }
}
