//! What the linker of a release is told beside what rustc tells it, so that an agent reads less of the program. Builds for
//! trying are linked as rustc does it.
//!
//! It is for this machine's program under glibc alone; a static one is linked by zig, which takes none of it.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cross::Target;
use crate::tree;

/// The functions that an idle agent has called.
const WARM: &str = include_str!("../../crates/hostler/warm.txt");

/// Whether rustc brings the linker here, so that it is known to take a script.
pub(crate) const IS_KNOWN: bool = cfg!(all(
    target_arch = "x86_64",
    target_os = "linux",
    target_env = "gnu"
));

/// Words for rustc about the large program of a release, which is built into that folder.
pub(crate) fn words(target: Option<Target>, folder: &Path) -> Result<Vec<String>> {
    if target.is_some() || !IS_KNOWN {
        return Ok(Vec::new());
    }
    let script = script(folder)?;
    Ok(vec![format!("-Clink-arg=-Wl,-T,{}", script.display())])
}

/// Lays what an idle agent has called side by side. The kernel brings a program into memory by sixteen pages around one
/// that is asked for, so a few small functions in every corner bring all of it.
fn script(folder: &Path) -> Result<PathBuf> {
    let mut script = String::from("SECTIONS {\n.text.warm : {\n");
    for name in WARM.lines().filter(|line| !line.starts_with('#')) {
        // The older way to spell names ends in a hash, the newer has it inside, where the list has a star.
        let hash = if name.starts_with("_ZN") { "17h*" } else { "" };
        writeln!(script, "*(.text.{name}{hash} .text.unlikely.{name}{hash})")?;
    }
    script.push_str("}\n} INSERT BEFORE .text;\n");
    // Cargo does not look into it: another one has another name.
    let mut hasher = DefaultHasher::new();
    script.hash(&mut hasher);
    let path = folder.join(format!("warm-{:016x}.ld", hasher.finish()));
    std::fs::create_dir_all(folder).with_context(|| tree::shown(folder))?;
    std::fs::write(&path, script).with_context(|| tree::shown(&path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_names_without_hashes_in_order() {
        let names: Vec<&str> = WARM.lines().filter(|it| !it.starts_with('#')).collect();
        assert!(names.is_sorted());
        for name in names {
            let is_name = name.starts_with("_ZN") || name.starts_with("_R");
            assert!(is_name && !name.contains("17h"), "{name}");
        }
    }

    #[test]
    fn a_script_puts_what_is_listed_before_the_rest() {
        let home = tempfile::tempdir().unwrap();
        let script = std::fs::read_to_string(script(home.path()).unwrap()).unwrap();
        assert!(script.contains("hostler_agent") && script.ends_with("INSERT BEFORE .text;\n"));
    }
}
