//! Copying between a viewer's upgraded connection and the agent's, bytes as they are.
//!
//! Both directions end as soon as either does: a half-closed stream would keep the other side's handler for ever
//! (MEASURED.md). Nothing is read ahead: a viewer that does not read stops the agent by TCP's own back-pressure.

use std::{future::Future, io, time::Duration};

use batwa_api::terminal::close_code;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    time::{Instant, sleep_until, timeout},
};

use super::frames::{Ending, Tracker};

/// Bytes copied at a time: more gains nothing, less costs throughput (MEASURED.md).
const BUFFER: usize = 64 << 10;
/// How long a frame that is half sent may take to be whole before its connection is cut, and how long the other
/// end may take to answer a Close.
const PATIENCE: Duration = Duration::from_secs(1);

/// Copies until one side ends, or `ending` says how to end.
pub(crate) async fn splice<V, A>(viewer: V, agent: A, ending: impl Future<Output = Ending>)
where
    V: AsyncRead + AsyncWrite,
    A: AsyncRead + AsyncWrite,
{
    let (mut viewer_reads, viewer_writes) = tokio::io::split(viewer);
    let (agent_reads, mut agent_writes) = tokio::io::split(agent);
    let mut down = Down {
        agent: agent_reads,
        viewer: viewer_writes,
        tracker: Tracker::default(),
        buffer: vec![0; BUFFER],
        written: 0,
        filled: 0,
    };
    let last_words = {
        let mut up = std::pin::pin!(copy_up(&mut viewer_reads, &mut agent_writes));
        let mut ending = std::pin::pin!(ending);
        // When an agent that takes nothing more is no longer listened to either.
        let mut deaf_until = None;
        loop {
            tokio::select! {
                end = &mut up, if deaf_until.is_none() => match end {
                    // The viewer is gone; so is whoever could be told.
                    UpEnd::Viewer => return,
                    // It has closed its end, and may have said why.
                    UpEnd::Agent => deaf_until = Some(Instant::now() + PATIENCE),
                },
                () = sleep_until(deaf_until.unwrap_or_else(Instant::now)), if deaf_until.is_some() => {
                    break down.unannounced_end();
                }
                ending = &mut ending => break Some(ending),
                step = down.step() => match step {
                    Ok(Step::Goes) => {}
                    Ok(Step::AgentEnded) => break down.unannounced_end(),
                    Err(_) => return,
                },
            }
        }
    };
    let told = timeout(PATIENCE, down.end(last_words)).await;
    // A connection closed with bytes unread is reset, which would take the Close away from the viewer again.
    if matches!(told, Ok(Ok(()))) {
        let _ = timeout(
            PATIENCE,
            tokio::io::copy(&mut viewer_reads, &mut tokio::io::sink()),
        )
        .await;
    }
}

/// Which side ended the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpEnd {
    Viewer,
    Agent,
}

async fn copy_up<V, A>(viewer: &mut ReadHalf<V>, agent: &mut WriteHalf<A>) -> UpEnd
where
    V: AsyncRead,
    A: AsyncWrite,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        match viewer.read(&mut buffer).await {
            Ok(0) | Err(_) => return UpEnd::Viewer,
            Ok(n) => {
                let sent = async {
                    agent.write_all(&buffer[..n]).await?;
                    agent.flush().await
                };
                if sent.await.is_err() {
                    return UpEnd::Agent;
                }
            }
        }
    }
}

/// From agent to viewer, one cancel-safe step at a time.
struct Down<V, A> {
    agent: ReadHalf<A>,
    viewer: WriteHalf<V>,
    tracker: Tracker,
    buffer: Vec<u8>,
    written: usize,
    filled: usize,
}

enum Step {
    Goes,
    AgentEnded,
}

impl<V: AsyncWrite, A: AsyncRead> Down<V, A> {
    /// Writes what is held, or reads more. Safe to cancel: at most one read or write happens in it.
    async fn step(&mut self) -> io::Result<Step> {
        if self.written < self.filled {
            self.write(self.filled).await?;
            return Ok(Step::Goes);
        }
        match self.agent.read(&mut self.buffer).await {
            Ok(0) | Err(_) => Ok(Step::AgentEnded),
            Ok(n) => {
                (self.written, self.filled) = (0, n);
                Ok(Step::Goes)
            }
        }
    }

    async fn write(&mut self, until: usize) -> io::Result<()> {
        let n = self.viewer.write(&self.buffer[self.written..until]).await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.tracker
            .feed(&self.buffer[self.written..self.written + n]);
        self.written += n;
        // What is copied needs no flush of ours unless a layer below holds it back.
        if self.written == self.filled {
            self.viewer.flush().await?;
        }
        Ok(())
    }

    /// How a viewer is told of an agent's end that the agent did not announce.
    fn unannounced_end(&self) -> Option<Ending> {
        (!self.tracker.is_closed())
            .then(|| Ending::new(close_code::AGENT_OFFLINE, "the agent's connection was cut"))
    }

    /// Brings the frame under way to its end, then says the last words.
    async fn end(&mut self, last_words: Option<Ending>) -> io::Result<()> {
        while !self.tracker.is_between_frames() {
            if self.written == self.filled {
                match self.step().await? {
                    Step::Goes => {}
                    Step::AgentEnded => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
                continue;
            }
            let rest = &self.buffer[self.written..self.filled];
            let until = self.written + self.tracker.rest_of_frame(rest);
            self.write(until).await?;
        }
        if let Some(ending) = last_words
            && !self.tracker.is_closed()
        {
            self.viewer.write_all(&ending.frames()).await?;
        }
        self.viewer.flush().await?;
        self.viewer.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, sync::oneshot, task::JoinSet};

    use super::*;

    fn binary(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x82, u8::try_from(payload.len()).unwrap()];
        frame.extend_from_slice(payload);
        frame
    }

    struct Spliced {
        viewer: tokio::io::DuplexStream,
        agent: tokio::io::DuplexStream,
        end: Option<oneshot::Sender<Ending>>,
        tasks: JoinSet<()>,
    }

    fn spliced() -> Spliced {
        let (viewer, master_viewer) = duplex(1 << 10);
        let (agent, master_agent) = duplex(1 << 10);
        let (end, ending) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(splice(master_viewer, master_agent, async {
            match ending.await {
                Ok(ending) => ending,
                Err(_) => std::future::pending().await,
            }
        }));
        Spliced {
            viewer,
            agent,
            end: Some(end),
            tasks,
        }
    }

    async fn read_all(stream: &mut tokio::io::DuplexStream) -> Vec<u8> {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_untouched() {
        let mut s = spliced();
        let frame = binary(b"ls\n");
        s.viewer.write_all(&frame).await.unwrap();
        let mut got = vec![0; frame.len()];
        s.agent.read_exact(&mut got).await.unwrap();
        assert_eq!(got, frame);
        s.agent.write_all(&frame).await.unwrap();
        s.viewer.read_exact(&mut got).await.unwrap();
        assert_eq!(got, frame);
    }

    #[tokio::test]
    async fn an_ending_goes_in_after_the_frame_that_is_under_way() {
        let mut s = spliced();
        let frame = binary(b"0123456789");
        s.agent.write_all(&frame[..5]).await.unwrap();
        let mut begun = [0; 5];
        s.viewer.read_exact(&mut begun).await.unwrap();
        let ending = Ending::new(1008, "signed out");
        s.end.take().unwrap().send(ending.clone()).unwrap();
        // The rest of that frame, and one more that must not pass.
        s.agent.write_all(&frame[5..]).await.unwrap();
        s.agent.write_all(&binary(b"secret")).await.unwrap();
        let rest = read_all(&mut s.viewer).await;
        assert_eq!(rest, [&frame[5..], &ending.frames()].concat());
        drop(s.viewer);
        s.tasks.join_next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_agent_that_vanishes_between_frames_is_announced() {
        let mut s = spliced();
        let frame = binary(b"x");
        s.agent.write_all(&frame).await.unwrap();
        drop(s.agent);
        let got = read_all(&mut s.viewer).await;
        assert_eq!(got[..3], frame);
        assert_eq!(
            got[3..7],
            [0x88, got[4], 0x0f, 0xa3],
            "a Close with code 4003"
        );
    }

    #[tokio::test]
    async fn an_agents_own_close_is_the_last_word() {
        let mut s = spliced();
        let close = Ending::new(1000, "the shell ended").frames();
        s.agent.write_all(&close).await.unwrap();
        drop(s.agent);
        assert_eq!(read_all(&mut s.viewer).await, close);
    }

    #[tokio::test]
    async fn an_agent_that_takes_no_more_is_heard_out() {
        let close = Ending::new(1002, "too long").frames();
        // Which of the two is noticed first is chance.
        for _ in 0..20 {
            let mut s = spliced();
            s.agent.write_all(&close).await.unwrap();
            s.viewer.write_all(&binary(b"more")).await.unwrap();
            drop(s.agent);
            assert_eq!(read_all(&mut s.viewer).await, close);
        }
    }

    #[tokio::test]
    async fn a_viewer_that_leaves_ends_the_agents_side_too() {
        let mut s = spliced();
        drop(s.viewer);
        assert!(read_all(&mut s.agent).await.is_empty());
        s.tasks.join_next().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_does_not_read_cannot_hold_an_ending_up() {
        let mut s = spliced();
        let mut flood = JoinSet::new();
        flood.spawn(async move { while s.agent.write_all(&binary(&[7; 100])).await.is_ok() {} });
        tokio::task::yield_now().await;
        s.end
            .take()
            .unwrap()
            .send(Ending::new(1008, "signed out"))
            .unwrap();
        s.tasks.join_next().await.unwrap().unwrap();
        flood.join_next().await.unwrap().unwrap();
        drop(s.viewer);
    }
}
