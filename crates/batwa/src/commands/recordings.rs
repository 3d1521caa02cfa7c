//! `batwa recordings`: what terminals showed, searched, downloaded, deleted; and what is to be recorded from now on.

use std::io::Write;

use batwa_api::{
    Timestamp,
    recording::{Recordings, StartRecording},
};
use reqwest::Method;

use super::terminals;
use crate::{
    cli::{Format, RecordingsArgs, RecordingsTask},
    client::Client,
    failure::{Exit, Failure},
    output::{self, Table, age, plain, print_json, say},
};

/// `batwa recordings`
pub(crate) async fn run(args: RecordingsArgs) -> Result<(), Failure> {
    match args.task {
        None => list(args).await,
        Some(RecordingsTask::Get {
            recording,
            output,
            master,
        }) => {
            let client = Client::new(master)?;
            let (agent, id) = parts(&recording)?;
            match output {
                None => download(&client, agent, id, &mut std::io::stdout().lock()).await,
                Some(path) => {
                    let wrong = |error: std::io::Error| {
                        let path = path.display();
                        Failure::new(Exit::Failed, format!("cannot write `{path}`: {error}"))
                    };
                    let mut file = std::fs::File::create(&path).map_err(wrong)?;
                    download(&client, agent, id, &mut file).await
                }
            }
        }
        Some(RecordingsTask::Delete { recording, master }) => {
            let (agent, id) = parts(&recording)?;
            Client::new(master)?
                .delete(&["agents", agent, "recordings", id], &[])
                .await
                .map(drop)
        }
        Some(RecordingsTask::Start {
            session,
            input,
            master,
        }) => {
            let client = Client::new(master)?;
            let id = terminals::find(&client, &session).await?.to_string();
            client
                .put(&["terminals", &id, "recording"], &StartRecording { input })
                .await
                .map(drop)
        }
        Some(RecordingsTask::Stop { session, master }) => {
            let client = Client::new(master)?;
            let id = terminals::find(&client, &session).await?.to_string();
            client
                .delete(&["terminals", &id, "recording"], &[])
                .await
                .map(drop)
        }
    }
}

async fn list(args: RecordingsArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    for (name, value) in [
        ("q", &args.query),
        ("agent", &args.agent),
        ("vm", &args.vm),
        ("user", &args.user),
        ("since", &args.since),
        ("until", &args.until),
    ] {
        query.extend(value.as_deref().map(|value| (name, value)));
    }
    let value = client.get(&["recordings"], &query).await?;
    if args.read.format == Format::Json {
        return print_json(&value);
    }
    let found: Recordings = client.read(value)?;
    let now = Timestamp::now();
    let mut table = Table::new(&[
        "RECORDING",
        "VM",
        "OF",
        "LENGTH",
        "SIZE",
        "AGE",
        "ENDED",
        "FOUND",
    ]);
    for listed in found.items {
        let recording = listed.found.recording;
        let length = std::time::Duration::from_millis(recording.duration_ms);
        table.row([
            format!("{}/{}", listed.agent_id, recording.id),
            recording.vm.to_string(),
            recording.user,
            age(now, now + length),
            recording.bytes.to_string(),
            age(recording.started_at, now),
            recording.ended.unwrap_or_else(|| "goes on".to_owned()),
            listed
                .found
                .found
                .map(|place| place.line)
                .unwrap_or_default(),
        ]);
    }
    output::print(&table.render())?;
    if found.partial {
        say("there are more, or not all could be searched in time: name a VM, a machine or a time");
    }
    for silent in found.unanswered {
        say(&format!(
            "not asked: `{}`, {}",
            silent.agent_id,
            plain(&silent.reason)
        ));
    }
    Ok(())
}

/// `agent/id`, as the list names recordings.
fn parts(text: &str) -> Result<(&str, &str), Failure> {
    text.split_once('/').ok_or_else(|| {
        Failure::usage(format!("`{}` is no recording", plain(text)))
            .hint("`batwa recordings` lists them, as AGENT/ID")
    })
}

async fn download(
    client: &Client,
    agent: &str,
    id: &str,
    into: &mut impl Write,
) -> Result<(), Failure> {
    let path = ["agents", agent, "recordings", id, "cast"];
    let mut answer = client
        .request(Method::GET, &path, &[])
        .send()
        .await
        .map_err(|error| client.unreachable(error))?;
    if !answer.status().is_success() {
        let status = answer.status();
        let body = answer.bytes().await.unwrap_or_default();
        return Err(client.refusal(status, &body));
    }
    loop {
        let piece = answer.chunk().await;
        let Some(piece) = piece.map_err(|error| client.unreachable(error))? else {
            break;
        };
        match into.write_all(&piece) {
            // Whoever reads has enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|error| Failure::new(Exit::Failed, error))?,
        }
    }
    into.flush()
        .map_err(|error| Failure::new(Exit::Failed, error))
}
