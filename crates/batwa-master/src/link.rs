//! Links: ways to get a byte stream to an agent (DESIGN.md, idea 1).
//!
//! [`crate::client::AgentClient`] is the only caller: it asks a link for a stream and speaks HTTP/1.1 on it. A
//! link knows nothing of HTTP beyond what the `Host` header and the path in front of the agent API are.

pub(crate) mod direct;
pub(crate) mod in_process;
pub(crate) mod tunnel;

use std::io;

use async_trait::async_trait;
use batwa_api::agent::LinkKind;
pub(crate) use batwa_tunnel::Hold;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to an agent.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A way to get a byte stream to one agent.
#[async_trait]
pub(crate) trait Link: Send + Sync + 'static {
    /// Which kind it is.
    fn kind(&self) -> LinkKind;

    /// What the `Host` header says on its streams.
    fn host(&self) -> &str;

    /// What stands in front of the agent API's paths: empty, or `/` and more without a slash at its end.
    fn path_prefix(&self) -> &str {
        ""
    }

    /// A fresh stream, held for so long. The caller owns the deadline.
    ///
    /// # Errors
    /// Whatever kept the stream from being made; the agent then counts as offline.
    async fn connect(&self, hold: Hold) -> io::Result<Box<dyn Stream>>;
}
