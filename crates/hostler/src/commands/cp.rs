//! `cp`: files from and to a copy. What is copied out is complete at its place, or nothing of it is; what is copied in
//! is unpacked over what is there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use hostler_wire::api::FilesQuery;

use super::{Remote, archive, copy};
use crate::args::CpArgs;
use crate::compose::Signals;
use crate::failure::Failure;
use crate::status::ExitStatus;

pub(crate) async fn cp(remote: &Remote<'_>, args: CpArgs) -> Result<ExitStatus, Failure> {
    let mut signals = Signals::new()?;
    tokio::select! {
        biased;
        done = Box::pin(copy_between(remote, args)) => done,
        () = signals.stop() => Err(Failure::failed(
            "the copy was interrupted",
            "here nothing of it is left; in the copy, what has arrived stays",
        )),
    }
}

async fn copy_between(remote: &Remote<'_>, args: CpArgs) -> Result<ExitStatus, Failure> {
    let part = args.part;
    match (Place::read(&args.source), Place::read(&args.destination)) {
        (Place::Inside(source), Place::Here(destination)) => {
            copy_out(remote, source, part, &destination).await
        }
        (Place::Here(source), Place::Inside(destination)) => {
            copy_in(remote, source, destination, part).await
        }
        (Place::Here(_), Place::Here(_)) => Err(Failure::usage(
            "neither side is in a copy",
            "write one side as WORKLOAD:PATH",
        )),
        (Place::Inside(_), Place::Inside(_)) => Err(Failure::usage(
            "both sides are in copies",
            "copy to this machine first, or write a local path as ./NAME",
        )),
    }
}

/// One side of the command.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    Inside(Inside),
}

/// A path in a copy.
#[derive(Debug, PartialEq, Eq)]
struct Inside {
    workload: String,
    slot: Option<u32>,
    path: String,
}

impl Place {
    fn read(text: &str) -> Self {
        let here = || Self::Here(PathBuf::from(text));
        if text.starts_with(['.', '/']) {
            return here();
        }
        let Some((copy, path)) = text.split_once(':') else {
            return here();
        };
        let (workload, slot) = match copy.split_once('/') {
            None => (copy, None),
            Some((workload, slot)) => match slot.parse() {
                Ok(slot) => (workload, Some(slot)),
                Err(_) => return here(),
            },
        };
        if workload.is_empty() {
            return here();
        }
        let path = if path.is_empty() { "." } else { path };
        Self::Inside(Inside {
            workload: workload.to_owned(),
            slot,
            path: path.to_owned(),
        })
    }
}

async fn copy_out(
    remote: &Remote<'_>,
    source: Inside,
    part: Option<String>,
    destination: &Path,
) -> Result<ExitStatus, Failure> {
    let name = Path::new(&source.path).file_name();
    let name = name.ok_or_else(|| nameless(Path::new(&source.path)))?;
    let target = match destination.is_dir() {
        true => destination.join(name),
        false => destination.to_owned(),
    };
    let copy = copy::pick(remote, &source.workload, source.slot).await?;
    let query = FilesQuery {
        path: source.path,
        part,
    };
    let pieces = remote.client.read_files(&copy.id, &query).await?;
    archive::unpack(pieces, target).await?;
    Ok(ExitStatus::Done)
}

/// Into the directory of that path, or under that name into the directory above it.
async fn copy_in(
    remote: &Remote<'_>,
    source: PathBuf,
    destination: Inside,
    part: Option<String>,
) -> Result<ExitStatus, Failure> {
    let copy = copy::pick(remote, &destination.workload, destination.slot).await?;
    let query = |path: &str| FilesQuery {
        path: path.to_owned(),
        part: part.clone(),
    };
    let path = destination.path.as_str();
    let into = query(path);
    let looked = remote
        .client
        .write_files(&copy.id, &into, archive::nothing());
    let (above, name) = match looked.await {
        Ok(()) => (path.to_owned(), name_of(&source)?),
        Err(error) if error.code() == Some("file-not-found") && !path.ends_with('/') => {
            split(path).ok_or(error)?
        }
        Err(error) => return Err(error.into()),
    };
    let (pieces, packing) = archive::pack(source, name);
    let written = remote
        .client
        .write_files(&copy.id, &query(&above), pieces)
        .await;
    // Why the archive broke off says more than that it did.
    packing.await?;
    written?;
    Ok(ExitStatus::Done)
}

/// The directory above, and the last name.
fn split(path: &str) -> Option<(String, OsString)> {
    let path = Path::new(path);
    let above = path.parent()?.to_string_lossy();
    let above = if above.is_empty() { "." } else { &above };
    Some((above.to_owned(), path.file_name()?.to_owned()))
}

/// The last name of a path of this machine, links and dots resolved if it has none of its own.
fn name_of(path: &Path) -> Result<OsString, Failure> {
    let named = path.file_name().map(OsString::from).or_else(|| {
        let real = std::fs::canonicalize(path).ok()?;
        real.file_name().map(OsString::from)
    });
    named.ok_or_else(|| nameless(path))
}

fn nameless(path: &Path) -> Failure {
    Failure::usage(
        format!(
            "`{}` has no name under which it could be copied",
            path.display()
        ),
        "name a file or directory below it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_in_a_copy_if_a_workload_stands_before_a_colon() {
        let inside = |workload: &str, slot, path: &str| {
            Place::Inside(Inside {
                workload: workload.to_owned(),
                slot,
                path: path.to_owned(),
            })
        };
        assert_eq!(Place::read("web:/srv"), inside("web", None, "/srv"));
        assert_eq!(Place::read("web/2:a:b"), inside("web", Some(2), "a:b"));
        assert_eq!(Place::read("web:"), inside("web", None, "."));
        for text in ["a", "./a:b", "/a:b", "../a:b", ":a", "a/b:c", "a/b"] {
            assert_eq!(Place::read(text), Place::Here(text.into()), "{text}");
        }
    }
}
