//! `ls`, `info`, `launch`, and what is done to VMs.

use std::io::Read;

use batwa_api::{
    Timestamp,
    agent::HealthStatus,
    id::AgentId,
    name::VmName,
    operation::StopOptions,
    vm::{CreateVm, ListedVm, VmDetails, VmSpec},
};
use serde_json::{Value, json};

use super::{set, wait};
use crate::{
    cli::{ActArgs, DeleteArgs, DismissArgs, Format, InfoArgs, LaunchArgs, LsArgs, StopArgs},
    client::{Client, VmRef},
    failure::{Exit, Failure},
    output::{self, Table, age, plain, print_json, say},
};

/// `batwa ls`
pub(crate) async fn ls(args: LsArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let search = Some(args.query.join(" ")).filter(|text| !text.is_empty());
    let query: Vec<(&str, &str)> = [
        ("q", &search),
        ("agent", &args.agent),
        ("state", &args.state),
        ("label", &args.label),
        ("sort", &args.sort),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    .collect();
    let most = args.limit.unwrap_or(usize::MAX);
    let items = client.list(&["vms"], &query, most).await?;
    if args.read.format == Format::Json {
        return print_json(&json!({ "items": items }));
    }
    let now = Timestamp::now();
    let mut table = Table::new(&[
        "VM", "STATE", "IPV4", "IMAGE", "CPUS", "MEMORY", "DISK", "SEEN",
    ]);
    for item in items {
        let listed: ListedVm = client.read(item)?;
        let state = state_words(&listed);
        let vm = listed.vm;
        table.row([
            format!("{}/{}", listed.agent_id, vm.name),
            state,
            vm.ipv4.first().cloned().unwrap_or_default(),
            vm.image.or(vm.release).unwrap_or_default(),
            vm.cpus.map(|n| n.to_string()).unwrap_or_default(),
            vm.memory.map(|size| size.to_string()).unwrap_or_default(),
            vm.disk.map(|size| size.to_string()).unwrap_or_default(),
            format!("{} ago", age(vm.observed_at, now)),
        ]);
    }
    output::print(&table.render())
}

fn state_words(listed: &ListedVm) -> String {
    if listed.missing_since.is_some() {
        "missing".to_owned()
    } else if listed.stale {
        format!("{}?", listed.vm.state)
    } else {
        listed.vm.state.to_string()
    }
}

/// `batwa info`
pub(crate) async fn info(args: InfoArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let vm = client.find(&args.vm).await?;
    let value = client
        .get(&["agents", vm.agent.as_str(), "vms", vm.name.as_str()], &[])
        .await?;
    if args.read.format == Format::Json {
        return print_json(&value);
    }
    let details: VmDetails = client.read(value)?;
    output::print(&describe(&details, Timestamp::now()))
}

/// `batwa dismiss`
pub(crate) async fn dismiss(args: DismissArgs) -> Result<(), Failure> {
    let client = Client::new(args.master)?;
    for text in args.vms {
        let vm = client.find(&text).await?;
        let path = [
            "agents",
            vm.agent.as_str(),
            "vms",
            vm.name.as_str(),
            "dismiss",
        ];
        client.post(&path, &json!({})).await?;
        say(&format!("VM `{vm}` is off the list"));
    }
    Ok(())
}

/// One line a fact; what is not known is left out.
fn describe(details: &VmDetails, now: Timestamp) -> String {
    let listed = &details.vm;
    let vm = &listed.vm;
    let ago = |then: Timestamp| format!("{} ago", age(then, now));
    let mut lines: Vec<(&str, String)> = vec![
        ("Name", vm.name.to_string()),
        (
            "Machine",
            format!("{} ({})", listed.agent_id, listed.agent_name),
        ),
        (
            "State",
            format!("{}, since {}", vm.state, age(vm.state_since, now)),
        ),
    ];
    let mut fact = |name, value: Option<String>| {
        if let Some(value) = value {
            lines.push((name, value));
        }
    };
    fact("", vm.message.clone());
    fact("Called", listed.display_name.clone());
    if let Some(since) = listed.missing_since {
        fact(
            "Missing",
            Some(format!(
                "since {}: its machine does not know it any more; `batwa dismiss` takes it off the list",
                ago(since)
            )),
        );
    }
    fact("Seen", Some(ago(vm.observed_at)));
    let link = &details.link;
    let mut link_words = format!("{}, since {}", link.status.as_str(), age(link.since, now));
    if let Some(message) = &link.message {
        link_words.push_str(": ");
        link_words.push_str(message);
    }
    fact("Link", Some(link_words));
    fact(
        "Driver is",
        details
            .driver_health
            .as_ref()
            .filter(|health| health.status != HealthStatus::Ok)
            .map(|health| {
                let message = health.message.as_deref().unwrap_or("no reason known");
                format!(
                    "{}, since {}: {message}",
                    health_words(health.status),
                    age(health.since, now)
                )
            }),
    );
    fact("Files", vm.location.clone());
    fact(
        "IPv4",
        Some(vm.ipv4.join(", ")).filter(|text| !text.is_empty()),
    );
    fact("Image", vm.image.clone());
    fact("Release", vm.release.clone());
    fact("CPUs", vm.cpus.map(|n| n.to_string()));
    fact("Memory", vm.memory.map(|size| size.to_string()));
    fact("Disk", vm.disk.map(|size| size.to_string()));
    if let Some(usage) = &vm.usage {
        fact("CPU use", usage.cpu_percent.map(|n| format!("{n:.0} %")));
        fact("Memory use", usage.memory_used.map(|size| size.to_string()));
        fact("Disk use", usage.disk_used.map(|size| size.to_string()));
        fact(
            "Load",
            usage.load.map(|[a, b, c]| format!("{a:.2} {b:.2} {c:.2}")),
        );
    }
    fact(
        "Driver",
        Some(match &vm.acceleration {
            Some(acceleration) => format!("{} ({acceleration})", vm.driver),
            None => vm.driver.to_string(),
        }),
    );
    fact("Created", vm.created_at.map(ago));
    fact("Started", vm.started_at.map(ago));
    for (key, value) in &listed.labels {
        let by = listed.label_sources.get(key);
        let by = by.map_or_else(String::new, |account| format!(" (set by {account})"));
        fact("Label", Some(format!("{key}={value}{by}")));
    }
    for (name, value) in set::settings_facts(vm, now) {
        fact(name, Some(value));
    }
    for (n, line) in listed.notes.lines().enumerate() {
        fact(if n == 0 { "Notes" } else { "" }, Some(line.to_owned()));
    }
    lines
        .into_iter()
        .map(|(name, value)| format!("{name:<12}{}\n", plain(&value)))
        .collect()
}

/// How a driver is, in v1's words.
pub(super) fn health_words(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Ok => "ok",
        HealthStatus::Slow => "slow",
        HealthStatus::Stuck => "stuck",
        HealthStatus::Missing => "missing",
    }
}

/// `batwa launch`
pub(crate) async fn launch(args: LaunchArgs) -> Result<(), Failure> {
    VmName::parse_new(&args.name).map_err(Failure::usage)?;
    let agent = AgentId::parse(&args.agent).map_err(Failure::usage)?;
    let cloud_init = args.cloud_init.as_deref().map(read_user_data).transpose()?;
    let default = VmSpec::default();
    let spec = VmSpec {
        image: args.image.unwrap_or(default.image),
        cpus: args.cpus.unwrap_or(default.cpus),
        memory: args.memory.unwrap_or(default.memory),
        disk: args.disk.unwrap_or(default.disk),
        cloud_init,
        driver: args.driver,
        labels: args.labels.into_iter().collect(),
    };
    let client = Client::new(args.master)?;
    let body = CreateVm {
        name: args.name,
        spec,
    };
    let accepted = client
        .post(&["agents", agent.as_str(), "vms"], &body)
        .await?;
    wait::finish(&client, accepted, &args.wait).await
}

fn read_user_data(path: &std::path::Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| {
        Failure::usage(format!(
            "cannot read user-data from {}: {error}",
            path.display()
        ))
    })?;
    Ok(text)
}

/// `batwa start`, `restart`, `suspend`, `resume`, `recover`, `purge`
pub(crate) async fn act(args: ActArgs, action: &str) -> Result<(), Failure> {
    each(args, async |client, vm| {
        client
            .post(
                &["agents", vm.agent.as_str(), "vms", vm.name.as_str(), action],
                &json!({}),
            )
            .await
    })
    .await
}

/// `batwa stop`
pub(crate) async fn stop(args: StopArgs) -> Result<(), Failure> {
    let options = StopOptions {
        force: args.force,
        after_s: None,
    };
    each(args.act, async |client, vm| {
        client
            .post(
                &["agents", vm.agent.as_str(), "vms", vm.name.as_str(), "stop"],
                &options,
            )
            .await
    })
    .await
}

/// `batwa delete`
pub(crate) async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let query: &[(&str, &str)] = if args.purge {
        &[("purge", "true")]
    } else {
        &[]
    };
    each(args.act, async |client, vm| {
        client
            .delete(
                &["agents", vm.agent.as_str(), "vms", vm.name.as_str()],
                query,
            )
            .await
    })
    .await
}

/// Asks for the same of every VM, then waits for each. One that fails does not keep the others from being asked;
/// the first failure is the command's, the others are said.
async fn each(
    args: ActArgs,
    ask: impl AsyncFn(&Client, &VmRef) -> Result<Value, Failure>,
) -> Result<(), Failure> {
    let client = Client::new(args.master)?;
    // All names are understood before anything is done to any.
    let mut vms = Vec::new();
    for text in &args.vms {
        vms.push(client.find(text).await?);
    }
    let mut first: Option<Failure> = None;
    let mut accepted = Vec::new();
    let mut keep = |failure: Failure| match &first {
        Some(_) => output::say(&failure.to_string()),
        None => first = Some(failure),
    };
    for vm in &vms {
        match ask(&client, vm).await {
            Ok(operation) => accepted.push(operation),
            Err(failure) if failure.exit == Exit::Unreachable => return Err(failure),
            Err(mut failure) => {
                if vms.len() > 1 {
                    failure.message = format!("{vm}: {}", failure.message);
                }
                keep(failure);
            }
        }
    }
    for operation in accepted {
        if let Err(failure) = wait::finish(&client, operation, &args.wait).await {
            keep(failure);
        }
    }
    first.map_or(Ok(()), Err)
}
