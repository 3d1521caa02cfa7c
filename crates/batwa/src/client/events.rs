//! The master's event stream: Server-Sent Events, whose data lines are JSON.

use std::time::Duration;

use batwa_api::event::Event;
use reqwest::{Method, Response};

use super::Client;
use crate::failure::Failure;

/// A stream has no end; clients must name one.
const NO_END: Duration = Duration::from_secs(365 * 24 * 3600);
/// The longest line that a master of ours sends is far below.
const MAX_LINE: usize = 1 << 20;

/// Changes as they come.
#[derive(Debug)]
pub(crate) struct Events {
    response: Response,
    held: Vec<u8>,
}

impl Client {
    /// Follows changes; `query` says of what.
    pub(crate) async fn events(&self, query: &[(&str, &str)]) -> Result<Events, Failure> {
        let response = self
            .request(Method::GET, &["events"], query)
            .timeout(NO_END)
            .send()
            .await
            .map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.bytes().await.unwrap_or_default();
            return Err(self.refusal(status, &body));
        }
        Ok(Events {
            response,
            held: Vec::new(),
        })
    }
}

impl Events {
    /// The next one; `None` once the stream is cut. What this version does not know is passed over.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                if let Some(event) = event(&line) {
                    return Some(event);
                }
            }
            if self.held.len() > MAX_LINE {
                return None;
            }
            let more = self.response.chunk().await.ok()??;
            self.held.extend_from_slice(&more);
        }
    }
}

/// The event of a `data:` line.
fn event(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line.strip_prefix(b"data:")?.trim_ascii()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_lines_of_known_events_are_events() {
        assert_eq!(event(b"data: {\"type\":\"reload\"}\n"), Some(Event::Reload));
        assert_eq!(
            event(b"data:{\"type\":\"reload\"}\r\n"),
            Some(Event::Reload)
        );
        for other in [
            "\n",
            ": following\n",
            "id: 3\n",
            "event: vm\n",
            "data: {\"type\":\"new\"}\n",
        ] {
            assert_eq!(event(other.as_bytes()), None, "{other:?}");
        }
    }
}
