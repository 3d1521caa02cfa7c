//! A WebSocket as plain bytes, and its signs of life.
//!
//! What is written gathers until it is flushed, and goes as one binary message: the multiplexer flushes after
//! each burst of frames. Reading also drives the pings, and fails once the other side has been silent, or has
//! taken nothing of what we write, for three of them.

use std::{
    fmt,
    future::Future as _,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{AsyncRead, AsyncWrite, Sink, Stream, ready};
use tokio::{
    io::{AsyncRead as TokioRead, AsyncWrite as TokioWrite},
    time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// Longest message that we send.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;
/// How long the other side may take to answer a close.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longest reason of a close: a control frame holds 125 bytes, two of them the code.
const CLOSE_REASON_BYTES: usize = 120;

/// When an end asks for a sign of life, and when it gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two pings.
    pub ping: Duration,
    /// Pings without an answer, or any other word, after which the other side is gone.
    pub misses: u32,
}

impl Default for Timing {
    /// Pings twice within the 30 s after which common proxies cut a silent connection.
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(15),
            misses: 3,
        }
    }
}

impl Timing {
    fn patience(&self) -> Duration {
        self.ping * self.misses
    }
}

/// A close frame: its code and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The code.
    pub code: u16,
    /// The reason; never longer than a control frame holds.
    pub reason: String,
}

impl Closed {
    /// A close frame to send; a reason that is too long is cut.
    #[must_use]
    pub fn new(code: batwa_api::tunnel::CloseCode, reason: &str) -> Self {
        let mut end = reason.len().min(CLOSE_REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            code: code.as_u16(),
            reason: reason[..end].to_owned(),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " (code {}", self.code)?;
        if !self.reason.is_empty() {
            let plain = |c: char| if c.is_control() { ' ' } else { c };
            write!(
                f,
                ": {}",
                self.reason.chars().map(plain).collect::<String>()
            )?;
        }
        f.write_str(")")
    }
}

impl From<CloseFrame> for Closed {
    fn from(frame: CloseFrame) -> Self {
        Self {
            code: frame.code.into(),
            reason: frame.reason.as_str().to_owned(),
        }
    }
}

/// How the two halves of an end talk about its end: one asks for a close, the other says what came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending(Arc<Mutex<EndingState>>);

#[derive(Debug, Default)]
struct EndingState {
    asked: Option<Closed>,
    received: Option<Closed>,
    failed: Option<Failure>,
    waker: Option<Waker>,
}

/// Why a socket failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection did.
    Broken(String),
    /// The other side sent what cannot be.
    Violation(String),
}

impl Ending {
    /// Asks for the socket to be closed like this; the first one who asks is heard.
    pub(crate) fn ask(&self, close: Closed) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.get_or_insert(close);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Whether we asked for the end.
    pub(crate) fn was_asked(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.is_some()
    }

    /// What the other side said when it closed.
    pub(crate) fn received(&self) -> Option<Closed> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.received.clone()
    }

    /// Why the socket failed, if it did.
    pub(crate) fn failed(&self) -> Option<Failure> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.clone()
    }

    /// Keeps why the socket failed, and makes of it what the multiplexer takes: to that all failures are alike.
    fn fail(&self, failure: Failure) -> io::Error {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.get_or_insert(failure);
        io::ErrorKind::ConnectionAborted.into()
    }

    fn fail_with(&self, error: tungstenite::Error) -> io::Error {
        use tungstenite::error::ProtocolError;
        self.fail(match error {
            tungstenite::Error::Io(error) => Failure::Broken(error.to_string()),
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(
                ProtocolError::ResetWithoutClosingHandshake
                | ProtocolError::SendAfterClosing
                | ProtocolError::ReceivedAfterClosing,
            ) => Failure::Broken("the connection was cut".to_owned()),
            other => Failure::Violation(other.to_string()),
        })
    }

    fn poll_asked(&self, cx: &mut Context<'_>) -> Option<Closed> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.asked.is_none() {
            state.waker = Some(cx.waker().clone());
        }
        state.asked.clone()
    }
}

/// The socket.
pub(crate) struct Socket<S> {
    inner: WebSocketStream<S>,
    incoming: Bytes,
    outgoing: BytesMut,
    control: Option<Message>,
    /// When the last words end, once the close is on its way.
    closing: Option<Pin<Box<Sleep>>>,
    ending: Ending,
    timing: Timing,
    pings: Interval,
    heard: Instant,
    /// Since when a write waits for the other side to take something.
    stalled: Option<Instant>,
}

impl<S: TokioRead + TokioWrite + Unpin> Socket<S> {
    /// The bytes of `inner`, whose handshake is over.
    pub(crate) fn new(inner: WebSocketStream<S>, timing: Timing, ending: Ending) -> Self {
        let now = Instant::now();
        let mut pings = interval_at(now + timing.ping, timing.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            inner,
            incoming: Bytes::new(),
            outgoing: BytesMut::new(),
            control: None,
            closing: None,
            ending,
            timing,
            pings,
            heard: now,
            stalled: None,
        }
    }

    /// Checks the other side's signs of life, and asks for the next.
    fn poll_life(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.pings.poll_tick(cx).is_ready() {
            let patience = self.timing.patience();
            let silent = self.heard.elapsed() >= patience;
            let stalled = self
                .stalled
                .is_some_and(|since| since.elapsed() >= patience);
            if silent || stalled {
                let what = if silent { "said" } else { "taken" };
                return Err(self.ending.fail(Failure::Broken(format!(
                    "the other side has {what} nothing for {} s",
                    patience.as_secs_f64()
                ))));
            }
            self.control = Some(Message::Ping(Bytes::new()));
        }
        if let Some(close) = self.ending.poll_asked(cx)
            && self.closing.is_none()
        {
            self.closing = Some(Box::pin(sleep(LAST_WORDS)));
            // What was to be said before is not said any more.
            self.outgoing.clear();
            self.control = Some(Message::Close(Some(CloseFrame {
                code: CloseCode::from(close.code),
                reason: close.reason.into(),
            })));
        }
        Ok(())
    }

    /// Sends what waits: a control frame first, as it is what somebody waits for.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_send_inner(cx);
        match &sent {
            Poll::Pending => {
                self.stalled.get_or_insert_with(Instant::now);
            }
            Poll::Ready(_) => self.stalled = None,
        }
        sent
    }

    fn poll_send_inner(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            inner,
            outgoing,
            control,
            ending,
            ..
        } = self;
        let failed = |error| ending.fail_with(error);
        while control.is_some() || !outgoing.is_empty() {
            ready!(Pin::new(&mut *inner).poll_ready(cx)).map_err(failed)?;
            let message = match control.take() {
                Some(control) => control,
                None => Message::Binary(outgoing.split().freeze()),
            };
            Pin::new(&mut *inner).start_send(message).map_err(failed)?;
        }
        Pin::new(inner).poll_flush(cx).map_err(failed)
    }
}

impl<S: TokioRead + TokioWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.poll_life(cx)?;
        if this.control.is_some()
            && let Poll::Ready(Err(error)) = this.poll_send(cx)
        {
            return Poll::Ready(Err(error));
        }
        if let Some(last_words) = &mut this.closing {
            // The reason is on its way. Nothing that comes now matters, but that all of it is read: cut with something
            // unread, the connection would be reset and the reason lost.
            if last_words.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(0));
            }
            loop {
                match ready!(Pin::new(&mut this.inner).poll_next(cx)) {
                    Some(Ok(message)) if !message.is_close() => {}
                    Some(_) | None => return Poll::Ready(Ok(0)),
                }
            }
        }
        loop {
            if this.incoming.has_remaining() {
                let n = buffer.len().min(this.incoming.len());
                this.incoming.copy_to_slice(&mut buffer[..n]);
                return Poll::Ready(Ok(n));
            }
            let message = match ready!(Pin::new(&mut this.inner).poll_next(cx)) {
                None => return Poll::Ready(Ok(0)),
                Some(Err(error)) => return Poll::Ready(Err(this.ending.fail_with(error))),
                Some(Ok(message)) => message,
            };
            this.heard = Instant::now();
            match message {
                Message::Binary(bytes) => this.incoming = bytes,
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(frame) => {
                    let mut state = this.ending.0.lock().unwrap_or_else(PoisonError::into_inner);
                    state.received = frame.map(Closed::from);
                    return Poll::Ready(Ok(0));
                }
                Message::Text(_) | Message::Frame(_) => {
                    return Poll::Ready(Err(this.ending.fail(Failure::Violation(
                        "a text message came where only streams are".to_owned(),
                    ))));
                }
            }
        }
    }
}

impl<S: TokioRead + TokioWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.closing.is_some() {
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.outgoing.len() >= MAX_MESSAGE {
            ready!(self.poll_send(cx))?;
        }
        let n = bytes.len().min(MAX_MESSAGE - self.outgoing.len());
        self.outgoing.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        let Self { inner, ending, .. } = &mut *self;
        Pin::new(inner)
            .poll_close(cx)
            .map_err(|error| ending.fail_with(error))
    }
}
