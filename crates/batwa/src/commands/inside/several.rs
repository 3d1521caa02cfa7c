//! One command in many VMs: output line by line with the VM's name, and a summary.

use std::sync::Arc;

use batwa_api::{
    exec::{ExecClientFrame, ExecCommand, ExecEnd, ExecStream},
    vm::ListedVm,
};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt, stream};
use tokio_tungstenite::tungstenite::Message;

use super::exec::{Happened, happened, start};
use crate::{
    client::{Client, VmRef, cut},
    failure::{Exit, Failure},
    output::{plain, print, say},
};

/// Longest line that is held back to be printed whole.
const MAX_LINE: usize = 64 << 10;

/// Runs `command` in every running VM that `search` finds, `parallel` at a time. Succeeds when all do.
pub(super) async fn run(
    client: &Client,
    search: &str,
    command: ExecCommand,
    parallel: usize,
) -> Result<u8, Failure> {
    let vms = found(client, search).await?;
    if vms.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("no running VM is found by `{search}`"),
        ));
    }
    let width = vms.iter().map(|vm| vm.to_string().len()).max().unwrap_or(0);
    let command = Arc::new(command);
    let ends: Vec<(VmRef, Result<ExecEnd, Failure>)> = stream::iter(vms)
        .map(|vm| {
            let command = ExecCommand::clone(&command);
            async move {
                let end = one(client, &vm, command, width).await;
                (vm, end)
            }
        })
        .buffer_unordered(parallel.max(1))
        .collect()
        .await;
    Ok(sum_up(&ends))
}

async fn found(client: &Client, search: &str) -> Result<Vec<VmRef>, Failure> {
    let query = [("q", search), ("state", "running")];
    let items = client.list(&["vms"], &query, usize::MAX).await?;
    items
        .into_iter()
        .map(|item| {
            let listed: ListedVm = client.read(item)?;
            Ok(VmRef {
                agent: listed.agent_id,
                name: listed.vm.name.clone(),
            })
        })
        .collect()
}

async fn one(
    client: &Client,
    vm: &VmRef,
    command: ExecCommand,
    width: usize,
) -> Result<ExecEnd, Failure> {
    let mut socket = start(client, vm, command).await?;
    // All share one standard input, which none can have.
    let eof = serde_json::to_string(&ExecClientFrame::Eof).unwrap_or_default();
    socket
        .send(Message::Text(eof.into()))
        .await
        .map_err(|_| cut())?;
    let name = vm.to_string();
    let mut out = Lines::new(&name, width);
    let mut err = Lines::new(&name, width);
    loop {
        match happened(&mut socket).await? {
            Happened::Printed(ExecStream::Stderr, bytes) => {
                for line in err.take(&bytes) {
                    say(&line);
                }
            }
            Happened::Printed(_, bytes) => {
                for line in out.take(&bytes) {
                    print(&format!("{line}\n"))?;
                }
            }
            Happened::Ended(end) => {
                if let Some(line) = out.rest() {
                    print(&format!("{line}\n"))?;
                }
                if let Some(line) = err.rest() {
                    say(&line);
                }
                return Ok(end);
            }
        }
    }
}

/// Cuts output into lines with the VM's name in front.
struct Lines {
    prefix: String,
    held: BytesMut,
}

impl Lines {
    fn new(name: &str, width: usize) -> Self {
        Self {
            prefix: format!("{name:width$} | "),
            held: BytesMut::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.held.extend_from_slice(bytes);
        let mut lines = Vec::new();
        loop {
            let end = self.held.iter().position(|byte| *byte == b'\n');
            let line = match end {
                Some(end) => self.held.split_to(end + 1),
                None if self.held.len() > MAX_LINE => self.held.split(),
                None => return lines,
            };
            lines.push(self.line(&line));
        }
    }

    fn rest(&mut self) -> Option<String> {
        let rest = self.held.split();
        (!rest.is_empty()).then(|| self.line(&rest))
    }

    fn line(&self, line: &[u8]) -> String {
        let text = String::from_utf8_lossy(line);
        format!(
            "{}{}",
            self.prefix,
            plain(text.trim_end_matches(['\r', '\n']))
        )
    }
}

/// Says how it went; the code to end with.
fn sum_up(ends: &[(VmRef, Result<ExecEnd, Failure>)]) -> u8 {
    let mut failed: Vec<String> = ends
        .iter()
        .filter_map(|(vm, end)| {
            let why = match end {
                Ok(ExecEnd { code: Some(0), .. }) => return None,
                Ok(ExecEnd {
                    code: Some(code), ..
                }) => format!("ended with {code}"),
                Ok(end) => plain(&end.reason),
                Err(failure) => failure.message.clone(),
            };
            Some(format!("{vm}: {why}"))
        })
        .collect();
    failed.sort();
    say(&format!(
        "{} of {} succeeded",
        ends.len() - failed.len(),
        ends.len()
    ));
    for line in &failed {
        say(line);
    }
    u8::from(!failed.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_whose_it_is() {
        let mut lines = Lines::new("lab/web", 9);
        assert_eq!(lines.take(b"one\ntw"), ["lab/web   | one"]);
        assert_eq!(lines.take(b"o\r\n\n"), ["lab/web   | two", "lab/web   | "]);
        assert_eq!(lines.rest(), None);
        assert!(lines.take(b"\x1b[31mred").is_empty());
        assert_eq!(lines.rest().unwrap(), "lab/web   | \u{fffd}[31mred");
    }
}
