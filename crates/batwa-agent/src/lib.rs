//! Batwa's agent: drives the VMs of one machine and serves the agent API.

pub mod driver;
