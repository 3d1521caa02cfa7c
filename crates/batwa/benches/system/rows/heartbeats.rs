//! Heartbeats in the old way.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    http::{Connection, request},
    lab::{AGENT_KEY, Lab},
    process::Pin,
    report::{Report, Target},
    stats::Latencies,
};

const AGENTS: usize = 100;
const CONNECTIONS: usize = 8;
const LOAD: Duration = Duration::from_secs(3);
/// Heartbeats sent at once on a connection: at this rate, waiting for each would measure this program.
const AT_ONCE: usize = 16;

/// 100 old agents that register and then send as fast as they are answered.
pub(crate) async fn heartbeats(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let master = lab.master("master", &[], Pin::Anywhere).await?;
    let (old_agent, _serving) = serve_as_old_agent().await?;
    let mut connection = Connection::open(master.address).await?;
    for n in 0..AGENTS {
        let body = json!({
            "agent_id": format!("old-{n}"), "hostname": format!("old-{n}"),
            "api_url": format!("http://{old_agent}"), "api_key": AGENT_KEY,
        });
        connection
            .send(&request(
                "POST",
                "/api/agent/register",
                &[("X-API-Key", AGENT_KEY)],
                Some(&body),
            ))
            .await?
            .good()
            .context("an agent may not register")?;
    }

    let begun = Instant::now();
    let mut senders = JoinSet::new();
    for n in 0..CONNECTIONS {
        senders.spawn(send_for_a_while(master.address, n));
    }
    let mut sent = 0;
    while let Some(done) = senders.join_next().await {
        sent += done??;
    }
    let rate = sent as f64 / begun.elapsed().as_secs_f64();
    report.figure("heartbeats/rate", rate, "/s", Target::AtLeast(20_000.0))?;

    let mut one = Latencies::default();
    for n in 0..1000 {
        let asked = Instant::now();
        connection.send(&heartbeat(n % AGENTS)).await?.good()?;
        one.push(asked.elapsed());
    }
    report.figure("heartbeats/one/p99", one.p99(), "ms", Target::None)
}

fn heartbeat(agent: usize) -> Vec<u8> {
    // As Python writes it: local time without a zone.
    let body = json!({
        "agent_id": format!("old-{agent}"), "timestamp": "2026-01-01T12:00:00.123456",
        "status": "online", "vm_count": 1,
    });
    request(
        "POST",
        "/api/agent/heartbeat",
        &[("X-API-Key", AGENT_KEY)],
        Some(&body),
    )
}

/// Sends a batch, reads as many answers, and so on; how many were answered with 200.
async fn send_for_a_while(address: SocketAddr, number: usize) -> anyhow::Result<usize> {
    let mut connection = Connection::open(address).await?;
    let mut next = number;
    let mut batches = Vec::new();
    // Every agent has its turn on every connection.
    for _ in 0..AGENTS.div_ceil(AT_ONCE) {
        let mut batch = Vec::new();
        for _ in 0..AT_ONCE {
            batch.extend(heartbeat(next % AGENTS));
            next += 1;
        }
        batches.push(batch);
    }
    let begun = Instant::now();
    let mut sent = 0;
    for batch in batches.iter().cycle() {
        connection.send(batch).await?.good()?;
        for _ in 1..AT_ONCE {
            connection.send(&[]).await?.good()?;
        }
        sent += AT_ONCE;
        if begun.elapsed() > LOAD {
            break;
        }
    }
    Ok(sent)
}

/// Answers as an old agent with one VM does: the master looks at whoever registers.
async fn serve_as_old_agent() -> anyhow::Result<(SocketAddr, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut calls = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            calls.spawn(async move {
                // Whoever calls may hang up.
                let _ = answer_as_old_agent(stream).await;
            });
            while calls.try_join_next().is_some() {}
        }
    });
    Ok((address, serving))
}

async fn answer_as_old_agent(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut request = Vec::new();
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            anyhow::ensure!(stream.read_buf(&mut request).await? > 0, "closed");
        }
        let (status, body) = if request.starts_with(b"GET /api/vm/list ") {
            let body = r#"{"list":[{"name":"old","state":"Running","ipv4":[],"release":"Ubuntu 22.04 LTS"}]}"#;
            ("200 OK", body)
        } else if request.starts_with(b"GET /health ") {
            ("200 OK", r#"{"status":"ok"}"#)
        } else {
            ("404 Not Found", r#"{"detail":"Not Found"}"#)
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}
