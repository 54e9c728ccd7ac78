//! The service that a scheduler calls: each call is one question to what the node knows.

use std::sync::Arc;
use std::time::Duration;

use hostler_model::spec::Kind;
use hostler_wire::persys::agent::agent_service_server::AgentService;
use hostler_wire::persys::agent::{
    ActualState, ApplyWorkloadRequest, ApplyWorkloadResponse, DeleteWorkloadRequest,
    DeleteWorkloadResponse, GetWorkloadStatusRequest, GetWorkloadStatusResponse,
    HealthCheckRequest, HealthCheckResponse, ListActionsRequest, ListActionsResponse,
    ListWorkloadsRequest, ListWorkloadsResponse, WorkloadStatus, WorkloadType,
    WorkloadUsageSnapshot,
};
use tonic::{Request, Response, Status};

use super::actions::Standing;
use super::core::{Core, Workload, lock};
use super::host::whole;
use super::{KINDS, guests, states, type_of};
use crate::show::Picture;

/// How long an answer waits for drivers that have not said yet what they can do.
const FIRST_FACTS: Duration = Duration::from_secs(2);

/// The served side.
pub(super) struct Serve(pub(super) Arc<Core>);

#[async_trait::async_trait]
impl AgentService for Serve {
    async fn apply_workload(
        &self,
        request: Request<ApplyWorkloadRequest>,
    ) -> Result<Response<ApplyWorkloadResponse>, Status> {
        let core = Arc::clone(&self.0);
        let request = request.into_inner();
        answered(
            self.0
                .finish(async move { core.apply(request).await })
                .await,
        )
    }

    async fn delete_workload(
        &self,
        request: Request<DeleteWorkloadRequest>,
    ) -> Result<Response<DeleteWorkloadResponse>, Status> {
        let core = Arc::clone(&self.0);
        let id = request.into_inner().id;
        answered(self.0.finish(async move { core.delete(&id).await }).await)
    }

    async fn get_workload_status(
        &self,
        request: Request<GetWorkloadStatusRequest>,
    ) -> Result<Response<GetWorkloadStatusResponse>, Status> {
        let id = request.into_inner().id;
        match self.0.status(&id).or_else(|| self.0.failed(&id)) {
            Some(status) => Ok(Response::new(GetWorkloadStatusResponse {
                status: Some(status),
            })),
            // Schedulers know it by these words.
            None => Err(Status::not_found(format!("workload {id} not found"))),
        }
    }

    async fn list_workloads(
        &self,
        request: Request<ListWorkloadsRequest>,
    ) -> Result<Response<ListWorkloadsResponse>, Status> {
        let asked = request.into_inner().r#type;
        let any = WorkloadType::Unspecified as i32;
        let picture = self.0.picture();
        let workloads = self.0.workloads();
        let of_type = workloads
            .iter()
            .filter(|it| asked == any || asked == type_of(it.kind) as i32);
        let workloads = of_type.map(|it| self.0.status_of(it, &picture)).collect();
        Ok(Response::new(ListWorkloadsResponse { workloads }))
    }

    async fn health_check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let kinds = KINDS.into_iter().map(|(kind, _)| kind);
        let kinds = kinds.filter(|kind| self.0.persys.kinds.contains(kind));
        self.0.first_facts().await;
        let healths = kinds.map(|kind| {
            let health = match self.0.ability(kind) {
                Ok(()) => "healthy".to_owned(),
                Err(cause) => format!("unhealthy: {cause}"),
            };
            (kind.as_str().to_owned(), health)
        });
        let runtime_status = healths.collect();
        let look = self.0.look();
        Ok(Response::new(HealthCheckResponse {
            healthy: !self.0.parts.tasks.is_stopping(),
            version: self.0.version(),
            runtime_status,
            memory_utilization: look.memory_percent(),
            cpu_utilization: look.cpu_percent,
            disk_utilization: look.disk_percent(),
        }))
    }

    async fn list_actions(
        &self,
        request: Request<ListActionsRequest>,
    ) -> Result<Response<ListActionsResponse>, Status> {
        let actions = lock(&self.0.actions).list(&request.into_inner());
        Ok(Response::new(ListActionsResponse { actions }))
    }
}

fn answered<T>(answer: Option<T>) -> Result<Response<T>, Status> {
    let answer = answer.map(Response::new);
    answer.ok_or_else(|| Status::unavailable("the agent is stopping"))
}

impl Core {
    /// Carries a change to its end, whatever becomes of whoever asked for it: one that was dropped half-way would lie
    /// between the disk and the reconciler. Nothing if the agent stops first.
    pub(super) async fn finish<T: Send + 'static>(
        &self,
        change: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, answer) = tokio::sync::oneshot::channel();
        let tasks = &self.parts.tasks;
        tasks.spawn_until_stop("persys change", async move {
            // Who asked may have gone.
            let _ = done.send(change.await);
        });
        answer.await.ok()
    }

    /// The version that is told.
    pub(super) fn version(&self) -> String {
        match self.persys.version.as_str() {
            "" => env!("CARGO_PKG_VERSION").to_owned(),
            version => version.to_owned(),
        }
    }

    /// The kinds that may be offered and have a driver.
    pub(super) fn offered(&self) -> impl Iterator<Item = Kind> {
        let kinds = KINDS.into_iter().map(|(kind, _)| kind);
        kinds.filter(|kind| {
            self.persys.kinds.contains(kind) && self.handle.runtimes.contains_key(kind)
        })
    }

    /// Waits for what the drivers can do, for a while: the contract has no word for what is not known yet.
    pub(super) async fn first_facts(&self) {
        let offered: Vec<Kind> = self.offered().collect();
        self.handle.abilities.settled(&offered, FIRST_FACTS).await;
    }

    /// Whether the driver of a kind works, or why not.
    pub(super) fn ability(&self, kind: Kind) -> Result<(), String> {
        if !self.handle.runtimes.contains_key(&kind) {
            return Err("this node has no driver for it".to_owned());
        }
        match self.handle.abilities.known().get(&kind) {
            Some(fact) if fact.available => Ok(()),
            Some(fact) => Err(fact.note.clone()),
            None => Err("it has not answered yet".to_owned()),
        }
    }

    pub(super) fn status(&self, id: &str) -> Option<WorkloadStatus> {
        let workload = self.workload(id)?;
        Some(self.status_of(&workload, &self.picture()))
    }

    pub(super) fn status_of(&self, workload: &Workload, picture: &Picture) -> WorkloadStatus {
        let (shown, since) = self.show(workload, picture);
        let mut status = states::of_agent(workload, &shown, since);
        let id = &workload.record.id;
        if let Some(latest) = lock(&self.actions).latest(id) {
            let standing = latest.standing.as_str().to_owned();
            if matches!(latest.standing, Standing::Pending | Standing::Running) {
                if status.actual_state() != ActualState::Pending {
                    status.message = format!("task {standing}");
                }
                status.actual_state = ActualState::Pending as i32;
            }
            status
                .metadata
                .insert("task_id".to_owned(), latest.task_id.clone());
            status.metadata.insert("task_status".to_owned(), standing);
        }
        let guest = lock(&self.guests).get(id).cloned();
        status
            .metadata
            .extend(guests::metadata(workload, &shown, guest.as_ref()));
        status.usage = self.usage(workload).map(|usage| WorkloadUsageSnapshot {
            workload_id: id.clone(),
            r#type: type_of(workload.kind) as i32,
            cpu_percent: usage.cpu_percent,
            memory_bytes: whole(usage.memory),
            disk_read_bytes: whole(usage.read),
            disk_write_bytes: whole(usage.written),
            net_rx_bytes: whole(usage.received),
            net_tx_bytes: whole(usage.sent),
            collected_at: states::seconds(usage.at),
            source: SOURCE.to_owned(),
        });
        status
    }

    /// What is told of a workload that is not here because its last request failed.
    fn failed(&self, id: &str) -> Option<WorkloadStatus> {
        let actions = lock(&self.actions);
        let latest = actions.latest(id)?;
        let Standing::Failed(error) = &latest.standing else {
            return None;
        };
        let task = [
            ("task_id", latest.task_id.as_str()),
            ("task_status", "failed"),
        ];
        Some(WorkloadStatus {
            id: id.to_owned(),
            actual_state: ActualState::Failed as i32,
            message: error.clone(),
            metadata: task
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..WorkloadStatus::default()
        })
    }
}

/// Who measured.
pub(super) const SOURCE: &str = "hostler";
