//! Logs pass from a node to a reader, and a slow reader gets a marked gap.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use hostler_control::{Control, Link, LogRecord, LogRequest, LogStream};
use hostler_model::{AssignmentId, Code, Exit, Refusal, Timestamp, UnitId, UnitState};

use crate::world::{World, apply, copies, join, spec, stop, until};

/// A unit that writes `lines` lines at once and then one more each second.
struct Chatty {
    lines: u64,
}

fn line(number: u64) -> Result<LogRecord, Refusal> {
    Ok(LogRecord {
        at: Timestamp::from_millis(number),
        stream: LogStream::Stdout,
        text: number.to_string(),
        is_partial: false,
        run: 1,
    })
}

#[async_trait]
impl Link for Chatty {
    fn wake(&self) {}

    async fn logs(
        &self,
        _unit: UnitId,
        query: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal> {
        let written = stream::iter((1..=self.lines).map(line));
        if !query.follow {
            return Ok(written.boxed());
        }
        let more = stream::iter(self.lines + 1..).then(|number| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            line(number)
        });
        Ok(written.chain(more).boxed())
    }
}

async fn placed(control: &Control) -> AssignmentId {
    let web = apply(control, spec("web", 1, 100)).await.unwrap();
    until(control, "placed", |view| view.pending_copies(web) == 0).await;
    copies(control, web)[0].id
}

#[tokio::test(start_paused = true)]
async fn a_log_is_read_to_its_end() {
    let world = World::new(1);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let copy = placed(&control).await;
    let _session = control
        .attach(
            node.id(),
            "boot 1 of one",
            Arc::new(Chatty { lines: 5_000 }),
        )
        .unwrap();
    let mut log = control.logs(copy, LogRequest::default()).await.unwrap();
    let mut expected = 1;
    while let Some(record) = log.next().await {
        assert_eq!(record.unwrap().text, expected.to_string());
        expected += 1;
    }
    assert_eq!(expected, 5_001);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_follower_gets_a_marked_gap() {
    let world = World::new(2);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let copy = placed(&control).await;
    let _session = control
        .attach(
            node.id(),
            "boot 1 of one",
            Arc::new(Chatty { lines: 5_000 }),
        )
        .unwrap();
    let query = LogRequest {
        follow: true,
        ..LogRequest::default()
    };
    let mut log = control.logs(copy, query).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (mut lines, mut missed) = (0_u64, 0_u64);
    let last = loop {
        let record = log.next().await.unwrap().unwrap();
        if record.stream == LogStream::Notice {
            missed += record
                .text
                .split(' ')
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap();
        } else {
            lines += 1;
            let number: u64 = record.text.parse().unwrap();
            if missed > 0 && number > 5_000 {
                break number;
            }
        }
    };
    assert_eq!(lines + missed, last, "every line was passed on or counted");
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_node_that_is_away_is_refused() {
    let world = World::new(3);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let copy = placed(&control).await;
    node.disconnect();
    let refused = control
        .logs(copy, LogRequest::default())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code, Code::NodeUnreachable);
    let unknown = AssignmentId::mint(Timestamp::default(), 1);
    let refused = control
        .logs(unknown, LogRequest::default())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code, Code::AssignmentNotFound);
    stop(control).await;
}

/// A unit whose second run has begun: its first wrote `run 1`, and so on.
struct Restarted;

#[async_trait]
impl Link for Restarted {
    fn wake(&self) {}

    async fn logs(
        &self,
        _unit: UnitId,
        query: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal> {
        let run = if query.previous { 1 } else { 2 };
        let record = move |number: u64| LogRecord {
            text: format!("run {run}, line {number}"),
            run,
            ..line(number).unwrap()
        };
        Ok(stream::iter((1..=3).map(move |number| Ok(record(number)))).boxed())
    }
}

async fn texts(control: &Control, copy: AssignmentId, query: LogRequest) -> Vec<String> {
    let log = control.logs(copy, query).await.unwrap();
    log.map(|record| record.unwrap().text).collect().await
}

#[tokio::test(start_paused = true)]
async fn the_end_of_each_run_outlives_the_loss_of_its_node() {
    let world = World::new(4);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let copy = placed(&control).await;
    until(&control, "running", |_| !node.units().is_empty()).await;
    let unit = node.units()[0].clone();
    let session = control
        .attach(node.id(), "boot 1 of one", Arc::new(Restarted))
        .unwrap();
    // Its first run ended and the second began before anybody was told; then that ended, too.
    let restarted = hostler_model::ObservedUnit {
        runs: 2,
        ..unit.clone()
    };
    session.observed_delta(vec![restarted]).await.unwrap();
    let crashed = hostler_model::ObservedUnit {
        state: UnitState::Waiting {
            exit: Exit::Code(1),
            retry_at: Timestamp::default(),
        },
        runs: 2,
        ..unit
    };
    session.observed_delta(vec![crashed]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let log = texts(&control, copy, LogRequest::default()).await;
    assert_eq!(log.len(), 3, "the node is there and tells itself: {log:?}");

    drop(session);
    node.disconnect();
    let tail = LogRequest {
        tail: Some(2),
        ..LogRequest::default()
    };
    let log = texts(&control, copy, tail).await;
    assert!(log[0].contains("one is out of reach"), "{log:?}");
    assert_eq!(log[1..], ["run 2, line 2", "run 2, line 3"]);
    let previous = LogRequest {
        previous: true,
        since: Some(Timestamp::from_millis(3)),
        ..LogRequest::default()
    };
    let log = texts(&control, copy, previous).await;
    assert!(log[0].contains("the end of run 1"), "{log:?}");
    assert_eq!(log[1..], ["run 1, line 3"]);

    let follow = LogRequest {
        follow: true,
        ..LogRequest::default()
    };
    let refused = control.logs(copy, follow).await.err().unwrap();
    assert_eq!(refused.code, Code::NodeUnreachable, "it will be back");
    stop(control).await;
}
