//! Images: whether one is here, and how it gets here.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::ProgressDetail;
use bollard::query_parameters::CreateImageOptions;
use futures::StreamExt as _;
use hostler_model::spec::{ContainerSpec, PullPolicy};

use super::engine::Attempt as _;
use crate::{Progress, RuntimeError};

/// How much of each layer has come, of how much.
#[derive(Default)]
struct Layers {
    layers: HashMap<String, (i64, i64)>,
    said: i64,
}

/// Whether the image is here.
pub(super) async fn is_here(docker: &Docker, image: &str) -> Result<bool, RuntimeError> {
    match docker.inspect_image(image).await.attempt()? {
        Ok(_) => Ok(true),
        Err(refused) if refused.is_not_found() => Ok(false),
        Err(refused) => Err(refused.of_image(image)),
    }
}

/// Pulls the spec's image, if its policy lets us.
pub(super) async fn image(
    docker: &Docker,
    spec: &ContainerSpec,
    progress: Progress<'_>,
) -> Result<(), RuntimeError> {
    let image = &spec.image;
    if spec.pull == PullPolicy::Never {
        let message = "it is not on the node, and the spec says that it is never pulled";
        return Err(RuntimeError::Image {
            image: image.clone(),
            message: message.to_owned(),
        });
    }
    progress(format!("pulling {image}"));
    let options = CreateImageOptions {
        from_image: Some(with_tag(image)),
        ..CreateImageOptions::default()
    };
    let mut steps = docker.create_image(Some(options), None, None);
    let mut layers = Layers::default();
    while let Some(step) = steps.next().await {
        let step = step.or_refused(|refused| refused.of_image(image))?;
        if let Some(message) = step.error_detail.and_then(|error| error.message) {
            return Err(RuntimeError::Image {
                image: image.clone(),
                message,
            });
        }
        if let (Some(layer), Some(detail)) = (step.id, step.progress_detail)
            && let Some(percent) = layers.take(layer, &detail)
        {
            progress(format!("pulling {image} {percent} %"));
        }
    }
    Ok(())
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
fn with_tag(image: &str) -> String {
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
