//! `secret`: values that only the copies that name them see. A value is read from a file or from standard input, never
//! from the command line, which everybody on the machine can read; and nothing shows it.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use hostler_wire::api::SecretQuery;
use hostler_wire::client::Expect;

use super::{Remote, rm};
use crate::age;
use crate::args::{
    OutputForm, SecretCommand, SecretLsArgs, SecretRekeyArgs, SecretRmArgs, SecretSetArgs,
};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;
use crate::table::Table;

/// More than the server takes; it says how much that is.
const MOST_BYTES: u64 = 64 << 10;

pub(crate) async fn secret(
    remote: &Remote<'_>,
    command: SecretCommand,
) -> Result<ExitStatus, Failure> {
    match command {
        SecretCommand::Set(args) => set(remote, args).await,
        SecretCommand::Ls(args) => list(remote, args).await,
        SecretCommand::Rm(args) => remove(remote, args).await,
        SecretCommand::Rekey(args) => rekey(remote, args).await,
    }
}

async fn set(remote: &Remote<'_>, args: SecretSetArgs) -> Result<ExitStatus, Failure> {
    let value = read(args.from_file.as_deref())?;
    if value.is_empty() {
        return Err(Failure::usage(
            "the value is empty",
            "write it to standard input, as with `printf %s VALUE |`, or name a file with --from-file",
        ));
    }
    if value.ends_with(b"\n") {
        let note = "the value ends with a line break, which is part of it; `printf %s` writes none";
        remote.printer.talk(note);
    }
    let query = SecretQuery {
        restart: args.restart,
    };
    let set = remote
        .client
        .set_secret(&args.name, value, query, Expect::Any);
    let set = set.await?;
    remote
        .printer
        .talk(&format!("{} is at version {}", set.name, set.version));
    for workload in &set.restarted {
        remote.printer.talk(&format!("{workload} restarts"));
    }
    if set.not_restarted.is_empty() {
        return Ok(ExitStatus::Done);
    }
    let sentence = format!(
        "{} is set, and not every workload that names it restarts",
        set.name
    );
    let advice = "see to the named ones, then `hostler restart` them";
    Err(Failure::failed(sentence, advice).with_details(set.not_restarted))
}

fn read(path: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let path = path.filter(|path| *path != Path::new("-"));
    let mut value = Vec::new();
    let read = match path {
        Some(path) => {
            std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut value))
        }
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::usage(
                "the value is read from standard input, which is a terminal here",
                "write it there with a pipe, as with `printf %s VALUE |`, or name a file with --from-file",
            ));
        }
        None => std::io::stdin()
            .lock()
            .take(MOST_BYTES)
            .read_to_end(&mut value),
    };
    let place = path.map_or_else(
        || "standard input".to_owned(),
        |it| it.display().to_string(),
    );
    match read {
        Ok(_) => Ok(value),
        Err(error) => Err(Failure::failed(
            format!("the value cannot be read from {place}: {error}"),
            "name a file that can be read",
        )),
    }
}

async fn list(remote: &Remote<'_>, args: SecretLsArgs) -> Result<ExitStatus, Failure> {
    let secrets = remote.client.secrets().await?;
    let form = settings::form(&args.output);
    match form {
        OutputForm::Json | OutputForm::Yaml => remote.printer.document(form, &secrets)?,
        OutputForm::Name => secrets
            .iter()
            .for_each(|secret| remote.printer.data(&secret.name)),
        OutputForm::Table | OutputForm::Wide => {
            let is_wide = form == OutputForm::Wide;
            let mut head = vec!["NAME", "VERSION", "AGE", "WORKLOADS"];
            head.extend(is_wide.then_some("KEY"));
            let mut table = Table::new(&head);
            for secret in &secrets {
                let mut row = vec![
                    secret.name.clone().into(),
                    secret.version.to_string().into(),
                    age::since(&secret.created_at, remote.now()).into(),
                    secret.workloads.join(", ").into(),
                ];
                row.extend(is_wide.then(|| secret.key.clone().into()));
                table.row(row);
            }
            table.print(remote.printer);
        }
    }
    Ok(ExitStatus::Done)
}

async fn remove(remote: &Remote<'_>, args: SecretRmArgs) -> Result<ExitStatus, Failure> {
    let what = format!("remove {}", args.names.join(", "));
    rm::confirm(remote, args.yes, &what)?;
    for name in &args.names {
        remote.client.remove_secret(name, Expect::Any).await?;
        remote.printer.talk(&format!("{name} is gone"));
    }
    Ok(ExitStatus::Done)
}

async fn rekey(remote: &Remote<'_>, _: SecretRekeyArgs) -> Result<ExitStatus, Failure> {
    let done = remote.client.rekey_secrets().await?;
    remote
        .printer
        .talk(&format!("secrets under the new key: {}", done.resealed));
    if done.unopened == 0 {
        return Ok(ExitStatus::Done);
    }
    let sentence = format!(
        "secrets under a key that the server has not: {}",
        done.unopened
    );
    let advice = "start the server with the key file that sealed them, or set them again";
    Err(Failure::failed(sentence, advice))
}
