//! Reading spec files: YAML or JSON, one or more documents, unknown keys refused with line and column.

use crate::spec::WorkloadSpec;
use crate::{Code, Refusal};

/// The largest spec text that is read, in bytes.
pub const MAX_SPEC_BYTES: usize = 1 << 20;

/// The largest spec that reaches a node, in bytes of its JSON: it travels in one message of the session.
pub const MAX_ENCODED_SPEC_BYTES: usize = 48 << 10;

/// Reads all documents of a text and checks each.
///
/// # Errors
/// `spec-invalid` with line and column for text that cannot be read, or with every finding of the first
/// spec that makes no sense; `body-too-large` beyond [`MAX_SPEC_BYTES`].
pub fn parse(text: &str) -> Result<Vec<WorkloadSpec>, Refusal> {
    if text.len() > MAX_SPEC_BYTES {
        let sentence = format!(
            "the spec has {} bytes; at most {MAX_SPEC_BYTES} are read",
            text.len()
        );
        return Err(Refusal::new(
            Code::BodyTooLarge,
            sentence,
            "split it into several files",
        ));
    }
    let specs: Vec<WorkloadSpec> = serde_saphyr::from_multiple(text).map_err(|e| unreadable(&e))?;
    if specs.is_empty() {
        return Err(refused("the text holds no spec"));
    }
    specs.iter().try_for_each(WorkloadSpec::check)?;
    specs.iter().try_for_each(check_travels)?;
    Ok(specs)
}

/// Reads a text that must hold exactly one spec.
///
/// # Errors
/// As [`parse`], and `spec-invalid` if there are several documents.
pub fn parse_one(text: &str) -> Result<WorkloadSpec, Refusal> {
    let mut specs = parse(text)?;
    match (specs.pop(), specs.len()) {
        (Some(spec), 0) => Ok(spec),
        (_, more) => Err(refused(&format!(
            "the text holds {} specs; one is expected",
            more + 1
        ))),
    }
}

/// Refuses a spec that is too large to reach a node.
///
/// # Errors
/// `body-too-large` beyond [`MAX_ENCODED_SPEC_BYTES`].
pub fn check_travels(spec: &WorkloadSpec) -> Result<(), Refusal> {
    let bytes = serde_json::to_vec(spec).map_or(usize::MAX, |json| json.len());
    if bytes <= MAX_ENCODED_SPEC_BYTES {
        return Ok(());
    }
    let sentence = format!(
        "the spec of `{}` has {bytes} bytes as JSON; at most {MAX_ENCODED_SPEC_BYTES} reach a node",
        spec.name
    );
    let advice = "keep large files on the node or in an image, and mount them";
    Err(Refusal::new(Code::BodyTooLarge, sentence, advice))
}

fn unreadable(error: &serde_saphyr::Error) -> Refusal {
    let told = error.without_snippet().to_string();
    let Some(at) = error.location() else {
        return refused(&plain(&told));
    };
    let place = format!("line {}, column {}", at.line(), at.column());
    // The reader names the place itself, at the end.
    let told = told.strip_suffix(&format!(" at {place}")).unwrap_or(&told);
    refused(&format!("{place}: {}", plain(told)))
}

/// What the reader says, in the words of whoever writes specs; what is not known here stays as it is.
fn plain(told: &str) -> String {
    let quoted = |text: &str| text.trim_matches(['`', '\'', '"']).to_owned();
    if let Some(rest) = told.strip_prefix("unknown field ") {
        let (key, keys) = rest.split_once(", expected ").unwrap_or((rest, ""));
        let keys = keys.strip_prefix("one of ").unwrap_or(keys);
        return format!("there is no key `{}` here, only {keys}", quoted(key));
    }
    if let Some(rest) = told.strip_prefix("missing field ") {
        return format!("the key `{}` is missing", quoted(rest));
    }
    if let Some(rest) = told.strip_prefix("duplicate mapping key: ") {
        let key = rest.split_once(", set ").map_or(rest, |(key, _)| key);
        return format!("the key `{key}` is there twice");
    }
    if let Some((found, wanted)) = told
        .strip_prefix("invalid type: ")
        .and_then(|rest| rest.split_once(", expected "))
    {
        let found = match found {
            "sequence" => "a list",
            "map" => "a section of keys and values",
            other => other,
        };
        return format!("{wanted} is expected here, not {found}");
    }
    if let Some(rest) = told.strip_prefix("mismatched bracket ") {
        let (open, close) = rest.split_once(" closed by ").unwrap_or((rest, ""));
        return format!("`{}` is closed by `{}`", quoted(open), quoted(close));
    }
    if let Some(rest) = told.strip_prefix("unclosed bracket ") {
        return format!("`{}` is not closed", quoted(rest));
    }
    if let Some(rest) = told.strip_prefix("unexpected character: ") {
        return format!(
            "`{}` cannot begin a value; put the value in quotes",
            quoted(rest)
        );
    }
    if let Some(number) = told.strip_prefix("invalid ").and_then(whole_number) {
        return format!("{number} is expected here");
    }
    let known = [
        (
            "expected mapping start",
            "keys with values are expected here, as `key: value`",
        ),
        (
            "expected sequence start",
            "a list is expected here, as `[one, two]`",
        ),
        ("expected string scalar", "a text is expected here"),
        (
            "tabs disallowed",
            "lines are indented with spaces, not with tabs",
        ),
        ("simple key expected", "the `:` behind the key is missing"),
        (
            "invalid indentation in multiline quoted",
            "a quote is not closed before this line",
        ),
        (
            "mapping values are not allowed",
            "a `:` makes no sense here; check the indentation, or put the value in quotes",
        ),
        (
            "alias references unknown anchor",
            "a value cannot begin with `*`; put it in quotes",
        ),
        (
            "cannot deserialize tagged",
            "a value cannot begin with `!`; put it in quotes",
        ),
    ];
    let found = known.iter().find(|(begin, _)| told.starts_with(begin));
    found.map_or(told, |(_, sentence)| sentence).to_owned()
}

/// A type of the program as a person knows it.
fn whole_number(kind: &str) -> Option<String> {
    let most = match kind {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" => u64::MAX,
        "i32" | "i64" => return Some("a whole number".to_owned()),
        _ => return None,
    };
    Some(format!("a whole number from 0 to {most}"))
}

fn refused(sentence: &str) -> Refusal {
    let advice = "docs/guide/specs.md lists every key; `hostler plan -f FILE` checks a file and changes nothing";
    Refusal::new(Code::SpecInvalid, sentence, advice)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::{Kind, Strategy};
    use crate::{Bytes, MilliCpu};

    const WEB: &str = r#"
name: web
count: 2
container:
  image: busybox:local
  command: [httpd, -f, -p, "8081"]
resources: { cpu: 250m, memory: 64MiB }
ports: [{ host: 8081 }]
placement: { strategy: pack, constraints: ["zone == eu-1", "!slow"] }
"#;

    #[test]
    fn a_spec_reads_from_yaml_and_from_its_own_json() {
        let spec = parse_one(WEB).unwrap();
        assert_eq!((spec.kind(), spec.count), (Kind::Container, 2));
        assert_eq!(spec.resources.cpu, MilliCpu(250));
        assert_eq!(spec.resources.memory, Bytes(64 << 20));
        assert_eq!(spec.placement.strategy, Strategy::Pack);
        let json = serde_json::to_string_pretty(&spec).unwrap();
        assert_eq!(parse_one(&json).unwrap(), spec);
    }

    #[test]
    fn an_unknown_key_is_refused_with_line_and_column() {
        let refusal = parse("name: web\ncontainer:\n  image: a\n  imge: b\n").unwrap_err();
        assert_eq!(refusal.code, Code::SpecInvalid);
        assert!(
            refusal.sentence.contains("line 4, column 3"),
            "{}",
            refusal.sentence
        );
        assert!(refusal.sentence.contains("imge"), "{}", refusal.sentence);
        let json = parse("{\"name\": \"web\",\n \"cuont\": 1}").unwrap_err();
        assert!(
            json.sentence.contains("line 2, column 2"),
            "{}",
            json.sentence
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_in_plain_words_with_one_place() {
        const REST: &str = "process: {command: [x]}\n";
        for (text, expected) in [
            (
                "count: many\n",
                "1, column 8: a whole number from 0 to 4294967295 is expected here",
            ),
            (
                "ports: [{host: 99999}]\n",
                "1, column 16: a whole number from 0 to 65535 is expected here",
            ),
            (
                "restart: {polcy: no}\n",
                "1, column 11: there is no key `polcy` here, only policy, delay_ms, max_delay_ms, retries",
            ),
            (
                "stop:\n\tsignal: x\n",
                "2, column 2: lines are indented with spaces, not with tabs",
            ),
            (
                "count: 1\nstop\n  signal: x\n",
                "2, column 1: the `:` behind the key is missing",
            ),
            (
                "stop x\n",
                "1, column 1: keys with values are expected here, as `key: value`",
            ),
            (
                "count: 1\ncount: 2\n",
                "2, column 1: the key `count` is there twice",
            ),
            (
                "- name: web\n",
                "1, column 1: keys with values are expected here, as `key: value`",
            ),
            (
                "hello",
                "1, column 1: keys with values are expected here, as `key: value`",
            ),
            (
                "name: 'web\n",
                "2, column 1: a quote is not closed before this line",
            ),
            ("ports: [{host: 1]\n", "1, column 9: `{` is closed by `]`"),
            ("{", "1, column 1: `{` is not closed"),
            (
                "process: {command: x}\n",
                "1, column 20: a list is expected here, as `[one, two]`",
            ),
            (
                "process: {}\n",
                "1, column 10: the key `command` is missing",
            ),
            (
                "name: @web\n",
                "1, column 7: `@` cannot begin a value; put the value in quotes",
            ),
            (
                "name: *web\n",
                "1, column 7: a value cannot begin with `*`; put it in quotes",
            ),
            (
                "resources: {cpu: [1]}\n",
                "1, column 13: an amount of cpu such as `500m` or `2` is expected here, not a list",
            ),
            (
                "name: web: x\n",
                "1, column 10: a `:` makes no sense here; check the indentation, or put the value in quotes",
            ),
        ] {
            let refusal = parse(&format!(
                "{text}{}",
                if text.ends_with('\n') { REST } else { "" }
            ))
            .unwrap_err();
            assert_eq!(refusal.sentence, format!("line {expected}"), "{text:?}");
            assert!(!refusal.advice.is_empty());
        }
        for empty in ["", "# nothing\n", "---\n---\n", "null"] {
            assert_eq!(parse(empty).unwrap_err().sentence, "the text holds no spec");
        }
    }

    #[test]
    fn every_finding_is_named_at_once() {
        let refusal = parse("name: Web!\nports: [{host: 0}]\nstop: {signal: KILL}\n").unwrap_err();
        assert_eq!(refusal.details.len(), 4, "{:?}", refusal.details);
    }

    #[test]
    fn memory_in_which_nothing_starts_is_refused() {
        for (memory, is_fine) in [("0", true), ("5", false), ("100KiB", false), ("1MiB", true)] {
            let text =
                format!("name: x\nprocess: {{command: [a]}}\nresources: {{memory: {memory}}}\n");
            assert_eq!(parse(&text).is_ok(), is_fine, "{memory}");
        }
    }

    #[test]
    fn several_documents_are_several_specs() {
        let text = "name: a\nprocess: {command: [x]}\n---\nname: b\nprocess: {command: [y]}\n";
        let names: Vec<_> = parse(text)
            .unwrap()
            .into_iter()
            .map(|spec| spec.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert!(parse_one(text).is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn every_kind_parses() {
        for text in [
            "process: {command: [a]}",
            "container: {image: a}",
            "compose: {file: 'services: {}'}",
            "vm: {image: /a.qcow2}",
            "job: {command: [a]}",
            "model: {name: a, engine: vllm}",
        ] {
            let spec = parse_one(&format!("name: x\n{text}\n")).unwrap();
            assert!(text.starts_with(spec.kind().as_str()), "{text}");
        }
    }

    #[test]
    fn compose_projects_and_machines_are_checked_part_by_part() {
        for (text, finding) in [
            ("compose: {}", "neither `file` nor `base64` nor `git`"),
            ("compose: {file: x, git: {repo: y}}", "exclude each other"),
            ("compose: {file: x, base64: eA==}", "exclude each other"),
            ("compose: {base64: '%'}", "compose.base64"),
            ("compose: {base64: /w==}", "no text in UTF-8"),
            ("compose: {git: {repo: ' '}}", "git.repo"),
            ("compose: {git: {repo: --upload-pack=x}}", "git.repo"),
            ("compose: {git: {repo: r, ref: -x}}", "git.ref"),
            ("compose: {git: {repo: r, path: ../x}}", "git.path"),
            ("compose: {git: {repo: r, path: /x}}", "git.path"),
            (
                "compose: {git: {repo: 'https://h/r', token_file: x}}",
                "no absolute path",
            ),
            (
                "compose: {git: {repo: 'ssh://h/r', token_file: /x}}",
                "only http",
            ),
            ("compose: {file: x}\nenv: {LD_PRELOAD: x}", "`LD_PRELOAD`"),
            ("compose: {file: x}\nenv: {docker_host: x}", "`docker_host`"),
            ("compose: {file: x}\nlimits: {pids: 3}", "limits"),
            ("vm: {}", "neither `image` nor `disks`"),
            ("vm: {image: /a, cpus: 0}", "vm.cpus"),
            ("vm: {disks: [{target: vda}, {target: vda}]}", "named twice"),
            ("vm: {image: /a, networks: [{ip: nowhere}]}", "no address"),
            ("vm: {image: /a, cloud_init: {user_data: \"a\\0\"}}", "NUL"),
            (
                "container: {image: a, volumes: [{name: v, driver: tape, target: /v}]}",
                "`tape` is none of local, nfs, ceph-rbd",
            ),
            (
                "container: {image: a, volumes: [{name: v, target: v}]}",
                "no absolute path",
            ),
            (
                "vm: {image: /a, volumes: [{name: v, target: /v}, {name: v, target: /w}]}",
                "given twice",
            ),
        ] {
            let refused = parse_one(&format!("name: x\n{text}\n")).unwrap_err();
            assert!(refused.sentence.contains(finding), "{text}: {refused}");
        }
        let full = "name: x\nvm:\n  disks: [{pool: fast, size: 10GiB, target: vda}]\n  \
            networks: [{bridge: br0, dhcp: true}, {bridge: br1, ip: 10.0.0.5/24}]\n  cloud_init: {user_data: hi}\n";
        let spec = parse_one(full).unwrap();
        let again = parse_one(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(spec, again);
        let container = "name: x\ncontainer: {image: a, privileged: true}\n";
        assert!(parse_one(container).unwrap().container.unwrap().privileged);
    }

    #[test]
    fn wrong_types_and_oversize_text_are_refused() {
        for text in [
            "[]",
            "name: 1\nprocess: {command: a}",
            "name: x\ncount: -1",
            "\u{0}",
            "name: [x",
        ] {
            assert_eq!(parse(text).unwrap_err().code, Code::SpecInvalid, "{text}");
        }
        let huge = format!("name: x # {}", "x".repeat(MAX_SPEC_BYTES));
        assert_eq!(parse(&huge).unwrap_err().code, Code::BodyTooLarge);
        let heavy = format!(
            "name: x\nprocess: {{command: [a]}}\nenv: {{A: {}}}",
            "x".repeat(50_000)
        );
        assert_eq!(parse(&heavy).unwrap_err().code, Code::BodyTooLarge);
    }

    #[test]
    fn only_what_changes_a_copy_changes_the_template() {
        let spec = parse_one(WEB).unwrap();
        let mut more = spec.clone();
        more.count = 9;
        more.placement = crate::spec::Placement::default();
        assert!(spec.same_template(&more));
        more.env.insert("A".to_owned(), "b".to_owned());
        assert!(!spec.same_template(&more));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[ -~\n]{0,200}") {
            let _ = parse(&text);
        }
    }
}
