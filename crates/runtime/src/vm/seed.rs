//! What cloud-init reads at the first boot: a small FAT file system with the label `cidata` (its NoCloud source).
//! Made in memory, without any tool of the node; the same input gives the same bytes.

use std::io::{self, Cursor, Write as _};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use hostler_model::FailureCode;
use hostler_model::spec::CloudInit;

use super::images::refused;
use super::networks;
use super::record::Nic;
use crate::{RuntimeError, Unit};

/// Room for all parts at their largest, the defaults, and the tables of the file system.
const BYTES: usize = 1 << 20;
const LABEL: [u8; 11] = *b"cidata     ";
/// Tells the file system from others; nobody asks for it.
const VOLUME: u32 = 0x686f_7374;
/// Without a first part cloud-init takes nothing.
const NOTHING_TO_DO: &str = "#cloud-config\n{}\n";

/// The image, if the guest has to be told anything.
pub(super) fn image(unit: &Unit, nics: &[Nic]) -> Result<Option<Vec<u8>>, RuntimeError> {
    let told = unit.spec.vm.as_ref().and_then(|vm| vm.cloud_init.as_ref());
    if told.is_none() && nics.iter().all(|nic| nic.address.is_none()) {
        return Ok(None);
    }
    if let Some(problem) = told.and_then(CloudInit::problem) {
        return Err(refused(FailureCode::CloudInitInvalid, problem));
    }
    let parts = parts(unit, told, nics);
    let image = write(&parts).map_err(|error| {
        refused(
            FailureCode::CloudInitInvalid,
            format!("cannot write what cloud-init reads: {error}"),
        )
    })?;
    Ok(Some(image))
}

/// The files and what is in them. An instance stays the same for as long as its disks do.
fn parts(unit: &Unit, told: Option<&CloudInit>, nics: &[Nic]) -> Vec<(&'static str, String)> {
    let told = told.cloned().unwrap_or_default();
    let or = |text: String, usual: String| if text.is_empty() { usual } else { text };
    let meta = format!(
        "instance-id: {}\nlocal-hostname: {}-{}\n",
        unit.id.assignment, unit.workload_name, unit.slot
    );
    let mut parts = vec![
        ("user-data", or(told.user_data, NOTHING_TO_DO.to_owned())),
        ("meta-data", or(told.meta_data, meta)),
        (
            "network-config",
            or(told.network_config, networks::configuration(nics)),
        ),
    ];
    if !told.vendor_data.is_empty() {
        parts.push(("vendor-data", told.vendor_data));
    }
    parts
}

fn write(parts: &[(&str, String)]) -> io::Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; BYTES]);
    let options = FormatVolumeOptions::new()
        .volume_label(LABEL)
        .volume_id(VOLUME);
    fatfs::format_volume(&mut disk, options)?;
    let system = FileSystem::new(&mut disk, FsOptions::new())?;
    for (name, text) in parts {
        let mut file = system.root_dir().create_file(name)?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
    }
    system.unmount()?;
    Ok(disk.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use hostler_model::spec::{VmNetwork, VmSpec, WorkloadSpec};

    use super::*;

    fn unit(vm: VmSpec) -> Unit {
        let spec = WorkloadSpec {
            vm: Some(vm),
            ..WorkloadSpec::bare("db")
        };
        crate::contract::unit(spec)
    }

    fn seed(unit: &Unit) -> Option<Vec<u8>> {
        let vm = unit.spec.vm.as_ref().unwrap();
        image(unit, &networks::cards(vm, unit.id.assignment)).unwrap()
    }

    /// The files of the image, read back.
    fn files(image: &[u8]) -> Vec<(String, String)> {
        let system = FileSystem::new(Cursor::new(image.to_vec()), FsOptions::new()).unwrap();
        assert_eq!(system.volume_label(), "cidata");
        let read = |entry: io::Result<fatfs::DirEntry<'_, Cursor<Vec<u8>>>>| {
            let entry = entry.unwrap();
            let mut text = String::new();
            entry.to_file().read_to_string(&mut text).unwrap();
            (entry.file_name(), text)
        };
        system.root_dir().iter().map(read).collect()
    }

    #[test]
    fn nothing_to_tell_is_no_seed() {
        assert_eq!(seed(&unit(VmSpec::default())), None);
    }

    #[test]
    fn what_is_told_is_there_as_it_was_written_and_the_rest_has_defaults() {
        let told = unit(VmSpec {
            cloud_init: Some(CloudInit {
                user_data: "#cloud-config\nruncmd: [ls]\n".to_owned(),
                vendor_data: "x".repeat(200_000),
                ..CloudInit::default()
            }),
            ..VmSpec::default()
        });
        let image = seed(&told).unwrap();
        assert_eq!(image, seed(&told).unwrap(), "the same bytes each time");
        let files = files(&image);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["user-data", "meta-data", "network-config", "vendor-data"]
        );
        assert_eq!(files[0].1, "#cloud-config\nruncmd: [ls]\n");
        let meta = format!(
            "instance-id: {}\nlocal-hostname: db-0\n",
            told.id.assignment
        );
        assert_eq!(files[1].1, meta);
        assert!(files[2].1.contains("dhcp4: true"));
        assert_eq!(files[3].1.len(), 200_000);
    }

    #[test]
    fn a_fixed_address_is_told_although_nothing_else_is() {
        let fixed = unit(VmSpec {
            networks: vec![VmNetwork {
                bridge: Some("br0".to_owned()),
                ip: Some("10.0.0.5/16".to_owned()),
                ..VmNetwork::default()
            }],
            ..VmSpec::default()
        });
        let files = files(&seed(&fixed).unwrap());
        assert_eq!(files[0].1, NOTHING_TO_DO);
        assert!(files[2].1.contains("10.0.0.5/16"));
    }

    #[test]
    fn what_is_over_the_limit_is_refused_by_its_own_code() {
        let huge = unit(VmSpec {
            cloud_init: Some(CloudInit {
                user_data: "x".repeat(CloudInit::MOST_BYTES + 1),
                ..CloudInit::default()
            }),
            ..VmSpec::default()
        });
        assert_eq!(image(&huge, &[]).unwrap_err().code(), "cloud-init-invalid");
    }
}
