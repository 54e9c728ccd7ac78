//! `qemu-img`: everything that is done to an image or a disk is done by this tool. One call, one process, which is
//! killed if nobody waits for it any more.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};

use hostler_model::FailureCode;
use hostler_model::spec::DiskFormat;
use serde::Deserialize;
use tokio::process::Command;

use super::images::refused;
use crate::{RuntimeError, disk};

/// Exit codes of `check`: the image has errors beyond unused clusters; its format has nothing to check.
const CHECK_ERRORS: i32 = 2;
/// Less than this is a full disk.
const ROOM: u64 = 1 << 20;
/// Most of what it says that is told further.
const SAID: usize = 600;

/// The tool.
#[derive(Debug, Clone)]
pub(super) struct QemuImg {
    program: String,
}

/// What it says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Info {
    pub(super) format: String,
    #[serde(rename = "virtual-size")]
    pub(super) size: u64,
}

pub(super) const fn word(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Raw => "raw",
    }
}

impl QemuImg {
    pub(super) fn new(program: String) -> Self {
        Self { program }
    }

    /// What kind of image it is and how large, and that it is whole. `code` is for one that is not.
    pub(super) async fn examine(
        &self,
        file: &Path,
        format: Option<DiskFormat>,
        code: FailureCode,
    ) -> Result<Info, RuntimeError> {
        let broken = |output: &Output| {
            let message = format!("{} is damaged: {}", file.display(), said(output));
            refused(code, message)
        };
        let of = format.map(word).map(|format| ["-f", format]);
        let of = of.iter().flatten().map(OsStr::new);
        // Shared: another machine may run from it.
        let info: Vec<&OsStr> = ["info", "-U", "--output=json"].map(OsStr::new).into();
        let info = info.into_iter().chain(of.clone()).chain([file.as_os_str()]);
        let output = self.output(info).await?;
        if !output.status.success() {
            return Err(broken(&output));
        }
        let info: Info = serde_json::from_slice(&output.stdout)
            .map_err(|error| disk::error("read what qemu-img says", error.into()))?;
        let check: Vec<&OsStr> = ["check", "-U", "-q"].map(OsStr::new).into();
        let check = check.into_iter().chain(of).chain([file.as_os_str()]);
        let output = self.output(check).await?;
        match output.status.code() {
            Some(CHECK_ERRORS) => Err(broken(&output)),
            _ => Ok(info),
        }
    }

    /// An empty disk.
    pub(super) async fn create(
        &self,
        file: &Path,
        format: DiskFormat,
        size: u64,
    ) -> Result<(), RuntimeError> {
        let size = size.to_string();
        self.make(
            file,
            ["create", "-q", "-f", word(format)],
            [OsStr::new(&size)],
        )
        .await
    }

    /// A disk that holds only what differs from the image.
    pub(super) async fn overlay(
        &self,
        file: &Path,
        (base, format): (&Path, &str),
        size: u64,
    ) -> Result<(), RuntimeError> {
        let size = size.to_string();
        let mut arguments: Vec<&OsStr> = ["create", "-q", "-f", "qcow2", "-F", format, "-b"]
            .map(OsStr::new)
            .into();
        arguments.extend([base.as_os_str(), file.as_os_str(), OsStr::new(&size)]);
        self.done(arguments, file).await
    }

    /// A copy of the image.
    pub(super) async fn copy(
        &self,
        file: &Path,
        (base, format): (&Path, &str),
    ) -> Result<(), RuntimeError> {
        let mut arguments: Vec<&OsStr> = ["convert", "-q", "-f", format, "-O", "raw"]
            .map(OsStr::new)
            .into();
        arguments.extend([base.as_os_str(), file.as_os_str()]);
        self.done(arguments, file).await
    }

    pub(super) async fn grow(
        &self,
        file: &Path,
        format: DiskFormat,
        size: u64,
    ) -> Result<(), RuntimeError> {
        let size = size.to_string();
        self.make(
            file,
            ["resize", "-q", "-f", word(format)],
            [OsStr::new(&size)],
        )
        .await
    }

    /// The version, if the tool is there.
    pub(super) async fn version(&self) -> Option<String> {
        let output = self.output([OsStr::new("--version")]).await.ok()?;
        super::probe::version_in(&String::from_utf8_lossy(&output.stdout))
    }

    async fn make<const N: usize>(
        &self,
        file: &Path,
        before: [&str; 4],
        behind: [&OsStr; N],
    ) -> Result<(), RuntimeError> {
        let before = before.map(OsStr::new);
        let arguments = before.into_iter().chain([file.as_os_str()]).chain(behind);
        self.done(arguments, file).await
    }

    async fn done<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a OsStr>,
        file: &Path,
    ) -> Result<(), RuntimeError> {
        let output = self.output(arguments).await?;
        if output.status.success() {
            return Ok(());
        }
        // The tool says it in words only, so the disk is asked.
        let dir = file.parent().unwrap_or(file);
        let room = rustix::fs::statvfs(dir).map(|it| it.f_bavail.saturating_mul(it.f_frsize));
        if room.is_ok_and(|room| room < ROOM) {
            return Err(RuntimeError::DiskFull);
        }
        let why = io::Error::other(said(&output));
        Err(disk::error(format!("make {}", file.display()), why))
    }

    async fn output<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a OsStr>,
    ) -> Result<Output, RuntimeError> {
        let running = Command::new(&self.program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        running.await.map_err(|source| RuntimeError::Command {
            program: self.program.clone(),
            source,
        })
    }
}

/// The end of what it says, on one line.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    super::tail(text.lines(), SAID, "; ")
}
