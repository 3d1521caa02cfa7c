//! `batwa forward --save`, `--remove` and `--list`: addresses of machines that lead to their VMs.

use std::net::SocketAddr;

use batwa_api::vm::{Forward, ForwardState, ListedVm, SaveForward, VmDetails};
use serde_json::{Value, json};

use super::{below, find};
use crate::{
    cli::{Format, VmPort},
    client::{Client, VmRef},
    failure::Failure,
    output::{self, Table, plain, say},
};

/// Has the VM's machine listen for it.
pub(super) async fn save(client: &Client, to: &VmPort, listen: SocketAddr) -> Result<(), Failure> {
    let vm = find(client, &to.vm).await?;
    let forward = SaveForward {
        listen,
        port: to.port,
    };
    if let Some(error) = forward.check().first() {
        return Err(Failure::usage(format!(
            "{}: {}",
            error.field, error.message
        )));
    }
    let answer = client.put(&below(&vm, "forwards"), &forward).await?;
    let details: VmDetails = client.read(answer)?;
    let mut forwards = details.vm.vm.forwards.iter();
    match forwards.find(|there| there.listen == listen) {
        Some(there) => say(&format!("{}: {}", vm.agent, plain(&words(there, &vm)))),
        None => say(&format!("{}: {listen} is saved for {vm}", vm.agent)),
    }
    Ok(())
}

/// Has it listen there no more.
pub(super) async fn remove(client: &Client, vm: &str, listen: SocketAddr) -> Result<(), Failure> {
    let vm = find(client, vm).await?;
    let listen = listen.to_string();
    let [agents, agent, vms, name, forwards] = below(&vm, "forwards");
    let path = [agents, agent, vms, name, forwards, &listen];
    client.delete(&path, &[]).await?;
    say(&format!("{}: {listen} leads to {vm} no more", vm.agent));
    Ok(())
}

/// Lists what is saved, of one VM or of all.
pub(super) async fn list(client: &Client, vm: Option<&str>, format: Format) -> Result<(), Failure> {
    let vms = match vm {
        Some(vm) => {
            let vm = find(client, vm).await?;
            vec![client.get(&below(&vm, "")[..4], &[]).await?]
        }
        None => client.list(&["vms"], &[], usize::MAX).await?,
    };
    let mut rows = Vec::new();
    for vm in vms {
        let listed: ListedVm = client.read(vm)?;
        let vm = VmRef {
            agent: listed.agent_id,
            name: listed.vm.name.clone(),
        };
        rows.extend(
            listed
                .vm
                .forwards
                .iter()
                .map(|there| (vm.clone(), there.clone())),
        );
    }
    let items: Vec<Value> = rows
        .iter()
        .map(|(vm, there)| {
            json!({
                "agent_id": vm.agent, "vm": vm.name, "listen": there.listen, "port": there.port,
                "state": there.state, "message": there.message,
            })
        })
        .collect();
    output::show(format, &json!({ "items": items }), || {
        let mut table = Table::new(&["VM", "PORT", "LISTEN", "STATE", "MESSAGE"]);
        for (vm, there) in &rows {
            table.row([
                vm.to_string(),
                there.port.to_string(),
                there.listen.to_string(),
                there.state.as_str().to_owned(),
                there.message.clone().unwrap_or_default(),
            ]);
        }
        Ok(table)
    })
}

/// A forward in a line.
fn words(there: &Forward, vm: &VmRef) -> String {
    let Forward { listen, port, .. } = there;
    match there.state {
        ForwardState::Listening => format!("{listen} leads to port {port} of {vm}"),
        ForwardState::Waiting => {
            format!("{listen} leads to port {port} of {vm} whenever that runs")
        }
        ForwardState::Failed => {
            let why = there.message.as_deref().unwrap_or("no reason known");
            format!("{listen} is saved, but does not lead to port {port} of {vm} yet: {why}")
        }
    }
}

/// The same among what is known of its VM.
pub(in super::super) fn fact(there: &Forward) -> String {
    let why = there.message.as_deref();
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    let state = match there.state {
        ForwardState::Listening => "",
        ForwardState::Waiting => ", whenever it runs",
        ForwardState::Failed => ", not now",
    };
    format!("{} to port {}{state}{why}", there.listen, there.port)
}
