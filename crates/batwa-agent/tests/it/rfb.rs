//! A VNC viewer as small as can be, at a display's WebSocket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Viewer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Bytes that came and are not read yet.
    held: Vec<u8>,
    pub(crate) width: u16,
    pub(crate) height: u16,
    pub(crate) name: String,
}

/// With what a display was closed; nothing when the connection was cut.
pub(crate) type Closed = Option<(u16, String)>;

impl Viewer {
    /// Opens the WebSocket, and says nothing yet.
    pub(crate) async fn connect(url: &str) -> Result<Self, tungstenite::Error> {
        let request = url.into_client_request()?;
        let (socket, _) = timeout(PATIENCE, connect_async(request)).await.unwrap()?;
        Ok(Self {
            socket,
            held: Vec::new(),
            width: 0,
            height: 0,
            name: String::new(),
        })
    }

    /// Goes through the handshake: RFB 3.8 without a password, and not alone.
    pub(crate) async fn open(url: &str) -> Self {
        let mut viewer = Self::connect(url).await.unwrap();
        assert_eq!(viewer.take(12).await, b"RFB 003.008\n");
        viewer.send(b"RFB 003.008\n").await;
        let ways = usize::from(viewer.take(1).await[0]);
        assert!(viewer.take(ways).await.contains(&1), "without a password");
        viewer.send(&[1]).await;
        assert_eq!(viewer.take(4).await, [0; 4], "let in");
        viewer.send(&[1]).await;
        let said = viewer.take(24).await;
        viewer.width = u16::from_be_bytes([said[0], said[1]]);
        viewer.height = u16::from_be_bytes([said[2], said[3]]);
        assert_eq!(said[4], 32, "bits a pixel");
        let length = u32::from_be_bytes([said[20], said[21], said[22], said[23]]);
        let name = viewer.take(usize::try_from(length).unwrap()).await;
        viewer.name = String::from_utf8(name).unwrap();
        viewer
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.send_message(Message::binary(bytes.to_vec())).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        timeout(PATIENCE, self.socket.send(message))
            .await
            .unwrap()
            .unwrap();
    }

    /// The next `count` bytes.
    async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.held.len() < count {
            if let Err(closed) = self.receive().await {
                panic!("closed: {closed:?}");
            }
        }
        self.held.drain(..count).collect()
    }

    async fn receive(&mut self) -> Result<(), Closed> {
        match timeout(PATIENCE, self.socket.next()).await.unwrap() {
            Some(Ok(Message::Binary(bytes))) => self.held.extend_from_slice(&bytes),
            Some(Ok(Message::Text(text))) => panic!("a text frame: {text}"),
            Some(Ok(Message::Close(frame))) => {
                return Err(frame.map(|frame| (frame.code.into(), frame.reason.to_string())));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(None),
        }
        Ok(())
    }

    /// Reads on until it is closed.
    pub(crate) async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.receive().await {
                return closed;
            }
            self.held.clear();
        }
    }

    /// Presses a key and lets it go.
    pub(crate) async fn key(&mut self, keysym: u32) {
        for down in [1, 0] {
            let mut message = vec![4, down, 0, 0];
            message.extend(keysym.to_be_bytes());
            self.send(&message).await;
        }
    }

    /// The whole picture as it is now, four bytes a pixel.
    pub(crate) async fn picture(&mut self) -> Vec<u8> {
        let (width, height) = (usize::from(self.width), usize::from(self.height));
        let mut message = vec![3, 0, 0, 0, 0, 0];
        message.extend(self.width.to_be_bytes());
        message.extend(self.height.to_be_bytes());
        self.send(&message).await;
        let mut pixels = vec![0; width * height * 4];
        // What an update leaves out comes with the next one: asked for all, a server sends all.
        let mut missing = width * height;
        while missing > 0 {
            let head = self.take(1).await[0];
            if head == 2 {
                continue;
            }
            assert_eq!(head, 0, "an update");
            let rest = self.take(3).await;
            for _ in 0..u16::from_be_bytes([rest[1], rest[2]]) {
                let head = self.take(12).await;
                let side = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
                let (x, y, w, h) = (side(0), side(2), side(4), side(6));
                assert_eq!(head[8..], [0; 4], "raw pixels");
                assert!(x + w <= width && y + h <= height);
                for row in y..y + h {
                    let begin = (row * width + x) * 4;
                    let line = self.take(w * 4).await;
                    pixels[begin..begin + w * 4].copy_from_slice(&line);
                }
                missing = missing.saturating_sub(w * h);
            }
        }
        pixels
    }
}
