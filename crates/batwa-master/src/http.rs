//! The master over HTTP: routes, errors, security, and one file a resource.

mod audit;
pub(crate) mod caller;
pub(crate) mod client;
mod cookie;
pub(crate) mod error;
pub(crate) mod extract;
mod health;
mod legacy_auth;
pub(crate) mod openapi;
mod origin;
mod router;
mod security;
pub(crate) mod serve;
mod session;
mod setup;
mod tokens;
mod ui;
mod users;

pub(crate) use error::{ApiError, ApiResult};
pub(crate) use router::router;
