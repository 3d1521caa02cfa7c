//! One viewer to whom everything happens.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use batwa_api::terminal::{ServerFrame, close_code};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use super::{Tally, count::Count, dice::Dice};

/// How long a session may be out of reach before that is an error: a machine's line is mended long before.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// What a shell prints before it counts, and after.
const BEGIN: &[u8] = b"BEGIN\n";
const END: &[u8] = b"END ";

type Socket = WebSocketStream<TcpStream>;

/// How a viewer comes to its session.
pub(super) enum Role {
    /// It tells the shell what to do, and everybody at which byte the count begins.
    Owner {
        script: String,
        begins: watch::Sender<Option<u64>>,
    },
    /// It comes when that is known.
    Guest {
        beginning: watch::Receiver<Option<u64>>,
    },
}

/// Somebody before a terminal.
pub(super) struct Viewer {
    address: SocketAddr,
    bearer: String,
    id: String,
    /// Whether the shell may print more than the session holds.
    floods: bool,
    calm: Duration,
    dice: Dice,
    stopping: watch::Receiver<bool>,
    tally: Tally,
    /// The byte that comes next; none where whatever is oldest is wanted.
    next: Option<u64>,
    /// The byte with which the count begins.
    base: u64,
    count: Count,
    /// Of everything from the beginning on; none once anything was missed.
    hash: Option<Sha256>,
    /// What came after the count.
    last_words: Vec<u8>,
}

/// What a message, or an event, leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    AttachAgain,
    Over,
}

impl Viewer {
    pub(super) fn new(
        address: SocketAddr,
        bearer: String,
        id: String,
        floods: bool,
        calm: Duration,
        dice: Dice,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            address,
            bearer,
            id,
            floods,
            calm,
            dice,
            stopping,
            tally: Tally::default(),
            next: None,
            base: 0,
            count: Count::at(0),
            hash: None,
            last_words: Vec::new(),
        }
    }

    /// Watches until the shell has said its last words, and checks each byte on the way.
    pub(super) async fn watch(mut self, role: Role) -> anyhow::Result<Tally> {
        let id = self.id.clone();
        self.try_watch(role)
            .await
            .with_context(|| format!("a viewer of session {id}"))?;
        self.tally.viewers = 1;
        Ok(self.tally)
    }

    async fn try_watch(&mut self, role: Role) -> anyhow::Result<()> {
        let mut open = match role {
            Role::Owner { script, begins } => Some(self.begin(&script, &begins).await?),
            Role::Guest { mut beginning } => {
                let known = beginning.wait_for(Option::is_some).await;
                self.base = known
                    .ok()
                    .and_then(|base| *base)
                    .context("no count began")?;
                None
            }
        };
        loop {
            let mut socket = match open.take() {
                Some(socket) => socket,
                None => self.attach().await?,
            };
            if self.look(&mut socket).await? == Then::Over {
                return Ok(());
            }
            self.pause().await;
        }
    }

    /// Tells the shell what to do, and finds where the count begins.
    async fn begin(
        &mut self,
        script: &str,
        begins: &watch::Sender<Option<u64>>,
    ) -> anyhow::Result<Socket> {
        let mut socket = self.attach().await?;
        socket
            .send(Message::binary(script.as_bytes().to_vec()))
            .await?;
        let mut head: Vec<u8> = Vec::new();
        let base = timeout(PATIENCE, async {
            loop {
                let message = socket.next().await.context("closed before it began")??;
                match message {
                    Message::Binary(bytes) => head.extend_from_slice(&bytes),
                    Message::Close(why) => anyhow::bail!("closed before it began: {why:?}"),
                    _ => {}
                }
                let found = head.windows(BEGIN.len()).position(|bytes| bytes == BEGIN);
                if let Some(at) = found {
                    return Ok(at + BEGIN.len());
                }
            }
        })
        .await
        .context("the shell does not begin")??;
        self.base = base as u64;
        self.hash = Some(Sha256::new());
        self.next = Some(self.base);
        self.take(&head[base..])?;
        begins.send_replace(Some(self.base));
        Ok(socket)
    }

    /// Attaches, again and again until it is let in.
    async fn attach(&mut self) -> anyhow::Result<Socket> {
        let from = self
            .next
            .map(|next| format!("?from={next}"))
            .unwrap_or_default();
        let path = format!("/api/v1/terminals/{}/attach{from}", self.id);
        let asked = Instant::now();
        loop {
            self.tally.attaches += 1;
            match timeout(ATTEMPT, self.connect(&path)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(tungstenite::Error::Http(answer)))
                    if matches!(answer.status().as_u16(), 400..=403 | 416) =>
                {
                    anyhow::bail!("not let in at {path}: {}", answer.status());
                }
                Ok(Err(error)) if asked.elapsed() > PATIENCE => {
                    return Err(error).with_context(|| format!("cannot attach at {path}"));
                }
                Err(_) if asked.elapsed() > PATIENCE => anyhow::bail!("no answer at {path}"),
                Ok(Err(_)) | Err(_) => {}
            }
            self.pause().await;
        }
    }

    /// Before it attaches again: a machine that cannot be reached turns it away at once.
    async fn pause(&mut self) {
        sleep(Duration::from_millis(50) + self.dice.time(Duration::from_millis(200))).await;
    }

    async fn connect(&self, path: &str) -> Result<Socket, tungstenite::Error> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{}{path}", self.address).into_client_request()?;
        let bearer = self
            .bearer
            .parse()
            .map_err(tungstenite::http::Error::from)?;
        request.headers_mut().insert("authorization", bearer);
        // Hundreds of these are open.
        let config = WebSocketConfig::default()
            .read_buffer_size(16 << 10)
            .write_buffer_size(0);
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(socket)
    }

    /// Reads until the connection is gone, by chance or by what happens to it.
    async fn look(&mut self, socket: &mut Socket) -> anyhow::Result<Then> {
        let mut stopping = self.stopping.clone();
        let mut event = Instant::now() + self.dice.time(self.calm);
        loop {
            // Once the shells are told to stop, all that is left to do is to read.
            let eventful = !*stopping.borrow_and_update();
            let then = tokio::select! {
                message = socket.next() => self.hear(message)?,
                changed = stopping.changed(), if eventful => {
                    changed.context("the test is over")?;
                    continue;
                }
                () = sleep_until(event), if eventful => {
                    event = Instant::now() + self.dice.time(self.calm);
                    self.suffer(socket).await
                }
            };
            if then != Then::GoOn {
                return Ok(then);
            }
        }
    }

    /// Something happens.
    async fn suffer(&mut self, socket: &mut Socket) -> Then {
        let moment = self.dice.time(Duration::from_millis(500));
        let done = match self.dice.below(10) {
            // The cable is pulled, or the browser killed.
            0 => {
                let _ = socket.get_ref().set_zero_linger();
                self.tally.cuts += 1;
                return Then::AttachAgain;
            }
            1 => {
                let _ = timeout(ATTEMPT, socket.close(None)).await;
                self.tally.cuts += 1;
                return Then::AttachAgain;
            }
            // The page is loaded anew, and knows nothing of what it had.
            2 | 3 => {
                self.next = None;
                self.tally.reloads += 1;
                return Then::AttachAgain;
            }
            // It does not keep up.
            4 => {
                sleep(moment).await;
                Ok(())
            }
            5 => {
                let paused = socket.send(Message::text(r#"{"type":"pause"}"#)).await;
                sleep(moment).await;
                let resumed = socket.send(Message::text(r#"{"type":"resume"}"#)).await;
                paused.and(resumed)
            }
            6 => self.resize(socket, 100).await,
            _ => self.resize(socket, 1).await,
        };
        if done.is_ok() {
            return Then::GoOn;
        }
        self.tally.broken += 1;
        Then::AttachAgain
    }

    async fn resize(&mut self, socket: &mut Socket, times: u64) -> Result<(), tungstenite::Error> {
        for _ in 0..times {
            let (cols, rows) = (20 + self.dice.below(200), 5 + self.dice.below(60));
            let frame = json!({"type": "resize", "cols": cols, "rows": rows});
            socket.send(Message::text(frame.to_string())).await?;
            self.tally.resizes += 1;
        }
        Ok(())
    }

    fn hear(
        &mut self,
        message: Option<Result<Message, tungstenite::Error>>,
    ) -> anyhow::Result<Then> {
        match message {
            Some(Ok(Message::Binary(bytes))) => self.take(&bytes),
            Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                Ok(ServerFrame::Offset { offset, .. }) => self.begins_at(offset),
                Ok(ServerFrame::Exit { reason, .. } | ServerFrame::Error { message: reason }) => {
                    anyhow::bail!("it ended before the shell's last words: {reason}")
                }
                Ok(_) => Ok(Then::GoOn),
                Err(error) => anyhow::bail!("`{text}` is no frame of the protocol: {error}"),
            },
            Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => match u16::from(code) {
                close_code::AGENT_OFFLINE
                | close_code::GOING_AWAY
                | close_code::INTERNAL
                | close_code::NOT_FOUND => Ok(self.is_broken()),
                code => anyhow::bail!("it was closed with {code}: {reason}"),
            },
            Some(Ok(Message::Close(None)) | Err(_)) | None => Ok(self.is_broken()),
            Some(Ok(_)) => Ok(Then::GoOn),
        }
    }

    fn is_broken(&mut self) -> Then {
        self.tally.broken += 1;
        Then::AttachAgain
    }

    /// The next byte is said to be this one.
    fn begins_at(&mut self, offset: u64) -> anyhow::Result<Then> {
        match self.next {
            Some(next) if offset == next => return Ok(Then::GoOn),
            Some(next) if offset < next => {
                anyhow::bail!("byte {offset} comes again: it was at {next}")
            }
            Some(next) => {
                let missed = offset - next;
                anyhow::ensure!(
                    self.floods,
                    "{missed} bytes at {next} are gone, although the session holds more"
                );
                self.tally.missed += missed;
                self.hash = None;
            }
            None => self.hash = (offset <= self.base).then(Sha256::new),
        }
        self.next = Some(offset);
        self.count = Count::at(offset.saturating_sub(self.base));
        self.last_words.clear();
        Ok(Then::GoOn)
    }

    /// Checks bytes as they arrive.
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<Then> {
        let at = self.next.context("bytes came before their offset")?;
        self.next = Some(at + bytes.len() as u64);
        let early = usize::try_from(self.base.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = bytes.get(early..).unwrap_or_default();
        self.tally.bytes += bytes.len() as u64;
        let counted = if self.last_words.is_empty() {
            self.count.follow(bytes)
        } else {
            0
        };
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes[..counted]);
        }
        self.last_words.extend_from_slice(&bytes[counted..]);
        let words = &self.last_words[..];
        let wrong = !words.starts_with(&END[..words.len().min(END.len())]);
        anyhow::ensure!(
            !wrong,
            "the byte at {} is wrong: {:?}",
            at + (early + counted) as u64,
            String::from_utf8_lossy(&words[..words.len().min(40)])
        );
        // The prompt may have come with it.
        if words.contains(&b'\n') {
            self.check_end()?;
            return Ok(Then::Over);
        }
        Ok(Then::GoOn)
    }

    /// What the shell says of itself is what was seen.
    fn check_end(&mut self) -> anyhow::Result<()> {
        let words = String::from_utf8_lossy(&self.last_words).into_owned();
        let mut parts = words.split_whitespace().skip(1);
        let (Some(Ok(last)), Some(checksum)) = (parts.next().map(str::parse), parts.next()) else {
            anyhow::bail!("these are no last words: {words}");
        };
        let end = self.next.unwrap_or(0) - self.last_words.len() as u64;
        let wanted = self.base + Count::length(last);
        anyhow::ensure!(
            end == wanted,
            "the shell printed up to byte {wanted}, and byte {end} was the last seen"
        );
        if let Some(hash) = self.hash.take() {
            let seen = hex::encode(hash.finalize());
            anyhow::ensure!(
                seen == checksum,
                "the checksum of what was seen is {seen}, and the shell's own {checksum}"
            );
            self.tally.whole = 1;
        }
        Ok(())
    }
}
