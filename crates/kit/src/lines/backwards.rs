//! The lines of a series, from the newest back, in pieces, so that no file lies in memory as a whole.
//!
//! Reads beside the thread that writes: what is begun and not ended in the newest file is no line yet, and what that
//! thread takes back of a write that failed is gone. A file that goes while it is read is over. What can fail is the disk.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{numbers, path};

/// Bytes of one look at the disk.
const PIECE: u64 = 64 << 10;
/// Of a line that is longer no more than this is shown.
const LONGEST: usize = 64 << 10;

/// Where a line begins. Lines that stay are not moved, so that a place stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    file: u64,
    byte: u64,
}

/// A reader, on its way back.
pub struct Backwards {
    dir: PathBuf,
    name: &'static str,
    /// The files that are still to be read, the newest first.
    rest: VecDeque<u64>,
    from: Option<Place>,
    /// The file that may grow.
    newest: Option<u64>,
    open: Option<Open>,
}

struct Open {
    file: File,
    number: u64,
    /// Where what is held begins.
    start: u64,
    /// What was read and not told. The only break that it ends with is that of its last line.
    held: Vec<u8>,
    /// Whether what is read next may end in the middle of a line, which is then none.
    is_ragged: bool,
}

impl Backwards {
    /// The lines before that place, or all.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn open(dir: &Path, name: &'static str, from: Option<Place>) -> io::Result<Self> {
        let mut rest = numbers(dir, name)?;
        let newest = rest.iter().copied().max();
        rest.retain(|number| from.is_none_or(|from| *number <= from.file));
        rest.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Self {
            dir: dir.to_owned(),
            name,
            rest: rest.into(),
            from,
            newest,
            open: None,
        })
    }

    /// The next older line without its break, and where it begins.
    ///
    /// # Errors
    /// The disk fails.
    pub fn line(&mut self) -> io::Result<Option<(Place, Vec<u8>)>> {
        loop {
            let Some(open) = &mut self.open else {
                match self.rest.pop_front() {
                    Some(number) => self.begin(number)?,
                    None => return Ok(None),
                }
                continue;
            };
            if let Some((byte, line)) = open.line()? {
                let file = open.number;
                return Ok(Some((Place { file, byte }, line)));
            }
            self.open = None;
        }
    }

    fn begin(&mut self, number: u64) -> io::Result<()> {
        let file = match File::open(path(&self.dir, self.name, number)) {
            Ok(file) => file,
            // It was the oldest, and there is no room for it any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let from = self.from.filter(|from| from.file == number);
        self.open = Some(Open {
            file,
            number,
            start: from.map_or(length, |from| from.byte.min(length)),
            held: Vec::new(),
            is_ragged: self.newest == Some(number),
        });
        Ok(())
    }
}

impl Open {
    fn line(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            let before = self.held.len().saturating_sub(1);
            let line_break = self.held[..before].iter().rposition(|byte| *byte == b'\n');
            let begins = match line_break {
                Some(at) => at + 1,
                None if self.start > 0 => {
                    self.read()?;
                    continue;
                }
                None if self.held.is_empty() => return Ok(None),
                None => 0,
            };
            let mut line = self.held.split_off(begins);
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            line.truncate(LONGEST);
            return Ok(Some((self.start + begins as u64, line)));
        }
    }

    /// Holds one piece more. What is held has no line that is whole.
    fn read(&mut self) -> io::Result<()> {
        let length = self.start.min(PIECE);
        self.start -= length;
        let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
        let filled = fill(&self.file, &mut piece, self.start)?;
        if filled < piece.len() {
            // The file ends here by now, and what was held is no more.
            piece.truncate(filled);
            self.held.clear();
            self.is_ragged = true;
        }
        if self.is_ragged {
            let line_break = piece.iter().rposition(|byte| *byte == b'\n');
            piece.truncate(line_break.map_or(0, |at| at + 1));
            self.is_ragged = line_break.is_none();
        }
        self.held.truncate(LONGEST);
        piece.append(&mut self.held);
        self.held = piece;
        Ok(())
    }
}

/// As much of the piece as the file has from there on.
fn fill(file: &File, piece: &mut [u8], from: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match file.read_at(&mut piece[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.file, self.byte)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (file, byte) = text.split_once('.').ok_or(())?;
        Ok(Self {
            file: file.parse().map_err(drop)?,
            byte: byte.parse().map_err(drop)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn all(dir: &Path, from: Option<Place>) -> Vec<(Place, String)> {
        rest(Backwards::open(dir, "x", from).unwrap())
    }

    fn rest(mut lines: Backwards) -> Vec<(Place, String)> {
        let mut found = Vec::new();
        while let Some((place, line)) = lines.line().unwrap() {
            found.push((place, String::from_utf8(line).unwrap()));
        }
        found
    }

    #[test]
    fn lines_come_from_the_newest_back_over_all_files_and_go_on_from_any_place() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(dir.path(), None), []);
        // Lines of every length around a piece's end, one of several pieces, and an empty one.
        let lengths = [1, 65_533, 65_534, 65_535, 65_536, 30];
        let mut lines = lengths.map(|length| "z".repeat(length)).to_vec();
        lines.extend([String::new(), "y".repeat(3 * LONGEST), "last".to_owned()]);
        let (old, new) = lines.split_at(3);
        fs::write(dir.path().join("x-00000009.jsonl"), old.join("\n") + "\n").unwrap();
        fs::write(dir.path().join("x-00000010.jsonl"), new.join("\n") + "\n").unwrap();
        fs::write(dir.path().join("other-00000011.jsonl"), "other\n").unwrap();
        let found = all(dir.path(), None);
        assert_eq!(found.len(), lines.len());
        for ((_, told), line) in found.iter().rev().zip(&lines) {
            // Of what is too long, the beginning is told.
            let is_same = *told == line[..line.len().min(LONGEST)];
            assert!(is_same, "{} of {}", told.len(), line.len());
        }
        for (index, (place, _)) in found.iter().enumerate() {
            let place: Place = place.to_string().parse().unwrap();
            assert!(
                all(dir.path(), Some(place)) == found[index + 1..],
                "{place}"
            );
        }
        // A place in a file that is gone leads to what is older.
        fs::remove_file(dir.path().join("x-00000010.jsonl")).unwrap();
        assert!(all(dir.path(), Some(found[0].0)) == found[lines.len() - 3..]);
        for text in ["", "1", "1.", ".1", "a.1", "-1.2", "1.2.3"] {
            assert_eq!(text.parse::<Place>(), Err(()), "{text}");
        }
    }

    fn texts(found: Vec<(Place, String)>) -> Vec<String> {
        found.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_line_on_its_way_is_none_yet_and_half_a_line_that_stays_is_one() {
        let dir = tempfile::tempdir().unwrap();
        for half in ["", "half", &"z".repeat(2 * LONGEST + 7)] {
            fs::write(dir.path().join("x-00000001.jsonl"), "one\nkilled").unwrap();
            let newest = format!("two\nthree\n{half}");
            fs::write(dir.path().join("x-00000002.jsonl"), newest).unwrap();
            let told = texts(all(dir.path(), None));
            assert_eq!(told, ["three", "two", "killed", "one"], "{}", half.len());
        }
        fs::write(dir.path().join("x-00000003.jsonl"), "alone").unwrap();
        assert_eq!(all(dir.path(), None).len(), 5);
    }

    #[test]
    fn a_file_that_becomes_shorter_ends_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-00000001.jsonl");
        let text = format!("one\ntwo\n{}\nlast\n", "z".repeat(2 * LONGEST));
        // Where another line ends, and where one was begun.
        for length in [8, 18] {
            fs::write(&path, &text).unwrap();
            let mut lines = Backwards::open(dir.path(), "x", None).unwrap();
            let (_, last) = lines.line().unwrap().unwrap();
            assert_eq!(last, b"last");
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(length).unwrap();
            assert_eq!(texts(rest(lines)), ["two", "one"], "{length}");
        }
    }
}
