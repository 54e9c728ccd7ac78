//! Where images are: names and paths of a spec become files of the node. Touches nothing; a name that leads
//! nowhere, or where the node's owner does not want it to lead, is refused.

use std::io;
use std::path::{Component, Path, PathBuf};

use hostler_model::FailureCode;

use crate::{RuntimeError, disk};

/// What a name may leave out.
const ENDINGS: [&str; 4] = ["", ".qcow2", ".img", ".raw"];

/// The node's directories of images.
#[derive(Debug, Clone)]
pub(super) struct Images {
    dirs: Vec<PathBuf>,
    /// Whether images outside of them are refused.
    is_closed: bool,
}

impl Images {
    pub(super) fn new(dirs: Vec<PathBuf>, is_closed: bool) -> Self {
        Self { dirs, is_closed }
    }

    /// The file behind the name.
    pub(super) fn find(&self, name: &str) -> Result<PathBuf, RuntimeError> {
        let path = match name.strip_prefix("file://") {
            Some(path) => path,
            None if is_elsewhere(name) => {
                return Err(refused(
                    FailureCode::ImageElsewhere,
                    format!(
                        "`{name}` is not on the node, and this driver fetches nothing: bring it to the node first"
                    ),
                ));
            }
            None => name,
        };
        let found = if Path::new(path).is_absolute() {
            canonical(Path::new(path))?
        } else {
            self.by_name(path)?
        };
        let Some(found) = found else {
            return Err(refused(FailureCode::ImageNotFound, self.missing(name)));
        };
        if self.is_closed && !self.dirs.iter().any(|dir| is_below(&found, dir)) {
            let message = format!(
                "`{name}` is outside of the node's directories of images ({})",
                self.shown()
            );
            return Err(refused(FailureCode::ImageNotPermitted, message));
        }
        Ok(found)
    }

    fn by_name(&self, name: &str) -> Result<Option<PathBuf>, RuntimeError> {
        let parts = Path::new(name).components();
        if name.is_empty()
            || parts
                .into_iter()
                .any(|it| !matches!(it, Component::Normal(_)))
        {
            return Ok(None);
        }
        for dir in &self.dirs {
            for ending in ENDINGS {
                if let Some(found) = canonical(&dir.join(format!("{name}{ending}")))? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn missing(&self, name: &str) -> String {
        if Path::new(name).is_absolute() || name.starts_with("file://") {
            format!("there is no file `{name}` on the node")
        } else {
            format!("there is no image `{name}` in {}", self.shown())
        }
    }

    fn shown(&self) -> String {
        let dirs = self.dirs.iter().map(|dir| dir.display().to_string());
        dirs.collect::<Vec<_>>().join(", ")
    }
}

/// URLs of the network, `host:/path`, `pool:image`.
fn is_elsewhere(name: &str) -> bool {
    name.contains("://") || (!name.starts_with('/') && name.contains(':'))
}

/// The file itself, whatever links lead to it; none if there is no file.
fn canonical(path: &Path) -> Result<Option<PathBuf>, RuntimeError> {
    match path.canonicalize() {
        Ok(found) => Ok(Some(found).filter(|found| !found.is_dir())),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(disk::error(format!("look for {}", path.display()), error)),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn is_below(file: &Path, dir: &Path) -> bool {
    dir.canonicalize().is_ok_and(|dir| file.starts_with(dir))
}

pub(super) fn refused(code: FailureCode, message: String) -> RuntimeError {
    RuntimeError::Unsatisfiable { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_paths_are_taken_as_they_are() {
        let home = tempfile::tempdir().unwrap();
        let (first, second) = (home.path().join("a"), home.path().join("b"));
        std::fs::create_dir_all(first.join("dir.img")).unwrap();
        std::fs::create_dir(&second).unwrap();
        std::fs::write(second.join("debian.qcow2"), "x").unwrap();
        let file = second.join("debian.qcow2").canonicalize().unwrap();
        let outside = home.path().join("secret");
        std::fs::write(&outside, "x").unwrap();
        std::os::unix::fs::symlink(&outside, second.join("link.img")).unwrap();

        let open = Images::new(vec![first.clone(), second.clone()], false);
        for name in [
            "debian".to_owned(),
            "debian.qcow2".to_owned(),
            file.display().to_string(),
            format!("file://{}", file.display()),
        ] {
            assert_eq!(open.find(&name).unwrap(), file, "{name}");
        }
        assert!(open.find(outside.to_str().unwrap()).is_ok());

        let code = |images: &Images, name: &str| images.find(name).unwrap_err().code();
        for name in [
            "",
            "dir",
            "../secret",
            "fedora",
            "/no/such/file",
            "file://x",
        ] {
            assert_eq!(code(&open, name), "image-not-found", "{name}");
        }
        for name in ["https://x/y.img", "rbd:pool/image", "host:/export/x"] {
            assert_eq!(code(&open, name), "image-elsewhere", "{name}");
        }

        let closed = Images::new(vec![first, second], true);
        assert!(closed.find("debian").is_ok());
        for name in [outside.to_str().unwrap(), "link"] {
            assert_eq!(code(&closed, name), "image-not-permitted", "{name}");
        }
    }
}
