//! Error bodies: `application/problem+json` (RFC 9457) with a stable `code`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of every failed call. Old clients read `detail`, programs `code`, forms `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem, for programs; never changes its meaning.
    pub code: ProblemCode,
    /// The HTTP status, repeated.
    pub status: u16,
    /// The kind of problem, for people.
    pub title: String,
    /// What happened, to what, and what to do.
    pub detail: String,
    /// The fields that were refused, when the problem lies in the request's body or query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The request as the master's log knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// One refused field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The field's name in the request, with dots for nesting.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl FieldError {
    /// A refusal of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// What kind of problem; each has one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The request could not be read.
    Malformed,
    /// A field has a value that cannot be.
    InvalidField,
    /// Nobody is signed in, or the credentials are wrong.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// The request came from another site's page.
    CrossOrigin,
    /// There is no such thing, or the caller may not know of it.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The name is taken.
    NameTaken,
    /// The VM's state does not allow this.
    IllegalState,
    /// Something else was changed meanwhile, or the request is ambiguous.
    Conflict,
    /// The body is larger than allowed.
    TooLarge,
    /// Too many attempts; see `Retry-After`.
    TooManyRequests,
    /// An unexpected failure, logged under the request's id.
    Internal,
    /// The agent answered with a failure.
    AgentFailed,
    /// The agent's driver cannot do this.
    Unsupported,
    /// The agent is not online; see `Retry-After`.
    AgentOffline,
    /// The driver does not answer.
    DriverStuck,
    /// This process is starting, stopping, or not set up yet.
    Unavailable,
    /// It takes longer than we wait; the operation goes on.
    Timeout,
    /// A range or offset beyond the end.
    OutOfRange,
    /// The VM's own system does not allow it.
    PermissionDenied,
    /// Nobody listens at that port in the VM.
    ConnectionRefused,
    /// No space is left where it would be written.
    StorageFull,
    /// The policy of that machine does not allow it, whoever asks.
    PolicyForbids,
}

impl ProblemCode {
    /// The HTTP status that goes with the code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden | Self::CrossOrigin | Self::PermissionDenied | Self::PolicyForbids => {
                403
            }
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NameTaken | Self::IllegalState | Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::OutOfRange => 416,
            Self::InvalidField | Self::Unsupported => 422,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::AgentFailed | Self::ConnectionRefused => 502,
            Self::AgentOffline | Self::DriverStuck | Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::StorageFull => 507,
        }
    }

    /// The kind of problem in a few words for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request could not be read",
            Self::InvalidField => "A field has a value that cannot be",
            Self::Unauthenticated => "Not signed in",
            Self::Forbidden => "Not allowed",
            Self::CrossOrigin => "The request came from another site",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::NameTaken => "The name is taken",
            Self::IllegalState => "Not possible in this state",
            Self::Conflict => "Changed meanwhile",
            Self::TooLarge => "Too large",
            Self::TooManyRequests => "Too many attempts",
            Self::Internal => "Unexpected failure",
            Self::AgentFailed => "The agent reported a failure",
            Self::Unsupported => "The driver cannot do this",
            Self::AgentOffline => "The agent is offline",
            Self::DriverStuck => "The driver does not answer",
            Self::Unavailable => "Not available now",
            Self::Timeout => "It takes longer than we wait",
            Self::OutOfRange => "Beyond the end",
            Self::PermissionDenied => "The VM does not allow it",
            Self::ConnectionRefused => "Nobody listens there",
            Self::StorageFull => "No space is left",
            Self::PolicyForbids => "The machine's policy does not allow it",
        }
    }
}

impl Problem {
    /// The media type of problem bodies.
    pub const CONTENT_TYPE: &str = "application/problem+json";

    /// A problem with the code's own title and status.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            title: code.title().to_owned(),
            detail: detail.into(),
            errors: Vec::new(),
            request_id: None,
        }
    }

    /// A problem about named fields; `detail` joins their messages so that old clients see them.
    #[must_use]
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = errors
            .iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect::<Vec<_>>()
            .join("; ");
        Self {
            errors,
            ..Self::new(ProblemCode::InvalidField, detail)
        }
    }
}
