//! Commands that change what a VM is doing.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    Args, Failure, Outcome,
    knobs::BootFate,
    say,
    world::{CLEAR, Vm, World},
};

/// Runs `f` on a VM that is there.
fn with_vm<T>(world: &World, name: &str, f: impl FnOnce(&mut Vm) -> T) -> Option<T> {
    world.state(|state| state.vms.get_mut(name).map(f))
}

fn limit(args: &Args) -> Instant {
    let seconds = args.value("--timeout").and_then(|text| text.parse().ok());
    Instant::now() + Duration::from_secs(seconds.unwrap_or(300))
}

pub(crate) fn start(world: &World, args: &Args) -> Outcome {
    let name = args.vm()?;
    let limit = limit(args);
    power_on(world, name, "start", limit)
}

/// Starts a VM and waits for it, as `start` does and `shell` and `exec` do on the side.
pub(crate) fn power_on(world: &World, name: &str, command: &str, limit: Instant) -> Outcome {
    let knobs = world.knobs();
    let words = format!("Starting {name}");
    say(CLEAR);
    {
        let _thread = world.main_thread(command)?;
        let state = world.vm_state(name);
        let missing =
            |text: String| Failure::refused("start", format!("instance(s) missing\n{text}\n"));
        match state.as_deref() {
            None => return Err(missing(format!("Instance '{name}' does not exist."))),
            Some("Deleted") => {
                return Err(missing(format!(
                    "Instance '{name}' is deleted. Use 'recover' to recover it or 'purge' to permanently delete it."
                )));
            }
            Some("Running") => {
                world.spin_for(&words, 10);
                return Ok(());
            }
            Some("Delayed Shutdown") => {
                with_vm(world, name, |vm| vm.becomes(&[(0, "Running")]));
                world.spin_for(&words, 10);
                return Ok(());
            }
            Some("Starting" | "Restarting" | "Unknown") => {}
            Some(off) => {
                let up = if off == "Suspended" {
                    knobs.boot_ms / 4
                } else {
                    knobs.boot_ms
                };
                with_vm(world, name, |vm| match knobs.boot {
                    BootFate::Lost => vm.becomes(&[(0, "Starting"), (20, "Unknown")]),
                    _ => vm.becomes(&[(0, "Starting"), (up, "Running")]),
                });
                if knobs.boot != BootFate::Well {
                    world.spin_for(&words, 30);
                    return Err(timed_out("to start"));
                }
            }
        }
    }
    // The daemon serves others while this one boots.
    let mut state = String::new();
    let patience = Instant::now() + Duration::from_millis(knobs.boot_ms.saturating_mul(2));
    world.spin(&words, Some((limit, "to start")), || {
        state = world.vm_state(name).unwrap_or_default();
        world.is_down()
            || match state.as_str() {
                "Starting" | "Restarting" => false,
                "Unknown" => Instant::now() >= patience,
                _ => true,
            }
    })?;
    say(CLEAR);
    if world.is_down() {
        return Err(Failure::no_daemon(command));
    }
    match state.as_str() {
        "Running" => Ok(()),
        "Unknown" => Err(Failure::refused(
            "start",
            format!(
                "The following errors occurred:\nInstance '{name}' is already running, but in an unknown state.\nTry to stop it first."
            ),
        )),
        _ => Err(Failure::refused(
            "start",
            format!("The following errors occurred:\n{name}: shutdown called while starting"),
        )),
    }
}

fn timed_out(what: &str) -> Failure {
    Failure {
        status: 5,
        stderr: format!("Timed out waiting for instance {what}.\n"),
    }
}

/// Waits, on the daemon's main thread, for a VM that does not hear its power button.
fn unheard(world: &World, command: &str, words: &str) -> Failure {
    let ms = world.knobs().unheard_ms;
    world.spin_for(words, ms);
    Failure::refused(
        command,
        format!("The QEMU process did not finish within {ms} milliseconds after being shutdown"),
    )
}

pub(crate) fn stop(world: &World, args: &Args) -> Outcome {
    let name = args.vm()?;
    let words = format!("Stopping {name}");
    let is_forced = args.has("--force");
    say(CLEAR);
    let _thread = world.main_thread("stop")?;
    let becomes = |states: &[(u64, &str)]| {
        with_vm(world, name, |vm| vm.becomes(states));
    };
    match world.vm_state(name).as_deref() {
        None => Err(Failure::unknown("stop", name)),
        Some("Deleted") => Err(Failure::deleted("stop", name)),
        Some("Stopped") => Ok(()),
        Some(_) if is_forced => {
            becomes(&[(0, "Stopped")]);
            world.spin_for(&words, 10);
            Ok(())
        }
        Some("Delayed Shutdown") if args.has("--cancel") => {
            becomes(&[(0, "Running")]);
            Ok(())
        }
        Some(_) if args.has("--cancel") => Ok(()),
        Some("Suspended") => Err(Failure::refused(
            "stop",
            format!("Cannot shut down suspended instance {name}.\nUse --force to power it off."),
        )),
        Some("Starting" | "Restarting") => Err(Failure::refused(
            "stop",
            format!(
                "Cannot shut down instance {name} while starting.\nUse --force to power it off."
            ),
        )),
        Some("Unknown") => Err(unheard(world, "stop", &words)),
        Some(_) => {
            if let Some(minutes) = args
                .value("--time")
                .and_then(|text| text.parse::<u64>().ok())
            {
                becomes(&[(0, "Delayed Shutdown"), (minutes * 60_000, "Stopped")]);
                return Ok(());
            }
            world.spin_for(&words, world.knobs().stop_ms);
            becomes(&[(0, "Stopped")]);
            Ok(())
        }
    }
}

pub(crate) fn restart(world: &World, args: &Args) -> Outcome {
    let name = args.vm()?;
    let limit = limit(args);
    let knobs = world.knobs();
    say(CLEAR);
    {
        let _thread = world.main_thread("restart")?;
        match world.vm_state(name).as_deref() {
            None => return Err(Failure::unknown("restart", name)),
            Some("Deleted") => return Err(Failure::deleted("restart", name)),
            Some("Running" | "Delayed Shutdown") => {
                with_vm(world, name, |vm| {
                    vm.becomes(&[(0, "Restarting"), (knobs.boot_ms, "Running")]);
                });
            }
            Some(_) => {
                return Err(Failure::refused(
                    "restart",
                    format!(
                        "Instance '{name}' is already running, but in an unknown state.\nTry to stop and start it instead."
                    ),
                ));
            }
        }
    }
    if knobs.boot != BootFate::Well {
        world.spin_for(&format!("Restarting {name}"), 30);
        return Err(timed_out("to restart"));
    }
    world.spin(
        &format!("Restarting {name}"),
        Some((limit, "to restart")),
        || world.is_down() || world.vm_state(name).as_deref() != Some("Restarting"),
    )?;
    if world.is_down() {
        return Err(Failure::no_daemon("restart"));
    }
    Ok(())
}

pub(crate) fn suspend(world: &World, args: &Args) -> Outcome {
    let name = args.vm()?;
    say(CLEAR);
    let _thread = world.main_thread("suspend")?;
    match world.vm_state(name).as_deref() {
        None => Err(Failure::unknown("suspend", name)),
        Some("Deleted") => Err(Failure::deleted("suspend", name)),
        Some("Running" | "Delayed Shutdown") => {
            world.spin_for(&format!("Suspending {name}"), 20);
            with_vm(world, name, |vm| vm.becomes(&[(0, "Suspended")]));
            Ok(())
        }
        // Of all others it makes nothing and calls it success.
        Some(_) => Ok(()),
    }
}

pub(crate) fn delete(world: &World, args: &Args) -> Outcome {
    let is_purge = args.has("--purge");
    let name = args.vm()?;
    if let Some((vm, snapshot)) = name.split_once('.') {
        return crate::disk::delete_snapshot(world, vm, snapshot, is_purge);
    }
    let _thread = world.main_thread("delete")?;
    match (world.vm_state(name).as_deref(), is_purge) {
        (None, _) => return Err(Failure::unknown("delete", name)),
        (Some(_), true) => {
            world.state(|state| state.vms.remove(name));
            let _ = std::fs::remove_dir_all(world.home(name));
            let _ = std::fs::remove_dir_all(world.all_kept(name));
            return Ok(());
        }
        (Some("Deleted"), false) => return Ok(()),
        (Some("Starting" | "Restarting"), false) => {
            return Err(Failure::refused(
                "delete",
                format!(
                    "Cannot shut down instance {name} while starting.\nUse --purge to forcefully delete it."
                ),
            ));
        }
        (Some("Unknown"), false) => return Err(unheard(world, "delete", "")),
        (Some("Running" | "Delayed Shutdown"), false) => {
            sleep(Duration::from_millis(world.knobs().stop_ms));
            with_vm(world, name, |vm| vm.becomes(&[(0, "Stopped")]));
        }
        (Some(_), false) => {}
    }
    with_vm(world, name, |vm| vm.trashed = true);
    Ok(())
}

pub(crate) fn recover(world: &World, args: &Args) -> Outcome {
    let name = args.vm()?;
    let _thread = world.main_thread("recover")?;
    with_vm(world, name, |vm| vm.trashed = false).ok_or_else(|| Failure::unknown("recover", name))
}
