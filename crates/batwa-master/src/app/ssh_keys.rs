//! People's SSH keys, which are put into the VMs that they make.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use batwa_api::{
    id::SshKeyId,
    ssh_key::{AddSshKey, PublicKey, SshKey},
};
use sha2::{Digest, Sha256};

use super::{App, Error, audit::Record, auth::Caller, templates::now};
use crate::store::ssh_keys::Added;

/// Most keys of one account.
const MAX_KEYS: usize = 32;
/// Longest name of one, in characters.
const MAX_NAME: usize = 100;

impl App {
    /// The caller's keys.
    pub(crate) async fn ssh_keys(&self, caller: &Caller) -> Result<Vec<SshKey>, Error> {
        Ok(self.store().ssh_keys(caller.user_id).await?)
    }

    /// Adds a key of the caller's.
    pub(crate) async fn add_ssh_key(
        &self,
        caller: &Caller,
        add: AddSshKey,
    ) -> Result<SshKey, Error> {
        let key =
            PublicKey::parse(&add.public_key).map_err(|why| Error::invalid("public_key", why))?;
        let name = add.name.as_deref().unwrap_or(&key.comment).trim();
        let name = match (name, add.name.is_some()) {
            ("", false) => key.kind,
            (name, false) => name,
            (name, true) => {
                if name.is_empty()
                    || name.chars().count() > MAX_NAME
                    || name.contains(char::is_control)
                {
                    return Err(Error::invalid(
                        "name",
                        "a key's name has 1 to 100 printable characters",
                    ));
                }
                name
            }
        };
        let new = SshKey {
            id: SshKeyId::new(),
            name: name.chars().take(MAX_NAME).collect(),
            public_key: key.line(),
            fingerprint: fingerprint(&key),
            created_at: now()?,
        };
        match self
            .store()
            .insert_ssh_key(caller.user_id, &new, MAX_KEYS)
            .await?
        {
            Added::Yes => {}
            Added::Known => {
                return Err(Error::NameTaken(format!(
                    "the key {} of yours",
                    new.fingerprint
                )));
            }
            Added::TooMany => {
                return Err(Error::Conflict(format!(
                    "you have {MAX_KEYS} keys, and cannot have more: remove some"
                )));
            }
        }
        self.audit(caller, Record::ok("ssh_key.add", &new.fingerprint))
            .await?;
        Ok(new)
    }

    /// Removes a key of the caller's. It stays in the VMs that it was put into.
    pub(crate) async fn delete_ssh_key(&self, caller: &Caller, id: SshKeyId) -> Result<(), Error> {
        let name = self.store().delete_ssh_key(caller.user_id, id).await?;
        let name = name.ok_or_else(|| Error::NotFound(format!("SSH key `{id}`")))?;
        let record = Record {
            detail: Some(format!("`{name}`")),
            ..Record::ok("ssh_key.delete", id.to_string())
        };
        self.audit(caller, record).await
    }
}

/// As `ssh-keygen -l` shows it.
fn fingerprint(key: &PublicKey) -> String {
    format!(
        "SHA256:{}",
        STANDARD_NO_PAD.encode(Sha256::digest(&key.blob))
    )
}
