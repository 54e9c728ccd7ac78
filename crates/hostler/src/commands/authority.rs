//! `authority`: whom the fleet's members believe.

use hostler_wire::api::Authority;

use super::Remote;
use crate::args::{AuthorityArgs, AuthorityCommand, OutputForm};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;

pub(crate) async fn authority(
    remote: &Remote<'_>,
    command: AuthorityCommand,
) -> Result<ExitStatus, Failure> {
    match command {
        AuthorityCommand::Show(args) => {
            show(remote, &args, &remote.client.authority().await?)?;
        }
        AuthorityCommand::Rotate(args) => {
            show(remote, &args, &remote.client.rotate_authority().await?)?;
            let told = "connected nodes take the new one over at once, the others when they come; who logs in by \
                        print needs the new one";
            remote.printer.talk(told);
        }
        AuthorityCommand::Retire(args) => {
            let authority = remote.client.retire_authority(args.force).await?;
            show(remote, &args.authority, &authority)?;
            let told = "join tokens and logins that are older than the key are worth nothing now";
            remote.printer.talk(told);
        }
    }
    Ok(ExitStatus::Done)
}

fn show(remote: &Remote<'_>, args: &AuthorityArgs, authority: &Authority) -> Result<(), Failure> {
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, authority),
        OutputForm::Name => {
            remote.printer.data(&authority.print);
            Ok(())
        }
        OutputForm::Table | OutputForm::Wide => {
            remote.printer.data(&format!("print {}", authority.print));
            remote.printer.data(authority.certificates.trim_end());
            if !authority.behind.is_empty() {
                let line = format!("not known yet to {}", authority.behind.join(", "));
                remote.printer.talk(&line);
            }
            Ok(())
        }
    }
}
