//! What a machine can do, in Orchion's strings. Pure.

use hostler_model::NodeFacts;
use hostler_wire::orchion::v1;

/// No accelerator is looked for yet, so none is detected.
const NO_GPU: &str = "No GPU detected";
const NOT_AVAILABLE: &str = "N/A";

pub(super) fn of(facts: &NodeFacts) -> v1::Capabilities {
    let none = || NOT_AVAILABLE.to_owned();
    #[expect(
        deprecated,
        reason = "older orchestrators read the field that was replaced"
    )]
    v1::Capabilities {
        cpu: format!("{} cores", facts.cpu_count),
        memory: memory(facts.memory.0),
        os: format!("{}/{}", goos(&facts.os), goarch(&facts.arch)),
        gpu_type: NO_GPU.to_owned(),
        gpu_vram_total: none(),
        gpu_vram_available: none(),
        gpu_vram_used: none(),
        gpu_temperature: none(),
        gpu_power_usage: none(),
        power_usage: "Not available".to_owned(),
    }
}

/// GiB with two digits behind the point.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn memory(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / (1u64 << 30) as f64)
}

/// The platform in Go's words.
fn goos(os: &str) -> &str {
    match os {
        "macos" => "darwin",
        other => other,
    }
}

/// The processor in Go's words; those of `uname -m` differ.
fn goarch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" => "386",
        "loongarch64" => "loong64",
        arm if arm.starts_with("armv") => "arm",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use hostler_model::Bytes;

    use super::*;

    #[test]
    fn a_machine_is_told_in_gos_words_and_with_its_true_memory() {
        let told = |arch: &str, memory: u64| {
            of(&NodeFacts {
                os: "linux".to_owned(),
                arch: arch.to_owned(),
                cpu_count: 8,
                memory: Bytes(memory),
                ..NodeFacts::default()
            })
        };
        let big = told("x86_64", 33_500_000_000);
        assert_eq!(
            (big.cpu.as_str(), big.memory.as_str()),
            ("8 cores", "31.20 GB")
        );
        assert_eq!(big.os, "linux/amd64");
        assert_eq!(
            (big.gpu_type.as_str(), big.gpu_vram_total.as_str()),
            ("No GPU detected", "N/A")
        );
        assert_eq!(told("aarch64", 0).os, "linux/arm64");
        assert_eq!(told("armv7l", 0).os, "linux/arm");
        assert_eq!(told("riscv64", 1 << 29).memory, "0.50 GB");
    }
}
