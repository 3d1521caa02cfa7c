//! Files and ports of a real VM, over the agent's API; commands are in the contract.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use batwa_agent::{Agent, AgentConfig, DriverChoice, driver::Driver};
use batwa_api::{agent::DriverKind, file::header, id::AgentId};
use futures_util::{SinkExt, StreamExt, stream};
use reqwest::{Body, Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use tokio_tungstenite::{connect_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use crate::{
    lab::{Lab, PATIENCE, tiny, within},
    lab_or_skip,
};

/// An agent with the lab's driver, on a port of its own.
pub(crate) struct Served {
    pub(crate) address: std::net::SocketAddr,
    http: reqwest::Client,
    _tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Served {
    pub(crate) async fn new(lab: &Lab) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let policy = "[forwards]\nlisten = [\"127.0.0.1:*\"]\n";
        std::fs::write(dir.path().join(batwa_agent::policy::FILE), policy).unwrap();
        let config = AgentConfig {
            drivers: DriverChoice::List(vec![DriverKind::Qemu]),
            listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
            ..AgentConfig::new(AgentId::parse("real").unwrap(), dir.path().to_owned())
        };
        let drivers: Vec<Arc<dyn Driver>> = vec![lab.shared()];
        let agent = Agent::with_drivers(config, drivers).unwrap();
        let address = agent.address().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { agent.run(CancellationToken::new()).await.unwrap() });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let served = Self {
            address,
            http: reqwest::Client::new(),
            _tasks: tasks,
            _dir: dir,
        };
        within(async {
            while served.run("true").await.is_none() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
        served
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}/api/v1/vms/inside/{path}", self.address);
        self.http.request(method, url)
    }

    /// What a line of shell prints; `None` when the agent does not know the VM yet.
    pub(crate) async fn run(&self, line: &str) -> Option<String> {
        let body = json!({"argv": ["sh", "-c", line]});
        let answer = self.request(Method::POST, "exec").json(&body);
        let answer = within(answer.send()).await.unwrap();
        if answer.status() != StatusCode::OK {
            return None;
        }
        let text = within(answer.text()).await.unwrap();
        let lines = text.lines().filter(|line| !line.is_empty());
        let said = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        Some(
            said.filter_map(|line| line["text"].as_str().map(str::to_owned))
                .collect(),
        )
    }
}

/// Bytes that no compression makes small.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

#[tokio::test]
async fn a_large_file_goes_in_and_out_though_it_is_cut_off_each_time() {
    const SIZE: usize = 100 << 20;
    let lab = lab_or_skip!();
    lab.create("inside", tiny()).await.unwrap();
    let agent = Served::new(&lab).await;
    let content = noise(SIZE);
    let sum = hex::encode(Sha256::digest(&content));

    let path = "files?path=/root/big.bin&upload=upload-big-1";
    let range = |from: usize| format!("bytes {from}-{}/{SIZE}", SIZE - 1);
    let cut = SIZE / 3;
    let pieces: Vec<_> = content[..cut]
        .chunks(1 << 20)
        .map(|piece| Ok(piece.to_vec()))
        .chain([Err(std::io::Error::other("cut"))])
        .collect();
    let broken = agent
        .request(Method::PUT, path)
        .header("content-range", range(0))
        .body(Body::wrap_stream(stream::iter(pieces)));
    assert!(
        tokio::time::timeout(PATIENCE * 3, broken.send())
            .await
            .unwrap()
            .is_err()
    );
    let held = within(agent.request(Method::HEAD, path).send())
        .await
        .unwrap();
    let held: usize = held.headers()[header::UPLOAD_OFFSET]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    println!("held after the cut: {held} of {cut}");
    assert!(held > 0 && held <= cut);
    let begun = std::time::Instant::now();
    let rest = agent
        .request(Method::PUT, path)
        .header("content-range", range(held))
        .body(content[held..].to_vec());
    let written = tokio::time::timeout(PATIENCE * 3, rest.send())
        .await
        .unwrap()
        .unwrap();
    let written: Value = written.json().await.unwrap();
    println!("the rest went in within {:?}", begun.elapsed());
    assert_eq!(written["sha256"], sum, "{written}");

    // Out, cut in the middle, and on from there.
    let path = "files?path=/root/big.bin";
    let mut got = within(agent.request(Method::GET, path).send())
        .await
        .unwrap();
    let tag = got.headers()["etag"].clone();
    let mut came = Vec::new();
    while came.len() < cut {
        came.extend_from_slice(&within(got.chunk()).await.unwrap().unwrap());
    }
    drop(got);
    let rest = agent
        .request(Method::GET, path)
        .header("range", format!("bytes={}-", came.len()))
        .header("if-range", tag)
        .header(header::WANT_DIGEST, "sha-256=1");
    let rest = within(rest.send()).await.unwrap();
    assert_eq!(rest.status(), StatusCode::PARTIAL_CONTENT);
    assert!(rest.headers().contains_key(header::DIGEST));
    let rest = tokio::time::timeout(PATIENCE * 3, rest.bytes())
        .await
        .unwrap()
        .unwrap();
    came.extend_from_slice(&rest);
    assert_eq!(hex::encode(Sha256::digest(&came)), sum);

    // A disk that is full says so, and leaves nothing behind.
    agent
        .run("mkdir /small && mount -t tmpfs -o size=1m small /small")
        .await
        .unwrap();
    let full = agent
        .request(Method::PUT, "files?path=/small/x")
        .body(noise(3 << 20));
    let full = within(full.send()).await.unwrap();
    assert_eq!(full.status(), 507);
    assert_eq!(agent.run("ls -A /small").await.unwrap(), "");
    let tar = within(
        agent
            .request(Method::GET, "files?path=/etc&archive=tar")
            .send(),
    )
    .await
    .unwrap();
    let tar = within(tar.bytes()).await.unwrap();
    let put = agent
        .request(Method::PUT, "files?path=/root/copy&archive=tar")
        .body(tar);
    assert_eq!(within(put.send()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(
        agent
            .run("cmp /etc/passwd /root/copy/passwd && echo same")
            .await
            .unwrap(),
        "same\n"
    );
}

#[tokio::test]
async fn a_port_inside_answers() {
    let lab = lab_or_skip!();
    lab.create("inside", tiny()).await.unwrap();
    let agent = Served::new(&lab).await;
    let serve = "mkdir -p /www && echo 'from the inside' >/www/index.html && httpd -p 127.0.0.1:8080 -h /www";
    agent.run(serve).await.unwrap();
    let url = |port| format!("ws://{}/api/v1/vms/inside/ports/{port}", agent.address);
    let (mut socket, _) = within(connect_async(url(8080))).await.unwrap();
    let request = "GET / HTTP/1.0\r\n\r\n";
    socket.send(Message::Binary(request.into())).await.unwrap();
    let mut answer = Vec::new();
    while let Some(Ok(message)) = within(socket.next()).await {
        match message {
            Message::Binary(bytes) => answer.extend_from_slice(&bytes),
            Message::Text(_) | Message::Close(_) => break,
            _ => {}
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.contains("200 OK") && answer.contains("from the inside"),
        "{answer}"
    );
    // An address that nobody has.
    let listen = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let forward = agent
        .request(Method::PUT, "forwards")
        .json(&json!({"listen": listen, "port": 8080}));
    let saved = within(forward.send()).await.unwrap();
    let saved: Value = within(saved.json()).await.unwrap();
    assert_eq!(saved["forwards"][0]["state"], "listening", "{saved}");
    let answer = within(agent.http.get(format!("http://{listen}/")).send()).await;
    let answer = within(answer.unwrap().text()).await.unwrap();
    assert_eq!(answer, "from the inside\n");
    let refused = within(connect_async(url(8081)))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("502"), "{refused}");
}
