//! An agent's lines in files, for contracts that promise them there beside stdout.
//!
//! ```text
//!   <dir>/agent.log      what is written now
//!   <dir>/agent.log.1    what was before it; .4 is the oldest that is kept
//! ```
//!
//! The directory belongs to one agent. A disk that takes nothing costs lines and stops nothing.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const NAME: &str = "agent.log";
const MOST_BYTES: u64 = 8 << 20;
const KEPT: u32 = 4;

#[derive(Debug)]
pub(super) struct LogFiles {
    dir: PathBuf,
    most: u64,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

impl LogFiles {
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            most: MOST_BYTES,
            open: Mutex::new(None),
        }
    }

    /// Appends a line.
    pub(super) fn write(&self, line: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.try_to_write(&mut open, line) {
            // The next line opens the file anew.
            *open = None;
            tracing::debug!(%error, dir = %self.dir.display(), "a line was not written to its file");
        }
    }

    fn try_to_write(&self, open: &mut Option<Open>, line: &str) -> io::Result<()> {
        if open.as_ref().is_some_and(|open| open.length >= self.most) {
            *open = None;
            self.rotate()?;
        }
        let now = match open {
            Some(now) => now,
            None => open.insert(self.begin()?),
        };
        // In one piece, so that a reader sees whole lines.
        let text = format!("{line}\n");
        now.file.write_all(text.as_bytes())?;
        now.length += text.len() as u64;
        Ok(())
    }

    fn begin(&self) -> io::Result<Open> {
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(NAME);
        let file = File::options().append(true).create(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(Open { file, length })
    }

    fn rotate(&self) -> io::Result<()> {
        let place = |number: u32| match number {
            0 => self.dir.join(NAME),
            number => self.dir.join(format!("{NAME}.{number}")),
        };
        for number in (0..KEPT).rev() {
            match fs::rename(place(number), place(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_and_the_oldest_go() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("logs");
        let files = LogFiles {
            most: 10,
            ..LogFiles::in_dir(&dir)
        };
        for number in 0..20 {
            files.write(&format!("line {number:02}"));
        }
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(text("agent.log"), "line 18\nline 19\n");
        assert_eq!(text("agent.log.1"), "line 16\nline 17\n");
        assert_eq!(text("agent.log.4"), "line 10\nline 11\n");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 5);
    }

    #[test]
    fn another_start_goes_on_in_the_same_file() {
        let home = tempfile::tempdir().unwrap();
        LogFiles::in_dir(home.path()).write("a");
        LogFiles::in_dir(home.path()).write("b");
        let text = fs::read_to_string(home.path().join(NAME)).unwrap();
        assert_eq!(text, "a\nb\n");
    }

    #[test]
    fn a_place_that_takes_nothing_stops_nothing() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        LogFiles::in_dir(&home.path().join("file")).write("a");
    }
}
