//! Reads the guard file, again whenever it has changed. A file that cannot be read, makes no sense, or can be written
//! by others than its owner lets nothing new run, and says so: whoever wrote it meant to forbid something.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hostler_model::spec::WorkloadSpec;
use hostler_model::{FailureCode, Task};
use hostler_runtime::{Asks, Judge, RuntimeError};

use super::Permit;

/// Bits of a mode that let group or others write.
const WRITABLE: u32 = 0o022;

/// Where the owner's rules are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GuardFile {
    /// None is looked for.
    #[default]
    Nowhere,
    /// Here, if there is a file.
    Usual(PathBuf),
    /// Here, and there has to be a file.
    Named(PathBuf),
}

/// Judges specs by the file as it is now.
#[derive(Debug)]
pub(crate) struct Guardian {
    file: GuardFile,
    kept: Mutex<Option<Kept>>,
}

/// What was read, and of which file.
#[derive(Debug, Clone)]
struct Kept {
    stamp: Stamp,
    rules: Result<Arc<Permit>, String>,
}

/// Tells whether a file has changed; none if there is no file.
type Stamp = Option<(u64, u64, i64, i64, u32)>;

impl Guardian {
    pub(crate) const fn new(file: GuardFile) -> Self {
        Self {
            file,
            kept: Mutex::new(None),
        }
    }

    /// Whether the node's owner lets it run here.
    pub(crate) async fn judge(
        self: &Arc<Self>,
        spec: &Arc<WorkloadSpec>,
    ) -> Result<(), RuntimeError> {
        let spec = Arc::clone(spec);
        self.by_rules(move |rules| match rules.needs_paths() {
            true => rules.judge(&spec, real),
            false => rules.judge(&spec, Path::to_owned),
        })
        .await
    }

    /// Whether the node's owner lets it be done inside what runs here.
    pub(crate) async fn judge_task(self: &Arc<Self>, task: &Task) -> Result<(), RuntimeError> {
        let task = task.clone();
        self.by_rules(move |rules| rules.judge_task(&task)).await
    }

    async fn by_rules(
        self: &Arc<Self>,
        judge: impl FnOnce(&Permit) -> Result<(), String> + Send + 'static,
    ) -> Result<(), RuntimeError> {
        let judged = if self.file == GuardFile::Nowhere {
            judge(&Permit::unwritten())
        } else {
            let guardian = Arc::clone(self);
            let judging = tokio::task::spawn_blocking(move || judge(&*guardian.rules()?));
            judging.await.unwrap_or_else(|error| Err(error.to_string()))
        };
        judged.map_err(not_wanted)
    }

    fn rules(&self) -> Result<Arc<Permit>, String> {
        let (path, must_exist) = match &self.file {
            GuardFile::Nowhere => return Ok(Arc::new(Permit::unwritten())),
            GuardFile::Usual(path) => (path, false),
            GuardFile::Named(path) => (path, true),
        };
        let stamp = stamp(path);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |kept: &&Kept| matches!(&stamp, Ok(stamp) if *stamp == kept.stamp);
        if let Some(kept) = kept.as_ref().filter(is_same) {
            return kept.rules.clone();
        }
        let broken = |why: String| {
            format!(
                "the node's guard file {}: {why}; until that is put right, nothing new runs here",
                path.display()
            )
        };
        let rules = match &stamp {
            Err(error) => Err(broken(error.to_string())),
            Ok(None) if must_exist => Err(broken("it is not there".to_owned())),
            Ok(None) => Ok(Arc::new(Permit::unwritten())),
            Ok(Some(_)) => read(path).map(Arc::new).map_err(broken),
        };
        match &rules {
            Ok(_) => {
                tracing::info!(path = %path.display(), is_there = matches!(stamp, Ok(Some(_))), "guard file read")
            }
            Err(error) => tracing::error!(error, "guard file refused"),
        }
        *kept = stamp.ok().map(|stamp| Kept {
            stamp,
            rules: rules.clone(),
        });
        rules
    }
}

/// The guardian, for drivers that know only from files of their units what those ask for.
pub(crate) struct Bench(pub(crate) Arc<Guardian>);

#[async_trait]
impl Judge for Bench {
    async fn judge(&self, asks: Vec<Asks>) -> Result<(), RuntimeError> {
        self.0
            .by_rules(move |rules| {
                asks.iter()
                    .try_for_each(|asks| rules.judge_asks(asks, real))
            })
            .await
    }
}

fn not_wanted(message: String) -> RuntimeError {
    RuntimeError::Unsatisfiable {
        code: FailureCode::RefusedByNode,
        message,
    }
}

/// Where a path leads, as far as there is something.
fn real(path: &Path) -> PathBuf {
    let there = path
        .ancestors()
        .find_map(|part| Some((part, std::fs::canonicalize(part).ok()?)));
    match there {
        Some((part, led)) => led.join(path.strip_prefix(part).unwrap_or_else(|_| Path::new(""))),
        None => path.to_owned(),
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    match std::fs::metadata(path) {
        Ok(file) => Ok(Some((
            file.ino(),
            file.len(),
            file.mtime(),
            file.mtime_nsec(),
            file.mode(),
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> Result<Permit, String> {
    let file = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if file.mode() & WRITABLE != 0 {
        return Err("others than its owner may write it (chmod go-w)".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    toml::from_str(&text).map_err(|error| {
        let before = error
            .span()
            .and_then(|span| text.get(..span.start))
            .unwrap_or("");
        let line = before.matches('\n').count() + 1;
        format!("line {line}: {}", error.message().replace('\n', " "))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use hostler_model::spec::parse_one;

    use super::*;

    fn spec(text: &str) -> Arc<WorkloadSpec> {
        Arc::new(parse_one(&format!("name: x\n{text}\n")).unwrap())
    }

    async fn told(guardian: &Arc<Guardian>, spec: &Arc<WorkloadSpec>) -> String {
        match guardian.judge(spec).await {
            Ok(()) => String::new(),
            Err(error) => {
                assert_eq!(error.code(), "refused-by-node");
                error.to_string()
            }
        }
    }

    #[tokio::test]
    async fn a_change_of_the_file_counts_at_once_and_a_broken_file_lets_nothing_new_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.toml");
        let guardian = Arc::new(Guardian::new(GuardFile::Usual(path.clone())));
        let process = spec("process: {command: [a]}");
        let privileged = spec("container: {image: a, privileged: true}");
        assert_eq!(told(&guardian, &process).await, "", "there is no file");
        assert!(told(&guardian, &privileged).await.contains("privileged"));

        std::fs::write(&path, "kinds = ['container']\nprivileged = true\n").unwrap();
        assert!(told(&guardian, &process).await.contains("rule `kinds`"));
        assert_eq!(told(&guardian, &privileged).await, "");

        for (text, why) in [
            ("priviledged = true\n", "line 1"),
            ("\nkinds = ['rocket']\n", "line 2"),
            ("{", "line 1"),
        ] {
            std::fs::write(&path, text).unwrap();
            for spec in [&process, &privileged] {
                let told = told(&guardian, spec).await;
                assert!(
                    told.contains(why) && told.contains("nothing new runs"),
                    "{told}"
                );
            }
        }
        std::fs::write(&path, "privileged = true\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(
            told(&guardian, &process)
                .await
                .contains("others than its owner")
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(told(&guardian, &process).await, "");
        let named = Arc::new(Guardian::new(GuardFile::Named(path)));
        assert!(told(&named, &process).await.contains("it is not there"));
    }

    #[tokio::test]
    async fn a_link_is_judged_by_where_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, path) = (dir.path().join("inside"), dir.path().join("guard.toml"));
        std::fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink("/etc", inside.join("link")).unwrap();
        let real = std::fs::canonicalize(&inside).unwrap();
        std::fs::write(&path, format!("mounts = ['{}']\n", real.display())).unwrap();
        let guardian = Arc::new(Guardian::new(GuardFile::Named(path)));
        let mounting = |source: &str| {
            let source = inside.join(source).display().to_string();
            spec(&format!(
                "container: {{image: a, mounts: [{{source: {source}, target: /w}}]}}"
            ))
        };
        assert_eq!(told(&guardian, &mounting("")).await, "");
        assert_eq!(told(&guardian, &mounting("not-there-yet")).await, "");
        assert!(
            told(&guardian, &mounting("link/not-there-yet"))
                .await
                .contains("rule `mounts`")
        );
        assert!(
            told(&guardian, &mounting("link"))
                .await
                .contains("rule `mounts`")
        );
        assert!(
            told(&guardian, &mounting("../x"))
                .await
                .contains("rule `mounts`")
        );
    }
}
