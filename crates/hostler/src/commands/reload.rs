//! Reading the configuration again while the program runs, when it is told to by SIGHUP.
//!
//! All layers are read as at the start. What makes no sense changes nothing and is told with its reason; what may change
//! takes effect at once; what needs a start is named and left as it is until then.

use hostler_agent::Tuning;
use hostler_kit::telemetry;

use crate::args::{AgentArgs, ServerArgs};
use crate::compose::{ControlPlane, NodeAgent};
use crate::failure::Failure;
use crate::settings::{AgentSettings, ContractSettings, Environment, LogSettings, ServerSettings};

/// The server's settings, anew.
pub(crate) fn server(
    now: &mut ServerSettings,
    (args, environment): (&ServerArgs, &Environment),
    plane: &ControlPlane,
) {
    let read = ServerSettings::resolve(args.clone(), environment)
        .and_then(sound_log(|it: &ServerSettings| &it.log));
    let Some(fresh) = taken(read) else { return };
    let is_signed_otherwise = fresh.contracts.jwt != now.contracts.jwt;
    let life = fresh.contracts.miaas.ttl;
    let is_given = match (&fresh.contracts.jwt, &now.contracts.jwt) {
        (Some(given), Some(_)) if is_signed_otherwise => plane.sign_miaas_with(given, life),
        _ => false,
    };
    let waiting = [
        ("listen", fresh.listen != now.listen),
        (
            "compat",
            (&fresh.compat, &fresh.doors) != (&now.compat, &now.doors),
        ),
        (
            "miaas, orchion or spot",
            fresh.contracts
                != ContractSettings {
                    jwt: fresh.contracts.jwt.clone(),
                    ..now.contracts.clone()
                },
        ),
        ("miaas.jwt_secret", is_signed_otherwise && !is_given),
        ("persys", fresh.persys != now.persys),
        ("data_dir", fresh.data_dir != now.data_dir),
        ("tls or insecure", fresh.trust != now.trust),
        (
            "secrets_key",
            fresh.secrets.key_file != now.secrets.key_file,
        ),
        ("log_format", fresh.log.format != now.log.format),
    ];
    let changed = [
        ("log_level", follow_log(&mut now.log, &fresh.log)),
        ("miaas.jwt_secret", is_given),
    ];
    if is_given {
        now.contracts.jwt = fresh.contracts.jwt;
    }
    tell(&changed, &waiting);
}

/// The agent's settings, anew.
pub(crate) fn agent(
    now: &mut AgentSettings,
    (args, environment): (&AgentArgs, &Environment),
    agent: &NodeAgent,
) {
    let read = AgentSettings::resolve(args.clone(), environment)
        .and_then(sound_log(|it: &AgentSettings| &it.log));
    let Some(fresh) = taken(read) else { return };
    let waiting = [
        ("server or dialect", fresh.target != now.target),
        ("data_dir", fresh.data_dir != now.data_dir),
        ("tls", fresh.trust != now.trust),
        ("name", fresh.name != now.name),
        ("machine_id", fresh.machine_id != now.machine_id),
        ("listen", fresh.listen != now.listen),
        ("docker_socket", fresh.docker_socket != now.docker_socket),
        ("vm", fresh.vm != now.vm),
        ("volumes", fresh.volumes != now.volumes),
        ("guard", fresh.guard != now.guard),
        ("log_format", fresh.log.format != now.log.format),
    ];
    if fresh.labels != now.labels {
        tracing::warn!(
            key = "labels",
            "count when a node first joins: `hostler node label` changes them later"
        );
    }
    let changed = [
        ("log_level", follow_log(&mut now.log, &fresh.log)),
        ("reserve", fresh.reserve != now.reserve),
        ("gc or pressure", fresh.care != now.care),
        ("container.registries", fresh.registries != now.registries),
    ];
    agent.tune(Tuning {
        reserved: fresh.reserve,
        care: fresh.care,
    });
    if fresh.registries != now.registries {
        agent.set_registries(fresh.registries.clone());
    }
    (now.reserve, now.care, now.registries) = (fresh.reserve, fresh.care, fresh.registries);
    tell(&changed, &waiting);
}

/// A filter that is none would be replaced silently.
fn sound_log<T>(log: impl Fn(&T) -> &LogSettings) -> impl Fn(T) -> Result<T, Failure> {
    move |settings| {
        let filter = &log(&settings).filter;
        if telemetry::is_filter(filter) {
            return Ok(settings);
        }
        Err(Failure::usage(
            format!("`{}` is no log level", filter.escape_debug()),
            "write `info`, or `hostler_agent=debug,warn`",
        ))
    }
}

fn taken<T>(read: Result<T, Failure>) -> Option<T> {
    read.map_err(|failure| {
        let Failure {
            sentence, advice, ..
        } = failure;
        tracing::error!(
            sentence,
            advice,
            "the configuration makes no sense: nothing is changed"
        );
    })
    .ok()
}

/// Logs as is told now, and says whether that is something else.
fn follow_log(now: &mut LogSettings, fresh: &LogSettings) -> bool {
    if now.filter == fresh.filter {
        return false;
    }
    now.filter.clone_from(&fresh.filter);
    telemetry::change_filter(&fresh.filter)
}

fn tell(changed: &[(&str, bool)], waiting: &[(&str, bool)]) {
    let named = |pairs: &[(&str, bool)]| {
        let those = pairs.iter().filter(|(_, is_so)| *is_so);
        those.map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
    };
    let (changed, waiting) = (named(changed), named(waiting));
    if !waiting.is_empty() {
        tracing::warn!(keys = waiting, "this takes effect at the next start only");
    }
    tracing::info!(changed, "the configuration was read again");
}
