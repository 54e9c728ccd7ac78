//! The transcripts of `docs/guide`, run against a real `hostler up`.
//!
//! A fence ```` ```console ```` holds commands after `$ ` and, below each, what it says on both streams.
//! `? 3` as the last line is its exit code, 0 if left out. `[..]` stands for any text within a line, a line
//! `...` for any lines. A fence ```` ```yaml web.yaml ```` is written to that file first. Each page has a
//! fleet of its own; its commands run in order, in one directory. A page that needs more than a machine alone has is
//! played section by section by the test that has the rest.
//!
//! A busy machine makes no page untrue: a command that only looks is repeated until it says what the page has, and lines
//! that tell how far a wait has come may stand before what it ends with.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Ended, Running, comes, end_units, hostler};

/// Commands that change nothing, of those that show what is a moment away.
const LOOKS: [&str; 9] = [
    "sleep 1; hostler logs ",
    "hostler events ",
    "hostler job logs ",
    "hostler job ls",
    "hostler logs ",
    "hostler node ls",
    "hostler ps",
    "hostler status ",
    "hostler why ",
];

#[test]
fn the_page_on_the_command_line_is_true() {
    check("cli.md");
}

#[test]
fn the_page_on_specs_is_true() {
    check("specs.md");
}

#[test]
fn the_page_on_jobs_is_true() {
    check("jobs.md");
}

#[test]
fn the_page_on_configuration_is_true() {
    check("config.md");
}

#[test]
fn the_page_on_exit_codes_is_true() {
    check("exit-codes.md");
}

#[test]
fn the_page_on_what_is_done_inside_a_copy_is_true() {
    check("exec.md");
}

#[test]
fn the_page_on_rollouts_is_true() {
    check("rollouts.md");
}

#[test]
fn the_page_on_secrets_is_true() {
    check("secrets.md");
}

/// One fence of a page.
struct Fence {
    /// The heading that it stands below.
    section: String,
    /// What stands behind the three backticks.
    info: String,
    line: usize,
    text: String,
}

/// One command with what it is to say.
struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
    code: i32,
}

struct Page {
    directory: tempfile::TempDir,
    addr: String,
    up: Running,
}

fn check(name: &str) {
    let page = Page::start();
    let place = page.place();
    for fence in fences(&read(name)) {
        place.follow(name, &fence);
    }
}

fn read(name: &str) -> String {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide");
    std::fs::read_to_string(guide.join(name)).unwrap()
}

/// Where the commands of a page run, and which server they talk to.
pub(crate) struct Place<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) addr: &'a str,
}

impl Place<'_> {
    /// Plays one section of a page.
    pub(crate) fn play(&self, page: &str, section: &str) {
        let mut fences = fences(&read(page));
        fences.retain(|fence| fence.section == section);
        assert!(!fences.is_empty(), "{page} has a section `{section}`");
        fences.iter().for_each(|fence| self.follow(page, fence));
    }

    fn follow(&self, page: &str, fence: &Fence) {
        let mut info = fence.info.split(' ');
        match (info.next(), info.next()) {
            (Some("console"), _) => steps(fence).iter().for_each(|step| self.step(page, step)),
            (Some(_), Some(file)) => {
                std::fs::write(self.directory.join(file), &fence.text).unwrap();
            }
            _ => {}
        }
    }
}

fn fences(text: &str) -> Vec<Fence> {
    let mut fences = Vec::new();
    let mut open: Option<Fence> = None;
    let mut section = String::new();
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => fences.extend(open.take()),
            (Some(info), None) => {
                open = Some(Fence {
                    section: section.clone(),
                    info: info.to_owned(),
                    line: number + 1,
                    text: String::new(),
                });
            }
            (None, Some(fence)) => {
                fence.text.push_str(line);
                fence.text.push('\n');
            }
            (None, None) => {
                if let Some(heading) = line.strip_prefix("## ") {
                    heading.clone_into(&mut section);
                }
            }
        }
    }
    fences
}

fn steps(fence: &Fence) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in fence.text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            let step = Step {
                line: fence.line + number + 1,
                command: command.to_owned(),
                expected: Vec::new(),
                code: 0,
            };
            steps.push(step);
            continue;
        }
        let step = steps.last_mut().expect("a console begins with a command");
        match line.strip_prefix("? ") {
            Some(code) => step.code = code.parse().unwrap(),
            None => step.expected.push(line.to_owned()),
        }
    }
    steps
}

impl Page {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = hostler(directory.path());
        command.args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--name",
            "box",
            "--docker-socket",
            "/nonexistent/sock",
        ]);
        let mut up = Running::start(command.arg("--data-dir").arg(directory.path().join("data")));
        up.line("the API is at");
        let addr = up.line("listening on ").replace("listening on ", "");
        Self {
            directory,
            addr,
            up,
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            directory: self.directory.path(),
            addr: &self.addr,
        }
    }
}

impl Place<'_> {
    fn step(&self, page: &str, step: &Step) {
        let Step { line, command, .. } = step;
        let mut ended = self.run(command);
        let only_looks = LOOKS.iter().any(|start| command.starts_with(start));
        if only_looks && !step.is_told_by(&ended) {
            comes(|| {
                ended = self.run(command);
                step.is_told_by(&ended)
            });
        }
        assert!(
            step.is_told_by(&ended),
            "docs/guide/{page}:{line}: `{command}` says ({:?}):\n{}",
            ended.code,
            ended.stdout
        );
    }

    /// Both streams are in its stdout.
    fn run(&self, command: &str) -> Ended {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_hostler"));
        let path = format!(
            "{}:/usr/local/bin:/usr/bin:/bin",
            program.parent().unwrap().display()
        );
        let mut shell = Command::new("bash");
        shell
            .env_clear()
            .env("PATH", path)
            .env("HOSTLER_ADDR", self.addr)
            .env("NO_COLOR", "1");
        shell
            .env("HOME", self.directory)
            .current_dir(self.directory);
        shell
            .arg("-c")
            .arg(format!("exec 2>&1 </dev/null\n{command}"))
            .output()
            .unwrap()
            .into()
    }
}

impl Step {
    fn is_told_by(&self, ended: &Ended) -> bool {
        let lines: Vec<&str> = ended.stdout.lines().map(str::trim_end).collect();
        let expected: Vec<&str> = self.expected.iter().map(|line| line.trim_end()).collect();
        fits(&expected, &lines) && ended.code == Some(self.code)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.up.terminate();
        end_units(self.directory.path());
    }
}

fn fits(expected: &[&str], lines: &[&str]) -> bool {
    match (expected, lines) {
        ([], []) => true,
        (["..."], _) => true,
        (["...", rest @ ..], _) => (0..=lines.len()).any(|skipped| fits(rest, &lines[skipped..])),
        ([first, rest @ ..], [line, more @ ..]) => {
            line_fits(first, line) && fits(rest, more)
                || tells_how_far(line) && fits(expected, more)
        }
        _ => false,
    }
}

/// What a wait that takes longer than usual says meanwhile.
fn tells_how_far(line: &str) -> bool {
    let is_counted = line.contains(" of ") && line.contains(" running");
    let parts = [
        ": rolling out revision ",
        " not gone yet",
        " are still to go",
    ];
    is_counted || parts.iter().any(|part| line.contains(part))
}

fn line_fits(expected: &str, line: &str) -> bool {
    let mut parts = expected.split("[..]");
    let Some(mut left) = parts.next().and_then(|head| line.strip_prefix(head)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return left.is_empty();
    };
    for part in middle {
        match left.split_once(part) {
            Some((_, rest)) => left = rest,
            None => return false,
        }
    }
    left.ends_with(last)
}

#[test]
fn wildcards_stand_for_text_and_lines() {
    assert!(line_fits("a[..]c", "abbc") && line_fits("[..]", "") && !line_fits("a[..]c", "abb"));
    assert!(fits(&["a", "...", "z"], &["a", "b", "c", "z"]) && !fits(&["a"], &["a", "b"]));
    let ended = "web: running on box";
    assert!(fits(&[ended], &["web: 0 of 1 running", ended]) && !fits(&[ended], &["web", ended]));
}
