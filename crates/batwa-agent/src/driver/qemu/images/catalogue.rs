//! What can be launched here, as it is told.

use std::borrow::Cow;

use batwa_api::{
    agent::DriverKind,
    image::{Image, ImageActions, ImageName, ImageSource},
    name::VmName,
    size::ByteSize,
    vm::VmSpec,
};

use super::{
    Images, Named,
    cache::{InUse, Stored, Users},
    manifest::Manifest,
    own::{OwnImage, OwnSource},
    servers::LIST_PATIENCE,
    simplestreams::Release,
    tiny,
    wanted::Wanted,
};
use crate::driver::{DriverError, used_by};

/// All that is looked at for one answer.
struct View {
    releases: Vec<Release>,
    stored: Vec<Stored>,
    in_use: InUse,
}

impl Images {
    /// What is known of an image before it is fetched.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] for `image`, when there is no such image or it may not be used.
    pub(in super::super) async fn describe(&self, name: &str) -> Result<Image, DriverError> {
        let named = self.named(name).await?;
        let view = View {
            releases: self.offers.known_releases(),
            stored: self.cache.stored(),
            in_use: InUse::default(),
        };
        Ok(self.listed(&named, &view))
    }

    /// What can be launched. Asks the servers anew only in the background of the next answer.
    pub(in super::super) async fn list(&self, in_use: Users<'_>) -> Vec<Image> {
        let view = View {
            releases: self.offers.releases(LIST_PATIENCE).await,
            stored: self.cache.stored(),
            in_use: in_use(),
        };
        let mut wanted: Vec<Wanted> = view
            .releases
            .iter()
            .map(|release| Wanted::Ubuntu(release.version.clone()))
            .collect();
        wanted.extend([Wanted::Debian, Wanted::Tiny]);
        let mut images: Vec<Image> = wanted
            .iter()
            .map(|wanted| {
                let named = Named {
                    wanted: wanted.clone(),
                    own: None,
                };
                self.listed(&named, &view)
            })
            .collect();
        // What is proposed first is the newest long-term release where its server answers, else what can be made here.
        let first = images
            .iter()
            .position(|image| image.title.contains("LTS"))
            .filter(|_| self.offers.is_online());
        let first = first.unwrap_or(images.len() - 1);
        images[first].default = true;
        for own in self.own.all() {
            let named = Named {
                wanted: Wanted::of(&own),
                own: Some(own),
            };
            images.push(self.listed(&named, &view));
            wanted.push(named.wanted);
        }
        images.extend(self.left_over(&wanted, &view));
        images
    }

    /// One of those that somebody added.
    pub(super) fn own_image(
        &self,
        name: &ImageName,
        in_use: Users<'_>,
    ) -> Result<Image, DriverError> {
        let own = self
            .own
            .find(name.as_str())
            .ok_or_else(|| DriverError::NoImage(name.clone()))?;
        let named = Named {
            wanted: Wanted::of(&own),
            own: Some(own),
        };
        let view = View {
            releases: Vec::new(),
            stored: self.cache.stored(),
            in_use: in_use(),
        };
        Ok(self.listed(&named, &view))
    }

    /// What lies in the cache and is in no list: once launched by its address or file, or no longer offered.
    fn left_over(&self, listed: &[Wanted], view: &View) -> Vec<Image> {
        let mut names: Vec<&str> = view
            .stored
            .iter()
            .map(|image| &image.manifest)
            .filter(|manifest| !listed.iter().any(|wanted| wanted.covers(manifest)))
            .map(|manifest| manifest.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
            .into_iter()
            .filter_map(|name| match Wanted::parse(name, &view.releases) {
                Ok(wanted) => Some(self.listed(&Named { wanted, own: None }, view)),
                Err(_) => no_longer_offered(name, view),
            })
            .collect()
    }

    fn listed(&self, named: &Named, view: &View) -> Image {
        let versions: Vec<&Stored> = view
            .stored
            .iter()
            .filter(|image| named.wanted.covers(&image.manifest))
            .collect();
        let there = versions.iter().map(|image| image.manifest.clone());
        let cached = self.newest(&named.wanted, there);
        let image = Image {
            min_disk: cached.as_ref().map(|manifest| manifest.min_disk),
            cached: cached.is_some(),
            ..plain(named.wanted.name(), &versions, &view.in_use)
        };
        let image = match &named.own {
            Some(own) => of_own(own, image),
            None => of_catalogue(&named.wanted, image, &view.releases),
        };
        Image {
            actions: self.actions(named, &image, &versions),
            ..image
        }
    }

    fn actions(&self, named: &Named, image: &Image, versions: &[&Stored]) -> ImageActions {
        let fetched = self
            .is_being_fetched(&named.wanted)
            .then_some(Cow::Borrowed("it is being fetched"));
        let held = versions
            .iter()
            .any(|image| self.cache.is_held(&image.manifest.id));
        let pull = image
            .cached
            .then_some(Cow::Borrowed("it is here already"))
            .or_else(|| fetched.clone());
        let remove = if fetched.is_some() {
            fetched
        } else if !image.used_by.is_empty() {
            Some(Cow::Owned(used_by(&image.used_by)))
        } else if held {
            Some(Cow::Borrowed("a VM is just being made from it"))
        } else if versions.is_empty()
            && named.own.is_none()
            && !self
                .part_of(&named.wanted)
                .is_some_and(|part| part.exists())
        {
            Some(Cow::Borrowed("nothing of it is on this machine"))
        } else {
            None
        };
        ImageActions { pull, remove }
    }
}

/// An image of which its versions in the cache are known, and nothing more.
fn plain(name: String, versions: &[&Stored], in_use: &InUse) -> Image {
    let mut users: Vec<VmName> = versions
        .iter()
        .flat_map(|image| in_use.of(&image.manifest.id))
        .collect();
    users.sort();
    users.dedup();
    let size: u64 = versions.iter().map(|image| image.size.as_u64()).sum();
    Image {
        title: name.clone(),
        name,
        aliases: Vec::new(),
        driver: DriverKind::Qemu,
        download_size: None,
        cached: false,
        min_disk: None,
        min_memory: None,
        origin: String::new(),
        cloud_config: true,
        default: false,
        source: ImageSource::Catalogue,
        own: false,
        architecture: None,
        size_on_disk: (!versions.is_empty()).then_some(ByteSize::bytes(size)),
        last_used_at: versions.iter().map(|image| image.last_used_at()).max(),
        used_by: users,
        actions: ImageActions {
            pull: None,
            remove: None,
        },
    }
}

/// An image in the cache that its server does not name any more.
fn no_longer_offered(name: &str, view: &View) -> Option<Image> {
    let versions: Vec<&Stored> = view
        .stored
        .iter()
        .filter(|image| image.manifest.name == name)
        .collect();
    let Manifest {
        title,
        cloud_config,
        min_disk,
        ..
    } = versions.first()?.manifest.clone();
    let image = plain(name.to_owned(), &versions, &view.in_use);
    Some(Image {
        title,
        cloud_config,
        min_disk: Some(min_disk),
        origin: "no longer offered; it can be removed".to_owned(),
        actions: ImageActions {
            pull: Some(Cow::Borrowed("it is no longer offered")),
            remove: (!image.used_by.is_empty()).then(|| Cow::Owned(used_by(&image.used_by))),
        },
        ..image
    })
}

fn of_own(own: &OwnImage, image: Image) -> Image {
    let (source, origin) = match &own.source {
        OwnSource::Url { url, .. } => (ImageSource::Url, format!("from {url}")),
        OwnSource::Upload { .. } => (ImageSource::Upload, "uploaded".to_owned()),
        OwnSource::File { path } => (ImageSource::File, format!("the file {}", path.display())),
    };
    Image {
        name: own.name.to_string(),
        aliases: own.aliases.iter().map(ToString::to_string).collect(),
        title: own.title.clone(),
        origin,
        source,
        own: true,
        ..image
    }
}

fn of_catalogue(wanted: &Wanted, image: Image, releases: &[Release]) -> Image {
    let architecture = Some(std::env::consts::ARCH.to_owned());
    match wanted {
        Wanted::Tiny => Image {
            title: "Tiny Linux (busybox)".to_owned(),
            download_size: Some(tiny::DOWNLOAD),
            min_disk: Some(VmSpec::MIN_DISK),
            min_memory: Some(ByteSize::mib(128)),
            origin: "built here from Debian packages".to_owned(),
            cloud_config: false,
            source: ImageSource::Built,
            architecture,
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
            architecture,
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
                architecture,
                ..image
            }
        }
        Wanted::Url { url, .. } => Image {
            title: url.clone(),
            origin: format!("from {url}"),
            source: ImageSource::Url,
            ..image
        },
        Wanted::File(path) => Image {
            origin: format!("the file {}", path.display()),
            source: ImageSource::File,
            ..image
        },
        Wanted::Upload(_) => Image {
            source: ImageSource::Upload,
            ..image
        },
    }
}
