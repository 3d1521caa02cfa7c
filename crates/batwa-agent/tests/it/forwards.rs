//! Saved forwards: addresses of the machine that lead to ports of its VMs, as their agent keeps them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use batwa_agent::{FakeSettings, policy::FILE};
use batwa_api::{operation::OperationState, problem::ProblemCode, vm::MAX_FORWARDS};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::lab::{Answer, DEADLINE, Lab};

/// Connections that one forward carries at a time.
const CONNECTIONS: usize = 64;
const LOOPBACK: &str = "[forwards]\nlisten = [\"127.0.0.1:*\"]\n";

/// Fake VMs that lend this machine's ports.
fn fake() -> FakeSettings {
    FakeSettings {
        host_ports: true,
        ..FakeSettings::instant()
    }
}

/// An agent with this policy.
async fn agent(policy: &str) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), policy).unwrap();
    Lab::on(dir, fake(), |_| ()).await
}

/// The same with the running VM `web`.
async fn lab(policy: &str) -> Lab {
    let lab = agent(policy).await;
    create(&lab, "web").await;
    lab
}

async fn create(lab: &Lab, vm: &str) {
    let create = json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G"}});
    let made = lab.run(vm, create).await;
    assert_eq!(made.state, OperationState::Succeeded, "{made:?}");
}

/// A port in a VM: answers with what it was sent, in capitals, after its end. Counts who is there.
struct Shouter {
    port: u16,
    most: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Shouter {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (most, there) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let highest = Arc::clone(&most);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut callers = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                highest.fetch_max(1 + there.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                let there = Arc::clone(&there);
                callers.spawn(async move {
                    let mut all = [0; 1024];
                    let mut said = Vec::new();
                    // A greeting first, so that a caller knows that it got through.
                    let _ = stream.write_all(b"hello\n").await;
                    while let Ok(n @ 1..) = stream.read(&mut all).await {
                        said.extend_from_slice(&all[..n]);
                    }
                    let _ = stream.write_all(&said.to_ascii_uppercase()).await;
                    there.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            port,
            most,
            _tasks: tasks,
        }
    }
}

/// An address that nobody has.
async fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn save(lab: &Lab, vm: &str, listen: impl ToString, port: u16) -> Answer {
    let body = json!({"listen": listen.to_string(), "port": port});
    let path = format!("/api/v1/vms/{vm}/forwards");
    lab.call(Method::PUT, &path, Some(body)).await
}

async fn remove(lab: &Lab, vm: &str, listen: impl ToString) -> Answer {
    let path = format!("/api/v1/vms/{vm}/forwards/{}", listen.to_string());
    lab.call(Method::DELETE, &path, None).await
}

/// Waits until the VM's only forward stands so.
async fn stands(lab: &Lab, vm: &str, state: &str) -> Value {
    let is_so = |vm: &Value| vm["forwards"][0]["state"] == state;
    lab.vm_when(vm, is_so).await["forwards"][0].clone()
}

/// What comes back of a word.
async fn shout(listen: SocketAddr, word: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(listen).await?;
    stream.write_all(word.as_bytes()).await?;
    stream.shutdown().await?;
    let mut heard = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut heard)).await??;
    Ok(heard)
}

async fn leads_nowhere(listen: SocketAddr) {
    let refused = TcpStream::connect(listen).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_saved_forward_leads_to_the_vms_port_and_is_there_again_after_a_crash_of_the_agent() {
    let lab = lab(LOOPBACK).await;
    let (shouter, listen) = (Shouter::new().await, free().await);
    for _ in 0..2 {
        // Asked twice it is there once.
        let saved = save(&lab, "web", listen, shouter.port).await;
        assert_eq!(saved.status, StatusCode::OK, "{}", saved.body);
        let there =
            json!([{"listen": listen.to_string(), "port": shouter.port, "state": "listening"}]);
        assert_eq!(saved.body["forwards"], there);
    }
    assert_eq!(shout(listen, "one").await.unwrap(), "hello\nONE");

    let dir: TempDir = lab.kill().await;
    let lab = Lab::on(dir, fake(), |_| ()).await;
    stands(&lab, "web", "listening").await;
    assert_eq!(shout(listen, "two").await.unwrap(), "hello\nTWO");

    // The same address for another port of the VM: it leads there from the answer on.
    let other = Shouter::new().await;
    let saved = save(&lab, "web", listen, other.port).await;
    assert_eq!(
        saved.body["forwards"][0]["port"], other.port,
        "{}",
        saved.body
    );
    shout(listen, "three").await.unwrap();
    assert_eq!(other.most.load(Ordering::SeqCst), 1);

    for _ in 0..2 {
        let removed = remove(&lab, "web", listen).await;
        assert_eq!(removed.status, StatusCode::OK, "{}", removed.body);
        assert_eq!(removed.body["forwards"], Value::Null);
        leads_nowhere(listen).await;
    }
    let dir = lab.stop().await;
    let lab = Lab::on(dir, fake(), |_| ()).await;
    let web = lab.vm_when("web", |vm| !vm.is_null()).await;
    assert_eq!(web["forwards"], Value::Null);
}

#[tokio::test]
async fn a_vm_that_is_off_is_refused_and_its_connections_are_cut() {
    let lab = lab(LOOPBACK).await;
    let (shouter, listen) = (Shouter::new().await, free().await);
    save(&lab, "web", listen, shouter.port).await;
    let mut open = TcpStream::connect(listen).await.unwrap();
    let mut hello = [0; 6];
    timeout(DEADLINE, open.read_exact(&mut hello))
        .await
        .unwrap()
        .unwrap();

    lab.run("web", json!({"kind": "stop"})).await;
    let waiting = stands(&lab, "web", "waiting").await;
    assert_eq!(waiting["message"], Value::Null);
    leads_nowhere(listen).await;
    let ended = timeout(DEADLINE, open.read(&mut hello)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");

    lab.run("web", json!({"kind": "start"})).await;
    stands(&lab, "web", "listening").await;
    assert_eq!(shout(listen, "up").await.unwrap(), "hello\nUP");
}

#[tokio::test]
async fn a_port_that_another_program_has_is_said_and_had_once_it_is_free() {
    let lab = lab(LOOPBACK).await;
    let shouter = Shouter::new().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = other.local_addr().unwrap();
    let saved = save(&lab, "web", listen, shouter.port).await;
    assert_eq!(saved.status, StatusCode::OK, "{}", saved.body);
    let failed = &saved.body["forwards"][0];
    assert_eq!(failed["state"], "failed", "{failed}");
    let why = failed["message"].as_str().unwrap();
    assert!(
        why.contains("another program of this machine has that port"),
        "{why}"
    );
    drop(other);
    let there = stands(&lab, "web", "listening").await;
    assert_eq!(there["message"], Value::Null);
    assert_eq!(shout(listen, "now").await.unwrap(), "hello\nNOW");
}

#[tokio::test]
async fn a_policy_that_is_narrowed_closes_what_it_no_longer_allows() {
    let lab = lab(LOOPBACK).await;
    let (shouter, listen) = (Shouter::new().await, free().await);
    save(&lab, "web", listen, shouter.port).await;
    let mut open = TcpStream::connect(listen).await.unwrap();
    std::fs::write(lab.dir().join(FILE), "[forwards]\nlisten = []\n").unwrap();
    let failed = stands(&lab, "web", "failed").await;
    let why = failed["message"].as_str().unwrap();
    assert!(
        why.contains(&format!("`listen = [\"{listen}\"]` under `[forwards]`")),
        "{why}"
    );
    leads_nowhere(listen).await;
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, open.read_to_end(&mut rest))
        .await
        .unwrap();

    std::fs::write(lab.dir().join(FILE), LOOPBACK).unwrap();
    stands(&lab, "web", "listening").await;
    assert_eq!(shout(listen, "again").await.unwrap(), "hello\nAGAIN");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let lab = lab("[forwards]\nlisten = [\"127.0.0.1:20000-21000\"]\n").await;
    create(&lab, "db").await;
    let refused = save(&lab, "web", "0.0.0.0:20500", 80).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    assert_eq!(refused.body["code"], json!(ProblemCode::PolicyForbids));
    assert_eq!(refused.body["errors"][0]["field"], "listen");
    let detail = refused.body["detail"].as_str().unwrap();
    let line = r#"`listen = ["127.0.0.1:20000-21000", "0.0.0.0:20500"]` under `[forwards]` in"#;
    assert!(detail.contains(line), "{detail}");
    for (listen, port, field) in [
        ("127.0.0.1:0", 80, "listen"),
        ("127.0.0.1:20500", 0, "port"),
    ] {
        let refused = save(&lab, "web", listen, port).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(
            refused.body["errors"][0]["field"], field,
            "{}",
            refused.body
        );
    }
    for nonsense in ["localhost:80", "127.0.0.1", "x"] {
        let refused = save(&lab, "web", nonsense, 80).await;
        assert_eq!(
            refused.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{nonsense}"
        );
        let refused = remove(&lab, "web", nonsense).await;
        assert_eq!(
            refused.body["errors"][0]["field"], "listen",
            "{}",
            refused.body
        );
    }
    assert_eq!(
        save(&lab, "none", "127.0.0.1:20500", 80).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        remove(&lab, "none", "127.0.0.1:20500").await.status,
        StatusCode::NOT_FOUND
    );

    // One address leads to one VM, and a VM has so many.
    for n in 0..MAX_FORWARDS {
        let saved = save(&lab, "web", format!("127.0.0.1:{}", 20000 + n), 80).await;
        assert_eq!(saved.status, StatusCode::OK, "{}", saved.body);
    }
    let taken = save(&lab, "db", "127.0.0.1:20000", 80).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    let detail = taken.body["detail"].as_str().unwrap();
    assert!(detail.contains("leads to VM `web` already"), "{detail}");
    let many = save(&lab, "web", "127.0.0.1:20900", 80).await;
    assert_eq!(many.status, StatusCode::CONFLICT, "{}", many.body);
    let web = lab.get("/api/v1/vms/web").await.body;
    assert_eq!(web["forwards"].as_array().map(Vec::len), Some(MAX_FORWARDS));
    assert_eq!(
        lab.get("/api/v1/vms/db").await.body["forwards"],
        Value::Null
    );
}

#[tokio::test]
async fn a_purged_vms_forwards_are_no_other_vms() {
    let lab = lab(LOOPBACK).await;
    let (shouter, listen) = (Shouter::new().await, free().await);
    save(&lab, "web", listen, shouter.port).await;
    lab.run("web", json!({"kind": "stop"})).await;
    let clone = lab
        .run("web", json!({"kind": "clone", "name": "copy"}))
        .await;
    assert_eq!(clone.state, OperationState::Succeeded, "{clone:?}");
    assert_eq!(
        lab.get("/api/v1/vms/copy").await.body["forwards"],
        Value::Null
    );
    // In the trash it is kept for whoever takes it out again.
    lab.run("web", json!({"kind": "delete"})).await;
    stands(&lab, "web", "waiting").await;
    lab.run("web", json!({"kind": "purge"})).await;
    create(&lab, "web").await;
    assert_eq!(
        lab.get("/api/v1/vms/web").await.body["forwards"],
        Value::Null
    );
    leads_nowhere(listen).await;
    let saved = save(&lab, "copy", listen, shouter.port).await;
    assert_eq!(
        saved.body["forwards"][0]["state"], "waiting",
        "{}",
        saved.body
    );
}

#[tokio::test]
async fn more_callers_than_a_forward_carries_wait_for_their_turn() {
    let lab = lab(LOOPBACK).await;
    let (shouter, listen) = (Shouter::new().await, free().await);
    save(&lab, "web", listen, shouter.port).await;
    let (through, _) = watch::channel(0);
    let mut callers = JoinSet::new();
    for _ in 0..CONNECTIONS + 8 {
        let through = through.clone();
        callers.spawn(async move {
            let mut stream = TcpStream::connect(listen).await.unwrap();
            let mut hello = [0; 6];
            stream.read_exact(&mut hello).await.unwrap();
            through.send_modify(|n| *n += 1);
            // Nobody leaves before as many are there as can be.
            let mut seen = through.subscribe();
            seen.wait_for(|n| *n >= CONNECTIONS).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
        });
    }
    let all = async {
        while let Some(ended) = callers.join_next().await {
            ended.unwrap()
        }
    };
    timeout(DEADLINE, all)
        .await
        .expect("everybody gets through");
    assert_eq!(*through.borrow(), CONNECTIONS + 8);
    assert_eq!(shouter.most.load(Ordering::SeqCst), CONNECTIONS);
}
