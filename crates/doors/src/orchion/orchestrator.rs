//! The Orchestrator service: node agents register, beat and tell their capabilities; anybody lists nodes.
//!
//! A node that the fleet does not know, or that was removed, is answered with NotFound: its agent registers again. The
//! moment that an agent claims to have been seen is not read, for its clock is its own affair. Figures that change
//! all the time (video memory in use, temperature) stay in memory; what lasts becomes a record when it changes.

use std::net::SocketAddr;
use std::sync::Arc;

use hostler_control::fleet::{Reply, Verb};
use hostler_model::{Actor, Code, Node, NodeId, Refusal};
use hostler_wire::orchion::v1;
use hostler_wire::orchion::v1::orchestrator_server::Orchestrator;
use tonic::{Request, Response, Status};

use super::picture::{Capabilities, Told};
use super::{Door, picture};
use crate::Peer;

/// Most bytes of an id; it becomes part of a key of the store.
const ID_BYTES: usize = 128;
/// Most bytes of what an agent says of itself.
const TOLD_BYTES: usize = 16 << 10;

#[tonic::async_trait]
impl Orchestrator for Door {
    async fn register_node(
        &self,
        request: Request<v1::RegisterNodeRequest>,
    ) -> Result<Response<v1::RegisterNodeResponse>, Status> {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.addr);
        let node = request.into_inner().node;
        let node = node.ok_or_else(|| Status::invalid_argument("node is required"))?;
        check_id(&node.id, "node.id is required")?;
        check_size(&node)?;
        let capabilities = node.capabilities.map(Capabilities::from);
        let told = Told {
            agent_address: self.address_of(&node.id, node.agent_address),
            hostname: node.hostname,
            capabilities,
        };
        let id = self
            .announce(&node.id, &told, addresses(&told, peer))
            .await
            .map_err(status)?;
        let heard = self.alive(id, told.capabilities.as_ref()).await;
        heard.map_err(status)?;
        tracing::info!(
            node = %id,
            name = told.hostname,
            id = node.id,
            agent = told.agent_address,
            contract = "orchion",
            "node joined"
        );
        Ok(Response::new(v1::RegisterNodeResponse {}))
    }

    async fn update_node(
        &self,
        request: Request<v1::UpdateNodeRequest>,
    ) -> Result<Response<v1::UpdateNodeResponse>, Status> {
        let request = request.into_inner();
        check_id(&request.node_id, "node_id is required")?;
        check_size(&request)?;
        let capabilities = request.capabilities.map(Capabilities::from);
        let capabilities =
            capabilities.ok_or_else(|| Status::invalid_argument("capabilities is required"))?;
        let node = self.known(&request.node_id)?;
        let told = picture::told(&node);
        let lasting = told.capabilities.as_ref().map(Capabilities::lasting);
        if lasting != Some(capabilities.lasting()) {
            let told = Told {
                capabilities: Some(capabilities.clone()),
                ..told
            };
            let addresses = node.facts.addresses.clone();
            let announced = self.announce(&request.node_id, &told, addresses).await;
            announced.map_err(of_beat)?;
        }
        let heard = self.alive(node.id, Some(&capabilities)).await;
        heard.map_err(of_beat)?;
        Ok(Response::new(v1::UpdateNodeResponse {}))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let id = request.into_inner().node_id;
        check_id(&id, "node_id is required")?;
        let node = self.known(&id)?;
        self.alive(node.id, None).await.map_err(of_beat)?;
        Ok(Response::new(v1::HeartbeatResponse {}))
    }

    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let nodes = picture::living(&self.control);
        let nodes = nodes.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    /// Checked, and then refused as a job that finds no node: none of the fleet's runs models yet.
    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        let job = request.into_inner();
        if job.job_id.is_empty() {
            return Err(Status::invalid_argument("job_id is required"));
        }
        match v1::JobType::try_from(job.job_type) {
            Ok(v1::JobType::ChatCompletion | v1::JobType::Embeddings) => {
                Err(Status::not_found("no nodes available"))
            }
            Ok(v1::JobType::Unspecified) | Err(_) => {
                Err(Status::invalid_argument("job_type is required"))
            }
        }
    }

    async fn get_job_status(
        &self,
        request: Request<v1::GetJobStatusRequest>,
    ) -> Result<Response<v1::GetJobStatusResponse>, Status> {
        if request.into_inner().job_id.is_empty() {
            return Err(Status::invalid_argument("job_id is required"));
        }
        Err(Status::not_found("job not found"))
    }
}

impl Door {
    /// The node with that id, unless it was removed.
    fn known(&self, id: &str) -> Result<Arc<Node>, Status> {
        let view = self.control.view();
        let node = view.node_by_alias(&picture::key(id));
        let present = node.filter(|node| !node.is_gone()).cloned();
        present.ok_or_else(unknown_node)
    }

    /// What the agent says, or what it said before: one that registers again may leave it out.
    fn address_of(&self, id: &str, said: String) -> String {
        match self.known(id) {
            Ok(node) if said.is_empty() => picture::told(&node).agent_address,
            _ => said,
        }
    }

    async fn announce(
        &self,
        id: &str,
        told: &Told,
        addresses: Vec<String>,
    ) -> Result<NodeId, Refusal> {
        let verb = Verb::Announce(Box::new(picture::announcement(id, told, addresses)));
        let actor = Actor::Node(told.hostname.clone());
        match self.control.submit(actor, verb).await? {
            Reply::Node { id, .. } => Ok(id),
            other => {
                tracing::error!(?other, "a verb was answered with something else");
                Err(Refusal::new(
                    Code::Internal,
                    "the server has a bug here",
                    "",
                ))
            }
        }
    }

    async fn alive(&self, node: NodeId, said: Option<&Capabilities>) -> Result<(), Refusal> {
        self.control.poll_beat(node, None).await?;
        if let Some(figures) = said.and_then(|said| serde_json::to_string(said).ok()) {
            self.control.tell_figures(node, figures.into());
        }
        Ok(())
    }
}

fn check_id(id: &str, missing: &str) -> Result<(), Status> {
    match id.len() {
        0 => Err(Status::invalid_argument(missing)),
        1..=ID_BYTES => Ok(()),
        _ => Err(Status::invalid_argument(format!(
            "an id has at most {ID_BYTES} bytes"
        ))),
    }
}

fn check_size(message: &impl prost::Message) -> Result<(), Status> {
    match message.encoded_len() {
        0..=TOLD_BYTES => Ok(()),
        _ => Err(Status::invalid_argument(format!(
            "a node is described in at most {TOLD_BYTES} bytes"
        ))),
    }
}

/// Where other machines may reach it: the address that it names, else the one that it came from.
fn addresses(told: &Told, peer: Option<SocketAddr>) -> Vec<String> {
    let named = told.agent_address.parse::<SocketAddr>().ok();
    let named = named.filter(|named| !named.ip().is_unspecified());
    let found = named
        .or(peer)
        .map(|addr| addr.ip().to_canonical().to_string());
    found.into_iter().collect()
}

fn unknown_node() -> Status {
    Status::not_found("node not found")
}

/// Who beats for a node that is removed meanwhile hears what everybody hears who beats for one that was.
fn of_beat(refusal: Refusal) -> Status {
    match refusal.code {
        Code::NodeGone => unknown_node(),
        _ => status(refusal),
    }
}

/// The contract has codes for what agents rely on; the rest is told by its nature.
fn status(refusal: Refusal) -> Status {
    match refusal.code {
        Code::NodeNotFound => unknown_node(),
        Code::NodeGone => Status::failed_precondition(refusal.sentence),
        Code::NotLeader | Code::StoreUnavailable | Code::Overloaded => {
            Status::unavailable(refusal.sentence)
        }
        Code::Internal => Status::internal(refusal.sentence),
        _ => Status::invalid_argument(refusal.sentence),
    }
}

#[cfg(test)]
mod tests {
    use hostler_control::fleet::Expect;
    use hostler_control::{Control, ControlConfig, Parts};
    use hostler_kit::{SeededEntropy, SimulatedClock, Tasks};
    use hostler_store::MemoryStore;

    use super::*;

    async fn door() -> Door {
        let clock = Arc::new(SimulatedClock::starting_at(1_700_000_000_000));
        let parts = Parts {
            store: Arc::new(MemoryStore::new(clock.clone())),
            clock,
            entropy: Arc::new(SeededEntropy::new(1)),
            tasks: Tasks::new(),
        };
        let control = Control::start(ControlConfig::default(), parts);
        let control = control.await.unwrap();
        Door {
            access: crate::Access::open(&control),
            control,
            api_key: None,
        }
    }

    /// The removal is decided before the beat that was under way, and is not to be seen yet when it is read.
    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_removed_while_it_beats_is_unknown_and_stays_removed() {
        let door = door().await;
        let capabilities = |cores: &str| v1::Capabilities {
            cpu: cores.to_owned(),
            ..v1::Capabilities::default()
        };
        for (id, cores) in [("a", None), ("b", Some("8 cores"))] {
            let node = v1::Node {
                id: id.to_owned(),
                capabilities: Some(capabilities("4 cores")),
                ..v1::Node::default()
            };
            let request = v1::RegisterNodeRequest { node: Some(node) };
            door.register_node(Request::new(request)).await.unwrap();
            let node = door.known(id).unwrap().id;
            let (control, node_id) = (&door.control, id.to_owned());
            let reason = "it is quiet".to_owned();
            let suspect = Verb::Suspect { node, reason };
            let keeper = || Actor::Keeper("liveness".to_owned());
            control.submit(keeper(), suspect).await.unwrap();
            let removal = Verb::RemoveNode {
                node,
                force: true,
                expect: Expect::Any,
            };
            let beat = async {
                match cores {
                    None => {
                        let request = v1::HeartbeatRequest { node_id };
                        door.heartbeat(Request::new(request)).await.map(drop)
                    }
                    Some(cores) => {
                        let request = v1::UpdateNodeRequest {
                            node_id,
                            capabilities: Some(capabilities(cores)),
                        };
                        door.update_node(Request::new(request)).await.map(drop)
                    }
                }
            };
            let (removed, beaten) = tokio::join!(control.submit(keeper(), removal), beat);
            removed.unwrap();
            let refused = beaten.unwrap_err();
            let expected = (tonic::Code::NotFound, "node not found");
            assert_eq!((refused.code(), refused.message()), expected, "{id}");
            assert!(control.view().node(node).unwrap().is_gone());
        }
        assert!(picture::living(&door.control).is_empty());
        door.control
            .tasks()
            .shut_down(std::time::Duration::from_secs(9))
            .await
            .unwrap();
    }

    #[test]
    fn a_node_is_reached_where_it_says_or_where_it_came_from() {
        let peer = Some(([192, 0, 2, 7], 4000).into());
        for (said, expected) in [
            ("10.0.0.1:50052", "10.0.0.1"),
            ("box:50052", "192.0.2.7"),
            ("0.0.0.0:50052", "192.0.2.7"),
            ("", "192.0.2.7"),
        ] {
            let told = Told {
                agent_address: said.to_owned(),
                ..Told::default()
            };
            assert_eq!(addresses(&told, peer), [expected], "{said}");
        }
        assert!(addresses(&Told::default(), None).is_empty());
    }
}
