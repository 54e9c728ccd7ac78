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
    /// What signs the tokens of MIaaS's nodes; none: the server's own.
    pub(crate) jwt: Option<JwtSecret>,
    pub(crate) orchion: orchion::Config,
    /// Whether the spot contract's word holds also for what costs money.
    pub(crate) open_replica_routes: bool,
}

/// A secret that the operator gives.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JwtSecret {
    pub(crate) secret: Arc<str>,
    /// The one that was in its place before.
    pub(crate) former: Option<Arc<str>>,
}

/// `[miaas]` of `server.toml`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MiaasFile {
    dialect: Option<String>,
    jwt_secret: Option<String>,
    jwt_secret_former: Option<String>,
    jwt_expiration_hours: Option<u32>,
    pages_deploy: Option<bool>,
}

/// `[orchion]` of `server.toml`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OrchionFile {
    api_key: Option<String>,
}

/// `[spot]` of `server.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SpotFile {
    open_replica_routes: bool,
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
        (miaas, orchion, spot): (MiaasFile, OrchionFile, SpotFile),
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
            ttl: ttl.unwrap_or(usual.ttl),
            pages_deploy: miaas.pages_deploy.unwrap_or(usual.pages_deploy),
        };
        let former = text("JWT_SECRET_FORMER", miaas.jwt_secret_former);
        let former = former.filter(|former| !former.is_empty()).map(Arc::from);
        let secret = text("JWT_SECRET", miaas.jwt_secret);
        let jwt = match (secret.filter(|secret| !secret.is_empty()), former) {
            (Some(secret), former) => Some(JwtSecret {
                secret: Arc::from(secret),
                former,
            }),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Failure::usage(
                    "there is a former secret of MIaaS's tokens, and none that signs",
                    "set JWT_SECRET, or `jwt_secret` in [miaas], as well",
                ));
            }
        };
        let api_key = text("HOSTLER_ORCHION_API_KEY", orchion.api_key).map(Arc::from);
        Ok(Self {
            miaas: config,
            jwt,
            orchion: orchion::Config { api_key },
            open_replica_routes: spot.open_replica_routes,
        })
    }

    /// What everybody can sign with proves nothing.
    pub(super) fn refuse_public_secret(&self) -> Result<(), Failure> {
        let told = self.jwt.iter();
        let mut secrets = told.flat_map(|it| std::iter::once(&it.secret).chain(&it.former));
        if secrets.any(|secret| miaas::Keys::is_public(secret)) {
            return Err(Failure::usage(
                "JWT_SECRET is MIaaS's own default, which is public",
                "leave it out, so that the server makes a secret of its own, or set another one",
            ));
        }
        Ok(())
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
            spot: SpotFile,
        }
        let file: File = toml::from_str(file).unwrap();
        let files = (file.miaas, file.orchion, file.spot);
        ContractSettings::resolve(files, &Environment::of(variables))
    }

    #[test]
    fn variables_beat_the_file() {
        let file = "[miaas]\ndialect = \"later\"\njwt_secret = \"a\"\njwt_expiration_hours = 2\n\
                    [orchion]\napi_key = \"k\"\n";
        let settings = of(file, &[("JWT_SECRET", "b")]).unwrap();
        assert_eq!(settings.miaas.dialect, miaas::Dialect::Later);
        assert_eq!(&*settings.jwt.as_ref().unwrap().secret, "b");
        assert!(!settings.open_replica_routes);
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
    fn the_secret_that_everybody_knows_is_none_and_a_former_one_needs_another() {
        let public = "development-secret-change-in-production";
        for (secret, is_fine) in [("", true), ("own", true), (public, false)] {
            let settings = of("", &[("JWT_SECRET", secret)]).unwrap();
            assert_eq!(settings.refuse_public_secret().is_ok(), is_fine, "{secret}");
        }
        assert!(of("", &[("JWT_SECRET_FORMER", "old")]).is_err());
        let both = of("", &[("JWT_SECRET", "new"), ("JWT_SECRET_FORMER", public)]).unwrap();
        assert!(both.refuse_public_secret().is_err());
        assert!(!format!("{both:?}").contains("new"));
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
