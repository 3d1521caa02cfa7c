//! What is done inside VMs: commands, files, ports, terminals.

mod exec;
mod forward;
mod port;
pub(super) mod saved;
mod several;
mod shell;
mod ssh;
mod terminal;
mod transfer;
mod typing;

use crate::{
    client::{Client, VmRef},
    failure::Failure,
};

pub(super) use self::{
    exec::exec,
    forward::{display, forward, proxy},
    shell::{attach, console, shell},
    ssh::ssh_config,
    transfer::transfer,
};

/// The parts of a path below a VM.
fn below<'a>(vm: &'a VmRef, rest: &'a str) -> [&'a str; 5] {
    ["agents", vm.agent.as_str(), "vms", vm.name.as_str(), rest]
}

/// What host names of VMs end with, for `ssh`.
const SUFFIX: &str = ".batwa";

/// The VM that is meant by `agent/name`, `name`, or the host name `name.agent.batwa`.
async fn find(client: &Client, text: &str) -> Result<VmRef, Failure> {
    match text
        .strip_suffix(SUFFIX)
        .and_then(|host| host.split_once('.'))
    {
        Some((name, agent)) => client.find(&format!("{agent}/{name}")).await,
        None => client.find(text).await,
    }
}
