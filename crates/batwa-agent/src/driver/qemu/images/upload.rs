//! Images that come with a call: written aside, checked, and only then there.

mod part;

use std::{fs, path::Path};

use batwa_api::{
    file::UploadId,
    image::{AddImage, Image, ImageName},
    size::ByteSize,
};

pub(super) use self::part::Uploads;
use self::part::receive;
use super::{
    super::{files, space},
    Images,
    cache::{UPLOAD, Users},
    manifest::{About, Manifest},
    own::{OwnImage, OwnSource},
    wanted::Wanted,
};
use crate::driver::{DriverError, Upload};

/// Largest image that is taken in.
const MAX_UPLOAD: ByteSize = ByteSize::gib(256);

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
        let part = upload.part.as_ref().map(|part| part.id.clone());
        let reserved = self.uploads.reserve(&add.name, part.as_ref()).await?;
        let before = upload.part.as_ref().map_or(0, |part| part.offset);
        let to_come = ByteSize::bytes(upload.size.as_u64().saturating_sub(before));
        let what = format!("take image `{}` in", add.name);
        space::require(self.cache.dir(), to_come, &what)?;
        let work = self.cache.work()?;
        let staging = work.folder("image")?;
        let disk = staging.join(Manifest::DISK);
        let sha256 = match part {
            None => receive(upload, &disk, &reserved).await?,
            Some(part) => {
                self.cache.forget_other_uploads(&part);
                let kept = self.cache.part_of_upload(&part);
                let sha256 = receive(upload, &kept, &reserved).await?;
                // All of it has come: whatever is wrong with it now is not mended by sending more.
                fs::rename(&kept, &disk).map_err(|error| files::io_error("move", &kept, &error))?;
                sha256
            }
        };
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

    /// How many bytes are kept of an upload that was cut off.
    pub(in super::super) async fn held(&self, upload: &UploadId) -> Result<u64, DriverError> {
        self.uploads.settled(upload).await?;
        let kept = fs::metadata(self.cache.part_of_upload(upload));
        Ok(kept.map_or(0, |kept| kept.len()))
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

fn refused(message: String) -> DriverError {
    DriverError::Invalid {
        field: "content",
        message,
    }
}
