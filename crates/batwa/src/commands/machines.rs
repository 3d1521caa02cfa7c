//! `agents`: machines, listed, looked at, and managed.

use batwa_api::{
    Timestamp,
    agent::{Agent, HealthStatus, LabelSource, LinkChange, Removal},
    id::AgentId,
    list::Items,
};
use serde_json::json;

use super::vms::health_words;
use crate::{
    cli::{AgentsArgs, Format, MachineTask, MasterArgs, ReadArgs},
    client::Client,
    failure::Failure,
    output::{self, Table, age, plain, print_json, say},
};

/// `batwa agents`
pub(crate) async fn agents(args: AgentsArgs) -> Result<(), Failure> {
    match args.task {
        None => list(args).await,
        Some(MachineTask::Info { id, read }) => info(&id, read).await,
        Some(MachineTask::Links { id, read }) => links(&id, read).await,
        Some(MachineTask::Set {
            id,
            name,
            labels,
            removed,
            notes,
            master,
        }) => {
            let client = Client::new(master)?;
            let id = parse_id(&id)?;
            let mut body = serde_json::Map::new();
            if !labels.is_empty() || !removed.is_empty() {
                let agent = read(&client, &id).await?;
                let mut all = agent.labels;
                all.extend(labels);
                all.retain(|key, _| !removed.contains(key));
                body.insert("labels".to_owned(), json!(all));
            }
            if let Some(name) = name {
                body.insert("name".to_owned(), json!(name));
            }
            if let Some(notes) = notes {
                body.insert("notes".to_owned(), json!(notes));
            }
            if body.is_empty() {
                return Err(Failure::usage(
                    "say what to set: `--name`, `--label`, `--remove-label` or `--notes`",
                ));
            }
            client.patch(&["agents", id.as_str()], &body).await?;
            say(&format!("machine `{id}` is changed"));
            Ok(())
        }
        Some(MachineTask::Approve {
            id,
            fingerprint,
            master,
        }) => {
            let body = json!({ "fingerprint": fingerprint });
            act(&id, "approve", &body, master, "is let in").await
        }
        Some(MachineTask::Cordon { id, master }) => {
            act(&id, "cordon", &json!({}), master, "takes no new VMs").await
        }
        Some(MachineTask::Uncordon { id, master }) => {
            act(&id, "uncordon", &json!({}), master, "takes new VMs again").await
        }
        Some(MachineTask::Revoke { id, master }) => {
            act(&id, "revoke", &json!({}), master, "is shut out").await
        }
        Some(MachineTask::Remove {
            id,
            dry_run,
            master,
        }) => remove(&id, dry_run, master).await,
    }
}

async fn list(args: AgentsArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let query: Vec<(&str, &str)> = [("q", &args.query), ("sort", &args.sort)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .collect();
    let items = client.list(&["agents"], &query, usize::MAX).await?;
    if args.read.format == Format::Json {
        return print_json(&json!({ "items": items }));
    }
    let now = Timestamp::now();
    let mut table = Table::new(&[
        "ID", "STATUS", "VMS", "CPUS", "MEMORY", "DRIVERS", "ADDRESS", "SEEN",
    ]);
    for item in items {
        let agent: Agent = client.read(item)?;
        let info = agent.info.as_ref();
        let drivers: Vec<String> = info
            .map(|info| info.drivers.as_slice())
            .unwrap_or_default()
            .iter()
            .map(|driver| match driver.health.status {
                HealthStatus::Ok => driver.kind.to_string(),
                HealthStatus::Stuck => format!(
                    "{} (stuck since {})",
                    driver.kind,
                    age(driver.health.since, now)
                ),
                status => format!("{} ({})", driver.kind, health_words(status)),
            })
            .collect();
        table.row([
            agent.id.to_string(),
            status_words(&agent),
            agent.vm_count.to_string(),
            info.map(|info| info.host.cpus.to_string())
                .unwrap_or_default(),
            info.map(|info| info.host.memory.to_string())
                .unwrap_or_default(),
            drivers.join(", "),
            agent.api_url.clone(),
            agent
                .last_seen
                .map(|then| format!("{} ago", age(then, now)))
                .unwrap_or_default(),
        ]);
    }
    output::print(&table.render())
}

fn status_words(agent: &Agent) -> String {
    let status = agent.status.as_str();
    match agent.cordoned {
        true => format!("{status}, cordoned"),
        false => status.to_owned(),
    }
}

async fn info(id: &str, args: ReadArgs) -> Result<(), Failure> {
    let client = Client::new(args.master)?;
    let id = parse_id(id)?;
    let value = client.get(&["agents", id.as_str()], &[]).await?;
    if args.format == Format::Json {
        return print_json(&value);
    }
    let agent: Agent = client.read(value)?;
    output::print(&describe(&agent, Timestamp::now()))
}

/// One line a fact; what is not known is left out.
fn describe(agent: &Agent, now: Timestamp) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("Id", agent.id.to_string()),
        ("Name", agent.name.clone()),
        (
            "Status",
            format!(
                "{}, since {}",
                status_words(agent),
                age(agent.status_since, now)
            ),
        ),
    ];
    lines.extend(agent.message.iter().map(|message| ("", message.clone())));
    lines.extend(
        agent
            .warnings
            .iter()
            .map(|warning| ("Warning", warning.clone())),
    );
    lines.push(("Address", agent.api_url.clone()));
    if let Some(seen) = agent.last_seen {
        lines.push(("Seen", format!("{} ago", age(seen, now))));
    }
    lines.push((
        "VMs",
        match agent.missing_count {
            0 => agent.vm_count.to_string(),
            missing => format!("{}, and {missing} missing", agent.vm_count),
        },
    ));
    if let Some(info) = &agent.info {
        let host = &info.host;
        let of = |free: Option<_>, all: Option<batwa_api::size::ByteSize>| match (free, all) {
            (Some(free), Some(all)) => Some(format!("{free} free of {all}")),
            (None, all) => all.map(|all| all.to_string()),
            (Some(free), None) => Some(format!("{free} free")),
        };
        lines.push(("Version", info.version.clone()));
        lines.push(("System", format!("{} ({})", host.os, host.arch)));
        lines.push(("CPUs", host.cpus.to_string()));
        lines.extend(of(host.memory_available, Some(host.memory)).map(|text| ("Memory", text)));
        lines.extend(of(host.disk_free, host.disk_total).map(|text| ("Disk", text)));
        lines.extend(
            host.load
                .map(|[a, b, c]| ("Load", format!("{a:.2} {b:.2} {c:.2}"))),
        );
        for driver in &info.drivers {
            let version = driver.version.as_deref().unwrap_or("of an unknown version");
            let mut words = format!(
                "{} {version}, {}",
                driver.kind,
                health_words(driver.health.status)
            );
            if let Some(message) = &driver.health.message {
                words.push_str(&format!(
                    " since {}: {message}",
                    age(driver.health.since, now)
                ));
            }
            lines.push(("Driver", words));
        }
    }
    for (key, value) in &agent.labels {
        let by = match agent.label_sources.get(key) {
            Some(LabelSource::Token) => " (by its join token)",
            Some(LabelSource::Agent) => " (by the machine)",
            Some(LabelSource::Admin) => " (by an admin)",
            None => "",
        };
        lines.push(("Label", format!("{key}={value}{by}")));
    }
    for line in agent.notes.lines() {
        lines.push(("Notes", line.to_owned()));
    }
    lines
        .into_iter()
        .map(|(name, value)| format!("{name:<9}{}\n", plain(&value)))
        .collect()
}

async fn links(id: &str, args: ReadArgs) -> Result<(), Failure> {
    let client = Client::new(args.master)?;
    let id = parse_id(id)?;
    let value = client.get(&["agents", id.as_str(), "links"], &[]).await?;
    if args.format == Format::Json {
        return print_json(&value);
    }
    let links: Items<LinkChange> = client.read(value)?;
    let mut table = Table::new(&["AT", "STATUS", "REASON"]);
    for change in links.items {
        table.row([
            change.at.to_string(),
            change.status.as_str().to_owned(),
            change.reason.unwrap_or_default(),
        ]);
    }
    output::print(&table.render())
}

async fn remove(id: &str, dry_run: bool, master: MasterArgs) -> Result<(), Failure> {
    let client = Client::new(master)?;
    let id = parse_id(id)?;
    let path = ["agents", id.as_str()];
    let removal: Removal = client.read(client.delete(&path, &[("dry_run", "true")]).await?)?;
    for sentence in &removal.says {
        say(sentence);
    }
    if dry_run {
        say("nothing was done: leave out `--dry-run` to remove it");
        return Ok(());
    }
    client.delete(&path, &[]).await?;
    say(&format!("machine `{id}` is removed"));
    Ok(())
}

async fn act(
    id: &str,
    action: &str,
    body: &serde_json::Value,
    master: MasterArgs,
    done: &str,
) -> Result<(), Failure> {
    let client = Client::new(master)?;
    let id = parse_id(id)?;
    client.post(&["agents", id.as_str(), action], body).await?;
    say(&format!("machine `{id}` {done}"));
    Ok(())
}

async fn read(client: &Client, id: &AgentId) -> Result<Agent, Failure> {
    client.read(client.get(&["agents", id.as_str()], &[]).await?)
}

fn parse_id(text: &str) -> Result<AgentId, Failure> {
    AgentId::parse(text).map_err(|error| {
        Failure::usage(format!("`{text}` is no machine: {error}"))
            .hint("`batwa agents` lists their ids")
    })
}
