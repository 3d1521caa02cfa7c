//! What agents say, brought to bounds before it is kept: long texts cut, lists limited, nonsense refused.
//!
//! A lying agent can fill its own row with rubbish, but neither the master's memory nor anybody's page. What is told apart
//! by a name is there once under it.

use std::collections::BTreeSet;

use batwa_api::{
    agent::AgentInfo,
    image::{Image, ImageCatalogue, ImageStore},
    name::VmName,
    operation::Operation,
    policy::Policy,
    terminal::{Terminal, TerminalViewer},
    vm::{
        HostNetwork, MAX_FORWARDS, MAX_MOUNTS, MAX_NETWORKS, MAX_SNAPSHOTS, Reason, Vm,
        label_is_good,
    },
};

use crate::client::clip;

/// Most VMs of one agent.
pub(crate) const MAX_VMS: usize = 10_000;
/// Most terminal sessions of one agent.
pub(crate) const MAX_TERMINALS: usize = 10_000;
/// Longest text meant for people: an error with the last lines of a console.
const MAX_MESSAGE: usize = 4_000;
/// Longest text that is a name or an address.
const MAX_WORD: usize = 256;
/// Longest list inside one VM, agent or operation.
const MAX_LIST: usize = 64;
/// Most images of one agent: no catalogue is near that.
const MAX_IMAGES: usize = 2_000;
/// Most networks of one machine, bridges of containers included.
const MAX_HOST_NETWORKS: usize = 500;
/// Most VMs that are named with one image.
const MAX_USERS: usize = 1_000;

fn message(text: &mut Option<String>) {
    if let Some(text) = text {
        shorten(text, MAX_MESSAGE);
    }
}

fn word(text: &mut Option<String>) {
    if let Some(text) = text {
        shorten(text, MAX_WORD);
    }
}

fn shorten(text: &mut String, max: usize) {
    if text.len() > max || text.chars().any(|c| c.is_control() && c != '\n') {
        *text = clip(text, max);
    }
}

/// Keeps the first under each key.
fn once<T, K: Ord>(list: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = BTreeSet::new();
    list.retain(|one| seen.insert(key(one)));
}

/// A VM within bounds.
pub(crate) fn vm(mut vm: Vm) -> Vm {
    message(&mut vm.message);
    word(&mut vm.image);
    word(&mut vm.release);
    word(&mut vm.acceleration);
    message(&mut vm.location);
    vm.ipv4.truncate(MAX_LIST);
    for address in &mut vm.ipv4 {
        shorten(address, MAX_LIST);
    }
    once(&mut vm.ipv4, String::clone);
    vm.notices.truncate(Vm::MAX_NOTICES);
    for notice in &mut vm.notices {
        shorten(&mut notice.text, MAX_MESSAGE);
    }
    once(&mut vm.notices, |notice| notice.kind);
    vm.operations.truncate(MAX_LIST);
    vm.snapshots.truncate(MAX_SNAPSHOTS);
    for snapshot in &mut vm.snapshots {
        shorten(&mut snapshot.comment, MAX_MESSAGE);
    }
    once(&mut vm.snapshots, |snapshot| snapshot.name.clone());
    vm.mounts.truncate(MAX_MOUNTS);
    for mount in &mut vm.mounts {
        shorten(&mut mount.source, MAX_MESSAGE);
        shorten(&mut mount.target, MAX_MESSAGE);
        message(&mut mount.message);
    }
    vm.networks.truncate(MAX_NETWORKS);
    for network in &mut vm.networks {
        shorten(&mut network.card.name, MAX_WORD);
        message(&mut network.message);
    }
    vm.forwards.truncate(MAX_FORWARDS);
    for forward in &mut vm.forwards {
        message(&mut forward.message);
    }
    once(&mut vm.mounts, |mount| mount.target.clone());
    once(&mut vm.forwards, |forward| forward.listen);
    if let Some(usage) = &mut vm.usage {
        usage.cpu_percent = usage.cpu_percent.filter(|percent| percent.is_finite());
    }
    vm
}

/// An agent's word on itself, within bounds.
pub(crate) fn info(mut info: AgentInfo) -> AgentInfo {
    shorten(&mut info.version, MAX_WORD);
    shorten(&mut info.host.hostname, MAX_WORD);
    shorten(&mut info.host.os, MAX_WORD);
    shorten(&mut info.host.arch, MAX_WORD);
    info.drivers.truncate(MAX_LIST);
    for driver in &mut info.drivers {
        word(&mut driver.version);
        message(&mut driver.health.message);
        if let Some(acceleration) = &mut driver.acceleration {
            shorten(&mut acceleration.name, MAX_WORD);
            shorten(&mut acceleration.reason, MAX_MESSAGE);
        }
    }
    once(&mut info.drivers, |driver| driver.kind);
    if let Some(said) = &mut info.policy {
        policy(said);
    }
    info.labels.retain(|key, value| label_is_good(key, value));
    while info.labels.len() > MAX_LIST {
        info.labels.pop_last();
    }
    info
}

/// What an agent says of its machine's policy, within bounds.
fn policy(policy: &mut Policy) {
    shorten(&mut policy.file, MAX_MESSAGE);
    message(&mut policy.problem);
    let lists = policy.images.hosts.iter_mut().chain([
        &mut policy.images.files,
        &mut policy.bridges,
        &mut policy.forwards,
    ]);
    for list in lists {
        list.truncate(Policy::MAX_ENTRIES);
        for entry in &mut *list {
            shorten(entry, MAX_MESSAGE);
        }
        once(list, String::clone);
    }
    policy.mounts.truncate(2 * Policy::MAX_ENTRIES);
    for root in &mut policy.mounts {
        shorten(&mut root.path, MAX_MESSAGE);
    }
    once(&mut policy.mounts, |root| {
        (root.path.clone(), root.read_only)
    });
}

/// An operation within bounds.
pub(crate) fn operation(mut operation: Operation) -> Operation {
    message(&mut operation.message);
    operation.steps.truncate(Operation::MAX_STEPS);
    operation.progress = operation
        .progress
        .filter(|percent| percent.is_finite())
        .map(|percent| percent.clamp(0.0, 100.0));
    if let Some(error) = &mut operation.error {
        shorten(&mut error.detail, MAX_MESSAGE);
        message(&mut error.hint);
        word(&mut error.field);
        error.log.truncate(MAX_LIST);
        for line in &mut error.log {
            shorten(line, MAX_MESSAGE);
        }
    }
    operation
}

/// What an agent says of its images, within bounds.
pub(crate) fn images(mut catalogue: ImageCatalogue) -> ImageCatalogue {
    catalogue.items.truncate(MAX_IMAGES);
    catalogue.items.iter_mut().for_each(image);
    once(&mut catalogue.items, |image| {
        (image.driver, image.name.clone())
    });
    catalogue.stores.truncate(MAX_LIST);
    catalogue.stores.iter_mut().for_each(image_store);
    once(&mut catalogue.stores, |store| store.driver);
    catalogue
}

/// One image within bounds.
pub(crate) fn image(image: &mut Image) {
    shorten(&mut image.name, MAX_MESSAGE);
    image.aliases.truncate(MAX_LIST);
    for alias in &mut image.aliases {
        shorten(alias, MAX_WORD);
    }
    once(&mut image.aliases, String::clone);
    shorten(&mut image.title, MAX_MESSAGE);
    shorten(&mut image.origin, MAX_MESSAGE);
    word(&mut image.architecture);
    image.used_by.truncate(MAX_USERS);
    once(&mut image.used_by, VmName::clone);
    reason(&mut image.actions.pull);
    reason(&mut image.actions.remove);
}

fn image_store(store: &mut ImageStore) {
    reason(&mut store.add_refusal);
    message(&mut store.error);
}

/// What an agent says of its machine's networks, within bounds.
pub(crate) fn networks(mut networks: Vec<HostNetwork>) -> Vec<HostNetwork> {
    networks.truncate(MAX_HOST_NETWORKS);
    for network in &mut networks {
        shorten(&mut network.name, MAX_WORD);
        shorten(&mut network.kind, MAX_WORD);
        shorten(&mut network.description, MAX_MESSAGE);
        message(&mut network.refusal);
    }
    networks
}

fn reason(reason: &mut Option<Reason>) {
    if let Some(reason) = reason {
        shorten(reason.to_mut(), MAX_MESSAGE);
    }
}

/// All VMs of a snapshot within bounds.
///
/// # Errors
/// What the agent claims that cannot be.
pub(crate) fn vms(vms: Vec<Vm>) -> Result<Vec<Vm>, String> {
    if vms.len() > MAX_VMS {
        return Err(format!(
            "it claims {} VMs; more than {MAX_VMS} on one machine are not believed",
            vms.len()
        ));
    }
    Ok(vms.into_iter().map(vm).collect())
}

/// All terminal sessions of a snapshot within bounds.
pub(crate) fn terminals(mut terminals: Vec<Terminal>) -> Vec<Terminal> {
    terminals.truncate(MAX_TERMINALS);
    terminals.into_iter().map(terminal).collect()
}

/// A terminal session within bounds.
pub(crate) fn terminal(mut terminal: Terminal) -> Terminal {
    terminal.present.truncate(Terminal::MAX_PRESENT);
    for viewer in &mut terminal.present {
        shorten(&mut viewer.user, TerminalViewer::MAX_USER);
    }
    terminal
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What an agent told, each thing in each list twice.
    fn doubled(mut told: Value, lists: &[&str]) -> Value {
        for list in lists {
            let list = told.pointer_mut(list).and_then(Value::as_array_mut);
            let list = list.expect("a list");
            list.extend(list.clone());
        }
        told
    }

    /// How long each list is once it has been through here.
    fn lengths(kept: &impl serde::Serialize, lists: &[&str]) -> Vec<Option<usize>> {
        let kept = serde_json::to_value(kept).unwrap();
        let length = |list: &&str| kept.pointer(list)?.as_array().map(Vec::len);
        lists.iter().map(length).collect()
    }

    #[test]
    fn what_pages_tell_apart_by_its_name_is_kept_once_under_it() {
        let since = "2026-01-01T00:00:00Z";
        let lists = ["/ipv4", "/notices", "/snapshots", "/mounts"];
        let told = json!({
            "name": "web", "state": "running", "state_since": since, "observed_at": since,
            "driver": "qemu", "ipv4": ["10.0.0.1"],
            "notices": [{"kind": "failed", "at": since, "text": "it failed"}],
            "snapshots": [{"name": "snapshot1"}],
            "mounts": [{"source": "/srv", "target": "/mnt", "state": "mounted"}],
        });
        let told: Vm = serde_json::from_value(doubled(told, &lists)).unwrap();
        assert_eq!(lengths(&told, &lists), [Some(2); 4]);
        assert_eq!(lengths(&vm(told), &lists), [Some(1); 4]);

        let lists = [
            "/drivers",
            "/policy/images/hosts",
            "/policy/images/files",
            "/policy/mounts",
        ];
        let told = json!({
            "agent_id": "a", "version": "1", "protocol_version": 1, "started_at": since, "clock": since,
            "host": batwa_api::agent::HostFacts::default(),
            "drivers": [{"kind": "qemu", "health": {"status": "ok", "since": since}, "capabilities": {}}],
            "policy": {
                "file": "/p", "images": {"hosts": ["a"], "files": ["/srv"]},
                "mounts": [{"path": "/srv", "read_only": false}],
            },
        });
        let told: AgentInfo = serde_json::from_value(doubled(told, &lists)).unwrap();
        assert_eq!(lengths(&told, &lists), [Some(2); 4]);
        assert_eq!(lengths(&info(told), &lists), [Some(1); 4]);

        let lists = ["/items", "/items/0/aliases", "/items/0/used_by", "/stores"];
        let told = json!({
            "items": [{
                "driver": "qemu", "name": "tiny", "aliases": ["small"], "title": "Tiny", "origin": "here",
                "cached": true, "cloud_config": false, "used_by": ["web"],
            }],
            "stores": [{"driver": "qemu"}],
        });
        let told: ImageCatalogue = serde_json::from_value(doubled(told, &lists)).unwrap();
        assert_eq!(lengths(&told, &lists), [Some(2); 4]);
        assert_eq!(lengths(&images(told), &lists), [Some(1); 4]);
    }
}
