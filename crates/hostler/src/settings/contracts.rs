//! How a server speaks the contracts of other systems, where those leave a choice.

use std::sync::Arc;
use std::time::Duration;

use hostler_doors::{miaas, orchion};
use serde::Deserialize;

use super::Environment;
use crate::failure::Failure;

/// What the doors are told.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ContractSettings {
    pub(crate) miaas: miaas::Config,
    pub(crate) orchion: orchion::Config,
}

/// `[miaas]` of `server.toml`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MiaasFile {
    dialect: Option<String>,
    jwt_secret: Option<String>,
    jwt_expiration_hours: Option<u32>,
    pages_deploy: Option<bool>,
}

/// `[orchion]` of `server.toml`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OrchionFile {
    api_key: Option<String>,
}

/// Secrets are not shown.
impl std::fmt::Debug for MiaasFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MiaasFile")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for OrchionFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrchionFile").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ContractSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContractSettings")
            .field("dialect", &self.miaas.dialect)
            .finish_non_exhaustive()
    }
}

impl ContractSettings {
    /// MIaaS's own variables count as well as ours: a server may be started as MIaaS's was.
    pub(super) fn resolve(
        (miaas, orchion): (MiaasFile, OrchionFile),
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let text = |variable: &str, file: Option<String>| {
            environment.get(variable).map(str::to_owned).or(file)
        };
        let usual = miaas::Config::default();
        let told = environment.get("JWT_EXPIRATION_HOURS");
        let ttl = hours(told, miaas.jwt_expiration_hours)?;
        let config = miaas::Config {
            dialect: dialect(text("HOSTLER_MIAAS_DIALECT", miaas.dialect).as_deref())?,
            jwt_secret: text("JWT_SECRET", miaas.jwt_secret).map_or(usual.jwt_secret, Arc::from),
            ttl: ttl.unwrap_or(usual.ttl),
            pages_deploy: miaas.pages_deploy.unwrap_or(usual.pages_deploy),
        };
        let api_key = text("HOSTLER_ORCHION_API_KEY", orchion.api_key).map(Arc::from);
        Ok(Self {
            miaas: config,
            orchion: orchion::Config { api_key },
        })
    }
}

fn dialect(word: Option<&str>) -> Result<miaas::Dialect, Failure> {
    match word {
        None | Some("seed") => Ok(miaas::Dialect::Seed),
        Some("later") => Ok(miaas::Dialect::Later),
        Some(other) => Err(Failure::usage(
            format!("`{other}` is no dialect of MIaaS"),
            "set HOSTLER_MIAAS_DIALECT, or `dialect` in [miaas], to `seed` or `later`",
        )),
    }
}

fn hours(variable: Option<&str>, file: Option<u32>) -> Result<Option<Duration>, Failure> {
    /// Ten years: a token that lives longer was not meant.
    const MOST: u32 = 24 * 3653;
    let hours = match variable {
        Some(text) => Some(text.parse::<u32>().unwrap_or(0)),
        None => file,
    };
    match hours {
        None => Ok(None),
        Some(hours @ 1..=MOST) => Ok(Some(Duration::from_secs(u64::from(hours) * 3600))),
        Some(_) => Err(Failure::usage(
            "a node's token must live for a whole number of hours",
            format!(
                "set JWT_EXPIRATION_HOURS, or `jwt_expiration_hours` in [miaas], to 1 to {MOST}"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &str, variables: &[(&str, &str)]) -> Result<ContractSettings, Failure> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct File {
            miaas: MiaasFile,
            orchion: OrchionFile,
        }
        let file: File = toml::from_str(file).unwrap();
        ContractSettings::resolve((file.miaas, file.orchion), &Environment::of(variables))
    }

    #[test]
    fn variables_beat_the_file() {
        let file = "[miaas]\ndialect = \"later\"\njwt_secret = \"a\"\njwt_expiration_hours = 2\n\
                    [orchion]\napi_key = \"k\"\n";
        let settings = of(file, &[("JWT_SECRET", "b")]).unwrap();
        assert_eq!(settings.miaas.dialect, miaas::Dialect::Later);
        assert_eq!(&*settings.miaas.jwt_secret, "b");
        assert_eq!(settings.miaas.ttl, Duration::from_secs(7200));
        assert_eq!(settings.orchion.api_key.as_deref(), Some("k"));
        let seed = of(file, &[("HOSTLER_MIAAS_DIALECT", "seed")]).unwrap();
        assert_eq!(seed.miaas.dialect, miaas::Dialect::Seed);
        assert!(
            !format!("{seed:?}").contains("jwt_secret"),
            "secrets are not shown"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(of("", &[("HOSTLER_MIAAS_DIALECT", "head")]).is_err());
        for hours in ["0", "-1", "x", "999999"] {
            assert!(
                of("", &[("JWT_EXPIRATION_HOURS", hours)]).is_err(),
                "{hours}"
            );
        }
        assert!(of("", &[]).is_ok());
    }
}
