//! One viewer of a session: what it types goes in, output goes out, whichever ends first ends both.
//!
//! Generic over the two directions, so that it is tested with channels; `http` puts a WebSocket under it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use batwa_api::terminal::{Admission, ClientFrame, ServerFrame, close_code};
use bytes::{Buf, Bytes};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::session::{Ended, Flow, JoinError, Next, SeatId, Session};

/// Typed bytes that wait for a program that does not read, before the viewer itself is no longer read.
const HELD_INPUT: usize = 1 << 20;
/// Time between two pings; they also find out that a viewer is gone.
const PING: Duration = Duration::from_secs(20);
/// Silence after which a viewer counts as gone: some pings unanswered.
const GONE: Duration = Duration::from_secs(90);
/// Time between two tellings of new sizes to the master, and by it to every page: a window that is dragged has many a
/// second, and a viewer that means harm thousands. The program hears of each as it comes.
const TELL_SIZES: Duration = Duration::from_millis(100);
/// How long after something was typed the viewer is told how much is taken: long enough that it costs nothing beside the
/// echo, short enough that a viewer that hears nothing may take its line for dead.
const TELL_INPUT: Duration = Duration::from_millis(500);

/// What comes from a viewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// Keyboard input.
    Input(Bytes),
    /// A control frame.
    Control(ClientFrame),
    /// An answer to a ping.
    Alive,
    /// Something that is no frame of the protocol; says what.
    Wrong(String),
}

/// What goes to a viewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outbound {
    /// Output of the program.
    Output(Bytes),
    /// A control frame.
    Control(ServerFrame),
    /// A question whether it is still there.
    Ping,
}

/// Why a view ended, as the close frame says it; `None` when the viewer went first.
pub(crate) type Close = Option<(u16, String)>;

/// A seat taken in a session; given up when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    session: Arc<Session>,
    id: SeatId,
    start: u64,
    /// The offset that it asked for: it has seen what is before that.
    from: Option<u64>,
    /// Called when the number of viewers or the size changed.
    changed: fn(&Session, &Arc<crate::watch::Picture>),
    picture: Arc<crate::watch::Picture>,
}

impl Seat {
    /// Joins from offset `from`, or from the oldest byte held.
    ///
    /// # Errors
    /// [`JoinError`].
    pub(super) fn take(
        session: Arc<Session>,
        from: Option<u64>,
        admission: Option<Admission>,
        picture: Arc<crate::watch::Picture>,
        changed: fn(&Session, &Arc<crate::watch::Picture>),
    ) -> Result<Self, JoinError> {
        let (id, start) = session.join(from, admission)?;
        changed(&session, &picture);
        Ok(Self {
            session,
            id,
            start,
            from,
            changed,
            picture,
        })
    }

    /// Copies both ways until the viewer goes, the session ends, or `stop`.
    pub(crate) async fn view<I, O>(
        self,
        mut incoming: I,
        outgoing: &mut O,
        stop: &CancellationToken,
    ) -> Close
    where
        I: Stream<Item = Inbound> + Unpin,
        O: Sink<Outbound> + Unpin,
    {
        let heard = Heard::new();
        tokio::select! {
            close = self.show(outgoing) => close,
            close = self.type_in(&mut incoming, &heard) => close,
            () = heard.lost() => None,
            () = stop.cancelled() => Some((close_code::GOING_AWAY, "the agent stops".to_owned())),
        }
    }

    /// Whether it has not seen what comes before this byte.
    fn is_new_to(&self, offset: u64) -> bool {
        offset > 0 && self.from != Some(offset)
    }

    /// Output to the viewer.
    async fn show<O>(&self, outgoing: &mut O) -> Close
    where
        O: Sink<Outbound> + Unpin,
    {
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        let mut begins_at = Some(self.start);
        let mut taken = self.session.input_taken(self.id);
        let mut tell_input = None;
        let mut replayed = match self.from {
            Some(_) => None,
            None => Some(self.session.terminal().offset),
        };
        loop {
            if let Some(offset) = begins_at.take() {
                let input = taken.take();
                let offset_first = Outbound::Control(ServerFrame::Offset { offset, input });
                outgoing.send(offset_first).await.ok()?;
                if let Some(end) = replayed.take().filter(|end| *end > offset) {
                    let replay = Outbound::Control(ServerFrame::Replay { end });
                    outgoing.send(replay).await.ok()?;
                }
                let text = self.session.state_before(offset);
                if !text.is_empty() && self.is_new_to(offset) {
                    let state = Outbound::Control(ServerFrame::State { text });
                    outgoing.send(state).await.ok()?;
                }
            }
            let news = self.session.news.notified();
            tokio::pin!(news);
            // Before looking, so that what happens after the look is not missed.
            news.as_mut().enable();
            if tell_input.is_none() && self.session.has_untold_input(self.id) {
                tell_input = Some(Instant::now() + TELL_INPUT);
            }
            if tell_input.is_some_and(|at| at <= Instant::now()) {
                tell_input = None;
                if let Some(offset) = self.session.tell_input(self.id) {
                    let taken = Outbound::Control(ServerFrame::Input { offset });
                    outgoing.send(taken).await.ok()?;
                }
                continue;
            }
            let frame = match self.session.next(self.id) {
                Next::Output(bytes) => Outbound::Output(bytes),
                Next::Jump(offset) => {
                    begins_at = Some(offset);
                    continue;
                }
                Next::Access(access) => Outbound::Control(ServerFrame::Access { access }),
                Next::Recording(recording, reason) => {
                    Outbound::Control(ServerFrame::Recording { recording, reason })
                }
                Next::Viewers(viewers, present) => {
                    Outbound::Control(ServerFrame::Viewers { viewers, present })
                }
                Next::Ended(ended) => return say_goodbye(outgoing, ended).await,
                Next::Replaced => {
                    let why = "the viewer has attached again".to_owned();
                    return Some((close_code::GOING_AWAY, why));
                }
                Next::Nothing => tokio::select! {
                    () = news => continue,
                    () = sleep_until(tell_input.unwrap_or_else(Instant::now)), if tell_input.is_some() => continue,
                    _ = pings.tick() => Outbound::Ping,
                },
            };
            outgoing.send(frame).await.ok()?;
        }
    }

    /// Input from the viewer. What the program does not read yet is held, in bounds, so that the viewer's
    /// control frames and its going away are seen all the same.
    async fn type_in<I>(&self, incoming: &mut I, heard: &Heard) -> Close
    where
        I: Stream<Item = Inbound> + Unpin,
    {
        let mut held: VecDeque<Bytes> = VecDeque::new();
        let mut bytes_held = 0_usize;
        let mut flushed = true;
        let mut untold_size = false;
        let mut tell_at = Instant::now();
        loop {
            let frame = tokio::select! {
                biased;
                () = self.session.muted(self.id), if !held.is_empty() => {
                    held.clear();
                    self.session.count_input(self.id, bytes_held);
                    bytes_held = 0;
                    continue;
                }
                written = self.write(held.front()), if !held.is_empty() => {
                    let n = written.unwrap_or(bytes_held);
                    if let Some(front) = held.front() {
                        let typed = &front[..n.min(front.len())];
                        self.session.record_input(typed).await;
                    }
                    bytes_held -= advance(&mut held, n);
                    flushed = false;
                    continue;
                }
                () = sleep_until(tell_at), if untold_size => {
                    untold_size = false;
                    tell_at = Instant::now() + TELL_SIZES;
                    (self.changed)(&self.session, &self.picture);
                    continue;
                }
                // Errors mean that the program ended, which the other direction tells.
                _ = self.session.flush(), if held.is_empty() && !flushed => {
                    flushed = true;
                    continue;
                }
                frame = incoming.next(), if bytes_held < HELD_INPUT => frame,
            };
            heard.now();
            match frame? {
                Inbound::Input(bytes) => {
                    if bytes.is_empty() {
                        continue;
                    }
                    if self.session.admits_input(self.id) {
                        self.session.count_input(self.id, 0);
                        bytes_held += bytes.len();
                        held.push_back(bytes);
                    } else {
                        self.session.count_input(self.id, bytes.len());
                    }
                }
                Inbound::Control(ClientFrame::Resize { size }) => {
                    self.session.resize(self.id, size);
                    untold_size = true;
                }
                Inbound::Control(ClientFrame::Pause) => {
                    self.session.set_paused(self.id, Flow::Paused);
                }
                Inbound::Control(ClientFrame::Resume) => {
                    self.session.set_paused(self.id, Flow::Flowing);
                }
                Inbound::Alive => {}
                Inbound::Wrong(what) => return Some((close_code::PROTOCOL, what)),
            }
        }
    }

    async fn write(&self, bytes: Option<&Bytes>) -> std::io::Result<usize> {
        self.session
            .type_some(self.id, bytes.map_or(&[][..], |bytes| bytes))
            .await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.session.leave(self.id);
        (self.changed)(&self.session, &self.picture);
    }
}

/// Takes `n` bytes off the front; how many there were to take.
fn advance(held: &mut VecDeque<Bytes>, n: usize) -> usize {
    let mut left = n;
    while left > 0 {
        let Some(front) = held.front_mut() else { break };
        let part = left.min(front.len());
        front.advance(part);
        left -= part;
        if front.is_empty() {
            held.pop_front();
        }
    }
    n - left
}

async fn say_goodbye<O>(outgoing: &mut O, ended: Ended) -> Close
where
    O: Sink<Outbound> + Unpin,
{
    let exit = ServerFrame::Exit {
        code: ended.code,
        reason: ended.reason.clone(),
    };
    outgoing.send(Outbound::Control(exit)).await.ok()?;
    Some((ended.close, ended.reason))
}

/// When the viewer was last heard of.
struct Heard {
    start: Instant,
    millis: AtomicU64,
}

impl Heard {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            millis: AtomicU64::new(0),
        }
    }

    fn now(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    /// Resolves once nothing was heard for too long.
    async fn lost(&self) {
        loop {
            let last = self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed));
            if last.elapsed() >= GONE {
                return;
            }
            tokio::time::sleep_until(last + GONE).await;
        }
    }
}

#[cfg(test)]
mod tests;
