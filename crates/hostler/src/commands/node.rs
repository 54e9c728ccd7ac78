//! `node`: look after nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use hostler_model::{Bytes, MilliCpu};
use hostler_wire::api::{
    Assignment, AssignmentFilter, Command as Order, CommandProgress, GcWish, Instance, LabelPatch,
    Node, NodeFilter, Resources,
};
use hostler_wire::client::{Expect, Force};

use super::ps::copies_table;
use super::rm::confirm;
use super::{Remote, adopt, drain, skew, word};
use crate::age;
use crate::args::{
    ClientArgs, LabelArgs, NodeCommand, NodeGcArgs, NodeLsArgs, NodeRmArgs, NodeTargetArgs,
    OutputForm,
};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;
use crate::table::{self, Cell, Table};

/// How long `accept` waits for the node's answer, how long `gc` does, and how often they look.
const ANSWER: Duration = Duration::from_secs(10);
const ROUND: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);
const UNANSWERED: &str = "ordered; the node has not answered yet";

/// Where the server is, for any of the verbs.
pub(crate) const fn client(command: &NodeCommand) -> &ClientArgs {
    match command {
        NodeCommand::Ls(args) => &args.client,
        NodeCommand::Show(args)
        | NodeCommand::Cordon(args)
        | NodeCommand::Uncordon(args)
        | NodeCommand::Undrain(args)
        | NodeCommand::Approve(args)
        | NodeCommand::Accept(args) => &args.client,
        NodeCommand::Label(args) => &args.client,
        NodeCommand::Drain(args) => &args.client,
        NodeCommand::Rm(args) => &args.client,
        NodeCommand::Gc(args) => &args.client,
        NodeCommand::Adopt(args) => &args.client,
    }
}

pub(crate) async fn node(remote: &Remote<'_>, command: NodeCommand) -> Result<ExitStatus, Failure> {
    let client = &remote.client;
    match command {
        NodeCommand::Ls(args) => list(remote, args).await?,
        NodeCommand::Show(args) => show(remote, args).await?,
        NodeCommand::Label(args) => label(remote, args).await?,
        NodeCommand::Cordon(args) => {
            changed(remote, &client.cordon(&args.node, Expect::Any).await?)
        }
        NodeCommand::Uncordon(args) => {
            changed(remote, &client.uncordon(&args.node, Expect::Any).await?)
        }
        NodeCommand::Undrain(args) => {
            changed(remote, &client.undrain(&args.node, Expect::Any).await?)
        }
        NodeCommand::Approve(args) => changed(remote, &client.approve(&args.node).await?),
        NodeCommand::Drain(args) => return drain::drain(remote, args).await,
        NodeCommand::Rm(args) => remove(remote, args).await?,
        NodeCommand::Accept(args) => accept(remote, &args.node).await?,
        NodeCommand::Gc(args) => collect(remote, args).await?,
        NodeCommand::Adopt(args) => return adopt::adopt(remote, args).await,
    }
    Ok(ExitStatus::Done)
}

fn changed(remote: &Remote<'_>, node: &Node) {
    remote
        .printer
        .data(&format!("{} is {}", node.name, word(&node.state)));
}

async fn list(remote: &Remote<'_>, args: NodeLsArgs) -> Result<(), Failure> {
    let filter = NodeFilter {
        gone: (!args.all).then_some(false),
    };
    let mut nodes = remote.client.nodes(filter).await?;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &nodes)?,
        OutputForm::Name => nodes
            .iter()
            .for_each(|node| remote.printer.data(&node.name)),
        form @ (OutputForm::Table | OutputForm::Wide) => {
            let server = server_version(remote).await;
            nodes_table(
                remote,
                (&nodes, server.as_deref()),
                form == OutputForm::Wide,
            );
            warn_of_rare_beats(remote, &nodes);
        }
    }
    Ok(())
}

fn nodes_table(remote: &Remote<'_>, (nodes, server): (&[Node], Option<&str>), is_wide: bool) {
    let mut head = vec![
        "NAME",
        "STATE",
        "COPIES",
        "CPU FREE",
        "MEMORY FREE",
        "RUNS",
        "VERSION",
        "AGE",
    ];
    if is_wide {
        head.extend(["ADDRESS", "INSTANCE", "LABELS", "ID"]);
    }
    let mut table = Table::new(&head);
    for node in nodes {
        let kinds: Vec<&str> = (node.facts.runtimes.iter())
            .filter(|runtime| runtime.available)
            .map(|runtime| runtime.kind.as_str())
            .collect();
        let mut row = vec![
            node.name.clone().into(),
            standing(node),
            node.copies.to_string().into(),
            of(cpu(&node.free), cpu(&node.capacity)).into(),
            of(memory(&node.free), memory(&node.capacity)).into(),
            kinds.join(",").into(),
            version(node, server),
            age::since(&node.joined_at, remote.now()).into(),
        ];
        if is_wide {
            row.extend([
                node.ip.clone().into(),
                node.instance
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), instance)
                    .into(),
                labels(&node.labels).into(),
                node.id.clone().into(),
            ]);
        }
        table.row(row);
    }
    table.print(remote.printer);
}

/// Of the server; none if it does not tell, and then nothing is compared.
async fn server_version(remote: &Remote<'_>) -> Option<String> {
    let version = remote.client.version().await;
    version.ok().map(|version| version.version)
}

/// The agent's version, and how it stands to the server's.
fn version(node: &Node, server: Option<&str>) -> Cell {
    let agent = node.facts.agent_version.clone();
    match skew::of(node, server) {
        None => agent.into(),
        Some(skew) => table::state(&format!("{agent}, {skew}")),
    }
}

/// The state, and what the node is short of while it is.
fn standing(node: &Node) -> Cell {
    let state = word(&node.state);
    if node.pressure.is_empty() {
        return table::state(&state);
    }
    table::state(&format!("{state}, short of {}", node.pressure.join(", ")))
}

fn of(free: String, all: String) -> String {
    format!("{free} of {all}")
}

fn cpu(resources: &Resources) -> String {
    MilliCpu(resources.milli_cpu).to_string()
}

fn memory(resources: &Resources) -> String {
    Bytes(resources.memory_bytes).rough()
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

async fn show(remote: &Remote<'_>, args: NodeTargetArgs) -> Result<(), Failure> {
    let node = remote.client.node(&args.node).await?;
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &node)?,
        OutputForm::Name => remote.printer.data(&node.name),
        OutputForm::Table | OutputForm::Wide => {
            page(remote, &node, server_version(remote).await.as_deref());
            let copies = copies(remote, &node).await?;
            remote.printer.data("");
            copies_table(remote, &copies, None, false);
        }
    }
    Ok(())
}

fn page(remote: &Remote<'_>, node: &Node, server: Option<&str>) {
    let facts = &node.facts;
    let lease = node.lease.map_or_else(
        || "none".to_owned(),
        |lease| {
            format!(
                "last beat {} ms ago, lost after {} ms",
                lease.age_ms, lease.window_ms
            )
        },
    );
    let used = node.metrics.as_ref().map_or_else(String::new, |metrics| {
        format!(
            "cpu {:.0} %, memory {:.0} %",
            metrics.cpu_usage, metrics.mem_usage
        )
    });
    let lines = [
        ("name", node.name.clone()),
        ("id", node.id.clone()),
        ("state", word(&node.state)),
        ("held back", node.held_back.clone().unwrap_or_default()),
        ("short of", short_of(node)),
        ("lease", lease),
        ("beats", beats(node)),
        ("address", node.ip.clone()),
        ("labels", labels(&node.labels)),
        (
            "machine",
            format!("{} {} {}", node.capabilities.os, facts.arch, facts.kernel),
        ),
        ("agent", agent(node, server)),
        ("cpu", of(cpu(&node.free), cpu(&node.capacity)) + " free"),
        (
            "memory",
            of(memory(&node.free), memory(&node.capacity)) + " free",
        ),
        ("in use", used),
        ("joined", node.joined_at.clone()),
        (
            "instance",
            node.instance.as_ref().map(instance).unwrap_or_default(),
        ),
    ];
    for (key, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        remote.printer.data(&format!("{key:<11}{value}"));
    }
    for runtime in &facts.runtimes {
        let can = if runtime.available { "yes" } else { "no" };
        let words = [can, runtime.version.as_str(), runtime.note.as_str()];
        let said: Vec<&str> = words.into_iter().filter(|text| !text.is_empty()).collect();
        remote
            .printer
            .data(&format!("{:<11}{}", runtime.kind, said.join(", ")));
    }
    let storage = facts.storage.iter().filter(|fact| fact.available);
    let storage: Vec<&str> = storage.map(|fact| fact.driver.as_str()).collect();
    if !storage.is_empty() {
        let line = format!("{:<11}{}", "volumes", storage.join(", "));
        remote.printer.data(&line);
    }
}

fn agent(node: &Node, server: Option<&str>) -> String {
    let said = format!("{} over {}", node.facts.agent_version, node.contract);
    match skew::of(node, server) {
        None => said,
        Some(skew) => format!("{said}, {skew} than the server"),
    }
}

fn short_of(node: &Node) -> String {
    match node.pressure.join(", ") {
        nothing if nothing.is_empty() => nothing,
        short_of => format!("{short_of}; nothing new is placed here"),
    }
}

/// How often a node beats whose agent chooses the interval, and what is wrong with it.
fn beats(node: &Node) -> String {
    let lease = node.lease.filter(|lease| lease.spacing_ms.is_some());
    let Some(lease) = lease else {
        return String::new();
    };
    let every = format!("every {} ms", lease.spacing_ms.unwrap_or_default());
    match lease.advised_ms {
        Some(advised) => format!(
            "{every}: too rarely for its lease, so that one lost beat may lose the node; set its agent's \
             interval to {advised} ms or less"
        ),
        None => every,
    }
}

/// Nodes that are near to being lost without need.
fn warn_of_rare_beats(remote: &Remote<'_>, nodes: &[Node]) {
    let is_rare = |node: &&Node| node.lease.is_some_and(|lease| lease.advised_ms.is_some());
    for node in nodes.iter().filter(is_rare) {
        remote
            .printer
            .talk(&format!("{} beats {}", node.name, beats(node)));
    }
}

/// A rented machine in one line; what its agent did not tell is left out.
fn instance(instance: &Instance) -> String {
    let words = [
        &instance.provider,
        &instance.id,
        &instance.instance_type,
        &instance.zone,
        &instance.market,
    ];
    let told = words.into_iter().map(String::as_str);
    let told: Vec<&str> = told.filter(|word| !word.is_empty()).collect();
    told.join(" ")
}

/// The copies on a node.
pub(crate) async fn copies(remote: &Remote<'_>, node: &Node) -> Result<Vec<Assignment>, Failure> {
    let filter = AssignmentFilter {
        node: Some(node.id.clone()),
        workload: None,
    };
    Ok(remote.client.assignments(&filter).await?)
}

async fn label(remote: &Remote<'_>, args: LabelArgs) -> Result<(), Failure> {
    let mut patch = LabelPatch::default();
    for text in &args.labels {
        let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => (key, Some(value.to_owned())),
            (None, Some(key)) if !key.is_empty() => (key, None),
            _ => {
                let sentence = format!("`{text}` neither sets nor removes a label");
                return Err(Failure::usage(sentence, "write `key=value` or `key-`"));
            }
        };
        patch.0.insert(key.to_owned(), value);
    }
    let node = remote.client.label(&args.node, &patch, Expect::Any).await?;
    remote.printer.data(&format!(
        "{} has the labels {}",
        node.name,
        labels(&node.labels)
    ));
    Ok(())
}

async fn remove(remote: &Remote<'_>, args: NodeRmArgs) -> Result<(), Failure> {
    let node = remote.client.node(&args.node).await?;
    let loss = if args.force {
        " and give its copies up"
    } else {
        ""
    };
    confirm(
        remote,
        args.yes,
        &format!("remove the node {}{loss}", node.name),
    )?;
    let force = if args.force {
        Force::GiveUpCopies
    } else {
        Force::No
    };
    let node = remote
        .client
        .remove_node(&node.id, force, Expect::Any)
        .await?;
    remote.printer.data(&format!("{} is removed", node.name));
    Ok(())
}

async fn accept(remote: &Remote<'_>, node: &str) -> Result<(), Failure> {
    let order = remote.client.accept(node).await?;
    match answer(remote, &order, ANSWER).await? {
        Some(_) => remote.printer.data("accepted"),
        None => remote.printer.data(UNANSWERED),
    }
    Ok(())
}

async fn collect(remote: &Remote<'_>, args: NodeGcArgs) -> Result<(), Failure> {
    let node = remote.client.node(&args.node).await?;
    if args.data && !args.dry_run {
        let what = format!("delete data on {} that may be nowhere else", node.name);
        confirm(remote, args.yes, &what)?;
    }
    let wish = GcWish {
        dry_run: args.dry_run,
        data: args.data,
    };
    let order = remote.client.gc(&node.id, wish).await?;
    match answer(remote, &order, ROUND).await? {
        Some(words) => words.lines().for_each(|line| remote.printer.data(line)),
        None => remote.printer.data(UNANSWERED),
    }
    Ok(())
}

/// What the node says to an order; nothing if it does not answer in that time.
pub(super) async fn answer(
    remote: &Remote<'_>,
    order: &Order,
    most: Duration,
) -> Result<Option<String>, Failure> {
    let answered = async {
        loop {
            let orders = remote.client.commands(&order.node).await?;
            let ours = orders.into_iter().find(|it| it.id == order.id);
            let state = ours.map(|order| order.state);
            if let Some(state) = state.filter(|it| it.word != CommandProgress::Pending) {
                return Ok::<_, Failure>(state);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(most, answered).await {
        Err(_) => Ok(None),
        Ok(state) => match state? {
            state if state.word == CommandProgress::Failed => Err(Failure::failed(
                state.message,
                "`hostler node show` says how it stands",
            )),
            state => Ok(Some(state.message)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(lease: &str) -> Node {
        let json = format!(
            r#"{{"id": "1", "name": "box", "capabilities": {{}}, "last_seen": 0, "status": "online",
                "state": "ready", "joined_at": "", "lease": {lease}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_node_that_beats_too_rarely_is_shown_with_the_interval_to_set() {
        let shown = beats(&node(
            r#"{"age_ms": 1, "window_ms": 30000, "spacing_ms": 20000, "advised_ms": 10000}"#,
        ));
        assert!(shown.starts_with("every 20000 ms: too rarely"), "{shown}");
        assert!(shown.ends_with("interval to 10000 ms or less"), "{shown}");
        let well = node(r#"{"age_ms": 1, "window_ms": 30000, "spacing_ms": 5000}"#);
        assert_eq!(beats(&well), "every 5000 ms");
        assert_eq!(beats(&node(r#"{"age_ms": 1, "window_ms": 5000}"#)), "");
    }
}
