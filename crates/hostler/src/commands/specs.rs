//! Specs from files, directories and stdin: all are read and checked before any is sent, so that a mistake
//! in the last file changes nothing, and is told with that file's name and line.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use hostler_model::spec::{self, MAX_SPEC_BYTES};

use crate::failure::Failure;

/// The texts behind the paths, in order; a directory gives its `.yaml`, `.yml` and `.json` files by name.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            texts.push(checked("stdin", stdin()?)?);
            continue;
        }
        for file in files(path)? {
            let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
            texts.push(checked(&file.display().to_string(), text)?);
        }
    }
    Ok(texts)
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let most = u64::try_from(MAX_SPEC_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let read = std::io::stdin().lock().take(most).read_to_string(&mut text);
    read.map(|_| text)
        .map_err(|error| unreadable(Path::new("stdin"), &error))
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        let file = entry.map_err(|error| unreadable(path, &error))?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if file.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(file);
        }
    }
    if files.is_empty() {
        let sentence = format!("there is no spec in the directory {}", path.display());
        return Err(Failure::usage(
            sentence,
            "specs end in .yaml, .yml or .json",
        ));
    }
    files.sort();
    Ok(files)
}

fn checked(name: &str, text: String) -> Result<String, Failure> {
    match spec::parse(&text) {
        Ok(_) => Ok(text),
        Err(refusal) => {
            let details = if refusal.details.len() > 1 {
                refusal.details
            } else {
                Vec::new()
            };
            let mut failure =
                Failure::failed(format!("{name}: {}", refusal.sentence), refusal.advice);
            failure.details = details;
            failure.code = Some(refusal.code.to_string());
            Err(failure)
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(
        format!("cannot read {}: {error}", path.display()),
        "name a readable file with -f",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "name: a\nprocess: { command: [\"true\"] }\n";

    #[test]
    fn a_directory_gives_its_specs_by_name_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("1.yml"), SPEC).unwrap();
        std::fs::write(directory.path().join("README.md"), "no spec").unwrap();
        std::fs::write(
            directory.path().join("2.yaml"),
            SPEC.replace("name: a", "name: b"),
        )
        .unwrap();
        let texts = read(&[directory.path().to_owned()]).unwrap();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains("name: a") && texts[1].contains("name: b"));
        let empty = tempfile::tempdir().unwrap();
        assert!(read(&[empty.path().to_owned()]).is_err());
    }

    #[test]
    fn a_mistake_is_told_with_file_and_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web.yaml");
        std::fs::write(&file, "name: a\nproces: { command: [\"true\"] }\n").unwrap();
        let refused = read(std::slice::from_ref(&file)).unwrap_err();
        assert!(
            refused.sentence.starts_with(&file.display().to_string()),
            "{}",
            refused.sentence
        );
        assert!(refused.sentence.contains("line 2"), "{}", refused.sentence);
        assert_eq!(refused.code.as_deref(), Some("spec-invalid"));
    }
}
