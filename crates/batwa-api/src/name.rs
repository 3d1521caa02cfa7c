//! Names of VMs: a lenient one for those observed, a strict one for those created.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::{PartialSchema, ToSchema};

/// The name of a VM that exists, or might: unique on its agent only.
///
/// Other programs make VMs too, so this accepts what they may be called: 1 to 255 bytes, no control
/// characters, no slash, no white space, and no hyphen first, so that it can never be read as an option.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(Arc<str>);

/// Why a text is no VM name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VmNameError {
    /// The text cannot name any VM.
    #[error(
        "a VM name has 1 to 255 characters, none of them a space, slash or control character, and no hyphen first"
    )]
    Unusable,
    /// The text cannot name a new VM.
    #[error(
        "a new VM's name starts with a letter and has at most 63 letters, digits and hyphens, with no hyphen last"
    )]
    NotForNew,
}

impl VmName {
    /// Longest name of an observed VM, in bytes.
    pub const MAX_LEN: usize = 255;
    /// Longest name of a VM that we create: one DNS label.
    pub const MAX_NEW_LEN: usize = 63;

    /// Checks the name of an existing VM.
    ///
    /// # Errors
    /// [`VmNameError::Unusable`].
    pub fn parse(text: &str) -> Result<Self, VmNameError> {
        let usable = !text.is_empty()
            && text.len() <= Self::MAX_LEN
            && !text.starts_with('-')
            && !matches!(text, "." | "..")
            && !text
                .chars()
                .any(|c| c.is_control() || c.is_whitespace() || c == '/' || c == '\\');
        if usable {
            Ok(Self(text.into()))
        } else {
            Err(VmNameError::Unusable)
        }
    }

    /// Checks the name of a VM to be made: letter first, letters, digits, hyphens, no hyphen last, at most 63.
    ///
    /// # Errors
    /// [`VmNameError::NotForNew`].
    pub fn parse_new(text: &str) -> Result<Self, VmNameError> {
        let good = text.len() <= Self::MAX_NEW_LEN
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && !text.ends_with('-')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if good {
            Ok(Self(text.into()))
        } else {
            Err(VmNameError::NotForNew)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for VmName {
    type Error = VmNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl FromStr for VmName {
    type Err = VmNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl AsRef<str> for VmName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmName({})", self.0)
    }
}

impl PartialSchema for VmName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .min_length(Some(1))
            .max_length(Some(Self::MAX_LEN))
            .build()
            .into()
    }
}

impl ToSchema for VmName {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("VmName")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_names_are_strict() {
        for good in ["a", "web-1", "Foo", &"a".repeat(63)] {
            assert!(VmName::parse_new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1a",
            "-a",
            "a-",
            "a_b",
            "a.b",
            "a b",
            "--all",
            "../x",
            "ü",
            "🦀",
            &"a".repeat(64),
        ] {
            assert!(VmName::parse_new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn observed_names_are_lenient_but_never_options_or_paths() {
        for good in ["1a", "foo_bar", "a.b", "ünï", &"a".repeat(255)] {
            assert!(VmName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "--all", "a/b", "..", "a b", "a\n", &"a".repeat(256)] {
            assert!(VmName::parse(bad).is_err(), "{bad}");
        }
    }
}
