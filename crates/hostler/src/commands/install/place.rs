//! The machine that is installed on: its files and its tools.
//!
//! Files are replaced whole: written beside, synced, moved into place. What is there already stays untouched, and so
//! doing it again changes nothing. `HOSTLER_INSTALL_ROOT` moves all of it below another folder, tools included: a test
//! with a folder of its own can never reach the machine's service manager.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::failure::Failure;
use crate::settings::Environment;

/// systemd itself gives a unit 90 s to start and half a minute to stop.
const PATIENCE: Duration = Duration::from_secs(180);
const TOOLS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) struct Place {
    root: PathBuf,
    /// Where tools are looked for.
    path: String,
}

/// How a tool ended.
pub(super) struct Ended {
    pub(super) is_good: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A file that is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) path: String,
    pub(super) text: String,
    pub(super) mode: u32,
    /// Whose it is and who may read it is left as it is found.
    is_theirs: bool,
}

impl Put {
    pub(super) fn new(path: impl Into<String>, text: impl Into<String>, mode: u32) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
            mode,
            is_theirs: false,
        }
    }

    /// Settings, which a person may have given another owner and mode.
    pub(super) fn settings(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            is_theirs: true,
            ..Self::new(path, text, 0o644)
        }
    }
}

impl Place {
    /// Only root installs, and only where systemd runs.
    pub(super) fn of(environment: &Environment) -> Result<Self, Failure> {
        let root = environment.get("HOSTLER_INSTALL_ROOT").map(PathBuf::from);
        let place = match root {
            Some(root) => {
                let tools = ["usr/sbin", "usr/bin"].map(|dir| root.join(dir).display().to_string());
                Self {
                    path: tools.join(":"),
                    root,
                }
            }
            None if !environment.is_root => {
                return Err(Failure::failed(
                    "only root can change the services of a machine",
                    "run it with sudo",
                ));
            }
            None => Self {
                path: environment.get("PATH").unwrap_or(TOOLS).to_owned(),
                root: PathBuf::from("/"),
            },
        };
        if place.at("/run/systemd/system").is_dir() {
            return Ok(place);
        }
        Err(Failure::failed(
            "this machine does not run systemd",
            "let its own service manager run `hostler server` or `hostler agent`; docs/guide/install.md says what to mind",
        ))
    }

    /// Where a file of the machine is.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok()
    }

    /// What the file says; nothing if it is not there.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>, Failure> {
        match fs::read_to_string(self.at(path)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot("read", path, &error)),
        }
    }

    pub(super) fn make_dir(&self, path: &str, mode: u32) -> Result<(), Failure> {
        let dir = self.at(path);
        if dir.is_dir() {
            return Ok(());
        }
        let made = fs::create_dir_all(&dir)
            .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)));
        made.map_err(|error| cannot("make the directory", path, &error))
    }

    /// Whether anything was changed by it.
    pub(super) fn put(&self, file: &Put) -> Result<bool, Failure> {
        self.put_checked(file, |_| Ok(()))
    }

    /// The same; whoever checks sees the file beside its place, and a refusal leaves nothing of it.
    pub(super) fn put_checked(
        &self,
        file: &Put,
        check: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let path = self.at(&file.path);
        let beside = beside(&path);
        let failed = |error: io::Error| cannot("write", &file.path, &error);
        let dir = dir_of(&path);
        fs::create_dir_all(dir).map_err(failed)?;
        let about = fs::metadata(&path).ok();
        let before = about.as_ref().map(|it| it.permissions().mode() & 0o777);
        let mode = before.filter(|_| file.is_theirs).unwrap_or(file.mode);
        let is_there = fs::read(&path).is_ok_and(|there| there == file.text.as_bytes());
        if is_there && before == Some(mode) {
            return check(&path).map(|()| false);
        }
        let own = |about: &fs::Metadata| chown(&beside, Some(about.uid()), Some(about.gid()));
        let own = |()| {
            about
                .as_ref()
                .filter(|_| file.is_theirs)
                .map_or(Ok(()), own)
        };
        let written = write(&beside, &mut file.text.as_bytes(), mode)
            .and_then(own)
            .map_err(failed)
            .and_then(|()| check(&beside))
            .and_then(|()| fs::rename(&beside, &path).map_err(failed))
            .and_then(|()| sync(dir).map_err(failed));
        if written.is_err() {
            // Both fail where there is nothing of ours.
            let _ = fs::remove_file(&beside);
            let _ = fs::remove_dir(dir);
        }
        written.map(|()| true)
    }

    /// Puts a program into its place, which is at no moment empty; the one before stays as `.previous`. Shims and
    /// agents that run the old one go on with it. Answers whether anything was changed.
    pub(super) fn put_program(&self, from: &Path, to: &str) -> Result<bool, Failure> {
        let path = self.at(to);
        let failed = |error: io::Error| cannot("install", to, &error);
        if is_same(from, &path).map_err(failed)? {
            return Ok(false);
        }
        let dir = dir_of(&path);
        fs::create_dir_all(dir).map_err(failed)?;
        let beside = beside(&path);
        let placed = fs::File::open(from)
            .and_then(|mut program| write(&beside, &mut program, 0o755))
            .and_then(|()| keep_previous(&path))
            .and_then(|()| fs::rename(&beside, &path))
            .and_then(|()| sync(dir));
        if placed.is_err() {
            let _ = fs::remove_file(&beside);
        }
        placed.map_err(failed).map(|()| true)
    }

    /// A link of that name to a program beside it.
    pub(super) fn link(&self, at: &str, to: &str) -> Result<bool, Failure> {
        let path = self.at(at);
        let failed = |error: io::Error| cannot("make the link", at, &error);
        if fs::read_link(&path).is_ok_and(|there| there == Path::new(to)) {
            return Ok(false);
        }
        let dir = dir_of(&path);
        fs::create_dir_all(dir).map_err(failed)?;
        let beside = beside(&path);
        let _ = fs::remove_file(&beside);
        std::os::unix::fs::symlink(to, &beside)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(failed)?;
        Ok(true)
    }

    /// Deletes a file, or a directory with all that is in it; what is not there is gone already.
    pub(super) fn remove(&self, path: &str) -> Result<(), Failure> {
        let at = self.at(path);
        let removed = match fs::symlink_metadata(&at) {
            Ok(it) if it.is_dir() => fs::remove_dir_all(&at),
            Ok(_) => fs::remove_file(&at),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(cannot("remove", path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Runs a tool of the machine, and reads what it says as text.
    pub(super) async fn tool(&self, name: &str, words: &[&str]) -> Result<Ended, Failure> {
        let output = self.output(name, words, None).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Ok(Ended {
            is_good: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    /// Runs a tool of the machine on that input. What it says is nobody's text but its own.
    pub(super) async fn output(
        &self,
        name: &str,
        words: &[&str],
        input: Option<&[u8]>,
    ) -> Result<Output, Failure> {
        let failed = |error: io::Error| {
            let advice = format!("see that there is a program `{name}`, then do it again");
            Failure::failed(format!("cannot run {name}: {error}"), advice)
        };
        let program = std::env::split_paths(&self.path)
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
            .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let mut command = Command::new(program);
        command
            .args(words)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let run = async {
            if let (Some(mut stdin), Some(bytes)) = (child.stdin.take(), input) {
                stdin.write_all(bytes).await?;
            }
            child.wait_with_output().await
        };
        match tokio::time::timeout(PATIENCE, run).await {
            Ok(output) => output.map_err(failed),
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }
}

fn cannot(what: &str, path: &str, error: &io::Error) -> Failure {
    Failure::failed(
        format!("cannot {what} {path}: {error}"),
        "look at the disk and its rights, then do it again: nothing that is done is done twice",
    )
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Hidden, so that nothing that reads whole directories takes it for a file of its own.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn write(path: &Path, from: &mut impl io::Read, mode: u32) -> io::Result<()> {
    // What an earlier try left may have another mode.
    let _ = fs::remove_file(path);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    io::copy(from, &mut file)?;
    file.flush()?;
    // The process may mask the mode that it asked for.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// A second name for the file, not a new name: what runs from it is still found under the old one.
fn keep_previous(path: &Path) -> io::Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let previous = path.with_file_name(format!("{name}.previous"));
    let beside = beside(&previous);
    let _ = fs::remove_file(&beside);
    fs::hard_link(path, &beside).or_else(|_| fs::copy(path, &beside).map(drop))?;
    fs::rename(&beside, &previous)
}

/// Whether both names lead to one file.
pub(super) fn is_one(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino()));
    matches!((of(one), of(other)), (Ok(one), Ok(other)) if one == other)
}

fn is_same(from: &Path, to: &Path) -> io::Result<bool> {
    let size = |path: &Path| fs::metadata(path).map(|it| it.len());
    if size(to).ok() != Some(size(from)?) {
        return Ok(false);
    }
    Ok(fs::read(from)? == fs::read(to)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(root: &Path) -> Place {
        Place {
            root: root.to_owned(),
            path: root.join("usr/bin").display().to_string(),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_written_once_and_with_its_mode() {
        let home = tempfile::tempdir().unwrap();
        let place = place(home.path());
        let secret = Put::new("/etc/hostler/agent.token", "secret\n", 0o600);
        assert!(place.put(&secret).unwrap());
        assert_eq!(mode(&place.at(&secret.path)), 0o600);
        assert!(!place.put(&secret).unwrap());
        fs::set_permissions(place.at(&secret.path), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(place.put(&secret).unwrap());
        assert_eq!(mode(&place.at(&secret.path)), 0o600);
        assert_eq!(fs::read_dir(place.at("/etc/hostler")).unwrap().count(), 1);
    }

    #[test]
    fn settings_stay_readable_for_whom_they_were() {
        let home = tempfile::tempdir().unwrap();
        let place = place(home.path());
        let path = "/etc/hostler/agent.toml";
        place.put(&Put::settings(path, "a")).unwrap();
        assert_eq!(mode(&place.at(path)), 0o644);
        fs::set_permissions(place.at(path), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(!place.put(&Put::settings(path, "a")).unwrap());
        assert!(place.put(&Put::settings(path, "b")).unwrap());
        assert_eq!(mode(&place.at(path)), 0o640);
    }

    #[test]
    fn what_is_refused_leaves_what_was_there() {
        let home = tempfile::tempdir().unwrap();
        let place = place(home.path());
        let refuse = |_: &Path| Err(Failure::usage("no", ""));
        let file = Put::new("/etc/hostler/server.toml", "new", 0o644);
        place.put_checked(&file, refuse).unwrap_err();
        assert!(!place.has("/etc/hostler"));
        place
            .put(&Put::new(file.path.clone(), "old", 0o644))
            .unwrap();
        place.put_checked(&file, refuse).unwrap_err();
        assert_eq!(place.read(&file.path).unwrap().as_deref(), Some("old"));
        assert_eq!(fs::read_dir(place.at("/etc/hostler")).unwrap().count(), 1);
    }

    #[test]
    fn a_program_is_replaced_while_it_runs_and_the_old_one_kept() {
        let home = tempfile::tempdir().unwrap();
        let place = place(home.path());
        let to = "/usr/local/bin/tool";
        assert!(place.put_program(Path::new("/bin/sleep"), to).unwrap());
        assert!(!place.put_program(Path::new("/bin/sleep"), to).unwrap());
        let mut command = std::process::Command::new(place.at(to));
        command.arg("600");
        let mut running = loop {
            // Another test that starts a child at this moment holds the new file open for writing.
            match command.spawn() {
                Ok(running) => break running,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy),
            }
        };
        assert!(place.put_program(Path::new("/bin/true"), to).unwrap());
        let link = fs::read_link(format!("/proc/{}/exe", running.id())).unwrap();
        assert!(running.try_wait().unwrap().is_none());
        running.kill().unwrap();
        running.wait().unwrap();
        // It is still the process of that name, which `spot-agent shutdown` looks at.
        let name = link.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(name, "tool (deleted)");
        let same = |name: &str, as_: &str| {
            fs::read(place.at(&format!("/usr/local/bin/{name}"))).unwrap() == fs::read(as_).unwrap()
        };
        assert!(same("tool", "/bin/true") && same("tool.previous", "/bin/sleep"));
        assert_eq!(fs::read_dir(place.at("/usr/local/bin")).unwrap().count(), 2);
    }
}
