//! An agent from before v1, as the Python program behaves: blocking calls, its list, a WebSocket shell that echoes.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{
        Path, Query, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// What the agent knows, and what it was asked.
#[derive(Default)]
pub(crate) struct Old {
    /// Name and state.
    pub(crate) vms: Vec<(String, String)>,
    /// Bodies of creates.
    pub(crate) created: Vec<Value>,
    /// What a create answers although the VM comes up, as Multipass does when it is slow.
    pub(crate) create_fails_with: Option<String>,
}

/// A running old agent; dropping it cuts it off.
pub(crate) struct OldAgent {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<Old>>,
    tasks: JoinSet<()>,
}

impl OldAgent {
    pub(crate) async fn start(vms: &[(&str, &str)]) -> Self {
        let state = Arc::new(Mutex::new(Old {
            vms: vms
                .iter()
                .map(|(name, state)| ((*name).to_owned(), (*state).to_owned()))
                .collect(),
            ..Old::default()
        }));
        let router = Router::new()
            .route("/health", get(async || "ok"))
            .route("/api/vm/list", get(list))
            .route("/api/vm/info/{vm}", get(info))
            .route("/api/vm/create", post(create))
            .route("/api/vm/start", post(start))
            .route("/api/vm/stop", post(stop))
            .route("/api/vm/delete", post(delete))
            .route("/ws", any(ws))
            .fallback(async || (StatusCode::NOT_FOUND, Json(json!({"detail": "Not Found"}))))
            .with_state(state.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            state,
            tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts it off, and waits until nothing listens.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

type Shared = State<Arc<Mutex<Old>>>;

async fn list(State(old): Shared) -> Json<Value> {
    let list: Vec<_> = old
        .lock()
        .unwrap()
        .vms
        .iter()
        .map(|(name, state)| {
            json!({"name": name, "state": state, "ipv4": ["10.9.8.7"], "release": "Ubuntu 22.04 LTS"})
        })
        .collect();
    Json(json!({"list": list}))
}

async fn info(State(old): Shared, Path(vm): Path<String>) -> Response {
    let old = old.lock().unwrap();
    match old.vms.iter().find(|(name, _)| *name == vm) {
        Some((name, state)) => Json(json!({"errors": [], "info": {name: {
            "state": state, "cpu_count": "2", "ipv4": ["10.9.8.7"], "release": "Ubuntu 22.04 LTS",
            "memory": {"total": 1_073_741_824_u64, "used": 5}, "disks": {"sda1": {"total": "5368709120"}},
        }}}))
        .into_response(),
        None => failed(&format!("instance \"{vm}\" does not exist")),
    }
}

fn failed(detail: &str) -> Response {
    let body = Json(json!({"detail": detail}));
    (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
}

async fn create(State(old): Shared, Json(body): Json<Value>) -> Response {
    let mut old = old.lock().unwrap();
    let name = body["name"].as_str().unwrap().to_owned();
    old.vms.push((name, "Running".to_owned()));
    old.created.push(body);
    match &old.create_fails_with {
        Some(detail) => failed(detail),
        None => Json(json!({"success": true, "message": "created"})).into_response(),
    }
}

async fn start(state: Shared, body: Json<Value>) -> Response {
    turn(state, body, Some("Running"))
}

async fn stop(state: Shared, body: Json<Value>) -> Response {
    turn(state, body, Some("Stopped"))
}

async fn delete(state: Shared, body: Json<Value>) -> Response {
    turn(state, body, None)
}

fn turn(State(old): Shared, Json(body): Json<Value>, into: Option<&str>) -> Response {
    let mut old = old.lock().unwrap();
    let name = body["name"].as_str().unwrap();
    let Some(at) = old.vms.iter().position(|(known, _)| known == name) else {
        return failed("no such instance");
    };
    match into {
        Some(into) => old.vms[at].1 = into.to_owned(),
        None => drop(old.vms.remove(at)),
    }
    Json(json!({"success": true, "message": "done"})).into_response()
}

async fn ws(upgrade: WebSocketUpgrade, Query(query): Query<Value>) -> Response {
    let vm = query["vm_name"].as_str().unwrap_or_default().to_owned();
    upgrade.on_upgrade(move |socket| echo(socket, vm))
}

/// Takes text frames only, as the old program does: a resize is told, `exit` ends the shell, the rest comes back.
async fn echo(mut socket: WebSocket, vm: String) {
    let greeting = format!("{vm}$ ").into_bytes();
    socket.send(Message::Binary(greeting.into())).await.unwrap();
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else {
            continue;
        };
        if text.as_str() == "exit\n" {
            return;
        }
        let answer = match serde_json::from_str::<Value>(&text) {
            Ok(size) if size["type"] == "resize" => {
                format!("<{}x{}>", size["cols"], size["rows"])
            }
            _ => text.to_string(),
        };
        let answer = Message::Binary(answer.into_bytes().into());
        if socket.send(answer).await.is_err() {
            return;
        }
    }
}
