//! `contracts`: the tables in docs/ that name files and tests name those that exist. Every requirement of the
//! four contracts has its row, and a finished one names what does it and what shows it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::tree;

/// The areas whose requirements are met.
const FINISHED: [&str; 2] = ["main job", "contracts"];

/// How many requirements each contract has; the ids count up from 1.
const REQUIREMENTS: [(&str, u32); 5] = [("M-", 32), ("O-", 48), ("P-", 45), ("S-", 41), ("S-T", 5)];

/// Checks both tables and lists all that is wrong.
pub(crate) fn main() -> Result<()> {
    let names = Names::of_the_tree()?;
    let read = |name: &str| {
        std::fs::read_to_string(tree::root().join(name)).with_context(|| format!("read {name}"))
    };
    let mut wrong = wrong_requirements(&read("docs/contracts.md")?, &names);
    wrong.extend(wrong_routes(&read("docs/routes.md")?, &names));
    for line in &wrong {
        println!("{line}");
    }
    ensure!(
        wrong.is_empty(),
        "{} rows of the tables are wrong",
        wrong.len()
    );
    Ok(())
}

/// The functions and files that a table may name.
#[derive(Default)]
struct Names {
    functions: BTreeSet<String>,
}

impl Names {
    fn of_the_tree() -> Result<Self> {
        let mut functions = BTreeSet::new();
        for file in tree::files(&tree::root().join("crates"), "rs")? {
            let text = std::fs::read_to_string(&file).with_context(|| tree::shown(&file))?;
            functions.extend(text.lines().filter_map(function).map(str::to_owned));
        }
        Ok(Self { functions })
    }

    /// Whether a word in backticks names a file, a folder or a test. `crate::path::test` counts by its last
    /// part.
    fn has(&self, word: &str) -> bool {
        let last = word.rsplit("::").next().unwrap_or(word);
        self.functions.contains(last) || tree::root().join(Path::new(word)).exists()
    }
}

/// The name of the function that a line begins.
pub(crate) fn function(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let is_head = before.split_whitespace().all(|word| {
        matches!(word, "pub" | "async" | "const" | "unsafe") || word.starts_with("pub(")
    });
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
    (is_head && end > 0).then(|| &rest[..end])
}

fn wrong_requirements(text: &str, names: &Names) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for row in rows(text) {
        let [id, _, area, done_by, shown_by] = row.as_slice() else {
            continue;
        };
        if !REQUIREMENTS
            .iter()
            .any(|(prefix, _)| id.starts_with(prefix))
        {
            continue;
        }
        if !seen.insert((*id).to_owned()) {
            wrong.push(format!("docs/contracts.md: {id} has two rows"));
        }
        let is_finished = FINISHED.contains(area);
        for (column, words) in [("done by", words(done_by)), ("shown by", words(shown_by))] {
            if is_finished && words.is_empty() {
                wrong.push(format!(
                    "docs/contracts.md: {id} is finished; `{column}` is empty"
                ));
            }
            for word in words.into_iter().filter(|word| !names.has(word)) {
                wrong.push(format!("docs/contracts.md: {id}: there is no `{word}`"));
            }
        }
    }
    wrong.extend(
        expected_ids()
            .filter(|id| !seen.contains(id))
            .map(|id| format!("docs/contracts.md: {id} has no row")),
    );
    wrong
}

fn expected_ids() -> impl Iterator<Item = String> {
    REQUIREMENTS.into_iter().flat_map(|(prefix, count)| {
        let width = if prefix.ends_with('-') { 2 } else { 1 };
        (1..=count).map(move |number| format!("{prefix}{number:0width$}"))
    })
}

/// The rows of the table with a `test` column.
fn wrong_routes(text: &str, names: &Names) -> Vec<String> {
    let table = text
        .lines()
        .skip_while(|line| !line.replace(' ', "").ends_with("|test|"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut wrong = Vec::new();
    for line in table {
        let row = cells(line);
        let tests = words(row.last().copied().unwrap_or_default());
        if tests.is_empty() {
            wrong.push(format!("docs/routes.md: {} names no test", row[0]));
        }
        for test in tests.into_iter().filter(|test| !names.has(test)) {
            wrong.push(format!(
                "docs/routes.md: {}: there is no test `{test}`",
                row[0]
            ));
        }
    }
    wrong
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| line.starts_with('|')).map(cells)
}

fn cells(line: &str) -> Vec<&str> {
    let line = line.trim();
    let line = line.strip_prefix('|').unwrap_or(line);
    let line = line.strip_suffix('|').unwrap_or(line);
    line.split('|').map(str::trim).collect()
}

/// The words in backticks of a cell.
fn words(cell: &str) -> Vec<&str> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            functions: BTreeSet::from(["a_node_joins".to_owned()]),
        }
    }

    #[test]
    fn a_finished_row_names_what_exists() {
        let row = |done: &str, shown: &str| {
            let text = format!("| M-01 | x | main job | {done} | {shown} |");
            let wrong = wrong_requirements(&text, &names());
            wrong
                .into_iter()
                .filter(|line| line.contains("M-01"))
                .collect::<Vec<_>>()
        };
        assert!(row("`Cargo.toml`", "`agent::it::a_node_joins`").is_empty());
        assert_eq!(row("", "`a_node_joins`").len(), 1);
        assert_eq!(row("`Cargo.toml`", "`no_such_test`").len(), 1);
    }

    #[test]
    fn a_missing_id_is_listed() {
        let wrong = wrong_requirements("", &Names::default());
        assert_eq!(wrong.len(), 32 + 48 + 45 + 41 + 5);
        assert!(wrong.iter().any(|line| line.contains("S-T5")));
    }

    #[test]
    fn a_rule_of_a_route_names_its_test() {
        let text =
            "| what | rule | test |\n|---|---|---|\n| a | b | `a_node_joins` |\n| c | d | |\n";
        assert_eq!(
            wrong_routes(text, &names()),
            ["docs/routes.md: c names no test"]
        );
    }

    #[test]
    fn functions_are_told_from_talk_about_them() {
        assert_eq!(function("    pub(crate) async fn go(self) {"), Some("go"));
        assert_eq!(function("// the fn that goes (far)"), None);
    }
}
