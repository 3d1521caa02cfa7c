//! The agent's `GET /api/v1/watch`, read line by line.
//!
//! A line is bounded, and so is the silence between two of them: the agent says something every 10 s.

use std::time::Duration;

use batwa_api::event::WatchEvent;
use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use tokio::{task::JoinHandle, time::timeout};

use super::{AgentClient, CALL_DEADLINE, ClientError, MAX_DETAIL_CHARS, clip, refusal};
use crate::link::Hold;

/// Largest line: a snapshot of ten thousand VMs fits, an endless line stops here.
const MAX_LINE_BYTES: usize = 32 << 20;
/// How long an agent may be silent: three keep-alives of 10 s, as one may be late.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// Lines longer than this are read on a thread of their own: a snapshot of thousands of VMs takes long enough to be
/// felt by all that the runtime's thread would serve meanwhile.
const LONG_LINE_BYTES: usize = 128 << 10;

/// An open watch. Dropping it closes its connection.
pub(crate) struct Watch {
    body: Incoming,
    buffer: BytesMut,
    /// How far `buffer` was searched for the end of its first line.
    searched: usize,
    /// A long line that is being read.
    reading: Option<JoinHandle<Result<WatchEvent, ClientError>>>,
    // The connection lives as long as its sender does.
    _sender: SendRequest<Full<Bytes>>,
}

impl AgentClient {
    /// Opens the watch on a connection of its own.
    ///
    /// # Errors
    /// Any [`ClientError`]; one that [is not found](ClientError::is_not_found) means an old agent.
    pub(crate) async fn watch(&self, away: Option<Duration>) -> Result<Watch, ClientError> {
        let path = match away {
            Some(away) => format!("/api/v1/watch?away_s={}", away.as_secs()),
            None => "/api/v1/watch".to_owned(),
        };
        let request = self.request(Method::GET, &path, None)?;
        timeout(CALL_DEADLINE, async {
            let mut sender = self.connect(Hold::Brief).await?;
            let response = sender
                .send_request(request)
                .await
                .map_err(ClientError::Http)?;
            if !response.status().is_success() {
                return Err(refusal(response).await);
            }
            Ok(Watch {
                body: response.into_body(),
                buffer: BytesMut::new(),
                searched: 0,
                reading: None,
                _sender: sender,
            })
        })
        .await
        .unwrap_or(Err(ClientError::Timeout(CALL_DEADLINE)))
    }
}

impl Watch {
    /// The next event; `None` when the agent ended the watch in order.
    ///
    /// Safe to cancel: what was read stays for the next call.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] after [`SILENCE`], and whatever else can be wrong with an answer.
    pub(crate) async fn next(&mut self) -> Result<Option<WatchEvent>, ClientError> {
        loop {
            if let Some(reading) = &mut self.reading {
                let event = reading.await;
                self.reading = None;
                return event
                    .expect("reading does not panic, and nobody cancels it")
                    .map(Some);
            }
            if let Some(line) = self.take_line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                if line.len() < LONG_LINE_BYTES {
                    return event(&line).map(Some);
                }
                self.reading = Some(tokio::task::spawn_blocking(move || event(&line)));
                continue;
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(ClientError::Garbage(format!(
                    "a line of its watch is longer than {} MiB",
                    MAX_LINE_BYTES >> 20
                )));
            }
            let frame = timeout(SILENCE, self.body.frame())
                .await
                .map_err(|_| ClientError::Timeout(SILENCE))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(ClientError::Http(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        match memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}

fn event(line: &[u8]) -> Result<WatchEvent, ClientError> {
    serde_json::from_slice(line)
        .map_err(|error| ClientError::Garbage(clip(&error.to_string(), MAX_DETAIL_CHARS)))
}
