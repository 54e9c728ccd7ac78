//! The pages of codes under `docs/errors`, compiled in: what a code means and what to do about it.

use crate::{Code, FailureCode};

/// An enum of stable codes. Each has its text and its page; one without a page does not compile.
macro_rules! codes {
    (
        $(#[$meta:meta])*
        pub enum $codes:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)* }
    ) => {
        $(#[$meta])*
        pub enum $codes { $($(#[$doc])* $name,)* }

        impl $codes {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code as it stands on every wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The code of that text.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }

            /// Its page, as Markdown.
            #[must_use]
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$name => include_str!(concat!(
                        env!("CARGO_MANIFEST_DIR"), "/../../docs/errors/", $text, ".md"
                    ))),*
                }
            }
        }

        impl ::std::fmt::Display for $codes {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use codes;

const REMEDY: &str = "\n## Remedy\n\n";

/// The page of a refusal or a failure.
#[must_use]
pub fn page_of(code: &str) -> Option<&'static str> {
    let refusal = Code::parse(code).map(Code::page);
    refusal.or_else(|| FailureCode::parse(code).map(FailureCode::page))
}

/// The first paragraph below the page's remedy, as advice stands: one line, lower case, no full stop.
pub(crate) fn remedy(page: &str) -> String {
    let (_, text) = page.split_once(REMEDY).unwrap_or_default();
    let text = text.split("\n\n").next().unwrap_or_default();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_suffix('.').unwrap_or(&line);
    let mut letters = line.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_page_belongs_to_a_code_and_has_its_parts_and_its_row() {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let table = std::fs::read_to_string(pages.join("README.md")).unwrap();
        let refusals = Code::ALL.iter().map(|code| (code.as_str(), String::new()));
        let failures = FailureCode::ALL.iter();
        let failures = failures.map(|code| (code.as_str(), format!(" {} |", code.reason())));
        for (code, reason) in refusals.chain(failures) {
            let page = page_of(code).unwrap();
            assert!(
                page.starts_with(&format!("# {code}\n")),
                "{code}: its title"
            );
            assert!(page.contains("\n## Cause\n\n"), "{code}: its cause");
            assert!(page.contains(REMEDY), "{code}: its remedy");
            let row = format!("| [{code}]({code}.md) |{reason}");
            assert!(table.contains(&row), "README.md has no row `{row}`");
        }
        for page in std::fs::read_dir(&pages).unwrap() {
            let name = page.unwrap().file_name().into_string().unwrap();
            let stem = name.trim_end_matches(".md");
            let is_known = stem == "README" || page_of(stem).is_some();
            assert!(is_known, "docs/errors/{name} belongs to no code");
        }
    }
}
