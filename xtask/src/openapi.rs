//! `openapi`: the committed description of the REST API, which the program serves, is what its handlers say.

use std::process::Command;

use anyhow::{Context, Result};

use crate::build;
use crate::tree::{self, Mode};

/// Writes or compares `docs/openapi.json`.
pub(crate) fn main(mode: Mode) -> Result<()> {
    // For the whole workspace, so that everything below is what the tests are built of, too.
    let words = ["build", "--quiet", "--workspace", "--example", "openapi"];
    tree::output(&mut tree::cargo(&words)).context("build what makes the description")?;
    let maker = build::target()?.join("debug/examples/openapi");
    let text = tree::output(&mut Command::new(maker)).context("make the description")?;
    tree::settle(
        &tree::root().join("docs/openapi.json"),
        format!("{}\n", text.trim_end()),
        mode,
        "openapi",
    )
}
