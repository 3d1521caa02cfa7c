//! The link to the agent inside the master's own process: a duplex pipe, no socket.

use std::io;

use async_trait::async_trait;
use batwa_api::agent::LinkKind;

use super::{Hold, Link, Stream};
use crate::config::Connector;

/// A link inside one process.
pub(crate) struct InProcess {
    connector: Connector,
}

impl InProcess {
    /// A link over the pipes that `connector` makes.
    #[must_use]
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector }
    }
}

#[async_trait]
impl Link for InProcess {
    fn kind(&self) -> LinkKind {
        LinkKind::InProcess
    }

    fn host(&self) -> &str {
        "local"
    }

    async fn connect(&self, _hold: Hold) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new((self.connector)().await?))
    }
}
