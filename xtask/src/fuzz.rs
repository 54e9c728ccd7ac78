//! `fuzz`: builds the targets of fuzz/ with a nightly compiler that counts which branches an input takes, and
//! runs each for a while. A finding is a file below fuzz/artifacts; the target run with that file repeats it.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tree;

pub(crate) const TARGETS: [&str; 3] = ["grpc", "http", "spec"];

/// What libFuzzer needs of the compiler: counters on every edge, and a table of where they are.
const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions";

/// Runs the named targets, or all, for so many seconds each.
pub(crate) fn main(targets: &[String], seconds: u32) -> Result<()> {
    let fuzz = tree::root().join("fuzz");
    // With a target named, build scripts and macros are left as they are.
    let host = host()?;
    let status = Command::new("cargo")
        .args([
            "+nightly",
            "build",
            "--release",
            "--locked",
            "--target",
            &host,
        ])
        .env("RUSTFLAGS", INSTRUMENTED)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .current_dir(&fuzz)
        .status()
        .context("run cargo")?;
    ensure!(
        status.success(),
        "the targets do not build: they need `rustup toolchain install nightly` and a C++ compiler"
    );
    let chosen = TARGETS
        .iter()
        .filter(|target| targets.is_empty() || targets.iter().any(|named| named == *target));
    for target in chosen {
        let corpus = fuzz.join("corpus").join(target);
        let findings = fuzz.join("artifacts").join(target);
        std::fs::create_dir_all(&corpus)?;
        std::fs::create_dir_all(&findings)?;
        println!("fuzzing {target} for {seconds} s");
        let status = Command::new(fuzz.join("target").join(&host).join("release").join(target))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            .args(["-print_final_stats=1", "-timeout=20"])
            .arg(&corpus)
            .status()
            .with_context(|| format!("run {target}"))?;
        ensure!(
            status.success(),
            "{target} found something: see {}",
            tree::shown(&findings)
        );
    }
    Ok(())
}

/// This machine, as rustc names it.
fn host() -> Result<String> {
    let text = tree::output(Command::new("rustc").args(["-vV"]))?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc names its host")?.to_owned())
}
