//! One person before one terminal, over a WebSocket, whoever serves it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
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

/// A terminal that somebody looks at.
#[derive(Debug)]
pub(crate) struct Viewer {
    dialect: Dialect,
    socket: WebSocketStream<TcpStream>,
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
        let mut viewer = Self { dialect, socket };
        if dialect == Dialect::Ttyd {
            let hello = json!({"AuthToken": "", "columns": 80, "rows": 24}).to_string();
            viewer
                .socket
                .send(Message::binary(hello.into_bytes()))
                .await?;
        }
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

    /// Types.
    pub(crate) async fn type_in(&mut self, keys: &[u8]) -> anyhow::Result<()> {
        let message = match self.dialect {
            Dialect::Batwa | Dialect::Bare => Message::binary(keys.to_vec()),
            Dialect::Ttyd => Message::binary([b"0", keys].concat()),
        };
        Ok(self.socket.send(message).await?)
    }

    /// The next bytes of output.
    pub(crate) async fn output(&mut self) -> anyhow::Result<Bytes> {
        loop {
            let message = timeout(Duration::from_secs(30), self.socket.next())
                .await
                .context("the terminal is silent")?
                .context("the terminal was closed")??;
            match (self.dialect, message) {
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
