//! Images: what can be launched here, and the cache they lie in.
//!
//! ```text
//! name ─► Named ─► in the cache? ──yes─────────────────────────────────────► Manifest, held
//!   (own.json, servers)   └──no──► fetch: download | build | copy ─► store/ID ───┘
//! upload ─► work/, or downloads/ where it can be gone on with ─► checked ─► store/ID ─► own.json
//! ```

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use batwa_api::{
    agent::DriverKind,
    image::{ImageName, ImageStore},
};

use self::{
    cache::Cache,
    download::Client,
    fetch::Fetch,
    local::LocalFiles,
    own::{OwnImage, OwnImages},
    servers::{CHECK_PATIENCE, Offers},
    upload::Uploads,
    wanted::Wanted,
};
use super::{files, vms::lock};
use crate::driver::{DriverError, used_by};

mod cache;
mod catalogue;
mod cpio;
mod debian;
mod download;
mod fetch;
mod local;
mod manifest;
mod own;
mod packages;
mod servers;
mod simplestreams;
mod tiny;
mod upload;
mod wanted;

#[cfg(test)]
pub(super) use self::manifest::Boot;
pub(super) use self::{
    cache::{InUse, Users},
    manifest::{DiskFormat, ImageId, Manifest},
};
pub use self::{servers::Servers, tiny::TinyKernel};

/// The catalogue, the cache, and what comes into it.
pub(super) struct Images {
    client: Client,
    offers: Offers,
    files: LocalFiles,
    own: OwnImages,
    tiny_kernel: TinyKernel,
    cache: Cache,
    fetches: Mutex<HashMap<Wanted, Arc<Fetch>>>,
    uploads: Uploads,
}

/// An image that somebody named, and what it was added as where somebody did.
struct Named {
    wanted: Wanted,
    own: Option<OwnImage>,
}

impl Named {
    /// The manifest with what was said when the image was added.
    fn dress(&self, manifest: Manifest) -> Manifest {
        match &self.own {
            Some(own) => Manifest {
                title: own.title.clone(),
                user: own.user.clone(),
                ..manifest
            },
            None => manifest,
        }
    }
}

impl Images {
    /// The images in `dir`; what was cut off there is removed.
    pub(super) fn open(dir: PathBuf, options: &super::QemuOptions) -> Result<Self, DriverError> {
        let client = Client::new(&options.policy)?;
        files::make_dir(&dir)?;
        Ok(Self {
            offers: Offers::new(options.image_servers.clone(), client.clone()),
            client,
            files: LocalFiles::new(options.policy.clone()),
            own: OwnImages::open(dir.join("own.json"))?,
            tiny_kernel: options.tiny_kernel,
            cache: Cache::open(dir, options.cache_limit)?,
            fetches: Mutex::default(),
            uploads: Uploads::default(),
        })
    }

    /// The folder of an image in the cache.
    pub(super) fn dir_of(&self, id: &ImageId) -> PathBuf {
        self.cache.dir_of(id)
    }

    /// How much there is, and how much room.
    pub(super) fn store(&self) -> ImageStore {
        ImageStore {
            driver: DriverKind::Qemu,
            used: Some(self.cache.used()),
            limit: self.cache.limit(),
            free: files::free_space(self.cache.dir()),
            add_refusal: None,
            error: None,
        }
    }

    /// Removes what nobody uses, the longest unused first, while there is more than the settings allow.
    pub(super) fn trim(&self, in_use: Users<'_>) {
        self.cache.trim(in_use);
    }

    /// Finds out which image a name means.
    async fn named(&self, name: &str) -> Result<Named, DriverError> {
        if let Some(own) = self.own.find(name) {
            let wanted = Wanted::of(&own);
            self.check_source(&wanted)?;
            return Ok(Named {
                wanted,
                own: Some(own),
            });
        }
        // Only a name that means nothing yet is worth asking a server about.
        let wanted = match Wanted::parse(name, &self.offers.known_releases()) {
            Ok(wanted) => wanted,
            Err(_) => Wanted::parse(name, &self.offers.releases(CHECK_PATIENCE).await)?,
        };
        if let Wanted::File(path) = &wanted {
            self.files.open("image", path)?;
        }
        self.check_source(&wanted)?;
        Ok(Named { wanted, own: None })
    }

    /// Refuses an image that would come from a server which the policy does not name. One that is here already is
    /// refused too: what is not trusted now is not launched now.
    fn check_source(&self, wanted: &Wanted) -> Result<(), DriverError> {
        match wanted {
            Wanted::Url { url, .. } => self.client.check(url),
            Wanted::Ubuntu(_) => self.client.check(self.offers.ubuntu()),
            // Made here where Debian's server is not to be asked.
            Wanted::Debian | Wanted::Tiny | Wanted::File(_) | Wanted::Upload(_) => Ok(()),
        }
    }

    /// The newest image in the cache that is what is wanted. A release of Ubuntu whose catalogue names a newer image
    /// than the cache has is not there, nor is a file that has changed since.
    fn cached(&self, wanted: &Wanted) -> Option<Manifest> {
        self.newest(wanted, self.cache.manifests())
    }

    /// The same of those that were read already.
    fn newest(
        &self,
        wanted: &Wanted,
        manifests: impl Iterator<Item = Manifest>,
    ) -> Option<Manifest> {
        let serial = match wanted {
            Wanted::Ubuntu(version) => self
                .offers
                .known_releases()
                .into_iter()
                .find(|release| release.version == *version)
                .map_or_else(String::new, |release| release.serial),
            _ => String::new(),
        };
        let begin = match (wanted.current(&serial), wanted) {
            (Some(begin), _) => begin,
            (None, Wanted::File(path)) => {
                let local = self.files.open("image", path).ok()?;
                wanted::file_id(&local.fingerprint).as_str().to_owned()
            }
            (None, _) => return None,
        };
        manifests
            .filter(|manifest| manifest.id.as_str().starts_with(&begin))
            .max_by_key(|manifest| manifest.made_at)
    }

    /// Removes what is here of an image, and forgets it where somebody added it.
    ///
    /// # Errors
    /// [`DriverError::ImageInUse`]; [`DriverError::NoImage`].
    pub(super) fn remove(&self, name: &ImageName, in_use: Users<'_>) -> Result<(), DriverError> {
        let own = self.own.find(name.as_str());
        let wanted = match &own {
            Some(own) => Some(Wanted::of(own)),
            None => Wanted::parse(name.as_str(), &self.offers.known_releases()).ok(),
        };
        let refuse = |reason: String| DriverError::ImageInUse {
            image: name.clone(),
            reason,
        };
        if wanted
            .as_ref()
            .is_some_and(|wanted| self.is_being_fetched(wanted))
        {
            return Err(refuse("it is being fetched: cancel that first".to_owned()));
        }
        // The same content under another name of somebody's stays for that.
        let others: Vec<Wanted> = self
            .own
            .all()
            .iter()
            .filter(|other| own.as_ref().is_some_and(|own| own.name != other.name))
            .map(Wanted::of)
            .collect();
        let ids: Vec<ImageId> = self
            .cache
            .manifests()
            .filter(|manifest| match &wanted {
                Some(wanted) => wanted.covers(manifest),
                None => manifest.name == name.as_str(),
            })
            .filter(|manifest| !others.iter().any(|other| other.covers(manifest)))
            .map(|manifest| manifest.id)
            .collect();
        let part = wanted.as_ref().and_then(|wanted| self.part_of(wanted));
        let part = part.filter(|part| part.exists());
        if own.is_none() && ids.is_empty() && part.is_none() {
            return Err(DriverError::NoImage(name.clone()));
        }
        match self.cache.remove(&ids, in_use) {
            Ok(()) => {}
            Err(cache::Kept::UsedBy(vms)) => {
                return Err(refuse(format!(
                    "{}: purge what is no longer needed",
                    used_by(&vms)
                )));
            }
            Err(cache::Kept::Held) => {
                return Err(refuse("a VM is just being made from it".to_owned()));
            }
            Err(cache::Kept::Failed(error)) => return Err(error),
        }
        if let Some(part) = part {
            files::remove(&part)?;
        }
        match own {
            Some(own) => self.own.forget(&own.name),
            None => Ok(()),
        }
    }

    fn is_being_fetched(&self, wanted: &Wanted) -> bool {
        let fetch = lock(&self.fetches).get(wanted).cloned();
        fetch.is_some_and(|fetch| fetch.is_under_way())
    }
}
