//! What is kept of each VM on disk: one small file each, replaced whole and synced, so that a crash leaves the old or
//! the new. A VM of which nothing is kept has no file.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use batwa_api::{
    Timestamp,
    id::OperationId,
    name::VmName,
    vm::{AgentReason, NetworkCard, SaveForward, VmSettings},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::warn;

use super::decide::Crashes;
use crate::vms::Inventory;

/// What is kept of one VM.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// What people want of it.
    pub(crate) settings: VmSettings,
    /// Its crashes that count.
    pub(crate) crashes: Crashes,
    /// The operation that was started for it and whose end was not taken in yet.
    pub(crate) asked: Option<Asked>,
    /// Since when it has been seen in the trash; kept only where the trash is emptied.
    pub(crate) trashed_at: Option<Timestamp>,
    /// What did not work, and is tried again.
    pub(crate) failed: Option<Failed>,
    /// Addresses of this machine that lead to its ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) forwards: Vec<SaveForward>,
    /// The network cards that it was made with: not every driver tells of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cards: Vec<NetworkCard>,
    /// When the VM was made of which all this is, where its driver says that: another one may bear its name now.
    pub(crate) made_at: Option<Timestamp>,
}

impl Kept {
    /// The same, kept of a VM that was made then; of nothing, nothing is kept.
    pub(crate) fn of(self, made_at: Option<Timestamp>) -> Self {
        let nobodys = Self {
            made_at: None,
            ..self
        };
        if nobodys == Self::default() {
            return nobodys;
        }
        Self {
            made_at: made_at.or(self.made_at),
            ..nobodys
        }
    }

    /// Whether it is of another VM than one of the same name that was made then.
    pub(crate) fn is_of_another(&self, made_at: Option<Timestamp>) -> bool {
        matches!((self.made_at, made_at), (Some(kept), Some(seen)) if kept != seen)
    }
}

/// An operation that the agent started by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Why.
    pub(crate) reason: AgentReason,
    /// Which one.
    pub(crate) id: OperationId,
}

/// Something that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// Why it was tried.
    pub(crate) reason: AgentReason,
    /// When it was tried last.
    pub(crate) at: Timestamp,
    /// How often.
    pub(crate) tries: u32,
    /// How it failed.
    pub(crate) detail: String,
}

/// A VM's file: its name is said in it, as the file's own name is only looked for.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    vm: VmName,
    #[serde(flatten)]
    kept: Kept,
}

/// All VMs of which something is kept.
#[derive(Debug)]
pub(crate) struct Book {
    folder: PathBuf,
    /// Where settings are shown.
    inventory: Arc<Inventory>,
    kept: Mutex<BTreeMap<VmName, Kept>>,
    /// Held while something is changed and shown: what is read was written by the one before, and what is shown is the
    /// last.
    changing: tokio::sync::Mutex<()>,
}

impl Book {
    /// Reads the book, and shows what is in it; a page that cannot be read is put aside and reported.
    ///
    /// # Errors
    /// When the folder itself cannot be read or made.
    pub(crate) fn open(folder: &Path, inventory: Arc<Inventory>) -> io::Result<Self> {
        let pages = folder.join("vms");
        fs::create_dir_all(&pages)?;
        let mut kept = BTreeMap::new();
        for file in fs::read_dir(&pages)? {
            let path = file?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
                && let Some(page) = read::<Page>(&path)?
            {
                inventory.show_settings(&page.vm, page.kept.settings);
                inventory.show_cards(&page.vm, page.kept.cards.clone());
                kept.insert(page.vm, page.kept);
            }
        }
        Ok(Self {
            folder: pages,
            inventory,
            kept: Mutex::new(kept),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<VmName, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of a VM.
    pub(crate) fn get(&self, vm: &VmName) -> Kept {
        self.kept().get(vm).cloned().unwrap_or_default()
    }

    /// Whether nothing is kept of any VM.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept().is_empty()
    }

    /// All of it.
    pub(crate) fn all(&self) -> BTreeMap<VmName, Kept> {
        self.kept().clone()
    }

    /// The forwards of all VMs that have any.
    pub(crate) fn forwards(&self) -> BTreeMap<VmName, Vec<SaveForward>> {
        let kept = self.kept();
        let some = kept.iter().filter(|(_, kept)| !kept.forwards.is_empty());
        some.map(|(vm, kept)| (vm.clone(), kept.forwards.clone()))
            .collect()
    }

    /// Whether any VM has a forward.
    pub(crate) fn has_forwards(&self) -> bool {
        self.kept().values().any(|kept| !kept.forwards.is_empty())
    }

    /// Changes what is kept of a VM; when this returns it survives a power cut, and is shown.
    ///
    /// # Errors
    /// Whatever the disk says; nothing has changed then.
    pub(crate) async fn change<R>(
        &self,
        vm: &VmName,
        change: impl FnOnce(&mut Kept) -> R,
    ) -> io::Result<R> {
        let _turn = self.changing.lock().await;
        let before = self.get(vm);
        let mut after = before.clone();
        let result = change(&mut after);
        if after == before {
            return Ok(result);
        }
        let path = self.folder.join(format!("{vm}.json"));
        let page = Page {
            vm: vm.clone(),
            kept: after.clone(),
        };
        let nothing = after == Kept::default();
        tokio::task::spawn_blocking(move || match nothing {
            true => remove(&path),
            false => write(&path, &page),
        })
        .await
        .map_err(io::Error::other)??;
        let (settings, cards) = (after.settings, after.cards.clone());
        match nothing {
            true => self.kept().remove(vm),
            false => self.kept().insert(vm.clone(), after),
        };
        self.inventory.show_settings(vm, settings);
        self.inventory.show_cards(vm, cards);
        Ok(result)
    }
}

/// Reads a file; one that makes no sense is put aside: it must not keep an agent from starting.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            warn!("cannot read `{}`, put aside: {error}", path.display());
            fs::rename(path, path.with_extension("unreadable"))?;
            Ok(None)
        }
    }
}

/// Replaces a file; when this returns it survives a power cut. Blocks.
pub(super) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::id::AgentId;

    use super::*;
    use crate::{config::Limits, watch::Picture};

    fn vm(text: &str) -> VmName {
        VmName::parse(text).unwrap()
    }

    fn open(dir: &Path) -> Book {
        let picture = Arc::new(Picture::for_tests(AgentId::local()));
        let inventory = Inventory::new(picture, Limits::default(), Vec::new());
        Book::open(dir, Arc::new(inventory)).unwrap()
    }

    fn files(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir.join("vms")).unwrap();
        names
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn what_is_kept_comes_back_and_nothing_has_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let book = open(dir.path());
        for name in ["web", ".hidden", "db"] {
            book.change(&vm(name), |kept| kept.settings.protected = true)
                .await
                .unwrap();
        }
        book.change(&vm("db"), |kept| *kept = Kept::default())
            .await
            .unwrap();
        let forward = SaveForward {
            listen: "[::1]:8080".parse().unwrap(),
            port: 80,
        };
        book.change(&vm("web"), |kept| kept.forwards.push(forward))
            .await
            .unwrap();
        let again = open(dir.path());
        assert_eq!(again.all(), book.all());
        assert!(again.get(&vm("web")).settings.protected);
        assert_eq!(again.forwards(), [(vm("web"), vec![forward])].into());
        assert_eq!(again.get(&vm("db")), Kept::default());
        assert_eq!(files(dir.path()).len(), 2);
    }

    #[tokio::test]
    async fn a_page_that_cannot_be_read_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let book = open(dir.path());
        book.change(&vm("web"), |kept| kept.settings.protected = true)
            .await
            .unwrap();
        fs::write(dir.path().join("vms/bad.json"), "{").unwrap();
        let again = open(dir.path());
        assert_eq!(again.all(), book.all());
        assert!(files(dir.path()).contains(&"bad.unreadable".to_owned()));
    }

    #[tokio::test]
    async fn what_cannot_be_written_has_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let book = open(dir.path());
        let long = vm(&"x".repeat(255));
        let changed = book
            .change(&long, |kept| kept.settings.protected = true)
            .await;
        assert!(changed.is_err(), "no file can be called so");
        assert_eq!(book.get(&long), Kept::default());
    }
}
