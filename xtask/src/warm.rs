//! `warm`: writes crates/hostler/warm.txt, the functions that an idle agent calls, which the linker of a release lays
//! side by side. An emulator runs the agent: it reads a piece of the program when that is called for the first time, and
//! notes the function that it is of. Where the program chooses by processor, that is the one the emulator is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::build;
use crate::link;
use crate::tree::{self, Mode};

const EMULATOR: &str = "qemu-x86_64";
/// How long the agent is left alone: some beats, at the pace of the emulator.
const IDLE: Duration = Duration::from_secs(40);
/// What copies of a function may hold that are not called, for each that is.
const COLD_FOR_EACH: u64 = 32 << 10;
/// Between looks whether the server listens.
const PAUSE: Duration = Duration::from_millis(100);
const LOOKS: u32 = 100;

/// Builds a release with names, runs an agent of it and writes the list.
pub(crate) fn main() -> Result<()> {
    ensure!(
        link::IS_KNOWN,
        "a release of this machine is linked without the list"
    );
    ensure!(
        Command::new(EMULATOR).arg("--version").output().is_ok(),
        "there is no {EMULATOR}: Debian and Ubuntu have it in the package qemu-user"
    );
    let program = build::with_names()?;
    let notes = notes(&program)?;
    let symbols = tree::output(Command::new("nm").arg("--print-size").arg(&program))?;
    let warm = warm(&functions(&symbols), &called(&notes));
    let path = tree::root().join("crates/hostler/warm.txt");
    let present = std::fs::read_to_string(&path).with_context(|| tree::shown(&path))?;
    let head = present.lines().filter(|line| line.starts_with('#'));
    let lines: Vec<&str> = head.chain(warm.keys().map(String::as_str)).collect();
    tree::settle(&path, lines.join("\n") + "\n", Mode::Write, "warm")?;
    let bytes: u64 = warm.values().map(|it| it.bytes).sum();
    println!("{} names, {} KiB", warm.len(), bytes >> 10);
    Ok(())
}

/// An agent joins an empty server, asks its drivers, beats and stops; answers what the emulator noted.
fn notes(program: &Path) -> Result<String> {
    let home = tempfile::tempdir()?;
    let (home, notes) = (home.path(), home.path().join("notes"));
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let words = ["server", "--insecure", "--listen", &address];
    let _server = Started::new(Command::new(program).args(words), home, "server")?;
    let is_there = (0..LOOKS).any(|_| {
        std::thread::sleep(PAUSE);
        TcpStream::connect(&address).is_ok()
    });
    ensure!(is_there, "the server does not listen");
    let mut agent = Command::new(EMULATOR);
    agent.args(["-cpu", "max", "-d", "in_asm", "-D"]);
    agent.arg(&notes).arg(program);
    agent.args(["agent", "--server", &format!("http://{address}")]);
    let mut agent = Started::new(&mut agent, home, "agent")?;
    std::thread::sleep(IDLE);
    kill_process(Pid::from_child(&agent.0), Signal::TERM)?;
    let status = agent.0.wait()?;
    let said = std::fs::read_to_string(home.join("agent.log"))?;
    ensure!(
        status.success() && said.contains("joined as"),
        "the agent did not join and stop ({status}): {said}"
    );
    std::fs::read_to_string(&notes).context("read what the emulator noted")
}

/// A program with nothing but a home of its own, which ends with us.
struct Started(Child);

impl Started {
    fn new(command: &mut Command, home: &Path, name: &str) -> Result<Self> {
        let log = File::create(home.join(format!("{name}.log")))?;
        let command = command.arg("--data-dir").arg(home.join(name)).env_clear();
        let command = command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let command = command.env("HOME", home).stdout(log.try_clone()?);
        let child = command.stderr(log).spawn();
        child.map(Self).with_context(|| format!("run the {name}"))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The functions of which a piece was read.
fn called(notes: &str) -> BTreeSet<&str> {
    let names = notes.lines().filter_map(|line| line.strip_prefix("IN: "));
    names.filter(|name| !name.is_empty()).collect()
}

/// What nm lists: where each function is, how long, and its name.
fn functions(symbols: &str) -> Vec<(u64, u64, &str)> {
    let fields = symbols.lines().map(|line| line.split(' ').collect());
    let functions = fields.filter_map(|fields: Vec<&str>| match *fields {
        [place, size, "t" | "T", name] => Some((hex(place)?, hex(size)?, name)),
        _ => None,
    });
    functions.collect()
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// The copies of one function, which differ in their types or in the crate that they are for.
#[derive(Default)]
struct Copies {
    called: u64,
    cold: u64,
    bytes: u64,
}

/// The bare names of what is called. A name of which too much is not called is left out: all copies would go with the
/// few.
fn warm(functions: &[(u64, u64, &str)], called: &BTreeSet<&str>) -> BTreeMap<String, Copies> {
    // Equal functions have one place and several names, of which the emulator says one.
    let is_called = functions.iter().filter(|it| called.contains(it.2));
    let called: BTreeSet<u64> = is_called.map(|it| it.0).collect();
    let mut names: BTreeMap<String, Copies> = BTreeMap::new();
    // What is not Rust is in sections of other names.
    let is_rust = |name: &str| name.starts_with("_ZN") || name.starts_with("_R");
    for (place, size, name) in functions.iter().filter(|it| is_rust(it.2)) {
        let copies = names.entry(bare(name)).or_default();
        let is_called = called.contains(place);
        copies.called += u64::from(is_called);
        copies.cold += if is_called { 0 } else { *size };
        copies.bytes += size;
    }
    names.retain(|_, it| it.called > 0 && it.cold <= it.called * COLD_FOR_EACH);
    names
}

/// A name without the hashes that differ from build to build. The older way to spell names ends in one, the newer has
/// one in the name of each crate.
fn bare(name: &str) -> String {
    if name.starts_with("_ZN") {
        let mut hashes = name.match_indices("17h").map(|(at, _)| at);
        let hash = hashes.find(|at| is_end(&name[at + 3..]));
        return name[..hash.unwrap_or(name.len())].to_owned();
    }
    let (mut rest, _) = name.split_once(".llvm.").unwrap_or((name, ""));
    let mut bare = String::new();
    while let Some((before, after)) = rest.split_once("Cs") {
        bare += before;
        let hash = after.split_once('_');
        let hash = hash.filter(|(it, _)| it.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        bare += hash.map_or("Cs", |_| "Cs*_");
        rest = hash.map_or(after, |(_, rest)| rest);
    }
    bare + rest
}

/// Whether this is a hash and the end of an older name, or what a compiler adds to it.
fn is_end(text: &str) -> bool {
    let (hash, end) = text.split_once('E').unwrap_or_default();
    hash.len() == 16 && hex(hash).is_some() && (end.is_empty() || end.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_hashes() {
        let pairs = [
            ("_ZN4core3fmt17h0123456789abcdefE", "_ZN4core3fmt"),
            ("_ZN4core3fmt17h0123456789abcdefE.llvm.12", "_ZN4core3fmt"),
            ("_ZN17house3fmt17h0123456789abcdefE", "_ZN17house3fmt"),
            ("_RNvCsgEmfK2_3std3fmt.llvm.12", "_RNvCs*_3std3fmt"),
            ("_RNvCsaCsb_3stdCs1_4core", "_RNvCs*_3stdCs*_4core"),
            ("_RNv5Cs.x_3std", "_RNv5Cs.x_3std"),
        ];
        for (name, expected) in pairs {
            assert_eq!(bare(name), expected);
        }
    }

    #[test]
    fn what_is_called_is_listed_unless_most_copies_are_not() {
        let symbols = "0000000000000010 0000000000000008 t _RNvCsa_4both\n\
            0000000000000010 0000000000000008 T _RNvCsa_5alias\n\
            0000000000000020 0000000000000004 t _RNvCsb_4both\n\
            0000000000000030 0000000000000004 t _RNvCsa_3few\n\
            0000000000000040 0000000000008001 t _RNvCsb_3few\n\
            0000000000010000 0000000000000004 t _RNvCsa_4cold\n\
            0000000000010010 0000000000000004 t in_c\n\
            0000000000010020 0000000000000004 d _RNvCsa_4data\n\
                             U _RNvCsa_7foreign\n";
        let notes = "IN: _RNvCsa_5alias\n0x4000000010: ret\n\nIN: \nIN: in_c\nIN: _RNvCsa_3few\n";
        let warm = warm(&functions(symbols), &called(notes));
        let bytes: Vec<_> = warm
            .iter()
            .map(|(name, it)| (name.as_str(), it.bytes))
            .collect();
        assert_eq!(bytes, [("_RNvCs*_4both", 12), ("_RNvCs*_5alias", 8)]);
    }
}
