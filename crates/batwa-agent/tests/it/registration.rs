//! Registering in the old way, against masters that a test plays.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use batwa_agent::FakeSettings;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

use crate::lab::{DEADLINE, Lab};

/// One call that the master got.
#[derive(Debug, Clone)]
struct Call {
    path: String,
    key: Option<String>,
    body: Value,
}

type Answers = Box<dyn Fn(&[Call], &Call) -> (StatusCode, Value) + Send + Sync>;

#[derive(Clone)]
struct Master {
    calls: Arc<Mutex<Vec<Call>>>,
    answers: Arc<Answers>,
}

async fn handle(State(master): State<Master>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let key = request
        .headers()
        .get("x-api-key")
        .map(|key| key.to_str().unwrap().to_owned());
    let bytes = axum::body::to_bytes(request.into_body(), 1 << 20)
        .await
        .unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    let call = Call { path, key, body };
    let mut calls = master.calls.lock().unwrap();
    let (status, answer) = (master.answers)(&calls, &call);
    calls.push(call);
    (status, Json(answer)).into_response()
}

impl Master {
    async fn start(tasks: &mut JoinSet<()>, answers: Answers) -> (Self, SocketAddr) {
        let master = Self {
            calls: Arc::default(),
            answers: Arc::new(answers),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(handle).with_state(master.clone());
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        (master, address)
    }

    fn of(&self, path: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap();
        calls
            .iter()
            .filter(|call| call.path == path)
            .cloned()
            .collect()
    }

    async fn until(&self, wanted: impl Fn(&Self) -> bool) {
        timeout(DEADLINE, async {
            while !wanted(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("the master heard only {:?}", self.calls.lock().unwrap()));
    }
}

const REGISTER: &str = "/api/agent/register";
const HEARTBEAT: &str = "/api/agent/heartbeat";

async fn agent(master: SocketAddr) -> Lab {
    let fake = FakeSettings {
        vms: 3,
        ..FakeSettings::instant()
    };
    Lab::with(fake, |config| {
        config.master_url = Some(format!("http://{master}/"));
        config.heartbeat_interval = Duration::from_millis(20);
        config.key = Some(SecretString::from("s3cret"));
    })
    .await
}

fn ok() -> (StatusCode, Value) {
    (StatusCode::OK, json!({"success": true}))
}

#[tokio::test]
async fn it_registers_for_as_long_as_it_takes_and_then_sends_heartbeats() {
    let mut tasks = JoinSet::new();
    let (master, address) = Master::start(
        &mut tasks,
        Box::new(|before, call| {
            let tries = before.iter().filter(|call| call.path == REGISTER).count();
            if call.path == REGISTER && tries < 2 {
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    json!({"detail": "starting"}),
                )
            } else {
                ok()
            }
        }),
    )
    .await;
    let lab = agent(address).await;
    master.until(|master| master.of(HEARTBEAT).len() >= 3).await;
    let registered = master.of(REGISTER);
    assert_eq!(registered.len(), 3, "two refusals and a success");
    let call = &registered[2];
    assert_eq!(call.key.as_deref(), Some("s3cret"));
    assert_eq!(call.body["agent_id"], "lab-1");
    assert_eq!(call.body["api_key"], "s3cret");
    assert_eq!(call.body["api_url"], format!("http://{}", lab.address));
    assert_eq!(call.body["tags"], json!({"site": "lab"}));
    assert_ne!(call.body["hostname"], "");
    master
        .until(|master| {
            let beat = &master.of(HEARTBEAT).pop().unwrap();
            beat.body["vm_count"] == 3 && beat.body["status"] == "online"
        })
        .await;
    let beat = &master.of(HEARTBEAT)[0];
    assert_eq!(beat.key.as_deref(), Some("s3cret"));
    assert!(beat.body["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn a_master_that_forgot_it_hears_a_registration_again() {
    let mut tasks = JoinSet::new();
    let (master, address) = Master::start(
        &mut tasks,
        Box::new(|before, call| {
            let beats = before.iter().filter(|call| call.path == HEARTBEAT).count();
            if call.path == HEARTBEAT && beats == 1 {
                (StatusCode::NOT_FOUND, json!({"detail": "who are you?"}))
            } else {
                ok()
            }
        }),
    )
    .await;
    let _lab = agent(address).await;
    master
        .until(|master| master.of(HEARTBEAT).len() >= 15)
        .await;
    assert_eq!(master.of(REGISTER).len(), 2);
}

/// A master without `/api/v1`.
fn old(call: &Call, heartbeat: impl Fn() -> (StatusCode, Value)) -> (StatusCode, Value) {
    match &*call.path {
        REGISTER => ok(),
        HEARTBEAT => heartbeat(),
        _ => (StatusCode::NOT_FOUND, json!({"detail": "Not Found"})),
    }
}

#[tokio::test]
async fn an_old_master_gets_naive_times_and_a_registration_with_every_tenth_heartbeat() {
    let mut tasks = JoinSet::new();
    let (master, address) = Master::start(&mut tasks, Box::new(|_, call| old(call, ok))).await;
    let _lab = agent(address).await;
    master.until(|master| master.of(REGISTER).len() >= 3).await;
    let beats = master.of(HEARTBEAT);
    let text = beats[0].body["timestamp"].as_str().unwrap();
    // 2026-11-23T05:00:01.123456
    assert_eq!((text.len(), &text[19..20]), (26, "."), "{text}");
    assert!((17..=20).contains(&beats.len()), "{}", beats.len());
}

#[tokio::test]
async fn an_old_master_that_wants_a_zone_gets_one() {
    let mut tasks = JoinSet::new();
    let (master, address) = Master::start(
        &mut tasks,
        Box::new(|_, call| {
            let zoned = call.body["timestamp"]
                .as_str()
                .unwrap_or_default()
                .ends_with('Z');
            old(call, || {
                if zoned {
                    ok()
                } else {
                    (
                        StatusCode::BAD_REQUEST,
                        json!({"error": "cannot parse time"}),
                    )
                }
            })
        }),
    )
    .await;
    let _lab = agent(address).await;
    master.until(|master| master.of(HEARTBEAT).len() >= 5).await;
    let zoned: Vec<bool> = master
        .of(HEARTBEAT)
        .iter()
        .map(|beat| beat.body["timestamp"].as_str().unwrap().ends_with('Z'))
        .collect();
    assert_eq!(zoned[..3], [false, true, true]);
}
