//! `launch`, with every way in which it was seen to end.

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use crate::{
    Args, Failure, Outcome,
    knobs::LaunchFate,
    reads::{has_network, release_of},
    say,
    world::{CLEAR, Vm, World},
};

/// From power-on until Multipass stops calling a VM that it launches `Starting`.
const STARTING_MS: u64 = 40;

pub(crate) fn launch(world: &World, args: &Args) -> Outcome {
    let began = Instant::now();
    let name = args.value("--name").unwrap_or("made-up");
    let cpus = match args.value("--cpus").unwrap_or("1").parse::<u32>() {
        Ok(cpus) if cpus > 0 => cpus,
        _ => {
            return Err(Failure::usage(format!(
                "Error: invalid CPU count '{}', need a positive integer value.",
                args.value("--cpus").unwrap_or_default()
            )));
        }
    };
    let memory = size(args.value("--memory").unwrap_or("1G"))?;
    let disk = size(args.value("--disk").unwrap_or("5G"))?;
    let timeout: u64 = match args.value("--timeout").unwrap_or("300").parse() {
        Ok(seconds) if seconds > 0 => seconds,
        _ => {
            return Err(Failure::usage(
                "error: --timeout value has to be a positive integer",
            ));
        }
    };
    let limit = (began + Duration::from_secs(timeout), "launch");
    let user_data = args.value("--cloud-init").map(user_data).transpose()?;
    let image = match &args.words[..] {
        [] => "24.04",
        [image] => image,
        _ => return Err(Failure::usage("Too many arguments supplied")),
    };

    let networks = networks(args)?;

    say(CLEAR);
    let release = {
        let _thread = world.main_thread("launch")?;
        if !networks.iter().all(|name| has_network(name)) {
            return Err(Failure::refused(
                "launch",
                "Invalid arguments supplied\nInvalid network options supplied",
            ));
        }
        check(world, name, memory, disk, image)?
    };
    let knobs = world.knobs();
    world.spin_for(&format!("Creating {name}"), 10);
    if world.is_down() || knobs.launch == LaunchFate::DaemonDiesEarly {
        world.die();
        return Err(Failure::no_daemon("launch"));
    }
    if knobs.launch == LaunchFate::NoNetwork {
        return Err(Failure::refused(
            "launch",
            format!("failed to download from 'http://127.0.0.1:1/{image}': Connection refused"),
        ));
    }
    download(world, image, knobs.download_ms, limit)?;
    world.spin_for(&format!("Preparing image for {name}"), knobs.image_ms);
    if disk < knobs.image_disk {
        return Err(Failure::refused(
            "launch",
            format!(
                "Requested disk ({disk} bytes) below minimum for this image ({} bytes)",
                knobs.image_disk
            ),
        ));
    }
    world.spin_for(&format!("Configuring {name}"), 10);
    std::fs::create_dir_all(world.home(name)).expect("a VM's folder can be made");
    if let Some(text) = user_data {
        std::fs::write(world.home(name).join(".user-data"), text).expect("user-data can be kept");
    }

    let up = knobs.boot_ms.max(STARTING_MS + 1);
    let schedule: Vec<(u64, &str)> = match knobs.launch {
        LaunchFate::Lost | LaunchFate::FailsLate => vec![(0, "Starting"), (STARTING_MS, "Unknown")],
        LaunchFate::DaemonDies => vec![
            (0, "Starting"),
            (STARTING_MS, "Unknown"),
            (knobs.down_ms + STARTING_MS, "Starting"),
            (knobs.down_ms + STARTING_MS + up, "Running"),
        ],
        _ => vec![(0, "Starting"), (STARTING_MS, "Unknown"), (up, "Running")],
    };
    world.state(|state| {
        let mut vm = Vm {
            cpus,
            memory,
            disk,
            release,
            address: state.new_address(),
            schedule: Vec::new(),
            trashed: false,
            snapshots: std::collections::BTreeMap::new(),
            mounts: std::collections::BTreeMap::new(),
            head: None,
        };
        vm.becomes(&schedule);
        state.vms.insert(name.to_owned(), vm);
    });
    let starting = format!("Starting {name}");
    match knobs.launch {
        LaunchFate::TimesOut | LaunchFate::Lost => {
            world.spin_for(&starting, STARTING_MS);
            return Err(Failure {
                status: 5,
                stderr: "Timed out waiting for instance launch.\n".to_owned(),
            });
        }
        LaunchFate::FailsLate => {
            world.spin_for(&starting, STARTING_MS);
            return Err(Failure::refused(
                "launch",
                format!(
                    "The following errors occurred:\nqemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory\n{name}: shutdown called while starting"
                ),
            ));
        }
        LaunchFate::DaemonDies => {
            world.spin_for(&starting, STARTING_MS);
            world.die();
            return Err(Failure::no_daemon("launch"));
        }
        LaunchFate::Well | LaunchFate::DaemonDiesEarly | LaunchFate::NoNetwork => {}
    }
    let mut state = None;
    world.spin(&starting, Some(limit), || {
        state = world.vm_state(name);
        world.is_down() || !matches!(state.as_deref(), Some("Starting" | "Unknown"))
    })?;
    if world.is_down() {
        return Err(Failure::no_daemon("launch"));
    }
    if state.as_deref() != Some("Running") {
        return Err(Failure::refused(
            "launch",
            format!("The following errors occurred:\n{name}: shutdown called while starting"),
        ));
    }
    let ready = Instant::now() + Duration::from_millis(knobs.init_ms);
    world.spin(
        "Waiting for initialization to complete",
        Some(limit),
        || Instant::now() >= ready,
    )?;
    say(&format!("{CLEAR}Launched: {name}\n{CLEAR}"));
    Ok(())
}

/// The networks that are named, as the client itself takes their options apart.
fn networks(args: &Args) -> Result<Vec<String>, Failure> {
    let wrong = |what: String| Failure::usage(format!("error: {what}"));
    let mut names = Vec::new();
    for text in args.values("--network") {
        if !text.contains(['=', ',']) {
            names.push(text.to_owned());
            continue;
        }
        let mut name = None;
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("name", value)) => name = Some(value.to_owned()),
                Some(("mode", "auto" | "manual") | ("mac", _)) => {}
                Some(("mode", mode)) => {
                    return Err(wrong(format!(
                        "Bad network mode '{mode}', need 'auto' or 'manual'"
                    )));
                }
                _ => return Err(wrong(format!("Bad network field definition: {field}"))),
            }
        }
        names.push(name.ok_or_else(|| {
            wrong("Bad network definition, need at least a 'name' field".to_owned())
        })?);
    }
    Ok(names)
}

/// What the daemon refuses before it makes anything, in its order.
fn check(
    world: &World,
    name: &str,
    memory: u64,
    disk: u64,
    image: &str,
) -> Result<String, Failure> {
    let refused = |reason: String| Failure::refused("launch", reason);
    let invalid = |reason: String| refused(format!("Invalid arguments supplied\n{reason}"));
    let good_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !good_name {
        return Err(invalid(format!("Invalid instance name supplied: {name}")));
    }
    if memory < 128 << 20 {
        return Err(invalid(format!(
            "Invalid memory size value supplied: {memory}."
        )));
    }
    if disk < 512 << 20 {
        return Err(invalid(format!(
            "Invalid disk size value supplied: {disk}."
        )));
    }
    if world.vm_state(name).is_some() {
        return Err(refused(format!("instance \"{name}\" already exists")));
    }
    if let Some(path) = image.strip_prefix("file://") {
        return if std::path::Path::new(path).exists() {
            Ok("Not Available".to_owned())
        } else {
            Err(refused(format!("Custom image `{path}` does not exist.")))
        };
    }
    match release_of(image) {
        Some(release) => Ok(format!("Ubuntu {release}")),
        None => Err(refused(format!(
            "Unable to find an image matching \"{image}\" in remote \"\"."
        ))),
    }
}

/// Shows a download the first time an image is used. Killed here, nothing is left.
fn download(world: &World, image: &str, ms: u64, limit: (Instant, &str)) -> Outcome {
    if ms == 0 || world.state(|state| state.cached.iter().any(|cached| cached == image)) {
        return Ok(());
    }
    let began = Instant::now();
    loop {
        let done = began.elapsed().as_millis() as u64;
        say(&format!(
            "{CLEAR}\rRetrieving image: {}%",
            (done * 100 / ms).min(100)
        ));
        if done >= ms {
            break;
        }
        if Instant::now() >= limit.0 {
            return Err(Failure {
                status: 5,
                stderr: "Timed out waiting for instance launch.\n".to_owned(),
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    say(CLEAR);
    world.spin_for("Verifying image: ", 10);
    world.state(|state| state.cached.push(image.to_owned()));
    Ok(())
}

fn user_data(from: &str) -> Result<String, Failure> {
    let mut text = String::new();
    if from == "-" {
        let _ = std::io::stdin().read_to_string(&mut text);
    } else {
        text = std::fs::read_to_string(from).map_err(|_| {
            Failure::usage(format!(
                "Could not load cloud-init configuration: bad file: {from}\nPlease ensure that Multipass can read it."
            ))
        })?;
    }
    match serde_saphyr::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::usage(format!(
            "Could not load cloud-init configuration: yaml-cpp: error at {error}"
        ))),
    }
}

pub(crate) fn size(text: &str) -> Result<u64, Failure> {
    text.parse::<batwa_api::size::ByteSize>()
        .map(batwa_api::size::ByteSize::as_u64)
        .map_err(|_| {
            Failure::usage(format!(
                "[2026-11-23T02:18:57.316] [error] [client] Caught an unhandled exception: {text} is not a valid memory size - need a non-negative integer (in base 10) or a decimal followed by K, M, or G (e.g. 1234B, 42MiB, 0.5G)"
            ))
        })
}
