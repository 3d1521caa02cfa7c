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
    output::{self, Progress, ProgressLine, plain, say},
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
            Format::Table => output::print(&format!("{}\n", operation.id)),
            format => print(format, &accepted, &operation),
        };
    }
    let (operation, value) = until_finished(client, operation, accepted, args.timeout).await?;
    if args.format != Format::Table {
        print(args.format, &value, &operation)?;
    }
    conclude(&operation)
}

fn print(format: Format, value: &Value, operation: &Operation) -> Result<(), Failure> {
    output::show(format, value, || {
        Ok(super::operations::table(std::slice::from_ref(operation)))
    })
}

/// Waits for an operation that was asked to be cancelled. That it had ended before is a failure.
pub(super) async fn until_cancelled(
    client: &Client,
    asked: Value,
    args: &WaitArgs,
) -> Result<(), Failure> {
    let operation: Operation = client.read(asked.clone())?;
    let (operation, _) = until_finished(client, operation, asked, args.timeout).await?;
    match operation.state {
        OperationState::Cancelled => Ok(()),
        _ => conclude(&operation).and_then(|()| {
            Err(Failure::new(
                Exit::Failed,
                format!("operation {} was done before", operation.id),
            ))
        }),
    }
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
        line.show(&progress(&operation));
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
                line.show(&Progress::words("the master does not answer, asking again"));
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

pub(super) fn still_running(id: OperationId) -> Failure {
    Failure::new(Exit::StillRunning, format!("operation {id} goes on"))
        .hint(format!("wait for it with `batwa operations wait {id}`, or end it with `batwa operations cancel {id}`"))
}

/// Says how a finished operation ended.
pub(super) fn conclude(operation: &Operation) -> Result<(), Failure> {
    let kind = operation.kind.as_str().replace('_', " ");
    let what = format!("{kind} {}", operation.place());
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

fn progress(operation: &Operation) -> Progress {
    let mut figures = Vec::new();
    match (operation.bytes_done, operation.bytes_total) {
        (Some(done), Some(total)) => figures.push(format!("({done} of {total})")),
        (Some(done), None) => figures.push(format!("({done})")),
        _ => {}
    }
    figures.extend(operation.message.clone());
    Progress {
        words: words(operation),
        percent: operation.progress,
        figures: figures.join(" "),
    }
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
        Stage::Mounting => "mounting the folder",
        Stage::Unmounting => "taking the folder out",
        Stage::CleaningUp => "cleaning up",
    }
}
