//! Amounts as compose writes them.

use hostler_model::{Bytes, MilliCpu};

/// Bytes, whose units are always powers of 1024 there: `64m`, `1.5gb`, `1024`.
pub(super) fn size(text: &str) -> Option<Bytes> {
    let text = text.trim().to_ascii_lowercase();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
        "" => "",
        "k" => "KiB",
        "m" => "MiB",
        "g" => "GiB",
        "t" => "TiB",
        _ => return None,
    };
    format!("{number}{unit}").parse().ok()
}

/// Processors: `0.5`.
pub(super) fn cpu(text: &str) -> Option<MilliCpu> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_whatever_the_unit_is_called() {
        for (text, bytes) in [
            ("64m", 64 << 20),
            ("1.5gb", 3 << 29),
            ("512K", 512 << 10),
            ("2GiB", 2 << 30),
            ("7", 7),
            ("9b", 9),
        ] {
            assert_eq!(size(text), Some(Bytes(bytes)), "{text}");
        }
        assert_eq!(size("64 parsecs"), None);
        assert_eq!(size(""), None);
    }
}
