//! The folder of images that are here.
//!
//! An image's folder in `store/` appears whole or not at all and is never changed: disks of VMs lie on top of it. It is
//! taken away only while nobody uses it, and nobody is about to: whoever will lay a VM on it holds it until that VM is
//! entered, and both are looked at under one lock.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime},
};

use batwa_api::{Timestamp, file::UploadId, name::VmName, size::ByteSize};
use tracing::{info, warn};

use super::{
    super::{files, vms::lock},
    manifest::{ImageId, Manifest},
};
use crate::driver::DriverError;

/// What an id begins with whose content is nowhere else: it is not removed for want of room.
pub(super) const UPLOAD: &str = "upload-";
/// What the name of a folder begins with that is being removed.
const GONE: &str = ".gone-";
/// Most uploads that wait to be gone on with, those under way included: more than may be under way at once.
const UPLOADS_KEPT: usize = 8;
/// How long the beginning of a download is kept that nobody goes on with.
const PART_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Which VMs lie on which image.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct InUse {
    by_image: BTreeMap<ImageId, Vec<VmName>>,
    /// VMs whose records cannot be read: each may lie on any image.
    unknown: Vec<VmName>,
}

impl InUse {
    /// Notes that a VM lies on an image; on any, where that cannot be known.
    pub(in super::super) fn note(&mut self, vm: VmName, image: Option<ImageId>) {
        match image {
            Some(image) => self.by_image.entry(image).or_default().push(vm),
            None => self.unknown.push(vm),
        }
    }

    /// The VMs that may lie on an image.
    pub(super) fn of(&self, image: &ImageId) -> Vec<VmName> {
        let known = self.by_image.get(image).into_iter().flatten();
        known.chain(&self.unknown).cloned().collect()
    }
}

/// Says which VMs lie on which image now.
pub(in super::super) type Users<'a> = &'a (dyn Fn() -> InUse + Sync);

/// An image that is here.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// What is written down of it.
    pub(super) manifest: Manifest,
    /// What its files take.
    pub(super) size: ByteSize,
    /// When a VM was last made from it, or it came.
    pub(super) last_used: SystemTime,
}

impl Stored {
    /// When that was, for people.
    pub(super) fn last_used_at(&self) -> Timestamp {
        Timestamp::try_from(self.last_used).unwrap_or(self.manifest.made_at)
    }
}

/// All images that are here.
pub(super) struct Cache {
    dir: PathBuf,
    limit: Option<ByteSize>,
    held: Mutex<HashMap<ImageId, usize>>,
}

/// An image that is not removed while this lives.
pub(in super::super) struct Held<'a> {
    cache: &'a Cache,
    id: ImageId,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = lock(&self.cache.held);
        if let Some(count) = held.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.id);
            }
        }
    }
}

impl Cache {
    /// The cache in `dir`; what was cut off there is removed.
    pub(super) fn open(dir: PathBuf, limit: Option<ByteSize>) -> Result<Self, DriverError> {
        let cache = Self {
            dir,
            limit,
            held: Mutex::default(),
        };
        files::make_dir(&cache.store())?;
        files::make_dir(&cache.downloads())?;
        // Nobody else works in this folder, so whatever lies there is left over.
        files::remove(&cache.dir.join("work"))?;
        files::make_dir(&cache.dir.join("work"))?;
        for entry in entries(&cache.store()) {
            if entry.file_name().to_string_lossy().starts_with(GONE) {
                files::remove(&entry.path())?;
            }
        }
        cache.forget_old_parts();
        Ok(cache)
    }

    fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Where downloads lie until they are whole.
    pub(super) fn downloads(&self) -> PathBuf {
        self.dir.join("downloads")
    }

    /// Where an upload lies that can be gone on with.
    pub(super) fn part_of_upload(&self, upload: &UploadId) -> PathBuf {
        self.downloads()
            .join(format!("{UPLOAD}{}.part", upload.as_str()))
    }

    /// Makes room for an upload: of those that were cut off, the ones longest untouched go when there are many.
    pub(super) fn forget_other_uploads(&self, upload: &UploadId) {
        let mine = self.part_of_upload(upload);
        let mut others: Vec<(SystemTime, PathBuf)> = entries(&self.downloads())
            .into_iter()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(UPLOAD))
            .filter(|entry| entry.path() != mine)
            .map(|entry| {
                let touched = entry.metadata().and_then(|file| file.modified());
                (touched.unwrap_or(SystemTime::UNIX_EPOCH), entry.path())
            })
            .collect();
        others.sort();
        let surplus = (others.len() + 1).saturating_sub(UPLOADS_KEPT);
        for (_, part) in others.into_iter().take(surplus) {
            if let Err(error) = files::remove(&part) {
                warn!("cannot remove an old upload: {error}");
            }
        }
    }

    /// The folder that holds all of it.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The limit, where there is one.
    pub(super) fn limit(&self) -> Option<ByteSize> {
        self.limit
    }

    /// The folder of an image.
    pub(super) fn dir_of(&self, id: &ImageId) -> PathBuf {
        self.store().join(id.as_str())
    }

    /// A folder for work.
    pub(super) fn work(&self) -> Result<Work, DriverError> {
        let path = self.dir.join("work").join(uuid::Uuid::now_v7().to_string());
        files::make_dir(&path)?;
        Ok(Work(path))
    }

    /// What is written down of all images that are here.
    pub(super) fn manifests(&self) -> impl Iterator<Item = Manifest> {
        entries(&self.store())
            .into_iter()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .filter_map(|entry| Manifest::read(&entry.path()))
    }

    /// All images that are here, with what they take.
    pub(super) fn stored(&self) -> Vec<Stored> {
        self.manifests()
            .map(|manifest| {
                let dir = self.dir_of(&manifest.id);
                let touched =
                    fs::metadata(dir.join(Manifest::FILE)).and_then(|file| file.modified());
                Stored {
                    size: size_of(&dir),
                    last_used: touched.unwrap_or(SystemTime::UNIX_EPOCH),
                    manifest,
                }
            })
            .collect()
    }

    /// What everything here takes, downloads that are not whole included.
    pub(super) fn used(&self) -> ByteSize {
        let stored = self.stored().iter().map(|image| image.size.as_u64()).sum();
        ByteSize::bytes(size_of(&self.downloads()).as_u64().saturating_add(stored))
    }

    /// Keeps an image that is here from being removed; `None` when it is not here.
    pub(super) fn hold(&self, id: &ImageId) -> Option<Held<'_>> {
        let mut held = lock(&self.held);
        self.dir_of(id).join(Manifest::FILE).is_file().then(|| {
            *held.entry(id.clone()).or_default() += 1;
            Held {
                cache: self,
                id: id.clone(),
            }
        })
    }

    /// Whether somebody is about to use an image.
    pub(super) fn is_held(&self, id: &ImageId) -> bool {
        lock(&self.held).contains_key(id)
    }

    /// Notes that an image was used just now.
    pub(super) fn touch(&self, id: &ImageId) {
        let path = self.dir_of(id).join(Manifest::FILE);
        let touched = fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            warn!("cannot note that {} was used: {error}", path.display());
        }
    }

    /// Puts an image that is whole in its place, and holds it.
    pub(super) fn publish(
        &self,
        staging: &Path,
        manifest: &Manifest,
    ) -> Result<Held<'_>, DriverError> {
        let json = serde_json::to_vec_pretty(manifest).expect("a manifest is plain data");
        files::write(&staging.join(Manifest::FILE), &json)?;
        let place = self.dir_of(&manifest.id);
        let mut held = lock(&self.held);
        match files::publish(staging, &place) {
            // Its id names its content: one that somebody put there meanwhile is the same.
            Err(_) if place.join(Manifest::FILE).is_file() => {}
            published => published?,
        }
        *held.entry(manifest.id.clone()).or_default() += 1;
        Ok(Held {
            cache: self,
            id: manifest.id.clone(),
        })
    }

    /// Removes images, unless somebody uses one of them or is about to; then none is removed.
    ///
    /// # Errors
    /// [`Kept`] says who; or whatever the disk says.
    pub(super) fn remove(&self, ids: &[ImageId], in_use: Users<'_>) -> Result<(), Kept> {
        let doomed = {
            let held = lock(&self.held);
            let in_use = in_use();
            if ids.iter().any(|id| held.contains_key(id)) {
                return Err(Kept::Held);
            }
            let mut users: Vec<VmName> = ids.iter().flat_map(|id| in_use.of(id)).collect();
            if !users.is_empty() {
                users.sort();
                users.dedup();
                return Err(Kept::UsedBy(users));
            }
            let doomed: Result<Vec<PathBuf>, DriverError> =
                ids.iter().map(|id| self.take_away(id)).collect();
            doomed.map_err(Kept::Failed)?
        };
        for dir in doomed {
            files::remove(&dir).map_err(Kept::Failed)?;
        }
        Ok(())
    }

    /// Removes images that nobody uses, the one longest unused first, until what is here is within the limit.
    pub(super) fn trim(&self, in_use: Users<'_>) {
        self.forget_old_parts();
        let Some(limit) = self.limit else { return };
        let mut used = self.used().as_u64();
        if used <= limit.as_u64() {
            return;
        }
        let mut stored = self.stored();
        stored.sort_by_key(|image| image.last_used);
        for image in stored {
            if used <= limit.as_u64() {
                return;
            }
            let id = &image.manifest.id;
            if id.as_str().starts_with(UPLOAD)
                || self.remove(std::slice::from_ref(id), in_use).is_err()
            {
                continue;
            }
            used = used.saturating_sub(image.size.as_u64());
            info!(
                "image `{}` was removed, as all images together take more than {limit}",
                image.manifest.name
            );
        }
    }

    /// Takes a folder away under the lock; where it is now, for whoever removes it.
    fn take_away(&self, id: &ImageId) -> Result<PathBuf, DriverError> {
        let from = self.dir_of(id);
        let to = self.store().join(format!("{GONE}{}", uuid::Uuid::now_v7()));
        match fs::rename(&from, &to) {
            Ok(()) => Ok(to),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(to),
            Err(error) => Err(files::io_error("remove", &from, &error)),
        }
    }

    fn forget_old_parts(&self) {
        for part in entries(&self.downloads()) {
            let age = part
                .metadata()
                .and_then(|file| file.modified())
                .ok()
                .and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > PART_AGE)
                && let Err(error) = files::remove(&part.path())
            {
                warn!("cannot remove an old download: {error}");
            }
        }
    }
}

/// Why images stay.
#[derive(Debug)]
pub(super) enum Kept {
    /// VMs lie on them.
    UsedBy(Vec<VmName>),
    /// A VM is just being made from one.
    Held,
    /// The disk does not allow it.
    Failed(DriverError),
}

/// A folder for work, removed with all that is in it when the work is done or cut off.
pub(super) struct Work(PathBuf);

impl Work {
    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A new folder in it.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf, DriverError> {
        let path = self.0.join(name);
        files::make_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = files::remove(&self.0);
    }
}

fn entries(dir: &Path) -> Vec<fs::DirEntry> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .collect()
}

/// What the files of a folder take on disk: a sparse one less than its length.
fn size_of(dir: &Path) -> ByteSize {
    use std::os::unix::fs::MetadataExt;
    const BLOCK: u64 = 512;
    let blocks = entries(dir)
        .iter()
        .filter_map(|entry| entry.metadata().ok())
        .map(|file| file.blocks())
        .sum::<u64>();
    ByteSize::bytes(blocks * BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;

    fn id(text: &str) -> ImageId {
        ImageId::from_text(text)
    }

    fn put<'a>(cache: &'a Cache, name: &str, unused_for: u64) -> Held<'a> {
        let work = cache.work().unwrap();
        let staging = work.folder("image").unwrap();
        fs::write(staging.join(Manifest::DISK), vec![7; SIZE]).unwrap();
        let manifest = Manifest {
            id: id(name),
            name: name.to_owned(),
            ..Manifest::example()
        };
        let held = cache.publish(&staging, &manifest).unwrap();
        let file = fs::OpenOptions::new()
            .append(true)
            .open(cache.dir_of(&manifest.id).join(Manifest::FILE))
            .unwrap();
        let then = SystemTime::now() - Duration::from_secs(unused_for);
        file.set_modified(then).unwrap();
        held
    }

    fn names(cache: &Cache) -> Vec<String> {
        let mut names: Vec<String> = cache.manifests().map(|manifest| manifest.name).collect();
        names.sort();
        names
    }

    fn used_by_web(image: &str) -> impl Fn() -> InUse + Sync {
        let image = id(image);
        move || {
            let mut in_use = InUse::default();
            in_use.note(VmName::parse("web").unwrap(), Some(image.clone()));
            in_use
        }
    }

    #[test]
    fn the_longest_unused_goes_first_and_nothing_that_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let limit = ByteSize::bytes(SIZE as u64 * 3);
        let cache = Cache::open(dir.path().to_owned(), Some(limit)).unwrap();
        drop(put(&cache, "used", 500));
        let held = put(&cache, "held", 400);
        drop(put(&cache, "upload-1", 350));
        drop(put(&cache, "old", 300));
        drop(put(&cache, "older", 310));
        drop(put(&cache, "new", 1));
        cache.touch(&id("old"));
        cache.trim(&used_by_web("used"));
        // Three are the least: of the others none may go.
        assert_eq!(names(&cache), ["held", "upload-1", "used"]);
        drop(held);
        cache.trim(&used_by_web("used"));
        assert_eq!(names(&cache), ["upload-1", "used"]);
        assert_eq!(entries(&cache.store()).len(), 2);
    }

    #[test]
    fn what_was_used_lately_stays_while_there_is_room_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let limit = ByteSize::bytes(SIZE as u64 * 5 / 2);
        let cache = Cache::open(dir.path().to_owned(), Some(limit)).unwrap();
        for (name, unused_for) in [("a", 100), ("b", 200), ("c", 300)] {
            drop(put(&cache, name, unused_for));
        }
        cache.touch(&id("c"));
        cache.trim(&InUse::default);
        assert_eq!(names(&cache), ["a", "c"]);
    }

    #[test]
    fn without_a_limit_everything_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().to_owned(), None).unwrap();
        drop(put(&cache, "a", 100));
        cache.trim(&InUse::default);
        assert_eq!(names(&cache), ["a"]);
        assert!(cache.used() >= ByteSize::bytes(SIZE as u64));
    }

    #[test]
    fn a_vm_that_cannot_be_read_keeps_every_image() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().to_owned(), Some(ByteSize::bytes(0))).unwrap();
        drop(put(&cache, "a", 100));
        let unknown = || {
            let mut in_use = InUse::default();
            in_use.note(VmName::parse("broken").unwrap(), None);
            in_use
        };
        cache.trim(&unknown);
        let refused = cache.remove(&[id("a")], &unknown).unwrap_err();
        assert!(matches!(refused, Kept::UsedBy(vms) if vms[0].as_str() == "broken"));
        cache.remove(&[id("a")], &InUse::default).unwrap();
        assert!(names(&cache).is_empty());
    }

    #[test]
    fn what_a_removal_was_cut_off_from_goes_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().to_owned(), None).unwrap();
        drop(put(&cache, "a", 1));
        let doomed = cache.take_away(&id("a")).unwrap();
        assert!(doomed.exists() && names(&cache).is_empty());
        let cache = Cache::open(dir.path().to_owned(), None).unwrap();
        assert!(!doomed.exists() && cache.hold(&id("a")).is_none());
    }
}
