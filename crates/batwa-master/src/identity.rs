//! The master's own key: who it is to agents that dial in, for as long as its state folder lives.

use std::{fs, io, path::Path};

use batwa_tunnel::Identity;

use crate::store::vault;

/// The file in the state folder.
const FILE: &str = "master-key";

/// Reads the key, or makes one the first time; its file is readable by its user alone.
///
/// # Errors
/// What keeps it from being read, made or written; a file that holds no key is never overwritten.
pub(crate) fn open(state_dir: &Path) -> io::Result<Identity> {
    let path = state_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let wrong = || {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it holds no key: put the right file back from a copy; without it, agents that joined do not trust this master",
                )
            };
            let mut seed = [0; 32];
            hex::decode_to_slice(text.trim(), &mut seed).map_err(|_| wrong())?;
            Identity::from_seed(seed).map_err(|_| wrong())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = Identity::generate().map_err(io::Error::other)?;
            vault::write_new(&path, &format!("{}\n", hex::encode(identity.seed())))?;
            Ok(identity)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_master_keeps_its_key_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        assert_eq!(open(folder.path()).unwrap().public(), first.public());
        let file = folder.path().join(FILE);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&file, "nonsense").unwrap();
        assert_eq!(
            open(folder.path()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), "nonsense");
    }
}
