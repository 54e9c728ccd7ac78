//! Quantities with units: `500m` of a cpu, `256MiB` of memory. Arithmetic never wraps.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is no quantity of the kind that is expected here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}; write {example}")]
pub struct ParseQuantityError {
    what: &'static str,
    example: &'static str,
    text: String,
}

/// Thousandths of one processor core. Text: `500m`, `2`, `0.25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MilliCpu(pub u64);

/// A number of bytes. Text: `256MiB`, `1GiB`, `4096`, `500MB` (decimal), `64Mi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

/// What a copy needs or a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Processor time.
    pub cpu: MilliCpu,
    /// Main memory.
    pub memory: Bytes,
    /// Disk space under the node's data directory.
    pub disk: Bytes,
}

impl Resources {
    /// Nothing at all.
    pub const ZERO: Self = Self {
        cpu: MilliCpu(0),
        memory: Bytes(0),
        disk: Bytes(0),
    };

    /// Whether `need` fits into this in every dimension.
    #[must_use]
    pub const fn holds(&self, need: &Self) -> bool {
        need.cpu.0 <= self.cpu.0 && need.memory.0 <= self.memory.0 && need.disk.0 <= self.disk.0
    }

    /// Both together.
    #[must_use]
    pub const fn plus(&self, more: &Self) -> Self {
        Self {
            cpu: MilliCpu(self.cpu.0.saturating_add(more.cpu.0)),
            memory: Bytes(self.memory.0.saturating_add(more.memory.0)),
            disk: Bytes(self.disk.0.saturating_add(more.disk.0)),
        }
    }

    /// What is left after `less`, never below zero.
    #[must_use]
    pub const fn minus(&self, less: &Self) -> Self {
        Self {
            cpu: MilliCpu(self.cpu.0.saturating_sub(less.cpu.0)),
            memory: Bytes(self.memory.0.saturating_sub(less.memory.0)),
            disk: Bytes(self.disk.0.saturating_sub(less.disk.0)),
        }
    }
}

impl FromStr for MilliCpu {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseQuantityError {
            what: "amount of cpu",
            example: "thousandths of a core as `500m`, or cores as `2` or `0.5`",
            text: text.to_owned(),
        };
        let text = text.trim();
        if let Some(thousandths) = text.strip_suffix('m') {
            return thousandths.parse().map(Self).map_err(|_| refused());
        }
        scaled(text, 1000).map(Self).ok_or_else(refused)
    }
}

impl FromStr for Bytes {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseQuantityError {
            what: "amount of bytes",
            example: "bytes with a unit, as `256MiB`, `1GiB` or `500MB`",
            text: text.to_owned(),
        };
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale = unit_scale(unit.trim()).ok_or_else(refused)?;
        scaled(number, scale).map(Self).ok_or_else(refused)
    }
}

fn unit_scale(unit: &str) -> Option<u64> {
    const UNITS: [(&str, u32); 5] = [("K", 1), ("M", 2), ("G", 3), ("T", 4), ("P", 5)];
    if unit.is_empty() || unit == "B" {
        return Some(1);
    }
    let (letter, rest) = unit.split_at_checked(1)?;
    let power = UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(letter))?
        .1;
    match rest {
        "i" | "iB" => Some(1024_u64.pow(power)),
        "" | "B" => Some(1000_u64.pow(power)),
        _ => None,
    }
}

/// Reads a plain decimal without exponent or sign and multiplies it, exactly where it is whole.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if fraction.is_empty() {
        return (!number.ends_with('.')).then_some(whole);
    }
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale) / denominator;
    whole.checked_add(u64::try_from(part).ok()?)
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 5] = [
            (1 << 50, "PiB"),
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        for (size, unit) in UNITS {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Bytes {
    /// For a sentence: the nearest amount with at most three significant figures, in its natural unit.
    #[must_use]
    pub fn rough(self) -> String {
        self.in_three_figures(|numerator, size| (numerator + size / 2) / size)
    }

    /// The same, but never less than this: who frees that much has freed enough.
    #[must_use]
    pub fn rough_at_least(self) -> String {
        self.in_three_figures(u128::div_ceil)
    }

    fn in_three_figures(self, divide: fn(u128, u128) -> u128) -> String {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut size = 1_u128;
        for unit in UNITS {
            for decimals in (0..=3_usize).rev() {
                let scale = [1, 10, 100, 1000][decimals];
                let figures = divide(u128::from(self.0) * scale, size);
                if figures < 1000 {
                    let (whole, part) = (figures / scale, figures % scale);
                    let text = format!("{whole}.{part:0decimals$}");
                    let text = text.trim_end_matches('0').trim_end_matches('.');
                    return format!("{text}{unit}");
                }
            }
            size <<= 10;
        }
        self.to_string()
    }
}

macro_rules! serde_as_text {
    ($name:ident, $expecting:literal) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$name, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$name, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<$name, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}

serde_as_text!(MilliCpu, "an amount of cpu such as `500m` or `2`");
serde_as_text!(Bytes, "an amount of bytes such as `256MiB`");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpu_reads_thousandths_and_cores() {
        for (text, thousandths) in [("500m", 500), ("2", 2000), ("0.25", 250), ("1.5", 1500)] {
            assert_eq!(text.parse(), Ok(MilliCpu(thousandths)), "{text}");
        }
        for text in ["", "m", "-1", "1e3", "half", "1.", ".5"] {
            assert!(text.parse::<MilliCpu>().is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_read_binary_and_decimal_units() {
        for (text, bytes) in [
            ("256MiB", 256 << 20),
            ("1GiB", 1 << 30),
            ("64Mi", 64 << 20),
            ("500MB", 500_000_000),
            ("4096", 4096),
            ("1.5KiB", 1536),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "MiB", "1 XB", "-1MiB", "99999999PiB", "1MiBs"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_rough_amount_has_three_figures_and_the_natural_unit() {
        for (bytes, rough, at_least) in [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1_001, "0.978KiB", "0.978KiB"),
            (256 << 20, "256MiB", "256MiB"),
            (1_280 << 20, "1.25GiB", "1.25GiB"),
            (1_023 << 20, "0.999GiB", "1GiB"),
            (24_089 << 20, "23.5GiB", "23.6GiB"),
            (24_928 << 20, "24.3GiB", "24.4GiB"),
            (1_099_486_960_504 << 10, "1PiB", "1PiB"),
            (u64::MAX, "16EiB", "16EiB"),
        ] {
            let said = (Bytes(bytes).rough(), Bytes(bytes).rough_at_least());
            assert_eq!(said, (rough.to_owned(), at_least.to_owned()), "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn a_rough_amount_is_near(bytes in 0..u64::MAX >> 8) {
            let [near, enough] = [Bytes(bytes).rough(), Bytes(bytes).rough_at_least()]
                .map(|text| text.parse::<Bytes>().unwrap().0);
            // Reading a fraction drops what is less than one byte.
            prop_assert!(near.abs_diff(bytes) <= bytes / 199 + 1, "{} {}", near, bytes);
            prop_assert!(enough + 1 >= bytes && enough - bytes.min(enough) <= bytes / 99 + 1);
        }

        #[test]
        fn what_is_printed_reads_back(cpu in any::<u32>(), bytes in any::<u64>()) {
            let cpu = MilliCpu(u64::from(cpu));
            prop_assert_eq!(cpu.to_string().parse(), Ok(cpu));
            prop_assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,24}") {
            let _ = text.parse::<MilliCpu>();
            let _ = text.parse::<Bytes>();
        }
    }
}
