//! The master over real HTTP on a free port, as its callers see it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod accounts;
mod audit;
mod cloud_init;
mod compat_vms;
mod enrolment;
mod fake_agent;
mod fleet;
mod hang_up;
mod harness;
mod inventory;
mod legal_actions;
mod old_agent;
mod openapi;
mod rights;
mod security;
mod setup;
mod start;
mod tunnel;
