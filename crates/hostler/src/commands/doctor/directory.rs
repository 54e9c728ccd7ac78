//! A data directory: who may look into it, keys that others may read, certificates that are not valid now or soon. And
//! the same of files that somebody else keeps.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use x509_parser::pem::Pem;

use super::finding::{Finding, Gravity, here};
use crate::backup::KEYS;

/// Certificates are renewed long before; one that has so little left was not.
const SOON_SECONDS: i64 = 14 * 24 * 3_600;
/// Those that live for a short time are renewed later: this is the part of their life that counts as little.
const SOON_PART: i64 = 6;
const HOUR_SECONDS: i64 = 3_600;
const DAY_SECONDS: i64 = 24 * HOUR_SECONDS;
const OURS: &str = "it is renewed while its server or agent runs and is connected: look at its log";
const THEIRS: &str = "look at what renews it; the file is read again when it changes";

/// `now` in seconds since 1970.
pub(super) fn examine(data_dir: &Path, now: i64) -> Vec<Finding> {
    let Ok(about) = fs::metadata(data_dir) else {
        // Nothing has been kept there yet.
        return Vec::new();
    };
    let mut findings: Vec<Finding> = rights(data_dir, &about).into_iter().collect();
    let mut files = below(&data_dir.join(KEYS[0]));
    files.push(data_dir.join(KEYS[1]));
    files.extend(below(&data_dir.join("agent")));
    for file in files {
        findings.extend(examine_file(&file, now, OURS));
    }
    findings
}

/// Keys and certificates that somebody else makes and renews.
pub(super) fn examine_foreign(files: &[PathBuf], now: i64) -> Vec<Finding> {
    let findings = files.iter().map(|file| examine_file(file, now, THEIRS));
    findings.flatten().collect()
}

fn rights(data_dir: &Path, about: &Metadata) -> Option<Finding> {
    let us = rustix::process::geteuid();
    if !us.is_root() && about.uid() != us.as_raw() {
        let sentence = format!("{} belongs to another user", data_dir.display());
        let advice = "run this as the user of the server or the agent to have it looked at";
        return Some(here(Gravity::Note, sentence, advice));
    }
    // Members of its group may look, others may not, and nobody else may write.
    let open = about.permissions().mode() & 0o027;
    (open != 0).then(|| {
        let mode = about.permissions().mode() & 0o777;
        let sentence = format!(
            "others may look into {} (mode {mode:o})",
            data_dir.display()
        );
        here(
            Gravity::Warning,
            sentence,
            "take that right away: `chmod 700` on it",
        )
    })
}

/// The plain files of a directory.
fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_file()));
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}

fn examine_file(path: &Path, now: i64, advice: &str) -> Vec<Finding> {
    /// No key or certificate is longer.
    const MOST: u64 = 1 << 20;
    let Some(about) = fs::metadata(path).ok().filter(|about| about.len() <= MOST) else {
        return Vec::new();
    };
    let is_key_by_name = path.extension().is_some_and(|it| it == "key");
    let is_pem = path
        .extension()
        .is_some_and(|it| it == "pem" || it == "crt");
    if !is_key_by_name && !is_pem {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let bytes = fs::read(path).unwrap_or_default();
    let blocks: Vec<Pem> = Pem::iter_from_buffer(&bytes)
        .filter_map(Result::ok)
        .collect();
    let is_key = is_key_by_name || blocks.iter().any(|it| it.label.ends_with("PRIVATE KEY"));
    let mode = about.permissions().mode() & 0o777;
    if is_key && mode & 0o077 != 0 {
        let sentence = format!("others may read the key {} (mode {mode:o})", path.display());
        let advice = "`chmod 600` on it, and replace the key if somebody may have read it";
        findings.push(here(Gravity::Problem, sentence, advice));
    }
    let certificates = blocks.iter().filter(|it| it.label == "CERTIFICATE");
    findings.extend(certificates.filter_map(|it| certificate(path, it, (now, advice))));
    if is_pem && blocks.is_empty() {
        let sentence = format!("{} holds no certificate and no key", path.display());
        findings.push(here(
            Gravity::Problem,
            sentence,
            "put the file of a backup back",
        ));
    }
    findings
}

fn certificate(path: &Path, block: &Pem, (now, advice): (i64, &str)) -> Option<Finding> {
    let name = path.display();
    let Ok(certificate) = block.parse_x509() else {
        let sentence = format!("the certificate {name} cannot be read");
        return Some(here(
            Gravity::Problem,
            sentence,
            "put the file of a backup back",
        ));
    };
    let validity = certificate.validity();
    let (begins, ends) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    if now < begins {
        let sentence = format!("the certificate {name} is not valid yet");
        let advice = "set this machine's clock: it seems to be behind";
        return Some(here(Gravity::Problem, sentence, advice));
    }
    let left = ends - now;
    if left <= 0 {
        let days = -left / DAY_SECONDS;
        let sentence = format!("the certificate {name} ran out {days} days ago");
        return Some(here(Gravity::Problem, sentence, advice));
    }
    (left < SOON_SECONDS.min((ends - begins) / SOON_PART)).then(|| {
        let span = match left / DAY_SECONDS {
            0 => format!("{} hours", left / HOUR_SECONDS),
            days => format!("{days} days"),
        };
        let sentence = format!("the certificate {name} runs out in {span}");
        here(Gravity::Warning, sentence, advice)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// 2025-06-01.
    const NOW: i64 = 1_748_736_000;

    fn private(path: &Path, text: &str, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn told(data_dir: &Path) -> Vec<(Gravity, String)> {
        let findings = examine(data_dir, NOW).into_iter();
        findings.map(|it| (it.gravity, it.sentence)).collect()
    }

    fn data_dir() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        directory
    }

    #[test]
    fn certificates_are_told_when_they_are_not_valid_or_soon_will_not_be() {
        let data = data_dir();
        let key = KeyPair::generate().unwrap();
        for (name, from, to) in [
            ("trust/good.pem", (2025, 1), (2026, 1)),
            ("trust/gone.pem", (2024, 1), (2025, 5)),
            ("trust/early.pem", (2025, 7), (2026, 1)),
            ("agent/certificate.pem", (2025, 1), (2025, 6)),
        ] {
            let mut params = CertificateParams::new(vec!["box".to_owned()]).unwrap();
            params.not_before = date_time_ymd(from.0, from.1, 1);
            params.not_after = date_time_ymd(to.0, to.1, 10);
            let certificate = params.self_signed(&key).unwrap();
            private(&data.path().join(name), &certificate.pem(), 0o644);
        }
        let told = told(data.path());
        assert_eq!(told.len(), 3, "{told:?}");
        let has =
            |gravity, part: &str| told.iter().any(|it| it.0 == gravity && it.1.contains(part));
        assert!(
            has(Gravity::Problem, "gone.pem ran out 22 days ago"),
            "{told:?}"
        );
        assert!(
            has(Gravity::Problem, "early.pem is not valid yet"),
            "{told:?}"
        );
        assert!(
            has(Gravity::Warning, "certificate.pem runs out in 9 days"),
            "{told:?}"
        );
    }

    #[test]
    fn certificates_of_others_are_told_by_the_part_of_their_life_that_is_left() {
        let data = data_dir();
        let key = KeyPair::generate().unwrap();
        let mut files = Vec::new();
        for (name, hours) in [("fresh.crt", 12), ("late.crt", 3), ("gone.pem", -1)] {
            let mut params = CertificateParams::new(vec!["box".to_owned()]).unwrap();
            let ends = date_time_ymd(2025, 6, 1) + Duration::from_secs(24 * 3_600);
            let ends = ends - Duration::from_secs(u64::try_from(24 - hours).unwrap() * 3_600);
            (params.not_before, params.not_after) = (ends - Duration::from_secs(24 * 3_600), ends);
            files.push(data.path().join(name));
            let certificate = params.self_signed(&key).unwrap();
            private(&data.path().join(name), &certificate.pem(), 0o644);
        }
        let told: Vec<_> = examine_foreign(&files, NOW).into_iter().collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].sentence.ends_with("late.crt runs out in 3 hours"),
            "{told:?}"
        );
        assert!(
            told[1].sentence.ends_with("gone.pem ran out 0 days ago"),
            "{told:?}"
        );
        assert!(told.iter().all(|it| it.advice == THEIRS));
    }

    #[test]
    fn keys_that_others_may_read_are_a_problem() {
        let data = data_dir();
        let key = KeyPair::generate().unwrap().serialize_pem();
        private(&data.path().join("trust/authority.key"), &key, 0o600);
        private(&data.path().join("secrets.key"), "bytes", 0o600);
        assert_eq!(told(data.path()), []);
        private(&data.path().join("agent/mine.pem"), &key, 0o640);
        private(&data.path().join("secrets.key"), "bytes", 0o604);
        private(&data.path().join("trust/broken.pem"), "nothing", 0o644);
        let told = told(data.path());
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.iter().all(|it| it.0 == Gravity::Problem), "{told:?}");
    }

    #[test]
    fn a_directory_that_others_may_look_into_is_a_warning() {
        let data = data_dir();
        assert_eq!(told(data.path()), []);
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(told(data.path())[0].0, Gravity::Warning);
        assert_eq!(told(&data.path().join("nowhere")), []);
    }
}
