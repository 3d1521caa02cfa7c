//! The agent's port: TCP, or TLS on it.
//!
//! Handshakes run beside each other and have a deadline, so that one who connects and says nothing keeps nobody
//! else out.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::Listener;
use batwa_tls::ServedCertificate;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;
use tracing::debug;

/// A master is through in milliseconds, also from another continent.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Handshakes at a time; further connections wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 256;

type Handshake = io::Result<(TlsStream<TcpStream>, SocketAddr)>;

/// Where connections come in.
pub(crate) struct Port {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<Handshake>,
}

impl Port {
    /// A port that speaks TLS where there is a certificate to show.
    pub(crate) fn new(listener: TcpListener, certificate: Option<&Arc<ServedCertificate>>) -> Self {
        Self {
            listener,
            tls: certificate.map(ServedCertificate::acceptor),
            handshakes: JoinSet::new(),
        }
    }
}

async fn handshake(tls: TlsAcceptor, stream: TcpStream, address: SocketAddr) -> Handshake {
    match timeout(HANDSHAKE_DEADLINE, tls.accept(stream)).await {
        Ok(stream) => Ok((stream?, address)),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

impl Listener for Port {
    type Io = Either<TcpStream, TlsStream<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            // Cancelling any of these loses nothing: the handshakes are kept in the port itself.
            let (stream, address) = tokio::select! {
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Ok((stream, address))) => return (Either::Right(stream), address),
                    Ok(Err(error)) => {
                        debug!("no TLS came about: {error}");
                        continue;
                    }
                    Err(_) => continue,
                },
                accepted = Listener::accept(&mut self.listener), if self.handshakes.len() < MAX_HANDSHAKES => accepted,
            };
            // Without it a keystroke's echo waits for the other side's delayed acknowledgement.
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "cannot set TCP_NODELAY");
            }
            let Some(tls) = self.tls.clone() else {
                return (Either::Left(stream), address);
            };
            self.handshakes.spawn(handshake(tls, stream, address));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use batwa_tls::{CertificateSource, SystemRoots, Trust};
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::*;

    #[tokio::test]
    async fn who_connects_and_says_nothing_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let source = CertificateSource::SelfSigned { names: vec![] };
        let certificate = ServedCertificate::open(&source, dir.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut port = Port::new(listener, Some(&certificate));
        let server = async {
            let (mut stream, _) = port.accept().await;
            stream.write_all(b"!").await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let client = async {
            let _silent = TcpStream::connect(address).await.unwrap();
            let mut plain = TcpStream::connect(address).await.unwrap();
            plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let trust = Trust::Pinned(certificate.hash());
            let connector =
                TlsConnector::from(Arc::new(trust.client_config(&SystemRoots::default())));
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("agent").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            stream.read_u8().await.unwrap()
        };
        let both = async { tokio::join!(server, client).1 };
        let byte = timeout(Duration::from_secs(5), both)
            .await
            .expect("in time");
        assert_eq!(byte, b'!');
    }
}
