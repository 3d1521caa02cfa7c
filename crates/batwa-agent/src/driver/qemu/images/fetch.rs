//! Bringing an image into the cache: downloaded, built or copied, once however many ask for it.
//!
//! Those who come later hear of the same progress.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use batwa_api::{
    image::{Image, ImageName},
    operation::Stage,
    size::ByteSize,
};
use tokio::sync::watch;

use super::{
    super::{files, space},
    Images,
    cache::Held,
    debian,
    download::Remote,
    local::LocalFile,
    manifest::{About, Manifest},
    servers::CHECK_PATIENCE,
    tiny,
    wanted::{self, Wanted},
};
use crate::driver::{DriverError, Progress, ProgressUpdate};

/// The account that is made in images of which nothing is known.
const ACCOUNT: &str = "batwa";
/// How much of a file is copied at a time.
const PIECE: usize = 4 << 20;

/// One image being fetched: whoever holds the turn does it, the others hear of it.
pub(super) struct Fetch {
    turn: tokio::sync::Mutex<()>,
    news: watch::Sender<Option<ProgressUpdate>>,
}

impl Fetch {
    fn new() -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            news: watch::Sender::new(None),
        }
    }

    /// Whether somebody is at it.
    pub(super) fn is_under_way(&self) -> bool {
        self.turn.try_lock().is_err()
    }
}

impl Images {
    /// Brings an image into the cache, if it is not there. It is held until the caller has laid a VM on it.
    pub(in super::super) async fn ensure(
        &self,
        name: &str,
        progress: &Progress,
    ) -> Result<(Manifest, Held<'_>), DriverError> {
        progress.stage(Stage::ResolvingImage);
        let named = self.named(name).await?;
        let (manifest, held) = self.bring(&named.wanted, progress).await?;
        self.cache.touch(&manifest.id);
        Ok((named.dress(manifest), held))
    }

    /// Refuses a pull that cannot work. What is known of the image.
    pub(in super::super) async fn check_pull(
        &self,
        name: &ImageName,
    ) -> Result<Image, DriverError> {
        let image = self.describe(name.as_str()).await?;
        if image.cached {
            return Ok(image);
        }
        let named = self.named(name.as_str()).await?;
        let part = self.part_of(&named.wanted);
        let have = part.map_or(0, |part| {
            std::fs::metadata(part).map_or(0, |file| file.len())
        });
        let size = image.download_size.unwrap_or(ByteSize::bytes(0)).as_u64();
        let what = format!("pull image `{}`", image.name);
        let to_come = ByteSize::bytes(size.saturating_sub(have));
        space::require(self.cache.dir(), to_come, &what)?;
        Ok(image)
    }

    /// Where the beginning of a download would lie.
    pub(super) fn part_of(&self, wanted: &Wanted) -> Option<PathBuf> {
        let downloads = self.cache.downloads();
        match wanted {
            Wanted::Url { checksum, .. } => Some(checksum.part(&downloads)),
            Wanted::Ubuntu(version) => {
                let releases = self.offers.known_releases();
                let release = releases
                    .iter()
                    .find(|release| release.version == *version && !release.serial.is_empty())?;
                Some(release.remote.checksum.part(&downloads))
            }
            Wanted::Tiny | Wanted::Debian | Wanted::File(_) | Wanted::Upload(_) => None,
        }
    }

    /// The image in the cache, brought there if it is not; held.
    async fn bring(
        &self,
        wanted: &Wanted,
        progress: &Progress,
    ) -> Result<(Manifest, Held<'_>), DriverError> {
        if let Some(found) = self.cached_and_held(wanted) {
            return Ok(found);
        }
        let fetch = Arc::clone(
            super::lock(&self.fetches)
                .entry(wanted.clone())
                .or_insert_with(|| Arc::new(Fetch::new())),
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
        if let Some(found) = self.cached_and_held(wanted) {
            return Ok(found);
        }
        let heard = Progress::new({
            let (progress, fetch) = (progress.clone(), Arc::clone(&fetch));
            move |update| {
                fetch.news.send_replace(Some(update.clone()));
                progress.forward(update);
            }
        });
        let brought = self.fetch(wanted, &heard).await?;
        drop(turn);
        Ok(brought)
    }

    fn cached_and_held(&self, wanted: &Wanted) -> Option<(Manifest, Held<'_>)> {
        let manifest = self.cached(wanted)?;
        let held = self.cache.hold(&manifest.id)?;
        Some((manifest, held))
    }

    async fn fetch(
        &self,
        wanted: &Wanted,
        progress: &Progress,
    ) -> Result<(Manifest, Held<'_>), DriverError> {
        let work = self.cache.work()?;
        let staging = work.folder("image")?;
        let manifest = match wanted {
            Wanted::Tiny => tiny::build(self.tiny_kernel, &staging, work.path(), progress).await?,
            Wanted::Debian => match self.offers.debian().await {
                Some(remote) => {
                    let id = format!("debian-12-{}", &remote.checksum.hex()[..16]);
                    let about = About::new(wanted.name(), "Debian 12 (bookworm)", "debian");
                    self.download(id, about, &remote, &staging, progress)
                        .await?
                }
                None => {
                    progress.log("Debian's image server does not answer: building the image here");
                    debian::build(&staging, work.path(), progress).await?
                }
            },
            Wanted::Ubuntu(version) => self.fetch_ubuntu(version, &staging, progress).await?,
            Wanted::Url { url, checksum } => {
                let remote = Remote {
                    url: url.clone(),
                    checksum: checksum.clone(),
                    size: None,
                };
                let id = wanted.current("").unwrap_or_default();
                let about = About::new(wanted.name(), url, ACCOUNT);
                self.download(id, about, &remote, &staging, progress)
                    .await?
            }
            Wanted::File(path) => {
                let local = self.files.open("image", path)?;
                let disk = staging.join(Manifest::DISK);
                let id = wanted::file_id(&local.fingerprint);
                copy(local, path, &disk, progress).await?;
                let about = About::new(wanted.name(), &path.display().to_string(), ACCOUNT);
                about.manifest(id.as_str().to_owned(), &disk).await?
            }
            Wanted::Upload(_) => {
                return Err(DriverError::Failed {
                    detail: "the content of this image is not here any more".to_owned(),
                    hint: Some("remove the image and upload it again".to_owned()),
                    log: Vec::new(),
                });
            }
        };
        let held = self.cache.publish(&staging, &manifest)?;
        Ok((manifest, held))
    }

    async fn fetch_ubuntu(
        &self,
        version: &str,
        staging: &Path,
        progress: &Progress,
    ) -> Result<Manifest, DriverError> {
        let releases = self.offers.releases(CHECK_PATIENCE).await;
        let release = releases
            .iter()
            .find(|release| release.version == *version && !release.serial.is_empty())
            .ok_or_else(|| DriverError::Failed {
                detail: format!(
                    "cannot get Ubuntu {version}: the catalogue at {} does not answer",
                    self.offers.ubuntu()
                ),
                hint: Some("check this machine's way to that server; `tiny` and `debian:12` can be made without an image server".to_owned()),
                log: Vec::new(),
            })?;
        let id = format!("ubuntu-{version}-{}", release.serial);
        let title = format!("Ubuntu {}", release.title);
        let about = About::new(format!("ubuntu:{version}"), &title, "ubuntu");
        self.download(id, about, &release.remote, staging, progress)
            .await
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
            .fetch(remote, &self.cache.downloads(), progress)
            .await?;
        let disk = staging.join(Manifest::DISK);
        files::publish(&part, &disk)?;
        about.manifest(id, &disk).await
    }
}

/// Copies a file of this machine, piece by piece so that it can be cut off.
async fn copy(
    local: LocalFile,
    from: &Path,
    to: &Path,
    progress: &Progress,
) -> Result<(), DriverError> {
    space::require(to, local.size, &format!("copy {}", from.display()))?;
    progress.stage(Stage::Preparing);
    progress.message(format!("copying {}", from.display()));
    let mut source = local.file;
    let mut target = files::create(to).map_err(|error| files::io_error("write", to, &error))?;
    let mut done = 0;
    loop {
        let copied = tokio::task::spawn_blocking(move || {
            let piece = copy_piece(&mut source, &mut target);
            (source, target, piece)
        });
        let piece;
        (source, target, piece) = copied
            .await
            .map_err(|error| DriverError::failed(format!("copying broke off: {error}")))?;
        match piece.map_err(|error| files::io_error("write", to, &error))? {
            0 => return Ok(()),
            bytes => done += bytes,
        }
        progress.bytes(ByteSize::bytes(done), Some(local.size));
    }
}

/// The next piece; how long it was. The last one is none, and then everything is on disk.
fn copy_piece(source: &mut File, target: &mut File) -> std::io::Result<u64> {
    let mut piece = Vec::with_capacity(PIECE);
    source.take(PIECE as u64).read_to_end(&mut piece)?;
    if piece.is_empty() {
        target.sync_all()?;
    }
    target.write_all(&piece)?;
    Ok(piece.len() as u64)
}
