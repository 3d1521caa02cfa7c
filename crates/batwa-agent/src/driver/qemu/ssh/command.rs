//! One command over one SSH connection, its streams apart.
//!
//! A connection a command: what is read slowly in one must not hold up another, and SSH's library serves the channels
//! of a connection in a row.

use std::time::Duration;

use batwa_api::{
    exec::{ExecCommand, ExecEnd},
    terminal::TermSize,
};
use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig, client::Msg};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Session, SshError};
use crate::driver::{
    inside::{ChunkReader, Exec, Life, Mark, folder, quoted},
    qemu::process::Process,
};

/// How long output is awaited after the command ended: something it left behind may hold its streams for ever.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How long the end of an abandoned command may take.
const END_DEADLINE: Duration = Duration::from_secs(20);
/// The stream number of standard error (RFC 4254).
const STDERR: u32 = 1;

/// What moves a command, and sees its end.
struct Attendant {
    session: Session,
    incoming: ChannelReadHalf,
    outgoing: ChannelWriteHalf<Msg>,
    stdout: mpsc::Sender<Bytes>,
    stderr: mpsc::Sender<Bytes>,
    sizes: watch::Receiver<TermSize>,
    over: CancellationToken,
    mark: Mark,
    process: Process,
}

impl Session {
    /// Runs a command; what it gives beside it is the command's task. `process` is the VM's, to tell its end from a
    /// lost connection.
    pub(in crate::driver::qemu) async fn command(
        self,
        command: &ExecCommand,
        process: Process,
    ) -> Result<(Exec, impl Future<Output = ()> + Send + 'static), SshError> {
        let channel = self.handle.channel_open_session().await?;
        let first = command.tty.unwrap_or_default().clamped();
        if command.tty.is_some() {
            let (cols, rows) = (first.cols.into(), first.rows.into());
            channel
                .request_pty(false, "xterm-256color", cols, rows, 0, 0, &[])
                .await?;
        }
        let mark = Mark::new();
        let mut line = format!("exec {}", quoted(mark.argv(command)));
        if let Some(cwd) = &command.cwd {
            line = format!("cd {} && {line}", quoted([folder(cwd)]));
        }
        channel.exec(true, line).await?;
        let (incoming, outgoing) = channel.split();
        let stdin = outgoing.make_writer();
        let (size, sizes) = watch::channel(first);
        let (stdout, stdout_reader) = ChunkReader::channel();
        let (stderr, stderr_reader) = ChunkReader::channel();
        let (life, over) = Life::new();
        let (report, exit) = oneshot::channel();
        let attendant = Attendant {
            session: self,
            incoming,
            outgoing,
            stdout,
            stderr,
            sizes,
            over,
            mark,
            process,
        };
        let exec = Exec {
            stdin: Box::pin(stdin),
            stdout: Box::pin(stdout_reader),
            stderr: Box::pin(stderr_reader),
            size: command.tty.is_some().then_some(size),
            exit,
            life,
        };
        Ok((exec, attendant.attend(report)))
    }
}

impl Attendant {
    async fn attend(mut self, report: oneshot::Sender<ExecEnd>) {
        match self.follow().await {
            Some(end) => {
                let _ = report.send(end);
                drop((self.stdout, self.stderr));
                self.session.close().await;
            }
            None => self.abandon().await,
        }
    }

    /// How it ended; `None` when the caller went first.
    async fn follow(&mut self) -> Option<ExecEnd> {
        let mut end = None;
        loop {
            tokio::select! {
                () = self.over.cancelled() => return None,
                Ok(()) = self.sizes.changed() => {
                    let size = self.sizes.borrow_and_update().clamped();
                    let _ = self.outgoing.window_change(size.cols.into(), size.rows.into(), 0, 0).await;
                }
                message = self.incoming.wait() => match message {
                    Some(ChannelMsg::Data { data }) => deliver(&self.stdout, data, &self.over).await?,
                    Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => {
                        deliver(&self.stderr, data, &self.over).await?;
                    }
                    Some(ChannelMsg::ExitStatus { exit_status }) => {
                        end = Some(ExecEnd::exited(i32::try_from(exit_status).unwrap_or(i32::MAX)));
                    }
                    Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                        end = Some(ExecEnd::signalled(&name_of(&signal_name)));
                    }
                    Some(ChannelMsg::Failure) => {
                        return Some(ExecEnd::unseen("the VM's SSH server refused to run it"));
                    }
                    Some(ChannelMsg::Close) | None => break,
                    _ => {}
                },
                () = sleep(DRAIN_GRACE), if end.is_some() => break,
            }
        }
        if end.is_some() {
            return end;
        }
        let stopped = self.process.ended_within(Duration::from_secs(1)).await;
        Some(ExecEnd::unseen(if stopped {
            "the VM was stopped"
        } else {
            "the connection to the VM was lost"
        }))
    }

    /// Ends the program and what it started: closing the connection alone would not.
    async fn abandon(self) {
        let Self {
            session,
            incoming,
            outgoing,
            mark,
            ..
        } = self;
        // What nobody takes any more would hold up the connection.
        drop(incoming);
        let _ = outgoing.signal(Sig::TERM).await;
        let line = quoted(mark.end_argv());
        let _ = timeout(END_DEADLINE, session.run(&line)).await;
        session.close().await;
    }
}

/// Hands a chunk on; `None` when nobody wants it any more.
async fn deliver(to: &mpsc::Sender<Bytes>, data: Bytes, over: &CancellationToken) -> Option<()> {
    tokio::select! {
        () = over.cancelled() => None,
        // Who stopped reading one stream may still want the other, and the end.
        _ = to.send(data) => Some(()),
    }
}

fn name_of(signal: &Sig) -> String {
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    }
    .to_owned()
}
