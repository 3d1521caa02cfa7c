//! The agent's integration tests: one program.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that cannot go on fails the test"
)]

mod multipass_actions;
mod multipass_agent;
mod multipass_real;
mod multipass_trouble;
mod multipass_watch;
mod stand_in;
