//! Specs from files, directories and stdin: all are read and checked before any is sent, so that a mistake
//! in the last file changes nothing. Every mistake is told at once, with its file's name and line. What is sent goes
//! in as few requests as their size allows, because the server takes each as a whole or not at all.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use hostler_model::Refusal;
use hostler_model::spec::{self, MAX_SPEC_BYTES};

use crate::failure::Failure;

/// What parts two documents of a text.
const BETWEEN: &str = "---\n";

/// The texts behind the paths, in order, joined to requests; a directory gives its `.yaml`, `.yml` and `.json` files
/// by name.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    let mut wrong = Vec::new();
    for path in paths {
        for (name, text) in named(path)? {
            match spec::parse(&text) {
                Ok(_) => texts.push(text),
                Err(refusal) => wrong.push((name, refusal)),
            }
        }
    }
    match wrong.len() {
        0 => Ok(joined(texts)),
        _ => Err(refused(wrong)),
    }
}

/// The texts behind one path, with the name under which people know each.
fn named(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(vec![("stdin".to_owned(), stdin()?)]);
    }
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
        Ok((file.display().to_string(), text))
    };
    files(path)?.into_iter().map(read).collect()
}

fn joined(texts: Vec<String>) -> Vec<String> {
    let mut requests: Vec<String> = Vec::new();
    for text in texts {
        let fits = |last: &&mut String| last.len() + text.len() + BETWEEN.len() < MAX_SPEC_BYTES;
        let Some(last) = requests.last_mut().filter(fits) else {
            requests.push(text);
            continue;
        };
        if !last.ends_with('\n') {
            last.push('\n');
        }
        last.push_str(BETWEEN);
        last.push_str(&text);
    }
    requests
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

/// What is wrong with each file.
fn refused(mut wrong: Vec<(String, Refusal)>) -> Failure {
    let code = wrong[0].1.code.to_string();
    let failure = if wrong.len() == 1 {
        let (name, mut refusal) = wrong.remove(0);
        refusal.sentence = format!("{name}: {}", refusal.sentence);
        Failure::from(refusal)
    } else {
        let details = wrong
            .iter()
            .flat_map(|(name, refusal)| findings(name, refusal));
        let sentence = format!("{} files make no sense, so nothing is sent", wrong.len());
        Failure::failed(
            sentence,
            "correct them all; docs/guide/specs.md has every key",
        )
        .with_details(details.collect())
    };
    Failure {
        code: Some(code),
        ..failure
    }
}

fn findings(name: &str, refusal: &Refusal) -> Vec<String> {
    match refusal.details.as_slice() {
        [] => vec![format!("{name}: {}", refusal.sentence)],
        details => details.iter().map(|it| format!("{name}: {it}")).collect(),
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
        let [text] = texts.as_slice() else {
            panic!("{texts:?}");
        };
        let names = spec::parse(text).unwrap().into_iter().map(|it| it.name);
        assert_eq!(names.collect::<Vec<_>>(), ["a", "b"]);
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

    #[test]
    fn every_file_that_makes_no_sense_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        std::fs::write(of("a.yaml"), SPEC).unwrap();
        std::fs::write(of("b.yaml"), "name: b\nproces: {}\n").unwrap();
        std::fs::write(of("c.yaml"), "name: C\ncount: 1\n").unwrap();
        let refused = read(&[directory.path().to_owned()]).unwrap_err();
        assert!(
            refused.sentence.starts_with("2 files"),
            "{}",
            refused.sentence
        );
        let told = refused.details.join("\n");
        assert!(told.contains("b.yaml: line 2"), "{told}");
        assert!(
            told.contains("c.yaml: ") && !told.contains("a.yaml"),
            "{told}"
        );
    }

    #[test]
    fn texts_share_a_request_while_it_is_not_too_large() {
        let large = format!("{SPEC}#{}", "x".repeat(MAX_SPEC_BYTES / 2 - SPEC.len()));
        let begun = format!("---\n{SPEC}");
        let requests = joined(vec![SPEC.to_owned(), large.clone(), large, begun]);
        let counts = requests.iter().map(|text| spec::parse(text).unwrap().len());
        assert_eq!(counts.collect::<Vec<_>>(), [2, 2]);
    }
}
