//! What seals secrets: the file of keys, and the passphrase that may lock it. A passphrase is never a flag: those are
//! seen by everybody on the machine.

use std::path::{Path, PathBuf};

use hostler_kit::sealed::{Clear, Lock};

use super::Environment;
use crate::args::SecretsArgs;
use crate::failure::Failure;

const KEY_FILE: &str = "secrets.key";
/// What a passphrase is hashed with when the file is written: some tenths of a second for each guess.
const ITERATIONS: u32 = 600_000;

/// Where the keys are.
#[derive(Debug, Clone)]
pub(crate) struct SecretsSettings {
    pub(crate) key_file: PathBuf,
    pub(crate) lock: Option<Lock>,
}

pub(super) fn resolve(
    flags: SecretsArgs,
    (key, passphrase): (Option<PathBuf>, Option<PathBuf>),
    (environment, data_dir): (&Environment, &Path),
) -> Result<SecretsSettings, Failure> {
    let path = |name: &str| environment.get(name).map(PathBuf::from);
    let key_file = flags
        .secrets_key
        .or_else(|| path("HOSTLER_SECRETS_KEY"))
        .or(key)
        .unwrap_or_else(|| data_dir.join(KEY_FILE));
    let file = flags
        .secrets_passphrase_file
        .or_else(|| path("HOSTLER_SECRETS_PASSPHRASE_FILE"));
    let told = environment.get("HOSTLER_SECRETS_PASSPHRASE");
    let passphrase = match (file, told) {
        (Some(file), _) => Some(read(&file)?),
        (None, Some(told)) => Some(Clear::new(told.as_bytes().to_vec())),
        (None, None) => passphrase.as_deref().map(read).transpose()?,
    };
    Ok(SecretsSettings {
        key_file,
        lock: passphrase.map(|passphrase| Lock {
            passphrase,
            iterations: ITERATIONS,
        }),
    })
}

/// The file's text without the line's end.
fn read(path: &Path) -> Result<Clear, Failure> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        Failure::usage(
            format!("the passphrase cannot be read from {shown}: {error}"),
            "see to the file that --secrets-passphrase-file names",
        )
    })?;
    let bytes = Clear::new(bytes);
    let passphrase = bytes.reveal().trim_ascii_end();
    if passphrase.is_empty() {
        return Err(Failure::usage(
            format!("there is no passphrase in {shown}"),
            "write it into the file, or leave --secrets-passphrase-file out",
        ));
    }
    Ok(Clear::new(passphrase.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(
        flags: SecretsArgs,
        file: (Option<PathBuf>, Option<PathBuf>),
        variables: &[(&str, &str)],
    ) -> Result<SecretsSettings, Failure> {
        let environment = Environment::of(variables);
        resolve(flags, file, (&environment, Path::new("/data")))
    }

    #[test]
    fn the_key_file_is_in_the_data_directory_unless_somebody_says_otherwise() {
        let resolved = settings(SecretsArgs::default(), (None, None), &[]).unwrap();
        assert_eq!(resolved.key_file, Path::new("/data/secrets.key"));
        assert!(resolved.lock.is_none());
        let file = (Some("/file".into()), None);
        let variables = [("HOSTLER_SECRETS_KEY", "/variable")];
        let of_file = settings(SecretsArgs::default(), file.clone(), &[]).unwrap();
        assert_eq!(of_file.key_file, Path::new("/file"));
        let of_variable = settings(SecretsArgs::default(), file.clone(), &variables).unwrap();
        assert_eq!(of_variable.key_file, Path::new("/variable"));
        let flags = SecretsArgs {
            secrets_key: Some("/flag".into()),
            secrets_passphrase_file: None,
        };
        let of_flag = settings(flags, file, &variables).unwrap();
        assert_eq!(of_flag.key_file, Path::new("/flag"));
    }

    #[test]
    fn a_passphrase_comes_from_a_file_or_the_environment_and_is_not_printed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("passphrase");
        std::fs::write(&path, "correct horse\n").unwrap();
        let flags = SecretsArgs {
            secrets_key: None,
            secrets_passphrase_file: Some(path.clone()),
        };
        let resolved = settings(flags, (None, None), &[]).unwrap();
        let lock = resolved.lock.clone().unwrap();
        assert_eq!(lock.passphrase.reveal(), b"correct horse");
        assert!(!format!("{resolved:?}").contains("horse"));
        let variables = [("HOSTLER_SECRETS_PASSPHRASE", "battery")];
        let told = settings(
            SecretsArgs::default(),
            (None, Some(path.clone())),
            &variables,
        );
        assert_eq!(told.unwrap().lock.unwrap().passphrase.reveal(), b"battery");
        std::fs::write(&path, "\n").unwrap();
        assert!(settings(SecretsArgs::default(), (None, Some(path)), &[]).is_err());
    }
}
