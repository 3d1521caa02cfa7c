//! Images over master and agent, by API and command line: pulled, added, uploaded, removed, with rights and audit.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    inside::client,
    lab::{Caller, INSTANT, Lab, batwa, until},
};

async fn image(lab: &Lab, agent: &str, name: &str) -> Option<Value> {
    let path = format!("/api/v1/images?agent={agent}");
    let body = lab.admin.get(&path).await.expect(200);
    let images = body["items"].as_array().expect("items");
    images.iter().find(|image| image["name"] == name).cloned()
}

async fn actions(lab: &Lab) -> Vec<(String, String, String)> {
    let body = lab.admin.get("/api/v1/audit").await.expect(200);
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let lines = body["items"].as_array().expect("items");
    lines
        .iter()
        .map(|line| {
            (
                text(line, "action"),
                text(line, "target"),
                text(line, "result"),
            )
        })
        .filter(|(action, ..)| action.starts_with("image."))
        .collect()
}

/// Another account of this role.
async fn account(lab: &Lab, role: &str) -> Caller {
    let body =
        json!({"name": role, "password": "correct horse battery", "role": role, "terminal": false});
    lab.admin.post("/api/v1/users", body).await.expect(201);
    Caller::with_token(&lab.url, (role, "correct horse battery")).await
}

#[tokio::test]
async fn an_operator_pulls_and_an_admin_adds_and_removes() {
    let lab = Lab::up().await;
    let operator = account(&lab, "operator").await;
    let viewer = account(&lab, "viewer").await;
    let pull = "/api/v1/agents/local/images/debian%3A12/pull?wait=30s";
    assert_eq!(viewer.post(pull, json!({})).await.status, 403);
    let pulled = operator.post(pull, json!({})).await.expect(200);
    assert_eq!(pulled["state"], "succeeded", "{pulled}");
    assert_eq!(pulled["image"], "debian:12");
    let image_path = "/api/v1/agents/local/images/debian%3A12";
    assert_eq!(operator.delete(image_path).await.status, 403);
    let add = json!({"name": "mine", "url": "https://a/b.img", "sha256": "0".repeat(64)});
    let path = "/api/v1/agents/local/images";
    assert_eq!(operator.post(path, add.clone()).await.status, 403);
    assert_eq!(
        lab.admin.post(path, add.clone()).await.expect(201)["own"],
        true
    );
    assert_eq!(lab.admin.post(path, add).await.status, 409);
    lab.admin.delete(image_path).await.expect(204);
    assert_eq!(lab.admin.delete(image_path).await.status, 404);

    let lines = actions(&lab).await;
    for (action, name, outcome) in [
        ("image.pull", "debian:12", "ok"),
        ("image.add", "mine", "ok"),
        ("image.add", "mine", "failed"),
        ("image.remove", "debian:12", "ok"),
        ("image.remove", "debian:12", "failed"),
    ] {
        let wanted = (
            action.to_owned(),
            format!("local/{name}"),
            outcome.to_owned(),
        );
        assert!(lines.contains(&wanted), "{wanted:?} is not in {lines:?}");
    }
}

#[tokio::test]
async fn the_images_of_all_machines_are_listed_and_a_silent_one_says_so() {
    let lab = Lab::master(&[]).await;
    let mut edge = lab.agent("edge", INSTANT).await;
    let _other = lab.agent("other", INSTANT).await;
    let list = lab
        .admin
        .get("/api/v1/images?q=TINY%20edge")
        .await
        .expect(200);
    let items = list["items"].as_array().expect("items");
    assert_eq!(items.len(), 1, "{list}");
    assert_eq!(items[0]["agent_id"], "edge");
    assert_eq!(list["agents"].as_array().map(Vec::len), Some(2));
    assert_eq!(list["agents"][0]["stores"][0]["driver"], "fake");

    // Kept for a machine that is offline, a pull is done when it is back.
    edge.kill();
    lab.agent_is("edge", "offline").await;
    let list = lab.admin.get("/api/v1/images").await.expect(200);
    assert!(list["agents"][0]["error"].is_string(), "{list}");
    let pull = "/api/v1/agents/edge/images/tiny/pull";
    assert_eq!(lab.admin.post(pull, json!({})).await.status, 503);
    let kept = format!("{pull}?when_online=1h");
    let kept = lab.admin.post(&kept, json!({})).await.expect(202);
    assert_eq!(kept["state"], "queued");
    edge.start().await;
    let done = lab.finished(&kept["id"]).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let tiny = image(&lab, "edge", "tiny").await.expect("the image");
    assert_eq!(tiny["cached"], true);
}

#[tokio::test]
async fn one_key_makes_one_pull_and_a_failed_one_is_asked_for_again() {
    let lab = Lab::up_with("vms=0,latency=0ms,fail=pull_image:1").await;
    let caller = lab.admin.clone().header("idempotency-key", "pull-1");
    let path = "/api/v1/agents/local/images/tiny/pull";
    let first = caller.post(path, json!({})).await.expect(202);
    let again = caller.post(path, json!({})).await.expect(202);
    assert_eq!(first["id"], again["id"]);
    let failed = lab.finished(&first["id"]).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    let detail = failed["error"]["detail"].as_str().expect("a reason");
    assert!(
        detail.starts_with("cannot pull_image image `tiny`"),
        "{detail}"
    );
    let id = first["id"].as_str().expect("an id");
    let retry = format!("/api/v1/operations/{id}/retry");
    let retried = lab.admin.post(&retry, json!({})).await.expect(202);
    assert_eq!(retried["image"], "tiny");
    assert_ne!(retried["id"], first["id"]);
}

#[tokio::test]
async fn an_upload_goes_through_the_master_and_a_cut_one_leaves_nothing() {
    let lab = Lab::master(&[]).await;
    let _edge = lab.agent("edge", INSTANT).await;
    let path = "/api/v1/agents/edge/images/mine/content?aliases=other";
    let content = vec![7_u8; 3 << 20];
    let put = |length: usize, content: Vec<u8>| {
        lab.admin
            .request(Method::PUT, path)
            .header("content-length", length)
            .body(content)
    };
    let added = lab.admin.send(put(content.len(), content.clone())).await;
    assert_eq!(added.expect(201)["size_on_disk"], 3 << 20);
    let taken = lab.admin.send(put(content.len(), content)).await;
    assert_eq!(taken.status, 409, "{}", taken.body);
    lab.admin
        .delete("/api/v1/agents/edge/images/other")
        .await
        .expect(204);
    assert_eq!(image(&lab, "edge", "mine").await, None);

    // One that promises more than it sends, and goes.
    let url = lab.url.strip_prefix("http://").expect("plain HTTP");
    let mut socket = tokio::net::TcpStream::connect(url)
        .await
        .expect("a connection");
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: {url}\r\nauthorization: Bearer {}\r\ncontent-length: 1000000\r\n\r\nonly this",
        lab.admin.token()
    );
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes())
        .await
        .expect("it is sent");
    drop(socket);
    until("the cut upload is in the audit", async || {
        let lines = actions(&lab).await;
        let wanted = |(action, _, outcome): &(String, String, String)| {
            action == "image.upload" && outcome == "failed"
        };
        (lines.iter().filter(|line| wanted(line)).count() == 2).then_some(())
    })
    .await;
    assert_eq!(image(&lab, "edge", "mine").await, None);
}

#[tokio::test]
async fn the_command_line_lists_pulls_adds_uploads_and_removes() {
    let lab = Lab::up().await;
    let run = async |args: &[&str]| client(&lab, args).run().await;
    let pulled = run(&["images", "pull", "tiny"]).await;
    assert_eq!(pulled.code, Some(0), "{}", pulled.stderr);
    assert!(
        pulled.stderr.contains("pull image local/tiny: done"),
        "{}",
        pulled.stderr
    );
    let table = run(&["images", "tiny"]).await.stdout;
    let row = table.lines().nth(1).expect("a row");
    assert!(row.starts_with("tiny") && row.contains("20M"), "{table}");
    let json = run(&["images", "--agent", "local", "--format", "json"])
        .await
        .stdout;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert!(
        json["items"]
            .as_array()
            .is_some_and(|items| items.len() > 3)
    );

    let sum = "0".repeat(64);
    let url = "https://a/b.img";
    let added = run(&[
        "images", "add", "mine", url, "--sha256", &sum, "--alias", "other",
    ])
    .await;
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let unsure = run(&["images", "add", "mine2", url]).await;
    assert_eq!(unsure.code, Some(2), "{}", unsure.stderr);
    let dir = tempfile::tempdir().expect("a folder");
    let disk = dir.path().join("disk.img");
    std::fs::write(&disk, vec![1; 1 << 20]).expect("the file");
    let disk = disk.to_str().expect("a path");
    let uploaded = run(&["images", "upload", "up", disk, "--title", "From here"]).await;
    assert_eq!(uploaded.code, Some(0), "{}", uploaded.stderr);
    assert_eq!(
        image(&lab, "local", "up").await.expect("the image")["title"],
        "From here"
    );
    for name in ["other", "up", "tiny"] {
        let removed = run(&["images", "remove", name]).await;
        assert_eq!(removed.code, Some(0), "{name}: {}", removed.stderr);
    }
    let gone = run(&["images", "remove", "up"]).await;
    assert_eq!(gone.code, Some(3), "{}", gone.stderr);
}

/// A line to a master that breaks once.
struct BreakingLine {
    address: SocketAddr,
    /// How many bytes it has carried to the master.
    carried: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl BreakingLine {
    /// Passes everything on to `target`; the first connection that carries `most` bytes there is broken then.
    async fn to(target: SocketAddr, most: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (carried, broken) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let counted = Arc::clone(&carried);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (counted, broken) = (Arc::clone(&counted), Arc::clone(&broken));
                connections.spawn(async move {
                    let far = TcpStream::connect(target).await.expect("the master");
                    let (mut here, mut back) = near.into_split();
                    let (mut answers, mut there) = far.into_split();
                    let there = async {
                        let mut begin = (&mut here).take(most);
                        let n = tokio::io::copy(&mut begin, &mut there).await.unwrap_or(0);
                        counted.fetch_add(n, Ordering::SeqCst);
                        if n == most && !broken.swap(true, Ordering::SeqCst) {
                            return;
                        }
                        let n = tokio::io::copy(&mut here, &mut there).await.unwrap_or(0);
                        counted.fetch_add(n, Ordering::SeqCst);
                    };
                    let back = async {
                        let _ = tokio::io::copy(&mut answers, &mut back).await;
                        std::future::pending::<()>().await;
                    };
                    tokio::select! { () = there => {}, () = back => {} }
                });
            }
        });
        Self {
            address,
            carried,
            _tasks: tasks,
        }
    }
}

#[tokio::test]
async fn an_upload_over_a_line_that_breaks_is_gone_on_with() {
    let lab = Lab::up().await;
    let master = lab.url.strip_prefix("http://").expect("an address");
    let line = BreakingLine::to(master.parse().expect("an address"), 6 << 20).await;
    let dir = tempfile::tempdir().expect("a folder");
    let disk = dir.path().join("disk.img");
    let content: Vec<u8> = (0..8_u32 << 20).map(|n| (n >> 9) as u8).collect();
    std::fs::write(&disk, content).expect("the file");
    let uploaded = batwa()
        .args(["images", "upload", "big", disk.to_str().expect("a path")])
        .env("BATWA_URL", format!("http://{}", line.address))
        .env("BATWA_TOKEN", lab.admin.token())
        .run()
        .await;
    assert_eq!(uploaded.code, Some(0), "{}", uploaded.stderr);
    let big = image(&lab, "local", "big").await.expect("the image");
    assert_eq!(
        (&big["cached"], &big["size_on_disk"]),
        (&json!(true), &json!(8 << 20))
    );
    // Begun anew, all of it would have come after the first 6 MiB.
    let carried = until("the line is done", async || {
        let carried = line.carried.load(Ordering::SeqCst);
        (carried > 8 << 20).then_some(carried)
    })
    .await;
    assert!(carried < 12 << 20, "{carried} bytes were sent");
}
