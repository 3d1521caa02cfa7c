//! Quick calls beside slow ones.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    http::{Connection, request},
    lab::{Agent, Lab, Master, sign_in},
    process::Pin,
    report::{Report, Target},
    stats::{Latencies, unchanged},
};

/// How long each side of a comparison goes on.
const LOAD: Duration = Duration::from_secs(4);
/// Between two calls of one kind: these are people and monitors, no load test.
const PAUSE: Duration = Duration::from_millis(5);
/// VMs in the making at any moment.
const CREATORS: usize = 4;
struct Quick {
    list: Latencies,
    health: Latencies,
    sign_in: Latencies,
}

/// List, health and sign-in: idle, and while VMs are made by the old blocking call.
pub(crate) async fn busy(report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::new()?;
    let mut master = lab
        .master(
            "up",
            &["--driver", "fake", "--fake", "vms=20,latency=200ms"],
            Pin::Anywhere,
        )
        .await?;
    let agent = lab.agent(&master, "far", "vms=20,latency=200ms", Pin::Anywhere)?;
    master.knows(2, 40, Duration::from_secs(30)).await?;

    let mut idle = quick(&master).await?;
    let mut creators = JoinSet::new();
    for n in 0..CREATORS {
        creators.spawn(create_for_ever(
            master.address,
            master.bearer.clone(),
            (n % 2 == 0).then(|| agent.id.clone()),
            n,
        ));
    }
    let mut busy = quick(&master).await?;
    let made = creators_result(&mut creators, &agent, &master).await?;
    report.note(&format!(
        "{CREATORS} VMs in the making at a time, {made} made meanwhile"
    ))?;

    for (name, idle, busy) in [
        ("busy/list", &mut idle.list, &mut busy.list),
        ("busy/health", &mut idle.health, &mut busy.health),
        ("busy/sign_in", &mut idle.sign_in, &mut busy.sign_in),
    ] {
        report.figure(&format!("{name}_idle/p50"), idle.p50(), "ms", Target::None)?;
        let target = Target::Below(unchanged::p50(idle));
        report.figure(&format!("{name}/p50"), busy.p50(), "ms", target)?;
        let target = Target::Below(unchanged::p99(idle));
        report.figure(&format!("{name}/p99"), busy.p99(), "ms", target)?;
    }
    Ok(())
}

async fn quick(master: &Master) -> anyhow::Result<Quick> {
    let list = master.request("GET", "/api/vm/list", None);
    let health = request("GET", "/health", &[], None);
    let (list, health, sign_in) = tokio::try_join!(
        paced(master.address, list, PAUSE, LOAD),
        paced(master.address, health, PAUSE, LOAD),
        // Hashing a password takes a good part of a CPU on purpose.
        paced(master.address, sign_in(), PAUSE * 40, LOAD),
    )?;
    Ok(Quick {
        list,
        health,
        sign_in,
    })
}

/// The same request again and again with pauses.
pub(crate) async fn paced(
    address: SocketAddr,
    request: Vec<u8>,
    pause: Duration,
    load: Duration,
) -> anyhow::Result<Latencies> {
    let mut connection = Connection::open(address).await?;
    let mut latencies = Latencies::default();
    let begun = Instant::now();
    while begun.elapsed() < load {
        let asked = Instant::now();
        let answer = connection.send(&request).await?;
        latencies.push(asked.elapsed());
        answer.good()?;
        tokio::time::sleep(pause).await;
    }
    Ok(latencies)
}

/// Makes VMs one after another by the old call, which answers when the VM runs.
async fn create_for_ever(
    address: SocketAddr,
    bearer: String,
    agent: Option<String>,
    number: usize,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(address).await?;
    for n in 0_u32.. {
        let body =
            json!({"name": format!("busy-{number}-{n}"), "image": "tiny", "agent_id": agent});
        let create = request(
            "POST",
            "/api/vm/create",
            &[("Authorization", &bearer)],
            Some(&body),
        );
        connection.send(&create).await?.good()?;
    }
    Ok(())
}

/// How many VMs the creators made; an error when one of them had one.
async fn creators_result(
    creators: &mut JoinSet<anyhow::Result<()>>,
    agent: &Agent,
    master: &Master,
) -> anyhow::Result<u64> {
    if let Some(ended) = creators.try_join_next() {
        ended??;
    }
    creators.shutdown().await;
    let mut made = 0;
    for id in ["local", &agent.id] {
        let list = master
            .call("GET", &format!("/api/v1/vms?agent={id}&limit=1"), None)
            .await?;
        made += list["counts"]["total"]
            .as_u64()
            .unwrap_or(0)
            .saturating_sub(20);
    }
    anyhow::ensure!(made > 0, "no VM was made");
    Ok(made)
}
