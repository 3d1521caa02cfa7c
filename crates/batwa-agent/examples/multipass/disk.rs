//! Commands that touch the disk of a VM that is off: `snapshot`, `restore`, `clone`, `set`, and what tells of snapshots.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    Args, Failure, Outcome,
    knobs::DiskFate,
    launch::size,
    reads::{print, rounded},
    say,
    world::{CLEAR, Kept, Vm, World, now_ms},
};

/// A VM that is there, and not in the trash, as these commands name one that is not.
fn existing(world: &World, command: &str, name: &str) -> Result<Vm, Failure> {
    let vm = world.state(|state| state.vms.get(name).cloned());
    match vm {
        None => Err(Failure::refused(
            command,
            format!("instance \"{name}\" does not exist"),
        )),
        Some(vm) if vm.trashed => Err(Failure::refused(
            command,
            format!("instance \"{name}\" is deleted"),
        )),
        Some(vm) => Ok(vm),
    }
}

/// Work that keeps the daemon's main thread, and goes on there when the client is killed.
fn work(world: &World, command: &str, words: &str, done: impl FnOnce()) -> Outcome {
    let knobs = world.knobs();
    match knobs.disk {
        DiskFate::Full => {
            world.spin_for(words, knobs.disk_ms);
            return Err(Failure::refused(
                command,
                "qemu-img failed (Process returned exit code: 1) with output:\nqemu-img: No space left on device",
            ));
        }
        DiskFate::DiesBefore => {
            world.spin_for(words, knobs.disk_ms);
            world.die();
            return Err(Failure::no_daemon(command));
        }
        DiskFate::Well | DiskFate::DiesAfter => {}
    }
    // Nobody sees it before the daemon is free again.
    done();
    world.occupy(knobs.disk_ms);
    world.spin_for(words, knobs.disk_ms);
    if knobs.disk == DiskFate::DiesAfter {
        world.die();
        return Err(Failure::no_daemon(command));
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

pub(crate) fn snapshot(world: &World, args: &Args) -> Outcome {
    let [vm] = &args.words[..] else {
        return Err(Failure::usage("Need the name of an instance to snapshot."));
    };
    let words = "Taking snapshot";
    let refused = |reason: String| {
        world.spin_for(words, 0);
        Failure::refused("snapshot", reason)
    };
    say(CLEAR);
    let _thread = world.main_thread("snapshot")?;
    let before = existing(world, "snapshot", vm)?;
    if before.state() != "Stopped" {
        return Err(refused(
            "Multipass can only take snapshots of stopped instances.".to_owned(),
        ));
    }
    let name = args.value("--name").or(args.value("-n")).map_or_else(
        || format!("snapshot{}", before.snapshots.len() + 1),
        str::to_owned,
    );
    if !is_name(&name) {
        return Err(refused(format!("Invalid snapshot name: \"{name}\".")));
    }
    if before.snapshots.contains_key(&name) {
        return Err(refused(format!("Snapshot already exists: {vm}.{name}")));
    }
    let comment = args.value("--comment").or(args.value("-m"));
    work(world, "snapshot", words, || {
        copy(&world.home(vm), &world.kept(vm, &name));
        world.state(|state| {
            let Some(vm) = state.vms.get_mut(vm) else {
                return;
            };
            let kept = Kept {
                comment: comment.unwrap_or_default().to_owned(),
                parent: vm.head.take(),
                created: now_ms(),
                cpus: vm.cpus,
                memory: vm.memory,
                disk: vm.disk,
            };
            vm.snapshots.insert(name.clone(), kept);
            vm.head = Some(name.clone());
        });
    })?;
    say(&format!("{CLEAR}Snapshot taken: {vm}.{name}\n{CLEAR}"));
    Ok(())
}

pub(crate) fn restore(world: &World, args: &Args) -> Outcome {
    let [words] = &args.words[..] else {
        return Err(Failure::usage(
            "Need the name of an instance and snapshot to restore.",
        ));
    };
    let Some((vm, name)) = words.split_once('.') else {
        return Err(Failure::usage(
            "Invalid format. Please specify the instance to restore and snapshot to use in the form <instance>.<snapshot>.",
        ));
    };
    say(CLEAR);
    let _thread = world.main_thread("restore")?;
    let before = existing(world, "restore", vm)?;
    let Some(kept) = before.snapshots.get(name) else {
        return Err(no_snapshot("restore", vm, name));
    };
    if before.state() != "Stopped" {
        return Err(Failure::refused(
            "restore",
            "Multipass can only restore snapshots of stopped instances.",
        ));
    }
    if !args.has("--destructive") && !args.has("-d") {
        return Err(Failure::usage(
            "[2026-11-23T02:44:31.771] [error] [client] Caught an unhandled exception: Unable to query client for confirmation. Use '--destructive' to automatically discard current machine state.",
        ));
    }
    work(world, "restore", "Restoring snapshot", || {
        copy(&world.kept(vm, name), &world.home(vm));
        world.state(|state| {
            if let Some(vm) = state.vms.get_mut(vm) {
                (vm.cpus, vm.memory, vm.disk) = (kept.cpus, kept.memory, kept.disk);
                vm.head = Some(name.to_owned());
            }
        });
    })?;
    say(&format!("{CLEAR}Snapshot restored: {vm}.{name}\n{CLEAR}"));
    Ok(())
}

/// `delete VM.SNAPSHOT`: what came from it goes on from its parent.
pub(crate) fn delete_snapshot(world: &World, vm: &str, name: &str, is_purge: bool) -> Outcome {
    if !is_purge {
        return Err(Failure::usage(
            "[2026-11-23T02:45:32.287] [error] [client] Caught an unhandled exception: Snapshots can only be purged (after deletion, they cannot be recovered). Unable to query client for confirmation. Please use the `--purge` flag if that is what you want.\n",
        ));
    }
    let _thread = world.main_thread("delete")?;
    let before = world
        .state(|state| state.vms.get(vm).cloned())
        .ok_or_else(|| Failure::unknown("delete", vm))?;
    if !before.snapshots.contains_key(name) {
        return Err(no_snapshot("delete", vm, name));
    }
    work(world, "delete", "", || {
        world.state(|state| {
            let Some(vm) = state.vms.get_mut(vm) else {
                return;
            };
            let parent = vm.snapshots.remove(name).and_then(|kept| kept.parent);
            let of_others = vm.snapshots.values_mut().map(|kept| &mut kept.parent);
            for link in of_others.chain([&mut vm.head]) {
                if link.as_deref() == Some(name) {
                    link.clone_from(&parent);
                }
            }
        });
        let _ = fs::remove_dir_all(world.kept(vm, name));
    })
}

fn no_snapshot(command: &str, vm: &str, name: &str) -> Failure {
    Failure::refused(command, format!("No such snapshot: {vm}.{name}"))
}

pub(crate) fn clone(world: &World, args: &Args) -> Outcome {
    let [vm] = &args.words[..] else {
        return Err(Failure::usage(
            "Please provide the name of the source instance.",
        ));
    };
    let words = format!("Cloning {vm}");
    say(CLEAR);
    let _thread = world.main_thread("clone")?;
    let source = existing(world, "clone", vm)?;
    if source.state() != "Stopped" {
        return Err(Failure::refused(
            "clone",
            "Multipass can only clone stopped instances.",
        ));
    }
    let made = args.value("--name").or(args.value("-n"));
    let made = made.map_or_else(|| format!("{vm}-clone1"), str::to_owned);
    if !is_name(&made) {
        return Err(Failure::refused(
            "clone",
            format!("Invalid destination instance name: {made}"),
        ));
    }
    if world.vm_state(&made).is_some() {
        return Err(Failure::refused(
            "clone",
            format!("instance \"{made}\" already exists"),
        ));
    }
    work(world, "clone", &words, || {
        copy(&world.home(vm), &world.home(&made));
        world.state(|state| {
            let mut copy = Vm {
                address: state.new_address(),
                snapshots: std::collections::BTreeMap::new(),
                mounts: std::collections::BTreeMap::new(),
                head: None,
                ..source
            };
            copy.becomes(&[(0, "Stopped")]);
            state.vms.insert(made.clone(), copy);
        });
    })?;
    say(&format!("{CLEAR}Cloned from {vm} to {made}.\n{CLEAR}"));
    Ok(())
}

pub(crate) fn set(world: &World, args: &Args) -> Outcome {
    let Some((key, value)) = args.words.first().and_then(|word| word.split_once('=')) else {
        return Err(Failure::usage(
            "Need exactly one key-value pair (in <key>=<value> form).",
        ));
    };
    say(CLEAR);
    let _thread = world.main_thread("set")?;
    let parts: Vec<_> = key.split('.').collect();
    let ["local", name, setting] = parts[..] else {
        return Err(Failure::usage(format!(
            "Unrecognized settings key: '{key}'"
        )));
    };
    let cannot = |reason: &str| {
        Failure::refused(
            "set",
            format!("Cannot update instance settings; instance: {name}; reason: {reason}"),
        )
    };
    let vm = world
        .state(|state| state.vms.get(name).cloned())
        .ok_or_else(|| cannot("No such instance"))?;
    if vm.trashed {
        return Err(cannot("Instance is deleted"));
    }
    if vm.state() != "Stopped" {
        return Err(cannot("Instance must be stopped for modification"));
    }
    let wrong = |reason: &str| {
        Failure::refused("set", format!("Invalid setting '{key}={value}': {reason}"))
    };
    let bytes = || {
        size(value).map_err(|_| {
            wrong(&format!("{value} is not a valid memory size - need a non-negative integer (in base 10) or a decimal followed by K, M, or G (e.g. 1234B, 42MiB, 0.5G)"))
        })
    };
    let mut changed = vm.clone();
    match setting {
        "cpus" => match value.parse() {
            Ok(cpus) if cpus > 0 => changed.cpus = cpus,
            _ => {
                return Err(wrong(
                    "Need a positive integer (in decimal format) of minimum 1",
                ));
            }
        },
        "memory" => match bytes()? {
            memory if memory >= 128 << 20 => changed.memory = memory,
            _ => return Err(wrong("Memory less than 128M minimum not allowed")),
        },
        "disk" => match bytes()? {
            disk if disk >= vm.disk => changed.disk = disk,
            _ => return Err(wrong("Disk can only be expanded")),
        },
        _ => {
            return Err(Failure::refused(
                "set",
                format!("Unrecognized settings key: '{key}'"),
            ));
        }
    }
    work(world, "set", "", || {
        world.state(|state| state.vms.insert(name.to_owned(), changed));
    })
}

/// `info --snapshots`: from memory, without a log-in.
pub(crate) fn info(world: &World, args: &Args) -> Outcome {
    let _thread = world.main_thread("info --snapshots")?;
    let mut info = serde_json::Map::new();
    for name in &args.words {
        let vm = world
            .state(|state| state.vms.get(name).cloned())
            .ok_or_else(|| Failure::unknown("info", name))?;
        if vm.snapshots.is_empty() {
            continue;
        }
        let children = |of: &str| -> Vec<&String> {
            let came_from = |kept: &Kept| kept.parent.as_deref() == Some(of);
            let all = vm.snapshots.iter();
            all.filter(|(_, kept)| came_from(kept))
                .map(|(name, _)| name)
                .collect()
        };
        let rows: serde_json::Map<_, _> = vm
            .snapshots
            .iter()
            .map(|(snapshot, kept)| {
                let row = json!({
                    "children": children(snapshot),
                    "comment": kept.comment,
                    "cpu_count": kept.cpus.to_string(),
                    "created": created(kept.created),
                    "disk_space": rounded(kept.disk),
                    "memory_size": rounded(kept.memory),
                    "mounts": {},
                    "parent": kept.parent.as_deref().unwrap_or_default(),
                    "size": "",
                });
                (snapshot.clone(), row)
            })
            .collect();
        info.insert(name.clone(), json!({ "snapshots": rows }));
    }
    print(&json!({"errors": [], "info": info}));
    Ok(())
}

/// A time as it is told where the zone is UTC.
fn created(ms: u64) -> String {
    let at = i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or_default();
    at.strftime("%a %b %e %H:%M:%S %Y UTC").to_string()
}

/// Makes one folder what another is.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            let _ = fs::copy(&path, &target);
        }
    }
}
