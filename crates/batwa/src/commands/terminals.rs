//! `batwa terminals`: the sessions that there are, whose they are, and how long they live.

use batwa_api::{
    Timestamp,
    id::TerminalId,
    list::Items,
    terminal::{ListedTerminal, ShareTerminal, TerminalAccess, TerminalKind, UpdateTerminal},
};

use crate::{
    cli::{MasterArgs, ReadArgs, TerminalsArgs, TerminalsTask},
    client::Client,
    failure::Failure,
    output::{self, Cell, Table, age, plain, say},
};

/// `batwa terminals`
pub(crate) async fn run(args: TerminalsArgs) -> Result<(), Failure> {
    match args.task {
        None => list(args.read).await,
        Some(TerminalsTask::List(read)) => list(read).await,
        Some(TerminalsTask::Rename {
            session,
            name,
            master,
        }) => {
            let update = UpdateTerminal {
                name: Some(name),
                ..UpdateTerminal::default()
            };
            change(&session, master, &update).await.map(drop)
        }
        Some(TerminalsTask::Keep {
            session,
            time,
            master,
        }) => {
            let update = UpdateTerminal {
                keep: Some(time.is_none()),
                ttl_s: time.map(|time| time.as_secs()),
                ..UpdateTerminal::default()
            };
            let changed = change(&session, master, &update).await?;
            say(&format!("it lives on {}", lifetime(&changed)));
            Ok(())
        }
        Some(TerminalsTask::End { session, master }) => {
            let client = Client::new(master)?;
            let id = find(&client, &session).await?.to_string();
            client.delete(&["terminals", &id], &[]).await.map(drop)
        }
        Some(TerminalsTask::Share {
            session,
            user,
            write,
            master,
        }) => {
            let client = Client::new(master)?;
            let id = find(&client, &session).await?.to_string();
            let access = if write {
                TerminalAccess::Write
            } else {
                TerminalAccess::Watch
            };
            client
                .put(
                    &["terminals", &id, "guests", &user],
                    &ShareTerminal { access },
                )
                .await?;
            say(&format!(
                "`{}` comes to it with `batwa attach {id}`, or on the page",
                plain(&user)
            ));
            Ok(())
        }
        Some(TerminalsTask::Unshare {
            session,
            user,
            master,
        }) => {
            let client = Client::new(master)?;
            let id = find(&client, &session).await?.to_string();
            let path = ["terminals", &id, "guests"];
            let path = path.into_iter().chain(user.as_deref());
            client
                .delete(&path.collect::<Vec<_>>(), &[])
                .await
                .map(drop)
        }
    }
}

async fn change(
    session: &str,
    master: MasterArgs,
    update: &UpdateTerminal,
) -> Result<ListedTerminal, Failure> {
    let client = Client::new(master)?;
    let id = find(&client, session).await?.to_string();
    client.read(client.patch(&["terminals", &id], update).await?)
}

async fn list(args: ReadArgs) -> Result<(), Failure> {
    let client = Client::new(args.master)?;
    let value = client.get(&["terminals"], &[]).await?;
    output::show(args.format, &value, || {
        let sessions: Items<ListedTerminal> = client.read(value.clone())?;
        let now = Timestamp::now();
        let mut table = Table::new(&[
            "ID", "NAME", "VM", "KIND", "OWNER", "THERE", "GUESTS", "LIVES ON", "OPENED",
        ]);
        for listed in sessions.items {
            let lives_on = lifetime(&listed);
            let guests: Vec<_> = listed
                .guests
                .iter()
                .map(|guest| person(&guest.user, guest.access))
                .collect();
            let session = listed.terminal;
            let mut there: Vec<_> = session
                .present
                .iter()
                .map(|viewer| person(&viewer.user, viewer.access))
                .collect();
            let more = (session.viewers as usize).saturating_sub(there.len());
            if more > 0 {
                there.push(format!("{more} more"));
            }
            table.row([
                session.id.to_string().into(),
                session
                    .name
                    .map(|name| name.to_string())
                    .unwrap_or_default()
                    .into(),
                format!("{}/{}", listed.agent_id, session.vm).into(),
                match session.kind {
                    TerminalKind::Shell => "shell".into(),
                    TerminalKind::Console => "console".into(),
                },
                listed.opened_by.unwrap_or_default().into(),
                there.join(", ").into(),
                guests.join(", ").into(),
                lives_on.into(),
                Cell::ago(session.created_at, now),
            ]);
        }
        Ok(table)
    })
}

fn person(user: &str, access: TerminalAccess) -> String {
    let user = if user.is_empty() { "somebody" } else { user };
    match access {
        TerminalAccess::Write => user.to_owned(),
        TerminalAccess::Watch => format!("{user} (watches)"),
    }
}

/// How long a session lives on once nobody watches.
fn lifetime(listed: &ListedTerminal) -> String {
    if listed.terminal.keep {
        return "until it is ended".to_owned();
    }
    match listed.terminal.ttl_s {
        0 => "until nobody watches".to_owned(),
        ttl_s => {
            let now = Timestamp::now();
            let ttl = std::time::Duration::from_secs(ttl_s);
            format!("{} unwatched", age(now, now + ttl))
        }
    }
}

/// A session by its id, or by a name that only one has.
pub(super) async fn find(client: &Client, text: &str) -> Result<TerminalId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let sessions: Items<ListedTerminal> = client.read(client.get(&["terminals"], &[]).await?)?;
    let named: Vec<_> = sessions
        .items
        .iter()
        .filter(|listed| {
            let name = listed.terminal.name.as_ref();
            name.is_some_and(|name| name.as_str() == text)
        })
        .collect();
    match named.as_slice() {
        [only] => Ok(only.terminal.id),
        [] => Err(
            Failure::usage(format!("`{}` is no terminal session", plain(text)))
                .hint("`batwa terminals` lists those there are"),
        ),
        several => Err(Failure::usage(format!(
            "{} terminal sessions are called `{}`: say which by its id",
            several.len(),
            plain(text)
        ))),
    }
}
