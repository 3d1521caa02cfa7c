//! `mount`, `umount`.

use batwa_api::vm::{Mount, MountOptions, MountState, UnmountOptions, VmDetails, VmState};

use super::{vms::path, wait};
use crate::{
    cli::{MountArgs, UmountArgs},
    client::{Client, VmRef},
    failure::Failure,
    output::{plain, say},
};

/// `batwa mount`
pub(crate) async fn mount(args: MountArgs) -> Result<(), Failure> {
    let (vm, target) = vm_and_path(&args.target);
    let options = MountOptions {
        target: target.unwrap_or(&args.source).to_owned(),
        source: args.source,
        read_only: args.read_only,
        kind: args.kind.map(Into::into),
    };
    if let Some(error) = options.check().first() {
        return Err(Failure::usage(format!(
            "{}: {}",
            error.field, error.message
        )));
    }
    let client = Client::new(args.master)?;
    let vm = client.find(vm).await?;
    let query = args.delivery.query();
    let accepted = client.ask(&path(&vm, "mount"), &query, &options).await?;
    wait::finish(&client, accepted, &args.wait).await?;
    tell_what_is_missing(&client, &vm, Some(&options.target)).await;
    Ok(())
}

/// `batwa umount`
pub(crate) async fn umount(args: UmountArgs) -> Result<(), Failure> {
    let (vm, target) = vm_and_path(&args.target);
    let options = UnmountOptions {
        target: target.map(str::to_owned),
    };
    if let Some(error) = options.check().first() {
        return Err(Failure::usage(format!(
            "{}: {}",
            error.field, error.message
        )));
    }
    let client = Client::new(args.master)?;
    let vm = client.find(vm).await?;
    let query = args.delivery.query();
    let accepted = client.ask(&path(&vm, "umount"), &query, &options).await?;
    wait::finish(&client, accepted, &args.wait).await?;
    tell_what_is_missing(&client, &vm, options.target.as_deref()).await;
    Ok(())
}

/// Says where a restart of the VM is still needed. That it cannot be looked at is no failure of what was asked.
async fn tell_what_is_missing(client: &Client, vm: &VmRef, target: Option<&str>) {
    let address = ["agents", vm.agent.as_str(), "vms", vm.name.as_str()];
    let Ok(answer) = client.get(&address, &[]).await else {
        return;
    };
    let Ok(details) = client.read::<VmDetails>(answer) else {
        return;
    };
    let mounts = details.vm.vm.mounts.iter();
    for mount in mounts.filter(|mount| target.is_none_or(|target| mount.target == target)) {
        let restart = format!("`batwa restart {}/{}`", vm.agent, vm.name);
        let runs = details.vm.vm.state == VmState::Running;
        let target = plain(&mount.target);
        match mount.state {
            MountState::AtNextStart if runs => say(&format!(
                "{target} is there from the VM's next start on: {restart}"
            )),
            MountState::UntilStop => say(&format!(
                "{target} is gone for good once the VM was stopped: {restart}"
            )),
            _ => {}
        }
    }
}

/// A mount in a line.
pub(super) fn words(mount: &Mount) -> String {
    let read_only = if mount.read_only { ", to read" } else { "" };
    let state = match mount.state {
        MountState::Mounted => "",
        MountState::AtNextStart => ", from its next start on",
        MountState::UntilStop => ", gone once it was stopped",
        MountState::Failed => ", not seen",
    };
    let why = mount.message.as_deref();
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    format!(
        "{} at {}{read_only}{state}{why}",
        mount.source, mount.target
    )
}

/// `VM:PATH`, as Multipass has it.
fn vm_and_path(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((vm, path)) => (vm, Some(path)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_vm_has_a_colon_before_its_path() {
        assert_eq!(vm_and_path("lab/web:/srv"), ("lab/web", Some("/srv")));
        assert_eq!(vm_and_path("web"), ("web", None));
    }
}
