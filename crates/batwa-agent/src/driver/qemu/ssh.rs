//! SSH to a VM, verified by the host key that its seed gave it.
//!
//! The port on loopback may be taken by anybody once the VM is off; the pinned key is what makes sure that a shell
//! never opens anywhere else.

mod command;
mod port;

use std::{
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{
    files,
    process::Process,
    record::{VmDir, file},
};
use crate::driver::{DriverError, Pty, PtyExit};
use batwa_api::terminal::TermSize;
use bytes::Bytes;
use russh::{
    ChannelMsg, Disconnect,
    client::{self, Handle},
    keys::{
        PrivateKey, PrivateKeyWithHashAlg, PublicKey,
        ssh_key::private::{Ed25519Keypair, KeypairData},
    },
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

/// Most that [`Session::run`] holds of a command's output.
const OUTPUT_LIMIT: usize = 1 << 20;
/// A VM that answers neither data nor keep-alives for three of these is gone.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a server may take to its first word, on an emulated processor.
const FIRST_WORD: Duration = Duration::from_secs(3);
/// Chunks of output between channel and reader: back-pressure beyond these.
const OUTPUT_CHUNKS: usize = 16;

/// A new ed25519 key.
pub(super) fn new_key(comment: &str) -> PrivateKey {
    let pair = Ed25519Keypair::from_seed(&rand::random());
    PrivateKey::new(KeypairData::from(pair), comment).expect("a plain key pair makes a key")
}

/// Why there is no SSH.
#[derive(Debug, thiserror::Error)]
pub(super) enum SshError {
    /// Nobody answered, or not in time: it may come.
    #[error("SSH does not answer yet")]
    Silent,
    /// The connection broke or the protocol failed.
    #[error("SSH failed: {0}")]
    Failed(#[from] russh::Error),
    /// Somebody answered who does not have the VM's key.
    #[error("the host key is not the one this VM was given")]
    Impostor,
    /// The VM does not take our key.
    #[error("the VM does not accept the agent's key for the account `{0}`")]
    Refused(String),
}

/// Where and how to sign in.
#[derive(Debug, Clone)]
pub(super) struct Target {
    port: u16,
    user: String,
    client_key: Arc<PrivateKey>,
    host_key: PublicKey,
}

impl Target {
    /// From the files of the VM.
    pub(super) fn of(dir: &VmDir, port: u16, user: &str) -> Result<Self, DriverError> {
        let read = |name: &str| {
            let path = dir.file(name);
            std::fs::read_to_string(&path).map_err(|error| files::io_error("read", &path, &error))
        };
        let bad = |path: &Path, error: &dyn std::fmt::Display| {
            DriverError::failed(format!(
                "cannot read the key in {}: {error}",
                path.display()
            ))
        };
        let client_key = PrivateKey::from_openssh(read(file::CLIENT_KEY)?)
            .map_err(|error| bad(&dir.file(file::CLIENT_KEY), &error))?;
        let host_key = PublicKey::from_openssh(&read(file::HOST_KEY)?)
            .map_err(|error| bad(&dir.file(file::HOST_KEY), &error))?;
        Ok(Self {
            port,
            user: user.to_owned(),
            client_key: Arc::new(client_key),
            host_key,
        })
    }

    /// Signs in within `deadline`.
    pub(super) async fn connect(&self, deadline: Duration) -> Result<Session, SshError> {
        timeout(deadline, self.sign_in())
            .await
            .unwrap_or(Err(SshError::Silent))
    }

    async fn sign_in(&self) -> Result<Session, SshError> {
        let config = client::Config {
            keepalive_interval: Some(KEEPALIVE),
            ..client::Config::default()
        };
        let stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .map_err(|_| SshError::Silent)?;
        // QEMU takes the connection before the VM does; what tells of the VM is the server's first word. A try that
        // began while the VM was deaf is heard late or never, so a new one is worth more than patience.
        match timeout(FIRST_WORD, stream.peek(&mut [0])).await {
            Ok(Ok(1..)) => {}
            _ => return Err(SshError::Silent),
        }
        // A key typed is a packet sent.
        let _ = stream.set_nodelay(true);
        let pinned = Pinned(self.host_key.clone());
        let mut handle = client::connect_stream(Arc::new(config), stream, pinned)
            .await
            .map_err(|error| match error {
                russh::Error::UnknownKey => SshError::Impostor,
                russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP => {
                    SshError::Silent
                }
                error => SshError::Failed(error),
            })?;
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.client_key), None);
        let answer = handle.authenticate_publickey(&self.user, key).await?;
        if !answer.success() {
            return Err(SshError::Refused(self.user.clone()));
        }
        Ok(Session { handle })
    }
}

/// Accepts one host key only.
#[derive(Debug)]
struct Pinned(PublicKey);

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(match key {
            russh::keys::PublicKeyOrCertificate::PublicKey { key, .. } => {
                key.key_data() == self.0.key_data()
            }
            russh::keys::PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

/// One connection to a VM.
pub(super) struct Session {
    handle: Handle<Pinned>,
}

/// What a command said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    /// Its exit status; `None` when a signal or the end of the connection ended it.
    pub(super) status: Option<u32>,
    /// What it printed.
    pub(super) text: String,
}

impl Session {
    /// Runs one command line in the account's shell.
    pub(super) async fn run(&self, command: &str) -> Result<Output, SshError> {
        let mut channel = self.handle.channel_open_session().await?;
        channel.exec(true, command).await?;
        let mut bytes = Vec::new();
        let mut status = None;
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                    let room = OUTPUT_LIMIT.saturating_sub(bytes.len());
                    bytes.extend_from_slice(&data[..data.len().min(room)]);
                }
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        Ok(Output {
            status,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }

    /// Whether the connection is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Ends the connection in order.
    pub(super) async fn close(self) {
        let _ = self
            .handle
            .disconnect(Disconnect::ByApplication, "", "")
            .await;
    }

    /// Opens the account's shell on a terminal. `process` is the VM's, to tell its end from a lost connection.
    pub(super) async fn shell(self, size: TermSize, process: Process) -> Result<Pty, SshError> {
        let channel = self.handle.channel_open_session().await?;
        let first = size.clamped();
        channel
            .request_pty(
                false,
                "xterm-256color",
                first.cols.into(),
                first.rows.into(),
                0,
                0,
                &[],
            )
            .await?;
        channel.request_shell(true).await?;
        let (mut incoming, outgoing) = channel.split();
        let input = outgoing.make_writer();
        let (size_tx, mut size_rx) = watch::channel(first);
        let (chunks, output) = mpsc::channel::<Bytes>(OUTPUT_CHUNKS);
        let (exit_tx, exit) = oneshot::channel();

        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while size_rx.changed().await.is_ok() {
                let size = size_rx.borrow_and_update().clamped();
                if outgoing
                    .window_change(size.cols.into(), size.rows.into(), 0, 0)
                    .await
                    .is_err()
                {
                    break;
                }
            }
        });
        tasks.spawn(async move {
            let mut code = None;
            while let Some(message) = incoming.wait().await {
                match message {
                    ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                        let sent = chunks.send(data).await;
                        if sent.is_err() {
                            break;
                        }
                    }
                    ChannelMsg::ExitStatus { exit_status } => {
                        code = Some(i32::try_from(exit_status).unwrap_or(i32::MAX));
                    }
                    ChannelMsg::ExitSignal { .. } => code = code.or(Some(128)),
                    ChannelMsg::Close => break,
                    _ => {}
                }
            }
            let reason = if code.is_some() {
                "the shell ended"
            } else if process.ended_within(Duration::from_secs(1)).await {
                "the VM was stopped"
            } else {
                "the connection to the VM was lost"
            };
            let _ = exit_tx.send(PtyExit {
                code,
                reason: reason.to_owned(),
            });
            drop(chunks);
            self.close().await;
        });
        let output = ShellOutput {
            chunks: output,
            rest: Bytes::new(),
            _tasks: tasks,
        };
        Ok(Pty {
            output: Box::pin(output),
            input: Box::pin(input),
            size: size_tx,
            exit,
        })
    }
}

/// What a shell prints. Dropping it ends the tasks behind the shell, and with them the connection.
struct ShellOutput {
    chunks: mpsc::Receiver<Bytes>,
    rest: Bytes,
    _tasks: JoinSet<()>,
}

impl AsyncRead for ShellOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.chunks.poll_recv(context)) {
                Some(chunk) => self.rest = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(n));
        Poll::Ready(Ok(()))
    }
}
