//! Flags as Go's programs take them: one dash or two, `-x v` or `-x=v`, a switch without a value, spans such as `10s`
//! or `1h30m`. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// One flag of an agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// What counts without it; empty where that is decided elsewhere.
    pub(crate) usual: &'static str,
    pub(crate) help: &'static str,
}

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Switch,
    Text,
    /// A whole number within these bounds.
    Number(u32, u32),
    /// More than nothing.
    Span,
    /// `all`, or numbers with commas between them.
    Gpus,
}

/// The flags that were given, each with a value that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, String>,
    /// What stands behind the flags.
    pub(crate) rest: Vec<String>,
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Run(Given),
    Help,
    Version,
}

impl Given {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The names of all that was given.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.values.keys().copied()
    }

    /// Takes over a value from a place that counts less; what was given stays.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub(crate) fn add(&mut self, flag: &Flag, value: &str) -> Result<(), String> {
        let value = checked(flag, value)?;
        self.values.entry(flag.name).or_insert(value);
        Ok(())
    }

    fn set(&mut self, flag: &Flag, value: &str) -> Result<(), String> {
        let value = checked(flag, value)?;
        self.values.insert(flag.name, value);
        Ok(())
    }
}

/// Reads a line without its first word.
pub(crate) fn parse(flags: &[Flag], words: &[String]) -> Result<Parsed, String> {
    let mut given = Given::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let bare = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        let Some(bare) = bare.filter(|_| word != "-") else {
            // The first word that is no flag ends them.
            given.rest.push(word.clone());
            break;
        };
        if bare.is_empty() {
            break;
        }
        let (name, value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (bare, None),
        };
        let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
            return match name {
                "h" | "help" => Ok(Parsed::Help),
                "version" => Ok(Parsed::Version),
                name => Err(format!("flag provided but not defined: -{name}")),
            };
        };
        match (value, flag.kind) {
            (Some(value), _) => given.set(flag, value)?,
            (None, Kind::Switch) => given.set(flag, "true")?,
            (None, _) => {
                let value = words.next();
                let value = value.ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                given.set(flag, value)?;
            }
        }
    }
    given.rest.extend(words.cloned());
    Ok(Parsed::Run(given))
}

/// What `-h` shows.
pub(crate) fn usage(agent: &str, flags: &[Flag]) -> String {
    let mut text = format!("Usage of {agent}:\n");
    for Flag {
        name,
        kind,
        usual,
        help,
    } in flags
    {
        let value = match kind {
            Kind::Switch => "",
            Kind::Text | Kind::Gpus => " string",
            Kind::Number(..) => " int",
            Kind::Span => " duration",
        };
        // A string takes whatever is written.
        let _ = write!(text, "  -{name}{value}\n    \t{help}");
        if !usual.is_empty() {
            let _ = write!(text, " (default {usual})");
        }
        text.push('\n');
    }
    text
}

/// The value in its plain form, if it is one of its kind.
fn checked(flag: &Flag, value: &str) -> Result<String, String> {
    let wrong = |what: &str| format!("invalid value {value:?} for flag -{}: {what}", flag.name);
    match flag.kind {
        Kind::Text => Ok(value.to_owned()),
        Kind::Switch => match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true".to_owned()),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false".to_owned()),
            _ => Err(wrong("it is neither true nor false")),
        },
        Kind::Number(lowest, highest) => match value.parse::<u32>() {
            Ok(number) if (lowest..=highest).contains(&number) => Ok(number.to_string()),
            _ => Err(wrong(&format!(
                "it is no number from {lowest} to {highest}"
            ))),
        },
        Kind::Span => match span(value) {
            Some(span) if !span.is_zero() => Ok(value.to_owned()),
            _ => Err(wrong("it is no span of time such as 500ms, 10s or 1m30s")),
        },
        Kind::Gpus => match gpus(value) {
            Some(_) => Ok(value.to_owned()),
            None => Err(wrong("write all, one number, or numbers such as 0,1")),
        },
    }
}

/// A span as Go writes it: `300ms`, `1.5h`, `1m30s`. As there, the longest is that of 2^63 nanoseconds, 292 years.
pub(crate) fn span(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut is_empty = true;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, behind) = behind.split_at(letters.unwrap_or(behind.len()));
        seconds += number.parse::<f64>().ok()? * in_seconds(unit)?;
        rest = behind;
        is_empty = false;
    }
    if is_empty {
        return None;
    }
    let span = Duration::try_from_secs_f64(seconds).ok()?;
    (span.as_nanos() < 1 << 63).then_some(span)
}

fn in_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

/// The numbers of a GPU selector; an empty list stands for all.
pub(crate) fn gpus(text: &str) -> Option<Vec<u32>> {
    if text == "all" {
        return Some(Vec::new());
    }
    text.split(',').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 5] = [
        flag("name", Kind::Text),
        flag("on", Kind::Switch),
        flag("port", Kind::Number(1, 65_535)),
        flag("every", Kind::Span),
        flag("gpus", Kind::Gpus),
    ];

    const fn flag(name: &'static str, kind: Kind) -> Flag {
        Flag {
            name,
            kind,
            usual: "",
            help: "something",
        }
    }

    fn parsed(line: &str) -> Result<Parsed, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(&FLAGS, &words)
    }

    #[track_caller]
    fn given(line: &str) -> Given {
        match parsed(line) {
            Ok(Parsed::Run(given)) => given,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn one_dash_or_two_and_with_or_without_a_sign() {
        for line in [
            "-name a -port 7",
            "--name a --port 7",
            "-name=a --port=7",
            "-name b -name a -port 7",
        ] {
            let given = given(line);
            assert_eq!(
                (given.text("name"), given.text("port")),
                (Some("a"), Some("7")),
                "{line}"
            );
        }
        assert_eq!(given("-name=a=b").text("name"), Some("a=b"));
        assert_eq!(
            given("-name -on").text("name"),
            Some("-on"),
            "a value may look like a flag"
        );
    }

    #[test]
    fn a_switch_takes_no_word_of_its_own() {
        let given = given("-on -name a");
        assert_eq!(
            (given.text("on"), given.text("name")),
            (Some("true"), Some("a"))
        );
        assert_eq!(self::given("-on=F").text("on"), Some("false"));
        assert!(parsed("-on=maybe").is_err());
        assert_eq!(
            self::given("-on false -name a").rest,
            ["false", "-name", "a"]
        );
    }

    #[test]
    fn flags_end_at_the_first_word_that_is_none() {
        assert_eq!(given("-on start -name a").rest, ["start", "-name", "a"]);
        assert_eq!(given("-on -- -name a").rest, ["-name", "a"]);
        assert_eq!(given("- -on").rest, ["-", "-on"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("-nmae a", "not defined: -nmae"),
            ("-name", "needs an argument: -name"),
            ("-port 0", "for flag -port: it is no number from 1 to 65535"),
            ("-port x", "invalid value \"x\""),
            ("-every 10", "no span of time"),
            ("-every 0s", "no span of time"),
            ("-every -5s", "no span of time"),
            ("-gpus 0,", "write all"),
        ] {
            let wrong = parsed(line).unwrap_err();
            assert!(wrong.contains(part), "{line}: {wrong}");
        }
        for line in ["-h", "--help", "-on -h -nonsense"] {
            assert_eq!(parsed(line), Ok(Parsed::Help), "{line}");
        }
        assert_eq!(parsed("-version"), Ok(Parsed::Version));
    }

    #[test]
    fn spans_are_gos() {
        let millis = |text| span(text).map(|span| span.as_millis());
        assert_eq!(millis("10s"), Some(10_000));
        assert_eq!(millis("1m"), Some(60_000));
        assert_eq!(millis("1h30m5s"), Some(5_405_000));
        assert_eq!(millis("1.5s"), Some(1_500));
        assert_eq!(millis("250ms"), Some(250));
        assert_eq!(millis("0"), Some(0));
        assert_eq!(millis("2562047h"), Some(9_223_369_200_000));
        for wrong in [
            "",
            "s",
            "10",
            "1d",
            "1s2",
            "1..5s",
            "2562048h",
            "5000000000000000h",
            "999999999999999999999h",
        ] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn gpus_are_all_one_or_several() {
        assert_eq!(gpus("all"), Some(vec![]));
        assert_eq!(gpus("0"), Some(vec![0]));
        assert_eq!(gpus("0,1"), Some(vec![0, 1]));
        for wrong in ["", "a", "0,", "-1", "all,0"] {
            assert_eq!(gpus(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_counts_less_does_not_replace_what_was_given() {
        let mut given = given("-name a");
        given.add(&FLAGS[0], "b").unwrap();
        given.add(&FLAGS[2], "7").unwrap();
        assert!(given.add(&FLAGS[2], "70000").is_err());
        assert_eq!(
            (given.text("name"), given.text("port")),
            (Some("a"), Some("7"))
        );
    }

    #[test]
    fn usage_lists_every_flag_with_its_default() {
        let flags = [Flag {
            usual: "8000",
            ..flag("vllm-port", Kind::Number(1, 65_535))
        }];
        let text = usage("node-agent", &flags);
        assert_eq!(
            text,
            "Usage of node-agent:\n  -vllm-port int\n    \tsomething (default 8000)\n"
        );
    }
}
