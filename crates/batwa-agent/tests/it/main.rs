//! The agent's integration tests, one program: its API over a real port with fake VMs and real shells, and the
//! drivers against stand-ins.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that cannot go on fails the test"
)]

mod compat_agent;
mod display;
mod driver_contract;
mod errors;
mod faults;
mod forwards;
mod images;
mod inside;
mod inside_contract;
mod journal_full;
mod lab;
mod legacy;
mod mounts;
mod multipass_actions;
mod multipass_agent;
mod multipass_cut_off;
mod multipass_disk;
mod multipass_mounts;
mod multipass_networks;
mod multipass_real;
mod multipass_states;
mod multipass_trouble;
mod multipass_watch;
mod networks;
mod offline;
mod openapi;
mod operations;
mod policy;
mod recordings;
mod registration;
mod rfb;
mod small_disk;
mod stand_in;
mod terminals;
mod upkeep;
