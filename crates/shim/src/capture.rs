//! What the unit writes becomes log records: split into lines, stamped, appended to the run's segments.
//!
//! The log never holds the unit up. A write that fails (a full disk, mostly) drops the lines of that write;
//! the next write that succeeds is preceded by a notice that says how many are missing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::str;

use crate::line::{MAX_LINE, Stream};
use crate::record::UnitDir;

/// A segment is closed once it is this long.
const SEGMENT_BYTES: u64 = 8 << 20;
/// So many segments of a run are kept, the open one among them.
const SEGMENTS_KEPT: u32 = 4;

/// The log of one run.
pub(super) struct Capture {
    dir: UnitDir,
    run: u32,
    /// The number of the open segment, from 1.
    number: u32,
    file: Option<File>,
    length: u64,
    segment_bytes: u64,
    /// Begun lines, of stdout and stderr.
    begun: [Vec<u8>; 2],
    /// Records on their way to the file.
    records: Vec<u8>,
    lines: u64,
    lost: u64,
}

impl Capture {
    pub(super) fn new(dir: &UnitDir, run: u32) -> Self {
        Self::with_segments(dir, run, SEGMENT_BYTES)
    }

    fn with_segments(dir: &UnitDir, run: u32, segment_bytes: u64) -> Self {
        let mut capture = Self {
            dir: dir.clone(),
            run,
            number: 1,
            file: None,
            length: 0,
            segment_bytes,
            begun: [Vec::new(), Vec::new()],
            records: Vec::new(),
            lines: 0,
            lost: 0,
        };
        // A log that cannot be opened now is tried again with the first line.
        let _ = capture.open();
        capture
    }

    /// Takes bytes as they come, at the moment `stamp`.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8], stamp: &str) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.append(stream, &rest[..end], stamp);
            self.end_line(stream, stamp);
            rest = &rest[end + 1..];
        }
        self.append(stream, rest, stamp);
        self.flush(stamp);
    }

    /// The unit will write no more: a line without its end is a line.
    pub(super) fn finish(&mut self, stamp: &str) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.begun[index(stream)].is_empty() {
                self.end_line(stream, stamp);
            }
        }
        self.flush(stamp);
    }

    fn append(&mut self, stream: Stream, mut bytes: &[u8], stamp: &str) {
        loop {
            let room = MAX_LINE - self.begun[index(stream)].len();
            if bytes.len() <= room {
                return self.begun[index(stream)].extend_from_slice(bytes);
            }
            let begun = &mut self.begun[index(stream)];
            begun.extend_from_slice(&bytes[..room]);
            let carried = begun.split_off(whole_characters(begun));
            self.record(stream, 'P', stamp);
            self.begun[index(stream)] = carried;
            bytes = &bytes[room..];
        }
    }

    fn end_line(&mut self, stream: Stream, stamp: &str) {
        self.record(stream, 'F', stamp);
    }

    fn record(&mut self, stream: Stream, tag: char, stamp: &str) {
        let text = &mut self.begun[index(stream)];
        let head = [stamp.as_bytes(), b" ", stream.as_str().as_bytes(), b" "];
        for part in head {
            self.records.extend_from_slice(part);
        }
        self.records.push(tag as u8);
        self.records.push(b' ');
        self.records.append(text);
        self.records.push(b'\n');
        self.lines += 1;
    }

    fn flush(&mut self, stamp: &str) {
        if self.records.is_empty() {
            return;
        }
        match self.write(stamp) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += self.lines,
        }
        self.records.clear();
        self.lines = 0;
    }

    fn write(&mut self, stamp: &str) -> io::Result<()> {
        if self.file.is_none() || self.length >= self.segment_bytes {
            self.turn()?;
        }
        let Some(file) = &self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut written = 0;
        if self.lost > 0 {
            let notice = format!(
                "{stamp} notice F {} lines could not be written\n",
                self.lost
            );
            written += write_or_undo(file, notice.as_bytes(), self.length)?;
        }
        // A notice without the lines behind it would be said again, so both are undone together.
        written += write_or_undo(file, &self.records, self.length)?;
        self.length += written;
        Ok(())
    }

    /// Closes the full segment and opens the next; drops the oldest.
    fn turn(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            self.number += 1;
            self.file = None;
            if let Some(oldest) = self.number.checked_sub(SEGMENTS_KEPT) {
                let _ = fs::remove_file(self.dir.segment(self.run, oldest));
            }
        }
        self.open()
    }

    fn open(&mut self) -> io::Result<()> {
        let path = self.dir.segment(self.run, self.number);
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path)?;
        self.length = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }
}

/// Appends all, or cuts the file back to `undo_to` so that no torn record stays.
fn write_or_undo(file: &File, bytes: &[u8], undo_to: u64) -> io::Result<u64> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(file, rest) {
            Ok(count) if count > 0 => rest = &rest[count..],
            Err(rustix::io::Errno::INTR) => {}
            failed => {
                let _ = file.set_len(undo_to);
                return Err(failed.err().unwrap_or(rustix::io::Errno::IO).into());
            }
        }
    }
    Ok(bytes.len() as u64)
}

/// Up to where a line is cut, so that no character is: before one that has only begun at its end.
fn whole_characters(line: &[u8]) -> usize {
    let is_begun = |tail: &usize| {
        let tail = line.get(line.len().wrapping_sub(*tail)..);
        let read = tail.map(str::from_utf8);
        read.is_some_and(|it| it.is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none()))
    };
    line.len() - (1..4).find(is_begun).unwrap_or(0)
}

const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stderr => 1,
        Stream::Stdout | Stream::Notice => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(segment_bytes: u64) -> (tempfile::TempDir, Capture) {
        let home = tempfile::tempdir().unwrap();
        let dir = UnitDir::at(home.path());
        fs::create_dir(dir.runs()).unwrap();
        let capture = Capture::with_segments(&dir, 1, segment_bytes);
        (home, capture)
    }

    fn text(capture: &Capture, number: u32) -> String {
        fs::read_to_string(capture.dir.segment(1, number)).unwrap()
    }

    #[test]
    fn lines_are_joined_across_reads_and_streams_are_kept_apart() {
        let (_home, mut capture) = fresh(1 << 20);
        capture.take(Stream::Stdout, b"one\ntw", "T1");
        capture.take(Stream::Stderr, b"oops\n", "T2");
        capture.take(Stream::Stdout, b"o\n\nlast", "T3");
        capture.finish("T4");
        let expected =
            "T1 stdout F one\nT2 stderr F oops\nT3 stdout F two\nT3 stdout F \nT4 stdout F last\n";
        assert_eq!(text(&capture, 1), expected);
    }

    #[test]
    fn a_line_longer_than_the_most_is_split_and_marked() {
        let (_home, mut capture) = fresh(1 << 20);
        let line = [vec![b'x'; MAX_LINE + 10], b"\n".to_vec()].concat();
        capture.take(Stream::Stdout, &line, "T");
        let text = text(&capture, 1);
        let records: Vec<&str> = text.lines().collect();
        assert_eq!(records.len(), 2);
        assert!(records[0].starts_with("T stdout P x") && records[1] == "T stdout F xxxxxxxxxx");
    }

    #[test]
    fn a_long_line_is_cut_between_its_characters() {
        for (character, offset) in [("é", 1), ("€", 0), ("€", 1), ("€", 2), ("🐎", 1), ("🐎", 3)]
        {
            let (_home, mut capture) = fresh(1 << 20);
            let line = "x".repeat(offset) + &character.repeat(MAX_LINE);
            for bytes in line.as_bytes().chunks(1000) {
                capture.take(Stream::Stdout, bytes, "T");
            }
            capture.finish("T");
            let text = text(&capture, 1);
            let parts = text.lines().map(|record| &record["T stdout P ".len()..]);
            assert!(parts.clone().all(|part| part.len() <= MAX_LINE));
            assert_eq!(parts.clone().count(), line.len().div_ceil(MAX_LINE - 3));
            assert!(parts.collect::<String>() == line, "{offset} {character}");
        }
    }

    #[test]
    fn bytes_that_begin_no_character_are_cut_where_they_are() {
        for end in [
            &b"\x80\x80\x80"[..],
            b"\xff",
            b"\xe2\x28",
            b"\xf0\x9f\x90\x8e",
            b"x",
        ] {
            let line = [vec![b'x'; MAX_LINE - end.len()], end.to_vec()].concat();
            assert_eq!(whole_characters(&line), MAX_LINE, "{end:?}");
        }
        for (begun, whole) in [(&b"\xe2\x82"[..], 0), (b"x\xf0\x9f\x90", 1), (b"\x80", 1)] {
            assert_eq!(whole_characters(begun), whole, "{begun:?}");
        }
        assert_eq!(whole_characters(b""), 0);
    }

    #[test]
    fn full_segments_are_closed_and_only_the_last_few_are_kept() {
        let (_home, mut capture) = fresh(64);
        for number in 0..40 {
            capture.take(
                Stream::Stdout,
                format!("line {number} of many\n").as_bytes(),
                "T",
            );
        }
        let kept = capture.dir.segments(1).unwrap();
        assert_eq!(kept.len(), usize::try_from(SEGMENTS_KEPT).unwrap());
        assert!(text(&capture, *kept.last().unwrap()).contains("line 39"));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_the_gap_is_marked() {
        let (_home, mut capture) = fresh(1 << 20);
        capture.take(Stream::Stdout, b"before\n", "T");
        // A device that is always full stands in for a full disk.
        let kept = capture
            .file
            .replace(File::options().append(true).open("/dev/full").unwrap());
        capture.take(Stream::Stdout, b"lost\nlost too\n", "T");
        capture.file = kept;
        capture.take(Stream::Stdout, b"after\n", "T");
        let expected =
            "T stdout F before\nT notice F 2 lines could not be written\nT stdout F after\n";
        assert_eq!(text(&capture, 1), expected);
    }
}
