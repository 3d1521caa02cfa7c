//! The vocabulary that master, agent and client share.
//!
//! Wire types, typed ids, checked names and the one table of legal actions. This crate knows serde and
//! schemas only: no async runtime, no sockets, no files, so that every other crate can depend on it.
//!
//! Sizes are bytes, times RFC 3339 in UTC, enums snake case. A field that may be unknown is an `Option`
//! and travels as `null`, never as an empty string or a zero.

pub mod agent;
pub mod certificate;
pub mod cloud_init;
pub mod event;
pub mod exec;
pub mod file;
pub mod id;
pub mod image;
pub mod legacy;
pub mod list;
pub mod name;
pub mod operation;
pub mod policy;
pub mod port;
pub mod problem;
pub mod recording;
pub mod size;
pub mod ssh_key;
pub mod terminal;
pub mod tunnel;
pub mod user;
pub mod vm;

/// A moment in UTC, on the wire as RFC 3339.
pub type Timestamp = jiff::Timestamp;

/// The version of the agent API (DESIGN.md section 4) that this build speaks.
///
/// It rises by one with every change that an older peer could misread; added optional fields do not raise it.
pub const PROTOCOL_VERSION: u32 = 1;
