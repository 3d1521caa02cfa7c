//! Names of VMs and snapshots, checked leniently where they are observed and strictly where they are made.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::{PartialSchema, ToSchema};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text cannot name any.
    #[error(
        "a {0} name has 1 to 255 characters, none of them a space, slash or control character, and no hyphen first"
    )]
    Unusable(&'static str),
    /// The text cannot name a new one.
    #[error(
        "a new {0}'s name starts with a letter and has at most 63 letters, digits and hyphens, with no hyphen last"
    )]
    NotForNew(&'static str),
}

/// Longest name of something observed, in bytes.
const MAX_LEN: usize = 255;
/// Longest name of something that we make: one DNS label.
const MAX_NEW_LEN: usize = 63;

fn is_usable(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_LEN
        && !text.starts_with('-')
        && !matches!(text, "." | "..")
        && !text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '/' || c == '\\')
}

fn is_good_for_new(text: &str) -> bool {
    text.len() <= MAX_NEW_LEN
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// A checked name of one sort of thing.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// Other programs make them too, so this accepts what they may be called: 1 to 255 bytes, no control
        /// characters, no slash, no white space, and no hyphen first, so that it can never be read as an option.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        // By hand, as serde's `into` makes a text of its own: lists have one of these in every row.
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl $name {
            /// Longest one that is observed, in bytes.
            pub const MAX_LEN: usize = MAX_LEN;
            /// Longest one that we make: one DNS label.
            pub const MAX_NEW_LEN: usize = MAX_NEW_LEN;

            /// Checks the name of one that exists.
            ///
            /// # Errors
            /// [`NameError::Unusable`].
            pub fn parse(text: &str) -> Result<Self, NameError> {
                if is_usable(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError::Unusable($what))
                }
            }

            /// Checks the name of one to be made: letter first, letters, digits, hyphens, no hyphen last, at most 63.
            ///
            /// # Errors
            /// [`NameError::NotForNew`].
            pub fn parse_new(text: &str) -> Result<Self, NameError> {
                if is_good_for_new(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError::NotForNew($what))
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .min_length(Some(1))
                    .max_length(Some(Self::MAX_LEN))
                    .build()
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    };
}

name!(
    /// The name of a VM that exists, or might: unique on its agent only.
    VmName,
    "VM"
);
name!(
    /// The name of a snapshot: unique among those of its VM.
    SnapshotName,
    "snapshot"
);

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
