//! Reads a unit's log from its segments, and follows it while it grows.
//!
//! The reader goes at its own pace and the shim never waits for it. One that is so slow that a segment is
//! deleted before it was read gets a notice in the place of what it missed. Nothing is polled: the kernel
//! tells when something below `runs/` changes.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_model::{Timestamp, UnitId};
use hostler_shim::record::UnitDir;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use crate::RuntimeError;
use crate::disk;
use crate::logs::{LogLine, LogQuery, Run, Stream};

/// So much is read at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// Where a record says whether it is a piece: behind its moment and the word for its stream.
const TAG_OFFSET: usize = 32;
/// The longest time between two looks, should the kernel's word get lost.
const GLANCE: Duration = Duration::from_secs(1);

/// Where a reader stands.
struct Cursor {
    dir: UnitDir,
    run: u32,
    /// The segment that is read, from 1; 0 before the first.
    segment: u32,
    file: Option<File>,
    /// The beginning of a record whose end has not been read.
    begun: Vec<u8>,
    since: Option<Timestamp>,
    does_follow: bool,
    /// Where a reader that does not follow stops: a segment and its length when the log was opened.
    end: Option<(u32, u64)>,
    last_at: Timestamp,
}

/// What a look at the log brought.
enum Look {
    Lines(Vec<LogLine>),
    /// The end of what is written; more may come.
    Idle,
    /// Nothing more ever.
    End,
}

/// Opens the log of a run.
pub(super) async fn read(
    dir: UnitDir,
    id: UnitId,
    query: LogQuery,
) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
    let does_follow = query.follow;
    // Watched before the first look, so that nothing falls between the two.
    let changes = if does_follow { watch(&dir).ok() } else { None };
    let opened = disk::off_thread("open the log", move || Cursor::open(dir, id, &query));
    let cursor = opened.await??;
    let state = Some((cursor, changes));
    let batches = futures::stream::unfold(state, |state| async move {
        let (mut cursor, changes) = state?;
        loop {
            let looked = disk::off_thread("read the log", move || {
                let look = cursor.look();
                Ok((cursor, look))
            });
            let look = match looked.await {
                Ok((back, look)) => {
                    cursor = back;
                    look
                }
                Err(error) => return Some((vec![Err(error)], None)),
            };
            match look {
                Ok(Look::Lines(lines)) => {
                    let lines = lines.into_iter().map(Ok).collect();
                    return Some((lines, Some((cursor, changes))));
                }
                Ok(Look::Idle) => wait(changes.as_ref()).await,
                Ok(Look::End) => return None,
                Err(error) => return Some((vec![Err(disk::error("read the log", error))], None)),
            }
        }
    });
    Ok(batches.flat_map(futures::stream::iter).boxed())
}

impl Cursor {
    fn open(dir: UnitDir, id: UnitId, query: &LogQuery) -> io::Result<Result<Self, RuntimeError>> {
        if !dir.unit_file().exists() {
            return Ok(Err(RuntimeError::NotFound(id)));
        }
        let latest = dir.latest_run()?;
        let run = match query.run {
            Run::Latest => latest,
            Run::Previous => latest.saturating_sub(1),
        };
        // Who follows a unit that has not run yet waits for its first run.
        let is_awaited = query.follow && query.run == Run::Latest;
        if run == 0 && !is_awaited {
            return Ok(Err(RuntimeError::NoLog));
        }
        let mut cursor = Self {
            dir,
            run: run.max(1),
            segment: 0,
            file: None,
            begun: Vec::new(),
            since: query.since,
            does_follow: query.follow,
            end: None,
            last_at: Timestamp::default(),
        };
        if !query.follow {
            cursor.end = Some(cursor.present_end()?);
        }
        if let Some(tail) = query.tail {
            cursor.skip_to_tail(tail)?;
        }
        Ok(Ok(cursor))
    }

    /// Reads on from here.
    fn look(&mut self) -> io::Result<Look> {
        loop {
            // Looked at before the reading: a segment that has a successor grows no more.
            let next = self.next_segment()?;
            let is_over = self.is_over();
            let readable = self.readable()?;
            let mut block = vec![0; readable];
            let count = match &mut self.file {
                Some(file) => file.read(&mut block)?,
                None => 0,
            };
            if count == 0 && self.end.is_some_and(|(segment, _)| self.segment >= segment) {
                return Ok(Look::End);
            }
            if count > 0 {
                let lines = self.lines(&block[..count]);
                if lines.is_empty() {
                    continue;
                }
                return Ok(Look::Lines(lines));
            }
            if let Some(number) = next {
                let is_gap = self.segment > 0 && number > self.segment + 1;
                self.enter(number)?;
                if is_gap {
                    return Ok(Look::Lines(vec![self.gap()]));
                }
                continue;
            }
            match is_over {
                Over::No if self.does_follow => return Ok(Look::Idle),
                Over::Run if self.does_follow => return Ok(Look::Idle),
                Over::NextRun(run) if self.does_follow => self.turn_to(run),
                _ => return Ok(Look::End),
            }
        }
    }

    /// The last segment and its length as they are now. Who does not follow reads up to there: a unit that
    /// writes faster than it is read would keep the reader for ever.
    fn present_end(&self) -> io::Result<(u32, u64)> {
        let segments = match self.dir.segments(self.run) {
            Ok(segments) => segments,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let Some(last) = segments.into_iter().max() else {
            return Ok((0, 0));
        };
        match std::fs::metadata(self.dir.segment(self.run, last)) {
            Ok(found) => Ok((last, found.len())),
            // Rotated away since: everything that was there is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((last, 0)),
            Err(error) => Err(error),
        }
    }

    /// How much of the present segment may be read now.
    fn readable(&mut self) -> io::Result<usize> {
        let (Some((segment, length)), Some(file)) = (self.end, &mut self.file) else {
            return Ok(BLOCK_BYTES);
        };
        if self.segment < segment {
            return Ok(BLOCK_BYTES);
        }
        let left = if self.segment == segment {
            length.saturating_sub(file.stream_position()?)
        } else {
            0
        };
        Ok(usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES)))
    }

    /// The oldest kept segment behind the present one.
    fn next_segment(&self) -> io::Result<Option<u32>> {
        match self.dir.segments(self.run) {
            Ok(numbers) => Ok(numbers.into_iter().find(|&number| number > self.segment)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_over(&self) -> Over {
        if !self.dir.unit_file().exists() {
            return Over::Unit;
        }
        match self.dir.latest_run() {
            Ok(latest) if latest > self.run => Over::NextRun(self.run + 1),
            Ok(_) if self.dir.exit_file(self.run).exists() => Over::Run,
            _ => Over::No,
        }
    }

    fn enter(&mut self, number: u32) -> io::Result<()> {
        self.segment = number;
        self.begun.clear();
        match File::open(self.dir.segment(self.run, number)) {
            Ok(file) => self.file = Some(file),
            // Deleted between the look and now: the next look finds the gap.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.file = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn turn_to(&mut self, run: u32) {
        self.run = run;
        self.segment = 0;
        self.file = None;
        self.begun.clear();
    }

    fn lines(&mut self, block: &[u8]) -> Vec<LogLine> {
        let mut lines = Vec::new();
        let mut rest = block;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.begun.extend_from_slice(&rest[..end]);
            if let Some(line) = LogLine::parse(&self.begun, self.run) {
                self.last_at = line.at;
                if self.since.is_none_or(|since| line.at >= since) {
                    lines.push(line);
                }
            }
            self.begun.clear();
            rest = &rest[end + 1..];
        }
        self.begun.extend_from_slice(rest);
        lines
    }

    fn gap(&self) -> LogLine {
        LogLine {
            at: self.last_at,
            stream: Stream::Notice,
            text: "lines are missing here: the log was rotated away before it was read".to_owned(),
            is_partial: false,
            run: self.run,
        }
    }

    /// Places the cursor before the last `tail` lines that are there now.
    fn skip_to_tail(&mut self, tail: usize) -> io::Result<()> {
        let mut missing = tail;
        for number in self.dir.segments(self.run)?.into_iter().rev() {
            self.enter(number)?;
            let Some(file) = &mut self.file else {
                return Ok(());
            };
            match tail_offset(file, missing)? {
                Tail::At(offset) => {
                    file.seek(SeekFrom::Start(offset))?;
                    return Ok(());
                }
                Tail::Missing(more) => missing = more,
            }
            file.seek(SeekFrom::Start(0))?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Over {
    /// The run goes on.
    No,
    /// The run is over; another may follow.
    Run,
    NextRun(u32),
    /// The unit was removed.
    Unit,
}

enum Tail {
    At(u64),
    /// The file has fewer; so many are missing.
    Missing(usize),
}

/// Finds the last `tail` lines by reading backwards. A line begins behind the end of the line before it, so
/// that all its pieces come along.
fn tail_offset(file: &mut File, tail: usize) -> io::Result<Tail> {
    let mut ends = 0;
    // Where the record that is looked at ends; one without its line break is still being written.
    let mut behind = None;
    let mut position = file.seek(SeekFrom::End(0))?;
    let mut block = vec![0; BLOCK_BYTES];
    while position > 0 {
        let size = position.min(BLOCK_BYTES as u64);
        position -= size;
        let size = usize::try_from(size).unwrap_or(BLOCK_BYTES);
        file.read_exact_at(&mut block[..size], position)?;
        let breaks = (0..size).rev().filter(|&index| block[index] == b'\n');
        let first = (position == 0).then_some(0);
        for start in breaks.map(|index| index + 1).chain(first) {
            let tag = match block[..size].get(start + TAG_OFFSET) {
                Some(tag) => *tag,
                None => byte_at(file, position + (start + TAG_OFFSET) as u64)?,
            };
            match behind {
                Some(behind) if tag != b'P' && ends == tail => return Ok(Tail::At(behind)),
                Some(_) if tag != b'P' => ends += 1,
                _ => {}
            }
            behind = Some(position + start as u64);
        }
    }
    Ok(Tail::Missing(tail - ends))
}

/// The byte at that place; 0 behind the end.
fn byte_at(file: &File, place: u64) -> io::Result<u8> {
    let mut byte = [0];
    file.read_at(&mut byte, place)?;
    Ok(byte[0])
}

fn watch(dir: &UnitDir) -> io::Result<AsyncFd<OwnedFd>> {
    use inotify::{CreateFlags, WatchFlags};
    let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let what = WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF;
    inotify::add_watch(&queue, dir.runs(), what)?;
    disk::readiness(queue, tokio::io::Interest::READABLE)
}

/// Completes when something changed, or after a glance's time.
async fn wait(changes: Option<&AsyncFd<OwnedFd>>) {
    let Some(changes) = changes else {
        return tokio::time::sleep(GLANCE / 10).await;
    };
    if let Ok(Ok(mut ready)) = tokio::time::timeout(GLANCE, changes.readable()).await {
        // What changed does not matter: the queue is emptied and the log looked at.
        let mut unread = [0; 4096];
        while matches!(rustix::io::read(changes.get_ref(), &mut unread), Ok(count) if count > 0) {}
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn cursor(dir: &UnitDir) -> Cursor {
        Cursor {
            dir: dir.clone(),
            run: 1,
            segment: 0,
            file: None,
            begun: Vec::new(),
            since: None,
            does_follow: true,
            end: None,
            last_at: Timestamp::default(),
        }
    }

    #[test]
    fn who_does_not_follow_reads_what_was_there_and_no_more() {
        let (_home, dir) = home();
        fs::write(dir.segment(1, 1), record("one") + &record("two")).unwrap();
        let mut cursor = Cursor {
            does_follow: false,
            ..cursor(&dir)
        };
        cursor.end = Some(cursor.present_end().unwrap());
        // A flood: there is always more than was read.
        fs::write(
            dir.segment(1, 1),
            record("one") + &record("two") + &record("three"),
        )
        .unwrap();
        fs::write(dir.segment(1, 2), record("four")).unwrap();
        assert_eq!(all(&mut cursor), ["Stdout one", "Stdout two"]);
        assert!(matches!(cursor.look().unwrap(), Look::End));
    }

    fn record(text: &str) -> String {
        format!("2026-01-31T08:00:00.123Z stdout F {text}\n")
    }

    fn all(cursor: &mut Cursor) -> Vec<String> {
        let mut texts = Vec::new();
        while let Look::Lines(lines) = cursor.look().unwrap() {
            texts.extend(
                lines
                    .into_iter()
                    .map(|line| format!("{:?} {}", line.stream, line.text)),
            );
        }
        texts
    }

    fn home() -> (tempfile::TempDir, UnitDir) {
        let home = tempfile::tempdir().unwrap();
        let dir = UnitDir::at(home.path());
        fs::create_dir(dir.runs()).unwrap();
        fs::write(dir.unit_file(), "{}").unwrap();
        fs::write(dir.start_file(1), "{}").unwrap();
        (home, dir)
    }

    #[test]
    fn a_reader_that_falls_behind_gets_a_marked_gap() {
        let (_home, dir) = home();
        fs::write(dir.segment(1, 1), record("one")).unwrap();
        let mut cursor = cursor(&dir);
        assert_eq!(all(&mut cursor), ["Stdout one"]);
        fs::remove_file(dir.segment(1, 1)).unwrap();
        fs::write(dir.segment(1, 3), record("three")).unwrap();
        let rest = all(&mut cursor);
        assert!(rest[0].starts_with("Notice lines are missing"), "{rest:?}");
        assert_eq!(rest[1], "Stdout three");
    }

    #[test]
    fn a_record_that_is_half_written_is_read_once_it_is_whole() {
        use std::io::Write as _;
        let (_home, dir) = home();
        let record = record("whole");
        let (first, second) = record.split_at(30);
        fs::write(dir.segment(1, 1), first).unwrap();
        let mut cursor = cursor(&dir);
        assert!(all(&mut cursor).is_empty());
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(dir.segment(1, 1))
            .unwrap();
        file.write_all(second.as_bytes()).unwrap();
        assert_eq!(all(&mut cursor), ["Stdout whole"]);
    }

    #[test]
    fn the_tail_is_found_across_segments_and_blocks() {
        let (_home, dir) = home();
        for (segment, range) in [(1, 0..3000), (2, 3000..6000), (3, 6000..6002)] {
            let text: String = range.map(|number| record(&number.to_string())).collect();
            fs::write(dir.segment(1, segment), text).unwrap();
        }
        for tail in [0, 1, 2, 3, 2500, 3002, 3003, 6002, 9999] {
            let mut cursor = cursor(&dir);
            cursor.skip_to_tail(tail).unwrap();
            let kept = all(&mut cursor);
            assert_eq!(kept.len(), tail.min(6002), "tail {tail}");
            if tail > 0 {
                assert_eq!(kept.last().unwrap(), "Stdout 6001");
            }
        }
    }

    #[test]
    fn the_tail_counts_lines_and_brings_all_their_pieces() {
        let (_home, dir) = home();
        let long = "x".repeat(BLOCK_BYTES - 20);
        let piece = |text: &str| record(text).replace(" F ", " P ");
        let first = record("one") + &piece("2a");
        fs::write(dir.segment(1, 1), first).unwrap();
        let second = piece(&long) + &record("2c") + &record("three") + &piece("4a");
        fs::write(dir.segment(1, 2), second).unwrap();
        for (tail, count) in [(0, 1), (1, 2), (2, 5), (3, 6), (9, 6)] {
            let mut cursor = cursor(&dir);
            cursor.skip_to_tail(tail).unwrap();
            let kept = all(&mut cursor);
            assert_eq!(kept.len(), count, "tail {tail}");
            assert_eq!(kept.last().unwrap(), "Stdout 4a");
        }
    }
}
