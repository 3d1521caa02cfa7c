//! The whole system from outside: real processes, real sockets, what a user sees.
//!
//! `lab` starts masters and agents on free ports and waits on conditions with a deadline; the other modules say
//! what must hold.

mod cli;
mod compat_agent;
mod compat_enrolment;
mod compat_master;
mod compat_terminal;
mod display;
mod docker;
mod doctor;
mod forwards;
mod guide;
mod hostile_terminals;
mod images;
mod inside;
mod join;
mod join_ways;
mod kept;
mod lab;
mod master_faults;
mod mounts;
mod namespaces;
mod nat;
mod networks;
mod plug;
mod proxies;
mod recordings;
mod sharing;
mod simulate;
mod soak;
mod ssh;
mod start;
mod storm;
mod stuck_multipass;
mod systemd;
mod terminal_ring;
mod tls;
mod vm_settings;
mod wrong_inputs;
