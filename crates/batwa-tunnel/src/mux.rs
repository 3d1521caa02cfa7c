//! Many streams in one tunnel: yamux, with the settings and around the traps that were measured.
//!
//! The master opens streams, the agent takes them; an agent that opens one breaks the rules and is cut off. One task
//! drives an end ([`Mux::run_master`], [`Mux::run_agent`]); whoever holds an [`Opener`] gets streams from it. A stream
//! ends in both directions at once: a half-closed one that is dropped would leave its other end waiting for ever.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{AsyncRead as _, AsyncWrite as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_tungstenite::WebSocketStream;
use yamux::{Config, Connection, ConnectionError, FrameDecodeError, Mode};

use crate::socket::{Closed, Ending, Failure, Socket, Timing};

/// Streams that a master has open in one tunnel at a time; whoever wants one more waits.
pub const MAX_STREAMS: usize = 1024;
/// Those of them that are left to what ends soon, however many terminals are open: otherwise nobody could close one.
pub const BRIEF_STREAMS: usize = 64;
/// Streams that the master's multiplexer knows: those that were just dropped are still counted for a moment, and one
/// too many would end the tunnel.
const MASTER_STREAMS: usize = MAX_STREAMS + 128;
/// Streams that the agent's knows: above the master's, as it learns later that one is gone. It is told of as many at
/// once when its line is back and all who watch its terminals come again.
const AGENT_STREAMS: usize = 2 * MASTER_STREAMS;
/// A stream's window, yamux' own. Windows that grow would let one flood hold up every other stream (MEASURED.md).
const WINDOW: usize = yamux::DEFAULT_CREDIT as usize;
/// Streams asked for and not yet opened.
const WAITING: usize = 64;
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a tunnel ended.
#[derive(Debug)]
pub enum Ended {
    /// The other side closed it, perhaps with a reason.
    ByPeer(Option<Closed>),
    /// We closed it.
    ByUs,
    /// The connection failed, or the other side fell silent.
    Broken(String),
    /// The other side broke the rules.
    Violation(String),
}

/// One end of a tunnel.
pub struct Mux<S> {
    connection: Connection<Socket<S>>,
    ending: Ending,
}

/// Opens streams to the agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Opener {
    requests: mpsc::Sender<oneshot::Sender<io::Result<yamux::Stream>>>,
    places: Arc<Semaphore>,
    long: Arc<Semaphore>,
    ending: Ending,
}

/// How long a stream is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// For calls that have a deadline.
    Brief,
    /// For as long as people like: a terminal, a port, a file.
    Long,
}

/// Streams that the agent's end receives.
pub type Streams = mpsc::Receiver<Stream>;

/// Where [`Mux::run_agent`] puts streams, and where they are taken: room for all that there can be, so that none is
/// refused however many come at once.
#[must_use]
pub fn arrivals() -> (mpsc::Sender<Stream>, Streams) {
    mpsc::channel(AGENT_STREAMS)
}

/// What [`Opener::open`] asks and [`Mux::run_master`] answers.
pub struct Requests(mpsc::Receiver<oneshot::Sender<io::Result<yamux::Stream>>>);

/// One stream. Dropping it ends both directions.
#[derive(Debug)]
pub struct Stream {
    inner: yamux::Stream,
    _places: [Option<OwnedSemaphorePermit>; 2],
}

impl<S: AsyncRead + AsyncWrite + Unpin> Mux<S> {
    /// The master's end of `socket`, whose handshake is over.
    #[must_use]
    pub fn master(socket: WebSocketStream<S>, timing: Timing) -> (Self, Opener, Requests) {
        let mux = Self::new(socket, timing, MASTER_STREAMS, Mode::Client);
        let (sender, receiver) = mpsc::channel(WAITING);
        let opener = Opener {
            requests: sender,
            places: Arc::new(Semaphore::new(MAX_STREAMS)),
            long: Arc::new(Semaphore::new(MAX_STREAMS - BRIEF_STREAMS)),
            ending: mux.ending.clone(),
        };
        (mux, opener, Requests(receiver))
    }

    /// The agent's end of `socket`, whose handshake is over.
    #[must_use]
    pub fn agent(socket: WebSocketStream<S>, timing: Timing) -> Self {
        Self::new(socket, timing, AGENT_STREAMS, Mode::Server)
    }

    fn new(socket: WebSocketStream<S>, timing: Timing, streams: usize, mode: Mode) -> Self {
        let ending = Ending::default();
        let mut config = Config::default();
        // In this order: each of the two is checked against the other.
        config.set_max_connection_receive_window(None);
        config.set_max_num_streams(streams);
        config.set_max_connection_receive_window(Some(streams * WINDOW));
        Self {
            connection: Connection::new(Socket::new(socket, timing, ending.clone()), config, mode),
            ending,
        }
    }

    /// Drives the master's end until it is over.
    pub async fn run_master(mut self, requests: Requests) -> Ended {
        let Requests(mut requests) = requests;
        let mut wanted: Option<oneshot::Sender<io::Result<yamux::Stream>>> = None;
        let over = poll_fn(|cx| {
            loop {
                // A caller that has gone is not worth a stream.
                if wanted.as_ref().is_some_and(oneshot::Sender::is_closed) {
                    wanted = None;
                }
                if wanted.is_none()
                    && let Poll::Ready(Some(request)) = requests.poll_recv(cx)
                {
                    wanted = Some(request);
                    continue;
                }
                if wanted.is_some()
                    && let Poll::Ready(opened) = self.connection.poll_new_outbound(cx)
                {
                    let failed = opened.is_err();
                    if let Some(waiting) = wanted.take() {
                        let _ = waiting.send(opened.map_err(io::Error::other));
                    }
                    if !failed {
                        continue;
                    }
                }
                return match ready!(self.connection.poll_next_inbound(cx)) {
                    None => Poll::Ready(None),
                    Some(Err(error)) => Poll::Ready(Some(Ended::from(error))),
                    Some(Ok(_)) => Poll::Ready(Some(Ended::Violation(
                        "it opened a stream, which only a master does".to_owned(),
                    ))),
                };
            }
        })
        .await;
        self.end(over).await
    }

    /// Drives the agent's end until it is over; streams go to `taken`.
    pub async fn run_agent(mut self, taken: mpsc::Sender<Stream>) -> Ended {
        let over = poll_fn(|cx| {
            loop {
                match ready!(self.connection.poll_next_inbound(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Ended::from(error))),
                    Some(Ok(stream)) => {
                        // Waiting here would hold up all others. There is room, see `arrivals`; a receiver that is gone
                        // refuses the stream by dropping it.
                        let _ = taken.try_send(Stream {
                            inner: stream,
                            _places: [None, None],
                        });
                    }
                }
            }
        })
        .await;
        self.end(over).await
    }

    /// A way to end this tunnel with a reason.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(self.ending.clone())
    }

    async fn end(mut self, over: Option<Ended>) -> Ended {
        let failed = self.ending.failed();
        let ended = if let Some(closed) = self.ending.received() {
            Ended::ByPeer(Some(closed))
        } else if self.ending.was_asked() {
            Ended::ByUs
        } else {
            match failed {
                Some(Failure::Broken(why)) => Ended::Broken(why),
                Some(Failure::Violation(what)) => Ended::Violation(what),
                None => over.unwrap_or(Ended::ByPeer(None)),
            }
        };
        if let Ended::Violation(what) = &ended {
            self.ending
                .ask(Closed::new(batwa_api::tunnel::CloseCode::Violation, what));
        }
        let _ = timeout(LAST_WORDS, poll_fn(|cx| self.connection.poll_close(cx))).await;
        ended
    }
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Closed => Self::ByPeer(None),
            ConnectionError::Io(error) | ConnectionError::Decode(FrameDecodeError::Io(error)) => {
                Self::Broken(error.to_string())
            }
            other => Self::Violation(other.to_string()),
        }
    }
}

/// Ends a tunnel with a reason. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Closer(Ending);

impl Closer {
    /// Ends it; the first reason given is the one that the other side hears.
    pub fn close(&self, close: Closed) {
        self.0.ask(close);
    }
}

impl Opener {
    /// Opens a stream; waits when very many are open. The caller owns the deadline.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] when the tunnel is over, [`io::ErrorKind::QuotaExceeded`] when as many are open
    /// for long as may be.
    pub async fn open(&self, hold: Hold) -> io::Result<Stream> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the agent's tunnel is closed");
        let long = match hold {
            Hold::Brief => None,
            Hold::Long => Some(Arc::clone(&self.long).try_acquire_owned().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    format!(
                        "{} terminals, ports and files are open in its tunnel, which is all that may: close some",
                        MAX_STREAMS - BRIEF_STREAMS
                    ),
                )
            })?),
        };
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| gone())?;
        let (sender, receiver) = oneshot::channel();
        self.requests.send(sender).await.map_err(|_| gone())?;
        let inner = receiver.await.map_err(|_| gone())??;
        Ok(Stream {
            inner,
            _places: [Some(place), long],
        })
    }

    /// Ends the tunnel; the first reason given is the one that the agent hears.
    pub fn close(&self, close: Closed) {
        self.ending.ask(close);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Sends all that was written. The end itself comes with the drop, as a reset that follows the last byte:
    /// after a plain end yamux sends none, and a writer at the other side that is out of credit waits for ever.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
}

#[cfg(test)]
mod tests;
