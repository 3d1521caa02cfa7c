//! Lists of many VMs.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    http::Connection,
    lab::{Lab, eventually},
    process::Pin,
    report::{Report, Target},
    stats::Latencies,
};

/// How long each load goes on.
const LOAD: Duration = Duration::from_secs(3);
const OLD_LIST: &str = "/api/vm/list";

/// The same request on one connection, one after another.
pub(crate) async fn one_connection(
    address: SocketAddr,
    request: &[u8],
    load: Duration,
) -> anyhow::Result<Latencies> {
    let mut connection = Connection::open(address).await?;
    connection.send(request).await?.good()?;
    let mut latencies = Latencies::default();
    let begun = Instant::now();
    while begun.elapsed() < load {
        let asked = Instant::now();
        let answer = connection.send(request).await?;
        latencies.push(asked.elapsed());
        answer.good()?;
    }
    Ok(latencies)
}

/// 50 agents × 20 VMs whose driver takes 20 ms a call.
pub(crate) async fn old_list(report: &mut Report) -> anyhow::Result<()> {
    const AGENTS: u64 = 50;
    const VMS: u64 = 20;
    let lab = Lab::new()?;
    let mut master = lab.master("master", &[], Pin::Anywhere).await?;
    let mut agents = (0..AGENTS)
        .map(|n| {
            lab.agent(
                &master,
                &format!("bench-{n}"),
                &format!("vms={VMS},latency=20ms"),
                Pin::Anywhere,
            )
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    master
        .knows(AGENTS, AGENTS * VMS, Duration::from_secs(90))
        .await?;
    let list = master.request("GET", OLD_LIST, None);

    measure(report, "old_list", master.address, &list).await?;

    // A VM made on an agent, behind the master's back.
    let agent = &agents[0];
    let mut connection = Connection::open(agent.address).await?;
    let mut watcher = Connection::open(master.address).await?;
    let newcomer = json!({"name": "newcomer", "image": "tiny"});
    let making = agent.call(&mut connection, "POST", "/api/vm/create", Some(&newcomer));
    let begun = Instant::now();
    let seen = eventually(Duration::from_secs(20), async || {
        let answer = watcher.send(&list).await?;
        let text = String::from_utf8_lossy(&answer.body);
        anyhow::ensure!(text.contains("newcomer"), "the new VM is not listed");
        Ok(begun.elapsed())
    });
    let (made, seen) = tokio::join!(making, seen);
    made?.good().context("the agent made no VM")?;
    report.figure(
        "old_list/new_vm_seen",
        seen?.as_secs_f64() * 1e3,
        "ms",
        Target::Below(2000.0),
    )?;

    agents[1].process.freeze()?;
    agents[2].process.kill()?;
    measure(report, "old_list/one_hung_one_dead", master.address, &list).await?;
    let answer = Connection::open(master.address)
        .await?
        .send(&list)
        .await?
        .json()?;
    let listed = answer["vms"].as_array().map_or(0, Vec::len) as u64;
    anyhow::ensure!(
        listed == AGENTS * VMS + 1,
        "{listed} VMs are listed with one agent hung and one dead; none may vanish"
    );
    Ok(())
}

async fn measure(
    report: &mut Report,
    name: &str,
    address: SocketAddr,
    list: &[u8],
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut latencies = one_connection(address, list, LOAD).await?;
    let rate = latencies.len() as f64 / begun.elapsed().as_secs_f64();
    report.figure(
        &format!("{name}/p50"),
        latencies.p50(),
        "ms",
        Target::Below(5.0),
    )?;
    report.figure(
        &format!("{name}/p99"),
        latencies.p99(),
        "ms",
        Target::Below(5.0),
    )?;
    report.figure(&format!("{name}/rate"), rate, "/s", Target::AtLeast(2000.0))
}

/// 100,000 VMs on ten agents, the most that a master takes of each.
pub(crate) async fn v1_list(report: &mut Report) -> anyhow::Result<()> {
    const AGENTS: u64 = 10;
    const VMS: u64 = 10_000;
    const CONCURRENT: usize = 16;
    let lab = Lab::new()?;
    let mut master = lab.master("master", &[], Pin::Anywhere).await?;
    let before = master.process.memory_mb()?;
    let begun = Instant::now();
    let agents = (0..AGENTS)
        .map(|n| {
            lab.agent(
                &master,
                &format!("bench-{n}"),
                &format!("vms={VMS}"),
                Pin::Anywhere,
            )
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    master
        .knows(AGENTS, AGENTS * VMS, Duration::from_secs(180))
        .await?;
    report.note(&format!(
        "{AGENTS} agents with {VMS} VMs each, real processes"
    ))?;
    report.figure(
        "vms/all_known_after",
        begun.elapsed().as_secs_f64(),
        "s",
        Target::None,
    )?;
    report.figure(
        "vms/memory_per_vm",
        (master.process.memory_mb()? - before) * 1e3 / (AGENTS * VMS) as f64,
        "kB",
        Target::None,
    )?;

    for (name, path, target) in [
        (
            "vms/first_page",
            "/api/v1/vms?limit=100",
            Target::Below(10.0),
        ),
        (
            "vms/by_state",
            "/api/v1/vms?limit=100&state=stopped",
            Target::None,
        ),
        ("vms/by_words", "/api/v1/vms?limit=100&q=9999", Target::None),
    ] {
        let request = master.request("GET", path, None);
        let mut clients = JoinSet::new();
        let begun = Instant::now();
        for _ in 0..CONCURRENT {
            let (address, request) = (master.address, request.clone());
            clients.spawn(async move { one_connection(address, &request, LOAD).await });
        }
        let mut latencies = Latencies::default();
        while let Some(done) = clients.join_next().await {
            latencies.extend(done??);
        }
        let rate = latencies.len() as f64 / begun.elapsed().as_secs_f64();
        report.figure(&format!("{name}/p50"), latencies.p50(), "ms", Target::None)?;
        report.figure(&format!("{name}/p99"), latencies.p99(), "ms", target)?;
        report.figure(&format!("{name}/rate"), rate, "/s", Target::None)?;
    }
    drop(agents);
    Ok(())
}
