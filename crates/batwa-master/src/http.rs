//! The master over HTTP: routes, errors, security, and one file a resource.

mod agent_keys;
mod agents;
mod audit;
pub(crate) mod caller;
pub(crate) mod client;
mod cookie;
pub(crate) mod error;
mod events;
pub(crate) mod extract;
mod health;
mod images;
mod install;
mod join_tokens;
mod legacy;
mod legacy_auth;
mod list;
pub(crate) mod openapi;
mod operations;
mod origin;
mod plain;
mod router;
mod security;
pub(crate) mod serve;
mod session;
mod setup;
mod snapshots;
mod terminals;
mod tokens;
mod tunnel;
mod ui;
mod upgrade;
mod users;
mod vms;

pub(crate) use error::{ApiError, ApiResult};
pub(crate) use router::router;
