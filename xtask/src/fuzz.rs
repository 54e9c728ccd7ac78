//! `fuzz`: builds the targets of fuzz/ with a nightly compiler that counts which branches an input takes, and
//! runs each for a while. A finding is a file below fuzz/artifacts; the target run with that file repeats it, unless
//! it needs what other inputs left behind. The corpus below fuzz/corpus begins with the requests of fuzz/seeds.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tree;

const TARGETS: [&str; 7] = ["agent", "grpc", "http", "line", "spec", "trust", "uplink"];

/// What libFuzzer needs of the compiler: counters on every edge, and a table of where they are.
const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions";

/// Seconds for each target in a night.
const NIGHT: u32 = 1800;
/// Seconds after which an input that is not done is a finding, and megabytes that the whole may take.
const LIMITS: [&str; 3] = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=4096"];

/// Runs the named targets, or all, for so many seconds each. All run, whatever one finds.
pub(crate) fn main(targets: &[String], seconds: u32) -> Result<()> {
    for named in targets {
        let known = TARGETS.join(", ");
        ensure!(
            TARGETS.contains(&named.as_str()),
            "there is no target {named}, only {known}"
        );
    }
    let fuzz = tree::root().join("fuzz");
    let host = host()?;
    build(&fuzz, &host)?;
    let programs = fuzz.join("target").join(&host).join("release");
    let chosen = TARGETS
        .iter()
        .filter(|target| targets.is_empty() || targets.iter().any(|named| named == *target));
    let mut found = Vec::new();
    for target in chosen {
        println!("fuzzing {target} for {seconds} s");
        if !run(&fuzz, &programs.join(target), target, seconds)? {
            found.push(*target);
        }
    }
    let found = found.join(", ");
    ensure!(
        found.is_empty(),
        "found something: {found}; see fuzz/artifacts"
    );
    Ok(())
}

/// All targets as long as in a night, if there is a compiler for them.
pub(crate) fn nightly() -> Result<()> {
    if has_nightly() {
        return main(&[], NIGHT);
    }
    println!("left out: the fuzz targets, for there is no nightly compiler");
    Ok(())
}

fn has_nightly() -> bool {
    let mut asked = Command::new("cargo");
    asked.args(["+nightly", "--version"]);
    // As cargo sets them for its own children, they would name another compiler.
    let asked = asked.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    asked.output().is_ok_and(|it| it.status.success())
}

/// Builds all targets. With a host named, build scripts and macros are left as they are.
fn build(fuzz: &Path, host: &str) -> Result<()> {
    ensure!(
        has_nightly(),
        "there is no nightly compiler: `rustup toolchain install nightly --profile minimal` brings one"
    );
    let status = Command::new("cargo")
        .args([
            "+nightly",
            "build",
            "--release",
            "--locked",
            "--target",
            host,
        ])
        .env("RUSTFLAGS", INSTRUMENTED)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .current_dir(fuzz)
        .status()
        .context("run cargo")?;
    ensure!(
        status.success(),
        "the targets do not build; if libfuzzer-sys does not, a C++ compiler is missing"
    );
    Ok(())
}

/// Runs one target; answers whether nothing was found.
fn run(fuzz: &Path, program: &Path, target: &str, seconds: u32) -> Result<bool> {
    let corpus = fuzz.join("corpus").join(target);
    let findings = fuzz.join("artifacts").join(target);
    std::fs::create_dir_all(&findings)?;
    sow(&fuzz.join("seeds").join(format!("{target}.txt")), &corpus)?;
    let status = Command::new(program)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg("-print_final_stats=1")
        .args(LIMITS)
        .arg(&corpus)
        .status()
        .with_context(|| format!("run {target}"))?;
    Ok(status.success())
}

/// Puts each seed of the file, which lines `%%` part, among the inputs that were kept.
fn sow(seeds: &Path, corpus: &Path) -> Result<()> {
    std::fs::create_dir_all(corpus)?;
    let text = std::fs::read_to_string(seeds).with_context(|| tree::shown(seeds))?;
    for (at, seed) in text.split("\n%%\n").enumerate() {
        let seed = seed.strip_suffix('\n').unwrap_or(seed);
        std::fs::write(corpus.join(format!("seed-{at}")), seed)?;
    }
    Ok(())
}

/// This machine, as rustc names it.
fn host() -> Result<String> {
    let text = tree::output(Command::new("rustc").args(["-vV"]))?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc names its host")?.to_owned())
}
