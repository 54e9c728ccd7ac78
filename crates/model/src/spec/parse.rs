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
    specs.iter().try_for_each(travels)?;
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

fn travels(spec: &WorkloadSpec) -> Result<(), Refusal> {
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
    let plain = error.without_snippet();
    match error.location() {
        Some(at) => refused(&format!(
            "line {}, column {}: {plain}",
            at.line(),
            at.column()
        )),
        None => refused(&plain.to_string()),
    }
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
