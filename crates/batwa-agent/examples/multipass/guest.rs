//! Inside a VM: a real shell of this machine, in the VM's folder.

use std::{
    io::IsTerminal,
    os::unix::process::CommandExt,
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{Args, Failure, Outcome, power::power_on, say, world::World};

/// Gets into a VM, which, as the real one does, starts it when it is off.
fn enter(world: &World, command: &str, name: &str) -> Outcome {
    let state = {
        let _thread = world.main_thread(command)?;
        world.vm_state(name)
    };
    match state.as_deref() {
        None => Err(Failure::unknown(command, name)),
        Some("Deleted") => Err(Failure::deleted(command, name)),
        Some("Unknown") => Err(Failure::refused(
            command,
            "Cannot retrieve credentials in unknown state",
        )),
        Some("Running" | "Delayed Shutdown") => Ok(()),
        Some(_) => power_on(
            world,
            name,
            command,
            Instant::now() + Duration::from_secs(300),
        ),
    }?;
    sleep(Duration::from_millis(world.knobs().login_ms));
    Ok(())
}

/// Waits for a program in the VM; when the VM goes down, so does the program.
fn attend(world: &World, name: &str, mut child: Child) -> u8 {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                // Killed by a signal looks like a plain 255.
                return status
                    .code()
                    .and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(255);
            }
            Ok(None) => {}
            Err(_) => return 255,
        }
        if !matches!(
            world.vm_state(name).as_deref(),
            Some("Running" | "Delayed Shutdown")
        ) {
            let _ = child.kill();
            let _ = child.wait();
            return 255;
        }
        sleep(Duration::from_millis(50));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "not the product: a program that tests run"
)]
fn command(world: &World, name: &str, program: &str) -> std::process::Command {
    let home = world.home(name);
    std::fs::create_dir_all(&home).expect("a VM's folder can be made");
    let mut command = std::process::Command::new(program);
    command
        .current_dir(&home)
        .env("HOME", &home)
        .env("PS1", format!("ubuntu@{name}:~$ "))
        .env_remove("ENV");
    command
}

pub(crate) fn shell(world: &World, args: &Args) -> Outcome {
    let name = args.vm()?;
    enter(world, "shell", name)?;
    say(&format!("Welcome to the stand-in for {name}\r\n"));
    let child = command(world, name, "/bin/sh")
        .arg("-i")
        .spawn()
        .map_err(|error| Failure::refused("shell", error.to_string()))?;
    attend(world, name, child);
    // Whatever the shell's status was.
    Ok(())
}

pub(crate) fn exec(world: &World, args: &Args) -> Outcome {
    let [name] = &args.words[..] else {
        return Err(Failure::usage("Wrong number of arguments"));
    };
    let Some((program, rest)) = args.rest.split_first() else {
        return Err(Failure::usage("Wrong number of arguments"));
    };
    enter(world, "exec", name)?;
    let mut command = command(world, name, program);
    let folder = args
        .value("-d")
        .or_else(|| args.value("--working-directory"));
    if let Some(folder) = folder {
        if args.has("-n") || args.has("--no-map-working-directory") {
            return Err(Failure::usage(
                "Options --working-directory and --no-map-working-directory clash",
            ));
        }
        let folder = world.home(name).join(folder);
        if !folder.is_dir() {
            return Err(Failure {
                status: 1,
                stderr: format!(
                    "bash: line 1: cd: {}: No such file or directory\n",
                    folder.display()
                ),
            });
        }
        command.current_dir(folder);
    }
    // Killing the client does not end what runs in the VM.
    if !std::io::stdin().is_terminal() {
        command.process_group(0);
    }
    match command.args(rest).stdin(Stdio::inherit()).spawn() {
        Ok(child) => match attend(world, name, child) {
            0 => Ok(()),
            status => Err(Failure {
                status,
                stderr: String::new(),
            }),
        },
        Err(_) => Err(Failure {
            status: 127,
            stderr: format!("bash: line 1: {program}: command not found\n"),
        }),
    }
}
