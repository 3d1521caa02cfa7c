//! cloud-init's user-data, as both the master and the agents understand it.
//!
//! Text goes in, findings with line numbers or changed text come out; nothing here does I/O. Changes are made in the
//! text where they belong rather than by writing the document anew: what a `yes` or a `0644` means is for cloud-init
//! to say, and its YAML is not everybody's.

mod document;
mod keys;
mod known;
pub mod template;
mod tree;

pub use self::{
    document::{UserData, check, parse},
    keys::with_ssh_keys,
};
