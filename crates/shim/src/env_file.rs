//! Environment files: lines of `NAME=value` on the node, read at each run.
//!
//! Empty lines and lines that begin with `#` say nothing; `export` before a name is allowed. A value in quotes ends
//! with its quote; in double quotes `\n`, `\"` and `\\` mean what they mean in a shell. Nothing is expanded.
//! What is wrong is told by file and line, never with the line itself, which may be a secret.

use std::fs::File;
use std::io::Read as _;

use super::{Failure, Unsatisfiable};

const MOST_BYTES: u64 = 1 << 20;

/// Reads one file.
pub(super) fn read(path: &str) -> Result<Vec<(String, String)>, Failure> {
    let refused = |code, why: String| Failure::Unsatisfiable {
        code,
        message: format!("environment file `{path}`: {why}"),
    };
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            let why = "is no text".to_owned();
            return Err(refused(Unsatisfiable::EnvFileInvalid, why));
        }
        Err(error) => return Err(refused(Unsatisfiable::EnvFileMissing, error.to_string())),
        Ok(count) if count as u64 > MOST_BYTES => {
            let why = "is larger than 1 MiB".to_owned();
            return Err(refused(Unsatisfiable::EnvFileInvalid, why));
        }
        Ok(_) => {}
    }
    parse(&text).map_err(|line| {
        let why = format!("line {line} is no `NAME=value`");
        refused(Unsatisfiable::EnvFileInvalid, why)
    })
}

/// The variables, or the number of the first line that is none.
fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let variable = line.split_once('=').and_then(|(name, value)| {
            let is_name = !name.is_empty()
                && !name.starts_with(|it: char| it.is_ascii_digit())
                && name
                    .chars()
                    .all(|it| it.is_ascii_alphanumeric() || it == '_');
            is_name.then_some((name.to_owned(), unquoted(value)?))
        });
        variables.push(variable.ok_or(index + 1)?);
    }
    Ok(variables)
}

fn unquoted(value: &str) -> Option<String> {
    let value = value.trim();
    if value.contains('\0') {
        return None;
    }
    if let Some(rest) = value.strip_prefix('\'') {
        let inner = rest.strip_suffix('\'')?;
        return (!inner.contains('\'')).then(|| inner.to_owned());
    }
    let Some(rest) = value.strip_prefix('"') else {
        return Some(value.to_owned());
    };
    let mut plain = String::new();
    let mut letters = rest.chars();
    loop {
        match letters.next()? {
            '"' => return letters.as_str().is_empty().then_some(plain),
            '\\' => match letters.next()? {
                'n' => plain.push('\n'),
                letter @ ('"' | '\\') => plain.push(letter),
                other => plain.extend(['\\', other]),
            },
            letter => plain.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_variables_and_the_first_wrong_one_is_told() {
        let text = "# a comment\n\nA=1\nexport B = x\n";
        assert_eq!(parse(text), Err(4), "no space before the sign");
        let text = "A=1\nexport B=two words \nC='$x \\n'\nD=\"a\\n\\\"b\\\"\"\nE=\nF=a#b\n";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$x \\n"),
            ("D", "a\n\"b\""),
            ("E", ""),
            ("F", "a#b"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text).unwrap(), expected);
        for (text, line) in [
            ("A", 1),
            ("A=1\n=2", 2),
            ("1A=x", 1),
            ("A='x", 1),
            ("A=\"x\" y", 1),
            ("A-B=1", 1),
            ("A=a\0b", 1),
        ] {
            assert_eq!(parse(text), Err(line), "{text:?}");
        }
    }
}
