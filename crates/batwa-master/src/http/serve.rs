//! Accepting connections: bounded in number, impatient with those that send nothing, and ended in order.
//!
//! Where the port speaks TLS, the handshake is each connection's own, so that a slow one holds up nobody.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at a time; more wait in the kernel's queue. Thousands of agents hold one each.
    pub(crate) connections: usize,
    /// A request's head must be whole this long after the connection or the answer before it; so this is also how
    /// long a connection may be idle.
    pub(crate) head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            head: Duration::from_secs(60),
        }
    }
}

/// Longest head of a request: the line and all headers.
const MAX_HEAD: usize = 64 * 1024;

/// After this long without a byte the kernel asks whether the other end still lives: a closed laptop says
/// nothing, and its event stream would be held for ever.
const ASK_AFTER: Duration = Duration::from_secs(60);

/// The first byte of every TLS connection: the type of a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// After a failure to accept (no file descriptors left) there is nothing to do but wait a little.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come in.
pub(crate) struct Door {
    /// The port.
    pub(crate) listener: TcpListener,
    /// What ends TLS on it; `None` for plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
}

/// Serves `router` until `stop`; then no new connection is taken, and those there finish their request.
///
/// Returns when all are closed; whoever cannot wait drops this future, which closes them.
pub(crate) async fn serve(door: Door, router: Router, limits: Limits, stop: CancellationToken) {
    let Door { listener, tls } = door;
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            // Takes the finished ones out; cancelling either of these two loses nothing.
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = enter(
            stream,
            peer,
            tls.clone(),
            Served {
                router: router.clone(),
                limits,
                stop: stop.clone(),
            },
        );
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// What a connection gets, and until when.
struct Served {
    router: Router,
    limits: Limits,
    stop: CancellationToken,
}

/// Takes a connection through the door: by TLS where the port speaks that, and with a word to those who do not.
async fn enter(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, served: Served) {
    prepare(&stream);
    let Some(tls) = tls else {
        return connection(stream, peer, served).await;
    };
    let handshake = async {
        let mut first = [0];
        let read = stream.peek(&mut first).await?;
        if read == 1 && first[0] != TLS_HANDSHAKE {
            return Ok(Err(stream));
        }
        tls.accept(stream).await.map(Ok)
    };
    let outcome = tokio::select! {
        () = served.stop.cancelled() => return,
        outcome = tokio::time::timeout(served.limits.head, handshake) => outcome,
    };
    match outcome {
        Ok(Ok(Ok(stream))) => connection(stream, peer, served).await,
        Ok(Ok(Err(stream))) => {
            let router = Router::new().fallback(super::plain::refuse);
            connection(stream, peer, Served { router, ..served }).await;
        }
        Ok(Err(error)) => tracing::debug!(client.address = %peer, "no TLS came about: {error}"),
        Err(_) => tracing::debug!(client.address = %peer, "no TLS came about in time"),
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    served: Served,
) {
    let Served {
        router,
        limits,
        stop,
    } = served;
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_header_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(client.address = %peer, "connection ended: {error}");
    }
}

fn prepare(stream: &TcpStream) {
    // Neither is worth losing the connection for. A keystroke must not wait for a larger packet.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_keepidle(stream, ASK_AFTER);
}

/// Lets this process open as many files as its administrator allows: a connection is one.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::{get, post};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::Notify,
    };

    use super::*;

    struct Running {
        address: SocketAddr,
        stop: CancellationToken,
        tasks: JoinSet<()>,
        go_on: Arc<Notify>,
        entered: Arc<Notify>,
    }

    /// A server with a handler that waits in its middle.
    async fn served(limits: Limits) -> Running {
        let (go_on, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (go_on, entered) = (Arc::clone(&go_on), Arc::clone(&entered));
            move || async move {
                entered.notify_one();
                go_on.notified().await;
                "done"
            }
        };
        let router = Router::new()
            .route("/", get(async || "hello"))
            .route("/slow", get(slow))
            .route("/body", post(async |body: String| body));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let door = Door {
            listener,
            tls: None,
        };
        tasks.spawn(serve(door, router, limits, stop.clone()));
        Running {
            address,
            stop,
            tasks,
            go_on,
            entered,
        }
    }

    impl Running {
        async fn send(&self, text: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            stream
        }
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        let _ = tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .expect("the connection is closed");
        text
    }

    const IMPATIENT: Limits = Limits {
        connections: 2,
        head: Duration::from_millis(200),
    };

    #[tokio::test]
    async fn whoever_sends_nothing_or_drips_is_cut() {
        let served = served(IMPATIENT).await;
        let began = Instant::now();
        let silent = served.send("").await;
        let dripping = served.send("GET / HTTP/1.1\r\nhost: x\r\nx-a: ").await;
        assert!(!rest(silent).await.contains("200"));
        assert!(!rest(dripping).await.contains("200"));
        assert!(began.elapsed() >= IMPATIENT.head);
        let idle = served.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(
            rest(idle).await.ends_with("hello"),
            "idle connections are closed too"
        );
    }

    #[tokio::test]
    async fn the_next_waits_when_all_places_are_taken() {
        let served = served(Limits {
            connections: 1,
            head: Duration::from_secs(60),
        })
        .await;
        let first = served
            .send("GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await;
        served.entered.notified().await;
        let mut second = served
            .send("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await;
        let early = tokio::time::timeout(Duration::from_millis(100), second.read_u8()).await;
        assert!(early.is_err(), "{early:?}");
        served.go_on.notify_one();
        assert!(rest(first).await.ends_with("done"));
        assert!(rest(second).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_stop_lets_requests_finish_and_closes_the_idle() {
        let mut served = served(Limits::default()).await;
        let idle = served.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let busy = served.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        served.entered.notified().await;
        served.stop.cancel();
        assert!(rest(idle).await.ends_with("hello"));
        served.go_on.notify_one();
        assert!(rest(busy).await.ends_with("done"));
        served.tasks.join_next().await.unwrap().unwrap();
        assert!(
            TcpStream::connect(served.address).await.is_err(),
            "nobody is taken after it"
        );
    }

    #[tokio::test]
    async fn an_endless_head_is_refused() {
        let served = served(Limits::default()).await;
        let head = format!(
            "GET / HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n",
            "a".repeat(MAX_HEAD)
        );
        let answer = rest(served.send(&head).await).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}
