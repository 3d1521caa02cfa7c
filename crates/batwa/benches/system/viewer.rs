//! One person before one terminal: over a WebSocket, whoever serves it, or with nothing between.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use pty_process::Pty;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Child,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Bytes, Message, client::IntoClientRequest as _},
};

use crate::{
    lab::{Agent, Door, Master},
    stats::Latencies,
};

/// How a server wants input and sends output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Binary frames are bytes, text frames control.
    Batwa,
    /// Each frame begins with a byte that says what it is.
    Ttyd,
    /// Frames are bytes.
    Bare,
}

/// What is between a viewer and its shell.
enum Wire {
    WebSocket(Dialect, Box<WebSocketStream<TcpStream>>),
    /// Nothing: the terminal itself is held here. The shell ends with it.
    Terminal {
        terminal: Pty,
        _shell: Box<Child>,
    },
}

/// A terminal that somebody looks at.
pub(crate) struct Viewer {
    wire: Wire,
}

impl Viewer {
    /// Opens a WebSocket.
    pub(crate) async fn open(
        dialect: Dialect,
        address: SocketAddr,
        path: &str,
        bearer: Option<&str>,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        if let Some(bearer) = bearer {
            request
                .headers_mut()
                .insert("authorization", bearer.parse()?);
        }
        if dialect == Dialect::Ttyd {
            request
                .headers_mut()
                .insert("sec-websocket-protocol", "tty".parse()?);
        }
        let (socket, _) = client_async(request, stream)
            .await
            .context("no WebSocket")?;
        let mut socket = Box::new(socket);
        if dialect == Dialect::Ttyd {
            let hello = json!({"AuthToken": "", "columns": 80, "rows": 24}).to_string();
            socket.send(Message::binary(hello.into_bytes())).await?;
        }
        Self::prompted(Wire::WebSocket(dialect, socket)).await
    }

    /// The same shell with nothing between.
    pub(crate) async fn without_server() -> anyhow::Result<Self> {
        let (terminal, slave) = pty_process::open()?;
        terminal.resize(pty_process::Size::new(24, 80))?;
        let shell = pty_process::Command::new("/bin/sh")
            .kill_on_drop(true)
            .spawn(slave)?;
        Self::prompted(Wire::Terminal {
            terminal,
            _shell: Box::new(shell),
        })
        .await
    }

    async fn prompted(wire: Wire) -> anyhow::Result<Self> {
        let mut viewer = Self { wire };
        // Its prompt shows that the shell is there.
        viewer.output().await.context("no prompt")?;
        viewer.quiet().await?;
        Ok(viewer)
    }

    /// Opens a new session in a VM of an agent, through the master.
    pub(crate) async fn shell(master: &Master, agent: &str, vm: &str) -> anyhow::Result<Self> {
        Self::shell_at(&master.door(), agent, vm).await
    }

    /// As [`Self::shell`], without the master at hand.
    pub(crate) async fn shell_at(door: &Door, agent: &str, vm: &str) -> anyhow::Result<Self> {
        let made = door
            .call(
                "POST",
                "/api/v1/terminals",
                Some(&json!({"agent_id": agent, "vm": vm, "cols": 80, "rows": 24})),
            )
            .await?;
        let id = made["id"].as_str().context("a terminal without an id")?;
        let path = format!("/api/v1/terminals/{id}/attach");
        Self::open(Dialect::Batwa, door.address, &path, Some(&door.bearer)).await
    }

    /// As [`Self::shell`], in any running VM of the agent.
    pub(crate) async fn shell_on(master: &Master, agent: &Agent) -> anyhow::Result<Self> {
        let vm = master.running_vm(&agent.id).await?;
        Self::shell(master, &agent.id, &vm).await
    }

    /// Whether there is somebody who can be told to pause.
    pub(crate) fn takes_control(&self) -> bool {
        matches!(self.wire, Wire::WebSocket(Dialect::Batwa, _))
    }

    /// Says something beside what is typed.
    pub(crate) async fn control(&mut self, frame: &str) -> anyhow::Result<()> {
        match &mut self.wire {
            Wire::WebSocket(Dialect::Batwa, socket) => {
                Ok(socket.send(Message::text(frame)).await?)
            }
            _ => anyhow::bail!("nobody here understands `{frame}`"),
        }
    }

    /// Types.
    pub(crate) async fn type_in(&mut self, keys: &[u8]) -> anyhow::Result<()> {
        let (socket, message) = match &mut self.wire {
            Wire::Terminal { terminal, .. } => return Ok(terminal.write_all(keys).await?),
            Wire::WebSocket(Dialect::Ttyd, socket) => (socket, [b"0", keys].concat()),
            Wire::WebSocket(_, socket) => (socket, keys.to_vec()),
        };
        Ok(socket.send(Message::binary(message)).await?)
    }

    /// The next bytes of output.
    pub(crate) async fn output(&mut self) -> anyhow::Result<Bytes> {
        timeout(Duration::from_secs(30), self.next_output())
            .await
            .context("the terminal is silent")?
    }

    async fn next_output(&mut self) -> anyhow::Result<Bytes> {
        let (dialect, socket) = match &mut self.wire {
            Wire::WebSocket(dialect, socket) => (*dialect, socket),
            Wire::Terminal { terminal, .. } => {
                let mut buffer = vec![0; 16 << 10];
                let read = terminal.read(&mut buffer).await?;
                buffer.truncate(read);
                return Ok(buffer.into());
            }
        };
        loop {
            match (
                dialect,
                socket.next().await.context("the terminal was closed")??,
            ) {
                (_, Message::Close(why)) => anyhow::bail!("the terminal was closed: {why:?}"),
                (Dialect::Ttyd, Message::Binary(bytes)) if bytes.first() == Some(&b'0') => {
                    return Ok(bytes.slice(1..));
                }
                (Dialect::Batwa | Dialect::Bare, Message::Binary(bytes)) if !bytes.is_empty() => {
                    return Ok(bytes);
                }
                _ => {}
            }
        }
    }

    /// Reads until nothing comes for a while.
    pub(crate) async fn quiet(&mut self) -> anyhow::Result<()> {
        loop {
            match timeout(Duration::from_millis(100), self.output()).await {
                Ok(output) => output?,
                Err(_) => return Ok(()),
            };
        }
    }

    /// Presses so many keys, each `pause` after the echo of the one before; how long each echo took.
    ///
    /// The kernel's line discipline echoes, so that no program's own speed is in the figure. Every second key takes
    /// back the one before: the line never gets long.
    pub(crate) async fn keystrokes(
        &mut self,
        keys: usize,
        pause: Duration,
    ) -> anyhow::Result<Latencies> {
        let mut echoes = Latencies::default();
        for n in 0..keys {
            let key: &[u8] = if n % 2 == 0 { b"a" } else { b"\x7f" };
            let pressed = Instant::now();
            self.type_in(key).await?;
            self.output().await?;
            echoes.push(pressed.elapsed());
            tokio::time::sleep(pause).await;
        }
        Ok(echoes)
    }
}
