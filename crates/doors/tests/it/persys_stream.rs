//! The control stream: an agent that holds one is told there, and dialled no more.
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions, not in what they share"
)]

use hostler_wire::persys::control::control_message::Message;
use hostler_wire::persys::control::{self, ControlMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::persys_world::{Double, Fleet, Plane, beat_of, container, registration};
use crate::server::DEADLINE;

/// An agent's side of a stream.
struct Agent {
    says: mpsc::Sender<ControlMessage>,
    hears: Streaming<ControlMessage>,
}

impl Agent {
    async fn open(plane: &Plane) -> Self {
        let (says, stream) = mpsc::channel(16);
        let mut client = plane.client.clone();
        let hears = client.control_stream(ReceiverStream::new(stream)).await;
        Self {
            says,
            hears: hears.unwrap().into_inner(),
        }
    }

    async fn say(&self, message: Message) {
        let message = Some(message);
        self.says.send(ControlMessage { message }).await.unwrap();
    }

    async fn beat(&self, id: &str, states: &[(&str, &str)]) {
        let status = |(id, state): &(&str, &str)| control::WorkloadStatus {
            workload_id: (*id).to_owned(),
            state: (*state).to_owned(),
            message: "no space".to_owned(),
            ..control::WorkloadStatus::default()
        };
        self.say(Message::Heartbeat(control::HeartbeatRequest {
            workload_statuses: states.iter().map(status).collect(),
            ..beat_of(id)
        }))
        .await;
    }

    async fn hear(&mut self) -> Result<Message, Status> {
        let heard = tokio::time::timeout(DEADLINE, self.hears.message()).await;
        let heard = heard.expect("something is said")?;
        Ok(heard.expect("the stream lasts").message.unwrap())
    }
}

#[tokio::test]
async fn a_stream_takes_over_from_dialling_and_tells_apply_and_delete() {
    let plane = Fleet::new().start().await;
    let dialled = Double::start().await;
    plane.register("node-1", &dialled.endpoint()).await;
    plane.until_node("node-1", "Ready").await;
    let mut agent = Agent::open(&plane).await;
    agent
        .say(Message::Register(registration(
            "node-1",
            &dialled.endpoint(),
        )))
        .await;
    agent.beat("node-1", &[]).await;
    plane.apply("web", "rev-1", container("busybox:1")).await;
    let Message::Apply(told) = agent.hear().await.unwrap() else {
        panic!("an apply")
    };
    assert_eq!(
        (
            told.workload_id.as_str(),
            told.revision_id.as_str(),
            told.desired_state.as_str()
        ),
        ("web", "rev-1", "Running")
    );
    assert_eq!(told.spec, Some(container("busybox:1")), "as it came");
    assert!(dialled.applied("web").is_empty());
    agent.beat("node-1", &[("web", "Pending")]).await;
    plane.until_status("web", "Pending").await;
    agent.beat("node-1", &[("web", "Running")]).await;
    plane.until_status("web", "Running").await;
    agent.beat("node-1", &[("web", "Failed")]).await;
    let failed = plane.until_status("web", "Failed").await;
    assert!(failed.reason.unwrap().retryable);
    let Message::Apply(again) = agent.hear().await.unwrap() else {
        panic!("it is tried again")
    };
    assert_eq!(again.workload_id, "web");
    agent.beat("node-1", &[("web", "Running")]).await;
    plane.until_status("web", "Running").await;

    plane.desire("web", "Stopped").await;
    let Message::Apply(stop) = agent.hear().await.unwrap() else {
        panic!("a stop")
    };
    assert_eq!(stop.desired_state, "Stopped");
    agent.beat("node-1", &[("web", "Stopped")]).await;
    plane.until_status("web", "Stopped").await;
    plane.desire("web", "Running").await;
    agent.hear().await.unwrap();
    agent.beat("node-1", &[("web", "Running")]).await;
    plane.until_status("web", "Running").await;
    plane.delete("web").await;
    let Message::Delete(delete) = agent.hear().await.unwrap() else {
        panic!("a delete")
    };
    assert_eq!(delete.workload_id, "web");
    agent.beat("node-1", &[]).await;
    plane.until_gone("web").await;

    // Without the stream the agent is dialled again.
    drop(agent);
    plane.apply("next", "", container("busybox:1")).await;
    plane.until_status("next", "Running").await;
    assert_eq!(dialled.applied("next").len(), 1);
    plane.shut_down().await;
    dialled.end().await;
}

#[tokio::test]
async fn a_stream_that_breaks_the_contract_ends_with_its_status() {
    let plane = Fleet::new().start().await;
    let refused = async |message: Message| {
        let mut agent = Agent::open(&plane).await;
        agent.say(message).await;
        agent.hear().await.unwrap_err().code()
    };
    let nobody = Message::Heartbeat(beat_of("nobody"));
    assert_eq!(refused(nobody).await, Code::NotFound);
    let bad = Message::Register(registration("node-1", "nowhere"));
    assert_eq!(refused(bad).await, Code::InvalidArgument);
    let poor = Message::Register(control::RegisterNodeRequest {
        capabilities: None,
        ..registration("node-1", "127.0.0.1:1")
    });
    assert_eq!(refused(poor).await, Code::FailedPrecondition);
    let relayed = Message::Delete(control::DeleteWorkloadRequest::default());
    assert_eq!(refused(relayed).await, Code::InvalidArgument);
    plane.shut_down().await;
}
