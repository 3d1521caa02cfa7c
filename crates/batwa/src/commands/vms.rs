//! `ls`, `info`, `launch`, and what is done to VMs.

use batwa_api::{
    Timestamp,
    agent::HealthStatus,
    cloud_init::UseTemplate,
    id::AgentId,
    name::VmName,
    vm::{CreateVm, ListedVm, VmDetails, VmSpec},
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{inside::saved, mounts, networks, set, templates, wait};
use crate::{
    ask,
    cli::{ActArgs, DeleteArgs, DismissArgs, InfoArgs, LaunchArgs, LsArgs, PurgeArgs, WaitArgs},
    client::{Client, VmRef},
    failure::{Exit, Failure},
    output::{self, Cell, Table, age, say},
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
    output::show(args.read.format, &json!({ "items": &items }), || {
        let now = Timestamp::now();
        let mut table = Table::new(&[
            "VM", "STATE", "IPV4", "IMAGE", "CPUS", "MEMORY", "DISK", "SEEN",
        ]);
        for item in &items {
            let listed: ListedVm = client.read(item.clone())?;
            let state = Cell::of(state_words(&listed), program_state(&listed));
            let vm = listed.vm;
            table.row([
                format!("{}/{}", listed.agent_id, vm.name).into(),
                state,
                vm.ipv4.first().cloned().unwrap_or_default().into(),
                vm.image
                    .clone()
                    .or_else(|| vm.release.clone())
                    .unwrap_or_default()
                    .into(),
                vm.cpus.map(|n| n.to_string()).unwrap_or_default().into(),
                Cell::size(vm.memory),
                Cell::size(vm.disk),
                Cell::ago(vm.observed_at, now),
            ]);
        }
        Ok(table)
    })
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

/// The state without the mark of what may be stale: its age says that to programs.
fn program_state(listed: &ListedVm) -> String {
    match listed.missing_since {
        Some(_) => "missing".to_owned(),
        None => listed.vm.state.to_string(),
    }
}

/// `batwa info`
pub(crate) async fn info(args: InfoArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let vm = client.find(&args.vm).await?;
    let value = client
        .get(&["agents", vm.agent.as_str(), "vms", vm.name.as_str()], &[])
        .await?;
    output::show(args.read.format, &value, || {
        Ok(describe(&client.read(value.clone())?, Timestamp::now()))
    })
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
fn describe(details: &VmDetails, now: Timestamp) -> Table {
    let listed = &details.vm;
    let vm = &listed.vm;
    let mut table = Table::of_facts();
    table.fact("Name", vm.name.to_string());
    table.fact(
        "Machine",
        Cell::of(
            format!("{} ({})", listed.agent_id, listed.agent_name),
            listed.agent_id.to_string(),
        ),
    );
    table.fact(
        "State",
        Cell::of(
            format!("{}, since {}", vm.state, age(vm.state_since, now)),
            vm.state.to_string(),
        ),
    );
    table.maybe("", vm.message.clone());
    table.maybe("Called", listed.display_name.clone());
    if let Some(since) = listed.missing_since {
        table.fact(
            "Missing",
            Cell::of(
                format!(
                    "since {} ago: its machine does not know it any more; `batwa dismiss` takes it off the list",
                    age(since, now)
                ),
                since.to_string(),
            ),
        );
    }
    table.fact("Seen", Cell::ago(vm.observed_at, now));
    let link = &details.link;
    let mut link_words = format!("{}, since {}", link.status.as_str(), age(link.since, now));
    if let Some(message) = &link.message {
        link_words.push_str(": ");
        link_words.push_str(message);
    }
    table.fact("Link", Cell::of(link_words, link.status.as_str()));
    let ill = details
        .driver_health
        .as_ref()
        .filter(|health| health.status != HealthStatus::Ok);
    table.maybe(
        "Driver is",
        ill.map(|health| {
            let message = health.message.as_deref().unwrap_or("no reason known");
            let words = health_words(health.status);
            Cell::of(
                format!("{words}, since {}: {message}", age(health.since, now)),
                words,
            )
        }),
    );
    table.maybe("Files", vm.location.clone());
    table.maybe(
        "IPv4",
        Some(vm.ipv4.join(", ")).filter(|text| !text.is_empty()),
    );
    table.maybe("Image", vm.image.clone());
    table.maybe("Release", vm.release.clone());
    table.maybe("CPUs", vm.cpus.map(|n| n.to_string()));
    let size = |size: Option<_>| size.map(|size| Cell::size(Some(size)));
    table.maybe("Memory", size(vm.memory));
    table.maybe("Disk", size(vm.disk));
    if let Some(usage) = &vm.usage {
        table.maybe("CPU use", usage.cpu_percent.map(|n| format!("{n:.0} %")));
        table.maybe("Memory use", size(usage.memory_used));
        table.maybe("Disk use", size(usage.disk_used));
        table.maybe(
            "Load",
            usage.load.map(|[a, b, c]| format!("{a:.2} {b:.2} {c:.2}")),
        );
    }
    table.fact(
        "Driver",
        match &vm.acceleration {
            Some(acceleration) => format!("{} ({acceleration})", vm.driver),
            None => vm.driver.to_string(),
        },
    );
    table.maybe("Created", vm.created_at.map(|at| Cell::ago(at, now)));
    table.maybe("Started", vm.started_at.map(|at| Cell::ago(at, now)));
    table.maybe("Stops", vm.shutdown_at.map(|at| Cell::ends(at, now)));
    for mount in &vm.mounts {
        table.fact("Mount", mounts::words(mount));
    }
    for network in &vm.networks {
        table.fact("Network", networks::words(network));
    }
    for forward in &vm.forwards {
        table.fact("Forward", saved::fact(forward));
    }
    for (key, value) in &listed.labels {
        let by = listed.label_sources.get(key);
        let by = by.map_or_else(String::new, |account| format!(" (set by {account})"));
        table.fact("Label", format!("{key}={value}{by}"));
    }
    for (name, value) in set::settings_facts(vm, now) {
        table.fact(name, value);
    }
    for (n, line) in listed.notes.lines().enumerate() {
        table.fact(if n == 0 { "Notes" } else { "" }, line.to_owned());
    }
    table
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
    let cloud_init = args
        .cloud_init
        .as_deref()
        .map(templates::read)
        .transpose()?;
    let settings = Some(set::settings(&args.settings)).filter(|change| !change.is_empty());
    let default = VmSpec::default();
    let spec = VmSpec {
        image: args.image.unwrap_or(default.image),
        cpus: args.cpus.unwrap_or(default.cpus),
        memory: args.memory.unwrap_or(default.memory),
        disk: args.disk.unwrap_or(default.disk),
        cloud_init,
        ssh_keys: Vec::new(),
        driver: args.driver,
        networks: args.networks,
        labels: args.labels.into_iter().collect(),
        display_name: args.display_name,
        notes: args.notes,
        settings,
    };
    let client = Client::new(args.master)?;
    let body = CreateVm {
        name: args.name,
        spec,
        template: args.template.map(|name| UseTemplate {
            name,
            variables: args.variables.into_iter().collect(),
        }),
        own_ssh_keys: !args.no_ssh_keys,
    };
    let mut request = client
        .request(
            Method::POST,
            &["agents", agent.as_str(), "vms"],
            &args.delivery.query(),
        )
        .json(&body);
    if let Some(key) = &args.idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    let accepted = client.answer(request).await?;
    wait::finish(&client, accepted, &args.wait).await
}

/// `batwa start`, `restart`, `suspend`, `resume`, `recover`
pub(crate) async fn act(args: ActArgs, action: &str) -> Result<(), Failure> {
    let client = Client::new(args.master.clone())?;
    let vms = all(&client, &args.vms).await?;
    let query = args.delivery.query();
    each(&client, &vms, &args.wait, async |vm| {
        client.ask(&path(vm, action), &query, &json!({})).await
    })
    .await
}

/// `batwa purge`
pub(crate) async fn purge(args: PurgeArgs) -> Result<(), Failure> {
    ask::confirm(args.confirm, &for_good(&args.act.vms))?;
    act(args.act, "purge").await
}

/// `batwa delete`
pub(crate) async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let act = args.act;
    let mut query = act.delivery.query();
    if args.purge {
        ask::confirm(args.confirm, &for_good(&act.vms))?;
        query.push(("purge", "true"));
    }
    let client = Client::new(act.master.clone())?;
    let vms = all(&client, &act.vms).await?;
    each(&client, &vms, &act.wait, async |vm| {
        let path = ["agents", vm.agent.as_str(), "vms", vm.name.as_str()];
        client.delete(&path, &query).await
    })
    .await
}

fn for_good(vms: &[String]) -> String {
    format!("Remove {} with all data for good?", vms.join(", "))
}

/// The path of an action.
pub(super) fn path<'a>(vm: &'a VmRef, action: &'a str) -> [&'a str; 5] {
    ["agents", vm.agent.as_str(), "vms", vm.name.as_str(), action]
}

/// All VMs that are named: every name is understood before anything is done to any.
pub(super) async fn all(client: &Client, names: &[String]) -> Result<Vec<VmRef>, Failure> {
    let mut vms = Vec::new();
    for name in names {
        vms.push(client.find(name).await?);
    }
    Ok(vms)
}

/// Asks for the same of every VM, then waits for each. One that fails does not keep the others from being asked;
/// the first failure is the command's, the others are said.
pub(super) async fn each(
    client: &Client,
    vms: &[VmRef],
    wait: &WaitArgs,
    ask: impl AsyncFn(&VmRef) -> Result<Value, Failure>,
) -> Result<(), Failure> {
    let mut first: Option<Failure> = None;
    let mut accepted = Vec::new();
    let mut keep = |failure: Failure| match &first {
        Some(_) => output::say(&failure.to_string()),
        None => first = Some(failure),
    };
    for vm in vms {
        match ask(vm).await {
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
        if let Err(failure) = wait::finish(client, operation, wait).await {
            keep(failure);
        }
    }
    first.map_or(Ok(()), Err)
}
