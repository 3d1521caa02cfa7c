//! What people call a terminal session.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::{PartialSchema, ToSchema};

/// A session's name: 1 to 64 characters, none of them a control character, no space first or last.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TerminalName(Arc<str>);

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to 64 characters, none of them a control character, and no space first or last"
)]
pub struct TerminalNameError;

impl TerminalName {
    /// Longest name, in characters.
    pub const MAX_CHARS: usize = 64;

    /// Checks `text`.
    ///
    /// # Errors
    /// [`TerminalNameError`].
    pub fn parse(text: &str) -> Result<Self, TerminalNameError> {
        let good = !text.is_empty()
            && text.chars().count() <= Self::MAX_CHARS
            && text.trim() == text
            && !text.chars().any(char::is_control);
        good.then(|| Self(text.into())).ok_or(TerminalNameError)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TerminalName {
    type Error = TerminalNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<TerminalName> for String {
    fn from(name: TerminalName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for TerminalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TerminalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TerminalName({:?})", self.0)
    }
}

impl PartialSchema for TerminalName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(Self::MAX_CHARS))
            .build()
            .into()
    }
}

impl ToSchema for TerminalName {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("TerminalName")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_one_line_that_is_seen() {
        for good in ["a", "the build", "größe 🦀", &"x".repeat(64)] {
            assert!(TerminalName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", " ", " a", "a ", "a\nb", "\u{1b}[31m", &"x".repeat(65)] {
            assert!(TerminalName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
