//! The user's own user-data: what kind it is, and whether it can work.

use std::collections::BTreeMap;

use russh::keys::{PrivateKey, PublicKey};

use crate::driver::DriverError;

/// User-data that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UserData {
    /// The user gave none.
    Empty,
    /// A `#cloud-config` document.
    CloudConfig {
        /// The document, its first line included.
        text: String,
        /// The SSH host key that it sets, by which the VM is then known.
        host_key: Option<PublicKey>,
    },
    /// A script with its `#!` line.
    Script(String),
}

impl UserData {
    /// Checks what the user gave, as [`batwa_cloud_init::parse`] does.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] for `cloud_init`, with the line where it is one.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, DriverError> {
        let read = batwa_cloud_init::parse(text.unwrap_or_default())
            .map_err(|finding| invalid(finding.to_string()))?;
        Ok(match read {
            batwa_cloud_init::UserData::Empty => Self::Empty,
            batwa_cloud_init::UserData::Script(text) => Self::Script(text),
            batwa_cloud_init::UserData::CloudConfig(text) => {
                let host_key = host_key(&text)?;
                Self::CloudConfig { text, host_key }
            }
        })
    }

    /// The bytes for the seed.
    pub(super) fn text(&self) -> &str {
        match self {
            // Valid, and asks for nothing.
            Self::Empty => "#cloud-config\n{}\n",
            Self::CloudConfig { text, .. } | Self::Script(text) => text,
        }
    }
}

/// The host key among the user's own `ssh_keys`, if there are any: without it the VM could not be told from an
/// impostor.
fn host_key(text: &str) -> Result<Option<PublicKey>, DriverError> {
    #[derive(Default, serde::Deserialize)]
    struct Keys {
        #[serde(default)]
        ssh_keys: Option<BTreeMap<String, String>>,
    }
    // A file of comments is no mapping, and has no keys.
    let keys: Option<Keys> = serde_saphyr::from_str(text).map_err(|_| {
        invalid("`ssh_keys` maps names such as `ed25519_private` to keys".to_owned())
    })?;
    let Some(keys) = keys.and_then(|keys| keys.ssh_keys) else {
        return Ok(None);
    };
    let Some(private) = keys.get("ed25519_private") else {
        return Err(invalid(
            "`ssh_keys` needs an `ed25519_private`: the VM is known by that key".to_owned(),
        ));
    };
    let private = PrivateKey::from_openssh(private).map_err(|error| {
        invalid(format!(
            "`ssh_keys.ed25519_private` is not an OpenSSH private key: {error}"
        ))
    })?;
    Ok(Some(private.public_key().clone()))
}

fn invalid(message: String) -> DriverError {
    DriverError::Invalid {
        field: "cloud_init",
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        match UserData::parse(Some(text)) {
            Err(DriverError::Invalid {
                field: "cloud_init",
                message,
            }) => message,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn the_three_kinds_are_told_apart() {
        assert_eq!(UserData::parse(None).unwrap(), UserData::Empty);
        assert_eq!(UserData::parse(Some(" \n")).unwrap(), UserData::Empty);
        assert_eq!(
            UserData::parse(Some("#!/bin/sh\r\ntrue\r\n")).unwrap(),
            UserData::Script("#!/bin/sh\ntrue\n".to_owned())
        );
        let config = UserData::parse(Some("#cloud-config\npackages: [vim]\n")).unwrap();
        assert_eq!(config.text(), "#cloud-config\npackages: [vim]\n");
    }

    #[test]
    fn a_mapping_without_its_first_line_gets_one() {
        let config = UserData::parse(Some("packages: [vim]\n")).unwrap();
        assert_eq!(config.text(), "#cloud-config\npackages: [vim]\n");
    }

    #[test]
    fn broken_yaml_is_refused_with_its_line() {
        let message = refusal("#cloud-config\npackages:\n  - vim\n bad: [\n");
        assert!(message.starts_with("line 4: "), "{message}");
        refusal("#cloud-config\n- a list\n");
        refusal("just words");
    }

    #[test]
    fn host_keys_of_the_users_own_are_believed_or_refused() {
        let key = crate::driver::qemu::ssh::new_key("host");
        let pem = key.to_openssh(Default::default()).unwrap();
        let indented = pem
            .lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>();
        let text = format!("#cloud-config\nssh_keys:\n  ed25519_private: |\n{indented}");
        match UserData::parse(Some(&text)).unwrap() {
            UserData::CloudConfig { host_key, .. } => {
                assert_eq!(host_key.unwrap().key_data(), key.public_key().key_data());
            }
            other => panic!("{other:?}"),
        }
        refusal("#cloud-config\nssh_keys:\n  rsa_private: x\n");
        refusal("#cloud-config\nssh_keys:\n  ed25519_private: x\n");
    }
}
