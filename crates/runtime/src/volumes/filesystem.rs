//! File systems on disks and image files: formatted when blank, mounted, unmounted. Each step may be repeated.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::tool::{Call, Tools, Trouble};

/// How `blkid` ends where it finds nothing, and also where it cannot read.
const NOTHING: i32 = 2;
/// So much of a disk has to be zeros before it counts as blank.
const START: u64 = 1 << 20;
/// What a file system has before anybody has written to it.
const LOST_AND_FOUND: &str = "lost+found";

pub(super) fn look_call(disk: &Path) -> Call {
    Call::new("blkid").args(["-p", "-o", "export"]).arg(disk)
}

pub(super) fn format_call(disk: &Path, fs: &str) -> Call {
    let force: &[&str] = match fs {
        // It asks before it formats a file.
        "ext4" => &["-q", "-F"],
        _ => &["-q"],
    };
    Call::new(format!("mkfs.{fs}"))
        .args(force.iter().copied())
        .arg(disk)
}

pub(super) fn mount_call(fs: &str, options: &str, source: impl AsRef<OsStr>, at: &Path) -> Call {
    let call = Call::new("mount").args(["-t", fs]);
    let call = if options.is_empty() {
        call
    } else {
        call.args(["-o", options])
    };
    call.arg(source).arg(at)
}

/// The file system on the disk; a blank one is formatted.
pub(super) async fn ensure(tools: &Tools, disk: &Path, usual: &str) -> Result<String, Trouble> {
    if let Some(found) = look(tools, disk).await? {
        return Ok(found);
    }
    let read = disk.to_owned();
    let is_blank = tools
        .files("read the disk", move || is_blank(&read))
        .await?;
    if !is_blank {
        return Err(Trouble::Unfit(format!(
            "{} has no file system that is known, and is not blank",
            disk.display()
        )));
    }
    tools.run(&format_call(disk, usual)).await?;
    Ok(usual.to_owned())
}

/// Whether its beginning can be read, and nothing has been written there.
fn is_blank(disk: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    fs::File::open(disk)?.take(START).read_to_end(&mut start)?;
    Ok(!start.is_empty() && start.iter().all(|byte| *byte == 0))
}

/// The file system on the disk; none if nothing is found there. What is found to be anything else is an error.
async fn look(tools: &Tools, disk: &Path) -> Result<Option<String>, Trouble> {
    let call = look_call(disk);
    let answer = tools.ask(&call).await?;
    if answer.code() == Some(NOTHING) {
        return Ok(None);
    }
    if !answer.is_success() {
        return Err(answer.trouble(&call));
    }
    let mut lines = answer.output.lines();
    match lines.find_map(|line| line.strip_prefix("TYPE=")) {
        Some(fs) => Ok(Some(fs.trim().to_owned())),
        None => Err(Trouble::Failed {
            call: call.to_string(),
            said: "it holds something that is no file system".to_owned(),
        }),
    }
}

/// Mounts, unless that is done already.
pub(super) async fn mount(tools: &Tools, call: &Call, at: &Path) -> Result<(), Trouble> {
    // First: a look at what is mounted from a server that hangs would not end.
    if tools.is_mounted(at)? {
        return Ok(());
    }
    let dir = at.to_owned();
    tools
        .files("make the mount point", move || make_dir(&dir))
        .await?;
    tools.run(call).await.map(drop)
}

/// Unmounts what is mounted there, and removes the mount point.
pub(super) async fn unmount(tools: &Tools, at: &Path) -> Result<(), Trouble> {
    unmount_if_mounted(tools, at).await?;
    Ok(absent_is_fine(fs::remove_dir(at))?)
}

/// Unmounts what is mounted there. A server that hangs cannot hold it back.
pub(super) async fn unmount_if_mounted(tools: &Tools, at: &Path) -> Result<(), Trouble> {
    // A crash may have left one mount over another.
    const LAYERS: usize = 4;
    for _ in 0..LAYERS {
        if !tools.is_mounted(at)? {
            break;
        }
        match tools.run(&Call::new("umount").arg(at)).await {
            Err(Trouble::TimedOut { .. }) => {
                tracing::warn!(at = %at.display(), "unmounting hangs; the mount is taken out of the way");
                let force = Call::new("umount").args(["-f", "-l"]).arg(at);
                tools.run(&force).await?;
            }
            done => done.map(drop)?,
        }
    }
    Ok(())
}

/// Whoever gets the volume may write to it, whatever user that is; nobody else gets through to it. What somebody has
/// arranged stays.
pub(super) async fn open_to_all(tools: &Tools, dir: PathBuf) -> Result<(), Trouble> {
    tools
        .files("open the volume", move || {
            for entry in fs::read_dir(&dir)? {
                if entry?.file_name() != LOST_AND_FOUND {
                    return Ok(());
                }
            }
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))
        })
        .await
}

/// What is gone already need not be removed.
pub(super) fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A directory that only the agent's user may enter.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Makes the file of a disk, or lets it grow; it takes no room before it is written to. Answers whether it made it.
pub(super) fn make_image(file: &Path, size: u64) -> io::Result<bool> {
    let is_new = !file.try_exists()?;
    let mut options = fs::OpenOptions::new();
    let image = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(file)?;
    image.set_permissions(fs::Permissions::from_mode(0o600))?;
    if image.metadata()?.len() < size {
        image.set_len(size)?;
    }
    image.sync_all()?;
    Ok(is_new)
}
