//! What the node's owner says of virtual machines: `[vm]` of the agent's file, and `HOSTLER_VM_…`.

use std::path::{Path, PathBuf};

use hostler_model::spec::Accelerator;
use hostler_runtime::vm::VmSettings;
use serde::Deserialize;

use super::Environment;
use crate::failure::Failure;

/// `[vm]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VmFile {
    qemu: Option<String>,
    qemu_img: Option<String>,
    accelerator: Option<Accelerator>,
    /// Where images are. Once it is said, images elsewhere are refused.
    images: Option<Vec<PathBuf>>,
}

/// Resolved. Without a word, images may be anywhere, and those without a path are in the data directory.
pub(crate) fn resolve(
    file: VmFile,
    environment: &Environment,
    data_dir: &Path,
) -> Result<VmSettings, Failure> {
    let usual = VmSettings::default();
    let text = |name: &str, file: Option<String>, usual: String| {
        environment
            .get(name)
            .map_or_else(|| file.unwrap_or(usual), str::to_owned)
    };
    let named = environment.get("HOSTLER_VM_IMAGES");
    let images = named
        .map(|dirs| std::env::split_paths(dirs).collect())
        .or(file.images);
    if let Some(dir) = images
        .iter()
        .flatten()
        .find(|dir: &&PathBuf| !dir.is_absolute())
    {
        return Err(Failure::usage(
            format!(
                "`{}` is no absolute path of a directory of images",
                dir.display()
            ),
            "write the whole path in [vm] images or HOSTLER_VM_IMAGES",
        ));
    }
    Ok(VmSettings {
        qemu: text("HOSTLER_VM_QEMU", file.qemu, usual.qemu),
        qemu_img: text("HOSTLER_VM_QEMU_IMG", file.qemu_img, usual.qemu_img),
        accelerator: match environment.get("HOSTLER_VM_ACCELERATOR") {
            None => file.accelerator.unwrap_or_default(),
            Some("auto") => Accelerator::Auto,
            Some("kvm") => Accelerator::Kvm,
            Some("tcg") => Accelerator::Tcg,
            Some(other) => {
                return Err(Failure::usage(
                    format!("HOSTLER_VM_ACCELERATOR is `{other}`"),
                    "set it to auto, kvm or tcg",
                ));
            }
        },
        only_these_images: images.is_some(),
        images: images.unwrap_or_else(|| vec![data_dir.join("images")]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, variables: &[(&str, &str)]) -> Result<VmSettings, Failure> {
        let file = toml::from_str(text).unwrap();
        resolve(file, &Environment::of(variables), Path::new("/data"))
    }

    #[test]
    fn a_variable_beats_the_file_and_the_file_the_default() {
        let usual = of("", &[]).unwrap();
        assert_eq!(usual.qemu, "qemu-system-x86_64");
        assert_eq!(usual.images, [PathBuf::from("/data/images")]);
        assert!(!usual.only_these_images);

        let text = "qemu = '/opt/qemu'\naccelerator = 'tcg'\nimages = ['/srv/images']\n";
        let file = of(text, &[]).unwrap();
        assert_eq!(
            (file.qemu.as_str(), file.accelerator),
            ("/opt/qemu", Accelerator::Tcg)
        );
        assert_eq!(file.images, [PathBuf::from("/srv/images")]);
        assert!(file.only_these_images);

        let variables = [
            ("HOSTLER_VM_QEMU", "/usr/bin/qemu"),
            ("HOSTLER_VM_ACCELERATOR", "kvm"),
            ("HOSTLER_VM_IMAGES", "/a:/b"),
        ];
        let both = of(text, &variables).unwrap();
        assert_eq!(
            (both.qemu.as_str(), both.accelerator),
            ("/usr/bin/qemu", Accelerator::Kvm)
        );
        assert_eq!(both.images, [PathBuf::from("/a"), PathBuf::from("/b")]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_unknown_keys_are() {
        let vague = of("", &[("HOSTLER_VM_ACCELERATOR", "fast")]).unwrap_err();
        assert!(vague.sentence.contains("fast"), "{}", vague.sentence);
        let relative = of("images = ['images']", &[]).unwrap_err();
        assert!(
            relative.sentence.contains("`images`"),
            "{}",
            relative.sentence
        );
        assert!(toml::from_str::<VmFile>("qemuu = 'x'").is_err());
    }
}
