//! Typed ids: one newtype a kind, so that the compiler refuses to mix them up.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

/// Makes a newtype over a time-ordered UUID (version 7).
macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, later in order than those made before it.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "a default id would be a different one each time")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id as its UUID.
            #[must_use]
            pub fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
                    .build()
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )*};
}

uuid_id! {
    /// One operation, the same id on master and agent.
    OperationId;
    /// One terminal session of an agent.
    TerminalId;
    /// One recording of a terminal session.
    RecordingId;
    /// One screen that a terminal session is on.
    ViewerId;
    /// What one viewer types with, however often it attaches: chosen by the viewer, so that the agent knows it again.
    KeyboardId;
    /// One account of the master.
    UserId;
    /// One signed-in browser; not the secret in its cookie.
    SessionId;
    /// One API token; not its secret.
    TokenId;
    /// One key that an admin made for old-way agents; not its secret.
    AgentKeyId;
    /// One join token; not its secret.
    JoinTokenId;
    /// One saved template of user-data.
    TemplateId;
    /// One SSH key of an account.
    SshKeyId;
}

/// The name by which a master knows one agent: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
///
/// `local` is the agent of the master's own machine and `null` is what the old page sends for it; neither
/// can be taken by another agent, see [`AgentId::parse_remote`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct AgentId(std::sync::Arc<str>);

// By hand, as serde's `into` makes a text of its own: lists have one of these in every row.
impl Serialize for AgentId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why a text is no agent id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentIdError {
    /// The text does not have the form of an agent id.
    #[error(
        "an agent id starts with a letter or digit and has at most 63 letters, digits, dots, hyphens and underscores"
    )]
    Form,
    /// The text means the master's own machine.
    #[error("the agent id `{0}` is reserved for the master's own machine")]
    Reserved(String),
}

impl AgentId {
    /// Longest agent id, in characters.
    pub const MAX_LEN: usize = 63;

    /// The agent of the master's own machine.
    #[must_use]
    pub fn local() -> Self {
        Self("local".into())
    }

    /// Whether this is the master's own machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        &*self.0 == "local"
    }

    /// Checks the form of `text`; accepts `local`.
    ///
    /// # Errors
    /// [`AgentIdError::Form`] when the form is wrong, [`AgentIdError::Reserved`] for `null`.
    pub fn parse(text: &str) -> Result<Self, AgentIdError> {
        let mut chars = text.chars();
        let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
        let goes_on_well = chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if !starts_well || !goes_on_well || text.len() > Self::MAX_LEN {
            return Err(AgentIdError::Form);
        }
        if text == "null" {
            return Err(AgentIdError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// Checks `text` as the id of another machine's agent: `local` is refused too.
    ///
    /// # Errors
    /// As [`AgentId::parse`], and [`AgentIdError::Reserved`] for `local`.
    pub fn parse_remote(text: &str) -> Result<Self, AgentIdError> {
        let id = Self::parse(text)?;
        if id.is_local() {
            return Err(AgentIdError::Reserved(text.to_owned()));
        }
        Ok(id)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AgentId {
    type Error = AgentIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl FromStr for AgentId {
    type Err = AgentIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl AsRef<str> for AgentId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentId({})", self.0)
    }
}

impl PartialSchema for AgentId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))
            .build()
            .into()
    }
}

impl ToSchema for AgentId {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("AgentId")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_ids_keep_to_their_form() {
        for good in [
            "a",
            "office-server-1",
            "eu.west_1",
            "9lives",
            "local",
            &"x".repeat(63),
        ] {
            assert!(AgentId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "null", &"x".repeat(64)] {
            assert!(AgentId::parse(bad).is_err(), "{bad}");
        }
        assert!(AgentId::parse_remote("local").is_err());
    }

    #[test]
    fn ids_made_later_sort_later() {
        let first = OperationId::new();
        let second = OperationId::new();
        assert!(first < second);
    }
}
