//! `persys-agent apply|delete|retry`: passes one request on to the scheduler and prints its answer as one JSON object.

use std::sync::Arc;

use hostler_agent::TcpDial;
use hostler_agent::persys::{RelayError, Scheduler};
use hostler_wire::persys::control::{ApplyWorkloadRequest, FailureReason};
use serde_json::{Map, Value, json};

use super::line::{Apply, Verb};
use super::settings::Settings;
use super::spec_file;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::status::ExitStatus;

pub(super) async fn ask(
    verb: &Verb,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    // What makes no sense is told before anybody is called.
    let request = match verb {
        Verb::Apply(apply) => Some(request(apply)?),
        Verb::Delete { .. } | Verb::Retry { .. } => None,
    };
    let mut scheduler = connect(settings).await?;
    let (is_done, answer) = match (verb, request) {
        (Verb::Apply(_), request) => {
            let answer = scheduler.apply(request.unwrap_or_default()).await?;
            let reason = answer.failure_reason();
            let mut told = said(("success", answer.success), &answer.error_message);
            if reason != FailureReason::Unspecified {
                told.insert("failureReason".to_owned(), json!(reason.as_str_name()));
            }
            (answer.success, told)
        }
        (Verb::Delete { id }, _) => {
            let answer = scheduler.delete(id).await?;
            (
                answer.success,
                said(("success", answer.success), &answer.error_message),
            )
        }
        (Verb::Retry { id }, _) => {
            let answer = scheduler.retry(id).await?;
            (answer.accepted, said(("accepted", answer.accepted), ""))
        }
    };
    printer.data(&Value::Object(answer).to_string());
    Ok(if is_done {
        ExitStatus::Done
    } else {
        ExitStatus::Failed
    })
}

async fn connect(settings: &Settings) -> Result<Scheduler, Failure> {
    let tls = super::calling(settings.tls.scheduler.as_ref())?;
    Ok(Scheduler::connect(&settings.scheduler, tls, Arc::new(TcpDial)).await?)
}

fn said((key, is_so): (&str, bool), error: &str) -> Map<String, Value> {
    let mut told = Map::new();
    told.insert(key.to_owned(), json!(is_so));
    if !error.is_empty() {
        told.insert("errorMessage".to_owned(), json!(error));
    }
    told
}

fn request(apply: &Apply) -> Result<ApplyWorkloadRequest, Failure> {
    let spec = match &apply.spec_file {
        Some(path) => Some(spec_file::read(path, apply.kind.as_deref())?),
        None => None,
    };
    if spec.is_none() && apply.desired_state.is_empty() {
        return Err(Failure::usage(
            "there is nothing to apply",
            "name a file with --spec-file, or change what is there with --desired-state",
        ));
    }
    Ok(ApplyWorkloadRequest {
        workload_id: apply.id.clone(),
        spec,
        revision_id: apply.revision.clone(),
        desired_state: apply.desired_state.clone(),
    })
}

impl From<RelayError> for Failure {
    fn from(error: RelayError) -> Self {
        let advice = "set PERSYS_SCHEDULER_ADDR to the scheduler's HOST:PORT";
        match error {
            error @ RelayError::Address { .. } => Self::usage(error, advice),
            error @ RelayError::Unreachable { .. } => {
                Self::new(ExitStatus::Unreachable, error, advice)
            }
            error @ RelayError::Refused { .. } => Self::failed(error, ""),
        }
    }
}
