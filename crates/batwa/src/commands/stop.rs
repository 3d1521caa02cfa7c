//! `batwa stop`: at once, after a while, and taking that back.

use batwa_api::{
    Timestamp,
    operation::{Operation, OperationState, StopOptions},
    vm::VmDetails,
};
use serde_json::json;

use super::{
    vms::{all, each, path},
    wait,
};
use crate::{
    cli::{StopArgs, WaitArgs},
    client::{Client, VmRef},
    failure::Failure,
    output::say,
};

/// `batwa stop`
pub(crate) async fn stop(args: StopArgs) -> Result<(), Failure> {
    let act = args.act;
    let client = Client::new(act.master.clone())?;
    let vms = all(&client, &act.vms).await?;
    if args.cancel {
        for vm in &vms {
            cancel(&client, vm, &act.wait).await?;
        }
        return Ok(());
    }
    let after = args.time.map(|minutes| u64::from(minutes) * 60);
    let options = StopOptions {
        force: args.force,
        after_s: after,
    };
    let query = act.delivery.query();
    let wait = WaitArgs {
        // What happens in an hour is not waited for.
        no_wait: act.wait.no_wait || after.is_some_and(|seconds| seconds > 0),
        ..act.wait
    };
    each(&client, &vms, &wait, async |vm| {
        client.ask(&path(vm, "stop"), &query, &options).await
    })
    .await
}

/// Cancels the stop that a VM waits for. Where none is under way nothing is to be done, as in Multipass.
async fn cancel(client: &Client, vm: &VmRef, wait: &WaitArgs) -> Result<(), Failure> {
    let details = ["agents", vm.agent.as_str(), "vms", vm.name.as_str()];
    let details: VmDetails = client.read(client.get(&details, &[]).await?)?;
    let query = [
        ("agent", vm.agent.as_str()),
        ("vm", vm.name.as_str()),
        ("kind", "stop"),
        ("state", "queued,running"),
    ];
    let mut pending = Vec::new();
    for item in client.list(&["operations"], &query, usize::MAX).await? {
        let operation: Operation = client.read(item)?;
        // One that stops the VM just now is past that.
        let waits = operation.waits_until.is_some()
            || operation.state == OperationState::Queued
            || details
                .vm
                .vm
                .shutdown_at
                .is_some_and(|at| at > Timestamp::now());
        if waits {
            pending.push(operation.id);
        }
    }
    if pending.is_empty() {
        say(&match details.vm.vm.shutdown_at {
            Some(_) => format!(
                "{vm}: its stop was asked for elsewhere: take it back there, with `multipass stop --cancel {}`",
                vm.name
            ),
            None => format!("{vm}: no stop is waiting"),
        });
    }
    for id in pending {
        let path = ["operations", &id.to_string(), "cancel"];
        let cancelled = client.post(&path, &json!({})).await?;
        wait::until_cancelled(client, cancelled, wait).await?;
        say(&format!("{vm}: its stop is taken back"));
    }
    Ok(())
}
