//! `version`: of this program, and of the server if one answers.

use hostler_wire::api::Version;
use hostler_wire::client::ClientError;
use serde::Serialize;

use super::Remote;
use crate::args::{OutputForm, VersionArgs};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;

#[derive(Serialize)]
struct Versions {
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Version>,
}

pub(crate) async fn version(remote: &Remote<'_>, args: VersionArgs) -> Result<ExitStatus, Failure> {
    let server = match remote.client.version().await {
        Ok(version) => Some(version),
        Err(ClientError::Unreachable { .. }) if !args.require_server => None,
        Err(error) => return Err(error.into()),
    };
    let versions = Versions {
        client: env!("CARGO_PKG_VERSION"),
        server,
    };
    let printer = remote.printer;
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => printer.document(form, &versions)?,
        OutputForm::Name => printer.data(versions.client),
        OutputForm::Table | OutputForm::Wide => {
            printer.data(&format!("client   {}", versions.client));
            match &versions.server {
                Some(Version {
                    version,
                    api,
                    session,
                }) => {
                    let spoken = format!("session {} to {}", session.lowest, session.highest);
                    printer.data(&format!("server   {version} (api {api}, {spoken})"));
                }
                None => printer.data(&format!("server   none answers at {}", remote.addr)),
            }
        }
    }
    Ok(ExitStatus::Done)
}
