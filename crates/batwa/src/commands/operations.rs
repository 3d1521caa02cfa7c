//! `operations`.

use std::time::Duration;

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
    failure::{Exit, Failure},
    output::{self, Cell, Table, plain, say},
};

/// How often a log is read that is followed.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// `batwa operations`
pub(crate) async fn run(args: OperationsArgs) -> Result<(), Failure> {
    match args.task {
        None => list_operations(args).await,
        Some(OperationsTask::Info { id, read }) => {
            let client = Client::new(read.master)?;
            let (operation, value) = client.operation(parse_id(&id)?).await?;
            output::show(read.format, &value, || {
                Ok(describe(&operation, Timestamp::now()))
            })
        }
        Some(OperationsTask::Log { id, read }) => {
            let client = Client::new(read.master)?;
            let id = parse_id(&id)?.to_string();
            let value = client.get(&["operations", &id, "log"], &[]).await?;
            let log: Items<LogLine> = client.read(value.clone())?;
            if read.format == Format::Table {
                return output::print(&lines(&log.items));
            }
            output::show(read.format, &value, || {
                let mut table = Table::new(&["AT", "TEXT"]);
                for line in log.items {
                    table.row([line.at.to_string(), line.text]);
                }
                Ok(table)
            })
        }
        Some(OperationsTask::Follow { id, master }) => follow(&id, Client::new(master)?).await,
        Some(OperationsTask::Wait { id, wait, master }) => {
            let client = Client::new(master)?;
            let (_, value) = client.operation(parse_id(&id)?).await?;
            wait::finish(&client, value, &wait).await
        }
        Some(OperationsTask::Retry {
            id,
            delivery,
            wait,
            master,
        }) => {
            let client = Client::new(master)?;
            let id = parse_id(&id)?.to_string();
            let path = ["operations", id.as_str(), "retry"];
            let accepted = client.ask(&path, &delivery.query(), &json!({})).await?;
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
    output::show(args.read.format, &json!({ "items": &items }), || {
        let operations: Vec<Operation> = items
            .iter()
            .map(|item| client.read(item.clone()))
            .collect::<Result<_, _>>()?;
        Ok(table(&operations))
    })
}

/// Operations, a row each.
pub(super) fn table(operations: &[Operation]) -> Table {
    let now = Timestamp::now();
    let mut table = Table::new(&["ID", "KIND", "VM", "STATE", "BY", "ASKED"]);
    for operation in operations {
        table.row([
            operation.id.to_string().into(),
            operation.kind.to_string().into(),
            format!("{}/{}", operation.agent_id, operation.vm).into(),
            operation.state.as_str().into(),
            operation.requested_by.clone().unwrap_or_default().into(),
            Cell::ago(operation.created_at, now),
        ]);
    }
    table
}

/// Prints the log as it grows, then how it ended.
async fn follow(id: &str, client: Client) -> Result<(), Failure> {
    let id = parse_id(id)?;
    let mut printed = 0;
    loop {
        // First how far it is: what it says before its end is in the log that is read after that.
        let (operation, _) = client.operation(id).await?;
        let path = ["operations", &id.to_string(), "log"];
        let log = match client.get(&path, &[]).await {
            Ok(log) => client.read::<Items<LogLine>>(log)?.items,
            // Its machine is away for the moment; the log is read when it is back.
            Err(failure) if failure.exit == Exit::Unreachable => Vec::new(),
            Err(failure) => return Err(failure),
        };
        if let Some(new) = log.get(printed..) {
            output::print(&lines(new))?;
            printed = log.len();
        }
        if operation.state.is_finished() {
            return wait::conclude(&operation);
        }
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Err(wait::still_running(id)),
        }
    }
}

fn lines(log: &[LogLine]) -> String {
    log.iter()
        .map(|line| format!("{} {}\n", line.at, plain(&line.text)))
        .collect()
}

fn describe(operation: &Operation, now: Timestamp) -> Table {
    let mut table = Table::of_facts();
    table.fact("Id", operation.id.to_string());
    table.fact("Kind", operation.kind.to_string());
    table.fact("VM", format!("{}/{}", operation.agent_id, operation.vm));
    table.maybe("New VM", operation.target.as_ref().map(ToString::to_string));
    table.maybe(
        "Snapshot",
        operation.snapshot.as_ref().map(ToString::to_string),
    );
    table.fact("State", operation.state.as_str());
    table.maybe("Stage", operation.stage.map(wait::stage_words));
    table.maybe("", operation.message.clone());
    if let Some(error) = &operation.error {
        table.fact("Error", error.detail.clone());
        table.maybe("Hint", error.hint.clone());
        for line in &error.log {
            table.fact("Log", line.clone());
        }
    }
    table.maybe("By", operation.requested_by.clone());
    table.maybe("From", operation.requested_from.clone());
    table.maybe(
        "Kept",
        operation.waits_until.map(|until| {
            let words = format!("for its machine to come online, until {until}");
            Cell::of(words, until.to_string())
        }),
    );
    table.fact("Asked", Cell::ago(operation.created_at, now));
    table.maybe("Began", operation.started_at.map(|at| Cell::ago(at, now)));
    table.maybe("Ended", operation.finished_at.map(|at| Cell::ago(at, now)));
    table
}

fn parse_id(text: &str) -> Result<OperationId, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(format!(
            "`{text}` is no operation: `batwa operations` lists their ids"
        ))
    })
}
