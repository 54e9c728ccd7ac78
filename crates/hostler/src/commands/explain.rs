//! `explain`: the page of a code. Needs no server: the pages are in the program.

use hostler_model::{FailureCode, page_of};

use crate::args::ExplainArgs;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::status::ExitStatus;

pub(crate) fn explain(args: &ExplainArgs, printer: &Printer) -> Result<ExitStatus, Failure> {
    let code = args.code.as_str();
    let Some(page) = page_of(code) else {
        return Err(Failure::failed(
            format!("there is no code `{code}`"),
            "`hostler ps` and `hostler why` show the codes of what failed",
        ));
    };
    printer.text(page);
    if let Some(failure) = FailureCode::parse(code) {
        let again = if failure.is_passing() {
            "trying the same again may help"
        } else {
            "trying the same again does not help"
        };
        let reason = failure.reason();
        printer.text(&format!("\n## Reason\n\n{reason}: {again}.\n"));
    }
    Ok(ExitStatus::Done)
}
