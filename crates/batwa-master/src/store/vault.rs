//! What is secret, sealed on its way into the database: a copy of that alone gives nothing away.
//!
//! One key in the state folder, which a backup must hold too, seals with AES-256-GCM. Each text is bound to the row
//! that it is for, so that none can be put in another's place.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use super::StoreError;

/// The file in the state folder.
const FILE: &str = "secrets-key";
/// What a sealed text begins with; no JSON does.
const MARK: &str = "sealed1:";

/// Seals and opens.
pub(crate) struct Vault {
    key: LessSafeKey,
    random: SystemRandom,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// Reads the key, or makes one the first time; its file is readable by its user alone.
    ///
    /// # Errors
    /// What keeps it from being read, made or written; a file that holds no key is never overwritten.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let mut key = [0; 32];
        match fs::read_to_string(&path) {
            Ok(text) => hex::decode_to_slice(text.trim(), &mut key).map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it holds no key: put the right file back from a copy; without it, saved secrets cannot be read",
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fill(&SystemRandom::new(), &mut key)?;
                write_new(&path, &format!("{}\n", hex::encode(key)))?;
            }
            Err(error) => return Err(error),
        }
        let key = UnboundKey::new(&AES_256_GCM, &key)
            .map_err(|_| io::Error::other("the key has the wrong length"))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            random: SystemRandom::new(),
        })
    }

    /// Seals a text for `place`: the table and the row's id.
    pub(crate) fn seal(&self, place: &str, text: &str) -> Result<String, StoreError> {
        // At random: one key seals far fewer texts than would make two alike likely.
        let mut nonce = [0; NONCE_LEN];
        let cannot = |_| StoreError::Sealing;
        self.random.fill(&mut nonce).map_err(cannot)?;
        let mut sealed = text.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place.as_bytes()),
                &mut sealed,
            )
            .map_err(cannot)?;
        let all = [&nonce[..], &sealed].concat();
        Ok(format!("{MARK}{}", STANDARD_NO_PAD.encode(all)))
    }

    /// Opens what was sealed for `place`. What was never sealed comes back as it is.
    pub(crate) fn unseal(&self, place: &str, text: String) -> Result<String, StoreError> {
        let Some(sealed) = text.strip_prefix(MARK) else {
            return Ok(text);
        };
        let opened = || {
            let mut all = STANDARD_NO_PAD.decode(sealed).ok()?;
            let (nonce, sealed) = all.split_at_mut_checked(NONCE_LEN)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let open = self
                .key
                .open_in_place(nonce, Aad::from(place.as_bytes()), sealed)
                .ok()?;
            String::from_utf8(open.to_vec()).ok()
        };
        opened().ok_or(StoreError::Unsealing)
    }
}

fn fill(random: &SystemRandom, bytes: &mut [u8]) -> io::Result<()> {
    random
        .fill(bytes)
        .map_err(|_| io::Error::other("the system gives no random numbers"))
}

/// Writes a file that is whole or not there, whenever the power goes.
pub(crate) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut options = File::options();
    options.create(true).write(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_sealed_opens_in_its_place_with_its_key_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(folder.path()).unwrap();
        let sealed = vault.seal("templates:1", "hunter2").unwrap();
        assert!(!sealed.contains("hunter2"));
        assert_ne!(sealed, vault.seal("templates:1", "hunter2").unwrap());
        let again = Vault::open(folder.path()).unwrap();
        assert_eq!(
            again.unseal("templates:1", sealed.clone()).unwrap(),
            "hunter2"
        );
        let elsewhere = again.unseal("templates:2", sealed.clone());
        assert!(matches!(elsewhere, Err(StoreError::Unsealing)));
        let mut changed = sealed.clone();
        let last = changed.pop().unwrap();
        changed.push(if last == 'A' { 'B' } else { 'A' });
        assert!(again.unseal("templates:1", changed).is_err());
        assert!(again.unseal("templates:1", MARK.to_owned()).is_err());
        let other = tempfile::tempdir().unwrap();
        let stranger = Vault::open(other.path()).unwrap();
        assert!(stranger.unseal("templates:1", sealed).is_err());
        assert_eq!(again.unseal("x", "{}".to_owned()).unwrap(), "{}");
    }

    #[test]
    fn the_key_is_its_users_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        Vault::open(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "something else").unwrap();
        assert!(Vault::open(folder.path()).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "something else");
    }
}
