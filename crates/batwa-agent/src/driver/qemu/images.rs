//! Images: what can be launched here, and the cache they lie in.
//!
//! ```text
//! name ─► Wanted ─► in the cache? ──yes──────────────────────► Manifest
//!                        └──no──► download | build ─► store/ID ───┘
//! ```
//!
//! An image's folder in `store/` appears whole or not at all and is never changed: disks of VMs lie on top of it.
//! However many ask for an image, it is fetched once; those who come later hear of the same progress.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use batwa_api::{Timestamp, agent::DriverKind, image::Image, operation::Stage, size::ByteSize};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::files;
use crate::driver::{DriverError, Progress, ProgressUpdate};

mod cpio;
mod packages;
mod tiny;

/// An image in the cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Its folder in the cache.
    pub(super) id: ImageId,
    /// The catalogue's name: `ubuntu:24.04`.
    pub(super) name: String,
    /// For people: `Ubuntu 24.04 LTS`.
    pub(super) title: String,
    /// The account that people use in it.
    pub(super) user: String,
    /// Whether it reads `#cloud-config`.
    pub(super) cloud_config: bool,
    /// The format of its disk; `None` when the VM begins with an empty one.
    pub(super) disk: Option<DiskFormat>,
    /// Size of its disk: a VM's cannot be smaller.
    pub(super) min_disk: ByteSize,
    /// Its own kernel; `None` when its disk boots itself.
    pub(super) boot: Option<Boot>,
    /// When it came into the cache.
    pub(super) made_at: Timestamp,
}

impl Manifest {
    /// The disk's file in the image's folder.
    pub(super) const DISK: &str = "disk.img";
    /// The kernel's.
    pub(super) const KERNEL: &str = "kernel";
    /// The initrd's.
    pub(super) const INITRD: &str = "initrd";
    const FILE: &str = "image.json";

    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            id: ImageId("tiny-1".to_owned()),
            name: "tiny".to_owned(),
            title: "Tiny".to_owned(),
            user: "root".to_owned(),
            cloud_config: false,
            disk: None,
            min_disk: ByteSize::mib(512),
            boot: None,
            made_at: Timestamp::UNIX_EPOCH,
        }
    }
}

/// The name of an image's folder: letters, digits, `.`, `-` and `_` only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ImageId(String);

impl ImageId {
    /// An id from any text; what may not stand in one becomes a hyphen.
    fn from_text(text: &str) -> Self {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        Self(
            text.chars()
                .map(|c| if good(c) { c } else { '-' })
                .collect::<String>()
                .trim_start_matches(['.', '-'])
                .to_owned(),
        )
    }
}

/// How an image's disk file is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DiskFormat {
    /// QEMU's own format.
    Qcow2,
    /// Byte for byte.
    Raw,
}

impl DiskFormat {
    /// The format's name for QEMU.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// How a kernel of the image's own is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Boot {
    /// The kernel's command line.
    pub(super) command_line: String,
}

/// What a name given by a user means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    /// Built here, see [`tiny`].
    Tiny,
}

/// The names that people may use.
const NAMES: [&str; 1] = ["tiny"];

impl Wanted {
    /// Finds out which image a name means.
    fn parse(name: &str) -> Result<Self, DriverError> {
        match name {
            "tiny" => Ok(Self::Tiny),
            _ => Err(unknown(name, NAMES.iter().copied())),
        }
    }

    /// The catalogue's name for it.
    fn name(&self) -> String {
        match self {
            Self::Tiny => "tiny".to_owned(),
        }
    }
}

/// The image is not there: says which ones are near.
fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> DriverError {
    let known: Vec<&str> = known.collect();
    let mut near: Vec<&str> = known
        .iter()
        .copied()
        .filter(|candidate| distance(name, candidate) <= 2 || candidate.contains(name))
        .collect();
    if near.is_empty() {
        near = known;
    }
    DriverError::Invalid {
        field: "image",
        message: format!(
            "there is no image `{name}` here; there is {}",
            near.iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// How many letters lie between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Servers that images are looked up on.
#[derive(Debug, Clone, Default)]
pub struct Servers {}

/// The catalogue and the cache.
pub(super) struct Images {
    dir: PathBuf,
    fetches: Mutex<HashMap<Wanted, Arc<Fetch>>>,
}

/// One image being fetched: whoever holds the turn does it, the others hear of it.
struct Fetch {
    turn: tokio::sync::Mutex<()>,
    news: watch::Sender<Option<ProgressUpdate>>,
}

impl Images {
    /// The cache in `dir`; what was cut off there is removed.
    pub(super) fn open(dir: PathBuf, _options: &super::QemuOptions) -> Result<Self, DriverError> {
        files::make_dir(&dir.join("store"))?;
        // Nobody else works in this folder, so whatever lies there is left over.
        files::remove(&dir.join("work"))?;
        files::make_dir(&dir.join("work"))?;
        Ok(Self {
            dir,
            fetches: Mutex::default(),
        })
    }

    /// The folder of an image in the cache.
    pub(super) fn dir_of(&self, id: &ImageId) -> PathBuf {
        self.dir.join("store").join(&id.0)
    }

    /// What is known of an image before it is fetched.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] for `image`, when there is no such image.
    pub(super) async fn describe(&self, name: &str) -> Result<Image, DriverError> {
        let wanted = Wanted::parse(name)?;
        Ok(self.listed(&wanted))
    }

    /// What can be launched.
    pub(super) async fn list(&self) -> Vec<Image> {
        vec![self.listed(&Wanted::Tiny)]
    }

    fn listed(&self, wanted: &Wanted) -> Image {
        let cached = self.cached(wanted);
        match wanted {
            Wanted::Tiny => Image {
                name: wanted.name(),
                aliases: Vec::new(),
                title: "Tiny Linux (busybox)".to_owned(),
                driver: DriverKind::Qemu,
                download_size: Some(tiny::DOWNLOAD),
                cached: cached.is_some(),
                min_disk: Some(batwa_api::vm::VmSpec::MIN_DISK),
                min_memory: Some(ByteSize::mib(128)),
                origin: "built here from Debian packages".to_owned(),
                cloud_config: false,
                default: false,
            },
        }
    }

    /// Brings an image into the cache, if it is not there.
    pub(super) async fn ensure(
        &self,
        name: &str,
        progress: &Progress,
    ) -> Result<Manifest, DriverError> {
        progress.stage(Stage::ResolvingImage);
        let wanted = Wanted::parse(name)?;
        if let Some(manifest) = self.cached(&wanted) {
            return Ok(manifest);
        }
        let fetch = Arc::clone(
            self.fetches
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(wanted.clone())
                .or_insert_with(|| {
                    Arc::new(Fetch {
                        turn: tokio::sync::Mutex::default(),
                        news: watch::Sender::new(None),
                    })
                }),
        );
        let mut news = fetch.news.subscribe();
        let turn = loop {
            tokio::select! {
                biased;
                turn = fetch.turn.lock() => break turn,
                Ok(()) = news.changed() => {
                    if let Some(update) = news.borrow_and_update().clone() {
                        progress.forward(update);
                    }
                }
            }
        };
        // The one before us may have brought it.
        if let Some(manifest) = self.cached(&wanted) {
            return Ok(manifest);
        }
        let heard = Progress::new({
            let (progress, fetch) = (progress.clone(), Arc::clone(&fetch));
            move |update| {
                fetch.news.send_replace(Some(update.clone()));
                progress.forward(update);
            }
        });
        let manifest = self.fetch(&wanted, &heard).await?;
        drop(turn);
        Ok(manifest)
    }

    async fn fetch(&self, wanted: &Wanted, progress: &Progress) -> Result<Manifest, DriverError> {
        let work = Work::new(&self.dir)?;
        let staging = work.0.join("image");
        files::make_dir(&staging)?;
        let manifest = match wanted {
            Wanted::Tiny => tiny::build(&staging, &work.0, progress).await?,
        };
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        files::write(&staging.join(Manifest::FILE), &json)?;
        let place = self.dir_of(&manifest.id);
        files::publish(&staging, &place)?;
        Ok(manifest)
    }

    /// The newest image in the cache that is what is wanted.
    fn cached(&self, wanted: &Wanted) -> Option<Manifest> {
        let name = wanted.name();
        let prefix = match wanted {
            Wanted::Tiny => format!("tiny-{}-", tiny::RECIPE),
        };
        self.stored()
            .filter(|manifest| manifest.name == name && manifest.id.0.starts_with(&prefix))
            .max_by_key(|manifest| manifest.made_at)
    }

    fn stored(&self) -> impl Iterator<Item = Manifest> {
        std::fs::read_dir(self.dir.join("store"))
            .into_iter()
            .flatten()
            .filter_map(|entry| read_manifest(&entry.ok()?.path()))
    }
}

fn read_manifest(dir: &Path) -> Option<Manifest> {
    let bytes = std::fs::read(dir.join(Manifest::FILE)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// A folder for work, removed with all that is in it when the work is done or cut off.
struct Work(PathBuf);

impl Work {
    fn new(dir: &Path) -> Result<Self, DriverError> {
        let path = dir.join("work").join(uuid::Uuid::now_v7().to_string());
        files::make_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = files::remove(&self.0);
    }
}
