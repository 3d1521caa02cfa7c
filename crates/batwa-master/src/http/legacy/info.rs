//! The body of the old `GET /api/vm/info`: what `multipass info` prints under `info`, as the Python master had it,
//! and the main facts at the top level, as the Go master had them.

use batwa_api::{legacy::state_name, vm::ListedVm};
use serde_json::{Map, Value, json};

/// The body; `printed` is what an old agent's Multipass said itself.
pub(super) fn body(
    listed: &ListedVm,
    hostname: &str,
    printed: Option<Map<String, Value>>,
) -> Map<String, Value> {
    let vm = &listed.vm;
    let printed = printed.unwrap_or_else(|| as_multipass_prints(listed));
    let number = |value: &Value| -> Value {
        match value {
            // Multipass prints the number of CPUs as text.
            Value::String(text) => text.parse::<u64>().map_or(Value::Null, Value::from),
            Value::Number(_) => value.clone(),
            _ => Value::Null,
        }
    };
    let total = |value: Option<&Value>| {
        value
            .and_then(|v| v.get("total"))
            .map_or(Value::Null, number)
    };
    let first_disk = printed
        .get("disks")
        .and_then(Value::as_object)
        .and_then(|disks| disks.values().next());
    let known = |known: Option<Value>, printed: Value| known.unwrap_or(printed);
    let top = json!({
        "success": true,
        "name": vm.name,
        "state": state_name(vm.state),
        "ipv4": vm.ipv4,
        "image": vm.image.as_ref().or(vm.release.as_ref()),
        "release": vm.release,
        "cpus": known(vm.cpus.map(Value::from), printed.get("cpu_count").map_or(Value::Null, number)),
        "memory": known(vm.memory.map(|size| size.as_u64().into()), total(printed.get("memory"))),
        "disk": known(vm.disk.map(|size| size.as_u64().into()), total(first_disk)),
        "agent_id": (!listed.agent_id.is_local()).then(|| listed.agent_id.as_str()),
        "agent_hostname": hostname,
        "stale": listed.stale,
    });
    let mut body = match top {
        Value::Object(body) => body,
        _ => Map::new(),
    };
    body.insert("info".to_owned(), Value::Object(printed));
    body
}

/// A VM as `multipass info NAME --format json` prints it.
fn as_multipass_prints(listed: &ListedVm) -> Map<String, Value> {
    let vm = &listed.vm;
    let usage = vm.usage.clone().unwrap_or_default();
    let mut disk = Map::new();
    if let Some(size) = vm.disk {
        disk.insert("total".to_owned(), size.as_u64().to_string().into());
    }
    if let Some(used) = usage.disk_used {
        disk.insert("used".to_owned(), used.as_u64().to_string().into());
    }
    let mut memory = Map::new();
    if let Some(size) = vm.memory {
        memory.insert("total".to_owned(), size.as_u64().into());
    }
    if let Some(used) = usage.memory_used {
        memory.insert("used".to_owned(), used.as_u64().into());
    }
    let printed = json!({
        "cpu_count": vm.cpus.map(|cpus| cpus.to_string()).unwrap_or_default(),
        "disks": {"sda1": disk},
        "image_hash": "",
        "image_release": vm.image.as_deref().unwrap_or_default(),
        "ipv4": vm.ipv4,
        "load": usage.load.map(|load| load.to_vec()).unwrap_or_default(),
        "memory": memory,
        "mounts": {},
        "release": vm.release.as_deref().unwrap_or_default(),
        "snapshot_count": "0",
        "state": state_name(vm.state),
    });
    match printed {
        Value::Object(printed) => printed,
        _ => Map::new(),
    }
}
