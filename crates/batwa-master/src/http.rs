//! The master over HTTP: routes, errors, security, and one file a resource.

pub(crate) mod caller;
pub(crate) mod error;
mod health;
pub(crate) mod openapi;
mod router;
pub(crate) mod serve;

pub(crate) use error::{ApiError, ApiResult};
pub(crate) use router::router;
