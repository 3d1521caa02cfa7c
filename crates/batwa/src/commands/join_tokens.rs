//! `batwa join-token`: what machines join with.

use batwa_api::{
    Timestamp,
    list::Items,
    tunnel::{CreateJoinToken, CreatedJoinToken, JoinTokenInfo},
};

use crate::{
    cli::{CreateJoinTokenArgs, Format, JoinTokenTask, MasterArgs, ReadArgs},
    client::Client,
    failure::Failure,
    output::{self, Cell, Table},
};

/// `batwa join-token`
pub(crate) async fn run(task: JoinTokenTask) -> Result<(), Failure> {
    match task {
        JoinTokenTask::Create(args) => create(args).await,
        JoinTokenTask::List(args) => list(args).await,
        JoinTokenTask::Revoke { id, master } => revoke(&id, master).await,
    }
}

async fn create(args: CreateJoinTokenArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let body = CreateJoinToken {
        uses: args.uses,
        expires_in_s: args.expires.as_secs(),
        labels: args.labels.into_iter().collect(),
        approve: !args.no_approve,
    };
    let value = client.post(&["join-tokens"], &body).await?;
    let created: CreatedJoinToken = client.read(value.clone())?;
    if args.read.format != Format::Table {
        return output::show(args.read.format, &value, || {
            let mut table = Table::new(&["ID", "TOKEN", "EXPIRES", "COMMAND"]);
            table.row([
                created.id.to_string(),
                created.token,
                created.expires_at.to_string(),
                created.command,
            ]);
            Ok(table)
        });
    }
    output::say(&format!(
        "id {}, until {}; the token is shown this once. On a machine with Batwa: batwa agent join URL TOKEN. To install and join:",
        created.id, created.expires_at
    ));
    output::print(&format!("{}\n", output::plain(&created.command)))?;
    let elsewhere: Vec<_> = created
        .ways
        .iter()
        .filter(|way| !way.this_machine_only)
        .map(|way| output::plain(&way.url))
        .collect();
    match &elsewhere[..] {
        [] => output::say(
            "this address works on the master's own machine only: let it listen where others reach it (--host), or say where they do (--public-url)",
        ),
        [_] => {}
        [_, others @ ..] => output::say(&format!(
            "the master has other addresses too: {}; write the one that the machine reaches",
            others.join(", ")
        )),
    }
    Ok(())
}

async fn list(args: ReadArgs) -> Result<(), Failure> {
    let client = Client::new(args.master)?;
    let value = client.get(&["join-tokens"], &[]).await?;
    output::show(args.format, &value, || {
        let tokens: Items<JoinTokenInfo> = client.read(value.clone())?;
        let now = Timestamp::now();
        let mut table = Table::new(&[
            "ID", "STATUS", "USED", "APPROVES", "LABELS", "EXPIRES", "BY", "MACHINES",
        ]);
        for token in tokens.items {
            let labels: Vec<_> = token
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let machines: Vec<_> = token.agents.iter().map(ToString::to_string).collect();
            table.row([
                token.id.to_string().into(),
                Cell::of(
                    token.status.as_str().replace('_', " "),
                    token.status.as_str(),
                ),
                format!("{} of {}", token.used, token.uses).into(),
                if token.approve { "yes" } else { "no" }.into(),
                labels.join(", ").into(),
                Cell::ends(token.expires_at, now),
                token.created_by.into(),
                machines.join(", ").into(),
            ]);
        }
        Ok(table)
    })
}

async fn revoke(id: &str, master: MasterArgs) -> Result<(), Failure> {
    Client::new(master)?
        .delete(&["join-tokens", id], &[])
        .await?;
    Ok(())
}
