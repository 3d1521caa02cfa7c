//! Why a use case was not carried out, in terms that no transport owns.

use std::time::Duration;

use batwa_api::problem::{FieldError, Problem, ProblemCode};

use super::auth::Right;
use crate::store::StoreError;

/// Why a use case was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No credentials, or none that are still good. The text is the old API's.
    #[error("Not authenticated")]
    NotSignedIn,
    /// Wrong name or password. The text is the old API's.
    #[error("Invalid credentials")]
    BadCredentials,
    /// Too many failed sign-ins.
    #[error("too many failed attempts: try again in {} s", .retry_after.as_secs().max(1))]
    TooManyAttempts {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The caller may not do this.
    #[error("this needs the right to {0}")]
    Forbidden(Right),
    /// Known, but refused for this reason.
    #[error("{0}")]
    Refused(String),
    /// The request came from another site's page.
    #[error(
        "the request came from another site: open the page at its own address, or set --public-url"
    )]
    CrossOrigin,
    /// Fields that cannot be as they are.
    #[error("{}", join(.0))]
    Invalid(Vec<FieldError>),
    /// There is no such thing, or the caller may not know of it.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The name is taken already.
    #[error("{0} exists already")]
    NameTaken(String),
    /// Something stands against it.
    #[error("{0}")]
    Conflict(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Somebody else's problem, passed on as it is: an agent's answer.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// What should not happen.
    #[error("unexpected failure")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn join(errors: &[FieldError]) -> String {
    errors
        .iter()
        .map(|e| format!("{}: {}", e.field, e.message))
        .collect::<Vec<_>>()
        .join("; ")
}

impl Error {
    /// One refused field.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }

    /// A failure that nobody foresaw; its text goes to the log, not to the caller.
    pub(crate) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(error))
    }

    /// What kind of problem it is.
    pub(crate) fn code(&self) -> ProblemCode {
        match self {
            Self::NotSignedIn | Self::BadCredentials => ProblemCode::Unauthenticated,
            Self::TooManyAttempts { .. } => ProblemCode::TooManyRequests,
            Self::Forbidden(_) | Self::Refused(_) => ProblemCode::Forbidden,
            Self::CrossOrigin => ProblemCode::CrossOrigin,
            Self::Invalid(_) => ProblemCode::InvalidField,
            Self::NotFound(_) => ProblemCode::NotFound,
            Self::NameTaken(_) => ProblemCode::NameTaken,
            Self::Conflict(_) => ProblemCode::Conflict,
            Self::Unavailable(_)
            | Self::Store(StoreError::Full(_) | StoreError::Unreachable(_) | StoreError::Busy(_)) => {
                ProblemCode::Unavailable
            }
            Self::Problem(problem) => problem.code,
            Self::Store(_) | Self::Internal(_) => ProblemCode::Internal,
        }
    }

    /// How long to wait before it is worth trying again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyAttempts { retry_after } => Some(*retry_after),
            _ => match self.code() {
                ProblemCode::AgentOffline | ProblemCode::DriverStuck | ProblemCode::Unavailable => {
                    Some(Duration::from_secs(5))
                }
                _ => None,
            },
        }
    }

    /// The body to answer with; causes stay out of it.
    pub(crate) fn to_problem(&self) -> Problem {
        match self {
            Self::Problem(problem) => (**problem).clone(),
            Self::Invalid(errors) => Problem::invalid_fields(errors.clone()),
            // What the person at the keyboard can do something about is said; the rest is in the log.
            Self::Store(
                error @ (StoreError::Full(_) | StoreError::Unreachable(_) | StoreError::Busy(_)),
            ) => Problem::new(self.code(), error.to_string()),
            _ => Problem::new(self.code(), self.to_string()),
        }
    }
}
