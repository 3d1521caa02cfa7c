//! Images that only pretend: names, sizes and who uses them. What was "pulled" and what was added is written down, so
//! that it outlives `kill -9` as real images do.

use std::{borrow::Cow, collections::HashMap, io, path::Path};

use async_trait::async_trait;
use batwa_api::{
    Timestamp,
    agent::DriverKind,
    file::UploadId,
    image::{AddImage, Image, ImageActions, ImageName, ImageSource, ImageStore},
    name::VmName,
    operation::{OperationKind, Stage},
    size::ByteSize,
    vm::VmSpec,
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::FakeDriver;
use crate::driver::{DriverError, ImageKeeper, Part, Progress, Upload, used_by};

/// What came of uploads that were cut off: the checksum so far, and how many bytes; the bytes are thrown away.
pub(super) type Parts = HashMap<UploadId, (sha2::Sha256, u64)>;

/// Into how many pieces a download falls.
const PIECES: u64 = 4;
/// Largest upload: it is not kept, only counted.
const MAX_UPLOAD: ByteSize = ByteSize::gib(4);
/// Most uploads that are remembered to be gone on with.
const PARTS_KEPT: usize = 8;

struct Known {
    name: &'static str,
    aliases: &'static [&'static str],
    title: &'static str,
    size: ByteSize,
    min_disk: ByteSize,
}

const KNOWN: [Known; 4] = [
    Known {
        name: "ubuntu:24.04",
        aliases: &["24.04", "noble", "lts"],
        title: "Ubuntu 24.04 LTS (pretended)",
        size: ByteSize::mib(600),
        min_disk: ByteSize::gib(4),
    },
    Known {
        name: "ubuntu:22.04",
        aliases: &["22.04", "jammy"],
        title: "Ubuntu 22.04 LTS (pretended)",
        size: ByteSize::mib(650),
        min_disk: ByteSize::gib(4),
    },
    Known {
        name: "debian:12",
        aliases: &["bookworm"],
        title: "Debian 12 (pretended)",
        size: ByteSize::mib(350),
        min_disk: ByteSize::gib(2),
    },
    Known {
        name: "tiny",
        aliases: &[],
        title: "Tiny Linux (pretended)",
        size: ByteSize::mib(20),
        min_disk: ByteSize::mib(512),
    },
];

/// One image, as it is written down once it differs from [`KNOWN`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FakeImage {
    name: ImageName,
    aliases: Vec<ImageName>,
    title: String,
    size: ByteSize,
    min_disk: ByteSize,
    source: ImageSource,
    origin: String,
    own: bool,
    /// How much of it is here.
    here: ByteSize,
    last_used_at: Option<Timestamp>,
}

impl FakeImage {
    fn of(known: &Known) -> Self {
        let name = |text: &str| ImageName::parse(text).expect("a plain name");
        Self {
            name: name(known.name),
            aliases: known.aliases.iter().map(|alias| name(alias)).collect(),
            title: known.title.to_owned(),
            size: known.size,
            min_disk: known.min_disk,
            source: ImageSource::Catalogue,
            origin: "made up".to_owned(),
            own: false,
            here: ByteSize::bytes(0),
            last_used_at: None,
        }
    }

    fn added(add: &AddImage, size: ByteSize, source: ImageSource, origin: String) -> Self {
        Self {
            name: add.name.clone(),
            aliases: add.aliases.clone(),
            title: add.title.clone().unwrap_or_else(|| add.name.to_string()),
            size,
            min_disk: VmSpec::MIN_DISK,
            source,
            origin,
            own: true,
            here: ByteSize::bytes(0),
            last_used_at: None,
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.as_str() == name || self.aliases.iter().any(|alias| alias.as_str() == name)
    }

    fn is_cached(&self) -> bool {
        self.here >= self.size
    }
}

/// All images, those of [`KNOWN`] first.
pub(super) fn load(path: &Path) -> io::Result<Vec<FakeImage>> {
    match std::fs::read(path) {
        Ok(json) => Ok(serde_json::from_slice(&json)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(KNOWN.iter().map(FakeImage::of).collect())
        }
        Err(error) => Err(error),
    }
}

/// The known image of a name, under the name that its VMs get; anything else as it is.
pub(super) fn plain_name(name: &str) -> String {
    let called = |known: &&Known| known.name == name || known.aliases.contains(&name);
    KNOWN
        .iter()
        .find(called)
        .map_or_else(|| name.to_owned(), |known| known.name.to_owned())
}

impl FakeDriver {
    /// What is known of an image.
    pub(super) fn image(&self, name: &str) -> Result<FakeImage, DriverError> {
        let images = super::lock(&self.images);
        let found = images.iter().find(|image| image.is_called(name));
        found.cloned().ok_or_else(|| DriverError::Invalid {
            field: "image",
            message: format!(
                "there is no image `{name}`; there are {}",
                images
                    .iter()
                    .map(|image| format!("`{}`", image.name))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        })
    }

    /// For people: `Ubuntu 24.04 LTS`.
    pub(super) fn image_title(&self, name: &str) -> Option<String> {
        self.image(name).ok().map(|image| image.title)
    }

    /// Refuses a disk that is too small for an image.
    pub(super) fn check_image(&self, spec: &VmSpec) -> Result<(), DriverError> {
        let image = self.image(&spec.image)?;
        if spec.disk < image.min_disk {
            return Err(DriverError::Invalid {
                field: "disk",
                message: format!(
                    "{} is less than the {} that image `{}` needs",
                    spec.disk, image.min_disk, image.name
                ),
            });
        }
        Ok(())
    }

    /// Changes the images and writes them down.
    fn change_images<R>(
        &self,
        change: impl FnOnce(&mut Vec<FakeImage>) -> Result<R, DriverError>,
    ) -> Result<R, DriverError> {
        let mut images = super::lock(&self.images);
        let mut next = images.clone();
        let result = change(&mut next)?;
        let path = self.folder.join("images.json");
        let new = path.with_extension("json.new");
        serde_json::to_vec(&next)
            .map_err(io::Error::from)
            .and_then(|json| std::fs::write(&new, json))
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|error| {
                DriverError::failed(format!("cannot write fake images down: {error}"))
            })?;
        *images = next;
        Ok(result)
    }

    /// "Downloads" what is not here of an image, piece by piece: what a call that was cut off has brought stays.
    pub(super) async fn fetch(&self, name: &str, progress: &Progress) -> Result<(), DriverError> {
        let image = self.image(name)?;
        if !image.is_cached() {
            progress.stage(Stage::Downloading);
            let total = image.size.as_u64();
            let piece = total.div_ceil(PIECES).max(1);
            let mut here = image.here.as_u64();
            while here < total {
                self.turn().await?;
                here = (here + piece).min(total);
                let here = ByteSize::bytes(here);
                progress.bytes(here, Some(image.size));
                self.change_images(|images| {
                    let found = images.iter_mut().find(|other| other.name == image.name);
                    found.ok_or_else(|| gone(&image.name))?.here = here;
                    Ok(())
                })?;
            }
        }
        self.change_images(|images| {
            if let Some(found) = images.iter_mut().find(|other| other.name == image.name) {
                found.last_used_at = Some(Timestamp::now());
            }
            Ok(())
        })
    }

    /// The VMs that were made from an image.
    fn users(&self, image: &FakeImage) -> Vec<VmName> {
        self.vms()
            .iter()
            .filter(|(_, vm)| image.is_called(&vm.image))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn told(&self, image: &FakeImage, default: bool) -> Image {
        let users = self.users(image);
        let nothing = ByteSize::bytes(0);
        let cached = image.is_cached();
        let remove = if !users.is_empty() {
            Some(Cow::Owned(used_by(&users)))
        } else if image.here == nothing && !image.own {
            Some(Cow::Borrowed("nothing of it is on this machine"))
        } else {
            None
        };
        Image {
            name: image.name.to_string(),
            aliases: image.aliases.iter().map(ToString::to_string).collect(),
            title: image.title.clone(),
            driver: DriverKind::Fake,
            download_size: Some(image.size),
            cached,
            min_disk: Some(image.min_disk),
            min_memory: Some(VmSpec::MIN_MEMORY),
            origin: image.origin.clone(),
            cloud_config: true,
            default,
            source: image.source,
            own: image.own,
            architecture: Some(std::env::consts::ARCH.to_owned()),
            size_on_disk: (image.here > nothing).then_some(image.here),
            last_used_at: image.last_used_at,
            used_by: users,
            actions: ImageActions {
                pull: cached.then_some(Cow::Borrowed("it is here already")),
                remove,
            },
        }
    }

    /// All images as they are told.
    pub(super) fn told_images(&self) -> Vec<Image> {
        let images = super::lock(&self.images).clone();
        images
            .iter()
            .enumerate()
            .map(|(n, image)| self.told(image, n == 0))
            .collect()
    }

    /// What is remembered of an upload that goes on: its checksum so far, and how many bytes came.
    fn taken_up(&self, part: Option<&Part>) -> Result<(sha2::Sha256, u64), DriverError> {
        let Some(part) = part.filter(|part| part.offset > 0) else {
            return Ok((sha2::Sha256::new(), 0));
        };
        let parts = super::lock(&self.parts);
        match parts.get(&part.id) {
            Some((hasher, came)) if *came == part.offset => Ok((hasher.clone(), *came)),
            held => Err(DriverError::IllegalState(format!(
                "{} bytes of this upload are kept, so that it cannot go on at {}: ask how many there are, and go on there",
                held.map_or(0, |(_, came)| *came),
                part.offset
            ))),
        }
    }

    fn keep_part(&self, id: &UploadId, hasher: &sha2::Sha256, came: u64) {
        let mut parts = super::lock(&self.parts);
        while parts.len() >= PARTS_KEPT
            && !parts.contains_key(id)
            && let Some(any) = parts.keys().next().cloned()
        {
            parts.remove(&any);
        }
        parts.insert(id.clone(), (hasher.clone(), came));
    }

    fn take_in(&self, image: &FakeImage) -> Result<Image, DriverError> {
        self.change_images(|images| {
            let names = std::iter::once(&image.name).chain(&image.aliases);
            for name in names {
                if images.iter().any(|other| other.is_called(name.as_str())) {
                    return Err(DriverError::ImageTaken(name.clone()));
                }
            }
            images.push(image.clone());
            Ok(())
        })?;
        Ok(self.told(image, false))
    }
}

fn gone(name: &ImageName) -> DriverError {
    DriverError::failed(format!("image `{name}` was removed meanwhile"))
}

#[async_trait]
impl ImageKeeper for FakeDriver {
    async fn store(&self) -> ImageStore {
        let used = super::lock(&self.images)
            .iter()
            .map(|image| image.here.as_u64())
            .sum();
        ImageStore {
            driver: DriverKind::Fake,
            used: Some(ByteSize::bytes(used)),
            limit: None,
            free: Some(ByteSize::gib(100)),
            add_refusal: None,
            error: None,
        }
    }

    async fn check_pull(&self, image: &ImageName) -> Result<Image, DriverError> {
        self.answer().await;
        Ok(self.told(&self.image(image.as_str())?, false))
    }

    async fn pull(&self, image: &ImageName, progress: &Progress) -> Result<(), DriverError> {
        progress.stage(Stage::ResolvingImage);
        self.image(image.as_str())?;
        self.fetch(image.as_str(), progress).await?;
        progress.stage(Stage::Verifying);
        self.turn().await?;
        self.fail_by_chance(OperationKind::PullImage, &format!("image `{image}`"))
    }

    async fn add(&self, image: &AddImage) -> Result<Image, DriverError> {
        self.answer().await;
        let (source, origin) = match (&image.url, &image.file) {
            (Some(url), _) => (ImageSource::Url, format!("from {url}, pretended")),
            (None, Some(_)) => {
                return Err(DriverError::Invalid {
                    field: "file",
                    message: "the fake driver reads no files of this machine".to_owned(),
                });
            }
            (None, None) => return Err(DriverError::failed("an image without an address")),
        };
        self.take_in(&FakeImage::added(image, ByteSize::mib(100), source, origin))
    }

    async fn upload(&self, image: &AddImage, upload: Upload) -> Result<Image, DriverError> {
        self.answer().await;
        let invalid = |field, message: String| DriverError::Invalid { field, message };
        if upload.size > MAX_UPLOAD {
            return Err(invalid(
                "content",
                format!(
                    "{} is larger than {MAX_UPLOAD}, the most that is taken in",
                    upload.size
                ),
            ));
        }
        let (mut hasher, mut came) = self.taken_up(upload.part.as_ref())?;
        let total = upload.size.as_u64();
        let mut content = upload.content;
        while let Some(piece) = content.next().await {
            let piece = piece
                .map_err(|error| DriverError::failed(format!("the upload was cut off: {error}")))?;
            came += piece.len() as u64;
            if came > total {
                return Err(invalid(
                    "content",
                    "more came than was announced".to_owned(),
                ));
            }
            hasher.update(&piece);
            // At once: whoever is cut off may never come back to this.
            if let Some(part) = &upload.part {
                self.keep_part(&part.id, &hasher, came);
            }
        }
        if came < total {
            return Err(match upload.part {
                Some(_) => DriverError::IllegalState(format!(
                    "the image is not whole yet: {came} of {total} bytes are there"
                )),
                None => DriverError::failed(format!(
                    "the upload was cut off after {came} of {total} bytes: nothing of it is kept"
                )),
            });
        }
        if let Some(part) = &upload.part {
            super::lock(&self.parts).remove(&part.id);
        }
        let sum = hex::encode(hasher.finalize());
        if image
            .sha256
            .as_ref()
            .is_some_and(|announced| !announced.eq_ignore_ascii_case(&sum))
        {
            return Err(invalid(
                "sha256",
                format!(
                    "what came has the SHA-256 {sum}, not the one that was announced: nothing of it is kept"
                ),
            ));
        }
        let origin = "uploaded, and thrown away".to_owned();
        let mut added = FakeImage::added(image, upload.size, ImageSource::Upload, origin);
        added.here = upload.size;
        added.last_used_at = Some(Timestamp::now());
        self.take_in(&added)
    }

    async fn held(&self, upload: &UploadId) -> Result<u64, DriverError> {
        self.answer().await;
        let parts = super::lock(&self.parts);
        Ok(parts.get(upload).map_or(0, |(_, came)| *came))
    }

    async fn remove(&self, image: &ImageName) -> Result<(), DriverError> {
        self.answer().await;
        let found = self
            .image(image.as_str())
            .map_err(|_| DriverError::NoImage(image.clone()))?;
        if let Some(reason) = self.told(&found, false).actions.remove {
            return Err(
                if found.here == ByteSize::bytes(0) && self.users(&found).is_empty() {
                    DriverError::NoImage(image.clone())
                } else {
                    DriverError::ImageInUse {
                        image: image.clone(),
                        reason: format!("{reason}: purge what is no longer needed"),
                    }
                },
            );
        }
        self.change_images(|images| {
            if found.own {
                images.retain(|other| other.name != found.name);
            } else if let Some(known) = images.iter_mut().find(|other| other.name == found.name) {
                known.here = ByteSize::bytes(0);
                known.last_used_at = None;
            }
            Ok(())
        })
    }
}
