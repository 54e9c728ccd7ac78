//! What `install` writes into a part's settings. A file that is there is a person's: only the lines of what was asked for
//! change in it, and it is read as the part itself will read it before it is put into place.

use std::path::Path;

use clap::Parser as _;
use hostler_kit::trust::Invitation;

use super::parts::SERVER_DATA;
use super::place::{Place, Put};
use crate::args::{Cli, Command, InstallArgs, Part};
use crate::failure::Failure;
use crate::settings::{AgentSettings, Environment, ServerSettings};

const TOKEN: &str = "/etc/hostler/agent.token";

/// How a file writes a key and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Toml,
    Yaml,
    Variables,
}

/// A file that is being changed.
struct Draft {
    form: Form,
    text: String,
}

/// The files of a part, none of them written yet. The spot agent's are elsewhere.
pub(super) fn files(
    place: &Place,
    args: &InstallArgs,
    environment: &Environment,
) -> Result<Vec<Put>, Failure> {
    refuse_strangers(args)?;
    let path = args.part.settings()[0];
    let form = match args.part {
        Part::Server | Part::Agent => Form::Toml,
        Part::NodeAgent => Form::Yaml,
        Part::MiaasAgent | Part::PersysAgent | Part::SpotAgent => Form::Variables,
    };
    let there = place.read(path)?;
    let is_new = there.is_none();
    let text = there.unwrap_or_else(|| {
        format!(
            "# Made by `hostler install {}`. docs/guide/install.md says where all keys are told.\n",
            args.part.word()
        )
    });
    let mut draft = Draft { form, text };
    let mut files = Vec::new();
    match args.part {
        Part::Server => server(&mut draft, args, is_new),
        Part::Agent => files.extend(agent(&mut draft, args, environment)?),
        Part::MiaasAgent => draft.ask("CONTROL_PLANE_URL", args.server.as_deref()),
        Part::PersysAgent => {
            draft.ask("PERSYS_SCHEDULER_ADDR", args.server.as_deref());
            draft.ask("PERSYS_TLS_ENABLED", args.insecure.then_some("false"));
        }
        Part::NodeAgent => {
            draft.ask("orchestrator", args.server.as_deref());
        }
        Part::SpotAgent => {}
    }
    files.push(Put::settings(path, draft.text));
    Ok(files)
}

/// Looks at a settings file, at its own place or beside it, as the part that reads it.
pub(super) fn check(part: Part, file: &Path, place: &Place) -> Result<(), Failure> {
    let mut bare = Environment::default();
    bare.is_root = true;
    let read = |word: &str| {
        let path = file.display().to_string();
        Cli::try_parse_from(["hostler", word, "--config", &path])
            .map_err(|error| Failure::usage(error.to_string(), ""))
    };
    match part {
        Part::Server => {
            if let Command::Server(args) = read("server")?.command {
                ServerSettings::resolve(args, &bare)?;
            }
            Ok(())
        }
        // The files that it names are those of the machine itself, which is elsewhere in a test.
        Part::Agent if place.at("/") != Path::new("/") => {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let parsed = toml::from_str::<toml::Table>(&text).map(drop);
            parsed
                .map_err(|error| Failure::usage(error.message(), "correct /etc/hostler/agent.toml"))
        }
        Part::Agent => {
            if let Command::Agent(args) = read("agent")?.command {
                AgentSettings::resolve(*args, &bare)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The value of a key in a settings file of TOML, where it is text.
pub(super) fn toml_text(place: &Place, path: &str, key: &str) -> Option<String> {
    table(place, path)?.get(key)?.as_str().map(str::to_owned)
}

/// Whether a server's settings leave login and TLS out.
pub(super) fn is_insecure(place: &Place, path: &str) -> bool {
    let said = table(place, path).and_then(|table| table.get("insecure")?.as_bool());
    said.unwrap_or(false)
}

fn table(place: &Place, path: &str) -> Option<toml::Table> {
    let text = place.read(path).ok()??;
    toml::from_str(&text).ok()
}

fn server(draft: &mut Draft, args: &InstallArgs, is_new: bool) {
    let listen = args.listen.as_deref();
    // Without a login it is for this machine, unless somebody says more.
    let usual = match args.insecure {
        true => "127.0.0.1:8080",
        false => "0.0.0.0:8080",
    };
    let has_default = is_new || (args.insecure && !draft.has("listen"));
    draft.ask("listen", listen.or_else(|| has_default.then_some(usual)));
    if args.insecure {
        draft.set("insecure", "true");
    }
    // Its user has no home, so it must be said.
    if !draft.has("data_dir") {
        draft.ask("data_dir", Some(SERVER_DATA));
    }
}

fn agent(
    draft: &mut Draft,
    args: &InstallArgs,
    environment: &Environment,
) -> Result<Option<Put>, Failure> {
    draft.ask("server", args.server.as_deref());
    draft.ask("name", args.name.as_deref());
    if !args.labels.is_empty() {
        let labels = args.labels.iter();
        let pairs = labels.map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)));
        let pairs: Vec<String> = pairs.collect();
        draft.set("labels", &format!("{{ {} }}", pairs.join(", ")));
    }
    let token = token(args, environment)?;
    let table: toml::Table = toml::from_str(&draft.text).unwrap_or_default();
    let text = |key: &str| table.get(key).and_then(toml::Value::as_str);
    // Control planes of others are written in other ways.
    if text("dialect").is_none_or(|dialect| dialect == "session") {
        refuse_unfit(text("server"), token.is_some())?;
    }
    let Some(token) = token else { return Ok(None) };
    draft.ask("token_file", Some(TOKEN));
    Ok(Some(Put::new(TOKEN, format!("{token}\n"), 0o600)))
}

/// The join token that was given, by a flag or as `hostler token create` writes it: before the command.
fn token(args: &InstallArgs, environment: &Environment) -> Result<Option<String>, Failure> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => Some(std::fs::read_to_string(file).map_err(|error| {
            let sentence = format!("cannot read the token file {}: {error}", file.display());
            Failure::usage(sentence, "name a readable file with --token-file")
        })?),
        (None, None) => environment.get("HOSTLER_JOIN_TOKEN").map(str::to_owned),
    };
    let Some(token) = token else { return Ok(None) };
    if token.trim().is_empty() {
        let sentence = "the token is empty";
        return Err(Failure::usage(
            sentence,
            "write it behind --token, into the file, or as HOSTLER_JOIN_TOKEN",
        ));
    }
    if Invitation::parse(&token).is_none() {
        return Err(Failure::usage(
            "the join token is incomplete or something else",
            "copy all of what `hostler token create` printed",
        ));
    }
    Ok(Some(token.trim().to_owned()))
}

/// An address that the agent would refuse at each start.
fn refuse_unfit(server: Option<&str>, has_token: bool) -> Result<(), Failure> {
    if let Some(server) = server {
        let bare = server.split_once("://").map_or(server, |(_, bare)| bare);
        let port = bare.trim_end_matches('/').rsplit_once(':');
        if !port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            let sentence = format!("`{server}` names no port of a server");
            return Err(Failure::usage(
                sentence,
                "write --server https://HOST:PORT, or http://HOST:PORT where there is no login",
            ));
        }
    }
    if has_token && !server.is_some_and(|server| server.starts_with("https://")) {
        return Err(Failure::usage(
            "a token was given, and the server's address is plain text",
            "write --server https://HOST:PORT, or leave the token out where there is no login",
        ));
    }
    Ok(())
}

/// What the part has no use for is refused, not dropped.
pub(super) fn refuse_strangers(args: &InstallArgs) -> Result<(), Failure> {
    let part = args.part;
    let has_token = args.token.is_some() || args.token_file.is_some();
    let given = [
        ("--server", args.server.is_some(), part != Part::Server),
        (
            "--token",
            has_token,
            matches!(part, Part::Agent | Part::SpotAgent),
        ),
        ("--name", args.name.is_some(), part == Part::Agent),
        ("--label", !args.labels.is_empty(), part == Part::Agent),
        ("--listen", args.listen.is_some(), part == Part::Server),
        (
            "--insecure",
            args.insecure,
            matches!(part, Part::Server | Part::PersysAgent),
        ),
    ];
    for (flag, is_given, has_use) in given {
        if is_given && !has_use {
            let sentence = format!("{flag} says nothing to the {}", part.word());
            return Err(Failure::usage(sentence, "leave it out"));
        }
    }
    let texts = [&args.server, &args.name, &args.listen, &args.token];
    let is_broken = |text: &&Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        text.contains(|c: char| c.is_control())
    };
    if texts.iter().any(is_broken) {
        let sentence = "a value has a line break or another control character";
        return Err(Failure::usage(sentence, "write it in one line"));
    }
    Ok(())
}

impl Draft {
    /// Sets a text, if one was asked for.
    fn ask(&mut self, key: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        let written = match self.form {
            Form::Toml => quoted(value),
            Form::Yaml => serde_json::Value::from(value).to_string(),
            Form::Variables => value.to_owned(),
        };
        self.set(key, &written);
    }

    fn has(&self, key: &str) -> bool {
        self.text
            .lines()
            .take_while(is_outside)
            .any(|line| self.is_of(line, key))
    }

    /// In the line that says it already, else in a new one before the first section.
    fn set(&mut self, key: &str, value: &str) {
        let said = match self.form {
            Form::Toml => format!("{key} = {value}"),
            Form::Yaml => format!("{key}: {value}"),
            Form::Variables => format!("{key}={value}"),
        };
        let mut lines: Vec<String> = self.text.lines().map(str::to_owned).collect();
        let is_section = |line: &String| self.form == Form::Toml && !is_outside(&line.as_str());
        let outside = lines.iter().position(is_section).unwrap_or(lines.len());
        match lines[..outside]
            .iter()
            .position(|line| self.is_of(line, key))
        {
            Some(there) => lines[there] = said,
            None => lines.insert(outside, said),
        }
        self.text = lines.join("\n") + "\n";
    }

    fn is_of(&self, line: &str, key: &str) -> bool {
        let sign = if self.form == Form::Yaml { ':' } else { '=' };
        // What stands further in belongs to another key.
        let name = line.split_once(sign).map(|(name, _)| name);
        name.is_some_and(|name| name.trim_end() == key)
    }
}

fn is_outside(line: &&str) -> bool {
    !line.trim_start().starts_with('[')
}

/// As TOML writes a text of one line.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_were_asked_for_change() {
        let text =
            "# mine\nserver = \"http://old:1\" # here\nname=\"a\"\n\n[labels]\nserver = \"x\"\n";
        let mut draft = Draft {
            form: Form::Toml,
            text: text.to_owned(),
        };
        draft.ask("server", Some("http://new:2"));
        draft.ask("listen", None);
        draft.ask("token_file", Some("/etc/hostler/agent.token"));
        assert_eq!(
            draft.text,
            "# mine\nserver = \"http://new:2\"\nname=\"a\"\n\ntoken_file = \"/etc/hostler/agent.token\"\n\
             [labels]\nserver = \"x\"\n"
        );
        assert!(draft.has("name") && !draft.has("listen"));
    }

    #[test]
    fn a_server_without_a_login_is_for_its_machine_unless_somebody_says_more() {
        let listens = |text: &str, insecure: bool, listen: Option<&str>| {
            let mut draft = Draft {
                form: Form::Toml,
                text: text.to_owned(),
            };
            let args = InstallArgs {
                part: Part::Server,
                server: None,
                token: None,
                token_file: None,
                name: None,
                labels: Vec::new(),
                listen: listen.map(str::to_owned),
                insecure,
            };
            server(&mut draft, &args, text.is_empty());
            let table: toml::Table = toml::from_str(&draft.text).unwrap();
            let listen = table.get("listen").and_then(toml::Value::as_str);
            listen.map(str::to_owned)
        };
        let (here, all) = ("127.0.0.1:8080", "0.0.0.0:8080");
        assert_eq!(listens("", true, None).as_deref(), Some(here));
        assert_eq!(listens("", false, None).as_deref(), Some(all));
        assert_eq!(listens("", true, Some(all)).as_deref(), Some(all));
        let theirs = "listen = \"10.0.0.1:1\"\n";
        assert_eq!(listens(theirs, true, None).as_deref(), Some("10.0.0.1:1"));
        assert_eq!(listens("# mine\n", true, None).as_deref(), Some(here));
        assert_eq!(listens("# mine\n", false, None), None);
    }

    #[test]
    fn each_form_has_its_way_to_write_a_key() {
        for (form, expected) in [
            (Form::Toml, "a = \"b:1\"\n"),
            (Form::Yaml, "a: \"b:1\"\n"),
            (Form::Variables, "a=b:1\n"),
        ] {
            let text = String::new();
            let mut draft = Draft { form, text };
            draft.ask("a", Some("c"));
            draft.ask("a", Some("b:1"));
            assert_eq!(draft.text, expected);
        }
        let hard = "a\"b\\c'";
        let table: toml::Table = toml::from_str(&format!("k = {}", quoted(hard))).unwrap();
        assert_eq!(table["k"].as_str(), Some(hard));
    }
}
