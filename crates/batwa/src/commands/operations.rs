//! `operations`.

use batwa_api::{
    Timestamp,
    id::OperationId,
    list::Items,
    operation::{LogLine, Operation},
};
use serde_json::json;

use super::wait;
use crate::{
    cli::{Format, OperationsArgs, OperationsTask},
    client::Client,
    failure::Failure,
    output::{self, Table, age, plain, print_json, say},
};

/// `batwa operations`
pub(crate) async fn run(args: OperationsArgs) -> Result<(), Failure> {
    match args.task {
        None => list_operations(args).await,
        Some(OperationsTask::Info { id, read }) => {
            let client = Client::new(read.master)?;
            let (operation, value) = client.operation(parse_id(&id)?).await?;
            match read.format {
                Format::Json => print_json(&value),
                Format::Table => output::print(&describe(&operation, Timestamp::now())),
            }
        }
        Some(OperationsTask::Log { id, read }) => {
            let client = Client::new(read.master)?;
            let id = parse_id(&id)?.to_string();
            let value = client.get(&["operations", &id, "log"], &[]).await?;
            if read.format == Format::Json {
                return print_json(&value);
            }
            let log: Items<LogLine> = client.read(value)?;
            let lines: String = log
                .items
                .iter()
                .map(|line| format!("{} {}\n", line.at, plain(&line.text)))
                .collect();
            output::print(&lines)
        }
        Some(OperationsTask::Wait { id, wait, master }) => {
            let client = Client::new(master)?;
            let (_, value) = client.operation(parse_id(&id)?).await?;
            wait::finish(&client, value, &wait).await
        }
        Some(OperationsTask::Retry { id, wait, master }) => {
            let client = Client::new(master)?;
            let id = parse_id(&id)?.to_string();
            let path = ["operations", id.as_str(), "retry"];
            let accepted = client.post(&path, &json!({})).await?;
            wait::finish(&client, accepted, &wait).await
        }
        Some(OperationsTask::Cancel { id, master }) => {
            let client = Client::new(master)?;
            let id = parse_id(&id)?.to_string();
            client
                .post(&["operations", &id, "cancel"], &json!({}))
                .await?;
            say(&format!("operation {id} is asked to end"));
            Ok(())
        }
    }
}

async fn list_operations(args: OperationsArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let query: Vec<(&str, &str)> = [
        ("state", &args.state),
        ("agent", &args.agent),
        ("vm", &args.vm),
        ("kind", &args.kind),
        ("requested_by", &args.requested_by),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    .collect();
    let items = client.list(&["operations"], &query, args.limit).await?;
    if args.read.format == Format::Json {
        return print_json(&json!({ "items": items }));
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["ID", "KIND", "VM", "STATE", "BY", "AGE"]);
    for item in items {
        let operation: Operation = client.read(item)?;
        table.row([
            operation.id.to_string(),
            operation.kind.to_string(),
            format!("{}/{}", operation.agent_id, operation.vm),
            operation.state.as_str().to_owned(),
            operation.requested_by.unwrap_or_default(),
            age(operation.created_at, now),
        ]);
    }
    output::print(&table.render())
}

fn describe(operation: &Operation, now: Timestamp) -> String {
    let mut lines = vec![
        ("Id", operation.id.to_string()),
        ("Kind", operation.kind.to_string()),
        ("VM", format!("{}/{}", operation.agent_id, operation.vm)),
        ("State", operation.state.as_str().to_owned()),
    ];
    if let Some(stage) = operation.stage {
        lines.push(("Stage", wait::stage_words(stage).to_owned()));
    }
    if let Some(message) = &operation.message {
        lines.push(("", message.clone()));
    }
    if let Some(error) = &operation.error {
        lines.push(("Error", error.detail.clone()));
        lines.extend(error.hint.iter().map(|hint| ("Hint", hint.clone())));
        lines.extend(error.log.iter().map(|text| ("Log", text.clone())));
    }
    if let Some(user) = &operation.requested_by {
        lines.push(("By", user.clone()));
    }
    lines.push(("Age", age(operation.created_at, now)));
    lines
        .into_iter()
        .map(|(name, value)| format!("{name:<8}{}\n", plain(&value)))
        .collect()
}

fn parse_id(text: &str) -> Result<OperationId, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(format!(
            "`{text}` is no operation: `batwa operations` lists their ids"
        ))
    })
}
