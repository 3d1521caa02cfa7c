//! SSH public keys that people have put into the VMs they make.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Timestamp, id::SshKeyId};

/// Longest line of a key: the largest RSA keys in use, and a comment.
pub const MAX_LINE: usize = 8 << 10;
/// Longest comment.
const MAX_COMMENT: usize = 255;
/// The kinds that OpenSSH accepts without being told to.
const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// A public key as it stands in `~/.ssh/id_ed25519.pub`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Its kind: `ssh-ed25519`.
    pub kind: &'static str,
    /// The key itself, of which the fingerprint is the SHA-256.
    pub blob: Vec<u8>,
    /// What its owner wrote behind it; may be empty.
    pub comment: String,
}

impl PublicKey {
    /// Reads one line of an `authorized_keys` file that has no options.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(line: &str) -> Result<Self, &'static str> {
        let line = line.trim();
        if line.contains("PRIVATE KEY") {
            return Err(
                "this is a private key: keep it to yourself, and give the `.pub` beside it",
            );
        }
        if line.len() > MAX_LINE || line.contains(char::is_control) {
            return Err("a public key is one line of at most 8 KiB");
        }
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let kind = KINDS.into_iter().find(|known| *known == kind).ok_or(
            "a public key begins with its kind, such as `ssh-ed25519`, `ecdsa-sha2-nistp256` or `ssh-rsa`",
        )?;
        let (blob, comment) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
        let blob = STANDARD
            .decode(blob.trim())
            .map_err(|_| "the key is cut off or changed: paste the whole line")?;
        let comment = comment.trim();
        if comment.chars().count() > MAX_COMMENT {
            return Err("a comment has at most 255 characters");
        }
        if !is_whole(&blob, kind) {
            return Err("the key is cut off or changed: paste the whole line");
        }
        Ok(Self {
            kind,
            blob,
            comment: comment.to_owned(),
        })
    }

    /// The key on one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("{} {}", self.kind, STANDARD.encode(&self.blob));
        if !self.comment.is_empty() {
            line.push(' ');
            line.push_str(&self.comment);
        }
        line
    }
}

/// Whether the blob is its kind and at least one more part, each behind its length, and nothing else.
fn is_whole(blob: &[u8], kind: &str) -> bool {
    let mut rest = blob;
    let mut parts = 0;
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((part, tail)) = tail.split_at_checked(length) else {
            return false;
        };
        if parts == 0 && part != kind.as_bytes() {
            return false;
        }
        parts += 1;
        rest = tail;
    }
    parts >= 2 && rest.is_empty()
}

/// A key of one's own that is put into the VMs one makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SshKey {
    /// Its id.
    pub id: SshKeyId,
    /// What its owner calls it.
    pub name: String,
    /// The key on one line.
    pub public_key: String,
    /// `SHA256:…`, as ssh shows it.
    pub fingerprint: String,
    /// When it was added.
    pub created_at: Timestamp,
}

/// Body of `POST /api/v1/ssh-keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddSshKey {
    /// The line of the `.pub` file.
    pub public_key: String,
    /// What to call it; the key's comment when absent.
    #[serde(default)]
    pub name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGpvdGUvbWl0dGVpbGVuaWNodHdlaXRlcnNhZ2VuYWF";

    #[test]
    fn a_key_is_read_and_written_as_it_was() {
        let blob: Vec<u8> = [
            &11_u32.to_be_bytes()[..],
            b"ssh-ed25519",
            &32_u32.to_be_bytes(),
            &[7; 32],
        ]
        .concat();
        let line = format!("ssh-ed25519 {} ann@home, it's mine", STANDARD.encode(&blob));
        let key = PublicKey::parse(&format!("  {line}\n")).unwrap();
        assert_eq!((key.kind, &key.blob), ("ssh-ed25519", &blob));
        assert_eq!(key.comment, "ann@home, it's mine");
        assert_eq!(key.line(), line);
        let bare = line.rsplit_once(" ann@home").unwrap().0;
        assert_eq!(PublicKey::parse(bare).unwrap().line(), bare);
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let cut = &KEY[..60];
        let of_another_kind = KEY.replace("ssh-ed25519 ", "ssh-rsa ");
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-dss AAAA",
            cut,
            &of_another_kind,
            "command=\"id\" ssh-ed25519 AAAA",
            "ssh-ed25519 AAAA\nssh-ed25519 AAAA",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            &format!("{KEY} {}", "x".repeat(300)),
            &"x".repeat(9000),
        ] {
            assert!(PublicKey::parse(bad).is_err(), "{bad}");
        }
    }
}
