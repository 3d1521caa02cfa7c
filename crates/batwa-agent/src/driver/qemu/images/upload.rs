//! Images that come with a call: written aside, checked, and only then there.

use std::{collections::BTreeSet, fs::File, io::Write, path::Path, sync::Mutex};

use batwa_api::{
    image::{AddImage, Image, ImageName},
    size::ByteSize,
};
use bytes::Bytes;
use futures_util::StreamExt;
use sha2::Digest as _;

use super::{
    super::{files, space},
    Images,
    cache::{UPLOAD, Users},
    lock,
    manifest::{About, Manifest},
    own::{OwnImage, OwnSource},
    wanted::Wanted,
};
use crate::driver::{DriverError, Upload};

/// Largest image that is taken in.
const MAX_UPLOAD: ByteSize = ByteSize::gib(256);
/// Most uploads under way at the same time: each takes disk space that nobody sees yet.
const AT_ONCE: usize = 4;

/// A name under which an image is being uploaded: nobody else may use it meanwhile.
struct Reserved<'a> {
    names: &'a Mutex<BTreeSet<ImageName>>,
    name: ImageName,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        lock(self.names).remove(&self.name);
    }
}

impl Images {
    /// Takes an image in by an address or a file.
    pub(in super::super) async fn add(
        &self,
        add: &AddImage,
        in_use: Users<'_>,
    ) -> Result<Image, DriverError> {
        self.check_names(add).await?;
        let source = match (&add.url, &add.file, &add.sha256) {
            (Some(url), None, Some(sha256)) => {
                self.client.check(url)?;
                OwnSource::Url {
                    url: url.clone(),
                    sha256: sha256.to_ascii_lowercase(),
                }
            }
            (None, Some(path), _) => {
                self.files.open("file", Path::new(path))?;
                OwnSource::File { path: path.into() }
            }
            _ => return Err(DriverError::failed("an image without an address or a file")),
        };
        self.own.add(OwnImage::new(add, source))?;
        self.own_image(&add.name, in_use)
    }

    /// Takes an image in whose content comes with the call.
    pub(in super::super) async fn upload(
        &self,
        add: &AddImage,
        upload: Upload,
        in_use: Users<'_>,
    ) -> Result<Image, DriverError> {
        self.check_names(add).await?;
        if upload.size > MAX_UPLOAD {
            return Err(refused(format!(
                "an image of {} is larger than {MAX_UPLOAD}, the most that is taken in",
                upload.size
            )));
        }
        let _reserved = self.reserve(&add.name)?;
        let what = format!("take image `{}` in", add.name);
        space::require(self.cache.dir(), upload.size, &what)?;
        let work = self.cache.work()?;
        let staging = work.folder("image")?;
        let disk = staging.join(Manifest::DISK);
        let sha256 = receive(upload, &disk).await?;
        if add
            .sha256
            .as_ref()
            .is_some_and(|announced| !announced.eq_ignore_ascii_case(&sha256))
        {
            return Err(DriverError::Invalid {
                field: "sha256",
                message: format!(
                    "what came has the SHA-256 {sha256}, not the one that was announced: nothing of it is kept"
                ),
            });
        }
        let source = OwnSource::Upload { sha256 };
        let own = OwnImage::new(add, source);
        let wanted = Wanted::of(&own);
        let about = About::new(own.name.to_string(), &own.title, &own.user);
        let manifest = about
            .manifest(wanted.current("").unwrap_or_default(), &disk)
            .await
            .map_err(|error| refused(error.to_string()))?;
        // Held until it is in the list: what is not there is not taken for somebody's.
        let held = self.cache.publish(&staging, &manifest)?;
        let entered = self.own.add(own);
        drop(held);
        if let Err(error) = entered {
            self.forget_uploads_of_nobody(in_use);
            return Err(error);
        }
        self.own_image(&add.name, in_use)
    }

    fn reserve(&self, name: &ImageName) -> Result<Reserved<'_>, DriverError> {
        let mut names = lock(&self.uploads);
        if names.contains(name) {
            return Err(DriverError::ImageTaken(name.clone()));
        }
        if names.len() >= AT_ONCE {
            return Err(DriverError::IllegalState(format!(
                "{AT_ONCE} images are being uploaded to this machine already: wait for one of them"
            )));
        }
        names.insert(name.clone());
        Ok(Reserved {
            names: &self.uploads,
            name: name.clone(),
        })
    }

    /// Removes what was uploaded and is in no list: an upload that a crash cut off before its last step. Where the list
    /// is not whole, each may be somebody's: an upload is nowhere else.
    pub(in super::super) fn forget_uploads_of_nobody(&self, in_use: Users<'_>) {
        if !self.own.is_whole() {
            return;
        }
        let wanted: Vec<Wanted> = self.own.all().iter().map(Wanted::of).collect();
        for manifest in self.cache.manifests() {
            let id = manifest.id.clone();
            let is_upload = id.as_str().starts_with(UPLOAD);
            if is_upload && !wanted.iter().any(|wanted| wanted.covers(&manifest)) {
                // One that a VM lies on stays, as a removed one does not: it is tried again at the next start.
                let _ = self.cache.remove(&[id], in_use);
            }
        }
    }

    /// Refuses names that are taken here, by an image of one's own or of a catalogue.
    async fn check_names(&self, add: &AddImage) -> Result<(), DriverError> {
        let names: Vec<ImageName> = std::iter::once(&add.name)
            .chain(&add.aliases)
            .cloned()
            .collect();
        self.own.check_new(&names)?;
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                return Err(DriverError::Invalid {
                    field: "aliases",
                    message: format!("`{name}` is there twice"),
                });
            }
        }
        let releases = self.offers.known_releases();
        let of_catalogue = |name: &&ImageName| Wanted::parse(name.as_str(), &releases).is_ok();
        match names.iter().find(of_catalogue) {
            Some(name) => Err(DriverError::ImageTaken(name.clone())),
            None => Ok(()),
        }
    }
}

/// Writes the content down; its SHA-256.
async fn receive(upload: Upload, disk: &Path) -> Result<String, DriverError> {
    let write_error = |error: std::io::Error| files::io_error("write", disk, &error);
    let mut file = files::create(disk).map_err(write_error)?;
    let mut hasher = sha2::Sha256::new();
    let mut left = upload.size.as_u64();
    let mut content = upload.content;
    while let Some(piece) = content.next().await {
        let piece = piece.map_err(|error| {
            DriverError::failed(format!(
                "the upload was cut off, nothing of it is kept: {error}"
            ))
        })?;
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| {
            refused(format!(
                "more came than the {} that were announced",
                upload.size
            ))
        })?;
        let written = tokio::task::spawn_blocking(move || take_in(file, hasher, &piece));
        let result;
        (file, hasher, result) = written
            .await
            .map_err(|error| DriverError::failed(format!("writing broke off: {error}")))?;
        result.map_err(write_error)?;
    }
    if left > 0 {
        return Err(DriverError::failed(format!(
            "the upload was cut off with {} missing: nothing of it is kept",
            ByteSize::bytes(left)
        )));
    }
    tokio::task::spawn_blocking(move || file.sync_all())
        .await
        .map_err(|error| DriverError::failed(format!("writing broke off: {error}")))?
        .map_err(write_error)?;
    Ok(hex::encode(hasher.finalize()))
}

fn take_in(
    mut file: File,
    mut hasher: sha2::Sha256,
    piece: &Bytes,
) -> (File, sha2::Sha256, std::io::Result<()>) {
    hasher.update(piece);
    let written = file.write_all(piece);
    (file, hasher, written)
}

fn refused(message: String) -> DriverError {
    DriverError::Invalid {
        field: "content",
        message,
    }
}
