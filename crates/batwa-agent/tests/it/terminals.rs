//! Terminals over real WebSockets, with real shells.

use std::time::Duration;

use batwa_agent::FakeSettings;
use batwa_api::{
    id::{TerminalId, ViewerId},
    terminal::{ServerFrame, close_code},
};
use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::lab::{DEADLINE, Lab};

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Output so far.
    seen: Vec<u8>,
    /// Control frames so far.
    pub(crate) control: Vec<String>,
    /// Offset of the first byte seen.
    start: Option<u64>,
    closed: Option<(u16, String)>,
}

impl Client {
    pub(crate) async fn connect(lab: &Lab, path: &str) -> Self {
        Self::try_connect(lab, path).await.unwrap()
    }

    async fn try_connect(lab: &Lab, path: &str) -> Result<Self, tungstenite::Error> {
        let request = format!("ws://{}{path}", lab.address).into_client_request()?;
        let (socket, _) = timeout(DEADLINE, connect_async(request)).await.unwrap()?;
        Ok(Self {
            socket,
            seen: Vec::new(),
            control: Vec::new(),
            start: None,
            closed: None,
        })
    }

    async fn send(&mut self, message: Message) {
        timeout(DEADLINE, self.socket.send(message))
            .await
            .unwrap()
            .unwrap();
    }

    pub(crate) async fn type_text(&mut self, text: &str) {
        self.send(Message::Binary(text.as_bytes().to_vec().into()))
            .await;
    }

    /// Takes one frame in; false once the connection has ended.
    async fn receive(&mut self) -> bool {
        let message = timeout(DEADLINE, self.socket.next())
            .await
            .unwrap_or_else(|_| panic!("silence after {:?}", self.text()));
        match message {
            Some(Ok(Message::Binary(bytes))) => self.seen.extend_from_slice(&bytes),
            Some(Ok(Message::Text(text))) => {
                if let Ok(ServerFrame::Offset { offset, .. }) = serde_json::from_str(&text) {
                    self.start.get_or_insert(offset);
                }
                self.control.push(text.to_string());
            }
            Some(Ok(Message::Close(frame))) => {
                self.closed = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                return false;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return false,
        }
        true
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    pub(crate) async fn until(&mut self, wanted: &str) {
        while !self.text().contains(wanted) {
            assert!(self.receive().await, "ended after {:?}", self.text());
        }
    }

    pub(crate) async fn until_closed(&mut self) -> (u16, String) {
        while self.receive().await {}
        self.closed.clone().expect("a close frame")
    }
}

fn two() -> FakeSettings {
    FakeSettings {
        vms: 4,
        ..FakeSettings::instant()
    }
}

pub(crate) async fn open(lab: &Lab, vm: &str, more: Value) -> TerminalId {
    let mut body = json!({"vm": vm, "cols": 80, "rows": 24});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let answer = lab.post("/api/v1/terminals", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    serde_json::from_value(answer.body["id"].clone()).unwrap()
}

pub(crate) fn attach(id: TerminalId) -> String {
    format!("/api/v1/terminals/{id}/attach")
}

#[tokio::test]
async fn a_shell_answers_and_is_found_again_with_no_byte_lost() {
    let lab = Lab::new(two()).await;
    let id = open(&lab, "demo-01", json!({})).await;
    let mut first = Client::connect(&lab, &attach(id)).await;
    first.type_text("echo one-$((1+1)); secret=kept\n").await;
    first.until("one-2").await;
    assert_eq!(first.start, Some(0));
    let seen = first.seen.clone();
    drop(first);

    let mut second = Client::connect(&lab, &format!("{}?from={}", attach(id), seen.len())).await;
    second.type_text("echo $secret-$((20+2))\n").await;
    second.until("kept-22").await;
    assert_eq!(second.start, Some(seen.len() as u64));

    let mut whole = Client::connect(&lab, &attach(id)).await;
    whole.until("kept-22").await;
    let both = [seen, second.seen.clone()].concat();
    let common = both.len().min(whole.seen.len());
    assert_eq!(whole.seen[..common], both[..common]);

    let list = lab.get("/api/v1/terminals").await.body;
    assert_eq!(list["items"][0]["id"], json!(id));
    assert_eq!(list["items"][0]["vm"], "demo-01");
    let beyond = Client::try_connect(&lab, &format!("{}?from=99999999", attach(id))).await;
    let Err(tungstenite::Error::Http(response)) = beyond else {
        panic!()
    };
    assert_eq!(response.status(), 416);
}

#[tokio::test]
async fn characters_of_several_bytes_and_window_changes_arrive() {
    let lab = Lab::new(two()).await;
    let id = open(&lab, "demo-01", json!({"cols": 100, "rows": 40})).await;
    let mut client = Client::connect(&lab, &attach(id)).await;
    client
        .type_text("stty size; printf '%s\\n' 'grüße-🦀'-$((1+1))\n")
        .await;
    client.until("grüße-🦀-2").await;
    client.until("40 100").await;
    client
        .send(Message::Text(
            r#"{"type":"resize","cols":132,"rows":50}"#.into(),
        ))
        .await;
    client
        .type_text(
            "until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; echo now-$((1+1))\n",
        )
        .await;
    client.until("now-2").await;
}

#[tokio::test]
async fn the_end_of_the_shell_is_told_at_once() {
    let lab = Lab::new(two()).await;
    let id = open(&lab, "demo-01", json!({})).await;
    let mut client = Client::connect(&lab, &attach(id)).await;
    client.type_text("exit 7\n").await;
    assert_eq!(
        client.until_closed().await,
        (close_code::ENDED, "the shell ended".into())
    );
    let last: ServerFrame = serde_json::from_str(client.control.last().unwrap()).unwrap();
    assert_eq!(
        last,
        ServerFrame::Exit {
            code: Some(7),
            reason: "the shell ended".into()
        }
    );
    let list = lab.get("/api/v1/terminals").await.body;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn a_vm_that_stops_ends_its_terminals_with_the_reason() {
    let lab = Lab::new(two()).await;
    let id = open(&lab, "demo-01", json!({})).await;
    let mut client = Client::connect(&lab, &attach(id)).await;
    client.type_text("echo up-$((1+1))\n").await;
    client.until("up-2").await;
    lab.run("demo-01", json!({"kind": "stop"})).await;
    assert_eq!(
        client.until_closed().await,
        (close_code::VM_NOT_RUNNING, "the VM is stopped".into())
    );
    let refused = lab
        .post(
            "/api/v1/terminals",
            json!({"vm": "demo-01", "cols": 80, "rows": 24}),
        )
        .await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(
        refused.body["detail"],
        "cannot open a terminal of VM `demo-01`: VM is stopped"
    );
    let missing = lab
        .post(
            "/api/v1/terminals",
            json!({"vm": "nope", "cols": 80, "rows": 24}),
        )
        .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_same_id_opens_the_same_session_and_closing_ends_it() {
    let lab = Lab::new(two()).await;
    let id = TerminalId::new();
    assert_eq!(open(&lab, "demo-01", json!({"id": id})).await, id);
    assert_eq!(open(&lab, "demo-01", json!({"id": id})).await, id);
    let list = lab.get("/api/v1/terminals").await.body;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let mut client = Client::connect(&lab, &attach(id)).await;
    let answer = lab
        .call(Method::DELETE, &format!("/api/v1/terminals/{id}"), None)
        .await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(client.until_closed().await.1, "the terminal was closed");
}

#[tokio::test]
async fn a_full_agent_has_room_again_as_soon_as_a_terminal_has_ended() {
    let lab = Lab::with(two(), |config| config.limits.terminals = 1).await;
    let id = open(&lab, "demo-01", json!({})).await;
    let body = json!({"vm": "demo-01", "cols": 80, "rows": 24});
    let full = lab.post("/api/v1/terminals", body).await;
    assert_eq!(full.status, StatusCode::TOO_MANY_REQUESTS, "{}", full.body);

    let mut client = Client::connect(&lab, &attach(id)).await;
    client.type_text("exit\n").await;
    client.until_closed().await;
    open(&lab, "demo-01", json!({})).await;
}

#[tokio::test]
async fn ten_megabytes_pasted_into_a_shell_arrive_whole() {
    let lab = Lab::new(two()).await;
    let id = open(&lab, "demo-01", json!({})).await;
    let mut client = Client::connect(&lab, &attach(id)).await;
    client
        .type_text("stty raw -echo; echo ready-$((1+1)); head -c 10000000 | cksum; stty sane; echo done-$((1+1))\n")
        .await;
    client.until("ready-2").await;
    let paste: Vec<u8> = (0..10_000_000_u32).map(|i| (i % 251) as u8).collect();
    client.send(Message::Binary(paste.into())).await;
    client.until("done-2").await;
    assert!(client.text().contains(" 10000000"), "{}", client.text());
    let sum: u32 = client
        .text()
        .lines()
        .find_map(|line| line.trim().strip_suffix(" 10000000")?.trim().parse().ok())
        .unwrap();
    assert_eq!(sum, PASTE_CKSUM);
}

/// What `cksum` prints for the ten million bytes of that paste.
const PASTE_CKSUM: u32 = 464_084_163;

#[tokio::test]
async fn the_old_terminal_takes_json_as_typed_and_ends_with_its_connection() {
    let lab = Lab::new(two()).await;
    let mut client = Client::connect(&lab, "/ws?vm_name=demo-01").await;
    client
        .send(Message::Text("echo $$-pid; cat\n".into()))
        .await;
    client.until("-pid\r\n").await;
    client.send(Message::Text(r#"{"a":1}"#.into())).await;
    client.send(Message::Text("5".into())).await;
    client.send(Message::Text("\n".into())).await;
    client.until("{\"a\":1}5\r\n{\"a\":1}5").await;
    client
        .send(Message::Text(
            r#"{"type":"resize","cols":90,"rows":20}"#.into(),
        ))
        .await;
    // The only text frames are messages of the proxy; there was none.
    assert!(client.control.is_empty(), "{:?}", client.control);
    let text = client.text();
    let before = text
        .split("-pid\r\n")
        .find(|part| part.ends_with(|c: char| c.is_ascii_digit()))
        .unwrap();
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
    let pid: u32 = digits.parse().unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{pid}"));
    assert!(process.exists());
    drop(client);
    timeout(DEADLINE, async {
        while process.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("no shell left behind");
    let list = lab.get("/api/v1/terminals").await.body;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn the_old_terminal_says_why_it_does_not_open() {
    let lab = Lab::new(two()).await;
    for (vm, code, reason) in [
        ("nope", close_code::NOT_FOUND, "VM `nope` does not exist"),
        (
            "demo-04",
            close_code::VM_NOT_RUNNING,
            "cannot open a terminal of VM `demo-04`: VM is stopped",
        ),
        ("--all", close_code::NOT_FOUND, "VM `--all` does not exist"),
        ("", close_code::NOT_FOUND, "VM `` does not exist"),
    ] {
        let mut client = Client::connect(&lab, &format!("/ws?vm_name={vm}")).await;
        assert_eq!(
            client.until_closed().await,
            (code, reason.to_owned()),
            "{vm}"
        );
        assert_eq!(client.control, [format!("Error: {reason}\r\n")]);
    }
}

#[tokio::test]
async fn an_agent_that_stops_tells_its_viewers() {
    let lab = Lab::new(two()).await;
    let id = open(&lab, "demo-01", json!({})).await;
    let mut client = Client::connect(&lab, &attach(id)).await;
    client.type_text("echo up-$((1+1))\n").await;
    client.until("up-2").await;
    let stopping = lab.stop();
    let (_, closed) = tokio::join!(stopping, client.until_closed());
    assert_eq!(closed.0, close_code::GOING_AWAY);
}

#[tokio::test]
async fn a_session_is_named_and_its_lifetime_changed() {
    let lab = Lab::new(two()).await;
    let id = open(&lab, "demo-01", json!({"ttl_s": 60})).await;
    let path = format!("/api/v1/terminals/{id}");
    let changed = lab
        .call(
            Method::PATCH,
            &path,
            Some(json!({"name": "the build", "keep": true})),
        )
        .await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    assert_eq!(changed.body["name"], "the build");
    assert_eq!(
        (&changed.body["keep"], &changed.body["ttl_s"]),
        (&json!(true), &json!(60))
    );
    for (wrong, field) in [
        (json!({"name": " x"}), "name"),
        (json!({"name": "a\u{1b}[2J"}), "name"),
        (json!({"name": "x".repeat(65)}), "name"),
        (json!({"ttl_s": 2_592_001, "name": "other"}), "ttl_s"),
    ] {
        let refused = lab.call(Method::PATCH, &path, Some(wrong)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.body["errors"][0]["field"], field);
    }
    let list = lab.get("/api/v1/terminals").await.body;
    assert_eq!(list["items"][0]["name"], "the build", "nothing was changed");
    let none = lab
        .call(Method::PATCH, &path, Some(json!({"name": ""})))
        .await;
    assert_eq!(none.body["name"], Value::Null);
    let missing = format!("/api/v1/terminals/{}", TerminalId::new());
    let missing = lab.call(Method::PATCH, &missing, Some(json!({}))).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_guest_watches_writes_and_watches_again_as_the_master_says() {
    let lab = Lab::new(two()).await;
    let id = open(&lab, "demo-01", json!({})).await;
    let mut owner = Client::connect(&lab, &format!("{}?user=ann", attach(id))).await;
    let viewer = ViewerId::new();
    let query = format!("{}?viewer={viewer}&user=bob&access=watch", attach(id));
    let mut guest = Client::connect(&lab, &query).await;
    guest.type_text("echo guest-$((1+1))\n").await;
    owner.type_text("echo owner-$((1+1))\n").await;
    owner.until("owner-2").await;
    guest.until("owner-2").await;
    assert!(!owner.text().contains("guest-"), "{}", owner.text());
    let list = lab.get("/api/v1/terminals").await.body;
    assert_eq!(
        list["items"][0]["present"],
        json!([{"user": "ann", "access": "write"}, {"user": "bob", "access": "watch"}])
    );

    let path = format!("/api/v1/terminals/{id}/viewers/{viewer}");
    let set = async |access: &str| {
        let answer = lab
            .call(Method::PUT, &path, Some(json!({"access": access})))
            .await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.body);
    };
    set("write").await;
    guest.type_text("echo allowed-$((1+1))\n").await;
    owner.until("allowed-2").await;
    set("watch").await;
    guest.type_text("echo late-$((1+1))\n").await;
    owner.type_text("echo still-$((1+1))\n").await;
    owner.until("still-2").await;
    assert!(!owner.text().contains("late-"), "{}", owner.text());
    let nobody = format!("/api/v1/terminals/{id}/viewers/{}", ViewerId::new());
    let nobody = lab
        .call(Method::PUT, &nobody, Some(json!({"access": "write"})))
        .await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
}
