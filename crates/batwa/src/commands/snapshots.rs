//! `snapshot`, `snapshots`, `restore`, `delete-snapshot`, `clone`, `set`.

use batwa_api::{
    Timestamp,
    name::{SnapshotName, VmName},
    vm::{CloneOptions, ListedVm, ResizeOptions, RestoreOptions, SnapshotOptions, VmDetails},
};
use serde::Serialize;
use serde_json::json;

use super::{vms::path, wait};
use crate::{
    ask,
    cli::{
        CloneArgs, DeleteSnapshotArgs, OffArgs, RestoreArgs, SetArgs, SnapshotArgs, SnapshotsArgs,
    },
    client::{Client, VmRef},
    failure::Failure,
    output::{self, Cell, Table},
};

/// `batwa snapshot`
pub(crate) async fn snapshot(args: SnapshotArgs) -> Result<(), Failure> {
    let name = args.name.as_deref().map(snapshot_name).transpose()?;
    let client = Client::new(args.off.master.clone())?;
    let vm = client.find(&args.vm).await?;
    let options = SnapshotOptions {
        name,
        comment: args.comment,
        stop: args.off.stop,
    };
    act(&client, &vm, "snapshot", &options, &args.off).await
}

/// `batwa snapshots`
pub(crate) async fn snapshots(args: SnapshotsArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let vm = client.find(&args.vm).await?;
    let path = ["agents", vm.agent.as_str(), "vms", vm.name.as_str()];
    let details: VmDetails = client.read(client.get(&path, &[]).await?)?;
    let snapshots = &details.vm.vm.snapshots;
    output::show(args.read.format, &json!({ "items": snapshots }), || {
        let now = Timestamp::now();
        let mut table = Table::new(&["SNAPSHOT", "PARENT", "TAKEN", "DISK", "COMMENT"]);
        for snapshot in snapshots {
            table.row([
                snapshot.name.to_string().into(),
                snapshot
                    .parent
                    .clone()
                    .map(String::from)
                    .unwrap_or_default()
                    .into(),
                Cell::maybe_ago(snapshot.created_at, now),
                Cell::size(snapshot.disk),
                snapshot.comment.clone().into(),
            ]);
        }
        Ok(table)
    })
}

/// `batwa restore`
pub(crate) async fn restore(args: RestoreArgs) -> Result<(), Failure> {
    let (vm, snapshot) = vm_and_snapshot(&args.snapshot)?;
    if args.discard {
        let what = format!("Throw away what {vm} holds now, and go back to `{snapshot}`?");
        ask::confirm(args.confirm, &what)?;
    }
    let client = Client::new(args.off.master.clone())?;
    let vm = client.find(vm).await?;
    let options = RestoreOptions {
        snapshot,
        discard: args.discard,
        safety: None,
        stop: args.off.stop,
    };
    act(&client, &vm, "restore", &options, &args.off).await
}

/// `batwa delete-snapshot`
pub(crate) async fn delete(args: DeleteSnapshotArgs) -> Result<(), Failure> {
    let (vm, snapshot) = vm_and_snapshot(&args.snapshot)?;
    let what = format!("Remove the snapshot `{snapshot}` of {vm} for good?");
    ask::confirm(args.confirm, &what)?;
    let client = Client::new(args.off.master.clone())?;
    let vm = client.find(vm).await?;
    let path = [
        "agents",
        vm.agent.as_str(),
        "vms",
        vm.name.as_str(),
        "snapshots",
        snapshot.as_str(),
    ];
    let mut query = args.off.delivery.query();
    if args.off.stop {
        query.push(("stop", "true"));
    }
    let accepted = client.delete(&path, &query).await?;
    wait::finish(&client, accepted, &args.off.wait).await
}

/// `batwa clone`
pub(crate) async fn clone(args: CloneArgs) -> Result<(), Failure> {
    let client = Client::new(args.off.master.clone())?;
    // A dot may be part of a VM's name that another program chose.
    let (vm, snapshot) = match vm_and_snapshot(&args.source) {
        Ok((vm, snapshot)) if client.find(&args.source).await.is_err() => {
            (client.find(vm).await?, Some(snapshot))
        }
        _ => (client.find(&args.source).await?, None),
    };
    let name = match &args.name {
        Some(name) => VmName::parse_new(name).map_err(Failure::usage)?,
        None => free_name(&client, &vm).await?,
    };
    let options = CloneOptions {
        name,
        snapshot,
        stop: args.off.stop,
    };
    act(&client, &vm, "clone", &options, &args.off).await
}

/// `batwa set`
pub(crate) async fn set(args: SetArgs) -> Result<(), Failure> {
    let client = Client::new(args.off.master.clone())?;
    let vm = client.find(&args.vm).await?;
    let size = ResizeOptions {
        cpus: args.cpus,
        memory: args.memory,
        disk: args.disk,
        stop: args.off.stop,
    };
    act(&client, &vm, "resize", &size, &args.off).await
}

async fn act(
    client: &Client,
    vm: &VmRef,
    action: &str,
    options: &impl Serialize,
    args: &OffArgs,
) -> Result<(), Failure> {
    let query = args.delivery.query();
    let accepted = client.ask(&path(vm, action), &query, options).await?;
    wait::finish(client, accepted, &args.wait).await
}

fn snapshot_name(text: &str) -> Result<SnapshotName, Failure> {
    SnapshotName::parse(text).map_err(Failure::usage)
}

/// `VM.SNAPSHOT`, as Multipass has it.
fn vm_and_snapshot(text: &str) -> Result<(&str, SnapshotName), Failure> {
    let (vm, snapshot) = text.rsplit_once('.').ok_or_else(|| {
        Failure::usage(format!(
            "`{text}` names no snapshot: write `VM.SNAPSHOT`; `batwa snapshots VM` lists them"
        ))
    })?;
    Ok((vm, snapshot_name(snapshot)?))
}

/// The first of `NAME-clone1`, `NAME-clone2`, … that the VM's machine does not have.
async fn free_name(client: &Client, vm: &VmRef) -> Result<VmName, Failure> {
    let stem = format!("{}-clone", vm.name);
    let search = format!("name:{stem}*");
    let query = [("q", search.as_str()), ("agent", vm.agent.as_str())];
    let mut taken = Vec::new();
    for item in client.list(&["vms"], &query, usize::MAX).await? {
        taken.push(client.read::<ListedVm>(item)?.vm.name.clone());
    }
    (1..=taken.len() + 1)
        .map(|number| format!("{stem}{number}"))
        .find(|name| taken.iter().all(|other| other.as_str() != name))
        .and_then(|name| VmName::parse_new(&name).ok())
        .ok_or_else(|| {
            Failure::usage(format!(
                "`{stem}1` can be no new VM's name: choose one with --name"
            ))
        })
}
