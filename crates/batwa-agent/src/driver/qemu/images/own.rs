//! Images that somebody added to this machine under names of their own: one small file, replaced whole.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Mutex,
};

use batwa_api::{
    Timestamp,
    image::{AddImage, ImageName},
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::super::{files, vms::lock};
use crate::driver::DriverError;

/// The account that is made in images of which nothing is known.
const ACCOUNT: &str = "batwa";
/// Most images that one machine is told of: each list looks at all of them.
const MAX_IMAGES: usize = 200;

/// One image of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct OwnImage {
    /// What to launch it by.
    pub(super) name: ImageName,
    /// Other names for it.
    #[serde(default)]
    pub(super) aliases: Vec<ImageName>,
    /// For people.
    pub(super) title: String,
    /// The account that people use in it.
    pub(super) user: String,
    /// Where its content comes from.
    #[serde(flatten)]
    pub(super) source: OwnSource,
    /// When it was added.
    pub(super) added_at: Timestamp,
}

/// Where the content of an image of one's own comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub(super) enum OwnSource {
    /// A server.
    Url {
        /// Where it is.
        url: String,
        /// What it must be: 64 hexadecimal digits in lower case.
        sha256: String,
    },
    /// Somebody's upload: it is in the cache, and nowhere else.
    Upload {
        /// What it is.
        sha256: String,
    },
    /// A file of this machine.
    File {
        /// Its path.
        path: PathBuf,
    },
}

impl OwnImage {
    /// The image that `add` describes.
    pub(super) fn new(add: &AddImage, source: OwnSource) -> Self {
        Self {
            name: add.name.clone(),
            aliases: add.aliases.clone(),
            title: add.title.clone().unwrap_or_else(|| add.name.to_string()),
            user: add.user.clone().unwrap_or_else(|| ACCOUNT.to_owned()),
            source,
            added_at: Timestamp::now(),
        }
    }

    /// Every name that it goes by.
    pub(super) fn names(&self) -> impl Iterator<Item = &ImageName> {
        std::iter::once(&self.name).chain(&self.aliases)
    }
}

/// All of them.
///
/// Invariant: what is in the file and cannot be read is kept aside, and as long as that is there the list is not whole.
pub(super) struct OwnImages {
    path: PathBuf,
    images: Mutex<Vec<OwnImage>>,
}

impl OwnImages {
    /// Those of a file. What cannot be read in it is put aside and reported: it must not keep the agent from starting.
    pub(super) fn open(path: PathBuf) -> Result<Self, DriverError> {
        let images = match std::fs::read(&path) {
            Ok(json) => {
                let (images, problem) = read(&json);
                if let Some(problem) = problem {
                    let aside = aside(&path);
                    warn!(
                        "cannot read all of the list of one's own images, a copy is in {}: {problem}; uploads that no image names stay until that file is gone",
                        aside.display()
                    );
                    files::write(&aside, &json)?;
                    save(&path, &images)?;
                }
                images
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(files::io_error("read", &path, &error)),
        };
        Ok(Self {
            path,
            images: Mutex::new(images),
        })
    }

    /// Whether images were lost from the list that nobody took out of it: what they need is not to be removed.
    pub(super) fn is_whole(&self) -> bool {
        // What cannot be looked at may be there.
        matches!(aside(&self.path).try_exists(), Ok(false))
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<OwnImage> {
        lock(&self.images).clone()
    }

    /// The one that goes by this name.
    pub(super) fn find(&self, name: &str) -> Option<OwnImage> {
        let images = lock(&self.images);
        let called = |image: &&OwnImage| image.names().any(|own| own.as_str() == name);
        images.iter().find(called).cloned()
    }

    /// Refuses names that are taken, in an image that is to be added.
    ///
    /// # Errors
    /// [`DriverError::ImageTaken`]; [`DriverError::Invalid`] where there are too many.
    pub(super) fn check_new(&self, names: &[ImageName]) -> Result<(), DriverError> {
        check(&lock(&self.images), names)
    }

    /// Writes one more down.
    ///
    /// # Errors
    /// As [`Self::check_new`], and whatever the disk says; nothing has changed then.
    pub(super) fn add(&self, image: OwnImage) -> Result<(), DriverError> {
        let mut images = lock(&self.images);
        let names: Vec<ImageName> = image.names().cloned().collect();
        check(&images, &names)?;
        let mut next = images.clone();
        next.push(image);
        save(&self.path, &next)?;
        *images = next;
        Ok(())
    }

    /// Forgets one; that it is not there is no error.
    ///
    /// # Errors
    /// Whatever the disk says; nothing has changed then.
    pub(super) fn forget(&self, name: &ImageName) -> Result<(), DriverError> {
        let mut images = lock(&self.images);
        let mut next = images.clone();
        next.retain(|image| image.name != *name);
        save(&self.path, &next)?;
        *images = next;
        Ok(())
    }
}

/// Where a list is kept that cannot be read.
fn aside(path: &Path) -> PathBuf {
    files::beside(path, ".unreadable")
}

/// The images of a list, each for itself; and what could not be read, where there is something.
fn read(json: &[u8]) -> (Vec<OwnImage>, Option<serde_json::Error>) {
    let entries: Vec<serde_json::Value> = match serde_json::from_slice(json) {
        Ok(entries) => entries,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut problem = None;
    let mut images = Vec::new();
    for entry in entries {
        match serde_json::from_value(entry) {
            Ok(image) => images.push(image),
            Err(error) => problem = Some(error),
        }
    }
    (images, problem)
}

fn check(images: &[OwnImage], names: &[ImageName]) -> Result<(), DriverError> {
    let taken = |name: &&ImageName| {
        images
            .iter()
            .any(|image| image.names().any(|own| own == *name))
    };
    if let Some(name) = names.iter().find(taken) {
        return Err(DriverError::ImageTaken(name.clone()));
    }
    if images.len() >= MAX_IMAGES {
        return Err(DriverError::Invalid {
            field: "name",
            message: format!("{MAX_IMAGES} images have been added here: remove some"),
        });
    }
    Ok(())
}

fn save(path: &Path, images: &[OwnImage]) -> Result<(), DriverError> {
    let json = serde_json::to_vec_pretty(images).expect("a list of images is plain data");
    files::write(path, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, aliases: &[&str]) -> OwnImage {
        let parse = |text: &&str| ImageName::parse_new(text).unwrap();
        OwnImage {
            name: parse(&name),
            aliases: aliases.iter().map(parse).collect(),
            title: "Mine".to_owned(),
            user: "me".to_owned(),
            source: OwnSource::Url {
                url: "https://a/b.img".to_owned(),
                sha256: "0".repeat(64),
            },
            added_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_was_added_is_there_after_a_restart_under_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.json");
        let own = OwnImages::open(path.clone()).unwrap();
        own.add(image("one", &["first"])).unwrap();
        own.add(image("two", &[])).unwrap();
        for taken in [image("first", &[]), image("three", &["two"])] {
            let refused = own.add(taken).unwrap_err();
            assert!(matches!(refused, DriverError::ImageTaken(_)), "{refused}");
        }
        own.forget(&image("two", &[]).name).unwrap();
        let own = OwnImages::open(path).unwrap();
        assert_eq!(own.all(), [image("one", &["first"])]);
        assert_eq!(own.find("first").unwrap().name.as_str(), "one");
        assert_eq!(own.find("two"), None);
    }

    #[test]
    fn a_broken_list_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.json");
        std::fs::write(&path, "[{").unwrap();
        let own = OwnImages::open(path.clone()).unwrap();
        own.add(image("one", &[])).unwrap();
        let aside = files::beside(&path, ".unreadable");
        assert_eq!(std::fs::read_to_string(&aside).unwrap(), "[{");
        // Later agents know of it too, until somebody has taken care of it.
        let own = OwnImages::open(path.clone()).unwrap();
        assert!(!own.is_whole());
        assert_eq!(own.all(), [image("one", &[])]);
        std::fs::remove_file(aside).unwrap();
        assert!(OwnImages::open(path).unwrap().is_whole());
    }

    #[test]
    fn an_entry_that_cannot_be_read_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.json");
        let list = [serde_json::json!({"name": "new", "source": "unknown"})]
            .into_iter()
            .chain([serde_json::to_value(image("one", &[])).unwrap()]);
        let list = serde_json::Value::from_iter(list).to_string();
        std::fs::write(&path, &list).unwrap();
        let own = OwnImages::open(path.clone()).unwrap();
        assert_eq!(own.all(), [image("one", &[])]);
        assert!(!own.is_whole());
        let kept = std::fs::read_to_string(files::beside(&path, ".unreadable"));
        assert_eq!(kept.unwrap(), list);
    }

    #[test]
    fn a_list_that_cannot_be_written_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let own = OwnImages::open(dir.path().join("gone").join("own.json")).unwrap();
        own.add(image("one", &[])).unwrap_err();
        assert_eq!(own.all(), []);
    }
}
