//! `node adopt`: what runs on a node that Hostler did not make, as the specs that it would become, and taking it over
//! without a restart.

use std::time::Duration;

use hostler_model::spec::{Constraint, Operator, WorkloadSpec};
use hostler_runtime::AdoptableList;
use hostler_wire::api::AdoptableQuery;
use hostler_wire::client::Expect;

use super::Remote;
use super::apply::{Applying, submit};
use super::import::{show, tell, text};
use super::node::answer;
use crate::args::{AdoptArgs, OutputArgs};
use crate::failure::Failure;
use crate::status::ExitStatus;

/// How long the node may take to look at its containers.
const ANSWER: Duration = Duration::from_secs(60);

pub(crate) async fn adopt(remote: &Remote<'_>, args: AdoptArgs) -> Result<ExitStatus, Failure> {
    if args.apply && !args.all && args.containers.is_empty() {
        return Err(Failure::usage(
            "nothing says which containers are to be taken over",
            "name them, or say --all",
        ));
    }
    let node = remote.client.node(&args.node).await?;
    let list = ask(remote, &node.id, &args.containers).await?;
    check_found(&list, &args.containers, &node.name)?;
    let notes = list.found.iter().flat_map(|it| {
        let name = it.name.clone();
        it.notes.iter().map(move |note| format!("`{name}`: {note}"))
    });
    let kept = list
        .refused
        .iter()
        .map(|(name, why)| format!("`{name}` is left out: {why}"));
    let notes: Vec<String> = notes.chain(kept).collect();
    let pinned = |spec: WorkloadSpec| pinned(spec, &node.name);
    let specs: Vec<WorkloadSpec> = list.found.into_iter().map(|it| pinned(it.spec)).collect();
    if !args.apply {
        show(remote, args.output, &specs)?;
        tell(remote, &notes);
        return Ok(ExitStatus::Done);
    }
    tell(remote, &notes);
    let applying = Applying::new((false, false), &args.wait, &OutputArgs::default());
    // A workload that has the name already is not meant.
    let applying = applying.expecting(Expect::Absent);
    submit(remote, vec![text(&specs)?], applying).await
}

async fn ask(remote: &Remote<'_>, node: &str, names: &[String]) -> Result<AdoptableList, Failure> {
    let query = AdoptableQuery {
        names: names.to_vec(),
    };
    let order = remote.client.adoptable(node, &query).await?;
    let Some(told) = answer(remote, &order, ANSWER).await? else {
        let sentence = "the node has not told what runs on it";
        let advice = "see with `hostler node show` that it is ready and that its agent speaks our own contract";
        return Err(Failure::new(ExitStatus::Pending, sentence, advice));
    };
    serde_json::from_str(&told).map_err(|error| {
        Failure::failed(
            format!("the node's answer cannot be read: {error}"),
            "bring agent and command line to the same version",
        )
    })
}

fn check_found(list: &AdoptableList, names: &[String], node: &str) -> Result<(), Failure> {
    let missing = names
        .iter()
        .filter(|name| list.found.iter().all(|it| it.name != **name));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if list.left_off > 0 {
        let sentence = format!(
            "{} containers of {node} have no room in one answer",
            list.left_off
        );
        return Err(Failure::failed(sentence, "name those that you mean"));
    }
    if !missing.is_empty() {
        let sentence = format!(
            "no container of {node} that could be adopted is called {}",
            missing.join(", ")
        );
        let advice = "`hostler node adopt NODE` lists them; those of Hostler, and those that do not run, are none";
        return Err(Failure::failed(sentence, advice));
    }
    if list.found.is_empty() {
        let sentence = format!("nothing runs on {node} that Hostler did not make");
        return Err(Failure::failed(sentence, "there is nothing to do"));
    }
    Ok(())
}

/// The container is nowhere else.
fn pinned(mut spec: WorkloadSpec, node: &str) -> WorkloadSpec {
    spec.placement.constraints.push(Constraint {
        key: "node.name".to_owned(),
        operator: Operator::In,
        values: vec![node.to_owned()],
    });
    spec
}
