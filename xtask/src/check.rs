//! `check`: what must hold before the tests. Every step runs, so that one look shows all that is wrong.

use anyhow::{Context, Result, bail, ensure};

use crate::tree::{self, Mode};
use crate::{arch, contracts, openapi, proto, size};

type Step = (&'static str, fn() -> Result<()>);

/// The quick ones first.
const STEPS: [Step; 8] = [
    ("fmt", fmt),
    ("arch", arch::main),
    ("size", size::main),
    ("contracts", contracts::main),
    ("proto", || proto::main(Mode::Check)),
    ("clippy", clippy),
    ("openapi", || openapi::main(Mode::Check)),
    ("doc", doc),
];

/// Runs all steps and names those that failed.
pub(crate) fn main() -> Result<()> {
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        println!("== {name}");
        if let Err(error) = step() {
            println!("{name} failed: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        println!("== all {} checks passed", STEPS.len());
        return Ok(());
    }
    bail!("failed checks: {}", failed.join(", "))
}

fn fmt() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], "")
}

fn clippy() -> Result<()> {
    cargo(
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--keep-going",
            "--quiet",
            "--",
            "--deny",
            "warnings",
        ],
        "",
    )
}

fn doc() -> Result<()> {
    cargo(
        &[
            "doc",
            "--workspace",
            "--no-deps",
            "--keep-going",
            "--document-private-items",
            "--quiet",
        ],
        "--deny warnings --allow rustdoc::private_intra_doc_links",
    )
}

fn cargo(arguments: &[&str], rustdoc: &str) -> Result<()> {
    let mut command = tree::cargo(arguments);
    if !rustdoc.is_empty() {
        command.env("RUSTDOCFLAGS", rustdoc);
    }
    let status = command.status().context("run cargo")?;
    ensure!(status.success(), "cargo {}: {status}", arguments[0]);
    Ok(())
}
