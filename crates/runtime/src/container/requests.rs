//! What every driver over an engine asks of it for its containers: which there are, a signal, their end.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    KillContainerOptions, ListContainersOptions, WaitContainerOptions,
};
use futures::StreamExt as _;

use super::engine::{Attempt as _, Engine, readable};
use crate::RuntimeError;

/// How long a killed container may take to be gone.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a container whose end could not be waited for.
pub(crate) const LOOK_PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// All containers, whoever made them, of which one of the values holds.
    pub(crate) async fn list(
        &self,
        filter: &str,
        values: Vec<String>,
    ) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let docker = self.docker().await?;
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([(filter.to_owned(), values)])),
            ..ListContainersOptions::default()
        };
        let answer = readable(|| docker.list_containers(Some(options.clone()))).await;
        answer.or_down()
    }

    /// Sends a signal. Answers whether there was something to send it to; none if there is no container.
    pub(crate) async fn signal(
        &self,
        container: &str,
        signal: &str,
    ) -> Result<Option<bool>, RuntimeError> {
        let docker = self.docker().await?;
        let signal = signal.to_owned();
        let options = Some(KillContainerOptions { signal });
        match docker.kill_container(container, options).await.attempt()? {
            Ok(()) => Ok(Some(true)),
            // It ended in between.
            Err(refused) if refused.is_conflict() => Ok(Some(false)),
            Err(refused) if refused.is_not_found() => Ok(None),
            Err(refused) => Err(refused.of_engine()),
        }
    }

    /// Waits until the container does not run, by `is_over`, at most so long.
    pub(crate) async fn wait<A>(
        &self,
        container: &str,
        most: Duration,
        is_over: impl Fn() -> A,
    ) -> Result<(), RuntimeError>
    where
        A: Future<Output = Result<bool, RuntimeError>>,
    {
        let docker = self.docker().await?;
        let waiting = async {
            loop {
                let condition = "not-running".to_owned();
                let options = Some(WaitContainerOptions { condition });
                // How it ended is read afterwards; here it only matters that it has.
                let _ = docker.wait_container(container, options).next().await;
                if is_over().await? {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        };
        tokio::time::timeout(most, waiting).await.unwrap_or(Ok(()))
    }
}
