//! Calls about workloads and their copies. `workload` is an id, an id prefix or a name everywhere.

use http::header;
use reqwest::Method;

use super::call::expecting;
use super::{Client, ClientError, Expect};
use crate::api::{
    ApplyQuery, ApplyResult, Assignment, AssignmentFilter, Job, Plan, Revision, RollbackQuery,
    WaitQuery, Why, Workload, media,
};

impl Client {
    /// Applies the documents of a spec text, YAML or JSON. One result per document.
    pub async fn apply(
        &self,
        text: impl Into<String>,
        query: ApplyQuery,
        expect: Expect,
    ) -> Result<Vec<ApplyResult>, ClientError> {
        let request = self.request(Method::POST, &["api", "v1", "workloads"]);
        let request = expecting(request, expect).query(&query);
        let request = request.header(header::CONTENT_TYPE, media::YAML);
        self.call(request.body(text.into())).await
    }

    /// What applying the documents would do now.
    pub async fn plan(&self, text: impl Into<String>) -> Result<Plan, ClientError> {
        let request = self.request(Method::POST, &["api", "v1", "workloads", "plan"]);
        let request = request.header(header::CONTENT_TYPE, media::YAML);
        self.call(request.body(text.into())).await
    }

    /// All workloads.
    pub async fn workloads(&self) -> Result<Vec<Workload>, ClientError> {
        self.list(self.get(&["api", "v1", "workloads"])).await
    }

    /// One workload.
    pub async fn workload(&self, workload: &str) -> Result<Workload, ClientError> {
        self.workload_news(workload, &WaitQuery::default()).await
    }

    /// One workload, once it is not as it was seen, or the time is over.
    pub async fn workload_news(
        &self,
        workload: &str,
        query: &WaitQuery,
    ) -> Result<Workload, ClientError> {
        let request = self.get(&["api", "v1", "workloads", workload]);
        self.call(request.query(query)).await
    }

    /// Its copies stop, then it goes.
    pub async fn delete(&self, workload: &str, expect: Expect) -> Result<Workload, ClientError> {
        let request = self.request(Method::DELETE, &["api", "v1", "workloads", workload]);
        self.call(expecting(request, expect)).await
    }

    /// Its copies stop; the workload stays.
    pub async fn stop(&self, workload: &str, expect: Expect) -> Result<Workload, ClientError> {
        self.workload_verb(workload, "stop", expect).await
    }

    /// Its copies run again.
    pub async fn start(&self, workload: &str, expect: Expect) -> Result<Workload, ClientError> {
        self.workload_verb(workload, "start", expect).await
    }

    /// Every copy is replaced by a new one of the same spec.
    pub async fn restart(&self, workload: &str, expect: Expect) -> Result<Workload, ClientError> {
        self.workload_verb(workload, "restart", expect).await
    }

    /// A rollout that waits for a person goes on.
    pub async fn promote(&self, workload: &str, expect: Expect) -> Result<Workload, ClientError> {
        self.workload_verb(workload, "promote", expect).await
    }

    /// The spec of an earlier revision is applied again.
    pub async fn rollback(
        &self,
        workload: &str,
        query: RollbackQuery,
        expect: Expect,
    ) -> Result<Workload, ClientError> {
        let path = ["api", "v1", "workloads", workload, "rollback"];
        let request = self.request(Method::POST, &path).query(&query);
        self.call(expecting(request, expect)).await
    }

    /// The revisions that are kept, the newest first.
    pub async fn history(&self, workload: &str) -> Result<Vec<Revision>, ClientError> {
        self.list(self.get(&["api", "v1", "workloads", workload, "history"]))
            .await
    }

    /// Why copies do not run as wanted.
    pub async fn why(&self, workload: &str) -> Result<Why, ClientError> {
        self.call(self.get(&["api", "v1", "workloads", workload, "why"]))
            .await
    }

    /// All jobs and schedules.
    pub async fn jobs(&self) -> Result<Vec<Job>, ClientError> {
        self.list(self.get(&["api", "v1", "jobs"])).await
    }

    /// One job or schedule.
    pub async fn job(&self, job: &str) -> Result<Job, ClientError> {
        self.call(self.get(&["api", "v1", "jobs", job])).await
    }

    /// Runs a job once more, or a schedule's job now; the job that runs.
    pub async fn rerun(&self, job: &str, expect: Expect) -> Result<Job, ClientError> {
        let request = self.request(Method::POST, &["api", "v1", "jobs", job, "rerun"]);
        self.call(expecting(request, expect)).await
    }

    /// The copies of a workload, of a node, or all.
    pub async fn assignments(
        &self,
        filter: &AssignmentFilter,
    ) -> Result<Vec<Assignment>, ClientError> {
        self.list(self.get(&["api", "v1", "assignments"]).query(filter))
            .await
    }

    /// One copy, by id or id prefix, or by the short form.
    pub async fn assignment(&self, assignment: &str) -> Result<Assignment, ClientError> {
        self.call(self.get(&["api", "v1", "assignments", assignment]))
            .await
    }

    async fn workload_verb(
        &self,
        workload: &str,
        verb: &str,
        expect: Expect,
    ) -> Result<Workload, ClientError> {
        let request = self.request(Method::POST, &["api", "v1", "workloads", workload, verb]);
        self.call(expecting(request, expect)).await
    }
}
