//! `mount` and `umount`, with the words that were recorded.

use std::path::Path;

use crate::{
    Args, Failure, Outcome, say,
    world::{CLEAR, World},
};

fn errors(command: &str, line: &str) -> Failure {
    Failure::refused(command, format!("The following errors occurred:\n{line}"))
}

pub(crate) fn mount(world: &World, args: &Args) -> Outcome {
    let [source, target] = &args.words[..] else {
        return Err(Failure::usage("Not enough arguments given"));
    };
    let folder = Path::new(source);
    if !folder.exists() {
        return Err(Failure::usage(format!(
            "Source path \"{source}\" does not exist"
        )));
    }
    if !folder.is_dir() {
        return Err(Failure::usage(format!(
            "Source path \"{source}\" is not a directory"
        )));
    }
    say(CLEAR);
    let _thread = world.main_thread("mount")?;
    let (name, target) = target.split_once(':').unwrap_or((target, ""));
    let Some(vm) = world.state(|state| state.vms.get(name).cloned()) else {
        return Err(errors(
            "mount",
            &format!("instance '{name}' does not exist"),
        ));
    };
    if args.value("--type").or(args.value("-t")) == Some("native") && vm.state() != "Stopped" {
        return Err(Failure::refused(
            "mount",
            format!("Please stop the instance {name} before attempting native mounts."),
        ));
    }
    if vm.trashed {
        // As it says of one that was never there.
        return Err(errors(
            "mount",
            &format!("instance '{name}' does not exist"),
        ));
    }
    if world.knobs().no_sshfs.iter().any(|without| without == name) {
        return Err(errors(
            "mount",
            &format!(
                "error mounting \"{target}\": Snap support needs to be installed in '{name}' in order to support mounts.\nPlease see https://docs.snapcraft.io/installing-snapd for information on\nhow to install snap support for your instance's distribution."
            ),
        ));
    }
    if vm.mounts.contains_key(target) {
        return Err(errors(
            "mount",
            &format!("\"{target}\" is already mounted in '{name}'"),
        ));
    }
    world.spin_for("", world.knobs().disk_ms);
    world.state(|state| {
        if let Some(vm) = state.vms.get_mut(name) {
            vm.mounts.insert(target.to_owned(), source.clone());
        }
    });
    Ok(())
}

pub(crate) fn umount(world: &World, args: &Args) -> Outcome {
    let _thread = world.main_thread("umount")?;
    for word in &args.words {
        let (name, target) = match word.split_once(':') {
            Some((name, target)) => (name, Some(target)),
            None => (word.as_str(), None),
        };
        let Some(vm) = world.state(|state| state.vms.get(name).cloned()) else {
            return Err(errors(
                "umount",
                &format!("instance '{name}' does not exist"),
            ));
        };
        if let Some(target) = target
            && !vm.mounts.contains_key(target)
        {
            return Err(errors(
                "umount",
                &format!("path \"{target}\" is not mounted in '{name}'"),
            ));
        }
        world.state(|state| {
            if let Some(vm) = state.vms.get_mut(name) {
                vm.mounts
                    .retain(|there, _| target.is_some_and(|target| there != target));
            }
        });
    }
    Ok(())
}
