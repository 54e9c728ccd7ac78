//! `why`: every reason why copies of a workload wait for a node, or have one and do not run.

use super::Remote;
use super::wait::reasons;
use crate::args::{OutputForm, WhyArgs};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;

pub(crate) async fn why(remote: &Remote<'_>, args: WhyArgs) -> Result<ExitStatus, Failure> {
    let why = remote.client.why(&args.workload).await?;
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &why)?,
        OutputForm::Name => remote.printer.data(&why.workload_name),
        OutputForm::Table | OutputForm::Wide => {
            let mut lines = reasons(&why);
            if lines.is_empty() {
                lines.push(format!("{}: {}", why.workload_name, why.summary));
            }
            lines.iter().for_each(|line| remote.printer.data(line));
        }
    }
    Ok(ExitStatus::Done)
}
