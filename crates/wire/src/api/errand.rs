//! Errands inside copies: what their routes take, and the words of their sockets.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;

/// What to run inside a copy. A repeated name stands for a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExecQuery {
    /// Program and arguments, one each.
    pub command: Vec<String>,
    /// It has an input.
    pub input: bool,
    /// It has a terminal; `rows` and `columns` are its size.
    pub terminal: bool,
    pub rows: Option<u16>,
    pub columns: Option<u16>,
    /// As whom; the copy's own user if left out.
    pub user: Option<String>,
    /// `KEY=VALUE`, one each, on top of the copy's environment.
    pub env: Vec<String>,
    /// Where it begins; the copy's own directory if left out.
    pub directory: Option<String>,
    /// Which part of the copy, such as a service of a compose project.
    pub part: Option<String>,
}

/// What to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ForwardQuery {
    /// The port on which something inside the copy listens.
    pub port: u16,
    /// Which part of the copy, such as a service of a compose project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
}

/// Which files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FilesQuery {
    /// A file or directory to read, or the directory to write into.
    pub path: String,
    /// Which part of the copy, such as a service of a compose project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
}

/// A word on the socket of an errand, beside its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", content = "data", rename_all = "kebab-case")]
pub enum ErrandWord {
    /// From the client: the terminal has another size.
    Resize { rows: u16, columns: u16 },
    /// From either side: no more bytes come.
    EndOfBytes,
    /// From the server: how the command ended. The end of the socket follows.
    Exit(ErrandExit),
    /// From the server: what ended the errand before its end.
    Problem(Problem),
}

/// How a command ended: one of the two is there, or neither if nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ErrandExit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// The first byte of each binary message from the server of a command's output.
pub mod output {
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
}

impl ExecQuery {
    /// As names and values, in the order in which they are written.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        pairs.extend(self.command.iter().map(|word| ("command", word.clone())));
        let flags = [("input", self.input), ("terminal", self.terminal)];
        let flags = flags.into_iter().filter(|(_, is_on)| *is_on);
        pairs.extend(flags.map(|(name, _)| (name, "true".to_owned())));
        let numbers = [("rows", self.rows), ("columns", self.columns)];
        pairs.extend(
            numbers
                .iter()
                .filter_map(|(name, number)| Some((*name, number.as_ref()?.to_string()))),
        );
        let texts = [
            ("user", &self.user),
            ("directory", &self.directory),
            ("part", &self.part),
        ];
        pairs.extend(
            texts
                .iter()
                .filter_map(|(name, text)| Some((*name, text.as_ref()?.clone()))),
        );
        pairs.extend(self.env.iter().map(|pair| ("env", pair.clone())));
        pairs
    }

    /// Reads names and values; what is wrong with them is told in a sentence.
    ///
    /// # Errors
    /// A name that is not known or comes twice, or a value that is no number or flag.
    pub fn read(pairs: Vec<(String, String)>) -> Result<Self, String> {
        let mut query = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "command" => query.command.push(value),
                "env" => query.env.push(value),
                "input" => query.input = flag(&name, &value)?,
                "terminal" => query.terminal = flag(&name, &value)?,
                "rows" => query.rows = Some(number(&name, &value)?),
                "columns" => query.columns = Some(number(&name, &value)?),
                "user" => query.user = Some(value),
                "directory" => query.directory = Some(value),
                "part" => query.part = Some(value),
                _ => {
                    return Err(format!(
                        "`{name}` is none of the names that this route knows"
                    ));
                }
            }
        }
        Ok(query)
    }
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    let refused = |_| format!("{name}: `{value}` is neither `true` nor `false`");
    value.parse().map_err(refused)
}

fn number(name: &str, value: &str) -> Result<u16, String> {
    let refused = |_| format!("{name}: `{value}` is no number of a terminal's size");
    value.parse().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_run_is_read_as_it_was_written() {
        let query = ExecQuery {
            command: vec!["sh".to_owned(), "-c".to_owned(), "a=b & c".to_owned()],
            input: true,
            terminal: true,
            rows: Some(24),
            columns: Some(80),
            user: Some("1000".to_owned()),
            env: vec!["A=1".to_owned(), "B=2".to_owned()],
            directory: Some("/srv".to_owned()),
            part: Some("db".to_owned()),
        };
        let pairs = query.pairs().into_iter();
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(ExecQuery::read(pairs.collect()), Ok(query));
        for (name, value) in [("input", "yes"), ("rows", "-1"), ("tty", "true")] {
            let pair = (name.to_owned(), value.to_owned());
            let refused = ExecQuery::read(vec![pair]).unwrap_err();
            assert!(refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn the_words_of_a_socket_have_their_form() {
        let exit = ErrandExit {
            code: Some(3),
            signal: None,
        };
        for (word, text) in [
            (
                ErrandWord::Resize {
                    rows: 24,
                    columns: 80,
                },
                r#"{"event":"resize","data":{"rows":24,"columns":80}}"#,
            ),
            (ErrandWord::EndOfBytes, r#"{"event":"end-of-bytes"}"#),
            (
                ErrandWord::Exit(exit),
                r#"{"event":"exit","data":{"code":3}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&word).unwrap(), text);
            assert_eq!(serde_json::from_str::<ErrandWord>(text).unwrap(), word);
        }
    }
}
