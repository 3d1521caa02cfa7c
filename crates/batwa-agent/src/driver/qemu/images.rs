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
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use batwa_api::{Timestamp, agent::DriverKind, image::Image, operation::Stage, size::ByteSize};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::{
    download::{Checksum, Client, Remote},
    simplestreams::Release,
    wanted::Wanted,
};
use super::{files, vms::lock};
use crate::driver::{DriverError, Progress, ProgressUpdate};

mod cpio;
mod debian;
mod download;
mod packages;
mod simplestreams;
mod tiny;
mod wanted;

/// How old a catalogue may be before it is asked for anew.
const CATALOGUE_AGE: Duration = Duration::from_secs(3600);
/// When a server that did not answer is asked again.
const RETRY_AGE: Duration = Duration::from_secs(60);
/// How long a list waits for a catalogue.
const LIST_PATIENCE: Duration = Duration::from_secs(2);
/// How long the check of a name waits for it.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);
/// The account that is made in images of which nothing is known.
const ACCOUNT: &str = "batwa";

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

/// Servers that images are looked up on; addresses end with a slash.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Ubuntu's, with its simplestreams catalogue.
    pub ubuntu: String,
    /// The folder of Debian's images.
    pub debian: String,
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            ubuntu: "https://cloud-images.ubuntu.com/releases/".to_owned(),
            debian: "https://cloud.debian.org/images/cloud/bookworm/latest/".to_owned(),
        }
    }
}

/// The catalogue and the cache.
pub(super) struct Images {
    dir: PathBuf,
    image_dirs: Vec<PathBuf>,
    servers: Servers,
    client: Client,
    catalogue: Mutex<Catalogue>,
    fetches: Mutex<HashMap<Wanted, Arc<Fetch>>>,
}

/// One image being fetched: whoever holds the turn does it, the others hear of it.
struct Fetch {
    turn: tokio::sync::Mutex<()>,
    news: watch::Sender<Option<ProgressUpdate>>,
}

impl Images {
    /// The cache in `dir`; what was cut off there is removed.
    pub(super) fn open(dir: PathBuf, options: &super::QemuOptions) -> Result<Self, DriverError> {
        files::make_dir(&dir.join("store"))?;
        // Nobody else works in this folder, so whatever lies there is left over.
        files::remove(&dir.join("work"))?;
        files::make_dir(&dir.join("work"))?;
        Ok(Self {
            dir,
            image_dirs: options.image_dirs.clone(),
            servers: options.image_servers.clone(),
            client: Client::new()?,
            catalogue: Mutex::default(),
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
    /// [`DriverError::Invalid`] for `image`, when there is no such image or it may not be used.
    pub(super) async fn describe(&self, name: &str) -> Result<Image, DriverError> {
        let wanted = self.wanted(name).await?;
        Ok(self.listed(&wanted, &self.known_releases()))
    }

    /// What can be launched. Asks the servers anew only in the background of the next answer.
    pub(super) async fn list(&self) -> Vec<Image> {
        let releases = self.releases(LIST_PATIENCE).await;
        let mut wanted: Vec<Wanted> = releases
            .iter()
            .map(|release| Wanted::Ubuntu(release.version.clone()))
            .collect();
        wanted.extend([Wanted::Debian, Wanted::Tiny]);
        let mut images: Vec<Image> = wanted
            .iter()
            .map(|wanted| self.listed(wanted, &releases))
            .collect();
        // What is proposed first is the newest long-term release where its server answers, else what can be made here.
        let first = images
            .iter()
            .position(|image| image.title.contains("LTS"))
            .filter(|_| self.is_online());
        let first = first.unwrap_or(images.len() - 1);
        images[first].default = true;
        images
    }

    fn listed(&self, wanted: &Wanted, releases: &[Release]) -> Image {
        let cached = self.cached(wanted);
        let image = Image {
            name: wanted.name(),
            aliases: Vec::new(),
            title: wanted.name(),
            driver: DriverKind::Qemu,
            download_size: None,
            cached: cached.is_some(),
            min_disk: cached.map(|manifest| manifest.min_disk),
            min_memory: None,
            origin: String::new(),
            cloud_config: true,
            default: false,
        };
        match wanted {
            Wanted::Tiny => Image {
                title: "Tiny Linux (busybox)".to_owned(),
                download_size: Some(tiny::DOWNLOAD),
                min_disk: Some(batwa_api::vm::VmSpec::MIN_DISK),
                min_memory: Some(ByteSize::mib(128)),
                origin: "built here from Debian packages".to_owned(),
                cloud_config: false,
                ..image
            },
            Wanted::Debian => Image {
                aliases: ["debian", "bookworm", "debian:bookworm"]
                    .map(str::to_owned)
                    .to_vec(),
                title: "Debian 12 (bookworm)".to_owned(),
                min_disk: image.min_disk.or(Some(ByteSize::gib(2))),
                min_memory: Some(ByteSize::mib(256)),
                origin: "from cloud.debian.org, or built here from Debian packages".to_owned(),
                ..image
            },
            Wanted::Ubuntu(version) => {
                let release = releases.iter().find(|release| release.version == *version);
                Image {
                    aliases: release.map_or_else(
                        || vec![version.clone()],
                        |release| vec![version.clone(), release.codename.clone()],
                    ),
                    title: format!(
                        "Ubuntu {}",
                        release.map_or(version.as_str(), |release| release.title.as_str())
                    ),
                    download_size: release
                        .and_then(|release| release.remote.size)
                        .map(ByteSize::bytes),
                    min_memory: Some(ByteSize::mib(512)),
                    origin: "from cloud-images.ubuntu.com".to_owned(),
                    ..image
                }
            }
            Wanted::Url { url, .. } => Image {
                origin: format!("from {url}"),
                ..image
            },
            Wanted::File(path) => Image {
                origin: format!("the file {}", path.display()),
                ..image
            },
        }
    }

    /// Finds out which image a name means.
    async fn wanted(&self, name: &str) -> Result<Wanted, DriverError> {
        // Only a name that means nothing yet is worth asking a server about.
        let wanted = match Wanted::parse(name, &self.known_releases()) {
            Ok(wanted) => wanted,
            Err(_) => Wanted::parse(name, &self.releases(CHECK_PATIENCE).await)?,
        };
        if let Wanted::File(path) = &wanted {
            self.check_file(path)?;
        }
        Ok(wanted)
    }

    /// Files of this machine are used only from the folders that its owner named: anything else would let a VM
    /// read what its maker may not.
    fn check_file(&self, path: &Path) -> Result<(), DriverError> {
        let invalid = |message: String| DriverError::Invalid {
            field: "image",
            message,
        };
        let real = path
            .canonicalize()
            .map_err(|error| invalid(format!("cannot use the file {}: {error}", path.display())))?;
        let allowed = self
            .image_dirs
            .iter()
            .filter_map(|dir| dir.canonicalize().ok())
            .any(|dir| real.starts_with(dir));
        if allowed && real.is_file() {
            Ok(())
        } else {
            Err(invalid(format!(
                "image files of this machine may be used only from folders that its agent's settings name; {} is in none",
                path.display()
            )))
        }
    }

    /// Ubuntu's releases: those last heard of, or heard of now, or known without a server.
    async fn releases(&self, patience: Duration) -> Vec<Release> {
        let asked = {
            let catalogue = lock(&self.catalogue);
            catalogue.asked.is_some_and(|at| {
                at.elapsed()
                    < if catalogue.releases.is_some() {
                        CATALOGUE_AGE
                    } else {
                        RETRY_AGE
                    }
            })
        };
        if !asked {
            let url = format!("{}{}", self.servers.ubuntu, simplestreams::INDEX);
            let answer = tokio::time::timeout(patience, self.client.text(&url)).await;
            let found = answer.ok().and_then(Result::ok).and_then(|json| {
                simplestreams::releases(&json, debian_arch(), &self.servers.ubuntu).ok()
            });
            let mut catalogue = lock(&self.catalogue);
            catalogue.asked = Some(Instant::now());
            catalogue.releases = found.or(catalogue.releases.take());
        }
        self.known_releases()
    }

    fn known_releases(&self) -> Vec<Release> {
        lock(&self.catalogue).releases.clone().unwrap_or_else(|| {
            // Named though their server was not heard: it may be, by the time they are wanted.
            [("24.04", "noble"), ("22.04", "jammy")]
                .map(|(version, codename)| Release {
                    version: version.to_owned(),
                    codename: codename.to_owned(),
                    title: format!("{version} LTS"),
                    serial: String::new(),
                    remote: Remote {
                        url: String::new(),
                        checksum: Checksum::Sha256(String::new()),
                        size: None,
                    },
                })
                .to_vec()
        })
    }

    fn is_online(&self) -> bool {
        lock(&self.catalogue).releases.is_some()
    }

    /// Brings an image into the cache, if it is not there.
    pub(super) async fn ensure(
        &self,
        name: &str,
        progress: &Progress,
    ) -> Result<Manifest, DriverError> {
        progress.stage(Stage::ResolvingImage);
        let wanted = self.wanted(name).await?;
        if let Some(manifest) = self.cached(&wanted) {
            return Ok(manifest);
        }
        let fetch = Arc::clone(
            lock(&self.fetches)
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
            Wanted::Debian => match self.debian_remote().await {
                Some(remote) => {
                    let id = format!("debian-12-{}", &remote.checksum.hex()[..16]);
                    let about = About::new(wanted.name(), "Debian 12 (bookworm)", "debian");
                    self.download(id, about, &remote, &staging, progress)
                        .await?
                }
                None => {
                    progress.log("Debian's image server does not answer: building the image here");
                    debian::build(&staging, &work.0, progress).await?
                }
            },
            Wanted::Ubuntu(version) => {
                let releases = self.releases(CHECK_PATIENCE).await;
                let release = releases
                    .iter()
                    .find(|release| release.version == *version && !release.serial.is_empty())
                    .ok_or_else(|| DriverError::Failed {
                        detail: format!(
                            "cannot get Ubuntu {version}: the catalogue at {} does not answer",
                            self.servers.ubuntu
                        ),
                        hint: Some("check this machine's way to that server; `tiny` and `debian:12` can be made without an image server".to_owned()),
                        log: Vec::new(),
                    })?;
                let id = format!("ubuntu-{version}-{}", release.serial);
                let title = format!("Ubuntu {}", release.title);
                let about = About::new(wanted.name(), &title, "ubuntu");
                self.download(id, about, &release.remote, &staging, progress)
                    .await?
            }
            Wanted::Url { url, checksum } => {
                let remote = Remote {
                    url: url.clone(),
                    checksum: checksum.clone(),
                    size: None,
                };
                let id = format!("url-{}", &checksum.hex()[..32]);
                let about = About::new(wanted.name(), url, ACCOUNT);
                self.download(id, about, &remote, &staging, progress)
                    .await?
            }
            Wanted::File(path) => {
                let disk = staging.join(Manifest::DISK);
                progress.stage(Stage::Preparing);
                progress.message(format!("copying {}", path.display()));
                let (from, to) = (path.clone(), disk.clone());
                tokio::task::spawn_blocking(move || std::fs::copy(from, to))
                    .await
                    .map_err(|error| DriverError::failed(format!("copying broke off: {error}")))?
                    .map_err(|error| files::io_error("copy", path, &error))?;
                let about = About::new(wanted.name(), &path.display().to_string(), ACCOUNT);
                about
                    .manifest(format!("file-{}", uuid::Uuid::now_v7()), &disk)
                    .await?
            }
        };
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        files::write(&staging.join(Manifest::FILE), &json)?;
        let place = self.dir_of(&manifest.id);
        match files::publish(&staging, &place) {
            // Its id names its content: one that somebody put there meanwhile is the same.
            Err(_) if place.join(Manifest::FILE).is_file() => {}
            published => published?,
        }
        Ok(manifest)
    }

    async fn debian_remote(&self) -> Option<Remote> {
        let url = format!("{}SHA512SUMS", self.servers.debian);
        let sums = tokio::time::timeout(CHECK_PATIENCE, self.client.text(&url)).await;
        let sums = String::from_utf8(sums.ok()?.ok()?).ok()?;
        debian::remote(&sums, &self.servers.debian, debian_arch())
    }

    async fn download(
        &self,
        id: String,
        about: About,
        remote: &Remote,
        staging: &Path,
        progress: &Progress,
    ) -> Result<Manifest, DriverError> {
        let part = self
            .client
            .fetch(remote, &self.dir.join("downloads"), progress)
            .await?;
        let disk = staging.join(Manifest::DISK);
        files::publish(&part, &disk)?;
        about.manifest(id, &disk).await
    }

    /// The newest image in the cache that is what is wanted. A release of Ubuntu whose catalogue names a newer image
    /// than the cache has is not there.
    fn cached(&self, wanted: &Wanted) -> Option<Manifest> {
        let name = wanted.name();
        let prefix = match wanted {
            Wanted::Tiny => format!("tiny-{}-", tiny::RECIPE),
            Wanted::Debian => "debian-12-".to_owned(),
            Wanted::Ubuntu(version) => {
                let serial = self
                    .known_releases()
                    .into_iter()
                    .find(|release| release.version == *version)
                    .map_or_else(String::new, |release| release.serial);
                format!("ubuntu-{version}-{serial}")
            }
            Wanted::Url { checksum, .. } => format!("url-{}", &checksum.hex()[..32]),
            // The file may have changed since.
            Wanted::File(_) => return None,
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

/// What is told of a disk image that came from elsewhere.
struct About {
    name: String,
    title: String,
    user: &'static str,
}

impl About {
    fn new(name: String, title: &str, user: &'static str) -> Self {
        Self {
            name,
            title: title.to_owned(),
            user,
        }
    }

    async fn manifest(self, id: String, disk: &Path) -> Result<Manifest, DriverError> {
        let facts = super::disk::inspect(disk).await?;
        Ok(Manifest {
            id: ImageId::from_text(&id),
            name: self.name,
            title: self.title,
            user: self.user.to_owned(),
            cloud_config: true,
            disk: Some(facts.format),
            min_disk: facts.size,
            boot: None,
            made_at: Timestamp::now(),
        })
    }
}

/// What was last heard of Ubuntu's releases.
#[derive(Default)]
struct Catalogue {
    asked: Option<Instant>,
    releases: Option<Vec<Release>>,
}

/// This machine's architecture in Debian's and Ubuntu's words.
fn debian_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
