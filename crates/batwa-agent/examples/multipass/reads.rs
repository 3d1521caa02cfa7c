//! Commands that only tell.

use serde_json::{Value, json};

use crate::{Args, Failure, Outcome, say, world::World};

/// As the real one indents.
pub(crate) fn print(value: &Value) {
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut to = serde_json::Serializer::with_formatter(&mut bytes, format);
    serde::Serialize::serialize(value, &mut to).expect("JSON is JSON");
    say(&format!("{}\n", String::from_utf8_lossy(&bytes)));
}

pub(crate) fn version(world: &World, args: &Args) -> Outcome {
    let daemon = match world.main_thread("version") {
        Ok(_) => true,
        // Without a daemon it tells its own version and succeeds.
        Err(failure) if failure.stderr.contains("cannot connect") => false,
        Err(failure) => return Err(failure),
    };
    match (args.is_json(), daemon) {
        (true, true) => print(&json!({"multipass": "1.16.3", "multipassd": "1.16.3"})),
        (true, false) => print(&json!({"multipass": "1.16.3"})),
        (false, true) => say("multipass   1.16.3\nmultipassd  1.16.3\n"),
        (false, false) => say("multipass   1.16.3\n"),
    }
    Ok(())
}

pub(crate) fn list(world: &World, args: &Args) -> Outcome {
    let _thread = world.main_thread("list")?;
    let rows: Vec<(String, String, Vec<String>, String)> = world.state(|state| {
        state
            .vms
            .iter()
            .map(|(name, vm)| {
                let now = vm.state().to_owned();
                let is_up = now == "Running" || now == "Delayed Shutdown";
                let ipv4 = if is_up && !args.has("--no-ipv4") {
                    vec![vm.address.clone()]
                } else {
                    Vec::new()
                };
                (name.clone(), now, ipv4, vm.release.clone())
            })
            .collect()
    });
    if !args.is_json() {
        if rows.is_empty() {
            say("No instances found.\n");
            return Ok(());
        }
        say(&format!(
            "{:<24}{:<18}{:<17}Image\n",
            "Name", "State", "IPv4"
        ));
        for (name, state, ipv4, release) in rows {
            let address = ipv4.first().map_or("--", String::as_str);
            say(&format!("{name:<24}{state:<18}{address:<17}{release}\n"));
        }
        return Ok(());
    }
    // The real order is arbitrary: nobody may lean on it.
    let rows: Vec<Value> = rows
        .into_iter()
        .rev()
        .map(|(name, state, ipv4, release)| {
            json!({"ipv4": ipv4, "name": name, "release": release, "state": state})
        })
        .collect();
    print(&json!({ "list": rows }));
    Ok(())
}

pub(crate) fn info(world: &World, args: &Args) -> Outcome {
    if args.has("--snapshots") {
        return crate::disk::info(world, args);
    }
    let _thread = world.main_thread("info")?;
    let names = if args.words.is_empty() {
        world.state(|state| state.vms.keys().cloned().collect())
    } else {
        args.words.clone()
    };
    let mut info = serde_json::Map::new();
    for name in &names {
        let Some(vm) = world.state(|state| state.vms.get(name).cloned()) else {
            return Err(Failure::unknown("info", name));
        };
        let state = vm.state().to_owned();
        let image_release = vm.release.trim_start_matches("Ubuntu ");
        let row = if state == "Running" || state == "Delayed Shutdown" {
            std::thread::sleep(std::time::Duration::from_millis(world.knobs().login_ms));
            if world.knobs().ssh_down.contains(name) {
                return Err(Failure::refused(
                    "info",
                    "ssh connection failed: 'Connection refused'",
                ));
            }
            json!({
                "cpu_count": vm.cpus.to_string(),
                "disks": {"sda1": {"total": (vm.disk / 100 * 97).to_string(), "used": "406687744"}},
                "image_hash": "0dc64a64c78b37367f2b2e321c6409e5cec21e17df3da545836b1e1b160f7fab",
                "image_release": image_release,
                "ipv4": [vm.address],
                "load": [0.25, 0.12, 0.05],
                "memory": {"total": vm.memory / 100 * 95, "used": vm.memory / 5},
                "mounts": mounts_of(&vm),
                "release": "Ubuntu 24.04.1 LTS",
                "snapshot_count": vm.snapshots.len().to_string(),
                "state": state,
            })
        } else {
            json!({
                "cpu_count": "",
                "disks": {"sda1": {}},
                "image_hash": "0dc64a64c78b37367f2b2e321c6409e5cec21e17df3da545836b1e1b160f7fab",
                "image_release": image_release,
                "ipv4": [],
                "load": [],
                "memory": {},
                "mounts": mounts_of(&vm),
                "release": "",
                "snapshot_count": vm.snapshots.len().to_string(),
                "state": state,
            })
        };
        info.insert(name.clone(), row);
    }
    print(&json!({"errors": [], "info": info}));
    Ok(())
}

/// As the record has them.
fn mounts_of(vm: &crate::world::Vm) -> Value {
    let row = |(target, source): (&String, &String)| {
        let maps = json!(["0:default"]);
        let mount = json!({"source_path": source, "uid_mappings": maps, "gid_mappings": maps});
        (target.clone(), mount)
    };
    vm.mounts
        .iter()
        .map(row)
        .collect::<serde_json::Map<_, _>>()
        .into()
}

pub(crate) fn get(world: &World, args: &Args) -> Outcome {
    let key = args.words.first().map_or("", String::as_str);
    if key == "client.primary-name" {
        // The client's own settings need no daemon.
        say("primary\n");
        return Ok(());
    }
    let _thread = world.main_thread("get")?;
    let parts: Vec<_> = key.split('.').collect();
    let ["local", name, setting] = parts[..] else {
        return Err(Failure::usage(format!(
            "Unrecognized settings key: '{key}'"
        )));
    };
    let Some(vm) = world.state(|state| state.vms.get(name).cloned()) else {
        return Err(Failure::refused(
            "get",
            format!("Cannot obtain instance settings; instance: {name}; reason: No such instance"),
        ));
    };
    match setting {
        "cpus" => say(&format!("{}\n", vm.cpus)),
        "memory" => say(&format!("{}\n", rounded(vm.memory))),
        "disk" => say(&format!("{}\n", rounded(vm.disk))),
        _ => {
            return Err(Failure::refused(
                "get",
                format!("Unrecognized settings key: '{key}'"),
            ));
        }
    }
    Ok(())
}

/// A size for people, with one decimal.
pub(crate) fn rounded(bytes: u64) -> String {
    let (shift, unit) = [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes >= 1 << shift)
        .unwrap_or((0, "B"));
    let tenths = (bytes * 10 + (1 << shift) / 2) >> shift;
    format!("{}.{}{unit}", tenths / 10, tenths % 10)
}

/// The catalogue as it was recorded.
pub(crate) fn find(world: &World) -> Outcome {
    let _thread = world.main_thread("find")?;
    say(&recorded_catalogue());
    Ok(())
}

fn recorded_catalogue() -> String {
    recorded(&["multipass", "find", "--format", "json"])
}

/// What was recorded of a command.
fn recorded(argv: &[&str]) -> String {
    include_str!("../../tests/fixtures/multipass/transcripts.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a row of the record"))
        .find(|row| row["argv"] == json!(argv) && row["exit"] == 0)
        .and_then(|row| row["stdout"].as_str().map(str::to_owned))
        .expect("the record holds it")
}

/// The networks that were recorded.
fn recorded_networks() -> Value {
    let text = recorded(&["multipass", "networks", "--format", "json"]);
    serde_json::from_str(&text).expect("JSON is JSON")
}

/// Whether the machine has such a network.
pub(crate) fn has_network(name: &str) -> bool {
    let networks = recorded_networks();
    let mut names = networks["list"].as_array().into_iter().flatten();
    names.any(|row| row["name"] == name)
}

/// The release that `image` names (`24.04 LTS`), if the catalogue or an older one has it.
pub(crate) fn release_of(image: &str) -> Option<String> {
    if image == "14.04" {
        // Not listed any more, and launched all the same.
        return Some("14.04 LTS".to_owned());
    }
    let catalogue: Value = serde_json::from_str(&recorded_catalogue()).expect("JSON is JSON");
    catalogue["images"]
        .as_object()?
        .iter()
        .find(|(key, row)| {
            *key == image
                || row["aliases"]
                    .as_array()
                    .is_some_and(|aliases| aliases.iter().any(|alias| alias == image))
        })
        .and_then(|(_, row)| row["release"].as_str().map(str::to_owned))
}

pub(crate) fn networks(world: &World) -> Outcome {
    let _thread = world.main_thread("networks")?;
    print(&recorded_networks());
    Ok(())
}
