//! Who is to be dialled: a task begins for each node that registered and that nobody speaks to.

use super::*;

/// How often it is looked for nodes that nobody holds.
const WATCH: Duration = Duration::from_secs(2);

/// Starts a task for each node that nobody speaks to, until the server ends.
pub(crate) async fn watch(door: Arc<Door>) {
    loop {
        for node in unheld(&door) {
            let task = drive(Arc::clone(&door), node);
            door.control.tasks().spawn("persys agent", task);
        }
        door.look_at_mode();
        tokio::select! {
            biased;
            () = door.control.over() => return,
            () = door.woken.notified() => {}
            () = tokio::time::sleep(WATCH) => {}
        }
    }
}

fn unheld(door: &Door) -> Vec<NodeId> {
    let view = door.control.view();
    let ours = view
        .nodes()
        .filter(|node| node.contract == Contract::Persys && !node.is_gone());
    let ids: Vec<NodeId> = ours.map(|node| node.id).collect();
    drop(view);
    let is_free = |node: &NodeId| {
        let is_connected = door.control.live(*node).is_some_and(|it| it.is_connected);
        !is_connected && !door.holders.is_held(*node)
    };
    ids.into_iter().filter(is_free).collect()
}

async fn drive(door: Arc<Door>, node: NodeId) {
    let link = Arc::new(Dialled::default());
    // Held before it attaches, so that nobody else is started for the node meanwhile.
    let (holding, says) = door.holders.hold(node);
    let attached = door
        .control
        .attach(node, MACHINE, Arc::clone(&link) as Arc<dyn Link>);
    match attached {
        Ok(attachment) => {
            let driver = Driver::new(Arc::clone(&door), attachment, link, says);
            Box::pin(driver.run()).await;
        }
        Err(refusal) => tracing::debug!(%node, %refusal, "cannot hold the node"),
    }
    drop(holding);
}

/// The control plane's way to a node that is dialled: a wake. The contract hands out no logs.
#[derive(Debug, Default)]
pub(super) struct Dialled {
    pub(super) woken: Notify,
}

#[async_trait]
impl Link for Dialled {
    fn wake(&self) {
        self.woken.notify_one();
    }

    async fn logs(
        &self,
        _unit: UnitId,
        _query: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal> {
        Err(no_logs())
    }
}

pub(crate) fn no_logs() -> Refusal {
    Refusal::new(
        Code::LogNotFound,
        "a Persys agent hands out no logs",
        "read them on the node itself",
    )
}
