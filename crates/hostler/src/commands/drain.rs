//! `node drain`: places nothing new on a node, moves its copies away, and waits until no process of ours is
//! left there. What blocks it is told copy by copy.

use std::time::Duration;

use hostler_wire::api::{Assignment, Intent, Node, NodeState};
use hostler_wire::client::Expect;

use super::Remote;
use super::node::copies;
use super::wait::{reasons, standing_of};
use crate::age;
use crate::args::DrainArgs;
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;

const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn drain(remote: &Remote<'_>, args: DrainArgs) -> Result<ExitStatus, Failure> {
    let node = remote.client.drain(&args.node, Expect::Any).await?;
    let Some(most) = settings::wait(&args.wait) else {
        remote.printer.talk(&format!("{} drains", node.name));
        return Ok(ExitStatus::Done);
    };
    match tokio::time::timeout(most, drained(remote, &node)).await {
        Ok(end) => end.map(|()| ExitStatus::Done),
        Err(_) => Err(blocked(remote, &node, most).await),
    }
}

async fn drained(remote: &Remote<'_>, node: &Node) -> Result<(), Failure> {
    let mut progress = remote.printer.progress();
    loop {
        let now = remote.client.node(&node.id).await?;
        match now.state {
            NodeState::Drained => break,
            NodeState::Draining => {
                let left = now.drain.map_or(now.copies, |drain| drain.left);
                progress.tell(&format!("{}: {left} copies not gone yet", now.name));
            }
            NodeState::Lost | NodeState::Suspect | NodeState::Joining => {
                progress.tell(&format!(
                    "{}: is silent, so nobody knows what runs there",
                    now.name
                ));
            }
            NodeState::Pending
            | NodeState::Ready
            | NodeState::Cordoned
            | NodeState::Gone
            | NodeState::Unknown => {
                let sentence = format!("{} no longer drains: somebody changed that", now.name);
                return Err(Failure::failed(sentence, "`hostler events` says who"));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    drop(progress);
    remote.printer.talk(&format!("{}: drained", node.name));
    Ok(())
}

async fn blocked(remote: &Remote<'_>, node: &Node, most: Duration) -> Failure {
    let mut details = Vec::new();
    let left = copies(remote, node).await.unwrap_or_default();
    let mut asked: Vec<&str> = Vec::new();
    for copy in left.iter().filter(|copy| copy.outcome.is_none()) {
        details.push(line(copy));
        if !asked.contains(&copy.workload.as_str()) {
            asked.push(&copy.workload);
            if let Ok(why) = remote.client.why(&copy.workload).await {
                details.extend(reasons(&why));
            }
        }
    }
    let sentence = format!("{} is not drained after {}", node.name, age::rough(most));
    let advice =
        "it goes on by itself once there is room elsewhere; `hostler node undrain` ends it";
    Failure::new(ExitStatus::Pending, sentence, advice).with_details(details)
}

fn line(copy: &Assignment) -> String {
    let wanted = match copy.intent {
        Intent::Run => "has no other place yet",
        Intent::Stop | Intent::Unknown => "is stopping",
    };
    format!(
        "{}.{} {wanted} ({})",
        copy.workload_name,
        copy.slot,
        standing_of(copy)
    )
}
