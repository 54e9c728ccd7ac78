//! Images: whether one is here, and how it gets here.
//!
//! An image is asked for at the mirrors of its registry first, and bears its own name whoever gave it; only one that
//! is pinned by digest keeps the mirror's, because a digest cannot be given another name. A connection that breaks in
//! the middle of a layer the engine takes up again where it broke; a pull that is given up leaves nothing that counts
//! as an image.
//!
//! A pull takes as long as it takes, but not in silence: a registry, or a way to it, that has stalled ends
//! the pull as an image that is not to be had, and whoever asked tries again later. Pulls take turns.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bollard::Docker;
use bollard::models::ProgressDetail;
use bollard::query_parameters::{CreateImageOptions, RemoveImageOptions, TagImageOptions};
use futures::StreamExt as _;
use hostler_model::spec::{ContainerSpec, PullPolicy};
use tokio::sync::Semaphore;

use super::engine::{Attempt as _, of_image};
use super::images::{Hold, Images};
use super::registry::{Reference, Registries};
use crate::{Progress, RuntimeError};

/// Pulls that may be under way at once; whoever has its image does not wait for them.
const PULLS_AT_ONCE: usize = 8;
/// How long the engine may say nothing about a pull. Less than it may take to begin an answer, which would
/// count as an engine that is down; more than a slow disk takes to unpack a piece of a layer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Pulls images.
pub(crate) struct Pulls {
    turns: Semaphore,
    patience: Duration,
    registries: RwLock<Arc<Registries>>,
    images: Images,
}

/// An image that is here, and stays while this is kept.
pub(crate) struct Ready {
    /// What the engine calls it.
    pub(crate) name: String,
    _hold: Hold,
}

/// How much of each layer has come, of how much.
#[derive(Default)]
struct Layers {
    layers: HashMap<String, (i64, i64)>,
    said: i64,
}

impl Pulls {
    pub(crate) fn new(registries: Registries, patience: Duration, images: Images) -> Self {
        Self {
            turns: Semaphore::const_new(PULLS_AT_ONCE),
            patience,
            registries: RwLock::new(Arc::new(registries)),
            images,
        }
    }

    /// From now on images come from there; a pull that is under way goes on.
    pub(crate) fn set_registries(&self, registries: Registries) {
        let mut known = (self.registries.write()).unwrap_or_else(PoisonError::into_inner);
        *known = Arc::new(registries);
    }

    fn registries(&self) -> Arc<Registries> {
        let known = self.registries.read();
        Arc::clone(&known.unwrap_or_else(PoisonError::into_inner))
    }

    /// What was pulled so far.
    pub(crate) const fn images(&self) -> &Images {
        &self.images
    }

    /// Sees to it that the spec's image is here, as far as its policy lets us.
    pub(crate) async fn ensure(
        &self,
        docker: &Docker,
        spec: &ContainerSpec,
        progress: Progress<'_>,
    ) -> Result<Ready, RuntimeError> {
        let hold = self.images.hold(&spec.image).await;
        let name = self.bring_missing(docker, spec, progress).await?;
        Ok(Ready { name, _hold: hold })
    }

    /// Answers what the engine calls it.
    async fn bring_missing(
        &self,
        docker: &Docker,
        spec: &ContainerSpec,
        progress: Progress<'_>,
    ) -> Result<String, RuntimeError> {
        let is_fine = async || match spec.pull {
            PullPolicy::Always => Ok(None),
            PullPolicy::Missing | PullPolicy::Never => self.find(docker, &spec.image).await,
        };
        if let Some(name) = is_fine().await? {
            self.images.note_used(&name).await;
            return Ok(name);
        }
        if spec.pull == PullPolicy::Never {
            let message = "it is not on the node, and the spec says that it is never pulled";
            return Err(unavailable(&spec.image, message.to_owned()));
        }
        progress(format!("waiting for other pulls to pull {}", spec.image));
        let _turn = self.turns.acquire().await;
        // Another unit may have brought it in the meantime.
        if let Some(name) = is_fine().await? {
            return Ok(name);
        }
        // What was here before we pulled is not ours to delete, even if it is newer now.
        let is_here = self.find(docker, &spec.image).await?.is_some();
        let is_ours = !is_here || self.images.note_used(&spec.image).await;
        let name = self.bring(docker, &spec.image, progress).await?;
        if is_ours {
            self.images.note_pulled(docker, &name).await;
        }
        Ok(name)
    }

    /// What the engine calls the image, if it has it.
    async fn find(&self, docker: &Docker, image: &str) -> Result<Option<String>, RuntimeError> {
        if is_here(docker, image).await? {
            return Ok(Some(image.to_owned()));
        }
        if Reference::of(image).is_pinned() {
            for mirrored in self.registries().mirrored(image) {
                if is_here(docker, &mirrored).await? {
                    return Ok(Some(mirrored));
                }
            }
        }
        Ok(None)
    }

    async fn bring(
        &self,
        docker: &Docker,
        image: &str,
        progress: Progress<'_>,
    ) -> Result<String, RuntimeError> {
        for mirrored in self.registries().mirrored(image) {
            match self.pull(docker, &mirrored, progress).await {
                Ok(()) if Reference::of(image).is_pinned() => return Ok(mirrored),
                Ok(()) => return rename(docker, &mirrored, image).await,
                // Elsewhere it would be no better.
                Err(error @ (RuntimeError::DiskFull | RuntimeError::EngineDown { .. })) => {
                    return Err(error);
                }
                Err(error) => tracing::warn!(image, mirrored, %error, "a mirror does not give it"),
            }
        }
        self.pull(docker, image, progress).await?;
        Ok(image.to_owned())
    }

    async fn pull(
        &self,
        docker: &Docker,
        image: &str,
        progress: Progress<'_>,
    ) -> Result<(), RuntimeError> {
        progress(format!("pulling {image}"));
        let options = CreateImageOptions {
            from_image: Some(with_tag(image)),
            ..CreateImageOptions::default()
        };
        let login = self.registries().login(image).await?;
        let mut steps = docker.create_image(Some(options), None, login);
        let mut layers = Layers::default();
        loop {
            let Ok(step) = tokio::time::timeout(self.patience, steps.next()).await else {
                let message = format!(
                    "nothing of it came for {} s; its registry, or the way there, has stalled",
                    self.patience.as_secs_f64()
                );
                return Err(unavailable(image, message));
            };
            let Some(step) = step else { return Ok(()) };
            let step = step.or_refused(|refused| refused.of_image(image))?;
            if let Some(message) = step.error_detail.and_then(|error| error.message) {
                return Err(of_image(image, message));
            }
            if let (Some(layer), Some(detail)) = (step.id, step.progress_detail)
                && let Some(percent) = layers.take(layer, &detail)
            {
                progress(format!("pulling {image} {percent} %"));
            }
        }
    }
}

/// Gives a mirror's image its own name, and takes the mirror's away.
async fn rename(docker: &Docker, mirrored: &str, image: &str) -> Result<String, RuntimeError> {
    let full = with_tag(image);
    let (repo, tag) = full.rsplit_once(':').unwrap_or((&full, "latest"));
    let options = TagImageOptions {
        repo: Some(repo.to_owned()),
        tag: Some(tag.to_owned()),
    };
    let tagged = docker.tag_image(mirrored, Some(options)).await;
    tagged.or_refused(|refused| refused.of_image(image))?;
    let options = RemoveImageOptions {
        noprune: true,
        ..RemoveImageOptions::default()
    };
    // A name too many harms nobody.
    if let Err(error) = docker.remove_image(mirrored, Some(options), None).await {
        tracing::debug!(mirrored, %error, "the mirror's name stays");
    }
    Ok(image.to_owned())
}

pub(crate) async fn is_here(docker: &Docker, image: &str) -> Result<bool, RuntimeError> {
    match docker.inspect_image(image).await.attempt()? {
        Ok(_) => Ok(true),
        Err(refused) if refused.is_not_found() => Ok(false),
        Err(refused) => Err(refused.of_image(image)),
    }
}

fn unavailable(image: &str, message: String) -> RuntimeError {
    RuntimeError::Image {
        image: image.to_owned(),
        message,
    }
}

impl Layers {
    /// The percentage over all layers, when it has grown.
    fn take(&mut self, layer: String, detail: &ProgressDetail) -> Option<i64> {
        let (Some(current), Some(total)) = (detail.current, detail.total) else {
            return None;
        };
        self.layers.insert(layer, (current, total));
        let sum = |of: fn(&(i64, i64)) -> i64| self.layers.values().map(of).sum::<i64>();
        let (current, total) = (sum(|layer| layer.0), sum(|layer| layer.1));
        let percent = current.saturating_mul(100) / total.max(1);
        if percent <= self.said {
            return None;
        }
        self.said = percent;
        Some(percent)
    }
}

/// Without a tag the engine would pull every one there is.
pub(super) fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_means_the_latest() {
        for (image, expected) in [
            ("busybox", "busybox:latest"),
            ("busybox:1.36", "busybox:1.36"),
            ("localhost:5000/web", "localhost:5000/web:latest"),
            ("web@sha256:abc", "web@sha256:abc"),
        ] {
            assert_eq!(with_tag(image), expected);
        }
    }

    #[test]
    fn progress_is_said_over_all_layers_and_only_when_it_grows() {
        let mut layers = Layers::default();
        let detail = |current, total| ProgressDetail {
            current: Some(current),
            total: Some(total),
        };
        assert_eq!(layers.take("a".to_owned(), &detail(50, 100)), Some(50));
        assert_eq!(layers.take("a".to_owned(), &detail(50, 100)), None);
        assert_eq!(
            layers.take("b".to_owned(), &detail(0, 100)),
            None,
            "it would go back"
        );
        assert_eq!(layers.take("b".to_owned(), &detail(100, 100)), Some(75));
    }
}
