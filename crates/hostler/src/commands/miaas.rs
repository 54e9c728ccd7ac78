//! `miaas`: what signs the tokens of MIaaS's nodes.

use hostler_wire::api::RotateKeyQuery;

use super::Remote;
use crate::args::{OutputForm, RotateKeyArgs};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;

pub(crate) async fn rotate_key(
    remote: &Remote<'_>,
    args: RotateKeyArgs,
) -> Result<ExitStatus, Failure> {
    let query = RotateKeyQuery {
        at_once: args.at_once,
    };
    let keys = remote.client.rotate_miaas_key(query).await?;
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &keys)?,
        OutputForm::Name => remote.printer.data(&keys.key),
        OutputForm::Table | OutputForm::Wide => {
            let (key, former) = (&keys.key, keys.former);
            let told = format!("key {key} signs now; older ones that are believed: {former}");
            remote.printer.data(&told);
        }
    }
    Ok(ExitStatus::Done)
}
