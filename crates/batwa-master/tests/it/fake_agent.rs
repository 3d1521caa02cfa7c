//! An agent of v1 that does what a test tells it: an honest one, and liars of several kinds.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{
        Path, RawQuery, State, WebSocketUpgrade,
        ws::{CloseFrame, Message},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, delete, get, post, put},
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, broadcast, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How the agent's watch behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Honest,
    /// It never answers.
    Hangs,
    /// It answers no JSON.
    Rubbish,
    /// It answers JSON of another kind.
    WrongTypes,
    /// One line that never ends.
    EndlessLine,
    /// VMs with names of 10 MB.
    HugeNames,
    /// It says it is another agent.
    OtherId,
    /// Changes without end, as fast as they can be sent.
    Flood,
}

pub(crate) struct Known {
    manner: Manner,
    id: String,
    vms: Mutex<Vec<Value>>,
    /// Operations that it tells of in its snapshots.
    pub(crate) operations: Mutex<Vec<Value>>,
    /// With which query each watch was opened.
    pub(crate) watches: Mutex<Vec<String>>,
    /// Operations it was asked for: id and body.
    pub(crate) asked: Mutex<Vec<(String, Value)>>,
    /// What a `PUT` of an operation is refused with.
    pub(crate) refuse_with: Mutex<Option<Value>>,
    /// Whether it answers no `PUT` of an operation for now.
    pub(crate) held: watch::Sender<bool>,
    /// Told of each call that it does not answer for now.
    pub(crate) reached: Notify,
    /// Terminal sessions that it was asked to end.
    pub(crate) ended: Mutex<Vec<String>>,
    lines: broadcast::Sender<String>,
    /// Cancelled when the agent is cut off: open connections do not end with their listener.
    cut: CancellationToken,
}

pub(crate) struct FakeAgent {
    pub(crate) address: SocketAddr,
    pub(crate) known: Arc<Known>,
    tasks: JoinSet<()>,
}

pub(crate) fn vm(name: &str, state: &str) -> Value {
    json!({
        "name": name, "state": state, "state_since": "2026-01-01T00:00:00Z", "driver": "fake",
        "ipv4": ["10.0.0.9"], "image": "24.04", "release": "Ubuntu 24.04 LTS", "cpus": 1,
        "memory": 1_073_741_824_u64, "disk": 5_368_709_120_u64, "observed_at": "2026-01-01T00:00:00Z",
    })
}

impl FakeAgent {
    pub(crate) async fn start(id: &str, manner: Manner, vms: Vec<Value>) -> Self {
        let (known, router) = Self::parts(id, manner, vms);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            known,
            tasks,
        }
    }

    /// What it knows, and the API it serves on whatever link.
    pub(crate) fn parts(id: &str, manner: Manner, vms: Vec<Value>) -> (Arc<Known>, Router) {
        let known = Arc::new(Known {
            manner,
            id: id.to_owned(),
            vms: Mutex::new(vms),
            operations: Mutex::default(),
            watches: Mutex::default(),
            asked: Mutex::default(),
            refuse_with: Mutex::default(),
            held: watch::Sender::new(false),
            reached: Notify::new(),
            ended: Mutex::default(),
            lines: broadcast::Sender::new(64),
            cut: CancellationToken::new(),
        });
        let router = Router::new()
            .route("/api/v1/watch", get(watch))
            .route("/api/v1/operations/{id}", put(begin).get(unknown))
            .route("/api/v1/operations/{id}/cancel", post(cancel))
            .route("/api/v1/operations/{id}/log", get(log))
            .route("/api/v1/terminals", post(open))
            .route("/api/v1/terminals/{id}", delete(end))
            .route("/api/v1/terminals/{id}/attach", any(attach))
            .route("/api/v1/vms/{vm}/exec", post(never))
            .with_state(known.clone());
        (known, router)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Tells a change to whoever watches.
    pub(crate) fn tell(&self, line: &Value) {
        let _ = self.known.lines.send(line.to_string());
    }

    /// Ends every watch in order, as it does when it stops.
    pub(crate) fn hang_up(&self) {
        let _ = self.known.lines.send(String::new());
    }

    pub(crate) async fn stop(mut self) {
        self.known.cut.cancel();
        self.tasks.shutdown().await;
    }
}

fn snapshot(known: &Known) -> String {
    let id = match known.manner {
        Manner::OtherId => "somebody-else",
        _ => &known.id,
    };
    let vms = known.vms.lock().unwrap().clone();
    let operations = known.operations.lock().unwrap().clone();
    json!({
        "type": "snapshot", "revision": 1, "operations": operations, "terminals": [], "vms": vms,
        "agent": {
            "agent_id": id, "version": "1", "protocol_version": 1, "started_at": "2026-01-01T00:00:00Z",
            "clock": "2026-01-01T00:00:00Z", "host": {"hostname": "fake-host", "os": "os", "arch": "x86_64",
                "cpus": 4, "memory": 17_179_869_184_u64},
            "drivers": [{"kind": "fake", "capabilities": {"shell": true, "console": true, "suspend": true,
                "trash": true, "cloud_init": true}, "health": {"status": "ok", "since": "2026-01-01T00:00:00Z"}}],
        },
    })
    .to_string()
}

async fn watch(State(known): State<Arc<Known>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    known.watches.lock().unwrap().push(query);
    match known.manner {
        Manner::Honest | Manner::OtherId => {
            let first = snapshot(&known);
            let changes = stream::unfold(known.lines.subscribe(), |mut lines| async move {
                let line = lines.recv().await.ok().filter(|line| !line.is_empty())?;
                Some((line, lines))
            });
            let lines = stream::once(async { first })
                .chain(changes)
                .take_until(known.cut.clone().cancelled_owned())
                .map(|line| Ok::<_, std::convert::Infallible>(format!("{line}\n")));
            Body::from_stream(lines).into_response()
        }
        Manner::Hangs => std::future::pending().await,
        Manner::Rubbish => "<html>\n".into_response(),
        Manner::WrongTypes => {
            "{\"type\":\"snapshot\",\"revision\":\"x\",\"agent\":[],\"vms\":7}\n".into_response()
        }
        Manner::Flood => {
            let first = snapshot(&known);
            let mut n = 0_u64;
            let events = stream::repeat_with(move || {
                n += 1;
                let name = format!("vm{}", n % 100);
                let state = if n.is_multiple_of(2) {
                    "running"
                } else {
                    "stopped"
                };
                json!({"type": "vm", "revision": n, "vm": vm(&name, state)}).to_string()
            });
            let lines = stream::once(async { first })
                .chain(events)
                .map(|line| Ok::<_, std::convert::Infallible>(format!("{line}\n")));
            Body::from_stream(lines).into_response()
        }
        Manner::EndlessLine => {
            let line =
                stream::repeat_with(|| Ok::<_, std::convert::Infallible>(vec![b'x'; 1 << 20]));
            Body::from_stream(line).into_response()
        }
        Manner::HugeNames => {
            let huge = vm(&"n".repeat(10 << 20), "running");
            let mut line = snapshot(&known).replace("\"vms\":[]", &format!("\"vms\":[{huge}]"));
            line.push('\n');
            line.into_response()
        }
    }
}

async fn unknown() -> Response {
    problem(
        &json!({"code": "not_found", "status": 404, "title": "", "detail": "no such operation"}),
    )
}

fn problem(problem: &Value) -> Response {
    let status = StatusCode::from_u16(problem["status"].as_u64().unwrap() as u16).unwrap();
    let kind = [("content-type", "application/problem+json")];
    (status, kind, problem.to_string()).into_response()
}

/// Does it at once: the VM's change first, then the operation's end, as the contract says.
async fn begin(
    State(known): State<Arc<Known>>,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    let mut held = known.held.subscribe();
    if *held.borrow_and_update() {
        known.reached.notify_one();
    }
    let _ = held.wait_for(|held| !held).await;
    if let Some(refusal) = &*known.refuse_with.lock().unwrap() {
        return problem(refusal);
    }
    known.asked.lock().unwrap().push((id.clone(), body.clone()));
    let name = body["vm"].as_str().unwrap();
    let kind = body["kind"].as_str().unwrap();
    let change = match kind {
        "purge" => json!({"type": "vm_removed", "revision": 2, "name": name}),
        "stop" => json!({"type": "vm", "revision": 2, "vm": vm(name, "stopped")}),
        _ => json!({"type": "vm", "revision": 2, "vm": vm(name, "running")}),
    };
    let operation = |state: &str| {
        json!({"id": id, "kind": kind, "agent_id": known.id, "vm": name, "state": state,
            "created_at": "2026-01-01T00:00:00Z"})
    };
    for line in [
        change,
        json!({"type": "operation", "revision": 3, "operation": operation("succeeded")}),
    ] {
        let _ = known.lines.send(line.to_string());
    }
    (StatusCode::ACCEPTED, Json(operation("running"))).into_response()
}

/// Ends it at once, and says so to whoever watches.
async fn cancel(State(known): State<Arc<Known>>, Path(id): Path<String>) -> StatusCode {
    let line = json!({"type": "operation", "revision": 9, "operation": {
        "id": id, "kind": "start", "agent_id": known.id, "vm": "web", "state": "cancelled",
        "created_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:01Z"}});
    let _ = known.lines.send(line.to_string());
    StatusCode::ACCEPTED
}

async fn log() -> Json<Value> {
    Json(json!({"items": [{"at": "2026-01-01T00:00:00Z", "text": "booting"}]}))
}

async fn open(Json(body): Json<Value>) -> Response {
    let terminal = json!({
        "id": body["id"], "vm": body["vm"], "kind": "shell", "cols": body["cols"], "rows": body["rows"],
        "created_at": "2026-01-01T00:00:00Z", "viewers": 0, "offset": 0, "oldest_offset": 0, "ttl_s": 1800,
        "resumable": true,
    });
    (StatusCode::CREATED, Json(terminal)).into_response()
}

async fn end(State(known): State<Arc<Known>>, Path(id): Path<String>) -> StatusCode {
    known.ended.lock().unwrap().push(id);
    StatusCode::NO_CONTENT
}

/// Hears what to run, and says nothing more.
async fn never(State(known): State<Arc<Known>>) -> Response {
    known.reached.notify_one();
    std::future::pending().await
}

/// Says its offset, then sends every binary frame back; text frames come back as text.
async fn attach(State(known): State<Arc<Known>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let offset = Message::Text(r#"{"type":"offset","offset":0}"#.into());
        socket.send(offset).await.unwrap();
        while let Some(Some(Ok(message))) = known.cut.run_until_cancelled(socket.recv()).await {
            let sent = match message {
                Message::Binary(bytes) if &*bytes == b"exit\n" => {
                    let close = CloseFrame {
                        code: 1000,
                        reason: "the shell ended".into(),
                    };
                    let _ = socket.send(Message::Close(Some(close))).await;
                    return;
                }
                message @ (Message::Binary(_) | Message::Text(_)) => socket.send(message).await,
                _ => Ok(()),
            };
            if sent.is_err() {
                return;
            }
        }
    })
}
