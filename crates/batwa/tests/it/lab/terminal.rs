//! Somebody at a terminal: a WebSocket of master or agent.

use std::{sync::Arc, time::Duration};

use batwa_tls::SystemRoots;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use super::{Caller, DEADLINE};

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to where the caller calls.
async fn connect(caller: &Caller) -> Box<dyn Stream> {
    let url = reqwest::Url::parse(&caller.url).expect("a URL");
    let host = url.host_str().expect("a host").to_owned();
    let port = url.port_or_known_default().expect("a port");
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .expect("a connection");
    if url.scheme() == "http" {
        return Box::new(stream);
    }
    let config = caller.trust().client_config(&SystemRoots::default());
    let name = ServerName::try_from(host).expect("a name");
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    Box::new(stream.expect("a TLS connection"))
}

/// An open WebSocket and what came through it.
pub(crate) struct Terminal {
    socket: WebSocketStream<Box<dyn Stream>>,
    /// Every output byte so far.
    pub(crate) output: Vec<u8>,
    /// Every text frame so far.
    pub(crate) texts: Vec<String>,
}

/// How a WebSocket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The code, when a close frame came.
    pub(crate) code: Option<u16>,
    /// The reason in it.
    pub(crate) reason: String,
}

/// A handshake that was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The body; null when it is no JSON.
    pub(crate) body: Value,
}

impl Terminal {
    /// Opens a WebSocket with the caller's credentials.
    pub(crate) async fn open(caller: &Caller, path: &str) -> Result<Self, Refused> {
        let url = format!("{}{path}", caller.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("a URL");
        for (name, value) in caller.headers() {
            request
                .headers_mut()
                .insert(*name, value.parse().expect("a header"));
        }
        let opening = async { client_async(request, connect(caller).await).await };
        match timeout(DEADLINE, opening).await.expect("an answer in time") {
            Ok((socket, _)) => Ok(Self {
                socket,
                output: Vec::new(),
                texts: Vec::new(),
            }),
            Err(tungstenite::Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                body: response
                    .body()
                    .as_deref()
                    .and_then(|bytes| serde_json::from_slice(bytes).ok())
                    .unwrap_or(Value::Null),
            }),
            Err(error) => panic!("no WebSocket: {error}"),
        }
    }

    /// The old terminal of a VM.
    pub(crate) async fn old(caller: &Caller, agent: &str, vm: &str) -> Self {
        Self::open(caller, &format!("/ws?vm_name={vm}&agent_id={agent}"))
            .await
            .unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    /// Types text, as the old page does.
    pub(crate) async fn types(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    /// Types bytes, as the new page does.
    pub(crate) async fn types_bytes(&mut self, bytes: &[u8]) {
        self.send(Message::binary(bytes.to_vec())).await;
    }

    /// Puts these bytes on the wire, be they frames or not; whether the other side still takes any.
    pub(crate) async fn puts(&mut self, bytes: &[u8]) -> bool {
        let written = timeout(DEADLINE, self.socket.get_mut().write_all(bytes)).await;
        written.expect("taken or refused in time").is_ok()
    }

    async fn send(&mut self, message: Message) {
        timeout(DEADLINE, self.socket.send(message))
            .await
            .expect("taken in time")
            .expect("sent");
    }

    /// Reads on until the output has this in it.
    pub(crate) async fn shows(&mut self, words: &str) {
        let waiting = async {
            while !self.screen().contains(words) {
                if let Some(closed) = self.read().await {
                    panic!("closed before `{words}` came: {closed:?}");
                }
            }
        };
        if timeout(DEADLINE, waiting).await.is_err() {
            panic!("`{words}` did not come; the screen:\n{}", self.screen());
        }
    }

    /// Says nothing and reads on for so long; pings are answered.
    pub(crate) async fn stays_open_for(&mut self, time: Duration) {
        let listening = async {
            loop {
                if let Some(closed) = self.read().await {
                    return closed;
                }
            }
        };
        if let Ok(closed) = timeout(time, listening).await {
            panic!("closed: {closed:?}");
        }
    }

    /// Reads on until a text frame has this in it.
    pub(crate) async fn says(&mut self, words: &str) -> String {
        let waiting = async {
            loop {
                if let Some(text) = self.texts.iter().find(|text| text.contains(words)) {
                    return text.clone();
                }
                if let Some(closed) = self.read().await {
                    panic!("closed before `{words}` was said: {closed:?}");
                }
            }
        };
        timeout(DEADLINE, waiting)
            .await
            .unwrap_or_else(|_| panic!("`{words}` was not said; texts: {:?}", self.texts))
    }

    /// Reads on until it is closed.
    pub(crate) async fn closed(&mut self) -> Closed {
        let waiting = async {
            loop {
                if let Some(closed) = self.read().await {
                    return closed;
                }
            }
        };
        timeout(DEADLINE, waiting)
            .await
            .unwrap_or_else(|_| panic!("it stays open; the screen:\n{}", self.screen()))
    }

    /// Everything printed so far.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// Closes it from this side and waits for the other's answer.
    pub(crate) async fn close(mut self) {
        let _ = timeout(Duration::from_secs(5), self.socket.close(None)).await;
    }

    async fn read(&mut self) -> Option<Closed> {
        let nothing = Closed {
            code: None,
            reason: String::new(),
        };
        match self.socket.next().await {
            Some(Ok(Message::Binary(bytes))) => self.output.extend_from_slice(&bytes),
            Some(Ok(Message::Text(text))) => self.texts.push(text.as_str().to_owned()),
            Some(Ok(Message::Close(Some(frame)))) => {
                return Some(Closed {
                    code: Some(frame.code.into()),
                    reason: frame.reason.as_str().to_owned(),
                });
            }
            Some(Ok(Message::Close(None)) | Err(_)) | None => return Some(nothing),
            Some(Ok(_)) => {}
        }
        None
    }
}
