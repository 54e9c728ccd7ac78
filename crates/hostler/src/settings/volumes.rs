//! What the node's owner says of managed volumes: `[volumes]` of the agent's file, and `HOSTLER_VOLUMES_…`.

use std::path::PathBuf;

use hostler_runtime::volumes::{CephSettings, NfsSettings, VolumeSettings};
use serde::Deserialize;

use crate::failure::Failure;

/// `[volumes]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VolumesFile {
    local: LocalFile,
    nfs: NfsFile,
    ceph: CephFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LocalFile {
    root: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NfsFile {
    server: Option<String>,
    export: Option<String>,
    options: Option<String>,
    stage_dir: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CephFile {
    cluster: Option<String>,
    pool: Option<String>,
    user: Option<String>,
    keyring: Option<String>,
    stage_dir: Option<String>,
}

/// Resolved. `told` answers a setting by its name, such as `NFS_SERVER`, where it beats the file.
pub(crate) fn resolve(
    file: VolumesFile,
    told: impl Fn(&str) -> Option<String>,
) -> Result<VolumeSettings, Failure> {
    let text =
        |name: &str, file: Option<String>| told(name).or(file).filter(|text| !text.is_empty());
    let path = |name: &str, file: Option<String>| absolute(name, text(name, file));
    let export = text("NFS_EXPORT", file.nfs.export);
    absolute("NFS_EXPORT", export.clone())?;
    Ok(VolumeSettings {
        local_root: path("LOCAL_ROOT", file.local.root)?,
        nfs: NfsSettings {
            server: text("NFS_SERVER", file.nfs.server),
            export,
            options: text("NFS_OPTIONS", file.nfs.options),
            stage_dir: path("NFS_STAGE_DIR", file.nfs.stage_dir)?,
        },
        ceph: CephSettings {
            cluster: text("CEPH_CLUSTER", file.ceph.cluster),
            pool: text("CEPH_POOL", file.ceph.pool),
            user: text("CEPH_USER", file.ceph.user),
            keyring: path("CEPH_KEYRING", file.ceph.keyring)?,
            stage_dir: path("CEPH_STAGE_DIR", file.ceph.stage_dir)?,
        },
    })
}

fn absolute(name: &str, text: Option<String>) -> Result<Option<PathBuf>, Failure> {
    let path = text.map(PathBuf::from);
    match path {
        Some(path) if !path.is_absolute() => Err(Failure::usage(
            format!(
                "volumes: {name} is `{}`, which is no absolute path",
                path.display()
            ),
            "write the whole path; docs/guide/volumes.md lists every key",
        )),
        path => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_beats_the_file_and_nothing_said_is_nothing_set() {
        let nothing = resolve(VolumesFile::default(), |_| None).unwrap();
        assert_eq!(nothing, VolumeSettings::default());
        let text =
            "nfs = { server = 'a', export = '/srv' }\nceph = { pool = 'rbd', keyring = '/k' }\n";
        let file = || toml::from_str::<VolumesFile>(text).unwrap();
        let told = |name: &str| (name == "NFS_SERVER").then(|| "b".to_owned());
        let settings = resolve(file(), told).unwrap();
        assert_eq!(settings.nfs.server.as_deref(), Some("b"));
        assert_eq!(settings.nfs.export.as_deref(), Some("/srv"));
        assert_eq!(settings.ceph.pool.as_deref(), Some("rbd"));
        assert_eq!(settings.ceph.keyring, Some(PathBuf::from("/k")));
    }

    #[test]
    fn relative_paths_and_unknown_keys_are_refused() {
        for name in ["LOCAL_ROOT", "NFS_EXPORT", "CEPH_KEYRING"] {
            let told = |asked: &str| (asked == name).then(|| "srv".to_owned());
            let refused = resolve(VolumesFile::default(), told).unwrap_err();
            assert!(refused.sentence.contains(name), "{}", refused.sentence);
        }
        assert!(toml::from_str::<VolumesFile>("tape = 1").is_err());
    }
}
