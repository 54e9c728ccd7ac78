//! `size`: files stay under 400 lines and functions under 40 as a habit; 800 and 90 are walls. Tests and
//! generated code do not count.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, ItemFn, ItemMod, TraitItemFn};

use crate::tree;

const FILE: Budget = Budget {
    habit: 400,
    wall: 800,
};
const FUNCTION: Budget = Budget {
    habit: 40,
    wall: 90,
};

#[derive(Clone, Copy)]
struct Budget {
    habit: usize,
    wall: usize,
}

/// Something that is longer than the habit.
struct Offender {
    lines: usize,
    place: String,
    budget: Budget,
}

/// Lists what is over budget, the longest first; fails if anything is above a wall.
pub(crate) fn main() -> Result<()> {
    let mut offenders = Vec::new();
    for file in sources()? {
        let text = std::fs::read_to_string(&file).with_context(|| tree::shown(&file))?;
        measure(&tree::shown(&file), &text, &mut offenders)?;
    }
    offenders.sort_by(|a, b| b.lines.cmp(&a.lines).then_with(|| a.place.cmp(&b.place)));
    let (above, over): (Vec<_>, Vec<_>) = offenders
        .iter()
        .partition(|offender| offender.lines > offender.budget.wall);
    for offender in &over {
        println!(
            "{:>5} lines, habit {}: {}",
            offender.lines, offender.budget.habit, offender.place
        );
    }
    for offender in &above {
        println!(
            "{:>5} lines, WALL {}: {}",
            offender.lines, offender.budget.wall, offender.place
        );
    }
    ensure!(above.is_empty(), "{} are above a wall", above.len());
    Ok(())
}

/// Every source file that counts.
fn sources() -> Result<Vec<PathBuf>> {
    let root = tree::root();
    let mut all = tree::files(&root.join("crates"), "rs")?;
    all.extend(tree::files(&root.join("xtask"), "rs")?);
    all.retain(|path| !is_excluded_by_place(path));
    let mut for_tests = BTreeSet::new();
    for file in &all {
        for_tests.extend(test_modules(file)?);
    }
    all.retain(|path| {
        !path
            .ancestors()
            .any(|part| for_tests.contains(&part.with_extension("")))
    });
    Ok(all)
}

fn is_excluded_by_place(path: &Path) -> bool {
    let below = path.strip_prefix(tree::root()).unwrap_or(path);
    below.components().any(|part| {
        let part = part.as_os_str();
        part == "tests"
            || part == "gen"
            || part == "tests.rs"
            || part == "examples"
            || part == "target"
    })
}

/// The modules in files of their own that a file declares for tests only, without `.rs`.
fn test_modules(file: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(file).with_context(|| tree::shown(file))?;
    let parsed = syn::parse_file(&text).with_context(|| tree::shown(file))?;
    let is_root = file
        .file_stem()
        .is_some_and(|stem| stem == "mod" || stem == "lib" || stem == "main");
    let folder = if is_root {
        file.parent().map(Path::to_owned).unwrap_or_default()
    } else {
        file.with_extension("")
    };
    let modules = parsed.items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() && is_for_tests(&module.attrs) => {
            Some(folder.join(module.ident.to_string()))
        }
        _ => None,
    });
    Ok(modules.collect())
}

fn measure(place: &str, text: &str, offenders: &mut Vec<Offender>) -> Result<()> {
    let parsed = syn::parse_file(text).with_context(|| place.to_owned())?;
    let mut measured = Measured::default();
    measured.visit_file(&parsed);
    let lines = text.lines().count().saturating_sub(measured.test_lines);
    if lines > FILE.habit {
        let place = place.to_owned();
        offenders.push(Offender {
            lines,
            place,
            budget: FILE,
        });
    }
    for (name, line, lines) in measured.functions {
        if lines > FUNCTION.habit {
            let place = format!("{place}:{line} fn {name}");
            offenders.push(Offender {
                lines,
                place,
                budget: FUNCTION,
            });
        }
    }
    Ok(())
}

/// What one file holds outside its tests.
#[derive(Default)]
struct Measured {
    functions: Vec<(String, usize, usize)>,
    test_lines: usize,
}

impl Measured {
    fn add(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.span().start().line;
        let lines = body.span().end().line + 1 - first;
        self.functions
            .push((signature.ident.to_string(), first, lines));
    }
}

impl<'a> Visit<'a> for Measured {
    fn visit_item_mod(&mut self, module: &'a ItemMod) {
        if is_for_tests(&module.attrs) {
            let span = module.span();
            self.test_lines += span.end().line + 1 - span.start().line;
        } else {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'a ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'a ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'a TraitItemFn) {
        if let Some(body) = &function.default {
            self.add(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// `#[cfg(test)]`, or a list of alternatives with it.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let mut found = false;
        if attribute.path().is_ident("cfg") {
            let parsed = attribute.parse_nested_meta(|meta| {
                found |= meta.path.is_ident("test");
                Ok(())
            });
            found &= parsed.is_ok();
        }
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_functions_are_found_and_tests_do_not_count() {
        let body = "let _ = 1;\n".repeat(FUNCTION.habit);
        let text = format!(
            "struct S;\nimpl S {{\n    fn long() {{\n{body}    }}\n}}\n\
             #[cfg(test)]\nmod tests {{\n fn longer() {{\n{body}{body}}}\n}}\n"
        );
        let mut offenders = Vec::new();
        measure("x.rs", &text, &mut offenders).expect("it parses");
        let places: Vec<_> = offenders
            .iter()
            .map(|offender| offender.place.as_str())
            .collect();
        assert_eq!(places, ["x.rs:3 fn long"]);
    }

    #[test]
    fn a_file_counts_without_its_tests() {
        let tests = format!(
            "#[cfg(test)]\nmod tests {{\n{}}}\n",
            "\n".repeat(FILE.habit)
        );
        let mut offenders = Vec::new();
        measure("x.rs", &format!("fn a() {{}}\n{tests}"), &mut offenders).expect("it parses");
        assert!(offenders.is_empty());
        measure("x.rs", &"\n".repeat(FILE.wall + 1), &mut offenders).expect("it parses");
        assert_eq!(offenders[0].lines, FILE.wall + 1);
    }
}
