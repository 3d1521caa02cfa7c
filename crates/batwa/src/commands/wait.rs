//! Waits for operations, showing how far they are.

use std::time::Duration;

use batwa_api::{
    id::OperationId,
    operation::{Operation, OperationState, Stage},
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    cli::{Format, WaitArgs},
    client::Client,
    failure::{Exit, Failure},
    output::{self, ProgressLine, plain, print_json, say},
};

/// How often the master is asked: often enough that a bar moves, rarely enough that nobody notices.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long a master that does not answer is borne with: it may be restarting, and the operation goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows an accepted operation's progress until its end, or only its id.
pub(crate) async fn finish(
    client: &Client,
    accepted: Value,
    args: &WaitArgs,
) -> Result<(), Failure> {
    let operation: Operation = client.read(accepted.clone())?;
    if args.no_wait {
        return match args.format {
            Format::Json => print_json(&accepted),
            Format::Table => output::print(&format!("{}\n", operation.id)),
        };
    }
    let (operation, value) = until_finished(client, operation, accepted, args.timeout).await?;
    if args.format == Format::Json {
        print_json(&value)?;
    }
    conclude(&operation)
}

/// Asks until the operation is finished.
async fn until_finished(
    client: &Client,
    mut operation: Operation,
    mut value: Value,
    timeout: Option<Duration>,
) -> Result<(Operation, Value), Failure> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut line = ProgressLine::new();
    let mut heard = Instant::now();
    while !operation.state.is_finished() {
        line.show(&words(&operation), &figures(&operation));
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            line.clear();
            return Err(still_running(operation.id));
        }
        tokio::select! {
            () = sleep(ASK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => {
                line.clear();
                return Err(still_running(operation.id));
            }
        }
        match client.operation(operation.id).await {
            Ok(answer) => {
                (operation, value) = answer;
                heard = Instant::now();
            }
            Err(failure) if failure.exit == Exit::Unreachable && heard.elapsed() < PATIENCE => {
                line.show("the master does not answer, asking again", "");
            }
            Err(failure) => {
                line.clear();
                return Err(failure);
            }
        }
    }
    line.clear();
    Ok((operation, value))
}

fn still_running(id: OperationId) -> Failure {
    Failure::new(Exit::StillRunning, format!("operation {id} goes on"))
        .hint(format!("wait for it with `batwa operations wait {id}`, or end it with `batwa operations cancel {id}`"))
}

/// Says how a finished operation ended.
fn conclude(operation: &Operation) -> Result<(), Failure> {
    let what = format!("{} {}", operation.kind, operation.place());
    match operation.state {
        OperationState::Succeeded => {
            say(&plain(&match &operation.message {
                Some(message) if operation.late => format!("{what}: done late: {message}"),
                _ => format!("{what}: done"),
            }));
            Ok(())
        }
        OperationState::Cancelled => {
            Err(Failure::new(Exit::Failed, format!("{what}: was cancelled")))
        }
        _ => Err(failed(operation, &what)),
    }
}

fn failed(operation: &Operation, what: &str) -> Failure {
    let Some(error) = &operation.error else {
        return Failure::new(Exit::Failed, format!("{what}: failed"));
    };
    for text in &error.log {
        say(&format!("  | {}", plain(text)));
    }
    let mut failure = Failure::new(Exit::Failed, plain(&format!("{what}: {}", error.detail)));
    failure.hint = error.hint.as_deref().map(plain);
    failure
}

/// What the operation is at, in words that change only when it comes to something new.
fn words(operation: &Operation) -> String {
    let stage = match (operation.state, operation.stage) {
        (OperationState::Queued, _) => "waiting for its turn",
        (_, None) => "under way",
        (_, Some(stage)) => stage_words(stage),
    };
    format!("{}: {stage}", operation.place())
}

fn figures(operation: &Operation) -> String {
    let mut parts = Vec::new();
    if let Some(percent) = operation.progress {
        parts.push(format!("{percent:.0} %"));
    }
    match (operation.bytes_done, operation.bytes_total) {
        (Some(done), Some(total)) => parts.push(format!("({done} of {total})")),
        (Some(done), None) => parts.push(format!("({done})")),
        _ => {}
    }
    if let Some(message) = &operation.message {
        parts.push(message.clone());
    }
    parts.join(" ")
}

/// The stage as people say it.
pub(crate) fn stage_words(stage: Stage) -> &'static str {
    match stage {
        Stage::ResolvingImage => "looking up the image",
        Stage::Downloading => "downloading the image",
        Stage::Verifying => "checking the image",
        Stage::BuildingImage => "building the image",
        Stage::Preparing => "preparing its disk",
        Stage::Booting => "booting",
        Stage::WaitingForSsh => "waiting for SSH",
        Stage::CloudInit => "cloud-init is at work",
        Stage::Starting => "starting",
        Stage::Stopping => "stopping",
        Stage::Restarting => "restarting",
        Stage::Suspending => "suspending",
        Stage::Deleting => "deleting",
        Stage::Recovering => "recovering",
        Stage::TakingSnapshot => "taking a snapshot",
        Stage::Restoring => "going back to the snapshot",
        Stage::DeletingSnapshot => "deleting the snapshot",
        Stage::Cloning => "copying its disk",
        Stage::Resizing => "changing its size",
        Stage::CleaningUp => "cleaning up",
    }
}
