//! `agents`: machines, listed, looked at, and managed.

use batwa_api::{
    Timestamp,
    agent::{Agent, AgentInfo, HealthStatus, LabelSource, LinkChange, Removal},
    id::AgentId,
    list::Items,
    size::ByteSize,
};
use serde_json::json;

use super::vms::health_words;
use crate::{
    ask,
    cli::{AgentsArgs, ConfirmArgs, MachineTask, MasterArgs, ReadArgs},
    client::Client,
    failure::Failure,
    output::{self, Cell, Table, age, say},
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
        Some(MachineTask::Revoke {
            id,
            confirm,
            master,
        }) => {
            ask::confirm(confirm, &format!("Shut the machine {id} out?"))?;
            act(&id, "revoke", &json!({}), master, "is shut out").await
        }
        Some(MachineTask::Remove {
            id,
            dry_run,
            confirm,
            master,
        }) => {
            let confirm = (!dry_run).then_some(confirm);
            remove(&id, confirm, master).await
        }
    }
}

async fn list(args: AgentsArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let query: Vec<(&str, &str)> = [("q", &args.query), ("sort", &args.sort)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .collect();
    let items = client.list(&["agents"], &query, usize::MAX).await?;
    output::show(args.read.format, &json!({ "items": &items }), || {
        let now = Timestamp::now();
        let mut table = Table::new(&[
            "ID", "STATUS", "VMS", "CPUS", "MEMORY", "DRIVERS", "ADDRESS", "SEEN",
        ]);
        for item in &items {
            let agent: Agent = client.read(item.clone())?;
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
                agent.id.to_string().into(),
                Cell::of(status_words(&agent), agent.status.as_str()),
                agent.vm_count.to_string().into(),
                info.map(|info| info.host.cpus.to_string())
                    .unwrap_or_default()
                    .into(),
                Cell::size(info.map(|info| info.host.memory)),
                drivers.join(", ").into(),
                agent.api_url.clone().into(),
                Cell::maybe_ago(agent.last_seen, now),
            ]);
        }
        Ok(table)
    })
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
    output::show(args.format, &value, || {
        Ok(describe(&client.read(value.clone())?, Timestamp::now()))
    })
}

/// One line a fact; what is not known is left out.
fn describe(agent: &Agent, now: Timestamp) -> Table {
    let mut table = Table::of_facts();
    table.fact("Id", agent.id.to_string());
    table.fact("Name", agent.name.clone());
    let since = age(agent.status_since, now);
    table.fact(
        "Status",
        Cell::of(
            format!("{}, since {since}", status_words(agent)),
            agent.status.as_str(),
        ),
    );
    table.maybe("", agent.message.clone());
    for warning in &agent.warnings {
        table.fact("Warning", warning.clone());
    }
    table.fact("Address", agent.api_url.clone());
    table.maybe("Seen", agent.last_seen.map(|at| Cell::ago(at, now)));
    table.fact(
        "VMs",
        match agent.missing_count {
            0 => agent.vm_count.to_string(),
            missing => format!("{}, and {missing} missing", agent.vm_count),
        },
    );
    if let Some(info) = &agent.info {
        of_host(&mut table, info, now);
    }
    for (key, value) in &agent.labels {
        let by = match agent.label_sources.get(key) {
            Some(LabelSource::Token) => " (by its join token)",
            Some(LabelSource::Agent) => " (by the machine)",
            Some(LabelSource::Admin) => " (by an admin)",
            None => "",
        };
        let label = format!("{key}={value}");
        table.fact("Label", Cell::of(format!("{label}{by}"), label));
    }
    for line in agent.notes.lines() {
        table.fact("Notes", line);
    }
    table
}

/// What the machine's agent says of it.
fn of_host(table: &mut Table, info: &AgentInfo, now: Timestamp) {
    let host = &info.host;
    let of = |free: Option<ByteSize>, all: Option<ByteSize>| match (free, all) {
        (Some(free), Some(all)) => Some(format!("{free} free of {all}")),
        (None, all) => all.map(|all| all.to_string()),
        (Some(free), None) => Some(format!("{free} free")),
    };
    table.fact("Version", info.version.clone());
    table.fact("System", format!("{} ({})", host.os, host.arch));
    table.fact("CPUs", host.cpus.to_string());
    table.maybe("Memory", of(host.memory_available, Some(host.memory)));
    table.maybe("Disk", of(host.disk_free, host.disk_total));
    table.maybe(
        "Load",
        host.load.map(|[a, b, c]| format!("{a:.2} {b:.2} {c:.2}")),
    );
    for driver in &info.drivers {
        let version = driver.version.as_deref().unwrap_or("of an unknown version");
        let health = &driver.health;
        let mut words = format!("{} {version}, {}", driver.kind, health_words(health.status));
        if let Some(message) = &health.message {
            words.push_str(&format!(" since {}: {message}", age(health.since, now)));
        }
        table.fact("Driver", words);
    }
}

async fn links(id: &str, args: ReadArgs) -> Result<(), Failure> {
    let client = Client::new(args.master)?;
    let id = parse_id(id)?;
    let value = client.get(&["agents", id.as_str(), "links"], &[]).await?;
    output::show(args.format, &value, || {
        let links: Items<LinkChange> = client.read(value.clone())?;
        let mut table = Table::new(&["AT", "STATUS", "REASON"]);
        for change in links.items {
            table.row([
                change.at.to_string(),
                change.status.as_str().to_owned(),
                change.reason.unwrap_or_default(),
            ]);
        }
        Ok(table)
    })
}

/// Says what would be taken away, and takes it away unless that was all that was wanted.
async fn remove(id: &str, confirm: Option<ConfirmArgs>, master: MasterArgs) -> Result<(), Failure> {
    let client = Client::new(master)?;
    let id = parse_id(id)?;
    let path = ["agents", id.as_str()];
    let removal: Removal = client.read(client.delete(&path, &[("dry_run", "true")]).await?)?;
    for sentence in &removal.says {
        say(sentence);
    }
    let Some(confirm) = confirm else {
        say("nothing was done: leave out `--dry-run` to remove it");
        return Ok(());
    };
    ask::confirm(confirm, &format!("Remove the machine {id} from the list?"))?;
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
