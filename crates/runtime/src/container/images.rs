//! The images that this driver has pulled, and which of them nothing needs any more.
//!
//! A small file for each says by the engine's id which names it was pulled under, and when it was of use. An image
//! that was here before, that somebody else pulled or built, has no such file and is never touched. Nor is one of ours
//! that a container of anybody is made of, or that somebody has given another name.
//!
//! Files that cannot be read or written are passed over: an image too many harms nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::models::ImageSummary;
use bollard::query_parameters::{ListContainersOptions, ListImagesOptions, RemoveImageOptions};
use hostler_kit::Clock;
use hostler_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::engine::{Attempt as _, readable};
use super::pull::with_tag;
use crate::turns::lock;
use crate::{Discarded, Leftover, LeftoverKind, RuntimeError, disk};

/// How exactly it is known when an image was of use.
const GRAIN: Duration = Duration::from_secs(600);

/// The images that were pulled.
pub(crate) struct Images {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    /// Held while an image is deleted, and for a moment by whoever begins to need one.
    door: tokio::sync::Mutex<()>,
    /// How many preparations need an image of that name.
    needed: Arc<Mutex<HashMap<String, usize>>>,
}

/// Keeps an image while a unit is made of it.
pub(crate) struct Hold {
    name: String,
    needed: Arc<Mutex<HashMap<String, usize>>>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pulled {
    /// As the engine calls it, without the word for the digest.
    id: String,
    names: BTreeSet<String>,
    pulled_at: Timestamp,
    used_at: Timestamp,
}

/// What the engine says now.
struct Stock {
    images: HashMap<String, ImageSummary>,
    /// Of containers, whosever they are.
    used: HashSet<String>,
}

impl Images {
    pub(crate) fn new(dir: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self {
            dir,
            clock,
            door: tokio::sync::Mutex::new(()),
            needed: Arc::default(),
        }
    }

    /// From now on, until it is let go of, no image of that name is deleted.
    pub(super) async fn hold(&self, image: &str) -> Hold {
        let _door = self.door.lock().await;
        let name = with_tag(image);
        *lock(&self.needed).entry(name.clone()).or_default() += 1;
        let needed = Arc::clone(&self.needed);
        Hold { name, needed }
    }

    /// The image was pulled, and was not here before.
    pub(super) async fn note_pulled(&self, docker: &Docker, image: &str) {
        let id = match docker.inspect_image(image).await.attempt() {
            Ok(Ok(answer)) => answer.id,
            Ok(Err(_)) | Err(_) => None,
        };
        let Some(id) = id.map(|id| plain(&id).to_owned()) else {
            return;
        };
        let (name, now) = (with_tag(image), self.now());
        let mut known = self.all().await;
        // A name that was moved to another image names only that one.
        for other in known.values_mut().filter(|other| other.id != id) {
            if other.names.remove(&name) {
                self.keep(other.clone()).await;
            }
        }
        let mut pulled = known.remove(&id).unwrap_or_else(|| Pulled {
            id,
            names: BTreeSet::new(),
            pulled_at: now,
            used_at: now,
        });
        pulled.names.insert(name);
        pulled.used_at = now;
        self.keep(pulled).await;
    }

    /// A unit is made of the image. Answers whether we have pulled it.
    pub(super) async fn note_used(&self, image: &str) -> bool {
        let name = with_tag(image);
        let known = self.all().await;
        let Some(pulled) = known.into_values().find(|it| it.names.contains(&name)) else {
            return false;
        };
        self.touch(pulled).await;
        true
    }

    /// All that we have pulled and that is still here.
    pub(crate) async fn leftovers(&self, docker: &Docker) -> Result<Vec<Leftover>, RuntimeError> {
        let known = self.all().await;
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let stock = Stock::of(docker).await?;
        let mut leftovers = Vec::new();
        for pulled in known.into_values() {
            let Some(image) = stock.images.get(&pulled.id) else {
                self.forget(&pulled).await;
                continue;
            };
            let needed = self.need(&pulled, &stock);
            let pulled = match needed {
                Some(_) => self.touch(pulled).await,
                None => pulled,
            };
            leftovers.push(Leftover {
                kind: LeftoverKind::Image,
                name: pulled.name().to_owned(),
                bytes: u64::try_from(image.size).unwrap_or(0),
                made_at: pulled.pulled_at,
                used_at: pulled.used_at,
                needed,
            });
        }
        Ok(leftovers)
    }

    /// Deletes an image of ours that nothing needs by now, without force: what the engine itself refuses stays.
    pub(crate) async fn discard(
        &self,
        docker: &Docker,
        name: &str,
    ) -> Result<Discarded, RuntimeError> {
        let _door = self.door.lock().await;
        let known = self.all().await;
        let Some(pulled) = known.into_values().find(|it| it.name() == name) else {
            return Ok(Discarded::Gone);
        };
        let stock = Stock::of(docker).await?;
        let Some(image) = stock.images.get(&pulled.id) else {
            self.forget(&pulled).await;
            return Ok(Discarded::Gone);
        };
        if let Some(why) = self.need(&pulled, &stock) {
            return Ok(Discarded::Stays(why));
        }
        // Without a tag it is called by its id; the last tag takes the image along.
        let tags = image.repo_tags.iter().filter(|tag| is_tag(tag));
        let mut called: Vec<&str> = tags.map(String::as_str).collect();
        if called.is_empty() {
            called.push(&image.id);
        }
        for name in called {
            let options = RemoveImageOptions {
                noprune: true,
                ..RemoveImageOptions::default()
            };
            let removed = docker.remove_image(name, Some(options), None).await;
            match removed.attempt()? {
                Ok(_) => {}
                Err(refused) if refused.is_not_found() => {}
                Err(refused) if refused.is_conflict() => {
                    return Ok(Discarded::Stays(refused.message));
                }
                Err(refused) => return Err(refused.of_engine()),
            }
        }
        self.forget(&pulled).await;
        Ok(Discarded::Gone)
    }

    /// Why it has to stay.
    fn need(&self, pulled: &Pulled, stock: &Stock) -> Option<String> {
        if stock.used.contains(&pulled.id) {
            return Some("a container is made of it".to_owned());
        }
        let image = stock.images.get(&pulled.id)?;
        let mut tags = image.repo_tags.iter().filter(|tag| is_tag(tag));
        if let Some(other) = tags.find(|tag| !pulled.names.iter().any(|name| is_same(name, tag))) {
            return Some(format!("somebody has named it {other}"));
        }
        let needed = lock(&self.needed);
        let is_needed = pulled.names.iter().any(|name| needed.contains_key(name));
        is_needed.then(|| "a unit is being made of it".to_owned())
    }

    async fn all(&self) -> BTreeMap<String, Pulled> {
        let dir = self.dir.clone();
        let read = disk::off_thread("read the images", move || {
            let entries = disk::entries(&dir)?.into_iter();
            let read = entries.filter_map(|(path, _)| disk::read::<Pulled>(&path).ok().flatten());
            Ok(read.map(|pulled| (pulled.id.clone(), pulled)).collect())
        });
        read.await.unwrap_or_default()
    }

    /// It is of use now; written down if that is news.
    async fn touch(&self, pulled: Pulled) -> Pulled {
        let now = self.now();
        let is_news = now.since(pulled.used_at) >= GRAIN;
        let pulled = Pulled {
            used_at: pulled.used_at.max(now),
            ..pulled
        };
        if is_news {
            self.keep(pulled.clone()).await;
        }
        pulled
    }

    async fn keep(&self, pulled: Pulled) {
        let (dir, path) = (self.dir.clone(), self.path(&pulled));
        let written = disk::off_thread("note an image", move || {
            fs::create_dir_all(dir)?;
            disk::write_whole(&path, &pulled)
        });
        if let Err(error) = written.await {
            tracing::warn!(%error, "an image that was pulled is not on record, and will stay");
        }
    }

    async fn forget(&self, pulled: &Pulled) {
        let path = self.path(pulled);
        let work = move || disk::gone(fs::remove_file(path));
        if let Err(error) = disk::off_thread("forget an image", work).await {
            tracing::debug!(%error, "the record of an image stays");
        }
    }

    fn path(&self, pulled: &Pulled) -> PathBuf {
        self.dir.join(format!("{}.json", pulled.id))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.wall_millis())
    }
}

impl Pulled {
    /// For people, and unlike that of any other.
    fn name(&self) -> &str {
        self.names.first().unwrap_or(&self.id)
    }
}

impl Stock {
    async fn of(docker: &Docker) -> Result<Self, RuntimeError> {
        let options = ListImagesOptions {
            all: true,
            ..ListImagesOptions::default()
        };
        let images = docker.list_images(Some(options)).await.or_down()?;
        // The containers last: one that is made in between is seen.
        let options = ListContainersOptions {
            all: true,
            ..ListContainersOptions::default()
        };
        let listed = readable(|| docker.list_containers(Some(options.clone()))).await;
        let containers = listed.or_down()?.into_iter();
        let used = containers.filter_map(|it| it.image_id.map(|id| plain(&id).to_owned()));
        Ok(Self {
            used: used.collect(),
            images: images
                .into_iter()
                .map(|image| (plain(&image.id).to_owned(), image))
                .collect(),
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut needed = lock(&self.needed);
        if let Some(count) = needed.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                needed.remove(&self.name);
            }
        }
    }
}

/// Engines differ in whether they say which digest it is.
fn plain(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

fn is_tag(tag: &str) -> bool {
    !tag.starts_with("<none>")
}

/// Whether the two name the same image; one may say its registry where the other leaves it out.
fn is_same(name: &str, tag: &str) -> bool {
    let shortest = |name: &'_ str| -> String {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name).to_owned()
    };
    shortest(name) == shortest(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_with_and_without_its_registry() {
        assert!(is_same("busybox:1", "docker.io/library/busybox:1"));
        assert!(is_same("team/web:1", "docker.io/team/web:1"));
        assert!(!is_same("busybox:1", "busybox:2"));
        assert!(!is_same("busybox:1", "registry.example/busybox:1"));
    }
}
