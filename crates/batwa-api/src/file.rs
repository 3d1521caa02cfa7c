//! Files inside VMs: what is said of them beside their content.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Timestamp, size::ByteSize};

/// A file inside a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileInfo {
    /// Its size.
    pub size: ByteSize,
    /// Its permissions, in octal: `644`.
    pub mode: String,
    /// When it was last changed.
    pub modified_at: Option<Timestamp>,
    /// Another one when it was changed meanwhile: what `If-Range` is for.
    pub tag: String,
    /// Its SHA-256 in hexadecimal, when that was asked for.
    pub sha256: Option<String>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WrittenFile {
    /// Where.
    pub path: String,
    /// The file's size in bytes; absent for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The file's SHA-256 in hexadecimal, as it is inside the VM; absent for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// The name of an upload that can be gone on with: its caller's choice, as long as nobody else chooses it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(String);

/// Why a text names no upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoUploadId;

impl std::fmt::Display for NoUploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an upload is named by 8 to 64 letters, digits and hyphens")
    }
}

impl UploadId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`NoUploadId`].
    pub fn parse(text: &str) -> Result<Self, NoUploadId> {
        let good = (8..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoUploadId)
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Headers of file transfers that HTTP has no name for.
pub mod header {
    /// A file's permissions in octal.
    pub const MODE: &str = "batwa-mode";
    /// How many bytes of an upload the VM holds.
    pub const UPLOAD_OFFSET: &str = "upload-offset";
    /// Asks for the checksum of the whole file (RFC 9530).
    pub const WANT_DIGEST: &str = "want-repr-digest";
    /// The checksum of the whole file (RFC 9530): `sha-256=:…:`, in base64.
    pub const DIGEST: &str = "repr-digest";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_have_names_that_no_path_can_hide_in() {
        assert!(UploadId::parse("0123-abcd").is_ok());
        assert!(UploadId::parse(UploadId::random().as_str()).is_ok());
        for bad in [
            "",
            "short",
            "../../etc/passwd",
            "with space",
            &"x".repeat(65),
        ] {
            assert!(UploadId::parse(bad).is_err(), "{bad}");
        }
    }
}
