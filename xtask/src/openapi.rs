//! `openapi`: the committed description of the REST API is what the binary prints.

use anyhow::{Context, Result};

use crate::tree::{self, Mode};

/// Writes or compares `docs/openapi.json`.
pub(crate) fn main(mode: Mode) -> Result<()> {
    let text = tree::output(&mut tree::cargo(&[
        "run",
        "--quiet",
        "--package",
        "hostler",
        "--",
        "openapi",
    ]))
    .context("print the description with `hostler openapi`")?;
    let text = format!("{}\n", text.trim_end());
    tree::settle(
        &tree::root().join("docs/openapi.json"),
        &text,
        mode,
        "openapi",
    )
}
