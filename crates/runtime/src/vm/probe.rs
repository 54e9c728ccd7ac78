//! What the node has for machines: QEMU, its tool for disks, an accelerator.

use std::path::Path;
use std::process::Stdio;

use hostler_model::FailureCode;
use hostler_model::spec::Accelerator;
use tokio::process::Command;

use super::images::refused;
use crate::RuntimeError;

const KVM: &str = "/dev/kvm";

/// What runs the processors of a machine, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Kvm,
    Tcg,
}

impl Engine {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The major and minor number.
pub(super) type Version = (u32, u32);

/// QEMU's version, or why it has none.
pub(super) async fn version(qemu: &str) -> Result<String, RuntimeError> {
    let failed = |source| RuntimeError::Command {
        program: qemu.to_owned(),
        source,
    };
    let output = Command::new(qemu)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(failed)?;
    version_in(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| failed(std::io::Error::other("it does not tell its version")))
}

/// The first word of digits and dots behind `version`.
pub(super) fn version_in(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("version ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
    let version = &rest[..end.unwrap_or(rest.len())];
    (!version.is_empty()).then(|| version.to_owned())
}

pub(super) fn numbers(version: &str) -> Version {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The accelerator of a machine, by the node's setting and the spec's wish. The setting is the owner's word.
pub(super) fn engine(
    setting: Accelerator,
    wish: Option<Accelerator>,
    has_kvm: bool,
) -> Result<Engine, RuntimeError> {
    match (setting, wish.unwrap_or_default()) {
        (Accelerator::Auto | Accelerator::Kvm, Accelerator::Kvm)
        | (Accelerator::Kvm, Accelerator::Auto) => {
            if has_kvm {
                return Ok(Engine::Kvm);
            }
            let message = format!("`kvm` is asked for, and {KVM} cannot be opened");
            Err(refused(FailureCode::AcceleratorMissing, message))
        }
        (Accelerator::Tcg, Accelerator::Kvm) => Err(refused(
            FailureCode::AcceleratorMissing,
            "`kvm` is asked for, and this node is set to `tcg`".to_owned(),
        )),
        (_, Accelerator::Tcg) | (Accelerator::Tcg, _) => Ok(Engine::Tcg),
        (Accelerator::Auto, Accelerator::Auto) if has_kvm => Ok(Engine::Kvm),
        (Accelerator::Auto, Accelerator::Auto) => Ok(Engine::Tcg),
    }
}

pub(super) fn has_kvm() -> bool {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new(KVM));
    opened.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_say() {
        let qemu = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright";
        assert_eq!(version_in(qemu).as_deref(), Some("7.2.22"));
        assert_eq!(
            version_in("qemu-img version 10.0\n").as_deref(),
            Some("10.0")
        );
        assert_eq!(version_in("no such option"), None);
        assert_eq!(numbers("10.0.2"), (10, 0));
        assert_eq!(numbers("8"), (8, 0));
    }

    #[test]
    fn the_nodes_setting_and_the_specs_wish_give_one_accelerator() {
        use Accelerator::{Auto, Kvm, Tcg};
        let decide = |setting, wish, has_kvm| match engine(setting, wish, has_kvm) {
            Ok(engine) => engine.as_str(),
            Err(error) => error.code(),
        };
        for (setting, wish, has_kvm, expected) in [
            (Auto, None, true, "kvm"),
            (Auto, None, false, "tcg"),
            (Auto, Some(Kvm), false, "accelerator-missing"),
            (Auto, Some(Tcg), true, "tcg"),
            (Kvm, None, false, "accelerator-missing"),
            (Kvm, Some(Auto), true, "kvm"),
            (Kvm, Some(Tcg), true, "tcg"),
            (Tcg, None, true, "tcg"),
            (Tcg, Some(Auto), true, "tcg"),
            (Tcg, Some(Kvm), true, "accelerator-missing"),
        ] {
            assert_eq!(
                decide(setting, wish, has_kvm),
                expected,
                "{setting:?} {wish:?}"
            );
        }
    }
}
