//! One connection to a port inside, over one SSH connection: see `command.rs` for why it has its own.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use russh::{ChannelStream, client::Msg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Session, SshError};
use crate::driver::{Connection, inside::Life};

/// The stream, with what its SSH connection hangs on.
struct Port {
    stream: ChannelStream<Msg>,
    _life: Life,
}

impl Session {
    /// Connects to a port of the VM's loopback; what it gives beside that is the connection's task.
    pub(in crate::driver::qemu) async fn port(
        self,
        port: u16,
    ) -> Result<(Connection, impl Future<Output = ()> + Send + 'static), SshError> {
        let channel = self
            .handle
            .channel_open_direct_tcpip("127.0.0.1", port.into(), "127.0.0.1", 0)
            .await?;
        let (life, over) = Life::new();
        let connection = Box::new(Port {
            stream: channel.into_stream(),
            _life: life,
        });
        let task = async move {
            over.cancelled().await;
            self.close().await;
        };
        Ok((connection, task))
    }
}

impl AsyncRead for Port {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
